//! A board: the hardware around an agent. It has a power switch, a reset button and a watchdog, and
//! knows nothing of updates; what it starts is the word of its boot loader.

use core::time::Duration;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use rekindle_flash::SlotId;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::firmware::Start;
use super::loader::{Boot, Loader, Reason};
use super::screen::Teller;

/// A board, before its power is switched on.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) loader: Loader,
    /// The folder of the device, where its agent runs.
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
    pub(super) teller: Teller,
    pub(super) gauge: watch::Sender<Gauge>,
    /// Each message kills the agent's process, as a bug in it would.
    pub(super) crashes: mpsc::Receiver<()>,
}

/// What can be seen of a board from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gauge {
    /// Times that the boot loader ran.
    pub(super) boots: u32,
    /// Times that an agent's process was started.
    pub(super) starts: u32,
    /// What the boot loader started last, while the power is on.
    pub(super) running: Option<(SlotId, String)>,
    /// Whether the firmware hangs, and the watchdog has yet to bite.
    pub(super) hangs: bool,
    /// Times that the watchdog bit.
    pub(super) bites: u32,
}

impl Board {
    /// Runs the board until `off` says true. Its processes have ended when this returns.
    ///
    /// # Errors
    ///
    /// When the board cannot go on: nothing boots, or its agent ends again and again.
    pub(super) async fn run(mut self, mut off: watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            let boot = self.power_on().await?;
            let ended = match boot.start {
                Start::Agent => self.run_agent(&boot, &mut off).await?,
                Start::Hang => self.hang(&boot, &mut off).await,
            };
            if matches!(ended, Ended::Off) {
                return Ok(());
            }
        }
    }

    async fn power_on(&self) -> anyhow::Result<Boot> {
        let loader = self.loader.clone();
        let boot = tokio::task::spawn_blocking(move || loader.step())
            .await
            .context("the boot loader crashed")?
            .context("the boot loader cannot go on")?;
        self.gauge.send_modify(|gauge| {
            gauge.boots += 1;
            gauge.running = Some((boot.slot, boot.build.clone()));
        });
        let Boot { slot, build, .. } = &boot;
        self.teller.tell(match boot.reason {
            Reason::Confirmed => format!("boot loader: slot {slot} holds {build}, confirmed"),
            Reason::Attempt(attempt, of) => {
                format!("boot loader: slot {slot} holds {build}, attempt {attempt} of {of}")
            }
            Reason::FellBack => {
                format!("boot loader: no attempt left, back to {build} in slot {slot}")
            }
            Reason::Unbootable(chosen) => format!(
                "boot loader: slot {chosen} holds no complete image, back to {build} in slot {slot}"
            ),
        });
        Ok(boot)
    }

    /// Runs the agent until the reset button is pressed. An agent that just ends is started again
    /// as it was: that is no boot.
    async fn run_agent(
        &mut self,
        boot: &Boot,
        off: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<Ended> {
        let button = self.button()?;
        let mut early_ends = 0;
        loop {
            let since = Instant::now();
            let mut agent = self.start_agent(boot.slot)?;
            // Waiting would close it, and an agent whose input is closed ends.
            let input = agent.stdin.take();
            let ended = loop {
                tokio::select! {
                    _ = off.wait_for(|off| *off) => break None,
                    () = pressed(&button) => break None,
                    status = agent.wait() => break Some(status?),
                    Some(()) = self.crashes.recv() => agent.start_kill()?,
                }
            };
            let Some(status) = ended else {
                let is_off = *off.borrow();
                if is_off {
                    drop(input);
                    stop(agent).await;
                    return Ok(Ended::Off);
                }
                // The reset line of a processor asks nobody.
                agent.kill().await?;
                self.teller.tell("reset".to_owned());
                return Ok(Ended::PowerCycle);
            };
            early_ends = if since.elapsed() < EARLY {
                early_ends + 1
            } else {
                0
            };
            if early_ends >= EARLY_ENDS {
                bail!("the agent ends as soon as it is started ({status})");
            }
            self.teller.tell(format!(
                "the agent ended ({}), started again, no boot",
                cause(status)
            ));
            sleep(RESTART).await;
        }
    }

    /// What runs is a firmware that hangs; the watchdog ends it.
    async fn hang(&self, boot: &Boot, off: &mut watch::Receiver<bool>) -> Ended {
        self.teller.tell(format!(
            "firmware {} hangs before its agent starts",
            boot.build
        ));
        self.gauge.send_modify(|gauge| gauge.hangs = true);
        tokio::select! {
            _ = off.wait_for(|off| *off) => return Ended::Off,
            () = sleep(WATCHDOG) => {}
        }
        self.gauge.send_modify(|gauge| {
            gauge.hangs = false;
            gauge.bites += 1;
        });
        self.teller.tell("watchdog: power cycle".to_owned());
        Ended::PowerCycle
    }

    /// A button for each time the power comes on: what was pressed before is of no account.
    fn button(&self) -> anyhow::Result<UnixListener> {
        let path = self.folder.join(BUTTON);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        UnixListener::bind(&path)
            .with_context(|| format!("cannot listen on {} (is TMPDIR too long?)", path.display()))
    }

    fn start_agent(&self, slot: SlotId) -> anyhow::Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(LOG))?;
        let agent = Command::new(&self.program)
            .args(["demo-agent", "--config", CONFIG])
            .env("REKINDLE_SLOT", slot.to_string())
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            // Ctrl-C on the terminal is for the demo, which then switches its boards off.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.gauge.send_modify(|gauge| gauge.starts += 1);
        Ok(agent)
    }
}

/// How a stretch of running ended.
enum Ended {
    PowerCycle,
    Off,
}

/// Waits until the reset button was pressed and let go.
async fn pressed(button: &UnixListener) {
    loop {
        if let Ok((mut finger, _)) = button.accept().await {
            // Whoever presses ends right after: it needs no killing. A finger that stays is no reason to wait.
            let mut nothing = [0; 16];
            let _ = timeout(FINGER, finger.read(&mut nothing)).await;
            return;
        }
        sleep(RESTART).await;
    }
}

/// Lets an agent whose input is closed end by itself, and kills it if it does not.
async fn stop(mut agent: Child) {
    if timeout(GRACE, agent.wait()).await.is_err() {
        // It may end at this very moment; either way it is gone afterwards.
        let _ = agent.kill().await;
    }
}

fn cause(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "cause unknown".to_owned(),
    }
}

/// Names in the folder of a device.
pub(super) const BUTTON: &str = "button";
pub(super) const CONFIG: &str = "device.toml";
pub(super) const LOG: &str = "agent.log";

/// How long a firmware may hang. Real ones allow minutes.
const WATCHDOG: Duration = Duration::from_secs(1);

/// Before an agent that ended is started again.
const RESTART: Duration = Duration::from_millis(200);

/// An agent that ended sooner has done nothing.
const EARLY: Duration = Duration::from_secs(2);
const EARLY_ENDS: u32 = 5;

const FINGER: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(3);
