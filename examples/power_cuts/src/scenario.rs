//! What a device does when its power goes.

use rekindle_flash::{BootControl as _, Flash as _, SlotId};
use rekindle_state::{Dated, DatedIndex, Store as _, UnixTime};

use crate::broken::Broken;
use crate::device::Device;
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
}

impl Scenario {
    /// Whether a slot holds damage that it knows nothing of.
    pub(crate) fn is_repair(&self) -> bool {
        self.name.ends_with("repair")
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
    },
    Scenario {
        // Most of it lies in slot A.
        name: "delta",
        prepare: |_| Ok(()),
        act: |device| live(device, device.catalog.image("v2")),
        goal: "v2",
        next: "v3",
    },
    Scenario {
        name: "update",
        prepare: |device| device.fill(1, device.catalog.image("v0")),
        act: |device| live(device, device.catalog.image("v2")),
        goal: "v2",
        next: "v3",
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
    },
    Scenario {
        name: "in-place-install",
        prepare: |_| Ok(()),
        act: |device| live(device, device.catalog.image("bmc2")),
        goal: "bmc2",
        next: "bmc1",
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
            device.install(device.catalog.image("bmc1"), SlotId::A)?;
            live(device, device.catalog.image("bmc1"))
        },
        goal: "bmc1",
        next: "bmc2",
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
    },
    Scenario {
        name: "choice",
        prepare: |device| {
            let image = device.catalog.image("v2");
            device.install(image, SlotId::A).map(|_| ())
        },
        act: |device| {
            // What is staged is taken back by a script that names what runs, and chosen again.
            device.install(device.catalog.image("v1"), SlotId::A)?;
            device.install(device.catalog.image("v2"), SlotId::A)?;
            Ok(())
        },
        goal: "v2",
        next: "v3",
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
    },
    Scenario {
        name: "fall-back",
        prepare: |device| {
            let image = device.catalog.image("hangs");
            device.install(image, SlotId::A).map(|_| ())
        },
        act: |device| live(device, device.catalog.image("v1")),
        goal: "v1",
        next: "v2",
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
    },
];
