use alloc::vec;
use alloc::vec::Vec;

use super::control::UBootEnvError;
use super::environment::{Environment, EnvironmentCopy, EnvironmentDamage};
use crate::{Flash, read_settled};

/// The one or two places of an environment.
#[derive(Debug)]
pub(super) struct Copies<F> {
    /// One or two.
    places: Vec<F>,
    /// Bytes of one copy.
    size: usize,
    flags: EnvironmentFlags,
}

/// What the flag of a copy means, where there are two.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EnvironmentFlags {
    /// A number that rises with each store: what U-Boot does in files, on MMC, in UBI volumes and on
    /// raw NAND.
    Serial,
    /// 1 for the copy that counts, 0 for the other: what U-Boot does on NOR flash, parallel and SPI.
    ///
    /// U-Boot clears the bit of the old copy in place. [`Flash`] forbids to write a word twice, so
    /// here the old copy is erased and written again, with the new variables, behind a sync.
    Active,
}

/// What was read, and how to write it back.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) environment: Environment,
    /// The place of the copy that counts.
    place: usize,
    flag: Option<u8>,
}

impl<F: Flash> Copies<F> {
    /// Checks that the places can hold copies of `size` bytes.
    pub(super) fn new(places: Vec<F>, size: usize) -> Result<Self, UBootEnvError<F::Error>> {
        let mut flags = EnvironmentFlags::Serial;
        for place in &places {
            let geometry = place.geometry();
            let room = usize::try_from(geometry.size).unwrap_or(usize::MAX);
            if !(SMALLEST..=LARGEST).contains(&size) || size > room {
                return Err(UBootEnvError::Size { size, room });
            }
            let unit = usize::try_from(geometry.write_size).unwrap_or(usize::MAX);
            if geometry.erase_size == 0 && !size.is_multiple_of(unit.max(1)) {
                return Err(UBootEnvError::Unit { size, unit });
            }
            if geometry.erase_size != 0 {
                flags = EnvironmentFlags::Active;
            }
        }
        Ok(Self {
            places,
            size,
            flags,
        })
    }

    pub(super) fn set_flags(&mut self, flags: EnvironmentFlags) {
        self.flags = flags;
    }

    fn redundant(&self) -> bool {
        self.places.len() > 1
    }

    /// Reads the copy that counts.
    pub(super) fn load(&mut self) -> Result<Loaded, UBootEnvError<F::Error>> {
        let redundant = self.redundant();
        let mut found = Vec::new();
        let mut failed = None;
        for place in &mut self.places {
            let mut bytes = vec![0; self.size];
            found.push(match read_settled(place, 0, &mut bytes) {
                Ok(true) => EnvironmentCopy::decode(&bytes, redundant),
                Ok(false) => Err(EnvironmentDamage::Unsettled),
                Err(error) => {
                    failed = Some(error);
                    Err(EnvironmentDamage::Unreadable)
                }
            });
        }
        let mut found = found.into_iter();
        let (place, copy) = match (found.next(), found.next()) {
            (Some(Ok(first)), Some(Ok(second))) => {
                if second_counts(first.flag, second.flag) {
                    (1, second)
                } else {
                    (0, first)
                }
            }
            (Some(Ok(first)), _) => (0, first),
            (_, Some(Ok(second))) => (1, second),
            (first, second) => {
                if let Some(error) = failed {
                    return Err(UBootEnvError::Flash(error));
                }
                return Err(UBootEnvError::NoEnvironment {
                    first: first
                        .and_then(Result::err)
                        .unwrap_or(EnvironmentDamage::Erased),
                    second: second.and_then(Result::err),
                });
            }
        };
        Ok(Loaded {
            environment: copy.environment,
            place,
            flag: copy.flag,
        })
    }

    pub(super) fn into_places(self) -> Vec<F> {
        self.places
    }

    /// Replaces the variables; `before` is what a load has just returned.
    ///
    /// Of two copies the one that counts is not touched before the other one is synced. It is written
    /// also where nothing changes: a copy whose writing was cut off at its very end may read right,
    /// and fade after that.
    pub(super) fn store(
        &mut self,
        before: &Loaded,
        environment: Environment,
    ) -> Result<(), UBootEnvError<F::Error>> {
        let mut copy = EnvironmentCopy {
            flag: None,
            environment,
        };
        let (Some(flag), true) = (before.flag, self.redundant()) else {
            return self.write(before.place, &copy);
        };
        let other = 1 - before.place;
        match self.flags {
            EnvironmentFlags::Serial => {
                copy.flag = Some(flag.wrapping_add(1));
                self.write(other, &copy)
            }
            EnvironmentFlags::Active => {
                copy.flag = Some(ACTIVE);
                self.write(other, &copy)?;
                // With the new variables as well: a torn flag may count, and then says the same.
                copy.flag = Some(OBSOLETE);
                self.write(before.place, &copy)
            }
        }
    }

    fn write(
        &mut self,
        place: usize,
        copy: &EnvironmentCopy,
    ) -> Result<(), UBootEnvError<F::Error>> {
        let Some(mut bytes) = copy.encode(self.size) else {
            return Err(UBootEnvError::Full {
                needed: copy.environment.len() + super::environment::header_len(self.redundant()),
                size: self.size,
            });
        };
        let place = &mut self.places[place];
        let geometry = place.geometry();
        if geometry.erase_size != 0 {
            let end = length(bytes.len()).next_multiple_of(geometry.erase_size.into());
            append_neighbours(place, &mut bytes, end)?;
            place.erase(0..end).map_err(UBootEnvError::Flash)?;
            let unit = usize::try_from(geometry.write_size).unwrap_or(1).max(1);
            bytes.resize(bytes.len().next_multiple_of(unit), 0xff);
        }
        place.write(0, &bytes).map_err(UBootEnvError::Flash)?;
        place.sync().map_err(UBootEnvError::Flash)?;
        let mut stored = vec![0; bytes.len()];
        place
            .read_stored(0, &mut stored)
            .map_err(UBootEnvError::Flash)?;
        if stored != bytes {
            return Err(UBootEnvError::ReadBack);
        }
        Ok(())
    }
}

/// Takes what stands behind the copy in its last erase block along, as `fw_setenv` does: without the
/// erased bytes at the end, which need no write.
fn append_neighbours<F: Flash>(
    place: &mut F,
    bytes: &mut Vec<u8>,
    end: u64,
) -> Result<(), UBootEnvError<F::Error>> {
    let start = length(bytes.len());
    let mut rest = vec![0xff; usize::try_from(end - start).unwrap_or(0)];
    place
        .read_stored(start, &mut rest)
        .map_err(UBootEnvError::Flash)?;
    let used = rest.iter().rposition(|byte| *byte != 0xff);
    bytes.extend(rest.into_iter().take(used.map_or(0, |last| last + 1)));
    Ok(())
}

/// The rule of U-Boot (`env_check_redund`): the higher flag, across the wrap from 255 to 0; of equal
/// ones the first copy.
fn second_counts(first: Option<u8>, second: Option<u8>) -> bool {
    match (first, second) {
        (Some(255), Some(0)) => true,
        (Some(0), Some(255)) => false,
        (first, second) => second > first,
    }
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

const ACTIVE: u8 = 1;
const OBSOLETE: u8 = 0;

/// Less than this holds no boot command.
const SMALLEST: usize = 128;

/// The largest environments that boards have are 256 KiB; all of it is read at once.
const LARGEST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_that_counts_is_the_one_that_u_boot_takes() {
        let cases = [
            (0, 0, false),
            (1, 1, false),
            (1, 0, false),
            (0, 1, true),
            (7, 8, true),
            (254, 255, true),
            (255, 0, true),
            (0, 255, false),
            (255, 1, false),
        ];
        for (first, second, expected) in cases {
            assert_eq!(
                second_counts(Some(first), Some(second)),
                expected,
                "{first} {second}"
            );
        }
    }
}
