//! The scan: which chunks are already where they belong?

use rekindle_image::Chunk;

use super::window::Verdict;
use super::{Converge, ConvergeError, Flow, Need, Stage};

impl Converge {
    /// Reads some chunks, spread over the image. If none is in place and this manifest is new to
    /// the slot, a scan would find little: it is left out.
    pub(super) fn probe(&mut self, sample: u32) -> Result<Flow, ConvergeError> {
        let chunks = self.manifest.table.chunks;
        let samples = PROBES.min(chunks);
        if sample >= samples {
            self.begin_pass();
            return Ok(Flow::Go);
        }
        let index = u64::from(sample) * u64::from(chunks) / u64::from(samples);
        let Some(chunk) = self.chunk(u32::try_from(index).unwrap_or(0))? else {
            return Ok(Flow::Wait);
        };
        match self.check(&chunk) {
            None => Ok(Flow::Wait),
            Some(Verdict::Good) => {
                self.stage = Stage::Scan { chunk: 0 };
                Ok(Flow::Go)
            }
            Some(Verdict::Bad) => {
                self.stage = Stage::Probe { sample: sample + 1 };
                Ok(Flow::Go)
            }
        }
    }

    pub(super) fn scan(&mut self, index: u32) -> Result<Flow, ConvergeError> {
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
        if verdict == Verdict::Good {
            self.good.set(index);
            self.report.kept += u64::from(chunk.raw_len);
        }
        self.stage = Stage::Scan { chunk: index + 1 };
        Ok(Flow::Go)
    }

    /// Compares a chunk on the medium with its hash; `None`: bytes were asked for.
    pub(super) fn check(&mut self, chunk: &Chunk) -> Option<Verdict> {
        let verdict = self
            .reader
            .check(chunk.raw_offset, chunk.raw_len, chunk.hash.as_bytes());
        if verdict.is_none() {
            self.need = Some(Need::FillReader);
        }
        verdict
    }
}

/// Chunks looked at before a scan of unknown content: 32 find content that is at least a tenth in
/// place with a chance of 97 in 100, and cost at most 32 MiB of reading.
const PROBES: u32 = 32;
