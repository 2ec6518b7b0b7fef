use alloc::vec::Vec;

use rekindle_flash::SlotId;

use crate::limit::{FALLBACKS, REJECTIONS};
use crate::{AdoptedKeySet, Dated, DatedIndex, Evidence, Rejection, SlotRecord, UnixTime};

/// Everything a device remembers beside its slots and its boot record.
///
/// UPDATE/PROT, BOOT and BMC are not here: they are the serial recorded for the slot that boot
/// control boots next, see [`State::slot_serial`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct State {
    /// UPDATE/CHECK: the serial of the last script that ran to its end.
    pub check: Option<Dated>,
    /// UPDATE/SCFG: the serial of the last configuration upload.
    pub scfg: Option<Dated>,
    /// UPDATE/CFG: the serial of the last configuration download.
    pub cfg: Option<Dated>,
    /// UPDATE/CFG-BACKUP-NUM: the rolling index of the last configuration upload.
    pub backup_index: Option<DatedIndex>,
    /// What was installed into which slot; one record a slot.
    pub slots: Vec<SlotRecord>,
    /// Manifests that did not prove themselves; one entry a manifest, the oldest first.
    pub rejections: Vec<Rejection>,
    /// The latest time known; the clock is never believed to be earlier.
    pub last_time: Option<UnixTime>,
    /// Whether a script was ever downloaded since the factory state. A device without is new.
    pub known: bool,
    /// Fallbacks seen, the oldest first.
    pub fallbacks: Vec<Evidence>,
    /// The keys that the device has adopted; only believed where boot control names this set.
    pub key_set: Option<AdoptedKeySet>,
}

impl State {
    /// The record of a slot.
    #[must_use]
    pub fn slot(&self, component: &str, slot: SlotId) -> Option<&SlotRecord> {
        self.slots
            .iter()
            .find(|record| record.component == component && record.slot == slot)
    }

    /// The update variable of a component as the view of its slot: the serial recorded for `slot`,
    /// if the record speaks of `manifest`, which is what the slot holds. A record that was left
    /// behind by another content says nothing.
    #[must_use]
    pub fn slot_serial(&self, component: &str, slot: SlotId, manifest: &[u8; 32]) -> Option<&[u8]> {
        self.slot(component, slot)
            .filter(|record| record.manifest == *manifest)
            .and_then(|record| record.serial.as_deref())
    }

    /// Replaces the record of its slot.
    pub fn record_slot(&mut self, record: SlotRecord) {
        match self
            .slots
            .iter_mut()
            .find(|old| old.component == record.component && old.slot == record.slot)
        {
            Some(old) => *old = record,
            None => self.slots.push(record),
        }
    }

    /// The rejection of a manifest, if there is one.
    #[must_use]
    pub fn rejection(&self, manifest: &[u8; 32]) -> Option<&Rejection> {
        self.rejections
            .iter()
            .find(|rejection| rejection.manifest == *manifest)
    }

    /// Adds a rejection as the newest, replaces an earlier one of the same manifest, and adds up
    /// their tries. Beyond [`REJECTIONS`] the oldest is dropped.
    pub fn reject(&mut self, mut rejection: Rejection) {
        if let Some(index) = self
            .rejections
            .iter()
            .position(|old| old.manifest == rejection.manifest)
        {
            let old = self.rejections.remove(index);
            rejection.tries = rejection.tries.saturating_add(old.tries);
        }
        self.rejections.push(rejection);
        drop_oldest(&mut self.rejections, REJECTIONS);
    }

    /// Forgets the rejection of a manifest: it has confirmed itself, or the operator insists.
    /// Returns whether there was one.
    pub fn clear_rejection(&mut self, manifest: &[u8; 32]) -> bool {
        let before = self.rejections.len();
        self.rejections
            .retain(|rejection| rejection.manifest != *manifest);
        self.rejections.len() != before
    }

    /// Adds evidence of a fallback. Beyond [`FALLBACKS`] the oldest is dropped.
    pub fn add_fallback(&mut self, evidence: Evidence) {
        self.fallbacks.push(evidence);
        drop_oldest(&mut self.fallbacks, FALLBACKS);
    }

    /// Forgets what a store that is too small for it all can best do without: evidence of which a
    /// server has been told, then the oldest of what there is more of. Returns whether there was
    /// anything beside the newest rejection and the newest evidence.
    pub(crate) fn forget_oldest_trial(&mut self) -> bool {
        let older = self.fallbacks.len().saturating_sub(1);
        let told = self.fallbacks[..older]
            .iter()
            .position(|evidence| evidence.reported);
        if let Some(told) = told {
            self.fallbacks.remove(told);
        } else if self.rejections.len() > self.fallbacks.len().max(1) {
            self.rejections.remove(0);
        } else if older > 0 {
            self.fallbacks.remove(0);
        } else {
            return false;
        }
        true
    }

    /// The time to believe in: `clock`, but never earlier than the latest time known.
    #[must_use]
    pub fn time(&self, clock: Option<UnixTime>) -> Option<UnixTime> {
        clock.map(|clock| self.last_time.map_or(clock, |last| last.max(clock)))
    }

    /// Moves the latest time known forward to `now`; never back.
    pub fn note_time(&mut self, now: UnixTime) {
        self.last_time = self.last_time.max(Some(now));
    }

    /// Back to the factory state: the update variables and settings are cleared and the device is
    /// new again. The serials go too, since they are variables; what lies in the slots, what was
    /// rejected, the evidence, the adopted keys and the latest time known stay. The security floor is in boot
    /// control.
    pub fn factory_reset(&mut self) {
        self.check = None;
        self.scfg = None;
        self.cfg = None;
        self.backup_index = None;
        self.known = false;
        for record in &mut self.slots {
            record.serial = None;
        }
    }
}

fn drop_oldest<T>(list: &mut Vec<T>, max: usize) {
    let surplus = list.len().saturating_sub(max);
    list.drain(..surplus);
}
