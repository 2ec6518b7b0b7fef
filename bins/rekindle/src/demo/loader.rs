//! The boot loader of a board: a step of its own, before and apart from the agent.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use rekindle_flash::{
    BootControl as _, BootRecord, FileBootControl, FileFlash, Flash as _, SlotId,
};
use rekindle_update::held_manifest;

use super::firmware::{HEAD_LEN, Start};

/// What the boot loader knows of its board: where boot control and the slots lie.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    pub(super) control: PathBuf,
    pub(super) slots: [PathBuf; 2],
    pub(super) slot_size: u64,
}

/// What the boot loader starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) slot: SlotId,
    pub(super) build: String,
    pub(super) start: Start,
    pub(super) reason: Reason,
}

/// Why it starts that slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is the confirmed one and no other was chosen.
    Confirmed,
    /// It was chosen; this attempt, counted from 1, and how many there are.
    Attempt(u8, u8),
    /// A slot was chosen, and its attempts are used up.
    FellBack,
    /// The chosen slot holds no complete image.
    Unbootable(SlotId),
}

impl Loader {
    /// Counts the attempt, stores the record, and only then says what to start: a firmware that
    /// hangs at once would otherwise be tried for ever.
    pub(super) fn step(&self) -> anyhow::Result<Boot> {
        let mut control = FileBootControl::open(&self.control, &COMPONENTS)?;
        let mut record = control.load()?;
        let slot = next(&record)?;
        let mut reason = match (record.is_trial(), record.attempts_left()) {
            (false, _) => Reason::Confirmed,
            (true, 0) => Reason::FellBack,
            (true, left) => Reason::Attempt(record.attempts() - left + 1, record.attempts()),
        };
        record.start();
        control.store(&record)?;

        let mut found = self.look(slot)?.map(|(build, start)| (slot, build, start));
        if found.is_none() && matches!(reason, Reason::Attempt(..)) {
            record.exhaust();
            control.store(&record)?;
            reason = Reason::Unbootable(slot);
            let slot = next(&record)?;
            found = self.look(slot)?.map(|(build, start)| (slot, build, start));
        }
        let Some((slot, build, start)) = found else {
            bail!("no slot of this board holds a complete firmware");
        };
        Ok(Boot {
            slot,
            build,
            start,
            reason,
        })
    }

    /// The build in a slot and what it starts, if the slot's tail says that it is complete.
    fn look(&self, slot: SlotId) -> anyhow::Result<Option<(String, Start)>> {
        let path = self.slots.get(usize::from(slot.index()));
        let path = path.with_context(|| format!("boot control names slot {slot} of two"))?;
        let mut flash = FileFlash::open(path, self.slot_size)?;
        let Some(held) = held_manifest(&mut flash)? else {
            return Ok(None);
        };
        let mut page = vec![0; usize::try_from(HEAD_LEN)?];
        flash.read(0, &mut page)?;
        Ok(Start::read(&page).map(|start| (held.manifest.build, start)))
    }
}

fn next(record: &BootRecord) -> anyhow::Result<SlotId> {
    record
        .next(COMPONENT)
        .context("boot control has no slot to boot")
}

pub(super) const COMPONENT: &str = "prot";

/// One component with two slots.
const COMPONENTS: [(&str, u8); 1] = [(COMPONENT, 2)];

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::demo::factory::Factory;
    use crate::demo::firmware::Firmware;

    /// A board whose slot A holds build 1; slot B holds `other`, or nothing.
    fn board(other: Option<&Firmware>) -> (TempDir, Loader) {
        let folder = tempfile::tempdir().unwrap();
        let factory = Factory::new(folder.path(), Path::new("/agent"), &[]).unwrap();
        let loader = factory
            .deliver(1, &fill(&factory, &FIRST), "http://127.0.0.1/")
            .unwrap()
            .loader;
        if let Some(other) = other {
            fs::rename(fill(&factory, other), &loader.slots[1]).unwrap();
        }
        (folder, loader)
    }

    fn fill(factory: &Factory, firmware: &Firmware) -> PathBuf {
        let image = factory.pack(firmware, &AtomicBool::new(false)).unwrap();
        factory.fill_slot(&image).unwrap()
    }

    const FIRST: Firmware = Firmware::tiny("1", Start::Agent);

    fn change(loader: &Loader, change: impl FnOnce(&mut BootRecord)) {
        let mut control = FileBootControl::open(&loader.control, &COMPONENTS).unwrap();
        let mut record = control.load().unwrap();
        change(&mut record);
        control.store(&record).unwrap();
    }

    fn boot(slot: SlotId, build: &str, start: Start, reason: Reason) -> Boot {
        Boot {
            slot,
            build: build.to_owned(),
            start,
            reason,
        }
    }

    #[test]
    fn without_a_choice_the_confirmed_slot_starts() {
        let (_folder, loader) = board(None);
        let expected = boot(SlotId::A, "1", Start::Agent, Reason::Confirmed);
        assert_eq!(loader.step().unwrap(), expected);
        assert_eq!(loader.step().unwrap(), expected);
    }

    #[test]
    fn a_choice_is_started_as_often_as_it_has_attempts_and_never_again() {
        let (_folder, loader) = board(Some(&Firmware::tiny("2", Start::Hang)));
        change(&loader, |record| {
            record.choose(COMPONENT, SlotId::B, 2).unwrap();
        });
        for attempt in 1..=2 {
            let expected = boot(SlotId::B, "2", Start::Hang, Reason::Attempt(attempt, 2));
            assert_eq!(loader.step().unwrap(), expected);
            change(&loader, |record| {
                assert_eq!(record.attempts_left(), 2 - attempt);
            });
        }
        for _ in 0..2 {
            let expected = boot(SlotId::A, "1", Start::Agent, Reason::FellBack);
            assert_eq!(loader.step().unwrap(), expected);
        }
        change(&loader, |record| {
            assert_eq!(record.component(COMPONENT).unwrap().chosen, Some(SlotId::B));
        });
    }

    #[test]
    fn a_chosen_slot_without_a_whole_image_is_not_started() {
        let (_folder, loader) = board(None);
        change(&loader, |record| {
            record.choose(COMPONENT, SlotId::B, 3).unwrap();
        });
        let expected = boot(SlotId::A, "1", Start::Agent, Reason::Unbootable(SlotId::B));
        assert_eq!(loader.step().unwrap(), expected);
        change(&loader, |record| {
            assert_eq!(record.attempts_left(), 0);
            assert_eq!(record.component(COMPONENT).unwrap().chosen, Some(SlotId::B));
        });
    }
}
