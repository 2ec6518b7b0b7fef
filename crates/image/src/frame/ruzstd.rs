//! Decoding in Rust, without std.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use super::too_long;
use crate::ChunkError;

pub(crate) struct Backend(FrameDecoder);

impl Backend {
    pub(crate) fn new() -> Self {
        Self(FrameDecoder::new())
    }

    pub(crate) fn decode(&mut self, frame: &[u8], out: &mut [u8]) -> Result<usize, ChunkError> {
        let decoder = &mut self.0;
        let mut input = frame;
        let mut written = 0;
        decoder.reset(&mut input).map_err(damaged)?;
        while !decoder.is_finished() {
            decoder
                .decode_blocks(&mut input, BlockDecodingStrategy::UptoBytes(STEP))
                .map_err(damaged)?;
            written += decoder.read(&mut out[written..]).map_err(damaged)?;
            if decoder.can_collect() > 0 && written == out.len() {
                return Err(too_long(out));
            }
        }
        while written < out.len() && decoder.can_collect() > 0 {
            written += decoder.read(&mut out[written..]).map_err(damaged)?;
        }
        if decoder.can_collect() > 0 {
            return Err(too_long(out));
        }
        if input.is_empty() {
            Ok(written)
        } else {
            Err(ChunkError::Frame)
        }
    }
}

/// One block at most before the output is looked at: bounds what a bomb can make the decoder hold.
const STEP: usize = 1;

fn damaged<E>(_: E) -> ChunkError {
    ChunkError::Frame
}
