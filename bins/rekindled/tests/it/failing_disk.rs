//! A disk that fails where most programs do not look: it takes every write into its cache, and only
//! `fsync` tells that nothing arrived.

use core::ops::Range;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rekindle_flash::SlotId;

use crate::harness::{Device, Recipe, Settings, eventually, noise, say};

/// From the description of the slot on, which comes first and lies at its end; and from the data on,
/// with a description that arrives.
#[test]
#[ignore = "needs root, losetup, nbdkit, nbdfuse and fuse3"]
fn an_install_fails_when_only_the_sync_does_and_succeeds_once_the_disk_is_well() {
    for broken in [0..SIZE, 0..100_000] {
        let disk = Disk::new();
        let device = Device::new(&Settings::default());
        std::os::unix::fs::symlink(&disk.device.0, device.slot_path('b')).unwrap();
        let recipe = Recipe::new("new");
        let image = device.at("new.image");
        recipe.pack(&image);
        let image = image.to_str().unwrap();

        disk.break_at(&broken);
        let failed = device.run(&["install", image]);
        say(&failed.stderr);
        assert_eq!(failed.exit, Some(2), "{failed:?}");
        let said = "not installed: the slot's flash failed: cannot sync slot-b.img: Input/output \
                    error (os error 5)";
        assert!(failed.stderr.contains(said), "{failed:?}");
        let record = device.boot_record();
        assert_eq!(record.next("prot"), Some(SlotId::A), "{record:?}");
        assert!(
            record
                .component("prot")
                .unwrap()
                .unbootable
                .contains(SlotId::B),
            "{record:?}"
        );
        let content = noise(recipe.content);
        assert!(!disk.content().starts_with(&content), "nothing arrived");

        // It is still broken: what the kernel has in its cache is no image.
        let failed = device.run(&["install", image]);
        assert_eq!(failed.exit, Some(2), "{failed:?}");
        assert_eq!(device.boot_record().next("prot"), Some(SlotId::A));

        disk.heal();
        let installed = device.run(&["install", image]);
        assert_eq!(installed.exit, Some(0), "{installed:?}");
        assert_eq!(device.boot_record().next("prot"), Some(SlotId::B));
        assert!(disk.content().starts_with(&content), "now it is there");
    }
}

/// A loop device over a file in user space, whose writes fail on demand. The fields end in this
/// order.
struct Disk {
    device: LoopDevice,
    _mount: Mount,
    _server: Process,
    folder: tempfile::TempDir,
}

/// Killed by its id when dropped.
struct Process(Child);

/// A file in user space; unmounted when dropped, which ends its process.
struct Mount {
    path: PathBuf,
    process: Process,
}

/// Detached when dropped.
struct LoopDevice(PathBuf);

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        File::create(at("content")).unwrap().set_len(SIZE).unwrap();
        let server = serve(&at("content"), &at("broken"), &at("socket"));
        eventually("the server", || at("socket").exists().then_some(()));
        let mount = Mount::new(&at("socket"), at("disk"));
        let device = run(Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&mount.path));
        Self {
            device: LoopDevice(PathBuf::from(device.trim())),
            _mount: mount,
            _server: server,
            folder,
        }
    }

    /// From now on every write that touches this range fails.
    fn break_at(&self, range: &Range<u64>) {
        let range = format!("{} {}\n", range.start, range.end);
        std::fs::write(self.folder.path().join("broken"), range).unwrap();
    }

    fn heal(&self) {
        std::fs::remove_file(self.folder.path().join("broken")).unwrap();
    }

    /// What arrived.
    fn content(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("content")).unwrap()
    }
}

/// Serves a file as a disk; a write is refused that touches the range in the file `broken`.
fn serve(content: &Path, broken: &Path, socket: &Path) -> Process {
    // Each request is a few lines of shell: `$3` is the length, `$4` the offset.
    let write = format!(
        "if [ -e {broken} ]; then
             read from to < {broken}
             if [ $4 -lt $to ] && [ $(($4 + $3)) -gt $from ]; then
                 echo EIO the disk is broken >&2
                 exit 1
             fi
         fi
         dd of={content} seek=$4 oflag=seek_bytes conv=notrunc status=none",
        broken = broken.display(),
        content = content.display()
    );
    let read = format!(
        "dd if={} skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none",
        content.display()
    );
    let server = Command::new("nbdkit")
        .args(["--foreground", "--unix"])
        .arg(socket)
        .arg("eval")
        .arg(format!("get_size=echo {SIZE}"))
        .arg(format!("pread={read}"))
        .arg(format!("pwrite={write}"))
        .args(["can_flush=exit 0", "flush=exit 0"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(server.unwrap())
}

impl Mount {
    fn new(socket: &Path, path: PathBuf) -> Self {
        File::create(&path).unwrap();
        let process = Command::new("nbdfuse")
            .arg(&path)
            .arg("--unix")
            .arg(socket)
            .stderr(Stdio::null())
            .spawn();
        let mount = Self {
            path,
            process: Process(process.unwrap()),
        };
        eventually("the disk", || {
            let len = mount.path.metadata().map(|metadata| metadata.len());
            len.is_ok_and(|len| len == SIZE).then_some(())
        });
        mount
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("fusermount3")
            .args(["-u", "-z"])
            .arg(&self.path)
            .status();
        if unmounted.is_ok_and(|status| status.success()) {
            self.process.0.wait().map(drop).unwrap_or_default();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
        if !std::thread::panicking() {
            assert!(detached.unwrap().success());
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const SIZE: u64 = 2 << 20;
