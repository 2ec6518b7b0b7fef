use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use rekindle_flash::{Flash, read_settled};

use crate::codec::{HEADER_LEN, Header};
use crate::limit::FILE;
use crate::{Damage, DecodeError, Generation, LimitError, Loaded, State, Store};

/// The state on raw flash: a NOR chip, a partition, whatever implements [`Flash`].
///
/// Each half of the flash, rounded down to whole erase blocks, holds one generation. A commit
/// erases and writes the half with the older one, syncs, and reads it back; a power cut leaves the
/// other half as it was. A generation counts only if two readings of it agree, for cells that were
/// half written read differently from one time to the next.
///
/// The very first commit writes both halves before it returns. So a damaged first half beside an
/// empty second one is a first commit that was cut off, and the store holds the default state; in
/// every other case damage without a whole generation is an error. A half that cannot be read is
/// never taken for a first commit.
///
/// # Room
///
/// A half of 16 KiB is recommended: it holds every rejection and all evidence within the limits, and
/// twelve slot records with the longest texts. One of [`limit::FILE`](crate::limit::FILE) bytes
/// holds every state, 4096 is the least.
///
/// Where a half cannot hold a state as a whole, [`commit`](Store::commit) leaves out the oldest of
/// its [`fallbacks`](State::fallbacks) (what was reported first) and
/// [`rejections`](State::rejections), and always keeps the newest of both: a device with a small chip
/// forgets old trials rather than being stuck in one. Everything else is stored or refused; a state
/// without any trial must leave [`TRIAL_ROOM`](Self::TRIAL_ROOM) bytes for the next one, so that it
/// is the install that fails for want of room, never the fallback.
#[derive(Debug)]
pub struct FlashStore<F> {
    flash: F,
    /// How long a half is.
    half: u64,
    /// Known once it was read; forgotten while it is being replaced.
    newest: Option<Newest>,
}

/// What lies on the medium.
#[derive(Debug)]
struct Newest {
    /// Which half; `None` while nothing was committed.
    half: Option<Half>,
    /// This value has written and synced it. What a start finds may have been cut off at its very
    /// end: such cells can still fall back.
    kept: bool,
    sequence: u64,
    state: State,
}

impl<F: Flash> FlashStore<F> {
    /// How many bytes of a half are kept for a rejection and for evidence: the longest of both fit.
    pub const TRIAL_ROOM: usize = 512;

    /// Takes the flash for the state. It needs no preparation: erased flash, or a file of zeros,
    /// is a store that was never written.
    ///
    /// # Errors
    ///
    /// The flash is too small for two halves of at least 4096 bytes each.
    pub fn open(flash: F) -> Result<Self, FlashStoreError<F::Error>> {
        let geometry = flash.geometry();
        let unit = if geometry.erase_size == 0 {
            u64::from(geometry.write_size.max(1))
        } else {
            u64::from(geometry.erase_size)
        };
        let half = geometry.size / 2 / unit * unit;
        let needed = HALF_MIN.next_multiple_of(unit);
        if half < needed {
            return Err(FlashStoreError::TooSmall {
                size: geometry.size,
                needed: 2 * needed,
            });
        }
        Ok(Self {
            flash,
            half,
            newest: None,
        })
    }

    /// Begins anew with `state` where the state is damaged, or the operator wants it so: what the
    /// flash holds is given up.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`]. A power cut in between leaves what was there, in part or as damage,
    /// or the new state; never an empty state where there was a damaged one.
    pub fn start_over(&mut self, state: &State) -> Result<(), FlashStoreError<F::Error>> {
        self.newest = None;
        let state = &self.fitted(state)?;
        self.flash.sync()?;
        let found = [self.read(Half::First), self.read(Half::Second)];
        let sequence = |found: &Found<F::Error>| match found {
            Found::Whole(generation) => Some(generation.sequence),
            Found::Blank | Found::Damaged { .. } | Found::Unreadable(_) => None,
        };
        let [first, second] = found.each_ref().map(sequence);
        // Replaced first is what counts least. Of two unusable halves that is an empty one; beside
        // a damaged one the first, for damage beside an empty second half could pass for a first
        // commit.
        let target = match &found {
            _ if first > second => Half::Second,
            [Found::Damaged { .. } | Found::Unreadable(_), Found::Blank] => Half::Second,
            _ => Half::First,
        };
        // Not below 2: a torn generation 1 may be a first commit.
        let next = first.max(second).unwrap_or(1).saturating_add(1);
        self.put(target, next, state)?;
        self.put(target.other(), next.saturating_add(1), state)
    }

    /// Returns the flash.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.flash
    }

    /// Finds the newest whole generation.
    fn scan(&mut self) -> Result<(Newest, Option<Damage>), FlashStoreError<F::Error>> {
        // What a commit that failed before has written is either there from now on, or gone.
        self.flash.sync()?;
        let first = self.read(Half::First);
        let second = self.read(Half::Second);
        let (half, generation, other) = match (first, second) {
            (Found::Whole(first), Found::Whole(second)) => {
                let (half, newest) = if first.sequence >= second.sequence {
                    (Half::First, first)
                } else {
                    (Half::Second, second)
                };
                (half, newest, None)
            }
            (Found::Whole(first), second) => {
                (Half::First, first, self.damage(Half::Second, second))
            }
            (first, Found::Whole(second)) => {
                (Half::Second, second, self.damage(Half::First, first))
            }
            // Whatever is in there may be the state.
            (Found::Unreadable(error), _) | (_, Found::Unreadable(error)) => {
                return Err(error.into());
            }
            (Found::Blank, Found::Blank) => return Ok((Newest::nothing(), None)),
            (first @ Found::Damaged { later: false, .. }, Found::Blank) => {
                return Ok((Newest::nothing(), self.damage(Half::First, first)));
            }
            (first, second) => {
                let damage = self
                    .damage(Half::First, first)
                    .or_else(|| self.damage(Half::Second, second))
                    .expect("two empty halves were sorted out above");
                return Err(FlashStoreError::Damaged(Box::new(damage)));
            }
        };
        let newest = Newest {
            half: Some(half),
            kept: false,
            sequence: generation.sequence,
            state: generation.state,
        };
        Ok((newest, other))
    }

    fn damage(&self, half: Half, found: Found<F::Error>) -> Option<Damage> {
        let error = match found {
            Found::Whole(_) | Found::Blank => return None,
            Found::Damaged { error, .. } => error,
            Found::Unreadable(_) => DecodeError::Unreadable,
        };
        Some(Damage {
            generation: format!("the generation at {:#x}", half.start(self.half)),
            error,
        })
    }

    fn read(&mut self, half: Half) -> Found<F::Error> {
        let start = half.start(self.half);
        let mut header = [0; HEADER_LEN];
        let settled = match read_settled(&mut self.flash, start, &mut header) {
            Ok(settled) => settled,
            Err(error) => return Found::Unreadable(error),
        };
        let all = |blank| header.iter().all(|byte| *byte == blank);
        if settled && (all(0) || all(0xff)) {
            return Found::Blank;
        }
        let Some(Header { sequence, len }) = Header::peek(&header) else {
            return Found::Damaged {
                error: if settled {
                    DecodeError::NotState
                } else {
                    DecodeError::Unsettled
                },
                later: false,
            };
        };
        let later = (2..=SEQUENCES).contains(&sequence);
        let error = if !settled {
            DecodeError::Unsettled
        } else if len > FILE || len > self.half_len() {
            DecodeError::TooLarge { len }
        } else {
            let mut bytes = vec![0; len];
            match read_settled(&mut self.flash, start, &mut bytes) {
                Err(error) => return Found::Unreadable(error),
                Ok(false) => DecodeError::Unsettled,
                Ok(true) => match Generation::decode(&bytes) {
                    Ok(generation) => return Found::Whole(Box::new(generation)),
                    Err(error) => error,
                },
            }
        };
        Found::Damaged { error, later }
    }

    /// The state as a half can hold it.
    fn fitted(&self, state: &State) -> Result<State, FlashStoreError<F::Error>> {
        let room = self.half_len();
        let len = |state: &State| {
            let state = state.clone();
            Generation { sequence: 0, state }
                .encode()
                .map(|bytes| bytes.len())
        };
        let mut kept = state.clone();
        while len(&kept)? > room && kept.forget_oldest_trial() {}
        let settled = State {
            rejections: Vec::new(),
            fallbacks: Vec::new(),
            ..kept.clone()
        };
        let needed = len(&kept)?.max(len(&settled)? + Self::TRIAL_ROOM);
        if needed > room {
            return Err(FlashStoreError::Full {
                len: needed,
                half: self.half,
            });
        }
        Ok(kept)
    }

    /// Writes one generation, which fits; durable when this returns.
    fn put(
        &mut self,
        half: Half,
        sequence: u64,
        state: &State,
    ) -> Result<(), FlashStoreError<F::Error>> {
        let generation = Generation {
            sequence,
            state: state.clone(),
        };
        let mut bytes = generation.encode()?;
        self.newest = None;
        let geometry = self.flash.geometry();
        let start = half.start(self.half);
        let unit = usize::try_from(geometry.write_size).expect("a write unit fits into memory");
        bytes.resize(bytes.len().next_multiple_of(unit.max(1)), 0);
        if geometry.erase_size != 0 {
            let len = u64::try_from(bytes.len()).expect("a generation is short");
            let len = len.next_multiple_of(geometry.erase_size.into());
            self.flash.erase(start..start + len)?;
        }
        self.flash.write(start, &bytes)?;
        self.flash.sync()?;
        match self.read(half) {
            Found::Whole(found) if *found == generation => {}
            Found::Unreadable(error) => return Err(error.into()),
            Found::Whole(_) | Found::Blank | Found::Damaged { .. } => {
                return Err(FlashStoreError::ReadBack { offset: start });
            }
        }
        self.newest = Some(Newest {
            half: Some(half),
            kept: true,
            sequence,
            state: generation.state,
        });
        Ok(())
    }

    fn half_len(&self) -> usize {
        usize::try_from(self.half).unwrap_or(usize::MAX)
    }
}

impl<F: Flash> Store for FlashStore<F> {
    type Error = FlashStoreError<F::Error>;

    fn load(&mut self) -> Result<Loaded, Self::Error> {
        let known = self.newest.as_ref().filter(|newest| newest.kept);
        let known = known.map(|newest| newest.sequence);
        let (mut newest, damage) = self.scan()?;
        newest.kept = known == Some(newest.sequence);
        let state = newest.state.clone();
        self.newest = Some(newest);
        Ok(Loaded::new(state, damage))
    }

    fn commit(&mut self, state: &State) -> Result<(), Self::Error> {
        let state = &self.fitted(state)?;
        let newest = match self.newest.take() {
            Some(newest) => newest,
            None => self.scan()?.0,
        };
        let sequence = newest.sequence.saturating_add(1);
        let (half, unchanged) = (newest.half, newest.kept && newest.state == *state);
        self.newest = Some(newest);
        match half {
            Some(_) if unchanged => Ok(()),
            Some(half) => self.put(half.other(), sequence, state),
            None => {
                self.put(Half::First, sequence, state)?;
                self.put(Half::Second, sequence.saturating_add(1), state)
            }
        }
    }
}

/// Why a [`FlashStore`] could not do what was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlashStoreError<E> {
    /// The flash does not hold two generations: give it a larger partition.
    #[error("the state needs {needed} bytes of flash with these erase blocks, and has {size}")]
    TooSmall {
        /// Its size.
        size: u64,
        /// The smallest size that works.
        needed: u64,
    },
    /// A state was stored and none of it can be read: begin anew with
    /// [`start_over`](FlashStore::start_over), where that is acceptable.
    #[error("no copy of the state can be read: {} is damaged ({})", .0.generation, .0.error)]
    Damaged(Box<Damage>),
    /// The state is larger than what can be stored; nothing was written.
    #[error("the state cannot be stored")]
    Limit(#[from] LimitError),
    /// The state is larger than half of this flash, also without all but the newest trials; nothing
    /// was written.
    #[error("the state needs {len} bytes, and this flash holds {half}; give it a larger partition")]
    Full {
        /// How long the state is, with the room for a trial.
        len: usize,
        /// How long it may be.
        half: u64,
    },
    /// The flash failed. Try again; where it stays so, and the state can be done without,
    /// [`start_over`](FlashStore::start_over).
    #[error("the flash of the state failed")]
    Flash(E),
    /// What was written reads as something else: these cells are worn out. The state before is
    /// whole.
    #[error("the state at {offset:#x} reads back differently: the flash is worn out there")]
    ReadBack {
        /// Where the generation begins.
        offset: u64,
    },
}

impl<E: rekindle_flash::FlashError> From<E> for FlashStoreError<E> {
    fn from(error: E) -> Self {
        Self::Flash(error)
    }
}

impl Newest {
    fn nothing() -> Self {
        Self {
            half: None,
            kept: false,
            sequence: 0,
            state: State::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Half {
    First,
    Second,
}

impl Half {
    const fn start(self, half: u64) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => half,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a half holds.
enum Found<E> {
    Blank,
    Whole(Box<Generation>),
    Damaged {
        error: DecodeError,
        /// It was not the first commit that was writing here.
        later: bool,
    },
    Unreadable(E),
}

/// Room for a device with a handful of slots.
const HALF_MIN: u64 = 4096;

/// More commits than any medium stands. A header of which only a part was written states more, since
/// erased flash reads as ones.
const SEQUENCES: u64 = 1 << 32;
