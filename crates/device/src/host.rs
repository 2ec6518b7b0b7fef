//! What only the vendor knows: how to restart, whether the device is idle and healthy, and commands of
//! its own.

use core::fmt;
use core::future::Future;
use core::time::Duration;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::{ExitStatus, Stdio};

use rekindle_state::UnixTime;
use rekindle_update::url::LocalTime;
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::clock::local_time;
use crate::config::{HostConfig, ProgramConfig};

/// The device around the agent. A vendor implements it, or configures programs ([`ProgramHost`]).
///
/// Every method ends within a time that the implementation bounds: the maintenance run waits for it.
/// The agent runs on one thread, so the futures need not be [`Send`].
pub trait Host {
    /// Restarts the device. Success means that the restart is under way; the agent then waits to be
    /// ended.
    ///
    /// # Errors
    ///
    /// The restart could not be started; the device goes on as it is.
    fn restart(&self, kind: Restart) -> impl Future<Output = Result<(), HostError>>;

    /// Whether an idle restart (`ireset`) may happen now.
    ///
    /// # Errors
    ///
    /// It cannot be told; the restart stays pending.
    fn is_idle(&self) -> impl Future<Output = Result<bool, HostError>>;

    /// Whether the running firmware does its work.
    ///
    /// # Errors
    ///
    /// It cannot be told, which counts as not healthy.
    fn health(&self) -> impl Future<Output = Result<Health, HostError>>;

    /// Runs a script line that the agent does not know. The line is the raw text, without its end.
    ///
    /// # Errors
    ///
    /// The line failed: the maintenance run goes on and CHECK stays unset.
    fn command(&self, line: &[u8]) -> impl Future<Output = Result<(), HostError>>;

    /// The configuration of the device as text, for a backup (`scfg`).
    ///
    /// # Errors
    ///
    /// There is nothing to back up; the line fails.
    fn configuration(&self) -> impl Future<Output = Result<Vec<u8>, HostError>>;

    /// Local time, for `times` and `#d`. The system's time zone unless a vendor knows better.
    fn local_time(&self, now: UnixTime) -> LocalTime {
        local_time(now)
    }
}

/// How deep a restart goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "scripts know these two")]
pub enum Restart {
    /// The `reset` family.
    Reset,
    /// `reboot` and `ireboot`: the boot loader starts anew too.
    Reboot,
}

/// What a health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// The firmware works: a trial may be confirmed.
    Healthy,
    /// It does not; the text says why where the check said so.
    Unhealthy(String),
    /// There is no check: having run for `health-seconds` counts as healthy.
    ByUptime,
}

/// A thing asked of the host; displays as its key in `[host]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostTask {
    /// A soft restart.
    Reset,
    /// A hard restart.
    Reboot,
    /// The idle question.
    Idle,
    /// The health check.
    Health,
    /// An unknown script line.
    Commands,
    /// The configuration for a backup.
    Config,
}

impl fmt::Display for HostTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::Reboot => "reboot",
            Self::Idle => "idle",
            Self::Health => "health",
            Self::Commands => "commands",
            Self::Config => "config",
        })
    }
}

/// Why the host did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// No program is configured for this.
    #[error("`host.{task}` is not configured")]
    NotConfigured {
        /// What was asked.
        task: HostTask,
    },
    /// The program could not be started: it is absent or not executable.
    #[error("cannot start {program} (`host.{task}`): {cause}")]
    Start {
        /// What was asked.
        task: HostTask,
        /// The program.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The program ran into its time limit and was killed, with all that it had started.
    #[error("{program} (`host.{task}`) did not end within {} s and was killed", .limit.as_secs())]
    TimedOut {
        /// What was asked.
        task: HostTask,
        /// The program.
        program: String,
        /// The time limit.
        limit: Duration,
    },
    /// The program ended with another status than 0.
    #[error("{program} (`host.{task}`) failed, {status}{}", Detail(.message))]
    Failed {
        /// What was asked.
        task: HostTask,
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last line of its standard error, cut to 200 characters; may be empty.
        message: String,
    },
    /// The program wrote more than fits into a backup.
    #[error("{program} (`host.{task}`) wrote more than {limit} bytes")]
    OutputTooLong {
        /// What was asked.
        task: HostTask,
        /// The program.
        program: String,
        /// The limit.
        limit: usize,
    },
    /// A script line cannot be an argument: it holds a zero byte.
    #[error("the line holds a zero byte, which no program argument can")]
    ZeroByte,
}

/// A [`Host`] made of programs, run one after the other, each with the time limit of the configuration.
///
/// A program runs in a process group of its own and is killed with all of it at the limit. It is
/// started directly, never through a shell. What it leaves running after a success stays: a reset
/// program may hand its work to the background.
#[derive(Debug)]
pub struct ProgramHost {
    config: HostConfig,
    turn: Mutex<()>,
}

impl ProgramHost {
    /// A host that runs the programs of `config`.
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        Self {
            config,
            turn: Mutex::new(()),
        }
    }

    async fn run(
        &self,
        task: HostTask,
        program: Option<&ProgramConfig>,
        argument: Option<&OsStr>,
        limit: usize,
    ) -> Result<Finished, HostError> {
        let program = program.ok_or(HostError::NotConfigured { task })?;
        let name = program.program.display().to_string();
        let _turn = self.turn.lock().await;
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .args(argument)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| HostError::Start {
                task,
                program: name.clone(),
                cause,
            })?;
        let mut group = Group::of(&child);
        let mut stdout = Capture::new(limit);
        let mut stderr = Capture::new(MESSAGE_LIMIT);
        let ended = wait(&mut child, &mut stdout, &mut stderr, self.config.timeout).await;
        let Some(status) = ended else {
            group.kill();
            // Reaps the process; SIGKILL leaves it no choice but a stuck system call.
            let _reaped = timeout(KILL_GRACE, child.wait()).await;
            warn!(%task, program = name, "the host program ran into its time limit");
            return Err(HostError::TimedOut {
                task,
                program: name,
                limit: self.config.timeout,
            });
        };
        group.release();
        let status = status.map_err(|cause| HostError::Start {
            task,
            program: name.clone(),
            cause,
        })?;
        let message = stderr.last_line();
        debug!(%task, program = name, %status, message, "the host program ended");
        Ok(Finished {
            task,
            program: name,
            status,
            message,
            stdout,
        })
    }
}

impl Host for ProgramHost {
    async fn restart(&self, kind: Restart) -> Result<(), HostError> {
        let (task, program) = match kind {
            Restart::Reset => (HostTask::Reset, &self.config.reset),
            Restart::Reboot => (HostTask::Reboot, &self.config.reboot),
        };
        let finished = self
            .run(task, program.as_ref(), None, MESSAGE_LIMIT)
            .await?;
        finished.success().map(drop)
    }

    async fn is_idle(&self) -> Result<bool, HostError> {
        let program = self.config.idle.as_ref();
        if program.is_none() {
            return Ok(true);
        }
        let finished = self
            .run(HostTask::Idle, program, None, MESSAGE_LIMIT)
            .await?;
        match finished.status.code() {
            Some(code) => Ok(code == 0),
            None => finished.success().map(|_| true),
        }
    }

    async fn health(&self) -> Result<Health, HostError> {
        let program = self.config.health.as_ref();
        if program.is_none() {
            return Ok(Health::ByUptime);
        }
        let finished = self
            .run(HostTask::Health, program, None, MESSAGE_LIMIT)
            .await?;
        match finished.status.code() {
            Some(0) => Ok(Health::Healthy),
            Some(_) => Ok(Health::Unhealthy(finished.message)),
            None => finished.success().map(|_| Health::Healthy),
        }
    }

    async fn command(&self, line: &[u8]) -> Result<(), HostError> {
        if line.contains(&0) {
            return Err(HostError::ZeroByte);
        }
        let program = self.config.commands.as_ref();
        let line = Some(OsStr::from_bytes(line));
        let finished = self
            .run(HostTask::Commands, program, line, MESSAGE_LIMIT)
            .await?;
        finished.success().map(drop)
    }

    async fn configuration(&self) -> Result<Vec<u8>, HostError> {
        let program = self.config.configuration.as_ref();
        let task = HostTask::Config;
        let finished = self.run(task, program, None, CONFIGURATION_LIMIT).await?;
        let finished = finished.success()?;
        if finished.stdout.overflowed {
            return Err(HostError::OutputTooLong {
                task,
                program: finished.program,
                limit: CONFIGURATION_LIMIT,
            });
        }
        Ok(finished.stdout.bytes)
    }
}

struct Finished {
    task: HostTask,
    program: String,
    status: ExitStatus,
    message: String,
    stdout: Capture,
}

impl Finished {
    fn success(self) -> Result<Self, HostError> {
        if self.status.success() {
            return Ok(self);
        }
        Err(HostError::Failed {
            task: self.task,
            program: self.program,
            status: self.status,
            message: self.message,
        })
    }
}

/// Waits for the end of the program while its output is read; `None` at the time limit.
async fn wait(
    child: &mut Child,
    stdout: &mut Capture,
    stderr: &mut Capture,
    limit: Duration,
) -> Option<io::Result<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut reading = core::pin::pin!(async {
        tokio::join!(stdout.fill(out), stderr.fill(err));
    });
    let mut drained = false;
    let status = timeout_at(deadline, async {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                () = &mut reading, if !drained => drained = true,
            }
        }
    })
    .await
    .ok()?;
    if !drained {
        // The rest of its output; not of a child that lives on and keeps the pipe open.
        let _rest = timeout(OUTPUT_GRACE, reading).await;
    }
    Some(status)
}

/// The first bytes of an output; the rest is read and dropped, so that the program never blocks.
struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
}

impl Capture {
    fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            overflowed: false,
        }
    }

    async fn fill(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            let room = self.limit.saturating_sub(self.bytes.len());
            self.bytes.extend(buffer.iter().take(count.min(room)));
            self.overflowed |= count > room;
        }
    }

    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let line = text.trim_end().lines().next_back().unwrap_or_default();
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        line.chars().map(plain).take(200).collect()
    }
}

/// The process group of a program, killed when it is dropped before the program's end.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It fails only when the whole group has ended by itself.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }

    fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.0)
        }
    }
}

/// Enough for the last words of a program that failed.
const MESSAGE_LIMIT: usize = 16 << 10;
/// As much as the update server takes by default would be more; a device's text configuration is less.
const CONFIGURATION_LIMIT: usize = 4 << 20;
const OUTPUT_GRACE: Duration = Duration::from_millis(250);
const KILL_GRACE: Duration = Duration::from_secs(2);
