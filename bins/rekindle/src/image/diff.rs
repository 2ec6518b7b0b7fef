use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rekindle_image::{CompareError, Comparison, ImageFile, Part, WalkError, compare};
use serde::Serialize;

use super::{open, refuse, say_no};
use crate::exit::Exit;
use crate::output::{Format, bytes};

#[derive(Args)]
pub(crate) struct Diff {
    /// The image that the device holds.
    old: PathBuf,
    /// The image that it shall get.
    new: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Diff {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut old = match ImageFile::open(open(&self.old)?) {
            Ok(image) => image,
            Err(error) => return refuse(&self.old, error),
        };
        let mut new = match ImageFile::open(open(&self.new)?) {
            Ok(image) => image,
            Err(error) => return refuse(&self.new, error),
        };
        let comparison = match compare(&mut old, &mut new) {
            Ok(comparison) => comparison,
            Err(CompareError::Old(WalkError::Read(error))) => {
                return Err(error).with_context(|| self.old.display().to_string());
            }
            Err(CompareError::New(WalkError::Read(error))) => {
                return Err(error).with_context(|| self.new.display().to_string());
            }
            Err(error @ CompareError::Old(_)) => return Ok(say_no(&self.old, &error)),
            Err(error) => return Ok(say_no(&self.new, &error)),
        };
        let whole = new.signed().unverified();
        let shown = Shown::new(&comparison, whole.size, whole.stored_size);
        self.format.print(&shown, Shown::human)?;
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Shown {
    size: u64,
    stored_size: u64,
    shared: ShownPart,
    repeated: ShownPart,
    fetch: ShownPart,
    table_bytes: u64,
    requests: u32,
    transfer: u64,
}

#[derive(Serialize)]
struct ShownPart {
    chunks: u32,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl Shown {
    fn new(comparison: &Comparison, size: u64, stored_size: u64) -> Self {
        let part = |part: &Part| ShownPart {
            chunks: part.chunks,
            raw_bytes: part.raw_bytes,
            stored_bytes: part.stored_bytes,
        };
        Self {
            size,
            stored_size,
            shared: part(&comparison.shared),
            repeated: part(&comparison.repeated),
            fetch: part(&comparison.fetch),
            table_bytes: comparison.table_bytes,
            requests: comparison.requests,
            transfer: comparison.transfer,
        }
    }

    fn human(&self) -> String {
        let line = |name, part: &ShownPart| {
            let raw = bytes(part.raw_bytes);
            format!("{name:<9} {:>7} chunks {raw:>12}", part.chunks)
        };
        let named = |name, count| format!("{name:<9} {:>27}", bytes(count));
        format!(
            "{}\n{}\n{}\n{}\n{} in {} requests, {} stored bytes of chunks among them, instead of {}",
            line("shared", &self.shared),
            line("repeated", &self.repeated),
            line("to fetch", &self.fetch),
            named("table", self.table_bytes),
            named("transfer", self.transfer),
            self.requests,
            self.fetch.stored_bytes,
            bytes(self.stored_size),
        )
    }
}
