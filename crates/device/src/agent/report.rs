//! The status as boot control, state and slots have it at this moment.

use rekindle_flash::{BootRecord, SlotId};
use rekindle_image::Unsigned;
use rekindle_state::{Evidence, Rejection, State};
use rekindle_update::run::{LineOutcome, Outcome, ResetOutcome, Summary};

use super::board::{Board, BoardError, component_slots};
use super::device_boot::DeviceBoot;
use crate::config::{ComponentConfig, InPlace};
use crate::status::{
    ComponentStatus, DeviceStatus, LineResult, LineStatus, Notice, RejectionStatus, SlotStatus,
    Status, TrialStatus,
};

/// What never changes while the agent runs.
pub(crate) fn initial(board: &Board) -> Status {
    let device = &board.config.device;
    let mut status = Status {
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        device: DeviceStatus {
            device_type: device.device_type.clone(),
            hardware_id: device.hardware_id.clone(),
            mac: device.mac.clone(),
            hardware: device.hardware.clone(),
        },
        ..Status::default()
    };
    if board.config.trust.unsigned == Unsigned::Accept {
        tracing::warn!("{UNSIGNED}");
        status.warnings.push(UNSIGNED.to_owned());
    }
    let components = board.config.components.iter();
    status.warnings.extend(
        components
            .filter(|component| component.slots.len() == 1 && component.in_place == InPlace::Unsafe)
            .map(|component| format!("component {} {IN_PLACE}", component.name)),
    );
    status
        .warnings
        .extend(DeviceBoot::warning(&board.config.boot).map(str::to_owned));
    status.poll.url = board
        .config
        .update
        .url
        .as_deref()
        .map(crate::status::shown_url);
    status
}

/// Reads everything anew that an install, a confirm or a fallback changes.
pub(crate) fn refresh(board: &Board, status: &mut Status) -> Result<(), BoardError> {
    let record = board.boot_record()?;
    let state = board.state()?;
    let components = board.config.components.iter();
    status.components = components
        .map(|component| component_status(board, &record, &state, component))
        .collect();
    status.trial = record.is_trial().then(|| TrialStatus {
        running: board
            .chosen_views(&record)
            .iter()
            .any(|(component, slot, _)| board.running.slot(&component.name) == Some(*slot)),
        attempts: record.attempts(),
        attempts_left: record.attempts_left(),
    });
    status.reset_required = is_reset_required(board, &record);
    status.rejections = state.rejections.iter().map(rejection_status).collect();
    status.rolled_back = last_fallback(&state);
    Ok(())
}

/// What was given up last: of a trial of several components every one.
fn last_fallback(state: &State) -> Option<Notice> {
    let last = state.fallbacks.last()?;
    let mut together: Vec<&Evidence> = Vec::new();
    for evidence in state.fallbacks.iter().rev() {
        let same_trial = (evidence.reason, evidence.date, evidence.attempts)
            == (last.reason, last.date, last.attempts)
            && together
                .iter()
                .all(|known| known.component != evidence.component);
        if !same_trial {
            break;
        }
        together.insert(0, evidence);
    }
    let texts: Vec<String> = together.into_iter().map(given_up).collect();
    Some(Notice {
        time: last.date.map_or(0, rekindle_state::UnixTime::as_secs),
        text: texts.join("; "),
    })
}

fn given_up(evidence: &Evidence) -> String {
    format!(
        "{} build {} in slot {} was given up: {}{}; slot {} runs",
        evidence.component,
        if evidence.build.is_empty() {
            "unknown"
        } else {
            &evidence.build
        },
        evidence.chosen,
        evidence.reason,
        match evidence.attempts {
            0 => String::new(),
            1 => " (started once)".to_owned(),
            times => format!(" (started {times} times)"),
        },
        evidence.running,
    )
}

/// What boots next differs from what runs.
pub(crate) fn is_reset_required(board: &Board, record: &BootRecord) -> bool {
    board
        .running
        .iter()
        .any(|(name, slot)| record.component(name).is_some() && record.next(name) != Some(slot))
}

fn component_status(
    board: &Board,
    record: &BootRecord,
    state: &State,
    component: &ComponentConfig,
) -> ComponentStatus {
    let name = component.name.as_str();
    let boot = record.component(name);
    let running = board.running.slot(name);
    let next = record.next(name);
    let following = Board::next_view(component, record);
    let count = component_slots(&board.config)
        .into_iter()
        .find(|(known, _)| *known == name)
        .map_or(0, |(_, count)| count);
    let mut status = ComponentStatus {
        name: name.to_owned(),
        running: running.map(|slot| slot.to_string()),
        next: next.map(|slot| slot.to_string()),
        confirmed: boot.map(|boot| boot.confirmed.to_string()),
        security_floor: boot.map_or(0, |boot| boot.security_floor),
        ..ComponentStatus::default()
    };
    for slot in (0..count).filter_map(SlotId::new) {
        let view = Board::view(component, slot);
        let build = view.held.as_ref().map(|held| held.manifest.build.clone());
        if Some(slot) == running {
            status.build.clone_from(&build);
        }
        if let Some((_, view)) = following.as_ref().filter(|(next, _)| *next == slot) {
            status.next_build = view.held.as_ref().map(|held| held.manifest.build.clone());
            status.serial = view
                .manifest()
                .and_then(|id| state.slot_serial(name, slot, &id))
                .map(|serial| String::from_utf8_lossy(serial).into_owned());
        }
        status.slots.push(SlotStatus {
            slot: slot.to_string(),
            complete: build.is_some(),
            build,
            bootable: boot.is_some_and(|boot| !boot.unbootable.contains(slot)),
            scrub: board.scrubs.last(name, slot),
        });
    }
    status
}

fn rejection_status(rejection: &Rejection) -> RejectionStatus {
    RejectionStatus {
        component: rejection.component.clone(),
        build: rejection.build.clone(),
        manifest: rejection
            .manifest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        reason: rejection.reason.to_string(),
        tries: rejection.tries,
        retry_after: rejection
            .retry_after
            .filter(|_| !rejection.is_final())
            .map(rekindle_state::UnixTime::as_secs),
        date: rejection.date.map(rekindle_state::UnixTime::as_secs),
    }
}

/// The lines of a run as the status shows them.
pub(crate) fn lines(summary: &Summary) -> Vec<LineStatus> {
    summary.lines.iter().map(line).collect()
}

fn line(line: &LineOutcome) -> LineStatus {
    let result = if line.has_failed() {
        LineResult::Failed
    } else {
        match &line.outcome {
            Outcome::Installed
            | Outcome::RunsAlready
            | Outcome::Uploaded
            | Outcome::Done
            | Outcome::CheckDiffers
            | Outcome::InTime
            | Outcome::Noted
            | Outcome::Reset(ResetOutcome::Started | ResetOutcome::Pending) => LineResult::Done,
            _ => LineResult::Skipped,
        }
    };
    let mut detail = match &line.outcome {
        Outcome::Failed(failure) => failure.to_string(),
        outcome => outcome.to_string(),
    };
    if let Some(reset) = &line.final_command {
        detail.push_str("; then ");
        detail.push_str(&reset.to_string());
    }
    LineStatus::new(line.number, line.verb, result, &detail)
}

const IN_PLACE: &str = "has one copy that is overwritten in place (in-place = \"unsafe\"): a power cut while it is \
     written may leave the device dead";

const UNSIGNED: &str = "images without a signature are accepted ([trust] unsigned = \"accept\"): whoever reaches this \
     device decides what it runs";
