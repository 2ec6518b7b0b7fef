//! Scrub: does a slot still hold what its own manifest says? It only reads.
//!
//! [`inspect`] reads the slot's tail and judges its manifest under the device's trust. A [`Scrub`]
//! then reads table and content past every cache, one piece a step, so that the caller decides how
//! fast, and when to pause: between two steps it can be left alone for any time, or dropped and begun
//! again at the chunk where it was.

mod findings;
mod reader;
mod tail;

use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, LayoutError};
use rekindle_image::{AdoptedKeys, Cursor, PAGE_SIZE, TableInfo, Trust};

pub use self::findings::{DamagedRange, Findings};
use self::reader::{Reader, Verdict};
pub(crate) use self::tail::judge;
pub use self::tail::{HeldImage, Tail, TailError, inspect};

/// Reads a slot's table and content, and compares them with the manifest in its tail.
///
/// It holds one path of the chunk table and 512 KiB to read, whatever the size of the image.
#[derive(Debug)]
pub struct Scrub {
    cursor: Cursor,
    chunks: u32,
    /// Where the table begins in the slot.
    table: u64,
    page: Vec<u8>,
    reader: Reader,
    stage: Stage,
    /// The table page that is damaged, of those on the way to the chunk under way.
    bad_page: Option<u32>,
    /// Reads that failed and had no good one behind them.
    failures: u32,
    findings: Findings,
}

/// Where a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The table, leaf by leaf, from the medium.
    Table { chunk: u32, then: u32 },
    /// The content; the table's pages may come from a cache now, since they verify themselves.
    Content { chunk: u32 },
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScrubStep {
    /// It read so many bytes.
    Read(u64),
    /// There is nothing more to read.
    Finished,
}

/// What the scrub of a slot came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScrubReport {
    /// What its tail says.
    pub tail: Tail,
    /// What the rest holds; nothing was compared where the tail names no authentic image.
    pub findings: Findings,
    /// Whether it was read to the end.
    pub finished: bool,
}

impl ScrubReport {
    /// Whether the slot is not what its own manifest says, or has none that could be believed. A slot
    /// that never held anything is not damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match &self.tail {
            Tail::Empty => false,
            Tail::Unusable(_) | Tail::NotAuthentic(_) => true,
            Tail::Held(held) => !held.complete || self.findings.is_damage(),
        }
    }
}

/// Why a slot could not be scrubbed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScrubError<F> {
    /// The slot is too small to hold anything.
    #[error("the slot cannot hold an image")]
    Slot(#[from] LayoutError),
    /// The flash failed: more than single places of it cannot be read.
    #[error("the slot's flash failed")]
    Flash(#[source] F),
}

/// Scrubs a slot from its tail to its last chunk. `observe` hears the findings after each piece and
/// may wait, or break off.
///
/// # Errors
///
/// Any [`ScrubError`]; damage is no error.
pub fn scrub<F: Flash>(
    flash: &mut F,
    trust: &Trust,
    adopted: Option<&AdoptedKeys>,
    observe: &mut dyn FnMut(&Findings) -> ControlFlow<()>,
) -> Result<ScrubReport, ScrubError<F::Error>> {
    let tail = inspect(flash, trust, adopted)?;
    let Tail::Held(held) = &tail else {
        return Ok(ScrubReport {
            tail,
            findings: Findings::default(),
            finished: true,
        });
    };
    let mut scrub = Scrub::new(held);
    let mut finished = true;
    while scrub.step(flash).map_err(ScrubError::Flash)? != ScrubStep::Finished {
        if observe(scrub.findings()).is_break() {
            finished = false;
            break;
        }
    }
    Ok(ScrubReport {
        findings: scrub.into_findings(),
        tail,
        finished,
    })
}

impl Scrub {
    /// Begins with the first chunk.
    #[must_use]
    pub fn new(held: &HeldImage) -> Self {
        Self::resume(held, 0, Findings::default())
    }

    /// Goes on where another scrub of the same image in the same slot was left: at
    /// [`next_chunk`](Self::next_chunk), with its [`findings`](Self::findings). The table is read
    /// again.
    #[must_use]
    pub fn resume(held: &HeldImage, next_chunk: u32, findings: Findings) -> Self {
        let manifest = held.signed.unverified();
        Self {
            cursor: Cursor::new(&manifest.table, manifest.size, manifest.stored_size),
            chunks: manifest.table.chunks,
            table: held.table,
            page: vec![0; usize::try_from(PAGE_SIZE).unwrap_or(0)],
            reader: Reader::new(manifest.size),
            stage: Stage::Table {
                chunk: 0,
                then: next_chunk,
            },
            bad_page: None,
            failures: 0,
            findings: Findings {
                total: manifest.size,
                damaged_pages: 0,
                pages: Vec::new(),
                ..findings
            },
        }
    }

    /// The first chunk that was not compared yet.
    #[must_use]
    pub fn next_chunk(&self) -> u32 {
        match self.stage {
            Stage::Table { then, .. } => then,
            Stage::Content { chunk } => chunk,
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// What was found.
    #[must_use]
    pub fn into_findings(self) -> Findings {
        self.findings
    }

    /// Reads one piece, at most 512 KiB, and compares what it completes.
    ///
    /// A place that cannot be read is damaged, and no error.
    ///
    /// # Errors
    ///
    /// When nothing at all can be read any more.
    pub fn step<F: Flash>(&mut self, flash: &mut F) -> Result<ScrubStep, F::Error> {
        loop {
            let want = match self.stage {
                Stage::Table { chunk, then } => self.check_table(chunk, then),
                Stage::Content { chunk } if chunk >= self.chunks => {
                    return Ok(ScrubStep::Finished);
                }
                Stage::Content { chunk } => self.check_content(chunk),
            };
            match want {
                Want::Nothing => {}
                Want::Page { number, stored } => {
                    self.read_page(flash, number, stored)?;
                    return Ok(ScrubStep::Read(u64::from(PAGE_SIZE)));
                }
                Want::Piece => return Ok(ScrubStep::Read(self.read_piece(flash)?)),
            }
        }
    }

    fn check_table(&mut self, chunk: u32, then: u32) -> Want {
        if chunk >= self.chunks {
            self.stage = Stage::Content { chunk: then };
            return Want::Nothing;
        }
        self.cursor.seek(chunk);
        match self.cursor.wanted() {
            Some(number) if self.bad_page != Some(number) => Want::Page {
                number,
                stored: true,
            },
            // Known, or behind a page that is damaged: then nothing vouches for it.
            Some(_) | None => {
                self.stage = Stage::Table {
                    chunk: next_leaf(chunk),
                    then,
                };
                Want::Nothing
            }
        }
    }

    fn check_content(&mut self, index: u32) -> Want {
        self.cursor.seek(index);
        match self.cursor.wanted() {
            Some(number) if self.bad_page != Some(number) => {
                return Want::Page {
                    number,
                    stored: false,
                };
            }
            Some(_) => {
                let end = next_leaf(index).min(self.chunks);
                self.findings.unchecked_chunks += end - index;
                self.stage = Stage::Content { chunk: end };
                return Want::Nothing;
            }
            None => {}
        }
        let Some(chunk) = self.cursor.chunk() else {
            self.stage = Stage::Content { chunk: index + 1 };
            return Want::Nothing;
        };
        let Some(verdict) = self.reader.check(&chunk) else {
            return Want::Piece;
        };
        self.findings.checked_chunks += 1;
        self.findings.checked_bytes += u64::from(chunk.raw_len);
        if verdict == Verdict::Bad {
            self.findings.add(&chunk);
        }
        self.stage = Stage::Content { chunk: index + 1 };
        Want::Nothing
    }

    fn read_page<F: Flash>(
        &mut self,
        flash: &mut F,
        number: u32,
        stored: bool,
    ) -> Result<(), F::Error> {
        let offset = self.table + u64::from(number) * u64::from(PAGE_SIZE);
        let read = if stored {
            flash.read_stored(offset, &mut self.page)
        } else {
            flash.read(offset, &mut self.page)
        };
        let readable = self.judge_read::<F>(read)?;
        if !readable || self.cursor.supply(&self.page).is_err() {
            self.bad_page = Some(number);
            if stored || !self.findings.pages.contains(&number) {
                self.findings.add_page(number);
            }
        }
        Ok(())
    }

    /// Reads the next piece; where that fails, the smallest one, so that only what cannot be read is
    /// taken for damaged.
    fn read_piece<F: Flash>(&mut self, flash: &mut F) -> Result<u64, F::Error> {
        let (offset, buf) = self.reader.target();
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        let read = flash.read_stored(offset, buf);
        if self.judge_read::<F>(read)? {
            self.reader.filled();
        } else {
            self.reader.unreadable();
        }
        Ok(len)
    }

    /// Whether a read succeeded; an error only where reads fail again and again, or are not allowed.
    fn judge_read<F: Flash>(&mut self, read: Result<(), F::Error>) -> Result<bool, F::Error> {
        let Err(error) = read else {
            self.failures = 0;
            return Ok(true);
        };
        self.failures += 1;
        if error.kind() != FlashErrorKind::Io || self.failures > FAILURES {
            return Err(error);
        }
        Ok(false)
    }
}

/// What a scrub needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    Page { number: u32, stored: bool },
    Piece,
}

/// The first chunk of the leaf after this chunk's.
fn next_leaf(chunk: u32) -> u32 {
    (chunk / TableInfo::CHUNKS_PER_LEAF + 1).saturating_mul(TableInfo::CHUNKS_PER_LEAF)
}

/// So many reads that fail in a row are no bad place but a medium that is gone: 1 MiB of 4 KiB.
const FAILURES: u32 = 256;
