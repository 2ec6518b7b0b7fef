//! Running programs under watch: how long they take and how much memory they use.

use core::time::Duration;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, bail};

/// A program under watch. Dropped before its end, it is killed.
#[derive(Debug)]
pub(crate) struct Watched {
    name: String,
    child: Child,
    stop: mpsc::Sender<()>,
    sampler: Option<JoinHandle<Option<u64>>>,
}

impl Watched {
    /// Starts `command`.
    pub(crate) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (stop, stopped) = mpsc::channel();
        let status = File::open(format!("/proc/{}/status", child.id()))
            .with_context(|| format!("cannot read what /proc says of {name}"))?;
        let sampler = Some(thread::spawn(move || sample(&status, &stopped)));
        Ok(Self {
            name: name.to_owned(),
            child,
            stop,
            sampler,
        })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end, which must be a success. Returns the peak of its resident memory in bytes.
    pub(crate) fn finish(mut self) -> anyhow::Result<u64> {
        let name = self.name.clone();
        let status = self
            .child
            .wait()
            .with_context(|| format!("cannot wait for {name}"))?;
        self.check(status)?;
        self.peak_rss()
    }

    /// Ends it. Returns the peak of its resident memory in bytes.
    pub(crate) fn kill(mut self) -> anyhow::Result<u64> {
        let name = self.name.clone();
        if let Some(status) = self
            .child
            .try_wait()
            .with_context(|| format!("cannot look at {name}"))?
        {
            bail!("{name} ended by itself: {status}");
        }
        let peak = self.peak_rss();
        self.end();
        peak
    }

    fn check(&self, status: ExitStatus) -> anyhow::Result<()> {
        if !status.success() {
            bail!("{} failed: {status}", self.name);
        }
        Ok(())
    }

    fn peak_rss(&mut self) -> anyhow::Result<u64> {
        let _: Result<(), _> = self.stop.send(());
        self.sampler
            .take()
            .and_then(|sampler| sampler.join().ok())
            .flatten()
            .with_context(|| format!("{} ended before its memory could be looked at", self.name))
    }

    fn end(&mut self) {
        // It may have ended already.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
    }
}

/// Calls `work` and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Duration, T)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a program that measures reads the clock"
    )]
    let now = Instant::now;
    let start = now();
    let result = work()?;
    Ok((now() - start, result))
}

/// Reads the peak again and again until told to stop: `/proc` forgets it as soon as the process ends. The open file belongs
/// to this process, whoever gets its number later.
fn sample(status: &File, stopped: &mpsc::Receiver<()>) -> Option<u64> {
    let mut peak = None;
    loop {
        let mut text = [0; 4096];
        let len = status.read_at(&mut text, 0).unwrap_or(0);
        peak = peak_in(&String::from_utf8_lossy(&text[..len])).or(peak);
        match stopped.recv_timeout(SAMPLE_TIME) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return peak,
        }
    }
}

/// The peak of resident memory in bytes, as the kernel keeps it (`VmHWM`).
fn peak_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The kernel keeps the peak itself, so this bounds only what the last moments may add unseen.
const SAMPLE_TIME: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_peak_of_resident_memory() {
        let status = "Name:\tcurl\nVmPeak:\t  9000 kB\nVmHWM:\t    8124 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(peak_in(status), Some(8124 * 1024));
        assert_eq!(peak_in("Name:\tzombie\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn a_program_that_fails_is_an_error_that_names_it() {
        let watched = Watched::start("false(1)", &mut Command::new("false")).unwrap();
        let error = watched.finish().unwrap_err().to_string();
        assert_eq!(error, "false(1) failed: exit status: 1");
    }

    #[test]
    fn a_program_that_runs_for_a_while_has_a_peak() {
        let mut command = Command::new("sleep");
        let watched = Watched::start("sleep", command.arg("0.1")).unwrap();
        assert!(watched.finish().unwrap() > 4096);
    }
}
