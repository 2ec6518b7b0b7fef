//! Devices with a mistake: the enumeration must find each of them.

use rekindle_flash::{BootControl as _, SlotId};
use rekindle_state::Store as _;

use crate::board::{BOARDS, Board};
use crate::broken::Broken;
use crate::device::slot_record;
use crate::enumeration::{Catalogs, Options, cut_operation, job};
use crate::life::live;
use crate::scenario::{PLAIN, SCENARIOS, Scenario};

#[test]
fn slot_whose_sync_lies_bricks_the_device() {
    for board in [board("file-4k"), board("nor-4k-256")] {
        let found = found(scenario("fresh-install"), board, Some("B"));
        let is_brick = |broken: &Broken| {
            matches!(
                broken,
                Broken::NotComplete { .. } | Broken::NotAuthentic { .. }
            )
        };
        assert!(found.iter().any(is_brick), "{}: {found:?}", board.name);
    }
}

#[test]
fn boot_control_that_answers_before_it_syncs_loses_what_it_confirmed() {
    for board in [board("emmc-512"), board("nor-4k-256")] {
        let found = found(scenario("confirm"), board, Some("boot"));
        let is_lost =
            |broken: &Broken| matches!(broken, Broken::Lost { .. } | Broken::BootControl(_));
        assert!(found.iter().any(is_lost), "{}: {found:?}", board.name);
    }
}

#[test]
fn store_that_answers_before_it_syncs_loses_variables() {
    let found = found(scenario("variables"), board("file-4k"), Some("state"));
    let is_lost = |broken: &Broken| matches!(broken, Broken::Lost { .. } | Broken::State(_));
    assert!(found.iter().any(is_lost), "{found:?}");
}

#[test]
fn slot_that_is_chosen_before_it_is_written_bricks_the_device() {
    let hasty = Scenario {
        name: "hasty",
        act: |device| {
            let image = device.catalog.image("v2");
            let mut record = device.boot.load().map_err(Broken::setup)?;
            record.choose("prot", SlotId::B, 3).map_err(Broken::setup)?;
            device.boot.store(&record).map_err(Broken::setup)?;
            device.fill(1, image)
        },
        goal: "v2",
        next: "v3",
        ..PLAIN
    };
    let found = found(&hasty, board("nor-4k-256"), None);
    assert!(
        found.contains(&Broken::NotComplete { slot: "B" }),
        "{found:?}"
    );
}

#[test]
fn floor_that_rises_before_the_confirm_outlaws_the_fallback() {
    let hasty = Scenario {
        name: "hasty",
        prepare: |device| device.install(device.catalog.image("v3"), SlotId::A),
        act: |device| {
            device.boot_loader()?;
            let mut record = device.boot.load().map_err(Broken::setup)?;
            record.raise_floor("prot", 5).map_err(Broken::setup)?;
            device.boot.store(&record).map_err(Broken::setup)?;
            live(device, device.catalog.image("v3"))
        },
        goal: "v3",
        next: "v3",
        ..PLAIN
    };
    let found = found(&hasty, board("emmc-512"), None);
    let outlaws = Broken::FloorTooHigh {
        floor: 5,
        version: 1,
    };
    assert!(found.contains(&outlaws), "{found:?}");
}

#[test]
fn serial_that_is_recorded_for_the_wrong_slot_is_noticed() {
    let hasty = Scenario {
        name: "hasty",
        act: |device| {
            let mut record = slot_record("prot", SlotId::A, device.catalog.image("v1"));
            record.serial = Some(b"04-0002".to_vec());
            let mut state = device.store.load().map_err(Broken::setup)?.state;
            state.record_slot(record);
            device.store.commit(&state).map_err(Broken::setup)
        },
        ..PLAIN
    };
    let found = found(&hasty, board("file-4k"), None);
    let says_more = |broken: &Broken| matches!(broken, Broken::Variable { .. });
    assert!(found.iter().any(says_more), "{found:?}");
}

/// What a short enumeration finds; `liar` is the flash whose syncs do nothing.
fn found(scenario: &Scenario, board: &Board, liar: Option<&str>) -> Vec<Broken> {
    let options = Options::quick(1, 1);
    let catalogs = Catalogs::new().expect("a temporary folder");
    let job = job(scenario, board, &catalogs, 1).expect("it works with the power on");
    let job = match liar {
        Some(part) => job.lying(part),
        None => job,
    };
    (0..=job.operations())
        .flat_map(|step| cut_operation(&job, step, &options).1)
        .map(|failure| failure.broken)
        .collect()
}

fn scenario(name: &str) -> &'static Scenario {
    let named = SCENARIOS.iter().find(|scenario| scenario.name == name);
    named.expect("it is in the list")
}

fn board(name: &str) -> &'static Board {
    let named = BOARDS.iter().find(|board| board.name == name);
    named.expect("it is in the list")
}
