//! Sources that lie: each lie has its own error, and what runs is untouched.

use core::num::NonZeroU8;
use core::ops::Range;
use std::sync::LazyLock;

use rekindle_flash::{Flash, SlotId, SlotLayout};
use rekindle_image::{
    Compression, Downgrade, PackOptions, Refusal, Requirement, SecretKey, Trust, Unsigned,
    VerifyError,
};
use rekindle_state::{Reason, Rejection};
use rekindle_testkit::SimFlash;
use rekindle_update::{ConvergeError, InstallError, Installed, Request};

use crate::rig::{
    CutOff, Device, Error, GEOMETRIES, Image, MemorySource, NOW, changed, index, noise, options,
    stranger, trust, vendor,
};

/// What the device runs; packed once.
pub(crate) fn running() -> &'static Image {
    static IMAGE: LazyLock<Image> = LazyLock::new(|| Image::of(&noise(31, 20_000)));
    &IMAGE
}

fn device() -> Device {
    Device::new(GEOMETRIES[2], 1, running())
}

/// Expects a refusal that has touched nothing: neither slots nor boot control nor state.
fn refusal<'a>(bytes: Vec<u8>, trust: &'a Trust, change: impl FnOnce(&mut Request<'a>)) -> Error {
    let mut device = device();
    refusal_by(&mut device, bytes, trust, change)
}

fn refusal_by<'a>(
    device: &mut Device,
    bytes: Vec<u8>,
    trust: &'a Trust,
    change: impl FnOnce(&mut Request<'a>),
) -> Error {
    let before = device.snapshot();
    let operations = device.power.operations();
    let error = device
        .install_as(&mut MemorySource::serving(bytes), trust, change)
        .expect_err("it is refused");
    assert_eq!(device.power.operations(), operations, "{error:?}");
    assert_eq!(device.snapshot(), before, "{error:?}");
    error
}

/// Expects an error once the install has begun: the old firmware boots, and is whole.
pub(crate) fn failure(device: &mut Device, source: &mut MemorySource) -> Error {
    let error = device.install_from(source).expect_err("it is found out");
    stays_on_the_old::<SimFlash>(device, &error);
    error
}

pub(crate) fn stays_on_the_old<F: Flash + core::fmt::Debug>(device: &mut Device, error: &Error<F>)
where
    F::Error: PartialEq,
{
    assert_eq!(device.next(), Some(SlotId::A), "{error:?}");
    assert!(running().is_in(&mut device.a), "{error:?}");
    let record = device.boot.record().clone();
    let prot = record.component("prot").expect("it exists");
    assert!(prot.unbootable.contains(SlotId::B), "{error:?}");
    assert_eq!(device.store.state.slot("prot", SlotId::B), None);
}

fn packed(change: impl FnOnce(&mut PackOptions), keys: &[SecretKey]) -> Image {
    let mut options = options();
    change(&mut options);
    Image::packed(&noise(32, 20_000), &options, keys)
}

#[test]
fn every_flipped_byte_of_header_and_manifest_is_found() {
    let image = Image::of(&noise(32, 20_000));
    let trust = trust();
    let mut device = device();
    for at in 0..index(image.layout.manifest.end) {
        let mut bytes = image.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = refusal_by(&mut device, bytes, &trust, |_| {});
        let known = matches!(
            error,
            InstallError::Header(_)
                | InstallError::Manifest(_)
                | InstallError::Trust(_)
                | InstallError::NoManifest(_)
                | InstallError::Padding { .. }
        );
        assert!(known, "byte {at}: {error:?}");
    }
}

#[test]
fn every_byte_between_manifest_and_table_must_be_zero() {
    let image = Image::of(&noise(32, 20_000));
    let trust = trust();
    let mut device = device();
    let padding = image.layout.manifest.end..image.layout.table.start;
    for at in padding.clone().step_by(311).chain([padding.end - 1]) {
        let mut bytes = image.bytes.clone();
        bytes[index(at)] = 1;
        let error = refusal_by(&mut device, bytes, &trust, |_| {});
        assert_eq!(error, InstallError::Padding { offset: at });
    }
}

#[test]
fn flipped_byte_of_the_table_is_found() {
    let image = Image::of(&noise(32, 20_000));
    for at in image.layout.table.clone().step_by(499) {
        let mut bytes = image.bytes.clone();
        bytes[index(at)] ^= 0x10;
        let mut device = device();
        let error = failure(&mut device, &mut MemorySource::serving(bytes));
        let named = InstallError::Converge(ConvergeError::BadTable {
            page: 0,
            source: rekindle_image::TableError::PageHash { page: 0 },
        });
        assert_eq!(error, named, "byte {at}");
        device.install(&image).expect("the good one still goes in");
    }
}

#[test]
fn flipped_byte_of_a_chunk_is_found_and_names_the_chunk() {
    let image = Image::of(&noise(32, 20_000));
    for chunk in image.chunks() {
        let at = image.layout.chunks.start + chunk.stored_offset + u64::from(chunk.raw_len / 2);
        let mut bytes = image.bytes.clone();
        bytes[index(at)] ^= 0x10;
        let mut device = device();
        let error = failure(&mut device, &mut MemorySource::serving(bytes));
        let named = InstallError::Converge(ConvergeError::BadChunk {
            chunk: chunk.index,
            offset: chunk.raw_offset,
            source: rekindle_image::ChunkError::Hash,
        });
        assert_eq!(error, named, "byte {at}");
        device.install(&image).expect("the good one still goes in");
        assert!(image.is_in(&mut device.b));
    }
}

#[test]
fn flipped_byte_of_a_compressed_chunk_never_changes_what_is_written() {
    let content = crate::rig::prose(30_000);
    let mut options = options();
    options.compression = Compression::default();
    let image = Image::packed(&content, &options, &[vendor()]);
    let mut found = 0;
    for at in image.layout.chunks.clone().step_by(61) {
        let mut bytes = image.bytes.clone();
        bytes[index(at)] ^= 0x04;
        let mut device = device();
        match device.install_from(&mut MemorySource::serving(bytes)) {
            Ok(_) => assert!(image.is_in(&mut device.b), "byte {at} says nothing"),
            Err(InstallError::Converge(ConvergeError::BadChunk { .. })) => found += 1,
            Err(error) => unreachable!("byte {at}: {error:?}"),
        }
    }
    assert!(found > 10);
}

#[test]
fn truncated_image_is_told_by_where_it_ends() {
    let image = Image::of(&noise(32, 20_000));
    let trust = trust();
    for len in [0, 15, 16, 100, 4095] {
        let error = refusal(image.bytes[..len].to_vec(), &trust, |_| {});
        let len = u64::try_from(len).unwrap();
        assert_eq!(error, InstallError::NoManifest(len));
    }
    let Range { start, end } = image.layout.table;
    for (len, cut_in) in [
        (start, start..end),
        (start + 100, start..end),
        (end, image.layout.chunks.clone()),
        (image.layout.file_len - 1, image.layout.chunks.clone()),
    ] {
        let bytes = image.bytes[..index(len)].to_vec();
        let mut device = device();
        let error = failure(&mut device, &mut MemorySource::serving(bytes));
        assert_eq!(error, InstallError::Truncated(cut_in), "{len} bytes");
        device.install(&image).expect("the whole one goes in");
    }
}

#[test]
fn known_length_must_be_the_one_of_the_manifest() {
    let image = Image::of(&noise(32, 20_000));
    let trust = trust();
    let expected = image.layout.file_len;
    for found in [expected - 1, expected + 1, 0, u64::MAX] {
        let error = refusal(image.bytes.clone(), &trust, |request| {
            request.file_len = Some(found);
        });
        assert_eq!(error, InstallError::FileLength { found, expected });
    }
    let mut source = MemorySource::of(&image);
    let result = device().install_as(&mut source, &trust, |request| {
        request.file_len = Some(expected);
    });
    assert!(matches!(result, Ok(Installed::Chosen(_))), "{result:?}");
}

#[test]
fn file_that_is_no_image_is_refused() {
    let trust = trust();
    let page = b"<!DOCTYPE html><title>404 Not Found</title>".repeat(200);
    let error = refusal(page, &trust, |_| {});
    let not_an_image = rekindle_image::HeaderError::NotAnImage;
    assert_eq!(error, InstallError::Header(not_an_image));
}

#[test]
fn image_for_another_device_is_refused() {
    let trust = trust();
    let image = packed(
        |options| options.device_types = vec!["IP222".to_owned()],
        &[vendor()],
    );
    let wrong_type = Refusal::WrongDeviceType {
        device: "IP1200".to_owned(),
        image: vec!["IP222".to_owned()],
    };
    let error = refusal(image.bytes, &trust, |_| {});
    assert_eq!(error, InstallError::Refused(wrong_type));

    let image = packed(
        |options| options.hardware = vec!["200".to_owned()],
        &[vendor()],
    );
    let wrong_hardware = |device: Option<&str>| {
        InstallError::Refused(Refusal::WrongHardware {
            device: device.map(str::to_owned),
            image: vec!["200".to_owned()],
        })
    };
    let error = refusal(image.bytes.clone(), &trust, |_| {});
    assert_eq!(error, wrong_hardware(Some("102")));
    let error = refusal(image.bytes, &trust, |request| request.hardware = None);
    assert_eq!(error, wrong_hardware(None));

    let image = packed(|options| options.component = "boot".to_owned(), &[vendor()]);
    let wrong_component = Refusal::WrongComponent {
        wanted: "prot".to_owned(),
        image: "boot".to_owned(),
    };
    let error = refusal(image.bytes, &trust, |_| {});
    assert_eq!(error, InstallError::Refused(wrong_component));
}

#[test]
fn image_below_the_security_floor_is_refused_unless_the_operator_insists() {
    let trust = trust();
    let image = Image::of(&noise(32, 20_000));
    let mut device = device();
    let mut record = device.boot.record().clone();
    record.raise_floor("prot", 3).unwrap();
    rekindle_flash::BootControl::store(&mut device.boot, &record).unwrap();
    let error = refusal_by(&mut device, image.bytes.clone(), &trust, |_| {});
    let downgrade = Refusal::SecurityDowngrade { image: 2, floor: 3 };
    assert_eq!(error, InstallError::Refused(downgrade));
    let result = device.install_as(&mut MemorySource::of(&image), &trust, |request| {
        request.downgrade = Downgrade::Allow;
    });
    assert!(matches!(result, Ok(Installed::Chosen(_))), "{result:?}");
}

#[test]
fn image_that_does_not_fit_is_refused() {
    let trust = trust();
    let layout = SlotLayout::new(&GEOMETRIES[2]).unwrap();
    let image = Image::of(&noise(32, 20_000));
    let too_large = |size: u64| {
        let image = image.with_manifest(|manifest| {
            manifest.size = size;
            let chunks = size.div_ceil(u64::from(manifest.table.max_chunk));
            manifest.table.chunks = u32::try_from(chunks).unwrap();
            manifest.stored_size = size;
        });
        refusal(image.bytes, &trust, |_| {})
    };
    for size in [layout.data_len() + 1, 1 << 40] {
        let capacity = layout.data_len();
        let refusal = Refusal::TooLarge { size, capacity };
        assert_eq!(too_large(size), InstallError::Refused(refusal));
    }
    let fine = image.with_manifest(|manifest| {
        manifest.size = 800_000;
        manifest.table.chunks = 780;
    });
    let refusal = refusal(fine.bytes.clone(), &trust, |_| {});
    let table_too_large = Refusal::TableTooLarge {
        table: fine.table_len(),
        capacity: layout.table_len(),
    };
    assert_eq!(refusal, InstallError::Refused(table_too_large));
}

#[test]
fn image_that_needs_what_is_not_there_is_refused() {
    let trust = trust();
    let needs = |component: &str| {
        let requirement = Requirement {
            component: component.to_owned(),
            release: 7,
        };
        packed(|options| options.requires = vec![requirement], &[vendor()])
    };
    for (component, installed) in [("prot", Some(0)), ("boot", None)] {
        let error = refusal(needs(component).bytes, &trust, |_| {});
        let unmet = Refusal::RequirementNotMet {
            component: component.to_owned(),
            needed: 7,
            installed,
        };
        assert_eq!(error, InstallError::Refused(unmet));
    }
}

#[test]
fn image_that_nobody_trusted_signed_is_refused() {
    let two = Trust {
        keys: vec![vendor().public(), SecretKey::from_random(&[1; 32]).public()],
        threshold: NonZeroU8::new(2).unwrap(),
        unsigned: Unsigned::Refuse,
    };
    let one = trust();
    let unmet = VerifyError::ThresholdUnmet {
        found: 1,
        needed: two.threshold,
    };
    for (keys, trust, expected) in [
        (&[][..], &one, VerifyError::Unsigned),
        (&[stranger()], &one, VerifyError::NoTrustedSigner),
        (&[vendor()], &two, unmet),
        (&[vendor(), stranger()], &two, unmet),
    ] {
        let image = packed(|_| {}, keys);
        let error = refusal(image.bytes, trust, |_| {});
        assert_eq!(error, InstallError::Trust(expected));
    }
}

#[test]
fn unsigned_image_is_taken_where_the_vendor_insists_and_it_shows() {
    let image = packed(|_| {}, &[]);
    let mut trust = trust();
    trust.unsigned = Unsigned::Accept;
    let result = device().install_as(&mut MemorySource::of(&image), &trust, |_| {});
    let Ok(Installed::Chosen(outcome)) = result else {
        unreachable!("{result:?}");
    };
    assert!(outcome.unsigned);
}

#[test]
fn slot_that_runs_is_never_the_target() {
    let trust = trust();
    let image = Image::of(&noise(32, 20_000));
    let error = refusal(image.bytes, &trust, |request| {
        request.running = &[("prot", SlotId::B)];
    });
    assert_eq!(error, InstallError::TargetRuns(SlotId::B));
}

#[test]
fn slot_that_is_confirmed_is_never_the_target() {
    let trust = trust();
    let image = Image::of(&noise(32, 20_000));
    let error = refusal(image.bytes, &trust, |request| {
        request.target = SlotId::A;
        request.running = &[];
    });
    let confirmed = rekindle_flash::BootRefused::Confirmed {
        component: "prot".to_owned(),
        slot: SlotId::A,
    };
    assert_eq!(error, InstallError::BootRefused(confirmed));
}

#[test]
fn rejected_image_is_refused_and_a_corrected_one_is_not() {
    let trust = trust();
    let image = Image::of(&noise(32, 20_000));
    let mut device = device();
    let rejection = Rejection {
        manifest: image.id(),
        component: "prot".to_owned(),
        build: "14r1".to_owned(),
        reason: Reason::HealthFailed,
        tries: 1,
        retry_after: None,
        date: Some(NOW),
    };
    device.store.state.reject(rejection.clone());
    let error = refusal_by(&mut device, image.bytes.clone(), &trust, |_| {});
    assert_eq!(error, InstallError::Rejected(rejection));
    let corrected = Image::of(&changed(&image.content, 100..101));
    device.install(&corrected).expect("it is another manifest");
}

#[test]
fn broken_connection_is_the_sources_error() {
    let trust = trust();
    let image = Image::of(&noise(32, 20_000));
    let mut device = device();
    let mut source = MemorySource::of(&image).failing_after(50);
    let before = device.snapshot();
    let error = device.install_as(&mut source, &trust, |_| {});
    assert_eq!(error, Err(InstallError::Source(CutOff)));
    assert_eq!(device.snapshot(), before, "not even the manifest was there");
    let mut source = MemorySource::of(&image).failing_after(15_000);
    let error = failure(&mut device, &mut source);
    assert_eq!(error, InstallError::Source(CutOff));
    device.install(&image).expect("the same call continues");
}
