//! `rekindle key`: the keys that images are signed with.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rekindle_image::SecretKey;
use serde::Serialize;

use crate::exit::Exit;
use crate::key_set::Set;
use crate::output::Format;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a key pair: KEY, secret, for you alone, and KEY.pub, for devices.
    Generate(Generate),
    /// Make a key set: new keys, signed by those that devices have. Images carry it to them.
    Set(Set),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Generate(generate) => generate.run(),
            Self::Set(set) => set.run(),
        }
    }
}

#[derive(Args)]
pub(crate) struct Generate {
    /// Where the secret key goes; the public one goes beside it, with `.pub` appended. Neither may exist.
    #[arg(long, value_name = "KEY")]
    out: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Generate {
    fn run(self) -> anyhow::Result<Exit> {
        let mut random = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *random).context("the system gives no random numbers")?;
        let key = SecretKey::from_random(&random);
        let public = public_path(&self.out);
        anyhow::ensure!(
            !fs::exists(&public)?,
            "{} exists already; it is not overwritten",
            public.display()
        );
        write_new(&self.out, 0o600, &format!("{}\n", &*key.to_text()))?;
        write_new(&public, 0o644, &format!("{}\n", key.public()))?;
        let made = Made {
            id: key.key_id().to_string(),
            secret: self.out,
            public,
        };
        self.format.print(&made, |made| {
            format!(
                "key {}\nsecret {}\npublic {}",
                made.id,
                made.secret.display(),
                made.public.display()
            )
        })?;
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct Made {
    id: String,
    secret: PathBuf,
    public: PathBuf,
}

fn public_path(secret: &Path) -> PathBuf {
    let mut path = secret.as_os_str().to_owned();
    path.push(".pub");
    path.into()
}

/// Writes a file that did not exist, so that no key is ever lost to another, and on disk before its maker is told of it.
fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let write = |mut file: File| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    options
        .open(path)
        .and_then(write)
        .with_context(|| format!("cannot make {}", path.display()))
}
