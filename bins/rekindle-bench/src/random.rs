//! Content that neither compresses nor repeats, the same in every run.

use std::io::{self, Read};

/// Reads as `len` pseudo-random bytes (`SplitMix64`), whatever the lengths of the reads.
#[derive(Debug, Clone)]
pub(crate) struct RandomBytes {
    state: u64,
    left: u64,
    word: [u8; 8],
    /// How many bytes of `word` have been handed out.
    used: usize,
}

impl RandomBytes {
    pub(crate) fn new(len: u64) -> Self {
        Self {
            state: SEED,
            left: len,
            word: [0; 8],
            used: 8,
        }
    }

    fn refill(&mut self) {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.word = (z ^ (z >> 31)).to_le_bytes();
        self.used = 0;
    }
}

impl Read for RandomBytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let mut filled = 0;
        while filled < len {
            if self.used == self.word.len() {
                self.refill();
            }
            let take = (self.word.len() - self.used).min(len - filled);
            buf[filled..filled + take].copy_from_slice(&self.word[self.used..self.used + take]);
            self.used += take;
            filled += take;
        }
        self.left -= u64::try_from(filled).unwrap_or(0);
        Ok(filled)
    }
}

const SEED: u64 = 0x5265_6b69_6e64_6c65;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_do_not_depend_on_the_lengths_of_the_reads() {
        let mut whole = Vec::new();
        RandomBytes::new(1003).read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len(), 1003);
        let mut pieces = Vec::new();
        let mut source = RandomBytes::new(1003);
        for len in (1..).map(|n| n % 11 + 1) {
            let mut piece = vec![0; len];
            let got = source.read(&mut piece).unwrap();
            if got == 0 {
                break;
            }
            pieces.extend_from_slice(&piece[..got]);
        }
        assert_eq!(pieces, whole);
    }
}
