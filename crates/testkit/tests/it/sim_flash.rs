use alloc::collections::BTreeSet;

use rekindle_flash::{BootControl, BootRecord, Flash, Geometry, SlotId};
use rekindle_testkit::{
    Fate, MemoryBootControl, Operation, Power, PowerOff, SimFlash, SimFlashError,
};

const FILE: Geometry = Geometry {
    size: 64,
    write_size: 4,
    erase_size: 0,
};
const NOR: Geometry = Geometry {
    size: 64,
    write_size: 4,
    erase_size: 16,
};

#[test]
fn unsynced_writes_may_be_lost_kept_or_torn_and_synced_ones_stay() {
    let mut seen = BTreeSet::new();
    for seed in 0..64 {
        let mut flash = SimFlash::new(FILE, seed);
        flash.write(0, b"kept").unwrap();
        flash.sync().unwrap();
        flash.write(4, b"abcdefgh").unwrap();
        flash.restart();
        assert_eq!(&flash.stored()[..4], b"kept");
        assert_eq!(&flash.stored()[12..], [0; 52]);
        seen.insert(flash.stored()[4..12].to_vec());
    }
    assert!(seen.contains(&[0; 8][..]), "lost");
    assert!(seen.contains(&b"abcdefgh"[..]), "kept");
    assert!(seen.len() > 3, "torn in several ways: {seen:?}");
}

#[test]
fn unsynced_writes_are_lost_independently_of_their_order() {
    let later_without_earlier = (0..64).any(|seed| {
        let mut flash = SimFlash::new(FILE, seed);
        flash.write(0, b"1111").unwrap();
        flash.write(4, b"2222").unwrap();
        flash.restart();
        flash.stored()[..8] == *b"\0\0\0\x002222"
    });
    assert!(later_without_earlier);
}

#[test]
fn read_sees_the_cache_and_read_stored_only_what_was_synced() {
    let mut flash = SimFlash::new(FILE, 0);
    let mut buf = [0; 4];
    flash.write(8, b"data").unwrap();
    flash.read(8, &mut buf).unwrap();
    assert_eq!(&buf, b"data");
    flash.read_stored(8, &mut buf).unwrap();
    assert_eq!(buf, [0; 4]);
    flash.sync().unwrap();
    flash.read_stored(8, &mut buf).unwrap();
    assert_eq!(&buf, b"data");
}

#[test]
fn the_nth_operation_tears_and_everything_later_fails_until_a_restart() {
    let mut flash = SimFlash::new(FILE, 5);
    flash.cut_after(3);
    flash.write(0, b"aaaa").unwrap();
    flash.sync().unwrap();
    assert_eq!(
        flash.write(4, b"bbbbccccdddd"),
        Err(SimFlashError::PowerOff(PowerOff))
    );
    assert_eq!(flash.sync(), Err(SimFlashError::PowerOff(PowerOff)));
    assert_eq!(
        flash.read(0, &mut [0; 4]),
        Err(SimFlashError::PowerOff(PowerOff))
    );
    assert_eq!(flash.power().operations(), 3);
    flash.restart();
    assert_eq!(&flash.stored()[..4], b"aaaa");
    assert_ne!(&flash.stored()[4..16], b"bbbbccccdddd");
    flash.write(4, b"eeee").unwrap();
    flash.sync().unwrap();
    assert_eq!(&flash.stored()[4..8], b"eeee");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut flash = SimFlash::new(NOR, seed);
        flash.write(0, &[7; 32]).unwrap();
        flash.cut_after(1);
        assert_eq!(flash.erase(16..48), Err(SimFlashError::PowerOff(PowerOff)));
        flash.restart();
        flash.stored().to_vec()
    };
    assert_eq!(run(11), run(11));
    assert!((0..16).any(|seed| run(seed) != run(11)));
}

#[test]
fn a_unit_is_written_once_after_each_erase() {
    let mut flash = SimFlash::new(NOR, 0);
    flash.write(4, b"once").unwrap();
    assert_eq!(
        flash.write(0, b"freetwic"),
        Err(SimFlashError::NotErased { offset: 4 })
    );
    assert_eq!(
        flash.write(4, b"once"),
        Err(SimFlashError::NotErased { offset: 4 }),
        "not even the same bytes"
    );
    flash.erase(0..16).unwrap();
    flash.write(4, b"next").unwrap();
    flash.sync().unwrap();
    assert_eq!(&flash.stored()[..8], b"\xff\xff\xff\xffnext");
}

#[test]
fn a_block_whose_erase_was_torn_must_be_erased_again_even_where_it_reads_as_erased() {
    let torn = (0..64).find_map(|seed| {
        let mut flash = SimFlash::new(NOR, seed);
        flash.write(0, &[1; 16]).unwrap();
        flash.sync().unwrap();
        flash.cut_after(1);
        assert_eq!(flash.erase(0..16), Err(SimFlashError::PowerOff(PowerOff)));
        flash.restart();
        let reads_erased = flash.stored()[..16] == [0xff; 16];
        let refuses = flash.write(0, &[2; 4]) == Err(SimFlashError::NotErased { offset: 0 });
        (reads_erased && refuses).then_some(flash)
    });
    let mut flash = torn.expect("one of the seeds leaves it half erased");
    flash.erase(0..16).unwrap();
    flash.write(0, &[2; 4]).unwrap();
}

#[test]
fn after_a_failed_sync_the_flash_fails_until_it_is_restarted() {
    let mut flash = SimFlash::new(FILE, 0);
    flash.write(0, b"lost").unwrap();
    flash.fail_next_sync();
    assert_eq!(flash.sync(), Err(SimFlashError::SyncFailed));
    assert_eq!(flash.sync(), Err(SimFlashError::SyncFailed));
    assert_eq!(flash.write(0, b"more"), Err(SimFlashError::SyncFailed));
    assert_eq!(
        flash.read_stored(0, &mut [0; 4]),
        Err(SimFlashError::SyncFailed)
    );
    flash.restart();
    flash.write(0, b"more").unwrap();
    flash.sync().unwrap();
    assert_eq!(&flash.stored()[..4], b"more");
}

#[test]
fn parts_on_one_supply_share_the_count_the_log_and_the_cut() {
    let power = Power::new(1);
    let mut slot = SimFlash::with_power("slot-b", FILE, &power);
    let mut record = BootRecord::new(&[("prot", 2)]).unwrap();
    let mut boot = MemoryBootControl::with_power("boot", record.clone(), &power);

    slot.write(0, b"data").unwrap();
    slot.sync().unwrap();
    record.choose("prot", SlotId::B, 3).unwrap();
    boot.store(&record).unwrap();
    assert_eq!(
        power.begin("state", Operation::Other("commit".to_owned())),
        Ok(Fate::Whole)
    );
    let log: Vec<String> = power.log().iter().map(ToString::to_string).collect();
    assert_eq!(
        log,
        [
            "slot-b: write 0x0..0x4",
            "slot-b: sync",
            "boot: store",
            "state: commit"
        ]
    );

    power.clear_log();
    power.cut_after(1);
    assert_eq!(boot.store(&record), Err(PowerOff));
    assert_eq!(slot.sync(), Err(SimFlashError::PowerOff(PowerOff)));
    assert_eq!(boot.load(), Err(PowerOff));
    assert_eq!(power.log()[0].to_string(), "boot: store (torn)");
    power.restore();
    assert_eq!(boot.load(), Ok(record));
}

#[test]
fn a_torn_store_leaves_the_old_record_or_the_new_one() {
    let old = BootRecord::new(&[("prot", 2)]).unwrap();
    let mut new = old.clone();
    new.raise_floor("prot", 9).unwrap();
    let mut seen = [false; 2];
    for seed in 0..32 {
        let power = Power::new(seed);
        let mut boot = MemoryBootControl::with_power("boot", old.clone(), &power);
        power.cut_after(1);
        assert_eq!(boot.store(&new), Err(PowerOff));
        power.restore();
        let left = boot.load().unwrap();
        assert!(left == old || left == new);
        seen[usize::from(left == new)] = true;
    }
    assert_eq!(seen, [true; 2]);
}
