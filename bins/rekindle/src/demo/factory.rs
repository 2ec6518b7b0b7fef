//! What happens before a device reaches its customer: keys, images, and devices with a first
//! firmware and a configuration.

use core::net::Ipv4Addr;
use core::num::NonZeroU8;
use core::ops::Range;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rekindle_flash::{FileBootControl, FileFlash, SlotId};
use rekindle_image::{Compression, Downgrade, PackOptions, SecretKey, Trust, Unsigned, pack};
use rekindle_state::{Door, MemoryStore};
use rekindle_update::{Parts, Request, Source, Transfer, install};

use super::board::{BUTTON, CONFIG};
use super::firmware::Firmware;
use super::loader::{COMPONENT, Loader};

/// The vendor: the folder of the demo, the key, and the size of a slot.
#[derive(Debug)]
pub(super) struct Factory {
    folder: PathBuf,
    key: SecretKey,
    slot_size: u64,
    program: PathBuf,
}

/// A device as it leaves the factory.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) loader: Loader,
    /// The device's own page.
    pub(super) url: String,
}

impl Factory {
    pub(super) fn new(
        folder: &Path,
        program: &Path,
        firmwares: &[Firmware],
    ) -> anyhow::Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).context("the system has no random numbers")?;
        let key = SecretKey::from_random(&random);
        fs::write(
            folder.join(PUBLIC_KEY),
            format!("{} rekindle demo\n", key.public()),
        )?;
        let largest = firmwares.iter().map(Firmware::size).max().unwrap_or(0);
        Ok(Self {
            folder: folder.to_owned(),
            key,
            slot_size: (largest + largest / 16 + SLOT_STEP).next_multiple_of(SLOT_STEP),
            program: program.to_owned(),
        })
    }

    /// Packs and signs a firmware; returns the image.
    ///
    /// # Errors
    ///
    /// When files cannot be read or written, or `cancel` becomes true on the way.
    pub(super) fn pack(&self, firmware: &Firmware, cancel: &AtomicBool) -> anyhow::Result<PathBuf> {
        let image = self.folder.join(format!("{}.rki", firmware.build));
        let mut options = PackOptions::new(DEVICE_TYPE, COMPONENT, firmware.build);
        options.release = firmware.release;
        options.security_version = 1;
        options.compression = Compression::Zstd { level: 3 };
        let content = Cancellable {
            content: firmware.content(),
            cancel,
        };
        pack(content, &image, &options, slice::from_ref(&self.key))
            .with_context(|| format!("cannot pack {}", firmware.build))?;
        Ok(image)
    }

    /// Fills the flash that every new device is made with: an image in slot A.
    pub(super) fn fill_slot(&self, image: &Path) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("factory-slot.img");
        let mut flash = FileFlash::open(&path, self.slot_size)?;
        let mut boot =
            FileBootControl::open(self.folder.join("factory-boot.state"), &[(COMPONENT, 2)])?;
        let trust = Trust {
            keys: vec![self.key.public()],
            threshold: NonZeroU8::MIN,
            unsigned: Unsigned::Refuse,
        };
        let request = Request {
            component: COMPONENT,
            target: SlotId::A,
            in_place: true,
            running: &[],
            running_manifest: None,
            device_type: DEVICE_TYPE,
            hardware: Some(HARDWARE),
            installed: &[],
            trust: &trust,
            downgrade: Downgrade::Refuse,
            attempts: 1,
            serial: None,
            door: Door::Local,
            now: None,
            file_len: Some(fs::metadata(image)?.len()),
            transfer: Transfer::default(),
        };
        let mut source = ImageFile(File::open(image)?.take(0));
        let mut parts = Parts {
            flash: &mut flash,
            donors: &mut [],
            boot: &mut boot,
            store: &mut MemoryStore::default(),
        };
        install(&request, &mut parts, &mut source, &mut |_| {})?;
        Ok(path)
    }

    /// Makes a device: its flash, its configuration. It polls `url`.
    pub(super) fn deliver(
        &self,
        number: usize,
        slot: &Path,
        url: &str,
    ) -> anyhow::Result<Delivered> {
        let name = format!("device-{number}");
        let folder = self.folder.join(&name);
        fs::create_dir_all(folder.join("state"))?;
        let slots = [folder.join("slot-a.img"), folder.join("slot-b.img")];
        fs::copy(slot, &slots[0])?;
        // Another program may take the port before the agent does; the agent then says so.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let config = format!(
            r#"[device]
type = "{DEVICE_TYPE}"
hardware-id = "{DEVICE_TYPE}-00-00-{number:02x}"
mac = "00-90-33-00-00-{number:02x}"
hardware = "{HARDWARE}"

[trust]
keys = ["../{PUBLIC_KEY}"]
threshold = 1

[state]
dir = "state"

[[component]]
name = "{COMPONENT}"
slots = ["slot-a.img", "slot-b.img"]
size = "{slot_size} MiB"

[boot]
control = "file"
path = "boot.state"
running = "env:REKINDLE_SLOT"
attempts = {ATTEMPTS}

[update]
url = "{url}"
poll = "{POLL_SECONDS} s"

[http]
listen = "127.0.0.1:{port}"

[host]
reset = [{program}, "demo-reset", "--button", {button}]
health-seconds = 2
"#,
            slot_size = self.slot_size / SLOT_STEP,
            program = quoted(&self.program)?,
            button = quoted(&folder.join(BUTTON))?,
        );
        fs::write(folder.join(CONFIG), config)?;
        Ok(Delivered {
            loader: Loader {
                control: folder.join("boot.state"),
                slots,
                slot_size: self.slot_size,
            },
            url: format!("http://127.0.0.1:{port}/"),
            name,
            folder,
        })
    }
}

/// Content that ends with an error once nobody wants it any more.
struct Cancellable<'a, R> {
    content: R,
    cancel: &'a AtomicBool,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("the demo is ending"));
        }
        self.content.read(buf)
    }
}

/// An image on disk as the source of an install.
struct ImageFile(io::Take<File>);

impl Source for ImageFile {
    type Error = io::Error;

    fn open(&mut self, range: Range<u64>) -> io::Result<()> {
        self.0.get_mut().seek(SeekFrom::Start(range.start))?;
        self.0.set_limit(range.end.saturating_sub(range.start));
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// A path as a string of TOML.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path
        .to_str()
        .filter(|text| !text.chars().any(char::is_control))
        .with_context(|| format!("{} cannot be written in a configuration", path.display()))?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}

pub(super) const DEVICE_TYPE: &str = "IP1200";
const HARDWARE: &str = "102";
const PUBLIC_KEY: &str = "vendor.pub";

/// Boots of a new firmware without a confirm before the board falls back.
pub(super) const ATTEMPTS: u32 = 3;

/// Between two polls. Real devices take 15 minutes.
pub(super) const POLL_SECONDS: u64 = 2;

const SLOT_STEP: u64 = 1 << 20;
