//! Archives as `cpio -H crc` makes them.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

/// An archive under way.
#[derive(Debug)]
pub(super) struct Archive {
    out: BufWriter<File>,
    len: u64,
    entries: u32,
}

impl Archive {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)
            .with_context(|| format!("cannot make the archive {}", path.display()))?;
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, file),
            len: 0,
            entries: 0,
        })
    }

    /// Adds the file at `path` under `name`.
    pub(super) fn add(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        let read =
            || File::open(path).with_context(|| format!("cannot put {} away", path.display()));
        let len = u32::try_from(read()?.metadata()?.len()).context("too large for an archive")?;
        let mut sum: u32 = 0;
        pieces(read()?, |piece| {
            sum = piece
                .iter()
                .fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
            Ok(())
        })?;
        self.entries += 1;
        self.head(name, self.entries, REGULAR, len, sum)?;
        pieces(read()?, |piece| self.put(piece))?;
        self.pad(4)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.head("TRAILER!!!", 0, 0, 0, 0)?;
        self.pad(512)?;
        self.out.flush().context("cannot write an archive")
    }

    fn head(
        &mut self,
        name: &str,
        inode: u32,
        mode: u32,
        len: u32,
        sum: u32,
    ) -> anyhow::Result<()> {
        let name_len = u32::try_from(name.len() + 1)?;
        let fields = [inode, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, sum];
        let mut head = String::from("070702");
        for field in fields {
            head.push_str(&format!("{field:08X}"));
        }
        self.put(head.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(4)
    }

    fn pad(&mut self, to: u64) -> anyhow::Result<()> {
        while !self.len.is_multiple_of(to) {
            self.put(&[0])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.len += u64::try_from(bytes.len())?;
        self.out.write_all(bytes).context("cannot write an archive")
    }
}

fn pieces(mut file: File, mut each: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).context("cannot read a file")? {
            0 => return Ok(()),
            len => each(&piece[..len])?,
        }
    }
}

/// A file that its owner may write and all may read.
const REGULAR: u32 = 0o100_644;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_cpio_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("input"), folder.path().join("out"));
        std::fs::write(&input, [1, 2, 0xff]).unwrap();
        let mut archive = Archive::create(&out).unwrap();
        archive.add("ab", &input).unwrap();
        archive.finish().unwrap();
        let written = std::fs::read(&out).unwrap();
        assert_eq!(written.len(), 512);
        let head = "07070200000001000081A40000000000000000000000010000000000000003\
                    000000000000000000000000000000000000000300000102ab\0\0\0\0\x01\x02";
        assert_eq!(&written[..head.len()], head.as_bytes());
        assert_eq!(written[head.len()..head.len() + 2], [0xff, 0]);
        assert!(written[head.len() + 2..].starts_with(b"070702"));
    }
}
