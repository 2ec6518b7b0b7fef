//! A device with a real U-Boot: the script of `examples/u-boot` chooses between two slots by the
//! environment that the agent writes, and the power is cut at the moments of the switch.
//!
//! U-Boot comes from `.ci/u-boot`, the kernel from Debian; a power cut is the end of the emulator by
//! SIGKILL. The guest is its own factory: each slot holds a kernel and an initial file system with the
//! agent, and each boot installs the other build into the other slot.

use alloc::sync::{Arc, Weak};
use core::time::Duration;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rekindle_flash::{
    BootControl as _, BootRecord, FileFlash, Partition, SlotId, UBootEnv, UBootVariables,
};
use rekindle_image::{Compression, PackOptions, pack};
use tempfile::TempDir;

use super::harness::{Initramfs, Kernel, Vm, pause, public_keys, say, secret_key, which};

/// What the machines have in common, made once.
struct Lab {
    folder: TempDir,
    uboot: PathBuf,
}

/// A machine that is switched on and off, with disks of its own.
struct Machine {
    folder: TempDir,
    lab: Arc<Lab>,
}

/// What a boot came to.
#[derive(Debug, PartialEq)]
enum Ended {
    /// The power was cut.
    Cut,
    /// The guest restarted by itself.
    Restarted,
}

impl Lab {
    /// The one of the tests that run at this moment; the last one of them removes it.
    fn get() -> Arc<Self> {
        static LAB: Mutex<Weak<Lab>> = Mutex::new(Weak::new());
        let mut known = LAB.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let lab = Arc::new(Self::new());
            *known = Arc::downgrade(&lab);
            lab
        })
    }

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uboot = std::env::var_os(UBOOT)
            .map(PathBuf::from)
            .unwrap_or_else(|| panic!("{UBOOT} must name what .ci/u-boot has built"));
        let lab = Self { folder, uboot };
        for script in ["ours", "stock"] {
            let text = if script == "ours" {
                include_str!("../../../../examples/u-boot/boot.cmd").to_owned()
            } else {
                COUNTS_ALWAYS.to_owned()
            };
            let tree = lab.at(script);
            std::fs::create_dir(&tree).unwrap();
            std::fs::write(lab.at("boot.cmd"), text).unwrap();
            run(Command::new(lab.uboot.join("mkimage"))
                .args(["-A", "x86", "-T", "script", "-d"])
                .args([lab.at("boot.cmd"), tree.join("boot.scr")]));
            file_system(&tree, &lab.at(&format!("{script}.img")), 2 << 20);
        }
        let data = lab.at("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("device.toml"), CONFIGURATION).unwrap();
        std::fs::write(data.join("vendor.pub"), public_keys(&[1])).unwrap();
        let kernel = Kernel::find();
        let agent = lab.at("rekindled");
        run(Command::new("strip")
            .arg("-o")
            .args([&agent, Path::new(env!("CARGO_BIN_EXE_rekindled"))]));
        for build in ["one", "two"] {
            let tree = lab.at(&format!("{build}/boot"));
            std::fs::create_dir_all(&tree).unwrap();
            std::fs::copy(kernel.image(), tree.join("vmlinuz")).unwrap();
            // U-Boot reads less of it then.
            std::fs::write(tree.join("initrd"), initramfs(&kernel, &agent, build)).unwrap();
            run(Command::new("gzip")
                .args(["-1", "-n"])
                .arg(tree.join("initrd")));
            let slot = lab.at(&format!("{build}.img"));
            file_system(&lab.at(build), &slot, IMAGE);
            let mut options = PackOptions::new("IP1200", "prot", build);
            options.compression = Compression::None;
            let image = data.join(format!("{build}.rekindle"));
            pack(
                File::open(&slot).unwrap(),
                &image,
                &options,
                &[secret_key(1)],
            )
            .unwrap();
        }
        file_system(&data, &lab.at("data.img"), 4 * IMAGE);
        lab
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Machine {
    /// A device from the factory: slot A holds build one, slot B nothing.
    fn new(script: &str) -> Self {
        let lab = Lab::get();
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            lab: Arc::clone(&lab),
        };
        std::fs::copy(lab.at(&format!("{script}.img")), machine.at("boot.img")).unwrap();
        std::fs::copy(lab.at("data.img"), machine.at("data.img")).unwrap();
        std::fs::copy(lab.at("one.img"), machine.at("a.img")).unwrap();
        for slot in ["a.img", "b.img"] {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(machine.at(slot))
                .unwrap();
            file.set_len(SLOT).unwrap();
        }
        // The environment as a factory makes it, in both copies.
        std::fs::write(machine.at("env.txt"), FACTORY).unwrap();
        run(Command::new(lab.uboot.join("mkenvimage"))
            .args(["-r", "-s", "0x4000", "-o"])
            .args([machine.at("env.bin"), machine.at("env.txt")]));
        let environment = std::fs::read(machine.at("env.bin")).unwrap();
        let card = File::create(machine.card()).unwrap();
        card.set_len(64 << 20).unwrap();
        for offset in ENVIRONMENT {
            card.write_all_at(&environment, offset).unwrap();
        }
        let card = machine.card();
        let card = card.display();
        std::fs::write(
            machine.at("fw_env.config"),
            format!("{card} 0x100000 0x4000\n{card} 0x110000 0x4000\n"),
        )
        .unwrap();
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn card(&self) -> PathBuf {
        self.at("card.img")
    }

    /// Switches the machine on.
    fn on(&self) -> Vm {
        let mut arguments = vec![
            "-bios".to_owned(),
            self.lab.uboot.join("u-boot.rom").display().to_string(),
            "-device".to_owned(),
            "sdhci-pci".to_owned(),
            "-device".to_owned(),
            "sd-card,drive=card".to_owned(),
            "-drive".to_owned(),
            format!("if=none,id=card,format=raw,file={}", self.card().display()),
        ];
        for disk in ["boot.img", "a.img", "b.img", "data.img"] {
            arguments.push("-drive".to_owned());
            let file = self.at(disk);
            arguments.push(format!("if=virtio,format=raw,file={}", file.display()));
        }
        Vm::start(arguments)
    }

    /// What `fw_printenv` reads.
    fn variable(&self, name: &str) -> String {
        let output = Command::new(which("fw_printenv"))
            .arg("-c")
            .arg(self.at("fw_env.config"))
            .args(["-n", name])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn set(&self, name: &str, value: &str) {
        run(Command::new(which("fw_setenv"))
            .arg("-c")
            .arg(self.at("fw_env.config"))
            .args([name, value]));
    }

    /// What we read; `None` before the agent's first start.
    fn record(&self) -> Option<BootRecord> {
        let part = |offset: u64| {
            let flash = FileFlash::open_shared(self.card()).unwrap();
            Partition::new(flash, offset..offset + 0x4000).unwrap()
        };
        let copies = ENVIRONMENT.map(part);
        let mut environment =
            UBootEnv::redundant(copies, 0x4000, UBootVariables::default(), &[("prot", 2)]).unwrap();
        environment
            .has_record()
            .unwrap()
            .then(|| environment.load().unwrap())
    }

    /// The slot that boots next, by the loader's variables; the record says the same.
    fn next(&self) -> SlotId {
        let order = self.variable("BOOT_ORDER");
        let next = order
            .split(' ')
            .find(|slot| self.variable(&format!("BOOT_{slot}_LEFT")) != "0")
            .unwrap()
            .parse()
            .unwrap();
        if let Some(record) = self.record() {
            assert_eq!(record.next("prot"), Some(next), "{order}: {record:?}");
        }
        next
    }

    /// Boots what is next, and checks that it is.
    fn boot(&self, mode: &str) -> Vm {
        if self.variable("mode") != mode {
            self.set("mode", mode);
        }
        let next = self.next();
        let mut vm = self.on();
        vm.wait_for("rekindle: slot ");
        let slot = vm.read_behind("GUEST slot=");
        assert_eq!(slot, next.to_string(), "{}", vm.transcript());
        vm
    }

    /// One boot of the endless updating; cut behind the `count`th time that the agent begins to
    /// store the boot record.
    fn cycle(&self, count: usize, delay: Duration) -> Ended {
        let mut vm = self.boot("cycle");
        for _ in 0..count {
            if !vm.wait_for_either(STORES, "GUEST restarts") {
                vm.wait_for_power_off();
                return Ended::Restarted;
            }
        }
        pause(delay);
        vm.cut_power();
        Ended::Cut
    }
}

fn cut_at_the_switch(seed: u64) {
    let machine = Machine::new("ours");
    let mut random = seed;
    let mut cuts = 0;
    let mut boots = 0;
    let mut slots = Vec::new();
    say(&format!("seed {seed}"));
    while cuts < CUTS {
        boots += 1;
        assert!(boots < 4 * CUTS, "{cuts} cuts in {boots} boots");
        slots.push(machine.next().to_string());
        // Up to four stores a boot: a confirm, the floor, a withdrawal, a choice.
        let count = usize::try_from(next(&mut random) % 3).unwrap() + 1;
        let delay = Duration::from_micros(next(&mut random) % LONGEST_DELAY_US);
        if machine.cycle(count, delay) == Ended::Cut {
            cuts += 1;
        }
    }
    say(&format!(
        "{cuts} cuts in {boots} boots, seed {seed}: slots {}",
        slots.join(" ")
    ));
    // Undisturbed it comes to its end: a build is installed, started and confirmed.
    let before = machine.record().unwrap();
    machine.cycle(usize::MAX, Duration::ZERO);
    let mut vm = machine.boot("settle");
    vm.wait_for("GUEST settled");
    vm.cut_power();
    let after = machine.record().unwrap();
    assert!(!after.is_trial(), "{after:?}");
    assert!(slots.contains(&"B".to_owned()), "never in B: {before:?}");
    assert_eq!(machine.variable("serial#"), "IP1200-0001");
}

#[test]
#[ignore = "needs U-Boot, a kernel, qemu, libubootenv-tool"]
fn a_machine_whose_power_is_cut_at_the_switch_always_starts_the_slot_that_the_environment_says() {
    cut_at_the_switch(1);
}

#[test]
#[ignore = "needs U-Boot, a kernel, qemu, libubootenv-tool"]
fn another_machine_whose_power_is_cut_at_the_switch_does_so_too() {
    cut_at_the_switch(2);
}

#[test]
#[ignore = "needs U-Boot, a kernel, qemu, libubootenv-tool"]
fn a_build_that_never_confirms_is_given_up_after_its_attempts_and_power_flicker_burns_nothing() {
    let machine = Machine::new("ours");
    let mut vm = machine.boot("install");
    vm.wait_for("GUEST installed 0");
    vm.wait_for_power_off();
    assert_eq!(machine.variable("BOOT_ORDER"), "B A");
    for left in ["2", "1", "0"] {
        let vm = machine.boot("hang");
        vm.cut_power();
        assert_eq!(machine.variable("BOOT_B_LEFT"), left);
    }
    assert_eq!(machine.next(), SlotId::A);
    let mut vm = machine.boot("settle");
    let line = vm.read_behind("fell back ");
    assert!(
        line.contains("build=\"two\"") && line.contains("reason="),
        "{line}"
    );
    vm.wait_for("GUEST settled");
    vm.cut_power();
    assert_eq!(machine.variable("BOOT_ORDER"), "A");

    let before = machine.variable("BOOT_A_LEFT");
    for _ in 0..10 {
        let mut vm = machine.on();
        vm.wait_for("rekindle: slot A, confirmed");
        vm.cut_power();
    }
    assert_eq!(machine.variable("BOOT_A_LEFT"), before);
    assert_eq!(machine.next(), SlotId::A);
}

#[test]
#[ignore = "needs U-Boot, a kernel, qemu, libubootenv-tool"]
fn attempts_that_a_stock_script_takes_from_the_confirmed_slot_are_given_back() {
    let machine = Machine::new("stock");
    let mut vm = machine.boot("settle");
    vm.wait_for("GUEST settled");
    vm.cut_power();
    assert_eq!(machine.variable("BOOT_A_LEFT"), "9");
    for left in ["8", "7", "6"] {
        let mut vm = machine.on();
        vm.wait_for("rekindle: slot A");
        vm.cut_power();
        assert_eq!(machine.variable("BOOT_A_LEFT"), left);
    }
    let mut vm = machine.boot("settle");
    vm.wait_for("GUEST settled");
    vm.cut_power();
    assert_eq!(machine.variable("BOOT_A_LEFT"), "9");
}

fn initramfs(kernel: &Kernel, agent: &Path, build: &str) -> Vec<u8> {
    let mut fs = Initramfs::new();
    fs.program("/bin/rekindled", agent);
    fs.file("/build", 0o644, build.as_bytes());
    fs.file("/var/lock/empty", 0o644, b"");
    for module in [
        "virtio_pci",
        "virtio_blk",
        "sdhci_pci",
        "mmc_block",
        "crc32c_generic",
        "ext4",
    ] {
        fs.module(kernel, module, "");
    }
    fs.finish(GUEST)
}

/// A file system of this size with what is in a folder.
fn file_system(tree: &Path, image: &Path, size: u64) {
    File::create(image).unwrap().set_len(size).unwrap();
    // Features that U-Boot reads.
    run(Command::new(which("mke2fs"))
        .args(["-q", "-F", "-t", "ext4", "-b", "4096"])
        .args(["-O", "^metadata_csum,^64bit", "-d"])
        .args([tree, image]));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The generator `SplitMix64`.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const UBOOT: &str = "REKINDLE_TEST_UBOOT";

/// Where `.ci/u-boot` has the environment.
const ENVIRONMENT: [u64; 2] = [0x10_0000, 0x11_0000];

/// In each of the two machines.
const CUTS: usize = 10;

/// A store of the environment takes a few milliseconds in the guest.
const LONGEST_DELAY_US: u64 = 60_000;

/// The file system of a build, and the slot around it.
const IMAGE: u64 = 24 << 20;
const SLOT: u64 = 26 << 20;

/// What the agent says right before it writes.
const STORES: &str = "storing the boot record";

/// The environment of a new device. What starts a slot is the board's.
const FACTORY: &str = "\
bootcmd=virtio scan; load virtio 0 2000000 boot.scr && source 2000000
bootdelay=0
serial#=IP1200-0001
BOOT_ORDER=A
BOOT_A_LEFT=9
rekindle_boot=if test ${rekindle_slot} = B; then setenv disk 2; else setenv disk 1; fi; \
setenv bootargs console=ttyS0 quiet panic=-1 no_timer_check mode=${mode} rekindle.slot=${rekindle_slot}; \
load virtio ${disk} 1000000 /boot/vmlinuz && load virtio ${disk} 10000000 /boot/initrd.gz && \
zboot 1000000 - 10000000 ${filesize}
";

/// As updaters' stock scripts do it: every boot counts, and when nothing is left, all have new attempts.
const COUNTS_ALWAYS: &str = "\
test -n \"${BOOT_ORDER}\" || setenv BOOT_ORDER \"A B\"
test -n \"${BOOT_A_LEFT}\" || setenv BOOT_A_LEFT 3
test -n \"${BOOT_B_LEFT}\" || setenv BOOT_B_LEFT 3
setenv rekindle_slot
for slot in \"${BOOT_ORDER}\"; do
  if test \"x${rekindle_slot}\" != \"x\"; then
    echo skipped ${slot}
  elif test \"x${slot}\" = \"xA\"; then
    if test ${BOOT_A_LEFT} -gt 0; then
      setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
      setenv rekindle_slot A
    fi
  elif test \"x${slot}\" = \"xB\"; then
    if test ${BOOT_B_LEFT} -gt 0; then
      setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
      setenv rekindle_slot B
    fi
  fi
done
if test -n \"${rekindle_slot}\"; then
  saveenv
  echo \"rekindle: slot ${rekindle_slot}\"
  run rekindle_boot
else
  setenv BOOT_A_LEFT 3
  setenv BOOT_B_LEFT 3
  saveenv
  reset
fi
";

const CONFIGURATION: &str = r#"
[device]
type = "IP1200"
hardware-id = "IP1200-0001"
[trust]
keys = ["vendor.pub"]
[state]
dir = "state"
[[component]]
name = "prot"
slots = ["/dev/vdb", "/dev/vdc"]
[boot]
control = "uboot"
device = "/dev/mmcblk0"
offsets = ["0x100000", "0x110000"]
size = "0x4000"
running = "cmdline:rekindle.slot"
attempts = 3
[host]
health = ["/bin/true"]
health-seconds = 5
"#;

/// What the guest does; `mode` is a word of the kernel command line, set by the test.
const GUEST: &str = r#"
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }
build=$(cat /build)
echo "GUEST slot=$(word rekindle.slot)"
echo "GUEST build=$build"
mode=$(word mode)
[ "$mode" != hang ] || sleep 1000
while [ ! -b /dev/mmcblk0 ] || [ ! -b /dev/vdd ]; do sleep 0.1; done
mkdir -p /data
mount -t ext4 /dev/vdd /data
cd /data
export RUST_LOG=info,rekindle_device=debug NO_COLOR=1
settle() {
    mkfifo /tmp/pipe
    : >/tmp/log
    tee /tmp/log </tmp/pipe &
    rekindled --config device.toml run >/tmp/pipe 2>&1 &
    agent=$!
    while ! grep -q -e "is confirmed" -e "was confirmed before" -e "fell back" /tmp/log; do sleep 0.1; done
    sleep 0.3
    kill $agent
    wait
}
install() {
    case $build in one) other=two ;; *) other=one ;; esac
    rekindled --config device.toml install $other.rekindle
    echo "GUEST installed $?"
}
case $mode in
settle)
    settle
    echo "GUEST settled"
    sleep 1000
    ;;
install)
    settle
    install
    ;;
cycle)
    settle
    # Several cuts in one trial are a build that was given up; here it is tried again all the same.
    ! grep -q "fell back" /tmp/log || rm -rf state
    install
    ;;
esac
sync
echo "GUEST restarts"
reboot -f
"#;
