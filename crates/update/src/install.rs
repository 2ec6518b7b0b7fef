//! An install, from the first byte of an image to the choice of its slot, in the order of commits
//! that a power cut cannot break: `docs/architecture.md`, "The order of the commits".

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use rekindle_flash::{
    BootControl, BootRecord, BootRefused, Flash, HeldCopy, LayoutError, SlotContent, SlotId,
    SlotLayout, read_slot,
};
use rekindle_image::{
    Acceptance, DeviceFacts, Downgrade, FileHeader, HeaderError, Layout, Manifest, ManifestError,
    PAGE_SIZE, Refusal, Signed, SignedManifest, Trust, VerifyError,
};
use rekindle_state::{Door, Rejection, SlotRecord, State, Store, UnixTime};

use crate::around::ReadAround;
use crate::converge::{Converge, ConvergeError, Donor, Progress, Report, Transfer, check_units};
use crate::keys::{adopted_keys, verify_held};
use crate::pump::{PumpError, Source, pump};
use crate::trial::is_on_trial;

/// What is to be installed where, and what the device knows about itself.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Request<'a> {
    /// The component that the image must be for.
    pub component: &'a str,
    /// The slot to converge: never the one that runs, unless `in_place`.
    pub target: SlotId,
    /// The component has one copy, is not what the device starts from, and converges in place.
    pub in_place: bool,
    /// What runs now, component by component.
    pub running: &'a [(&'a str, SlotId)],
    /// The manifest of the running slot of this component, if its tail holds one, complete.
    pub running_manifest: Option<[u8; 32]>,
    /// The device type, which the image must list.
    pub device_type: &'a str,
    /// The hardware revision.
    pub hardware: Option<&'a str>,
    /// Releases that run or are staged, for the image's requirements.
    pub installed: &'a [(&'a str, u64)],
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// Whether a lower security version than the floor may be installed.
    pub downgrade: Downgrade,
    /// Times that the boot loader may try the new slot.
    pub attempts: u8,
    /// The serial of the script line, for the variable.
    pub serial: Option<&'a [u8]>,
    /// The door the image came through.
    pub door: Door,
    /// The time, where the device knows it.
    pub now: Option<UnixTime>,
    /// Bytes of the image file, where the source knows them: another length is an attack or an
    /// accident, and found before anything is written.
    pub file_len: Option<u64>,
    /// How the image is fetched, and how much of it at the most.
    pub transfer: Transfer,
}

/// What the order of commits needs of a device.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Parts<'a, F, B, S> {
    /// The flash of the target slot.
    pub flash: &'a mut F,
    /// The other slots of the device, the one that runs included: they are read, never written.
    pub donors: &'a mut [F],
    /// The boot control of the device.
    pub boot: &'a mut B,
    /// The device's state store.
    pub store: &'a mut S,
}

/// What an install came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Installed {
    /// The image is in the slot and chosen; it starts at the next boot.
    Chosen(Outcome),
    /// The image is what runs already, or what the only copy holds; only the serial was recorded.
    Running(Manifest),
    /// The component has one copy, which holds the image now.
    InPlace(Outcome),
    /// The component has one slot, which the device starts from: the image is staged, and the
    /// recovery environment brings it in at the next boot.
    Staged(Outcome),
}

/// An image that was brought into a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The slot.
    pub slot: SlotId,
    /// What it holds.
    pub manifest: Manifest,
    /// Whether nobody had signed it and the device's policy let it pass.
    pub unsigned: bool,
    /// What it took.
    pub report: Report,
}

/// Why nothing was installed. The running slot is untouched in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError<F, B, S, R> {
    /// What runs is on trial: the slot it would fall back to must not be overwritten.
    #[error("what runs now is not confirmed yet; its fallback must not be overwritten")]
    NotConfirmedYet,
    /// The target is the slot that runs.
    #[error("slot {0} is what runs now")]
    TargetRuns(SlotId),
    /// The file does not begin as an image does.
    #[error("this is no Rekindle image")]
    Header(#[from] HeaderError),
    /// The file ends before its chunk table begins.
    #[error("the image is truncated: it has {0} bytes, not even a whole manifest")]
    NoManifest(u64),
    /// Something stands between the manifest and the chunk table, where only zeros may.
    #[error("the image is damaged: byte {offset}, between manifest and table, is not zero")]
    Padding {
        /// Where it stands in the file.
        offset: u64,
    },
    /// The manifest cannot be read.
    #[error("the image's manifest is unreadable")]
    Manifest(#[from] ManifestError),
    /// The manifest is not signed as the device demands.
    #[error("the image is not trusted")]
    Trust(#[from] VerifyError),
    /// The image is not for this device, slot or time.
    #[error("the image is refused")]
    Refused(#[from] Refusal),
    /// The file's length is not the one that its manifest describes.
    #[error("the image file has {found} bytes, its manifest describes {expected}: {}", length_hint(*.found, *.expected))]
    FileLength {
        /// What the source says.
        found: u64,
        /// What the manifest says.
        expected: u64,
    },
    /// This very image was tried and did not prove itself.
    #[error("build {} was tried and rejected: {}{}", .0.build, .0.reason, if .0.is_final() { "" } else { "; it is tried again later" })]
    Rejected(Rejection),
    /// Boot control does not allow the step.
    #[error("boot control does not allow it")]
    BootRefused(#[from] BootRefused),
    /// The slot is too small to hold anything.
    #[error("the slot cannot hold an image")]
    Slot(#[from] LayoutError),
    /// The slot could not be made to match.
    #[error(transparent)]
    Converge(#[from] ConvergeError),
    /// The image ends before its manifest says so.
    #[error("the image is truncated: it ends inside bytes {0:?}")]
    Truncated(core::ops::Range<u64>),
    /// The slot's flash failed.
    #[error("the slot's flash failed")]
    Flash(#[source] F),
    /// Boot control failed.
    #[error("boot control failed")]
    Boot(#[source] B),
    /// The state store failed.
    #[error("the state store failed")]
    Store(#[source] S),
    /// The image could not be fetched.
    #[error("the image could not be fetched")]
    Source(#[source] R),
}

fn length_hint(found: u64, expected: u64) -> &'static str {
    if found < expected {
        "it is truncated"
    } else {
        "something was added at its end"
    }
}

impl<F, B, S, R> From<PumpError<F, R>> for InstallError<F, B, S, R> {
    fn from(error: PumpError<F, R>) -> Self {
        match error {
            PumpError::Flash(error) => Self::Flash(error),
            PumpError::Source(error) => Self::Source(error),
            PumpError::Truncated(range) => Self::Truncated(range),
            PumpError::Converge(error) => Self::Converge(error),
        }
    }
}

/// The error of an install on these parts.
pub type InstallErrorOf<F, B, S, R> = InstallError<
    <F as Flash>::Error,
    <B as BootControl>::Error,
    <S as Store>::Error,
    <R as Source>::Error,
>;

/// Installs an image: verifies its manifest, converges the target slot and chooses it.
///
/// The caller holds the device's update lock. After an error, and after a power cut at any moment,
/// the same call continues where the flash says it is.
///
/// # Errors
///
/// Any [`InstallError`]; the old content of the target slot may be gone then, but it is marked
/// unbootable before its first byte changes, and what runs is never touched.
pub fn install<F: Flash, B: BootControl, S: Store, R: Source>(
    request: &Request<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Installed, InstallErrorOf<F, B, S, R>> {
    install_as(None, request, parts, source, observe)
}

/// Installs the image of this id that the device holds in another slot already: neither an earlier
/// rejection nor replaced keys stand against it.
pub(crate) fn install_held<F: Flash, B: BootControl, S: Store, R: Source>(
    image: &[u8; 32],
    request: &Request<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Installed, InstallErrorOf<F, B, S, R>> {
    install_as(Some(image), request, parts, source, observe)
}

fn install_as<F: Flash, B: BootControl, S: Store, R: Source>(
    held: Option<&[u8; 32]>,
    request: &Request<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Installed, InstallErrorOf<F, B, S, R>> {
    let runs = request
        .running
        .contains(&(request.component, request.target));
    if !request.in_place && runs {
        return Err(InstallError::TargetRuns(request.target));
    }
    let mut admitted = admit(held, request, parts, source)?;
    if !request.in_place
        && let Some(running) = admitted.keep_running::<_, _, _, R>(request, parts)?
    {
        return Ok(running);
    }
    let Admitted {
        mut record,
        mut state,
        signed,
        manifest,
        unsigned,
        layout,
    } = admitted;
    if !request.in_place {
        record.withdraw(request.component, request.target)?;
        parts.boot.store(&record).map_err(InstallError::Boot)?;
    }
    let mut flash = ReadAround::new(parts.flash);
    let content = read_slot(&mut flash, &layout).map_err(InstallError::Flash)?;
    let mut lenders: Vec<_> = parts.donors.iter_mut().map(ReadAround::donor).collect();
    let donors: Vec<Donor> = lenders.iter_mut().map(Donor::read).collect();
    let (geometry, transfer) = (flash.geometry(), request.transfer);
    let mut converge = Converge::new(&signed, geometry, layout, &content, &donors, transfer)?;
    drop((content, donors));
    let report = pump(&mut converge, &mut flash, &mut lenders, source, observe)?;
    drop(converge);

    let recorded = state.slot(request.component, request.target);
    let is_new = report.written > 0
        || recorded.is_none_or(|known| known.manifest != *signed.id().as_bytes());
    record_slot(request, &mut state, request.target, &signed, &manifest);
    parts.store.commit(&state).map_err(InstallError::Store)?;
    if request.in_place && !is_new {
        return Ok(Installed::Running(manifest));
    }
    let outcome = Outcome {
        slot: request.target,
        manifest,
        unsigned,
        report,
    };
    if request.in_place {
        return Ok(Installed::InPlace(outcome));
    }
    record.choose(request.component, request.target, request.attempts)?;
    parts.boot.store(&record).map_err(InstallError::Boot)?;
    Ok(Installed::Chosen(outcome))
}

/// Stages an image for the only slot of a component that the device starts from: its recovery
/// environment is to bring it in, see [`recover`](crate::recover).
///
/// The slot's tail gets manifest and table, in the copy that does not describe the content; the
/// content and its description stay as they are, so that what runs goes on. Then boot control: the slot
/// is withdrawn, and the boot loader, which finds nothing to start, starts the recovery environment.
/// Before that write the old firmware boots as if nothing had been staged. The serial is recorded
/// last; a cut before it leaves the variable unset, and the same call sets it.
///
/// The caller holds the device's update lock. After an error, and after a power cut at any moment,
/// the same call continues.
///
/// # Errors
///
/// Any [`InstallError`]; what the slot holds and what boots are as before.
pub fn stage<F: Flash, B: BootControl, S: Store, R: Source>(
    request: &Request<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
    observe: &mut dyn FnMut(Progress),
) -> Result<Installed, InstallErrorOf<F, B, S, R>> {
    let mut admitted = admit(None, request, parts, source)?;
    if let Some(running) = admitted.keep_running::<_, _, _, R>(request, parts)? {
        return Ok(running);
    }
    let Admitted {
        mut record,
        mut state,
        signed,
        manifest,
        unsigned,
        layout,
    } = admitted;
    // The recovery environment may have no state: then it knows adopted keys by name only, and the
    // image must bring them.
    let by_name = adopted_keys(&record, None);
    signed.verify_adopted(request.trust, by_name.as_ref())?;
    // Whether it may be withdrawn is found out before anything is written.
    record.withdraw(request.component, request.target)?;
    let mut flash = ReadAround::new(parts.flash);
    let content = read_slot(&mut flash, &layout).map_err(InstallError::Flash)?;
    let (geometry, transfer) = (flash.geometry(), request.transfer);
    let mut converge =
        Converge::new(&signed, geometry, layout, &content, &[], transfer)?.describing();
    drop(content);
    let report = pump(&mut converge, &mut flash, &mut [], source, observe)?;
    drop(converge);

    parts.boot.store(&record).map_err(InstallError::Boot)?;
    // Not before: until then the slot is to be repaired to what it holds, and state must not say that
    // this is something else.
    record_slot(request, &mut state, request.target, &signed, &manifest);
    parts.store.commit(&state).map_err(InstallError::Store)?;
    Ok(Installed::Staged(Outcome {
        slot: request.target,
        manifest,
        unsigned,
        report,
    }))
}

/// An image that the device takes, with its records as they were then.
struct Admitted {
    record: BootRecord,
    state: State,
    signed: SignedManifest,
    manifest: Manifest,
    unsigned: bool,
    layout: SlotLayout,
}

/// Fetches the manifest and decides on it. Nothing is written.
fn admit<F: Flash, B: BootControl, S: Store, R: Source>(
    held: Option<&[u8; 32]>,
    request: &Request<'_>,
    parts: &mut Parts<'_, F, B, S>,
    source: &mut R,
) -> Result<Admitted, InstallErrorOf<F, B, S, R>> {
    let record = parts.boot.load().map_err(InstallError::Boot)?;
    if is_on_trial(&record, request.running) {
        return Err(InstallError::NotConfirmedYet);
    }
    let signed = read_manifest(source)?;
    let state = parts.store.load().map_err(InstallError::Store)?.state;
    let adopted = adopted_keys(&record, Some(&state));
    let held = held == Some(signed.id().as_bytes());
    let verified = if held {
        verify_held(&signed, request.trust, adopted.as_ref())?
    } else {
        signed.verify_adopted(request.trust, adopted.as_ref())?
    };
    let manifest = verified.manifest.clone();
    let unsigned = matches!(verified.signed, Signed::Unsigned);
    let geometry = parts.flash.geometry();
    let layout = SlotLayout::new(&geometry)?;
    check_units(&geometry)?;
    let security_floor = record
        .component(request.component)
        .map_or(0, |component| component.security_floor);
    Acceptance::check(
        &manifest,
        &DeviceFacts {
            device_type: request.device_type,
            hardware: request.hardware,
            component: request.component,
            security_floor,
            slot_capacity: layout.data_len(),
            table_capacity: layout.table_len(),
            installed: request.installed,
        },
        request.downgrade,
    )?;
    check_file_len(request, &signed, &manifest)?;

    let rejection = state.rejection(signed.id().as_bytes());
    if let Some(rejection) = rejection.filter(|known| !held && known.holds_back(request.now)) {
        return Err(InstallError::Rejected(rejection.clone()));
    }
    Ok(Admitted {
        record,
        state,
        signed,
        manifest,
        unsigned,
        layout,
    })
}

impl Admitted {
    /// If the image is what runs: the serial is recorded, and what was to boot instead is dropped.
    fn keep_running<F: Flash, B: BootControl, S: Store, R: Source>(
        &mut self,
        request: &Request<'_>,
        parts: &mut Parts<'_, F, B, S>,
    ) -> Result<Option<Installed>, InstallErrorOf<F, B, S, R>> {
        let mut running = request.running.iter();
        let running = running.find(|(name, _)| *name == request.component);
        let Some((_, slot)) = running else {
            return Ok(None);
        };
        if request.running_manifest != Some(*self.signed.id().as_bytes()) {
            return Ok(None);
        }
        record_slot(
            request,
            &mut self.state,
            *slot,
            &self.signed,
            &self.manifest,
        );
        let (record, store) = (&mut self.record, &mut *parts.store);
        store.commit(&self.state).map_err(InstallError::Store)?;
        let component = record.component(request.component);
        if let Some(pending) = component.and_then(|component| component.chosen) {
            record.withdraw(request.component, pending)?;
            parts.boot.store(record).map_err(InstallError::Boot)?;
        } else if component.is_some_and(|component| component.unbootable.contains(*slot)) {
            // Another image was staged for the only slot.
            record.choose(request.component, *slot, request.attempts)?;
            parts.boot.store(record).map_err(InstallError::Boot)?;
        }
        Ok(Some(Installed::Running(self.manifest.clone())))
    }
}

fn record_slot(
    request: &Request<'_>,
    state: &mut State,
    slot: SlotId,
    signed: &SignedManifest,
    manifest: &Manifest,
) {
    state.record_slot(SlotRecord {
        component: String::from(request.component),
        slot,
        manifest: *signed.id().as_bytes(),
        serial: request.serial.map(<[u8]>::to_vec),
        build: manifest.build.clone(),
        date: request.now,
        door: request.door,
    });
}

fn check_file_len<F, B, S, R>(
    request: &Request<'_>,
    signed: &SignedManifest,
    manifest: &Manifest,
) -> Result<(), InstallError<F, B, S, R>> {
    let Some(found) = request.file_len else {
        return Ok(());
    };
    let manifest_len = u32::try_from(signed.bytes().len()).unwrap_or(u32::MAX);
    let expected = Layout::of(manifest_len, manifest).map_or(u64::MAX, |layout| layout.file_len);
    if found == expected {
        Ok(())
    } else {
        Err(InstallError::FileLength { found, expected })
    }
}

/// Fetches what lies before the table: the first page, and what is left of a manifest larger than
/// that.
pub(crate) fn read_manifest<F, B, S, R: Source>(
    source: &mut R,
) -> Result<SignedManifest, InstallError<F, B, S, R::Error>> {
    let mut head = vec![0; usize::try_from(PAGE_SIZE).unwrap_or(0)];
    source
        .open(0..as_u64(head.len()))
        .map_err(InstallError::Source)?;
    let got = read_full(source, &mut head)?;
    let header: &[u8; FileHeader::LEN] = head[..got]
        .first_chunk()
        .ok_or(InstallError::NoManifest(as_u64(got)))?;
    let len = usize::try_from(FileHeader::decode(header)?.manifest_len).unwrap_or(usize::MAX);
    if got < head.len() {
        return Err(InstallError::NoManifest(as_u64(got)));
    }
    let end = FileHeader::LEN.saturating_add(len);
    let start = head.len();
    let table = end.next_multiple_of(start);
    if table > start {
        head.resize(table, 0);
        source
            .open(as_u64(start)..as_u64(table))
            .map_err(InstallError::Source)?;
        let more = read_full(source, &mut head[start..])?;
        if start + more < table {
            return Err(InstallError::NoManifest(as_u64(start + more)));
        }
    }
    let padding = head[end..].iter().position(|byte| *byte != 0);
    if let Some(position) = padding {
        return Err(InstallError::Padding {
            offset: as_u64(end + position),
        });
    }
    Ok(SignedManifest::parse(&head[FileHeader::LEN..end])?)
}

fn read_full<F, B, S, R: Source>(
    source: &mut R,
    buf: &mut [u8],
) -> Result<usize, InstallError<F, B, S, R::Error>> {
    let mut filled = 0;
    while filled < buf.len() {
        match source
            .read(&mut buf[filled..])
            .map_err(InstallError::Source)?
        {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// What a slot's tail says it holds, complete; what is staged for later does not count.
///
/// # Errors
///
/// If the flash cannot be read.
pub fn held_manifest<F: Flash>(flash: &mut F) -> Result<Option<Held>, F::Error> {
    look_up(flash, SlotContent::whole)
}

/// What a slot is to become, as its tail says: the newest manifest in it, if that is not complete.
///
/// In a slot that boots this is what a cut left of an install; in one that was withdrawn for a
/// recovery environment it is what is staged.
///
/// # Errors
///
/// If the flash cannot be read.
pub fn staged_manifest<F: Flash>(flash: &mut F) -> Result<Option<Held>, F::Error> {
    look_up(flash, |content| {
        content.current().filter(|(_, held)| !held.complete)
    })
}

fn look_up<F: Flash>(
    flash: &mut F,
    choose: impl FnOnce(&SlotContent) -> Option<(usize, &HeldCopy)>,
) -> Result<Option<Held>, F::Error> {
    let Ok(layout) = SlotLayout::new(&flash.geometry()) else {
        return Ok(None);
    };
    let content = read_slot(flash, &layout)?;
    let Some((_, held)) = choose(&content) else {
        return Ok(None);
    };
    Ok(SignedManifest::parse(held.manifest.as_slice())
        .ok()
        .map(|signed| Held {
            id: *signed.id().as_bytes(),
            manifest: signed.unverified().clone(),
            signed,
        }))
}

/// A manifest found in a slot. Its signature was checked when it was installed, not now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Its id.
    pub id: [u8; 32],
    /// What it says.
    pub manifest: Manifest,
    /// The same with its signatures, to check them again.
    pub signed: SignedManifest,
}
