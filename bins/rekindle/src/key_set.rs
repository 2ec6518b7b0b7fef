//! `rekindle key set`: the keys that count after those that devices have.

use core::num::NonZeroU8;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rekindle_image::{KeySet, PublicKey, SecretKey, SignedKeySet};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::Format;

#[derive(Args)]
pub(crate) struct Set {
    /// Its place in the chain: 1 for the first that follows the keys that devices were made with, then one more for each.
    #[arg(long, value_name = "N")]
    number: u64,
    /// How many different ones of the new keys must sign an image.
    #[arg(long, value_name = "T", default_value = "1")]
    threshold: NonZeroU8,
    /// A file with public keys of the new set; several may be given.
    #[arg(long = "key", value_name = "NEW.pub", required = true)]
    keys: Vec<PathBuf>,
    /// A secret key of the set before; as many as its threshold asks.
    #[arg(long = "sign", value_name = "OLD", required = true)]
    signers: Vec<PathBuf>,
    /// Where the set goes; it must not exist.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Set {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let mut keys = Vec::new();
        for path in &self.keys {
            let name = || path.display().to_string();
            let text = fs::read_to_string(path).with_context(name)?;
            keys.extend(PublicKey::parse_file(&text).with_context(name)?);
        }
        let mut signers: Vec<SecretKey> = Vec::new();
        for path in &self.signers {
            let name = || path.display().to_string();
            let text = zeroize::Zeroizing::new(fs::read_to_string(path).with_context(name)?);
            let key = SecretKey::parse_file(&text).with_context(name)?;
            anyhow::ensure!(
                signers.iter().all(|known| known.public() != key.public()),
                "the key {} is given twice",
                key.key_id()
            );
            signers.push(key);
        }
        let set = KeySet::new(self.number, self.threshold, keys).context("the new set")?;
        let signed = SignedKeySet::sign(&set, &signers).context("the new set")?;
        write_new(&self.output, signed.bytes())?;
        let shown = ShownKeySet::new(&signed);
        self.format.print(&shown, ShownKeySet::human)?;
        Ok(Exit::Done)
    }
}

/// A key set, to print; its signatures are not checked.
#[derive(Serialize)]
pub(crate) struct ShownKeySet {
    number: u64,
    threshold: u8,
    keys: Vec<String>,
    signers: Vec<String>,
    digest: String,
}

impl ShownKeySet {
    pub(crate) fn new(signed: &SignedKeySet) -> Self {
        let set = signed.unverified();
        Self {
            number: set.number(),
            threshold: set.threshold().get(),
            keys: set
                .keys()
                .iter()
                .map(|key| key.key_id().to_string())
                .collect(),
            signers: signed.signers().map(|id| id.to_string()).collect(),
            digest: set.digest().to_string(),
        }
    }

    pub(crate) fn human(&self) -> String {
        format!(
            "key set           {}: {} of {}, signed by {} (not checked)",
            self.number,
            self.threshold,
            self.keys.join(", "),
            self.signers.join(", "),
        )
    }
}

/// Reads a file that `key set` has made.
pub(crate) fn read(path: &Path) -> anyhow::Result<SignedKeySet> {
    let name = || path.display().to_string();
    let bytes = fs::read(path).with_context(name)?;
    SignedKeySet::parse(bytes)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("{} is no key set", path.display()))
}

fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    fs::File::create_new(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .with_context(|| format!("cannot make {}", path.display()))
}
