//! Byte ranges of one image: the first request learns its length and version, the later ones ask for
//! that version only.

use alloc::sync::Arc;
use core::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::Response;

use super::flow::Flow;
use super::meter::{Meter, Reserved};
use super::{Client, FetchError, text_header};

/// Reads byte ranges of the image under one URL, always of the same version of it.
///
/// The first request asks for the first 32 KiB, where header, manifest and the start of the table lie;
/// they are kept, so asking for them again costs nothing. A server that ignores ranges is read from
/// start to end instead: each range must then begin at or after the end of the one before, and what
/// lies between is read and dropped.
#[derive(Debug)]
pub struct RangeReader {
    origin: Arc<Origin>,
}

/// What is the same for every request of one reader.
#[derive(Debug)]
struct Origin {
    client: Client,
    url: String,
    meter: Arc<Meter>,
    version: Version,
    /// The server answers ranges.
    ranged: bool,
    /// The first bytes of the image; empty where the server ignores ranges.
    prefix: Bytes,
    /// The whole image under way, where the server ignores ranges and no body is reading it.
    parked: Mutex<Option<Stream>>,
}

impl RangeReader {
    /// Makes the first request.
    ///
    /// # Errors
    ///
    /// The image cannot be reached, is empty, has no length, or the answer breaks the rules of ranges.
    pub async fn open(client: &Client, url: &str) -> Result<Self, FetchError> {
        Self::open_within(client, url, None).await
    }

    /// Makes the first request; all requests together read at most `max_download` bytes of bodies.
    ///
    /// A range is held against the limit before it is asked for, and the rest of one that is cut off or
    /// dropped does not count. A server that ignores ranges sends the whole image or nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`FetchError::Budget`].
    pub async fn open_within(
        client: &Client,
        url: &str,
        max_download: Option<u64>,
    ) -> Result<Self, FetchError> {
        let asked = 0..OPENING;
        let meter = Meter::new(max_download);
        let reserved = meter.reserve(OPENING)?;
        let response = client.get(url, range_headers(&asked, None)).await?;
        let (version, prefix, ranged, parked) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (sent, len) = content_range(&response, &asked)?;
                if sent != (0..len.min(OPENING)) {
                    return Err(wrong_range(&response, &asked));
                }
                check_length(&response, sent.end)?;
                let version = Version::of(&response, len);
                let mut stream = Stream::new(client, response, 0, reserved);
                let mut prefix = Vec::new();
                while let Some(chunk) = stream.next(sent.end).await? {
                    prefix.extend_from_slice(&chunk);
                }
                (version, Bytes::from(prefix), true, None)
            }
            StatusCode::OK => {
                let len = response.content_length().ok_or(FetchError::NoLength)?;
                let version = Version::of(&response, len);
                drop(reserved);
                let stream = Stream::new(client, response, 0, meter.reserve(len)?);
                (version, Bytes::new(), false, Some(stream))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if unsatisfied_len(&response) == Some(0) => {
                return Err(FetchError::EmptyImage);
            }
            status => return Err(FetchError::Status(status.as_u16())),
        };
        if version.len == 0 {
            return Err(FetchError::EmptyImage);
        }
        Ok(Self {
            origin: Arc::new(Origin {
                client: client.clone(),
                url: url.to_owned(),
                meter,
                version,
                ranged,
                prefix,
                parked: Mutex::new(parked),
            }),
        })
    }

    /// The length of the image in bytes, as the server says; never 0.
    #[must_use]
    pub fn image_len(&self) -> u64 {
        self.origin.version.len
    }

    /// The version that later requests insist on: the strong `ETag`, if the server sends one. Without
    /// it a change of the length or of `Last-Modified` shows that the image changed.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.origin.version.strong_etag()
    }

    /// How many bytes from the start of the image it keeps: they cost nothing to be asked for.
    #[must_use]
    pub fn at_hand(&self) -> u64 {
        length(&self.origin.prefix)
    }

    /// Whether the server answers ranges.
    #[must_use]
    pub fn is_ranged(&self) -> bool {
        self.origin.ranged
    }

    /// Asks for the bytes of `range`. The body is independent of the reader; dropped before its end, it
    /// closes its connection.
    ///
    /// # Errors
    ///
    /// The range lies beyond the image, the image changed ([`FetchError::ImageChanged`]: open a new
    /// reader), or the server answers something else than this range.
    pub async fn range(&self, range: Range<u64>) -> Result<RangeBody, FetchError> {
        let len = self.image_len();
        if range.start > range.end || range.end > len {
            return Err(FetchError::BeyondEnd { asked: range, len });
        }
        let mut body = RangeBody {
            ready: self.origin.prefix_of(&range),
            next: range.start,
            end: range.end,
            stream: None,
            origin: Arc::clone(&self.origin),
        };
        if body.ready.is_empty() && body.next < body.end {
            body.stream = Some(self.origin.request(&range).await?);
        }
        Ok(body)
    }
}

impl Origin {
    fn prefix_of(&self, range: &Range<u64>) -> Bytes {
        let at = |offset: u64| {
            usize::try_from(offset).map_or(self.prefix.len(), |at| at.min(self.prefix.len()))
        };
        self.prefix.slice(at(range.start)..at(range.end))
    }

    async fn request(&self, range: &Range<u64>) -> Result<Stream, FetchError> {
        if !self.ranged {
            return self.request_whole(range).await;
        }
        let reserved = self.meter.reserve(range.end - range.start)?;
        let headers = range_headers(range, self.version.strong_etag());
        let response = self.client.get(&self.url, headers).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (sent, len) = content_range(&response, range)?;
                self.check_version(&response, Some(len))?;
                if sent != *range {
                    return Err(wrong_range(&response, range));
                }
                check_length(&response, range.end - range.start)?;
                Ok(Stream::new(&self.client, response, range.start, reserved))
            }
            StatusCode::OK => {
                self.check_version(&response, response.content_length())?;
                if range.start > 0 {
                    return Err(FetchError::RangeIgnored);
                }
                Ok(Stream::new(&self.client, response, 0, reserved))
            }
            StatusCode::RANGE_NOT_SATISFIABLE
                if unsatisfied_len(&response).is_some_and(|len| len != self.version.len) =>
            {
                Err(FetchError::ImageChanged)
            }
            status => Err(FetchError::Status(status.as_u16())),
        }
    }

    /// The stream of the whole image, at or before the start of `range`.
    async fn request_whole(&self, range: &Range<u64>) -> Result<Stream, FetchError> {
        let parked = self.parked().take();
        if let Some(stream) = parked.filter(|stream| stream.position <= range.start) {
            return Ok(stream);
        }
        if range.start > 0 {
            return Err(FetchError::RangeIgnored);
        }
        let reserved = self.meter.reserve(self.version.len)?;
        let response = self.client.get(&self.url, HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        self.check_version(&response, response.content_length())?;
        Ok(Stream::new(&self.client, response, 0, reserved))
    }

    fn check_version(&self, response: &Response, len: Option<u64>) -> Result<(), FetchError> {
        let now = Version::of(response, len.unwrap_or(self.version.len));
        if self.version.differs(&now) {
            return Err(FetchError::ImageChanged);
        }
        Ok(())
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Option<Stream>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of one range, in pieces as they come.
#[derive(Debug)]
pub struct RangeBody {
    origin: Arc<Origin>,
    ready: Bytes,
    next: u64,
    end: u64,
    stream: Option<Stream>,
}

impl RangeBody {
    /// The next piece, never empty; `None` after the last byte of the range. After an error the range
    /// from [`position`](Self::position) on can be asked for anew.
    ///
    /// # Errors
    ///
    /// The connection is cut, idle or too slow, or ends before the range does.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        if !self.ready.is_empty() {
            let chunk = core::mem::take(&mut self.ready);
            self.next += length(&chunk);
            return Ok(Some(chunk));
        }
        if self.stream.is_none() {
            if self.next == self.end {
                return Ok(None);
            }
            let rest = self.next..self.end;
            self.stream = Some(self.origin.request(&rest).await?);
        }
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        while stream.position < self.next {
            // Only of a server that ignores ranges.
            if stream.next(self.next).await?.is_none() {
                break;
            }
        }
        let chunk = stream.next(self.end).await?;
        self.next += chunk.as_ref().map_or(0, length);
        Ok(chunk)
    }

    /// The offset in the image of the next byte to come.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }
}

impl Drop for RangeBody {
    fn drop(&mut self) {
        if self.origin.ranged {
            return;
        }
        if let Some(stream) = self.stream.take().filter(|stream| !stream.failed) {
            *self.origin.parked() = Some(stream);
        }
    }
}

/// The body of a response that begins at some offset of the image.
#[derive(Debug)]
struct Stream {
    response: Response,
    flow: Flow,
    reserved: Reserved,
    /// The offset in the image of the next byte.
    position: u64,
    /// Received beyond the end that was asked for last.
    kept: Bytes,
    failed: bool,
}

impl Stream {
    fn new(client: &Client, response: Response, position: u64, reserved: Reserved) -> Self {
        Self {
            response,
            flow: Flow::new(client.limits).throttled(client.throttle.clone()),
            reserved,
            position,
            kept: Bytes::new(),
            failed: false,
        }
    }

    /// The next piece before the offset `end`; `None` at `end`. A response that goes on behind `end`
    /// keeps what came too much for the next call.
    async fn next(&mut self, end: u64) -> Result<Option<Bytes>, FetchError> {
        let room = end.saturating_sub(self.position);
        if room == 0 {
            return Ok(None);
        }
        if self.kept.is_empty() {
            // Until the piece is here this stream is of no use to another body.
            self.failed = true;
            let chunk = self.flow.next(&mut self.response).await?;
            self.failed = false;
            let chunk = chunk.ok_or_else(|| self.flow.cut(None))?;
            self.reserved.receive(length(&chunk))?;
            self.kept = chunk;
        }
        let take = usize::try_from(room).map_or(self.kept.len(), |room| room.min(self.kept.len()));
        let chunk = self.kept.split_to(take);
        self.position += length(&chunk);
        Ok(Some(chunk))
    }
}

/// What tells two versions of an image apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    len: u64,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Version {
    fn of(response: &Response, len: u64) -> Self {
        Self {
            len,
            etag: text_header(response.headers(), &header::ETAG),
            last_modified: text_header(response.headers(), &header::LAST_MODIFIED),
        }
    }

    /// A weak tag (`W/"…"`) promises equal meaning, not equal bytes, and may not go into `If-Range`.
    fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| etag.starts_with('"'))
    }

    fn differs(&self, now: &Self) -> bool {
        if self.len != now.len {
            return true;
        }
        match (&self.etag, &now.etag) {
            (Some(then), Some(now)) => then != now,
            _ => match (&self.last_modified, &now.last_modified) {
                (Some(then), Some(now)) => then != now,
                _ => false,
            },
        }
    }
}

fn range_headers(range: &Range<u64>, etag: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let last = range.end.saturating_sub(1);
    let values = [
        (header::RANGE, Some(format!("bytes={}-{last}", range.start))),
        (header::IF_RANGE, etag.map(str::to_owned)),
    ];
    for (name, value) in values {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The range and the length of the image that a 206 names.
fn content_range(response: &Response, asked: &Range<u64>) -> Result<(Range<u64>, u64), FetchError> {
    let parse = || {
        let value = response
            .headers()
            .get(header::CONTENT_RANGE)?
            .to_str()
            .ok()?;
        let (range, len) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let len: u64 = len.parse().ok()?;
        (first <= last && last < len).then(|| (first..last + 1, len))
    };
    parse().ok_or_else(|| wrong_range(response, asked))
}

/// The length of the image that a 416 names.
fn unsatisfied_len(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?;
    value.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}

fn wrong_range(response: &Response, asked: &Range<u64>) -> FetchError {
    let sent = response.headers().get(header::CONTENT_RANGE);
    FetchError::WrongRange {
        asked: asked.clone(),
        sent: sent.map_or_else(
            || "no Content-Range".to_owned(),
            |value| {
                let text = String::from_utf8_lossy(value.as_bytes());
                text.chars().take(100).collect()
            },
        ),
    }
}

fn check_length(response: &Response, expected: u64) -> Result<(), FetchError> {
    match response.content_length() {
        Some(promised) if promised != expected => {
            Err(FetchError::WrongLength { promised, expected })
        }
        _ => Ok(()),
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Header, the longest manifest and three table pages: most installs start with one request.
const OPENING: u64 = rekindle_image::Layout::OPENING;
