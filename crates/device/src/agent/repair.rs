//! Repair of slots: the engine on its thread, the image from where it may still be had.

use alloc::sync::Arc;
use core::ops::Range;
use std::path::Path;

use rekindle_flash::{Flash as _, SlotId};
use rekindle_image::Downgrade;
use rekindle_state::{Door, FileStoreError, UnixTime};
use rekindle_update::{
    Installed, OriginError, Parts, Progress, RepairError, RepairRequest, Repaired, Request, Source,
    Transfer, repair, repair_elsewhere,
};
use tokio::sync::{mpsc, oneshot};

use super::board::{Board, BoardError, slot_path, slots};
use super::chain;
use super::device_boot::DeviceBootError;
use super::install::{FileImage, is_refusal};
use super::mounts::{Users, users};
use super::origins::Origins;
use super::recover::configured_images;
use super::slot_flash::{SlotFlash, SlotFlashError};
use super::source::{Asks, InFlight, RemoteError, RemoteImage, remote_image};
use crate::client::{Client, FetchError, RangeReader};
use crate::config::{ComponentConfig, UpdateConfig};

/// What became of a slot that was to be repaired.
#[derive(Debug)]
pub(crate) enum SlotRepair {
    /// Nothing was wrong, or nothing is there.
    Fine(String),
    /// It is repaired.
    Done(String),
    /// Its image is in another slot now, which boots next.
    Moved(String),
}

impl SlotRepair {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Fine(text) | Self::Done(text) | Self::Moved(text) => text,
        }
    }
}

/// Why a slot was not repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairOrderError {
    /// The device is not as its configuration says.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The engine refused or failed.
    #[error("{}", chain(&**.0))]
    Repair(Box<EngineError>),
    /// The engine's thread ended without an answer, which is a bug worth reporting.
    #[error("the repair ended without an answer: {0}")]
    Lost(tokio::task::JoinError),
}

pub(super) type EngineError =
    RepairError<SlotFlashError, DeviceBootError, FileStoreError, RepairSourceError>;

// By hand, since `#[from]` would make a source of what the text names already.
impl From<tokio::task::JoinError> for RepairOrderError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Lost(error)
    }
}

impl RepairOrderError {
    /// Whether the answer is no; otherwise something could not be read, written or reached, and the
    /// same order may succeed later.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Board(_) | Self::Lost(_) => false,
            Self::Repair(error) => match &**error {
                RepairError::Flash(_) | RepairError::Boot(_) | RepairError::Store(_) => false,
                RepairError::Origin(OriginError::Image(error)) => {
                    is_refusal(error, RepairSourceError::is_refusal)
                }
                RepairError::Install(error) => is_refusal(error, RepairSourceError::is_refusal),
                _ => true,
            },
        }
    }

    /// Whether another place may have the image.
    pub(super) fn is_of_the_source(&self) -> bool {
        matches!(self, Self::Repair(error)
            if matches!(&**error, RepairError::Origin(_) | RepairError::Truncated(_)
                | RepairError::Converge(_)))
    }

    /// Whether nothing says which image the slot is to hold.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Repair(error) if matches!(&**error, RepairError::Unknown(_)))
    }
}

/// Where an image may be.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Url(String),
    File(std::path::PathBuf),
    /// Nobody knows; other slots may have what is damaged.
    Nowhere,
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&crate::status::shown_url(url)),
            Self::File(path) => path.display().fmt(f),
            Self::Nowhere => f.write_str("the other slots"),
        }
    }
}

impl Place {
    /// The image from there, and what has to serve it meanwhile.
    pub(super) fn open(self) -> (RepairSource, Option<LateService>) {
        match self {
            Self::Url(url) => {
                let (image, service) = late_image(url);
                (RepairSource::Url(image), Some(service))
            }
            Self::File(path) => (RepairSource::File { path, open: None }, None),
            Self::Nowhere => (RepairSource::Nowhere, None),
        }
    }

    pub(super) fn of(image: &str) -> Self {
        let scheme = image
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("http" | "https") => Self::Url(image.to_owned()),
            _ => Self::File(Path::new(image).to_owned()),
        }
    }
}

/// Repairs one slot from `image`, a file or URL, from where its image came from, or from where
/// `[recovery] images` points. The caller holds the update lock.
pub(crate) async fn repair_slot(
    board: &Arc<Board>,
    client: &Client,
    (component, slot): (&ComponentConfig, SlotId),
    image: Option<&str>,
    now: Option<UnixTime>,
    observe: impl FnMut(Progress) + Clone + Send + 'static,
) -> Result<SlotRepair, RepairOrderError> {
    if !slot_path(component, slot).exists() {
        return Ok(SlotRepair::Fine("empty".to_owned()));
    }
    let recorded = board.state()?;
    let recorded = recorded
        .slot(&component.name, slot)
        .map(|record| record.manifest);
    let held = Board::view(component, slot).manifest();
    let origins = Origins::in_folder(&board.config.state_dir);
    let mut places: Vec<_> = image.map(Place::of).into_iter().collect();
    let mut known = origins.of(&component.name, slot, held.or(recorded).as_ref());
    let configured = configured_images(&board.config, component);
    let configured: Vec<_> = configured.filter(|url| !known.contains(url)).collect();
    known.extend(configured);
    places.extend(known.into_iter().map(Place::Url));
    if places.is_empty() {
        places.push(Place::Nowhere);
    }
    let mut first = None;
    for place in places {
        let order = Order {
            board: Arc::clone(board),
            component: component.clone(),
            slot,
            now,
        };
        match repair_from(order, client, place, observe.clone()).await {
            Err(error) if error.is_of_the_source() => {
                first.get_or_insert(error);
            }
            done => return done,
        }
    }
    Err(first.expect("there is at least one place, and each came to an error"))
}

/// One attempt at a slot.
#[derive(Debug)]
struct Order {
    board: Arc<Board>,
    component: ComponentConfig,
    slot: SlotId,
    now: Option<UnixTime>,
}

async fn repair_from(
    order: Order,
    client: &Client,
    place: Place,
    observe: impl FnMut(Progress) + Send + 'static,
) -> Result<SlotRepair, RepairOrderError> {
    let (mut source, service) = place.open();
    let update = order.board.config.update.clone();
    let engine = tokio::task::spawn_blocking(move || order.carry_out(&mut source, observe));
    if let Some(service) = service {
        service.serve(client, &update).await;
    }
    engine.await?
}

impl Order {
    /// Repairs the slot. All that it opens is closed again when it returns: flash and boot control may
    /// be such that nobody else can open them meanwhile.
    fn repair_here(
        &self,
        source: &mut RepairSource,
        observe: &mut dyn FnMut(Progress),
    ) -> Result<Result<Repaired, EngineError>, RepairOrderError> {
        let board = &*self.board;
        let name = self.component.name.as_str();
        let running = board.running_pairs();
        let (mut flash, busy) = self.open()?;
        let mut donors = board.donors(&self.component, self.slot);
        let mut boot = board.boot()?;
        let mut store = board.store();
        let request = RepairRequest {
            component: name,
            slot: self.slot,
            in_place: self.is_in_place(),
            busy,
            running: &running,
            trust: &board.trust,
            transfer: self.transfer(),
        };
        let mut parts = Parts {
            flash: &mut flash,
            donors: &mut donors,
            boot: &mut boot,
            store: &mut store,
        };
        Ok(repair(&request, &mut parts, source, observe))
    }

    fn carry_out(
        &self,
        source: &mut RepairSource,
        mut observe: impl FnMut(Progress),
    ) -> Result<SlotRepair, RepairOrderError> {
        match self.repair_here(source, &mut observe)? {
            Ok(Repaired::Empty) => Ok(SlotRepair::Fine("empty".to_owned())),
            Ok(Repaired::Unfinished) => Ok(SlotRepair::Fine(
                "an install was begun there and has not ended; it is left to that".to_owned(),
            )),
            Ok(Repaired::Whole(manifest)) => {
                Ok(SlotRepair::Fine(format!("whole: build {}", manifest.build)))
            }
            Ok(Repaired::Repaired {
                manifest, report, ..
            }) => Ok(SlotRepair::Done(format!(
                "repaired: build {}, {} bytes written, {} fetched",
                manifest.build, report.written, report.fetched
            ))),
            Ok(other) => Ok(SlotRepair::Fine(format!("{other:?}"))),
            Err(RepairError::NeedsOtherSlot { image, .. }) => {
                self.move_image(&image, source, observe)
            }
            Err(error) => Err(RepairOrderError::Repair(Box::new(error))),
        }
    }

    /// Installs the slot's image into the slot that is free.
    fn move_image(
        &self,
        image: &[u8; 32],
        source: &mut RepairSource,
        mut observe: impl FnMut(Progress),
    ) -> Result<SlotRepair, RepairOrderError> {
        let board = &*self.board;
        let name = self.component.name.as_str();
        let record = board.boot_record()?;
        let confirmed = record.component(name).map(|component| component.confirmed);
        let target = slots(&self.component)
            .find(|slot| *slot != self.slot && Some(*slot) != confirmed)
            .unwrap_or(self.slot);
        let state = board.state()?;
        let serial = state.slot_serial(name, self.slot, image);
        let running = board.running_pairs();
        let mut flash = Board::flash(&self.component, target)?;
        let mut donors = board.donors(&self.component, target);
        let mut boot = board.boot()?;
        let mut store = board.store();
        let request = Request {
            component: name,
            target,
            in_place: false,
            running: &running,
            running_manifest: None,
            device_type: &board.config.device.device_type,
            hardware: board.config.device.hardware.as_deref(),
            // What the image requires was there when it was installed, and runs with it.
            installed: &self.installed(),
            trust: &board.trust,
            downgrade: Downgrade::Allow,
            attempts: board.config.boot.attempts,
            serial,
            door: Door::Local,
            now: self.now,
            file_len: None,
            transfer: self.transfer(),
        };
        let mut parts = Parts {
            flash: &mut flash,
            donors: &mut donors,
            boot: &mut boot,
            store: &mut store,
        };
        match repair_elsewhere(image, &request, &mut parts, source, &mut observe) {
            Ok(Installed::Chosen(outcome)) => Ok(SlotRepair::Moved(format!(
                "build {} cannot be repaired where it runs; it is in slot {} now, which starts at \
                 the next boot ({} bytes fetched)",
                outcome.manifest.build, outcome.slot, outcome.report.fetched
            ))),
            Ok(other) => Ok(SlotRepair::Done(format!("{other:?}"))),
            Err(error) => Err(RepairOrderError::Repair(Box::new(error))),
        }
    }

    fn installed(&self) -> Vec<(&str, u64)> {
        let board = &*self.board;
        let components = board.config.components.iter();
        components
            .filter_map(|component| {
                let slot = board.running.slot(&component.name)?;
                let held = Board::view(component, slot).held?;
                Some((component.name.as_str(), held.manifest.release))
            })
            .collect()
    }

    fn transfer(&self) -> Transfer {
        let mut transfer = Transfer::default();
        transfer.max_download = self.board.config.update.max_download;
        transfer
    }

    /// As an install has it: one copy, which the device does not start from.
    fn is_in_place(&self) -> bool {
        let name = self.component.name.as_str();
        let first = self.board.config.components.first();
        let system = first.is_some_and(|first| first.name == name);
        self.component.slots.len() == 1 && !system && name != "prot" && name != "boot"
    }

    /// The slot's flash, and whether its users keep it from being written.
    fn open(&self) -> Result<(SlotFlash, bool), RepairOrderError> {
        let path = slot_path(&self.component, self.slot);
        let failed = |cause| BoardError::Slot {
            component: self.component.name.clone(),
            slot: self.slot,
            path: path.to_owned(),
            cause,
        };
        let look = || SlotFlash::open_read_only(path).map_err(failed);
        if self.board.running.slot(&self.component.name) != Some(self.slot) {
            return Ok((Board::flash(&self.component, self.slot)?, false));
        }
        let seen = look()?;
        if seen.geometry().erase_size > 0 && !self.is_in_place() {
            return Ok((seen, false));
        }
        let size = self.component.size;
        let opened = match users(path) {
            Ok(Users::None) => SlotFlash::open(path, size),
            Ok(Users::Readers) => SlotFlash::open_shared(path),
            Ok(Users::Writers) => {
                tracing::warn!(path = %path.display(), "mounted for writing: not repaired in place");
                return Ok((seen, true));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "it cannot be told who uses the slot");
                return Ok((seen, true));
            }
        };
        match opened {
            Ok(flash) => Ok((flash, false)),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the slot that runs cannot be written"
                );
                Ok((seen, true))
            }
        }
    }
}

/// The image, wherever it is. Nothing is opened before it is asked for.
#[derive(Debug)]
pub(crate) enum RepairSource {
    Url(LateImage),
    File {
        path: std::path::PathBuf,
        open: Option<FileImage>,
    },
    Nowhere,
}

/// Why a repair got no bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairSourceError {
    /// The server or the way to it failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The file failed.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Nobody knows where the image is: name a file or URL.
    #[error("it is not known where the image came from; name it: rekindled repair IMAGE")]
    Nowhere,
}

impl RepairSourceError {
    fn is_refusal(&self) -> bool {
        match self {
            Self::Remote(error) => error.is_refusal(),
            Self::File { .. } => false,
            Self::Nowhere => true,
        }
    }
}

impl Source for RepairSource {
    type Error = RepairSourceError;

    fn announce(&mut self, ranges: &[Range<u64>]) {
        if let Self::Url(image) = self {
            image.announce(ranges);
        }
    }

    fn open(&mut self, range: Range<u64>) -> Result<(), RepairSourceError> {
        match self {
            Self::Url(image) => Ok(image.open(range)?),
            Self::File { path, open } => {
                let file = |cause| RepairSourceError::File {
                    path: path.clone(),
                    cause,
                };
                if open.is_none() {
                    *open = Some(FileImage::open(path).map_err(file)?);
                }
                match open {
                    Some(image) => image.open(range).map_err(file),
                    None => Err(RepairSourceError::Nowhere),
                }
            }
            Self::Nowhere => Err(RepairSourceError::Nowhere),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, RepairSourceError> {
        match self {
            Self::Url(image) => Ok(image.inner.read(buf)?),
            Self::File {
                path,
                open: Some(image),
            } => image.read(buf).map_err(|cause| RepairSourceError::File {
                path: path.clone(),
                cause,
            }),
            Self::File { open: None, .. } | Self::Nowhere => Err(RepairSourceError::Nowhere),
        }
    }
}

/// An image over HTTP whose server is first asked when something of it is wanted.
#[derive(Debug)]
pub(crate) struct LateImage {
    inner: RemoteImage,
    connects: mpsc::Sender<Connect>,
    connected: bool,
}

type Connect = oneshot::Sender<Result<(), FetchError>>;

/// The task's end of it.
#[derive(Debug)]
pub(super) struct LateService {
    url: String,
    asks: Asks,
    connects: mpsc::Receiver<Connect>,
}

fn late_image(url: String) -> (LateImage, LateService) {
    let (inner, asks) = remote_image();
    let (sender, connects) = mpsc::channel(1);
    let image = LateImage {
        inner,
        connects: sender,
        connected: false,
    };
    (
        image,
        LateService {
            url,
            asks,
            connects,
        },
    )
}

impl LateImage {
    fn announce(&mut self, ranges: &[Range<u64>]) {
        if self.connected {
            self.inner.announce(ranges);
        }
    }

    fn open(&mut self, range: Range<u64>) -> Result<(), RemoteError> {
        if !self.connected {
            let (answer, answered) = oneshot::channel();
            self.connects
                .blocking_send(answer)
                .map_err(|_closed| RemoteError::Stopping)?;
            answered
                .blocking_recv()
                .map_err(|_closed| RemoteError::Stopping)??;
            self.connected = true;
        }
        self.inner.open(range)
    }
}

impl LateService {
    /// Serves until the engine is done with the image.
    pub(super) async fn serve(mut self, client: &Client, config: &UpdateConfig) {
        let limit = InFlight {
            requests: config.requests,
            bytes: config.in_flight,
        };
        while let Some(answer) = self.connects.recv().await {
            match RangeReader::open_within(client, &self.url, config.max_download).await {
                Ok(reader) => {
                    // The engine may have gone; then it asks for nothing.
                    let _: Result<(), _> = answer.send(Ok(()));
                    self.asks.serve(&reader, limit).await;
                    return;
                }
                Err(error) => {
                    let _: Result<(), _> = answer.send(Err(error));
                }
            }
        }
    }
}
