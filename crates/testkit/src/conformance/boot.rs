use rekindle_flash::{BootControl, BootRecord, SlotId};

/// Checks a [`BootControl`] backend; see the [module](crate::conformance). The record is left changed.
///
/// What needs a real power cut (that a store is atomic) this cannot check.
///
/// # Panics
///
/// If a rule is broken, or the record has no component.
pub fn boot_control<B: BootControl>(mut open: impl FnMut(Option<B>) -> B) {
    let mut boot = open(None);
    let mut expected = load(&mut boot, "loads what a new device has");
    assert_eq!(
        load(&mut boot, "loads twice"),
        expected,
        "a load must not change the record"
    );
    let components: Vec<(String, u8)> = expected
        .components()
        .map(|component| (component.name.clone(), component.slots))
        .collect();
    assert!(!components.is_empty(), "a boot record has a component");

    expected.revert();
    // Several rounds, so that a backend with two copies overwrites each of them.
    for round in 1..=3 {
        for (name, slots) in &components {
            let floor = expected
                .component(name)
                .map_or(0, |component| component.security_floor);
            expected
                .raise_floor(name, floor.saturating_add(round))
                .expect("the component exists");
            store(&mut boot, &expected);

            let other = (0..*slots).filter_map(SlotId::new).find(|slot| {
                expected
                    .component(name)
                    .is_some_and(|component| component.confirmed != *slot)
            });
            if let Some(other) = other {
                expected
                    .withdraw(name, other)
                    .expect("what does not boot may be withdrawn");
                store(&mut boot, &expected);
                expected
                    .choose(name, other, 3)
                    .expect("a slot without a trial may be chosen");
                store(&mut boot, &expected);
            }
        }
        boot = open(Some(boot));
        assert_eq!(
            load(&mut boot, "loads after it was opened anew"),
            expected,
            "what was stored must be there after the backend was opened anew"
        );
        expected.start();
        store(&mut boot, &expected);
        expected.confirm().expect("a started trial is confirmed");
        store(&mut boot, &expected);
    }
}

fn store<B: BootControl>(boot: &mut B, record: &BootRecord) {
    if let Err(error) = boot.store(record) {
        unreachable!("a valid record must be stored: {error}");
    }
    assert_eq!(
        load(boot, "loads after a store"),
        *record,
        "a load must return what was stored last"
    );
}

fn load<B: BootControl>(boot: &mut B, when: &str) -> BootRecord {
    match boot.load() {
        Ok(record) => record,
        Err(error) => unreachable!("it {when}: {error}"),
    }
}
