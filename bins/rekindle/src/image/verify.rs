use core::num::NonZeroU8;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rekindle_image::{PublicKey, Report, Signed, Trust, Unsigned, VerifyImageError, verify_image};
use serde::Serialize;

use super::{ShownManifest, open, say_no};
use crate::exit::Exit;
use crate::output::{Format, bytes};
use crate::progress::Watched;

#[derive(Args)]
pub(crate) struct Verify {
    /// The image.
    file: PathBuf,
    /// A file of public keys that are trusted, one a line; several may be given.
    #[arg(long = "key", value_name = "KEY.pub", required = true)]
    keys: Vec<PathBuf>,
    /// How many different ones of the keys must have signed it.
    #[arg(long, value_name = "N", default_value = "1")]
    threshold: NonZeroU8,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let trust = self.trust()?;
        let file = open(&self.file)?;
        let len = file.metadata()?.len();
        match verify_image(Watched::new(file, "verifying", Some(len)), &trust) {
            Ok(report) => {
                self.format
                    .print(&Shown::valid(&report), |_| self.human(&report))?;
                Ok(Exit::Done)
            }
            Err(VerifyImageError::Read(error)) => {
                Err(error).with_context(|| self.file.display().to_string())
            }
            Err(error) => match self.format {
                Format::Human => Ok(say_no(&self.file, &error)),
                Format::Json => {
                    self.format
                        .print(&Shown::invalid(&error), |_| String::new())?;
                    Ok(Exit::No)
                }
            },
        }
    }

    fn trust(&self) -> anyhow::Result<Trust> {
        let mut keys = Vec::new();
        for path in &self.keys {
            let name = || path.display().to_string();
            let text = fs::read_to_string(path).with_context(name)?;
            for key in PublicKey::parse_file(&text).with_context(name)? {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        anyhow::ensure!(
            usize::from(self.threshold.get()) <= keys.len(),
            "a threshold of {} cannot be met by {} different keys",
            self.threshold,
            keys.len()
        );
        Ok(Trust {
            keys,
            threshold: self.threshold,
            unsigned: Unsigned::Refuse,
        })
    }

    fn human(&self, report: &Report) -> String {
        format!(
            "{}: good: {} {}, {} in {} chunks, {} of them compressed, signed by {}",
            self.file.display(),
            report.manifest.component,
            report.manifest.build,
            bytes(report.manifest.size),
            report.manifest.table.chunks,
            report.compressed,
            match signers(report) {
                1 => "1 trusted key".to_owned(),
                count => format!("{count} trusted keys"),
            }
        )
    }
}

fn signers(report: &Report) -> u8 {
    match report.signed {
        Signed::By(count) => count,
        Signed::Unsigned => 0,
    }
}

#[derive(Serialize)]
struct Shown {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    manifest: Option<ShownManifest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed_chunks: Option<u32>,
}

impl Shown {
    fn valid(report: &Report) -> Self {
        Self {
            valid: true,
            error: None,
            manifest: Some(ShownManifest::new(report.id, &report.manifest)),
            signed_by: Some(signers(report)),
            compressed_chunks: Some(report.compressed),
        }
    }

    fn invalid(error: &VerifyImageError) -> Self {
        Self {
            valid: false,
            error: Some(error.to_string()),
            manifest: None,
            signed_by: None,
            compressed_chunks: None,
        }
    }
}
