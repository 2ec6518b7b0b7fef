use core::fmt::Debug;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

/// Checks a [`Flash`] backend; see the [module](crate::conformance). It overwrites the first four units and
/// the last one.
///
/// What needs a real power cut (what is left of unsynced writes) this cannot check.
///
/// # Panics
///
/// If a rule is broken, or the flash has fewer than five units.
pub fn flash<F: Flash>(mut open: impl FnMut(Option<F>) -> F) {
    let mut flash = open(None);
    let geometry = flash.geometry();
    let unit = check_geometry(&geometry);
    assert_eq!(geometry, flash.geometry(), "the geometry must not change");

    refuses_what_is_out_of_bounds(&mut flash, &geometry);
    refuses_what_is_not_aligned(&mut flash, &geometry);
    done(
        flash.read(geometry.size, &mut []),
        "an empty read at the end",
    );

    // Four units and the last one, each with a pattern of its own.
    let places = [0, unit, 2 * unit, 3 * unit, geometry.size - unit];
    let mut patterns: Vec<Vec<u8>> = (1..=5).map(|seed| pattern(seed, unit)).collect();
    for (place, pattern) in places.iter().zip(&patterns) {
        replace(&mut flash, &geometry, *place, pattern);
    }
    for (place, pattern) in places.iter().zip(&patterns) {
        expect(&mut flash, *place, pattern, F::read, "read after write");
    }
    done(flash.sync(), "sync");
    for (place, pattern) in places.iter().zip(&patterns) {
        expect(
            &mut flash,
            *place,
            pattern,
            F::read_stored,
            "read_stored after sync",
        );
    }

    // Replacing one unit must leave its neighbours alone, and read_stored must see it.
    patterns[1] = pattern(6, unit);
    replace(&mut flash, &geometry, unit, &patterns[1]);
    done(flash.sync(), "sync");
    for (place, pattern) in places.iter().zip(&patterns) {
        expect(
            &mut flash,
            *place,
            pattern,
            F::read_stored,
            "read_stored beside a replaced unit",
        );
    }

    let end = places[3] + unit;
    if geometry.erase_size == 0 {
        done(
            flash.erase(0..end),
            "an erase where there is nothing to erase",
        );
        expect(
            &mut flash,
            0,
            &patterns[0],
            F::read,
            "an erase that is none",
        );
    } else {
        patterns[2] = vec![0xff; patterns[2].len()];
        done(flash.erase(2 * unit..3 * unit), "erase");
        done(flash.sync(), "sync");
        for (place, pattern) in places.iter().zip(&patterns) {
            expect(
                &mut flash,
                *place,
                pattern,
                F::read_stored,
                "read_stored beside an erased block",
            );
        }
    }

    flash = open(Some(flash));
    assert_eq!(
        geometry,
        flash.geometry(),
        "the geometry must survive a restart"
    );
    for (place, pattern) in places.iter().zip(&patterns) {
        expect(
            &mut flash,
            *place,
            pattern,
            F::read_stored,
            "read_stored after a restart",
        );
        expect(&mut flash, *place, pattern, F::read, "read after a restart");
    }
    // Reads have no alignment.
    let odd = &patterns[0][1..patterns[0].len().min(8)];
    expect(&mut flash, 1, odd, F::read, "read at an odd offset");
    expect(
        &mut flash,
        1,
        odd,
        F::read_stored,
        "read_stored at an odd offset",
    );
}

/// Returns the length that is both written and erased as a whole.
fn check_geometry(geometry: &Geometry) -> u64 {
    let write = u64::from(geometry.write_size);
    let erase = u64::from(geometry.erase_size);
    assert!(write > 0, "the write size must not be zero");
    assert!(
        erase.is_multiple_of(write),
        "the erase size must be a multiple of the write size"
    );
    let unit = if erase == 0 { write.max(8) } else { erase };
    let unit = unit.next_multiple_of(write);
    assert!(
        geometry.size.is_multiple_of(write) && (erase == 0 || geometry.size.is_multiple_of(erase)),
        "the size must be a multiple of the units"
    );
    assert!(
        geometry.size / unit >= 5,
        "the check needs five units of {unit} bytes"
    );
    unit
}

fn refuses_what_is_out_of_bounds<F: Flash>(flash: &mut F, geometry: &Geometry) {
    let unit = usize::try_from(geometry.write_size).expect("a unit fits into memory");
    let mut buf = vec![0; unit];
    for offset in [geometry.size, u64::MAX - u64::from(geometry.write_size) + 1] {
        for (what, result) in [
            ("read", flash.read(offset, &mut buf)),
            ("read_stored", flash.read_stored(offset, &mut buf)),
            ("write", flash.write(offset, &buf)),
        ] {
            refused(result, FlashErrorKind::OutOfBounds, what);
        }
    }
    let step = u64::from(geometry.erase_size.max(geometry.write_size));
    refused(
        flash.erase(geometry.size - step..geometry.size + step),
        FlashErrorKind::OutOfBounds,
        "erase",
    );
    refused(
        flash.read(geometry.size - 1, &mut [0; 2]),
        FlashErrorKind::OutOfBounds,
        "read across the end",
    );
}

fn refuses_what_is_not_aligned<F: Flash>(flash: &mut F, geometry: &Geometry) {
    let unit = usize::try_from(geometry.write_size).expect("a unit fits into memory");
    if unit > 1 {
        let data = vec![0x5a; unit];
        refused(
            flash.write(1, &data),
            FlashErrorKind::NotAligned,
            "write at an odd offset",
        );
        refused(
            flash.write(0, &data[1..]),
            FlashErrorKind::NotAligned,
            "write of an odd length",
        );
    }
    let erase = u64::from(geometry.erase_size);
    if erase > 1 {
        refused(
            flash.erase(1..erase),
            FlashErrorKind::NotAligned,
            "erase from an odd offset",
        );
        refused(
            flash.erase(0..erase - 1),
            FlashErrorKind::NotAligned,
            "erase to an odd offset",
        );
    }
}

fn replace<F: Flash>(flash: &mut F, geometry: &Geometry, offset: u64, data: &[u8]) {
    let len = u64::try_from(data.len()).expect("a unit is short");
    if geometry.erase_size != 0 {
        done(flash.erase(offset..offset + len), "erase");
        expect(
            flash,
            offset,
            &vec![0xff; data.len()],
            F::read,
            "read after erase",
        );
    }
    done(flash.write(offset, data), "write");
}

fn expect<F: Flash>(
    flash: &mut F,
    offset: u64,
    expected: &[u8],
    read: impl FnOnce(&mut F, u64, &mut [u8]) -> Result<(), F::Error>,
    what: &str,
) {
    let mut found = vec![0x77; expected.len()];
    done(read(flash, offset, &mut found), what);
    let different = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        different, None,
        "{what}: the bytes at {offset} are not what they must be; the first other one is this far in"
    );
}

fn refused<E: FlashError>(result: Result<(), E>, kind: FlashErrorKind, what: &str) {
    assert_eq!(
        result.map_err(|error| error.kind()),
        Err(kind),
        "{what}: must be refused"
    );
}

fn done<E: Debug>(result: Result<(), E>, what: &str) {
    if let Err(error) = result {
        unreachable!("{what}: must succeed, but: {error:?}");
    }
}

fn pattern(seed: u8, len: u64) -> Vec<u8> {
    (0..len)
        .map(|index| {
            let [low, high, ..] = index.to_le_bytes();
            low.wrapping_mul(31)
                .wrapping_add(high.wrapping_mul(17))
                .wrapping_add(seed.wrapping_mul(53))
        })
        .collect()
}
