use core::ops::Range;

use rekindle_flash::{Flash, Geometry};
use rekindle_state::{
    AdoptedKeySet, Dated, DecodeError, Evidence, FlashStore, FlashStoreError, Generation,
    Rejection, SlotRecord, State, Store, UnixTime,
};
use rekindle_testkit::{Fault, SimFlash, SimFlashError};

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
    let mut store = FlashStore::open(SimFlash::new(NOR, 1)).unwrap();
    for serial in [1, 2, 2, 2] {
        store.commit(&checked(serial)).unwrap();
        assert_eq!(store.load().unwrap().state, checked(serial));
    }
    assert_eq!(sequences(&store.into_inner()), [Some(3), Some(2)]);
}

#[test]
fn a_state_that_a_start_has_found_does_not_count_as_committed() {
    for (serials, newest) in [(1..=2, 0), (1..=3, 4096)] {
        let last = *serials.end();
        let mut flash = committed(NOR, 1, serials);
        let mut store = FlashStore::open(&mut flash).unwrap();
        assert_eq!(store.load().unwrap().state, checked(last));
        store.commit(&checked(last)).unwrap();
        // Its commit was cut off at the very end, and its cells fade.
        flash.damage(newest + 60, b"\x00\x00\x00\x00");
        assert_eq!(load(&mut flash), checked(last));
    }
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

/// The next readings that begin at `offset` fail.
struct Flaky {
    flash: SimFlash,
    offset: u64,
    failures: u32,
}

impl Flash for Flaky {
    type Error = SimFlashError;

    fn geometry(&self) -> Geometry {
        self.flash.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        self.flash.read(offset, buf)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        if offset == self.offset && self.failures > 0 {
            self.failures -= 1;
            return Err(SimFlashError::Broken { offset });
        }
        self.flash.read_stored(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), SimFlashError> {
        self.flash.write(offset, data)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), SimFlashError> {
        self.flash.erase(range)
    }

    fn sync(&mut self) -> Result<(), SimFlashError> {
        self.flash.sync()
    }
}

#[test]
fn a_reading_that_fails_once_makes_no_older_state_the_newest() {
    for failures in 1..=2 {
        let mut store = FlashStore::open(Flaky {
            flash: committed(NOR, 1, 1..=3),
            offset: 4096,
            failures,
        })
        .unwrap();
        let loaded = store.load().unwrap();
        assert_eq!((loaded.state, loaded.damage), (checked(3), None));
        store.commit(&checked(4)).unwrap();
        assert_eq!(sequences(&store.into_inner().flash), [Some(5), Some(4)]);
    }
}

#[test]
fn a_half_that_cannot_be_read_beside_an_empty_or_damaged_one_is_no_first_commit() {
    for (serials, newest, other) in [(1..=2, 0, 4096), (1..=3, 4096, 0)] {
        for damaged in [false, true] {
            let last = *serials.end();
            let mut flash = committed(NOR, 1, serials.clone());
            // A commit was cut off behind its erase, or in its write.
            if damaged {
                flash.damage(other + 60, b"\x00\x00\x00\x00");
            } else {
                flash.erase(other..other + 4096).unwrap();
                flash.sync().unwrap();
            }
            flash.inject(Fault::Read(newest..newest + 1));
            let mut store = FlashStore::open(&mut flash).unwrap();
            for result in [store.load().map(|_| ()), store.commit(&State::default())] {
                assert!(
                    matches!(result, Err(FlashStoreError::Flash(_))),
                    "{newest} {damaged}: {result:?}"
                );
            }
            flash.heal();
            assert_eq!(load(&mut flash), checked(last));
        }
    }
}

#[test]
fn a_first_commit_that_was_cut_off_anywhere_in_its_header_leaves_the_default_state() {
    let whole = committed(NOR, 1, 1..=1);
    for written in 1..60 {
        let mut flash = SimFlash::new(NOR, 1);
        flash.damage(0, &whole.stored()[..written]);
        assert_eq!(load(&mut flash), State::default(), "{written}");
        let mut store = FlashStore::open(&mut flash).unwrap();
        store.commit(&checked(1)).unwrap();
        assert_eq!(load(&mut flash), checked(1));
    }
}

/// The longest texts and numbers there are.
fn longest_trial(number: u8) -> (Rejection, Evidence) {
    let (text, date) = ("x".repeat(64), Some(UnixTime::new(u64::MAX)));
    let rejection = Rejection {
        manifest: [number; 32],
        component: text.clone(),
        build: text.clone(),
        tries: u8::MAX,
        retry_after: date,
        date,
        ..full().rejections[0].clone()
    };
    let evidence = Evidence {
        component: text.clone(),
        chosen: crate::slot(25),
        running: crate::slot(25),
        manifest: Some([number; 32]),
        build: text,
        date,
        attempts: u8::MAX,
        reported: number.is_multiple_of(3),
        ..full().fallbacks[0].clone()
    };
    (rejection, evidence)
}

#[test]
fn on_flash_of_the_smallest_size_failed_trials_are_recorded_for_ever_and_the_oldest_make_room() {
    let mut flash = SimFlash::new(NOR, 1);
    let mut slots = full();
    slots.slots = (0..10)
        .map(|index| SlotRecord {
            build: "b".repeat(64),
            slot: crate::slot(index),
            ..full().slots[0].clone()
        })
        .collect();
    FlashStore::open(&mut flash)
        .unwrap()
        .commit(&slots)
        .unwrap();
    for number in 0..100 {
        let (rejection, evidence) = longest_trial(number);
        let mut store = FlashStore::open(&mut flash).unwrap();
        let mut state = store.load().unwrap().state;
        state.reject(rejection.clone());
        state.add_fallback(evidence.clone());
        store.commit(&state).unwrap();
        let state = load(&mut flash);
        assert_eq!(state.rejections.last(), Some(&rejection));
        assert_eq!(state.fallbacks.last(), Some(&evidence));
        assert_eq!(state.slots, slots.slots);
    }
    let state = load(&mut flash);
    let rejected: Vec<_> = state.rejections.iter().map(|one| one.manifest[0]).collect();
    assert_eq!(rejected, [93, 94, 95, 96, 97, 98, 99]);
    let noted = |one: &Evidence| one.manifest.unwrap()[0];
    let noted: Vec<_> = state.fallbacks.iter().map(noted).collect();
    // What was reported makes room first; 99 is the newest.
    assert_eq!(noted, [91, 92, 94, 95, 97, 98, 99]);
}

#[test]
fn a_state_that_leaves_no_room_for_the_longest_trial_is_refused_before_it() {
    let mut flash = SimFlash::new(NOR, 1);
    let mut store = FlashStore::open(&mut flash).unwrap();
    let mut state = State {
        rejections: Vec::new(),
        fallbacks: Vec::new(),
        ..full()
    };
    let mut accepted = 0;
    for index in 0..26 {
        let mut more = state.clone();
        more.record_slot(SlotRecord {
            serial: Some(vec![7; 200]),
            build: "b".repeat(64),
            slot: crate::slot(index),
            ..full().slots[0].clone()
        });
        match store.commit(&more) {
            Ok(()) => (state, accepted) = (more, accepted + 1),
            Err(FlashStoreError::Full { len, half: 4096 }) => assert!(len > 4096, "{len}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert!((5..26).contains(&accepted), "{accepted}");
    // Byte by byte up to the limit.
    for index in 0..accepted {
        let mut more = state.clone();
        let fits = (200..=256).rev().any(|len| {
            more.slots[index].serial = Some(vec![7; len]);
            store.commit(&more).is_ok()
        });
        assert!(fits);
        state = more;
    }
    let (rejection, evidence) = longest_trial(1);
    state.reject(rejection);
    state.add_fallback(evidence);
    store.commit(&state).unwrap();
    assert_eq!(load(&mut flash), state);
}

#[test]
fn halves_of_the_recommended_size_hold_every_trial_beside_twelve_slots_of_the_longest_texts() {
    let geometry = Geometry {
        size: 32 << 10,
        ..NOR
    };
    let value = Some(Dated {
        value: vec![7; 256],
        date: Some(UnixTime::new(u64::MAX)),
    });
    let mut state = State {
        check: value.clone(),
        scfg: value.clone(),
        cfg: value,
        key_set: Some(AdoptedKeySet {
            number: u64::MAX,
            threshold: 16,
            keys: vec![[7; 32]; 16],
        }),
        ..full()
    };
    state.slots = (0..12)
        .map(|index| SlotRecord {
            component: "c".repeat(64),
            build: "b".repeat(64),
            serial: Some(vec![7; 256]),
            date: Some(UnixTime::new(u64::MAX)),
            slot: crate::slot(index),
            ..full().slots[0].clone()
        })
        .collect();
    for number in 0..50 {
        let (rejection, evidence) = longest_trial(number);
        state.reject(rejection);
        state.add_fallback(evidence);
    }
    let mut flash = SimFlash::new(geometry, 1);
    FlashStore::open(&mut flash)
        .unwrap()
        .commit(&state)
        .unwrap();
    assert_eq!(load(&mut flash), state);
}
