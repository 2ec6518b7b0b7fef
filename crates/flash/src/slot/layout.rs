use core::ops::Range;

use crate::{Geometry, MANIFEST_MAX};

/// Where things lie in a slot: the image's data from the start, and at the end two copies of what
/// describes it. See `docs/formats/slot.md`.
///
/// ```text
/// 0                              data.end                                      size
/// |            data              | mark | head | table | mark | head | table | rest |
///                                |------ copy 0 -------|------- copy 1 ------|
/// ```
///
/// Every area starts on a multiple of [`unit`](Self::unit) and is one or more units long, so that
/// each can be erased and written without touching another.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotLayout {
    /// The bytes for the image; starts at 0.
    pub data: Range<u64>,
    /// The two places for a manifest, its table and its completion mark.
    pub copies: [CopyLayout; 2],
    /// What every area is aligned to: the least common multiple of 4096, the erase size and the
    /// write size.
    pub unit: u64,
}

/// Where one copy of the description of a slot lies.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CopyLayout {
    /// The completion mark; one unit.
    pub mark: Range<u64>,
    /// The header and the signed manifest.
    pub head: Range<u64>,
    /// The image's chunk table, in pages of 4096 bytes.
    pub table: Range<u64>,
}

impl SlotLayout {
    /// Lays out a slot on flash of this geometry. About 1 % is reserved.
    ///
    /// # Errors
    ///
    /// The flash is too small, or its units are beyond reason.
    pub fn new(geometry: &Geometry) -> Result<Self, LayoutError> {
        let unit = unit(geometry)?;
        let usable = geometry.size / unit * unit;
        let round_up = |len: u64| len.div_ceil(unit) * unit;
        let head = round_up(HEADER_LEN + u64::from(MANIFEST_MAX));
        // Sized by the whole slot rather than by the data that is left: the difference is about
        // 1 % of 1 %, and it needs no fixed point.
        let table = round_up(table_pages(usable / BYTES_PER_CHUNK + SPARE_CHUNKS) * TABLE_PAGE);
        let copy_len = unit + head + table;
        let reserved = 2 * copy_len;
        if usable < reserved + unit {
            return Err(LayoutError::TooSmall {
                size: geometry.size,
                needed: reserved + unit,
            });
        }
        let data_end = usable - reserved;
        let copy = |start: u64| CopyLayout {
            mark: start..start + unit,
            head: start + unit..start + unit + head,
            table: start + unit + head..start + copy_len,
        };
        Ok(Self {
            data: 0..data_end,
            copies: [copy(data_end), copy(data_end + copy_len)],
            unit,
        })
    }

    /// Returns how many bytes of image fit.
    #[must_use]
    pub const fn data_len(&self) -> u64 {
        self.data.end
    }

    /// Returns how many bytes of chunk table fit into a copy.
    #[must_use]
    pub const fn table_len(&self) -> u64 {
        let table = &self.copies[0].table;
        table.end - table.start
    }
}

/// The flash cannot hold a slot.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// Nothing would be left for data: make the slot larger.
    #[error(
        "a slot of {size} bytes is too small: what describes an image alone needs {needed} bytes; make the slot larger"
    )]
    TooSmall {
        /// The size of the flash.
        size: u64,
        /// The smallest size that works with these units.
        needed: u64,
    },
    /// The write size is zero, the erase size is no multiple of it, or their common multiple with
    /// 4096 is beyond 16 MiB; or the size is beyond 2^56 bytes.
    #[error(
        "the flash reports a size of {size} bytes in units of {write_size} (write) and {erase_size} (erase), which no slot can be laid out on"
    )]
    Units {
        /// The size of the flash.
        size: u64,
        /// What the flash reports.
        write_size: u32,
        /// What the flash reports.
        erase_size: u32,
    },
}

fn unit(geometry: &Geometry) -> Result<u64, LayoutError> {
    let write = u64::from(geometry.write_size);
    let erase = u64::from(geometry.erase_size);
    let error = LayoutError::Units {
        size: geometry.size,
        write_size: geometry.write_size,
        erase_size: geometry.erase_size,
    };
    if write == 0 || !erase.is_multiple_of(write) || geometry.size > SIZE_MAX {
        return Err(error);
    }
    let smallest = if erase == 0 { write } else { erase };
    let unit = least_common_multiple(TABLE_PAGE, smallest);
    if unit > UNIT_MAX {
        return Err(error);
    }
    Ok(unit)
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// The pages of the image format's table over so many chunks: the leaves and the index pages above.
fn table_pages(chunks: u64) -> u64 {
    let mut level = chunks.div_ceil(LEAF_ENTRIES);
    let mut pages = level;
    while level > 1 {
        level = level.div_ceil(INDEX_ENTRIES);
        pages += level;
    }
    pages
}

/// The header before the manifest.
pub(crate) const HEADER_LEN: u64 = 128;
/// One page of the image format's chunk table.
const TABLE_PAGE: u64 = 4096;
/// Chunk entries in a leaf page of the image format.
const LEAF_ENTRIES: u64 = 102;
/// Children of an index page of the image format.
const INDEX_ENTRIES: u64 = 128;
/// Half the default average of a chunk: room for images packed finer than the default.
const BYTES_PER_CHUNK: u64 = 8 * 1024;
/// So that small slots take small images packed very fine.
const SPARE_CHUNKS: u64 = 256;
/// Erase blocks of raw NAND reach 4 MiB; more is a mistake of the backend.
const UNIT_MAX: u64 = 16 << 20;
/// Far beyond any flash; keeps the arithmetic here within a `u64`.
const SIZE_MAX: u64 = 1 << 56;
