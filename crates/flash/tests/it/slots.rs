use rekindle_flash::{
    CompletionMark, CopyError, CopyHeader, CopyState, Flash, Geometry, HeldCopy, LayoutError,
    SlotLayout, read_slot,
};
use rekindle_testkit::{SimFlash, SimFlashError};

const MIB: u64 = 1 << 20;
const FILE: Geometry = Geometry {
    size: MIB,
    write_size: 4096,
    erase_size: 0,
};
const NOR: Geometry = Geometry {
    size: MIB,
    write_size: 256,
    erase_size: 64 * 1024,
};

#[test]
fn areas_follow_each_other_on_whole_units_and_end_within_the_slot() {
    for (size, write_size, erase_size, unit) in [
        (MIB, 4096, 0, 4096),
        (MIB, 1, 0, 4096),
        (256 * MIB, 4096, 0, 4096),
        (256 * MIB + 5000, 512, 0, 4096),
        (8 * MIB, 4, 4096, 4096),
        (16 * MIB, 256, 64 * 1024, 64 * 1024),
        // An erase block of UBI on NAND with pages of 2048 bytes.
        (512 * 126_976, 2048, 126_976, 126_976),
        (64 * 129_024, 2048, 129_024, 258_048),
        (1 << 40, 4096, 0, 4096),
    ] {
        let geometry = Geometry {
            size,
            write_size,
            erase_size,
        };
        let layout = SlotLayout::new(&geometry).unwrap();
        assert_eq!(layout.unit, unit, "{geometry:?}");
        let [first, second] = &layout.copies;
        let areas = [
            &layout.data,
            &first.mark,
            &first.head,
            &first.table,
            &second.mark,
            &second.head,
            &second.table,
        ];
        let mut end = 0;
        for area in areas {
            assert_eq!(area.start, end, "{geometry:?}");
            assert!(
                !area.is_empty() && area.end.is_multiple_of(unit),
                "{geometry:?}"
            );
            end = area.end;
        }
        assert!(end <= size && size - end < unit, "{geometry:?}");
        // One entry of 40 bytes for each 8 KiB, and the manifest with its header.
        assert!(layout.table_len() * 8192 >= layout.data_len() * 40);
        assert!(first.head.end - first.head.start >= 128 + 16 * 1024);
    }
}

#[test]
fn about_one_percent_of_a_large_slot_is_reserved() {
    let layout = SlotLayout::new(&Geometry {
        size: 256 * MIB,
        ..FILE
    })
    .unwrap();
    assert_eq!(layout.data, 0..265_699_328);
    assert_eq!(layout.table_len(), 1_343_488);
    let reserved = 256 * MIB - layout.data_len();
    assert!(reserved * 100 < 256 * MIB * 11 / 10);
}

#[test]
fn flash_that_holds_no_slot_is_refused() {
    let layout = |size, write_size, erase_size| {
        SlotLayout::new(&Geometry {
            size,
            write_size,
            erase_size,
        })
        .unwrap_err()
    };
    assert_eq!(
        layout(4096, 4096, 0).to_string(),
        "a slot of 4096 bytes is too small: what describes an image alone needs 86016 bytes; make the slot larger"
    );
    for (size, write_size, erase_size) in [
        (MIB, 0, 0),
        (MIB, 256, 1000),
        (MIB, 4096, 1 << 25),
        (u64::MAX, 4096, 0),
    ] {
        assert_eq!(
            layout(size, write_size, erase_size),
            LayoutError::Units {
                size,
                write_size,
                erase_size
            }
        );
    }
}

/// Replaces an area, as the engine does: erase, write padded to the write size.
fn replace(
    flash: &mut SimFlash,
    area: &core::ops::Range<u64>,
    data: &[u8],
) -> Result<(), SimFlashError> {
    flash.erase(area.clone())?;
    let unit = usize::try_from(flash.geometry().write_size).unwrap();
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(unit), 0);
    flash.write(area.start, &padded)
}

/// One install in the order of `docs/formats/slot.md`; `fill` is the image, one byte repeated.
fn install(flash: &mut SimFlash, layout: &SlotLayout, fill: u8) -> Result<(), SimFlashError> {
    let content = read_slot(flash, layout)?;
    let copy = content.next_copy();
    let manifest = [fill; 300];
    let header = CopyHeader::new(content.next_sequence(), [fill; 32], &manifest).unwrap();
    let target = &layout.copies[copy];
    replace(flash, &target.head, &header.encode(&manifest))?;
    flash.sync()?;
    replace(flash, &layout.copies[1 - copy].mark, &[0; 64])?;
    flash.sync()?;
    let first = 0..layout.unit;
    let len = usize::try_from(layout.unit).unwrap();
    replace(flash, &first, &vec![fill; len])?;
    flash.sync()?;
    replace(flash, &target.mark, &CompletionMark::encode(&header))?;
    flash.sync()
}

#[test]
fn a_new_slot_is_empty_and_installs_alternate_between_the_copies() {
    for geometry in [FILE, NOR] {
        let layout = SlotLayout::new(&geometry).unwrap();
        let mut flash = SimFlash::new(geometry, 1);
        let empty = read_slot(&mut flash, &layout).unwrap();
        assert_eq!(empty.copies, [CopyState::Empty, CopyState::Empty]);
        assert_eq!(empty.current(), None);
        assert_eq!((empty.next_copy(), empty.next_sequence()), (0, 1));
        for round in 1..=3_u8 {
            install(&mut flash, &layout, round).unwrap();
            let content = read_slot(&mut flash, &layout).unwrap();
            let (index, current) = content.current().unwrap();
            assert_eq!(index, usize::from((round - 1) % 2));
            assert_eq!(current.header.sequence, u64::from(round));
            assert_eq!(current.manifest, [round; 300]);
            assert!(current.complete);
            let previous = content
                .previous()
                .map(|(_, held)| (held.manifest[0], held.complete));
            assert_eq!(previous, (round > 1).then(|| (round - 1, false)));
        }
    }
}

#[test]
fn a_copy_that_is_staged_takes_nothing_from_the_one_that_is_whole() {
    for geometry in [FILE, NOR] {
        let layout = SlotLayout::new(&geometry).unwrap();
        let mut flash = SimFlash::new(geometry, 1);
        install(&mut flash, &layout, 1).unwrap();
        for staged in [2, 3] {
            let content = read_slot(&mut flash, &layout).unwrap();
            assert_eq!(content.next_copy(), 1, "the content keeps its description");
            let manifest = [staged; 300];
            let header = CopyHeader::new(content.next_sequence(), [staged; 32], &manifest).unwrap();
            let head = &layout.copies[1].head;
            replace(&mut flash, head, &header.encode(&manifest)).unwrap();
            flash.sync().unwrap();
            let content = read_slot(&mut flash, &layout).unwrap();
            let manifest =
                |held: Option<(usize, &HeldCopy)>| held.map(|(_, held)| held.manifest[0]);
            assert_eq!(manifest(content.current()), Some(staged));
            assert_eq!(manifest(content.whole()), Some(1));
            assert_eq!(manifest(content.staged()), Some(staged));
        }
        install(&mut flash, &layout, 4).unwrap();
        let content = read_slot(&mut flash, &layout).unwrap();
        assert_eq!(content.whole(), content.current());
        assert_eq!(content.staged(), None);
    }
}

#[test]
fn a_damaged_copy_is_reported_and_the_other_one_speaks() {
    let layout = SlotLayout::new(&FILE).unwrap();
    let mut flash = SimFlash::new(FILE, 1);
    install(&mut flash, &layout, 1).unwrap();
    install(&mut flash, &layout, 2).unwrap();
    flash.damage(layout.copies[1].head.start + 140, b"flipped");
    let content = read_slot(&mut flash, &layout).unwrap();
    assert_eq!(content.copies[1], CopyState::Damaged(CopyError::Checksum));
    let (index, current) = content.current().unwrap();
    assert_eq!((index, current.manifest[0]), (0, 1));
    assert!(
        !current.complete,
        "its mark was cleared before the data changed"
    );
    assert_eq!((content.next_copy(), content.next_sequence()), (1, 2));
}

#[test]
fn wherever_the_power_goes_a_slot_that_says_complete_is_complete() {
    for geometry in [FILE, NOR] {
        let layout = SlotLayout::new(&geometry).unwrap();
        let installed = |seed| {
            let mut flash = SimFlash::new(geometry, seed);
            install(&mut flash, &layout, 1).unwrap();
            install(&mut flash, &layout, 2).unwrap();
            flash
        };
        let mut flash = installed(0);
        let before = flash.power().operations();
        install(&mut flash, &layout, 3).unwrap();
        let operations = flash.power().operations() - before;
        for cut in 1..=operations {
            for seed in 0..8 {
                let mut flash = installed(seed);
                flash.cut_after(cut);
                install(&mut flash, &layout, 3).unwrap_err();
                flash.restart();

                let content = read_slot(&mut flash, &layout).unwrap();
                let (_, current) = content.current().expect("one copy is never touched");
                let fill = current.manifest[0];
                assert!(fill == 2 || fill == 3, "cut {cut}, seed {seed}");
                let len = usize::try_from(layout.unit).unwrap();
                let data_is_whole = flash.stored()[..len].iter().all(|byte| *byte == fill);
                assert!(!current.complete || data_is_whole, "cut {cut}, seed {seed}");

                install(&mut flash, &layout, 3).unwrap();
                let content = read_slot(&mut flash, &layout).unwrap();
                let (_, current) = content.current().unwrap();
                assert!(
                    current.complete && current.manifest[0] == 3,
                    "cut {cut}, seed {seed}"
                );
            }
        }
    }
}
