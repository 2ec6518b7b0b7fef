//! What another slot of the device holds is copied from there, and what is fetched is asked for in
//! few ranges and within the limit.

use std::io::Cursor as IoCursor;

use proptest::collection::vec;
use proptest::prelude::*;
use rekindle_flash::{Flash as _, SlotLayout};
use rekindle_image::{Compression, ImageFile, Layout, compare};
use rekindle_testkit::SimFlash;
use rekindle_update::{ConvergeError, PumpError, Report, Transfer};

use crate::rig::{
    GEOMETRIES, Image, MemorySource, changed, converge_from, fill, geometry, index, noise, options,
    prose, vendor,
};

const LEN: usize = 150_001;

/// Old firmware, and a new one with something inserted, something changed and something repeated.
fn versions() -> (Image, Image) {
    let old = noise(21, LEN);
    let mut new = old[..40_000].to_vec();
    new.extend(noise(22, 9_000));
    new.extend(&changed(&old, 90_000..97_000)[40_000..]);
    new.extend(vec![7; 60_000]);
    (Image::of(&old), Image::of(&new))
}

fn donor(image: &Image) -> SimFlash {
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    fill(&mut flash, image);
    flash
}

/// What a device that holds `old` is said to fetch, the manifest not counted: the opening of a server
/// is left out.
fn foretold(old: &Image, new: &Image) -> (u64, u64) {
    let mut old = ImageFile::open(IoCursor::new(&old.bytes)).expect("a good image");
    let mut new_file = ImageFile::open(IoCursor::new(&new.bytes)).expect("a good image");
    let comparison = compare(&mut old, &mut new_file).expect("good tables");
    (comparison.transfer, comparison.fetch.stored_bytes)
}

/// A transfer as over HTTP.
fn over_http(image: &Image) -> Transfer {
    let mut transfer = Transfer::default();
    transfer.at_hand = Layout::OPENING.min(image.layout.file_len);
    transfer
}

/// What the requests cost beyond the opening, and the opening.
fn paid(source: &MemorySource, image: &Image) -> u64 {
    let opening = Layout::OPENING.min(image.layout.file_len);
    let more = source.opened.iter();
    let more = more.map(|range| range.end.saturating_sub(range.start.max(opening)));
    opening + more.sum::<u64>()
}

#[test]
fn what_another_slot_holds_is_copied_and_the_rest_is_what_diff_foretells() {
    let (old, new) = versions();
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        let mut source = MemorySource::of(&new);
        let report = converge_from(
            &mut flash,
            &mut [donor(&old)],
            &new,
            &mut source,
            over_http(&new),
        )
        .expect("it is good");
        assert!(new.is_in(&mut flash), "{geometry:?}");
        let (transfer, chunks) = foretold(&old, &new);
        assert_eq!(paid(&source, &new), transfer, "{geometry:?}");
        assert!(chunks < 70_000, "{chunks}");
        assert!(report.fetched <= new.table_len() + chunks + 4096);
        assert!(report.copied > 120_000, "{report:?}");
        assert_eq!(report.written, new.manifest().size);
        assert_eq!(report.requests, u32::try_from(source.opened.len()).unwrap());
    }
}

#[test]
fn compressed_chunks_are_copied_too() {
    let mut options = options();
    options.compression = Compression::default();
    let content = prose(LEN);
    let old = Image::packed(&content, &options, &[vendor()]);
    let new = Image::packed(&changed(&content, 50_000..52_000), &options, &[vendor()]);
    let mut flash = SimFlash::new(GEOMETRIES[1], 1);
    let mut source = MemorySource::of(&new);
    let report = converge_from(
        &mut flash,
        &mut [donor(&old)],
        &new,
        &mut source,
        over_http(&new),
    )
    .expect("it is good");
    assert!(new.is_in(&mut flash));
    assert_eq!(paid(&source, &new), foretold(&old, &new).0);
    assert!(report.copied > 100_000, "{report:?}");
}

#[test]
fn repeated_chunks_are_fetched_once() {
    let piece = noise(23, 30_000);
    let mut content = vec![7; 200_000];
    content.extend_from_slice(&piece);
    content.extend_from_slice(&piece);
    let image = Image::of(&content);
    let mut hashes: Vec<_> = image.chunks();
    hashes.sort_by_key(|chunk| chunk.hash);
    hashes.dedup_by_key(|chunk| chunk.hash);
    let once: u64 = hashes.iter().map(|chunk| u64::from(chunk.stored_len)).sum();
    assert!(once < 70_000, "the image repeats itself");
    for geometry in GEOMETRIES {
        for plan_chunks in [1, 3, 1000] {
            let mut transfer = Transfer::default();
            transfer.plan_chunks = plan_chunks;
            transfer.join_gap = 0;
            let mut flash = SimFlash::new(geometry, 1);
            let mut source = MemorySource::of(&image);
            let report = converge_from(&mut flash, &mut [], &image, &mut source, transfer)
                .expect("it is good");
            assert!(image.is_in(&mut flash), "{geometry:?} {plan_chunks}");
            assert_eq!(
                report.fetched,
                image.table_len() + once,
                "{geometry:?} {plan_chunks}"
            );
        }
    }
}

#[test]
fn content_that_moved_down_in_its_slot_is_copied_before_it_is_overwritten() {
    let content = noise(24, LEN);
    let old = Image::of(&content);
    let new = Image::of(&content[30_000..]);
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        fill(&mut flash, &old);
        let mut source = MemorySource::of(&new);
        let report = converge_from(&mut flash, &mut [], &new, &mut source, Transfer::default())
            .expect("it is good");
        assert!(new.is_in(&mut flash), "{geometry:?}");
        assert!(report.fetched < new.table_len() + 16_384, "{report:?}");
    }
}

#[test]
fn plan_of_few_chunks_at_a_time_fetches_the_same() {
    let (old, new) = versions();
    let run = |plan_chunks| {
        let mut transfer = Transfer::default();
        transfer.plan_chunks = plan_chunks;
        transfer.join_gap = 0;
        let mut flash = SimFlash::new(GEOMETRIES[4], 1);
        let mut source = MemorySource::of(&new);
        let report = converge_from(&mut flash, &mut [donor(&old)], &new, &mut source, transfer)
            .expect("it is good");
        assert!(new.is_in(&mut flash));
        (report.fetched, report.copied)
    };
    let whole = run(u16::MAX);
    for plan_chunks in [0, 1, 2, 7] {
        assert_eq!(run(plan_chunks), whole, "{plan_chunks}");
    }
}

#[test]
fn small_gaps_are_fetched_along_and_a_source_without_ranges_is_asked_once() {
    let content = noise(25, LEN);
    let image = Image::of(&content);
    let chunks = image.chunks();
    let mut old = content;
    for chunk in chunks.iter().step_by(3) {
        old[index(chunk.raw_offset)] ^= 1;
    }
    let requests = |join_gap| {
        let mut flash = SimFlash::new(GEOMETRIES[0], 1);
        fill(&mut flash, &image);
        flash.damage(0, &old);
        let mut transfer = Transfer::default();
        transfer.join_gap = join_gap;
        let mut source = MemorySource::of(&image).in_pieces(&[1000, 7]);
        let report =
            converge_from(&mut flash, &mut [], &image, &mut source, transfer).expect("it is good");
        assert!(image.is_in(&mut flash));
        (source.opened.len(), report.fetched)
    };
    let separate = chunks.len().div_ceil(3);
    let bytes = chunks
        .iter()
        .step_by(3)
        .map(|chunk| u64::from(chunk.stored_len))
        .sum();
    assert_eq!(requests(0), (separate, bytes));
    let (joined, more) = requests(9000);
    assert!(joined < separate && more > bytes, "{joined} {more}");
    let last = chunks[(separate - 1) * 3];
    let (once, all) = requests(u64::MAX);
    assert_eq!(
        (once, all),
        (1, last.stored_offset + u64::from(last.stored_len))
    );
}

#[test]
fn donor_that_lies_is_given_up_after_a_few_requests() {
    let content = noise(26, 400_000);
    let image = Image::of(&content);
    let mut liar = donor(&image);
    liar.damage(0, &vec![0x5a; 400_000]);
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    let mut source = MemorySource::of(&image);
    let report = converge_from(
        &mut flash,
        &mut [liar],
        &image,
        &mut source,
        Transfer::default(),
    )
    .expect("it is good");
    assert!(image.is_in(&mut flash));
    assert_eq!(report.copied, 0);
    assert_eq!(
        report.fetched,
        image.table_len() + image.manifest().stored_size
    );
    assert!(source.opened.len() <= 19, "{}", source.opened.len());
}

#[test]
fn donor_that_cannot_be_read_costs_what_it_had() {
    let (old, new) = versions();
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    for reads in [0, 1, 2, 6, 8, 40] {
        let mut donors = [donor(&old), donor(&old)];
        let geometry = flash.geometry();
        let layout = SlotLayout::new(&geometry).unwrap();
        let content = rekindle_flash::read_slot(&mut flash, &layout).unwrap();
        let known: Vec<_> = donors
            .iter_mut()
            .map(rekindle_update::Donor::read)
            .collect();
        let mut machine = rekindle_update::Converge::new(
            &new.signed,
            geometry,
            layout,
            &content,
            &known,
            Transfer::default(),
        )
        .unwrap();
        let mut source = MemorySource::of(&new);
        let mut left = reads;
        let report = crate::rig::drive(
            &mut machine,
            &mut flash,
            &mut source,
            |donor, offset, buf| {
                if donor == 0 {
                    if left == 0 {
                        return false;
                    }
                    left -= 1;
                }
                donors[usize::from(donor)].read(offset, buf).is_ok()
            },
        );
        assert!(new.is_in(&mut flash), "{reads}");
        assert!(
            report.fetched < new.table_len() + 70_000,
            "the other has it"
        );
        flash = SimFlash::new(geometry, 1);
    }
}

#[test]
fn limit_is_held_before_the_first_chunk_and_says_what_it_would_take() {
    let (old, new) = versions();
    let (needed, _) = foretold(&old, &new);
    for plan_chunks in [2, 1000] {
        let run = |limit| {
            let mut transfer = over_http(&new);
            transfer.max_download = Some(limit);
            transfer.plan_chunks = plan_chunks;
            let mut flash = SimFlash::new(GEOMETRIES[0], 1);
            let mut source = MemorySource::of(&new);
            let result = converge_from(&mut flash, &mut [donor(&old)], &new, &mut source, transfer);
            (result, source.opened.len(), paid(&source, &new))
        };
        let (result, requests, paid) = run(needed);
        result.expect("it is just enough");
        assert!(requests > 1 && paid <= needed, "{paid} of {needed}");
        for limit in [needed - 1, 40_000] {
            let (result, requests, _) = run(limit);
            let needed = match plan_chunks {
                1000 => needed,
                // A stretch is not joined from one plan to the next.
                _ => match result {
                    Err(PumpError::Converge(ConvergeError::Budget { needed, .. })) => needed,
                    Ok(_) if paid < needed => continue,
                    ref other => panic!("{other:?}"),
                },
            };
            let error = ConvergeError::Budget { needed, limit };
            assert_eq!(result, Err(PumpError::Converge(error)));
            assert_eq!(requests, 1, "the table and nothing else");
        }
    }
    let mut transfer = Transfer::default();
    transfer.max_download = Some(6000);
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    let result = converge_from(
        &mut flash,
        &mut [],
        &new,
        &mut MemorySource::of(&new),
        transfer,
    );
    let needed = new.layout.chunks.start;
    let error = ConvergeError::Budget {
        needed,
        limit: 6000,
    };
    assert_eq!(
        result,
        Err(PumpError::Converge(error)),
        "not even the table"
    );
}

#[test]
fn every_range_but_the_first_was_announced() {
    let image = Image::of(&noise(27, LEN));
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    fill(&mut flash, &image);
    for chunk in image.chunks().iter().step_by(4) {
        flash.damage(
            chunk.raw_offset,
            &[!flash.stored()[index(chunk.raw_offset)]],
        );
    }
    let mut source = Announced(MemorySource::of(&image), Vec::new());
    let geometry = flash.geometry();
    let layout = SlotLayout::new(&geometry).unwrap();
    let content = rekindle_flash::read_slot(&mut flash, &layout).unwrap();
    let transfer = Transfer::default();
    let mut machine =
        rekindle_update::Converge::new(&image.signed, geometry, layout, &content, &[], transfer)
            .unwrap();
    rekindle_update::pump(&mut machine, &mut flash, &mut [], &mut source, &mut |_| {})
        .expect("it is good");
    assert!(image.is_in(&mut flash));
    assert!(source.1.len() > 6, "{:?}", source.1);
    assert_eq!(source.1[0], 0, "nobody knew of the first");
    let last = source.1.len();
    for (number, ahead) in source.1.iter().enumerate().skip(1) {
        let expected = 4.min(last - number);
        assert_eq!(*ahead, expected, "request {number} of {last}");
    }
}

/// Notes how many ranges were announced when each was opened, itself included.
#[derive(Debug)]
struct Announced(MemorySource, Vec<usize>);

impl rekindle_update::Source for Announced {
    type Error = crate::rig::CutOff;

    fn announce(&mut self, ranges: &[core::ops::Range<u64>]) {
        self.0.announce(ranges);
    }

    fn open(&mut self, range: core::ops::Range<u64>) -> Result<(), Self::Error> {
        let source = &mut self.0;
        if let Some(first) = source.announced.first() {
            assert_eq!(*first, range, "they are opened in order");
        }
        self.1.push(source.announced.len());
        source.open(range)
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(buf)
    }
}

/// Stored bytes of the chunks that no undamaged flash of the device holds, each counted once.
fn nowhere(image: &Image, contents: &[&[u8]], tables: &[&Image]) -> u64 {
    let mut seen = alloc::collections::BTreeSet::new();
    image
        .chunks()
        .iter()
        .filter(|chunk| {
            let here = tables.iter().zip(contents).any(|(held, content)| {
                held.chunks().iter().any(|old| {
                    let start = index(old.raw_offset);
                    let end = start + usize::try_from(old.raw_len).expect("it is short");
                    old.hash == chunk.hash && chunk.matches(&content[start..end])
                })
            });
            !here && seen.insert(chunk.hash)
        })
        .map(|chunk| u64::from(chunk.stored_len))
        .sum()
}

/// Pieces of a few recordings in any order: images that share much, shift and repeat.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    vec((0u64..6, 0usize..3, 1usize..4), 1..12).prop_map(|pieces| {
        let mut content = Vec::new();
        for (seed, from, len) in pieces {
            content.extend_from_slice(&noise(seed, 60_000)[from * 9000..(from + len) * 9000 - 700]);
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the slots held, however damaged, wherever the power goes: the slot comes to match, and
    /// what an undamaged donor holds is not fetched.
    #[test]
    fn slot_converges_whatever_the_donors_hold(
        old in pieces(),
        new in pieces(),
        slot in pieces(),
        flaws in vec((0usize..400_000, 1usize..3000), 0..4),
        table_flaws in vec((0usize..60_000, 1usize..40), 0..3),
        geometry in 0usize..6,
        plan_chunks in prop::sample::select(vec![2u16, 9, 32768]),
        join_gap in prop::sample::select(vec![0u64, 1024, 5000]),
        cuts in vec(1u64..60, 0..3),
    ) {
        let (old, new, slot) = (Image::of(&old), Image::of(&new), Image::of(&slot));
        let mut donor = donor(&old);
        for (at, len) in flaws {
            let at = at.min(donor.stored().len() - len);
            let bytes: Vec<u8> = donor.stored()[at..at + len].iter().map(|byte| !byte).collect();
            donor.damage(u64::try_from(at).unwrap(), &bytes);
        }
        let mut donors = [donor];
        let data = donors[0].stored().to_vec();
        let tail = index(SlotLayout::new(&donors[0].geometry()).unwrap().data_len());
        let tables_whole = table_flaws.is_empty();
        for (at, len) in table_flaws {
            let at = (tail + at).min(data.len() - len);
            let bytes: Vec<u8> = data[at..at + len].iter().map(|byte| !byte).collect();
            donors[0].damage(u64::try_from(at).unwrap(), &bytes);
        }
        let mut transfer = Transfer::default();
        transfer.plan_chunks = plan_chunks;
        transfer.join_gap = join_gap;
        let mut flash = SimFlash::new(GEOMETRIES[geometry], 1);
        fill(&mut flash, &slot);
        let held = flash.stored().to_vec();
        for cut in &cuts {
            flash.cut_after(*cut);
            let mut source = MemorySource::of(&new);
            let _: Result<Report, _> =
                converge_from(&mut flash, &mut donors, &new, &mut source, transfer);
            flash.restart();
        }
        let mut source = MemorySource::of(&new);
        let report = converge_from(&mut flash, &mut donors, &new, &mut source, transfer)
            .expect("it is good");
        prop_assert!(new.is_in(&mut flash));
        prop_assert_eq!(report.written + report.kept, new.manifest().size);
        prop_assert!(report.copied <= report.written);
        prop_assert_eq!(report.fetched, source.delivered);
        let repaired = donors[0].stored()[tail..] != data[tail..];
        if cuts.is_empty() && tables_whole && !repaired && join_gap == 0 {
            let most = new.table_len() + nowhere(&new, &[&data[..]], &[&old]);
            prop_assert!(report.fetched <= most, "{} > {most}", report.fetched);
            // And what the slot itself held in place is kept.
            let kept: u64 = new.chunks().iter().filter(|chunk| {
                let start = index(chunk.raw_offset);
                chunk.matches(&held[start..start + usize::try_from(chunk.raw_len).unwrap()])
            }).map(|chunk| u64::from(chunk.raw_len)).sum();
            prop_assert!(report.kept == kept || report.kept == 0);
        }
    }
}

#[test]
fn donors_full_of_garbage_are_no_danger() {
    let image = Image::of(&noise(28, 60_000));
    let size = 1 << 20;
    for seed in 0..20 {
        let mut wild = donor(&image);
        let layout = SlotLayout::new(&geometry(size, 1, 0)).unwrap();
        let table = layout.copies[0].table.clone();
        let len = index(table.end - table.start);
        wild.damage(table.start, &noise(seed, len));
        // A manifest that claims more than there is, under a header that is in order.
        let mut huge = donor(&image.with_manifest(|manifest| manifest.security_version = seed));
        huge.damage(table.start + seed * 40, &noise(seed, 40));
        let mut flash = SimFlash::new(GEOMETRIES[0], 1);
        let mut source = MemorySource::of(&image);
        converge_from(
            &mut flash,
            &mut [wild, huge, SimFlash::new(geometry(4096, 1, 0), 1)],
            &image,
            &mut source,
            Transfer::default(),
        )
        .expect("it is good");
        assert!(image.is_in(&mut flash), "{seed}");
    }
}
