use alloc::vec;
use alloc::vec::Vec;
use std::io::{self, Read, Seek, SeekFrom};

use crate::{
    Chunk, Cursor, FileHeader, HeaderError, Layout, LayoutError, ManifestError, PAGE_SIZE,
    SignedManifest, TableError,
};

/// An image file, opened: its header and manifest are read, its length is checked, its signatures are not.
#[derive(Debug)]
pub struct ImageFile<R> {
    reader: R,
    signed: SignedManifest,
    layout: Layout,
}

impl<R: Read + Seek> ImageFile<R> {
    /// Reads the header and the manifest, and checks that the file ends where they say.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no image, or is longer or shorter than its manifest says.
    pub fn open(mut reader: R) -> Result<Self, OpenError> {
        let len = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        let mut header = [0; FileHeader::LEN];
        read_within(&mut reader, &mut header, len, 0)?;
        let FileHeader { manifest_len } = FileHeader::decode(&header)?;
        let mut bytes = vec![0; usize::try_from(manifest_len).unwrap_or(usize::MAX)];
        read_within(&mut reader, &mut bytes, len, 16)?;
        let signed = SignedManifest::parse(bytes)?;
        let layout = Layout::of(manifest_len, signed.unverified())?;
        if len < layout.file_len {
            return Err(OpenError::Truncated {
                len,
                needed: layout.file_len,
            });
        }
        if len > layout.file_len {
            return Err(OpenError::Trailing {
                end: layout.file_len,
                extra: len - layout.file_len,
            });
        }
        let pad_len = layout.table.start - layout.manifest.end;
        let mut pad = vec![0; usize::try_from(pad_len).unwrap_or(usize::MAX)];
        reader.read_exact(&mut pad)?;
        match pad
            .iter()
            .zip(layout.manifest.end..)
            .find(|(byte, _)| **byte != 0)
        {
            None => Ok(Self {
                reader,
                signed,
                layout,
            }),
            Some((_, offset)) => Err(OpenError::Padding { offset }),
        }
    }

    /// The manifest and its signatures.
    #[must_use]
    pub fn signed(&self) -> &SignedManifest {
        &self.signed
    }

    /// Where the parts lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Calls `visit` with every chunk in order, as the table lists them; every table page is checked against the manifest.
    ///
    /// # Errors
    ///
    /// The first error of reading the table, or of `visit`.
    pub fn for_each_chunk<E: From<WalkError>>(
        &mut self,
        mut visit: impl FnMut(&mut Self, &Chunk) -> Result<(), E>,
    ) -> Result<(), E> {
        let manifest = self.signed.unverified();
        let mut cursor = Cursor::new(&manifest.table, manifest.size, manifest.stored_size);
        let mut page = [0; PAGE_LEN];
        while !cursor.is_at_end() {
            while let Some(number) = cursor.wanted() {
                let offset = self.layout.page(number).start;
                self.read_at(offset, &mut page)
                    .map_err(|error| E::from(WalkError::Read(error)))?;
                cursor
                    .supply(&page)
                    .map_err(|error| E::from(WalkError::Table { offset, error }))?;
            }
            if let Some(chunk) = cursor.chunk() {
                visit(self, &chunk)?;
                cursor.advance();
            }
        }
        Ok(())
    }

    /// Reads the stored bytes of `chunk` into `stored`, in place of what it holds.
    ///
    /// # Errors
    ///
    /// When reading fails.
    pub fn read_stored(&mut self, chunk: &Chunk, stored: &mut Vec<u8>) -> io::Result<()> {
        stored.resize(usize::try_from(chunk.stored_len).unwrap_or(usize::MAX), 0);
        self.read_at(self.stored_offset(chunk), stored)
    }

    /// Where in the file the stored bytes of `chunk` begin.
    #[must_use]
    pub fn stored_offset(&self, chunk: &Chunk) -> u64 {
        self.layout.chunks.start + chunk.stored_offset
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(offset))?;
        self.reader.read_exact(buf)
    }
}

/// Why a file is no image, or not the whole of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Reading failed.
    #[error("cannot read the image: {0}")]
    Read(#[from] io::Error),
    /// The first 16 bytes are no header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest claims lengths that no file can have.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The file ends early: a download cut off.
    #[error("truncated: the file ends after {len} bytes, its image needs {needed}")]
    Truncated {
        /// Length of the file.
        len: u64,
        /// Length it should have, as far as it is known.
        needed: u64,
    },
    /// Something follows the image.
    #[error("{extra} bytes follow the end of the image at byte {end}")]
    Trailing {
        /// Where the image ends.
        end: u64,
        /// How much follows.
        extra: u64,
    },
    /// The bytes between the manifest and the table are not zero.
    #[error("byte {offset}, between manifest and table, is not zero")]
    Padding {
        /// Offset in the file.
        offset: u64,
    },
}

/// Why the table cannot be walked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// Reading failed.
    #[error("cannot read the image: {0}")]
    Read(io::Error),
    /// A table page is wrong.
    #[error("at byte {offset}: {error}")]
    Table {
        /// Offset of the page in the file.
        offset: u64,
        /// What is wrong with it.
        error: TableError,
    },
}

const PAGE_LEN: usize = 4096;
const _: () = assert!(PAGE_SIZE == 4096);

fn read_within(
    reader: &mut impl Read,
    buf: &mut [u8],
    len: u64,
    start: u64,
) -> Result<(), OpenError> {
    let needed = start.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
    if len < needed {
        return Err(OpenError::Truncated { len, needed });
    }
    Ok(reader.read_exact(buf)?)
}
