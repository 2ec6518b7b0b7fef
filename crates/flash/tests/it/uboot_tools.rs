//! The environment of U-Boot beside `fw_printenv` and `fw_setenv` of libubootenv, both ways on the same
//! file and block device.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rekindle_flash::{
    BootControl as _, BootRecord, FileFlash, FwEnvConfig, Partition, SlotId, UBootEnv,
    UBootVariables,
};
use tempfile::TempDir;

const SIZE: usize = 0x4000;
const OFFSETS: [u64; 2] = [0x10_0000, 0x11_0000];

type Env = UBootEnv<Partition<FileFlash>>;

/// A disk with an environment of one or two copies, and the configuration of the tools.
struct Board {
    folder: TempDir,
    disk: PathBuf,
    copies: usize,
}

impl Board {
    /// The environment is made by hand: the tools make none of nothing.
    fn new(copies: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk.img");
        let file = File::create(&disk).unwrap();
        file.set_len(2 << 20).unwrap();
        for offset in &OFFSETS[..copies] {
            let mut data = b"bootcmd=run boot\0serial#=IP1200-0001\0".to_vec();
            data.resize(SIZE - 3 - copies, 0);
            let mut bytes = crc32fast::hash(&data).to_ne_bytes().to_vec();
            bytes.extend((copies == 2).then_some(1));
            bytes.append(&mut data);
            file.write_all_at(&bytes, *offset).unwrap();
        }
        let board = Self {
            folder,
            disk,
            copies,
        };
        board.configure(&board.disk);
        board
    }

    fn configure(&self, disk: &Path) {
        let lines = OFFSETS[..self.copies].iter();
        let text: String = lines
            .map(|offset| format!("{} {offset:#x} {SIZE:#x}\n", disk.display()))
            .collect();
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("fw_env.config")
    }

    fn env(&self) -> Env {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let config = FwEnvConfig::parse(&text).unwrap();
        let mut parts = config.places.iter().map(|place| {
            let flash = FileFlash::open_shared(&place.device).unwrap();
            let start = u64::try_from(place.offset).unwrap();
            Partition::new(flash, start..start + 0x4000).unwrap()
        });
        let variables = UBootVariables::default();
        let components = [("prot", 2)];
        let first = parts.next().unwrap();
        match parts.next() {
            Some(second) => {
                UBootEnv::redundant([first, second], config.size, variables, &components)
            }
            None => UBootEnv::single(first, config.size, variables, &components),
        }
        .unwrap()
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> Output {
        Command::new(name)
            .arg("-c")
            .arg(self.config())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn value(&self, name: &str) -> String {
        let output = self.tool("fw_printenv", &["-n", name]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn set(&self, name: &str, value: &str) {
        let output = self.tool("fw_setenv", &[name, value]);
        assert!(output.status.success(), "{output:?}");
    }
}

fn pending() -> BootRecord {
    let mut record = BootRecord::new(&[("prot", 2)]).unwrap();
    record.withdraw("prot", SlotId::B).unwrap();
    record.choose("prot", SlotId::B, 3).unwrap();
    record
}

/// Each side reads what the other wrote, several times in turn.
fn reads_both_ways(board: &Board) {
    let mut record = pending();
    board.env().store(&record).unwrap();
    for (left, digit) in [(2, "2"), (1, "1"), (0, "0")] {
        assert_eq!(board.value("BOOT_ORDER"), "B A");
        assert_eq!(board.value("BOOT_A_LEFT"), "9");
        assert_eq!(board.value("bootcmd"), "run boot");
        assert_eq!(board.value("serial#"), "IP1200-0001");
        board.set("BOOT_B_LEFT", digit);
        let _: Vec<_> = record.start();
        assert_eq!(record.attempts_left(), left);
        assert_eq!(board.env().load().unwrap(), record);
    }
    record.revert();
    board.env().store(&record).unwrap();
    assert_eq!(board.value("BOOT_ORDER"), "A");
    assert_eq!(board.value("BOOT_B_LEFT"), "0");
    board.set("bootcmd", "run other");
    board.set("BOOT_A_LEFT", "1");
    assert!(board.env().give_back().unwrap());
    assert_eq!(board.value("BOOT_A_LEFT"), "9");
    assert_eq!(board.value("bootcmd"), "run other");
    assert_eq!(board.env().load().unwrap(), record);
}

#[test]
#[ignore = "needs libubootenv-tool"]
fn the_tools_of_u_boot_and_we_read_each_other_on_a_file() {
    for copies in [1, 2] {
        reads_both_ways(&Board::new(copies));
    }
}

#[test]
#[ignore = "needs root, losetup and libubootenv-tool"]
fn the_tools_of_u_boot_and_we_read_each_other_on_a_block_device() {
    for copies in [1, 2] {
        let board = Board::new(copies);
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&board.disk)
            .output()
            .unwrap();
        assert!(attached.status.success(), "{attached:?}");
        let device = String::from_utf8(attached.stdout).unwrap();
        let device = Attached(device.trim().to_owned());
        board.configure(Path::new(&device.0));
        reads_both_ways(&board);
    }
}

#[test]
#[ignore = "needs libubootenv-tool"]
fn a_copy_of_garbage_is_passed_over_by_the_tools_and_by_us_alike() {
    for garbage in OFFSETS {
        let board = Board::new(2);
        board.env().store(&pending()).unwrap();
        // Both copies hold the record then, whichever is lost.
        board.set("BOOT_B_LEFT", "2");
        let file = File::options().write(true).open(&board.disk).unwrap();
        file.write_all_at(&[0x5a; 300], garbage).unwrap();
        let left = board.value("BOOT_B_LEFT");
        let record = board.env().load().unwrap();
        assert_eq!(record.attempts_left().to_string(), left);
        board.env().store(&pending()).unwrap();
        assert_eq!(board.value("BOOT_B_LEFT"), "3");
    }
    let board = Board::new(2);
    let file = File::options().write(true).open(&board.disk).unwrap();
    for garbage in OFFSETS {
        file.write_all_at(&[0x5a; 300], garbage).unwrap();
    }
    assert!(!board.tool("fw_printenv", &["bootcmd"]).status.success());
    board.env().load().unwrap_err();
}

/// Detached when dropped.
struct Attached(String);

impl Drop for Attached {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        if !std::thread::panicking() {
            assert!(detached.unwrap().success());
        }
    }
}
