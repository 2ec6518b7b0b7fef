//! A scrub finds what a slot no longer holds, names the place, and writes nothing.

use core::ops::ControlFlow;

use rekindle_flash::{CopyError, Flash as _, Geometry, SlotLayout};
use rekindle_image::VerifyError;
use rekindle_testkit::{Fault, SimFlash};
use rekindle_update::{
    DamagedRange, Findings, HeldImage, Scrub, ScrubReport, ScrubStep, Tail, TailError, scrub,
};

use crate::rig::{GEOMETRIES, Image, fill, index, noise, options, stranger, trust};

const LEN: usize = 600_001;

fn slot(geometry: Geometry, image: &Image) -> SimFlash {
    let mut flash = SimFlash::new(geometry, 1);
    fill(&mut flash, image);
    flash.power().clear_log();
    flash
}

fn image() -> Image {
    Image::of(&noise(51, LEN))
}

fn scrubbed(flash: &mut SimFlash) -> ScrubReport {
    let report =
        scrub(flash, &trust(), None, &mut |_| ControlFlow::Continue(())).expect("it is read");
    assert!(report.finished);
    assert!(flash.power().log().is_empty(), "it only reads");
    report
}

fn held(report: &ScrubReport) -> &HeldImage {
    match &report.tail {
        Tail::Held(held) => held,
        other => unreachable!("{other:?}"),
    }
}

/// Turns a bit over.
fn flip(flash: &mut SimFlash, offset: u64) {
    let byte = flash.stored()[index(offset)] ^ 0x10;
    flash.damage(offset, &[byte]);
}

#[test]
fn whole_slot_is_whole_on_every_flash() {
    let image = image();
    for geometry in GEOMETRIES {
        let report = scrubbed(&mut slot(geometry, &image));
        assert!(!report.is_damaged(), "{report:?}");
        assert_eq!(held(&report).id(), image.id());
        let expected = Findings {
            total: 600_001,
            checked_chunks: image.manifest().table.chunks,
            checked_bytes: 600_001,
            ..Findings::default()
        };
        assert_eq!(report.findings, expected);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_chunk_is_found_at_its_place() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    for chunk in image.chunks() {
        for offset in [0, u64::from(chunk.raw_len) - 1] {
            flip(&mut flash, chunk.raw_offset + offset);
            let report = scrubbed(&mut flash);
            assert!(report.is_damaged());
            let expected = DamagedRange {
                chunk: chunk.index,
                chunks: 1,
                offset: chunk.raw_offset,
                len: u64::from(chunk.raw_len),
            };
            assert_eq!(report.findings.ranges, [expected]);
            assert_eq!(report.findings.damaged_chunks, 1);
            flip(&mut flash, chunk.raw_offset + offset);
        }
    }
}

#[test]
fn neighbours_make_one_range_and_ranges_beyond_the_cap_are_counted() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    let chunks = image.chunks();
    for chunk in chunks.iter().filter(|chunk| chunk.index % 3 != 0) {
        flip(&mut flash, chunk.raw_offset);
    }
    let findings = scrubbed(&mut flash).findings;
    assert_eq!(
        findings.ranges.len(),
        chunks.len().div_ceil(3).min(Findings::RANGES)
    );
    assert_eq!(
        (findings.ranges[1].chunk, findings.ranges[1].chunks),
        (4, 2)
    );
    let damaged = chunks.iter().filter(|chunk| chunk.index % 3 != 0);
    let bytes: u64 = damaged.clone().map(|chunk| u64::from(chunk.raw_len)).sum();
    assert_eq!(
        usize::try_from(findings.damaged_chunks).unwrap(),
        damaged.count()
    );
    assert_eq!(findings.damaged_bytes, bytes);
}

#[test]
fn a_damaged_table_page_leaves_its_chunks_unchecked_and_no_others() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    let table = SlotLayout::new(&flash.geometry()).unwrap().copies[0]
        .table
        .start;
    let chunks = image.manifest().table.chunks;
    assert!(chunks > 102, "a root and leaves: {chunks}");
    for (page, unchecked) in [(0, chunks), (1, 102), (2, (chunks - 102).min(102))] {
        let offset = table + page * 4096 + 77;
        flip(&mut flash, offset);
        let report = scrubbed(&mut flash);
        flip(&mut flash, offset);
        assert!(report.is_damaged());
        assert_eq!(report.findings.pages, [u32::try_from(page).unwrap()]);
        assert_eq!(report.findings.damaged_pages, 1);
        assert_eq!(report.findings.unchecked_chunks, unchecked);
        assert_eq!(report.findings.checked_chunks, chunks - unchecked);
        assert_eq!(report.findings.damaged_chunks, 0);
    }
}

#[test]
fn damage_in_the_tail_is_told_apart() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    let copies = SlotLayout::new(&flash.geometry()).unwrap().copies;
    flip(&mut flash, copies[0].mark.start);
    let report = scrubbed(&mut flash);
    assert!(report.is_damaged() && !held(&report).complete);
    assert!(!report.findings.is_damage(), "the rest is as it was");
    flip(&mut flash, copies[0].mark.start);

    flash.damage(copies[1].head.start, b"garbage");
    let report = scrubbed(&mut flash);
    assert_eq!(held(&report).spare, Some(CopyError::NotACopy));
    assert!(!report.is_damaged(), "nothing depends on the other copy");

    flip(&mut flash, copies[0].head.start + 200);
    let report = scrubbed(&mut flash);
    assert!(matches!(report.tail, Tail::Unusable(CopyError::Checksum)));
    assert!(report.is_damaged());
}

#[test]
fn a_slot_that_never_held_anything_is_empty_and_one_full_of_garbage_damaged() {
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        let report = scrubbed(&mut flash);
        assert!(matches!(report.tail, Tail::Empty) && !report.is_damaged());
        flash.damage(0, &noise(5, index(geometry.size)));
        let report = scrubbed(&mut flash);
        assert!(matches!(report.tail, Tail::Unusable(CopyError::NotACopy)));
        assert!(report.is_damaged());
    }
}

#[test]
fn an_image_that_no_trusted_key_signed_is_not_believed() {
    let image = Image::packed(&noise(52, 30_000), &options(), &[stranger()]);
    let report = scrubbed(&mut slot(GEOMETRIES[0], &image));
    let expected = TailError::Trust(VerifyError::NoTrustedSigner);
    assert!(matches!(&report.tail, Tail::NotAuthentic(error) if *error == expected));
    assert!(report.is_damaged());
    assert_eq!(report.findings, Findings::default());
}

#[test]
fn a_place_that_cannot_be_read_is_damage_and_the_rest_is_compared() {
    let image = image();
    let chunks = image.chunks();
    let bad = &chunks[7];
    for geometry in GEOMETRIES {
        let mut flash = slot(geometry, &image);
        let first = bad.raw_offset + 1;
        flash.inject(Fault::Read(first..first + 1));
        let findings = scrubbed(&mut flash).findings;
        assert_eq!(findings.checked_chunks, image.manifest().table.chunks);
        let page = first / 4096 * 4096..first / 4096 * 4096 + 4096;
        let expected: Vec<_> = chunks
            .iter()
            .filter(|chunk| {
                let end = chunk.raw_offset + u64::from(chunk.raw_len);
                chunk.raw_offset < page.end && end > page.start
            })
            .map(|chunk| chunk.index)
            .collect();
        let range = findings.ranges[0];
        let found: Vec<_> = (range.chunk..range.chunk + range.chunks).collect();
        assert_eq!(found, expected);
        assert_eq!(findings.ranges.len(), 1);
    }
}

#[test]
fn a_medium_that_is_gone_is_an_error() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    let layout = SlotLayout::new(&flash.geometry()).unwrap();
    flash.inject(Fault::Read(0..layout.data.end));
    // 600 KB are fewer places than a medium is forgiven; the tail can be read.
    let findings = scrubbed(&mut flash).findings;
    assert_eq!(findings.damaged_chunks, image.manifest().table.chunks);
    flash.power().cut_after(0);
    assert!(flash.sync().is_err());
    let result = scrub(&mut flash, &trust(), None, &mut |_| {
        ControlFlow::Continue(())
    });
    result.expect_err("nothing can be read");
}

#[test]
fn a_scrub_that_is_left_goes_on_at_its_chunk() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    let chunks = image.chunks();
    for index in [3, 60, 61, 120] {
        flip(&mut flash, chunks[index].raw_offset);
    }
    let whole = scrubbed(&mut flash);
    let held = held(&whole);
    let mut scrub = Scrub::new(held);
    let mut left = Vec::new();
    while scrub.step(&mut flash).expect("it is read") != ScrubStep::Finished {
        let chunk = scrub.next_chunk();
        if chunk > left.last().copied().unwrap_or(0) {
            left.push(chunk);
            scrub = Scrub::resume(held, chunk, scrub.findings().clone());
        }
    }
    assert!(!left.is_empty());
    assert_eq!(scrub.into_findings(), whole.findings);
}

#[test]
fn breaking_off_says_so() {
    let image = image();
    let mut flash = slot(GEOMETRIES[0], &image);
    let report =
        scrub(&mut flash, &trust(), None, &mut |_| ControlFlow::Break(())).expect("it is read");
    assert!(!report.finished);
    assert_eq!(
        report.findings.checked_chunks, 0,
        "only a page of the table"
    );
}
