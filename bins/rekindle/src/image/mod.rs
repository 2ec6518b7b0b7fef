//! `rekindle image`: firmware images.

mod diff;
mod inspect;
mod pack;
mod verify;

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use clap::Subcommand;
use rekindle_image::{Manifest, OpenError};
use serde::Serialize;

use crate::exit::Exit;
use crate::key_set::ShownKeySet;
use crate::output::bytes;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a signed image of a file.
    Pack(pack::Pack),
    /// Show what an image says about itself; nothing is verified.
    Inspect(inspect::Inspect),
    /// Check every byte of an image and its signatures.
    Verify(verify::Verify),
    /// Say what a device that holds OLD must fetch to get NEW.
    Diff(diff::Diff),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Pack(pack) => pack.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Verify(verify) => verify.run(),
            Self::Diff(diff) => diff.run(),
        }
    }
}

/// A manifest, to print.
#[derive(Serialize)]
struct ShownManifest {
    id: String,
    component: String,
    build: String,
    release: u64,
    security_version: u64,
    device_types: Vec<String>,
    hardware: Vec<String>,
    requires: Vec<ShownRequirement>,
    key_sets: Vec<ShownKeySet>,
    size: u64,
    stored_size: u64,
    chunks: u32,
    max_chunk: u32,
    table_root: String,
    stored_hash: String,
}

#[derive(Serialize)]
struct ShownRequirement {
    component: String,
    release: u64,
}

impl ShownManifest {
    fn new(id: rekindle_image::ManifestId, manifest: &Manifest) -> Self {
        Self {
            id: id.to_string(),
            component: manifest.component.clone(),
            build: manifest.build.clone(),
            release: manifest.release,
            security_version: manifest.security_version,
            device_types: manifest.device_types.clone(),
            hardware: manifest.hardware.clone(),
            requires: manifest
                .requires
                .iter()
                .map(|requirement| ShownRequirement {
                    component: requirement.component.clone(),
                    release: requirement.release,
                })
                .collect(),
            key_sets: manifest.key_sets.iter().map(ShownKeySet::new).collect(),
            size: manifest.size,
            stored_size: manifest.stored_size,
            chunks: manifest.table.chunks,
            max_chunk: manifest.table.max_chunk,
            table_root: manifest.table.root.to_string(),
            stored_hash: manifest.stored_hash.to_string(),
        }
    }

    fn human(&self) -> String {
        let hardware = if self.hardware.is_empty() {
            "any".to_owned()
        } else {
            self.hardware.join(", ")
        };
        let requires: String = self
            .requires
            .iter()
            .map(|r| {
                format!(
                    "requires          {} of release {} or later\n",
                    r.component, r.release
                )
            })
            .collect();
        let key_sets: String = self.key_sets.iter().map(|set| set.human() + "\n").collect();
        format!(
            "id                {}\n\
             component         {}\n\
             build             {}\n\
             release           {}\n\
             security version  {}\n\
             device types      {}\n\
             hardware          {hardware}\n\
             {requires}\
             {key_sets}\
             size              {} ({} bytes)\n\
             stored            {} ({} bytes)\n\
             chunks            {}, none longer than {}",
            self.id,
            self.component,
            self.build,
            self.release,
            self.security_version,
            self.device_types.join(", "),
            bytes(self.size),
            self.size,
            bytes(self.stored_size),
            self.stored_size,
            self.chunks,
            bytes(self.max_chunk.into()),
        )
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    anyhow::ensure!(
        !file.metadata().with_context(name)?.is_dir(),
        "{} is a folder",
        name()
    );
    Ok(file)
}

/// A file that cannot be read has no answer; one that is no image has the answer no.
fn refuse(path: &Path, error: OpenError) -> anyhow::Result<Exit> {
    match error {
        OpenError::Read(error) => Err(error).with_context(|| path.display().to_string()),
        error => Ok(say_no(path, &error)),
    }
}

fn say_no(path: &Path, why: &dyn core::error::Error) -> Exit {
    #[expect(clippy::print_stderr, reason = "the answer is no, and this is why")]
    {
        eprintln!("{}: {why}", path.display());
    }
    Exit::No
}
