//! What both sides work on: one image, one server, one device, in one folder.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rekindle_image::{Compression, PackOptions, SecretKey, pack};

use crate::content::compare;
use crate::random::RandomBytes;
use crate::server::Server;
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
        Server::start(program, &self.path("data"), &self.path("server.log"))
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
