//! The plan: where each missing chunk comes from, for so many of them at a time.
//!
//! The missing chunks are listed, the chunk tables on this device are passed by once to find where
//! they lie, and what no flash has is joined into ranges. The list is short and the tables are read
//! page by page, so that memory does not grow with the image or with the donors. Only the beginning of
//! each hash is kept: a chunk found by a wrong one costs a fetch.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use rekindle_image::{Chunk, Cursor, RangeJoiner, TableInfo};

use super::bitmap::Bitmap;
use super::donor::HeldTable;
use super::{Converge, ConvergeError, Flow, Need, Op, Region, Stage};

/// What is being done about the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planning {
    /// Lists missing chunks from this one on.
    List { chunk: u32 },
    /// Looks for them in this chunk of this table. A page that was bad once is not read a third time.
    Search {
        table: usize,
        chunk: u32,
        bad: Option<u32>,
    },
    /// Joins those that must be fetched, from this entry on.
    Join { entry: usize },
}

/// A chunk table that lies on this device.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) place: Place,
    start: u64,
    info: TableInfo,
    size: u64,
    stored_size: u64,
    data_end: u64,
}

/// On what flash chunks lie, as a number that fits into eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u8);

impl Place {
    /// In the target, where the image itself has them.
    pub(super) const OWN: Self = Self(0);
    /// In the target, where the image before had them.
    pub(super) const OLD: Self = Self(1);
    const DONORS: u8 = 2;

    pub(super) fn donor(number: usize) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        number.checked_add(Self::DONORS).map(Self)
    }

    pub(super) fn region(self) -> Region {
        match self.0.checked_sub(Self::DONORS) {
            None => Region::Target,
            Some(number) => Region::Donor(number),
        }
    }
}

/// Where a chunk comes from, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin(u64);

impl Origin {
    const FETCH: Self = Self(u64::MAX);

    /// Offsets in a slot are below 2^56.
    fn at(place: Place, offset: u64) -> Self {
        Self((u64::from(place.0) << 56) | offset)
    }

    fn place(self) -> Option<(Place, u64)> {
        let [code, offset @ ..] = self.0.to_be_bytes();
        let [a, b, c, d, e, f, g] = offset;
        let offset = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
        (self != Self::FETCH).then_some((Place(code), offset))
    }
}

/// One missing chunk.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// While it is looked for, the beginning of its hash and its place in the list; then its number.
    key: u64,
    origin: Origin,
}

/// Where the missing chunks of a stretch of the image come from.
#[derive(Debug)]
pub(super) struct Plan {
    limit: usize,
    entries: Vec<Entry>,
    /// The next one to be loaded.
    at: usize,
    /// The first chunk that it is about.
    base: u32,
    /// The first chunk behind it.
    end: u32,
    /// Entries that no flash is known to have.
    wanting: usize,
    joiner: RangeJoiner,
    requests: VecDeque<Range<u64>>,
    ahead: usize,
}

impl Plan {
    pub(super) fn new(limit: u16, join_gap: u64, ahead: usize) -> Self {
        Self {
            limit: usize::from(limit.clamp(1, MOST)),
            entries: Vec::new(),
            at: 0,
            base: 0,
            end: 0,
            wanting: 0,
            joiner: RangeJoiner::new(join_gap),
            requests: VecDeque::new(),
            ahead,
        }
    }

    pub(super) fn base(&self) -> u32 {
        self.base
    }

    pub(super) fn clear(&mut self, base: u32) {
        self.entries.clear();
        self.requests.clear();
        self.at = 0;
        self.base = base;
        self.end = base;
    }

    /// The chunk to be loaded next; `None`: what follows is not planned yet.
    pub(super) fn next(&self) -> Option<u32> {
        let entry = self.entries.get(self.at)?;
        u32::try_from(entry.key).ok()
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// Where on this device the chunk to be loaded next lies; `None`: it must be fetched.
    pub(super) fn copy(&self) -> Option<(Place, u64)> {
        self.entries.get(self.at)?.origin.place()
    }

    /// The chunk to be loaded next is not where it should be.
    pub(super) fn fetch_instead(&mut self) {
        if let Some(entry) = self.entries.get_mut(self.at) {
            entry.origin = Origin::FETCH;
        }
    }

    /// Whether the chunk after the next one lies at `offset`.
    pub(super) fn goes_on_at(&self, place: Place, offset: u64) -> bool {
        let next = self.entries.get(self.at + 1);
        next.is_some_and(|next| next.origin == Origin::at(place, offset))
    }

    /// The range to be asked for that begins with this chunk; a chunk that was to be copied and
    /// cannot be is a range of its own.
    pub(super) fn request(&mut self, chunk: Range<u64>) -> Range<u64> {
        match self.requests.front() {
            Some(front) if front.start == chunk.start => self.requests.pop_front().unwrap_or(chunk),
            _ => chunk,
        }
    }

    /// What will be asked for next.
    pub(super) fn announced(&mut self) -> &[Range<u64>] {
        let count = self.ahead.min(self.requests.len());
        &self.requests.make_contiguous()[..count]
    }

    /// Lists a missing chunk; whether there was room.
    fn list(&mut self, chunk: &Chunk) -> bool {
        let Ok(place) = u16::try_from(self.entries.len()) else {
            return false;
        };
        if self.entries.len() >= self.limit {
            return false;
        }
        self.entries.push(Entry {
            key: prefix_of(chunk) | u64::from(place),
            // For the chunks that are the same as this one.
            origin: Origin::at(Place::OWN, chunk.raw_offset),
        });
        self.end = chunk.index + 1;
        true
    }

    /// Of chunks that are the same the first is looked for, and the others are copied from it.
    fn sort(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.key);
        self.wanting = 0;
        let mut first: Option<Entry> = None;
        for entry in &mut self.entries {
            match first.filter(|first| first.key & PREFIX == entry.key & PREFIX) {
                Some(first) => entry.origin = first.origin,
                None => {
                    first = Some(*entry);
                    entry.origin = Origin::FETCH;
                    self.wanting += 1;
                }
            }
        }
    }

    /// Takes note of a chunk that lies on this device.
    fn find(&mut self, place: Place, chunk: &Chunk) {
        let prefix = prefix_of(chunk);
        let first = self.entries.partition_point(|entry| entry.key < prefix);
        let Some(entry) = self.entries.get_mut(first) else {
            return;
        };
        if entry.key & PREFIX == prefix && entry.origin == Origin::FETCH {
            entry.origin = Origin::at(place, chunk.raw_offset);
            self.wanting -= 1;
        }
    }

    /// Puts the entries in the order of the image.
    fn order(&mut self, good: &Bitmap) {
        self.entries
            .sort_unstable_by_key(|entry| entry.key & !PREFIX);
        let mut index = self.base;
        for entry in &mut self.entries {
            index = good.first_unset(index).unwrap_or(index);
            entry.key = u64::from(index);
            index += 1;
        }
    }
}

impl Converge {
    /// Begins a pass over the chunks that are missing, or ends where none is.
    pub(super) fn begin_pass(&mut self) {
        self.next = 0;
        self.run_end = 0;
        self.plan.clear(0);
        self.open = None;
        self.stage = if self.good.first_unset(0).is_none() {
            Stage::Load
        } else {
            Stage::Plan(Planning::List { chunk: 0 })
        };
    }

    /// Plans anew from this chunk on.
    pub(super) fn plan_from(&mut self, chunk: u32) {
        if !self.plan.requests.is_empty() {
            self.ops.push_back(Op::Announce);
        }
        self.list_from(chunk);
    }

    fn list_from(&mut self, chunk: u32) {
        self.plan.clear(chunk);
        self.stage = Stage::Plan(Planning::List { chunk });
    }

    pub(super) fn make_plan(&mut self, planning: Planning) -> Result<Flow, ConvergeError> {
        match planning {
            Planning::List { chunk } => self.list(chunk),
            Planning::Search { table, chunk, bad } => Ok(self.search(table, chunk, bad)),
            Planning::Join { entry } => self.join(entry),
        }
    }

    fn list(&mut self, from: u32) -> Result<Flow, ConvergeError> {
        if let Some(index) = self.good.first_unset(from) {
            let Some(chunk) = self.chunk(index)? else {
                return Ok(Flow::Wait);
            };
            if self.plan.list(&chunk) {
                self.stage = Stage::Plan(Planning::List { chunk: index + 1 });
                return Ok(Flow::Go);
            }
        }
        self.plan.sort();
        self.begin_search(0);
        Ok(Flow::Go)
    }

    fn begin_search(&mut self, table: usize) {
        let Some(known) = self.known.get(table).filter(|_| self.plan.wanting > 0) else {
            self.plan.order(&self.good);
            self.searched = None;
            self.loaded_page = None;
            self.stage = Stage::Plan(Planning::Join { entry: 0 });
            return;
        };
        self.loaded_page = None;
        self.searched = Some(Cursor::new(&known.info, known.size, known.stored_size));
        self.stage = Stage::Plan(Planning::Search {
            table,
            chunk: 0,
            bad: None,
        });
    }

    fn search(&mut self, table: usize, chunk: u32, bad: Option<u32>) -> Flow {
        let (Some(known), Some(cursor)) = (self.known.get(table), &mut self.searched) else {
            self.begin_search(table + 1);
            return Flow::Go;
        };
        if chunk >= known.info.chunks || self.plan.wanting == 0 {
            self.begin_search(table + 1);
            return Flow::Go;
        }
        cursor.seek(chunk);
        if let Some(page) = cursor.wanted() {
            if self.loaded_page.take() != Some(page) {
                self.need = Some(Need::ReadKnown {
                    table,
                    number: page,
                });
                return Flow::Wait;
            }
            if cursor.supply(&self.page).is_err() {
                if bad == Some(page) {
                    // Not a leaf: all that follows hangs on it.
                    self.begin_search(table + 1);
                } else {
                    self.stage = Stage::Plan(Planning::Search {
                        table,
                        chunk: next_leaf(chunk),
                        bad: Some(page),
                    });
                }
            }
            return Flow::Go;
        }
        let next = next_leaf(chunk);
        while let Some(chunk) = cursor.chunk().filter(|chunk| chunk.index < next) {
            let there = known.place != Place::OWN
                || chunk.index < self.plan.base
                || self.good.get(chunk.index);
            if there {
                self.plan.find(known.place, &chunk);
            }
            cursor.advance();
        }
        self.stage = Stage::Plan(Planning::Search {
            table,
            chunk: next,
            bad,
        });
        Flow::Go
    }

    fn join(&mut self, at: usize) -> Result<Flow, ConvergeError> {
        let Some(entry) = self.plan.entries.get(at).copied() else {
            let last = self.plan.joiner.finish();
            self.plan.requests.extend(last);
            return self.end_plan();
        };
        let index = u32::try_from(entry.key).unwrap_or(u32::MAX);
        let Some(chunk) = self.chunk(index)? else {
            return Ok(Flow::Wait);
        };
        let mut origin = entry.origin;
        if let Some((Place::OLD, offset)) = origin.place()
            && offset < chunk.raw_offset
        {
            // Overwritten by the time.
            origin = Origin::FETCH;
            self.plan.entries[at].origin = origin;
        }
        if origin == Origin::FETCH {
            let range = self.stored_range(&chunk);
            let whole = self.plan.joiner.push(range);
            self.plan.requests.extend(whole);
        }
        self.stage = Stage::Plan(Planning::Join { entry: at + 1 });
        Ok(Flow::Go)
    }

    /// The plan stands. Where there is a limit, the plan of the whole image is held against it before
    /// the first chunk is fetched.
    fn end_plan(&mut self) -> Result<Flow, ConvergeError> {
        if let Some(before) = self.foreseen {
            let requests = self.plan.requests.iter();
            let cost: u64 = requests.map(|range| self.cost(range)).sum();
            let cost = before.saturating_add(cost);
            if self.good.first_unset(self.plan.end).is_some() {
                self.foreseen = Some(cost);
                self.list_from(self.plan.end);
                return Ok(Flow::Go);
            }
            self.afford(cost)?;
            self.foreseen = None;
            if self.plan.base != self.next {
                self.list_from(self.next);
                return Ok(Flow::Go);
            }
        }
        self.begin_load();
        Ok(Flow::Go)
    }

    /// Whether so many more bytes may be fetched.
    pub(super) fn afford(&self, more: u64) -> Result<(), ConvergeError> {
        let needed = self.spent.saturating_add(more);
        match self.transfer.max_download {
            Some(limit) if needed > limit => Err(ConvergeError::Budget { needed, limit }),
            Some(_) | None => Ok(()),
        }
    }

    /// What a range costs to be fetched.
    pub(super) fn cost(&self, range: &Range<u64>) -> u64 {
        range
            .end
            .saturating_sub(range.start.max(self.transfer.at_hand))
    }

    /// Where a chunk's stored bytes lie in the image file.
    pub(super) fn stored_range(&self, chunk: &Chunk) -> Range<u64> {
        let start = self.image.chunks.start + chunk.stored_offset;
        start..start + u64::from(chunk.stored_len)
    }

    /// Copies nothing more from there, and plans anew from this chunk on.
    pub(super) fn abandon(&mut self, place: Place, from: u32) {
        self.known.retain(|known| known.place != place);
        self.plan_from(from);
    }

    /// Where what lies in this place ends.
    pub(super) fn end_of(&self, place: Place) -> u64 {
        let known = self.known.iter().find(|known| known.place == place);
        known.map_or(self.slot.data.end, |known| known.data_end)
    }

    pub(super) fn known_page(&self, table: usize, number: u32) -> (Region, u64) {
        let known = self.known.get(table);
        known.map_or((Region::Target, 0), |known| {
            let offset = u64::from(number) * u64::from(rekindle_image::PAGE_SIZE);
            (known.place.region(), known.start + offset)
        })
    }
}

impl Known {
    pub(super) fn of(place: Place, table: &HeldTable) -> Self {
        Self {
            place,
            start: table.start,
            info: table.manifest.table,
            size: table.manifest.size,
            stored_size: table.manifest.stored_size,
            data_end: table.data_end,
        }
    }
}

/// The first chunk of the leaf after this chunk's.
pub(super) fn next_leaf(chunk: u32) -> u32 {
    (chunk / TableInfo::CHUNKS_PER_LEAF + 1).saturating_mul(TableInfo::CHUNKS_PER_LEAF)
}

/// The first 48 bits of a chunk's hash, above the 16 of an entry's place.
fn prefix_of(chunk: &Chunk) -> u64 {
    let [a, b, c, d, e, f, ..] = *chunk.hash.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

const PREFIX: u64 = !0xffff;

/// What a plan takes is a promise.
const _: () = assert!(size_of::<Entry>() == 16);

/// Entries are counted in 16 bits.
const MOST: u16 = 1 << 15;
