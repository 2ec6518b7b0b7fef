//! What slots hold against what their own manifests say.

use core::fmt;
use core::ops::ControlFlow;

use rekindle_flash::{BootRecord, CopyError, SlotId};
use rekindle_state::State;
use rekindle_update::{Findings, HeldImage, ScrubError, Tail, inspect, scrub};
use serde::Serialize;

use super::board::{Board, BoardError, slot_path, slots};
use super::chain;
use super::origins::hex;
use super::slot_flash::SlotFlash;
use crate::config::ComponentConfig;

/// What a scrub says of all slots of a device, as `rekindled scrub --format json` prints it. Fields
/// may be added; none changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScrubSummary {
    /// How many slots are damaged.
    pub damaged: usize,
    /// How many could not be read.
    pub unreadable: usize,
    /// Every slot of every component, in the order of the configuration.
    pub slots: Vec<SlotScrub>,
}

/// What a scrub says of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotScrub {
    /// The component.
    pub component: String,
    /// The slot's letter.
    pub slot: String,
    /// What became of it, in a word.
    pub condition: SlotCondition,
    /// The same in plain words, and what to do.
    pub text: String,
    /// The build that its manifest names; `null` if no manifest can be believed.
    pub build: Option<String>,
    /// The id of that manifest, in hexadecimal.
    pub manifest: Option<String>,
    /// Bytes of the image.
    pub bytes: u64,
    /// Chunks that were compared.
    pub chunks: u32,
    /// Chunks that are not what they should be, or cannot be read.
    pub damaged_chunks: u32,
    /// Bytes of these.
    pub damaged_bytes: u64,
    /// Chunks of which nothing is known, since their page of the chunk table is damaged.
    pub unchecked_chunks: u32,
    /// Damaged pages of the chunk table.
    pub damaged_pages: u32,
    /// Where damaged chunks lie: the first 64 runs.
    pub damage: Vec<DamageRange>,
}

/// Damaged chunks, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DamageRange {
    /// The first chunk's number.
    pub chunk: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Where they begin, in bytes from the start of the slot.
    pub offset: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// What a slot is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SlotCondition {
    /// As its manifest says.
    Whole,
    /// Not as its manifest says, or without one that can be believed.
    Damaged,
    /// It never held anything.
    Empty,
    /// It holds something that was not brought there as an image, and nothing says what.
    Unknown,
    /// An install into it was begun and has not ended; nothing boots it.
    Unfinished,
    /// It cannot be read at all.
    Unreadable,
}

impl fmt::Display for ScrubSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, slot) in self.slots.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{} {}: {}", slot.component, slot.slot, slot.text)?;
            for range in &slot.damage {
                write!(
                    f,
                    "\n  chunk {}, byte {} of the slot: {} bytes",
                    Span(range.chunk, range.chunks),
                    range.offset,
                    range.bytes
                )?;
            }
        }
        Ok(())
    }
}

impl ScrubSummary {
    /// The summary as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

struct Span(u32, u32);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            1 => write!(f, "{}", self.0),
            count => write!(f, "{} to {}", self.0, self.0 + count - 1),
        }
    }
}

/// A slot in the eyes of boot control and state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// It runs, or the device falls back to it, or nothing keeps it from being booted.
    boots: bool,
    /// The state has a record of what was brought there.
    recorded: bool,
}

impl Standing {
    pub(crate) fn of(
        board: &Board,
        record: &BootRecord,
        state: &State,
        component: &str,
        slot: SlotId,
    ) -> Self {
        let boot = record.component(component);
        let runs = board.running.slot(component) == Some(slot);
        Self {
            // A slot that runs and was withdrawn waits for its recovery environment.
            boots: boot.map_or(runs, |boot| !boot.unbootable.contains(slot)),
            recorded: state.slot(component, slot).is_some(),
        }
    }
}

impl SlotScrub {
    /// A slot of which nothing is known yet.
    fn of(component: &str, slot: SlotId) -> Self {
        Self {
            component: component.to_owned(),
            slot: slot.to_string(),
            condition: SlotCondition::Empty,
            text: "empty".to_owned(),
            build: None,
            manifest: None,
            bytes: 0,
            chunks: 0,
            damaged_chunks: 0,
            damaged_bytes: 0,
            unchecked_chunks: 0,
            damaged_pages: 0,
            damage: Vec::new(),
        }
    }

    /// A slot with nothing in it: of which the state may know better.
    fn absent(component: &str, slot: SlotId, standing: Standing) -> Self {
        let this = Self::of(component, slot);
        if standing.boots && standing.recorded {
            let text = "damaged: what was installed there is gone";
            return this.with(SlotCondition::Damaged, text);
        }
        this
    }

    fn with(self, condition: SlotCondition, text: impl Into<String>) -> Self {
        Self {
            condition,
            text: text.into(),
            ..self
        }
    }

    fn naming(self, held: &HeldImage) -> Self {
        let manifest = held.signed.unverified();
        Self {
            build: Some(manifest.build.clone()),
            manifest: Some(hex(&held.id())),
            bytes: manifest.size,
            ..self
        }
    }

    /// Judges a slot by its tail alone; `None`: it holds an image that is to be compared.
    pub(crate) fn by_tail(
        component: &str,
        slot: SlotId,
        tail: &Tail,
        standing: Standing,
    ) -> Option<Self> {
        use SlotCondition::{Damaged, Unfinished, Unknown};
        let this = Self::of(component, slot);
        Some(match tail {
            Tail::Empty => return Some(Self::absent(component, slot, standing)),
            Tail::Unusable(CopyError::NotACopy) if !standing.recorded => this.with(
                Unknown,
                "it holds something that no manifest describes, and no image was installed there",
            ),
            Tail::Unusable(error) => this.with(
                Damaged,
                format!("damaged: nothing says any more what it holds ({error})"),
            ),
            Tail::NotAuthentic(error) => this.with(Damaged, format!("damaged: {}", chain(error))),
            Tail::Held(held) if !held.complete && !standing.boots => {
                let build = &held.signed.unverified().build;
                let text = format!("unfinished: build {build} is not all there, and does not boot");
                this.naming(held).with(Unfinished, text)
            }
            Tail::Held(_) => return None,
            other => this.with(Damaged, format!("damaged: {other:?}")),
        })
    }

    /// Judges a slot that was compared with its manifest.
    pub(crate) fn compared(
        component: &str,
        slot: SlotId,
        held: &HeldImage,
        findings: &Findings,
    ) -> Self {
        let mut this = Self {
            chunks: findings.checked_chunks,
            damaged_chunks: findings.damaged_chunks,
            damaged_bytes: findings.damaged_bytes,
            unchecked_chunks: findings.unchecked_chunks,
            damaged_pages: findings.damaged_pages,
            ..Self::of(component, slot)
        }
        .naming(held);
        this.damage = findings
            .ranges
            .iter()
            .map(|range| DamageRange {
                chunk: range.chunk,
                chunks: range.chunks,
                offset: range.offset,
                bytes: range.len,
            })
            .collect();
        let build = &held.signed.unverified().build;
        let mut wrong = Vec::new();
        if findings.damaged_chunks > 0 {
            wrong.push(format!(
                "{} of {} chunks ({} bytes) are not what they should be",
                findings.damaged_chunks, findings.checked_chunks, findings.damaged_bytes
            ));
        }
        if findings.damaged_pages > 0 || findings.unchecked_chunks > 0 {
            wrong.push(format!(
                "{} pages of its chunk table are, so that {} chunks cannot be compared",
                findings.damaged_pages, findings.unchecked_chunks
            ));
        }
        if !held.complete {
            wrong.push("its completion mark is missing".to_owned());
        }
        if wrong.is_empty() {
            let text = format!("whole: build {build}, {} chunks", findings.checked_chunks);
            return this.with(SlotCondition::Whole, text);
        }
        let text = format!("damaged: build {build}: {}", wrong.join("; "));
        this.with(SlotCondition::Damaged, text)
    }
}

/// Scrubs all slots. `observe` hears of each piece, with its component and slot.
pub(crate) fn scrub_all(
    board: &Board,
    observe: &mut dyn FnMut(&str, SlotId, &Findings),
) -> Result<ScrubSummary, BoardError> {
    let record = board.boot_record()?;
    let state = board.state()?;
    let mut summary = ScrubSummary::default();
    for component in &board.config.components {
        for slot in slots(component) {
            let standing = Standing::of(board, &record, &state, &component.name, slot);
            let scrubbed = scrub_slot(board, component, slot, standing, observe);
            summary.damaged += usize::from(scrubbed.condition == SlotCondition::Damaged);
            summary.unreadable += usize::from(scrubbed.condition == SlotCondition::Unreadable);
            summary.slots.push(scrubbed);
        }
    }
    Ok(summary)
}

fn scrub_slot(
    board: &Board,
    component: &ComponentConfig,
    slot: SlotId,
    standing: Standing,
    observe: &mut dyn FnMut(&str, SlotId, &Findings),
) -> SlotScrub {
    let name = component.name.as_str();
    let path = slot_path(component, slot);
    if !path.exists() {
        return SlotScrub::absent(name, slot, standing);
    }
    let unreadable = |error: &dyn core::error::Error| {
        let text = format!("{}: {}", path.display(), chain(error));
        SlotScrub::of(name, slot).with(SlotCondition::Unreadable, text)
    };
    let mut flash = match SlotFlash::open_read_only(path) {
        Ok(flash) => flash,
        Err(error) => return unreadable(&error),
    };
    let adopted = board.adopted_keys();
    let adopted = adopted.as_ref();
    for _ in 0..ATTEMPTS {
        let tail = match inspect(&mut flash, &board.trust, adopted) {
            Ok(tail) => tail,
            Err(ScrubError::Slot(_)) => return SlotScrub::absent(name, slot, standing),
            Err(error) => return unreadable(&error),
        };
        if let Some(judged) = SlotScrub::by_tail(name, slot, &tail, standing) {
            return judged;
        }
        let report = scrub(&mut flash, &board.trust, adopted, &mut |findings| {
            observe(name, slot, findings);
            ControlFlow::Continue(())
        });
        let report = match report {
            Ok(report) => report,
            Err(error) => return unreadable(&error),
        };
        // An install or a repair meanwhile: what was read is of two images.
        if !is_same(&tail, &report.tail)
            || inspect(&mut flash, &board.trust, adopted).is_ok_and(|now| !is_same(&tail, &now))
        {
            continue;
        }
        if let Tail::Held(held) = &report.tail {
            return SlotScrub::compared(name, slot, held, &report.findings);
        }
    }
    SlotScrub::of(name, slot).with(
        SlotCondition::Unfinished,
        "it changed while it was read: an update is under way",
    )
}

/// Whether two looks saw the same description.
pub(crate) fn is_same(one: &Tail, other: &Tail) -> bool {
    match (one, other) {
        (Tail::Held(one), Tail::Held(other)) => {
            (one.sequence, one.id(), one.complete) == (other.sequence, other.id(), other.complete)
        }
        _ => false,
    }
}

/// Looks at a slot that changes meanwhile.
const ATTEMPTS: u32 = 2;
