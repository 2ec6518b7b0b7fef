//! Comparing what was written with what should have been.

use std::io::{BufRead as _, BufReader, Read};

use anyhow::bail;

/// Fails at the first difference, also one of length.
pub(crate) fn compare(expected: impl Read, found: impl Read, what: &str) -> anyhow::Result<()> {
    let (mut expected, mut found) = (
        BufReader::with_capacity(PIECE, expected),
        BufReader::with_capacity(PIECE, found),
    );
    let mut offset: u64 = 0;
    loop {
        let (left, right) = (expected.fill_buf()?, found.fill_buf()?);
        let len = left.len().min(right.len());
        if len == 0 && left.len() == right.len() {
            return Ok(());
        }
        if len == 0 || left[..len] != right[..len] {
            bail!("{what} is not what it should be, near byte {offset}");
        }
        expected.consume(len);
        found.consume(len);
        offset += u64::try_from(len)?;
    }
}

const PIECE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_in_bytes_or_in_length_is_told() {
        compare(&b"same"[..], &b"same"[..], "it").unwrap();
        for other in ["samE", "sam", "same and more", ""] {
            let error = compare(&b"same"[..], other.as_bytes(), "it").unwrap_err();
            assert!(error.to_string().starts_with("it is not"), "{other}");
        }
    }
}
