use alloc::sync::Arc;
use core::num::NonZeroU64;
use core::ops::Range;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, ready};
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::task::JoinHandle;

use crate::folder::{OpenFile, Stamp};
use crate::record::Record;

/// The body of an answer. When it is dropped, sent or not, the request is logged.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    record: Record,
}

impl Body {
    pub(crate) fn new(content: Content, record: Record) -> Self {
        Self { content, record }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let piece = match &mut self.content {
            Content::Empty => None,
            Content::Text(text) => (!text.is_empty()).then(|| Ok(core::mem::take(text))),
            Content::File(file) => ready!(file.poll_piece(context)),
        };
        match &piece {
            Some(Ok(piece)) => self.record.sent(piece.len()),
            Some(Err(error)) => self.record.failed(error),
            None => {}
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.content.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.len())
    }
}

/// What a body is made of.
#[derive(Debug)]
pub(crate) enum Content {
    Empty,
    Text(Bytes),
    File(FileContent),
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Text(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
            Self::File(file) => file.left(),
        }
    }
}

/// Why a body ended before its end. The client sees the connection close before all of `Content-Length` came.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// The rest belongs to another file than the beginning.
    #[error("the file changed while it was sent")]
    Changed,
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    #[error("the read was abandoned")]
    Abandoned,
}

/// A range of a file, read piece by piece on the blocking pool, one piece ahead of the client.
#[derive(Debug)]
pub(crate) struct FileContent {
    file: Arc<File>,
    /// The file when the headers were made.
    stamp: Stamp,
    /// What no read has been started for.
    unread: Range<u64>,
    reading: Option<Reading>,
    buffers: Arc<Buffers>,
    place: DownloadPlace,
}

#[derive(Debug)]
struct Reading {
    len: u64,
    task: JoinHandle<Result<Vec<u8>, SendError>>,
}

impl FileContent {
    pub(crate) fn new(opened: OpenFile, range: Range<u64>, downloads: &Downloads) -> Self {
        if range.end - range.start > READ_AHEAD_HINT {
            // It only speeds things up.
            let _ = rustix::fs::fadvise(
                &opened.file,
                range.start,
                NonZeroU64::new(range.end - range.start),
                rustix::fs::Advice::Sequential,
            );
        }
        Self {
            file: Arc::new(opened.file),
            stamp: opened.stamp,
            unread: range,
            reading: None,
            buffers: Arc::default(),
            place: downloads.enter(),
        }
    }

    fn left(&self) -> u64 {
        self.unread.end - self.unread.start + self.reading.as_ref().map_or(0, |reading| reading.len)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, SendError>>> {
        if self.reading.is_none() {
            self.read_next();
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let result = ready!(Pin::new(&mut reading.task).poll(context));
        self.reading = None;
        let piece = match result {
            Ok(Ok(buffer)) => {
                self.read_next();
                Ok(self.buffers.lend(buffer))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SendError::Abandoned),
        };
        Poll::Ready(Some(piece))
    }

    fn read_next(&mut self) {
        let piece_len = self.place.piece_len();
        let start = self.unread.start;
        let len = (self.unread.end - start).min(u64::try_from(piece_len).unwrap_or(u64::MAX));
        let Ok(wanted) = usize::try_from(len) else {
            return;
        };
        if wanted == 0 {
            return;
        }
        self.unread.start += len;
        let buffer = self.buffers.take(wanted, piece_len);
        let (file, stamp) = (Arc::clone(&self.file), self.stamp);
        let task =
            tokio::task::spawn_blocking(move || read_piece(&file, stamp, start, wanted, buffer));
        self.reading = Some(Reading { len, task });
    }
}

fn read_piece(
    file: &File,
    stamp: Stamp,
    start: u64,
    wanted: usize,
    mut buffer: Vec<u8>,
) -> Result<Vec<u8>, SendError> {
    let mut offset = start;
    while buffer.len() < wanted {
        let spare = rustix::buffer::spare_capacity(&mut buffer);
        match rustix::io::pread(file, spare, offset) {
            Ok(0) => return Err(SendError::Changed),
            Ok(read) => offset += u64::try_from(read).unwrap_or(u64::MAX),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SendError::Read(error.into())),
        }
    }
    buffer.truncate(wanted);
    // After the read: a change before it shows in the stamp, a change after it does not matter to this piece.
    if Stamp::of_file(file).map_err(SendError::Read)? != stamp {
        return Err(SendError::Changed);
    }
    Ok(buffer)
}

/// Counts the downloads under way, which share what memory there is for pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Downloads(Arc<AtomicUsize>);

impl Downloads {
    fn enter(&self) -> DownloadPlace {
        self.0.fetch_add(1, Ordering::Relaxed);
        DownloadPlace(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct DownloadPlace(Arc<AtomicUsize>);

impl DownloadPlace {
    /// Large pieces cost fewer switches between threads; many downloads are bounded by the link anyway. A download holds at
    /// most three pieces, so that 16 of the first kind, 112 of the second and 128 of the third hold 38 MiB.
    fn piece_len(&self) -> usize {
        match self.0.load(Ordering::Relaxed) {
            0..=16 => 256 * 1024,
            17..=128 => 64 * 1024,
            _ => 16 * 1024,
        }
    }
}

impl Drop for DownloadPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The buffers of one download. They come back when the client has taken them, so that a piece costs no page faults.
#[derive(Debug, Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Returns an empty buffer that holds `wanted` bytes, and not much more than `most`.
    fn take(&self, wanted: usize, most: usize) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut buffer) = free.pop() {
            // A larger one dates from when there were fewer downloads.
            if (wanted..=most).contains(&buffer.capacity()) {
                buffer.clear();
                return buffer;
            }
        }
        Vec::with_capacity(wanted)
    }

    fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent {
            buffer,
            owner: Arc::clone(self),
        })
    }
}

struct Lent {
    buffer: Vec<u8>,
    owner: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = core::mem::take(&mut self.buffer);
        self.owner
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}

/// From here on telling the kernel pays.
const READ_AHEAD_HINT: u64 = 1024 * 1024;
