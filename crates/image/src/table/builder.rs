use alloc::vec;
use alloc::vec::Vec;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::page::{self, CHILDREN, ENTRIES, Entry, PAGE_LEN};
use super::tree::Tree;
use super::{PAGE_SIZE, TableInfo};
use crate::Hash;

/// A table entry on its way through the spool.
pub(crate) const SPOOLED_ENTRY_LEN: usize = 40;

/// The entry as it is spooled.
pub(crate) fn spooled_entry(hash: &Hash, raw_len: u32, stored_len: u32) -> [u8; SPOOLED_ENTRY_LEN] {
    let mut bytes = [0; SPOOLED_ENTRY_LEN];
    bytes[..32].copy_from_slice(hash.as_bytes());
    bytes[32..36].copy_from_slice(&raw_len.to_le_bytes());
    bytes[36..].copy_from_slice(&stored_len.to_le_bytes());
    bytes
}

/// Writes the pages of a table of `chunks` chunks to `out` from its offset `at` on, and returns the hash of page 0.
///
/// The entries are read once; it holds one page for each level of the tree.
pub(crate) fn write_table(
    chunks: u32,
    entries: &mut impl Read,
    out: &mut (impl Write + Seek),
    at: u64,
) -> io::Result<Hash> {
    let tree = Tree::of(chunks);
    let leaves = chunks.div_ceil(TableInfo::CHUNKS_PER_LEAF);
    let mut indexes = vec![[0; PAGE_LEN]; level(tree.height())];
    let mut offsets = (0, 0);
    let mut hash = Hash::from_bytes([0; 32]);
    for leaf in 0..leaves {
        let used = (chunks - leaf * ENTRIES).min(ENTRIES);
        let mut bytes = [0; PAGE_LEN];
        page::set_head(&mut bytes, offsets.0, offsets.1);
        for place in 0..used {
            let entry = read_entry(entries)?;
            offsets.0 += u64::from(entry.raw_len);
            offsets.1 += u64::from(entry.stored_len);
            page::set_entry(&mut bytes, level(place), &entry);
        }
        let path: Vec<_> = tree.path(leaf).collect();
        let mut is_complete = true;
        for (depth, step) in path.iter().enumerate().rev() {
            if let Some(index) = indexes.get_mut(depth) {
                page::set_child(index, level_u64(step.child), &hash);
                is_complete = step.child + 1 == step.children;
                debug_assert!(step.children <= CHILDREN);
                if !is_complete {
                    break;
                }
                bytes = core::mem::replace(index, [0; PAGE_LEN]);
            }
            out.seek(SeekFrom::Start(
                at + u64::from(step.page) * u64::from(PAGE_SIZE),
            ))?;
            out.write_all(&bytes)?;
            hash = Hash::of(&bytes);
        }
        debug_assert!(is_complete || leaf + 1 < leaves);
    }
    Ok(hash)
}

fn read_entry(entries: &mut impl Read) -> io::Result<Entry> {
    let mut bytes = [0; SPOOLED_ENTRY_LEN];
    entries.read_exact(&mut bytes)?;
    let [hash @ .., r0, r1, r2, r3, s0, s1, s2, s3] = bytes;
    Ok(Entry {
        hash: Hash::from_bytes(hash),
        raw_len: u32::from_le_bytes([r0, r1, r2, r3]),
        stored_len: u32::from_le_bytes([s0, s1, s2, s3]),
    })
}

fn level(small: u32) -> usize {
    usize::try_from(small).expect("a place on a page is below 128")
}

fn level_u64(small: u64) -> usize {
    usize::try_from(small).expect("a place on a page is below 128")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor as Buffer;

    use super::*;
    use crate::{Chunk, Cursor, TableError};

    /// A table of `chunks` chunks of 1024 to 1123 bytes, every third stored in half of its length.
    struct Table {
        info: TableInfo,
        chunks: Vec<Chunk>,
        pages: Vec<[u8; PAGE_LEN]>,
    }

    impl Table {
        fn of(chunks: u32) -> Self {
            let mut listed = Vec::new();
            let mut spool = Vec::new();
            let (mut raw_offset, mut stored_offset) = (0, 0);
            for index in 0..chunks {
                let raw_len = 1024 + index % 100;
                let stored_len = if index % 3 == 0 { raw_len / 2 } else { raw_len };
                let hash = Hash::of(&index.to_le_bytes());
                spool.extend_from_slice(&spooled_entry(&hash, raw_len, stored_len));
                listed.push(Chunk {
                    index,
                    raw_offset,
                    raw_len,
                    stored_offset,
                    stored_len,
                    hash,
                });
                raw_offset += u64::from(raw_len);
                stored_offset += u64::from(stored_len);
            }
            let mut out = Buffer::new(Vec::new());
            let root = write_table(chunks, &mut spool.as_slice(), &mut out, 0).unwrap();
            let (pages, rest) = out.get_ref().as_chunks();
            assert_eq!(rest, []);
            Self {
                info: TableInfo {
                    chunks,
                    max_chunk: 2048,
                    root,
                },
                chunks: listed,
                pages: pages.to_vec(),
            }
        }

        fn cursor(&self) -> Cursor {
            let last = self.chunks.last().unwrap();
            Cursor::new(
                &self.info,
                last.raw_offset + u64::from(last.raw_len),
                last.stored_offset + u64::from(last.stored_len),
            )
        }

        /// Supplies what is wanted and returns which pages that were.
        fn supply(&self, cursor: &mut Cursor) -> Vec<u32> {
            let mut wanted = Vec::new();
            while let Some(page) = cursor.wanted() {
                wanted.push(page);
                cursor.supply(&self.pages[level(page)]).unwrap();
            }
            wanted
        }
    }

    const EDGES: [u32; 9] = [1, 101, 102, 103, 204, 205, 128 * 102, 128 * 102 + 1, 30_000];

    #[test]
    fn a_walk_wants_every_page_once_in_order_and_lists_every_chunk() {
        for chunks in EDGES {
            let table = Table::of(chunks);
            let mut cursor = table.cursor();
            assert_eq!(
                cursor.page_count(),
                u32::try_from(table.pages.len()).unwrap()
            );
            let mut wanted = Vec::new();
            let mut seen = Vec::new();
            while !cursor.is_at_end() {
                wanted.extend(table.supply(&mut cursor));
                seen.push(cursor.chunk().unwrap());
                cursor.advance();
            }
            assert!(
                wanted.iter().copied().eq(0..cursor.page_count()),
                "{chunks}"
            );
            assert_eq!(seen, table.chunks);
            assert_eq!((cursor.chunk(), cursor.wanted()), (None, None));
        }
    }

    #[test]
    fn a_seek_wants_only_the_way_to_its_chunk() {
        let table = Table::of(30_000);
        let mut cursor = table.cursor();
        for (chunk, pages) in [
            (29_999, 3),
            (29_990, 0),
            (0, 2),
            (101, 0),
            (102, 1),
            (50, 1),
            (20_000, 2),
        ] {
            cursor.seek(chunk);
            assert_eq!(table.supply(&mut cursor).len(), pages, "{chunk}");
            assert_eq!(cursor.chunk(), Some(table.chunks[level(chunk)]));
        }
        cursor.seek(u32::MAX);
        assert!(cursor.is_at_end());
    }

    #[test]
    fn a_wrong_page_leaves_the_cursor_as_it_was() {
        let table = Table::of(500);
        let mut cursor = table.cursor();
        cursor.supply(&table.pages[0]).unwrap();
        let mut damaged = table.pages[1];
        damaged[4095] ^= 1;
        for (page, error) in [
            (&damaged[..], TableError::PageHash { page: 1 }),
            (&table.pages[2], TableError::PageHash { page: 1 }),
            (&damaged[1..], TableError::PageLength { page: 1, len: 4095 }),
        ] {
            assert_eq!(cursor.supply(page), Err(error));
            assert_eq!(cursor.wanted(), Some(1));
        }
        cursor.supply(&table.pages[1]).unwrap();
        assert_eq!(cursor.chunk(), Some(table.chunks[0]));
        assert_eq!(cursor.supply(&table.pages[2]), Err(TableError::NotWanted));
    }

    /// A leaf that its maker signed, changed by `change`, against a manifest of three chunks of 2000 bytes.
    fn signed_leaf(change: impl Fn(&mut [u8; PAGE_LEN])) -> Result<(), TableError> {
        let mut leaf = [0; PAGE_LEN];
        for place in 0..3 {
            let entry = Entry {
                hash: Hash::of(b"chunk"),
                raw_len: 2000,
                stored_len: 2000,
            };
            page::set_entry(&mut leaf, place, &entry);
        }
        change(&mut leaf);
        let info = TableInfo {
            chunks: 3,
            max_chunk: 2048,
            root: Hash::of(&leaf),
        };
        Cursor::new(&info, 6000, 6000).supply(&leaf)
    }

    #[test]
    fn a_leaf_that_was_made_wrong_is_refused_though_signed() {
        let lens = |place: usize, raw: u32, stored: u32| {
            move |leaf: &mut [u8; PAGE_LEN]| {
                let at = 16 + place * 40 + 32;
                leaf[at..at + 4].copy_from_slice(&raw.to_le_bytes());
                leaf[at + 4..at + 8].copy_from_slice(&stored.to_le_bytes());
            }
        };
        let refused = |chunk, len| Err(TableError::RawLength { chunk, len });
        assert_eq!(signed_leaf(|_| ()), Ok(()));
        assert_eq!(signed_leaf(lens(1, 2049, 2000)), refused(1, 2049));
        assert_eq!(signed_leaf(lens(1, 1023, 1023)), refused(1, 1023));
        assert_eq!(signed_leaf(lens(2, 0, 0)), refused(2, 0));
        for (raw_len, len) in [(2000, 0), (2000, 2001), (2000, u32::MAX)] {
            let error = TableError::StoredLength {
                chunk: 0,
                len,
                raw_len,
            };
            assert_eq!(signed_leaf(lens(0, raw_len, len)), Err(error));
        }
        let misplaced = Err(TableError::Misplaced { page: 0 });
        assert_eq!(signed_leaf(lens(2, 2001, 2000)), misplaced);
        assert_eq!(signed_leaf(lens(2, 2000, 1999)), misplaced);
        assert_eq!(signed_leaf(|leaf| leaf[0] = 1), misplaced);
        assert_eq!(signed_leaf(|leaf| leaf[8] = 1), misplaced);
        assert_eq!(signed_leaf(|leaf| leaf[..16].fill(0xff)), misplaced);
        let unused = Err(TableError::Unused { page: 0 });
        assert_eq!(signed_leaf(|leaf| leaf[16 + 3 * 40] = 1), unused);
        assert_eq!(signed_leaf(|leaf| leaf[4095] = 1), unused);
    }

    #[test]
    fn leaves_that_do_not_meet_are_refused() {
        let table = Table::of(204);
        let mut second = table.pages[2];
        second[0] ^= 1;
        let mut index = [0; PAGE_LEN];
        page::set_child(&mut index, 0, &Hash::of(&table.pages[1]));
        page::set_child(&mut index, 1, &Hash::of(&second));
        let info = TableInfo {
            root: Hash::of(&index),
            ..table.info
        };
        let mut cursor = Cursor::new(&info, 1 << 30, 1 << 30);
        cursor.supply(&index).unwrap();
        cursor.supply(&table.pages[1]).unwrap();
        cursor.seek(102);
        assert_eq!(
            cursor.supply(&second),
            Err(TableError::Misplaced { page: 2 })
        );
    }
}
