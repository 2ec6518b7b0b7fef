use crate::Flash;

/// Reads from the medium until it is clear what is there: `Ok(true)` if a second reading finds the
/// same bytes, `Ok(false)` if it finds others.
///
/// For whoever reads records after a start. A power cut leaves cells between two values, which
/// may pass a checksum once and fail it the next time; such a record does not count. A reading that
/// fails is repeated, so that a passing fault does not make an old record the newest.
///
/// # Errors
///
/// Out of bounds, or three readings failed.
pub fn read_settled<F: Flash>(
    flash: &mut F,
    offset: u64,
    buf: &mut [u8],
) -> Result<bool, F::Error> {
    read_patiently(flash, offset, buf)?;
    let mut again = [0; PIECE];
    for (at, piece) in (offset..).step_by(PIECE).zip(buf.chunks(PIECE)) {
        let again = &mut again[..piece.len()];
        read_patiently(flash, at, again)?;
        if again != piece {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_patiently<F: Flash>(flash: &mut F, offset: u64, buf: &mut [u8]) -> Result<(), F::Error> {
    for _ in 1..ATTEMPTS {
        if flash.read_stored(offset, buf).is_ok() {
            return Ok(());
        }
    }
    flash.read_stored(offset, buf)
}

const ATTEMPTS: u32 = 3;
/// So that the second reading needs no second buffer.
const PIECE: usize = 512;
