use core::fmt;
use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

use super::Report;
use super::area::{Area, Read, index, length, pattern, unit};

/// Runs the contract of [`Flash`] against a backend that can be opened anew; see the
/// [module](crate::conformance) for `open`. It overwrites the first four units and the last one (a
/// unit is an erase block, or a write unit of at least 8 bytes).
///
/// # Panics
///
/// If the flash has fewer than five units.
pub fn flash<F: Flash>(mut open: impl FnMut(Option<F>) -> F) -> Report {
    let flash = open(None);
    FlashSuite::new(flash)
        .restart(move |flash| open(Some(flash)))
        .run()
}

/// The contract of [`Flash`], for a backend and what can be done to it.
pub struct FlashSuite<'a, F> {
    flash: Option<F>,
    restart: Option<Restart<'a, F>>,
    cut: Option<Cut<'a, F>>,
    fail_sync: Option<FailSync<'a, F>>,
}

type Restart<'a, F> = Box<dyn FnMut(F) -> F + 'a>;
type Cut<'a, F> = Box<dyn FnMut(&mut F, u64) + 'a>;
type FailSync<'a, F> = Box<dyn FnMut(&mut F) + 'a>;

impl<'a, F: Flash> FlashSuite<'a, F> {
    /// Takes a backend as it is: nothing that needs a restart is checked.
    pub fn new(flash: F) -> Self {
        Self {
            flash: Some(flash),
            restart: None,
            cut: None,
            fail_sync: None,
        }
    }

    /// Says how the backend is opened anew on the same medium, as after a restart of the device.
    #[must_use]
    pub fn restart(mut self, restart: impl FnMut(F) -> F + 'a) -> Self {
        self.restart = Some(Box::new(restart));
        self
    }

    /// Says how to cut the power in the middle of the n-th write, erase or sync from now (1: the
    /// next one), so that everything fails from there on until the restart, which is needed too.
    #[must_use]
    pub fn cut(mut self, cut: impl FnMut(&mut F, u64) + 'a) -> Self {
        self.cut = Some(Box::new(cut));
        self
    }

    /// Says how to make the next sync fail.
    #[must_use]
    pub fn fail_sync(mut self, fail: impl FnMut(&mut F) + 'a) -> Self {
        self.fail_sync = Some(Box::new(fail));
        self
    }

    /// Checks every sentence that can be checked with what was given. The first four units and the
    /// last one are overwritten.
    ///
    /// # Panics
    ///
    /// If the flash has fewer than five units.
    pub fn run(mut self) -> Report {
        let mut report = Report::new("Flash", &SENTENCES);
        let geometry = self.flash().geometry();
        if !check_geometry(&geometry, &mut report) {
            return report;
        }
        let mut run = Run::new(self, geometry, report);
        // The first operation that fails although it must not ends the run: what follows would
        // only repeat it.
        match run.all() {
            Ok(()) | Err(Stopped) => run.report,
        }
    }

    fn flash(&mut self) -> &mut F {
        self.flash
            .as_mut()
            .expect("the suite gives the backend away during a restart only")
    }
}

impl<F: fmt::Debug> fmt::Debug for FlashSuite<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashSuite")
            .field("flash", &self.flash)
            .finish_non_exhaustive()
    }
}

/// A sentence is broken in a way that makes the rest pointless.
struct Stopped;

struct Run<'a, F> {
    suite: FlashSuite<'a, F>,
    geometry: Geometry,
    unit: u64,
    /// What the first units and the last one must hold.
    areas: [Area; 2],
    report: Report,
    seed: u8,
}

impl<'a, F: Flash> Run<'a, F> {
    fn new(suite: FlashSuite<'a, F>, geometry: Geometry, report: Report) -> Self {
        let unit = unit(&geometry);
        assert!(
            geometry.size / unit >= 5,
            "the suite needs flash of five units of {unit} bytes: {geometry:?} is too small"
        );
        let areas = [0..4 * unit, geometry.size - unit..geometry.size];
        Self {
            suite,
            geometry,
            unit,
            areas: areas.map(|range| Area::new(range, ERASED)),
            report,
            seed: 0,
        }
    }

    fn all(&mut self) -> Result<(), Stopped> {
        self.fill()?;
        self.odd_reads()?;
        self.refusals()?;
        self.sync()?;
        self.replace()?;
        if self.geometry.erase_size == 0 {
            self.erase_nothing()?;
        } else {
            self.erase_alone()?;
        }
        let again = self.suite.flash().geometry();
        self.report.note(GEOMETRY, same(&self.geometry, &again));
        self.persists()?;
        self.cuts()?;
        self.failed_sync()
    }

    /// Writes pieces of many lengths, and looks at everything after each of the first ones.
    fn fill(&mut self) -> Result<(), Stopped> {
        let ranges = self.areas.each_ref().map(Area::range);
        if self.geometry.erase_size == 0 {
            for fill in [0xff, 0x00, 0x5a, 0xa5] {
                for range in &ranges {
                    self.write(range.start, &Area::new(range.clone(), fill).bytes)?;
                }
                self.must_sync()?;
                self.compare(OVERWRITES, F::read)?;
            }
        } else {
            for range in &ranges {
                self.erase(range.clone())?;
            }
            self.compare(ERASE, F::read)?;
        }
        let write = u64::from(self.geometry.write_size);
        for range in ranges {
            let mut at = range.start;
            for units in [1, 2, 5, 1, 63, 300, 3, 1000].into_iter().cycle() {
                let len = (units * write).min(range.end - at);
                if len == 0 {
                    break;
                }
                self.write_pattern(at..at + len)?;
                if at < range.start + 100 * write {
                    self.compare_beside(&(at..at + len))?;
                }
                at += len;
            }
        }
        self.compare(READ, F::read)
    }

    fn odd_reads(&mut self) -> Result<(), Stopped> {
        let last = self.geometry.size - 1;
        for (at, len) in [(1, 1), (1, 6), (3, 2), (self.unit - 1, 2), (last, 1)] {
            let wanted = self.wanted(at..at + len);
            let mut found = vec![!wanted[0]; wanted.len()];
            let result = self.suite.flash().read(at, &mut found);
            let seen = match result {
                Err(error) => Err(format!("reading {len} bytes at {at:#x} fails: {error}")),
                Ok(()) if found != wanted => Err(format!(
                    "{len} bytes at {at:#x} read {found:02x?} and should be {wanted:02x?}"
                )),
                Ok(()) => Ok(()),
            };
            self.report.note(UNALIGNED_READ, seen);
        }
        let size = self.geometry.size;
        let seen = self.suite.flash().read(size, &mut []);
        let seen = seen.map_err(|error| format!("an empty read at the end fails: {error}"));
        self.report.note(UNALIGNED_READ, seen);
        Ok(())
    }

    fn refusals(&mut self) -> Result<(), Stopped> {
        let Geometry {
            size,
            write_size,
            erase_size,
        } = self.geometry;
        let write = u64::from(write_size);
        let step = u64::from(erase_size).max(write);
        let bound = FlashErrorKind::OutOfBounds;
        let aligned = FlashErrorKind::NotAligned;
        let mut buf = vec![0x5a; index(write)];
        for offset in [size, u64::MAX - write + 1] {
            let flash = self.suite.flash();
            let tried = [
                ("a read", flash.read(offset, &mut buf)),
                ("a stored read", flash.read_stored(offset, &mut buf)),
                ("a write", flash.write(offset, &buf)),
            ];
            for (what, result) in tried {
                let seen = refused(result, bound, format_args!("{what} at {offset:#x}"));
                self.report.note(REFUSES, seen);
            }
        }
        let result = self.suite.flash().read(size - 1, &mut [0; 2]);
        let seen = refused(result, bound, format_args!("a read across the end"));
        self.report.note(REFUSES, seen);
        let across = vec![0x5a; index(2 * write)];
        let result = self.suite.flash().write(size - write, &across);
        let seen = refused(result, bound, format_args!("a write across the end"));
        self.report.note(REFUSES, seen);
        let result = self.suite.flash().erase(size - step..size + step);
        let seen = refused(result, bound, format_args!("an erase across the end"));
        self.report.note(REFUSES, seen);
        if write > 1 {
            for (offset, len) in [(1, write), (0, write - 1), (write, 1)] {
                let data = vec![0x5a; index(len)];
                let result = self.suite.flash().write(offset, &data);
                let what = format_args!("a write of {len} bytes at {offset:#x}");
                let seen = refused(result, aligned, what);
                self.report.note(REFUSES, seen);
            }
        }
        let erase = u64::from(erase_size);
        if erase > 1 {
            for range in [1..erase, 0..erase - 1, erase / 2..erase + erase / 2] {
                let what = format!("an erase of {:#x} to {:#x}", range.start, range.end);
                let result = self.suite.flash().erase(range);
                let seen = refused(result, aligned, format_args!("{what}"));
                self.report.note(REFUSES, seen);
            }
        }
        self.compare(REFUSES, F::read)
    }

    /// Replaces one unit: its neighbours stay, and a stored read sees it after a sync.
    fn replace(&mut self) -> Result<(), Stopped> {
        let range = self.unit..2 * self.unit;
        self.erase(range.clone())?;
        if self.geometry.erase_size != 0 {
            self.compare_as(ERASE, OWN_RANGE, &range)?;
        }
        self.write_pattern(range.clone())?;
        self.compare_beside(&range)?;
        self.sync()
    }

    fn erase_nothing(&mut self) -> Result<(), Stopped> {
        self.erase(0..4 * self.unit)?;
        self.compare(ERASES_NOTHING, F::read)?;
        self.sync()
    }

    fn erase_alone(&mut self) -> Result<(), Stopped> {
        for range in [2 * self.unit..3 * self.unit, 0..2 * self.unit] {
            self.erase(range.clone())?;
            self.compare_as(ERASE, OWN_RANGE, &range)?;
        }
        self.sync()?;
        self.write_pattern(0..3 * self.unit)?;
        self.sync()
    }

    fn persists(&mut self) -> Result<(), Stopped> {
        if self.suite.restart.is_none() {
            return Ok(());
        }
        self.replace_quietly(3 * self.unit)?;
        self.must_sync()?;
        self.restart();
        let again = self.suite.flash().geometry();
        self.report.note(GEOMETRY, same(&self.geometry, &again));
        self.compare(DURABLE, F::read_stored)?;
        self.compare(DURABLE, F::read)
    }

    /// Cuts at each operation of a replacement, again and again on the same medium.
    fn cuts(&mut self) -> Result<(), Stopped> {
        if self.suite.restart.is_none() || self.suite.cut.is_none() {
            return Ok(());
        }
        let range = self.unit..2 * self.unit;
        let write = self.geometry.write_size.into();
        for cut in (1..=CUTS_MAX).flat_map(|cut| [cut; CUT_REPEATS]) {
            self.seed = self.seed.wrapping_add(1);
            let mut wanted = vec![0; index(self.unit)];
            pattern(self.seed, range.start, &mut wanted);
            let Some(plan) = self.suite.cut.as_mut() else {
                return Ok(());
            };
            let flash = self.suite.flash.as_mut().expect("no restart is under way");
            plan(flash, cut);
            // In pieces, so that there is more to cut between.
            let done = (|| {
                flash.erase(range.clone())?;
                let half = index((self.unit / 2).next_multiple_of(write));
                flash.write(range.start, &wanted[..half])?;
                flash.sync()?;
                flash.write(range.start + length(&wanted[..half]), &wanted[half..])?;
                flash.sync()
            })();
            self.restart();
            let whole = done.is_ok();
            if whole {
                self.areas[0].part(&range).copy_from_slice(&wanted);
            }
            let except = if whole { 0..0 } else { range.clone() };
            for area in &self.areas {
                let seen = area.compare(self.suite.flash(), F::read_stored, &except);
                let seen = seen.map_err(|what| format!("after cut {cut}: {what}"));
                self.report.note(AFTER_CUT, seen);
            }
            // What a cut left can be erased and written.
            self.replace_quietly(range.start)?;
            self.must_sync()?;
            self.compare(ERASED_AGAIN, F::read_stored)?;
            if whole {
                break;
            }
        }
        Ok(())
    }

    fn failed_sync(&mut self) -> Result<(), Stopped> {
        let Some(fail) = self.suite.fail_sync.as_mut() else {
            return Ok(());
        };
        fail(self.suite.flash.as_mut().expect("no restart is under way"));
        let range = self.unit..2 * self.unit;
        self.replace_quietly(range.start)?;
        for what in ["a sync that fails", "the next sync"] {
            let seen = match self.suite.flash().sync() {
                Ok(()) => Err(format!("{what} answers Ok")),
                Err(_) => Ok(()),
            };
            self.report.note(AFTER_FAILED_SYNC, seen);
        }
        let mut buf = vec![0; index(self.geometry.write_size.into())];
        let flash = self.suite.flash();
        let tried = [
            ("a write", flash.write(2 * range.start, &buf).is_ok()),
            ("an erase", flash.erase(range.clone()).is_ok()),
            ("a stored read", flash.read_stored(0, &mut buf).is_ok()),
        ];
        for (what, answered) in tried {
            let seen = if answered {
                Err(format!("{what} after a failed sync answers Ok"))
            } else {
                Ok(())
            };
            self.report.note(AFTER_FAILED_SYNC, seen);
        }
        if self.suite.restart.is_some() {
            self.restart();
            for area in &self.areas {
                let seen = area.compare(self.suite.flash(), F::read_stored, &range);
                self.report.note(DURABLE, seen);
            }
        }
        Ok(())
    }

    fn restart(&mut self) {
        if let (Some(restart), Some(flash)) = (self.suite.restart.as_mut(), self.suite.flash.take())
        {
            self.suite.flash = Some(restart(flash));
        }
    }

    /// Replaces one unit of the first area without a look at it.
    fn replace_quietly(&mut self, start: u64) -> Result<(), Stopped> {
        self.erase(start..start + self.unit)?;
        self.write_pattern(start..start + self.unit)
    }

    fn write_pattern(&mut self, range: Range<u64>) -> Result<(), Stopped> {
        self.seed = self.seed.wrapping_add(1);
        let mut data = vec![0; index(range.end - range.start)];
        pattern(self.seed, range.start, &mut data);
        self.write(range.start, &data)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Stopped> {
        let result = self.suite.flash().write(offset, data);
        let what = format!("a write of {} bytes at {offset:#x}", data.len());
        self.must(WRITE, &what, result)?;
        let range = offset..offset + length(data);
        self.area_of(&range).part(&range).copy_from_slice(data);
        Ok(())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Stopped> {
        let result = self.suite.flash().erase(range.clone());
        let what = format!("an erase of {:#x} to {:#x}", range.start, range.end);
        if self.geometry.erase_size == 0 {
            return self.must(ERASES_NOTHING, &what, result);
        }
        self.must(ERASE, &what, result)?;
        self.area_of(&range).part(&range).fill(ERASED);
        Ok(())
    }

    /// Syncs, and looks at what the medium holds.
    fn sync(&mut self) -> Result<(), Stopped> {
        self.must_sync()?;
        self.compare(STORED, F::read_stored)
    }

    fn must_sync(&mut self) -> Result<(), Stopped> {
        let result = self.suite.flash().sync();
        self.must(SYNC, "a sync", result)
    }

    fn must(
        &mut self,
        sentence: &'static str,
        what: &str,
        result: Result<(), F::Error>,
    ) -> Result<(), Stopped> {
        let stopped = result.is_err();
        let seen = result.map_err(|error| format!("{what} fails: {error}"));
        self.report.note(sentence, seen);
        if stopped { Err(Stopped) } else { Ok(()) }
    }

    /// Looks at everything; what differs breaks the sentence.
    fn compare(&mut self, sentence: &'static str, read: Read<F>) -> Result<(), Stopped> {
        let mut stopped = false;
        for area in &self.areas {
            let seen = area.compare(self.suite.flash.as_mut().ok_or(Stopped)?, read, &(0..0));
            stopped |= seen.is_err();
            self.report.note(sentence, seen);
        }
        if stopped { Err(Stopped) } else { Ok(()) }
    }

    /// Looks at everything after a write to the range.
    fn compare_beside(&mut self, range: &Range<u64>) -> Result<(), Stopped> {
        self.compare_as(READ, OWN_RANGE, range)
    }

    /// Looks at everything: what differs beside the range breaks one sentence, what differs in it
    /// another.
    fn compare_as(
        &mut self,
        within: &'static str,
        beside: &'static str,
        range: &Range<u64>,
    ) -> Result<(), Stopped> {
        for area in &self.areas {
            let seen = area.compare(self.suite.flash.as_mut().ok_or(Stopped)?, F::read, range);
            self.report.note(beside, seen);
        }
        self.compare(within, F::read)
    }

    fn wanted(&mut self, range: Range<u64>) -> Vec<u8> {
        self.area_of(&range).part(&range).to_vec()
    }

    fn area_of(&mut self, range: &Range<u64>) -> &mut Area {
        let [first, last] = &mut self.areas;
        if range.end <= first.range().end {
            first
        } else {
            last
        }
    }
}

/// Whether the rest can be checked at all.
fn check_geometry(geometry: &Geometry, report: &mut Report) -> bool {
    let Geometry {
        size,
        write_size,
        erase_size,
    } = *geometry;
    let seen = if write_size == 0 {
        Err("write_size is 0".to_owned())
    } else {
        Ok(())
    };
    report.note(WRITE_SIZE, seen);
    let seen = if erase_size.is_multiple_of(write_size.max(1)) {
        Ok(())
    } else {
        Err(format!("{erase_size} is no multiple of {write_size}"))
    };
    report.note(ERASE_SIZE, seen);
    let whole = [write_size, erase_size]
        .into_iter()
        .all(|unit| unit == 0 || size.is_multiple_of(unit.into()));
    let seen = if whole {
        Ok(())
    } else {
        Err(format!(
            "{size} bytes are no multiple of {write_size} and {erase_size}"
        ))
    };
    report.note(SIZE, seen);
    report.is_kept()
}

fn same(before: &Geometry, after: &Geometry) -> Result<(), String> {
    if before == after {
        Ok(())
    } else {
        Err(format!("it was {before:?} and is {after:?}"))
    }
}

fn refused<E: FlashError>(
    result: Result<(), E>,
    kind: FlashErrorKind,
    what: fmt::Arguments<'_>,
) -> Result<(), String> {
    match result {
        Ok(()) => Err(format!("{what} answers Ok")),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(format!(
            "{what} is refused as {:?} and should be as {kind:?}: {error}",
            error.kind()
        )),
    }
}

const ERASED: u8 = 0xff;
/// More operations than a replacement has.
const CUTS_MAX: u64 = 64;
/// What a cut leaves is different each time.
const CUT_REPEATS: usize = 4;

const SIZE: &str = "Bytes in the region; a multiple of both units.";
const WRITE_SIZE: &str =
    "Writes start at and extend over multiples of this many bytes; at least 1.";
const ERASE_SIZE: &str = "Erases cover multiples of this many bytes; a multiple of `write_size`.";
const GEOMETRY: &str = "Returns the size and the units of this flash; always the same value.";
const WRITE: &str = "Writes `data` at `offset`, both multiples of [`Geometry::write_size`].";
const READ: &str =
    "`read` returns what the last successful `write` or `erase` left, whether synced or not.";
const UNALIGNED_READ: &str = "A read needs no alignment, and its length may be 0.";
const ERASE: &str = "Erases `range`, whose ends are multiples of [`Geometry::erase_size`], so that it may be written; erased bytes read as `0xff`.";
const ERASES_NOTHING: &str =
    "Where `erase_size` is zero this does nothing and leaves the bytes as they are.";
const OVERWRITES: &str = "Where `erase_size` is zero, a write replaces what was there.";
const OWN_RANGE: &str = "A `write` or `erase` touches its own range only.";
const REFUSES: &str = "It reports a broken alignment or bound with an error and changes nothing.";
const SYNC: &str = "Waits until everything written and erased so far is on the medium.";
const STORED: &str = "Fills `buf` with what the medium itself holds at `offset`, past every cache.";
const DURABLE: &str = "When `sync` returns `Ok`, everything written and erased before the call is on the medium and survives a power cut.";
const AFTER_CUT: &str = "Everything outside the range is as it was.";
const ERASED_AGAIN: &str = "It is erased again before it is written, even where it reads as erased, since half-erased cells do not keep what is written to them.";
const AFTER_FAILED_SYNC: &str = "A backend therefore fails every later `write`, `erase`, `sync` and `read_stored` until it is opened anew; the caller then starts from what `read_stored` shows.";

/// Each with what it needs to be checked.
pub(super) const SENTENCES: [(&str, &str); 18] = [
    (SIZE, REACHED),
    (WRITE_SIZE, REACHED),
    (ERASE_SIZE, REACHED),
    (GEOMETRY, REACHED),
    (REFUSES, REACHED),
    (WRITE, REACHED),
    (READ, REACHED),
    (UNALIGNED_READ, REACHED),
    (OWN_RANGE, REACHED),
    (
        ERASE,
        "needs erase blocks, and that the sentences above are kept",
    ),
    (OVERWRITES, OVERWRITING),
    (ERASES_NOTHING, OVERWRITING),
    (SYNC, REACHED),
    (STORED, REACHED),
    (
        DURABLE,
        "needs `restart`, and that the sentences above are kept",
    ),
    (AFTER_CUT, CUTTING),
    (ERASED_AGAIN, CUTTING),
    (
        AFTER_FAILED_SYNC,
        "needs `fail_sync`, and that the sentences above are kept",
    ),
];
const REACHED: &str = "needs that the sentences above are kept";
const OVERWRITING: &str =
    "needs a medium without erase blocks, and that the sentences above are kept";
const CUTTING: &str = "needs `restart` and `cut`, and that the sentences above are kept";
