//! Slots with places that cannot be read: an update writes them anew instead of failing for ever.

use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry, SlotLayout, read_slot};
use rekindle_testkit::{SimFlash, SimFlashError};

use crate::hostile::running;
use crate::rig::{Device, GEOMETRIES, Image, changed, fill, index, noise};

/// A disk that cannot read some places until they are written or erased.
#[derive(Debug)]
struct Disk {
    inner: SimFlash,
    bad: Vec<Range<u64>>,
}

impl Disk {
    fn check(&self, offset: u64, len: usize) -> Result<(), DiskError> {
        let end = offset + u64::try_from(len).expect("it is short");
        let touched = |bad: &Range<u64>| bad.start < end && bad.end > offset;
        if self.bad.iter().any(touched) {
            return Err(DiskError::Unreadable);
        }
        Ok(())
    }

    fn heal(&mut self, range: &Range<u64>) {
        self.bad
            .retain(|bad| bad.start >= range.end || bad.end <= range.start);
    }
}

impl Flash for Disk {
    type Error = DiskError;

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, buf.len())?;
        Ok(self.inner.read(offset, buf)?)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, buf.len())?;
        Ok(self.inner.read_stored(offset, buf)?)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.heal(&(offset..offset + u64::try_from(data.len()).expect("it is short")));
        Ok(self.inner.write(offset, data)?)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), DiskError> {
        self.heal(&range);
        Ok(self.inner.erase(range)?)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(self.inner.sync()?)
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum DiskError {
    #[error("unreadable")]
    Unreadable,
    #[error(transparent)]
    Flash(#[from] SimFlashError),
}

impl FlashError for DiskError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::Unreadable => FlashErrorKind::Io,
            Self::Flash(error) => error.kind(),
        }
    }
}

#[test]
fn update_goes_over_places_that_cannot_be_read() {
    let content = noise(61, 200_000);
    let older = Image::of(&content);
    let image = Image::of(&changed(&content, 90_000..120_000));
    for geometry in GEOMETRIES {
        let layout = SlotLayout::new(&geometry).unwrap();
        let [first, second] = &layout.copies;
        for place in [
            1_000,
            100_000,
            first.mark.start,
            first.head.start,
            first.table.start,
            second.head.start,
            second.mark.start,
        ] {
            let mut device = Device::new(geometry, 1, running());
            fill(&mut device.b, &older);
            let bad = place..place + 512;
            device
                .install_over(
                    |inner| Disk {
                        inner,
                        bad: vec![bad.clone()],
                    },
                    |disk| disk.inner,
                    &image,
                )
                .unwrap_or_else(|error| panic!("{geometry:?}, {place}: {error}"));
            assert!(image.is_in(&mut device.b), "{geometry:?}, {place}");
        }
    }
}

#[test]
fn medium_that_reads_nothing_is_an_error() {
    for geometry in GEOMETRIES {
        let image = Image::of(&noise(62, 600_000));
        let mut device = Device::new(geometry, 1, running());
        fill(&mut device.b, &Image::of(&noise(63, 600_000)));
        let result = device.install_over(
            |inner| Disk {
                inner,
                bad: (0..256).map(|at| at * 4096..at * 4096 + 1).collect(),
            },
            |disk| disk.inner,
            &image,
        );
        // What was written since can be read again: it ends one way or the other, and never wrong.
        if result.is_ok() {
            assert!(image.is_in(&mut device.b), "{geometry:?}");
        }
    }
}

#[test]
fn mark_left_behind_a_rotten_head_completes_nothing() {
    let image = Image::of(&noise(64, 20_000));
    let content = noise(65, 20_000);
    for geometry in GEOMETRIES {
        for cut in 1..40 {
            let mut device = Device::new(geometry, cut, running());
            fill(&mut device.b, &Image::of(&content));
            fill(&mut device.b, &image);
            // The head that speaks rots, and so do the bytes that it describes.
            let layout = SlotLayout::new(&geometry).unwrap();
            let held = read_slot(&mut device.b, &layout).unwrap();
            let (copy, _) = held.current().unwrap();
            device
                .b
                .damage(layout.copies[copy].head.start + 20, &[0xa5; 4]);
            device.b.damage(5_000, &[0x5a; 300]);
            device.power.cut_after(cut);
            let done = device.install(&image).is_ok();
            device.power.restore();
            device.restart();
            let held = read_slot(&mut device.b, &layout).unwrap();
            let claims = held
                .current()
                .is_some_and(|(_, held)| held.complete && held.header.id == image.id());
            let holds = device.b.stored()[..index(20_000)] == image.content;
            assert!(!claims || holds, "{geometry:?}, cut {cut}");
            if done {
                assert!(claims && holds, "{geometry:?}");
                break;
            }
        }
    }
}
