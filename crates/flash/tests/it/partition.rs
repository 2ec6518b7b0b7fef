use core::cell::RefCell;

use rekindle_flash::{
    Flash, FlashError, FlashErrorKind, Geometry, Partition, PartitionError, PartitionFlashError,
};
use rekindle_testkit::{SimFlash, SimFlashError};

const NOR: Geometry = Geometry {
    size: 16 * 4096,
    write_size: 4,
    erase_size: 4096,
};
const SECTORS: Geometry = Geometry {
    size: 64 * 512,
    write_size: 512,
    erase_size: 0,
};

#[test]
fn a_part_begins_and_ends_on_the_units_of_its_flash() {
    let new = |geometry, range| {
        Partition::new(SimFlash::new(geometry, 1), range).map(|part| part.geometry())
    };
    let part = |geometry, size| Ok(Geometry { size, ..geometry });
    assert_eq!(new(NOR, 4096..8192), part(NOR, 4096));
    assert_eq!(new(NOR, 0..NOR.size), part(NOR, NOR.size));
    assert_eq!(new(SECTORS, 512..2048), part(SECTORS, 1536));
    for (geometry, range, unit) in [
        (NOR, 4..8192, 4096),
        (NOR, 4096..8196, 4096),
        (SECTORS, 256..1024, 512),
    ] {
        let error = PartitionError::NotAligned {
            range: range.clone(),
            unit,
        };
        assert_eq!(new(geometry, range), Err(error));
    }
    let range = 4096..NOR.size + 4096;
    let error = PartitionError::OutOfBounds {
        range: range.clone(),
        size: NOR.size,
    };
    assert_eq!(
        error.to_string(),
        "a partition at 0x1000 to 0x11000 ends beyond the flash, which has 0x10000 bytes"
    );
    assert_eq!(new(NOR, range), Err(error));
    assert_eq!(
        new(NOR, 4096..4096),
        Err(PartitionError::Empty { range: 4096..4096 })
    );
}

#[test]
fn a_part_reaches_its_own_bytes_only() {
    let mut chip = SimFlash::new(NOR, 1);
    chip.write(4092, b"left").unwrap();
    chip.write(12288, b"next").unwrap();
    let mut part = Partition::new(&mut chip, 4096..12288).unwrap();
    part.write(0, b"head").unwrap();
    part.write(8188, b"tail").unwrap();
    part.sync().unwrap();
    let mut found = [0; 4];
    part.read_stored(8188, &mut found).unwrap();
    assert_eq!(&found, b"tail");
    part.erase(0..8192).unwrap();
    part.sync().unwrap();

    for (offset, len) in [(8188, 8), (8192, 4), (u64::MAX - 3, 4)] {
        let mut buf = vec![0; len];
        for error in [
            part.read(offset, &mut buf).unwrap_err(),
            part.read_stored(offset, &mut buf).unwrap_err(),
            part.write(offset, &buf).unwrap_err(),
        ] {
            assert_eq!(error.kind(), FlashErrorKind::OutOfBounds);
        }
    }
    let error = part.erase(0..12288).unwrap_err();
    assert_eq!(
        error.to_string(),
        "12288 bytes at 0x0 reach beyond the partition at 0x1000 to 0x3000"
    );
    let error = part.write(2, b"odd!").unwrap_err();
    assert_eq!(error.kind(), FlashErrorKind::NotAligned);

    let stored = chip.stored();
    assert_eq!(&stored[4092..4096], b"left");
    assert!(stored[4096..12288].iter().all(|byte| *byte == 0xff));
    assert_eq!(&stored[12288..12292], b"next");
}

#[test]
fn an_error_of_the_flash_below_keeps_its_kind_and_its_offsets() {
    let mut part = Partition::new(SimFlash::new(NOR, 1), 8192..16384).unwrap();
    part.write(4, b"once").unwrap();
    let error = part.write(4, b"more").unwrap_err();
    assert_eq!(error.to_string(), "in the partition at 0x2000 to 0x4000");
    let PartitionFlashError::Flash { range, source } = error else {
        panic!("{error}");
    };
    assert_eq!(range, 8192..16384);
    assert_eq!(source, SimFlashError::NotErased { offset: 8196 });
    assert_eq!(part.range(), &(8192..16384));
    assert_eq!(part.into_inner().geometry(), NOR);
}

#[test]
fn parts_share_one_flash_and_lie_in_each_other() {
    let chip = RefCell::new(SimFlash::new(NOR, 1));
    let mut boot = Partition::new(&chip, 0..8192).unwrap();
    let slots = Partition::new(&chip, 8192..NOR.size).unwrap();
    let mut second = Partition::new(slots, 16384..32768).unwrap();
    boot.write(0, b"boot").unwrap();
    second.write(8, b"slot").unwrap();
    boot.sync().unwrap();
    let chip = chip.borrow();
    assert_eq!(&chip.stored()[..4], b"boot");
    assert_eq!(&chip.stored()[8192 + 16384 + 8..][..4], b"slot");
}
