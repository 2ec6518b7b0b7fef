use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rekindle_flash::{
    BootControl, BootCopy, BootRecord, FileBootControl, FileBootControlError, SlotId,
};
use rekindle_testkit::conformance::BootSuite;

const COMPONENTS: &[(&str, u8)] = &[("prot", 2), ("boot", 3), ("bmc", 1)];

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("boot.state");
    Place {
        _folder: folder,
        path,
    }
}

impl Place {
    fn open(&self) -> Result<FileBootControl, FileBootControlError> {
        FileBootControl::open(&self.path, COMPONENTS)
    }

    fn damage(&self, offset: u64) {
        let file = fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        file.write_all_at(b"damage", offset).unwrap();
    }

    /// Stores records with rising floors; the file then holds the last two.
    fn store_floors(&self, floors: core::ops::RangeInclusive<u64>) {
        let mut boot = self.open().unwrap();
        for floor in floors {
            let mut record = boot.load().unwrap();
            record.raise_floor("prot", floor).unwrap();
            boot.store(&record).unwrap();
        }
    }

    fn floor(&self) -> u64 {
        let record = self.open().unwrap().load().unwrap();
        record.component("prot").unwrap().security_floor
    }
}

#[test]
fn the_file_keeps_the_contract_of_boot_control() {
    let place = place();
    BootSuite::new(place.open().unwrap())
        .restart(|opened| {
            drop(opened);
            place.open().unwrap()
        })
        .damage(|_| [0, 4096].into_iter().for_each(|copy| place.damage(copy)))
        .run()
        .assert();
}

#[test]
fn a_new_file_boots_slot_a_of_everything_and_holds_one_copy() {
    let place = place();
    let record = place.open().unwrap().load().unwrap();
    assert_eq!(record, BootRecord::new(COMPONENTS).unwrap());
    let bytes = fs::read(&place.path).unwrap();
    let copy = BootCopy {
        sequence: 1,
        record,
    };
    assert_eq!(bytes[..4096], copy.encode());
    assert_eq!(bytes[4096..], [0; 4096]);
    let files: Vec<_> = fs::read_dir(place.path.parent().unwrap())
        .unwrap()
        .collect();
    assert_eq!(files.len(), 1, "no temporary file is left: {files:?}");
}

#[test]
fn a_store_overwrites_the_older_copy() {
    let place = place();
    let copies = || {
        let bytes = fs::read(&place.path).unwrap();
        let (first, second) = bytes.split_at(4096);
        [first, second].map(|copy| BootCopy::decode(copy).ok().map(|copy| copy.sequence))
    };
    let mut seen = Vec::new();
    for floor in 1..=4 {
        place.store_floors(floor..=floor);
        seen.push(copies());
    }
    assert_eq!(
        seen,
        [
            [Some(1), Some(2)],
            [Some(3), Some(2)],
            [Some(3), Some(4)],
            [Some(5), Some(4)],
        ]
    );
}

#[test]
fn a_copy_that_is_damaged_or_half_written_is_replaced_by_the_next_store() {
    // Three stores after the creation: sequence 4 in the second place, 3 in the first.
    for (offset, floor) in [(0, 3), (100, 3), (4096, 2), (4096 + 4000, 2)] {
        let place = place();
        place.store_floors(1..=3);
        place.damage(offset);
        assert_eq!(place.floor(), floor, "damage at {offset}");
        place.store_floors(9..=9);
        assert_eq!(place.floor(), 9);
        place.store_floors(10..=10);
        let bytes = fs::read(&place.path).unwrap();
        for copy in bytes.chunks(4096) {
            BootCopy::decode(copy).unwrap();
        }
    }
}

#[test]
fn every_prefix_of_a_store_leaves_the_old_record_or_the_new_one() {
    let place = place();
    place.store_floors(1..=2);
    let before = fs::read(&place.path).unwrap();
    place.store_floors(3..=3);
    let after = fs::read(&place.path).unwrap();
    let changed = before.iter().zip(&after).position(|(a, b)| a != b).unwrap() / 4096 * 4096;
    for written in (0..=4096).step_by(16) {
        let mut torn = before.clone();
        torn[changed..changed + written].copy_from_slice(&after[changed..changed + written]);
        let complete = torn == after;
        fs::write(&place.path, &torn).unwrap();
        assert_eq!(place.floor(), if complete { 3 } else { 2 }, "{written}");
    }
}

#[test]
fn two_damaged_copies_are_an_error_and_never_a_default() {
    let place = place();
    place.store_floors(1..=3);
    place.damage(0);
    place.damage(4096 + 50);
    let before = fs::read(&place.path).unwrap();
    let error = place.open().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "boot control file {} is damaged (first copy: not a boot record; second copy: wrong checksum); restore it, or remove it: the agent then takes what runs for confirmed, and the security floors start at 0",
            place.path.display()
        )
    );
    assert_eq!(fs::read(&place.path).unwrap(), before);
}

#[test]
fn an_empty_or_short_file_is_damaged_too() {
    for len in [0, 1, 4095] {
        let place = place();
        fs::write(&place.path, vec![0; len]).unwrap();
        let error = place.open().unwrap_err();
        assert!(
            matches!(error, FileBootControlError::Damaged { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_store_does_not_replace_a_damaged_file() {
    let place = place();
    let mut boot = place.open().unwrap();
    let record = boot.load().unwrap();
    fs::write(&place.path, [0xee; 8192]).unwrap();
    let error = boot.store(&record).unwrap_err();
    assert!(
        matches!(error, FileBootControlError::Damaged { .. }),
        "{error}"
    );
    assert_eq!(fs::read(&place.path).unwrap(), [0xee; 8192]);
}

#[test]
fn the_boot_loader_and_the_agent_see_each_others_stores() {
    let place = place();
    let mut agent = place.open().unwrap();
    let mut loader = place.open().unwrap();
    let mut record = agent.load().unwrap();
    record.choose("prot", SlotId::B, 3).unwrap();
    agent.store(&record).unwrap();

    let mut record = loader.load().unwrap();
    assert_eq!(record.start()[0], ("prot".to_owned(), SlotId::B));
    loader.store(&record).unwrap();

    assert!(agent.load().unwrap().trial_started());
}

#[test]
fn a_changed_configuration_is_taken_over_or_refused() {
    let place = place();
    let mut boot = place.open().unwrap();
    let mut record = boot.load().unwrap();
    record.choose("boot", SlotId::new(2).unwrap(), 3).unwrap();
    boot.store(&record).unwrap();

    let mut grown = FileBootControl::open(&place.path, &[("prot", 3), ("fpga", 2)]).unwrap();
    let known: Vec<_> = grown
        .load()
        .unwrap()
        .components()
        .map(|component| (component.name.clone(), component.slots))
        .collect();
    let expected = [("prot", 3), ("boot", 3), ("bmc", 1), ("fpga", 2)];
    assert_eq!(
        known,
        expected.map(|(name, slots)| (name.to_owned(), slots))
    );

    let error = FileBootControl::open(&place.path, &[("boot", 2)]).unwrap_err();
    assert!(
        matches!(error, FileBootControlError::Configuration { .. }),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_created_is_named() {
    let error = FileBootControl::open("/nonexistent/boot.state", COMPONENTS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "boot control file /nonexistent/boot.state"
    );
}
