//! The image over HTTP, for the blocking pump: the pump asks for ranges from its thread, a task
//! fetches them and asks again where it was cut off.

use core::ops::Range;
use core::time::Duration;

use bytes::{Buf, Bytes};
use rekindle_update::Source;
use tokio::sync::mpsc;

use crate::client::{FetchError, RangeReader};

/// The pump's end.
#[derive(Debug)]
pub(crate) struct RemoteImage {
    asks: mpsc::Sender<Ask>,
    body: Option<mpsc::Receiver<Result<Bytes, FetchError>>>,
    rest: Bytes,
}

/// The task's end.
#[derive(Debug)]
pub(crate) struct Asks(mpsc::Receiver<Ask>);

#[derive(Debug)]
struct Ask {
    range: Range<u64>,
    body: mpsc::Sender<Result<Bytes, FetchError>>,
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

/// Makes both ends.
pub(crate) fn remote_image() -> (RemoteImage, Asks) {
    let (asks, receiver) = mpsc::channel(1);
    (
        RemoteImage {
            asks,
            body: None,
            rest: Bytes::new(),
        },
        Asks(receiver),
    )
}

impl Source for RemoteImage {
    type Error = RemoteError;

    fn open(&mut self, range: Range<u64>) -> Result<(), RemoteError> {
        let (sender, body) = mpsc::channel(PIECES);
        self.rest = Bytes::new();
        self.body = Some(body);
        self.asks
            .blocking_send(Ask {
                range,
                body: sender,
            })
            .map_err(|_closed| RemoteError::Stopping)
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

impl Asks {
    /// Fetches what is asked for until the pump is gone.
    pub(crate) async fn serve(mut self, reader: &RangeReader) {
        while let Some(ask) = self.0.recv().await {
            if let Err(error) = deliver(reader, &ask).await {
                // The pump may have gone, or have asked for something else: then it wants none.
                let _: Result<(), _> = ask.body.send(Err(error)).await;
            }
        }
    }
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
