use core::ops::Range;

use rekindle_flash::{BootControl, BootRecord, Flash, Geometry};
use rekindle_testkit::{MemoryBootControl, PowerOff, SimFlash, SimFlashError, conformance};

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

fn reopen(geometry: Geometry) -> impl FnMut(Option<SimFlash>) -> SimFlash {
    move |opened| match opened {
        Some(mut flash) => {
            flash.restart();
            flash
        }
        None => SimFlash::new(geometry, 3),
    }
}

#[test]
fn simulated_flash_keeps_its_contract_on_every_kind_of_geometry() {
    for geometry in [NOR, FILE, BYTES] {
        conformance::flash(reopen(geometry));
    }
}

#[test]
fn boot_control_in_memory_keeps_its_contract() {
    let record = BootRecord::new(&[("prot", 2), ("boot", 3), ("bmc", 1)]).unwrap();
    conformance::boot_control(|opened: Option<MemoryBootControl>| {
        opened.unwrap_or_else(|| MemoryBootControl::new(record.clone()))
    });
}

/// Flash that breaks one rule.
struct Broken {
    inner: SimFlash,
    rule: Rule,
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    WriteReachesNeighbour,
    StoredComesFromCache,
    SyncIsLazy,
    EraseLeavesBytes,
    AcceptsUnaligned,
}

impl Flash for Broken {
    type Error = SimFlashError;

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        self.inner.read(offset, buf)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        if self.rule == Rule::StoredComesFromCache {
            self.inner.read(offset, buf)
        } else {
            self.inner.read_stored(offset, buf)
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), SimFlashError> {
        let unit = usize::try_from(self.geometry().write_size).expect("units are short");
        if self.rule == Rule::AcceptsUnaligned && !data.len().is_multiple_of(unit) {
            return Ok(());
        }
        self.inner.write(offset, data)?;
        if self.rule == Rule::WriteReachesNeighbour && offset >= 512 {
            self.inner.damage(offset - 1, &[0x99]);
        }
        Ok(())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), SimFlashError> {
        if self.rule == Rule::EraseLeavesBytes {
            return Ok(self.geometry().check_erase(&range)?);
        }
        self.inner.erase(range)
    }

    fn sync(&mut self) -> Result<(), SimFlashError> {
        if matches!(self.rule, Rule::SyncIsLazy | Rule::StoredComesFromCache) {
            return Ok(());
        }
        self.inner.sync()
    }
}

fn check_broken(geometry: Geometry, rule: Rule) {
    let mut reopen = reopen(geometry);
    conformance::flash(|opened: Option<Broken>| Broken {
        inner: reopen(opened.map(|broken| broken.inner)),
        rule,
    });
}

#[test]
#[should_panic(expected = "read after write: the bytes at 0")]
fn sees_a_write_that_reaches_its_neighbour() {
    check_broken(FILE, Rule::WriteReachesNeighbour);
}

#[test]
#[should_panic(expected = "read_stored after a restart")]
fn sees_that_what_was_synced_is_gone_after_a_restart() {
    check_broken(FILE, Rule::StoredComesFromCache);
}

#[test]
#[should_panic(expected = "read_stored after sync")]
fn sees_a_sync_that_does_nothing() {
    check_broken(FILE, Rule::SyncIsLazy);
}

#[test]
#[should_panic(expected = "read after erase: the bytes at 4096")]
fn sees_an_erase_that_does_nothing() {
    check_broken(NOR, Rule::EraseLeavesBytes);
}

#[test]
#[should_panic(expected = "write of an odd length: must be refused")]
fn sees_a_write_that_is_not_aligned() {
    check_broken(FILE, Rule::AcceptsUnaligned);
}

/// Boot control that keeps the record in memory only.
struct Forgetful(MemoryBootControl);

impl BootControl for Forgetful {
    type Error = PowerOff;

    fn load(&mut self) -> Result<BootRecord, PowerOff> {
        self.0.load()
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), PowerOff> {
        self.0.store(record)
    }
}

#[test]
#[should_panic(expected = "must be there after the backend was opened anew")]
fn sees_a_boot_record_that_is_gone_after_a_restart() {
    let record = BootRecord::new(&[("prot", 2)]).unwrap();
    conformance::boot_control(|_: Option<Forgetful>| {
        Forgetful(MemoryBootControl::new(record.clone()))
    });
}
