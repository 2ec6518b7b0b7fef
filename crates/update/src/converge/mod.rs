//! Converge: make this slot match this manifest.
//!
//! A machine without I/O. [`Converge::poll_output`] says what is wanted next (a piece of flash, a
//! write, a range of the image), the caller does it and answers with [`Converge::handle_input`].
//! Buffers belong to the machine, so bytes are copied once, and its memory is a constant: two
//! table paths, two chunks, one block, two read buffers, the lists of two windows, a plan of so many
//! chunks, and two bits a chunk.
//!
//! There is no journal. Dropping the machine at any moment is safe; run it again and it continues
//! where the flash says it is.

mod bitmap;
mod block;
mod copy;
mod donor;
mod error;
mod exchange;
mod load;
mod plan;
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
use rekindle_image::{Cursor, Decoder, Layout, Manifest, PAGE_SIZE, SignedManifest};

pub use self::donor::Donor;
pub use self::error::ConvergeError;
pub use self::exchange::{Input, Output, Phase, Progress, Region, Report};
pub use self::transfer::Transfer;

use self::bitmap::Bitmap;
use self::block::Block;
use self::copy::CopyBuffer;
use self::donor::HeldTable;
use self::load::Placing;
use self::plan::{Known, Place, Plan, Planning};
use self::target::Target;
use self::window::{ReadBuffer, Window};

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
    placing: Option<Placing>,
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
    /// Ends once the tail describes the image.
    describe_only: bool,
    transfer: Transfer,
    /// The chunk tables on this device, in the order in which they are searched.
    known: Vec<Known>,
    /// Walks the one that is searched.
    searched: Option<Cursor>,
    plan: Plan,
    /// What has been fetched and planned so far, while a limit is held against the whole plan.
    foreseen: Option<u64>,
    /// Bytes fetched or asked for, manifest included.
    spent: u64,
    /// What of the range under way is still to come, in the image file.
    open: Option<Range<u64>>,
    copier: CopyBuffer,
    /// Chunks in a row that were not where a table said.
    misfits: u32,
    /// Spans what was copied within the target since the last sync: it may not be overwritten before
    /// the copies are safe.
    moved: Range<u64>,
    /// Blocks written since the last sync that hold kept content beside new one.
    at_risk: u32,
    next: u32,
    /// Behind the last of the missing chunks that follow each other, and where their content ends.
    run_end: u32,
    run_content_end: u64,
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
    Announce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    ReadPage { number: u32, stored: bool },
    ReadKnown { table: usize, number: u32 },
    ReceivePage,
    ReceiveChunk { len: usize },
    ReceiveGap { len: usize },
    FillReader,
    FillCopy,
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
    /// Finds out where the missing chunks come from.
    Plan(Planning),
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
    /// [`ConvergeError::WriteUnit`], [`ConvergeError::TooLarge`], [`ConvergeError::TableTooLarge`] and
    /// [`ConvergeError::Budget`], before anything is written.
    pub fn new(
        signed: &SignedManifest,
        geometry: Geometry,
        slot: SlotLayout,
        content: &SlotContent,
        donors: &[Donor],
        transfer: Transfer,
    ) -> Result<Self, ConvergeError> {
        check_units(&geometry)?;
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
            damaged,
            other_marked,
        } = target;
        let own = HeldTable {
            start: slot.copies[copy].table.start,
            data_end: slot.data.end,
            manifest: manifest.clone(),
        };
        let old = HeldTable::of(&slot, &content.copies[1 - copy], 1 - copy);
        let max_chunk = len_usize(manifest.table.max_chunk);
        let spent = image.table.start.max(transfer.at_hand);
        let mut machine = Self {
            cursor: Cursor::new(&manifest.table, manifest.size, manifest.stored_size),
            good: Bitmap::new(manifest.table.chunks),
            describe_only: false,
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
            known: known(&own, donors, old.as_ref()),
            searched: None,
            plan: Plan::new(transfer.plan_chunks, transfer.join_gap, transfer.ahead),
            foreseen: transfer.max_download.map(|_| 0),
            spent,
            open: None,
            copier: CopyBuffer::default(),
            misfits: 0,
            moved: 0..0,
            at_risk: 0,
            transfer,
            next: 0,
            run_end: 0,
            run_content_end: 0,
            misreads: 0,
            loaded: 0,
            op_buf: Vec::new(),
            report: Report::default(),
            manifest,
        };
        if damaged {
            machine.clear_mark(copy);
        }
        if !speaks {
            machine.write_head();
        }
        if !held {
            machine.fetch_table()?;
        }
        // What an earlier run wrote may still be on its way to the medium: the scan reads there.
        machine.ops.push_back(Op::Sync);
        Ok(machine)
    }

    /// As [`new`](Self::new), and ends once manifest and table are in the slot's tail, synced and not
    /// complete: the slot still holds what it held, and another copy says so.
    pub(crate) fn describing(mut self) -> Self {
        self.describe_only = true;
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            phase: match self.stage {
                Stage::CheckTable { .. } | Stage::FetchTable { .. } => Phase::Table,
                Stage::Probe { .. } | Stage::Scan { .. } => Phase::Scan,
                Stage::Plan(_) | Stage::Load | Stage::Verify { .. } => Phase::Load,
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
            Some(Need::ReadKnown { table, number }) => {
                let (from, offset) = self.known_page(table, number);
                Output::Read {
                    from,
                    offset,
                    buf: &mut self.page,
                    stored: false,
                }
            }
            Some(Need::ReceiveGap { len }) => Output::Receive(&mut self.stored[..len]),
            Some(Need::FillCopy) => {
                let (from, offset, buf) = self.copier.target();
                Output::Read {
                    from,
                    offset,
                    buf,
                    stored: false,
                }
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
            (
                false,
                Some(Need::ReadPage { number, .. } | Need::ReadKnown { number, .. }),
                Input::Done,
            ) => {
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
                self.advance_open(n);
                self.count_received(n, self.stored_filled <= len)
            }
            (false, Some(Need::ReceiveGap { len }), Input::Received(n)) => {
                self.need = None;
                self.advance_open(n);
                self.count_received(n, n <= len)
            }
            (false, Some(Need::FillCopy), Input::Done) => {
                self.copier.filled();
                self.need = None;
                Ok(())
            }
            (false, Some(Need::FillCopy), Input::Unreadable) => {
                self.need = None;
                self.stored_filled = 0;
                let place = self.copier.failed();
                self.lose(place, self.next)
            }
            (false, Some(Need::ReadKnown { table, .. }), Input::Unreadable) => {
                self.need = None;
                let place = self.known.get(table).map(|known| known.place);
                self.lose(place, self.plan.base())
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

    /// A donor cannot be read; the target must be.
    fn lose(&mut self, place: Option<Place>, from: u32) -> Result<(), ConvergeError> {
        let Some(place) = place.filter(|place| matches!(place.region(), Region::Donor(_))) else {
            return Err(ConvergeError::Misuse);
        };
        self.abandon(place, from);
        Ok(())
    }

    fn advance_open(&mut self, n: usize) {
        if let Some(open) = &mut self.open {
            open.start = open.start.saturating_add(len_u64(n));
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
            Op::Announce => Output::Announce(self.plan.announced()),
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
            Stage::Plan(planning) => self.make_plan(planning),
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

/// The tables in the order in which they are searched: what stays where it is, what other flash
/// has, what is about to be overwritten.
fn known(own: &HeldTable, donors: &[Donor], old: Option<&HeldTable>) -> Vec<Known> {
    let donors = donors.iter().enumerate().flat_map(|(number, donor)| {
        let place = Place::donor(number);
        let tables = donor.tables.iter();
        tables.filter_map(move |table| Some(Known::of(place?, table)))
    });
    core::iter::once(Known::of(Place::OWN, own))
        .chain(donors)
        .chain(old.map(|old| Known::of(Place::OLD, old)))
        .collect()
}

/// Whether pages of the chunk table can be written to flash of these units.
pub(crate) fn check_units(geometry: &Geometry) -> Result<(), ConvergeError> {
    let write_size = geometry.write_size;
    if PAGE_SIZE.is_multiple_of(write_size.max(1)) {
        Ok(())
    } else {
        Err(ConvergeError::WriteUnit { write_size })
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
