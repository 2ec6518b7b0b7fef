//! The agent: what starts when the device starts, and goes on until it is told to stop.

mod background;
mod board;
mod device_boot;
mod environment;
mod evidence;
mod install;
mod lock;
mod maintenance;
mod mounts;
mod origins;
mod places;
mod poll;
mod records;
mod recover;
mod repair;
mod report;
mod scrub;
mod slot_flash;
mod source;
mod start;

use alloc::sync::Arc;
use core::future::Future;
use core::time::Duration;
use std::path::Path;

use rekindle_image::Downgrade;
use rekindle_script::Reset;
use rekindle_state::{Door, FileStoreError, State, Store as _};
use rekindle_update::{Installed, Standing};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use self::background::{Background, Scrubbed};
use self::board::Board;
pub use self::board::BoardError;
pub use self::device_boot::DeviceBootError;
pub use self::environment::EnvironmentError;
pub use self::install::OrderError;
use self::install::{FileImage, Order, install_file, install_url};
pub use self::lock::LockError;
use self::lock::{AgentLock, UpdateLock};
pub use self::maintenance::{RepairLine, RepairSummary, repair_once, scrub_once};
use self::poll::{Cached, Polled, observer};
pub use self::recover::recover_once;
pub use self::repair::{RepairOrderError, RepairSourceError};
pub use self::scrub::{DamageRange, ScrubSummary, SlotCondition, SlotScrub};
pub use self::slot_flash::SlotFlashError;
pub use self::source::RemoteError;
pub use self::start::StartError;
use self::start::{Started, assess, settle, watch_trial};
use crate::client::{Client, ClientError, ClientOptions};
use crate::clock::Clock;
use crate::config::Config;
use crate::host::{Host, HostError, ProgramHost, Restart};
use crate::status::{self, ServerLimits, Status};

/// Why the agent could not start, or a command of it could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The device is not as its configuration says.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The state could not be stored.
    #[error("[state] dir: {0}")]
    State(FileStoreError),
    /// The HTTP client cannot be set up.
    #[error("[update]: {0}")]
    Client(ClientError),
    /// The address of the status page cannot be used.
    #[error("[http] listen = \"{address}\": {cause}")]
    Listen {
        /// The address.
        address: core::net::SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another update is under way, or the lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The commits of a confirm or a rollback could not be made.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The image file cannot be opened.
    #[error("cannot open the image {}: {cause}", path.display())]
    Image {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl From<FileStoreError> for AgentError {
    fn from(error: FileStoreError) -> Self {
        Self::State(error)
    }
}

impl From<ClientError> for AgentError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// What every part of the agent sees.
#[derive(Debug)]
pub(crate) struct Shared {
    board: Arc<Board>,
    client: Client,
    clock: Clock,
    status: watch::Sender<Status>,
}

impl Shared {
    fn open(config: Config) -> Result<Arc<Self>, AgentError> {
        let board = Arc::new(Board::open(config)?);
        let (state, damage) = match board.state() {
            Err(BoardError::State(damage @ FileStoreError::Damaged { .. })) => {
                board.store().start_over()?;
                (board.state()?, Some(damage))
            }
            state => (state?, None),
        };
        let clock = Clock::new(state.last_time);
        let client = Client::new(&ClientOptions::from(&board.config.update), &clock)?;
        let mut status = report::initial(&board);
        if let Some(damage) = damage {
            status.warnings.push(format!(
                "the state was lost and is begun anew, so scripts run again: {damage}"
            ));
        }
        for warning in &status.warnings {
            tracing::warn!(warning, "an operator should know");
        }
        let status = watch::Sender::new(status);
        Ok(Arc::new(Self {
            board,
            client,
            clock,
            status,
        }))
    }
}

/// Runs the agent with the programs that the configuration names, until `stop` is ready.
///
/// # Errors
///
/// If the device is not as its configuration says; what fails later stands in status and log, and
/// the agent goes on.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let host = ProgramHost::new(config.host.clone());
    run_with(config, host, stop).await
}

/// Runs the agent with a vendor's own host, until `stop` is ready.
///
/// # Errors
///
/// As [`run`].
pub async fn run_with<H: Host>(
    config: Config,
    host: H,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let _lock = AgentLock::take(&config.state_dir)?;
    let shared = Shared::open(config)?;
    give_back(&shared.board);
    let (found, scrubbed) = unbounded_channel();
    let mut agent = Agent {
        scrubs: Scrubs {
            background: None,
            found,
            scrubbed,
        },
        shared,
        host,
        script: Cached::default(),
        started: Instant::now(),
    };
    let server = agent.serve_status().await?;
    tokio::select! {
        () = stop => {}
        () = server => {}
        () = agent.work() => {}
    }
    Ok(())
}

/// First of all: a boot loader's script that counts also what is confirmed takes it for broken after
/// a few power flickers. What fails here fails again in the start, which says so; and where an update
/// is under way, whose record must not be overwritten, the start does it behind that.
fn give_back(board: &Board) {
    match UpdateLock::take(&board.config.state_dir) {
        Ok(lock) => give_back_under(board, &lock),
        Err(error) => tracing::warn!(%error, "the boot loader's attempts are not given back yet"),
    }
}

fn give_back_under(board: &Board, _lock: &UpdateLock) {
    match board.boot().and_then(|mut boot| Ok(boot.give_back()?)) {
        Ok(true) => {
            tracing::info!("the boot loader's attempts of the confirmed slot are given back");
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the boot loader's attempts are not given back"),
    }
}

/// Forgets variables and settings: the device is new again. Slots, keys and the security floor
/// stay.
///
/// # Errors
///
/// If an update is under way, or the state cannot be stored.
pub fn factory_reset(config: &Config) -> Result<(), AgentError> {
    let _lock = UpdateLock::take(&config.state_dir)?;
    let board = Board::open(config.clone())?;
    let mut state = match board.state() {
        Err(BoardError::State(FileStoreError::Damaged { .. })) => {
            board.store().start_over()?;
            State::default()
        }
        state => state?,
    };
    state.factory_reset();
    board.store().commit(&state)?;
    Ok(())
}

/// Installs one image from a file or an http(s) URL, and says in a sentence what came of it.
///
/// It goes to the component that its signed manifest names, or to `component` and no other.
///
/// # Errors
///
/// The outer error: the device or the image cannot be used. The inner one: the image was refused
/// or could not be brought in; what runs is untouched.
pub async fn install_once(
    config: Config,
    image: &str,
    component: Option<&str>,
    downgrade: Downgrade,
) -> Result<Result<String, OrderError>, AgentError> {
    // First of all: whoever holds it has the state open too.
    let _lock = UpdateLock::take(&config.state_dir)?;
    let shared = Shared::open(config)?;
    if downgrade == Downgrade::Allow {
        tracing::warn!(
            image,
            "a lower security version is allowed for this install"
        );
    }
    if let Some(component) = component {
        return install_as(&shared, image, component, downgrade).await;
    }
    // What the manifest names is believed once its signatures are: the engine says so. A component that
    // cannot be updated is passed over.
    let components = &shared.board.config.components;
    let mut names: Vec<&str> = components.iter().map(|known| known.name.as_str()).collect();
    names.reverse();
    let mut first = None;
    while let Some(name) = names.pop() {
        match install_as(&shared, image, name, downgrade).await? {
            Ok(said) => return Ok(Ok(said)),
            Err(error) => {
                let named = error.other_component();
                let named = named.and_then(|named| names.iter().position(|name| *name == named));
                match (named, &error) {
                    (Some(index), _) => names = Vec::from([names[index]]),
                    (
                        None,
                        OrderError::SingleSlot(_)
                        | OrderError::SingleLoader(_)
                        | OrderError::NoFreeSlot(_),
                    ) => {}
                    (None, _) => names.clear(),
                }
                if first.is_none() || named.is_none() {
                    first = Some(error);
                }
            }
        }
    }
    Ok(Err(
        first.unwrap_or_else(|| OrderError::NoComponent(String::new()))
    ))
}

async fn install_as(
    shared: &Arc<Shared>,
    image: &str,
    component: &str,
    downgrade: Downgrade,
) -> Result<Result<String, OrderError>, AgentError> {
    let order = Order {
        component: component.to_owned(),
        serial: None,
        door: Door::Local,
        downgrade,
        now: shared.clock.known(),
    };
    let observe = observer(shared, component, image.to_owned());
    let scheme = image
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    let installed = if matches!(scheme.as_deref(), Some("http" | "https")) {
        install_url(&shared.board, &shared.client, image, order, observe).await
    } else {
        let path = Path::new(image);
        let file = FileImage::open(path).map_err(|cause| AgentError::Image {
            path: path.to_owned(),
            cause,
        })?;
        install_file(&shared.board, file, order, observe).await
    };
    Ok(installed.map(|installed| match installed {
        Installed::Chosen(outcome) => format!(
            "{component} build {} is in slot {} and starts at the next boot ({} bytes fetched)",
            outcome.manifest.build, outcome.slot, outcome.report.fetched
        ),
        Installed::Running(manifest) => {
            format!("{component} build {} runs already", manifest.build)
        }
        Installed::InPlace(outcome) => {
            format!(
                "{component} build {} is in its slot",
                outcome.manifest.build
            )
        }
        Installed::Staged(outcome) => format!(
            "{component} build {} is staged; the recovery environment brings it in at the next boot",
            outcome.manifest.build
        ),
        other => format!("{component}: {other:?}"),
    }))
}

/// Confirms now what runs on trial, and says so in a sentence; the inner error says why not.
///
/// # Errors
///
/// If an update is under way, or the device is not as its configuration says.
pub fn confirm_once(config: Config) -> Result<Result<String, String>, AgentError> {
    let _lock = UpdateLock::take(&config.state_dir)?;
    let shared = Shared::open(config)?;
    Ok(start::confirm_now(&shared.board)?)
}

/// Gives up the trial that runs or waits, and says so in a sentence; the inner error says why not. A
/// trial that has been started is noted as never confirmed.
///
/// # Errors
///
/// If an update is under way, or the device is not as its configuration says.
pub fn rollback_once(config: Config) -> Result<Result<String, String>, AgentError> {
    let _lock = UpdateLock::take(&config.state_dir)?;
    let shared = Shared::open(config)?;
    Ok(start::roll_back(&shared.board, &shared.clock)?)
}

/// The agent at work.
#[derive(Debug)]
pub(crate) struct Agent<H> {
    shared: Arc<Shared>,
    host: H,
    script: Cached,
    started: Instant,
    scrubs: Scrubs,
}

/// The background scrub, and what it finds.
#[derive(Debug)]
struct Scrubs {
    background: Option<Background>,
    /// Kept here too, so that the channel stays open without a thread.
    found: UnboundedSender<Scrubbed>,
    scrubbed: UnboundedReceiver<Scrubbed>,
}

impl<H: Host> Agent<H> {
    async fn serve_status(&self) -> Result<impl Future<Output = ()> + use<H>, AgentError> {
        let config = &self.shared.board.config.http;
        let listener = match config.listen {
            Some(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .map_err(|cause| AgentError::Listen { address, cause })?;
                if let Ok(address) = listener.local_addr() {
                    tracing::info!(%address, "the status page is up");
                }
                Some(listener)
            }
            None => None,
        };
        let limits = ServerLimits {
            connections: config.connections,
            ..ServerLimits::default()
        };
        let router = status::router(self.shared.status.subscribe());
        Ok(async move {
            match listener {
                Some(listener) => {
                    status::serve(listener, router, limits, core::future::pending()).await;
                }
                None => core::future::pending().await,
            }
        })
    }

    async fn work(&mut self) {
        self.refresh_status();
        while let Err(error) = self.start().await {
            tracing::error!(%error, "the start cannot be completed; trying again");
            self.notice(format!("the start cannot be completed: {error}"));
            sleep(START_PAUSE).await;
        }
        self.refresh_status();
        self.scrubs.background = Background::start(
            &self.shared.board,
            &self.shared.clock,
            self.scrubs.found.clone(),
        );
        loop {
            let interval = self.interval();
            let next = self
                .shared
                .clock
                .now()
                .as_secs()
                .saturating_add(interval.as_secs());
            self.shared
                .status
                .send_modify(|status| status.poll.next = Some(next));
            let due = Instant::now() + interval;
            while let Ok(found) = timeout_at(due, self.scrubs.scrubbed.recv()).await {
                if let Some(found) = found {
                    self.heed(found).await;
                }
            }
            let polled = self.poll().await;
            self.finish_restart(polled).await;
        }
    }

    /// Trial and fallback first: nothing is polled before what runs is confirmed.
    async fn start(&self) -> Result<(), StartError> {
        let standing = assess(&self.shared.board)?;
        let started = if standing == Standing::OnTrial {
            tracing::info!("what runs is on trial");
            watch_trial(&self.shared.board, &self.host, &self.shared.clock).await?
        } else {
            settle(&self.shared.board, standing, &self.shared.clock)?
        };
        match started {
            Started::Settled => tracing::debug!("what runs was confirmed before"),
            Started::Pending => tracing::info!("what was chosen waits for a reset"),
            Started::Confirmed => tracing::info!("what runs is confirmed"),
            Started::FellBack(evidence) => {
                for evidence in evidence {
                    tracing::warn!(
                        component = evidence.component,
                        build = evidence.build,
                        chosen = %evidence.chosen,
                        running = %evidence.running,
                        reason = %evidence.reason,
                        "fell back"
                    );
                }
                let board = &self.shared.board;
                if report::is_reset_required(board, &board.boot_record()?) {
                    // Of a trial of several components one runs still.
                    tracing::error!("a part of what was given up runs: restarting without it");
                    self.refresh_status();
                    self.leave_slot().await;
                }
            }
            Started::Unhealthy(_) => {
                tracing::error!("what runs is not healthy: restarting into the slot before it");
                self.refresh_status();
                self.leave_slot().await;
            }
        }
        Ok(())
    }

    /// Restarts into the slot before this one, harder if the soft restart does not do. When nothing
    /// helps the agent goes on, so that a script may still find a way.
    async fn leave_slot(&self) {
        for reset in [Reset::Reset, Reset::Reboot, Reset::Reset, Reset::Reboot] {
            match self.restart(reset).await {
                Ok(()) => sleep(RESTART_TIME).await,
                Err(error) => {
                    self.notice(format!(
                        "the restart into the slot before it failed: {error}"
                    ));
                    sleep(RESTART_PAUSE).await;
                }
            }
        }
    }

    /// 15 minutes or what is configured; a new device every minute for its first half hour.
    fn interval(&self) -> Duration {
        let interval = self.shared.board.config.update.poll;
        let new = self.shared.board.state().is_ok_and(|state| !state.known);
        if new && self.started.elapsed() < NEW_DEVICE_TIME {
            interval.min(NEW_DEVICE_POLL)
        } else {
            interval
        }
    }

    /// While a restart is pending or under way nothing is polled.
    async fn finish_restart(&self, polled: Polled) {
        if let Some(reset) = polled.pending {
            self.shared
                .status
                .send_modify(|status| status.pending_restart = Some(reset.as_str().to_owned()));
            loop {
                while !self.is_idle().await {
                    sleep(IDLE_PAUSE).await;
                }
                match self.restart(reset).await {
                    Ok(()) => break,
                    Err(error) => {
                        self.notice(format!("the pending {} failed: {error}", reset.as_str()));
                        sleep(RESTART_TIME).await;
                    }
                }
            }
        }
        if polled.restarting || polled.pending.is_some() {
            sleep(RESTART_TIME).await;
            self.notice("the restart was started, and the device still runs".to_owned());
        }
        self.shared
            .status
            .send_modify(|status| status.pending_restart = None);
    }

    async fn is_idle(&self) -> bool {
        self.host.is_idle().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "it cannot be told whether the device is idle; it counts as busy");
            false
        })
    }

    async fn restart(&self, reset: Reset) -> Result<(), HostError> {
        let kind = if reset.is_hard() {
            Restart::Reboot
        } else {
            Restart::Reset
        };
        tracing::info!(command = reset.as_str(), "restarting");
        self.shared
            .status
            .send_modify(|status| status.pending_restart = Some(reset.as_str().to_owned()));
        self.host.restart(kind).await
    }

    fn notice(&self, text: String) {
        let time = self.shared.clock.now().as_secs();
        tracing::warn!(text, "an operator should know");
        self.shared.status.send_modify(|status| {
            status.last_error = Some(status::Notice { time, text });
        });
    }

    fn refresh_status(&self) {
        let board = &self.shared.board;
        self.shared.status.send_modify(|status| {
            if let Err(error) = report::refresh(board, status) {
                tracing::error!(%error, "the status is incomplete");
            }
        });
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// A device that has never had a script polls this often ...
const NEW_DEVICE_POLL: Duration = Duration::from_secs(60);

/// ... for so long.
const NEW_DEVICE_TIME: Duration = Duration::from_secs(30 * 60);

/// Between two looks whether the device is idle.
const IDLE_PAUSE: Duration = Duration::from_secs(5);

/// A restart that was started is over by then.
const RESTART_TIME: Duration = Duration::from_secs(60);

/// Before a restart that failed is tried in another way.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Before the commits of a start are tried again.
const START_PAUSE: Duration = Duration::from_secs(5);
