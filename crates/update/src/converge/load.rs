//! Loading: missing chunks are fetched in runs, checked, written, and read back window by window.
//!
//! While one window is written, the one before it, which is synced, is read back block by block:
//! neither the source nor the medium waits for the other.

use rekindle_image::{Chunk, ChunkError};

use super::window::Verdict;
use super::{Converge, ConvergeError, Flow, Need, Op, Stage, len_u64, len_usize};

impl Converge {
    pub(super) fn begin_load(&mut self) {
        self.stage = Stage::Load;
        self.next = 0;
        if self.good.first_unset(0).is_none() {
            return;
        }
        if self.marked {
            self.clear_mark(self.copy);
        }
        if self.other_marked {
            self.other_marked = false;
            self.clear_mark(1 - self.copy);
        }
    }

    pub(super) fn load(&mut self) -> Result<Flow, ConvergeError> {
        if let Some((chunk, placed)) = self.placing {
            return Ok(self.place(chunk, placed));
        }
        if self.owed > 0 {
            return self.read_back();
        }
        if self.window.is_full() {
            return Ok(self.end_window());
        }
        let Some(end) = self.run_end else {
            return self.begin_run();
        };
        if self.next >= end {
            self.run_end = None;
            return Ok(Flow::Go);
        }
        let Some(chunk) = self.chunk(self.next)? else {
            return Ok(Flow::Wait);
        };
        let len = len_usize(chunk.stored_len);
        if self.stored_filled < len {
            self.need = Some(Need::ReceiveChunk { len });
            return Ok(Flow::Wait);
        }
        self.decode(&chunk)
            .map_err(|source| ConvergeError::BadChunk {
                chunk: chunk.index,
                offset: chunk.raw_offset,
                source,
            })?;
        self.stored_filled = 0;
        self.placing = Some((chunk, 0));
        Ok(Flow::Go)
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

    /// Opens the next run of missing chunks with one request, or ends the stage.
    pub(super) fn begin_run(&mut self) -> Result<Flow, ConvergeError> {
        let Some(first) = self.good.first_unset(self.next) else {
            if self.window.is_empty() && self.waiting.is_empty() {
                return Ok(self.end_pass());
            }
            return Ok(self.read_back_rest());
        };
        // One table path is in memory: the end is looked up and kept, then the beginning.
        let (end, stored_end, content_end) = match self.run_tail {
            Some(tail) => tail,
            None => {
                let end = self.good.first_set(first);
                let Some(last) = self.chunk(end - 1)? else {
                    return Ok(Flow::Wait);
                };
                let tail = (
                    end,
                    last.stored_offset + u64::from(last.stored_len),
                    last.raw_offset + u64::from(last.raw_len),
                );
                self.run_tail = Some(tail);
                tail
            }
        };
        let Some(chunk) = self.chunk(first)? else {
            return Ok(Flow::Wait);
        };
        self.next = first;
        self.run_end = Some(end);
        self.run_content_end = content_end;
        self.run_tail = None;
        self.stored_filled = 0;
        let base = self.image.chunks.start;
        self.ops
            .push_back(Op::Fetch(base + chunk.stored_offset..base + stored_end));
        Ok(Flow::Wait)
    }

    /// Moves a decoded chunk into the block, writing blocks out as they fill.
    pub(super) fn place(&mut self, chunk: Chunk, placed: usize) -> Flow {
        let position = chunk.raw_offset + len_u64(placed);
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
        let raw = if chunk.is_stored_raw() {
            &self.stored[..len_usize(chunk.raw_len)]
        } else {
            &self.raw
        };
        let taken = self.block.put(chunk.index, position, &raw[placed..]);
        if placed + taken < raw.len() {
            self.placing = Some((chunk, placed + taken));
            return Flow::Go;
        }
        self.placing = None;
        self.window.push(&chunk);
        self.loaded += u64::from(chunk.raw_len);
        self.next = chunk.index + 1;
        Flow::Go
    }

    /// Orders what the block holds to be written; whether there was anything. The block must stay
    /// as it is until that is done.
    pub(super) fn flush_block(&mut self) -> bool {
        let Some(flush) = self.block.flush() else {
            return false;
        };
        for index in flush.touches {
            if self.good.get(index) {
                self.suspects.set(index);
            }
        }
        if let Some(range) = flush.erase {
            self.ops.push_back(Op::Erase(range));
        }
        self.owed = self.owed.saturating_add(len_u64(flush.write.len()));
        self.ops.push_back(Op::WriteBlock(flush.write));
        true
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
        self.ops.push_back(Op::Sync);
        self.await_read_back(ready);
        Flow::Go
    }

    /// Has everything written read back before anything else is done.
    fn read_back_rest(&mut self) -> Flow {
        if self.waiting.is_empty() {
            let _: bool = self.flush_block();
            self.ops.push_back(Op::Sync);
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
            self.begin_load();
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
            self.next = 0;
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

/// Chunks that may read back wrong and be written again before the flash is given up.
const MISREADS: u32 = 8;
