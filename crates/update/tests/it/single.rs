//! A component with one slot, which the device starts from: an image is staged while it runs, and
//! the recovery environment brings it in.

use core::num::NonZeroU8;

use rekindle_flash::{
    BootControl as _, BootRecord, Flash as _, Geometry, KeySetName, SlotId, SlotLayout, read_slot,
};
use rekindle_image::{Downgrade, KeySet, PackOptions, SecretKey, SignedKeySet, VerifyError};
use rekindle_state::{AdoptedKeySet, Door, MemoryStore, Reason, Rejection, SlotRecord, State};
use rekindle_testkit::{MemoryBootControl, Operation, Power, SimFlash};
use rekindle_update::{
    InstallError, Installed, OriginError, Parts, RecoverRequest, Recovered, RepairError,
    RepairErrorOf, RepairRequest, Repaired, Request, Tail, Transfer, held_manifest, inspect,
    recover, repair, stage, staged_manifest,
};

use crate::rig::{
    DEVICE_TYPE, Error, GEOMETRIES, Image, MemorySource, NEW_SERIAL, NOW, OLD_SERIAL, PoweredStore,
    changed, fill, geometry, index, noise, options, request, stranger, trust, vendor,
};

const LEN: usize = 60_001;

const RUNNING: &[(&str, SlotId)] = &[("prot", SlotId::A), ("boot", SlotId::A)];

type RecoverError = RepairErrorOf<SimFlash, MemoryBootControl, PoweredStore, MemorySource>;

fn old() -> Image {
    Image::of(&noise(81, LEN))
}

fn new() -> Image {
    Image::of(&changed(&noise(81, LEN), 10_000..35_000))
}

fn newer() -> Image {
    Image::of(&changed(&noise(81, LEN), 40_000..50_000))
}

/// Its system has one slot, its boot loader two.
struct Device {
    power: Power,
    flash: SimFlash,
    boot: MemoryBootControl,
    store: PoweredStore,
}

impl Device {
    /// The slot holds `running`, installed by a script.
    fn new(geometry: Geometry, seed: u64, running: &Image) -> Self {
        let power = Power::new(seed);
        let record = BootRecord::new(&[("prot", 1), ("boot", 2)]).expect("two components");
        let mut device = Self {
            flash: SimFlash::with_power("A", geometry, &power),
            boot: MemoryBootControl::with_power("boot", record, &power),
            store: PoweredStore::new(&power),
            power,
        };
        fill(&mut device.flash, running);
        device.store.state.record_slot(SlotRecord {
            component: "prot".to_owned(),
            slot: SlotId::A,
            manifest: running.id(),
            serial: Some(OLD_SERIAL.to_vec()),
            build: running.manifest().build.clone(),
            date: None,
            door: Door::Script,
        });
        device.power.clear_log();
        device
    }

    fn stage(&mut self, image: &Image) -> Result<Installed, Error> {
        self.stage_as(image, |_| {})
    }

    fn stage_as(
        &mut self,
        image: &Image,
        change: impl FnOnce(&mut Request<'_>),
    ) -> Result<Installed, Error> {
        let trust = trust();
        let mut request = Request {
            target: SlotId::A,
            running: RUNNING,
            running_manifest: held_manifest(&mut self.flash)
                .map_err(InstallError::Flash)?
                .map(|held| held.id),
            ..request(&trust)
        };
        change(&mut request);
        let mut source = MemorySource::of(image);
        stage(&request, &mut self.parts(), &mut source, &mut |_| {})
    }

    fn recover(&mut self, source: &mut MemorySource) -> Result<Recovered, RecoverError> {
        let trust = trust();
        let request = RecoverRequest {
            component: "prot",
            slot: SlotId::A,
            device_type: DEVICE_TYPE,
            hardware: Some("102"),
            installed: &[],
            trust: &trust,
            exact: false,
            now: Some(NOW),
            transfer: Transfer::default(),
        };
        recover(&request, &mut self.parts(), source, &mut |_| {})
    }

    fn repair(&mut self, image: &Image) -> Result<Repaired, RecoverError> {
        let trust = trust();
        let request = RepairRequest {
            component: "prot",
            slot: SlotId::A,
            in_place: false,
            busy: false,
            running: RUNNING,
            trust: &trust,
            transfer: Transfer::default(),
        };
        let mut source = MemorySource::of(image);
        repair(&request, &mut self.parts(), &mut source, &mut |_| {})
    }

    fn parts(&mut self) -> Parts<'_, SimFlash, MemoryBootControl, PoweredStore> {
        Parts {
            flash: &mut self.flash,
            donors: &mut [],
            boot: &mut self.boot,
            store: &mut self.store,
        }
    }

    /// The slot that starts next; `None`: the recovery environment.
    fn next(&self) -> Option<SlotId> {
        self.boot.record().next("prot")
    }

    fn holds(&mut self, image: &Image) -> bool {
        let held = held_manifest(&mut self.flash).expect("the slot is read");
        held.is_some_and(|held| held.id == image.id())
            && self.flash.stored()[..image.content.len()] == image.content
    }

    fn serial(&self, image: &Image) -> Option<&[u8]> {
        let state = &self.store.state;
        state.slot_serial("prot", SlotId::A, &image.id())
    }

    fn flip(&mut self, offset: u64) {
        let byte = self.flash.stored()[index(offset)] ^ 0x10;
        self.flash.damage(offset, &[byte]);
    }
}

fn small() -> [Geometry; 4] {
    [
        geometry(512 * 1024, 1, 0),
        geometry(512 * 1024, 512, 0),
        geometry(512 * 1024, 256, 4096),
        geometry(512 * 1024, 16, 64 * 1024),
    ]
}

#[test]
fn what_runs_stays_whole_while_an_image_is_staged_and_recovery_brings_it_in() {
    let (old, new) = (old(), new());
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, &old);
        let staged = device.stage(&new).unwrap();
        let Installed::Staged(outcome) = staged else {
            unreachable!("{staged:?}");
        };
        assert_eq!(outcome.report.fetched, new.table_len());
        assert_eq!(device.next(), None, "{geometry:?}");
        assert!(device.holds(&old), "{geometry:?}");
        let staged = staged_manifest(&mut device.flash).unwrap().unwrap();
        assert_eq!(staged.id, new.id());
        assert_eq!(device.serial(&new), Some(NEW_SERIAL));
        let tail = inspect(&mut device.flash, &trust(), None).unwrap();
        assert!(matches!(tail, Tail::Held(held) if held.complete && held.id() == old.id()));
        // It is about to become something else.
        assert_eq!(device.repair(&old), Ok(Repaired::Unfinished));

        let missing = new.missing(&device.flash);
        let recovered = device.recover(&mut MemorySource::of(&new)).unwrap();
        let Recovered::Recovered { report, .. } = recovered else {
            unreachable!("{recovered:?}");
        };
        assert_eq!(report.fetched, missing, "{geometry:?}");
        assert!(new.is_in(&mut device.flash));
        assert_eq!(device.next(), Some(SlotId::A));
        assert!(!device.boot.record().is_trial());
        assert_eq!(device.serial(&new), Some(NEW_SERIAL));

        let before = device.power.operations();
        let mut source = MemorySource::of(&old);
        let again = device.recover(&mut source);
        assert_eq!(again, Ok(Recovered::Whole(new.manifest().clone())));
        assert_eq!(source.opened, [], "a slot that is whole needs no source");
        let syncs = device.power.operations() - before;
        assert!(syncs <= 1, "nothing is written to a slot that is whole");
    }
}

#[test]
fn cut_anywhere_the_device_starts_what_it_held_or_its_recovery_environment() {
    let (old, new) = (old(), new());
    for geometry in small() {
        let mut device = Device::new(geometry, 0, &old);
        let before = device.power.operations();
        device.stage(&new).unwrap();
        let staging = device.power.operations() - before;
        device.recover(&mut MemorySource::of(&new)).unwrap();
        let all = device.power.operations() - before;
        for cut in 1..=all {
            let what = format!(
                "{geometry:?}, cut at {cut} of {staging} + {}",
                all - staging
            );
            let mut device = Device::new(geometry, cut, &old);
            device.power.cut_after(cut);
            let mut result = device.stage(&new).map(drop).map_err(|_| ());
            if result.is_ok() {
                let recovered = device.recover(&mut MemorySource::of(&new));
                result = recovered.map(drop).map_err(|_| ());
            }
            assert_eq!(result, Err(()), "{what}");
            device.flash.restart();
            if device.next() == Some(SlotId::A) {
                // Recovery, asked for all the same, changes nothing for what a cut has left.
                let image = if device.holds(&old) { &old } else { &new };
                assert!(device.holds(image), "{what}");
                let whole = device.recover(&mut MemorySource::of(&new));
                assert_eq!(
                    whole,
                    Ok(Recovered::Whole(image.manifest().clone())),
                    "{what}"
                );
                assert!(device.holds(image), "{what}");
                if image.id() == old.id() {
                    // The damage of a slot that runs is repaired to what it holds.
                    device.flip(20_000);
                    device.recover(&mut MemorySource::of(&old)).unwrap();
                    assert!(device.holds(&old), "{what}");
                    assert!(
                        matches!(device.stage(&new), Ok(Installed::Staged(_))),
                        "{what}"
                    );
                }
            }
            // Once more, somewhere in what is left.
            device.power.cut_after(1 + cut * 7 % all);
            let _: Result<Recovered, _> = device.recover(&mut MemorySource::of(&new));
            device.flash.restart();
            let missing = new.missing(&device.flash) + new.table_len();
            let recovered = device.recover(&mut MemorySource::of(&new)).unwrap();
            if let Recovered::Recovered { report, .. } = recovered {
                assert!(report.fetched <= missing, "{what}");
            }
            assert!(new.is_in(&mut device.flash), "{what}");
            assert_eq!(device.next(), Some(SlotId::A), "{what}");
            // A cut between the commit and the note of the serial leaves it unset, never another one.
            let serial = device.serial(&new);
            let noted = serial == Some(NEW_SERIAL) || (serial.is_none() && cut + 1 >= staging);
            assert!(noted, "{what}: {serial:?}");
        }
    }
}

#[test]
fn a_cut_before_the_commit_leaves_nothing_that_a_repair_takes_for_the_content() {
    let (old, new) = (old(), new());
    for geometry in [geometry(512 * 1024, 1, 0), geometry(512 * 1024, 512, 0)] {
        let mut device = Device::new(geometry, 1, &old);
        let before = device.power.operations();
        device.stage(&new).unwrap();
        let operations = device.power.operations() - before;
        for cut in 1..=operations {
            let mut device = Device::new(geometry, cut, &old);
            device.power.cut_after(cut);
            device.stage(&new).unwrap_err();
            device.flash.restart();
            if device.next().is_none() {
                continue;
            }
            device.flip(20_000);
            let before = device.power.operations();
            device.repair(&old).unwrap();
            let repairing = device.power.operations() - before;
            assert!(device.holds(&old), "cut at {cut}");
            for second in 1..=repairing {
                device.flip(20_000);
                device.power.cut_after(second);
                let _: Result<Repaired, _> = device.repair(&old);
                device.flash.restart();
                device.repair(&old).unwrap();
                assert!(device.holds(&old), "cut at {cut}, then at {second}");
            }
        }
    }
}

#[test]
fn recovery_stores_the_withdrawal_anew_before_it_writes() {
    let mut device = Device::new(GEOMETRIES[0], 1, &old());
    device.stage(&new()).unwrap();
    assert_eq!(device.next(), None);
    device.power.clear_log();
    device.recover(&mut MemorySource::of(&new())).unwrap();
    let log = device.power.log();
    let first = log.iter().find(|entry| entry.operation != Operation::Sync);
    assert_eq!(first.unwrap().to_string(), "boot: store");
    assert!(device.holds(&new()));
}

#[test]
fn another_image_may_be_staged_and_the_running_one_takes_it_back() {
    let (old, new, newer) = (old(), new(), newer());
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, &old);
        device.stage(&new).unwrap();
        device.stage(&newer).unwrap();
        assert!(device.holds(&old), "the description of what runs is kept");
        let staged = staged_manifest(&mut device.flash).unwrap().unwrap();
        assert_eq!(staged.id, newer.id());

        let running = device.stage(&old).unwrap();
        assert_eq!(running, Installed::Running(old.manifest().clone()));
        assert_eq!(device.next(), Some(SlotId::A));
        let recovered = device.recover(&mut MemorySource::of(&newer));
        assert_eq!(recovered, Ok(Recovered::Whole(old.manifest().clone())));
    }
}

#[test]
fn recovery_needs_no_state() {
    let (old, new) = (old(), new());
    let mut device = Device::new(GEOMETRIES[2], 1, &old);
    device.stage(&new).unwrap();
    let trust = trust();
    let request = RecoverRequest {
        component: "prot",
        slot: SlotId::A,
        device_type: DEVICE_TYPE,
        hardware: None,
        installed: &[],
        trust: &trust,
        exact: false,
        now: None,
        transfer: Transfer::default(),
    };
    let mut parts = Parts {
        flash: &mut device.flash,
        donors: &mut [],
        boot: &mut device.boot,
        store: &mut MemoryStore::default(),
    };
    recover(
        &request,
        &mut parts,
        &mut MemorySource::of(&new),
        &mut |_| {},
    )
    .unwrap();
    assert!(new.is_in(&mut device.flash));
    assert_eq!(device.next(), Some(SlotId::A));
}

#[test]
fn rot_in_the_only_slot_is_repaired_and_only_that_is_fetched() {
    let old = old();
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, &old);
        device.flip(30_000);
        let missing = old.missing(&device.flash);
        // A source without the image leaves alone what still boots.
        let error = device.recover(&mut MemorySource::of(&old).failing_after(0));
        assert!(
            matches!(&error, Err(RepairError::Origin(error)) if error.is_unreachable()),
            "{error:?}"
        );
        assert_eq!(device.next(), Some(SlotId::A));

        let recovered = device.recover(&mut MemorySource::of(&old)).unwrap();
        let Recovered::Recovered { report, .. } = recovered else {
            unreachable!("{recovered:?}");
        };
        assert_eq!(report.fetched, missing);
        assert!(device.holds(&old));
        assert_eq!(device.serial(&old), Some(OLD_SERIAL));
    }
}

#[test]
fn a_slot_whose_tail_is_lost_is_brought_to_what_the_source_has() {
    let (old, new) = (old(), new());
    let mut device = Device::new(GEOMETRIES[0], 1, &old);
    device.stage(&new).unwrap();
    let end = device.flash.geometry().size;
    let tail = end - 100 * 1024;
    device.flash.damage(tail, &vec![0x5a; index(end - tail)]);
    let recovered = device.recover(&mut MemorySource::of(&newer()));
    assert!(
        matches!(recovered, Ok(Recovered::Recovered { .. })),
        "{recovered:?}"
    );
    assert!(newer().is_in(&mut device.flash));
    assert_eq!(device.serial(&newer()), None, "nobody knows its serial");
}

#[test]
fn another_image_at_the_source_is_taken_if_the_device_accepts_it() {
    let (old, new, newer) = (old(), new(), newer());
    let staged = || {
        let mut device = Device::new(GEOMETRIES[2], 1, &old);
        device.stage(&new).unwrap();
        device
    };
    let mut device = staged();
    device.recover(&mut MemorySource::of(&newer)).unwrap();
    assert!(newer.is_in(&mut device.flash));
    assert_eq!(device.next(), Some(SlotId::A));

    let content = &newer.content;
    let mut foreign = options();
    foreign.device_types = vec!["IP9999".to_owned()];
    let mut other = options();
    other.component = "boot".to_owned();
    let refused = [
        Image::packed(content, &options(), &[stranger()]),
        Image::packed(content, &foreign, &[vendor()]),
        Image::packed(content, &other, &[vendor()]),
    ];
    for image in refused {
        let mut device = staged();
        let error = device.recover(&mut MemorySource::of(&image)).unwrap_err();
        assert!(
            matches!(
                &error,
                RepairError::Origin(OriginError::Image(
                    InstallError::Trust(_) | InstallError::Refused(_)
                ))
            ),
            "{error:?}"
        );
        assert_eq!(device.next(), None);
        device.recover(&mut MemorySource::of(&new)).unwrap();
        assert!(new.is_in(&mut device.flash));
    }

    let mut device = staged();
    let mut record = device.boot.load().unwrap();
    record.raise_floor("prot", 3).unwrap();
    device.boot.store(&record).unwrap();
    let error = device.recover(&mut MemorySource::of(&newer)).unwrap_err();
    assert!(
        matches!(
            &error,
            RepairError::Origin(OriginError::Image(InstallError::Refused(_)))
        ),
        "a lower security version: {error:?}"
    );
    let mut device = staged();
    device.store.state.reject(Rejection {
        manifest: newer.id(),
        component: "prot".to_owned(),
        build: "14r1".to_owned(),
        reason: Reason::HealthFailed,
        tries: 1,
        retry_after: None,
        date: None,
    });
    let error = device.recover(&mut MemorySource::of(&newer)).unwrap_err();
    assert!(
        matches!(
            &error,
            RepairError::Origin(OriginError::Image(InstallError::Rejected(_)))
        ),
        "{error:?}"
    );
}

#[test]
fn staging_refuses_what_an_install_refuses_and_writes_nothing_then() {
    let old = old();
    let lower = new().with_manifest(|manifest| manifest.security_version = 1);
    let mut device = Device::new(GEOMETRIES[2], 1, &old);
    let mut record = device.boot.load().unwrap();
    record.raise_floor("prot", 2).unwrap();
    device.boot.store(&record).unwrap();
    let before = device.power.operations();
    let error = device.stage(&lower).unwrap_err();
    assert!(matches!(error, InstallError::Refused(_)), "{error:?}");
    // The only slot of a component that has another one is none.
    let error = device.stage_as(&new(), |request| {
        request.component = "boot";
        request.running_manifest = None;
    });
    assert!(matches!(error, Err(InstallError::Refused(_))), "{error:?}");
    assert_eq!(device.power.operations(), before);
    let staged = device.stage_as(&lower, |request| request.downgrade = Downgrade::Allow);
    assert!(matches!(staged, Ok(Installed::Staged(_))), "{staged:?}");
    // What was allowed then needs no leave now.
    device.recover(&mut MemorySource::of(&lower)).unwrap();
    assert!(lower.is_in(&mut device.flash));
}

#[test]
fn recovery_goes_on_while_another_component_is_on_trial() {
    let (old, new) = (old(), new());
    let mut device = Device::new(GEOMETRIES[0], 1, &old);
    device.stage(&new).unwrap();
    let mut record = device.boot.load().unwrap();
    record.choose("boot", SlotId::B, 3).unwrap();
    let starts = record.start();
    assert_eq!(starts, [("boot".to_owned(), SlotId::B)]);
    device.boot.store(&record).unwrap();
    device.recover(&mut MemorySource::of(&new)).unwrap();
    let record = device.boot.record();
    assert_eq!(record.next("prot"), Some(SlotId::A));
    assert_eq!(record.next("boot"), Some(SlotId::B));
    assert!(record.trial_started());
}

#[test]
fn image_that_recovery_could_not_verify_is_not_staged() {
    let successor = SecretKey::from_random(&[17; 32]);
    let set = KeySet::new(1, NonZeroU8::MIN, vec![successor.public()]).expect("one key");
    let signed = SignedKeySet::sign(&set, &[vendor()]).expect("one signer");
    let mut device = Device::new(GEOMETRIES[1], 1, &old());
    // The device has adopted the set, and state has its keys.
    let mut record = device.boot.record().clone();
    let name = KeySetName {
        number: 1,
        digest: *set.digest().as_bytes(),
    };
    record.adopt_key_set(name).expect("it is the first");
    device.boot.store(&record).expect("the power is on");
    device.store.state.key_set = Some(AdoptedKeySet {
        number: 1,
        threshold: 1,
        keys: vec![*successor.public().as_bytes()],
    });
    let content = noise(82, LEN);
    let bare = Image::packed(&content, &options(), core::slice::from_ref(&successor));
    let error = device.stage(&bare).expect_err("recovery knows no such key");
    let missing = VerifyError::KeySetMissing { adopted: 1 };
    assert_eq!(error, InstallError::Trust(missing));
    assert_eq!(device.next(), Some(SlotId::A));
    let options = PackOptions {
        key_sets: vec![signed],
        ..options()
    };
    let whole = Image::packed(&content, &options, &[successor]);
    device.stage(&whole).expect("it brings its keys");
    device.store.state = State::default();
    device
        .recover(&mut MemorySource::of(&whole))
        .expect("no state is needed");
    assert!(device.holds(&whole));
}

#[test]
fn recovery_takes_no_older_image_from_the_tail_that_is_below_the_floor() {
    let mut device = Device::new(GEOMETRIES[1], 1, &old());
    let later = old_with_version(3);
    fill(&mut device.flash, &later);
    let mut record = device.boot.record().clone();
    record.raise_floor("prot", 3).expect("it exists");
    device.boot.store(&record).expect("the power is on");
    // The head that speaks rots: the one before it names the image before.
    let layout = SlotLayout::new(&device.flash.geometry()).expect("a slot");
    let content = read_slot(&mut device.flash, &layout).expect("it is read");
    let (copy, _) = content.current().expect("it was filled");
    device
        .flash
        .damage(layout.copies[copy].head.start + 20, &[0xa5; 4]);
    let error = device
        .recover(&mut MemorySource::of(&old()))
        .expect_err("it is below the floor");
    let cause = core::error::Error::source(&error).expect("the image is the cause");
    assert!(cause.to_string().contains("security version"), "{cause}");
    device
        .recover(&mut MemorySource::of(&later))
        .expect("it is the right one");
    assert!(device.holds(&later));
}

fn old_with_version(security_version: u64) -> Image {
    let options = PackOptions {
        security_version,
        ..options()
    };
    Image::packed(&noise(83, LEN), &options, &[vendor()])
}
