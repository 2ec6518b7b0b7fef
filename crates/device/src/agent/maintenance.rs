//! Scrub and repair as commands, and what the agent does about damage that it finds by itself.

use core::fmt;

use rekindle_flash::SlotId;
use rekindle_update::{Findings, Progress};

use super::background::Scrubbed;
use super::board::{Board, slots};
use super::lock::UpdateLock;
use super::repair::{SlotRepair, repair_slot};
use super::scrub::{ScrubSummary, scrub_all};
use super::{Agent, AgentError, Shared};
use crate::config::{Config, RepairPolicy};
use crate::host::Host;

/// Reads all slots and compares them with their own manifests. Nothing is written and nothing locked.
///
/// `observe` hears component, slot, bytes compared and bytes in all.
///
/// # Errors
///
/// If the device is not as its configuration says. Damage is no error.
pub fn scrub_once(
    config: Config,
    observe: &mut dyn FnMut(&str, &str, u64, u64),
) -> Result<ScrubSummary, AgentError> {
    let board = Board::open(config)?;
    let mut watch = |component: &str, slot: SlotId, findings: &Findings| {
        let (done, total) = (findings.checked_bytes, findings.total);
        observe(component, &slot.to_string(), done, total);
    };
    Ok(scrub_all(&board, &mut watch)?)
}

/// What the repair of a device came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RepairSummary {
    /// Every slot of every component, in the order of the configuration.
    pub slots: Vec<RepairLine>,
}

/// What the repair of a slot came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairLine {
    /// The component.
    pub component: String,
    /// The slot's letter.
    pub slot: String,
    /// What was done, or why it could not be done.
    pub text: String,
    /// It was not done.
    pub failed: bool,
    /// The answer is no; otherwise the same may succeed later.
    pub refused: bool,
}

impl RepairSummary {
    /// Whether every slot is whole now, as far as it ever held anything.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.slots.iter().all(|line| !line.failed)
    }

    /// Whether all that failed was refused.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let mut failed = self.slots.iter().filter(|line| line.failed);
        failed.all(|line| line.refused)
    }
}

impl fmt::Display for RepairSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.slots.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            let failed = if line.failed { "not repaired: " } else { "" };
            write!(f, "{} {}: {failed}{}", line.component, line.slot, line.text)?;
        }
        Ok(())
    }
}

/// Repairs every slot that is damaged, from `image` (a file or http(s) URL), or from where its image
/// came from.
///
/// `observe` hears component, slot, bytes in place and bytes in all.
///
/// # Errors
///
/// If an update is under way, or the device is not as its configuration says. What cannot be repaired
/// stands in the summary.
pub async fn repair_once(
    config: Config,
    image: Option<&str>,
    observe: impl FnMut(&str, &str, u64, u64) + Clone + Send + 'static,
) -> Result<RepairSummary, AgentError> {
    let _lock = UpdateLock::take(&config.state_dir)?;
    let shared = Shared::open(config)?;
    let mut summary = RepairSummary::default();
    for component in &shared.board.config.components {
        for slot in slots(component) {
            let name = component.name.clone();
            let letter = slot.to_string();
            let mut observe = observe.clone();
            let watch = {
                let (name, letter) = (name.clone(), letter.clone());
                move |progress: Progress| observe(&name, &letter, progress.done, progress.total)
            };
            let place = (component, slot);
            let now = shared.clock.known();
            let repaired =
                repair_slot(&shared.board, &shared.client, place, image, now, watch).await;
            summary.slots.push(match repaired {
                Ok(repaired) => RepairLine {
                    component: name,
                    slot: letter,
                    text: repaired.text().to_owned(),
                    failed: false,
                    refused: false,
                },
                Err(error) => RepairLine {
                    component: name,
                    slot: letter,
                    text: error.to_string(),
                    failed: true,
                    refused: error.is_refusal(),
                },
            });
        }
    }
    Ok(summary)
}

impl<H: Host> Agent<H> {
    /// Shows what the background scrub found, and repairs it if the configuration says so.
    pub(super) async fn heed(&self, found: Scrubbed) {
        self.refresh_status();
        if !found.damaged {
            return;
        }
        let Scrubbed {
            component, slot, ..
        } = &found;
        let what = format!("{component} slot {slot}: {}", found.text);
        if self.shared.board.config.scrub.repair == RepairPolicy::Report {
            self.notice(format!("{what}; rekindled repair brings it back"));
            return;
        }
        self.notice(what);
        let text = match self.repair(component, *slot).await {
            Ok(SlotRepair::Fine(text)) => text,
            Ok(repaired @ (SlotRepair::Done(_) | SlotRepair::Moved(_))) => {
                let text = repaired.text();
                tracing::info!(component, %slot, text, "repaired");
                self.shared
                    .board
                    .scrubs
                    .note_repaired(component, *slot, text);
                self.refresh_status();
                return;
            }
            Err(error) => format!("not repaired: {error}"),
        };
        self.notice(format!("{component} slot {slot}: {text}"));
        self.refresh_status();
    }

    async fn repair(
        &self,
        component: &str,
        slot: SlotId,
    ) -> Result<SlotRepair, Box<dyn core::error::Error>> {
        let shared = &self.shared;
        let _lock = UpdateLock::take(&shared.board.config.state_dir)?;
        let Some(component) = shared.board.config.component(component) else {
            return Ok(SlotRepair::Fine("no such component".to_owned()));
        };
        let place = (component, slot);
        let now = shared.clock.known();
        let watch = |_progress: Progress| {};
        Ok(repair_slot(&shared.board, &shared.client, place, None, now, watch).await?)
    }
}
