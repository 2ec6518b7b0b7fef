//! The background scrub: a thread of its own, with the lowest I/O priority, that reads one slot after
//! the other at a pace, pauses while an update is under way, and goes on where it was after a
//! restart of the agent.

use alloc::sync::Arc;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};

use rekindle_flash::{SlotId, idle_io_priority};
use rekindle_update::{Findings, Scrub, ScrubStep, Tail, inspect};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::board::{Board, slot_path, slots};
use super::lock::is_update_under_way;
use super::origins::{hex, read_json, write_json};
use super::scrub::{SlotCondition, SlotScrub, Standing, is_same};
use super::slot_flash::SlotFlash;
use crate::clock::Clock;
use crate::config::ComponentConfig;
use crate::status::ScrubStatus;

/// What the scrubs of this device came to, kept in a file beside the state. Losing it costs a scrub.
#[derive(Debug)]
pub(crate) struct ScrubBook {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Entry {
    component: String,
    slot: String,
    /// The last scrub that came to an end.
    last: Option<ScrubStatus>,
    /// How far the one under way is.
    under_way: Option<UnderWay>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct UnderWay {
    /// The manifest, in hexadecimal, and the number of its description: those of another image say
    /// that this scrub is over.
    manifest: String,
    sequence: u64,
    next_chunk: u32,
    checked_chunks: u32,
    checked_bytes: u64,
    damaged_chunks: u32,
    damaged_bytes: u64,
    unchecked_chunks: u32,
    seconds: u64,
}

impl ScrubBook {
    pub(crate) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("scrub.json");
        Self {
            entries: Mutex::new(read_json(&path)),
            path,
        }
    }

    /// The last scrub of a slot.
    pub(crate) fn last(&self, component: &str, slot: SlotId) -> Option<ScrubStatus> {
        self.with(component, slot, |entry| entry.last.clone())
    }

    /// A slot was found damaged and is whole again.
    pub(crate) fn note_repaired(&self, component: &str, slot: SlotId, text: &str) {
        self.with(component, slot, |entry| {
            if let Some(last) = &mut entry.last {
                "repaired".clone_into(&mut last.result);
                text.clone_into(&mut last.text);
            }
        });
        self.save();
    }

    fn note(&self, component: &str, slot: SlotId, last: ScrubStatus) {
        self.with(component, slot, |entry| {
            entry.last = Some(last);
            entry.under_way = None;
        });
        self.save();
    }

    fn note_progress(&self, component: &str, slot: SlotId, under_way: UnderWay) {
        self.with(component, slot, |entry| entry.under_way = Some(under_way));
        self.save();
    }

    fn under_way(&self, component: &str, slot: SlotId) -> Option<UnderWay> {
        self.with(component, slot, |entry| entry.under_way.clone())
    }

    fn with<T>(&self, component: &str, slot: SlotId, work: impl FnOnce(&mut Entry) -> T) -> T {
        let slot = slot.to_string();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries
            .iter()
            .position(|entry| entry.component == component && entry.slot == slot);
        let index = known.unwrap_or_else(|| {
            entries.push(Entry {
                component: component.to_owned(),
                slot,
                ..Entry::default()
            });
            entries.len() - 1
        });
        work(&mut entries[index])
    }

    fn save(&self) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_json(&self.path, &*entries) {
            tracing::warn!(path = %self.path.display(), %error, "the scrub's notes are not kept");
        }
    }
}

/// A slot that the background scrub has read to its end.
#[derive(Debug)]
pub(crate) struct Scrubbed {
    pub(crate) component: String,
    pub(crate) slot: SlotId,
    pub(crate) damaged: bool,
    pub(crate) text: String,
}

/// The thread; it ends when this is dropped, after the piece that it reads.
#[derive(Debug)]
pub(crate) struct Background {
    _stop: Sender<()>,
}

impl Background {
    /// Starts the thread, unless the configuration says `every = "off"`.
    pub(crate) fn start(
        board: &Arc<Board>,
        clock: &Clock,
        found: UnboundedSender<Scrubbed>,
    ) -> Option<Self> {
        let every = board.config.scrub.every?;
        let (sender, stop) = channel();
        let scrubber = Scrubber {
            board: Arc::clone(board),
            clock: clock.clone(),
            every,
            stop,
            found,
        };
        let thread = std::thread::Builder::new()
            .name("scrub".to_owned())
            .stack_size(STACK)
            .spawn(move || scrubber.run());
        match thread {
            Ok(_detached) => Some(Self { _stop: sender }),
            Err(error) => {
                tracing::error!(%error, "there is no background scrub");
                None
            }
        }
    }
}

/// The agent is stopping.
#[derive(Debug)]
struct Stopped;

/// Why a slot was not read to its end.
#[derive(Debug)]
enum Ended {
    Stopped,
    /// Why, in plain words.
    Unreadable(String),
}

impl From<Stopped> for Ended {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

fn unreadable(error: impl core::error::Error) -> Ended {
    Ended::Unreadable(super::chain(&error))
}

#[derive(Debug)]
struct Scrubber {
    board: Arc<Board>,
    clock: Clock,
    every: Duration,
    stop: Receiver<()>,
    found: UnboundedSender<Scrubbed>,
}

impl Scrubber {
    fn run(self) {
        if let Err(error) = idle_io_priority() {
            tracing::warn!(%error, "the scrub reads with the priority of everything else");
        }
        // The agent has ended, and nobody waits for more.
        let Stopped = self.work();
    }

    fn work(&self) -> Stopped {
        // A device that has just started has better things to do.
        let mut pause = self.every.min(FIRST_PAUSE);
        let mut is_first = true;
        loop {
            if let Err(stopped) = self.wait(pause) {
                return stopped;
            }
            for component in &self.board.config.components {
                for slot in slots(component) {
                    let was_left = is_first && self.was_left(component, slot);
                    if (was_left || self.is_due(&component.name, slot))
                        && let Err(stopped) = self.scrub(component, slot)
                    {
                        return stopped;
                    }
                }
            }
            is_first = false;
            pause = self.every.min(LOOK_PAUSE);
        }
    }

    fn wait(&self, time: Duration) -> Result<(), Stopped> {
        match self.stop.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    /// Whether a slot was damaged when the device went down, or its repair was cut off.
    fn was_left(&self, component: &ComponentConfig, slot: SlotId) -> bool {
        let name = component.name.as_str();
        self.board.scrubs.last(name, slot).is_some_and(|last| {
            let runs = self.board.running.slot(name) == Some(slot);
            last.result == "damaged"
                || runs && last.chunks > 0 && Board::view(component, slot).held.is_none()
        })
    }

    /// Whether the last scrub is long enough ago; damage is looked at again sooner.
    fn is_due(&self, component: &str, slot: SlotId) -> bool {
        let Some(last) = self.board.scrubs.last(component, slot) else {
            return true;
        };
        let every = if last.result == "damaged" {
            self.every.min(DAMAGE_PAUSE)
        } else {
            self.every
        };
        let age = self.clock.now().as_secs().checked_sub(last.time);
        // A clock that went back says nothing.
        age.is_none_or(|age| age >= every.as_secs())
    }

    /// Reads one slot to its end, unless it cannot be read now.
    fn scrub(&self, component: &ComponentConfig, slot: SlotId) -> Result<(), Stopped> {
        let name = component.name.as_str();
        let board = &*self.board;
        let path = slot_path(component, slot);
        let standing = match (board.boot_record(), board.state()) {
            (Ok(record), Ok(state)) => Standing::of(board, &record, &state, name, slot),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "no scrub without boot control and state");
                return Ok(());
            }
        };
        if !path.exists() {
            return Ok(());
        }
        let result = SlotFlash::open_read_only(path)
            .map_err(unreadable)
            .and_then(|mut flash| self.scrub_flash(&mut flash, name, slot, standing));
        match result {
            Ok(Some((scrubbed, seconds))) => self.report(name, slot, &scrubbed, seconds),
            // It changed meanwhile: it is looked at again.
            Ok(None) => {}
            Err(Ended::Stopped) => return Err(Stopped),
            Err(Ended::Unreadable(error)) => {
                tracing::warn!(component = name, %slot, error, "a slot cannot be scrubbed");
                board.scrubs.note(
                    name,
                    slot,
                    ScrubStatus {
                        time: self.clock.now().as_secs(),
                        result: "unreadable".to_owned(),
                        text: error,
                        ..ScrubStatus::default()
                    },
                );
            }
        }
        Ok(())
    }

    fn report(&self, component: &str, slot: SlotId, scrubbed: &SlotScrub, seconds: u64) {
        let damaged = scrubbed.condition == SlotCondition::Damaged;
        let text = scrubbed.text.as_str();
        if damaged {
            tracing::error!(component, %slot, text, damage = ?scrubbed.damage, "scrubbed");
        } else {
            tracing::info!(component, %slot, text, seconds, "scrubbed");
        }
        let result = match scrubbed.condition {
            SlotCondition::Whole => "whole",
            SlotCondition::Damaged => "damaged",
            SlotCondition::Empty => "empty",
            SlotCondition::Unknown => "unknown",
            SlotCondition::Unfinished => "unfinished",
            SlotCondition::Unreadable => "unreadable",
        };
        self.board.scrubs.note(
            component,
            slot,
            ScrubStatus {
                time: self.clock.now().as_secs(),
                seconds,
                result: result.to_owned(),
                text: text.to_owned(),
                chunks: scrubbed.chunks,
                damaged_chunks: scrubbed.damaged_chunks,
                damaged_bytes: scrubbed.damaged_bytes,
            },
        );
        // The agent may be stopping; then the notes say it at the next start.
        let _: Result<(), _> = self.found.send(Scrubbed {
            component: component.to_owned(),
            slot,
            damaged,
            text: text.to_owned(),
        });
    }

    /// What a slot holds, and how long it took to read; `None`: it changed meanwhile.
    fn scrub_flash(
        &self,
        flash: &mut SlotFlash,
        name: &str,
        slot: SlotId,
        standing: Standing,
    ) -> Result<Option<(SlotScrub, u64)>, Ended> {
        let look = |flash: &mut SlotFlash| {
            inspect(flash, &self.board.trust, self.board.adopted_keys().as_ref())
                .map_err(unreadable)
        };
        let tail = look(flash)?;
        if let Some(judged) = SlotScrub::by_tail(name, slot, &tail, standing) {
            return Ok(Some((judged, 0)));
        }
        let Tail::Held(held) = &tail else {
            return Ok(None);
        };
        let manifest = hex(&held.id());
        let begun = self
            .board
            .scrubs
            .under_way(name, slot)
            .filter(|begun| begun.manifest == manifest && begun.sequence == held.sequence)
            .unwrap_or_default();
        let mut seconds = begun.seconds;
        let mut scrub = Scrub::resume(held, begun.next_chunk, begun.findings());
        let mut noted = begun.checked_bytes;
        let mut millis = 0;
        let mut waited = Duration::ZERO;
        loop {
            let mut paused = false;
            while waited < UPDATE_TIME && is_update_under_way(&self.board.config.state_dir) {
                self.wait(UPDATE_PAUSE)?;
                waited += UPDATE_PAUSE;
                paused = true;
            }
            if paused && !is_same(&tail, &look(flash)?) {
                return Ok(None);
            }
            let ScrubStep::Read(read) = scrub.step(flash).map_err(unreadable)? else {
                break;
            };
            let pause = read.saturating_mul(1000) / self.board.config.scrub.pace;
            millis += pause;
            seconds += millis / 1000;
            millis %= 1000;
            if let Err(stopped) = self.wait(Duration::from_millis(pause)) {
                let under_way = UnderWay::of(held, &scrub, seconds);
                self.board.scrubs.note_progress(name, slot, under_way);
                return Err(stopped.into());
            }
            let checked = scrub.findings().checked_bytes;
            if checked >= noted + NOTE_BYTES {
                noted = checked;
                let under_way = UnderWay::of(held, &scrub, seconds);
                self.board.scrubs.note_progress(name, slot, under_way);
            }
        }
        if !is_same(&tail, &look(flash)?) {
            return Ok(None);
        }
        let findings = scrub.into_findings();
        let judged = SlotScrub::compared(name, slot, held, &findings);
        Ok(Some((judged, seconds)))
    }
}

impl UnderWay {
    fn of(held: &rekindle_update::HeldImage, scrub: &Scrub, seconds: u64) -> Self {
        let findings = scrub.findings();
        Self {
            manifest: hex(&held.id()),
            sequence: held.sequence,
            next_chunk: scrub.next_chunk(),
            checked_chunks: findings.checked_chunks,
            checked_bytes: findings.checked_bytes,
            damaged_chunks: findings.damaged_chunks,
            damaged_bytes: findings.damaged_bytes,
            unchecked_chunks: findings.unchecked_chunks,
            seconds,
        }
    }

    fn findings(&self) -> Findings {
        Findings {
            checked_chunks: self.checked_chunks,
            checked_bytes: self.checked_bytes,
            damaged_chunks: self.damaged_chunks,
            damaged_bytes: self.damaged_bytes,
            unchecked_chunks: self.unchecked_chunks,
            ..Findings::default()
        }
    }
}

/// After the start of the agent.
const FIRST_PAUSE: Duration = Duration::from_secs(120);

/// Between two looks whether a slot is due.
const LOOK_PAUSE: Duration = Duration::from_secs(600);

/// Before a slot that is damaged is read again, and its repair tried again.
const DAMAGE_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// Between two looks whether an update has ended.
const UPDATE_PAUSE: Duration = Duration::from_secs(1);

/// So long a scrub of one slot waits for updates in all; a lock that is held longer hangs.
const UPDATE_TIME: Duration = Duration::from_secs(6 * 3600);

/// Read between two notes of how far it is: once in 16 seconds at the usual pace.
const NOTE_BYTES: u64 = 64 << 20;

/// It calls little.
const STACK: usize = 256 << 10;
