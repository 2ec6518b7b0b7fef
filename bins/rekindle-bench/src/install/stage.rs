//! What both sides work on: one image, one server, one device, in one folder.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use rekindle_image::{Compression, PackOptions, SecretKey, pack};

use crate::process::Watched;
use crate::random::RandomBytes;
use crate::size::Size;

/// A folder with the image and what is made of it; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    folder: tempfile::TempDir,
    size: Size,
    key: String,
}

impl Stage {
    /// Makes the folder inside `dir` and packs the image.
    pub(super) fn set(dir: &Path, size: Size) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rekindle-bench-")
            .tempdir_in(dir)
            .with_context(|| format!("cannot make a folder in {}", dir.display()))?;
        // It signs nothing but this image, for this device.
        let mut random = [0; 32];
        RandomBytes::new(32).read_exact(&mut random)?;
        let key = SecretKey::from_random(&random);
        let stage = Self {
            folder,
            size,
            key: key.public().to_string(),
        };
        std::fs::create_dir_all(stage.path("data/firmware")).context("cannot make a folder")?;
        let mut options = PackOptions::new(DEVICE_TYPE, "prot", "bench");
        options.compression = Compression::None;
        pack(RandomBytes::new(size.0), &stage.image(), &options, &[key])
            .context("cannot pack the image")?;
        Ok(stage)
    }

    /// Starts the server on a free port.
    pub(super) fn serve(&self, program: &Path) -> anyhow::Result<Server> {
        let log = File::create(self.path("server.log")).context("cannot write the server's log")?;
        let mut process = Watched::start(
            "rekindle-server",
            Command::new(program)
                .arg("--data")
                .arg(self.path("data"))
                .args(["--listen", "127.0.0.1:0"])
                .stdout(Stdio::piped())
                .stderr(log),
        )?;
        let said = process
            .child()
            .stdout
            .take()
            .context("the server has no output")?;
        let mut line = String::new();
        BufReader::new(said)
            .read_line(&mut line)
            .context("cannot hear where the server listens")?;
        let Some(base) = address_in(&line) else {
            let log = std::fs::read_to_string(self.path("server.log")).unwrap_or_default();
            bail!("rekindle-server does not serve: {}", log.trim());
        };
        Ok(Server {
            url: format!("{base}firmware/image.bin"),
            process,
        })
    }

    /// Makes device and copy as if nothing had ever been installed, and lets nothing of an earlier run wait for the medium.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        let device = self.path("device");
        if device.exists() {
            std::fs::remove_dir_all(&device)
                .context("cannot remove the device of an earlier run")?;
        }
        std::fs::create_dir(&device).context("cannot make the device's folder")?;
        let slot = self.size.0.next_multiple_of(MIB) + (self.size.0 / 32).max(4 * MIB);
        let config = CONFIG
            .replace("DEVICE-TYPE", DEVICE_TYPE)
            .replace("RUNNING-VARIABLE", RUNNING_VARIABLE)
            .replace("SLOT-BYTES", &slot.to_string());
        std::fs::write(self.config(), config).context("cannot write the configuration")?;
        std::fs::write(device.join("bench.pub"), format!("{}\n", self.key))
            .context("cannot write the public key")?;
        rustix::fs::sync();
        Ok(())
    }

    /// Compares what a side has written with what it should have.
    pub(super) fn check_written(&self, by_install: bool) -> anyhow::Result<()> {
        if by_install {
            let slot = File::open(self.path("device/slot-b.img"))
                .context("the install wrote no slot")?
                .take(self.size.0);
            return compare(RandomBytes::new(self.size.0), slot, "the slot");
        }
        let image = File::open(self.image()).context("cannot read the image")?;
        let copy = File::open(self.copy()).context("dd wrote no file")?;
        compare(image, copy, "the copy of curl | dd")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("device/device.toml")
    }

    /// Beside the slot, removed with it.
    pub(super) fn copy(&self) -> PathBuf {
        self.path("device/copy.img")
    }

    fn image(&self) -> PathBuf {
        self.path("data/firmware/image.bin")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    url: String,
    process: Watched,
}

impl Server {
    /// The image's address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Ends it and returns the peak of its resident memory in bytes.
    pub(super) fn stop(self) -> anyhow::Result<u64> {
        self.process.kill()
    }
}

/// The first URL in what the server says when it is ready.
fn address_in(line: &str) -> Option<&str> {
    line.split_whitespace()
        .find(|word| word.starts_with("http://"))
}

fn compare(expected: impl Read, found: impl Read, what: &str) -> anyhow::Result<()> {
    let (mut expected, mut found) = (
        BufReader::with_capacity(PIECE, expected),
        BufReader::with_capacity(PIECE, found),
    );
    let mut offset: u64 = 0;
    loop {
        let (left, right) = (expected.fill_buf()?, found.fill_buf()?);
        let len = left.len().min(right.len());
        if len == 0 && left.len() == right.len() {
            return Ok(());
        }
        if len == 0 || left[..len] != right[..len] {
            bail!("{what} is not what the server holds, near byte {offset}");
        }
        expected.consume(len);
        found.consume(len);
        offset += u64::try_from(len)?;
    }
}

/// Where the agent reads which slot runs.
pub(super) const RUNNING_VARIABLE: &str = "REKINDLE_BENCH_SLOT";

const DEVICE_TYPE: &str = "BENCH";

const CONFIG: &str = r#"[device]
type = "DEVICE-TYPE"
hardware-id = "bench"
[trust]
keys = ["bench.pub"]
[state]
dir = "state"
[[component]]
name = "prot"
slots = ["slot-a.img", "slot-b.img"]
size = "SLOT-BYTES B"
[boot]
control = "file"
path = "boot.state"
running = "env:RUNNING-VARIABLE"
[update]
url = "http://127.0.0.1:9/"
"#;

const MIB: u64 = 1 << 20;

const PIECE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_in_bytes_or_in_length_is_told() {
        compare(&b"same"[..], &b"same"[..], "it").unwrap();
        for other in ["samE", "sam", "same and more", ""] {
            let error = compare(&b"same"[..], other.as_bytes(), "it").unwrap_err();
            assert!(error.to_string().starts_with("it is not"), "{other}");
        }
    }

    #[test]
    fn hears_where_the_server_listens() {
        let line = "serving data on http://127.0.0.1:4711/ : GET scripts/ and firmware/\n";
        assert_eq!(address_in(line), Some("http://127.0.0.1:4711/"));
        assert_eq!(address_in(""), None);
    }
}
