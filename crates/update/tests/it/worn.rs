//! Media that fail: errors are found, writes that went wrong are made again, and what runs is
//! untouched.

use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry, SlotLayout};
use rekindle_testkit::{SimFlash, SimFlashError};
use rekindle_update::{ConvergeError, InstallError};

use crate::hostile::{failure, running, stays_on_the_old};
use crate::rig::{Device, GEOMETRIES, Image, MemorySource, changed, fill, index, noise};

#[test]
fn failed_sync_is_an_error_and_the_next_start_continues() {
    let image = Image::of(&noise(32, 20_000));
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, running());
        device.b.fail_next_sync();
        let error = failure(&mut device, &mut MemorySource::of(&image));
        assert_eq!(error, InstallError::Flash(SimFlashError::SyncFailed));
        device.restart();
        device.install(&image).expect("the same call continues");
        assert!(image.is_in(&mut device.b), "{geometry:?}");
    }
}

#[test]
fn failed_write_or_erase_is_an_error_and_the_next_call_continues() {
    let image = Image::of(&noise(32, 20_000));
    for geometry in GEOMETRIES {
        for fault in (0..4).flat_map(|n| [Fault::Write(n), Fault::Erase(n)]) {
            if geometry.erase_size == 0 && !matches!(fault, Fault::Write(0..=2)) {
                continue;
            }
            let mut device = Device::new(geometry, 1, running());
            let error = device
                .install_over(|flash| Worn::new(flash, fault), Worn::into_inner, &image)
                .expect_err("it fails");
            assert_eq!(error, InstallError::Flash(WornError::Medium), "{fault:?}");
            stays_on_the_old::<Worn>(&mut device, &error);
            device.install(&image).expect("the same call continues");
            assert!(image.is_in(&mut device.b), "{geometry:?}, {fault:?}");
        }
    }
}

#[test]
fn cell_that_does_not_keep_its_bit_is_found_by_reading_back() {
    let image = Image::of(&noise(32, 20_000));
    for geometry in GEOMETRIES {
        for chunk in image.chunks() {
            let mut device = Device::new(geometry, 1, running());
            let fault = Fault::Stuck(chunk.raw_offset + u64::from(chunk.raw_len) - 1);
            let error = device
                .install_over(|flash| Worn::new(flash, fault), Worn::into_inner, &image)
                .expect_err("it is found");
            let read_back = ConvergeError::ReadBack {
                chunk: chunk.index,
                offset: chunk.raw_offset,
            };
            assert_eq!(error, InstallError::Converge(read_back), "{geometry:?}");
            stays_on_the_old::<Worn>(&mut device, &error);
        }
    }
}

#[test]
fn cell_in_the_table_is_found_by_reading_back() {
    let image = Image::of(&noise(32, 20_000));
    for geometry in GEOMETRIES {
        let table = SlotLayout::new(&geometry).unwrap().copies[0].table.start;
        let fault = Fault::Stuck(table + 100);
        let mut device = Device::new(geometry, 1, running());
        let error = device
            .install_over(|flash| Worn::new(flash, fault), Worn::into_inner, &image)
            .expect_err("it is found");
        let read_back = ConvergeError::TableReadBack { page: 0 };
        assert_eq!(error, InstallError::Converge(read_back), "{geometry:?}");
        stays_on_the_old::<Worn>(&mut device, &error);
    }
}

#[test]
fn write_that_goes_wrong_once_is_made_again() {
    let image = Image::of(&noise(32, 20_000));
    for geometry in GEOMETRIES {
        let mut device = Device::new(geometry, 1, running());
        device
            .install_over(
                |flash| Worn::new(flash, Fault::WritesWrongOnce(9_999)),
                Worn::into_inner,
                &image,
            )
            .expect("it is written again");
        assert!(image.is_in(&mut device.b), "{geometry:?}");
    }
}

#[test]
fn neighbour_spoiled_by_the_rewriting_of_a_block_is_found() {
    // Chunks that share an erase block with what is written are read, erased and written back.
    let content = noise(33, 200_000);
    let older = Image::of(&content);
    let image = Image::of(&changed(&content, 100_000..100_010));
    for geometry in [GEOMETRIES[1], GEOMETRIES[2], GEOMETRIES[5]] {
        let mut device = Device::new(geometry, 1, running());
        fill(&mut device.b, &older);
        let written: Vec<_> = image
            .chunks()
            .into_iter()
            .filter(|chunk| {
                let at = index(chunk.raw_offset);
                let len = usize::try_from(chunk.raw_len).unwrap();
                image.content[at..at + len] != older.content[at..at + len]
            })
            .collect();
        let last = written.last().expect("a chunk differs");
        let beside = last.raw_offset + u64::from(last.raw_len);
        device
            .install_over(
                |flash| Worn::new(flash, Fault::WritesWrongOnce(beside)),
                Worn::into_inner,
                &image,
            )
            .expect("it is noticed and mended");
        assert!(image.is_in(&mut device.b), "{geometry:?}");
    }
}

/// How flash is worn.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The n-th write fails, and those after it.
    Write(u32),
    /// The n-th erase fails, and those after it.
    Erase(u32),
    /// The byte here never reads as it was written.
    Stuck(u64),
    /// The first write of this byte stores another one.
    WritesWrongOnce(u64),
}

/// Flash with a fault.
#[derive(Debug)]
struct Worn {
    inner: SimFlash,
    fault: Fault,
    writes: u32,
    erases: u32,
    spent: bool,
}

impl Worn {
    fn new(inner: SimFlash, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            writes: 0,
            erases: 0,
            spent: false,
        }
    }

    fn into_inner(self) -> SimFlash {
        self.inner
    }

    fn spoil(&self, offset: u64, buf: &mut [u8]) {
        if let Fault::Stuck(at) = self.fault
            && let Some(byte) = at
                .checked_sub(offset)
                .and_then(|into| buf.get_mut(index(into)))
        {
            *byte ^= 1;
        }
    }
}

impl Flash for Worn {
    type Error = WornError;

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), WornError> {
        // A cache still has what was written.
        Ok(self.inner.read(offset, buf)?)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), WornError> {
        self.inner.read_stored(offset, buf)?;
        self.spoil(offset, buf);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), WornError> {
        if matches!(self.fault, Fault::Write(n) if n <= self.writes) {
            return Err(WornError::Medium);
        }
        self.writes += 1;
        let mut data = data.to_vec();
        if let Fault::WritesWrongOnce(at) = self.fault
            && !self.spent
            && let Some(byte) = at
                .checked_sub(offset)
                .and_then(|into| data.get_mut(index(into)))
        {
            *byte ^= 1;
            self.spent = true;
        }
        Ok(self.inner.write(offset, &data)?)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), WornError> {
        if matches!(self.fault, Fault::Erase(n) if n <= self.erases) {
            return Err(WornError::Medium);
        }
        self.erases += 1;
        Ok(self.inner.erase(range)?)
    }

    fn sync(&mut self) -> Result<(), WornError> {
        Ok(self.inner.sync()?)
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum WornError {
    #[error(transparent)]
    Sim(#[from] SimFlashError),
    #[error("the medium is worn")]
    Medium,
}

impl FlashError for WornError {
    fn kind(&self) -> FlashErrorKind {
        FlashErrorKind::Io
    }
}
