use core::cell::RefCell;
use core::ops::Range;

use rekindle_flash::{
    BootControl, BootRecord, Flash, FlashBootControl, FlashErrorKind, Geometry, Partition, SlotId,
};
use rekindle_testkit::conformance::{self, BootSuite, FlashSuite, Report, Verdict};
use rekindle_testkit::{MemoryBootControl, Power, PowerOff, Preset, SimFlash, SimFlashError};

const NOR: Geometry = Geometry {
    size: 20 * 4096,
    write_size: 4,
    erase_size: 4096,
};
const FILE: Geometry = Geometry {
    size: 16 * 512,
    write_size: 512,
    erase_size: 0,
};
const BYTES: Geometry = Geometry {
    size: 100,
    write_size: 1,
    erase_size: 0,
};

fn restarted(mut flash: SimFlash) -> SimFlash {
    flash.restart();
    flash
}

fn report(geometry: Geometry) -> Report {
    FlashSuite::new(SimFlash::new(geometry, 3))
        .restart(restarted)
        .cut(SimFlash::cut_after)
        .fail_sync(SimFlash::fail_next_sync)
        .run()
}

/// The sentences for which nothing could be checked.
fn unchecked(report: &Report) -> Vec<&str> {
    let not_checked = |verdict: &Verdict| matches!(verdict, Verdict::NotChecked(_));
    report
        .checks()
        .filter(|check| not_checked(&check.verdict))
        .map(|check| check.sentence)
        .collect()
}

#[test]
fn simulated_flash_keeps_every_sentence_of_its_contract_on_every_preset() {
    let erases_nothing =
        "Where `erase_size` is zero this does nothing and leaves the bytes as they are.";
    let overwrites = "Where `erase_size` is zero, a write replaces what was there.";
    let erases = "Erases `range`, whose ends are multiples of [`Geometry::erase_size`], so that it may be written; erased bytes read as `0xff`.";
    let presets = Preset::ALL.map(|preset| preset.geometry(5 * 64 * 1024));
    for geometry in [NOR, FILE, BYTES].into_iter().chain(presets) {
        let report = report(geometry);
        report.assert();
        let other = if geometry.erase_size == 0 {
            vec![erases]
        } else {
            vec![overwrites, erases_nothing]
        };
        assert_eq!(unchecked(&report), other, "{report}");
    }
}

#[test]
fn a_part_of_a_flash_keeps_its_contract() {
    let part = |flash| Partition::new(flash, 8192..16 * 4096).unwrap();
    FlashSuite::new(part(SimFlash::new(NOR, 1)))
        .restart(|opened| part(restarted(opened.into_inner())))
        .run()
        .assert();
}

#[test]
fn boot_control_in_memory_keeps_its_contract() {
    let record = BootRecord::new(&[("prot", 2), ("boot", 3), ("bmc", 1)]).unwrap();
    let power = Power::new(5);
    BootSuite::new(MemoryBootControl::with_power("boot", record, &power))
        .restart(|boot| {
            power.restore();
            boot
        })
        .cut(|_, operations| power.cut_after(operations))
        .run()
        .assert();
}

#[test]
fn boot_control_on_flash_keeps_every_sentence_of_its_contract_on_every_preset() {
    let components = [("prot", 2), ("boot", 3), ("bmc", 1)];
    let record = BootRecord::new(&components).unwrap();
    for (preset, geometry) in Preset::ALL.map(|preset| (preset, preset.geometry(128 * 1024))) {
        let chip = RefCell::new(SimFlash::new(geometry, 9));
        let report = BootSuite::new(FlashBootControl::create(&chip, &record).unwrap())
            .restart(|boot| {
                drop(boot);
                chip.borrow_mut().restart();
                FlashBootControl::open(&chip, &components).unwrap()
            })
            .cut(|_, operations| chip.borrow_mut().cut_after(operations))
            .damage(|_| {
                for copy in [
                    0,
                    4096_u64.next_multiple_of(geometry.erase_size.max(1).into()),
                ] {
                    chip.borrow_mut().damage(copy + 40, b"damage");
                }
            })
            .run();
        report.assert();
        assert!(unchecked(&report).is_empty(), "{}: {report}", preset.name);
    }
}

#[test]
fn the_report_names_every_sentence_as_it_stands_in_the_documentation() {
    let plain = |source: &str| {
        let lines = source
            .lines()
            .map(|line| line.trim().trim_start_matches("///"));
        lines
            .flat_map(str::split_whitespace)
            .filter(|word| *word != "-")
            .collect::<Vec<_>>()
            .join(" ")
    };
    let flash = plain(include_str!("../../../flash/src/flash.rs"));
    let control = plain(include_str!("../../../flash/src/boot/control.rs"));
    let record = BootRecord::new(&[("prot", 2)]).unwrap();
    let boot = BootSuite::new(MemoryBootControl::new(record)).run();
    for (source, report) in [(flash, report(NOR)), (control, boot)] {
        for check in report.checks() {
            assert!(source.contains(check.sentence), "{}", check.sentence);
        }
    }
}

#[test]
fn a_report_shows_what_is_kept_what_is_broken_and_what_was_not_checked() {
    let report = FlashSuite::new(Broken::new(NOR, Rule::EraseReadsZero)).run();
    let text = report.to_string();
    assert!(
        text.starts_with("Flash: 3 kept, 1 broken, 14 not checked\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "  BROKEN       Erases `range`, whose ends are multiples of [`Geometry::erase_size`], so that it may be written; erased bytes read as `0xff`.\n               -> the byte at 0x0 reads 0x00 and should be 0xff\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("               -> needs `restart`, and that the sentences above are kept\n"),
        "{text}"
    );
    assert!(!report.is_kept());
}

/// Flash that breaks one rule.
struct Broken {
    inner: SimFlash,
    rule: Rule,
    geometry: Geometry,
    syncs: u32,
    restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    SizeIsNoMultiple,
    WriteSizeIsZero,
    EraseSizeIsNoMultiple,
    GeometryChanges,
    AcceptsUnaligned,
    AcceptsBeyondTheEnd,
    CallsEverythingIo,
    RefusesOddReads,
    WriteWrapsInPages,
    WriteReachesNeighbour,
    ReadMissesTheCache,
    OverwriteClearsBitsOnly,
    EraseOnADisk,
    EraseLeavesBytes,
    EraseReadsZero,
    EraseTakesTheNextBlock,
    StoredComesFromCache,
    SyncIsLazy,
    WritesBlocksBack,
    ForgetsAFailedSync,
}

impl Broken {
    fn new(geometry: Geometry, rule: Rule) -> Self {
        let mut shown = geometry;
        match rule {
            Rule::SizeIsNoMultiple => shown.size -= 1,
            Rule::WriteSizeIsZero => shown.write_size = 0,
            Rule::EraseSizeIsNoMultiple => shown.erase_size += 2,
            _ => {}
        }
        Self {
            inner: SimFlash::new(geometry, 3),
            rule,
            geometry: shown,
            syncs: 0,
            restarts: 0,
        }
    }

    fn restarted(mut self) -> Self {
        self.inner.restart();
        self.restarts += 1;
        self
    }
}

impl Flash for Broken {
    type Error = SimFlashError;

    fn geometry(&self) -> Geometry {
        let mut geometry = self.geometry;
        if self.rule == Rule::GeometryChanges && self.restarts > 0 {
            geometry.write_size *= 2;
        }
        geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        match self.rule {
            Rule::RefusesOddReads if !offset.is_multiple_of(4) => {
                return Err(FlashErrorKind::NotAligned.into());
            }
            Rule::ReadMissesTheCache => return self.inner.read_stored(offset, buf),
            _ => {}
        }
        self.inner.read(offset, buf)?;
        if self.rule == Rule::EraseReadsZero {
            for byte in buf.iter_mut().filter(|byte| **byte == 0xff) {
                *byte = 0;
            }
        }
        Ok(())
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        if self.rule == Rule::StoredComesFromCache {
            return self.inner.read(offset, buf);
        }
        if self.rule == Rule::ForgetsAFailedSync && self.inner.read_stored(offset, buf).is_err() {
            return Ok(());
        }
        self.inner.read_stored(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), SimFlashError> {
        let unit = usize::try_from(self.inner.geometry().write_size).expect("units are short");
        let len = u64::try_from(data.len()).expect("the tests write little");
        match self.rule {
            Rule::AcceptsUnaligned if !data.len().is_multiple_of(unit) => return Ok(()),
            Rule::AcceptsBeyondTheEnd if offset.saturating_add(len) > self.geometry.size => {
                return Ok(());
            }
            Rule::WriteWrapsInPages if len > 256 => {
                return self.inner.write(offset, &data[..256]);
            }
            Rule::OverwriteClearsBitsOnly => {
                let mut old = vec![0; data.len()];
                self.inner.read(offset, &mut old)?;
                let both: Vec<u8> = old.iter().zip(data).map(|(old, new)| old & new).collect();
                return self.inner.write(offset, &both);
            }
            _ => {}
        }
        if self.rule == Rule::WritesBlocksBack && offset >= 512 {
            // The sector before is rewritten with it, and not whole after a cut.
            let mut block = vec![0; 512];
            self.inner.read(offset - 512, &mut block)?;
            block.extend_from_slice(data);
            return self.inner.write(offset - 512, &block);
        }
        self.inner.write(offset, data)?;
        if self.rule == Rule::WriteReachesNeighbour && offset >= 512 {
            self.inner.damage(offset - 1, &[0x99]);
        }
        Ok(())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), SimFlashError> {
        match self.rule {
            Rule::EraseLeavesBytes => Ok(self.geometry().check_erase(&range)?),
            Rule::EraseOnADisk => {
                self.geometry.check_erase(&range)?;
                let len = usize::try_from(range.end - range.start).expect("it is short");
                self.inner.write(range.start, &vec![0xff; len])
            }
            Rule::EraseTakesTheNextBlock if range.end < self.geometry.size => {
                self.inner.erase(range.start..range.end + 4096)
            }
            Rule::CallsEverythingIo => self
                .inner
                .erase(range)
                .map_err(|_| SimFlashError::SyncFailed),
            _ => self.inner.erase(range),
        }
    }

    fn sync(&mut self) -> Result<(), SimFlashError> {
        self.syncs += 1;
        match self.rule {
            Rule::SyncIsLazy | Rule::StoredComesFromCache => Ok(()),
            Rule::ForgetsAFailedSync if self.inner.sync().is_err() => {
                if self.syncs.is_multiple_of(2) {
                    Ok(())
                } else {
                    Err(SimFlashError::SyncFailed)
                }
            }
            _ => self.inner.sync(),
        }
    }
}

#[test]
fn each_broken_flash_is_caught_by_the_sentence_that_it_breaks() {
    for (geometry, rule, sentence) in [
        (
            NOR,
            Rule::SizeIsNoMultiple,
            "Bytes in the region; a multiple",
        ),
        (
            NOR,
            Rule::WriteSizeIsZero,
            "Writes start at and extend over",
        ),
        (NOR, Rule::EraseSizeIsNoMultiple, "Erases cover multiples"),
        (NOR, Rule::GeometryChanges, "Returns the size and the units"),
        (NOR, Rule::AcceptsUnaligned, "It reports a broken alignment"),
        (
            FILE,
            Rule::AcceptsBeyondTheEnd,
            "It reports a broken alignment",
        ),
        (
            NOR,
            Rule::CallsEverythingIo,
            "It reports a broken alignment",
        ),
        (NOR, Rule::RefusesOddReads, "A read needs no alignment"),
        (NOR, Rule::WriteWrapsInPages, "`read` returns what the last"),
        (
            FILE,
            Rule::WriteReachesNeighbour,
            "A `write` or `erase` touches",
        ),
        (
            FILE,
            Rule::ReadMissesTheCache,
            "`read` returns what the last",
        ),
        (
            FILE,
            Rule::OverwriteClearsBitsOnly,
            "Where `erase_size` is zero, a write replaces",
        ),
        (
            FILE,
            Rule::EraseOnADisk,
            "Where `erase_size` is zero this does nothing",
        ),
        (NOR, Rule::EraseLeavesBytes, "Erases `range`"),
        (NOR, Rule::EraseReadsZero, "Erases `range`"),
        (
            NOR,
            Rule::EraseTakesTheNextBlock,
            "A `write` or `erase` touches",
        ),
        (FILE, Rule::StoredComesFromCache, "When `sync` returns `Ok`"),
        (
            FILE,
            Rule::SyncIsLazy,
            "Fills `buf` with what the medium itself",
        ),
        (
            FILE,
            Rule::WritesBlocksBack,
            "Everything outside the range is as it was",
        ),
        (
            NOR,
            Rule::ForgetsAFailedSync,
            "A backend therefore fails every later",
        ),
    ] {
        let report = FlashSuite::new(Broken::new(geometry, rule))
            .restart(Broken::restarted)
            .cut(|flash, operations| flash.inner.cut_after(operations))
            .fail_sync(|flash| flash.inner.fail_next_sync())
            .run();
        let broken: Vec<_> = report.broken().collect();
        assert!(
            broken.iter().any(|broken| broken.starts_with(sentence)),
            "{rule:?}: {report}"
        );
        assert!(broken.len() <= 2, "{rule:?} is named precisely: {report}");
    }
}

/// Boot control that breaks one rule.
struct Wrong {
    inner: MemoryBootControl,
    rule: WrongRule,
    first: BootRecord,
    last: BootRecord,
    loads: u32,
    damaged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum WrongRule {
    None,
    CountsAnAttemptWhenLoading,
    ForgetsFloors,
    KeepsOneComponent,
    RefusesATrial,
    StoresInMemory,
    IsTornByACut,
    FallsBackToADefault,
}

impl Wrong {
    fn new(rule: WrongRule, power: &Power) -> Self {
        let first = BootRecord::new(&[("prot", 2), ("boot", 2)]).expect("it is within the limits");
        Self {
            inner: MemoryBootControl::with_power("boot", first.clone(), power),
            rule,
            last: first.clone(),
            first,
            loads: 0,
            damaged: false,
        }
    }
}

impl BootControl for Wrong {
    type Error = PowerOff;

    fn load(&mut self) -> Result<BootRecord, PowerOff> {
        self.loads += 1;
        match self.rule {
            WrongRule::CountsAnAttemptWhenLoading => {
                let mut record = self.inner.load()?;
                record.start();
                if self.loads == 1 {
                    record.raise_floor("prot", 1).expect("it is there");
                }
                Ok(record)
            }
            WrongRule::StoresInMemory => Ok(self.last.clone()),
            WrongRule::FallsBackToADefault if self.damaged => Ok(self.first.clone()),
            _ if self.damaged => Err(PowerOff),
            _ => self.inner.load(),
        }
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), PowerOff> {
        let mut record = record.clone();
        match self.rule {
            WrongRule::ForgetsFloors => {
                let mut without = self.first.clone();
                for component in record.components() {
                    if let Some(chosen) = component.chosen {
                        without
                            .choose(&component.name, chosen, 3)
                            .expect("no trial has begun");
                    }
                }
                record = without;
            }
            WrongRule::KeepsOneComponent => {
                record.choose("boot", SlotId::A, 1).unwrap_or_default();
            }
            WrongRule::RefusesATrial if record.is_trial() => return Err(PowerOff),
            WrongRule::StoresInMemory => {
                self.last = record;
                return Ok(());
            }
            WrongRule::IsTornByACut => {
                let old = self.inner.load()?;
                let result = self.inner.store(&record);
                if result.is_err() {
                    // The floors of one record with the choice of the other.
                    let mut mixed = old;
                    mixed.raise_floor("boot", 1 << 40).expect("it is there");
                    self.inner = MemoryBootControl::new(mixed);
                }
                return result;
            }
            _ => {}
        }
        self.inner.store(&record)
    }
}

fn wrong_report(rule: WrongRule) -> Report {
    let power = Power::new(5);
    BootSuite::new(Wrong::new(rule, &power))
        .restart(|mut boot| {
            power.restore();
            boot.last = boot.first.clone();
            boot
        })
        .cut(|_, operations| power.cut_after(operations))
        .damage(|boot| boot.damaged = true)
        .run()
}

#[test]
fn each_wrong_boot_control_is_caught_by_the_sentence_that_it_breaks() {
    let right = wrong_report(WrongRule::None);
    right.assert();
    assert!(unchecked(&right).is_empty(), "{right}");
    for (rule, sentence) in [
        (WrongRule::CountsAnAttemptWhenLoading, "Reads the record."),
        (WrongRule::ForgetsFloors, "Replaces the record"),
        (WrongRule::KeepsOneComponent, "Replaces the record"),
        (WrongRule::RefusesATrial, "Replaces the record"),
        (WrongRule::StoresInMemory, "It is the only commit point"),
        (WrongRule::IsTornByACut, "`store` is atomic and durable"),
        (
            WrongRule::FallsBackToADefault,
            "A record that cannot be read",
        ),
    ] {
        let report = wrong_report(rule);
        let broken: Vec<_> = report.broken().collect();
        assert!(
            broken.len() == 1 && broken[0].starts_with(sentence),
            "{rule:?}: {report}"
        );
    }
}

#[test]
#[should_panic(expected = "BROKEN       It is the only commit point")]
fn a_report_with_a_broken_sentence_fails_a_test() {
    let record = BootRecord::new(&[("prot", 2)]).unwrap();
    conformance::boot_control(|_: Option<MemoryBootControl>| {
        MemoryBootControl::new(record.clone())
    })
    .assert();
}
