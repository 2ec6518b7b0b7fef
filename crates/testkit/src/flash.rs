use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

use crate::cells::Cells;
use crate::power::{Fate, Operation, Power, PowerOff};

/// Flash in memory that loses its power where a test wants it to, and is as unkind then as the
/// contract of [`Flash`] allows.
///
/// - Everything since the last sync lies in a cache. [`read`](Flash::read) sees it,
///   [`read_stored`](Flash::read_stored) does not, and a restart keeps of each cached operation all,
///   a part, or nothing.
/// - A torn write leaves a prefix of new bytes, one unit of garbage and the old rest; a torn erase
///   leaves each block old, erased or garbage.
/// - On flash with erase blocks, a unit that is written twice without an erase between is an error,
///   and so is a write to a half-erased block.
#[derive(Debug)]
pub struct SimFlash {
    name: String,
    geometry: Geometry,
    /// As `read` sees it.
    current: Cells,
    /// What a power cut leaves, apart from `unsynced`.
    medium: Cells,
    unsynced: Vec<Change>,
    power: Power,
    sync_fails: bool,
    /// A sync failed; cleared by a restart.
    failed: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Erase(Range<u64>),
}

impl SimFlash {
    /// Returns new flash with a power supply of its own.
    ///
    /// # Panics
    ///
    /// If the geometry makes no sense, or is too large for memory.
    #[must_use]
    pub fn new(geometry: Geometry, seed: u64) -> Self {
        Self::with_power("flash", geometry, &Power::new(seed))
    }

    /// Returns new flash that shares its power supply, and so its count of operations and its log,
    /// with other parts of a device. `name` is how the log calls it.
    ///
    /// # Panics
    ///
    /// If the geometry makes no sense, or is too large for memory.
    #[must_use]
    pub fn with_power(name: &str, geometry: Geometry, power: &Power) -> Self {
        let cells = Cells::new(&geometry);
        Self {
            name: name.to_owned(),
            geometry,
            current: cells.clone(),
            medium: cells,
            unsynced: Vec::new(),
            power: power.clone(),
            sync_fails: false,
            failed: false,
        }
    }

    /// Returns the power supply.
    #[must_use]
    pub fn power(&self) -> &Power {
        &self.power
    }

    /// Makes the `n`-th operation (write, erase or sync) from now tear and everything later fail,
    /// until a restart; see [`Power::cut_after`].
    pub fn cut_after(&mut self, n: u64) {
        self.power.cut_after(n);
    }

    /// Cuts the power, if it is still on, restores it, and settles what the medium holds of what
    /// was not synced. Of several parts on one supply each is restarted.
    pub fn restart(&mut self) {
        self.power.restore();
        for change in core::mem::take(&mut self.unsynced) {
            match self.power.random_below(4) {
                0 => {}
                1 => self
                    .medium
                    .tear(&change.range(), change.data(), &self.power),
                _ => self.medium.apply(&change.range(), change.data()),
            }
        }
        self.current.clone_from(&self.medium);
        self.failed = false;
        self.sync_fails = false;
    }

    /// Makes the next sync fail as a medium does that cannot take the bytes: part of them is lost,
    /// and the flash refuses to work until a restart.
    pub fn fail_next_sync(&mut self) {
        self.sync_fails = true;
    }

    /// Changes bytes behind everybody's back, as failing cells do. Not counted, not logged.
    ///
    /// # Panics
    ///
    /// If the range is out of bounds.
    pub fn damage(&mut self, offset: u64, bytes: &[u8]) {
        self.current.damage(offset, bytes);
        self.medium.damage(offset, bytes);
    }

    /// Returns what is on the medium for certain: everything up to the last sync.
    #[must_use]
    pub fn stored(&self) -> &[u8] {
        self.medium.bytes()
    }

    fn usable(&self) -> Result<(), SimFlashError> {
        if self.failed {
            return Err(SimFlashError::SyncFailed);
        }
        Ok(())
    }

    fn change(&mut self, operation: Operation, change: Change) -> Result<(), SimFlashError> {
        let fate = self.power.begin(&self.name, operation)?;
        self.current.apply(&change.range(), change.data());
        match fate {
            Fate::Whole => {
                self.unsynced.push(change);
                Ok(())
            }
            Fate::Torn => {
                // What came before is settled by the restart; this one is torn for certain, and
                // the order among unsynced operations is free.
                self.medium
                    .tear(&change.range(), change.data(), &self.power);
                Err(PowerOff.into())
            }
        }
    }
}

impl Flash for SimFlash {
    type Error = SimFlashError;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.power.check()?;
        self.geometry.check_read(offset, buf.len())?;
        self.current.read(offset, buf);
        Ok(())
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        self.geometry.check_read(offset, buf.len())?;
        self.medium.read(offset, buf);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        self.geometry.check_write(offset, data.len())?;
        let change = Change::Write {
            offset,
            data: data.to_vec(),
        };
        if let Some(offset) = self.current.first_not_erased(&change.range()) {
            return Err(SimFlashError::NotErased { offset });
        }
        self.change(Operation::Write(change.range()), change)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        self.geometry.check_erase(&range)?;
        if self.geometry.erase_size == 0 {
            return Ok(());
        }
        self.change(Operation::Erase(range.clone()), Change::Erase(range))
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        if self.power.begin(&self.name, Operation::Sync)? == Fate::Torn {
            return Err(PowerOff.into());
        }
        if self.sync_fails {
            self.failed = true;
            return Err(SimFlashError::SyncFailed);
        }
        for change in self.unsynced.drain(..) {
            self.medium.apply(&change.range(), change.data());
        }
        Ok(())
    }
}

impl Change {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Write { offset, data } => {
                let len = u64::try_from(data.len()).expect("simulated flash fits into memory");
                *offset..*offset + len
            }
            Self::Erase(range) => range.clone(),
        }
    }

    /// The new bytes; `None`: erased.
    fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Write { data, .. } => Some(data),
            Self::Erase(_) => None,
        }
    }
}

/// Simulated flash failed, or was used against its contract.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SimFlashError {
    /// The power was cut: restart the flash.
    #[error(transparent)]
    PowerOff(#[from] PowerOff),
    /// The caller's mistake: a unit is written that is not erased.
    #[error("the unit at {offset} is written without an erase")]
    NotErased {
        /// The first such unit.
        offset: u64,
    },
    /// The caller's mistake: an offset or length is no multiple of the unit.
    #[error("not aligned")]
    NotAligned,
    /// The caller's mistake: the range ends beyond the flash.
    #[error("out of bounds")]
    OutOfBounds,
    /// A sync failed, now or before: restart the flash.
    #[error("a sync failed")]
    SyncFailed,
}

impl From<FlashErrorKind> for SimFlashError {
    fn from(kind: FlashErrorKind) -> Self {
        if kind == FlashErrorKind::NotAligned {
            Self::NotAligned
        } else {
            Self::OutOfBounds
        }
    }
}

impl FlashError for SimFlashError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::NotAligned => FlashErrorKind::NotAligned,
            Self::OutOfBounds => FlashErrorKind::OutOfBounds,
            Self::PowerOff(_) | Self::NotErased { .. } | Self::SyncFailed => FlashErrorKind::Io,
        }
    }
}
