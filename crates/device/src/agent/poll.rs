//! One poll: the script is fetched and run, line by line, one after the other.

use alloc::sync::Arc;
use core::net::IpAddr;
use core::time::Duration;
use std::net::{ToSocketAddrs as _, UdpSocket};

use bytes::Bytes;
use rekindle_image::Downgrade;
use rekindle_script::{Dialect, Limits, Reset, parse};
use rekindle_state::{Door, Store as _};
use rekindle_update::run::{
    Clock as RunClock, Component, Content, Facts, Failure, Hosted, Input, Loaded, Output, Restart,
    Run, Summary,
};
use rekindle_update::url::{UrlFacts, expand, script_name, to_request, with_standard_name};
use rekindle_update::{Installed, Phase, Progress};

use super::board::{Board, BoardError};
use super::evidence;
use super::install::{Order, OrderError, install_url};
use super::lock::UpdateLock;
use super::report;
use super::{Agent, Shared};
use crate::client::{FetchError, Fetched, Framing, SCRIPT_LIMIT, Validators};
use crate::host::{Host, HostError};
use crate::status;

/// The last script, for servers that answer 304 to a conditional request.
#[derive(Debug, Default)]
pub(crate) struct Cached {
    url: String,
    bytes: Bytes,
    validators: Validators,
}

/// Why a poll came to nothing.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Lock(#[from] super::lock::LockError),
    #[error(transparent)]
    Board(#[from] BoardError),
    #[error("the script is not run")]
    Script(#[from] rekindle_script::ParseError),
    #[error("the URL of the script is no text")]
    Url(#[from] core::str::Utf8Error),
}

/// What the rest of the agent must know of a poll.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    /// The restart that a line asked for and that waits until the device is idle.
    pub(crate) pending: Option<Reset>,
    /// A restart is under way.
    pub(crate) restarting: bool,
}

impl<H: Host> Agent<H> {
    /// Polls once. Whatever happens stands in the status afterwards.
    pub(crate) async fn poll(&mut self) -> Polled {
        let now = self.shared.clock.now();
        self.shared.status.send_modify(|status| {
            status.poll.last = Some(now.as_secs());
            status.poll.count += 1;
        });
        let (polled, result, detail) = match self.poll_script().await {
            Ok((polled, summary)) => {
                let detail = summary.map_or_else(
                    || "the server has nothing for this device".to_owned(),
                    |summary| summary.to_string(),
                );
                (polled, "ok".to_owned(), detail)
            }
            Err(PollError::Fetch(error)) => (
                Polled::default(),
                format!("failed({})", error.code()),
                error.to_string(),
            ),
            Err(PollError::Lock(error)) => {
                (Polled::default(), "busy".to_owned(), error.to_string())
            }
            Err(error) => (Polled::default(), "failed".to_owned(), super::chain(&error)),
        };
        tracing::info!(result, detail, "polled");
        let board = &self.shared.board;
        self.shared.status.send_modify(|status| {
            status.poll.result = result;
            status.poll.detail = Some(detail);
            status.progress = None;
            if let Err(error) = report::refresh(board, status) {
                tracing::error!(%error, "the status is incomplete");
            }
        });
        polled
    }

    async fn poll_script(&mut self) -> Result<(Polled, Option<Summary>), PollError> {
        let _lock = UpdateLock::take(&self.shared.board.config.state_dir)?;
        let view = DeviceView::read(&self.shared)?;
        let Some(source) = self.fetch_script(&view).await? else {
            return Ok((Polled::default(), None));
        };
        let script = parse(&source, &Limits::default(), &Dialect::field())?;
        let state = self.shared.board.state()?;
        let components = view.components();
        let facts = Facts {
            url: view.url_facts(),
            components: &components,
        };
        let clock = self.run_clock();
        let mut run = Run::new(&source, &script, &facts, &state, clock);
        let mut polled = Polled::default();
        loop {
            let input = match run.poll_output() {
                Output::Install {
                    line,
                    component,
                    url,
                    serial,
                } => Input::Installed(self.install_line(line, component, &url, serial).await),
                Output::Upload { url, content, .. } => {
                    Input::Uploaded(self.upload(&url, content).await)
                }
                Output::Host { text, .. } => Input::Host(self.hand_over(text).await),
                Output::Reset { reset, .. } => {
                    Input::Reset(self.reset_line(reset, &mut polled).await)
                }
                Output::Store(changes) => Input::Stored(self.commit(|state| changes.apply(state))),
                Output::Wait | Output::Done => break,
                other => {
                    tracing::error!(?other, "the run asks for what this agent does not know");
                    break;
                }
            };
            let clock = self.run_clock();
            if let Err(error) = run.handle_input(clock, input) {
                tracing::error!(%error, "the run and its driver disagree");
                break;
            }
            let lines = report::lines(run.summary());
            self.shared
                .status
                .send_modify(|status| status.lines = lines);
        }
        let summary = run.into_summary();
        let lines = report::lines(&summary);
        self.shared
            .status
            .send_modify(|status| status.lines = lines);
        self.note_time();
        Ok((polled, Some(summary)))
    }

    /// The script; `None`: the server has nothing.
    async fn fetch_script(&mut self, view: &DeviceView) -> Result<Option<Bytes>, PollError> {
        let config = &self.shared.board.config;
        let Some(url) = &config.update.url else {
            return Ok(None);
        };
        let name = config
            .update
            .script
            .clone()
            .unwrap_or_else(|| script_name(&config.device.device_type));
        let expanded = expand(url.as_bytes(), &view.url_facts()).url;
        let url =
            core::str::from_utf8(&to_request(&with_standard_name(&expanded, &name)))?.to_owned();
        if self.script.url != url {
            self.script = Cached {
                url: url.clone(),
                ..Cached::default()
            };
        }
        let known = &self.script.validators;
        let told = evidence::headers(&self.shared.board.state()?);
        let telling = !told.is_empty();
        let fetched = self
            .shared
            .client
            .fetch_small_with(&url, SCRIPT_LIMIT, known, told)
            .await?;
        if telling {
            // What cannot be noted is told again.
            let _: Result<(), Failure> = self.commit(|state| {
                evidence::mark_reported(state);
            });
        }
        match fetched {
            Fetched::Body { bytes, validators } => {
                self.script.bytes = bytes;
                self.script.validators = validators;
            }
            Fetched::NotModified => {}
            Fetched::NoContent => {
                self.script.bytes = Bytes::new();
                self.script.validators = Validators::default();
            }
        }
        Ok(Some(self.script.bytes.clone()).filter(|bytes| !bytes.is_empty()))
    }

    async fn install_line(
        &self,
        line: u32,
        component: &str,
        url: &[u8],
        serial: &[u8],
    ) -> Result<Loaded, Failure> {
        let url = core::str::from_utf8(url).map_err(|error| failed(&error))?;
        let order = Order {
            component: component.to_owned(),
            serial: Some(serial.to_vec()),
            door: Door::Script,
            downgrade: Downgrade::Refuse,
            now: self.shared.clock.known(),
        };
        let shown = status::shown_url(url);
        tracing::info!(line, component, url = shown, "installing");
        let build = String::from_utf8_lossy(serial).into_owned();
        let observe = observer(&self.shared, component, build);
        let shared = &self.shared;
        match install_url(&shared.board, &shared.client, url, order, observe).await {
            Ok(installed) => Ok(self.note_installed(component, &installed)),
            Err(error) => Err(self.note_refused(line, component, &error)),
        }
    }

    pub(crate) fn note_installed(&self, component: &str, installed: &Installed) -> Loaded {
        self.shared.status.send_modify(|status| {
            status.progress = None;
            status.last_error = None;
        });
        match installed {
            Installed::Chosen(outcome)
            | Installed::InPlace(outcome)
            | Installed::Staged(outcome) => {
                let (build, report) = (&outcome.manifest.build, outcome.report);
                if outcome.unsigned {
                    tracing::warn!(
                        component,
                        build,
                        "an image without a signature was installed"
                    );
                }
                tracing::info!(
                    component,
                    build,
                    slot = %outcome.slot,
                    fetched = report.fetched,
                    written = report.written,
                    kept = report.kept,
                    "installed"
                );
                Loaded::New
            }
            Installed::Running(manifest) => {
                tracing::info!(component, build = manifest.build, "runs already");
                Loaded::Running
            }
            other => {
                tracing::info!(component, ?other, "installed");
                Loaded::New
            }
        }
    }

    fn note_refused(&self, line: u32, component: &str, error: &OrderError) -> Failure {
        tracing::warn!(line, component, %error, "not installed");
        let text = match error.code() {
            Some(code) => format!("failed({code}): {error}"),
            None => error.to_string(),
        };
        let time = self.shared.clock.now().as_secs();
        let notice = status::Notice {
            time,
            text: format!("line {line}, {component}: {text}"),
        };
        self.shared.status.send_modify(|status| {
            status.progress = None;
            status.last_error = Some(notice);
        });
        Failure::Failed(text)
    }

    async fn upload(&self, url: &[u8], content: Content) -> Result<(), Failure> {
        let url = core::str::from_utf8(url).map_err(|error| failed(&error))?;
        let body = match content {
            Content::Configuration => self
                .host
                .configuration()
                .await
                .map_err(|error| failed(&error))?,
            Content::OutputOf(_) => {
                return Err(Failure::Refused(
                    "the output of commands cannot be uploaded by this agent".to_owned(),
                ));
            }
            other => return Err(Failure::Refused(format!("{other:?} is not known"))),
        };
        let shared = &self.shared;
        match shared
            .client
            .put(url, Bytes::from(body), Framing::Length)
            .await
        {
            Ok(_status) => Ok(()),
            Err(error) => Err(Failure::Failed(format!(
                "failed({}): {error}",
                error.code()
            ))),
        }
    }

    async fn hand_over(&self, line: &[u8]) -> Result<Hosted, Failure> {
        match self.host.command(line).await {
            Ok(()) => Ok(Hosted::Done),
            Err(HostError::NotConfigured { .. }) => Ok(Hosted::NotKnown),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn reset_line(&self, reset: Reset, polled: &mut Polled) -> Result<Restart, Failure> {
        let record = self
            .shared
            .board
            .boot_record()
            .map_err(|error| failed(&error))?;
        if reset.only_if_required() && !report::is_reset_required(&self.shared.board, &record) {
            return Ok(Restart::NotRequired);
        }
        if reset.waits_for_idle() && !self.is_idle().await {
            polled.pending = Some(reset);
            return Ok(Restart::Pending);
        }
        self.restart(reset).await.map_err(|error| failed(&error))?;
        polled.restarting = true;
        Ok(Restart::Started)
    }

    fn commit(&self, change: impl FnOnce(&mut rekindle_state::State)) -> Result<(), Failure> {
        let commit = || -> Result<(), BoardError> {
            let mut state = self.shared.board.state()?;
            change(&mut state);
            Ok(self.shared.board.store().commit(&state)?)
        };
        commit().map_err(|error| failed(&error))
    }

    /// Remembers the time now and then, so that a device without a clock of its own starts from it.
    fn note_time(&self) {
        let Some(now) = self.shared.clock.known() else {
            return;
        };
        let last = self
            .shared
            .board
            .state()
            .ok()
            .and_then(|state| state.last_time);
        let recent = last
            .and_then(|last| now.checked_since(last))
            .is_some_and(|elapsed| elapsed < TIME_NOTE_SECS);
        if recent {
            return;
        }
        if let Err(error) = self.commit(|state| state.note_time(now)) {
            tracing::warn!(%error, "the time is not remembered");
        }
    }

    fn run_clock(&self) -> RunClock {
        let unix = self.shared.clock.known();
        RunClock {
            since_boot: since_boot(),
            unix,
            local: unix.map(|now| self.host.local_time(now)),
        }
    }
}

fn failed(error: &dyn core::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// Shows an install's progress in the status.
pub(crate) fn observer(
    shared: &Arc<Shared>,
    component: &str,
    build: String,
) -> impl FnMut(Progress) + Send + 'static {
    let shared = Arc::clone(shared);
    let component = component.to_owned();
    move |progress| {
        shared.status.send_modify(|status| {
            status.progress = Some(status::Progress {
                component: component.clone(),
                build: build.clone(),
                phase: match progress.phase {
                    Phase::Table => status::Phase::Manifest,
                    Phase::Scan => status::Phase::Scan,
                    Phase::Finish => status::Phase::Commit,
                    _ => status::Phase::Fetch,
                },
                done_bytes: progress.done,
                total_bytes: progress.total,
            });
        });
    }
}

/// What the device knows of itself when a run starts.
#[derive(Debug)]
struct DeviceView {
    firmware: String,
    boot: String,
    hardware: String,
    hardware_id: String,
    mac: String,
    device_type: String,
    address: Option<IpAddr>,
    parts: Vec<Part>,
}

/// A component as boot control boots it next.
#[derive(Debug)]
struct Part {
    name: String,
    serial: Option<Vec<u8>>,
    build: Option<String>,
    file: Option<String>,
}

impl DeviceView {
    fn read(shared: &Shared) -> Result<Self, BoardError> {
        let board = &shared.board;
        let record = board.boot_record()?;
        let state = board.state()?;
        let mut parts = Vec::new();
        for component in &board.config.components {
            let name = component.name.as_str();
            let (slot, view) = Board::next_view(component, &record).unzip();
            let view = view.unwrap_or_default();
            let serial = view
                .manifest()
                .zip(slot)
                .and_then(|(id, slot)| state.slot_serial(name, slot, &id))
                .map(<[u8]>::to_vec);
            let configured = component
                .running_build
                .as_ref()
                .and_then(|place| place.read().ok());
            let build = view.held.map(|held| held.manifest.build).or(configured);
            parts.push(Part {
                name: name.to_owned(),
                serial,
                build,
                file: component.file.clone(),
            });
        }
        let build = |name: &str| {
            let part = parts.iter().find(|part| part.name == name);
            part.and_then(|part| part.build.clone()).unwrap_or_default()
        };
        let device = &board.config.device;
        Ok(Self {
            firmware: build("prot"),
            boot: build("boot"),
            hardware: device.hardware.clone().unwrap_or_default(),
            hardware_id: device.hardware_id.clone(),
            mac: device.mac.clone().unwrap_or_default(),
            device_type: device.device_type.clone(),
            address: board.config.update.url.as_deref().and_then(local_address),
            parts,
        })
    }

    fn url_facts(&self) -> UrlFacts<'_> {
        UrlFacts {
            firmware: &self.firmware,
            boot: &self.boot,
            hardware: &self.hardware,
            hardware_id: &self.hardware_id,
            mac: &self.mac,
            device_type: &self.device_type,
            address: self.address,
            local: None,
            index: 0,
        }
    }

    fn components(&self) -> Vec<Component<'_>> {
        let parts = self.parts.iter();
        parts
            .map(|part| Component {
                name: &part.name,
                serial: part.serial.as_deref(),
                build: part.build.as_deref(),
                file_name: part.file.as_deref(),
            })
            .collect()
    }
}

/// The address that the device has towards the update server. Nothing is sent: connecting a UDP
/// socket only asks the routing table.
fn local_address(url: &str) -> Option<IpAddr> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let server: IpAddr = host.parse().ok()?;
    let server = (server, url.port_or_known_default()?)
        .to_socket_addrs()
        .ok()?
        .next()?;
    let any: IpAddr = if server.is_ipv4() {
        [0_u8; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Time since the device has booted, as the kernel counts it.
fn since_boot() -> Duration {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime
        .split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The time is stored once a day: more often would only wear the flash.
const TIME_NOTE_SECS: u64 = 24 * 60 * 60;
