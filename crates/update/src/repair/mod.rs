//! Repair: a slot is converged to its own manifest. Only what is damaged is fetched.
//!
//! Which slot may be written in which way, `docs/decisions/repair-by-what-the-slot-is-for.md` says.

mod error;
mod guard;
mod origin;
mod recover;
mod wanted;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::ControlFlow;

use rekindle_flash::{
    BootControl, BootRecord, CopyState, Flash, Geometry, SlotContent, SlotId, SlotLayout, read_slot,
};
use rekindle_image::{AdoptedKeys, Manifest, SignedManifest, Trust};
use rekindle_state::Store;

use self::error::Failed;
pub use self::error::{RepairError, RepairErrorOf, RepairRefused};
use self::guard::{Guarded, GuardedError};
pub use self::origin::{OriginError, SameImageError};
use self::origin::{SameImage, Shared};
pub use self::recover::{RecoverRequest, Recovered, recover};
use self::wanted::Wanted;
use crate::converge::{Converge, Donor, Progress, Report, Transfer};
use crate::install::{Installed, Parts, Request, install_held};
use crate::keys::adopted_keys;
use crate::pump::{PumpError, Source, pump};
use crate::scrub::{ScrubError, scrub};

/// Which slot is to be repaired, and what the device knows about itself.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct RepairRequest<'a> {
    /// The component.
    pub component: &'a str,
    /// Its slot.
    pub slot: SlotId,
    /// The component has one copy, and is not what the device starts from.
    pub in_place: bool,
    /// The slot's users keep it from being written where it is: it is mounted for writing, or the
    /// system does not let go of it.
    pub busy: bool,
    /// What runs now, component by component.
    pub running: &'a [(&'a str, SlotId)],
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// How much is fetched at the most. Ranges are not joined: nothing but damaged chunks is fetched.
    pub transfer: Transfer,
}

/// How a slot may be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairWay {
    /// The slot neither runs nor boots next without a choice: nothing boots it while it is written,
    /// and afterwards it is to boot control what it was.
    Withdrawn,
    /// The slot stays in use. The medium overwrites, and only write units that are wrong are
    /// written: a power cut can hurt nothing that was good, but for what shares a unit with damage.
    InPlace,
    /// The slot runs, and is busy or on flash with erase blocks, where an erase would take good
    /// neighbours with it: [`repair_elsewhere`] installs its image into another slot.
    OtherSlot,
    /// As [`OtherSlot`](Self::OtherSlot), and there is none: only a recovery environment can write
    /// this one.
    Recovery,
}

/// What a repair came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repaired {
    /// The slot never held anything.
    Empty,
    /// The slot does not boot, and is about to become something else: the install that was begun
    /// there is to be continued.
    Unfinished,
    /// It is as its manifest says; nothing was written.
    Whole(Manifest),
    /// It was damaged, and is as its manifest says now.
    Repaired {
        /// What it holds.
        manifest: Manifest,
        /// What it took.
        report: Report,
        /// How it was done.
        way: RepairWay,
    },
}

/// Says how a slot may be repaired, from what boots and what its flash can do.
///
/// # Errors
///
/// Any [`RepairRefused`].
pub fn repair_way(
    record: &BootRecord,
    request: &RepairRequest<'_>,
    geometry: &Geometry,
) -> Result<RepairWay, RepairRefused> {
    if record.trial_started() {
        return Err(RepairRefused::OnTrial);
    }
    let runs = request.running.contains(&(request.component, request.slot));
    let component = record.component(request.component);
    let confirmed = component.is_some_and(|component| component.confirmed == request.slot);
    if !runs && !confirmed {
        return Ok(RepairWay::Withdrawn);
    }
    if !request.busy && (geometry.erase_size == 0 || request.in_place) {
        return Ok(RepairWay::InPlace);
    }
    if component.is_none_or(|component| component.slots == 1) {
        return Ok(RepairWay::Recovery);
    }
    if runs {
        Ok(RepairWay::OtherSlot)
    } else {
        Err(RepairRefused::BootsNext(request.slot))
    }
}

/// Makes a slot match its own manifest again. It reads the slot once; `source` is asked for nothing
/// where nothing is damaged, and for damaged chunks otherwise.
///
/// The image at `source` must be the one that the slot holds. The manifest in the slot's tail is
/// checked under the device's trust; where none can be used, the state's record of the slot says which
/// image to take from `source`. What boots next stays as it is: a choice of this slot that
/// waits for its first boot is made again afterwards.
///
/// The caller holds the device's update lock. After an error, and after a power cut at any moment,
/// the same call continues.
///
/// # Errors
///
/// Any [`RepairError`]. An image at `source` that is another one is found before anything is written; a
/// source that cannot be reached may leave the slot marked incomplete, and one that was withdrawn
/// unbootable, until a repair succeeds.
pub fn repair<F: Flash, B: BootControl, S: Store, R: Source>(
    request: &RepairRequest<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Repaired, RepairErrorOf<F, B, S, R>> {
    let mut record = parts.boot.load().map_err(RepairError::Boot)?;
    let geometry = parts.flash.geometry();
    let way = repair_way(&record, request, &geometry)?;
    let layout = SlotLayout::new(&geometry)?;
    let mut content = read_slot(parts.flash, &layout).map_err(RepairError::Flash)?;
    let state = parts.store.load().map_err(RepairError::Store)?.state;
    let known = state
        .slot(request.component, request.slot)
        .map(|slot| slot.manifest);
    let before = Before::of(&record, request);
    if way != RepairWay::Withdrawn && !before.bootable {
        // It waits for the recovery environment, which makes something else of it.
        return Ok(Repaired::Unfinished);
    }
    let idle = way == RepairWay::Withdrawn && !before.bootable;
    let adopted = adopted_keys(&record, Some(&state));
    let adopted = adopted.as_ref();
    let wanted = Wanted::of(&content, &layout, request.trust, adopted, known, idle)
        .map_err(|unknown| RepairError::unknown(unknown, request.slot))?;
    if matches!(way, RepairWay::OtherSlot | RepairWay::Recovery) {
        let chosen = chosen_slot(&record, request.component);
        return look(request, adopted, (way, chosen), parts.flash, wanted);
    }
    let mut source = SameImage::new(source);
    let signed = match wanted {
        Wanted::Nothing => return Ok(Repaired::Empty),
        Wanted::Unfinished => return Ok(Repaired::Unfinished),
        Wanted::Held(signed) => *signed,
        Wanted::FromOrigin(id) => source
            .manifest(&id, request.trust, adopted)
            .map_err(RepairError::Origin)?,
    };
    source.expect(&signed);
    let source = RefCell::new(source);
    if let (RepairWay::InPlace, Some((copy, _))) = (way, content.staged()) {
        // A cut before it was to boot: from now on it would be taken for what the slot holds.
        forget::<_, B::Error, R::Error>(parts.flash, &layout, copy)
            .map_err(RepairError::from_guarded)?;
        content.copies[copy] = CopyState::Empty;
    }

    let whole = known == Some(*signed.id().as_bytes());
    let boot = &mut *parts.boot;
    let first = || -> Result<(), Failed<B::Error, R::Error>> {
        match source.borrow_mut().check() {
            // What is damaged may be had from another slot.
            Err(error) if !error.is_unreachable() => return Err(Failed::Origin(error)),
            Ok(()) | Err(_) => {}
        }
        if way == RepairWay::Withdrawn {
            record.withdraw(request.component, request.slot)?;
            boot.store(&record).map_err(Failed::Boot)?;
        }
        Ok(())
    };
    let job = Job {
        signed: &signed,
        content: &content,
        layout: &layout,
        only_wrong: way == RepairWay::InPlace,
        transfer: request.transfer,
    };
    let (report, wrote) = job
        .run(parts.flash, parts.donors, &source, first, observe)
        .map_err(RepairError::from_pump)?;

    let mut after = record.clone();
    if before.chosen && wrote && way == RepairWay::Withdrawn {
        after.choose(request.component, request.slot, before.attempts)?;
    } else if before.bootable || whole {
        after.readmit(request.component, request.slot)?;
    }
    if after != record {
        parts.boot.store(&after).map_err(RepairError::Boot)?;
    }
    let manifest = signed.unverified().clone();
    Ok(if wrote {
        Repaired::Repaired {
            manifest,
            report,
            way,
        }
    } else {
        Repaired::Whole(manifest)
    })
}

/// Scrubs a slot that must not be written.
fn look<F: Flash, B, S, R>(
    request: &RepairRequest<'_>,
    adopted: Option<&AdoptedKeys>,
    (way, chosen): (RepairWay, Option<SlotId>),
    flash: &mut F,
    wanted: Wanted,
) -> Result<Repaired, RepairError<F::Error, B, S, R>> {
    let image = match wanted {
        Wanted::Nothing => return Ok(Repaired::Empty),
        Wanted::Unfinished => return Ok(Repaired::Unfinished),
        Wanted::Held(signed) => {
            let report = scrub(flash, request.trust, adopted, &mut |_| {
                ControlFlow::Continue(())
            })
            .map_err(|error| match error {
                ScrubError::Slot(error) => RepairError::Slot(error),
                ScrubError::Flash(error) => RepairError::Flash(error),
            })?;
            if !report.is_damaged() {
                return Ok(Repaired::Whole(signed.unverified().clone()));
            }
            *signed.id().as_bytes()
        }
        Wanted::FromOrigin(id) => id,
    };
    let slot = request.slot;
    Err(match (way, chosen) {
        (RepairWay::OtherSlot, Some(chosen)) => RepairRefused::ChoiceWaits { slot, chosen }.into(),
        (RepairWay::OtherSlot, None) => RepairError::NeedsOtherSlot { slot, image },
        _ => RepairError::NeedsRecovery { slot, image },
    })
}

fn chosen_slot(record: &BootRecord, component: &str) -> Option<SlotId> {
    record.component(component)?.chosen
}

/// Installs the image of a slot that must not be written into another one: what
/// [`RepairError::NeedsOtherSlot`] asks for.
///
/// `request` is that of an install, with the other slot as its target; whatever it says of the running
/// manifest, the image is installed. `parts` has the damaged slot among the donors, so that only
/// what is damaged is fetched.
///
/// # Errors
///
/// Any [`RepairError`]; what the install refuses is in [`RepairError::Install`].
pub fn repair_elsewhere<F: Flash, B: BootControl, S: Store, R: Source>(
    image: &[u8; 32],
    request: &Request<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Installed, RepairErrorOf<F, B, S, R>> {
    let record = parts.boot.load().map_err(RepairError::Boot)?;
    let state = parts.store.load().map_err(RepairError::Store)?.state;
    let adopted = adopted_keys(&record, Some(&state));
    SameImage::new(source)
        .manifest(image, request.trust, adopted.as_ref())
        .map_err(RepairError::Origin)?;
    let request = Request {
        running_manifest: None,
        ..request.clone()
    };
    install_held(image, &request, parts, source, observe)
        .map_err(|error| RepairError::Install(Box::new(error)))
}

/// A slot to be made to match an image: what a repair and a recovery have in common.
struct Job<'a> {
    signed: &'a SignedManifest,
    content: &'a SlotContent,
    layout: &'a SlotLayout,
    /// Write only units that are wrong.
    only_wrong: bool,
    transfer: Transfer,
}

/// What it took, and whether anything was written.
type JobResult<F, B, R> =
    Result<(Report, bool), PumpError<GuardedError<F, Failed<B, R>>, OriginError<R>>>;

impl Job<'_> {
    /// Runs to the end, with `first` before the first write.
    fn run<F: Flash, B, R: Source>(
        self,
        flash: &mut F,
        donors: &mut [F],
        source: &RefCell<SameImage<'_, R>>,
        first: impl FnOnce() -> Result<(), Failed<B, R::Error>>,
        observe: &mut dyn FnMut(Progress),
    ) -> JobResult<F::Error, B, R::Error>
    where
        B: core::error::Error + Send + Sync + 'static,
    {
        let geometry = flash.geometry();
        let mut flash = Guarded::new(flash, self.only_wrong, first);
        if let Some(copy) = unreadable_target(self.content, self.signed) {
            // A mark that is left there could name the head that comes to stand before it.
            flash
                .clear(&self.layout.copies[copy].mark)
                .map_err(PumpError::Flash)?;
        }
        let known: Vec<Donor> = donors.iter_mut().map(Donor::read).collect();
        let mut lenders: Vec<_> = donors.iter_mut().map(Guarded::lending).collect();
        let transfer = Transfer {
            join_gap: 0,
            ..self.transfer
        };
        let (layout, content) = (self.layout.clone(), self.content);
        let mut converge = Converge::new(self.signed, geometry, layout, content, &known, transfer)?;
        drop(known);
        let report = pump(
            &mut converge,
            &mut flash,
            &mut lenders,
            &mut Shared(source),
            observe,
        )?;
        Ok((report, flash.wrote()))
    }
}

/// Makes a copy in the slot's tail say nothing.
fn forget<F: Flash, B, R>(
    flash: &mut F,
    layout: &SlotLayout,
    copy: usize,
) -> Result<(), GuardedError<F::Error, Failed<B, R>>>
where
    B: core::error::Error + Send + Sync + 'static,
    R: core::error::Error + Send + Sync + 'static,
{
    Guarded::new(flash, false, || Ok::<(), Failed<B, R>>(())).clear(&layout.copies[copy].head)
}

/// What the slot was to boot control before it was withdrawn.
#[derive(Debug, Clone, Copy)]
struct Before {
    bootable: bool,
    chosen: bool,
    attempts: u8,
}

impl Before {
    fn of(record: &BootRecord, request: &RepairRequest<'_>) -> Self {
        let component = record.component(request.component);
        Self {
            bootable: component
                .is_some_and(|component| !component.unbootable.contains(request.slot)),
            chosen: component.is_some_and(|component| component.chosen == Some(request.slot)),
            attempts: record.attempts(),
        }
    }
}

/// The copy that a converge would describe the slot in anew, if what stands there cannot be read.
fn unreadable_target(content: &SlotContent, signed: &SignedManifest) -> Option<usize> {
    let held = content.copies.iter().any(
        |copy| matches!(copy, CopyState::Held(held) if held.header.id == *signed.id().as_bytes()),
    );
    let copy = content.next_copy();
    (!held && matches!(content.copies[copy], CopyState::Damaged(_))).then_some(copy)
}
