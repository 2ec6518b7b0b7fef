//! One install: the image from its source through the blocking engine into the free slot.

use alloc::sync::Arc;

use rekindle_flash::SlotId;
use rekindle_image::{Downgrade, Refusal};
use rekindle_state::{Door, FileStoreError};
use rekindle_update::{
    InstallError, Installed, Parts, Progress, Request, Source, Transfer, install, stage,
};

use super::board::{Board, BoardError, slots};
use super::chain;
use super::device_boot::DeviceBootError;
use super::origins::Origins;
use super::slot_flash::SlotFlashError;
use super::source::{InFlight, RemoteError, remote_image};
use crate::client::{Client, FetchError, RangeReader};
use crate::config::{ComponentConfig, Config, InPlace};

/// What is to be installed for whom.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) component: String,
    pub(crate) serial: Option<Vec<u8>>,
    pub(crate) door: Door,
    pub(crate) downgrade: Downgrade,
    pub(crate) now: Option<rekindle_state::UnixTime>,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The image cannot be reached.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The device is not as its configuration says.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The component has a single slot, and the device starts from it.
    #[error(
        "component {0} has one slot, which the device starts from; it cannot be updated while it \
         runs: give it a second slot, or a recovery environment and the section [recovery]"
    )]
    SingleSlot(String),
    /// The component has a single copy that no recovery environment can bring back.
    #[error(
        "component {0} has one copy, without which nothing starts; give it a second slot, or accept \
         that a power cut while it is written may leave the device dead: in-place = \"unsafe\""
    )]
    SingleLoader(String),
    /// Every slot of the component is in use.
    #[error("component {0} has no slot that neither runs nor is the fallback")]
    NoFreeSlot(String),
    /// The configuration has no such component.
    #[error("this device has no component {0}")]
    NoComponent(String),
    /// The engine refused or failed.
    #[error("{}", chain(&**.0))]
    Install(Box<InstallError<SlotFlashError, DeviceBootError, FileStoreError, RemoteError>>),
    /// The same from a local file.
    #[error("{}", chain(&**.0))]
    InstallFile(Box<InstallError<SlotFlashError, DeviceBootError, FileStoreError, std::io::Error>>),
    /// The engine's thread ended without an answer, which is a bug worth reporting.
    #[error("the install ended without an answer: {0}")]
    Lost(tokio::task::JoinError),
}

// By hand, since `#[from]` would make a source of what the text names already.
impl From<tokio::task::JoinError> for OrderError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Lost(error)
    }
}

impl OrderError {
    /// Whether the answer is no: the image, or this image on this device, is refused. Otherwise
    /// something could not be read, written or reached, and the same order may succeed later.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::SingleSlot(_)
            | Self::SingleLoader(_)
            | Self::NoFreeSlot(_)
            | Self::NoComponent(_) => true,
            Self::Fetch(error) => matches!(error, FetchError::Budget { .. }),
            Self::Board(_) | Self::Lost(_) => false,
            Self::Install(error) => is_refusal(error, RemoteError::is_refusal),
            Self::InstallFile(error) => is_refusal(error, |_cause| false),
        }
    }

    /// The number for `failed(<number>)`, where a server gave one.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Fetch(error) => Some(error.code()),
            Self::Install(error) => match &**error {
                InstallError::Source(RemoteError::Fetch(error)) => Some(error.code()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The component that the image's manifest names, where it is another one than was ordered.
    pub(crate) fn other_component(&self) -> Option<&str> {
        match self {
            Self::Install(error) => wrong_component(error),
            Self::InstallFile(error) => wrong_component(error),
            _ => None,
        }
    }
}

fn wrong_component<F, B, S, R>(error: &InstallError<F, B, S, R>) -> Option<&str> {
    match error {
        InstallError::Refused(Refusal::WrongComponent { image, .. }) => Some(image),
        _ => None,
    }
}

/// `source` judges what the source said.
pub(crate) fn is_refusal<F, B, S, R>(
    error: &InstallError<F, B, S, R>,
    source: impl FnOnce(&R) -> bool,
) -> bool {
    match error {
        InstallError::Flash(_) | InstallError::Boot(_) | InstallError::Store(_) => false,
        InstallError::Source(error) => source(error),
        _ => true,
    }
}

/// Installs from a URL. The caller holds the update lock.
pub(crate) async fn install_url(
    board: &Arc<Board>,
    client: &Client,
    url: &str,
    order: Order,
    observe: impl FnMut(Progress) + Send + 'static,
) -> Result<Installed, OrderError> {
    let place = Place::find(board, &order.component)?;
    let config = &board.config.update;
    let reader = RangeReader::open_within(client, url, config.max_download).await?;
    let limit = InFlight {
        requests: config.requests,
        bytes: config.in_flight,
    };
    let transfer = transfer(&reader, limit, config.max_download);
    let len = reader.image_len();
    let (mut source, asks) = remote_image();
    let engine = {
        let (board, order) = (Arc::clone(board), order.clone());
        tokio::task::spawn_blocking(move || {
            let image = (len, transfer);
            install_from(&board, &place, &order, image, &mut source, observe)
                .map(|answer| answer.map_err(|error| OrderError::Install(Box::new(error))))
        })
    };
    asks.serve(&reader, limit).await;
    let installed = engine.await???;
    remember_origin(board, &order.component, &installed, url);
    Ok(installed)
}

/// Notes where a slot's image came from, for a repair of it. An image that runs already is a place to
/// ask, too.
fn remember_origin(board: &Board, component: &str, installed: &Installed, url: &str) {
    let slot = match installed {
        Installed::Chosen(outcome) | Installed::InPlace(outcome) | Installed::Staged(outcome) => {
            Some(outcome.slot)
        }
        _ => board.running.slot(component),
    };
    let Some((component, slot)) = board.config.component(component).zip(slot) else {
        return;
    };
    let view = match installed {
        Installed::Staged(_) => board
            .boot_record()
            .ok()
            .and_then(|record| Board::next_view(component, &record))
            .map(|(_, view)| view),
        _ => Some(Board::view(component, slot)),
    };
    let Some(manifest) = view.and_then(|view| view.manifest()) else {
        return;
    };
    let origins = Origins::in_folder(&board.config.state_dir);
    if let Err(error) = origins.remember(&component.name, slot, &manifest, url) {
        tracing::warn!(%error, "a repair will not know where the image came from");
    }
}

/// How to fetch from this server.
pub(crate) fn transfer(
    reader: &RangeReader,
    limit: InFlight,
    max_download: Option<u64>,
) -> Transfer {
    let mut transfer = Transfer::default();
    transfer.max_download = max_download;
    transfer.at_hand = reader.at_hand();
    if reader.is_ranged() {
        transfer.ahead = limit.requests;
    } else {
        // The image comes from start to end whatever is asked.
        transfer.ahead = 0;
        transfer.join_gap = u64::MAX;
    }
    transfer
}

/// Installs from a local file. The caller holds the update lock.
pub(crate) async fn install_file(
    board: &Arc<Board>,
    mut file: FileImage,
    order: Order,
    observe: impl FnMut(Progress) + Send + 'static,
) -> Result<Installed, OrderError> {
    let place = Place::find(board, &order.component)?;
    let board = Arc::clone(board);
    let engine = tokio::task::spawn_blocking(move || {
        let image = (file.len, Transfer::default());
        install_from(&board, &place, &order, image, &mut file, observe)
            .map(|answer| answer.map_err(|error| OrderError::InstallFile(Box::new(error))))
    });
    engine.await??
}

type EngineError<E> = InstallError<SlotFlashError, DeviceBootError, FileStoreError, E>;

/// The outer error is the device's, the inner one the engine's.
fn install_from<R: Source>(
    board: &Board,
    place: &Place,
    order: &Order,
    (file_len, transfer): (u64, Transfer),
    source: &mut R,
    mut observe: impl FnMut(Progress),
) -> Result<Result<Installed, EngineError<R::Error>>, OrderError> {
    let record = board.boot_record()?;
    let running = board.running_pairs();
    let running_views = board.running_views();
    let running_manifest = running_views
        .iter()
        .find(|(component, ..)| component.name == order.component)
        .and_then(|(_, _, view)| view.manifest());
    // What runs, or what is staged to run with it after the next start.
    let installed: Vec<(&str, u64)> = board
        .config
        .components
        .iter()
        .filter_map(|component| {
            let (_, view) = Board::next_view(component, &record)?;
            let held = view.held?;
            Some((component.name.as_str(), held.manifest.release))
        })
        .collect();
    let mut flash = Board::flash(&place.component, place.target)?;
    let mut donors = board.donors(&place.component, place.target);
    let mut boot = board.boot()?;
    let mut store = board.store();
    let request = Request {
        component: &order.component,
        target: place.target,
        in_place: place.way == Way::InPlace,
        running: &running,
        running_manifest,
        device_type: &board.config.device.device_type,
        hardware: board.config.device.hardware.as_deref(),
        installed: &installed,
        trust: &board.trust,
        downgrade: order.downgrade,
        attempts: board.config.boot.attempts,
        serial: order.serial.as_deref(),
        door: order.door,
        now: order.now,
        file_len: Some(file_len),
        transfer,
    };
    let mut parts = Parts {
        flash: &mut flash,
        donors: &mut donors,
        boot: &mut boot,
        store: &mut store,
    };
    Ok(if place.way == Way::Stage {
        stage(&request, &mut parts, source, &mut observe)
    } else {
        install(&request, &mut parts, source, &mut observe)
    })
}

/// How an image comes into its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into a slot that is free, which is then chosen.
    Switch,
    /// Over what is there.
    InPlace,
    /// By the recovery environment.
    Stage,
}

impl Way {
    /// The way of a component with a single slot.
    pub(crate) fn of_single(
        config: &Config,
        component: &ComponentConfig,
    ) -> Result<Self, OrderError> {
        let name = component.name.as_str();
        // The first component is the system; these two start devices wherever they stand.
        let first = config.components.first();
        let system = first.is_some_and(|first| first.name == name);
        if component.in_place == InPlace::Unsafe {
            if system || name == "prot" || name == "boot" {
                tracing::warn!(component = name, "the only copy is overwritten in place");
            }
            Ok(Self::InPlace)
        } else if name == "boot" {
            Err(OrderError::SingleLoader(name.to_owned()))
        } else if !system && name != "prot" {
            Ok(Self::InPlace)
        } else if config.recovery.is_some() {
            Ok(Self::Stage)
        } else {
            Err(OrderError::SingleSlot(name.to_owned()))
        }
    }
}

/// Where an image of a component goes.
#[derive(Debug)]
struct Place {
    component: ComponentConfig,
    target: SlotId,
    way: Way,
}

impl Place {
    fn find(board: &Board, name: &str) -> Result<Self, OrderError> {
        let Some(component) = board.config.component(name) else {
            return Err(OrderError::NoComponent(name.to_owned()));
        };
        if component.slots.len() == 1 {
            return Ok(Self {
                component: component.clone(),
                target: SlotId::A,
                way: Way::of_single(&board.config, component)?,
            });
        }
        let record = board.boot_record()?;
        let confirmed = record.component(name).map(|component| component.confirmed);
        let running = board.running.slot(name);
        let free = slots(component).find(|slot| Some(*slot) != running && Some(*slot) != confirmed);
        match free {
            Some(target) => Ok(Self {
                component: component.clone(),
                target,
                way: Way::Switch,
            }),
            None => Err(OrderError::NoFreeSlot(name.to_owned())),
        }
    }
}

/// An image in a local file.
#[derive(Debug)]
pub(crate) struct FileImage {
    file: std::fs::File,
    len: u64,
    left: u64,
}

impl FileImage {
    pub(crate) fn open(path: &std::path::Path) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len, left: 0 })
    }
}

impl Source for FileImage {
    type Error = std::io::Error;

    fn open(&mut self, range: core::ops::Range<u64>) -> std::io::Result<()> {
        use std::io::Seek as _;
        self.left = range.end.saturating_sub(range.start);
        self.file
            .seek(std::io::SeekFrom::Start(range.start))
            .map(drop)
    }

    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        use std::io::Read as _;
        let len = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read(&mut buf[..len])?;
        self.left -= u64::try_from(got).unwrap_or(0);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_may_be_fetched_is_a_no_wherever_it_is_noticed() {
        let budget = || FetchError::Budget {
            needed: 2,
            limit: 1,
        };
        let late =
            |error| OrderError::Install(Box::new(InstallError::Source(RemoteError::Fetch(error))));
        assert!(OrderError::Fetch(budget()).is_refusal());
        assert!(late(budget()).is_refusal());
        assert!(!OrderError::Fetch(FetchError::Status(503)).is_refusal());
        assert!(!late(FetchError::Status(503)).is_refusal());
        let said = late(budget()).to_string();
        assert_eq!(said.matches("`update.max-download`").count(), 1, "{said}");
    }
}
