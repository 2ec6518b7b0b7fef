use core::ops::Range;

use rekindle_flash::{Flash, Geometry};

/// What a part of the flash must hold, by what was done to it.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

/// How a [`Flash`] is read.
pub(super) type Read<F> = fn(&mut F, u64, &mut [u8]) -> Result<(), <F as Flash>::Error>;

impl Area {
    pub(super) fn new(range: Range<u64>, fill: u8) -> Self {
        Self {
            start: range.start,
            bytes: vec![fill; index(range.end - range.start)],
        }
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start + length(&self.bytes)
    }

    /// Returns the bytes at these offsets of the flash, which the area holds.
    pub(super) fn part(&mut self, range: &Range<u64>) -> &mut [u8] {
        let start = index(range.start - self.start);
        &mut self.bytes[start..start + index(range.end - range.start)]
    }

    /// Compares the flash with the area, but for what lies in `except`.
    pub(super) fn compare<F: Flash>(
        &self,
        flash: &mut F,
        read: Read<F>,
        except: &Range<u64>,
    ) -> Result<(), String> {
        let mut buf = vec![0; PIECE.min(self.bytes.len())];
        for (at, wanted) in (self.start..)
            .step_by(buf.len().max(1))
            .zip(self.bytes.chunks(buf.len().max(1)))
        {
            let found = &mut buf[..wanted.len()];
            read(flash, at, found).map_err(|error| {
                format!("reading {} bytes at {at:#x} fails: {error}", wanted.len())
            })?;
            let different = (at..)
                .zip(found.iter().zip(wanted))
                .find(|(at, (found, wanted))| found != wanted && !except.contains(at));
            if let Some((at, (found, wanted))) = different {
                return Err(format!(
                    "the byte at {at:#x} reads {found:#04x} and should be {wanted:#04x}"
                ));
            }
        }
        Ok(())
    }
}

/// Returns the smallest length that is both written and erased as a whole.
pub(super) fn unit(geometry: &Geometry) -> u64 {
    let write = u64::from(geometry.write_size.max(1));
    match geometry.erase_size {
        0 => write.max(8).next_multiple_of(write),
        erase => u64::from(erase).max(8).next_multiple_of(erase.into()),
    }
}

/// Fills with bytes that differ from place to place and from seed to seed.
pub(super) fn pattern(seed: u8, at: u64, bytes: &mut [u8]) {
    for (at, byte) in (at..).zip(bytes) {
        let [low, high, higher, ..] = at.to_le_bytes();
        *byte = low
            .wrapping_mul(31)
            .wrapping_add(high.wrapping_mul(17))
            .wrapping_add(higher.wrapping_mul(7))
            .wrapping_add(seed.wrapping_mul(53));
    }
}

pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("the units of a flash fit into memory")
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("no slice is longer than a u64 counts")
}

const PIECE: usize = 64 << 10;
