//! What a device does when its power goes.

use rekindle_flash::{BootControl as _, Flash as _, SlotId};
use rekindle_state::{Dated, DatedIndex, Store as _, UnixTime};
use rekindle_update::InstallError;

use crate::broken::Broken;
use crate::device::{Device, slot_record};
use crate::image::MemorySource;
use crate::life::live;

/// Something that a device does, to be cut at every operation.
#[derive(Debug)]
pub struct Scenario {
    /// How a run names it.
    pub name: &'static str,
    /// Brings a new device to where it begins.
    pub(crate) prepare: fn(&mut Device<'_>) -> Result<(), Broken>,
    /// What is cut.
    pub(crate) act: fn(&mut Device<'_>) -> Result<(), Broken>,
    /// What runs in the end, whatever was cut; the same update is made again until then.
    pub(crate) goal: &'static str,
    /// The update after that.
    pub(crate) next: &'static str,
    /// What else holds in the end.
    pub(crate) check: fn(&mut Device<'_>) -> Result<(), Broken>,
}

/// Nothing happens, and nothing is to be checked.
pub(crate) const PLAIN: Scenario = Scenario {
    name: "nothing",
    prepare: |_| Ok(()),
    act: |_| Ok(()),
    goal: "v1",
    next: "v2",
    check: |_| Ok(()),
};

impl Scenario {
    /// Whether a slot holds damage that it knows nothing of.
    pub(crate) fn is_repair(&self) -> bool {
        self.name == "in-place-repair" || self.name == "single-slot-repair"
    }

    /// Whether a component is started from its only slot.
    pub(crate) fn is_single(&self) -> bool {
        self.name.starts_with("single-slot")
    }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fresh-install",
        prepare: |_| Ok(()),
        act: |device| live(device, device.catalog.image("other")),
        goal: "other",
        next: "v3",
        ..PLAIN
    },
    Scenario {
        // Most of it lies in slot A.
        name: "delta",
        prepare: |_| Ok(()),
        act: |device| live(device, device.catalog.image("v2")),
        goal: "v2",
        next: "v3",
        ..PLAIN
    },
    Scenario {
        name: "update",
        prepare: |device| device.fill(1, device.catalog.image("v0")),
        act: |device| live(device, device.catalog.image("v2")),
        goal: "v2",
        next: "v3",
        ..PLAIN
    },
    Scenario {
        name: "resume",
        prepare: |device| {
            let image = device.catalog.image("other");
            let mut source = MemorySource::first(image, image.content.len() * 3 / 4);
            let broken_off = device.install_from(&mut source, image, SlotId::A);
            if broken_off.is_ok() {
                return Err(Broken::setup("the source was to break off"));
            }
            device.slots[1].sync().map_err(Broken::setup)
        },
        act: |device| live(device, device.catalog.image("other")),
        goal: "other",
        next: "v3",
        ..PLAIN
    },
    Scenario {
        name: "in-place-install",
        prepare: |_| Ok(()),
        act: |device| live(device, device.catalog.image("bmc2")),
        goal: "bmc2",
        next: "bmc1",
        ..PLAIN
    },
    Scenario {
        name: "in-place-repair",
        prepare: |device| {
            let at = device.catalog.image("bmc1").content.len() / 2;
            let at = u64::try_from(at).map_err(Broken::setup)?;
            device.slots[2].rot(at..at + 8, 5);
            Ok(())
        },
        act: |device| {
            device.repair(2, device.catalog.image("bmc1"))?;
            live(device, device.catalog.image("bmc1"))
        },
        goal: "bmc1",
        next: "bmc2",
        ..PLAIN
    },
    Scenario {
        name: "single-slot-update",
        act: |device| live(device, device.catalog.image("bmc2")),
        goal: "bmc2",
        next: "bmc1",
        ..PLAIN
    },
    Scenario {
        name: "single-slot-repair",
        prepare: |device| {
            let at = device.catalog.image("bmc1").content.len() / 2;
            let at = u64::try_from(at).map_err(Broken::setup)?;
            device.slots[2].rot(at..at + 8, 5);
            Ok(())
        },
        act: |device| live(device, device.catalog.image("bmc1")),
        goal: "bmc1",
        next: "bmc2",
        ..PLAIN
    },
    Scenario {
        // What the device falls back to, while it is not in use.
        name: "fallback-repair",
        prepare: |device| {
            let image = device.catalog.image("v0");
            device.fill(1, image)?;
            let mut state = device.store.load().map_err(Broken::state)?.state;
            state.record_slot(slot_record("prot", SlotId::B, image));
            device.store.commit(&state).map_err(Broken::state)?;
            device.slots[1].rot(4000..9000, 3);
            Ok(())
        },
        act: |device| device.repair(1, device.catalog.image("v0")),
        goal: "v1",
        next: "v2",
        check: |device| {
            let image = device.catalog.image("v0");
            device.repair(1, image)?;
            if device.image_in(1)?.id != image.id {
                return Err(Broken::NotAuthentic { slot: "B" });
            }
            let record = device.boot.load().map_err(Broken::boot_control)?;
            let prot = record.component("prot").ok_or(Broken::NothingBoots)?;
            if prot.unbootable.contains(SlotId::B) {
                return Err(Broken::NothingBoots);
            }
            Ok(())
        },
    },
    Scenario {
        name: "variables",
        prepare: |_| Ok(()),
        act: |device| {
            for round in 0..3_u32 {
                let mut state = device.store.load().map_err(Broken::state)?.state;
                let value = Dated {
                    value: format!("05-{round:04}").into_bytes(),
                    date: Some(UnixTime::new(1_800_000_000 + u64::from(round))),
                };
                match round {
                    0 => state.check = Some(value),
                    1 => state.scfg = Some(value),
                    _ => {
                        state.cfg = Some(value);
                        state.backup_index = Some(DatedIndex {
                            index: round,
                            date: None,
                        });
                    }
                }
                device.store.commit(&state).map_err(Broken::state)?;
            }
            Ok(())
        },
        goal: "v1",
        next: "v2",
        ..PLAIN
    },
    Scenario {
        name: "choice",
        prepare: |device| {
            let image = device.catalog.image("v2");
            device.install(image, SlotId::A)
        },
        act: |device| {
            // What is staged is taken back by a script that names what runs, and chosen again.
            device.install(device.catalog.image("v1"), SlotId::A)?;
            device.install(device.catalog.image("v2"), SlotId::A)?;
            Ok(())
        },
        goal: "v2",
        next: "v3",
        ..PLAIN
    },
    Scenario {
        name: "confirm",
        prepare: |device| {
            let image = device.catalog.image("v3");
            device.install(image, SlotId::A)?;
            device.boot_loader().map(|_| ())
        },
        act: |device| live(device, device.catalog.image("v3")),
        goal: "v3",
        next: "v3",
        ..PLAIN
    },
    Scenario {
        name: "fall-back",
        prepare: |device| {
            let image = device.catalog.image("hangs");
            device.install(image, SlotId::A)
        },
        act: |device| live(device, device.catalog.image("v1")),
        goal: "v1",
        next: "v2",
        ..PLAIN
    },
    Scenario {
        name: "health-failed",
        prepare: |device| {
            let image = device.catalog.image("sick");
            device.install(image, SlotId::A)?;
            device.boot_loader().map(|_| ())
        },
        act: |device| live(device, device.catalog.image("v1")),
        goal: "v1",
        next: "v2",
        ..PLAIN
    },
    Scenario {
        name: "key-change",
        act: |device| live(device, device.catalog.image("keyed2")),
        goal: "keyed2",
        next: "keyed3",
        check: |device| {
            let record = device.boot.load().map_err(Broken::boot_control)?;
            if record.key_set().map(|set| set.number) != Some(1) {
                return Err(Broken::KeysTooEarly);
            }
            // What the first keys signed is refused from now on.
            let old = device.catalog.image("v2");
            let runs = record.next("prot").ok_or(Broken::NothingBoots)?;
            match device.install_from(&mut MemorySource::of(old), old, runs) {
                Err(InstallError::Trust(_)) => Ok(()),
                _ => Err(Broken::OldKeys),
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "security-version",
        prepare: |device| {
            let image = device.catalog.image("v3");
            device.install(image, SlotId::A)?;
            device.boot_loader()?;
            // The confirm is there, the floor is not: a cut between the two.
            let mut record = device.boot.load().map_err(Broken::setup)?;
            record.confirm().map_err(Broken::setup)?;
            device.boot.store(&record).map_err(Broken::setup)
        },
        act: |device| live(device, device.catalog.image("v3")),
        goal: "v3",
        next: "v3",
        ..PLAIN
    },
];
