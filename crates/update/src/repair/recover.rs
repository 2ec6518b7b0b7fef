use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;

use rekindle_flash::{
    BootControl, BootRecord, CopyState, Flash, SlotContent, SlotId, SlotLayout, read_slot,
};
use rekindle_image::{Acceptance, DeviceFacts, Downgrade, Manifest, SignedManifest, Trust};
use rekindle_state::{Door, SlotRecord, State, Store, UnixTime};

use super::error::{Failed, RepairError, RepairErrorOf};
use super::origin::{OriginError, SameImage};
use super::{GuardedError, Job, JobResult, forget};
use crate::converge::{Progress, Report, Transfer};
use crate::install::{InstallError, Parts, read_manifest};
use crate::keys::adopted_keys;
use crate::pump::{PumpError, Source};
use crate::scrub::judge;

/// Which slot is to be recovered, and what the device knows about itself.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct RecoverRequest<'a> {
    /// The component, which has one slot.
    pub component: &'a str,
    /// Its slot. Nothing runs from it now.
    pub slot: SlotId,
    /// The device type, which the image must list.
    pub device_type: &'a str,
    /// The hardware revision.
    pub hardware: Option<&'a str>,
    /// Releases that other components hold, for the requirements of an image that the slot's tail
    /// does not name.
    pub installed: &'a [(&'a str, u64)],
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// Only the image that the slot's tail names: a source with another one, or a tail that names
    /// none, is an error. For a device that has several sources, before it takes what they have.
    pub exact: bool,
    /// The time, where the device knows it.
    pub now: Option<UnixTime>,
    /// How much is fetched at the most.
    pub transfer: Transfer,
}

/// What a recovery came to: the slot holds this image, whole, and is what boots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered {
    /// It held it already; nothing was written to it.
    Whole(Manifest),
    /// It holds it now.
    Recovered {
        /// What it holds.
        manifest: Manifest,
        /// What it took.
        report: Report,
    },
}

/// Brings the only slot of a component to an authentic image, in place, and chooses it. It is run from
/// a recovery environment: nothing may run from the slot.
///
/// The image is the one that the slot's tail names: what was staged by an install, or, where the slot
/// was not withdrawn, what it held. `source` is asked for what is missing. Where the tail names
/// nothing that can be used, or `source` has another image, that one is taken, if the device accepts
/// it as an install would and the request is not `exact`.
///
/// Once the slot is whole its image is recorded in the state, with the serial that was noted when it
/// was staged, and the slot is chosen in boot control: it is the confirmed one, so there is no trial. A
/// device whose state cannot be used gives an empty one.
///
/// After an error, and after a power cut at any moment, the same call continues: until the slot is
/// whole boot control has it withdrawn, and the recovery environment starts again.
///
/// # Errors
///
/// Any [`RepairError`]. A slot that boots is not touched before `source` has shown the right image.
pub fn recover<F: Flash, B: BootControl, S: Store, R: Source>(
    request: &RecoverRequest<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Recovered, RepairErrorOf<F, B, S, R>> {
    let mut record = parts.boot.load().map_err(RepairError::Boot)?;
    let layout = SlotLayout::new(&parts.flash.geometry())?;
    let mut state = parts.store.load().map_err(RepairError::Store)?.state;
    let named = {
        let content = read_slot(parts.flash, &layout).map_err(RepairError::Flash)?;
        named_in_tail(request, (&record, &state), &content, &layout)
    };
    let mut outcome = None;
    if let Some(signed) = &named {
        match converge(
            request,
            parts,
            &mut record,
            (&layout, signed),
            source,
            observe,
        ) {
            Ok(done) => outcome = Some((signed.clone(), done)),
            Err(PumpError::Source(OriginError::OtherImage(_))) if !request.exact => {}
            Err(PumpError::Flash(error)) if error.is_other_image() && !request.exact => {}
            Err(error) => return Err(RepairError::from_pump(error)),
        }
    }
    let (signed, (report, wrote)) = if let Some(outcome) = outcome {
        outcome
    } else if request.exact {
        return Err(RepairError::Unknown(request.slot));
    } else {
        let signed = accepted(request, &record, &state, &layout, named.as_ref(), source)
            .map_err(|error| RepairError::Origin(OriginError::Image(error)))?;
        let image = (&layout, &signed);
        let done = converge(request, parts, &mut record, image, source, observe)
            .map_err(RepairError::from_pump)?;
        (signed, done)
    };

    if note(request, &mut state, &signed) {
        parts.store.commit(&state).map_err(RepairError::Store)?;
    }
    let mut chosen = record.clone();
    chosen.choose(request.component, request.slot, 1)?;
    if chosen != record {
        parts.boot.store(&chosen).map_err(RepairError::Boot)?;
    }
    let manifest = signed.unverified().clone();
    Ok(if wrote {
        Recovered::Recovered { manifest, report }
    } else {
        Recovered::Whole(manifest)
    })
}

/// What the slot's tail says that it is to hold, if that is authentic and for this device.
fn named_in_tail(
    request: &RecoverRequest<'_>,
    (record, state): (&BootRecord, &State),
    content: &SlotContent,
    layout: &SlotLayout,
) -> Option<SignedManifest> {
    let adopted = adopted_keys(record, Some(state));
    let adopted = adopted.as_ref();
    // In a slot that boots, a newer copy is what a cut left of an install that never was to boot.
    let newest = if is_bootable(record, request) {
        content.whole().or_else(|| content.current())
    } else {
        content.current()
    };
    let older = content
        .copies
        .iter()
        .enumerate()
        .filter_map(|(copy, state)| match state {
            CopyState::Held(held) => Some((copy, held)),
            CopyState::Empty | CopyState::Damaged(_) => None,
        });
    // A copy beside a damaged one may be what the slot held before, unless it is complete.
    let rotten = |copy: &CopyState| matches!(copy, CopyState::Damaged(_));
    let rotten = content.copies.iter().any(rotten);
    let own = newest.filter(|(_, held)| held.complete || !rotten);
    let own = own.map(|(copy, _)| copy);
    let component = record.component(request.component);
    let floor = component.map_or(0, |component| component.security_floor);
    newest
        .into_iter()
        .chain(older)
        .filter_map(|(copy, held)| {
            let image = judge(held, layout, copy, request.trust, adopted).ok()?;
            Some((copy, image.signed))
        })
        .filter(|(copy, signed)| {
            // What the slot held before is another image, and is taken as one: no rollback.
            let verified = signed.verify_adopted(request.trust, adopted);
            let current = verified.is_ok_and(|image| image.manifest.security_version >= floor);
            own == Some(*copy) || current
        })
        .map(|(_, signed)| signed)
        .find(|signed| {
            let manifest = signed.unverified();
            let types = &manifest.device_types;
            manifest.component == request.component
                && types.iter().any(|listed| listed == request.device_type)
        })
}

fn converge<F: Flash, B: BootControl, S, R: Source>(
    request: &RecoverRequest<'_>,
    parts: &mut Parts<'_, F, B, S>,
    record: &mut BootRecord,
    (layout, signed): (&SlotLayout, &SignedManifest),
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> JobResult<F::Error, B::Error, R::Error> {
    let mut content = read_slot(parts.flash, layout)
        .map_err(|error| PumpError::Flash(GuardedError::Flash(error)))?;
    let mut source = SameImage::new(source);
    source.expect(signed);
    let source = RefCell::new(source);
    let bootable = is_bootable(record, request);
    if bootable && let Some((copy, _)) = content.staged() {
        forget(parts.flash, layout, copy).map_err(PumpError::Flash)?;
        content.copies[copy] = CopyState::Empty;
    }
    let boot = &mut *parts.boot;
    let first = || -> Result<(), Failed<B::Error, R::Error>> {
        // What boots, however damaged, is not given up for a source that cannot help.
        if bootable {
            source.borrow_mut().check().map_err(Failed::Origin)?;
        }
        // Also where it is withdrawn: a record that was cut off at its very end may read right now
        // and fade while the slot is half written.
        record.withdraw(request.component, request.slot)?;
        boot.store(record).map_err(Failed::Boot)
    };
    let job = Job {
        signed,
        content: &content,
        layout,
        only_wrong: false,
        transfer: request.transfer,
    };
    job.run(parts.flash, parts.donors, &source, first, observe)
}

/// The image at the source, if the device would install it.
fn accepted<R: Source>(
    request: &RecoverRequest<'_>,
    record: &BootRecord,
    state: &State,
    layout: &SlotLayout,
    named: Option<&SignedManifest>,
    source: &mut R,
) -> Result<SignedManifest, InstallError<Infallible, Infallible, Infallible, R::Error>> {
    let signed = read_manifest(source)?;
    let adopted = adopted_keys(record, Some(state));
    let manifest = signed
        .verify_adopted(request.trust, adopted.as_ref())?
        .manifest;
    let mut installed: Vec<(&str, u64)> = request.installed.to_vec();
    if let Some(named) = named {
        installed.push((request.component, named.unverified().release));
    }
    let component = record.component(request.component);
    Acceptance::check(
        manifest,
        &DeviceFacts {
            device_type: request.device_type,
            hardware: request.hardware,
            component: request.component,
            security_floor: component.map_or(0, |component| component.security_floor),
            slot_capacity: layout.data_len(),
            table_capacity: layout.table_len(),
            installed: &installed,
        },
        Downgrade::Refuse,
    )?;
    let rejection = state.rejection(signed.id().as_bytes());
    if let Some(rejection) = rejection.filter(|known| known.holds_back(request.now)) {
        return Err(InstallError::Rejected(rejection.clone()));
    }
    Ok(signed)
}

/// Records what the slot holds, unless that is known already; says whether there is something to
/// commit.
fn note(request: &RecoverRequest<'_>, state: &mut State, signed: &SignedManifest) -> bool {
    let id = *signed.id().as_bytes();
    let known = state.slot(request.component, request.slot);
    if known.is_some_and(|known| known.manifest == id) {
        return false;
    }
    state.record_slot(SlotRecord {
        component: String::from(request.component),
        slot: request.slot,
        manifest: id,
        serial: None,
        build: signed.unverified().build.clone(),
        date: request.now,
        door: Door::Local,
    });
    true
}

fn is_bootable(record: &BootRecord, request: &RecoverRequest<'_>) -> bool {
    record.next(request.component) == Some(request.slot)
}
