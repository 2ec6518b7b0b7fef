//! The start of an agent: does the trial run, has the device fallen back, and the commits that
//! follow from it.

use alloc::string::String;
use alloc::vec::Vec;

use rekindle_flash::{BootControl, BootRecord, BootRefused, SlotId};
use rekindle_state::{Evidence, Reason, Rejection, State, Store, UnixTime};

/// How what runs compares with what was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Nothing was chosen since the last confirm.
    Settled,
    /// Something was chosen and not started yet: a reset is required. A mere restart of the agent
    /// is no boot.
    Pending,
    /// What was chosen runs, and waits to be confirmed.
    OnTrial,
    /// Something else runs than was chosen, after at least one attempt.
    FellBack,
}

/// Compares what runs with what boot control chose.
///
/// Components that are not in `running` do not count: nobody knows what of them runs.
#[must_use]
pub fn standing(record: &BootRecord, running: &[(&str, SlotId)]) -> Standing {
    if !record.is_trial() {
        return Standing::Settled;
    }
    let mut known = running.iter().filter_map(|(name, slot)| {
        let chosen = record.component(name)?.chosen?;
        Some(chosen == *slot)
    });
    let matches = match known.next() {
        Some(first) => first && known.all(|same| same),
        // Nothing of the trial set can be seen running: the count of attempts tells.
        None => record.trial_started(),
    };
    match (matches, record.trial_started()) {
        (true, _) => Standing::OnTrial,
        (false, true) => Standing::FellBack,
        (false, false) => Standing::Pending,
    }
}

pub(crate) fn is_on_trial(record: &BootRecord, running: &[(&str, SlotId)]) -> bool {
    standing(record, running) == Standing::OnTrial
}

/// A component's slot and what it holds, as read from flash.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct SlotFacts<'a> {
    /// The component.
    pub component: &'a str,
    /// The slot.
    pub slot: SlotId,
    /// The manifest in it, if it could be read.
    pub manifest: Option<[u8; 32]>,
    /// The build it names, empty if it could not be read.
    pub build: &'a str,
    /// Its security version, 0 if it could not be read.
    pub security_version: u64,
}

/// Why the commits at the start could not be made. They are made again at the next start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError<B, S> {
    /// Boot control failed.
    #[error("boot control failed")]
    Boot(#[source] B),
    /// Boot control does not allow the step.
    #[error("boot control does not allow it")]
    BootRefused(#[from] BootRefused),
    /// The state store failed.
    #[error("the state store failed")]
    Store(#[source] S),
}

/// Confirms the trial, if what was chosen is what runs: first in boot control, then the security
/// floors rise, then the rejections of what proved itself are forgotten.
///
/// Raised before the confirm, a floor would outlaw the fallback. Without a trial this only makes up
/// for what a cut may have left undone: call it at every start. What runs without being the
/// confirmed choice, as after a failed health check until the device restarts, proves nothing.
///
/// # Errors
///
/// If boot control or the state store fails.
pub fn confirm<B: BootControl, S: Store>(
    boot: &mut B,
    store: &mut S,
    running: &[SlotFacts<'_>],
) -> Result<(), TrialError<B::Error, S::Error>> {
    let mut record = boot.load().map_err(TrialError::Boot)?;
    let slots: Vec<_> = running
        .iter()
        .map(|facts| (facts.component, facts.slot))
        .collect();
    if is_on_trial(&record, &slots) {
        record.confirm()?;
        boot.store(&record).map_err(TrialError::Boot)?;
    }
    let proven: Vec<_> = running
        .iter()
        .filter(|facts| {
            record
                .component(facts.component)
                .is_some_and(|component| component.confirmed == facts.slot)
        })
        .collect();
    raise_floors(boot, record, &proven)?;
    let mut state = store.load().map_err(TrialError::Store)?.state;
    let mut cleared = false;
    for manifest in proven.iter().filter_map(|facts| facts.manifest) {
        cleared |= state.clear_rejection(&manifest);
    }
    if cleared {
        store.commit(&state).map_err(TrialError::Store)?;
    }
    Ok(())
}

/// Raises the security floors to what runs and is confirmed.
fn raise_floors<B: BootControl, E>(
    boot: &mut B,
    mut record: BootRecord,
    proven: &[&SlotFacts<'_>],
) -> Result<(), TrialError<B::Error, E>> {
    let before = record.clone();
    for facts in proven {
        record.raise_floor(facts.component, facts.security_version)?;
    }
    if record == before {
        return Ok(());
    }
    boot.store(&record).map_err(TrialError::Boot)
}

/// Gives a trial up: evidence and rejection go to state first, then the choice is cleared, since
/// clearing it destroys what can be observed.
///
/// `chosen` says what the chosen slots hold, `running` what runs instead (or still, where a health
/// check failed). A cut between the two commits counts one try more than there was.
///
/// # Errors
///
/// If boot control or the state store fails.
pub fn give_up<B: BootControl, S: Store>(
    boot: &mut B,
    store: &mut S,
    chosen: &[SlotFacts<'_>],
    running: &[(&str, SlotId)],
    reason: Reason,
    now: Option<UnixTime>,
) -> Result<Vec<Evidence>, TrialError<B::Error, S::Error>> {
    let mut record = boot.load().map_err(TrialError::Boot)?;
    let mut state = store.load().map_err(TrialError::Store)?.state;
    let mut noted = Vec::new();
    for facts in chosen {
        let slot_now = running
            .iter()
            .find(|(name, _)| *name == facts.component)
            .map_or(facts.slot, |(_, slot)| *slot);
        let evidence = Evidence {
            component: String::from(facts.component),
            chosen: facts.slot,
            running: slot_now,
            manifest: facts.manifest,
            build: String::from(facts.build),
            reason,
            date: now,
            attempts: record.attempts() - record.attempts_left(),
            reported: false,
        };
        state.add_fallback(evidence.clone());
        noted.push(evidence);
        if let Some(manifest) = facts.manifest {
            reject(&mut state, facts, manifest, reason, now);
        }
    }
    store.commit(&state).map_err(TrialError::Store)?;
    record.revert();
    boot.store(&record).map_err(TrialError::Boot)?;
    Ok(noted)
}

fn reject(
    state: &mut State,
    facts: &SlotFacts<'_>,
    manifest: [u8; 32],
    reason: Reason,
    now: Option<UnixTime>,
) {
    let tries = state
        .rejection(&manifest)
        .map_or(0, |rejection| rejection.tries);
    let wait = if tries == 0 {
        FIRST_WAIT_SECS
    } else {
        SECOND_WAIT_SECS
    };
    state.reject(Rejection {
        manifest,
        component: String::from(facts.component),
        build: String::from(facts.build),
        reason,
        tries: 1,
        retry_after: now.map(|now| now.saturating_add(wait)),
        date: now,
    });
}

/// Before the second trial of an image that never reported: a power failure is over by then.
const FIRST_WAIT_SECS: u64 = 60 * 60;

/// Before the third and last trial.
const SECOND_WAIT_SECS: u64 = 6 * 60 * 60;
