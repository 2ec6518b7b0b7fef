//! Small bodies as a whole: maintenance scripts, configuration files.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::Response;
use tokio::time::timeout;

use super::{Cause, Client, FetchError, text_header};

/// What a server said about a version of a body, to ask for it conditionally next time. The values are
/// opaque and at most 1 KiB each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Validators {
    /// `ETag`, as it was sent.
    pub etag: Option<String>,
    /// `Last-Modified`, as it was sent.
    pub last_modified: Option<String>,
}

/// The answer to a request for a small body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fetched {
    /// 200 with its body, which may be empty.
    Body {
        /// The body.
        bytes: Bytes,
        /// What to ask with next time.
        validators: Validators,
    },
    /// 304: what the validators describe still holds.
    NotModified,
    /// 204: the server has nothing for this device.
    NoContent,
}

impl Client {
    /// Fetches a body of at most `limit` bytes (scripts: [`SCRIPT_LIMIT`](super::SCRIPT_LIMIT)) within
    /// the script time limit. With validators the request is conditional.
    ///
    /// A body of which the server tells neither length nor end (HTTP/1.0 without `Content-Length`)
    /// counts as whole where the connection ends.
    ///
    /// # Errors
    ///
    /// Every other status than 200, 204 and an expected 304; a longer, cut, late or encoded body.
    pub async fn fetch_small(
        &self,
        url: &str,
        limit: u64,
        known: &Validators,
    ) -> Result<Fetched, FetchError> {
        self.fetch_small_with(url, limit, known, HeaderMap::new())
            .await
    }

    /// The same with more request headers.
    pub(crate) async fn fetch_small_with(
        &self,
        url: &str,
        limit: u64,
        known: &Validators,
        headers: HeaderMap,
    ) -> Result<Fetched, FetchError> {
        timeout(self.limits.small, self.small(url, limit, known, headers))
            .await
            .map_err(|_| FetchError::TimedOut(self.limits.small))?
    }

    async fn small(
        &self,
        url: &str,
        limit: u64,
        known: &Validators,
        mut headers: HeaderMap,
    ) -> Result<Fetched, FetchError> {
        let conditions = conditions(known);
        let conditional = !conditions.is_empty();
        headers.extend(conditions);
        let response = self.get(url, headers).await?;
        match response.status() {
            StatusCode::OK => {
                let validators = Validators {
                    etag: text_header(response.headers(), &header::ETAG),
                    last_modified: text_header(response.headers(), &header::LAST_MODIFIED),
                };
                let bytes = self.whole(response, limit).await?;
                Ok(Fetched::Body { bytes, validators })
            }
            StatusCode::NO_CONTENT => Ok(Fetched::NoContent),
            StatusCode::NOT_MODIFIED if conditional => Ok(Fetched::NotModified),
            status => Err(FetchError::Status(status.as_u16())),
        }
    }

    async fn whole(&self, mut response: Response, limit: u64) -> Result<Bytes, FetchError> {
        if response.content_length().is_some_and(|len| len > limit) {
            return Err(FetchError::TooLong { limit });
        }
        let mut body = BytesMut::new();
        loop {
            let received = u64::try_from(body.len()).unwrap_or(u64::MAX);
            let chunk = timeout(self.limits.idle, response.chunk())
                .await
                .map_err(|_| FetchError::Idle(self.limits.idle))?
                .map_err(|error| FetchError::Cut {
                    received,
                    cause: Some(Cause::new(error)),
                })?;
            let Some(chunk) = chunk else {
                return Ok(body.freeze());
            };
            let more = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if received.saturating_add(more) > limit {
                return Err(FetchError::TooLong { limit });
            }
            body.extend_from_slice(&chunk);
        }
    }
}

fn conditions(known: &Validators) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let conditions = [
        (header::IF_NONE_MATCH, &known.etag),
        (header::IF_MODIFIED_SINCE, &known.last_modified),
    ];
    for (name, value) in conditions {
        if let Some(value) = value.as_deref().and_then(|v| HeaderValue::from_str(v).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}
