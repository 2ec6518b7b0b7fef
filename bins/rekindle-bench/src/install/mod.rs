//! `rekindle-bench install`: what verifying, reading back and booking an install costs over a bare copy.

mod report;
mod stage;

use core::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use self::report::{Report, Side, Sides};
use self::stage::Stage;
use crate::exit::Exit;
use crate::format::Format;
use crate::process::{Watched, timed};
use crate::samples::Samples;
use crate::size::Size;
use crate::{medium, programs};

/// The command line of the comparison.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// Bytes of firmware in the image.
    #[arg(long, default_value = "256 MiB")]
    size: Size,

    /// Runs of each side; their median counts. One more of each warms up and is checked byte by byte.
    #[arg(long, default_value = "7")]
    runs: NonZeroUsize,

    /// The highest ratio of the medians that is good enough.
    #[arg(long, default_value = "1.4", value_parser = ratio)]
    target: f64,

    /// A folder on a disk for image, slots and copies [default: where this program lies].
    #[arg(long)]
    dir: Option<PathBuf>,

    /// The folder of rekindled and rekindle-server [default: where this program lies].
    #[arg(long)]
    bin_dir: Option<PathBuf>,

    /// What the result looks like.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

impl Install {
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        let bin_dir = programs::folder(self.bin_dir.as_deref())?;
        let programs = Programs {
            rekindled: programs::own(&bin_dir, "rekindled")?,
            server: programs::own(&bin_dir, "rekindle-server")?,
            curl: programs::peer("curl")?,
            dd: programs::peer("dd")?,
        };
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => programs::folder(None)?,
        };
        let file_system = medium::file_system(&dir)?;
        self.format
            .progress(&format!("packing an image of {}", self.size));
        let stage = Stage::set(&dir, self.size)?;
        let server = stage.serve(&programs.server)?;
        let url = server.url("image.bin");

        let mut installs = Vec::new();
        let mut copies = Vec::new();
        for round in 0..=self.runs.get() {
            // Each side goes first every other time, so that a machine that slows down or warms up favours neither.
            for install_now in [round % 2 == 0, round % 2 == 1] {
                stage.clear()?;
                let name = if round == 0 {
                    "warm-up".to_owned()
                } else {
                    format!("run {round} of {}", self.runs)
                };
                if install_now {
                    let run = programs.install(&stage, &url)?;
                    self.format
                        .progress(&format!("{name}: install {}", run.seconds()));
                    installs.push(run);
                } else {
                    let run = programs.copy(&stage, &url)?;
                    self.format
                        .progress(&format!("{name}: curl | dd {}", run.seconds()));
                    copies.push(run);
                }
                if round == 0 {
                    stage.check_written(install_now)?;
                }
            }
        }
        let server_peak = server.stop()?;
        let report = Report::new(
            self.size.0,
            self.target,
            &file_system,
            Sides {
                install: side(&installs[1..], self.size)?,
                copy: side(&copies[1..], self.size)?,
                server_peak,
            },
        );
        self.format
            .print(&report)
            .context("cannot print the result")?;
        Ok(if report.is_met() {
            Exit::Met
        } else {
            Exit::Missed
        })
    }
}

/// The programs that take part.
#[derive(Debug)]
struct Programs {
    rekindled: PathBuf,
    server: PathBuf,
    curl: PathBuf,
    dd: PathBuf,
}

impl Programs {
    /// `rekindled install`: verified, written, synced, read back, booked.
    fn install(&self, stage: &Stage, url: &str) -> anyhow::Result<Run> {
        let mut command = Command::new(&self.rekindled);
        command
            .arg("--config")
            .arg(stage.config())
            .args(["install", url])
            .env(stage::RUNNING_VARIABLE, "A")
            .stdout(Stdio::null());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let (time, peak) = timed(|| Watched::start("rekindled", &mut command)?.finish())?;
        Ok(Run {
            time,
            peaks: vec![("rekindled", peak)],
        })
    }

    /// `curl -s URL | dd of=FILE bs=1M conv=fsync`, without a shell between them.
    fn copy(&self, stage: &Stage, url: &str) -> anyhow::Result<Run> {
        let mut output = std::ffi::OsString::from("of=");
        output.push(stage.copy());
        let (time, peaks) = timed(|| {
            let mut curl = Watched::start(
                "curl",
                Command::new(&self.curl)
                    .args(["--silent", "--show-error", "--fail", url])
                    .stdout(Stdio::piped()),
            )?;
            let body = curl.child().stdout.take().context("curl has no output")?;
            let dd = Watched::start(
                "dd",
                Command::new(&self.dd)
                    .arg(output)
                    .args(["bs=1M", "conv=fsync", "status=none"])
                    .stdin(body),
            )?;
            Ok(vec![("curl", curl.finish()?), ("dd", dd.finish()?)])
        })?;
        Ok(Run { time, peaks })
    }
}

/// One run of one side.
#[derive(Debug)]
struct Run {
    time: core::time::Duration,
    /// Program and peak of its resident memory in bytes.
    peaks: Vec<(&'static str, u64)>,
}

impl Run {
    fn seconds(&self) -> String {
        format!("{:.3} s", self.time.as_secs_f64())
    }
}

/// The highest peak of all runs counts.
fn side(runs: &[Run], size: Size) -> anyhow::Result<Side> {
    let times: Vec<_> = runs.iter().map(|run| run.time).collect();
    let mut peaks = runs.first().context("there was no run")?.peaks.clone();
    for run in runs {
        for (highest, (_, peak)) in peaks.iter_mut().zip(&run.peaks) {
            highest.1 = highest.1.max(*peak);
        }
    }
    Ok(Side::new(Samples::new(&times), size.0, peaks))
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio: &f64| ratio.is_finite() && *ratio > 0.0)
        .ok_or_else(|| "expected a number above 0".to_owned())
}
