//! Our own side: the agent on a device with two slots, of which A runs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::stage::{self, Stage};
use crate::process::Watched;
use crate::race::Contender;

/// A device in a folder of its own.
#[derive(Debug)]
pub(super) struct Device<'a> {
    stage: &'a Stage,
    rekindled: &'a Path,
    folder: PathBuf,
}

impl<'a> Device<'a> {
    pub(super) fn new(stage: &'a Stage, rekindled: &'a Path, folder: PathBuf) -> Self {
        Self {
            stage,
            rekindled,
            folder,
        }
    }

    /// Makes it anew, with nothing installed.
    pub(super) fn reset(&self) -> anyhow::Result<()> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).context("cannot remove a device")?;
        }
        self.stage.configure(&self.folder)
    }

    /// Makes it anew, with the slot A of another, which it reads and never writes.
    pub(super) fn reset_with_slot_of(&self, other: &Self) -> anyhow::Result<()> {
        self.reset()?;
        std::fs::hard_link(other.slot('a'), self.slot('a')).context("cannot lend a slot")
    }

    /// The file of a slot.
    pub(super) fn slot(&self, letter: char) -> PathBuf {
        self.folder.join(format!("slot-{letter}.img"))
    }

    /// Runs `rekindled` with these arguments while slot `running` runs. Returns the peak of its resident memory in bytes.
    pub(super) fn call(&self, running: &str, arguments: &[&str]) -> anyhow::Result<u64> {
        let log = self.folder.join("log");
        let said = File::create(&log).context("cannot write a device's log")?;
        let errors = said.try_clone().context("cannot write a device's log")?;
        let mut command = Command::new(self.rekindled);
        command
            .arg("--config")
            .arg(self.folder.join("device.toml"))
            .args(arguments)
            .env(stage::RUNNING_VARIABLE, running)
            .stdout(said)
            .stderr(errors);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        Watched::start("rekindled", &mut command)?
            .finish()
            .with_context(|| format!("rekindled said: {}", stage::tail(&log)))
    }
}

/// Installs an image into slot B.
#[derive(Debug)]
pub(super) struct Install<'a> {
    pub(super) device: Device<'a>,
    pub(super) url: String,
    /// What the slot should hold afterwards.
    pub(super) expected: &'a Path,
    /// The device whose slot A this one has.
    pub(super) donor: Option<&'a Device<'a>>,
}

impl Contender for Install<'_> {
    fn name(&self) -> &'static str {
        "rekindled install"
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let Some(donor) = self.donor else {
            self.device.reset()?;
            return Stage::settle(&[]);
        };
        self.device.reset_with_slot_of(donor)?;
        Stage::settle(&[&self.device.slot('a')])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        self.device.call("A", &["install", &self.url]).map(Some)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.device
            .stage
            .check(self.expected, &self.device.slot('b'))
    }
}

/// Repairs slot A, of which a block goes bad before each run.
#[derive(Debug)]
pub(super) struct Repair<'a> {
    pub(super) device: Device<'a>,
    pub(super) url: String,
    pub(super) expected: &'a Path,
    /// Where in the slot the bad block lies.
    pub(super) damage: u64,
}

impl Repair<'_> {
    /// Fetches from `url` what it needs.
    pub(super) fn repair_from(&self, url: &str) -> anyhow::Result<u64> {
        self.device.call("B", &["repair", url])
    }
}

impl Contender for Repair<'_> {
    fn name(&self) -> &'static str {
        "rekindled repair"
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let slot = self.device.slot('a');
        OpenOptions::new()
            .write(true)
            .open(&slot)
            .and_then(|file| file.write_all_at(&[0xff; 4096], self.damage))
            .context("cannot damage a slot")?;
        Stage::settle(&[&slot])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        self.repair_from(&self.url).map(Some)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.device
            .stage
            .check(self.expected, &self.device.slot('a'))
    }
}

/// Looks at everything in slot A; B is empty.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) device: Device<'a>,
}

impl Contender for Scan<'_> {
    fn name(&self) -> &'static str {
        "rekindled scrub"
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        Stage::settle(&[&self.device.slot('a')])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        self.device.call("A", &["scrub"]).map(Some)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
