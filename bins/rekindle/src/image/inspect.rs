use std::path::PathBuf;

use clap::Args;
use rekindle_image::ImageFile;
use serde::Serialize;

use super::{ShownManifest, open, refuse};
use crate::exit::Exit;
use crate::output::Format;

#[derive(Args)]
pub(crate) struct Inspect {
    /// The image.
    file: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let image = match ImageFile::open(open(&self.file)?) {
            Ok(image) => image,
            Err(error) => return refuse(&self.file, error),
        };
        let signed = image.signed();
        let shown = Shown {
            manifest: ShownManifest::new(signed.id(), signed.unverified()),
            signers: signed.signers().map(|id| id.to_string()).collect(),
            file_len: image.layout().file_len,
            table_offset: image.layout().table.start,
            chunks_offset: image.layout().chunks.start,
        };
        self.format.print(&shown, Shown::human)?;
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    manifest: ShownManifest,
    signers: Vec<String>,
    file_len: u64,
    table_offset: u64,
    chunks_offset: u64,
}

impl Shown {
    fn human(&self) -> String {
        let signers = if self.signers.is_empty() {
            "nobody".to_owned()
        } else {
            format!("{} (not checked)", self.signers.join(", "))
        };
        format!(
            "{}\n\
             file              {} bytes: table at {}, chunks at {}\n\
             signed by         {signers}",
            self.manifest.human(),
            self.file_len,
            self.table_offset,
            self.chunks_offset,
        )
    }
}
