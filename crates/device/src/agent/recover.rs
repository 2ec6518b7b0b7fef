//! Recovery: run once from a recovery environment, where the slots of the system do not run.

use alloc::sync::Arc;

use rekindle_flash::SlotId;
use rekindle_script::Load;
use rekindle_state::{FileStoreError, Loaded, State, Store};
use rekindle_update::url::{standard_name, with_standard_name};
use rekindle_update::{Parts, Progress, RecoverRequest, Recovered, Transfer, recover};

use super::AgentError;
use super::board::{Board, slots};
use super::install::Way;
use super::lock::{LockError, UpdateLock};
use super::maintenance::{RepairLine, RepairSummary};
use super::origins::Origins;
use super::records::Records;
use super::repair::{Place, RepairOrderError, RepairSource};
use crate::client::{Client, ClientOptions};
use crate::clock::Clock;
use crate::config::{ComponentConfig, Config};

/// Brings every component with a single slot that the device starts from to an authentic image, from
/// `image` (a file or http(s) URL), from where `[recovery] images` points, or from where the slot's
/// image came from. A slot that is whole is only read.
///
/// No system needs to run and no state to be there. After a crash the same call continues. `observe`
/// hears component, slot, bytes in place and bytes in all.
///
/// # Errors
///
/// If an update is under way, the device is not as its configuration says, or this is no recovery
/// environment. What cannot be recovered stands in the summary.
pub async fn recover_once(
    config: Config,
    image: Option<&str>,
    observe: impl FnMut(&str, &str, u64, u64) + Clone + Send + 'static,
) -> Result<RepairSummary, AgentError> {
    let with_state = config.state_dir.is_dir();
    let _lock = match with_state.then(|| UpdateLock::take(&config.state_dir)) {
        Some(Err(LockError::Io { path, cause })) => {
            tracing::warn!(path = %path.display(), %cause, "recovering without the update lock");
            None
        }
        Some(lock) => Some(lock?),
        None => None,
    };
    let board = Arc::new(Board::open_in_recovery(config)?);
    let clock = Clock::new(None);
    let client = Client::new(&ClientOptions::from(&board.config.update), &clock)?;
    let mut summary = RepairSummary::default();
    for component in &board.config.components {
        let single = component.slots.len() == 1;
        if !single || !matches!(Way::of_single(&board.config, component), Ok(Way::Stage)) {
            continue;
        }
        for slot in slots(component) {
            let job = Job {
                board: Arc::clone(&board),
                component: component.clone(),
                slot,
                with_state,
            };
            let (name, letter) = (component.name.clone(), slot.to_string());
            let watch = {
                let mut observe = observe.clone();
                let (name, letter) = (name.clone(), letter.clone());
                move |progress: Progress| observe(&name, &letter, progress.done, progress.total)
            };
            let (text, failed, refused) = match job.run(&client, image, watch).await {
                Ok(text) => (text, false, false),
                Err(error) => (error.to_string(), true, error.is_refusal()),
            };
            tracing::info!(component = name, slot = letter, text, failed, "recovery");
            summary.slots.push(RepairLine {
                component: name,
                slot: letter,
                text,
                failed,
                refused,
            });
        }
    }
    Ok(summary)
}

/// The URLs of `[recovery] images` for a component.
pub(super) fn configured_images<'a>(
    config: &'a Config,
    component: &'a ComponentConfig,
) -> impl Iterator<Item = String> + 'a {
    let load = if component.name == "boot" {
        Load::Boot
    } else {
        Load::Prot
    };
    let standard = standard_name(load, &config.device.device_type);
    let file = component.file.clone().unwrap_or(standard);
    let configured = config.recovery.iter().flat_map(|recovery| &recovery.images);
    configured.map(move |url| {
        let url = with_standard_name(url.as_bytes(), &file);
        String::from_utf8_lossy(&url).into_owned()
    })
}

/// The recovery of one slot.
#[derive(Clone, Debug)]
struct Job {
    board: Arc<Board>,
    component: ComponentConfig,
    slot: SlotId,
    with_state: bool,
}

impl Job {
    async fn run(
        self,
        client: &Client,
        image: Option<&str>,
        observe: impl FnMut(Progress) + Clone + Send + 'static,
    ) -> Result<String, RepairOrderError> {
        let places = self.places(image);
        let mut last = None;
        // What was staged first, wherever it is; another image only where nobody has that one.
        for exact in [true, false] {
            for place in &places {
                let shown = place.to_string();
                let (mut source, service) = place.clone().open();
                let (job, observe) = (self.clone(), observe.clone());
                let engine =
                    tokio::task::spawn_blocking(move || job.carry_out(&mut source, exact, observe));
                if let Some(service) = service {
                    service.serve(client, &self.board.config.update).await;
                }
                match engine.await? {
                    Err(error) if error.is_of_the_source() || exact && error.is_unknown() => {
                        tracing::warn!(place = shown, %error, "not from there");
                        if !error.is_unknown() {
                            last = Some(error);
                        }
                    }
                    Ok(done) if !exact => {
                        tracing::warn!(
                            "the image that the slot was to hold is not to be had: another one is taken"
                        );
                        return Ok(done);
                    }
                    done => return done,
                }
            }
        }
        Err(last.expect("there is at least one place, and each came to an error"))
    }

    fn places(&self, image: Option<&str>) -> Vec<Place> {
        if let Some(image) = image {
            return Vec::from([Place::of(image)]);
        }
        let config = &self.board.config;
        let name = self.component.name.as_str();
        let configured = configured_images(config, &self.component);
        let mut places: Vec<Place> = configured.map(Place::Url).collect();
        if self.with_state {
            let origins = Origins::in_folder(&config.state_dir);
            let known = origins.of(name, self.slot, None);
            places.extend(known.into_iter().map(Place::Url));
        }
        if places.is_empty() {
            places.push(Place::Nowhere);
        }
        places
    }

    fn carry_out(
        &self,
        source: &mut RepairSource,
        exact: bool,
        mut observe: impl FnMut(Progress),
    ) -> Result<String, RepairOrderError> {
        let board = &*self.board;
        let mut flash = Board::flash(&self.component, self.slot)?;
        let mut donors = board.donors(&self.component, self.slot);
        let mut boot = board.boot()?;
        let mut store = RecoveryStore::open(board, self.with_state);
        let mut transfer = Transfer::default();
        transfer.max_download = board.config.update.max_download;
        let request = RecoverRequest {
            component: &self.component.name,
            slot: self.slot,
            device_type: &board.config.device.device_type,
            hardware: board.config.device.hardware.as_deref(),
            installed: &[],
            trust: &board.trust,
            exact,
            now: None,
            transfer,
        };
        let mut parts = Parts {
            flash: &mut flash,
            donors: &mut donors,
            boot: &mut boot,
            store: &mut store,
        };
        match recover(&request, &mut parts, source, &mut observe) {
            Ok(Recovered::Whole(manifest)) => Ok(format!("whole: build {}", manifest.build)),
            Ok(Recovered::Recovered {
                manifest, report, ..
            }) => Ok(format!(
                "recovered: build {}, {} bytes written, {} fetched",
                manifest.build, report.written, report.fetched
            )),
            Ok(other) => Ok(format!("{other:?}")),
            Err(error) => Err(RepairOrderError::Repair(Box::new(error))),
        }
    }
}

/// The state where there is one; otherwise nothing is known and nothing kept.
#[derive(Debug)]
struct RecoveryStore {
    records: Option<Records>,
    /// What stands in for them.
    known: State,
}

impl RecoveryStore {
    fn open(board: &Board, with_state: bool) -> Self {
        let mut records = Some(board.store()).filter(|_| with_state);
        if let Some(Err(error)) = records.as_mut().map(Records::load) {
            tracing::warn!(%error, "recovering without the state");
            records = None;
        }
        Self {
            records,
            known: State::default(),
        }
    }
}

impl Store for RecoveryStore {
    type Error = FileStoreError;

    fn load(&mut self) -> Result<Loaded, FileStoreError> {
        match &mut self.records {
            Some(records) => records.load(),
            None => Ok(Loaded::new(self.known.clone(), None)),
        }
    }

    fn commit(&mut self, state: &State) -> Result<(), FileStoreError> {
        match &mut self.records {
            Some(records) => records.commit(state),
            None => {
                self.known.clone_from(state);
                Ok(())
            }
        }
    }
}
