//! The vendor's driver, `examples/vendor/src/nor.rs`, against the contract of `Flash`.

extern crate alloc;

#[path = "../vendor/src/nor.rs"]
mod nor;

use nor::Nor;
use rekindle_testkit::conformance::FlashSuite;

#[test]
fn the_chip_keeps_the_contract_of_flash() {
    let report = FlashSuite::new(Nor::erased())
        .restart(|mut chip| {
            chip.restart();
            chip
        })
        .cut(|chip, operation| chip.cut_after(u32::try_from(operation * 40).expect("they are few")))
        .run();
    report.assert();
    assert_eq!(nor::GEOMETRY.erase_size, 4096);
}
