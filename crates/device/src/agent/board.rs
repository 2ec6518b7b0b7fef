//! The device as its configuration describes it: what runs, its slots, boot control and state.

use std::path::{Path, PathBuf};

use rekindle_flash::{BootControl as _, BootRecord, BootRefused, KeySetName, RecordError, SlotId};
use rekindle_image::{AdoptedKeys, Trust};
use rekindle_state::{FileStoreError, State, Store as _};
use rekindle_update::{
    Held, SlotFacts, adopted_keys, held_manifest, recorded_key_set, staged_manifest,
};

use super::background::ScrubBook;
use super::device_boot::{DeviceBoot, DeviceBootError};
use super::places;
use super::records::Records;
use super::slot_flash::{SlotFlash, SlotFlashError};
use crate::config::{ComponentConfig, Config, ConfigError};
use crate::running::{Running, RunningError};

/// What the agent was configured for, checked against the device once at the start.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) config: Config,
    pub(crate) running: Running,
    pub(crate) trust: Trust,
    /// What the scrubs came to.
    pub(crate) scrubs: ScrubBook,
}

/// Why the device is not as its configuration says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] ConfigError),
    /// It is not known which slots run now.
    #[error("[boot] running: {0}")]
    Running(RunningError),
    /// Boot control cannot be used.
    #[error("[boot]: {}", super::chain(.0))]
    Boot(DeviceBootError),
    /// The state cannot be used.
    #[error("[state] dir: {0}")]
    State(FileStoreError),
    /// Two of the configured places are one and the same, under two names perhaps.
    #[error("{} and {} are the same file or device", first.display(), second.display())]
    SamePlace {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The components are out of the limits of a boot record.
    #[error("[[component]]: {0}")]
    Components(RecordError),
    /// The boot loader says what runs, so this is no recovery environment: a slot that runs is not to
    /// be overwritten.
    #[error(
        "[boot] running names what runs; recover belongs into the recovery environment, where the \
         boot loader names nothing, or \"recovery\""
    )]
    NotInRecovery,
    /// The boot record does not allow what runs.
    #[error("[boot] running: {0}")]
    Record(BootRefused),
    /// A slot cannot be used.
    #[error("slot {slot} of {component} ({}): {cause}", path.display())]
    Slot {
        /// The component.
        component: String,
        /// The slot.
        slot: SlotId,
        /// Its file or device.
        path: PathBuf,
        /// What is wrong with it.
        cause: SlotFlashError,
    },
}

// By hand, since `#[from]` would make a source of what the text names already.

impl From<RunningError> for BoardError {
    fn from(error: RunningError) -> Self {
        Self::Running(error)
    }
}

impl From<RecordError> for BoardError {
    fn from(error: RecordError) -> Self {
        Self::Components(error)
    }
}

impl From<BootRefused> for BoardError {
    fn from(error: BootRefused) -> Self {
        Self::Record(error)
    }
}

impl From<DeviceBootError> for BoardError {
    fn from(error: DeviceBootError) -> Self {
        Self::Boot(error)
    }
}

impl From<FileStoreError> for BoardError {
    fn from(error: FileStoreError) -> Self {
        Self::State(error)
    }
}

/// The content of a running or chosen slot, for commits at the start and for the status.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotView {
    pub(crate) held: Option<Held>,
}

impl SlotView {
    pub(crate) fn manifest(&self) -> Option<[u8; 32]> {
        self.held.as_ref().map(|held| held.id)
    }

    pub(crate) fn build(&self) -> &str {
        self.held.as_ref().map_or("", |held| &held.manifest.build)
    }

    pub(crate) fn facts<'a>(&'a self, component: &'a str, slot: SlotId) -> SlotFacts<'a> {
        SlotFacts {
            component,
            slot,
            manifest: self.manifest(),
            build: self.build(),
            security_version: self
                .held
                .as_ref()
                .map_or(0, |held| held.manifest.security_version),
        }
    }
}

impl Board {
    pub(crate) fn open(config: Config) -> Result<Self, BoardError> {
        let trust = config.trust()?;
        let names = component_slots(&config);
        let running = config.boot.running.read()?;
        let running = Running::parse(&DeviceBoot::slot_letter(&config.boot, running), &names)?;
        places::check(&config)?;
        let board = Self {
            running,
            trust,
            scrubs: ScrubBook::open(&config.state_dir),
            config,
        };
        if !DeviceBoot::exists(&board.config, &component_slots(&board.config))? {
            board.create_boot_control()?;
        }
        Ok(board)
    }

    /// The device as its recovery environment has it: none of its components runs.
    pub(crate) fn open_in_recovery(config: Config) -> Result<Self, BoardError> {
        let trust = config.trust()?;
        let names = component_slots(&config);
        if let Ok(text) = config.boot.running.read()
            && Running::parse(&DeviceBoot::slot_letter(&config.boot, text), &names).is_ok()
        {
            return Err(BoardError::NotInRecovery);
        }
        places::check(&config)?;
        Ok(Self {
            running: Running::nothing(),
            trust,
            scrubs: ScrubBook::open(&config.state_dir),
            config,
        })
    }

    /// Without a boot record, what runs is what boots, and nothing that is not whole ever does.
    fn create_boot_control(&self) -> Result<(), BoardError> {
        tracing::warn!(
            "there is no boot record yet: what runs is confirmed; security floors and adopted keys are those of what runs"
        );
        let mut record = BootRecord::new(&component_slots(&self.config))?;
        for (name, slot) in self.running.iter() {
            record.choose(name, slot, 1)?;
        }
        let _: Vec<_> = record.start();
        record.confirm()?;
        // What else the record would say, as far as it is written elsewhere.
        if let Some(name) = self.state().ok().as_ref().and_then(recorded_key_set) {
            record.adopt_key_set(name)?;
        }
        for (component, _, view) in self.running_views() {
            let Some(held) = &view.held else { continue };
            let adopted = adopted_keys(&record, self.state().ok().as_ref());
            let verified = held.signed.verify_adopted(&self.trust, adopted.as_ref());
            let Ok(verified) = verified else { continue };
            record.raise_floor(&component.name, verified.manifest.security_version)?;
            if let Some(set) = verified.key_set {
                record.adopt_key_set(KeySetName {
                    number: set.number(),
                    digest: *set.digest().as_bytes(),
                })?;
            }
        }
        for component in &self.config.components {
            for slot in slots(component) {
                let empty = Self::view(component, slot).held.is_none();
                if empty && self.running.slot(&component.name) != Some(slot) {
                    record.withdraw(&component.name, slot)?;
                }
            }
        }
        Ok(DeviceBoot::create(
            &self.config,
            &component_slots(&self.config),
            &record,
        )?)
    }

    pub(crate) fn boot(&self) -> Result<DeviceBoot, BoardError> {
        Ok(DeviceBoot::open(
            &self.config,
            &component_slots(&self.config),
        )?)
    }

    pub(crate) fn boot_record(&self) -> Result<BootRecord, BoardError> {
        Ok(self.boot()?.load()?)
    }

    pub(crate) fn store(&self) -> Records {
        Records::new(self.config.state_dir.clone())
    }

    /// The key set that the device has adopted, as far as that can be read.
    pub(crate) fn adopted_keys(&self) -> Option<AdoptedKeys> {
        let record = self.boot_record().ok()?;
        adopted_keys(&record, self.state().ok().as_ref())
    }

    /// The state; what was damaged and had to be left out is in the log.
    pub(crate) fn state(&self) -> Result<State, BoardError> {
        let loaded = self.store().load()?;
        if let Some(damage) = loaded.damage {
            tracing::warn!(
                generation = %damage.generation,
                error = %damage.error,
                "a stored state is damaged; the one before it is used"
            );
        }
        Ok(loaded.state)
    }

    /// Opens a slot's flash, alone: nobody else writes it meanwhile.
    pub(crate) fn flash(
        component: &ComponentConfig,
        slot: SlotId,
    ) -> Result<SlotFlash, BoardError> {
        let path = slot_path(component, slot);
        SlotFlash::open(path, component.size).map_err(|cause| BoardError::Slot {
            component: component.name.clone(),
            slot,
            path: path.to_owned(),
            cause,
        })
    }

    /// What a slot holds, complete; a slot that cannot be read holds nothing, and the log says why.
    ///
    /// A look changes nothing and locks nothing: the slot may be mounted, or being written.
    pub(crate) fn view(component: &ComponentConfig, slot: SlotId) -> SlotView {
        let held = match Self::look(component, slot) {
            None => return SlotView::default(),
            Some(Ok(mut flash)) => held_manifest(&mut flash).map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
        };
        match held {
            Ok(held) => SlotView { held },
            Err(error) => {
                tracing::warn!(component = component.name, %slot, error, "a slot cannot be read");
                SlotView::default()
            }
        }
    }

    /// The slot of a component that is what it will be started from, with what that is then: what a
    /// single slot is to become, once it is withdrawn for the recovery environment.
    pub(crate) fn next_view(
        component: &ComponentConfig,
        record: &BootRecord,
    ) -> Option<(SlotId, SlotView)> {
        if let Some(slot) = record.next(&component.name) {
            return Some((slot, Self::view(component, slot)));
        }
        let slot = record.component(&component.name)?.confirmed;
        let staged = Self::look(component, slot)?.ok();
        let held = staged.and_then(|mut flash| staged_manifest(&mut flash).ok().flatten());
        Some((slot, SlotView { held }))
    }

    /// Opens a slot for a look; `None`: it was never written, or has another size than configured.
    fn look(
        component: &ComponentConfig,
        slot: SlotId,
    ) -> Option<Result<SlotFlash, SlotFlashError>> {
        let path = slot_path(component, slot);
        let meta = std::fs::metadata(path).ok()?;
        if meta.is_file() && component.size.is_some_and(|size| meta.len() != size) {
            return None;
        }
        Some(SlotFlash::open_read_only(path))
    }

    /// Every other slot of the device, those of the same component first, for chunks to be copied
    /// from; what cannot be opened has none.
    pub(crate) fn donors(&self, component: &ComponentConfig, target: SlotId) -> Vec<SlotFlash> {
        let is_same = |other: &&ComponentConfig| other.name == component.name;
        let same = self.config.components.iter().filter(is_same);
        let others = self
            .config
            .components
            .iter()
            .filter(|other| !is_same(other));
        same.chain(others)
            .flat_map(|component| slots(component).map(move |slot| (component, slot)))
            .filter(|(other, slot)| !is_same(other) || *slot != target)
            .filter_map(|(component, slot)| Self::look(component, slot)?.ok())
            .collect()
    }

    /// What runs now, component by component, with what those slots hold.
    pub(crate) fn running_views(&self) -> Vec<(&ComponentConfig, SlotId, SlotView)> {
        self.views(|name| self.running.slot(name))
    }

    /// What is chosen and waits to be confirmed, with what those slots hold.
    pub(crate) fn chosen_views(
        &self,
        record: &BootRecord,
    ) -> Vec<(&ComponentConfig, SlotId, SlotView)> {
        self.views(|name| {
            record
                .component(name)
                .and_then(|component| component.chosen)
        })
    }

    fn views(
        &self,
        slot: impl Fn(&str) -> Option<SlotId>,
    ) -> Vec<(&ComponentConfig, SlotId, SlotView)> {
        let components = self.config.components.iter();
        components
            .filter_map(|component| {
                let slot = slot(&component.name)?;
                Some((component, slot, Self::view(component, slot)))
            })
            .collect()
    }

    pub(crate) fn running_pairs(&self) -> Vec<(&str, SlotId)> {
        self.running.iter().collect()
    }
}

pub(crate) fn component_slots(config: &Config) -> Vec<(&str, u8)> {
    let components = config.components.iter();
    components
        .map(|component| {
            let slots = u8::try_from(component.slots.len()).unwrap_or(u8::MAX);
            (component.name.as_str(), slots)
        })
        .collect()
}

/// The slots of a component, A first.
pub(crate) fn slots(component: &ComponentConfig) -> impl Iterator<Item = SlotId> {
    let count = u8::try_from(component.slots.len()).unwrap_or(u8::MAX);
    (0..count).filter_map(SlotId::new)
}

pub(crate) fn slot_path(component: &ComponentConfig, slot: SlotId) -> &Path {
    // The running slot and the record's slots are checked against the configuration's count.
    component
        .slots
        .get(usize::from(slot.index()))
        .map_or_else(|| Path::new(""), PathBuf::as_path)
}
