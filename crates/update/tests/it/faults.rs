//! Media that fail in places, rot or fill up: the error says what failed, what runs is untouched
//! (`failure` looks), and the same call continues when the fault is gone.

use rekindle_flash::{FlashError as _, FlashErrorKind, Geometry};
use rekindle_testkit::{Fault, Preset, SimFlashError};
use rekindle_update::{ConvergeError, InstallError, Installed};

use crate::hostile::{failure, running};
use crate::rig::{Device, Image, MemorySource, noise};

/// On each kind of flash, with a number that differs.
fn each_flash(mut check: impl FnMut(Geometry, u64)) {
    for (seed, preset) in (1..).zip(&Preset::ALL) {
        check(preset.geometry(1 << 20), seed);
    }
}

#[test]
fn place_that_cannot_be_written_erased_or_read_is_an_error_until_it_is_healed() {
    let image = Image::of(&noise(40, 20_000));
    each_flash(|geometry, seed| {
        let place = 9_000..9_001;
        let mut faults = vec![Fault::Write(place.clone()), Fault::Read(place.clone())];
        if geometry.erase_size > 0 {
            faults.push(Fault::Erase(place));
        }
        for fault in faults {
            let mut device = Device::new(geometry, seed, running());
            device.b.inject(fault.clone());
            let error = failure(&mut device, &mut MemorySource::of(&image));
            // What cannot be read is written anew first, and then found not to hold it.
            let told = match fault {
                Fault::Read(_) => {
                    matches!(
                        error,
                        InstallError::Converge(ConvergeError::ReadBack { .. })
                    )
                }
                _ => matches!(error, InstallError::Flash(SimFlashError::Broken { .. })),
            };
            assert!(told, "{fault:?} on {geometry:?}: {error:?}");
            device.b.heal();
            device.install(&image).expect("the same call continues");
            assert!(image.is_in(&mut device.b), "{fault:?} on {geometry:?}");
        }
    });
}

#[test]
fn each_sync_may_fail_and_the_next_start_continues() {
    let image = Image::of(&noise(41, 20_000));
    each_flash(|geometry, seed| {
        for good in 0..3 {
            let mut device = Device::new(geometry, seed, running());
            device.b.inject(Fault::Sync(good));
            let error = failure(&mut device, &mut MemorySource::of(&image));
            assert_eq!(error, InstallError::Flash(SimFlashError::SyncFailed));
            device.b.heal();
            device.restart();
            device.install(&image).expect("the same call continues");
            assert!(
                image.is_in(&mut device.b),
                "{geometry:?} after {good} syncs"
            );
        }
    });
}

#[test]
fn full_device_is_told_as_such_and_the_install_goes_on_when_there_is_space() {
    let image = Image::of(&noise(42, 20_000));
    each_flash(|geometry, seed| {
        for space in [0, 6_000, 15_000] {
            let mut device = Device::new(geometry, seed, running());
            device.b.inject(Fault::Full(space));
            let error = failure(&mut device, &mut MemorySource::of(&image));
            let InstallError::Flash(flash) = &error else {
                unreachable!("{geometry:?}: {error:?}");
            };
            assert_eq!(flash.kind(), FlashErrorKind::Full);
            device.b.heal();
            device.install(&image).expect("the same call continues");
            assert!(
                image.is_in(&mut device.b),
                "{geometry:?} with {space} bytes"
            );
        }
    });
}

#[test]
fn bit_that_is_stuck_is_found_before_the_slot_is_chosen() {
    let image = Image::of(&noise(43, 20_000));
    each_flash(|geometry, seed| {
        let mut device = Device::new(geometry, seed, running());
        let byte = image.content[9_000];
        device.b.inject(Fault::Stuck {
            offset: 9_000,
            mask: 0x10,
            value: !byte,
        });
        let error = failure(&mut device, &mut MemorySource::of(&image));
        assert!(
            matches!(
                error,
                InstallError::Converge(ConvergeError::ReadBack { .. })
            ),
            "{geometry:?}: {error:?}"
        );
    });
}

#[test]
fn rot_in_a_staged_slot_is_mended_by_the_same_call() {
    let image = Image::of(&noise(44, 20_000));
    each_flash(|geometry, seed| {
        let mut device = Device::new(geometry, seed, running());
        device.install(&image).expect("it is good");
        let rotten = device.b.rot(0..20_000, 3);
        assert!(!image.is_in(&mut device.b), "{rotten:?}");
        let missing = image.missing(&device.b);
        let result = device.install(&image);
        let Ok(Installed::Chosen(outcome)) = &result else {
            unreachable!("{geometry:?}: {result:?}");
        };
        assert_eq!(outcome.report.fetched, missing, "{geometry:?}");
        assert!(image.is_in(&mut device.b), "{geometry:?}");
    });
}
