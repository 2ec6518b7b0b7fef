//! A part of the power cuts that `cargo run --release --example power_cuts` enumerates.

use rekindle_examples::{BOARDS, Catalogs, Options, SCENARIOS, enumerate, table};

#[test]
fn device_survives_power_cuts_in_every_scenario_on_every_flash() {
    let seed = 1;
    let options = Options::quick(seed, std::thread::available_parallelism().unwrap().get());
    let catalogs = Catalogs::new().unwrap();
    let outcome = enumerate(&options, &catalogs, &|_, _, _| {}).unwrap();
    let total = outcome.total();
    assert_eq!(total.bricks, 0, "{}", table(&outcome, seed).unwrap());
    assert_eq!(outcome.rows.len(), SCENARIOS.len() * BOARDS.len());
    let least = outcome.rows.iter().map(|row| row.cuts).min();
    assert!(least >= Some(6), "each is cut somewhere: {outcome:?}");
    assert!(total.doubles > 1000, "recoveries are cut too: {total:?}");
}
