use core::ops::Range;

use rekindle_flash::Geometry;

use crate::change::Change;
use crate::random::Random;

/// The cells of simulated flash: bytes, and for each write unit whether it may be written.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    bytes: Vec<u8>,
    /// One for each write unit; empty where the medium overwrites.
    units: Vec<Unit>,
    write_size: usize,
    erase_size: usize,
    /// What a torn write leaves as garbage reads differently each time.
    unstable: bool,
    /// Such places.
    flickering: Vec<Range<usize>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unit {
    Erased,
    /// Written, torn or half erased: to be erased before the next write.
    Used,
}

/// What the torn piece of an operation holds: a word of a write, a block of an erase.
#[expect(clippy::exhaustive_enums, reason = "an enumeration goes through all")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Torn {
    /// It reads as before; where it would have to be erased before the next write, it has to be.
    Old,
    /// It reads as it should, and has to be erased before the next write all the same: an erased
    /// block would not keep what is written to it.
    New,
    /// Its first half is new and the second one old.
    Half,
    /// Anything; on media that are [unstable](crate::Preset::unstable) it reads differently each time.
    Garbage,
}

impl Cells {
    pub(crate) fn new(geometry: &Geometry, unstable: bool) -> Self {
        let size = index(geometry.size);
        let write_size = index(geometry.write_size.into());
        let erase_size = index(geometry.erase_size.into());
        assert!(
            write_size > 0
                && size.is_multiple_of(write_size)
                && (erase_size == 0
                    || erase_size.is_multiple_of(write_size) && size.is_multiple_of(erase_size)),
            "{geometry:?} is no geometry: sizes must be multiples of the units"
        );
        let erasable = erase_size != 0;
        Self {
            bytes: vec![if erasable { ERASED } else { 0 }; size],
            units: vec![Unit::Erased; if erasable { size / write_size } else { 0 }],
            write_size,
            erase_size,
            unstable,
            flickering: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `noise`: what flickering places show this time.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8], noise: impl FnOnce() -> Random) {
        let start = index(offset);
        let end = start + buf.len();
        buf.copy_from_slice(&self.bytes[start..end]);
        if self.flickering.is_empty() {
            return;
        }
        let mut random = noise();
        for place in &self.flickering {
            let shown = place.start.max(start)..place.end.min(end);
            if shown.start < shown.end {
                for byte in &mut buf[shown.start - start..shown.end - start] {
                    *byte = random.byte();
                }
            }
        }
    }

    pub(crate) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        let start = index(offset);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Returns the offset of the first unit of the range that must be erased before it is written.
    pub(crate) fn first_not_erased(&self, range: &Range<u64>) -> Option<u64> {
        let units = self.units_of(&indices(range));
        let first = units.start;
        self.units
            .get(units)?
            .iter()
            .position(|unit| *unit == Unit::Used)
            .and_then(|position| u64::try_from((first + position) * self.write_size).ok())
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        let range = indices(&change.range());
        match change.data() {
            Some(data) => self.program(range, data),
            None => self.clear(range),
        }
    }

    /// Into how many pieces a cut can fall: words of `word` bytes of a write, blocks of an erase.
    pub(crate) fn pieces(&self, change: &Change, word: usize) -> usize {
        let range = indices(&change.range());
        let piece = self.piece(change, word);
        range.end.div_ceil(piece) - range.start / piece
    }

    /// Does what a cut inside piece number `at` leaves: those before it are done, those behind it
    /// are not.
    pub(crate) fn tear(
        &mut self,
        change: &Change,
        word: usize,
        at: usize,
        torn: Torn,
        random: &mut Random,
    ) {
        let range = indices(&change.range());
        let piece = self.piece(change, word);
        let first = range.start / piece * piece;
        let start = (first + at * piece).max(range.start);
        let end = (first + (at + 1) * piece).min(range.end);
        let data = change.data();
        self.partial(data, &range, range.start..start);
        self.tear_piece(data, &range, start..end, torn, random);
    }

    /// Does what a cut leaves where each piece is on its own: done, not begun, or torn.
    pub(crate) fn scatter(&mut self, change: &Change, word: usize, random: &mut Random) {
        let range = indices(&change.range());
        let piece = self.piece(change, word);
        let mut start = range.start;
        while start < range.end {
            let end = (start / piece * piece + piece).min(range.end);
            let data = change.data();
            match random.below(9) {
                0..=2 => {}
                3..=5 => self.partial(data, &range, start..end),
                6 => self.tear_piece(data, &range, start..end, Torn::Half, random),
                7 => self.tear_piece(data, &range, start..end, Torn::New, random),
                _ => self.tear_piece(data, &range, start..end, Torn::Garbage, random),
            }
            start = end;
        }
    }

    /// Does a piece of a change to `range`.
    fn partial(&mut self, data: Option<&[u8]>, range: &Range<usize>, piece: Range<usize>) {
        match data {
            Some(data) => {
                let data = &data[piece.start - range.start..piece.end - range.start];
                self.program(piece, data);
            }
            None => self.clear(piece),
        }
    }

    fn tear_piece(
        &mut self,
        data: Option<&[u8]>,
        range: &Range<usize>,
        piece: Range<usize>,
        torn: Torn,
        random: &mut Random,
    ) {
        match torn {
            Torn::Old => {}
            Torn::New => self.partial(data, range, piece.clone()),
            Torn::Half => {
                let half = piece.start + piece.len() / 2;
                let old = self.bytes[half..piece.end].to_vec();
                self.partial(data, range, piece.clone());
                self.bytes[half..piece.end].copy_from_slice(&old);
            }
            Torn::Garbage => {
                for byte in &mut self.bytes[piece.clone()] {
                    *byte = random.byte();
                }
                if self.unstable && data.is_some() {
                    self.flickering.push(piece.clone());
                }
            }
        }
        self.set_units(&piece, Unit::Used);
    }

    fn program(&mut self, range: Range<usize>, data: &[u8]) {
        if self.erase_size == 0 {
            self.steady(&range);
            self.bytes[range].copy_from_slice(data);
            return;
        }
        // Where an erase before it was lost, bits can only be cleared.
        for (byte, new) in self.bytes[range.clone()].iter_mut().zip(data) {
            *byte &= new;
        }
        self.set_units(&range, Unit::Used);
    }

    fn clear(&mut self, range: Range<usize>) {
        self.steady(&range);
        self.set_units(&range, Unit::Erased);
        self.bytes[range].fill(ERASED);
    }

    /// The range was erased or overwritten: it reads as it should again.
    fn steady(&mut self, range: &Range<usize>) {
        self.flickering
            .retain(|place| place.end <= range.start || place.start >= range.end);
    }

    /// How long the pieces are that a cut leaves whole or tears.
    fn piece(&self, change: &Change, word: usize) -> usize {
        match change {
            Change::Write { .. } => word.max(self.write_size),
            Change::Erase(_) => self.erase_size.max(1),
        }
    }

    fn set_units(&mut self, range: &Range<usize>, state: Unit) {
        let units = self.units_of(range);
        if let Some(units) = self.units.get_mut(units) {
            units.fill(state);
        }
    }

    fn units_of(&self, range: &Range<usize>) -> Range<usize> {
        range.start / self.write_size..range.end / self.write_size
    }
}

fn indices(range: &Range<u64>) -> Range<usize> {
    index(range.start)..index(range.end)
}

pub(crate) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated flash fits into memory")
}

/// What erased flash reads as.
const ERASED: u8 = 0xff;
