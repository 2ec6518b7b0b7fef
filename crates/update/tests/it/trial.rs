//! The start of the agent: what runs against what was chosen, and the commits that follow.

use rekindle_flash::{BootRecord, SlotId};
use rekindle_state::{Evidence, Reason, Rejection, UnixTime};
use rekindle_testkit::{LogEntry, MemoryBootControl, Operation, Power};
use rekindle_update::{SlotFacts, Standing, TrialError, confirm, give_up, standing};

use crate::rig::{NOW, PoweredStore};

const A: SlotId = SlotId::A;
const B: SlotId = SlotId::B;
const GOOD: [u8; 32] = [1; 32];
const BAD: [u8; 32] = [2; 32];
const HOUR: u64 = 60 * 60;

/// Boot control and state on one supply.
struct World {
    power: Power,
    boot: MemoryBootControl,
    store: PoweredStore,
}

impl World {
    fn new(record: BootRecord) -> Self {
        let power = Power::new(1);
        Self {
            boot: MemoryBootControl::with_power("boot", record, &power),
            store: PoweredStore::new(&power),
            power,
        }
    }

    fn confirm(&mut self, running: &[SlotFacts<'_>]) -> Result<(), Error> {
        confirm(&mut self.boot, &mut self.store, running)
    }

    fn give_up(&mut self, reason: Reason, now: Option<UnixTime>) -> Result<Vec<Evidence>, Error> {
        give_up(
            &mut self.boot,
            &mut self.store,
            &[facts(B, BAD, 5)],
            &[("prot", A)],
            reason,
            now,
        )
    }

    fn record(&self) -> &BootRecord {
        self.boot.record()
    }

    fn floor(&self) -> u64 {
        let prot = self.record().component("prot");
        prot.expect("it exists").security_floor
    }

    fn rejection(&self) -> Option<&Rejection> {
        self.store.state.rejection(&BAD)
    }

    fn log(&self) -> Vec<LogEntry> {
        self.power.log()
    }
}

type Error = TrialError<rekindle_testkit::PowerOff, rekindle_testkit::PowerOff>;

/// What was chosen, boots since then, what runs; and what that comes to.
type Row = (
    &'static [&'static str],
    u8,
    &'static [(&'static str, SlotId)],
    Standing,
);

fn facts(slot: SlotId, manifest: [u8; 32], security_version: u64) -> SlotFacts<'static> {
    SlotFacts {
        component: "prot",
        slot,
        manifest: Some(manifest),
        build: "14r1",
        security_version,
    }
}

/// `prot` and `boot` confirmed in A; those named are chosen in B; so many boots since then.
fn record(chosen: &[&str], boots: u8) -> BootRecord {
    let mut record = BootRecord::new(&[("prot", 2), ("boot", 2)]).expect("two components");
    for name in chosen {
        record.withdraw(name, B).expect("nothing runs from it");
        record.choose(name, B, 2).expect("no trial has begun");
    }
    for _ in 0..boots {
        record.start();
    }
    record
}

#[test]
fn standing_over_everything_that_can_run() {
    use Standing::{FellBack, OnTrial, Pending, Settled};
    let prot = &["prot"][..];
    let both = &["prot", "boot"][..];
    let table: &[Row] = &[
        // Nothing chosen: whatever runs, and however often it was started.
        (&[], 0, &[("prot", A)], Settled),
        (&[], 3, &[("prot", A)], Settled),
        (&[], 1, &[("prot", B)], Settled),
        (&[], 0, &[], Settled),
        // Chosen, not started: a restart of the agent is no boot.
        (prot, 0, &[("prot", A)], Pending),
        (prot, 0, &[("prot", A), ("boot", A)], Pending),
        (both, 0, &[("prot", A), ("boot", A)], Pending),
        // Started.
        (prot, 1, &[("prot", B)], OnTrial),
        (prot, 2, &[("prot", B)], OnTrial),
        (prot, 1, &[("prot", B), ("boot", A)], OnTrial),
        (both, 1, &[("prot", B), ("boot", B)], OnTrial),
        (both, 1, &[("prot", B)], OnTrial),
        // Something else runs, at the first attempt, the last, and after the last.
        (prot, 1, &[("prot", A)], FellBack),
        (prot, 2, &[("prot", A)], FellBack),
        (prot, 3, &[("prot", A)], FellBack),
        // Half of a trial set is no trial set.
        (both, 1, &[("prot", B), ("boot", A)], FellBack),
        (both, 1, &[("prot", A), ("boot", B)], FellBack),
        // Nothing of the set can be seen running.
        (prot, 0, &[], Pending),
        (prot, 1, &[], OnTrial),
        (prot, 0, &[("boot", A)], Pending),
        (prot, 1, &[("boot", A), ("other", B)], OnTrial),
    ];
    for (chosen, boots, running, expected) in table {
        let found = standing(&record(chosen, *boots), running);
        assert_eq!(
            found, *expected,
            "chosen {chosen:?}, {boots} boots, running {running:?}"
        );
    }
}

#[test]
fn standing_of_a_slot_that_cannot_be_booted_is_a_fallback() {
    let mut record = record(&["prot"], 0);
    record.exhaust();
    assert_eq!(standing(&record, &[("prot", A)]), Standing::FellBack);
}

#[test]
fn trial_is_confirmed_in_boot_control_before_the_floor_rises_and_the_rejection_goes() {
    let mut world = World::new(record(&["prot"], 1));
    world.store.state.reject(rejection(1));
    world.confirm(&[facts(B, BAD, 5)]).expect("it works");
    let log = world.log();
    let [confirmed, raised, forgotten] = &log[..] else {
        unreachable!("three commits: {log:?}");
    };
    let Operation::Store(first) = &confirmed.operation else {
        unreachable!("{confirmed}");
    };
    let prot = first.component("prot").unwrap();
    assert_eq!((prot.confirmed, prot.chosen), (B, None));
    assert_eq!(prot.security_floor, 0, "the fallback is still allowed");
    let Operation::Store(second) = &raised.operation else {
        unreachable!("{raised}");
    };
    assert_eq!(second.component("prot").unwrap().security_floor, 5);
    assert_eq!(forgotten.to_string(), "state: commit");
    assert_eq!(world.rejection(), None);
    assert!(!world.record().is_trial());
}

#[test]
fn trial_set_is_confirmed_together() {
    let mut world = World::new(record(&["prot", "boot"], 1));
    let boot = SlotFacts {
        component: "boot",
        ..facts(B, GOOD, 9)
    };
    world.confirm(&[facts(B, BAD, 5), boot]).expect("it works");
    for (name, floor) in [("prot", 5), ("boot", 9)] {
        let component = world.record().component(name).unwrap();
        assert_eq!((component.confirmed, component.security_floor), (B, floor));
    }
}

#[test]
fn half_a_trial_set_is_not_confirmed() {
    let mut world = World::new(record(&["prot", "boot"], 1));
    let boot = SlotFacts {
        component: "boot",
        ..facts(A, GOOD, 0)
    };
    world.confirm(&[facts(B, BAD, 5), boot]).expect("it works");
    assert!(world.record().is_trial());
    assert_eq!(world.floor(), 0);
}

#[test]
fn choice_that_was_not_started_is_not_confirmed() {
    let mut world = World::new(record(&["prot"], 0));
    world.confirm(&[facts(A, GOOD, 0)]).expect("it works");
    assert_eq!(world.record(), &record(&["prot"], 0));
    assert_eq!(world.log(), [], "nothing is written");
}

#[test]
fn floor_rises_at_every_start_to_what_runs_confirmed() {
    // As a cut between the confirm and the raise leaves it.
    let mut confirmed = record(&["prot"], 1);
    confirmed.confirm().unwrap();
    let mut world = World::new(confirmed);
    world.confirm(&[facts(B, GOOD, 5)]).expect("it works");
    assert_eq!(world.floor(), 5);
    let writes = world.log().len();
    world.confirm(&[facts(B, GOOD, 5)]).expect("it works");
    world.confirm(&[facts(B, GOOD, 4)]).expect("it works");
    assert_eq!(world.floor(), 5, "it never falls");
    assert_eq!(
        world.log().len(),
        writes,
        "what is done is not written again"
    );
}

#[test]
fn floor_never_rises_to_what_is_not_confirmed() {
    for (chosen, boots, slot) in [
        (&["prot"][..], 0, B),
        (&["prot"], 1, A),
        // Runs, but boot control does not know why: its fallback must stay allowed.
        (&[], 0, B),
    ] {
        let mut world = World::new(record(chosen, boots));
        let version = if slot == A { 0 } else { 5 };
        world.confirm(&[facts(slot, GOOD, version)]).ok();
        assert_eq!(world.floor(), 0, "{chosen:?}, {boots} boots, {slot} runs");
    }
}

#[test]
fn cut_anywhere_in_a_confirm_is_made_up_for_at_the_next_start() {
    for cut in 1..=3 {
        let mut world = World::new(record(&["prot"], 1));
        world.store.state.reject(rejection(1));
        world.power.cut_after(cut);
        world
            .confirm(&[facts(B, BAD, 5)])
            .expect_err("the power went off");
        world.power.restore();
        let confirmed = world.record().component("prot").unwrap().confirmed;
        assert!(
            world.floor() == 0 || confirmed == B,
            "the fallback is not outlawed"
        );
        world.confirm(&[facts(B, BAD, 5)]).expect("it works");
        let prot = world.record().component("prot").unwrap();
        assert_eq!(
            (prot.confirmed, prot.security_floor),
            (B, 5),
            "cut at {cut}"
        );
        assert_eq!(world.rejection(), None, "cut at {cut}");
    }
}

#[test]
fn giving_up_writes_the_evidence_before_it_clears_the_choice() {
    let mut world = World::new(record(&["prot"], 1));
    let noted = world
        .give_up(Reason::NeverConfirmed, Some(NOW))
        .expect("it works");
    let log = world.log();
    let [evidence, cleared] = &log[..] else {
        unreachable!("two commits: {log:?}");
    };
    assert_eq!(evidence.to_string(), "state: commit");
    let Operation::Store(record) = &cleared.operation else {
        unreachable!("{cleared}");
    };
    assert!(!record.is_trial());
    assert_eq!(record.next("prot"), Some(A));
    let expected = Evidence {
        component: "prot".to_owned(),
        chosen: B,
        running: A,
        manifest: Some(BAD),
        build: "14r1".to_owned(),
        reason: Reason::NeverConfirmed,
        date: Some(NOW),
        attempts: 1,
        reported: false,
    };
    assert_eq!(noted, core::slice::from_ref(&expected));
    assert_eq!(world.store.state.fallbacks, [expected]);
    assert_eq!(world.floor(), 0);
}

#[test]
fn cut_while_giving_up_loses_no_evidence() {
    for cut in 1..=2 {
        let mut world = World::new(record(&["prot"], 1));
        world.power.cut_after(cut);
        let result = world.give_up(Reason::NeverConfirmed, Some(NOW));
        result.expect_err("the power went off");
        world.power.restore();
        let recorded = world.rejection().is_some();
        assert!(
            recorded || world.record().is_trial(),
            "cut at {cut}: one of both tells"
        );
        if standing(world.record(), &[("prot", A)]) == Standing::FellBack {
            world
                .give_up(Reason::NeverConfirmed, Some(NOW))
                .expect("it works");
        }
        assert!(world.rejection().is_some(), "cut at {cut}");
        assert!(!world.record().is_trial(), "cut at {cut}");
    }
}

#[test]
fn image_that_never_reported_gets_two_more_tries_with_growing_pauses() {
    let mut world = World::new(record(&["prot"], 1));
    let mut now = NOW;
    for (tries, wait) in [(1, Some(HOUR)), (2, Some(6 * HOUR)), (3, None)] {
        world
            .give_up(Reason::NeverConfirmed, Some(now))
            .expect("it works");
        let rejection = world.rejection().expect("it is rejected").clone();
        assert_eq!(rejection.tries, tries);
        assert!(rejection.holds_back(Some(now)));
        if let Some(wait) = wait {
            let before = now.saturating_add(wait - 1);
            assert!(rejection.holds_back(Some(before)), "{tries} tries");
            now = now.saturating_add(wait);
            assert!(!rejection.holds_back(Some(now)), "{tries} tries");
        } else {
            let ages = now.saturating_add(10 * 365 * 24 * HOUR);
            assert!(rejection.holds_back(Some(ages)), "three tries are enough");
            assert!(rejection.is_final());
        }
    }
}

#[test]
fn failed_health_check_rejects_at_once() {
    let mut world = World::new(record(&["prot"], 1));
    world
        .give_up(Reason::HealthFailed, Some(NOW))
        .expect("it works");
    let rejection = world.rejection().expect("it is rejected");
    assert!(rejection.is_final());
    assert_eq!(
        (rejection.tries, rejection.reason),
        (1, Reason::HealthFailed)
    );
}

#[test]
fn agent_that_starts_again_in_an_unhealthy_image_does_not_acquit_it() {
    // The health check has failed, the choice is cleared, the device has not restarted yet.
    let mut world = World::new(record(&["prot"], 1));
    world
        .give_up(Reason::HealthFailed, Some(NOW))
        .expect("it works");
    assert_eq!(standing(world.record(), &[("prot", B)]), Standing::Settled);
    world.confirm(&[facts(B, BAD, 5)]).expect("it works");
    assert!(world.rejection().is_some_and(Rejection::is_final));
    assert_eq!(world.floor(), 0);
}

#[test]
fn device_without_a_clock_counts_tries_all_the_same() {
    let mut world = World::new(record(&["prot"], 1));
    for tries in 1..=3 {
        world
            .give_up(Reason::NeverConfirmed, None)
            .expect("it works");
        let rejection = world.rejection().expect("it is rejected");
        assert_eq!((rejection.tries, rejection.retry_after), (tries, None));
        assert_eq!(rejection.holds_back(None), tries == 3);
    }
}

#[test]
fn slot_that_cannot_be_read_is_evidence_without_a_rejection() {
    let mut world = World::new(record(&["prot"], 1));
    let unread = SlotFacts {
        manifest: None,
        build: "",
        ..facts(B, BAD, 0)
    };
    let noted = give_up(
        &mut world.boot,
        &mut world.store,
        &[unread],
        &[],
        Reason::NeverConfirmed,
        None,
    )
    .expect("it works");
    assert_eq!(noted.len(), 1);
    assert_eq!((noted[0].manifest, noted[0].running), (None, B));
    assert_eq!(world.store.state.rejections, []);
    assert!(!world.record().is_trial());
}

fn rejection(tries: u8) -> Rejection {
    Rejection {
        manifest: BAD,
        component: "prot".to_owned(),
        build: "14r1".to_owned(),
        reason: Reason::NeverConfirmed,
        tries,
        retry_after: None,
        date: None,
    }
}
