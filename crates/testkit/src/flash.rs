use core::ops::Range;

use alloc::sync::Arc;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

use crate::cells::{Cells, Torn, index};
use crate::change::Change;
use crate::fault::{Fault, Faults};
use crate::medium::Medium;
use crate::power::{Fate, Operation, Power, PowerOff};
use crate::random::Random;

/// Flash in memory that loses its power where a test wants it to, and is as unkind then as the
/// contract of [`Flash`] allows.
///
/// - Everything since the last sync lies in a cache. [`read`](Flash::read) sees it,
///   [`read_stored`](Flash::read_stored) does not, and a restart keeps of each cached operation all,
///   a part, or nothing.
/// - A torn write leaves a prefix of new bytes, one unit of garbage and the old rest, or each unit
///   on its own; a torn erase leaves each block old, erased or garbage.
/// - On flash with erase blocks, a unit that is written twice without an erase between is an error,
///   and so is a write to a half-erased block.
/// - It can be [worn, broken or full](Fault).
///
/// A cut that [`Power::cut_after`] plans tears by the seed. To go through every way in which a run
/// can be cut, [record](Power::record) it and take it apart with [`Recording`](crate::Recording).
#[derive(Debug)]
pub struct SimFlash {
    /// As `read` sees it.
    current: Arc<Cells>,
    /// What a power cut leaves, apart from `unsynced`.
    medium: Medium,
    unsynced: Vec<Change>,
    power: Power,
    faults: Faults,
    sync_fails: bool,
    /// A sync failed; cleared by a restart.
    failed: bool,
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
        Self::from_medium(Medium::of_geometry(name, geometry), power)
    }

    pub(crate) fn from_medium(medium: Medium, power: &Power) -> Self {
        Self {
            current: Arc::clone(&medium.cells),
            medium,
            unsynced: Vec::new(),
            power: power.clone(),
            faults: Faults::default(),
            sync_fails: false,
            failed: false,
        }
    }

    pub(crate) const fn medium(&self) -> &Medium {
        &self.medium
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
        let mut random = self.power.random();
        for change in core::mem::take(&mut self.unsynced) {
            match random.below(4) {
                0 => {}
                1 => self.tear(&change, &mut random),
                _ => self.cells().apply(&change),
            }
        }
        self.stick();
        self.current = Arc::clone(&self.medium.cells);
        self.failed = false;
        self.sync_fails = false;
    }

    /// Makes the next sync fail as a medium does that cannot take the bytes: part of them is lost,
    /// and the flash refuses to work until a restart.
    pub fn fail_next_sync(&mut self) {
        self.sync_fails = true;
    }

    /// Breaks something. Several faults add up.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
        self.stick();
    }

    /// Takes all faults away. Bytes that they have spoiled stay so.
    pub fn heal(&mut self) {
        self.faults.clear();
    }

    /// Changes bytes behind everybody's back, as failing cells do. Not counted, not logged.
    ///
    /// # Panics
    ///
    /// If the range is out of bounds.
    pub fn damage(&mut self, offset: u64, bytes: &[u8]) {
        Arc::make_mut(&mut self.current).damage(offset, bytes);
        self.medium.damage(offset, bytes);
    }

    /// Lets time pass: flips this many bits of the range behind everybody's back, by the seed, and
    /// returns the offsets of the bytes.
    ///
    /// # Panics
    ///
    /// If the range is empty or out of bounds.
    pub fn rot(&mut self, range: Range<u64>, bits: u32) -> Vec<u64> {
        assert!(range.start < range.end, "there are bits to flip");
        let mut random = self.power.random();
        (0..bits)
            .map(|_| {
                let offset = range.start + random.below(range.end - range.start);
                let byte = self.stored()[index(offset)] ^ (1 << random.below(8));
                self.damage(offset, &[byte]);
                offset
            })
            .collect()
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

    fn cells(&mut self) -> &mut Cells {
        Arc::make_mut(&mut self.medium.cells)
    }

    fn tear(&mut self, change: &Change, random: &mut Random) {
        let word = index(self.medium.word.into());
        let pieces = self.medium.cells.pieces(change, word);
        if pieces == 0 {
            return;
        }
        if matches!(change, Change::Erase(_)) || random.below(4) == 0 {
            return self.cells().scatter(change, word, random);
        }
        let at = random.index_below(pieces);
        self.cells().tear(change, word, at, Torn::Garbage, random);
    }

    /// Forces stuck bits.
    fn stick(&mut self) {
        let stuck: Vec<_> = self.faults.stuck().collect();
        for (offset, mask, value) in stuck {
            let byte = self.stored()[index(offset)];
            self.medium.damage(offset, &[byte & !mask | value & mask]);
        }
    }

    fn change(&mut self, operation: Operation, change: Change) -> Result<(), SimFlashError> {
        let fate = self.power.begin(&self.medium.name, operation)?;
        Arc::make_mut(&mut self.current).apply(&change);
        match fate {
            Fate::Whole => {
                self.power.keep(&self.medium.name, Some(&change));
                self.unsynced.push(change);
                Ok(())
            }
            Fate::Torn => {
                // What came before is settled by the restart; this one is torn for certain, and
                // the order among unsynced operations is free.
                let mut random = self.power.random();
                self.tear(&change, &mut random);
                Err(PowerOff.into())
            }
        }
    }

    /// An operation that the medium refuses: its range is as a cut would leave it.
    fn spoil(&mut self, change: &Change, error: SimFlashError) -> Result<(), SimFlashError> {
        let mut random = self.power.random();
        self.tear(change, &mut random);
        let word = index(self.medium.word.into());
        Arc::make_mut(&mut self.current).scatter(change, word, &mut random);
        Err(error)
    }
}

impl Flash for SimFlash {
    type Error = SimFlashError;

    fn geometry(&self) -> Geometry {
        self.medium.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.power.check()?;
        self.readable(offset, buf.len())?;
        self.current.read(offset, buf, || self.power.random());
        Ok(())
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        self.readable(offset, buf.len())?;
        self.medium.cells.read(offset, buf, || self.power.random());
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        self.medium.geometry.check_write(offset, data.len())?;
        let change = Change::Write {
            offset,
            data: data.to_vec(),
        };
        if let Some(offset) = self.current.first_not_erased(&change.range()) {
            return Err(SimFlashError::NotErased { offset });
        }
        let range = change.range();
        if self.faults.write_fails(&range) {
            return self.spoil(&change, SimFlashError::Broken { offset });
        }
        if self.faults.is_full(range.end - range.start) {
            return Err(SimFlashError::Full);
        }
        self.change(Operation::Write(range), change)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        self.medium.geometry.check_erase(&range)?;
        if self.medium.geometry.erase_size == 0 {
            return Ok(());
        }
        let change = Change::Erase(range.clone());
        if self.faults.erase_fails(&range) {
            let offset = range.start;
            return self.spoil(&change, SimFlashError::Broken { offset });
        }
        self.change(Operation::Erase(range), change)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.power.check()?;
        self.usable()?;
        if self.power.begin(&self.medium.name, Operation::Sync)? == Fate::Torn {
            return Err(PowerOff.into());
        }
        if self.sync_fails || self.faults.sync_fails() {
            self.failed = true;
            return Err(SimFlashError::SyncFailed);
        }
        self.power.keep(&self.medium.name, None);
        if !self.unsynced.is_empty() {
            for change in core::mem::take(&mut self.unsynced) {
                self.cells().apply(&change);
            }
            self.stick();
        }
        Ok(())
    }
}

impl SimFlash {
    fn readable(&self, offset: u64, len: usize) -> Result<(), SimFlashError> {
        self.medium.geometry.check_read(offset, len)?;
        let len = u64::try_from(len).expect("simulated flash fits into memory");
        if self.faults.read_fails(&(offset..offset + len)) {
            return Err(SimFlashError::Broken { offset });
        }
        Ok(())
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
    /// The medium refuses what touches a place that a test broke.
    #[error("the medium fails at {offset}")]
    Broken {
        /// Where the operation began.
        offset: u64,
    },
    /// There is no space left below the flash.
    #[error("no space left")]
    Full,
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
            Self::Full => FlashErrorKind::Full,
            Self::PowerOff(_) | Self::NotErased { .. } | Self::SyncFailed | Self::Broken { .. } => {
                FlashErrorKind::Io
            }
        }
    }
}
