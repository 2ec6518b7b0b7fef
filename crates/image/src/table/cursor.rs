use alloc::boxed::Box;
use alloc::vec::Vec;

use super::page::{self, ENTRIES, PAGE_LEN, Page};
use super::tree::{Step, Tree};
use super::{Chunk, TableInfo};
use crate::Hash;

/// Walks the chunks of an image through its table, page by page, each page verified before it is believed.
///
/// It does no input: [`wanted`](Self::wanted) says which page it needs next, the caller gets it from wherever (file, slot, range request,
/// peer) and hands it to [`supply`](Self::supply). It holds the pages from the root to one leaf and no more: at most 5 pages, whatever the
/// size of the image. A walk from chunk 0 to the end wants pages 0, 1, 2, … each exactly once, so a streamed table is verified as it
/// passes; [`seek`](Self::seek) to any chunk wants only the pages on the way to it.
///
/// What [`chunk`](Self::chunk) returns lies within the image and the stored chunks that the manifest claims.
#[derive(Clone, Debug)]
pub struct Cursor {
    table: TableInfo,
    size: u64,
    stored_size: u64,
    tree: Tree,
    /// The chunk the cursor is at; the number of chunks: at the end.
    at: u32,
    /// The verified pages from the root down; fewer than the path to `at` has while pages are wanted.
    held: Vec<Held>,
    /// Raw and stored offset of `at`, while its leaf is held.
    offsets: Option<Offsets>,
    /// Where the last leaf that was held ended: its next chunk and that chunk's offsets.
    seam: (u32, Offsets),
}

#[derive(Clone, Debug)]
struct Held {
    number: u32,
    bytes: Box<Page>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offsets {
    raw: u64,
    stored: u64,
}

impl Cursor {
    /// A cursor at chunk 0 of the table that a manifest describes by `table`, `size` and `stored_size`.
    #[must_use]
    pub fn new(table: &TableInfo, size: u64, stored_size: u64) -> Self {
        Self {
            table: *table,
            size,
            stored_size,
            tree: Tree::of(table.chunks),
            at: 0,
            held: Vec::new(),
            offsets: None,
            seam: (0, Offsets { raw: 0, stored: 0 }),
        }
    }

    /// Moves to chunk number `chunk`; at or beyond the last one, to the end.
    pub fn seek(&mut self, chunk: u32) {
        self.at = chunk.min(self.table.chunks);
        self.offsets = None;
        if self.at == self.table.chunks {
            return;
        }
        let kept = self
            .path()
            .zip(&self.held)
            .take_while(|(step, held)| step.page == held.number)
            .count();
        self.held.truncate(kept);
        if self.is_leaf_held() {
            let offsets = self.offsets_in_leaf(self.at % ENTRIES);
            self.offsets = Some(offsets);
        }
    }

    /// The page it needs to tell about its chunk: its number, for [`Layout::page`](crate::Layout::page). `None`: it has what it needs, or
    /// is at the end.
    #[must_use]
    pub fn wanted(&self) -> Option<u32> {
        self.next_step().map(|step| step.page)
    }

    /// Takes the wanted page. After an error the cursor is as before and still wants it.
    ///
    /// # Errors
    ///
    /// [`TableError::PageLength`] and [`TableError::PageHash`]: the source of the page is at fault, another may do better. Any other: the
    /// image was made wrong, no source can help.
    pub fn supply(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let step = self.next_step().ok_or(TableError::NotWanted)?;
        let number = step.page;
        let bytes: &Page = bytes.try_into().map_err(|_| TableError::PageLength {
            page: number,
            len: bytes.len(),
        })?;
        if Hash::of(bytes) != self.expected_hash() {
            return Err(TableError::PageHash { page: number });
        }
        if step.children == 0 {
            self.check_leaf(number, bytes)?;
        } else if !page::is_index_clear_after(bytes, index(step.children)) {
            return Err(TableError::Unused { page: number });
        }
        self.held.push(Held {
            number,
            bytes: Box::new(*bytes),
        });
        if self.is_leaf_held() {
            let end = self.offsets_in_leaf(ENTRIES);
            let first = self.at - self.at % ENTRIES;
            self.seam = (first.saturating_add(ENTRIES), end);
            let offsets = self.offsets_in_leaf(self.at % ENTRIES);
            self.offsets = Some(offsets);
        }
        Ok(())
    }

    /// The chunk the cursor is at. `None` while a page is wanted, and at the end.
    #[must_use]
    pub fn chunk(&self) -> Option<Chunk> {
        let Offsets { raw, stored } = self.offsets?;
        let entry = page::entry(&self.held.last()?.bytes, index(self.at % ENTRIES));
        Some(Chunk {
            index: self.at,
            raw_offset: raw,
            raw_len: entry.raw_len,
            stored_offset: stored,
            stored_len: entry.stored_len,
            hash: entry.hash,
        })
    }

    /// Moves to the next chunk.
    pub fn advance(&mut self) {
        let next = self.at.saturating_add(1);
        match self.chunk() {
            Some(chunk) if !next.is_multiple_of(ENTRIES) && next < self.table.chunks => {
                self.at = next;
                self.offsets = Some(Offsets {
                    raw: chunk.raw_offset + u64::from(chunk.raw_len),
                    stored: chunk.stored_offset + u64::from(chunk.stored_len),
                });
            }
            _ => self.seek(next),
        }
    }

    /// Whether every chunk has been passed.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at == self.table.chunks
    }

    /// How many pages the table has.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.tree.page_count()
    }

    fn path(&self) -> impl Iterator<Item = Step> + use<> {
        self.tree.path(self.at / ENTRIES)
    }

    fn next_step(&self) -> Option<Step> {
        if self.is_at_end() {
            return None;
        }
        self.path().nth(self.held.len())
    }

    fn is_leaf_held(&self) -> bool {
        self.held.len() > index(self.tree.height())
    }

    fn expected_hash(&self) -> Hash {
        let parent = self
            .held
            .len()
            .checked_sub(1)
            .and_then(|level| self.path().nth(level));
        match self.held.last().zip(parent) {
            None => self.table.root,
            Some((parent, step)) => page::child(&parent.bytes, index(step.child)),
        }
    }

    /// How many chunks the leaf of `at` lists.
    fn used(&self) -> u32 {
        (self.table.chunks - (self.at - self.at % ENTRIES)).min(ENTRIES)
    }

    /// Offsets of place `place` of the held leaf; a place beyond its last chunk gives the end of the leaf.
    fn offsets_in_leaf(&self, place: u32) -> Offsets {
        let leaf = self.held.last().expect("called with the leaf held");
        let (raw, stored) = page::head(&leaf.bytes);
        let entries = (0..place.min(self.used())).map(|i| page::entry(&leaf.bytes, index(i)));
        entries.fold(Offsets { raw, stored }, |at, entry| Offsets {
            raw: at.raw + u64::from(entry.raw_len),
            stored: at.stored + u64::from(entry.stored_len),
        })
    }

    fn check_leaf(&self, number: u32, leaf: &Page) -> Result<(), TableError> {
        let first = self.at - self.at % ENTRIES;
        let used = self.used();
        if !page::is_leaf_clear_after(leaf, index(used)) {
            return Err(TableError::Unused { page: number });
        }
        let misplaced = TableError::Misplaced { page: number };
        let (mut raw, mut stored) = page::head(leaf);
        let start = (first, Offsets { raw, stored });
        let is_first_astray = first == 0 && (raw, stored) != (0, 0);
        let is_seam_open = first == self.seam.0 && start != self.seam;
        if is_first_astray || is_seam_open {
            return Err(misplaced);
        }
        for place in 0..used {
            let chunk = first + place;
            let entry = page::entry(leaf, index(place));
            let shortest = if chunk + 1 == self.table.chunks {
                1
            } else {
                TableInfo::MIN_CHUNK
            };
            if !(shortest..=self.table.max_chunk).contains(&entry.raw_len) {
                return Err(TableError::RawLength {
                    chunk,
                    len: entry.raw_len,
                });
            }
            if !(1..=entry.raw_len).contains(&entry.stored_len) {
                return Err(TableError::StoredLength {
                    chunk,
                    len: entry.stored_len,
                    raw_len: entry.raw_len,
                });
            }
            raw = raw.checked_add(u64::from(entry.raw_len)).ok_or(misplaced)?;
            stored = stored
                .checked_add(u64::from(entry.stored_len))
                .ok_or(misplaced)?;
        }
        let is_last = first + used == self.table.chunks;
        let is_end_right = if is_last {
            (raw, stored) == (self.size, self.stored_size)
        } else {
            raw < self.size && stored < self.stored_size
        };
        if is_end_right { Ok(()) } else { Err(misplaced) }
    }
}

/// Why a table page is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A page that nobody asked for: a mistake of the caller.
    #[error("a table page was supplied that was not wanted")]
    NotWanted,
    /// The source delivered less or more than a page.
    #[error("table page {page} came with {len} bytes instead of {PAGE_LEN}")]
    PageLength {
        /// The page.
        page: u32,
        /// How many bytes came.
        len: usize,
    },
    /// The source delivered other bytes than the image's maker signed.
    #[error("table page {page} is damaged: its hash is not the one signed for it")]
    PageHash {
        /// The page.
        page: u32,
    },
    /// Something stands where the page has no chunk or child.
    #[error("table page {page} holds something after its last entry")]
    Unused {
        /// The page.
        page: u32,
    },
    /// The offsets of a leaf do not follow from its neighbours or lie outside of the image.
    #[error("table page {page} places its chunks where they cannot be")]
    Misplaced {
        /// The page.
        page: u32,
    },
    /// A chunk shorter or longer than the format and the manifest allow.
    #[error("the table gives chunk {chunk} the impossible length {len}")]
    RawLength {
        /// The chunk.
        chunk: u32,
        /// The raw length claimed.
        len: u32,
    },
    /// A chunk stored in no byte, or in more than it has raw.
    #[error("the table stores chunk {chunk} of {raw_len} bytes in the impossible length {len}")]
    StoredLength {
        /// The chunk.
        chunk: u32,
        /// The stored length claimed.
        len: u32,
        /// The raw length.
        raw_len: u32,
    },
}

/// Places on a page and levels of the tree are small.
fn index(small: impl TryInto<usize>) -> usize {
    small
        .try_into()
        .unwrap_or_else(|_| unreachable!("a place on a page is below 128"))
}
