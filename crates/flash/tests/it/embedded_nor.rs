use core::cell::RefCell;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use rekindle_flash::{
    EmbeddedNorError, EmbeddedNorFlash, EmbeddedNorUnitsError, Flash, FlashError, FlashErrorKind,
};
use rekindle_testkit::conformance::FlashSuite;

/// A driver of a chip with these units, as strict as the traits allow: it refuses what is not
/// aligned, and to program a unit twice.
struct Chip<'a, const READ: usize, const WRITE: usize, const ERASE: usize>(&'a RefCell<Cells>);

struct Cells {
    bytes: Vec<u8>,
    programmed: Vec<bool>,
    calls: Vec<String>,
}

#[derive(Debug)]
enum ChipError {
    Unaligned,
    Bounds,
    ProgrammedTwice,
}

impl NorFlashError for ChipError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Unaligned => NorFlashErrorKind::NotAligned,
            Self::Bounds => NorFlashErrorKind::OutOfBounds,
            Self::ProgrammedTwice => NorFlashErrorKind::Other,
        }
    }
}

fn cells(size: usize) -> RefCell<Cells> {
    RefCell::new(Cells {
        bytes: vec![0x5a; size],
        programmed: vec![true; size],
        calls: Vec::new(),
    })
}

fn range(
    offset: u32,
    len: usize,
    unit: usize,
    size: usize,
) -> Result<core::ops::Range<usize>, ChipError> {
    let start = usize::try_from(offset).unwrap();
    if !start.is_multiple_of(unit) || !len.is_multiple_of(unit) {
        return Err(ChipError::Unaligned);
    }
    if start + len > size {
        return Err(ChipError::Bounds);
    }
    Ok(start..start + len)
}

impl<const READ: usize, const WRITE: usize, const ERASE: usize> ErrorType
    for Chip<'_, READ, WRITE, ERASE>
{
    type Error = ChipError;
}

impl<const READ: usize, const WRITE: usize, const ERASE: usize> ReadNorFlash
    for Chip<'_, READ, WRITE, ERASE>
{
    const READ_SIZE: usize = READ;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), ChipError> {
        let mut cells = self.0.borrow_mut();
        let range = range(offset, bytes.len(), READ, cells.bytes.len())?;
        cells.calls.push(format!("read {range:?}"));
        bytes.copy_from_slice(&cells.bytes[range]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().bytes.len()
    }
}

impl<const READ: usize, const WRITE: usize, const ERASE: usize> NorFlash
    for Chip<'_, READ, WRITE, ERASE>
{
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), ChipError> {
        let mut cells = self.0.borrow_mut();
        let len = usize::try_from(to - from).unwrap();
        let range = range(from, len, ERASE, cells.bytes.len())?;
        cells.bytes[range.clone()].fill(0xff);
        cells.programmed[range].fill(false);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ChipError> {
        let mut cells = self.0.borrow_mut();
        let range = range(offset, bytes.len(), WRITE, cells.bytes.len())?;
        if cells.programmed[range.clone()].contains(&true) {
            return Err(ChipError::ProgrammedTwice);
        }
        cells.bytes[range.clone()].copy_from_slice(bytes);
        cells.programmed[range].fill(true);
        Ok(())
    }
}

fn keeps_the_contract<const READ: usize, const WRITE: usize, const ERASE: usize>(size: usize) {
    let cells = cells(size);
    let open = || EmbeddedNorFlash::new(Chip::<READ, WRITE, ERASE>(&cells)).unwrap();
    FlashSuite::new(open())
        .restart(|opened| {
            drop(opened);
            open()
        })
        .run()
        .assert();
}

#[test]
fn drivers_of_every_unit_keep_the_contract_of_flash() {
    keeps_the_contract::<1, 1, 4096>(64 << 10);
    keeps_the_contract::<4, 8, 4096>(64 << 10);
    keeps_the_contract::<16, 256, 4096>(64 << 10);
    keeps_the_contract::<256, 4, 1024>((16 << 10) + 100);
    keeps_the_contract::<3, 2, 48>(4800);
}

#[test]
fn a_read_between_units_goes_through_a_buffer_and_the_middle_of_it_does_not() {
    let cells = cells(8192);
    let counting = |byte: usize| u8::try_from(byte % 251).unwrap();
    cells.borrow_mut().bytes = (0..8192).map(counting).collect();
    let mut flash = EmbeddedNorFlash::new(Chip::<8, 8, 4096>(&cells)).unwrap();
    let mut buf = [0; 30];
    flash.read(5, &mut buf).unwrap();
    assert!(buf.iter().copied().eq((5..35).map(counting)));
    assert_eq!(
        cells.borrow().calls,
        ["read 0..8", "read 8..32", "read 32..40"]
    );
    let mut last = [0; 1];
    flash.read(8191, &mut last).unwrap();
    assert_eq!(last, [counting(8191)]);
}

#[test]
fn an_error_of_the_driver_keeps_its_kind_and_words() {
    let cells = cells(8192);
    let mut flash = EmbeddedNorFlash::new(Chip::<1, 4, 4096>(&cells)).unwrap();
    let error = flash.write(4096, b"once").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write 4 bytes at 0x1000: ProgrammedTwice"
    );
    assert_eq!(error.kind(), FlashErrorKind::Io);
    let error = flash.write(2, b"four").unwrap_err();
    assert_eq!(error, EmbeddedNorError::NotAligned { offset: 2, len: 4 });
}

#[test]
fn a_chip_that_shrank_reports_bounds() {
    let cells = cells(8192);
    let mut flash = EmbeddedNorFlash::new(Chip::<1, 4, 4096>(&cells)).unwrap();
    cells.borrow_mut().bytes.truncate(4096);
    let error = flash.read(4096, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), FlashErrorKind::OutOfBounds);
}

#[test]
fn units_that_make_no_sense_are_refused_and_a_rest_is_not_used() {
    fn new<const READ: usize, const WRITE: usize, const ERASE: usize>(
        size: usize,
    ) -> Result<u64, EmbeddedNorUnitsError> {
        let cells = cells(size);
        let flash = EmbeddedNorFlash::new(Chip::<READ, WRITE, ERASE>(&cells))?;
        Ok(flash.geometry().size)
    }
    assert_eq!(new::<1, 4, 4096>(4 * 4096 + 4000), Ok(4 * 4096));
    for error in [
        new::<0, 4, 4096>(8192),
        new::<1, 0, 4096>(8192),
        new::<1, 4, 0>(8192),
        new::<1, 12, 4096>(8192),
        new::<12, 4, 4096>(8192),
        new::<1, 4, 4096>(4095),
    ] {
        error.unwrap_err();
    }
}

/// A driver that is nothing but large.
struct Large;

impl ErrorType for Large {
    type Error = ChipError;
}

impl ReadNorFlash for Large {
    const READ_SIZE: usize = 1;

    fn read(&mut self, _: u32, _: &mut [u8]) -> Result<(), ChipError> {
        Ok(())
    }

    fn capacity(&self) -> usize {
        8 << 30
    }
}

impl NorFlash for Large {
    const WRITE_SIZE: usize = 256;
    const ERASE_SIZE: usize = 65536;

    fn erase(&mut self, _: u32, _: u32) -> Result<(), ChipError> {
        Ok(())
    }

    fn write(&mut self, _: u32, _: &[u8]) -> Result<(), ChipError> {
        Ok(())
    }
}

#[test]
fn of_a_chip_beyond_32_bits_the_blocks_below_are_used() {
    let mut flash = EmbeddedNorFlash::new(Large).unwrap();
    let size = flash.geometry().size;
    assert_eq!(size, (4 << 30) - 65536);
    flash.erase(0..size).unwrap();
    flash.read(size - 1, &mut [0]).unwrap();
}
