use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::copies::{Copies, EnvironmentFlags};
use super::environment::{Environment, EnvironmentDamage};
use super::variables::{
    RecordVariableError, UBootVariables, VariableNameError, read_record, write_record,
};
use crate::{BootControl, BootRecord, ComponentBoot, Flash, FlashError, RecordError};

/// Boot control in the environment of U-Boot, which every script of the boot loader can read; see
/// `docs/formats/uboot-environment.md`.
///
/// The loader is told what to boot by the variables of RAUC's U-Boot scripts, so that boards with
/// such a script need no other one. The record as a whole is in one variable beside them. All other
/// variables stay byte by byte as they are.
///
/// # Power cuts
///
/// With two copies a store never touches the one that counts before the other is synced. **With one
/// copy it overwrites the only one: a power cut then loses every variable, the board's own
/// included, and the contract of [`BootControl`] is not kept.** Use a single copy only where nothing
/// else is possible.
///
/// On flash with erase blocks the blocks of a copy should hold nothing else: what stands behind the
/// copy in its last block is kept, as `fw_setenv` keeps it, but a power cut may lose it.
///
/// # One choice
///
/// The variables choose the slot of one component, so at most one may have several slots.
#[derive(Debug)]
pub struct UBootEnv<F> {
    copies: Copies<F>,
    variables: UBootVariables,
    components: Vec<(String, u8)>,
    /// The component that the loader starts.
    system: String,
}

impl<F: Flash> UBootEnv<F> {
    /// Opens an environment that has two copies, of `size` bytes each, at the start of two
    /// flashes that share no erase block. What the environment holds is not read yet.
    ///
    /// `components` are the names and numbers of slots of the configuration. A record that knows
    /// other ones is fitted to them whenever it is loaded.
    ///
    /// # Errors
    ///
    /// The size does not fit, the components are out of their limits or several of them have
    /// several slots, or two slots or values would share a variable.
    pub fn redundant(
        copies: [F; 2],
        size: usize,
        variables: UBootVariables,
        components: &[(&str, u8)],
    ) -> Result<Self, UBootEnvError<F::Error>> {
        Self::new(Vec::from(copies), size, variables, components)
    }

    /// Opens an environment that has a single copy: **a power cut during a store loses it.**
    ///
    /// # Errors
    ///
    /// As [`redundant`](Self::redundant).
    pub fn single(
        copy: F,
        size: usize,
        variables: UBootVariables,
        components: &[(&str, u8)],
    ) -> Result<Self, UBootEnvError<F::Error>> {
        Self::new(Vec::from([copy]), size, variables, components)
    }

    /// Says what the flags of the two copies mean, where it is not what the flash suggests:
    /// [`Active`](EnvironmentFlags::Active) on flash with erase blocks,
    /// [`Serial`](EnvironmentFlags::Serial) elsewhere.
    #[must_use]
    pub fn with_flags(mut self, flags: EnvironmentFlags) -> Self {
        self.copies.set_flags(flags);
        self
    }

    fn new(
        copies: Vec<F>,
        size: usize,
        variables: UBootVariables,
        components: &[(&str, u8)],
    ) -> Result<Self, UBootEnvError<F::Error>> {
        BootRecord::new(components).map_err(UBootEnvError::Components)?;
        let mut several = components.iter().filter(|(_, slots)| *slots > 1);
        let (system, slots) = match (several.next(), several.next()) {
            (Some((first, _)), Some((second, _))) => {
                return Err(UBootEnvError::SeveralChoices {
                    first: (*first).to_owned(),
                    second: (*second).to_owned(),
                });
            }
            (Some(system), None) => *system,
            (None, _) => components.first().copied().unwrap_or(("", 0)),
        };
        variables.check(slots).map_err(UBootEnvError::Variables)?;
        Ok(Self {
            copies: Copies::new(copies, size)?,
            variables,
            components: components
                .iter()
                .map(|(name, slots)| ((*name).to_owned(), *slots))
                .collect(),
            system: system.to_owned(),
        })
    }

    /// Returns the flash of each copy.
    #[must_use]
    pub fn into_inner(self) -> Vec<F> {
        self.copies.into_places()
    }

    /// Whether the environment holds a boot record, readable or not. Where it holds none (a board
    /// that another updater, or nobody, looked after) a first [`store`](BootControl::store) adds it.
    ///
    /// # Errors
    ///
    /// The environment cannot be read.
    pub fn has_record(&mut self) -> Result<bool, UBootEnvError<F::Error>> {
        let loaded = self.copies.load()?;
        Ok(loaded
            .environment
            .value(self.variables.record_name())
            .is_some())
    }

    /// Gives back the attempts that a boot loader's script took from the confirmed slot, and undoes
    /// what else contradicts the record; returns whether there was something to write.
    ///
    /// Call this as early as possible after a start: scripts that count at every boot, also of a
    /// confirmed slot, take it for broken after a few power flickers.
    ///
    /// # Errors
    ///
    /// The environment cannot be read or written, or holds no usable record.
    pub fn give_back(&mut self) -> Result<bool, UBootEnvError<F::Error>> {
        let before = self.copies.load()?;
        let record = self.record(&before.environment)?;
        let told = self.told(&record)?;
        let as_told = |(name, value): &(String, String)| {
            before.environment.value(name) == Some(value.as_bytes())
        };
        if told.iter().all(as_told) {
            return Ok(false);
        }
        let environment = self.with_record(before.environment.clone(), &record)?;
        self.copies.store(&before, environment)?;
        Ok(true)
    }

    /// The record, with what the boot loader counted since it was stored.
    fn record(&self, environment: &Environment) -> Result<BootRecord, UBootEnvError<F::Error>> {
        let variable = || self.variables.record_name().to_owned();
        let Some(text) = environment.value(self.variables.record_name()) else {
            return Err(UBootEnvError::NoRecord {
                variable: variable(),
            });
        };
        let mut record = read_record(text).map_err(|source| UBootEnvError::Record {
            variable: variable(),
            source,
        })?;
        let components: Vec<(&str, u8)> = self
            .components
            .iter()
            .map(|(name, slots)| (name.as_str(), *slots))
            .collect();
        record
            .adapt(&components)
            .map_err(UBootEnvError::Configuration)?;
        if let Some(chosen) = self.system(&record)?.chosen {
            let left = self.variables.attempts_left(environment, chosen);
            // Never more than the record says: scripts that find nothing bootable reset the counts.
            while record.attempts_left() > left {
                let _: Vec<_> = record.start();
            }
        }
        Ok(record)
    }

    fn with_record(
        &self,
        mut environment: Environment,
        record: &BootRecord,
    ) -> Result<Environment, UBootEnvError<F::Error>> {
        for (name, value) in self.told(record)? {
            environment.set(&name, &value);
        }
        environment.set(self.variables.record_name(), &write_record(record));
        Ok(environment)
    }

    fn told(&self, record: &BootRecord) -> Result<Vec<(String, String)>, UBootEnvError<F::Error>> {
        if record.attempts() > UBootVariables::ATTEMPTS_MAX {
            return Err(UBootEnvError::Attempts {
                attempts: record.attempts(),
            });
        }
        Ok(self.variables.loader_values(record, self.system(record)?))
    }

    fn system<'a>(
        &self,
        record: &'a BootRecord,
    ) -> Result<&'a ComponentBoot, UBootEnvError<F::Error>> {
        let other = record
            .components()
            .find(|component| component.chosen.is_some() && component.name != self.system);
        if let Some(other) = other {
            return Err(UBootEnvError::SeveralChoices {
                first: self.system.clone(),
                second: other.name.clone(),
            });
        }
        record
            .component(&self.system)
            .ok_or_else(|| UBootEnvError::NoSystem {
                component: self.system.clone(),
            })
    }
}

impl<F: Flash> BootControl for UBootEnv<F> {
    type Error = UBootEnvError<F::Error>;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        let loaded = self.copies.load()?;
        self.record(&loaded.environment)
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        let before = self.copies.load()?;
        let environment = self.with_record(before.environment.clone(), record)?;
        self.copies.store(&before, environment)
    }
}

/// Boot control in a U-Boot environment failed.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum UBootEnvError<E: FlashError> {
    /// The medium failed.
    #[error("the flash of the U-Boot environment")]
    Flash(#[source] E),
    /// No copy can be used, and nothing may be made up: the boot loader's own variables are in
    /// there. Run `saveenv` in U-Boot; where the size or the place is wrong, correct the
    /// configuration.
    #[error(
        "there is no U-Boot environment ({}); check its place and size, or let U-Boot write its own with saveenv",
        Damages { first, second: second.as_ref() }
    )]
    NoEnvironment {
        /// What is wrong with the first copy.
        first: EnvironmentDamage,
        /// What is wrong with the second copy, where there are two.
        second: Option<EnvironmentDamage>,
    },
    /// The environment is whole and holds no boot record: store a first one.
    #[error("the U-Boot environment holds no variable {variable}")]
    NoRecord {
        /// The variable.
        variable: String,
    },
    /// The variable with the boot record was changed by hand, or by a later firmware. Restore it; or,
    /// where forgotten security floors are acceptable, remove it: the agent makes a new one of what
    /// runs.
    #[error(
        "the variable {variable} of the U-Boot environment is no boot record; restore it, or remove it: the agent then takes what runs for confirmed, and the security floors start at 0"
    )]
    Record {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        source: RecordVariableError,
    },
    /// The variables do not fit: remove some, or build U-Boot with a larger environment.
    #[error("the variables of the U-Boot environment need {needed} bytes, it has {size}")]
    Full {
        /// What is needed.
        needed: usize,
        /// The size of a copy.
        size: usize,
    },
    /// The scripts cannot count that far: configure fewer attempts.
    #[error(
        "{attempts} attempts: scripts of U-Boot count to {}",
        UBootVariables::ATTEMPTS_MAX
    )]
    Attempts {
        /// How many there are to be.
        attempts: u8,
    },
    /// The size of a copy must be 128 bytes to 1 MiB and fit into its place.
    #[error("a U-Boot environment of {size} bytes, where {room} bytes are")]
    Size {
        /// The configured size.
        size: usize,
        /// The room at its place.
        room: usize,
    },
    /// A copy ends in the middle of a unit, so that writing it would touch what follows.
    #[error(
        "a U-Boot environment of {size} bytes is no multiple of {unit}, the unit of its medium"
    )]
    Unit {
        /// The configured size.
        size: usize,
        /// The unit of writes.
        unit: usize,
    },
    /// The medium returns other bytes than were written and synced.
    #[error("the U-Boot environment does not read back as it was written")]
    ReadBack,
    /// The components of the configuration are out of their limits.
    #[error("the components cannot be kept in a boot record")]
    Components(#[source] RecordError),
    /// The record does not fit the components of the configuration.
    #[error("the configured components do not fit the record in the U-Boot environment")]
    Configuration(#[source] RecordError),
    /// The variables choose the slot of one component: give the other one a single slot, or use
    /// another boot control.
    #[error(
        "components {first} and {second} both have several slots; U-Boot's variables choose one"
    )]
    SeveralChoices {
        /// One component.
        first: String,
        /// The other.
        second: String,
    },
    /// Two slots or values would share a variable.
    #[error("U-Boot's variables cannot be named so")]
    Variables(#[source] VariableNameError),
    /// The record lacks the component that the boot loader starts.
    #[error("the record has no component {component}, which the boot loader starts")]
    NoSystem {
        /// The component.
        component: String,
    },
}

struct Damages<'a> {
    first: &'a EnvironmentDamage,
    second: Option<&'a EnvironmentDamage>,
}

impl core::fmt::Display for Damages<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.second {
            None => write!(f, "{}", self.first),
            Some(second) => write!(f, "first copy: {}; second copy: {second}", self.first),
        }
    }
}
