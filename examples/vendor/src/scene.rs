use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU8;

use rekindle_flash::{BootRecord, Flash, SlotId};
use rekindle_image::{Downgrade, PublicKey, Trust, Unsigned};
use rekindle_script::{Command, Dialect, Limits, Load, parse};
use rekindle_state::{Door, MemoryStore};
use rekindle_update::{
    Installed, Parts, Request, SlotFacts, Standing, Transfer, confirm, install, standing,
};

use crate::memory::{Boot, Served};
use crate::nor::Nor;

static SCRIPT: &[u8] = b"mod cmd UP0 prot http://192.0.2.1/example.bin ireset 1.2\r\n";
static KEY: &[u8; 32] = include_bytes!(concat!(env!("OUT_DIR"), "/vendor.pub"));
static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware.bin"));
static FIRMWARE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware.raw"));

/// Where the scene ended early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Script,
    Configuration,
    AcceptedDamage,
    Install,
    Content,
    Boot,
    Confirm,
}

impl Step {
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::Script => 1,
            Self::Configuration => 2,
            Self::AcceptedDamage => 3,
            Self::Install => 4,
            Self::Content => 5,
            Self::Boot => 6,
            Self::Confirm => 7,
        }
    }
}

/// Takes the serial from a script, refuses a damaged image, installs the sound one into slot B,
/// starts it, and confirms it.
pub(crate) fn run() -> Result<(), Step> {
    let serial = serial_of_prot().ok_or(Step::Script)?;
    let (Some(a), Some(b)) = (SlotId::new(0), SlotId::new(1)) else {
        return Err(Step::Configuration);
    };
    let trust = Trust {
        keys: vec![PublicKey::from_bytes(KEY).map_err(|_| Step::Configuration)?],
        threshold: NonZeroU8::MIN,
        unsigned: Unsigned::Refuse,
    };
    let request = Request {
        component: "prot",
        target: b,
        in_place: false,
        running: &[("prot", a)],
        running_manifest: None,
        device_type: "EXAMPLE",
        hardware: None,
        installed: &[],
        trust: &trust,
        downgrade: Downgrade::Refuse,
        attempts: 3,
        serial: Some(&serial),
        door: Door::Script,
        now: None,
        file_len: None,
        transfer: Transfer::default(),
    };
    let record = BootRecord::new(&[("prot", 2)]).map_err(|_| Step::Configuration)?;
    let (mut flash, mut boot, mut store) = (Nor::erased(), Boot(record), MemoryStore::default());
    let mut parts = Parts {
        flash: &mut flash,
        donors: &mut [],
        boot: &mut boot,
        store: &mut store,
    };

    let mut damaged = IMAGE.to_vec();
    *damaged.last_mut().ok_or(Step::Configuration)? ^= 1;
    if install(
        &request,
        &mut parts,
        &mut Served::new(&damaged),
        &mut |_| (),
    )
    .is_ok()
    {
        return Err(Step::AcceptedDamage);
    }
    let installed = install(&request, &mut parts, &mut Served::new(IMAGE), &mut |_| ());
    let Ok(Installed::Chosen(outcome)) = installed else {
        return Err(Step::Install);
    };
    let mut content = vec![0; FIRMWARE.len()];
    flash
        .read_stored(0, &mut content)
        .map_err(|_| Step::Content)?;
    if content != FIRMWARE {
        return Err(Step::Content);
    }

    let running = boot.0.start();
    let running: Vec<_> = running
        .iter()
        .map(|(name, slot)| (name.as_str(), *slot))
        .collect();
    if running != [("prot", b)] || standing(&boot.0, &running) != Standing::OnTrial {
        return Err(Step::Boot);
    }
    let facts = SlotFacts {
        component: "prot",
        slot: b,
        manifest: None,
        build: &outcome.manifest.build,
        security_version: outcome.manifest.security_version,
    };
    confirm(&mut boot, &mut store, &[facts]).map_err(|_| Step::Confirm)?;
    match boot.0.component("prot") {
        Some(prot) if prot.confirmed == b && prot.security_floor == 3 => Ok(()),
        _ => Err(Step::Confirm),
    }
}

fn serial_of_prot() -> Option<Vec<u8>> {
    let script = parse(SCRIPT, &Limits::default(), &Dialect::field()).ok()?;
    script.lines.iter().find_map(|line| match &line.command {
        Command::Load {
            component: Load::Prot,
            serial,
            ..
        } => Some(serial.as_bytes().to_vec()),
        _ => None,
    })
}
