use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::slot::MAX_SLOTS;
use crate::{SlotId, SlotSet};

/// What the boot loader needs to know, for the whole device: which slot of each component boots,
/// and how often a new choice may still be tried.
///
/// The components that were chosen since the last confirm are one *trial set*: they share the
/// attempts, and are confirmed or reverted together.
///
/// ```text
///            choose                 start (the boot loader)
/// settled ------------> pending -----------------------------> on trial --- start, attempts left ---+
///    ^                   |   |                                  |  |  ^                             |
///    |  withdraw, revert |   | exhaust              revert      |  |  +-----------------------------+
///    +-------------------+   |                                  |  |
///    +-----------------------|----------------------------------+  | start, none left; exhaust
///    |      confirm (the choice is now the confirmed slot)         v
///    +-------------------------- revert ----------------------- exhausted (the confirmed slots boot)
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BootRecord {
    components: Vec<ComponentBoot>,
    /// What the trial set began with; 0 without a trial.
    attempts: u8,
    /// At most `attempts`.
    attempts_left: u8,
    key_set: Option<KeySetName>,
}

/// The key set that the device has adopted, by number and digest: what is signed by an earlier one is refused for ever. The keys
/// themselves are in images and in state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "mirrors a frozen format")]
pub struct KeySetName {
    /// Its place in the chain of sets; 1 is the first that followed the keys of the factory.
    pub number: u64,
    /// The BLAKE3 hash of the set, as `docs/formats/image.md` has it.
    pub digest: [u8; 32],
}

/// What boot control knows about one component.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ComponentBoot {
    /// `prot`, `boot`, `bmc` or a vendor's own.
    pub name: String,
    /// How many slots it has; at least 1.
    pub slots: u8,
    /// The slot that was last found good; what the device falls back to.
    pub confirmed: SlotId,
    /// The slot to be tried; never an unbootable one, never the confirmed one.
    pub chosen: Option<SlotId>,
    /// Slots that must not be booted: an install into them began and has not ended.
    pub unbootable: SlotSet,
    /// No image with a lower security version is accepted.
    pub security_floor: u64,
}

impl BootRecord {
    /// Describes a new device, which runs from slot A of each component.
    ///
    /// # Errors
    ///
    /// The components are none or too many, or a name or a number of slots is out of its limits.
    pub fn new(components: &[(&str, u8)]) -> Result<Self, RecordError> {
        let components = components
            .iter()
            .map(|(name, slots)| ComponentBoot::new(name, *slots))
            .collect();
        Self::from_parts(components, 0, 0)
    }

    pub(super) fn from_parts(
        components: Vec<ComponentBoot>,
        attempts: u8,
        attempts_left: u8,
    ) -> Result<Self, RecordError> {
        if components.is_empty() || components.len() > COMPONENTS_MAX {
            return Err(RecordError::Components {
                count: components.len(),
            });
        }
        for (index, component) in components.iter().enumerate() {
            component.check()?;
            if components[..index]
                .iter()
                .any(|other| other.name == component.name)
            {
                return Err(RecordError::DuplicateName {
                    name: component.name.clone(),
                });
            }
        }
        let is_trial = components
            .iter()
            .any(|component| component.chosen.is_some());
        if attempts_left > attempts || is_trial != (attempts > 0) {
            return Err(RecordError::Attempts {
                attempts,
                attempts_left,
            });
        }
        Ok(Self {
            components,
            attempts,
            attempts_left,
            key_set: None,
        })
    }

    /// Puts back what was stored.
    pub(super) fn with_key_set(mut self, key_set: Option<KeySetName>) -> Result<Self, RecordError> {
        if key_set.is_some_and(|key_set| key_set.number == 0) {
            return Err(RecordError::KeySetNumber);
        }
        self.key_set = key_set;
        Ok(self)
    }

    /// Fits the record to the components that a configuration names: new ones are added (running
    /// from slot A), a changed number of slots is taken over. Components that are no longer named
    /// stay, with their security floor.
    ///
    /// # Errors
    ///
    /// A component would lose a slot that is confirmed or chosen, or the result breaks a limit;
    /// the record is unchanged then.
    pub fn adapt(&mut self, components: &[(&str, u8)]) -> Result<(), RecordError> {
        let mut adapted = self.components.clone();
        for (name, slots) in components {
            match adapted.iter_mut().find(|known| known.name == *name) {
                Some(known) => known.slots = *slots,
                None => adapted.push(ComponentBoot::new(name, *slots)),
            }
        }
        *self = Self::from_parts(adapted, self.attempts, self.attempts_left)?
            .with_key_set(self.key_set)?;
        Ok(())
    }

    /// Goes through the components in the order in which they were given.
    pub fn components(&self) -> impl Iterator<Item = &ComponentBoot> {
        self.components.iter()
    }

    /// Returns the component of this name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ComponentBoot> {
        self.components
            .iter()
            .find(|component| component.name == name)
    }

    /// Returns how many attempts the trial set began with; 0 without a trial.
    #[must_use]
    pub const fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Returns how many boots of the trial set are left.
    #[must_use]
    pub const fn attempts_left(&self) -> u8 {
        self.attempts_left
    }

    /// Whether a choice waits to be confirmed or reverted.
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.attempts > 0
    }

    /// Whether the trial is past its first boot: it runs, or it has failed. Until it is confirmed
    /// or reverted nothing may be withdrawn or chosen.
    #[must_use]
    pub const fn trial_started(&self) -> bool {
        self.attempts_left < self.attempts
    }

    /// Returns the slot of the component that boots next: the chosen one while attempts are left,
    /// otherwise the confirmed one. `None` for an unknown component, and where the only slot is
    /// being written.
    #[must_use]
    pub fn next(&self, name: &str) -> Option<SlotId> {
        self.component(name)
            .and_then(|component| self.boots(component))
    }

    /// Takes a slot out of use before an install writes to it: a pending choice of it is dropped,
    /// and nothing boots or falls back to it until it is chosen again.
    ///
    /// # Errors
    ///
    /// The slot does not exist, a trial has begun, or the slot is the confirmed one of a component
    /// that has others. The only slot of a component is no part of a trial: it may be withdrawn and
    /// chosen during one, which is what recovery does.
    pub fn withdraw(&mut self, name: &str, slot: SlotId) -> Result<(), BootRefused> {
        let started = self.trial_started();
        let component = self.known_slot(name, slot)?;
        if started && component.slots > 1 {
            return Err(BootRefused::TrialStarted);
        }
        if component.slots > 1 && component.confirmed == slot {
            return Err(BootRefused::Confirmed {
                component: name.to_owned(),
                slot,
            });
        }
        if component.chosen == Some(slot) {
            component.chosen = None;
        }
        component.unbootable.insert(slot);
        self.end_empty_trial();
        Ok(())
    }

    /// Makes a slot bootable and boots it next, with so many attempts for the whole trial set.
    ///
    /// Choosing the confirmed slot (of a component with a single slot there is no other) needs no
    /// trial: it makes the slot bootable and drops a pending choice of another one.
    ///
    /// # Errors
    ///
    /// The slot does not exist, a trial has begun (and the slot is not the only one of its
    /// component), or `attempts` is zero.
    pub fn choose(&mut self, name: &str, slot: SlotId, attempts: u8) -> Result<(), BootRefused> {
        let started = self.trial_started();
        let component = self.known_slot(name, slot)?;
        if started && component.slots > 1 {
            return Err(BootRefused::TrialStarted);
        }
        if attempts == 0 {
            return Err(BootRefused::NoAttempts);
        }
        component.unbootable.remove(slot);
        if component.confirmed == slot {
            component.chosen = None;
            self.end_empty_trial();
        } else {
            component.chosen = Some(slot);
            self.attempts = attempts;
            self.attempts_left = attempts;
        }
        Ok(())
    }

    /// Takes back a withdrawal: the slot holds again what it held before, whole, and may be booted
    /// where something falls back to it. What boots next stays as it is.
    ///
    /// # Errors
    ///
    /// The slot does not exist, or a trial has begun.
    pub fn readmit(&mut self, name: &str, slot: SlotId) -> Result<(), BootRefused> {
        let started = self.trial_started();
        let component = self.known_slot(name, slot)?;
        if started {
            return Err(BootRefused::TrialStarted);
        }
        component.unbootable.remove(slot);
        Ok(())
    }

    /// The boot loader's step: counts an attempt if a trial has one left, and returns what to boot
    /// now, in the order of the components. A component that cannot be booted is not in it.
    ///
    /// The loader stores the record before it boots anything: otherwise a slot that hangs at once
    /// is tried for ever.
    pub fn start(&mut self) -> Vec<(String, SlotId)> {
        let boots = self
            .components
            .iter()
            .filter_map(|component| Some((component.name.clone(), self.boots(component)?)))
            .collect();
        self.attempts_left = self.attempts_left.saturating_sub(1);
        boots
    }

    /// The boot loader found that a chosen slot cannot be booted: no attempt is left, the
    /// confirmed slots boot, and the choice stays as evidence until [`revert`](Self::revert).
    /// Without a trial this does nothing.
    pub const fn exhaust(&mut self) {
        self.attempts_left = 0;
    }

    /// Makes every chosen slot the confirmed one; the caller has made sure that they are what
    /// runs. Without a trial this does nothing.
    ///
    /// # Errors
    ///
    /// The trial has not been started: what runs is something else.
    pub fn confirm(&mut self) -> Result<(), BootRefused> {
        if self.is_trial() && !self.trial_started() {
            return Err(BootRefused::NotStarted);
        }
        for component in &mut self.components {
            if let Some(chosen) = component.chosen.take() {
                component.confirmed = chosen;
            }
        }
        self.end_empty_trial();
        Ok(())
    }

    /// Drops every choice: the confirmed slots boot. Without a trial this does nothing.
    pub fn revert(&mut self) {
        for component in &mut self.components {
            component.chosen = None;
        }
        self.end_empty_trial();
    }

    /// Raises the component's security floor to `version`; a lower one changes nothing.
    ///
    /// # Errors
    ///
    /// There is no such component.
    pub fn raise_floor(&mut self, name: &str, version: u64) -> Result<(), BootRefused> {
        let component = self.known(name)?;
        component.security_floor = component.security_floor.max(version);
        Ok(())
    }

    /// Returns the key set that the device has adopted; `None`: it still goes by the keys of its
    /// factory.
    #[must_use]
    pub const fn key_set(&self) -> Option<KeySetName> {
        self.key_set
    }

    /// Adopts a key set; the one that is adopted already changes nothing.
    ///
    /// # Errors
    ///
    /// The number is 0 or lower than the adopted one, or the digest is another under the same
    /// number.
    pub fn adopt_key_set(&mut self, key_set: KeySetName) -> Result<(), BootRefused> {
        let adopted = self.key_set.map_or(0, |adopted| adopted.number);
        if key_set.number == 0 || key_set.number < adopted {
            return Err(BootRefused::KeySetOlder {
                number: key_set.number,
                adopted,
            });
        }
        if let Some(known) = self.key_set
            && known.number == key_set.number
            && known != key_set
        {
            return Err(BootRefused::KeySetFork {
                number: key_set.number,
            });
        }
        self.key_set = Some(key_set);
        Ok(())
    }

    fn boots(&self, component: &ComponentBoot) -> Option<SlotId> {
        let slot = match component.chosen {
            Some(chosen) if self.attempts_left > 0 => chosen,
            Some(_) | None => component.confirmed,
        };
        (!component.unbootable.contains(slot)).then_some(slot)
    }

    fn end_empty_trial(&mut self) {
        if self
            .components
            .iter()
            .all(|component| component.chosen.is_none())
        {
            self.attempts = 0;
            self.attempts_left = 0;
        }
    }

    fn known(&mut self, name: &str) -> Result<&mut ComponentBoot, BootRefused> {
        self.components
            .iter_mut()
            .find(|component| component.name == name)
            .ok_or_else(|| BootRefused::UnknownComponent {
                component: name.to_owned(),
            })
    }

    fn known_slot(&mut self, name: &str, slot: SlotId) -> Result<&mut ComponentBoot, BootRefused> {
        let component = self.known(name)?;
        if slot.index() >= component.slots {
            return Err(BootRefused::UnknownSlot {
                component: name.to_owned(),
                slot,
                slots: component.slots,
            });
        }
        Ok(component)
    }
}

impl ComponentBoot {
    fn new(name: &str, slots: u8) -> Self {
        Self {
            name: name.to_owned(),
            slots,
            confirmed: SlotId::A,
            chosen: None,
            unbootable: SlotSet::EMPTY,
            security_floor: 0,
        }
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.name.is_empty() || self.name.len() > NAME_MAX {
            return Err(RecordError::Name {
                len: self.name.len(),
            });
        }
        let name = || self.name.clone();
        if self.slots == 0 || self.slots > MAX_SLOTS {
            return Err(RecordError::Slots {
                name: name(),
                slots: self.slots,
            });
        }
        let used = [Some(self.confirmed), self.chosen];
        if let Some(slot) = used
            .into_iter()
            .flatten()
            .find(|slot| slot.index() >= self.slots)
        {
            return Err(RecordError::SlotInUse {
                name: name(),
                slot,
                slots: self.slots,
            });
        }
        if self
            .chosen
            .is_some_and(|chosen| chosen == self.confirmed || self.unbootable.contains(chosen))
        {
            return Err(RecordError::Choice { name: name() });
        }
        Ok(())
    }
}

/// Boot control does not allow this now.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BootRefused {
    /// The device has no such component.
    #[error("boot control knows no component \"{component}\"")]
    UnknownComponent {
        /// What was asked for.
        component: String,
    },
    /// The component has fewer slots.
    #[error("component \"{component}\" has no slot {slot}: it has {slots}")]
    UnknownSlot {
        /// The component.
        component: String,
        /// What was asked for.
        slot: SlotId,
        /// How many it has.
        slots: u8,
    },
    /// The slot is what the device falls back to; write another one.
    #[error("slot {slot} of \"{component}\" is the confirmed one: it must not be overwritten")]
    Confirmed {
        /// The component.
        component: String,
        /// Its confirmed slot.
        slot: SlotId,
    },
    /// The choice was booted and is neither confirmed nor reverted: do that first.
    #[error("a trial is under way: confirm or revert it first")]
    TrialStarted,
    /// The choice was not booted yet, so what runs is not what would be confirmed.
    #[error("what was chosen has not been started yet: restart the device first")]
    NotStarted,
    /// A choice that is never tried makes no sense: allow at least one attempt.
    #[error("a choice needs at least one attempt")]
    NoAttempts,
    /// A device never goes back to an earlier key set ("key rollback").
    #[error("key set {number} is not later than set {adopted}, which is adopted")]
    KeySetOlder {
        /// What was to be adopted.
        number: u64,
        /// What is.
        adopted: u64,
    },
    /// Another set is adopted under this number ("fork").
    #[error("another key set {number} is adopted already")]
    KeySetFork {
        /// The number.
        number: u64,
    },
}

/// A boot record breaks a rule of its own.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// There must be 1 to 32 components.
    #[error("{count} components: a boot record holds 1 to {COMPONENTS_MAX}")]
    Components {
        /// How many there are.
        count: usize,
    },
    /// A component's name must have 1 to 32 bytes.
    #[error("a component name of {len} bytes: it must have 1 to {NAME_MAX}")]
    Name {
        /// Its length.
        len: usize,
    },
    /// Two components have the same name.
    #[error("component \"{name}\" is there twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A component must have 1 to 26 slots.
    #[error("component \"{name}\" with {slots} slots: it must have 1 to {MAX_SLOTS}")]
    Slots {
        /// The component.
        name: String,
        /// How many it states.
        slots: u8,
    },
    /// The confirmed or chosen slot lies beyond the number of slots: give the component its slots
    /// back, or move to a lower one first.
    #[error("component \"{name}\" has {slots} slots, but slot {slot} is in use")]
    SlotInUse {
        /// The component.
        name: String,
        /// The slot.
        slot: SlotId,
        /// How many slots there are.
        slots: u8,
    },
    /// The chosen slot is unbootable, or the confirmed one.
    #[error("component \"{name}\" chooses an unbootable slot or the confirmed one")]
    Choice {
        /// The component.
        name: String,
    },
    /// More attempts are left than there were, or attempts and choices do not go together.
    #[error("{attempts_left} of {attempts} attempts left does not fit the choices")]
    Attempts {
        /// In all.
        attempts: u8,
        /// Left.
        attempts_left: u8,
    },
    /// The adopted key set has number 0, which stands for none.
    #[error("an adopted key set has a number from 1 on")]
    KeySetNumber,
    /// The bytes are not the CBOR of a boot record.
    #[error("not the encoding of a boot record")]
    Encoding,
}

/// So that a record fits into its 4096 bytes.
const COMPONENTS_MAX: usize = 32;
/// So that a record fits into its 4096 bytes.
const NAME_MAX: usize = 32;
