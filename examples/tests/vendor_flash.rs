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
}

#[test]
fn the_porting_guide_shows_this_run() {
    let guide = include_str!("../../docs/porting.md");
    let (_, block) = guide.split_once("```rust\n").expect("it shows a test");
    let (block, _) = block.split_once("```").expect("the block ends");
    let here = include_str!("vendor_flash.rs");
    let shown = block.lines().map(str::trim);
    for line in shown.filter(|line| !line.contains("my_board") && !line.contains("println")) {
        assert!(
            here.lines().any(|here| here.trim() == line),
            "the guide says: {line}"
        );
    }
}
