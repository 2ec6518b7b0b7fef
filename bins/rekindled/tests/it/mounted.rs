//! The slot that runs is a block device that is mounted, as a root file system is.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle_flash::SlotId;
use rekindle_image::{Compression, PackOptions, pack};

use crate::harness::{Content, Device, Settings, noise, secret_key};

#[test]
#[ignore = "needs root, losetup and e2fsprogs"]
fn a_mounted_slot_is_repaired_in_place_only_if_nothing_can_write_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let system = file_system(folder.path());
    let backing = folder.path().join("slot");
    std::fs::File::create(&backing)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    let disk = LoopDevice::over(&backing);

    let mut device = Device::new(&Settings::default());
    std::fs::remove_file(device.slot_path('a')).unwrap();
    std::os::unix::fs::symlink(&disk.0, device.slot_path('a')).unwrap();
    for (build, slot) in [("one", SlotId::B), ("two", SlotId::A)] {
        let mut options = PackOptions::new("IP1200", "prot", build);
        options.compression = Compression::None;
        let image = device.at(build);
        pack(&*system, &image, &options, &[secret_key(1)]).unwrap();
        let ran = device.run(&["install", build]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert_eq!(device.boot(), slot);
        device.wait_for("a confirmed trial", |status| {
            status["trial"].is_null().then_some(())
        });
        device.kill();
    }
    let record = device.boot_record();
    // In the middle of the file, which the file system has not read yet.
    let place = position(&system, &noise(FILE)[150_000..150_100]);
    let rot = || {
        let disk = OpenOptions::new().write(true).open(&backing).unwrap();
        disk.write_all_at(&[0; 100], place).unwrap();
    };

    rot();
    {
        let mount = Mount::new(&disk.0, folder.path(), "ro");
        let ran = device.run(&["repair", "two"]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(
            ran.stdout.contains("prot A: repaired: build two"),
            "{ran:?}"
        );
        let file = std::fs::read(mount.0.join("file")).unwrap();
        assert!(file == noise(FILE), "the file is what it was");
        assert_eq!(device.boot_record(), record);
    }
    assert!(std::fs::read(&backing).unwrap().starts_with(&system));

    rot();
    {
        let _mount = Mount::new(&disk.0, folder.path(), "rw");
        let ran = device.run(&["repair", "two"]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
        assert!(ran.stdout.contains("it is in slot B now"), "{ran:?}");
    }
    let place = usize::try_from(place).unwrap();
    let after = std::fs::read(&backing).unwrap();
    assert_eq!(
        after[place..place + 100],
        [0; 100],
        "nobody wrote below the file system"
    );
    assert_eq!(device.boot_record().next("prot"), Some(SlotId::B));
    let other = std::fs::read(device.slot_path('b')).unwrap();
    assert!(other.starts_with(&system));
}

/// What the file system holds.
const FILE: Content = Content {
    seed: 77,
    len: 300_000,
    mask: 0xff,
};

/// An ext4 with one file.
fn file_system(folder: &Path) -> Vec<u8> {
    let root = folder.join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), noise(FILE)).unwrap();
    let image = folder.join("system");
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-d"])
        .args([&root, &image])
        .arg("1M"));
    std::fs::read(image).unwrap()
}

/// Where these bytes begin.
fn position(bytes: &[u8], wanted: &[u8]) -> u64 {
    let position = bytes
        .windows(wanted.len())
        .position(|window| window == wanted);
    u64::try_from(position.unwrap()).unwrap()
}

/// Detached when dropped.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn over(file: &Path) -> Self {
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(file));
        Self(PathBuf::from(device.trim()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

/// Unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(device: &Path, folder: &Path, options: &str) -> Self {
        let path = folder.join(options);
        std::fs::create_dir(&path).unwrap();
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", options])
            .args([device, &path]));
        Self(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}

/// What a program prints; it must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
