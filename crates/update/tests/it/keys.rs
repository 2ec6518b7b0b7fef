//! A change of keys, from the image that brings it to the one that the old keys signed too late.

use core::num::NonZeroU8;

use rekindle_flash::{BootControl as _, SlotId};
use rekindle_image::{KeySet, PackOptions, SecretKey, SignedKeySet, VerifyError};
use rekindle_state::{State, Store as _};
use rekindle_update::{
    InstallError, RunningManifest, SlotFacts, adopt_keys, adopted_keys, confirm,
};

use crate::rig::{Device, Image, MemorySource, geometry, noise, options, trust, vendor};

const GEOMETRY: rekindle_flash::Geometry = geometry(1 << 20, 4, 4096);

fn successor() -> SecretKey {
    SecretKey::from_random(&[17; 32])
}

fn key_set() -> SignedKeySet {
    let set = KeySet::new(1, NonZeroU8::MIN, vec![successor().public()]).expect("one key");
    SignedKeySet::sign(&set, &[vendor()]).expect("one signer")
}

/// An image with its own content, with or without the set, signed by this key.
fn image(seed: u64, key_sets: Vec<SignedKeySet>, key: SecretKey) -> Image {
    let options = PackOptions {
        key_sets,
        ..options()
    };
    Image::packed(&noise(seed, 20_000), &options, &[key])
}

fn device() -> Device {
    Device::new(GEOMETRY, 5, &image(1, Vec::new(), vendor()))
}

/// The boot loader and the start of the agent in slot B, with a cut after so many operations.
fn start_in_b(device: &mut Device, image: &Image, cut: Option<u64>) {
    let mut record = device.boot.load().expect("the power is on");
    record.start();
    device.boot.store(&record).expect("the power is on");
    if let Some(operations) = cut {
        device.power.cut_after(operations);
    }
    let _cut = commits(device, image);
    device.power.restore();
    device.restart();
}

/// What an agent commits at each start.
fn commits(device: &mut Device, image: &Image) -> Option<u64> {
    let facts = SlotFacts {
        component: "prot",
        slot: SlotId::B,
        manifest: Some(image.id()),
        build: "14r1",
        security_version: image.manifest().security_version,
    };
    confirm(&mut device.boot, &mut device.store, &[facts]).ok()?;
    let running = RunningManifest {
        component: "prot",
        slot: SlotId::B,
        signed: &image.signed,
    };
    let (boot, store) = (&mut device.boot, &mut device.store);
    let adoption = adopt_keys(boot, store, &trust(), &[running]).ok()?;
    assert_eq!(adoption.refused, []);
    adoption.adopted.map(|set| set.number)
}

/// Brings an image into slot A of a device that runs slot B.
fn install_in_a(device: &mut Device, image: &Image) -> Result<(), VerifyError> {
    core::mem::swap(&mut device.a, &mut device.b);
    let trust = trust();
    let result = device.install_as(&mut MemorySource::of(image), &trust, |request| {
        request.target = SlotId::A;
        request.running = &[("prot", SlotId::B)];
    });
    core::mem::swap(&mut device.a, &mut device.b);
    match result {
        Err(InstallError::Trust(error)) => Err(error),
        other => {
            other.expect("trust is all that may be missing");
            Ok(())
        }
    }
}

#[test]
fn a_set_is_adopted_when_its_image_is_confirmed_and_the_old_keys_are_out_for_good() {
    let new = image(2, vec![key_set()], successor());
    let late = image(3, Vec::new(), vendor());
    let mut device = device();
    device.install(&new).expect("the chain leads to its key");
    assert_eq!(
        device.boot.record().key_set(),
        None,
        "nothing is adopted before it is confirmed"
    );
    start_in_b(&mut device, &new, None);
    let adopted = device.boot.record().key_set().expect("it is confirmed");
    assert_eq!(adopted.number, 1);
    assert_eq!(adopted.digest, *key_set().unverified().digest().as_bytes());
    assert_eq!(
        install_in_a(&mut device, &late),
        Err(VerifyError::ReplacedKeys { by: 1 })
    );
    // The keys are known now: an image need not bring them again.
    let plain = image(4, Vec::new(), successor());
    assert_eq!(install_in_a(&mut device, &plain), Ok(()));
}

#[test]
fn without_state_only_an_image_with_the_adopted_set_is_taken() {
    let new = image(2, vec![key_set()], successor());
    let mut device = device();
    device.install(&new).expect("the chain leads to its key");
    start_in_b(&mut device, &new, None);
    device.store.state = State::default();
    let record = device.boot.record().clone();
    assert!(adopted_keys(&record, None).is_some());
    let late = image(3, Vec::new(), vendor());
    assert_eq!(
        install_in_a(&mut device, &late),
        Err(VerifyError::KeySetMissing { adopted: 1 })
    );
    let forked = KeySet::new(1, NonZeroU8::MIN, vec![vendor().public()]).expect("one key");
    let forked = SignedKeySet::sign(&forked, &[vendor()]).expect("one signer");
    let forked = image(5, vec![forked], vendor());
    assert_eq!(
        install_in_a(&mut device, &forked),
        Err(VerifyError::KeySetFork { number: 1 })
    );
    assert_eq!(
        install_in_a(&mut device, &image(6, vec![key_set()], successor())),
        Ok(())
    );
}

#[test]
fn a_cut_anywhere_in_confirm_and_adoption_is_made_up_for_at_the_next_start() {
    let new = image(2, vec![key_set()], successor());
    let late = image(3, Vec::new(), vendor());
    for cut in 1.. {
        let mut device = device();
        device.install(&new).expect("the chain leads to its key");
        let before = device.power.operations();
        start_in_b(&mut device, &new, Some(cut));
        let whole = device.power.operations() - before < cut;
        let record = device.boot.record();
        let boots = record.next("prot");
        assert_eq!(boots, Some(SlotId::B), "cut {cut}: attempts are left");
        if record.key_set().is_some() {
            assert!(!record.is_trial(), "cut {cut}: adopted before confirmed");
        }
        // The next start.
        let mut record = device.boot.load().expect("the power is on");
        record.start();
        device.boot.store(&record).expect("the power is on");
        commits(&mut device, &new);
        let state = device.store.load().expect("the power is on").state;
        assert!(state.key_set.is_some(), "cut {cut}");
        assert_eq!(
            install_in_a(&mut device, &late),
            Err(VerifyError::ReplacedKeys { by: 1 }),
            "cut {cut}"
        );
        if whole {
            assert!(cut > 3, "confirm, key set and state are operations");
            break;
        }
    }
}

/// The set after the first one, signed by the successor.
fn third() -> SecretKey {
    SecretKey::from_random(&[18; 32])
}

#[test]
fn image_that_brings_the_next_set_alone_is_enough_to_make_up_for_a_cut() {
    let first = image(2, vec![key_set()], successor());
    let set = KeySet::new(2, NonZeroU8::MIN, vec![third().public()]).expect("one key");
    let set = SignedKeySet::sign(&set, &[successor()]).expect("one signer");
    let next = image(7, vec![set], third());
    let mut device = device();
    device.install(&first).expect("the chain leads to its key");
    start_in_b(&mut device, &first, None);
    // Boot control names the next set, and the power goes before state has its keys.
    let state = device.store.state.clone();
    install_in_a(&mut device, &next).expect("the device has the keys before it");
    let mut record = device.boot.load().expect("the power is on");
    record.start();
    device.boot.store(&record).expect("the power is on");
    let commits = |device: &mut Device| {
        let facts = SlotFacts {
            component: "prot",
            slot: SlotId::A,
            manifest: Some(next.id()),
            build: "14r1",
            security_version: next.manifest().security_version,
        };
        let (boot, store) = (&mut device.boot, &mut device.store);
        confirm(boot, store, &[facts]).expect("the power is on");
        let running = RunningManifest {
            component: "prot",
            slot: SlotId::A,
            signed: &next.signed,
        };
        let adoption = adopt_keys(boot, store, &trust(), &[running]).expect("the power is on");
        assert_eq!(adoption.refused, []);
    };
    commits(&mut device);
    device.store.state.key_set = state.key_set;
    commits(&mut device);
    let keys = device.store.state.key_set.as_ref().map(|set| set.number);
    assert_eq!(keys, Some(2));
    let plain = image(8, Vec::new(), third());
    let trust = trust();
    device
        .install_as(&mut MemorySource::of(&plain), &trust, |request| {
            request.running = &[("prot", SlotId::A)];
        })
        .expect("its keys are known");
}
