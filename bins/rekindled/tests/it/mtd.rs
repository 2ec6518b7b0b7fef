//! Slots on MTD, in the one place where there is MTD: a virtual machine with Debian's kernel.
//!
//! The machine runs the agent, and this very test program for what a test does there itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle_flash::{
    BootControl as _, BootRecord, FileBootControl, FileFlash, FileFlashError, Flash as _,
    FlashBootControl, MtdFlash, MtdFlashError, UbiFlash, UbiFlashError,
};
use rekindle_testkit::conformance::{self, FlashSuite};

use crate::harness::{Initramfs, Kernel, Recipe, Vm, noise, public_keys, say, which};

/// NOR as the kernel's RAM driver plays it, a partition of it, and NAND as its simulator does, with
/// bad blocks, which UBI owns.
#[test]
#[ignore = "needs qemu, busybox, mtd-utils and a kernel with the modules of MTD"]
fn mtd_and_ubi_keep_the_contract_and_bare_nand_is_refused() {
    let kernel = Kernel::find();
    let recipe = Recipe::new("ubi");
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("new.image");
    recipe.pack(&image);
    let configuration = configuration("/dev/ubi0_0", "/dev/ubi0_1");
    let mut fs = Initramfs::new();
    fs.program("/bin/tests", &std::env::current_exe().unwrap())
        .program("/bin/rekindled", Path::new(env!("CARGO_BIN_EXE_rekindled")))
        .program("/bin/mtdpart", &which("mtdpart"))
        .program("/bin/ubiattach", &which("ubiattach"))
        .program("/bin/ubimkvol", &which("ubimkvol"))
        .file("/device/device.toml", 0o644, configuration.as_bytes())
        .file("/device/vendor.pub", 0o644, public_keys(&[1]).as_bytes())
        .file("/device/new.image", 0o644, &std::fs::read(&image).unwrap())
        .file("/device/content", 0o644, &noise(recipe.content))
        .module(&kernel, "mtdram", "total_size=4096 erase_size=16")
        .module(&kernel, "mtdblock", "")
        .module(&kernel, "crc32c_generic", "")
        .module(&kernel, "ext4", "")
        .module(&kernel, "nandsim", NAND)
        .module(&kernel, "ubi", "");
    let machine = Machine::new(
        &kernel,
        fs,
        "cat /proc/mtd
         t() { REKINDLE_TEST_MTD=$1 tests --ignored --exact --nocapture mtd::$2; echo \"$2 of $1: $?\"; }
         mtdpart add /dev/mtd0 part 1048576 1048576
         t /dev/mtd0 the_contract_runs_in_a_process
         t /dev/mtd2 the_contract_runs_in_a_process
         t /dev/mtd0 what_is_refused_runs_in_a_process
         mke2fs /dev/mtdblock0 >/dev/null && mount -t ext4 /dev/mtdblock0 /mnt
         t /dev/mtd0 what_is_mounted_runs_in_a_process
         umount /mnt
         t /dev/mtd1 nand_runs_in_a_process
         ubiattach -m 1
         ubimkvol /dev/ubi0 -N a -S 24
         ubimkvol /dev/ubi0 -N b -S 24
         ubimkvol /dev/ubi0 -N fixed -S 17 -t static
         t /dev/ubi0_0 the_contract_on_ubi_runs_in_a_process
         t /dev/ubi0_2 a_static_volume_runs_in_a_process
         cd /device
         REKINDLE_SLOT=A rekindled --config device.toml install new.image
         echo \"the install on ubi: $?\"
         head -c 600000 /dev/ubi0_1 | cmp - content
         echo \"its content: $?\"",
    );
    let console = machine.boot("dev:").wait_for_power_off();
    say(&console);
    for passed in [
        "the_contract_runs_in_a_process of /dev/mtd0: 0",
        "the_contract_runs_in_a_process of /dev/mtd2: 0",
        "what_is_refused_runs_in_a_process of /dev/mtd0: 0",
        "what_is_mounted_runs_in_a_process of /dev/mtd0: 0",
        "nand_runs_in_a_process of /dev/mtd1: 0",
        "the_contract_on_ubi_runs_in_a_process of /dev/ubi0_0: 0",
        "a_static_volume_runs_in_a_process of /dev/ubi0_2: 0",
        "the install on ubi: 0",
        "its content: 0",
    ] {
        assert!(console.contains(passed), "not: {passed}\n{console}");
    }
}

/// The driver of these disks holds back what is written until it is told to sync, or for half a
/// minute: with a `sync` that does nothing this fails.
#[test]
#[ignore = "needs qemu, busybox and a kernel with the modules of MTD"]
fn what_was_synced_on_mtd_survives_the_power_cut_behind_it() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let kernel = Kernel::find();
    let mut fs = Initramfs::new();
    fs.program("/bin/tests", &std::env::current_exe().unwrap())
        .module(&kernel, "virtio_pci", "")
        .module(&kernel, "virtio_blk", "")
        .module(&kernel, "block2mtd", "");
    let mut machine = Machine::new(
        &kernel,
        fs,
        "echo /dev/vda,65536 > /sys/module/block2mtd/parameters/block2mtd
         cat /proc/mtd
         REKINDLE_TEST_MTD=/dev/mtd0 tests --ignored --exact --nocapture \
             mtd::a_sync_runs_in_a_process",
    );
    machine.disks = vec![disk.path().to_owned()];
    let mut vm = machine.boot("dev:");
    vm.wait_for("it is synced");
    vm.cut_power();
    let stored = std::fs::read(disk.path()).unwrap();
    assert!(stored[..65536] == [0x5a; 65536], "what was synced is there");
}

/// From the install to the confirm, with a power cut behind the first.
#[test]
#[ignore = "needs qemu, busybox, e2fsprogs and a kernel with the modules of MTD"]
fn an_image_installed_on_mtd_survives_the_power_cut_behind_it_and_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::new("mtd");
    let disk = device_disk(folder.path(), &recipe);
    let slots = ["a.img", "b.img"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0xff; SLOT]).unwrap();
        path
    });

    let kernel = Kernel::find();
    let mut fs = Initramfs::new();
    fs.program("/bin/tests", &std::env::current_exe().unwrap())
        .program("/bin/rekindled", Path::new(env!("CARGO_BIN_EXE_rekindled")))
        .module(&kernel, "virtio_pci", "")
        .module(&kernel, "virtio_blk", "")
        .module(&kernel, "crc32c_generic", "")
        .module(&kernel, "ext4", "")
        .module(&kernel, "block2mtd", "");
    let mut machine = Machine::new(
        &kernel,
        fs,
        "ip link set lo up
         mount -t ext4 /dev/vda /mnt && cd /mnt
         for disk in vdb vdc; do
             echo /dev/$disk,65536 > /sys/module/block2mtd/parameters/block2mtd
         done
         cat /proc/mtd
         export REKINDLE_SLOT=$(tests --ignored --exact --nocapture mtd::the_boot_loader_runs_in_a_process |
             sed -n 's/.*starts slot \\(.*\\)/\\1/p')
         echo \"STARTED FROM $REKINDLE_SLOT\"
         export REKINDLE_SLOT=${REKINDLE_SLOT%%,*}
         if [ $REKINDLE_SLOT = A ]; then
             rekindled --config device.toml install new.image
             echo \"INSTALLED: $?\"
             sleep 1000
         fi
         RUST_LOG=info rekindled --config device.toml run",
    );
    machine.disks = vec![disk, slots[0].clone(), slots[1].clone()];

    let mut vm = machine.boot("STARTED FROM ");
    assert_eq!(vm.read_behind(""), "A");
    assert_eq!(vm.read_behind("INSTALLED: "), "0", "{}", vm.transcript());
    vm.cut_power();
    let stored = std::fs::read(&slots[1]).unwrap();
    let content = noise(recipe.content);
    assert!(stored.starts_with(&content), "what was installed is there");
    assert!(std::fs::read(&slots[0]).unwrap() == vec![0xff; SLOT]);

    let mut vm = machine.boot("STARTED FROM ");
    assert_eq!(vm.read_behind(""), "B");
    vm.wait_for("what runs is confirmed");
    vm.cut_power();
    let mut vm = machine.boot("STARTED FROM ");
    assert_eq!(vm.read_behind(""), "B, which is confirmed");
    vm.cut_power();
}

#[test]
#[ignore = "needs an MTD device: the virtual machine runs it"]
fn the_contract_runs_in_a_process() {
    let path = device();
    let hidden = format!("{path}.hidden");
    let open = || MtdFlash::open(&path).unwrap();
    say(&format!("{:?}", open().geometry()));
    let report = FlashSuite::new(open())
        .restart(|flash| {
            drop(flash);
            if Path::new(&hidden).exists() {
                std::fs::rename(&hidden, &path).unwrap();
            }
            open()
        })
        .fail_sync(|_| std::fs::rename(&path, &hidden).unwrap())
        .run();
    say(&report.to_string());
    report.assert();

    let components = [("prot", 2)];
    let mut flash = open();
    let all = 0..flash.geometry().size;
    flash.erase(all).unwrap();
    let record = BootRecord::new(&components).unwrap();
    FlashBootControl::create(flash, &record).unwrap();
    let report = conformance::boot_control(|opened: Option<FlashBootControl<MtdFlash>>| {
        drop(opened);
        FlashBootControl::open(open(), &components).unwrap()
    });
    say(&report.to_string());
    report.assert();
}

#[test]
#[ignore = "needs a UBI volume: the virtual machine runs it"]
fn the_contract_on_ubi_runs_in_a_process() {
    let open = |opened: Option<UbiFlash>| {
        drop(opened);
        UbiFlash::open(device()).unwrap()
    };
    let flash = open(None);
    say(&format!("{:?}", flash.geometry()));
    let error = UbiFlash::open(device()).unwrap_err();
    assert!(matches!(error, UbiFlashError::Busy { .. }), "{error}");
    UbiFlash::open_read_only(device()).unwrap();
    drop(flash);
    let report = conformance::flash(open);
    say(&report.to_string());
    report.assert();
}

#[test]
#[ignore = "needs a UBI volume: the virtual machine runs it"]
fn a_static_volume_runs_in_a_process() {
    let error = UbiFlash::open(device()).unwrap_err();
    assert!(matches!(error, UbiFlashError::Static { .. }), "{error}");
    let error = UbiFlash::open("/dev/ubi0").unwrap_err();
    assert!(matches!(error, UbiFlashError::NotUbi { .. }), "{error}");
}

/// Goes on until the power is cut: a process that ends closes the device, and that syncs as well.
#[test]
#[ignore = "needs an MTD device: the virtual machine runs it"]
fn a_sync_runs_in_a_process() {
    let mut flash = MtdFlash::open(device()).unwrap();
    flash.erase(0..65536).unwrap();
    flash.write(0, &[0x5a; 65536]).unwrap();
    flash.sync().unwrap();
    say("it is synced");
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "needs an MTD device: the virtual machine runs it"]
fn what_is_refused_runs_in_a_process() {
    let path = device();
    let block_device = path.replace("mtd", "mtdblock");
    let error = FileFlash::open_block_device(&block_device).unwrap_err();
    assert!(matches!(error, FileFlashError::MtdBlock { .. }), "{error}");
    let error = MtdFlash::open(format!("{path}ro")).unwrap_err();
    assert!(matches!(error, MtdFlashError::ReadOnly { .. }), "{error}");
    MtdFlash::open_read_only(format!("{path}ro")).unwrap();

    let first = MtdFlash::open(&path).unwrap();
    let error = MtdFlash::open(&path).unwrap_err();
    assert!(matches!(error, MtdFlashError::Busy { .. }), "{error}");
    MtdFlash::open_read_only(&path).unwrap();
    drop(first);
    MtdFlash::open(&path).unwrap();
}

#[test]
#[ignore = "needs an MTD device: the virtual machine runs it"]
fn what_is_mounted_runs_in_a_process() {
    let error = MtdFlash::open(device()).unwrap_err();
    assert!(matches!(error, MtdFlashError::Busy { .. }), "{error}");
    MtdFlash::open_read_only(device()).unwrap();
}

#[test]
#[ignore = "needs an MTD device: the virtual machine runs it"]
fn nand_runs_in_a_process() {
    for opened in [MtdFlash::open(device()), MtdFlash::open_read_only(device())] {
        let error = opened.unwrap_err();
        assert!(matches!(error, MtdFlashError::Nand { .. }), "{error}");
    }
}

/// What a boot loader does: it starts what the record says, and says what that is.
#[test]
#[ignore = "needs a device's disk: the virtual machine runs it"]
fn the_boot_loader_runs_in_a_process() {
    let path = Path::new("boot.state");
    let slot = if path.exists() {
        let mut control = FileBootControl::open(path, &[("prot", 2)]).unwrap();
        let mut record = control.load().unwrap();
        let started = record.start();
        control.store(&record).unwrap();
        let slot = started[0].1;
        let confirmed = record.component("prot").unwrap().confirmed == slot;
        format!(
            "{slot}{}",
            if confirmed {
                ", which is confirmed"
            } else {
                ""
            }
        )
    } else {
        "A".to_owned()
    };
    say(&format!("it starts slot {slot}"));
}

fn device() -> String {
    std::env::var("REKINDLE_TEST_MTD").unwrap()
}

/// A machine that can be started again and again with the same disks.
struct Machine {
    kernel: PathBuf,
    initramfs: tempfile::NamedTempFile,
    disks: Vec<PathBuf>,
}

impl Machine {
    fn new(kernel: &Kernel, fs: Initramfs, script: &str) -> Self {
        let initramfs = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(initramfs.path(), fs.finish(script)).unwrap();
        Self {
            kernel: kernel.image(),
            initramfs,
            disks: Vec::new(),
        }
    }

    fn boot(&self, first: &str) -> Vm {
        let disks = self.disks.iter().flat_map(|disk| {
            let drive = format!("if=virtio,format=raw,file={}", disk.display());
            ["-drive".to_owned(), drive]
        });
        let disks: Vec<String> = disks.collect();
        let start = || Vm::linux(&self.kernel, self.initramfs.path(), "", &disks);
        Vm::boot(start, first)
    }
}

/// A file system with the configuration of a device and an image for it.
fn device_disk(folder: &Path, recipe: &Recipe) -> PathBuf {
    let content = folder.join("content");
    std::fs::create_dir(&content).unwrap();
    let configuration = configuration("/dev/mtd0", "/dev/mtd1");
    std::fs::write(content.join("device.toml"), configuration).unwrap();
    std::fs::write(content.join("vendor.pub"), public_keys(&[1])).unwrap();
    recipe.pack(&content.join("new.image"));
    let disk = folder.join("disk.img");
    let made = Command::new(which("mke2fs"))
        .args(["-q", "-t", "ext4", "-d"])
        .args([&content, &disk])
        .arg("32M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    disk
}

const SLOT: usize = 2 << 20;

/// 64 MiB in pages of 2 KiB and blocks of 128 KiB, some of which were bad when it was bought.
const NAND: &str = "first_id_byte=0x20 second_id_byte=0xa2 third_id_byte=0x00 \
                    fourth_id_byte=0x15 badblocks=3,5,17";

fn configuration(a: &str, b: &str) -> String {
    format!(
        r#"
[device]
type = "IP1200"
hardware-id = "IP1200-03-0d-f0"
mac = "00-90-33-03-0d-f0"
hardware = "102"
[trust]
keys = ["vendor.pub"]
threshold = 1
[state]
dir = "state"
[[component]]
name = "prot"
slots = ["{a}", "{b}"]
[boot]
control = "file"
path = "boot.state"
running = "env:REKINDLE_SLOT"
attempts = 3
[update]
poll = "1 h"
[http]
listen = "127.0.0.1:0"
[host]
reset = ["/bin/true"]
reboot = ["/bin/true"]
idle = ["/bin/true"]
health = ["/bin/true"]
health-seconds = 1
"#
    )
}
