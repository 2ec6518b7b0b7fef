//! What the device says about itself: one value, as JSON and as a page.

mod page;
mod server;

use serde::{Deserialize, Serialize};

pub use server::{ServerLimits, router, serve};

/// The state of the device, as `GET /status.json` shows it. Fields may be added; none changes its
/// meaning. Times are seconds since 1970 UTC, slots are letters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The version of the agent.
    pub agent: String,
    /// What the device is.
    pub device: DeviceStatus,
    /// Things an operator must know of a setting, in plain words: `unsigned images are accepted`.
    pub warnings: Vec<String>,
    /// Every component, in the order of the configuration.
    pub components: Vec<ComponentStatus>,
    /// A pending or running trial of new firmware; `null` when all that boots is confirmed.
    pub trial: Option<TrialStatus>,
    /// What boots next differs from what runs: a reset is needed.
    pub reset_required: bool,
    /// The restart that waits until the device is idle (`ireset`, `ireboot`), or is under way.
    pub pending_restart: Option<String>,
    /// The maintenance script.
    pub poll: PollStatus,
    /// What the last run did with each line, in script order; blank lines and comments are left out.
    pub lines: Vec<LineStatus>,
    /// The install under way.
    pub progress: Option<Progress>,
    /// The last refusal or failure, kept until an install succeeds.
    pub last_error: Option<Notice>,
    /// Firmware that failed its trial and is not, or not yet, tried again.
    pub rejections: Vec<RejectionStatus>,
    /// The last time the device started something else than was chosen, and why.
    pub rolled_back: Option<Notice>,
}

/// The identity of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// The device type.
    #[serde(rename = "type")]
    pub device_type: String,
    /// The hardware id (`#h`).
    pub hardware_id: String,
    /// The Ethernet address (`#m`).
    pub mac: Option<String>,
    /// The hardware build (`#H`).
    pub hardware: Option<String>,
}

/// One updatable part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ComponentStatus {
    /// The component's name: `prot`, `boot`, …
    pub name: String,
    /// The slot that runs; `null` if it is not known.
    pub running: Option<String>,
    /// The build that runs; `null` if it is not known.
    pub build: Option<String>,
    /// The serial recorded for what boots next: the variable UPDATE/PROT, BOOT or BMC.
    pub serial: Option<String>,
    /// The slot that boots next.
    pub next: Option<String>,
    /// The build that boots next.
    pub next_build: Option<String>,
    /// The slot to which the device falls back.
    pub confirmed: Option<String>,
    /// Images with a lower security version are refused.
    pub security_floor: u64,
    /// Every slot, A first.
    pub slots: Vec<SlotStatus>,
}

/// One slot of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotStatus {
    /// The slot's letter.
    pub slot: String,
    /// The build that it holds or is being given; `null` if it is empty.
    pub build: Option<String>,
    /// It holds the whole of that build, read back and checked.
    pub complete: bool,
    /// Boot control may start it.
    pub bootable: bool,
    /// The last scrub of it; `null` before the first.
    pub scrub: Option<ScrubStatus>,
}

/// What a scrub of a slot came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScrubStatus {
    /// When it ended.
    pub time: u64,
    /// How long it read, pauses for updates left out.
    pub seconds: u64,
    /// `whole`, `damaged`, `repaired`, `empty`, `unknown`, `unfinished` or `unreadable`.
    pub result: String,
    /// The same in plain words.
    pub text: String,
    /// Chunks that were compared.
    pub chunks: u32,
    /// Chunks that were not what they should be.
    pub damaged_chunks: u32,
    /// Bytes of these.
    pub damaged_bytes: u64,
}

/// New firmware on trial: all that was chosen since the last confirm, confirmed or reverted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrialStatus {
    /// What runs now is the trial.
    pub running: bool,
    /// How often it may start before it must be confirmed.
    pub attempts: u8,
    /// How many of these are left.
    pub attempts_left: u8,
}

/// The maintenance script and the last look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PollStatus {
    /// The script's URL without credentials and query; `null`: nothing is polled.
    pub url: Option<String>,
    /// When it was last looked at.
    pub last: Option<u64>,
    /// `not polled`, `ok`, `unchanged` or `failed(404)`.
    pub result: String,
    /// The result in plain words, where the number does not say it.
    pub detail: Option<String>,
    /// How many polls there were since the agent started.
    pub count: u64,
    /// When the next one is due.
    pub next: Option<u64>,
}

impl Default for PollStatus {
    fn default() -> Self {
        Self {
            url: None,
            last: None,
            result: "not polled".to_owned(),
            detail: None,
            count: 0,
            next: None,
        }
    }
}

/// What became of one script line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LineStatus {
    /// The line's number, from 1.
    pub number: u32,
    /// The command's name without its arguments, which may hold secrets: `prot`, `scfg`, `config change`.
    pub command: String,
    /// What happened, in a word.
    pub outcome: LineResult,
    /// Why, in plain words.
    pub detail: String,
}

/// What happened to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LineResult {
    /// It was carried out.
    Done,
    /// Nothing was to be done.
    Skipped,
    /// It is under way.
    Running,
    /// It failed; the detail says why.
    Failed,
}

/// How far an install is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// The component.
    pub component: String,
    /// The build that is being installed.
    pub build: String,
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes of the whole phase.
    pub total_bytes: u64,
}

/// The phases of an install, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// Manifest and table are fetched and checked.
    Manifest,
    /// The slot is searched for what it already holds.
    Scan,
    /// Missing chunks are fetched and written.
    Fetch,
    /// What was written is read back.
    Verify,
    /// The slot is marked and chosen.
    Commit,
}

/// Something that happened at a time, in plain words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Notice {
    /// When.
    pub time: u64,
    /// What, and what to do about it.
    pub text: String,
}

/// Firmware that failed its trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RejectionStatus {
    /// The component.
    pub component: String,
    /// The build.
    pub build: String,
    /// The id of the manifest, in hexadecimal.
    pub manifest: String,
    /// Why, in plain words.
    pub reason: String,
    /// How often it was tried.
    pub tries: u8,
    /// When it may be tried again; `null`: never by itself.
    pub retry_after: Option<u64>,
    /// When it was last rejected.
    pub date: Option<u64>,
}

impl LineStatus {
    /// The outcome of one line.
    #[must_use]
    pub fn new(number: u32, command: &str, outcome: LineResult, detail: &str) -> Self {
        Self {
            number,
            command: command.to_owned(),
            outcome,
            detail: detail.to_owned(),
        }
    }
}

/// A URL as it may be shown: without user, password, query and fragment, all of which may hold secrets.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else {
        return plain.to_owned();
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_holds_no_secret() {
        let cases = [
            ("http://a/b/", "http://a/b/"),
            ("https://u:p@a:1/b?x=y@z", "https://a:1/b"),
            ("http://u:p@w@a", "http://a"),
            ("http://a/x@y#h", "http://a/x@y"),
            ("http://a?PWD=secret", "http://a"),
        ];
        for (url, expected) in cases {
            assert_eq!(shown_url(url), expected);
        }
    }

    #[test]
    fn the_json_keeps_its_names() {
        let status = Status {
            lines: vec![LineStatus::new(3, "prot", LineResult::Failed, "why")],
            ..Status::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["poll"]["result"], "not polled");
        assert_eq!(json["device"]["type"], "");
        assert_eq!(
            json["lines"][0],
            serde_json::json!({"number": 3, "command": "prot", "outcome": "failed", "detail": "why"})
        );
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        let expected = "agent components device last_error lines pending_restart poll progress \
                        rejections reset_required rolled_back trial warnings";
        assert_eq!(names.join(" "), expected);
    }
}
