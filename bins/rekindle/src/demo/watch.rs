//! A device seen from outside: its status page, asked for over HTTP again and again.

use core::fmt;
use core::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

/// What a device says of itself, as far as the story needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glimpse {
    pub(super) build: String,
    pub(super) slot: String,
    pub(super) confirmed: bool,
    pub(super) activity: Activity,
    /// Polls since this agent was started, and what came of the last.
    pub(super) polls: u64,
    pub(super) poll_result: String,
    /// What the last run of the script did with the line that loads firmware.
    pub(super) load: Option<Line>,
    /// Why the device went back to its old firmware.
    pub(super) rolled_back: Option<String>,
    pub(super) rejected: Vec<String>,
}

/// What a device does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Activity {
    Resting,
    Preparing {
        build: String,
    },
    Loading {
        build: String,
        done: u64,
        total: u64,
    },
    Finishing {
        build: String,
    },
    AwaitingReset,
    OnTrial,
}

/// A line of the script and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Line {
    command: String,
    pub(super) outcome: String,
    pub(super) detail: String,
}

impl fmt::Display for Glimpse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { build, slot, .. } = self;
        match &self.activity {
            Activity::Preparing { build } => return write!(f, "preparing {build}"),
            Activity::Loading { build, .. } => return write!(f, "loading {build}"),
            Activity::Finishing { build } => return write!(f, "finishing {build}"),
            Activity::AwaitingReset => write!(f, "runs {build} from slot {slot}, reset required")?,
            Activity::OnTrial => write!(f, "runs {build} from slot {slot} on trial")?,
            Activity::Resting if self.confirmed => {
                write!(f, "runs {build} from slot {slot}, confirmed")?;
            }
            Activity::Resting => write!(f, "runs {build} from slot {slot}, not confirmed")?,
        }
        match self.poll_result.as_str() {
            "ok" | "unchanged" | "not polled" => {}
            result => write!(f, "; poll: {result}")?,
        }
        match &self.rolled_back {
            Some(why) => write!(f, "; rolled back: {why}"),
            None => Ok(()),
        }
    }
}

/// Looks at one device; dropped, it looks no more.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    name: String,
    glimpses: watch::Receiver<Option<Glimpse>>,
}

impl Watch {
    /// Starts to look at the device whose pages lie below `url`.
    pub(super) fn start(name: &str, url: &str, client: reqwest::Client) -> Self {
        let (sender, glimpses) = watch::channel(None);
        let url = format!("{url}status.json");
        tokio::spawn(async move {
            while !sender.is_closed() {
                let glimpse = look(&client, &url).await;
                sender.send_if_modified(|last| {
                    let is_news = *last != glimpse;
                    *last = glimpse;
                    is_news
                });
                sleep(PAUSE).await;
            }
        });
        Self {
            name: name.to_owned(),
            glimpses,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the device said last; none while it does not answer.
    pub(super) fn glimpse(&self) -> Option<Glimpse> {
        self.glimpses.borrow().clone()
    }

    /// Waits until the device says something else.
    pub(super) async fn changed(&mut self) {
        if self.glimpses.changed().await.is_err() {
            // Nobody looks any more: nothing will ever change.
            core::future::pending::<()>().await;
        }
    }
}

/// The client for all watches. Nothing but this machine is asked, and without a proxy.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    // Refused only where one is installed already, which serves as well: no TLS is spoken here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .timeout(PATIENCE)
        .build()?)
}

async fn look(client: &reqwest::Client, url: &str) -> Option<Glimpse> {
    let answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
    let status: Status = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    status.glimpse()
}

/// The part of `status.json` that is read here.
#[derive(Deserialize)]
struct Status {
    components: Vec<Component>,
    trial: Option<Trial>,
    reset_required: bool,
    poll: Poll,
    lines: Vec<Line>,
    progress: Option<Progress>,
    rejections: Vec<Rejection>,
    rolled_back: Option<Notice>,
}

#[derive(Deserialize)]
struct Component {
    running: Option<String>,
    build: Option<String>,
    confirmed: Option<String>,
}

#[derive(Deserialize)]
struct Trial {
    running: bool,
}

#[derive(Deserialize)]
struct Poll {
    result: String,
    count: u64,
}

#[derive(Deserialize)]
struct Progress {
    build: String,
    phase: String,
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Deserialize)]
struct Rejection {
    build: String,
}

#[derive(Deserialize)]
struct Notice {
    text: String,
}

impl Status {
    fn glimpse(self) -> Option<Glimpse> {
        let component = self.components.into_iter().next()?;
        let slot = component.running?;
        let activity = match (self.progress, self.trial) {
            (Some(progress), _) => progress.activity(),
            (None, Some(trial)) if trial.running => Activity::OnTrial,
            (None, _) if self.reset_required => Activity::AwaitingReset,
            (None, _) => Activity::Resting,
        };
        Some(Glimpse {
            build: component.build.unwrap_or_default(),
            confirmed: component.confirmed.as_ref() == Some(&slot),
            slot,
            activity,
            polls: self.poll.count,
            poll_result: self.poll.result,
            load: self.lines.into_iter().find(|line| line.command == "prot"),
            rolled_back: self.rolled_back.map(|notice| notice.text),
            rejected: self
                .rejections
                .into_iter()
                .map(|rejection| rejection.build)
                .collect(),
        })
    }
}

impl Progress {
    fn activity(self) -> Activity {
        let Self {
            build,
            phase,
            done_bytes: done,
            total_bytes: total,
        } = self;
        match phase.as_str() {
            "fetch" => Activity::Loading { build, done, total },
            "verify" | "commit" => Activity::Finishing { build },
            _ => Activity::Preparing { build },
        }
    }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// An agent on this machine that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn glimpse(changes: &serde_json::Value) -> Glimpse {
        let mut status = serde_json::json!({
            "components": [{"running": "B", "build": "04-5679", "confirmed": "B"}],
            "trial": null, "reset_required": false, "lines": [], "progress": null,
            "poll": {"result": "ok", "count": 3}, "rejections": [], "rolled_back": null,
        });
        for (name, value) in changes.as_object().unwrap() {
            status[name] = value.clone();
        }
        serde_json::from_value::<Status>(status)
            .unwrap()
            .glimpse()
            .unwrap()
    }

    #[test]
    fn a_status_is_told_in_a_few_words() {
        let trial = serde_json::json!({"running": true});
        let rolled_back = serde_json::json!({"text": "04-5680 never confirmed"});
        let fetch = serde_json::json!(
            {"build": "04-5680", "phase": "fetch", "done_bytes": 1, "total_bytes": 2}
        );
        for (changes, expected) in [
            (serde_json::json!({}), "runs 04-5679 from slot B, confirmed"),
            (
                serde_json::json!({"trial": trial}),
                "runs 04-5679 from slot B on trial",
            ),
            (
                serde_json::json!({"trial": {"running": false}, "reset_required": true}),
                "runs 04-5679 from slot B, reset required",
            ),
            (
                serde_json::json!({"progress": fetch, "trial": trial}),
                "loading 04-5680",
            ),
            (
                serde_json::json!({"poll": {"result": "failed(404)", "count": 1}}),
                "runs 04-5679 from slot B, confirmed; poll: failed(404)",
            ),
            (
                serde_json::json!({"rolled_back": rolled_back}),
                "runs 04-5679 from slot B, confirmed; rolled back: 04-5680 never confirmed",
            ),
        ] {
            assert_eq!(glimpse(&changes).to_string(), expected);
        }
    }

    #[test]
    fn a_device_that_runs_what_is_not_confirmed_says_so() {
        let running_a = serde_json::json!([{"running": "A", "build": "1", "confirmed": "B"}]);
        assert!(!glimpse(&serde_json::json!({"components": running_a})).confirmed);
    }
}
