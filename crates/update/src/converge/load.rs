//! Loading: missing chunks are fetched in runs, checked, written, and read back window by window.
//!
//! While one window is written, the one before it, which is synced, is read back block by block:
//! neither the source nor the medium waits for the other.

use core::ops::Range;

use rekindle_image::{Chunk, ChunkError};

use super::window::Verdict;
use super::{Converge, ConvergeError, Flow, Need, Op, Stage, len_u64, len_usize};

/// A chunk that is in memory, checked, on its way to the block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placing {
    chunk: Chunk,
    /// How much of it has gone to the block.
    placed: usize,
    /// Whether its content is in `stored`, not in `raw`.
    is_raw: bool,
}

impl Placing {
    /// A chunk whose content is where stored bytes go.
    pub(super) fn raw(chunk: Chunk) -> Self {
        Self {
            chunk,
            placed: 0,
            is_raw: true,
        }
    }
}

impl Converge {
    /// The plan stands: from now on the slot changes.
    pub(super) fn begin_load(&mut self) {
        self.stage = Stage::Load;
        if self.marked {
            self.clear_mark(self.copy);
        }
        if self.other_marked {
            self.other_marked = false;
            self.clear_mark(1 - self.copy);
        }
    }

    pub(super) fn load(&mut self) -> Result<Flow, ConvergeError> {
        if let Some(placing) = self.placing {
            return Ok(self.place(placing));
        }
        if self.owed > 0 {
            return self.read_back();
        }
        if self.window.is_full() {
            return Ok(self.end_window());
        }
        let Some(index) = self.plan.next() else {
            return Ok(self.end_plan_of_load());
        };
        if index >= self.run_end {
            // One table path is in memory: the end of the run is looked up, then its beginning.
            let end = self.good.first_set(index);
            let Some(last) = self.chunk(end - 1)? else {
                return Ok(Flow::Wait);
            };
            self.run_end = end;
            self.run_content_end = last.raw_offset + u64::from(last.raw_len);
        }
        let Some(chunk) = self.chunk(index)? else {
            return Ok(Flow::Wait);
        };
        let stored = self.stored_range(&chunk);
        let open = self.open.clone().filter(|open| stored.end <= open.end);
        let Some(open) = open else {
            if let Some((place, offset)) = self.plan.copy() {
                return Ok(self.copy(&chunk, place, offset));
            }
            let range = self.plan.request(stored);
            self.fetch(range)?;
            return Ok(Flow::Wait);
        };
        let len = len_usize(chunk.stored_len);
        if self.stored_filled < len {
            self.need = Some(match stored.start.saturating_sub(open.start) {
                0 => Need::ReceiveChunk { len },
                gap => Need::ReceiveGap {
                    len: usize::try_from(gap)
                        .map_or(self.stored.len(), |gap| gap.min(self.stored.len())),
                },
            });
            return Ok(Flow::Wait);
        }
        self.stored_filled = 0;
        self.decode(&chunk)
            .map_err(|source| ConvergeError::BadChunk {
                chunk: chunk.index,
                offset: chunk.raw_offset,
                source,
            })?;
        self.placing = Some(Placing {
            chunk,
            placed: 0,
            is_raw: chunk.is_stored_raw(),
        });
        Ok(Flow::Go)
    }

    /// Asks the source for a range, if it may be asked for.
    pub(super) fn fetch(&mut self, range: Range<u64>) -> Result<(), ConvergeError> {
        let cost = self.cost(&range);
        self.afford(cost)?;
        self.spent = self.spent.saturating_add(cost);
        self.report.requests += 1;
        self.ops.push_back(Op::Fetch(range.clone()));
        if !self.plan.announced().is_empty() {
            self.ops.push_back(Op::Announce);
        }
        self.stored_filled = 0;
        self.open = Some(range);
        Ok(())
    }

    /// What was planned is loaded: the next chunks are planned, or the pass ends.
    fn end_plan_of_load(&mut self) -> Flow {
        if let Some(index) = self.good.first_unset(self.next) {
            self.plan_from(index);
            return Flow::Go;
        }
        if self.window.is_empty() && self.waiting.is_empty() {
            return self.end_pass();
        }
        self.read_back_rest()
    }

    /// Checks the chunk received. One that is stored raw stays where it is.
    fn decode(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        let stored = &self.stored[..len_usize(chunk.stored_len)];
        if !chunk.is_stored_raw() {
            return self.decoder.decode(chunk, stored, &mut self.raw);
        }
        if chunk.matches(stored) {
            Ok(())
        } else {
            Err(ChunkError::Hash)
        }
    }

    /// Moves a chunk into the block, writing blocks out as they fill.
    fn place(&mut self, mut placing: Placing) -> Flow {
        let chunk = placing.chunk;
        let position = chunk.raw_offset + len_u64(placing.placed);
        if !self.block.takes(position) {
            if self.flush_block() {
                return Flow::Wait;
            }
            self.block.open(position, self.run_content_end);
            if self.block.wants_preload() {
                self.need = Some(Need::Preload);
            }
            return Flow::Go;
        }
        let raw = if placing.is_raw {
            &self.stored[..len_usize(chunk.raw_len)]
        } else {
            &self.raw
        };
        placing.placed += self
            .block
            .put(chunk.index, position, &raw[placing.placed..]);
        if placing.placed < raw.len() {
            self.placing = Some(placing);
            return Flow::Go;
        }
        self.placing = None;
        self.window.push(&chunk);
        self.loaded += u64::from(chunk.raw_len);
        self.next = chunk.index + 1;
        self.plan.advance();
        Flow::Go
    }

    /// Orders what the block holds to be written; whether there was anything. The block must stay
    /// as it is until that is done.
    pub(super) fn flush_block(&mut self) -> bool {
        let Some(flush) = self.block.flush() else {
            return false;
        };
        let mut is_shared = false;
        for index in flush.touches {
            if self.good.get(index) {
                self.suspects.set(index);
                is_shared = true;
            }
        }
        let (start, data) = self.block.content(flush.write.clone());
        let end = start + len_u64(data.len());
        let limit = if flush.erase.is_some() { 1 } else { SHARED };
        let is_moved = start < self.moved.end && self.moved.start < end;
        if is_moved || (is_shared && self.at_risk >= limit) {
            self.sync();
        }
        self.at_risk += u32::from(is_shared);
        self.copier.forget_target();
        if let Some(range) = flush.erase {
            self.ops.push_back(Op::Erase(range));
        }
        self.owed = self.owed.saturating_add(len_u64(flush.write.len()));
        self.ops.push_back(Op::WriteBlock(flush.write));
        true
    }

    /// What was written so far is to be safe before anything else is.
    fn sync(&mut self) {
        self.ops.push_back(Op::Sync);
        self.at_risk = 0;
        self.moved = 0..0;
    }

    /// Syncs what was written and begins to read it back, except for what the open block shares:
    /// it goes on in the next window, so that no block is written twice.
    fn end_window(&mut self) -> Flow {
        if !self.waiting.is_empty() {
            self.owed = u64::MAX;
            return Flow::Go;
        }
        let ready = self.window.ending_before(self.block.base());
        if ready == 0 {
            return self.read_back_rest();
        }
        self.sync();
        self.await_read_back(ready);
        Flow::Go
    }

    /// Has everything written read back before anything else is done.
    fn read_back_rest(&mut self) -> Flow {
        if self.waiting.is_empty() {
            let _: bool = self.flush_block();
            self.sync();
            self.await_read_back(usize::MAX);
        }
        self.owed = u64::MAX;
        Flow::Go
    }

    fn await_read_back(&mut self, entries: usize) {
        self.window.move_to(&mut self.waiting, entries);
        self.checked = 0;
        // What lies behind is being written, and to read it would be in vain.
        self.reader.restart(self.waiting.end());
    }

    fn read_back(&mut self) -> Result<Flow, ConvergeError> {
        let Some(written) = self.waiting.entry(self.checked) else {
            self.waiting.clear();
            self.checked = 0;
            self.owed = 0;
            self.block.close_if_clean();
            return Ok(Flow::Go);
        };
        let Some(verdict) = self
            .reader
            .check(written.offset, written.len, &written.hash)
        else {
            self.need = Some(Need::FillReader);
            return Ok(Flow::Wait);
        };
        match verdict {
            Verdict::Good => {
                self.good.set(written.index);
                self.report.written += u64::from(written.len);
            }
            Verdict::Bad => {
                self.loaded -= u64::from(written.len);
                self.count_misread(written.index, written.offset)?;
            }
        }
        self.checked += 1;
        if self.owed != u64::MAX {
            self.owed = self.owed.saturating_sub(u64::from(written.len));
        }
        Ok(Flow::Go)
    }

    pub(super) fn count_misread(&mut self, chunk: u32, offset: u64) -> Result<(), ConvergeError> {
        self.misreads += 1;
        if self.misreads > MISREADS {
            return Err(ConvergeError::ReadBack { chunk, offset });
        }
        Ok(())
    }

    pub(super) fn verify(&mut self, from: u32) -> Result<Flow, ConvergeError> {
        let index = self.suspects.first_set(from);
        if index >= self.manifest.table.chunks {
            self.begin_pass();
            return Ok(Flow::Go);
        }
        let Some(chunk) = self.chunk(index)? else {
            return Ok(Flow::Wait);
        };
        let Some(verdict) = self.check(&chunk) else {
            return Ok(Flow::Wait);
        };
        self.suspects.unset(index);
        if verdict == Verdict::Bad {
            self.good.unset(index);
            // It was counted as kept or as written, and is neither.
            let len = u64::from(chunk.raw_len);
            let kept = self.report.kept.min(len);
            self.report.kept -= kept;
            self.report.written -= len - kept;
            self.loaded -= len - kept;
            self.count_misread(index, chunk.raw_offset)?;
        }
        self.stage = Stage::Verify { chunk: index + 1 };
        Ok(Flow::Go)
    }

    /// The pass is over: chunks that did not read back are taken once more, and those that were
    /// written back beside others are looked at again; else the slot is marked complete.
    pub(super) fn end_pass(&mut self) -> Flow {
        if self.good.first_unset(0).is_some() {
            self.begin_pass();
            return Flow::Go;
        }
        if self.suspects.first_set(0) < self.manifest.table.chunks {
            self.reader.restart(self.manifest.size);
            self.stage = Stage::Verify { chunk: 0 };
            return Flow::Go;
        }
        if !self.marked {
            if self.geometry.erase_size > 0 {
                let mark = self.slot.copies[self.copy].mark.clone();
                self.ops.push_back(Op::Erase(mark));
            }
            self.ops.push_back(Op::WriteMark);
            self.ops.push_back(Op::Sync);
        }
        self.stage = Stage::Finish;
        Flow::Go
    }
}

/// Blocks with kept content that may wait for a sync where nothing is erased and a cut costs the few
/// chunks at their ends.
const SHARED: u32 = 8;

/// Chunks that may read back wrong and be written again before the flash is given up.
const MISREADS: u32 = 8;
