//! Uploads: a configuration backup to a web server.

use core::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Client, FetchError, REDIRECTS, parse_url, redirect};

/// How the server learns where the body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "HTTP/1.1 has these two")]
pub enum Framing {
    /// `Content-Length`, which every server understands.
    #[default]
    Length,
    /// Chunked, as the devices of the field send it.
    Chunked,
}

impl Client {
    /// Sends `body` by PUT and returns the status, one of 200 to 299. A redirect is followed only
    /// where it keeps the method (307, 308): any other would turn the upload into a download.
    ///
    /// # Errors
    ///
    /// Every other status, and a failed transfer: what the server then holds is not known.
    pub async fn put(&self, url: &str, body: Bytes, framing: Framing) -> Result<u16, FetchError> {
        let mut url = parse_url(url)?;
        let len = u64::try_from(body.len()).unwrap_or(u64::MAX);
        // At the minimum rate the whole body takes this long; then the answer must come.
        let time = Duration::from_secs(len / self.limits.minimum_rate.max(1));
        for _ in 0..=REDIRECTS {
            let mut headers = HeaderMap::new();
            let octets = HeaderValue::from_static("application/octet-stream");
            headers.insert(header::CONTENT_TYPE, octets);
            let content = match framing {
                Framing::Length => reqwest::Body::from(body.clone()),
                Framing::Chunked => {
                    let whole = body.clone();
                    reqwest::Body::wrap_stream(stream::once(async move {
                        Ok::<_, core::convert::Infallible>(whole)
                    }))
                }
            };
            let response = self
                .send(Method::PUT, url.clone(), headers, Some((content, time)))
                .await?;
            match response.status() {
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                    url = redirect(&url, response.headers())?;
                }
                status if status.is_success() => return Ok(status.as_u16()),
                status => return Err(FetchError::Status(status.as_u16())),
            }
        }
        Err(FetchError::TooManyRedirects { limit: REDIRECTS })
    }
}
