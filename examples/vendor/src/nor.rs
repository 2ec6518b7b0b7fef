use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

/// A NOR flash chip, here a piece of memory: blocks of 4 KiB are erased to ones, and a word of 16
/// bytes carries a checksum of its own, so that it can be programmed only once after each erase.
///
/// A driver for a real chip has the same five operations. What is special here is that the power
/// can be cut after so many words.
#[derive(Debug)]
pub(crate) struct Nor {
    bytes: Vec<u8>,
    /// For each word whether it must be erased before it is programmed.
    programmed: Vec<bool>,
    /// Words until the power goes; `None`: it stays.
    words_left: Option<u32>,
}

/// What the chip's data sheet says.
const GEOMETRY: Geometry = Geometry {
    size: 1 << 20,
    write_size: 16,
    erase_size: 4096,
};

const WORD: usize = 16;

impl Nor {
    pub(crate) fn erased() -> Self {
        let size = usize::try_from(GEOMETRY.size).expect("the chip is in the address space");
        Self {
            bytes: vec![0xff; size],
            programmed: vec![false; size / WORD],
            words_left: None,
        }
    }

    /// Lets the power go after so many more words are programmed, or blocks erased.
    pub(crate) fn cut_after(&mut self, words: u32) {
        self.words_left = Some(words);
    }

    /// The power comes back.
    pub(crate) fn restart(&mut self) {
        self.words_left = None;
    }

    /// Counts one word or block; whether the power lasts for it.
    fn take_power(&mut self) -> bool {
        match &mut self.words_left {
            None => true,
            Some(0) => false,
            Some(words) => {
                *words -= 1;
                true
            }
        }
    }

    fn check_power(&self) -> Result<(), NorError> {
        if self.words_left == Some(0) {
            return Err(NorError::PowerOff);
        }
        Ok(())
    }
}

impl Flash for Nor {
    type Error = NorError;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), NorError> {
        GEOMETRY.check_read(offset, buf.len())?;
        self.check_power()?;
        let start = address(offset);
        buf.copy_from_slice(&self.bytes[start..start + buf.len()]);
        Ok(())
    }

    /// There is no cache between the driver and the chip.
    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), NorError> {
        self.read(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), NorError> {
        GEOMETRY.check_write(offset, data.len())?;
        self.check_power()?;
        for (start, word) in (address(offset)..).step_by(WORD).zip(data.chunks(WORD)) {
            if self.programmed[start / WORD] {
                return Err(NorError::ProgrammedTwice);
            }
            self.programmed[start / WORD] = true;
            if !self.take_power() {
                // Half of the word got there.
                self.bytes[start..start + WORD / 2].copy_from_slice(&word[..WORD / 2]);
                return Err(NorError::PowerOff);
            }
            self.bytes[start..start + WORD].copy_from_slice(word);
        }
        Ok(())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), NorError> {
        GEOMETRY.check_erase(&range)?;
        self.check_power()?;
        let block = address(GEOMETRY.erase_size.into());
        for start in (address(range.start)..address(range.end)).step_by(block) {
            let words = start / WORD..(start + block) / WORD;
            if !self.take_power() {
                // Some cells are erased, and none of them keeps what would be programmed now.
                self.bytes[start..start + block / 2].fill(0xff);
                self.programmed[words].fill(true);
                return Err(NorError::PowerOff);
            }
            self.bytes[start..start + block].fill(0xff);
            self.programmed[words].fill(false);
        }
        Ok(())
    }

    /// A word is on the chip when the driver says so. A driver that queues waits here.
    fn sync(&mut self) -> Result<(), NorError> {
        self.check_power()
    }
}

/// What the driver refuses, and how the chip fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NorError {
    /// The caller broke a rule of the contract.
    Refused(FlashErrorKind),
    /// A word was to be programmed a second time.
    ProgrammedTwice,
    /// The power is gone.
    PowerOff,
}

impl From<FlashErrorKind> for NorError {
    fn from(kind: FlashErrorKind) -> Self {
        Self::Refused(kind)
    }
}

impl fmt::Display for NorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(FlashErrorKind::NotAligned) => "not aligned to the chip",
            Self::Refused(_) => "beyond the end of the chip",
            Self::ProgrammedTwice => "a word is programmed twice",
            Self::PowerOff => "the power is off",
        })
    }
}

impl core::error::Error for NorError {}

impl FlashError for NorError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::Refused(kind) => *kind,
            Self::ProgrammedTwice | Self::PowerOff => FlashErrorKind::Io,
        }
    }
}

fn address(offset: u64) -> usize {
    usize::try_from(offset).expect("the chip is in the address space")
}
