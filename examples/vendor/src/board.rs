use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::NonZeroU8;
use core::ops::Range;

use rekindle_flash::{
    BootControl, BootRecord, ComponentBoot, Flash, FlashBootControl, Partition, SlotId,
};
use rekindle_image::{Downgrade, Manifest, PublicKey, Trust, Unsigned};
use rekindle_state::{Door, FlashStore, State, Store};
use rekindle_update::{
    Installed, Parts, Request, SlotFacts, Standing, Transfer, confirm, install, standing,
};

use crate::nor::Nor;
use crate::served::Served;

/// Two copies of the boot record, an erase block each. The boot loader reads them as well.
const BOOT: Range<u64> = 0..0x2000;
/// Two generations of the state, 16 KiB each.
const STATE: Range<u64> = 0x2000..0xA000;
/// Slots A and B of the one component.
const SLOTS: [Range<u64>; 2] = [0x10000..0x80000, 0x80000..0xF0000];

const COMPONENTS: &[(&str, u8)] = &[("prot", 2)];

/// The board's chip, and the key that it trusts.
pub(crate) struct Board {
    chip: RefCell<Nor>,
    trust: Trust,
}

/// A part of the chip, which the parts use in turn.
type Part<'a> = Partition<&'a RefCell<Nor>>;

impl Board {
    /// A board as it leaves the factory, running from slot A.
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        let board = Self {
            chip: RefCell::new(Nor::erased()),
            trust: Trust {
                keys: vec![PublicKey::from_bytes(key).ok()?],
                threshold: NonZeroU8::MIN,
                unsigned: Unsigned::Refuse,
            },
        };
        let record = BootRecord::new(COMPONENTS).ok()?;
        FlashBootControl::create(board.part(BOOT)?, &record).ok()?;
        Some(board)
    }

    /// Lets the power go after so many words.
    pub(crate) fn cut_after(&self, words: u32) {
        self.chip.borrow_mut().cut_after(words);
    }

    /// The power comes back, and the boot loader's turn: it counts an attempt, stores the record,
    /// and says what it starts.
    pub(crate) fn restart(&self) -> Option<SlotId> {
        self.chip.borrow_mut().restart();
        let mut boot = self.boot()?;
        let mut record = boot.load().ok()?;
        let started = record.start();
        boot.store(&record).ok()?;
        started
            .iter()
            .find(|(name, _)| name == "prot")
            .map(|(_, slot)| *slot)
    }

    /// Brings an image into the slot that does not run, and chooses it. What the slot that runs holds
    /// of it already is copied. `None`: the installer refused, or the power went.
    pub(crate) fn update(
        &self,
        running: SlotId,
        image: &mut Served<'_>,
        serial: &[u8],
    ) -> Option<Manifest> {
        let target = SlotId::new(1 - running.index())?;
        let request = Request {
            component: "prot",
            target,
            in_place: false,
            running: &[("prot", running)],
            running_manifest: None,
            device_type: "EXAMPLE",
            hardware: None,
            installed: &[],
            trust: &self.trust,
            downgrade: Downgrade::Refuse,
            attempts: 3,
            serial: Some(serial),
            door: Door::Script,
            now: None,
            file_len: None,
            transfer: Transfer::default(),
        };
        let mut parts = Parts {
            flash: &mut self.slot(target)?,
            donors: &mut [self.slot(running)?],
            boot: &mut self.boot()?,
            store: &mut self.store()?,
        };
        match install(&request, &mut parts, image, &mut |_| ()) {
            Ok(Installed::Chosen(outcome)) => Some(outcome.manifest),
            _ => None,
        }
    }

    /// What runs is healthy: it stays.
    pub(crate) fn confirm(&self, running: SlotId, manifest: &Manifest) -> Option<()> {
        let mut boot = self.boot()?;
        let record = boot.load().ok()?;
        if standing(&record, &[("prot", running)]) != Standing::OnTrial {
            return None;
        }
        let facts = SlotFacts {
            component: "prot",
            slot: running,
            manifest: None,
            build: &manifest.build,
            security_version: manifest.security_version,
        };
        confirm(&mut boot, &mut self.store()?, &[facts]).ok()
    }

    /// Returns what boot control says of the component.
    pub(crate) fn prot(&self) -> Option<ComponentBoot> {
        self.boot()?.load().ok()?.component("prot").cloned()
    }

    /// Returns what the board remembers.
    pub(crate) fn state(&self) -> Option<State> {
        Some(self.store()?.load().ok()?.state)
    }

    /// Returns the first bytes of a slot.
    pub(crate) fn content(&self, slot: SlotId, len: usize) -> Option<Vec<u8>> {
        let mut content = vec![0; len];
        self.slot(slot)?.read_stored(0, &mut content).ok()?;
        Some(content)
    }

    fn boot(&self) -> Option<FlashBootControl<Part<'_>>> {
        FlashBootControl::open(self.part(BOOT)?, COMPONENTS).ok()
    }

    fn store(&self) -> Option<FlashStore<Part<'_>>> {
        FlashStore::open(self.part(STATE)?).ok()
    }

    fn slot(&self, slot: SlotId) -> Option<Part<'_>> {
        self.part(SLOTS.get(usize::from(slot.index()))?.clone())
    }

    fn part(&self, range: Range<u64>) -> Option<Part<'_>> {
        Partition::new(&self.chip, range).ok()
    }
}
