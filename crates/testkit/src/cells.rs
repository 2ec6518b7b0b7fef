use core::ops::Range;

use rekindle_flash::Geometry;

use crate::power::Power;

/// The cells of simulated flash: bytes, and for each write unit whether it may be written.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    bytes: Vec<u8>,
    /// One for each write unit; empty where the medium overwrites.
    units: Vec<Unit>,
    write_size: usize,
    erase_size: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unit {
    Erased,
    /// Written, torn or half erased: to be erased before the next write.
    Used,
}

impl Cells {
    pub(crate) fn new(geometry: &Geometry) -> Self {
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
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) {
        let start = index(offset);
        buf.copy_from_slice(&self.bytes[start..start + buf.len()]);
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

    /// Writes the data, or erases for `None`.
    pub(crate) fn apply(&mut self, range: &Range<u64>, data: Option<&[u8]>) {
        let range = indices(range);
        match data {
            Some(data) => self.program(range, data),
            None => self.clear(range),
        }
    }

    /// Writes or erases as a power cut leaves it.
    pub(crate) fn tear(&mut self, range: &Range<u64>, data: Option<&[u8]>, power: &Power) {
        let range = indices(range);
        match data {
            Some(data) => self.tear_write(&range, data, power),
            None => self.tear_erase(&range, power),
        }
    }

    fn program(&mut self, range: Range<usize>, data: &[u8]) {
        if self.erase_size == 0 {
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
        self.set_units(&range, Unit::Erased);
        self.bytes[range].fill(ERASED);
    }

    fn tear_write(&mut self, range: &Range<usize>, data: &[u8], power: &Power) {
        let units = range.len() / self.write_size;
        let whole = below(power, units) * self.write_size;
        self.program(range.start..range.start + whole, &data[..whole]);
        if whole < range.len() {
            let torn = range.start + whole..range.start + whole + self.write_size;
            self.garbage(torn, power);
        }
    }

    fn tear_erase(&mut self, range: &Range<usize>, power: &Power) {
        for start in range.clone().step_by(self.erase_size) {
            let block = start..start + self.erase_size;
            match power.random_below(4) {
                0 => {}
                // Reads as erased, but is not to be written.
                1 => {
                    self.clear(block.clone());
                    self.set_units(&block, Unit::Used);
                }
                2 => self.clear(block),
                _ => self.garbage(block, power),
            }
        }
    }

    fn garbage(&mut self, range: Range<usize>, power: &Power) {
        for byte in &mut self.bytes[range.clone()] {
            *byte = u8::try_from(power.random_below(256)).expect("below 256");
        }
        self.set_units(&range, Unit::Used);
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

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated flash fits into memory")
}

fn below(power: &Power, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("simulated flash fits into memory");
    index(power.random_below(bound))
}

/// What erased flash reads as.
const ERASED: u8 = 0xff;
