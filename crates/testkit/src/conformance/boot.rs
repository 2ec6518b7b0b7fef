use core::fmt;

use rekindle_flash::{BootControl, BootRecord, SlotId};

use super::Report;

/// Runs the contract of [`BootControl`] against a backend that can be opened anew; see the
/// [module](crate::conformance) for `open`. The record is left changed.
pub fn boot_control<B: BootControl>(mut open: impl FnMut(Option<B>) -> B) -> Report {
    let boot = open(None);
    BootSuite::new(boot)
        .restart(move |boot| open(Some(boot)))
        .run()
}

/// The contract of [`BootControl`], for a backend and what can be done to it.
pub struct BootSuite<'a, B> {
    boot: Option<B>,
    restart: Option<Restart<'a, B>>,
    cut: Option<Cut<'a, B>>,
    damage: Option<Damage<'a, B>>,
}

type Restart<'a, B> = Box<dyn FnMut(B) -> B + 'a>;
type Cut<'a, B> = Box<dyn FnMut(&mut B, u64) + 'a>;
type Damage<'a, B> = Box<dyn FnMut(&mut B) + 'a>;

impl<'a, B: BootControl> BootSuite<'a, B> {
    /// Takes a backend as it is, with a record in it: nothing that needs a restart is checked.
    pub fn new(boot: B) -> Self {
        Self {
            boot: Some(boot),
            restart: None,
            cut: None,
            damage: None,
        }
    }

    /// Says how the backend is opened anew on the same medium, as after a restart of the device.
    #[must_use]
    pub fn restart(mut self, restart: impl FnMut(B) -> B + 'a) -> Self {
        self.restart = Some(Box::new(restart));
        self
    }

    /// Says how to cut the power in the middle of the n-th operation on the medium from now (1:
    /// the next one), so that everything fails from there on until the restart, which is needed too.
    #[must_use]
    pub fn cut(mut self, cut: impl FnMut(&mut B, u64) + 'a) -> Self {
        self.cut = Some(Box::new(cut));
        self
    }

    /// Says how to damage the record beyond repair, every copy of it.
    #[must_use]
    pub fn damage(mut self, damage: impl FnMut(&mut B) + 'a) -> Self {
        self.damage = Some(Box::new(damage));
        self
    }

    /// Checks every sentence that can be checked with what was given. The record is left changed,
    /// or damaged.
    pub fn run(self) -> Report {
        let mut run = Run {
            suite: self,
            report: Report::new("BootControl", &SENTENCES),
            expected: None,
            floor: 0,
        };
        match run.all() {
            Ok(()) | Err(Stopped) => run.report,
        }
    }

    fn boot(&mut self) -> &mut B {
        self.boot
            .as_mut()
            .expect("the suite gives the backend away during a restart only")
    }
}

impl<B: fmt::Debug> fmt::Debug for BootSuite<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootSuite")
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

/// A sentence is broken in a way that makes the rest pointless.
struct Stopped;

struct Run<'a, B> {
    suite: BootSuite<'a, B>,
    report: Report,
    /// What a load must return.
    expected: Option<BootRecord>,
    floor: u64,
}

impl<B: BootControl> Run<'_, B> {
    fn all(&mut self) -> Result<(), Stopped> {
        let mut record = self.load(LOADS)?;
        let again = self.load(LOADS)?;
        if let Err(what) = same(&record, &again) {
            self.report.note(LOADS, Err(what));
            return Err(Stopped);
        }
        self.floor = record
            .components()
            .map(|component| component.security_floor)
            .max()
            .unwrap_or(0);
        record.revert();
        // Several rounds, so that a backend with two copies overwrites each of them.
        for _ in 0..3 {
            for step in steps(&mut record, &mut self.floor) {
                self.store(&step)?;
            }
            self.persists()?;
            // The boot loader's turn.
            record.start();
            self.store(&record)?;
            record.confirm().unwrap_or_default();
            self.store(&record)?;
        }
        self.persists()?;
        self.cuts(&mut record)?;
        self.damaged()
    }

    fn persists(&mut self) -> Result<(), Stopped> {
        if self.suite.restart.is_none() {
            return Ok(());
        }
        self.restart();
        let found = self.load(DURABLE)?;
        let seen = self.expected.as_ref().map_or(Ok(()), |expected| {
            same(expected, &found)
                .map_err(|what| format!("after the backend was opened anew {what}"))
        });
        let stopped = seen.is_err();
        self.report.note(DURABLE, seen);
        if stopped { Err(Stopped) } else { Ok(()) }
    }

    /// Cuts at each operation of some stores, again and again on the same medium.
    fn cuts(&mut self, record: &mut BootRecord) -> Result<(), Stopped> {
        if self.suite.restart.is_none() || self.suite.cut.is_none() {
            return Ok(());
        }
        for cut in (1..=CUTS_MAX).flat_map(|cut| [cut; CUT_REPEATS]) {
            let Some(plan) = self.suite.cut.as_mut() else {
                return Ok(());
            };
            plan(
                self.suite.boot.as_mut().expect("no restart is under way"),
                cut,
            );
            let mut before = record.clone();
            let mut stored = true;
            for step in steps(record, &mut self.floor) {
                stored = self.suite.boot().store(&step).is_ok();
                if !stored {
                    *record = step;
                    break;
                }
                before = step;
            }
            self.restart();
            let found = match self.suite.boot().load() {
                Ok(found) => found,
                Err(error) => {
                    let what = format!("after a power cut during a store, a load fails: {error}");
                    self.report.note(ATOMIC, Err(what));
                    return Err(Stopped);
                }
            };
            let seen = if found == before || (!stored && found == *record) {
                Ok(())
            } else {
                Err(format!(
                    "after a power cut during a store, it loads {found:?}, which is neither {before:?} nor {record:?}"
                ))
            };
            let stopped = seen.is_err();
            self.report.note(ATOMIC, seen);
            if stopped {
                return Err(Stopped);
            }
            if stored {
                break;
            }
            // What a cut left does not keep the next store from working.
            *record = found;
            record.revert();
            self.store(record)?;
            self.persists()?;
        }
        Ok(())
    }

    fn damaged(&mut self) -> Result<(), Stopped> {
        let Some(damage) = self.suite.damage.as_mut() else {
            return Ok(());
        };
        damage(self.suite.boot.as_mut().expect("no restart is under way"));
        let seen = match self.suite.boot().load() {
            Ok(record) => Err(format!("a damaged record loads as {record:?}")),
            Err(_) => Ok(()),
        };
        self.report.note(NO_DEFAULT, seen);
        Ok(())
    }

    fn restart(&mut self) {
        if let (Some(restart), Some(boot)) = (self.suite.restart.as_mut(), self.suite.boot.take()) {
            self.suite.boot = Some(restart(boot));
        }
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Stopped> {
        if let Err(error) = self.suite.boot().store(record) {
            let what = format!("a valid record is not stored: {error}");
            self.report.note(STORES, Err(what));
            return Err(Stopped);
        }
        self.expected = Some(record.clone());
        let found = self.load(LOADS)?;
        let seen = same(record, &found);
        let stopped = seen.is_err();
        self.report.note(STORES, seen);
        if stopped { Err(Stopped) } else { Ok(()) }
    }

    fn load(&mut self, sentence: &'static str) -> Result<BootRecord, Stopped> {
        match self.suite.boot().load() {
            Ok(record) => {
                self.report.note(sentence, Ok(()));
                Ok(record)
            }
            Err(error) => {
                self.report
                    .note(sentence, Err(format!("a load fails: {error}")));
                Err(Stopped)
            }
        }
    }
}

/// Changes the record as an install of every component does, and returns it after each change.
fn steps(record: &mut BootRecord, floor: &mut u64) -> Vec<BootRecord> {
    let components: Vec<(String, u8, SlotId)> = record
        .components()
        .map(|component| (component.name.clone(), component.slots, component.confirmed))
        .collect();
    let mut steps = Vec::new();
    for (name, slots, confirmed) in components {
        *floor += 1;
        record
            .raise_floor(&name, *floor)
            .expect("the component exists");
        steps.push(record.clone());
        let others = (0..slots).filter_map(SlotId::new);
        if let Some(other) = others.into_iter().find(|slot| *slot != confirmed) {
            record
                .withdraw(&name, other)
                .expect("what does not boot may be withdrawn");
            steps.push(record.clone());
            record
                .choose(&name, other, 3)
                .expect("a slot without a trial may be chosen");
            steps.push(record.clone());
        }
    }
    steps
}

fn same(expected: &BootRecord, found: &BootRecord) -> Result<(), String> {
    if expected == found {
        Ok(())
    } else {
        Err(format!("it loads {found:?} and should load {expected:?}"))
    }
}

/// More operations than the stores of one round have.
const CUTS_MAX: u64 = 4096;
/// What a cut leaves is different each time.
const CUT_REPEATS: usize = 4;

const LOADS: &str = "Reads the record.";
const STORES: &str = "Replaces the record; durable when this returns.";
const DURABLE: &str = "It is the only commit point of an install, so a backend that answers `Ok` early bricks devices.";
const ATOMIC: &str = "`store` is atomic and durable: after a power cut during it, `load` returns the record before or the record after, never a mixture, and once it returned `Ok` always the latter.";
const NO_DEFAULT: &str = "A record that cannot be read is an error, never a default one: a default could boot a half-written slot and forgets the security floor.";

/// Each with what it needs to be checked.
pub(super) const SENTENCES: [(&str, &str); 5] = [
    (LOADS, "always checked"),
    (STORES, "needs that the sentences above are kept"),
    (
        DURABLE,
        "needs `restart`, and that the sentences above are kept",
    ),
    (
        ATOMIC,
        "needs `restart` and `cut`, and that the sentences above are kept",
    ),
    (
        NO_DEFAULT,
        "needs `damage`, and that the sentences above are kept",
    ),
];
