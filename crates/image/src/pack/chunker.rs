use alloc::vec;
use alloc::vec::Vec;
use std::io::{self, Read};

use fastcdc::v2020::FastCDC;

use crate::TableInfo;

/// Cuts a stream where its content says so, whatever comes before.
pub(super) struct Chunker<R> {
    input: R,
    buf: Vec<u8>,
    /// What is buffered and not yet cut off.
    held: core::ops::Range<usize>,
    is_at_end: bool,
    average: usize,
    align: usize,
}

impl<R: Read> Chunker<R> {
    /// `average` is a power of two, and so is `align`, at most `average`.
    pub(super) fn new(input: R, average: u32, align: u32) -> Self {
        let average = usize::try_from(average).expect("a chunk fits into memory");
        Self {
            input,
            buf: vec![0; 16 * average],
            held: 0..0,
            is_at_end: false,
            average,
            align: usize::try_from(align).expect("a chunk fits into memory"),
        }
    }

    /// The next chunk; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.fill()?;
        let len = self.cut(&self.buf[self.held.clone()]);
        if len == 0 {
            return Ok(None);
        }
        let start = self.held.start;
        self.held.start += len;
        Ok(Some(&self.buf[start..start + len]))
    }

    fn max(&self) -> usize {
        2 * self.average
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.held.len() >= self.max() || self.is_at_end {
            return Ok(());
        }
        self.buf.copy_within(self.held.clone(), 0);
        self.held = 0..self.held.len();
        while self.held.end < self.buf.len() && !self.is_at_end {
            match self.input.read(&mut self.buf[self.held.end..]) {
                Ok(0) => self.is_at_end = true,
                Ok(len) => self.held.end += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Length of the first chunk of `bytes`.
    fn cut(&self, bytes: &[u8]) -> usize {
        let min = self.average / 4;
        let (_, len) = FastCDC::new(bytes, min, self.average, self.max()).cut(0, bytes.len());
        if len == bytes.len() && len < self.max() {
            return len;
        }
        let snapped = len - len % self.align;
        if snapped == 0 {
            self.align.min(bytes.len())
        } else {
            snapped
        }
    }
}

/// The smallest chunk that the smallest average allows is one that the format allows.
const _: () = assert!(super::PackOptions::MIN_CHUNK_SIZE / 4 >= TableInfo::MIN_CHUNK);

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same in every run.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(bytes: &[u8], average: u32, align: u32) -> Vec<usize> {
        let mut chunker = Chunker::new(bytes, average, align);
        let mut lens = Vec::new();
        while let Some(chunk) = chunker.next().unwrap() {
            lens.push(chunk.len());
        }
        lens
    }

    #[test]
    fn chunks_are_within_bounds_and_near_the_average() {
        for (average, align) in [
            (4096, 1),
            (16384, 1),
            (16384, 4096),
            (16384, 16384),
            (65536, 512),
        ] {
            let bytes = noise(4 << 20);
            let lens = cuts(&bytes, average, align);
            let average = usize::try_from(average).unwrap();
            let align = usize::try_from(align).unwrap();
            assert_eq!(lens.iter().sum::<usize>(), bytes.len());
            for len in &lens[..lens.len() - 1] {
                assert!((average / 4..=2 * average).contains(len), "{len}");
                assert_eq!(len % align, 0);
            }
            let mean = bytes.len() / lens.len();
            assert!(
                (average / 2..=average * 3 / 2).contains(&mean),
                "mean {mean} of {average}"
            );
        }
    }

    #[test]
    fn an_insertion_moves_cuts_only_near_it() {
        let old = noise(1 << 20);
        let mut new = old.clone();
        new.splice(300_000..300_000, *b"inserted");
        let ends = |lens: Vec<usize>, shift: usize| -> Vec<usize> {
            lens.iter()
                .scan(0, |at, len| {
                    *at += len;
                    Some(*at)
                })
                .filter(|end| *end > 400_000)
                .map(|end| end - shift)
                .collect()
        };
        assert_eq!(ends(cuts(&old, 16384, 1), 0), ends(cuts(&new, 16384, 1), 8));
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_input_is_read() {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let len = buf.len().min(777);
                self.0.read(&mut buf[..len])
            }
        }
        let bytes = noise(1 << 20);
        let mut chunker = Chunker::new(Dribble(&bytes), 16384, 1);
        let mut lens = Vec::new();
        while let Some(chunk) = chunker.next().unwrap() {
            lens.push(chunk.len());
        }
        assert_eq!(lens, cuts(&bytes, 16384, 1));
    }
}
