//! An install commits in its order, and a power cut at any of its operations breaks nothing.

use core::ops::Range;
use std::sync::LazyLock;

use rekindle_flash::{Geometry, SlotId, SlotLayout};
use rekindle_image::{Manifest, Requirement};
use rekindle_state::{Door, Reason, SlotRecord};
use rekindle_testkit::{LogEntry, Operation, SimFlash};
use rekindle_update::{InstallError, Installed, held_manifest};

use crate::rig::{
    Device, Error, GEOMETRIES, Image, MemorySource, NEW_SERIAL, NOW, OLD_SERIAL, changed, fill,
    geometry, noise, options, trust, vendor,
};

const LEN: usize = 40_001;

/// Where the manifest lies.
const FIRST_PAGE: Range<u64> = 0..4096;

/// What the device runs, and the update; packed once.
fn images() -> &'static (Image, Image) {
    static IMAGES: LazyLock<(Image, Image)> = LazyLock::new(|| {
        let content = noise(21, LEN);
        let new = Image::of(&changed(&content, 10_000..25_000));
        (Image::of(&content), new)
    });
    &IMAGES
}

/// What an operation does, in the words of the order of commits.
fn step(geometry: &Geometry, entry: &LogEntry) -> String {
    let layout = SlotLayout::new(geometry).expect("a slot");
    let area = |at: u64| {
        let [first, second] = &layout.copies;
        [
            ("data", &layout.data),
            ("mark 0", &first.mark),
            ("head 0", &first.head),
            ("table 0", &first.table),
            ("mark 1", &second.mark),
            ("head 1", &second.head),
            ("table 1", &second.table),
        ]
        .into_iter()
        .find_map(|(name, range)| range.contains(&at).then_some(name))
        .expect("every write is in an area")
    };
    match &entry.operation {
        Operation::Write(range) => format!("{} {}", entry.part, area(range.start)),
        Operation::Erase(range) => format!("{} {}", entry.part, area(range.start)),
        Operation::Sync => format!("{} sync", entry.part),
        Operation::Store(record) => {
            let prot = record.component("prot").expect("it exists");
            match (prot.chosen, prot.unbootable.contains(SlotId::B)) {
                (None, true) => "boot: B withdrawn".to_owned(),
                (Some(SlotId::B), false) => "boot: B chosen".to_owned(),
                other => format!("boot: {other:?}"),
            }
        }
        _ => entry.to_string(),
    }
}

/// What the device did since the log was cleared; work on one area is one step.
fn steps(device: &Device, geometry: &Geometry) -> Vec<String> {
    let mut steps: Vec<_> = device
        .power
        .log()
        .iter()
        .map(|entry| step(geometry, entry))
        .collect();
    steps.dedup();
    steps
}

#[test]
fn commits_come_in_their_order() {
    let (old, new) = images();
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, old);
        device.install(new).expect("it is good");
        let mut expected = vec!["boot: B withdrawn", "B head 0", "B sync"];
        if geometry.erase_size > 0 {
            expected.extend(["B table 0", "B sync"]);
        }
        expected.extend([
            "B table 0",
            "B sync",
            "B data",
            "B sync",
            "B mark 0",
            "B sync",
            "state: commit",
            "boot: B chosen",
        ]);
        let steps = steps(&device, &geometry);
        assert_eq!(steps, expected, "{geometry:?}");
    }
}

#[test]
fn update_describes_itself_in_the_copy_that_does_not_speak() {
    let (old, new) = images();
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, old);
        fill(&mut device.b, old);
        device.power.clear_log();
        device.install(new).expect("it is good");
        let steps = steps(&device, &geometry);
        // Copy 0 describes the old content: its mark goes before that content does, no more.
        let expected = ["B head 1", "B mark 0", "B data", "B mark 1"];
        let mut found: Vec<_> = steps
            .iter()
            .filter(|step| {
                step.starts_with("B ") && !["B sync", "B table 1"].contains(&step.as_str())
            })
            .collect();
        found.dedup();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{geometry:?}");
        assert!(new.is_in(&mut device.b));
    }
}

#[test]
fn install_says_what_it_did() {
    let (old, new) = images();
    let mut device = Device::new(GEOMETRIES[0], 1, old);
    let installed = device.install(new).expect("it is good");
    let Installed::Chosen(outcome) = installed else {
        unreachable!("the image does not run yet: {installed:?}");
    };
    assert_eq!(outcome.slot, SlotId::B);
    assert_eq!(&outcome.manifest, new.manifest());
    assert!(!outcome.unsigned);
    assert_eq!(outcome.report.written, new.manifest().size);
    assert_eq!(device.next(), Some(SlotId::B));
    assert_eq!(device.boot.record().attempts_left(), 3);
    let record = device.store.state.slot("prot", SlotId::B);
    assert_eq!(
        record,
        Some(&SlotRecord {
            component: "prot".to_owned(),
            slot: SlotId::B,
            manifest: new.id(),
            serial: Some(NEW_SERIAL.to_vec()),
            build: "14r1".to_owned(),
            date: Some(NOW),
            door: Door::Script,
        })
    );
    let held = held_manifest(&mut device.b).unwrap().expect("it is there");
    assert_eq!((held.id, &held.manifest), (new.id(), new.manifest()));
}

#[test]
fn install_of_what_is_staged_already_writes_no_flash() {
    let (old, new) = images();
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, old);
        device.install(new).expect("it is good");
        device.power.clear_log();
        let mut source = MemorySource::of(new);
        device.install_from(&mut source).expect("it is good");
        assert_eq!(source.opened, vec![FIRST_PAGE], "the manifest is looked at");
        let expected = [
            "boot: B withdrawn",
            "B sync",
            "state: commit",
            "boot: B chosen",
        ];
        assert_eq!(steps(&device, &geometry), expected);
    }
}

#[test]
fn another_image_replaces_what_is_staged() {
    let (old, new) = images();
    let newer = Image::of(&changed(&new.content, 1000..2000));
    let mut device = Device::new(GEOMETRIES[4], 1, old);
    device.install(new).expect("it is good");
    device.install(&newer).expect("it is good");
    assert!(newer.is_in(&mut device.b));
    assert_eq!(device.next(), Some(SlotId::B));
}

#[test]
fn long_manifest_is_fetched_with_a_second_request() {
    let mut options = options();
    let names = |kind: &str| -> Vec<String> {
        let name = |number| format!("{kind}-{number:060}");
        (0..Manifest::MAX_HARDWARE - 1).map(name).collect()
    };
    options.device_types.extend(names("d"));
    options.hardware = names("h");
    options.hardware.push("102".to_owned());
    let content = noise(22, 10_000);
    let long = Image::packed(&content, &options, &[vendor()]);
    assert!(long.layout.table.start > 4096, "longer than a page");
    let mut device = Device::new(GEOMETRIES[0], 1, &images().0);
    let mut source = MemorySource::of(&long).in_pieces(&[1000]);
    device.install_from(&mut source).expect("it is good");
    assert_eq!(source.opened[..2], [0..4096, 4096..long.layout.table.start]);
    assert!(long.is_in(&mut device.b));
}

#[test]
fn requirements_may_be_met_by_what_is_staged() {
    let (old, new) = images();
    let mut options = options();
    options.requires.push(Requirement {
        component: "boot".to_owned(),
        release: 7,
    });
    let needy = Image::packed(&new.content, &options, &[vendor()]);
    let mut device = Device::new(GEOMETRIES[0], 1, old);
    let mut source = MemorySource::of(&needy);
    let trust = trust();
    let result = device.install_as(&mut source, &trust, |request| {
        request.installed = &[("prot", 0), ("boot", 7)];
    });
    assert!(matches!(result, Ok(Installed::Chosen(_))), "{result:?}");
}

#[test]
fn image_that_runs_already_only_gets_its_serial() {
    let (old, _) = images();
    let mut device = Device::new(GEOMETRIES[0], 1, old);
    let (boot, _, a, b) = device.snapshot();
    let mut source = MemorySource::of(old);
    let trust = trust();
    let result = device.install_as(&mut source, &trust, |request| {
        request.running_manifest = Some(old.id());
    });
    assert_eq!(result, Ok(Installed::Running(old.manifest().clone())));
    assert_eq!(device.serial(SlotId::A, old), Some(NEW_SERIAL));
    let after = device.snapshot();
    assert_eq!((after.0, after.2, after.3), (boot, a, b));
    assert_eq!(source.opened, vec![FIRST_PAGE]);
}

#[test]
fn image_that_runs_already_takes_back_what_is_staged() {
    let (old, new) = images();
    let mut device = Device::new(GEOMETRIES[0], 1, old);
    device.install(new).expect("it is good");
    let mut source = MemorySource::of(old);
    let trust = trust();
    let result = device.install_as(&mut source, &trust, |request| {
        request.running_manifest = Some(old.id());
    });
    assert_eq!(result, Ok(Installed::Running(old.manifest().clone())));
    assert_eq!(device.next(), Some(SlotId::A));
    assert!(!device.boot.record().is_trial());
}

#[test]
fn component_with_one_copy_converges_in_place() {
    let content = noise(23, LEN);
    let mut options = options();
    options.component = "bmc".to_owned();
    let old = Image::packed(&content, &options, &[vendor()]);
    let content = changed(&content, 20_000..21_000);
    let new = Image::packed(&content, &options, &[vendor()]);
    let trust = trust();
    let in_place = |device: &mut Device| {
        device.install_as(&mut MemorySource::of(&new), &trust, |request| {
            request.component = "bmc";
            request.target = SlotId::A;
            request.in_place = true;
            request.running = &[("prot", SlotId::A), ("bmc", SlotId::A)];
            request.running_manifest = Some(old.id());
        })
    };
    let build = |seed| {
        let mut device = Device::new(GEOMETRIES[2], seed, &images().0);
        fill(&mut device.b, &old);
        device.power.clear_log();
        device
    };
    let mut device = build(0);
    let missing = new.missing(&device.b);
    let before = device.power.operations();
    let result = in_place(&mut device);
    assert!(
        matches!(&result, Ok(Installed::InPlace(outcome)) if outcome.report.written == missing),
        "{result:?}"
    );
    let operations = device.power.operations() - before;
    for cut in 1..=operations {
        let mut device = build(cut);
        let boot = device.boot.record().clone();
        device.power.cut_after(cut);
        in_place(&mut device).expect_err("the power went off");
        device.restart();
        assert_eq!(
            device.boot.record(),
            &boot,
            "boot control has no part in it"
        );
        // The slot says what it holds only if it does.
        if let Some(held) = held_manifest(&mut device.b).unwrap() {
            let image = [&old, &new].into_iter().find(|image| image.id() == held.id);
            assert!(
                image.is_some_and(|image| image.is_in(&mut device.b)),
                "cut at {cut}"
            );
        }
        let missing = new.missing(&device.b);
        let result = in_place(&mut device);
        assert!(
            matches!(result, Ok(Installed::InPlace(_))),
            "cut at {cut}: {result:?}"
        );
        assert!(new.is_in(&mut device.b), "cut at {cut}");
        assert!(missing <= 40_001);
    }
}

/// Runs once to count, then once for every operation with a power cut there.
fn survives_cuts(what: &str, build: impl Fn(u64) -> Device, old: &Image, new: &Image) {
    let mut device = build(0);
    let before = device.power.operations();
    device.install(new).expect("it is good");
    let operations = device.power.operations() - before;
    assert!(operations > 10, "{what}: there is something to cut");
    for cut in 1..=operations {
        let what = format!("{what}, cut at {cut} of {operations}");
        let mut device = build(cut);
        let slot_a = device.a.stored().to_vec();
        let slot_b = device.b.stored().to_vec();
        device.power.cut_after(cut);
        let error = device.install(new).expect_err("the power went off");
        assert!(is_power_failure(&error), "{what}: {error:?}");
        device.restart();
        keeps_promise(&mut device, old, new, &slot_b, &what);
        // Once more, somewhere in what is left.
        if cut % 4 == 0 {
            device.power.cut_after(1 + cut * 7 % operations);
            let _: Result<Installed, Error> = device.install(new);
            device.restart();
            keeps_promise(&mut device, old, new, &slot_b, &what);
        }

        let missing = new.missing(&device.b);
        let result = device.install(new);
        let Ok(Installed::Chosen(outcome)) = &result else {
            unreachable!("{what}: the same call continues: {result:?}");
        };
        let fetched = outcome.report.fetched;
        assert!(
            fetched == missing || fetched == missing + new.table_len(),
            "{what}: {fetched} bytes fetched where {missing} were missing"
        );
        assert_eq!(device.next(), Some(SlotId::B), "{what}");
        keeps_promise(&mut device, old, new, &slot_b, &what);
        assert!(
            device.a.stored() == slot_a,
            "{what}: what runs is untouched"
        );
    }
}

fn is_power_failure(error: &Error) -> bool {
    matches!(
        error,
        InstallError::Flash(_) | InstallError::Boot(_) | InstallError::Store(_)
    )
}

/// What boots next is complete, what is reported is no more than that, and nothing bootable is
/// half written. `slot_b`: what slot B held before.
fn keeps_promise(device: &mut Device, old: &Image, new: &Image, slot_b: &[u8], what: &str) {
    match device.next() {
        Some(SlotId::A) => {
            assert!(old.is_in(&mut device.a), "{what}: A is as it was");
            let serial = device.serial(SlotId::A, old);
            assert_eq!(serial, Some(OLD_SERIAL), "{what}: the variable is A's");
        }
        Some(SlotId::B) => {
            assert!(
                new.is_in(&mut device.b),
                "{what}: B is complete before it boots"
            );
            let serial = device.serial(SlotId::B, new);
            assert_eq!(serial, Some(NEW_SERIAL), "{what}: the variable is B's");
        }
        other => unreachable!("{what}: {other:?} boots next"),
    }
    let record = device.boot.record().clone();
    let prot = record.component("prot").expect("it exists");
    assert_eq!(prot.confirmed, SlotId::A, "{what}");
    if !prot.unbootable.contains(SlotId::B) {
        let whole = new.is_in(&mut device.b) || device.b.stored() == slot_b;
        assert!(whole, "{what}: B may boot and is half written");
    }
}

#[test]
fn cut_anywhere_in_a_first_install_keeps_the_device_whole() {
    let (old, new) = images();
    for geometry in [
        geometry(512 * 1024, 1, 0),
        geometry(512 * 1024, 512, 0),
        geometry(512 * 1024, 256, 4096),
        geometry(512 * 1024, 16, 64 * 1024),
    ] {
        let what = format!("{geometry:?}");
        survives_cuts(&what, |seed| Device::new(geometry, seed, old), old, new);
    }
}

#[test]
fn cut_anywhere_in_an_update_over_older_content_keeps_the_device_whole() {
    let (old, new) = images();
    let older = Image::of(&changed(&old.content, 30_000..34_000));
    for geometry in [
        geometry(512 * 1024, 1, 0),
        geometry(512 * 1024, 1, 4096),
        geometry(512 * 1024, 16, 64 * 1024),
    ] {
        let what = format!("{geometry:?}");
        let build = |seed| {
            let mut device = Device::new(geometry, seed, old);
            fill(&mut device.b, &older);
            device.power.clear_log();
            device
        };
        survives_cuts(&what, build, old, new);
    }
}

#[test]
fn cut_anywhere_in_the_replacement_of_a_staged_image_keeps_the_device_whole() {
    let (old, new) = images();
    let staged = Image::of(&changed(&old.content, 30_000..34_000));
    let geometry = geometry(512 * 1024, 4, 4096);
    let mut device = Device::new(geometry, 0, old);
    device.install(&staged).expect("it is good");
    let build = |seed| {
        let mut device = Device::new(geometry, seed, old);
        device.install(&staged).expect("it is good");
        device
    };
    let before = build(0).power.operations();
    let mut device = build(0);
    device.install(new).expect("it is good");
    let operations = device.power.operations() - before;
    for cut in 1..=operations {
        let mut device = build(cut);
        device.power.cut_after(cut);
        let error = device.install(new).expect_err("the power went off");
        assert!(is_power_failure(&error), "{error:?}");
        device.restart();
        // The staged image may boot as long as it is whole, with its own record.
        let boots = match device.next() {
            Some(SlotId::A) => old.is_in(&mut device.a),
            Some(SlotId::B) => staged.is_in(&mut device.b) || new.is_in(&mut device.b),
            _ => false,
        };
        assert!(boots, "cut at {cut}: {:?}", device.next());
        device.install(new).expect("the same call continues");
        assert!(new.is_in(&mut device.b), "cut at {cut}");
        assert_eq!(device.next(), Some(SlotId::B));
    }
}

#[test]
fn whole_life_of_an_update_with_its_trial() {
    let (old, new) = images();
    let mut device = Device::new(GEOMETRIES[3], 1, old);
    device.install(new).expect("it is good");
    let boots = device.boot.start_and_store();
    assert!(boots.contains(&("prot".to_owned(), SlotId::B)));
    let trust = trust();
    let newest = Image::of(&changed(&new.content, 0..100));
    let before = device.snapshot();
    let result = device.install_as(&mut MemorySource::of(&newest), &trust, |request| {
        request.target = SlotId::A;
        request.running = &[("prot", SlotId::B)];
    });
    assert_eq!(result, Err(InstallError::NotConfirmedYet));
    assert_eq!(device.snapshot(), before);
}

/// The boot loader of the simulated device.
trait Loader {
    fn start_and_store(&mut self) -> Vec<(String, SlotId)>;
}

impl Loader for rekindle_testkit::MemoryBootControl {
    fn start_and_store(&mut self) -> Vec<(String, SlotId)> {
        let mut record = self.record().clone();
        let boots = record.start();
        rekindle_flash::BootControl::store(self, &record).expect("the power is on");
        boots
    }
}

#[test]
fn fallen_back_device_installs_nothing_before_it_has_given_up() {
    let (old, new) = images();
    let mut device = Device::new(GEOMETRIES[0], 1, old);
    device.install(new).expect("it is good");
    device.boot.start_and_store();
    let before = device.snapshot();
    let result = device.install(new);
    assert_eq!(
        result,
        Err(InstallError::BootRefused(
            rekindle_flash::BootRefused::TrialStarted
        ))
    );
    assert_eq!(device.snapshot(), before);
}

#[test]
fn rejected_image_is_tried_again_after_its_time() {
    let (old, new) = images();
    let mut device = Device::new(GEOMETRIES[0], 1, old);
    let rejection = rekindle_state::Rejection {
        manifest: new.id(),
        component: "prot".to_owned(),
        build: "14r1".to_owned(),
        reason: Reason::NeverConfirmed,
        tries: 1,
        retry_after: Some(NOW.saturating_add(10)),
        date: Some(NOW),
    };
    device.store.state.reject(rejection.clone());
    let before = device.snapshot();
    assert_eq!(device.install(new), Err(InstallError::Rejected(rejection)));
    assert_eq!(device.snapshot(), before);
    let trust = trust();
    let later = device.install_as(&mut MemorySource::of(new), &trust, |request| {
        request.now = Some(NOW.saturating_add(10));
    });
    assert!(matches!(later, Ok(Installed::Chosen(_))), "{later:?}");
    let tries = device
        .store
        .state
        .rejection(&new.id())
        .map(|kept| kept.tries);
    assert_eq!(
        tries,
        Some(1),
        "forgotten only when it has confirmed itself"
    );
}

#[test]
fn slot_that_was_never_written_holds_nothing() {
    for geometry in GEOMETRIES {
        let mut flash = SimFlash::new(geometry, 1);
        assert_eq!(held_manifest(&mut flash), Ok(None));
    }
}
