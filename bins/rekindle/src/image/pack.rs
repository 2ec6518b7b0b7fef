use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use rekindle_image::{Compression, PackOptions, Requirement, SecretKey, SignedKeySet};

use super::{ShownManifest, open};
use crate::exit::Exit;
use crate::key_set;
use crate::output::Format;
use crate::progress::Watched;

#[derive(Args)]
pub(crate) struct Pack {
    /// The file that shall lie in the slot; `-` is standard input.
    input: PathBuf,
    /// Where the image goes.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// A secret key to sign with; several sign together.
    #[arg(long = "key", value_name = "KEY", required_unless_present = "unsigned")]
    keys: Vec<PathBuf>,
    /// Make an image without a signature; devices refuse it unless their vendor configured otherwise.
    #[arg(long, conflicts_with = "keys")]
    unsigned: bool,
    /// A device type that it is for; several may be given.
    #[arg(long = "device-type", value_name = "TYPE", required = true)]
    device_types: Vec<String>,
    /// A hardware revision that it runs on; several may be given, none means any.
    #[arg(long, value_name = "REVISION")]
    hardware: Vec<String>,
    /// The component that it is: prot, boot, bmc or your own.
    #[arg(long, value_name = "NAME")]
    component: String,
    /// The build, as people call it.
    #[arg(long)]
    build: String,
    /// Orders the builds of the component; it only rises.
    #[arg(long, value_name = "N", default_value_t = 0)]
    release: u64,
    /// Raise it when older builds must not come back.
    #[arg(long, value_name = "N", default_value_t = 0)]
    security_version: u64,
    /// A component that must run beside it in this release or later; several may be given.
    #[arg(long, value_name = "COMPONENT=RELEASE", value_parser = parse_requirement)]
    requires: Vec<Requirement>,
    /// Average length of a chunk: a power of two from 4 KiB to 512 KiB.
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = parse_size)]
    chunk_size: u32,
    /// Cut only at multiples of this: a power of two up to the chunk size.
    #[arg(long, value_name = "SIZE", default_value = "1", value_parser = parse_size)]
    align: u32,
    /// zstd's level, 1 to 22, or `none` to store every chunk raw.
    #[arg(long, value_name = "LEVEL", default_value = "19", value_parser = parse_compression)]
    compression: Compression,
    /// A key set made by `key set`; give all that lead from the keys of the oldest device to those that sign.
    #[arg(long = "key-set", value_name = "FILE")]
    key_sets: Vec<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Pack {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let keys = self
            .keys
            .iter()
            .map(|path| read_secret(path))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let options = PackOptions {
            device_types: self.device_types,
            hardware: self.hardware,
            component: self.component,
            build: self.build,
            release: self.release,
            security_version: self.security_version,
            key_sets: read_key_sets(&self.key_sets)?,
            requires: self.requires,
            chunk_size: self.chunk_size,
            align: self.align,
            compression: self.compression,
        };
        let (input, len): (Box<dyn Read>, _) = if self.input == Path::new("-") {
            (Box::new(io::stdin().lock()), None)
        } else {
            let file = open(&self.input)?;
            // A device or a pipe says 0, which is no length.
            let len = file.metadata()?.len();
            (Box::new(file), Some(len).filter(|len| *len > 0))
        };
        for path in self.keys.iter().chain(&self.key_sets).chain([&self.input]) {
            if is_same_file(path, &self.output) {
                bail!("{} would be overwritten by the image", path.display());
            }
        }
        let input = Watched::new(input, "packing", len);
        let packed = rekindle_image::pack(input, &self.output, &options, &keys)
            .with_context(|| format!("{} is not made", self.output.display()))?;
        let shown = ShownManifest::new(packed.id, &packed.manifest);
        self.format.print(&shown, ShownManifest::human)?;
        Ok(Exit::Done)
    }
}

/// The files may come in any order: the numbers say it.
fn read_key_sets(paths: &[PathBuf]) -> anyhow::Result<Vec<SignedKeySet>> {
    let mut sets = paths
        .iter()
        .map(|path| key_set::read(path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    sets.sort_by_key(|set| set.unverified().number());
    Ok(sets)
}

fn read_secret(path: &Path) -> anyhow::Result<SecretKey> {
    let name = || path.display().to_string();
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).with_context(name)?);
    SecretKey::parse_file(&text).with_context(name)
}

fn parse_size(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u32 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        other => return Err(format!("unknown unit {other:?}; B, KiB and MiB are known")),
    };
    let number: u32 = digits.parse().map_err(|_| "expected a number".to_owned())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "too large".to_owned())
}

fn parse_requirement(text: &str) -> Result<Requirement, String> {
    let (component, release) = text
        .split_once('=')
        .ok_or("expected COMPONENT=RELEASE, as in boot=7")?;
    Ok(Requirement {
        component: component.to_owned(),
        release: release
            .parse()
            .map_err(|_| "the release must be a number".to_owned())?,
    })
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    if text == "none" {
        return Ok(Compression::None);
    }
    let level = text
        .parse()
        .map_err(|_| "expected a level from 1 to 22, or none".to_owned())?;
    Ok(Compression::Zstd { level })
}

/// Whether two paths lead to the same file. A path that leads nowhere is another one.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        for (text, size) in [
            ("1", Ok(1)),
            ("4096", Ok(4096)),
            ("16KiB", Ok(16384)),
            ("16 KiB", Ok(16384)),
            ("1M", Ok(1 << 20)),
            (
                "5GiB",
                Err("unknown unit \"GiB\"; B, KiB and MiB are known"),
            ),
            ("5000MiB", Err("too large")),
            ("KiB", Err("expected a number")),
        ] {
            assert_eq!(parse_size(text), size.map_err(str::to_owned), "{text}");
        }
    }
}
