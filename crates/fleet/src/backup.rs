use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, EXPECT, TRANSFER_ENCODING};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;
use tokio::time::Instant;

use crate::config::Limits;
use crate::folder::{Folder, kind_of, names_alike};
use crate::pace::{Pace, TooSlow};
use crate::path::SitePath;
use crate::record::Record;

/// The folder that devices upload their configuration to.
///
/// A backup `name` keeps its old versions beside it: `name.1` is the one before, `name.N` the oldest. The same content again
/// makes no new version. At every moment `name`, once stored, is a whole upload.
#[derive(Debug)]
pub(crate) struct Backups {
    folder: Arc<Folder>,
    versions: u16,
    limits: Limits,
    /// Held while versions move: two uploads of one name must not mix their steps.
    commit: Mutex<()>,
}

impl Backups {
    pub(crate) fn new(folder: Arc<Folder>, versions: u16, limits: Limits) -> Self {
        Self {
            folder,
            versions,
            limits,
            commit: Mutex::new(()),
        }
    }

    /// Takes the body of a PUT and stores it under a path that lies below the backup folder.
    pub(crate) async fn store(
        self: Arc<Self>,
        path: SitePath,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Stored, PutError> {
        if let Err(error) = self.check_head(&path, &request) {
            discard(request).await;
            return Err(error);
        }
        let this = Arc::clone(&self);
        let upload = match blocking(move || this.begin(&path)).await {
            Ok(upload) => upload,
            Err(error) => {
                discard(request).await;
                return Err(error);
            }
        };
        let upload = self.receive(upload, request.into_body(), record).await?;
        blocking(move || self.commit(upload)).await
    }

    fn check_head(&self, path: &SitePath, request: &Request<Incoming>) -> Result<(), PutError> {
        let headers = request.headers();
        if headers.contains_key(CONTENT_RANGE) {
            return Err(PutError::Partial);
        }
        if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
            return Err(PutError::NoLength);
        }
        if request.body().size_hint().lower() > self.limits.backup_bytes {
            return Err(PutError::TooLarge {
                limit: self.limits.backup_bytes,
            });
        }
        // Such a name is most likely encoded twice.
        if path
            .names()
            .iter()
            .any(|name| name.as_bytes().contains(&b'%'))
        {
            return Err(PutError::EncodedTwice);
        }
        Ok(())
    }

    /// Finds the place and opens a temporary file in it. Blocking.
    fn begin(&self, path: &SitePath) -> Result<Upload, PutError> {
        let folder = self.folder.open_parent(path)?.ok_or(PutError::NoFolder)?;
        let space = rustix::fs::fstatvfs(&folder).map_err(io::Error::from)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free
            < self
                .limits
                .backup_bytes
                .saturating_add(self.limits.keep_free_bytes)
        {
            return Err(PutError::DiskFull);
        }
        let name = self.name_in(&folder, path.split().1)?;
        let temporary = Temporary::create(folder)?;
        Ok(Upload { temporary, name })
    }

    /// Returns the name as it is spelled on the disk already, or as asked for.
    fn name_in(&self, folder: &OwnedFd, asked: &OsStr) -> Result<OsString, PutError> {
        let mut name = asked.to_owned();
        if kind_of(folder, asked)?.is_none()
            && let Some(alike) = names_alike(folder, asked)?.into_iter().next()
        {
            name = alike;
        }
        match kind_of(folder, &name)? {
            Some(FileType::RegularFile) | None => {}
            Some(_) => return Err(PutError::NotAFile),
        }
        if let Some(base) = self.base_of_version(&name)
            && (kind_of(folder, base)?.is_some() || !names_alike(folder, base)?.is_empty())
        {
            return Err(PutError::IsAVersion);
        }
        Ok(name)
    }

    /// Returns `name` of `name.3`, if versions go that far.
    fn base_of_version<'a>(&self, name: &'a OsStr) -> Option<&'a OsStr> {
        let bytes = name.as_bytes();
        let dot = bytes.iter().rposition(|byte| *byte == b'.')?;
        let number: u16 = core::str::from_utf8(&bytes[dot + 1..]).ok()?.parse().ok()?;
        (1..=self.versions)
            .contains(&number)
            .then(|| OsStr::from_bytes(&bytes[..dot]))
    }

    async fn receive(
        &self,
        mut upload: Upload,
        mut body: Incoming,
        record: &mut Record,
    ) -> Result<Upload, PutError> {
        let limit = self.limits.backup_bytes;
        let end = Instant::now() + self.limits.upload_time;
        let mut pace = Pace::new(&self.limits);
        let mut received = 0;
        let mut piece = Vec::new();
        loop {
            let now = Instant::now();
            if now >= end {
                return Err(PutError::TooLong);
            }
            let deadline = pace.wait(now)?.min(end);
            let Ok(frame) = tokio::time::timeout_at(deadline, body.frame()).await else {
                continue;
            };
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(PutError::Broken)?.into_data() else {
                continue;
            };
            pace.progress(Instant::now(), data.len());
            received += u64::try_from(data.len()).unwrap_or(u64::MAX);
            record.received(received);
            if received > limit {
                drain(body).await;
                return Err(PutError::TooLarge { limit });
            }
            piece.extend_from_slice(&data);
            if piece.len() >= WRITE_BYTES {
                (upload, piece) = write(upload, piece).await?;
            }
        }
        record.received(received);
        (upload, _) = write(upload, piece).await?;
        Ok(upload)
    }

    /// Makes the temporary file the backup. Blocking.
    fn commit(&self, upload: Upload) -> Result<Stored, PutError> {
        let Upload {
            mut temporary,
            name,
        } = upload;
        temporary.file.sync_all()?;
        let guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match rustix::fs::openat(
            &temporary.folder,
            &name,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(old) => Some(File::from(old)),
            Err(Errno::NOENT) => None,
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(PutError::NotAFile),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let stored = match old {
            None => Stored::New,
            Some(old) => {
                if !is_same(&old, &temporary.file)? {
                    self.keep_old(&temporary.folder, &name, &old)?;
                }
                Stored::Replaced
            }
        };
        rustix::fs::renameat(&temporary.folder, &temporary.name, &temporary.folder, &name)
            .map_err(io::Error::from)?;
        temporary.is_left = false;
        drop(guard);
        rustix::fs::fsync(&temporary.folder).map_err(io::Error::from)?;
        Ok(stored)
    }

    /// Moves `name.1` to `name.2` and so on up to the first gap, and makes the present content `name.1`.
    ///
    /// `name` itself stays where it is until the new content takes its place, so that a cut in between loses nothing.
    fn keep_old(&self, folder: &OwnedFd, name: &OsStr, old: &File) -> io::Result<()> {
        if self.versions == 0 {
            return Ok(());
        }
        let first = version_name(name, 1);
        // A cut came after the last step below and before the rename: it is kept already.
        if let Ok(stat) = rustix::fs::statat(folder, &first, AtFlags::SYMLINK_NOFOLLOW)
            && stat.st_ino == old.metadata()?.ino()
        {
            return Ok(());
        }
        let mut gap = 1;
        while gap < self.versions && kind_of(folder, &version_name(name, gap))?.is_some() {
            gap += 1;
        }
        for number in (1..gap).rev() {
            let (from, to) = (version_name(name, number), version_name(name, number + 1));
            rustix::fs::renameat(folder, &from, folder, &to)?;
        }
        match rustix::fs::unlinkat(folder, &first, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::fs::linkat(folder, name, folder, &first, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // File systems without links: for a moment there is only `name.1`.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                Ok(rustix::fs::renameat(folder, name, folder, &first)?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    New,
    Replaced,
}

/// Why an upload was not stored. The text goes to the client.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    #[error("a part of a file cannot be uploaded, only a whole one")]
    Partial,
    #[error("an upload needs a Content-Length or the chunked encoding")]
    NoLength,
    #[error("the upload is larger than the {limit} bytes that this server takes")]
    TooLarge { limit: u64 },
    #[error("the name is encoded twice: \"%25\" stands in it")]
    EncodedTwice,
    #[error("the folder does not exist: create it on the server first")]
    NoFolder,
    #[error("something that is no file has this name")]
    NotAFile,
    #[error("this is the name of an old version that the server keeps: choose another one")]
    IsAVersion,
    #[error("the server has no space left for backups")]
    DiskFull,
    #[error("the upload was too slow")]
    Slow(#[from] TooSlow),
    #[error("the upload took too long as a whole")]
    TooLong,
    #[error("the upload ended early")]
    Broken(#[source] hyper::Error),
    #[error("the server cannot store the upload: see its log")]
    Io(#[from] io::Error),
}

impl PutError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Partial | Self::EncodedTwice | Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::NoLength => StatusCode::LENGTH_REQUIRED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoFolder | Self::NotAFile | Self::IsAVersion => StatusCode::CONFLICT,
            Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Slow(_) | Self::TooLong => StatusCode::REQUEST_TIMEOUT,
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Reads and drops a bounded part of a body that will not be stored, since a client that is still sending when the
/// connection closes may never see the answer.
pub(crate) async fn discard(request: Request<Incoming>) {
    // That client waits for our word before it sends, and reading would give it.
    if !request.headers().contains_key(EXPECT) {
        drain(request.into_body()).await;
    }
}

async fn drain(mut body: Incoming) {
    let draining = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, |data| data.len());
            left = left.saturating_sub(len);
            if left == 0 {
                break;
            }
        }
    };
    // Either way the answer follows.
    let _ = tokio::time::timeout(DISCARD_TIME, draining).await;
}

/// Removes temporary files that no running upload holds, in the backup folder and below it.
pub(crate) fn remove_leftovers(folder: OwnedFd) {
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = Dir::read_from(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let open = |flags: OFlags| {
                let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&folder, name, flags | OFlags::NONBLOCK, Mode::empty())
            };
            if name.as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
                if let Ok(file) = open(OFlags::empty())
                    && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                {
                    let removed = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
                    tracing::info!(file = ?name, done = removed.is_ok(), "removed an unfinished upload");
                }
            } else if !name.as_bytes().starts_with(b".")
                && folders.len() < MAX_OPEN_FOLDERS
                && let Ok(below) = open(OFlags::DIRECTORY)
            {
                folders.push(below);
            }
        }
    }
}

/// An upload under way.
#[derive(Debug)]
struct Upload {
    temporary: Temporary,
    name: OsString,
}

/// A hidden file that is removed when the upload is given up. Locked, so that another server's start leaves it alone.
#[derive(Debug)]
struct Temporary {
    folder: OwnedFd,
    name: OsString,
    file: File,
    is_left: bool,
}

impl Temporary {
    fn create(folder: OwnedFd) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
            let flags =
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&folder, &name, flags, Mode::from(0o640)) {
                Ok(file) => {
                    let file = File::from(file);
                    // Where locks do not work, so does nothing that would mind.
                    let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Self {
                        folder,
                        name,
                        file,
                        is_left: true,
                    });
                }
                // Left by a process of the same number.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_left {
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

async fn write(mut upload: Upload, mut piece: Vec<u8>) -> Result<(Upload, Vec<u8>), PutError> {
    blocking(move || {
        upload.temporary.file.write_all(&piece)?;
        piece.clear();
        Ok((upload, piece))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PutError> + Send + 'static,
) -> Result<T, PutError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn version_name(name: &OsStr, number: u16) -> OsString {
    let mut version = name.to_owned();
    version.push(format!(".{number}"));
    version
}

fn is_same(old: &File, new: &File) -> io::Result<bool> {
    if old.metadata()?.len() != new.metadata()?.len() {
        return Ok(false);
    }
    let mut new_bytes = new;
    new_bytes.rewind()?;
    let mut old = io::BufReader::new(old).bytes();
    for byte in io::BufReader::new(new_bytes).bytes() {
        let Some(old) = old.next() else {
            return Ok(false);
        };
        if byte? != old? {
            return Ok(false);
        }
    }
    Ok(old.next().is_none())
}

/// Hidden names are never served and never accepted, so no request can meet one of these.
const TEMPORARY_PREFIX: &str = ".rekindle-upload-";

/// What is gathered before it is written.
const WRITE_BYTES: usize = 32 * 1024;

/// More than a device sends before it looks for an answer.
const DISCARD_BYTES: usize = 8 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Bounds the files that the clean-up at the start keeps open.
const MAX_OPEN_FOLDERS: usize = 128;
