use rekindle_flash::{Flash, Geometry};
use rekindle_state::{
    Dated, DecodeError, FlashStore, FlashStoreError, Generation, SlotRecord, State, Store,
};
use rekindle_testkit::{Fault, SimFlash};

use crate::full;

const NOR: Geometry = Geometry {
    size: 8192,
    write_size: 4,
    erase_size: 4096,
};
const GEOMETRIES: [Geometry; 4] = [
    NOR,
    Geometry {
        size: 131_072 + 65536,
        write_size: 16,
        erase_size: 65536,
    },
    Geometry {
        size: 16384,
        write_size: 256,
        erase_size: 4096,
    },
    Geometry {
        size: 9216,
        write_size: 512,
        erase_size: 0,
    },
];

fn checked(serial: u64) -> State {
    let mut state = full();
    state.check = Some(Dated {
        value: serial.to_string().into_bytes(),
        date: None,
    });
    state
}

fn serial(state: &State) -> Option<u64> {
    let text = String::from_utf8(state.check.clone()?.value).expect("the tests write digits");
    Some(text.parse().expect("the tests write digits"))
}

fn half(geometry: Geometry) -> usize {
    let unit = u64::from(geometry.erase_size.max(geometry.write_size));
    usize::try_from(geometry.size / 2 / unit * unit).expect("simulated flash is small")
}

/// The sequence each half has, `None` where there is no whole generation.
fn sequences(flash: &SimFlash) -> [Option<u64>; 2] {
    [0, half(flash.geometry())].map(|start| {
        let bytes = &flash.stored()[start..];
        let len = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
        let len = usize::try_from(len).expect("lengths are short") + 28;
        let generation = Generation::decode(bytes.get(..len)?).ok()?;
        Some(generation.sequence)
    })
}

fn committed(geometry: Geometry, seed: u64, serials: core::ops::RangeInclusive<u64>) -> SimFlash {
    let mut store = FlashStore::open(SimFlash::new(geometry, seed)).expect("it is large enough");
    for serial in serials {
        store.commit(&checked(serial)).expect("the state fits");
    }
    let mut flash = store.into_inner();
    flash.restart();
    flash
}

fn load(flash: &mut SimFlash) -> State {
    let mut store = FlashStore::open(flash).expect("it is large enough");
    store.load().expect("the state is whole").state
}

#[test]
fn flash_that_was_never_written_holds_the_default_state_and_stays_blank_until_a_commit() {
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        assert_eq!(load(&mut flash), State::default());
        assert!(
            flash
                .power()
                .log()
                .iter()
                .all(|entry| !entry.to_string().contains("write"))
        );
        let mut store = FlashStore::open(flash).unwrap();
        store.commit(&State::default()).unwrap();
        assert_eq!(sequences(&store.into_inner()), [Some(1), Some(2)]);
    }
}

#[test]
fn commits_take_turns_and_the_newest_counts() {
    for geometry in GEOMETRIES {
        for (serials, expected) in [
            (1..=1, [Some(1), Some(2)]),
            (1..=2, [Some(3), Some(2)]),
            (1..=3, [Some(3), Some(4)]),
        ] {
            let last = *serials.end();
            let mut flash = committed(geometry, 1, serials);
            assert_eq!(sequences(&flash), expected, "{geometry:?}");
            assert_eq!(load(&mut flash), checked(last));
        }
    }
}

#[test]
fn a_commit_that_changes_nothing_writes_nothing() {
    let flash = committed(NOR, 1, 1..=2);
    let before = sequences(&flash);
    let mut store = FlashStore::open(flash).unwrap();
    store.commit(&checked(2)).unwrap();
    assert_eq!(sequences(&store.into_inner()), before);
}

#[test]
fn a_cut_at_any_operation_leaves_the_state_before_or_after() {
    for geometry in GEOMETRIES {
        let whole = committed(geometry, 0, 1..=4).power().operations();
        let mut kept = [0; 5];
        for cut in 1..=whole {
            for seed in 0..12 {
                let mut flash = SimFlash::new(geometry, seed);
                flash.cut_after(cut);
                let mut asked = 0;
                let mut store = FlashStore::open(&mut flash).unwrap();
                while asked < 4 {
                    asked += 1;
                    if store.commit(&checked(asked)).is_err() {
                        break;
                    }
                }
                flash.restart();
                let found = serial(&load(&mut flash)).unwrap_or(0);
                assert!(
                    found == asked || found + 1 == asked,
                    "{geometry:?}, cut {cut}, seed {seed}: {found} after {asked} was committed"
                );
                kept[usize::try_from(found).unwrap()] += 1;
                // What follows works, whatever the cut left of the blocks.
                let mut store = FlashStore::open(&mut flash).unwrap();
                for serial in 10..=12 {
                    store.commit(&checked(serial)).unwrap();
                }
                flash.restart();
                assert_eq!(load(&mut flash), checked(12));
            }
        }
        assert!(kept.iter().all(|count| *count > 0), "{kept:?}");
    }
}

#[test]
fn a_damaged_generation_beside_a_whole_one_is_reported_and_written_next() {
    let mut flash = committed(NOR, 1, 1..=3);
    flash.damage(4096 + 60, b"\x00\x00\x00\x00");
    let mut store = FlashStore::open(flash).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.state, checked(2));
    let damage = loaded.damage.unwrap();
    assert_eq!(damage.generation, "the generation at 0x1000");
    assert_eq!(damage.error, DecodeError::Checksum);
    store.commit(&checked(4)).unwrap();
    assert_eq!(sequences(&store.into_inner()), [Some(3), Some(4)]);
}

#[test]
fn damage_without_a_whole_generation_is_an_error_and_never_the_default_state() {
    for (damaged, blank) in [
        (&[0, 4096][..], None),
        // As if an erase was cut off, and then the newest generation rotted.
        (&[0][..], Some(4096)),
        (&[4096][..], Some(0)),
    ] {
        let mut flash = committed(NOR, 1, 1..=2);
        for offset in damaged {
            flash.damage(offset + 50, b"\x00\x00\x00\x00");
        }
        if let Some(start) = blank {
            flash.erase(start..start + 4096).unwrap();
            flash.sync().unwrap();
        }
        let mut store = FlashStore::open(&mut flash).unwrap();
        for result in [
            store.load().map(|_| ()),
            store.commit(&State::default()),
            store.load().map(|_| ()),
        ] {
            assert!(
                matches!(result, Err(FlashStoreError::Damaged(_))),
                "{damaged:?}, {blank:?}: {result:?}"
            );
        }
        store.start_over(&checked(9)).unwrap();
        assert_eq!(store.load().unwrap().damage, None);
        flash.restart();
        assert_eq!(load(&mut flash), checked(9));
    }
}

#[test]
fn a_cut_while_it_begins_anew_never_makes_damage_an_empty_state() {
    for (damaged, blank) in [
        (&[0, 4096][..], None),
        (&[0][..], Some(4096)),
        (&[4096][..], Some(0)),
        (&[0][..], None),
        (&[][..], None),
    ] {
        for cut in 1..=8 {
            for seed in 0..24 {
                let mut flash = committed(NOR, seed, 1..=2);
                for offset in damaged {
                    flash.damage(offset + 50, b"\x00\x00\x00\x00");
                }
                if let Some(start) = blank {
                    flash.erase(start..start + 4096).unwrap();
                    flash.sync().unwrap();
                }
                flash.cut_after(cut);
                let mut store = FlashStore::open(&mut flash).unwrap();
                let done = store.start_over(&checked(9)).is_ok();
                flash.restart();
                let mut store = FlashStore::open(&mut flash).unwrap();
                match store.load() {
                    Ok(loaded) => assert_ne!(loaded.state, State::default()),
                    Err(FlashStoreError::Damaged(_)) => assert!(!done),
                    Err(error) => panic!("{error}"),
                }
                store.start_over(&checked(10)).unwrap();
                assert_eq!(load(&mut flash), checked(10));
            }
        }
    }
}

#[test]
fn flash_or_state_that_does_not_fit_is_refused_and_nothing_is_lost() {
    for (geometry, needed) in [
        (Geometry { size: 4096, ..NOR }, 8192),
        (
            Geometry {
                size: 65536,
                erase_size: 65536,
                ..NOR
            },
            131_072,
        ),
    ] {
        let error = FlashStore::open(SimFlash::new(geometry, 1)).unwrap_err();
        assert_eq!(
            error,
            FlashStoreError::TooSmall {
                size: geometry.size,
                needed
            }
        );
    }
    let mut flash = committed(NOR, 1, 1..=2);
    let mut store = FlashStore::open(&mut flash).unwrap();
    let mut large = full();
    large.slots = (0..40)
        .map(|index| SlotRecord {
            build: "b".repeat(64),
            slot: crate::slot(index % 26),
            ..full().slots[0].clone()
        })
        .collect();
    let error = store.commit(&large).unwrap_err();
    assert!(
        matches!(error, FlashStoreError::Full { half: 4096, .. }),
        "{error}"
    );
    assert_eq!(store.load().unwrap().state, checked(2));
    store.commit(&checked(3)).unwrap();
    assert_eq!(load(&mut flash), checked(3));
}

#[test]
fn a_half_that_cannot_be_read_gives_way_and_only_both_together_are_an_error_of_the_flash() {
    let mut flash = committed(NOR, 1, 1..=3);
    flash.inject(Fault::Read(4096 + 30..4096 + 31));
    let loaded = FlashStore::open(&mut flash).unwrap().load().unwrap();
    assert_eq!(loaded.state, checked(2));
    assert_eq!(loaded.damage.unwrap().error, DecodeError::Unreadable);
    flash.inject(Fault::Read(0..1));
    let error = FlashStore::open(&mut flash).unwrap().load().unwrap_err();
    assert!(matches!(error, FlashStoreError::Flash(_)), "{error}");
}

#[test]
fn a_commit_that_failed_leaves_the_state_before_and_can_be_tried_again() {
    let mut flash = committed(NOR, 1, 1..=2);
    let mut store = FlashStore::open(&mut flash).unwrap();
    store.load().unwrap();
    for fault in [Fault::Erase(4096..4097), Fault::Write(4096..4097)] {
        let mut flash = store.into_inner();
        flash.inject(fault);
        store = FlashStore::open(flash).unwrap();
        let error = store.commit(&checked(3)).unwrap_err();
        assert!(matches!(error, FlashStoreError::Flash(_)), "{error}");
        assert_eq!(store.load().unwrap().state, checked(2));
        flash = store.into_inner();
        flash.heal();
        store = FlashStore::open(flash).unwrap();
    }
    store.commit(&checked(3)).unwrap();
    assert_eq!(store.load().unwrap().state, checked(3));
}

#[test]
fn cells_that_are_worn_out_are_noticed_by_the_commit() {
    let mut flash = committed(NOR, 1, 1..=2);
    flash.inject(Fault::Stuck {
        offset: 4096 + 40,
        mask: 0xff,
        value: 0xee,
    });
    let mut store = FlashStore::open(&mut flash).unwrap();
    assert_eq!(
        store.commit(&checked(3)),
        Err(FlashStoreError::ReadBack { offset: 4096 })
    );
    assert_eq!(store.load().unwrap().state, checked(2));
}
