use core::ops::Range;

/// Something that is wrong with simulated flash; see [`SimFlash::inject`](crate::SimFlash::inject).
///
/// A fault stays over restarts until it is [healed](crate::SimFlash::heal).
#[expect(clippy::exhaustive_enums, reason = "tests construct it")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A read of the medium or of the cache that touches these bytes fails.
    Read(Range<u64>),
    /// A write that touches these bytes fails, and leaves its range as a cut would.
    Write(Range<u64>),
    /// An erase that touches these bytes fails, and leaves its range as a cut would.
    Erase(Range<u64>),
    /// The sync after so many good ones fails (0: the next one), and with it all that follow until
    /// a restart.
    Sync(u32),
    /// The bits in `mask` of the byte at `offset` are those of `value` on the medium, whatever is
    /// written. A read from the cache does not show it.
    Stuck {
        /// Which byte.
        offset: u64,
        /// Which of its bits.
        mask: u8,
        /// What they are.
        value: u8,
    },
    /// After so many more bytes are written, every write fails: the file system that the flash is a
    /// file of has no space left.
    Full(u64),
}

/// What is wrong with one simulated flash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn read_fails(&self, range: &Range<u64>) -> bool {
        self.touches(range, |fault| match fault {
            Fault::Read(bad) => Some(bad),
            _ => None,
        })
    }

    pub(crate) fn write_fails(&self, range: &Range<u64>) -> bool {
        self.touches(range, |fault| match fault {
            Fault::Write(bad) => Some(bad),
            _ => None,
        })
    }

    pub(crate) fn erase_fails(&self, range: &Range<u64>) -> bool {
        self.touches(range, |fault| match fault {
            Fault::Erase(bad) => Some(bad),
            _ => None,
        })
    }

    /// Counts a sync; whether it fails.
    pub(crate) fn sync_fails(&mut self) -> bool {
        let mut fails = false;
        for fault in &mut self.0 {
            if let Fault::Sync(left) = fault {
                fails |= *left == 0;
                *left = left.saturating_sub(1);
            }
        }
        fails
    }

    /// Takes the space for a write; whether there is none.
    pub(crate) fn is_full(&mut self, len: u64) -> bool {
        let mut full = false;
        for fault in &mut self.0 {
            if let Fault::Full(left) = fault {
                full |= *left < len;
                *left = left.saturating_sub(len);
            }
        }
        full
    }

    /// Each stuck byte: where, which bits, and what they are.
    pub(crate) fn stuck(&self) -> impl Iterator<Item = (u64, u8, u8)> {
        self.0.iter().filter_map(|fault| match fault {
            Fault::Stuck {
                offset,
                mask,
                value,
            } => Some((*offset, *mask, *value)),
            _ => None,
        })
    }

    fn touches(&self, range: &Range<u64>, bad: impl Fn(&Fault) -> Option<&Range<u64>>) -> bool {
        self.0
            .iter()
            .filter_map(bad)
            .any(|bad| bad.start < range.end && range.start < bad.end)
    }
}
