use proptest::prelude::*;
use rekindle_state::{Generation, MemoryStore, Reason, Rejection, State, Store, UnixTime, limit};

use crate::format_v1::sealed;
use crate::{full, slot};

#[test]
fn a_slot_has_one_record() {
    let mut state = full();
    let mut record = state.slots[0].clone();
    record.build = "14.0".into();
    state.record_slot(record.clone());
    assert_eq!(state.slots, [record.clone()]);
    record.slot = slot(0);
    state.record_slot(record);
    assert_eq!(state.slots.len(), 2);
}

#[test]
fn a_serial_is_believed_only_for_the_content_it_was_recorded_for() {
    let state = full();
    let serial = |slot, manifest| state.slot_serial("prot", slot, manifest);
    assert_eq!(serial(slot(1), &[0x11; 32]), Some(&b"138654"[..]));
    assert_eq!(serial(slot(1), &[0x12; 32]), None);
    assert_eq!(serial(slot(0), &[0x11; 32]), None);
    assert_eq!(state.slot_serial("boot", slot(1), &[0x11; 32]), None);
}

#[test]
fn a_factory_reset_makes_the_device_new_and_keeps_what_protects_it() {
    let mut state = full();
    state.factory_reset();
    let mut expected = full();
    expected.check = None;
    expected.scfg = None;
    expected.cfg = None;
    expected.backup_index = None;
    expected.known = false;
    expected.slots[0].serial = None;
    assert_eq!(state, expected);
}

#[test]
fn the_clock_is_never_believed_to_run_backwards() {
    let mut state = State::default();
    assert_eq!(state.time(None), None);
    assert_eq!(state.time(Some(UnixTime::new(5))), Some(UnixTime::new(5)));
    state.note_time(UnixTime::new(100));
    state.note_time(UnixTime::new(50));
    assert_eq!(state.last_time, Some(UnixTime::new(100)));
    assert_eq!(state.time(Some(UnixTime::new(5))), Some(UnixTime::new(100)));
    assert_eq!(
        state.time(Some(UnixTime::new(500))),
        Some(UnixTime::new(500))
    );
    assert_eq!(state.time(None), None);
}

#[test]
fn an_image_that_never_reported_gets_two_more_trials_and_no_fourth() {
    let mut state = State::default();
    let never = Rejection {
        manifest: [1; 32],
        component: "prot".into(),
        build: "2".into(),
        reason: Reason::NeverConfirmed,
        tries: 1,
        retry_after: Some(UnixTime::new(1000)),
        date: None,
    };
    let held = |state: &State, now| {
        let rejection = state.rejection(&[1; 32]).unwrap();
        rejection.holds_back(now)
    };
    for trial in 1..=2 {
        state.reject(never.clone());
        assert_eq!(state.rejection(&[1; 32]).unwrap().tries, trial);
        assert!(held(&state, Some(UnixTime::new(999))));
        assert!(!held(&state, Some(UnixTime::new(1000))));
        assert!(!held(&state, None));
    }
    state.reject(never.clone());
    assert!(held(&state, Some(UnixTime::new(1000))));
    assert!(held(&state, None));
    assert_eq!(state.rejections.len(), 1);
    assert!(state.clear_rejection(&[1; 32]));
    assert!(!state.clear_rejection(&[1; 32]));
    assert_eq!(state, State::default());

    state.reject(Rejection {
        reason: Reason::HealthFailed,
        ..never
    });
    assert!(held(&state, Some(UnixTime::new(u64::MAX))));
}

#[test]
fn the_oldest_rejection_and_evidence_make_room() {
    let mut state = full();
    let (rejection, evidence) = (state.rejections[0].clone(), state.fallbacks[0].clone());
    for index in 0..100 {
        state.reject(Rejection {
            manifest: [index; 32],
            ..rejection.clone()
        });
        state.add_fallback(evidence.clone());
    }
    assert_eq!(state.rejections.len(), limit::REJECTIONS);
    assert_eq!(state.rejections.last().unwrap().manifest, [99; 32]);
    assert_eq!(state.fallbacks.len(), limit::FALLBACKS);
    MemoryStore::default().commit(&state).unwrap();
}

#[test]
fn a_memory_store_keeps_the_old_state_when_it_refuses_one() {
    let mut store = MemoryStore::new(full());
    let mut state = full();
    state.slots[0].component = "x".repeat(65);
    store.commit(&state).unwrap_err();
    assert_eq!(store.load().unwrap().state, full());
}

proptest! {
    #[test]
    fn any_sealed_payload_decodes_to_a_state_that_can_be_stored_or_to_an_error(
        at in 28_usize..282, noise in proptest::collection::vec(any::<u8>(), 1..12),
    ) {
        let mut bytes = Generation { sequence: 7, state: full() }.encode().unwrap();
        let end = (at + noise.len()).min(bytes.len());
        let noise = &noise[..end - at];
        bytes[at..end].copy_from_slice(noise);
        if let Ok(generation) = Generation::decode(&sealed(bytes)) {
            prop_assert_eq!(Generation::decode(&generation.encode().unwrap()).unwrap(), generation);
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was(
        check in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=256)),
        date in proptest::option::of(any::<u64>()),
        known in any::<bool>(),
        build in "\\PC{0,16}",
        sequence in any::<u64>(),
    ) {
        let mut state = full();
        state.check = check.map(|value| rekindle_state::Dated { value, date: date.map(UnixTime::new) });
        state.known = known;
        state.slots[0].build = build;
        state.slots[0].serial = state.check.as_ref().map(|check| check.value.clone());
        state.rejections[0].retry_after = date.map(UnixTime::new);
        let generation = Generation { sequence, state };
        prop_assert_eq!(Generation::decode(&generation.encode().unwrap()).unwrap(), generation);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed(at in 0_usize..282, bit in 0..8) {
        let mut bytes = Generation { sequence: 7, state: full() }.encode().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        Generation::decode(&bytes).unwrap_err();
    }
}
