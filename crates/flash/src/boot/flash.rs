use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::codec::{BootCopy, BootCopyError};
use crate::{BootControl, BootRecord, Flash, RecordError, read_settled};

/// Boot control on raw flash, for devices whose boot loader reads a flash chip or a partition: the
/// same two [`BootCopy`]s as in a file, each in erase blocks of its own.
///
/// ```text
/// 0                     area                    2 * area
/// |  copy 0  |  unused  |  copy 1  |  unused    |  unused
/// ```
///
/// `area` is 4096 bytes, rounded up to the erase size (the write size, where nothing is erased); a
/// larger flash than needed is no mistake. A store erases and writes the copy that does not
/// count, syncs, and reads it back, so that a power cut leaves the other as it was. A copy counts
/// only if two readings of it agree, for cells that were half written read differently from one
/// time to the next; one that cannot be read is damaged.
///
/// On a chip that holds other things too, give it a [`Partition`](crate::Partition).
#[derive(Debug)]
pub struct FlashBootControl<F> {
    flash: F,
    components: Vec<(String, u8)>,
    /// A store failed: what the medium holds is unknown until it is opened anew.
    failed: bool,
}

impl<F: Flash> FlashBootControl<F> {
    /// Opens boot control that was [created](Self::create) before.
    ///
    /// `components` are the names and numbers of slots of the configuration. A record that knows
    /// other ones is fitted to them by [`BootRecord::adapt`] whenever it is loaded.
    ///
    /// # Errors
    ///
    /// The flash is too small or cannot be read, it was never written, both copies are damaged, or
    /// the record cannot be fitted to the components.
    pub fn open(
        flash: F,
        components: &[(&str, u8)],
    ) -> Result<Self, FlashBootControlError<F::Error>> {
        let mut control = Self::new(flash, components)?;
        control.load()?;
        Ok(control)
    }

    /// Writes the first record of a device: in the factory, or where the record was lost and the
    /// device knows what it runs.
    ///
    /// A power cut leaves the flash without a usable record: then this is called again.
    ///
    /// # Errors
    ///
    /// The flash is too small, cannot be read or written, or holds a record that can be used:
    /// that one counts, with its security floors; open it.
    pub fn create(flash: F, record: &BootRecord) -> Result<Self, FlashBootControlError<F::Error>> {
        let components: Vec<(&str, u8)> = record
            .components()
            .map(|component| (component.name.as_str(), component.slots))
            .collect();
        let mut control = Self::new(flash, &components)?;
        match control.newest() {
            Ok(_) => return Err(FlashBootControlError::Exists),
            Err(FlashBootControlError::Empty | FlashBootControlError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        // A damaged second copy goes first, so that it cannot come back and count.
        let second = control.area();
        if control.geometry_erases() {
            control.flash.erase(second..2 * second)?;
        } else {
            control.write(Place::Second, &[0; BootCopy::LEN])?;
        }
        control.flash.sync()?;
        control.put(
            Place::First,
            &BootCopy {
                sequence: 1,
                record: record.clone(),
            },
        )?;
        Ok(control)
    }

    /// Returns the flash.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.flash
    }

    fn new(
        mut flash: F,
        components: &[(&str, u8)],
    ) -> Result<Self, FlashBootControlError<F::Error>> {
        let size = flash.geometry().size;
        let needed = 2 * area(&flash);
        if size < needed {
            return Err(FlashBootControlError::TooSmall { size, needed });
        }
        // What somebody wrote before and did not sync is either there from now on, or gone.
        flash.sync()?;
        Ok(Self {
            flash,
            components: components
                .iter()
                .map(|(name, slots)| ((*name).to_owned(), *slots))
                .collect(),
            failed: false,
        })
    }

    /// Returns the newest usable copy and the place of the other.
    fn newest(&mut self) -> Result<(BootCopy, Place), FlashBootControlError<F::Error>> {
        if self.failed {
            return Err(FlashBootControlError::Failed);
        }
        let first = self.read_copy(Place::First);
        let second = self.read_copy(Place::Second);
        match (first, second) {
            (Found::Copy(first), Found::Copy(second)) if first.sequence >= second.sequence => {
                Ok((first, Place::Second))
            }
            (_, Found::Copy(second)) => Ok((second, Place::First)),
            (Found::Copy(first), _) => Ok((first, Place::Second)),
            (Found::Unreadable(error), Found::Unreadable(_)) => Err(error.into()),
            (Found::Unusable(BootCopyError::Empty), Found::Unusable(BootCopyError::Empty)) => {
                Err(FlashBootControlError::Empty)
            }
            (first, second) => Err(FlashBootControlError::Damaged {
                first: first.damage(),
                second: second.damage(),
            }),
        }
    }

    fn read_copy(&mut self, place: Place) -> Found<F::Error> {
        let mut bytes = vec![0; BootCopy::LEN];
        let offset = place.offset(self.area());
        match read_settled(&mut self.flash, offset, &mut bytes) {
            Ok(true) if bytes.iter().all(|byte| *byte == ERASED) => {
                Found::Unusable(BootCopyError::Empty)
            }
            Ok(true) => BootCopy::decode(&bytes).map_or_else(Found::Unusable, Found::Copy),
            Ok(false) => Found::Unusable(BootCopyError::Unsettled),
            Err(error) => Found::Unreadable(error),
        }
    }

    /// Replaces one copy; durable when this returns.
    fn put(
        &mut self,
        place: Place,
        copy: &BootCopy,
    ) -> Result<(), FlashBootControlError<F::Error>> {
        self.failed = true;
        let start = place.offset(self.area());
        if self.geometry_erases() {
            self.flash.erase(start..start + self.area())?;
        }
        self.write(place, &copy.encode())?;
        self.flash.sync()?;
        match self.read_copy(place) {
            Found::Copy(found) if found == *copy => {}
            Found::Unreadable(error) => return Err(error.into()),
            Found::Copy(_) | Found::Unusable(_) => {
                return Err(FlashBootControlError::ReadBack { offset: start });
            }
        }
        self.failed = false;
        Ok(())
    }

    fn write(&mut self, place: Place, copy: &[u8]) -> Result<(), F::Error> {
        let unit = usize::try_from(self.flash.geometry().write_size)
            .expect("a write unit fits into memory");
        let mut bytes = copy.to_owned();
        bytes.resize(copy.len().next_multiple_of(unit.max(1)), 0);
        self.flash.write(place.offset(self.area()), &bytes)
    }

    fn area(&self) -> u64 {
        area(&self.flash)
    }

    fn geometry_erases(&self) -> bool {
        self.flash.geometry().erase_size != 0
    }
}

impl<F: Flash> BootControl for FlashBootControl<F> {
    type Error = FlashBootControlError<F::Error>;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        let (copy, _) = self.newest()?;
        let mut record = copy.record;
        let components: Vec<(&str, u8)> = self
            .components
            .iter()
            .map(|(name, slots)| (name.as_str(), *slots))
            .collect();
        record
            .adapt(&components)
            .map_err(FlashBootControlError::Configuration)?;
        Ok(record)
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        let (newest, older) = self.newest()?;
        let sequence = newest
            .sequence
            .checked_add(1)
            .ok_or(FlashBootControlError::WornOut)?;
        let copy = BootCopy {
            sequence,
            record: record.clone(),
        };
        self.put(older, &copy)
    }
}

/// Boot control on flash failed.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FlashBootControlError<E> {
    /// The flash does not hold two copies: give it a larger partition.
    #[error("boot control needs {needed} bytes of flash with these erase blocks, and has {size}")]
    TooSmall {
        /// Its size.
        size: u64,
        /// The smallest size that works.
        needed: u64,
    },
    /// Nothing was ever written: a new device. Create a record of what it runs.
    #[error("boot control was never written")]
    Empty,
    /// Neither copy can be used. Restore one; or, where forgotten security floors are acceptable,
    /// create a record of what runs.
    #[error("boot control is damaged (first copy: {first}; second copy: {second})")]
    Damaged {
        /// What is wrong with the first copy.
        first: BootCopyError,
        /// What is wrong with the second copy.
        second: BootCopyError,
    },
    /// There is a record, so none is created: open it.
    #[error("there is a boot record already")]
    Exists,
    /// The flash failed.
    #[error("the flash of boot control failed")]
    Flash(#[from] E),
    /// What was written reads as something else: these cells are worn out.
    #[error(
        "the boot record at offset {offset} reads back differently: the flash is worn out there"
    )]
    ReadBack {
        /// Where the copy begins.
        offset: u64,
    },
    /// A store failed before, so that what the medium holds is unknown: open boot control anew.
    #[error("boot control could not be written before; open it anew")]
    Failed,
    /// The record does not fit the components of the configuration.
    #[error("the configured components do not fit the boot record")]
    Configuration(#[source] RecordError),
    /// The sequence has no successor, which no number of stores reaches: the record was forged.
    #[error("boot control states the last possible sequence; restore it")]
    WornOut,
}

/// One of the two copies.
#[derive(Clone, Copy)]
enum Place {
    First,
    Second,
}

impl Place {
    const fn offset(self, area: u64) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => area,
        }
    }
}

enum Found<E> {
    Copy(BootCopy),
    Unusable(BootCopyError),
    Unreadable(E),
}

impl<E> Found<E> {
    fn damage(self) -> BootCopyError {
        match self {
            Self::Unusable(error) => error,
            Self::Unreadable(_) | Self::Copy(_) => BootCopyError::Unreadable,
        }
    }
}

/// Returns how many bytes one copy takes, so that writing it touches nothing else.
fn area<F: Flash>(flash: &F) -> u64 {
    let geometry = flash.geometry();
    let unit = if geometry.erase_size == 0 {
        geometry.write_size.max(1)
    } else {
        geometry.erase_size
    };
    COPY_LEN.next_multiple_of(unit.into())
}

/// What erased flash reads as.
const ERASED: u8 = 0xff;
/// [`BootCopy::LEN`] as an offset.
const COPY_LEN: u64 = 4096;
const _: () = assert!(BootCopy::LEN == 4096);
