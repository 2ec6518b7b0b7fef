use std::fs;
use std::path::Path;
use std::process::Command;

use rekindle_flash::{
    FileFlash, FileFlashError, Flash, FlashError, FlashErrorKind, SlotLayout, read_slot,
};
use rekindle_testkit::conformance;

const SIZE: u64 = 64 * 4096;

#[test]
fn a_file_keeps_the_contract_of_flash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot-a.img");
    conformance::flash(|opened: Option<FileFlash>| {
        drop(opened);
        FileFlash::open(&path, SIZE).unwrap()
    })
    .assert();
}

#[test]
fn a_file_in_memory_keeps_the_contract_of_flash() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("slot-a.img");
    conformance::flash(|opened: Option<FileFlash>| {
        drop(opened);
        FileFlash::open(&path, SIZE).unwrap()
    })
    .assert();
}

#[test]
#[ignore = "needs root: loop device"]
fn a_block_device_keeps_the_contract_of_flash() {
    let folder = tempfile::tempdir().unwrap();
    let backing = folder.path().join("disk.img");
    fs::File::create(&backing)
        .unwrap()
        .set_len(SIZE + 512)
        .unwrap();
    let device = LoopDevice::attach(&backing);
    conformance::flash(|opened: Option<FileFlash>| {
        drop(opened);
        FileFlash::open_block_device(&device.0).unwrap()
    })
    .assert();
    let flash = FileFlash::open_block_device(&device.0).unwrap();
    assert_eq!(flash.geometry().size, SIZE, "rounded down to whole writes");
    assert!(matches!(
        FileFlash::open_block_device(&device.0),
        Err(FileFlashError::Busy { .. })
    ));
}

/// Detached on drop.
struct LoopDevice(String);

impl LoopDevice {
    fn attach(backing: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(backing)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let status = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn a_new_file_reads_as_an_empty_slot_and_takes_no_space() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot.img");
    let mut flash = FileFlash::open(&path, 64 << 20).unwrap();
    let layout = SlotLayout::new(&flash.geometry()).unwrap();
    assert_eq!(read_slot(&mut flash, &layout).unwrap().current(), None);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20);
}

#[test]
fn a_shorter_file_is_extended_and_keeps_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot.img");
    fs::write(&path, b"earlier").unwrap();
    let mut flash = FileFlash::open(&path, SIZE).unwrap();
    let mut buf = [0xaa; 9];
    flash.read(0, &mut buf).unwrap();
    assert_eq!(&buf, b"earlier\0\0");
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
}

#[test]
fn what_cannot_be_a_slot_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot.img");
    fs::write(&path, vec![0; 8192]).unwrap();
    let at = folder.path().display();
    for (result, message) in [
        (
            FileFlash::open(&path, 4096),
            format!(
                "{at}/slot.img has 8192 bytes, more than the configured 4096; configure 8192 bytes, or remove the file to start with an empty slot"
            ),
        ),
        (
            FileFlash::open(&path, 0),
            format!(
                "{at}/slot.img: 0 bytes cannot be used as flash: the size must be a multiple of 4096, and not zero"
            ),
        ),
        (
            FileFlash::open(&path, 10_000),
            format!(
                "{at}/slot.img: 10000 bytes cannot be used as flash: the size must be a multiple of 4096, and not zero"
            ),
        ),
        (
            FileFlash::open_block_device(&path),
            format!("{at}/slot.img is no block device"),
        ),
        (
            FileFlash::open(folder.path(), SIZE),
            format!("cannot open {at} as flash"),
        ),
        (
            FileFlash::open("/dev/null", SIZE),
            "/dev/null is no regular file".to_owned(),
        ),
    ] {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        8192,
        "nothing was changed"
    );
}

#[test]
fn two_cannot_hold_one_slot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot.img");
    let first = FileFlash::open(&path, SIZE).unwrap();
    let error = FileFlash::open(&path, SIZE).unwrap_err();
    assert!(matches!(error, FileFlashError::Busy { .. }), "{error}");
    drop(first);
    FileFlash::open(&path, SIZE).unwrap();
}

#[test]
fn a_file_that_was_cut_short_meanwhile_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot.img");
    let mut flash = FileFlash::open(&path, SIZE).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let error = flash.read(4096, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), FlashErrorKind::Io);
    assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
}

#[test]
fn read_stored_goes_past_the_page_cache() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("slot.img");
    let mut flash = FileFlash::open(&path, 8 << 20).unwrap();
    flash.write(0, &vec![7; 6 << 20]).unwrap();
    flash.sync().unwrap();
    assert_ne!(cached(&path), 0, "the write filled the page cache");
    let mut page = [0; 4096];
    flash.read_stored(4 << 20, &mut page).unwrap();
    assert_eq!(page, [7; 4096]);
    // What is cached now is what was read, and what the kernel read ahead.
    assert!(cached(&path) < 2 << 20, "{}", cached(&path));
}

/// Returns how many bytes of the file the kernel caches.
fn cached(path: &Path) -> u64 {
    let output = Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
        .expect("fincore of util-linux is there");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}
