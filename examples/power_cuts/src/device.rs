//! The simulated device: two slots for its firmware, one for a management controller, boot control
//! and state, each on flash of its own and all on one power supply; its boot loader and its agent.

use rekindle_flash::{
    BootControl as _, BootRecord, Flash as _, Geometry, SlotId, SlotLayout, read_slot,
};
use rekindle_image::Downgrade;
use rekindle_state::{Door, FlashStore, Reason, SlotRecord, State, Store as _, UnixTime};
use rekindle_testkit::{Medium, Power, Preset, SimFlash};
use rekindle_update::{
    Converge, InstallError, InstallErrorOf, Installed, Parts, RecoverRequest, RepairRequest,
    Repaired, Request, RunningManifest, SlotFacts, Standing, Transfer, adopt_keys, confirm,
    give_up, held_manifest, install, pump, recover, repair, stage, standing,
};

use crate::board::{Board, Boot};
use crate::broken::Broken;
use crate::image::{Catalog, DEVICE_TYPE, Health, Image, MemorySource};
use crate::journal::{Commit, Journal};

/// A device with its power on.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    pub(crate) catalog: &'a Catalog,
    board: Board,
    /// A and B of `prot`, and the one slot of `bmc`.
    pub(crate) slots: Vec<SimFlash>,
    pub(crate) boot: Control,
    pub(crate) store: States,
    /// What boot control and state held at the start.
    pub(crate) found: (BootRecord, State),
    /// Something was fetched that was there.
    pub(crate) wasted: Option<Broken>,
    /// The slot of `bmc` may hold damage that nobody knows of.
    pub(crate) rotten: bool,
    /// `bmc` is started from its slot, which a recovery environment writes.
    pub(crate) single: bool,
    /// Every boot is a later day, so that no image is held back for ever.
    boots: u64,
}

/// What was committed in a run, in order.
#[derive(Debug)]
pub(crate) struct Commits {
    pub(crate) boot: Vec<Commit<BootRecord>>,
    pub(crate) state: Vec<Commit<State>>,
}

/// What the agent came to at its start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Started {
    /// It goes on to poll.
    Stays,
    /// The device is restarted.
    Restarts,
}

impl<'a> Device<'a> {
    /// A device as it leaves the factory: `v1` in slot A, `bmc1` in its slot.
    pub(crate) fn factory(catalog: &'a Catalog, board: &Board) -> Result<Self, Broken> {
        let preset = &board.flash;
        let power = Power::new(0);
        let slot = slot_size(preset, catalog.content_len());
        let mut media: Vec<Medium> = ["A", "B", "bmc"]
            .iter()
            .map(|name| Medium::new(name, preset, slot))
            .collect();
        let unit = u64::from(preset.erase_size.max(4096));
        media.push(Medium::new("state", preset, 2 * unit));
        media.extend(board.media());
        board.create(&mut media[BOOT..], &power)?;
        let mut device = Self::start(catalog, board, &media, &power)?;
        device.fill(0, catalog.image("v1"))?;
        device.fill(2, catalog.image("bmc1"))?;
        let mut state = State {
            known: true,
            ..State::default()
        };
        for (slot, name) in [("prot", "v1"), ("bmc", "bmc1")] {
            state.record_slot(slot_record(slot, SlotId::A, catalog.image(name)));
        }
        device.store.commit(&state).map_err(Broken::setup)?;
        Ok(device)
    }

    /// Switches the device on with what its media hold.
    pub(crate) fn start(
        catalog: &'a Catalog,
        board: &Board,
        media: &[Medium],
        power: &Power,
    ) -> Result<Self, Broken> {
        let start = |part: usize| media[part].start(power);
        let mut boot = Boot::open(board, &media[BOOT..], power).map_err(Broken::boot_control)?;
        let record = boot.load().map_err(Broken::boot_control)?;
        let mut store = FlashStore::open(start(STATE)).map_err(Broken::state)?;
        let state = store.load().map_err(Broken::state)?.state;
        Ok(Self {
            catalog,
            board: *board,
            slots: (0..STATE).map(start).collect(),
            boot: Journal::new(boot, power, record.clone()),
            store: Journal::new(store, power, state.clone()),
            found: (record, state),
            wasted: None,
            rotten: false,
            single: false,
            boots: 0,
        })
    }

    /// Switches it off in good order and returns its media and what was committed.
    pub(crate) fn stop(self) -> (Vec<Medium>, Commits) {
        let (boot, records) = self.boot.into_parts();
        let (store, states) = self.store.into_parts();
        let mut media: Vec<Medium> = self.slots.iter().map(Medium::from).collect();
        media.push(Medium::from(&store.into_inner()));
        media.extend(self.board.media());
        boot.into_media(&mut media[BOOT..]);
        let commits = Commits {
            boot: records,
            state: states,
        };
        (media, commits)
    }

    /// Brings an image into a slot without an install.
    pub(crate) fn fill(&mut self, slot: usize, image: &Image) -> Result<(), Broken> {
        let flash = &mut self.slots[slot];
        let geometry = flash.geometry();
        let layout = SlotLayout::new(&geometry).map_err(Broken::setup)?;
        let content = read_slot(flash, &layout).map_err(Broken::setup)?;
        let mut machine = Converge::new(
            &image.signed,
            geometry,
            layout,
            &content,
            &[],
            Transfer::default(),
        )
        .map_err(Broken::setup)?;
        let mut source = MemorySource::of(image);
        pump(&mut machine, flash, &mut [], &mut source, &mut |_| {}).map_err(Broken::setup)?;
        Ok(())
    }

    /// The boot loader: counts an attempt and says what boots.
    pub(crate) fn boot_loader(&mut self) -> Result<SlotId, Broken> {
        self.boots += 1;
        let mut record = self.boot.load().map_err(Broken::boot_control)?;
        let counts = record.attempts_left() > 0;
        let boots = record.start();
        if counts {
            self.boot.store(&record).map_err(Broken::boot_control)?;
        }
        boots
            .iter()
            .find(|(name, _)| name == "prot")
            .map(|(_, slot)| *slot)
            .ok_or(Broken::NothingBoots)
    }

    /// The start of the agent in this slot, before any poll.
    pub(crate) fn agent(&mut self, runs: SlotId) -> Result<Started, Broken> {
        let image = self.image_in(runs.index().into())?;
        let record = self.boot.load().map_err(Broken::boot_control)?;
        let running = [("prot", runs), ("bmc", SlotId::A)];
        match standing(&record, &running) {
            Standing::OnTrial if image.health == Health::Sick => {
                self.give_up(&record, runs, Reason::HealthFailed)?;
                return Ok(Started::Restarts);
            }
            Standing::OnTrial | Standing::Settled => {
                let facts = facts("prot", runs, image);
                confirm(&mut self.boot, &mut self.store, &[facts])
                    .map_err(|error| Broken::agent("confirm", error))?;
                // Without a chain of keys it would verify the manifest and do nothing.
                if image.changes_keys {
                    self.adopt_keys(runs, image)?;
                }
            }
            Standing::FellBack => self.give_up(&record, runs, Reason::NeverConfirmed)?,
            Standing::Pending => return Ok(Started::Restarts),
            other => return Err(Broken::agent("start", format!("{other:?}"))),
        }
        Ok(Started::Stays)
    }

    fn adopt_keys(&mut self, runs: SlotId, image: &Image) -> Result<(), Broken> {
        let running = RunningManifest {
            component: "prot",
            slot: runs,
            signed: &image.signed,
        };
        adopt_keys(
            &mut self.boot,
            &mut self.store,
            &self.catalog.trust,
            &[running],
        )
        .map_err(|error| Broken::agent("adopt keys", error))?;
        Ok(())
    }

    fn give_up(&mut self, record: &BootRecord, runs: SlotId, reason: Reason) -> Result<(), Broken> {
        let chosen = record.component("prot").and_then(|prot| prot.chosen);
        let chosen = chosen.ok_or(Broken::NothingBoots)?;
        let image = self.image_in(chosen.index().into()).ok();
        let facts = match image {
            Some(image) => facts("prot", chosen, image),
            None => SlotFacts {
                component: "prot",
                slot: chosen,
                manifest: None,
                build: "",
                security_version: 0,
            },
        };
        let now = Some(self.now());
        let running = [("prot", runs)];
        give_up(
            &mut self.boot,
            &mut self.store,
            &[facts],
            &running,
            reason,
            now,
        )
        .map_err(|error| Broken::agent("give up", error))?;
        Ok(())
    }

    /// Installs an image into the other slot, or into the only one, unless it has to wait.
    pub(crate) fn install(&mut self, image: &Image, runs: SlotId) -> Result<(), Broken> {
        match self.install_from(&mut MemorySource::of(image), image, runs) {
            // It used up its attempts, which are three, and is tried again later.
            Ok(()) | Err(InstallError::Rejected(_)) => Ok(()),
            Err(error) => Err(Broken::agent("install", format!("{error:?}"))),
        }
    }

    /// Repairs a slot that holds this image.
    pub(crate) fn repair(&mut self, slot: usize, image: &Image) -> Result<(), Broken> {
        let in_place = image.component == "bmc";
        let request = RepairRequest {
            component: image.component,
            slot: if slot == 1 { SlotId::B } else { SlotId::A },
            in_place,
            busy: false,
            running: &[("prot", SlotId::A), ("bmc", SlotId::A)],
            trust: &self.catalog.trust,
            transfer: Transfer::default(),
        };
        let mut source = MemorySource::of(image);
        let mut parts = parts(&mut self.slots, slot, &mut self.boot, &mut self.store)
            .ok_or(Broken::NothingBoots)?;
        let repaired = repair(&request, &mut parts, &mut source, &mut |_| {})
            .map_err(|error| Broken::agent("repair", format!("{error:?}")))?;
        match repaired {
            Repaired::Whole(_) | Repaired::Repaired { .. } => Ok(()),
            other => Err(Broken::agent("repair", format!("{other:?}"))),
        }
    }

    /// The same from a source that may break off.
    pub(crate) fn install_from(
        &mut self,
        source: &mut MemorySource<'_>,
        image: &Image,
        runs: SlotId,
    ) -> Result<(), InstallFailed> {
        let in_place = image.component == "bmc";
        let target = match (in_place, runs) {
            (true, _) => 2,
            (false, SlotId::A) => 1,
            (false, _) => 0,
        };
        let running_slot = if in_place { 2 } else { runs.index().into() };
        let held = held_manifest(&mut self.slots[running_slot]).map_err(InstallError::Flash)?;
        let mut transfer = Transfer::default();
        // Only what is missing, so that everything fetched twice can be seen.
        transfer.join_gap = 0;
        let request = Request {
            component: image.component,
            target: if target == 1 { SlotId::B } else { SlotId::A },
            in_place,
            running: &[("prot", runs), ("bmc", SlotId::A)],
            running_manifest: held.map(|held| held.id),
            device_type: DEVICE_TYPE,
            hardware: None,
            installed: &[],
            trust: &self.catalog.trust,
            downgrade: Downgrade::Refuse,
            attempts: 3,
            serial: Some(image.serial),
            door: Door::Script,
            now: Some(self.now()),
            file_len: None,
            transfer,
        };
        let missing: u64 = image
            .chunks_on(self.slots[target].stored())
            .filter(|(_, there)| !there)
            .map(|(chunk, _)| u64::from(chunk.stored_len))
            .sum();
        let Some(mut parts) = parts(&mut self.slots, target, &mut self.boot, &mut self.store)
        else {
            return Ok(());
        };
        let installed = install(&request, &mut parts, source, &mut |_| {})?;
        if let Installed::Chosen(outcome) | Installed::InPlace(outcome) = &installed {
            let fetched = outcome.report.fetched;
            if fetched > missing + image.table_len {
                self.wasted = Some(Broken::FetchedAgain { fetched, missing });
            }
        }
        Ok(())
    }

    /// Stages an image for the only slot of `bmc`.
    pub(crate) fn stage(&mut self, image: &Image) -> Result<(), Broken> {
        let held = held_manifest(&mut self.slots[2]).map_err(Broken::setup)?;
        let request = Request {
            component: image.component,
            target: SlotId::A,
            in_place: false,
            running: &[("bmc", SlotId::A)],
            running_manifest: held.map(|held| held.id),
            device_type: DEVICE_TYPE,
            hardware: None,
            installed: &[],
            trust: &self.catalog.trust,
            downgrade: Downgrade::Refuse,
            attempts: 3,
            serial: Some(image.serial),
            door: Door::Script,
            now: Some(self.now()),
            file_len: None,
            transfer: Transfer::default(),
        };
        let mut source = MemorySource::of(image);
        let mut parts = parts(&mut self.slots, 2, &mut self.boot, &mut self.store)
            .ok_or(Broken::NothingBoots)?;
        stage(&request, &mut parts, &mut source, &mut |_| {})
            .map_err(|error| Broken::agent("stage", format!("{error:?}")))?;
        Ok(())
    }

    /// What the recovery environment of `bmc` does, with this image at hand.
    pub(crate) fn recover(&mut self, image: &Image) -> Result<(), Broken> {
        let request = RecoverRequest {
            component: image.component,
            slot: SlotId::A,
            device_type: DEVICE_TYPE,
            hardware: None,
            installed: &[],
            trust: &self.catalog.trust,
            exact: false,
            now: Some(self.now()),
            transfer: Transfer::default(),
        };
        let mut source = MemorySource::of(image);
        let mut parts = parts(&mut self.slots, 2, &mut self.boot, &mut self.store)
            .ok_or(Broken::NothingBoots)?;
        recover(&request, &mut parts, &mut source, &mut |_| {})
            .map_err(|error| Broken::agent("recover", format!("{error:?}")))?;
        Ok(())
    }

    /// Whether the loader of `bmc` finds something to start.
    pub(crate) fn boots_single(&mut self) -> Result<bool, Broken> {
        let record = self.boot.load().map_err(Broken::boot_control)?;
        Ok(record.next("bmc").is_some())
    }

    /// What a slot holds, if it holds it whole and its manifest is one of ours.
    pub(crate) fn image_in(&mut self, slot: usize) -> Result<&'a Image, Broken> {
        let flash = &mut self.slots[slot];
        let name = NAMES[slot];
        let held = held_manifest(flash).map_err(|error| Broken::agent("read a slot", error))?;
        let held = held.ok_or(Broken::NotComplete { slot: name })?;
        let image = self.catalog.with_id(&held.id);
        let image = image.ok_or(Broken::NotAuthentic { slot: name })?;
        if image.is_on(flash.stored()) {
            Ok(image)
        } else {
            Err(Broken::NotAuthentic { slot: name })
        }
    }

    /// The update variable of the component, as the agent reports it.
    pub(crate) fn variable(&mut self, image: &Image, slot: SlotId) -> Result<Variable, Broken> {
        let state = self.store.load().map_err(Broken::state)?.state;
        match state.slot_serial(image.component, slot, &image.id) {
            None => Ok(Variable::Unset),
            Some(serial) if serial == image.serial => Ok(Variable::Right),
            Some(serial) => Err(Broken::Variable {
                serial: String::from_utf8_lossy(serial).into_owned(),
                boots: image.name,
            }),
        }
    }

    fn now(&self) -> UnixTime {
        UnixTime::new(1_800_000_000).saturating_add(self.boots * 24 * 60 * 60)
    }
}

type Control = Journal<Boot, BootRecord>;
type States = Journal<FlashStore<SimFlash>, State>;
type InstallFailed = InstallErrorOf<SimFlash, Control, States, MemorySource<'static>>;

/// The target, and the slot that chunks are copied from.
fn parts<'p>(
    slots: &'p mut [SimFlash],
    target: usize,
    boot: &'p mut Control,
    store: &'p mut States,
) -> Option<Parts<'p, SimFlash, Control, States>> {
    let (before, rest) = slots.split_at_mut(target);
    let (flash, behind) = rest.split_first_mut()?;
    let donors = if target == 0 {
        &mut behind[..1]
    } else {
        &mut before[..1]
    };
    Some(Parts {
        flash,
        donors,
        boot,
        store,
    })
}

/// An update variable, beside what boots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Variable {
    /// It says nothing.
    Unset,
    /// It says what boots.
    Right,
}

fn facts<'i>(component: &'i str, slot: SlotId, image: &'i Image) -> SlotFacts<'i> {
    SlotFacts {
        component,
        slot,
        manifest: Some(image.id),
        build: &image.build,
        security_version: image.security_version,
    }
}

pub(crate) fn slot_record(component: &str, slot: SlotId, image: &Image) -> SlotRecord {
    SlotRecord {
        component: component.to_owned(),
        slot,
        manifest: image.id,
        serial: Some(image.serial.to_vec()),
        build: image.build.clone(),
        date: None,
        door: Door::Script,
    }
}

/// The smallest slot for so much content.
fn slot_size(preset: &Preset, content: u64) -> u64 {
    let unit = u64::from(preset.erase_size.max(4096));
    (1..)
        .map(|units| units * unit)
        .find(|size| {
            let geometry: Geometry = preset.geometry(*size);
            SlotLayout::new(&geometry).is_ok_and(|layout| layout.data_len() >= content)
        })
        .unwrap_or(unit)
}

const NAMES: [&str; 3] = ["A", "B", "bmc"];
/// Where the state lies among the media; the slots are in front of it.
const STATE: usize = 3;
/// From where on boot control lies among the media.
const BOOT: usize = 4;
