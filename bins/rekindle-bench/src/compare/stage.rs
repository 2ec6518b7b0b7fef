//! The folder in which everything happens: images and keys, what the server serves, the devices.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rekindle_image::{Compression, PackOptions, SecretKey, pack};

use crate::images::Pair;
use crate::medium;
use crate::random::RandomBytes;

/// Gone when this is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    folder: tempfile::TempDir,
    /// In hexadecimal digits, as in a key file.
    public_key: String,
    size: u64,
}

impl Stage {
    /// Makes the folder inside `dir`, the keys, and our own images of the pair.
    pub(super) fn set(dir: &Path, pair: &Pair) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rekindle-bench-")
            .tempdir_in(dir)
            .with_context(|| format!("cannot make a folder in {}", dir.display()))?;
        // It signs nothing but these images, for these devices.
        let mut random = [0; 32];
        RandomBytes::new(32).read_exact(&mut random)?;
        let key = SecretKey::from_random(&random);
        let stage = Self {
            folder,
            public_key: key.public().to_string(),
            size: pair.size(),
        };
        std::fs::create_dir_all(stage.path("data/firmware")).context("cannot make a folder")?;
        let keys = [key];
        let usual = Compression::default();
        stage.pack(pair.released(), OLD, 1, usual, &keys)?;
        stage.pack(pair.updated(), NEW, 2, usual, &keys)?;
        stage.pack(pair.updated(), NEW_RAW, 2, Compression::None, &keys)?;
        Ok(stage)
    }

    fn pack(
        &self,
        input: &Path,
        name: &str,
        release: u64,
        compression: Compression,
        keys: &[SecretKey],
    ) -> anyhow::Result<()> {
        let file = File::open(input).with_context(|| format!("cannot open {}", input.display()))?;
        let mut options = PackOptions::new(DEVICE_TYPE, "prot", name);
        options.release = release;
        options.compression = compression;
        let out = self.path("data/firmware").join(name);
        pack(
            BufReader::with_capacity(1 << 20, file),
            &out,
            &options,
            keys,
        )
        .with_context(|| format!("cannot pack {}", input.display()))?;
        Ok(())
    }

    /// Writes a device's configuration and key into `device`, which it makes.
    pub(super) fn configure(&self, device: &Path) -> anyhow::Result<()> {
        std::fs::create_dir(device).context("cannot make a device's folder")?;
        let config = CONFIG
            .replace("DEVICE-TYPE", DEVICE_TYPE)
            .replace("RUNNING-VARIABLE", RUNNING_VARIABLE)
            .replace("SLOT-BYTES", &self.slot_bytes().to_string());
        std::fs::write(device.join("device.toml"), config)
            .context("cannot write a device's configuration")?;
        std::fs::write(device.join("bench.pub"), format!("{}\n", self.public_key))
            .context("cannot write a device's key")
    }

    /// Our slots and those of the peers are files of this length.
    pub(super) fn slot_bytes(&self) -> u64 {
        self.size.next_multiple_of(MIB) + 4 * MIB
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a file holds, byte by byte, is the beginning of what another holds.
    pub(super) fn check(&self, expected: &Path, found: &Path) -> anyhow::Result<()> {
        let open = |path: &Path| {
            File::open(path)
                .map(|file| file.take(self.size))
                .with_context(|| format!("cannot open {}", path.display()))
        };
        let what = found.display().to_string();
        crate::content::compare(open(expected)?, open(found)?, &what)
    }

    /// An empty slot for a peer, of the length that ours have.
    pub(super) fn empty_slot(&self, path: &Path) -> anyhow::Result<()> {
        remove(path)?;
        let slot = File::create(path).context("cannot make a slot")?;
        slot.set_len(self.slot_bytes())
            .context("cannot make a slot")?;
        rustix::fs::sync();
        Ok(())
    }

    /// Lets nothing of what came before wait for the medium, and `cold` lie in the page cache.
    pub(super) fn settle(cold: &[&Path]) -> anyhow::Result<()> {
        rustix::fs::sync();
        cold.iter().try_for_each(|path| medium::forget(path))
    }
}

/// Removes a file that may be missing.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the last lines of a log say.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The old version, packed as the packer does it by default.
pub(super) const OLD: &str = "old.bin";

/// The new version, the same way.
pub(super) const NEW: &str = "new.bin";

/// The new version with its chunks stored raw.
pub(super) const NEW_RAW: &str = "new-raw.bin";

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
