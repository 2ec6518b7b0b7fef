use proptest::prelude::*;
use rekindle_flash::{BootCopy, BootRecord, BootRefused, RecordError, SlotId};

const A: SlotId = SlotId::A;
const B: SlotId = SlotId::B;
const C: SlotId = match SlotId::new(2) {
    Some(slot) => slot,
    None => SlotId::A,
};

#[derive(Clone, Copy, Debug)]
enum Event {
    Withdraw(SlotId),
    Choose(SlotId, u8),
    Start,
    Exhaust,
    Confirm,
    Revert,
}

/// Applies an event to `prot`; returns what the boot loader boots, for `Start`.
fn apply(record: &mut BootRecord, event: Event) -> Result<Option<SlotId>, BootRefused> {
    match event {
        Event::Withdraw(slot) => record.withdraw("prot", slot)?,
        Event::Choose(slot, attempts) => record.choose("prot", slot, attempts)?,
        Event::Start => return Ok(record.start().first().map(|(_, slot)| *slot)),
        Event::Exhaust => record.exhaust(),
        Event::Confirm => record.confirm()?,
        Event::Revert => record.revert(),
    }
    Ok(None)
}

/// `confirmed>chosen left/attempts !unbootable next`.
fn summary(record: &BootRecord) -> String {
    let prot = record.component("prot").unwrap();
    let name = |slot: Option<SlotId>| slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
    let unbootable: String = prot
        .unbootable
        .iter()
        .map(|slot| slot.to_string())
        .collect();
    format!(
        "{}>{} {}/{} !{unbootable} {}",
        prot.confirmed,
        name(prot.chosen),
        record.attempts_left(),
        record.attempts(),
        name(record.next("prot")),
    )
}

fn after(events: &[Event]) -> BootRecord {
    let mut record = BootRecord::new(&[("prot", 3)]).unwrap();
    for event in events {
        apply(&mut record, *event).unwrap();
    }
    record
}

#[test]
fn every_event_in_every_state_leads_where_the_table_says() {
    use Event::{Choose, Confirm, Exhaust, Revert, Start, Withdraw};
    let states = [
        after(&[]),
        after(&[Choose(B, 3)]),
        after(&[Choose(B, 3), Start]),
        after(&[Choose(B, 3), Start, Exhaust]),
    ];
    assert_eq!(
        states.each_ref().map(summary),
        ["A>- 0/0 ! A", "A>B 3/3 ! B", "A>B 2/3 ! B", "A>B 0/3 ! A"],
        "settled, pending, on trial, exhausted"
    );
    let confirmed = "slot A of \"prot\" is the confirmed one: it must not be overwritten";
    let trial = "a trial is under way: confirm or revert it first";
    let unstarted = "what was chosen has not been started yet: restart the device first";
    let no_attempts = "a choice needs at least one attempt";
    let table: [(Event, [&str; 4]); 12] = [
        // Event, then what it leads to from: settled, pending, on trial, exhausted.
        (Withdraw(A), [confirmed, confirmed, trial, trial]),
        (Withdraw(B), ["A>- 0/0 !B A", "A>- 0/0 !B A", trial, trial]),
        (Withdraw(C), ["A>- 0/0 !C A", "A>B 3/3 !C B", trial, trial]),
        (Choose(A, 2), ["A>- 0/0 ! A", "A>- 0/0 ! A", trial, trial]),
        (Choose(B, 2), ["A>B 2/2 ! B", "A>B 2/2 ! B", trial, trial]),
        (Choose(C, 2), ["A>C 2/2 ! C", "A>C 2/2 ! C", trial, trial]),
        (Choose(B, 0), [no_attempts, no_attempts, trial, trial]),
        (
            Start,
            ["A>- 0/0 ! A", "A>B 2/3 ! B", "A>B 1/3 ! B", "A>B 0/3 ! A"],
        ),
        (
            Exhaust,
            ["A>- 0/0 ! A", "A>B 0/3 ! A", "A>B 0/3 ! A", "A>B 0/3 ! A"],
        ),
        // After its last attempt a running trial is "exhausted" too, and may be confirmed.
        (
            Confirm,
            ["A>- 0/0 ! A", unstarted, "B>- 0/0 ! B", "B>- 0/0 ! B"],
        ),
        (
            Revert,
            ["A>- 0/0 ! A", "A>- 0/0 ! A", "A>- 0/0 ! A", "A>- 0/0 ! A"],
        ),
        (
            Withdraw(SlotId::new(3).unwrap()),
            ["component \"prot\" has no slot D: it has 3"; 4],
        ),
    ];
    for (event, expected) in table {
        for (state, expected) in states.iter().zip(expected) {
            let mut record = state.clone();
            let found = match apply(&mut record, event) {
                Ok(_) => summary(&record),
                Err(error) => {
                    assert_eq!(&record, state, "a refused event changes nothing");
                    error.to_string()
                }
            };
            assert_eq!(found, expected, "{event:?} in {}", summary(state));
        }
    }
}

#[test]
fn the_boot_loader_tries_a_choice_as_often_as_allowed_and_then_falls_back() {
    let mut record = after(&[Event::Choose(B, 2)]);
    let boots: Vec<_> = (0..4)
        .map(|_| apply(&mut record, Event::Start).unwrap().unwrap())
        .collect();
    assert_eq!(boots, [B, B, A, A]);
    assert_eq!(
        record.component("prot").unwrap().chosen,
        Some(B),
        "evidence"
    );
    record.revert();
    assert_eq!(summary(&record), "A>- 0/0 ! A");
}

#[test]
fn a_trial_set_shares_its_attempts_and_is_confirmed_or_reverted_together() {
    let mut record = BootRecord::new(&[("prot", 2), ("boot", 2), ("bmc", 1)]).unwrap();
    record.choose("prot", B, 3).unwrap();
    record.choose("boot", B, 2).unwrap();
    assert_eq!((record.attempts_left(), record.attempts()), (2, 2));
    let name = |name: &str| name.to_owned();
    assert_eq!(
        record.start(),
        [(name("prot"), B), (name("boot"), B), (name("bmc"), A)]
    );

    let mut reverted = record.clone();
    reverted.revert();
    assert_eq!(
        (reverted.next("prot"), reverted.next("boot")),
        (Some(A), Some(A))
    );

    record.confirm().unwrap();
    for component in ["prot", "boot"] {
        assert_eq!(record.component(component).unwrap().confirmed, B);
    }
    assert!(!record.is_trial());
}

#[test]
fn withdrawing_one_choice_leaves_the_others_of_the_set_pending() {
    let mut record = BootRecord::new(&[("prot", 2), ("boot", 2)]).unwrap();
    record.choose("prot", B, 3).unwrap();
    record.choose("boot", B, 3).unwrap();
    record.withdraw("prot", B).unwrap();
    assert_eq!(
        (record.next("prot"), record.next("boot")),
        (Some(A), Some(B))
    );
    record.withdraw("boot", B).unwrap();
    assert!(!record.is_trial());
}

#[test]
fn a_single_slot_does_not_boot_while_it_is_written_and_needs_no_trial_after() {
    let mut record = BootRecord::new(&[("bmc", 1)]).unwrap();
    record.withdraw("bmc", A).unwrap();
    assert_eq!(record.next("bmc"), None);
    assert_eq!(record.start(), []);
    record.choose("bmc", A, 3).unwrap();
    assert_eq!(record.next("bmc"), Some(A));
    assert!(!record.is_trial());
}

#[test]
fn the_only_slot_of_a_component_is_no_part_of_a_trial() {
    let mut record = BootRecord::new(&[("prot", 1), ("boot", 2)]).unwrap();
    record.withdraw("prot", A).unwrap();
    record.choose("boot", B, 3).unwrap();
    assert_eq!(record.start(), [("boot".to_owned(), B)]);
    record.choose("prot", A, 3).unwrap();
    record.withdraw("prot", A).unwrap();
    record.choose("prot", A, 3).unwrap();
    assert_eq!(
        (record.next("prot"), record.next("boot")),
        (Some(A), Some(B))
    );
    assert_eq!((record.attempts(), record.attempts_left()), (3, 2));
    assert_eq!(record.withdraw("boot", B), Err(BootRefused::TrialStarted));
}

#[test]
fn a_floor_only_rises() {
    let mut record = BootRecord::new(&[("prot", 2)]).unwrap();
    for (raised_to, floor) in [(3, 3), (2, 3), (u64::MAX, u64::MAX), (0, u64::MAX)] {
        record.raise_floor("prot", raised_to).unwrap();
        assert_eq!(record.component("prot").unwrap().security_floor, floor);
    }
    assert_eq!(
        record.raise_floor("bmc", 1),
        Err(BootRefused::UnknownComponent {
            component: "bmc".to_owned()
        })
    );
}

#[test]
fn a_changed_configuration_adds_components_and_keeps_slots_in_use() {
    let mut record = after(&[Event::Choose(B, 3)]);
    record.raise_floor("prot", 5).unwrap();
    let before = record.clone();
    assert_eq!(
        record.adapt(&[("prot", 1)]),
        Err(RecordError::SlotInUse {
            name: "prot".to_owned(),
            slot: B,
            slots: 1
        })
    );
    assert_eq!(record, before, "a refused change leaves the record");

    record.adapt(&[("bmc", 1), ("prot", 2)]).unwrap();
    let known: Vec<_> = record
        .components()
        .map(|component| (component.name.as_str(), component.slots))
        .collect();
    assert_eq!(known, [("prot", 2), ("bmc", 1)]);

    record.adapt(&[("bmc", 1)]).unwrap();
    assert_eq!(
        record.component("prot").unwrap().security_floor,
        5,
        "what is configured no longer is not forgotten"
    );
}

#[test]
fn components_beyond_the_limits_are_refused() {
    let long = "x".repeat(33);
    let names: Vec<String> = (0..33).map(|index| format!("c{index}")).collect();
    let many: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    for (components, message) in [
        (vec![], "0 components: a boot record holds 1 to 32"),
        (many, "33 components: a boot record holds 1 to 32"),
        (
            vec![("", 1)],
            "a component name of 0 bytes: it must have 1 to 32",
        ),
        (
            vec![(long.as_str(), 1)],
            "a component name of 33 bytes: it must have 1 to 32",
        ),
        (vec![("a", 1), ("a", 2)], "component \"a\" is there twice"),
        (
            vec![("a", 0)],
            "component \"a\" with 0 slots: it must have 1 to 26",
        ),
        (
            vec![("a", 27)],
            "component \"a\" with 27 slots: it must have 1 to 26",
        ),
    ] {
        let error = BootRecord::new(&components).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn the_largest_record_fits_into_a_copy() {
    let names: Vec<String> = (0..32).map(|index| format!("{index:032}")).collect();
    let components: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 26)).collect();
    let mut record = BootRecord::new(&components).unwrap();
    for name in &names {
        record.raise_floor(name, u64::MAX).unwrap();
        for slot in 1..26 {
            record.withdraw(name, SlotId::new(slot).unwrap()).unwrap();
        }
        record.choose(name, SlotId::new(25).unwrap(), 255).unwrap();
    }
    let copy = BootCopy {
        sequence: u64::MAX,
        record,
    };
    assert_eq!(BootCopy::decode(&copy.encode()), Ok(copy));
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let slot = (0_u8..3).prop_map(|index| SlotId::new(index).unwrap());
    let event = prop_oneof![
        slot.clone().prop_map(Event::Withdraw),
        (slot, 0_u8..4).prop_map(|(slot, attempts)| Event::Choose(slot, attempts)),
        Just(Event::Start),
        Just(Event::Exhaust),
        Just(Event::Confirm),
        Just(Event::Revert),
    ];
    (0_usize..3, event)
}

proptest! {
    #[test]
    fn whatever_happens_nothing_half_written_boots(events in proptest::collection::vec(event(), 0..40)) {
        const NAMES: [&str; 3] = ["prot", "boot", "bmc"];
        let mut record = BootRecord::new(&[("prot", 3), ("boot", 2), ("bmc", 1)]).unwrap();
        for (component, event) in events {
            let name = NAMES[component];
            let before = record.clone();
            let result = match event {
                Event::Withdraw(slot) => record.withdraw(name, slot),
                Event::Choose(slot, attempts) => record.choose(name, slot, attempts),
                other => apply(&mut record, other).map(|_| ()),
            };
            if result.is_err() {
                prop_assert_eq!(&record, &before);
            }
            for component in record.components() {
                if let Some(next) = record.next(&component.name) {
                    prop_assert!(!component.unbootable.contains(next));
                } else {
                    prop_assert_eq!(component.slots, 1);
                }
                prop_assert!(component.slots == 1 || !component.unbootable.contains(component.confirmed));
            }
            let copy = BootCopy { sequence: 1, record: record.clone() };
            prop_assert_eq!(BootCopy::decode(&copy.encode()), Ok(copy));
        }
    }
}
