//! A recorded run, cut in every way.

use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind};
use rekindle_testkit::{
    Fault, Inside, Medium, Plan, Point, Power, Preset, Recording, SimFlash, SimFlashError, Torn,
    Unsynced,
};

/// Two blocks are replaced, synced, and the first one is erased again.
fn run(flash: &mut SimFlash) -> Result<(), SimFlashError> {
    flash.erase(0..8192)?;
    flash.write(0, &[1; 256])?;
    flash.write(4096, &[2; 256])?;
    flash.sync()?;
    flash.erase(0..4096)
}

fn recorded(preset: &Preset) -> Recording {
    let medium = Medium::new("chip", preset, 16 * 1024);
    let power = Power::new(1);
    power.record();
    run(&mut medium.start(&power)).expect("nothing is wrong with it");
    Recording::new(vec![medium], power.recorded())
}

fn bytes(medium: &Medium, range: Range<usize>) -> &[u8] {
    &medium.bytes()[range]
}

#[test]
fn recording_says_what_was_done_and_where_it_stands() {
    let recording = recorded(&Preset::NOR_PAGE);
    let steps: Vec<String> = recording.steps().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "chip: erase 0x0..0x2000",
            "chip: write 0x0..0x100",
            "chip: write 0x1000..0x1100",
            "chip: sync",
            "chip: erase 0x0..0x1000",
        ]
    );
    let before = recording.moment(3);
    assert_eq!(before.unsynced(), 3);
    assert_eq!(bytes(&before.synced()[0], 0..2), [0xff; 2]);
    let after = recording.moment(4);
    assert_eq!((after.unsynced(), after.pieces()), (0, 1));
    assert_eq!(bytes(&after.synced()[0], 0..2), [1; 2]);
    let end = recording.moment(5);
    assert_eq!((end.unsynced(), end.next()), (1, None));
}

#[test]
fn cut_keeps_of_what_is_not_synced_what_the_point_says() {
    let recording = recorded(&Preset::NOR_PAGE);
    let moment = recording.moment(3);
    for (unsynced, first, second) in [
        (Unsynced::First(3), 1, 2),
        (Unsynced::First(2), 1, 0xff),
        (Unsynced::First(0), 0xff, 0xff),
        (Unsynced::AllBut(1), 0xff, 2),
        (Unsynced::AllBut(0), 1, 2),
    ] {
        let point = Point {
            step: 3,
            inside: None,
            unsynced,
        };
        let media = moment.cut(&point, 1);
        let found = [media[0].bytes()[0], media[0].bytes()[4096]];
        assert_eq!(found, [first, second], "{point}");
    }
}

#[test]
fn write_is_cut_at_every_word_and_the_torn_word_takes_no_other_write() {
    let recording = recorded(&Preset::NOR_WORD);
    let moment = recording.moment(1);
    assert_eq!(moment.pieces(), 64);
    let points = moment.points(&Plan::full(1));
    for at in 0..64 {
        for torn in [Torn::Old, Torn::New, Torn::Half, Torn::Garbage] {
            let inside = Some(Inside::Piece { at, torn });
            let point = points.iter().find(|point| point.inside == inside);
            let point = point.expect("every word is cut in every way");
            let media = moment.cut(point, 1);
            let word = at * 4..at * 4 + 4;
            assert!(
                bytes(&media[0], 0..word.start)
                    .iter()
                    .all(|byte| *byte == 1)
            );
            assert!(
                bytes(&media[0], word.end..256)
                    .iter()
                    .all(|byte| *byte == 0xff)
            );
            let expected: Option<&[u8]> = match torn {
                Torn::Old => Some(&[0xff; 4]),
                Torn::New => Some(&[1; 4]),
                Torn::Half => Some(&[1, 1, 0xff, 0xff]),
                Torn::Garbage => None,
            };
            if let Some(expected) = expected {
                assert_eq!(bytes(&media[0], word.clone()), expected, "{point}");
            }
            let mut flash = media[0].start(&Power::new(1));
            let offset = u64::try_from(word.start).unwrap();
            let again = flash.write(offset, &[3; 4]);
            assert_eq!(again, Err(SimFlashError::NotErased { offset }), "{point}");
        }
    }
}

#[test]
fn same_point_and_seed_give_the_same_bytes_and_another_seed_others() {
    let recording = recorded(&Preset::NOR_BYTE);
    let point: Point = "1@scattered0+first1".parse().unwrap();
    let moment = recording.moment(1);
    let [one, same, other] = [5, 5, 6].map(|seed| moment.cut(&point, seed));
    assert_eq!(one[0].bytes(), same[0].bytes());
    assert!(one[0].bytes() != other[0].bytes());
}

#[test]
fn torn_word_of_unstable_flash_reads_differently_each_time_until_it_is_erased() {
    let recording = recorded(&Preset::ONCE);
    let point: Point = "1@2:garbage+first1".parse().unwrap();
    let media = recording.moment(1).cut(&point, 1);
    let mut flash = media[0].start(&Power::new(1));
    let mut read = || {
        let mut found = [0; 32];
        flash.read_stored(64, &mut found).unwrap();
        found
    };
    assert_ne!(read(), read());
    flash.erase(0..4096).unwrap();
    flash.sync().unwrap();
    let mut found = [0; 32];
    flash.read_stored(64, &mut found).unwrap();
    assert_eq!(found, [0xff; 32]);
}

#[test]
fn lying_sync_leaves_everything_to_the_cut() {
    let recording = recorded(&Preset::NOR_PAGE).with_lying_syncs("chip");
    let moment = recording.moment(5);
    assert_eq!(moment.unsynced(), 4);
    assert_eq!(bytes(&moment.synced()[0], 0..2), [0xff; 2]);
}

#[test]
fn fault_shows_where_it_is_and_nowhere_else_until_it_is_healed() {
    let mut flash = Medium::new("chip", &Preset::FILE, 16 * 1024).start(&Power::new(1));
    flash.inject(Fault::Write(100..101));
    assert_eq!(
        flash.write(90, &[1; 20]),
        Err(SimFlashError::Broken { offset: 90 })
    );
    flash.write(0, &[1; 90]).unwrap();
    flash.inject(Fault::Read(50..51));
    let mut found = [0; 10];
    for read in [SimFlash::read, SimFlash::read_stored] {
        let error = read(&mut flash, 45, &mut found);
        assert_eq!(error, Err(SimFlashError::Broken { offset: 45 }));
        read(&mut flash, 51, &mut found).unwrap();
    }
    flash.heal();
    flash.inject(Fault::Stuck {
        offset: 7,
        mask: 0x0f,
        value: 0,
    });
    flash.write(0, &[0xff; 16]).unwrap();
    flash.sync().unwrap();
    flash.read(0, &mut found).unwrap();
    assert_eq!(found[7], 0xff, "the cache has it");
    flash.read_stored(0, &mut found).unwrap();
    assert_eq!((found[6], found[7]), (0xff, 0xf0), "the medium has not");

    flash.inject(Fault::Full(10));
    flash.write(0, &[0; 8]).unwrap();
    let full = flash.write(8, &[0; 8]).map_err(|error| error.kind());
    assert_eq!(full, Err(FlashErrorKind::Full));
    flash.inject(Fault::Sync(1));
    flash.sync().unwrap();
    assert_eq!(flash.sync(), Err(SimFlashError::SyncFailed));
}
