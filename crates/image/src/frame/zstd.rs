//! Decoding by the C library.

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall;
use zstd::zstd_safe::{DCtx, find_frame_compressed_size, is_error_kind};

use super::too_long;
use crate::ChunkError;

pub(crate) struct Backend(DCtx<'static>);

impl Backend {
    pub(crate) fn new() -> Self {
        Self(DCtx::create())
    }

    pub(crate) fn decode(&mut self, frame: &[u8], out: &mut [u8]) -> Result<usize, ChunkError> {
        if find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(ChunkError::Frame);
        }
        self.0.decompress(out, frame).map_err(|code| {
            if is_error_kind(code, ZSTD_error_dstSize_tooSmall) {
                too_long(out)
            } else {
                ChunkError::Frame
            }
        })
    }
}
