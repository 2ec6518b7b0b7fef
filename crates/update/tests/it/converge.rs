//! A slot comes to match its image, whatever it held and whatever flash it is.

use rekindle_flash::{Flash as _, Geometry, SlotLayout, read_slot};
use rekindle_image::Compression;
use rekindle_testkit::{Operation, Power, SimFlash};
use rekindle_update::{
    Converge, ConvergeError, Input, Output, Phase, PumpError, Region, Source as _, Transfer,
};

use crate::rig::{
    CutOff, GEOMETRIES, Image, MemorySource, changed, converge, fill, geometry, index, machine,
    noise, options, prose, vendor,
};

/// Not a multiple of anything.
const LEN: usize = 150_001;

#[test]
fn new_slot_takes_the_image_on_every_geometry() {
    let raw = Image::of(&noise(1, LEN));
    let mut squeezed = options();
    squeezed.compression = Compression::default();
    let squeezed = Image::packed(&prose(LEN), &squeezed, &[vendor()]);
    assert!(squeezed.bytes.len() < LEN / 2, "it is compressed");
    for geometry in GEOMETRIES {
        for image in [&raw, &squeezed] {
            let mut flash = SimFlash::new(geometry, 1);
            let mut source = MemorySource::of(image);
            let report = converge(&mut flash, image, &mut source).expect("it is good");
            assert!(image.is_in(&mut flash), "{geometry:?}");
            let len = u64::try_from(LEN).unwrap();
            assert_eq!((report.kept, report.written), (0, len), "{geometry:?}");
            let file = image.layout.file_len - image.layout.table.start;
            assert_eq!(report.fetched, file, "each byte once: {geometry:?}");
            assert_eq!(
                source.opened.len(),
                2,
                "one request for the table, one for the chunks"
            );
        }
    }
}

#[test]
fn bytes_may_come_in_pieces_of_any_size() {
    let image = Image::of(&noise(2, 20_000));
    for pieces in [&[1][..], &[7, 4095, 1, 8193], &[4097], &[3, usize::MAX]] {
        let mut flash = SimFlash::new(GEOMETRIES[4], 1);
        let mut source = MemorySource::of(&image).in_pieces(pieces);
        converge(&mut flash, &image, &mut source).expect("it is good");
        assert!(image.is_in(&mut flash), "{pieces:?}");
    }
}

#[test]
fn image_may_be_one_chunk_of_one_byte() {
    let image = Image::of(b"x");
    assert_eq!(image.manifest().table.chunks, 1);
    for geometry in GEOMETRIES {
        fill(&mut SimFlash::new(geometry, 1), &image);
    }
}

#[test]
fn table_may_have_several_levels() {
    let content = noise(3, 700_000);
    let image = Image::of(&content);
    assert!(image.manifest().table.chunks > 102, "more than one leaf");
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    fill(&mut flash, &image);
    // A change in each of the leaves: the table on flash is read here and there.
    let new = changed(&changed(&content, 100..200), 690_000..690_100);
    let new = Image::of(&new);
    let report = converge(&mut flash, &new, &mut MemorySource::of(&new)).expect("it is good");
    assert!(new.is_in(&mut flash));
    assert!(report.written < 50_000, "two places differ: {report:?}");
}

#[test]
fn update_over_old_content_fetches_what_differs() {
    let content = noise(4, LEN);
    let old = Image::of(&content);
    let new = Image::of(&changed(&content, 60_000..75_000));
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        fill(&mut flash, &old);
        let missing = new.missing(&flash);
        assert!(
            missing > 0 && missing < 50_000,
            "the images share most chunks"
        );
        let report = converge(&mut flash, &new, &mut MemorySource::of(&new)).expect("it is good");
        assert!(new.is_in(&mut flash), "{geometry:?}");
        assert_eq!(report.fetched, new.table_len() + missing, "{geometry:?}");
        assert_eq!(report.written, missing, "chunks are raw: {geometry:?}");
        assert_eq!(report.kept + report.written, new.manifest().size);
    }
}

#[test]
fn update_between_the_same_two_images_goes_on_for_ever() {
    let content = noise(5, 40_000);
    let images = [
        Image::of(&content),
        Image::of(&changed(&content, 10_000..20_000)),
    ];
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        for round in 0..7 {
            fill(&mut flash, &images[round % 2]);
        }
    }
}

#[test]
fn longer_and_shorter_images_follow_each_other() {
    let content = noise(6, LEN);
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        for len in [LEN, 5000, LEN, 1] {
            fill(&mut flash, &Image::of(&content[..len]));
        }
    }
}

#[test]
fn cut_connection_costs_no_more_than_what_was_not_written_yet() {
    let image = Image::of(&noise(7, 600_000));
    for geometry in [
        geometry(2 << 20, 1, 0),
        geometry(2 << 20, 512, 0),
        geometry(2 << 20, 256, 4096),
        geometry(2 << 20, 16, 64 * 1024),
    ] {
        let mut flash = SimFlash::new(geometry, 1);
        let mut before = u64::MAX;
        let mut delivered = 0;
        for at in [9_000, 100_000, 300_000, 280_000] {
            let mut source = MemorySource::of(&image).failing_after(at);
            let error = converge(&mut flash, &image, &mut source).expect_err("it breaks");
            assert_eq!(error, PumpError::Source(CutOff));
            delivered += source.delivered;
            flash.power().cut_after(0);
            flash.restart();
            assert!(!image.is_in(&mut flash));
            let missing = image.missing(&flash);
            // The cut may have torn one block that was shared, with the chunks across its ends.
            let torn = u64::from(geometry.erase_size) + 16 * 1024;
            assert!(
                missing <= before.saturating_add(torn),
                "what the slot held stays"
            );
            before = missing;
        }
        let missing = image.missing(&flash);
        assert!(
            missing < 600_000,
            "something of {delivered} bytes has stayed"
        );
        let report =
            converge(&mut flash, &image, &mut MemorySource::of(&image)).expect("it is good");
        assert!(image.is_in(&mut flash), "{geometry:?}");
        assert_eq!(
            report.fetched, missing,
            "nothing is fetched twice: {geometry:?}"
        );
    }
}

#[test]
fn complete_slot_is_read_and_not_touched() {
    let image = Image::of(&noise(8, LEN));
    for geometry in GEOMETRIES {
        let power = Power::new(1);
        let mut flash = SimFlash::with_power("slot", geometry, &power);
        fill(&mut flash, &image);
        power.clear_log();
        let mut source = MemorySource::of(&image);
        let report = converge(&mut flash, &image, &mut source).expect("it is good");
        assert_eq!(source.opened, [], "nothing is fetched");
        assert_eq!((report.fetched, report.written), (0, 0));
        assert_eq!(report.kept, image.manifest().size);
        let log = power.log();
        assert!(
            log.iter().all(|entry| entry.operation == Operation::Sync),
            "nothing is written: {log:?}"
        );
    }
}

#[test]
fn damaged_bytes_are_repaired_and_nothing_else_is_fetched() {
    let image = Image::of(&noise(9, LEN));
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        fill(&mut flash, &image);
        for offset in [0, 77_777, 150_000] {
            let byte = !flash.stored()[offset];
            flash.damage(u64::try_from(offset).unwrap(), &[byte]);
        }
        let missing = image.missing(&flash);
        let mut source = MemorySource::of(&image);
        let report = converge(&mut flash, &image, &mut source).expect("it is good");
        assert!(image.is_in(&mut flash), "{geometry:?}");
        assert_eq!(report.fetched, missing, "{geometry:?}");
        assert_eq!(source.opened.len(), 3, "one request a place: {geometry:?}");
    }
}

#[test]
fn slot_under_repair_does_not_count_as_complete() {
    let image = Image::of(&noise(10, LEN));
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        fill(&mut flash, &image);
        let byte = !flash.stored()[50_000];
        flash.damage(50_000, &[byte]);
        let mut source = MemorySource::of(&image).failing_after(10);
        let error = converge(&mut flash, &image, &mut source).expect_err("it breaks");
        assert_eq!(error, PumpError::Source(CutOff));
        let layout = SlotLayout::new(&geometry).unwrap();
        let content = read_slot(&mut flash, &layout).unwrap();
        let (_, held) = content.current().expect("the tail still names the image");
        assert!(!held.complete, "{geometry:?}");
        fill(&mut flash, &image);
    }
}

#[test]
fn damaged_table_is_fetched_again_and_no_chunk_is() {
    let image = Image::of(&noise(11, LEN));
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        fill(&mut flash, &image);
        let layout = SlotLayout::new(&geometry).unwrap();
        let table = layout.copies[0].table.start;
        flash.damage(table + 40, &[0, 1, 2, 3]);
        let report =
            converge(&mut flash, &image, &mut MemorySource::of(&image)).expect("it is good");
        assert!(image.is_in(&mut flash), "{geometry:?}");
        assert_eq!(report.fetched, image.table_len(), "{geometry:?}");
        assert_eq!(report.kept, image.manifest().size);
    }
}

#[test]
fn lost_description_is_written_anew_and_no_chunk_is_fetched() {
    let image = Image::of(&noise(12, LEN));
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        fill(&mut flash, &image);
        let layout = SlotLayout::new(&geometry).unwrap();
        flash.damage(layout.copies[0].head.start, &[0; 64]);
        let report =
            converge(&mut flash, &image, &mut MemorySource::of(&image)).expect("it is good");
        assert!(image.is_in(&mut flash), "{geometry:?}");
        assert_eq!(report.fetched, image.table_len(), "{geometry:?}");
        assert_eq!(report.kept, image.manifest().size);
    }
}

#[test]
fn more_than_one_window_is_read_back_window_by_window() {
    let mut options = options();
    options.chunk_size = 64 * 1024;
    let content = noise(13, 17 << 20);
    let image = Image::packed(&content, &options, &[vendor()]);
    for geometry in [
        geometry(20 << 20, 1, 0),
        geometry(20 << 20, 256, 128 * 1024),
    ] {
        let power = Power::new(1);
        let mut flash = SimFlash::with_power("slot", geometry, &power);
        let report =
            converge(&mut flash, &image, &mut MemorySource::of(&image)).expect("it is good");
        assert!(image.is_in(&mut flash), "{geometry:?}");
        assert_eq!(report.written, image.manifest().size);
        let data = SlotLayout::new(&geometry).unwrap().data;
        let log = power.log();
        let first = log.iter().position(
            |entry| matches!(&entry.operation, Operation::Write(range) if range.end <= data.end),
        );
        let syncs = log[first.expect("data is written")..]
            .iter()
            .filter(|entry| entry.operation == Operation::Sync)
            .count();
        assert_eq!(syncs, 3, "two windows and the mark: {geometry:?}");
    }
}

/// Content bytes written and read back, each time more was received.
fn strides(flash: &mut SimFlash, image: &Image) -> Vec<(u64, u64)> {
    let mut machine = machine(flash, image);
    let mut source = MemorySource::of(image);
    let (mut written, mut read) = (0, 0);
    let mut strides = Vec::new();
    loop {
        let input = match machine.poll_output().expect("it is good") {
            Output::Read {
                from: Region::Target,
                offset,
                buf,
                stored,
            } => {
                if stored && written > 0 && offset < image.manifest().size {
                    read = offset + u64::try_from(buf.len()).expect("it is good");
                }
                flash.read_stored(offset, buf).expect("it is good");
                Input::Done
            }
            Output::Write { offset, data } => {
                if offset < image.manifest().size {
                    written = offset + u64::try_from(data.len()).expect("it is good");
                }
                flash.write(offset, data).expect("it is good");
                Input::Done
            }
            Output::Erase(range) => {
                flash.erase(range).expect("it is good");
                Input::Done
            }
            Output::Sync => {
                flash.sync().expect("it is good");
                Input::Done
            }
            Output::Announce(_) => Input::Done,
            Output::Fetch(range) => {
                source.open(range).expect("it is good");
                Input::Done
            }
            Output::Receive(buf) => {
                strides.push((written, read));
                Input::Received(source.read(buf).expect("it is good"))
            }
            _ => return strides,
        };
        machine.handle_input(input).expect("it is good");
    }
}

#[test]
fn window_is_read_back_in_step_with_the_next_one() {
    let mut options = options();
    options.chunk_size = 64 * 1024;
    let image = Image::packed(&noise(17, 33 << 20), &options, &[vendor()]);
    for geometry in [
        geometry(36 << 20, 1, 0),
        geometry(36 << 20, 256, 128 * 1024),
    ] {
        let power = Power::new(1);
        let mut flash = SimFlash::with_power("slot", geometry, &power);
        let strides = strides(&mut flash, &image);
        assert!(image.is_in(&mut flash), "{geometry:?}");
        let steps = strides.windows(2);
        let longest = steps.map(|pair| pair[1].1.saturating_sub(pair[0].1)).max();
        assert!(longest <= Some(2 << 20), "the source waits for {longest:?}");
        let apart = strides
            .iter()
            .map(|(written, read)| written.saturating_sub(*read))
            .max();
        assert!(apart <= Some(34 << 20), "{apart:?} are not read back");
        let log = power.log();
        let mut erased: Vec<_> = log
            .iter()
            .filter_map(|entry| match &entry.operation {
                Operation::Erase(range) if range.end <= image.manifest().size => Some(range.start),
                _ => None,
            })
            .collect();
        let erases = erased.len();
        erased.sort_unstable();
        erased.dedup();
        assert_eq!(erases, erased.len(), "no block is written twice");
    }
}

#[test]
fn same_question_is_asked_until_it_is_answered() {
    let image = Image::of(&noise(14, 10_000));
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    let mut machine = machine(&mut flash, &image);
    let first = format!("{:?}", machine.poll_output().unwrap());
    assert_eq!(first, format!("{:?}", machine.poll_output().unwrap()));
    assert_eq!(machine.progress().phase, Phase::Table);
}

#[test]
fn answer_to_nothing_is_refused() {
    let image = Image::of(&noise(15, 10_000));
    let misuse = Err(ConvergeError::Misuse);
    let mut flash = SimFlash::new(GEOMETRIES[0], 1);
    let mut machine = machine(&mut flash, &image);
    assert!(matches!(machine.poll_output(), Ok(Output::Write { .. })));
    assert_eq!(
        machine.handle_input(Input::Received(1)),
        misuse,
        "a write was asked"
    );
    let wanted = loop {
        match machine.poll_output().unwrap() {
            Output::Receive(buf) => break buf.len(),
            _ => machine.handle_input(Input::Done).unwrap(),
        }
    };
    assert_eq!(
        machine.handle_input(Input::Done),
        misuse,
        "bytes were asked"
    );
    let mut eager = |n| {
        let mut machine = self::machine(&mut flash, &image);
        while !matches!(machine.poll_output().unwrap(), Output::Receive(_)) {
            machine.handle_input(Input::Done).unwrap();
        }
        machine.handle_input(Input::Received(n))
    };
    assert_eq!(eager(0), misuse, "no bytes");
    assert_eq!(eager(wanted + 1), misuse, "more bytes than the buffer has");
    assert_eq!(eager(wanted), Ok(()));
}

#[test]
fn progress_rises_from_nothing_to_everything() {
    let image = Image::of(&noise(16, LEN));
    let mut flash = SimFlash::new(GEOMETRIES[2], 1);
    let mut seen = Vec::new();
    let mut machine = machine(&mut flash, &image);
    let mut source = MemorySource::of(&image);
    rekindle_update::pump(
        &mut machine,
        &mut flash,
        &mut [],
        &mut source,
        &mut |progress| {
            seen.push(progress);
        },
    )
    .expect("it is good");
    assert!(seen.is_sorted_by_key(|progress| progress.done), "{seen:?}");
    let last = seen.last().expect("there was progress");
    assert_eq!((last.phase, last.done), (Phase::Finish, last.total));
    assert_eq!(last.total, image.manifest().size);
}

#[test]
fn image_beyond_the_slot_is_refused_before_anything_is_asked() {
    let new = |geometry: Geometry, image: &Image| {
        let mut flash = SimFlash::new(geometry, 1);
        let layout = SlotLayout::new(&geometry).unwrap();
        let content = read_slot(&mut flash, &layout).unwrap();
        let transfer = Transfer::default();
        Converge::new(&image.signed, geometry, layout, &content, &[], transfer).map(drop)
    };
    let small = geometry(256 * 1024, 1, 0);
    let data = SlotLayout::new(&small).unwrap().data_len();
    let content = noise(17, index(data) + 1);
    assert_eq!(new(small, &Image::of(&content[..index(data)])), Ok(()));
    assert_eq!(
        new(small, &Image::of(&content)),
        Err(ConvergeError::TooLarge {
            needed: data + 1,
            capacity: data
        })
    );
    let capacity = SlotLayout::new(&GEOMETRIES[0]).unwrap().table_len();
    let image = Image::of(&content[..100_000]).with_manifest(|manifest| {
        manifest.size = 800_000;
        manifest.table.chunks = 780;
    });
    let needed = image.table_len();
    assert_eq!(
        new(GEOMETRIES[0], &image),
        Err(ConvergeError::TableTooLarge { needed, capacity })
    );
    assert_eq!(
        new(geometry(1024 * 1024, 8192, 0), &image),
        Err(ConvergeError::WriteUnit { write_size: 8192 })
    );
    assert_eq!(
        new(geometry(528 * 2048, 528, 528), &image),
        Err(ConvergeError::WriteUnit { write_size: 528 })
    );
}
