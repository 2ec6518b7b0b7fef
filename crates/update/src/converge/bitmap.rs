//! One bit a chunk.

use alloc::vec;
use alloc::vec::Vec;

use super::len_usize;

/// Which chunks are known to be in place.
#[derive(Debug)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    len: u32,
}

impl Bitmap {
    pub(super) fn new(len: u32) -> Self {
        Self {
            words: vec![0; len_usize(len.div_ceil(64))],
            len,
        }
    }

    pub(super) fn set(&mut self, index: u32) {
        self.words[len_usize(index / 64)] |= 1 << (index % 64);
    }

    pub(super) fn unset(&mut self, index: u32) {
        self.words[len_usize(index / 64)] &= !(1 << (index % 64));
    }

    /// No bit beyond the length is set.
    pub(super) fn get(&self, index: u32) -> bool {
        index < self.len && self.words[len_usize(index / 64)] & (1 << (index % 64)) != 0
    }

    pub(super) fn first_unset(&self, from: u32) -> Option<u32> {
        let mut index = from;
        while index < self.len {
            if index.is_multiple_of(64) && self.words[len_usize(index / 64)] == u64::MAX {
                index += 64;
            } else if self.get(index) {
                index += 1;
            } else {
                return Some(index);
            }
        }
        None
    }

    /// The first set bit from here, or the length.
    pub(super) fn first_set(&self, from: u32) -> u32 {
        let mut index = from;
        while index < self.len {
            if index.is_multiple_of(64) && self.words[len_usize(index / 64)] == 0 {
                index += 64;
            } else if self.get(index) {
                return index;
            } else {
                index += 1;
            }
        }
        self.len
    }
}
