//! No decoder: images must be stored raw.

use crate::ChunkError;

pub(crate) struct Backend;

impl Backend {
    pub(crate) fn new() -> Self {
        Self
    }

    #[expect(
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "the shape of the other backends"
    )]
    pub(crate) fn decode(&mut self, _: &[u8], _: &mut [u8]) -> Result<usize, ChunkError> {
        Err(ChunkError::NoDecoder)
    }
}
