use core::fmt;
use core::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloc::sync::Arc;

use rekindle_flash::BootRecord;

use crate::change::Change;
use crate::random::Random;
use crate::recording::Step;

/// The power supply of a simulated device, shared by all its parts: it counts and logs every
/// operation that changes something, and fails at a chosen one.
///
/// A power-cut test runs once to count ([`operations`](Self::operations)), then once for each
/// operation with [`cut_after`](Self::cut_after), restarts the parts and looks at what is left.
/// The same seed gives the same run. Clones share one supply.
#[derive(Clone, Debug)]
pub struct Power(Arc<Mutex<Supply>>);

#[derive(Debug)]
struct Supply {
    random: Random,
    /// Operations until the one that tears; `None` without a planned cut.
    remaining: Option<u64>,
    off: bool,
    operations: u64,
    log: Vec<LogEntry>,
    /// What was done to simulated flash since the recording began.
    recorded: Option<Vec<Step>>,
}

impl Power {
    /// Returns a supply that is on. The seed decides how operations tear.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Supply {
            random: Random::new(seed),
            remaining: None,
            off: false,
            operations: 0,
            log: Vec::new(),
            recorded: None,
        })))
    }

    /// Makes the `n`-th operation from now tear (1: the next one) and everything later fail until
    /// [`restore`](Self::restore). 0 cuts at once.
    pub fn cut_after(&self, n: u64) {
        let mut supply = self.supply();
        supply.off = n == 0;
        supply.remaining = Some(n);
    }

    /// Switches the power on again and forgets a planned cut.
    pub fn restore(&self) {
        let mut supply = self.supply();
        supply.off = false;
        supply.remaining = None;
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.supply().off
    }

    /// Returns how many operations were begun with the power on, the torn ones included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.supply().operations
    }

    /// Returns everything that was begun with the power on, in order.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.supply().log.clone()
    }

    /// Forgets the log, so that assertions see only what follows.
    pub fn clear_log(&self) {
        self.supply().log.clear();
    }

    /// Begins an operation of a part: counts and logs it, and says whether it is done whole or
    /// tears. For the simulated parts, and for a test's own (a store that must fail with the rest).
    ///
    /// # Errors
    ///
    /// The power is off.
    pub fn begin(&self, part: &str, operation: Operation) -> Result<Fate, PowerOff> {
        let mut supply = self.supply();
        if supply.off {
            return Err(PowerOff);
        }
        supply.operations += 1;
        let torn = match &mut supply.remaining {
            Some(remaining) => {
                *remaining -= 1;
                *remaining == 0
            }
            None => false,
        };
        supply.log.push(LogEntry {
            part: part.to_owned(),
            operation,
            torn,
        });
        if torn {
            supply.off = true;
            return Ok(Fate::Torn);
        }
        Ok(Fate::Whole)
    }

    /// Fails when the power is off; for operations that change nothing.
    ///
    /// # Errors
    ///
    /// The power is off.
    pub fn check(&self) -> Result<(), PowerOff> {
        if self.is_off() { Err(PowerOff) } else { Ok(()) }
    }

    /// Returns a number below `bound` from the seeded sequence; 0 for a bound of 0.
    #[must_use]
    pub fn random_below(&self, bound: u64) -> u64 {
        self.supply().random.below(bound)
    }

    /// Keeps from now on what each write, erase and sync of simulated flash does, so that a
    /// [`Recording`](crate::Recording) can replay it. What was kept before is forgotten.
    pub fn record(&self) {
        self.supply().recorded = Some(Vec::new());
    }

    /// Ends the recording and returns it.
    #[must_use]
    pub fn recorded(&self) -> Vec<Step> {
        self.supply().recorded.take().unwrap_or_default()
    }

    /// Keeps what an operation did (`None`: it was a sync), if there is a recording.
    pub(crate) fn keep(&self, part: &Arc<str>, change: Option<&Change>) {
        if let Some(steps) = &mut self.supply().recorded {
            steps.push(Step::new(part, change));
        }
    }

    /// A sequence of its own.
    pub(crate) fn random(&self) -> Random {
        Random::new(self.supply().random.next())
    }

    fn supply(&self) -> MutexGuard<'_, Supply> {
        // A panic elsewhere is a failed test already; the numbers are still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of an operation that was begun.
#[expect(clippy::exhaustive_enums, reason = "a part handles both")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is done.
    Whole,
    /// The power went off in the middle of it.
    Torn,
}

/// One operation that changes something.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Bytes were written to flash.
    Write(Range<u64>),
    /// Flash was erased.
    Erase(Range<u64>),
    /// Flash was synced.
    Sync,
    /// The boot record was replaced by this one.
    Store(BootRecord),
    /// What a test's own part did, in its words.
    Other(String),
}

/// An operation of a part.
#[expect(clippy::exhaustive_structs, reason = "tests compare it")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogEntry {
    /// The name that the part was given.
    pub part: String,
    /// What it began.
    pub operation: Operation,
    /// Whether the power went off in the middle of it.
    pub torn: bool,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.part;
        match &self.operation {
            Operation::Write(range) => {
                write!(f, "{part}: write {:#x}..{:#x}", range.start, range.end)
            }
            Operation::Erase(range) => {
                write!(f, "{part}: erase {:#x}..{:#x}", range.start, range.end)
            }
            Operation::Sync => write!(f, "{part}: sync"),
            Operation::Store(_) => write!(f, "{part}: store"),
            Operation::Other(what) => write!(f, "{part}: {what}"),
        }?;
        if self.torn {
            write!(f, " (torn)")
        } else {
            Ok(())
        }
    }
}

/// The power was cut: restore it and restart the part.
#[expect(clippy::exhaustive_structs, reason = "tests compare it")]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the power is off")]
pub struct PowerOff;
