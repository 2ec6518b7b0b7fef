//! The image over HTTP, for the blocking pump: the pump asks for ranges from its thread, a task
//! fetches them, some at a time, and asks again where it was cut off.

use alloc::collections::VecDeque;
use core::ops::Range;
use core::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rekindle_update::Source;
use tokio::sync::mpsc;

use crate::client::{FetchError, RangeReader};

/// The pump's end.
#[derive(Debug)]
pub(crate) struct RemoteImage {
    asks: mpsc::UnboundedSender<Ask>,
    body: Option<Body>,
    /// Asked for already, in the order in which they will be opened.
    announced: VecDeque<(Range<u64>, Body)>,
    rest: Bytes,
}

type Body = mpsc::Receiver<Result<Bytes, FetchError>>;

/// The task's end.
#[derive(Debug)]
pub(crate) struct Asks(mpsc::UnboundedReceiver<Ask>);

#[derive(Debug)]
struct Ask {
    range: Range<u64>,
    body: mpsc::Sender<Result<Bytes, FetchError>>,
    /// The pump waits for it.
    is_urgent: bool,
}

/// What may be asked for at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) requests: usize,
    pub(crate) bytes: u64,
}

/// Why the pump got no bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The server or the way to it failed, and asking again did not help.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

impl RemoteError {
    /// Whether the answer is no: more would have to come than the configuration lets come.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Budget { .. }))
    }
}

/// Makes both ends.
pub(crate) fn remote_image() -> (RemoteImage, Asks) {
    // What is in it is bounded by how far ahead the machine announces.
    let (asks, receiver) = mpsc::unbounded_channel();
    (
        RemoteImage {
            asks,
            body: None,
            announced: VecDeque::new(),
            rest: Bytes::new(),
        },
        Asks(receiver),
    )
}

impl RemoteImage {
    /// `None`: the agent is stopping.
    fn ask(&self, range: Range<u64>, is_urgent: bool) -> Option<Body> {
        let (body, receiver) = mpsc::channel(PIECES);
        let ask = Ask {
            range,
            body,
            is_urgent,
        };
        self.asks.send(ask).ok().map(|()| receiver)
    }
}

impl Source for RemoteImage {
    type Error = RemoteError;

    fn announce(&mut self, ranges: &[Range<u64>]) {
        let mut before = core::mem::take(&mut self.announced);
        for range in ranges {
            match before.pop_front() {
                Some(asked) if asked.0 == *range => self.announced.push_back(asked),
                _ => {
                    before.clear();
                    let body = self.ask(range.clone(), false);
                    self.announced
                        .extend(body.map(|body| (range.clone(), body)));
                }
            }
        }
    }

    fn open(&mut self, range: Range<u64>) -> Result<(), RemoteError> {
        self.rest = Bytes::new();
        self.body = None;
        let announced = self
            .announced
            .front()
            .is_some_and(|(asked, _)| *asked == range);
        let body = if announced {
            self.announced.pop_front().map(|(_, body)| body)
        } else {
            self.ask(range, true)
        };
        self.body = Some(body.ok_or(RemoteError::Stopping)?);
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, RemoteError> {
        if self.rest.is_empty() {
            let Some(body) = &mut self.body else {
                return Ok(0);
            };
            match body.blocking_recv() {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(0),
            }
        }
        let len = buf.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

impl Ask {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

impl Asks {
    /// Fetches what is asked for until the pump is gone, in the order in which it is asked for, some
    /// at a time: what comes later never keeps what comes earlier from being asked for.
    pub(crate) async fn serve(mut self, reader: &RangeReader, limit: InFlight) {
        let mut queue: VecDeque<Ask> = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        let mut bytes = 0_u64;
        loop {
            while let Some(ask) = queue.front() {
                let fits = under_way.len() < limit.requests
                    && bytes.saturating_add(ask.len()) <= limit.bytes;
                if !(fits || ask.is_urgent || under_way.is_empty() || ask.body.is_closed()) {
                    break;
                }
                if let Some(ask) = queue.pop_front().filter(|ask| !ask.body.is_closed()) {
                    bytes = bytes.saturating_add(ask.len());
                    under_way.push(answer(reader, ask));
                }
            }
            tokio::select! {
                ask = self.0.recv() => match ask {
                    None => return,
                    Some(ask) if ask.is_urgent => queue.push_front(ask),
                    Some(ask) => queue.push_back(ask),
                },
                Some(len) = under_way.next() => bytes = bytes.saturating_sub(len),
            }
        }
    }
}

/// Answers one ask, as long as the pump wants it; its length.
async fn answer(reader: &RangeReader, ask: Ask) -> u64 {
    tokio::select! {
        delivered = deliver(reader, &ask) => if let Err(error) = delivered {
            // The pump may have gone, or have asked for something else: then it wants none.
            let _: Result<(), _> = ask.body.send(Err(error)).await;
        },
        () = ask.body.closed() => {}
    }
    ask.len()
}

/// Sends a range piece by piece. Each failure that may pass is answered by asking again from where
/// the bytes ended; only failures without a byte in between are counted.
async fn deliver(reader: &RangeReader, ask: &Ask) -> Result<(), FetchError> {
    let mut position = ask.range.start;
    let mut failures = 0;
    // The pump asks for what the manifest says; a shorter file simply ends.
    let end = ask.range.end.min(reader.image_len());
    while position < end {
        let before = position;
        match deliver_once(reader, ask, &mut position, end).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.retryable() || matches!(error, FetchError::ImageChanged) => {
                return Err(error);
            }
            Err(error) => {
                failures = if position > before { 1 } else { failures + 1 };
                if failures > RETRIES {
                    return Err(error);
                }
                tracing::info!(%error, position, "asking for the rest of the image again");
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(failures - 1)).await;
            }
        }
    }
    Ok(())
}

async fn deliver_once(
    reader: &RangeReader,
    ask: &Ask,
    position: &mut u64,
    end: u64,
) -> Result<(), FetchError> {
    let mut body = reader.range(*position..end).await?;
    while let Some(piece) = body.chunk().await? {
        *position += u64::try_from(piece.len()).unwrap_or(0);
        if ask.body.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Pieces between task and pump: with those of hyper, of a few hundred KiB at the most, they bound
/// what an install holds in memory.
const PIECES: usize = 2;

/// Failures in a row that are forgiven. The next poll tries again anyway.
const RETRIES: u32 = 4;

/// Before the first retry; it doubles from there: 1, 2, 4, 8 seconds.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
