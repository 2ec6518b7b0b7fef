//! A repair brings a slot back to its own manifest, fetches nothing but what is damaged, and never
//! makes a device boot anything else.

use core::ops::Range;

use rekindle_flash::{BootControl as _, Geometry, SlotId, SlotLayout};
use rekindle_state::{Door, SlotRecord};
use rekindle_testkit::{Operation, SimFlash};
use rekindle_update::{
    InstallError, Installed, OriginError, Parts, RepairError, RepairErrorOf, RepairRefused,
    RepairRequest, RepairWay, Repaired, Transfer, repair, repair_elsewhere,
};

use crate::rig::{
    CutOff, Device, GEOMETRIES, Image, MemorySource, OLD_SERIAL, PoweredStore, changed, fill,
    index, noise, request, trust,
};

type Error =
    RepairErrorOf<SimFlash, rekindle_testkit::MemoryBootControl, PoweredStore, MemorySource>;

const LEN: usize = 200_001;

fn running() -> Image {
    Image::of(&noise(61, LEN))
}

fn older() -> Image {
    Image::of(&changed(&noise(61, LEN), 90_000..120_000))
}

/// Slot A runs and is confirmed, slot B holds another build, installed by a script.
fn device(geometry: Geometry, seed: u64) -> Device {
    let mut device = Device::new(geometry, seed, &running());
    fill(&mut device.b, &older());
    device.store.state.record_slot(record(SlotId::B, &older()));
    device.power.clear_log();
    device
}

fn record(slot: SlotId, image: &Image) -> SlotRecord {
    SlotRecord {
        component: "prot".to_owned(),
        slot,
        manifest: image.id(),
        serial: Some(OLD_SERIAL.to_vec()),
        build: image.manifest().build.clone(),
        date: None,
        door: Door::Script,
    }
}

fn repair_slot(
    device: &mut Device,
    slot: SlotId,
    source: &mut MemorySource,
) -> Result<Repaired, Error> {
    repair_with(device, slot, source, |_| {})
}

fn repair_with(
    device: &mut Device,
    slot: SlotId,
    source: &mut MemorySource,
    change: impl FnOnce(&mut RepairRequest<'_>),
) -> Result<Repaired, Error> {
    let trust = trust();
    let mut request = RepairRequest {
        component: "prot",
        slot,
        in_place: false,
        busy: false,
        running: &[("prot", SlotId::A)],
        trust: &trust,
        transfer: Transfer::default(),
    };
    change(&mut request);
    let mut parts = Parts {
        flash: if slot == SlotId::A {
            &mut device.a
        } else {
            &mut device.b
        },
        donors: &mut [],
        boot: &mut device.boot,
        store: &mut device.store,
    };
    repair(&request, &mut parts, source, &mut |_| {})
}

fn flip(flash: &mut SimFlash, offset: u64) {
    let byte = flash.stored()[index(offset)] ^ 0x10;
    flash.damage(offset, &[byte]);
}

/// Stored bytes of the chunks that have a part in a range.
fn chunks_of(image: &Image, range: &Range<u64>) -> u64 {
    image
        .chunks()
        .iter()
        .filter(|chunk| {
            let end = chunk.raw_offset + u64::from(chunk.raw_len);
            chunk.raw_offset < range.end && end > range.start
        })
        .map(|chunk| u64::from(chunk.stored_len))
        .sum()
}

fn way(repaired: &Repaired) -> RepairWay {
    match repaired {
        Repaired::Repaired { way, .. } => *way,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn only_the_damaged_chunks_of_an_idle_slot_are_fetched_and_it_is_bootable_again() {
    let image = older();
    for geometry in GEOMETRIES {
        let mut device = device(geometry, 1);
        let before = device.boot.load().unwrap();
        let bad = 50_000..54_096;
        device.b.damage(bad.start, &noise(7, 4096));
        let mut source = MemorySource::of(&image);
        let repaired = repair_slot(&mut device, SlotId::B, &mut source).expect("it is repaired");
        assert_eq!(way(&repaired), RepairWay::Withdrawn);
        assert!(image.is_in(&mut device.b), "{geometry:?}");
        let manifest = image.layout.table.start;
        assert_eq!(source.delivered, manifest + chunks_of(&image, &bad));
        assert_eq!(device.boot.load().unwrap(), before, "{geometry:?}");
        let stores = device
            .power
            .log()
            .into_iter()
            .filter(|entry| matches!(entry.operation, Operation::Store(_)));
        assert_eq!(stores.count(), 2, "withdrawn, and back");
        assert_eq!(device.serial(SlotId::B, &image), Some(OLD_SERIAL));
    }
}

#[test]
fn a_slot_that_is_whole_is_read_and_nothing_else_happens() {
    for geometry in GEOMETRIES {
        for slot in [SlotId::A, SlotId::B] {
            let mut device = device(geometry, 1);
            let mut source = MemorySource::of(&running());
            let result = repair_slot(&mut device, slot, &mut source);
            assert!(matches!(result, Ok(Repaired::Whole(_))), "{result:?}");
            assert_eq!(source.opened, []);
            let changes = device
                .power
                .log()
                .into_iter()
                .filter(|entry| !matches!(entry.operation, Operation::Sync));
            assert_eq!(changes.count(), 0, "{geometry:?}");
        }
    }
}

#[test]
fn the_running_slot_is_repaired_in_place_and_only_wrong_sectors_are_written() {
    let image = running();
    for geometry in &GEOMETRIES[..2] {
        let mut device = device(*geometry, 1);
        let before = device.boot.load().unwrap();
        flip(&mut device.a, 70_000);
        let mut source = MemorySource::of(&image);
        let repaired = repair_slot(&mut device, SlotId::A, &mut source).expect("it is repaired");
        assert_eq!(way(&repaired), RepairWay::InPlace);
        assert!(image.is_in(&mut device.a));
        assert_eq!(device.boot.load().unwrap(), before);
        let data = SlotLayout::new(geometry).unwrap().data;
        let written: Vec<_> = device
            .power
            .log()
            .into_iter()
            .filter_map(|entry| match entry.operation {
                Operation::Write(range) if data.contains(&range.start) => Some(range),
                Operation::Store(_) => panic!("boot control is left alone"),
                _ => None,
            })
            .collect();
        let [range] = written.as_slice() else {
            panic!("{written:?}");
        };
        assert!(
            range.contains(&70_000) && range.end - range.start <= 512,
            "{range:?}"
        );
    }
}

/// The promise of a repair in place, at every operation of it, whole and torn.
#[test]
fn a_cut_hurts_only_sectors_that_were_wrong_and_the_next_repair_knows_what_to_do() {
    let image = running();
    for geometry in &GEOMETRIES[..2] {
        let bad = [30_000_u64, 90_000, 90_600, 199_000];
        let operations = {
            let mut device = device(*geometry, 1);
            bad.iter().for_each(|offset| flip(&mut device.a, *offset));
            let before = device.power.operations();
            repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image)).expect("it works");
            device.power.operations() - before
        };
        assert!(operations > 5, "{operations}");
        for cut in 0..operations {
            let mut device = device(*geometry, cut);
            let record = device.boot.load().unwrap();
            bad.iter().for_each(|offset| flip(&mut device.a, *offset));
            device.power.cut_after(cut);
            let result = repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image));
            assert!(result.is_err(), "cut at {cut}");
            device.restart();
            let wrong: Vec<_> = (0..)
                .zip(image.content.chunks(512).zip(device.a.stored().chunks(512)))
                .filter(|(_, (good, held))| *good != &held[..good.len()])
                .map(|(sector, _)| sector * 512)
                .collect();
            for sector in wrong {
                assert!(
                    bad.iter().any(|offset| offset / 512 * 512 == sector),
                    "cut at {cut}: sector {sector} was good"
                );
            }
            assert_eq!(device.boot.load().unwrap(), record, "it boots all the same");
            repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image))
                .expect("the next repair continues");
            assert!(image.is_in(&mut device.a), "cut at {cut}");
        }
    }
}

#[test]
fn an_idle_slot_is_bootable_only_while_it_is_whole_whenever_the_power_goes() {
    let image = older();
    for geometry in [GEOMETRIES[1], GEOMETRIES[2], GEOMETRIES[5]] {
        let damage = |device: &mut Device| {
            device.b.damage(100_000, &noise(7, 9000));
            flip(&mut device.b, 5);
        };
        let operations = {
            let mut device = device(geometry, 1);
            damage(&mut device);
            let before = device.power.operations();
            repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&image)).expect("it works");
            device.power.operations() - before
        };
        for cut in 0..operations {
            let mut device = device(geometry, cut);
            let before = device.boot.load().unwrap();
            damage(&mut device);
            device.power.cut_after(cut);
            let result = repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&image));
            assert!(result.is_err(), "cut at {cut}");
            device.restart();
            let record = device.boot.load().unwrap();
            assert_eq!(record.next("prot"), Some(SlotId::A));
            assert!(running().is_in(&mut device.a));
            let repaired =
                repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&image)).expect("again");
            assert!(
                matches!(repaired, Repaired::Repaired { .. } | Repaired::Whole(_)),
                "{repaired:?}"
            );
            assert!(image.is_in(&mut device.b), "{geometry:?}, cut at {cut}");
            assert_eq!(device.boot.load().unwrap(), before, "cut at {cut}");
        }
    }
}

#[test]
fn a_choice_that_waits_for_its_first_boot_is_made_again() {
    let image = older();
    let mut device = device(GEOMETRIES[1], 1);
    let mut pending = device.boot.load().unwrap();
    pending.choose("prot", SlotId::B, 3).unwrap();
    device.boot.store(&pending).unwrap();
    flip(&mut device.b, 1000);
    repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&image)).expect("it is repaired");
    assert_eq!(device.boot.load().unwrap(), pending);

    pending.start();
    device.boot.store(&pending).unwrap();
    flip(&mut device.b, 1000);
    let refused = repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image));
    assert_eq!(refused, Err(RepairError::Refused(RepairRefused::OnTrial)));
}

#[test]
fn flash_that_is_erased_under_the_running_system_sends_its_image_to_the_other_slot() {
    let image = running();
    for geometry in &GEOMETRIES[2..] {
        let mut device = device(*geometry, 1);
        let bad = 50_000..54_096;
        device.a.damage(bad.start, &noise(7, 4096));
        let refused = repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image));
        let slot = SlotId::A;
        let wanted = image.id();
        assert_eq!(
            refused,
            Err(RepairError::NeedsOtherSlot {
                slot,
                image: wanted
            })
        );
        let trust = trust();
        let mut parts = Parts {
            flash: &mut device.b,
            donors: core::slice::from_mut(&mut device.a),
            boot: &mut device.boot,
            store: &mut device.store,
        };
        let mut source = MemorySource::of(&image);
        let mut request = request(&trust);
        request.running_manifest = Some(wanted);
        let mut other = MemorySource::of(&older());
        let refused = repair_elsewhere(&wanted, &request, &mut parts, &mut other, &mut |_| {});
        assert!(matches!(
            refused,
            Err(RepairError::Origin(OriginError::OtherImage(_)))
        ));
        let installed = repair_elsewhere(&wanted, &request, &mut parts, &mut source, &mut |_| {});
        assert!(
            matches!(installed, Ok(Installed::Chosen(_))),
            "{installed:?}"
        );
        assert_eq!(device.next(), Some(SlotId::B));
        assert!(image.is_in(&mut device.b));
    }
}

#[test]
fn an_update_that_waits_for_its_first_boot_is_not_thrown_away_for_the_slot_that_runs() {
    let image = running();
    let mut device = device(GEOMETRIES[2], 1);
    let mut record = device.boot.load().unwrap();
    record.choose("prot", SlotId::B, 3).unwrap();
    device.boot.store(&record).unwrap();
    let mut source = MemorySource::of(&image);
    let repaired = repair_slot(&mut device, SlotId::A, &mut source);
    assert!(matches!(repaired, Ok(Repaired::Whole(_))), "{repaired:?}");

    flip(&mut device.a, 50_000);
    let before = device.snapshot();
    let refused = repair_slot(&mut device, SlotId::A, &mut source);
    let (slot, chosen) = (SlotId::A, SlotId::B);
    let waits = RepairError::Refused(RepairRefused::ChoiceWaits { slot, chosen });
    assert_eq!(refused, Err(waits));
    assert_eq!((device.snapshot(), source.delivered), (before, 0));
}

#[test]
fn the_only_slot_on_such_flash_is_left_to_the_recovery_environment() {
    let mut device = device(GEOMETRIES[2], 1);
    let only = rekindle_flash::BootRecord::new(&[("prot", 1)]).unwrap();
    device.boot.store(&only).unwrap();
    let mut source = MemorySource::of(&running());
    flip(&mut device.a, 9);
    let refused = repair_slot(&mut device, SlotId::A, &mut source);
    let (slot, image) = (SlotId::A, running().id());
    assert_eq!(refused, Err(RepairError::NeedsRecovery { slot, image }));
    // A component that the device does not start from is written where it is.
    let repaired = repair_with(&mut device, SlotId::A, &mut source, |request| {
        request.in_place = true;
        request.running = &[];
    });
    assert_eq!(way(&repaired.expect("it is repaired")), RepairWay::InPlace);
    assert!(running().is_in(&mut device.a));
}

#[test]
fn another_image_at_the_source_is_refused_before_anything_is_written() {
    for slot in [SlotId::A, SlotId::B] {
        let mut device = device(GEOMETRIES[1], 1);
        flip(&mut device.a, 40_000);
        flip(&mut device.b, 40_000);
        let before = device.snapshot();
        let other = Image::of(&noise(99, 10_000)).with_manifest(|it| it.build = "15".to_owned());
        let error = repair_slot(&mut device, slot, &mut MemorySource::of(&other))
            .expect_err("it is another one");
        let text = error.to_string();
        assert!(
            text.starts_with("the image there is build 15, not the one that the slot holds"),
            "{text}"
        );
        assert_eq!(device.snapshot(), before);
    }
}

#[test]
fn a_source_that_cannot_be_reached_leaves_a_slot_that_boots_and_can_be_repaired() {
    let image = running();
    let mut device = device(GEOMETRIES[1], 1);
    let record = device.boot.load().unwrap();
    flip(&mut device.a, 40_000);
    let mut gone = MemorySource::of(&image).failing_after(0);
    let error = repair_slot(&mut device, SlotId::A, &mut gone).expect_err("it is gone");
    let unreachable = OriginError::Image(InstallError::Source(CutOff));
    assert_eq!(error, RepairError::Origin(unreachable));
    assert_eq!(device.boot.load().unwrap(), record);
    repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image)).expect("it is back");
    assert!(image.is_in(&mut device.a));
}

#[test]
fn a_description_that_rotted_away_is_taken_from_the_state_and_the_source() {
    let image = running();
    let layout = SlotLayout::new(&GEOMETRIES[1]).unwrap();
    // The slot held an older build before, whose description speaks when the newer one is gone.
    let twice = |device: &mut Device| {
        device.a = SimFlash::with_power("A", GEOMETRIES[1], &device.power);
        fill(&mut device.a, &older());
        fill(&mut device.a, &image);
        flip(&mut device.a, layout.copies[1].head.start + 30);
    };
    let mut device = device(GEOMETRIES[1], 1);
    twice(&mut device);
    let repaired = repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image));
    assert_eq!(way(&repaired.expect("it is repaired")), RepairWay::InPlace);
    assert!(image.is_in(&mut device.a));

    // Without a record nobody can tell: not the older build, in any case.
    twice(&mut device);
    device.store.state.slots.clear();
    let refused = repair_slot(&mut device, SlotId::A, &mut MemorySource::of(&image));
    assert_eq!(refused, Err(RepairError::Unknown(SlotId::A)));
}

#[test]
fn an_install_that_was_begun_and_a_slot_without_anything_are_left_alone() {
    let image = running();
    let mut device = device(GEOMETRIES[1], 1);
    let mut cut = MemorySource::of(&image).failing_after(20_000);
    device.install_from(&mut cut).expect_err("it breaks off");
    let before = device.snapshot();
    let result = repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&older()));
    assert_eq!(result, Ok(Repaired::Unfinished));
    assert_eq!(device.snapshot(), before);

    let mut device = Device::new(GEOMETRIES[1], 1, &image);
    let result = repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&image));
    assert_eq!(result, Ok(Repaired::Empty));
}

#[test]
fn damage_in_table_and_mark_is_repaired_too() {
    let image = older();
    for geometry in GEOMETRIES {
        let copies = SlotLayout::new(&geometry).unwrap().copies;
        for offset in [copies[0].table.start + 40, copies[0].mark.start + 9] {
            let mut device = device(geometry, 1);
            let before = device.boot.load().unwrap();
            flip(&mut device.b, offset);
            repair_slot(&mut device, SlotId::B, &mut MemorySource::of(&image))
                .expect("it is repaired");
            assert!(image.is_in(&mut device.b), "{geometry:?}, {offset}");
            assert_eq!(device.boot.load().unwrap(), before);
        }
    }
}
