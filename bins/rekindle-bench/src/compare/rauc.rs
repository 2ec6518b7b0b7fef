//! RAUC: a plain bundle (squashfs with a signature behind it), installed by its service.

use core::time::Duration;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::credentials::Credentials;
use super::stage::{Stage, tail};
use crate::medium;
use crate::process::Watched;
use crate::programs;
use crate::race::Contender;

/// The programs.
#[derive(Debug)]
pub(super) struct Tools {
    rauc: PathBuf,
    bus: PathBuf,
}

impl Tools {
    pub(super) fn find() -> anyhow::Result<Self> {
        // rauc calls it, and says nothing useful where it is missing.
        programs::peer("mksquashfs")?;
        Ok(Self {
            rauc: programs::peer("rauc")?,
            bus: programs::peer("dbus-daemon")?,
        })
    }

    /// Name and version.
    pub(super) fn version(&self) -> anyhow::Result<String> {
        programs::call(Command::new(&self.rauc).arg("--version"))
    }
}

/// A bus and a service of our own, and a bundle.
#[derive(Debug)]
pub(super) struct Rauc<'a> {
    stage: &'a Stage,
    tools: &'a Tools,
    expected: &'a Path,
    folder: PathBuf,
    address: String,
    service: Watched,
    _bus: Watched,
}

impl<'a> Rauc<'a> {
    /// Makes a bundle of `image`, its content compressed with zstd or not at all, and starts the service.
    pub(super) fn start(
        stage: &'a Stage,
        tools: &'a Tools,
        credentials: &Credentials,
        image: &'a Path,
        compressed: bool,
    ) -> anyhow::Result<Self> {
        let folder = stage.path(if compressed { "rauc-zstd" } else { "rauc" });
        for name in ["content", "mount"] {
            std::fs::create_dir_all(folder.join(name)).context("cannot make a folder for rauc")?;
        }
        std::fs::copy(image, folder.join("content/rootfs.img"))
            .context("cannot copy the image for rauc")?;
        std::fs::write(folder.join("content/manifest.raucm"), MANIFEST)
            .context("cannot write rauc's manifest")?;
        let squash = if compressed {
            "--mksquashfs-args=-comp zstd"
        } else {
            "--mksquashfs-args=-noD -noF -noI -noX"
        };
        let _: String = programs::call(
            Command::new(&tools.rauc)
                .arg("bundle")
                .arg(format!("--cert={}", credentials.certificate().display()))
                .arg(format!("--key={}", credentials.key().display()))
                .arg(squash)
                .arg(folder.join("content"))
                .arg(folder.join("bundle.raucb")),
        )?;
        std::fs::remove_dir_all(folder.join("content")).context("cannot remove a folder")?;
        let config = SYSTEM
            .replace("FOLDER", &folder.display().to_string())
            .replace(
                "CERTIFICATE",
                &credentials.certificate().display().to_string(),
            );
        std::fs::write(folder.join("system.conf"), config)
            .context("cannot write rauc's configuration")?;
        std::fs::write(folder.join("bus.conf"), BUS).context("cannot configure a bus")?;
        stage.empty_slot(&folder.join("slot-a.img"))?;
        stage.empty_slot(&folder.join("slot-b.img"))?;
        let (bus, address) = start_bus(&tools.bus, &folder)?;
        let log = File::create(folder.join("service.log")).context("cannot write rauc's log")?;
        let mut service = Command::new(&tools.rauc);
        service
            .arg(format!("--conf={}", folder.join("system.conf").display()))
            .arg("--override-boot-slot=A")
            .arg("service")
            .env(ADDRESS, &address)
            .stderr(log.try_clone().context("cannot write rauc's log")?)
            .stdout(log);
        let service = Watched::start("rauc service", &mut service)?;
        let rauc = Self {
            stage,
            tools,
            expected: image,
            folder,
            address,
            service,
            _bus: bus,
        };
        rauc.wait_until_ready()?;
        Ok(rauc)
    }

    /// Ends it and returns the peak of the service's resident memory in bytes.
    pub(super) fn stop(self) -> anyhow::Result<u64> {
        self.service.kill()
    }

    fn client(&self) -> Command {
        let mut command = Command::new(&self.tools.rauc);
        command.env(ADDRESS, &self.address);
        command
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        for _ in 0..100 {
            if programs::call(self.client().arg("status")).is_ok() {
                return Ok(());
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "a foreign service says in no other way that it is ready"
            )]
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "rauc's service does not answer: {}",
            tail(&self.folder.join("service.log"))
        )
    }

    fn slot(&self) -> PathBuf {
        self.folder.join("slot-b.img")
    }
}

impl Contender for Rauc<'_> {
    fn name(&self) -> &'static str {
        "rauc install"
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        self.stage.empty_slot(&self.slot())?;
        Stage::settle(&[])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        let _: String = programs::call(
            self.client()
                .arg("install")
                .arg(self.folder.join("bundle.raucb")),
        )
        .with_context(|| {
            let log = tail(&self.folder.join("service.log"));
            format!("rauc's service said: {log}")
        })?;
        medium::make_durable(&self.slot())?;
        Ok(None)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.stage.check(self.expected, &self.slot())
    }
}

/// A bus that only this comparison knows. Returns its address.
fn start_bus(program: &Path, folder: &Path) -> anyhow::Result<(Watched, String)> {
    let mut command = Command::new(program);
    command
        .arg(format!(
            "--config-file={}",
            folder.join("bus.conf").display()
        ))
        .args(["--nofork", "--nopidfile", "--print-address=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut bus = Watched::start("dbus-daemon", &mut command)?;
    let said = bus.child().stdout.take().context("the bus has no output")?;
    let mut address = String::new();
    BufReader::new(said)
        .read_line(&mut address)
        .context("cannot hear where the bus listens")?;
    if address.trim().is_empty() {
        bail!("the bus does not start");
    }
    Ok((bus, address.trim().to_owned()))
}

/// Where rauc looks for the bus.
const ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

const MANIFEST: &str = "\
[update]
compatible=bench
version=2
[bundle]
format=plain
[image.rootfs]
filename=rootfs.img
";

const SYSTEM: &str = "\
[system]
compatible=bench
bootloader=noop
mountprefix=FOLDER/mount
statusfile=FOLDER/status
[keyring]
path=CERTIFICATE
[slot.rootfs.0]
device=FOLDER/slot-a.img
type=raw
bootname=A
[slot.rootfs.1]
device=FOLDER/slot-b.img
type=raw
bootname=B
";

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
