//! Converge: make this slot match this manifest.
//!
//! A machine without I/O. [`Converge::poll_output`] says what is wanted next (a piece of flash, a
//! write, a range of the image), the caller does it and answers with [`Converge::handle_input`].
//! Buffers belong to the machine, so bytes are copied once, and its memory is a constant: one
//! table path, two chunks, one block, one read buffer, the lists of two windows and two bits a chunk.
//!
//! There is no journal. Dropping the machine at any moment is safe; run it again and it continues
//! where the flash says it is.

mod bitmap;
mod block;
mod donor;
mod load;
mod scan;
mod table;
mod target;
mod transfer;
mod window;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use rekindle_flash::{CompletionMark, CopyHeader, Geometry, SlotContent, SlotLayout};
use rekindle_image::{
    Chunk, ChunkError, Cursor, Decoder, Layout, Manifest, PAGE_SIZE, SignedManifest, TableError,
};

use self::bitmap::Bitmap;
use self::block::Block;
pub use self::donor::Donor;
use self::target::Target;
pub use self::transfer::Transfer;
use self::window::{ReadBuffer, Window};

/// What the machine wants done. Each but [`Output::Finished`] is answered by one [`Input`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// Fill `buf` from flash; `stored`: from the medium, past every cache.
    Read {
        /// Which flash.
        from: Region,
        /// Where, in bytes from the start of the slot.
        offset: u64,
        /// What to fill, whole.
        buf: &'a mut [u8],
        /// Whether the bytes must come from the medium itself.
        stored: bool,
    },
    /// Write `data` to the slot's flash.
    Write {
        /// Where, in bytes from the start of the slot.
        offset: u64,
        /// What to write.
        data: &'a [u8],
    },
    /// Erase this range of the slot's flash.
    Erase(Range<u64>),
    /// Make all that was written durable.
    Sync,
    /// Tell the source which ranges of the image file it will be asked for next, in this order and
    /// before any other. What was announced before and is not here any more will not be asked for.
    Announce(&'a [Range<u64>]),
    /// Ask the source for this range of the image file; a range still open is dropped.
    Fetch(Range<u64>),
    /// Fill some of `buf` from the range that is open; answered by [`Input::Received`].
    Receive(&'a mut [u8]),
    /// The slot matches the manifest, verified and marked complete.
    Finished(Report),
}

/// Which flash an [`Output::Read`] is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever reads must know where")]
pub enum Region {
    /// The slot that is made to match.
    Target,
    /// The donor of this number, in the order given to [`Converge::new`].
    Donor(u8),
}

/// The answer to an [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// It is done; buffers are filled whole.
    Done,
    /// So many bytes of a [`Output::Receive`] were filled, at least one.
    Received(usize),
    /// A donor could not be read. It is not asked again.
    Unreadable,
}

/// What a finished converge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Bytes asked of the source, manifest not counted.
    pub fetched: u64,
    /// Bytes of image content written to the slot.
    pub written: u64,
    /// Of these, bytes that were copied from this device's own flash.
    pub copied: u64,
    /// Bytes of image content found in place.
    pub kept: u64,
    /// Ranges asked of the source, manifest not counted.
    pub requests: u32,
}

/// Where a converge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it does now.
    pub phase: Phase,
    /// Bytes of image content in place, of which the last few MiB may wait to be read back.
    pub done: u64,
    /// Bytes of image content in all.
    pub total: u64,
}

/// The stages of a converge, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The chunk table is read or fetched.
    Table,
    /// The slot is searched for chunks that are in place.
    Scan,
    /// Missing chunks are fetched, written and read back.
    Load,
    /// The slot is marked complete.
    Finish,
}

/// Why a slot could not be made to match its manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The image does not fit the slot.
    #[error("the image needs {needed} bytes, the slot holds {capacity}")]
    TooLarge {
        /// Bytes of the image.
        needed: u64,
        /// Bytes that the slot has for content.
        capacity: u64,
    },
    /// The chunk table does not fit the slot's tail: the image has too many chunks for it.
    #[error(
        "the chunk table needs {needed} bytes, the slot has {capacity}; pack with larger chunks"
    )]
    TableTooLarge {
        /// Bytes of the table.
        needed: u64,
        /// Bytes that the slot has for a table.
        capacity: u64,
    },
    /// The flash writes in larger units than the chunk table's pages.
    #[error(
        "the flash writes {write_size} bytes at a time, more than a page of the chunk table ({PAGE_SIZE})"
    )]
    WriteUnit {
        /// The flash's write unit.
        write_size: u32,
    },
    /// The source sent a page of the chunk table that the manifest does not know.
    #[error("page {page} of the chunk table is not the signed one")]
    BadTable {
        /// The page's number.
        page: u32,
        /// What is wrong with it.
        source: TableError,
    },
    /// A page of the table was good when written and is not when read back.
    #[error("page {page} of the chunk table does not read back as written; the flash may be worn")]
    TableReadBack {
        /// The page's number.
        page: u32,
    },
    /// The source sent a chunk that the manifest does not know. Nothing of it was written.
    #[error("chunk {chunk} (byte {offset} of the image) is not the signed one")]
    BadChunk {
        /// The chunk's number.
        chunk: u32,
        /// Where it lies in the image's content.
        offset: u64,
        /// What is wrong with it.
        source: ChunkError,
    },
    /// A chunk reads back otherwise than it was written, again and again.
    #[error(
        "chunk {chunk} (byte {offset} of the slot) does not read back as written; the flash may be worn"
    )]
    ReadBack {
        /// The chunk's number.
        chunk: u32,
        /// Where it lies in the slot.
        offset: u64,
    },
    /// The caller answered something that was not asked.
    #[error("an answer came that nothing had asked for")]
    Misuse,
}

/// The machine; see the module's text.
#[derive(Debug)]
pub struct Converge {
    manifest: Manifest,
    signed: Vec<u8>,
    header: CopyHeader,
    image: Layout,
    geometry: Geometry,
    slot: SlotLayout,
    copy: usize,
    /// The target copy's mark is on flash and names this header.
    marked: bool,
    other_marked: bool,
    ops: VecDeque<Op>,
    need: Option<Need>,
    stage: Stage,
    cursor: Cursor,
    page: Vec<u8>,
    page_filled: usize,
    loaded_page: Option<u32>,
    stored: Vec<u8>,
    stored_filled: usize,
    decoder: Decoder,
    raw: Vec<u8>,
    /// The chunk whose content `raw` holds and how much of it has gone to the block.
    placing: Option<(Chunk, usize)>,
    block: Block,
    reader: ReadBuffer,
    /// Written and not yet synced.
    window: Window,
    /// Synced, and read back while the next window is written.
    waiting: Window,
    /// Entries of `waiting` that are read back.
    checked: usize,
    /// Bytes of `waiting` to be read back before more is loaded; `u64::MAX`: all.
    owed: u64,
    good: Bitmap,
    next: u32,
    run_end: Option<u32>,
    run_content_end: u64,
    /// Where the next run ends, looked up before its beginning is: chunk, stored byte, content.
    run_tail: Option<(u32, u64, u64)>,
    misreads: u32,
    /// Bytes of content written, read back or about to be.
    loaded: u64,
    /// Chunks in place that were written back beside others, and wait to be looked at again.
    suspects: Bitmap,
    op_buf: Vec<u8>,
    report: Report,
}

/// Flash work that needs no answer but "done", in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Op {
    Erase(Range<u64>),
    WriteHead,
    ClearMark { copy: usize },
    WriteMark,
    WritePage(u32),
    WriteBlock(Range<usize>),
    Sync,
    Fetch(Range<u64>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    ReadPage { number: u32, stored: bool },
    ReceivePage,
    ReceiveChunk { len: usize },
    FillReader,
    Preload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Walks the table on flash; what is missing or bad makes it be fetched.
    CheckTable {
        chunk: u32,
        fetched: bool,
    },
    /// Takes the whole table from the source.
    FetchTable {
        chunk: u32,
    },
    /// Looks at a few chunks to see whether a scan can find anything.
    Probe {
        sample: u32,
    },
    Scan {
        chunk: u32,
    },
    Load,
    /// Looks again at what was written back beside others.
    Verify {
        chunk: u32,
    },
    Finish,
    Finished,
}

/// What step of a stage came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Go on at once.
    Go,
    /// Something is wanted of the caller first.
    Wait,
}

impl Converge {
    /// Starts to make the slot match a manifest that the caller has verified and accepted.
    ///
    /// `content` is what the slot's tail holds now; chunks that a donor has are copied from there.
    /// More than 255 donors are not looked at.
    ///
    /// # Errors
    ///
    /// [`ConvergeError::WriteUnit`], [`ConvergeError::TooLarge`] and [`ConvergeError::TableTooLarge`], before anything is written.
    pub fn new(
        signed: &SignedManifest,
        geometry: Geometry,
        slot: SlotLayout,
        content: &SlotContent,
        donors: &[Donor],
        transfer: Transfer,
    ) -> Result<Self, ConvergeError> {
        let _ = (donors, transfer);
        if geometry.write_size > PAGE_SIZE {
            return Err(ConvergeError::WriteUnit {
                write_size: geometry.write_size,
            });
        }
        let manifest = signed.unverified().clone();
        let bytes = signed.bytes().to_vec();
        let image = Layout::of(len_u32(bytes.len()), &manifest).map_err(|_overflow| {
            ConvergeError::TooLarge {
                needed: manifest.size,
                capacity: slot.data.end,
            }
        })?;
        if manifest.size > slot.data.end - slot.data.start {
            return Err(ConvergeError::TooLarge {
                needed: manifest.size,
                capacity: slot.data.end - slot.data.start,
            });
        }
        let table_len = image.table.end - image.table.start;
        let room = slot.copies[0].table.end - slot.copies[0].table.start;
        if table_len > room {
            return Err(ConvergeError::TableTooLarge {
                needed: table_len,
                capacity: room,
            });
        }
        let id = *signed.id().as_bytes();
        let target = Target::find(content, id, &bytes);
        let Target {
            copy,
            header,
            marked,
            speaks,
            held,
            other_marked,
        } = target;
        let max_chunk = len_usize(manifest.table.max_chunk);
        let mut machine = Self {
            cursor: Cursor::new(&manifest.table, manifest.size, manifest.stored_size),
            good: Bitmap::new(manifest.table.chunks),
            suspects: Bitmap::new(manifest.table.chunks),
            block: Block::new(&geometry, slot.data.end, manifest.size),
            signed: bytes,
            header,
            image,
            geometry,
            slot,
            copy,
            marked,
            other_marked,
            ops: VecDeque::new(),
            need: None,
            stage: Stage::CheckTable {
                chunk: 0,
                fetched: false,
            },
            page: vec![0; len_usize(PAGE_SIZE)],
            page_filled: 0,
            loaded_page: None,
            stored: vec![0; max_chunk],
            stored_filled: 0,
            decoder: Decoder::new(),
            raw: Vec::with_capacity(max_chunk),
            placing: None,
            reader: ReadBuffer::new(manifest.size),
            window: Window::new(),
            waiting: Window::new(),
            checked: 0,
            owed: 0,
            next: 0,
            run_end: None,
            run_content_end: 0,
            run_tail: None,
            misreads: 0,
            loaded: 0,
            op_buf: Vec::new(),
            report: Report::default(),
            manifest,
        };
        if !speaks {
            machine.write_head();
        }
        if !held {
            machine.fetch_table();
        }
        // What an earlier run wrote may still be on its way to the medium: the scan reads there.
        machine.ops.push_back(Op::Sync);
        Ok(machine)
    }

    /// Where it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            phase: match self.stage {
                Stage::CheckTable { .. } | Stage::FetchTable { .. } => Phase::Table,
                Stage::Probe { .. } | Stage::Scan { .. } => Phase::Scan,
                Stage::Load | Stage::Verify { .. } => Phase::Load,
                Stage::Finish | Stage::Finished => Phase::Finish,
            },
            done: match self.stage {
                Stage::Finish | Stage::Finished => self.manifest.size,
                _ => self.report.kept + self.loaded,
            },
            total: self.manifest.size,
        }
    }

    /// Says what is wanted next. Calling it again without an answer repeats the question.
    ///
    /// # Errors
    ///
    /// Any [`ConvergeError`]; the machine is then to be dropped.
    pub fn poll_output(&mut self) -> Result<Output<'_>, ConvergeError> {
        while self.ops.is_empty() && self.need.is_none() && self.stage != Stage::Finished {
            // A stage that waits has asked for something, so the loop ends.
            let _: Flow = self.step()?;
        }
        if let Some(op) = self.ops.front().cloned() {
            return Ok(self.output_of(op));
        }
        Ok(match self.need {
            Some(Need::ReadPage { number, stored }) => Output::Read {
                from: Region::Target,
                offset: self.table_page(number),
                buf: &mut self.page,
                stored,
            },
            Some(Need::ReceivePage) => Output::Receive(&mut self.page[self.page_filled..]),
            Some(Need::ReceiveChunk { len }) => {
                Output::Receive(&mut self.stored[self.stored_filled..len])
            }
            Some(Need::FillReader) => {
                let (offset, buf) = self.reader.target();
                Output::Read {
                    from: Region::Target,
                    offset,
                    buf,
                    stored: true,
                }
            }
            Some(Need::Preload) => {
                let (offset, buf) = self.block.preload_target();
                Output::Read {
                    from: Region::Target,
                    offset,
                    buf,
                    stored: false,
                }
            }
            None => Output::Finished(self.report),
        })
    }

    /// Takes the answer to the last output.
    ///
    /// # Errors
    ///
    /// [`ConvergeError::Misuse`] if nothing was asked, or more bytes came than were.
    pub fn handle_input(&mut self, input: Input) -> Result<(), ConvergeError> {
        match (self.ops.front().is_some(), self.need, input) {
            (true, _, Input::Done) => {
                if let Some(Op::WriteMark) = self.ops.pop_front() {
                    self.marked = true;
                }
                Ok(())
            }
            (false, Some(Need::ReadPage { number, .. }), Input::Done) => {
                self.loaded_page = Some(number);
                self.need = None;
                Ok(())
            }
            (false, Some(Need::ReceivePage), Input::Received(n)) => {
                self.page_filled += n;
                self.need = None;
                self.count_received(n, self.page_filled <= self.page.len())
            }
            (false, Some(Need::ReceiveChunk { len }), Input::Received(n)) => {
                self.stored_filled += n;
                self.need = None;
                self.count_received(n, self.stored_filled <= len)
            }
            (false, Some(Need::FillReader), Input::Done) => {
                self.reader.filled();
                self.need = None;
                Ok(())
            }
            (false, Some(Need::Preload), Input::Done) => {
                self.block.preloaded();
                self.need = None;
                Ok(())
            }
            _ => Err(ConvergeError::Misuse),
        }
    }

    fn count_received(&mut self, n: usize, within: bool) -> Result<(), ConvergeError> {
        if n == 0 || !within {
            return Err(ConvergeError::Misuse);
        }
        self.report.fetched += len_u64(n);
        Ok(())
    }

    fn output_of(&mut self, op: Op) -> Output<'_> {
        let copy = &self.slot.copies[self.copy];
        match op {
            Op::Erase(range) => Output::Erase(range),
            Op::Sync => Output::Sync,
            Op::Fetch(range) => Output::Fetch(range),
            Op::WriteBlock(range) => {
                let (offset, data) = self.block.content(range);
                Output::Write { offset, data }
            }
            Op::WritePage(number) => {
                let offset = self.table_page(number);
                Output::Write {
                    offset,
                    data: &self.page,
                }
            }
            Op::WriteHead => {
                self.op_buf = self.header.encode(&self.signed);
                pad(&mut self.op_buf, &self.geometry);
                Output::Write {
                    offset: copy.head.start,
                    data: &self.op_buf,
                }
            }
            Op::ClearMark { copy } => {
                self.op_buf = vec![0; CompletionMark::LEN];
                pad(&mut self.op_buf, &self.geometry);
                Output::Write {
                    offset: self.slot.copies[copy].mark.start,
                    data: &self.op_buf,
                }
            }
            Op::WriteMark => {
                self.op_buf = CompletionMark::encode(&self.header).to_vec();
                pad(&mut self.op_buf, &self.geometry);
                Output::Write {
                    offset: copy.mark.start,
                    data: &self.op_buf,
                }
            }
        }
    }

    fn step(&mut self) -> Result<Flow, ConvergeError> {
        match self.stage {
            Stage::CheckTable { chunk, fetched } => self.check_table(chunk, fetched),
            Stage::FetchTable { chunk } => self.receive_table(chunk),
            Stage::Probe { sample } => self.probe(sample),
            Stage::Scan { chunk } => self.scan(chunk),
            Stage::Load => self.load(),
            Stage::Verify { chunk } => self.verify(chunk),
            Stage::Finish => {
                self.stage = Stage::Finished;
                Ok(Flow::Go)
            }
            Stage::Finished => Ok(Flow::Wait),
        }
    }
}

fn pad(buf: &mut Vec<u8>, geometry: &Geometry) {
    let unit = len_usize(geometry.write_size.max(1));
    buf.resize(buf.len().div_ceil(unit) * unit, 0);
}

/// Lengths here are bounded by 64 KiB headers or by table fields of 32 bits.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// 32-bit lengths fit the address space of every supported target.
fn len_usize(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
