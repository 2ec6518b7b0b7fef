//! The device's HTTP client: small bodies, byte ranges of images, uploads.
//!
//! It trusts only the roots it is given, follows redirects itself (at most ten, never from https to
//! http), never asks for an encoded body, and bounds every wait. One transfer of an image has no time
//! limit as a whole: it may take a night over a slow line, as long as it goes on.

mod error;
mod flow;
mod meter;
mod put;
mod range;
mod small;

use alloc::sync::Arc;
use core::time::Duration;
use std::path::{Path, PathBuf};

use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{Response, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::time::timeout;

use self::meter::Throttle;
pub use error::{Cause, ClientError, FetchError};
pub use put::Framing;
pub use range::{RangeBody, RangeReader};
pub use small::{Fetched, Validators};

use crate::clock::Clock;
use crate::config::UpdateConfig;

/// How a client behaves; `Default` is what a device without `[update]` settings does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Files of PEM certificates; without any, https URLs are refused.
    pub roots: Vec<PathBuf>,
    /// The longest wait for a connection: 10 s.
    pub connect_timeout: Duration,
    /// The longest wait for the head of an answer, or for the next byte: 30 s.
    pub idle_timeout: Duration,
    /// The longest time for a small body as a whole: 60 s.
    pub small_timeout: Duration,
    /// Below this many bytes a second, over half a minute, a transfer is given up: 256.
    pub minimum_rate: u64,
    /// Bytes of images that are read in a second at the most, all transfers together: any number.
    pub maximum_rate: Option<u64>,
    /// Connections that are kept for the next request: 4.
    pub connections: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            small_timeout: Duration::from_secs(60),
            minimum_rate: 256,
            maximum_rate: None,
            connections: 4,
        }
    }
}

impl From<&UpdateConfig> for ClientOptions {
    fn from(config: &UpdateConfig) -> Self {
        Self {
            roots: config.ca.clone(),
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            small_timeout: config.script_timeout,
            minimum_rate: config.minimum_rate,
            maximum_rate: config.max_rate,
            connections: config.requests,
        }
    }
}

/// An HTTP client with the device's own roots and clock. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    limits: Limits,
    /// Of images.
    throttle: Option<Arc<Throttle>>,
    has_roots: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    idle: Duration,
    small: Duration,
    minimum_rate: u64,
}

impl Client {
    /// A client that checks certificates against `options.roots` by `clock`. It needs neither a
    /// process-wide TLS provider nor the system's certificates.
    ///
    /// # Errors
    ///
    /// A file of roots cannot be read or holds no certificate.
    pub fn new(options: &ClientOptions, clock: &Clock) -> Result<Self, ClientError> {
        let roots = roots(&options.roots)?;
        let has_roots = !roots.is_empty();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(roots, clock)?)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.connections)
            .pool_idle_timeout(POOL_IDLE)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| ClientError::SetUp(error.to_string()))?;
        Ok(Self {
            http,
            limits: Limits {
                idle: options.idle_timeout,
                small: options.small_timeout,
                minimum_rate: options.minimum_rate,
            },
            throttle: options.maximum_rate.map(Throttle::new).map(Arc::new),
            has_roots,
        })
    }

    /// Sends a GET and follows redirects; the answer has any status but a redirect's.
    async fn get(&self, url: &str, headers: HeaderMap) -> Result<Response, FetchError> {
        let mut url = parse_url(url)?;
        for _ in 0..=REDIRECTS {
            let response = self
                .send(Method::GET, url.clone(), headers.clone(), None)
                .await?;
            match response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = redirect(&url, response.headers())?,
                _ if is_encoded(response.headers()) => return Err(FetchError::Encoded),
                _ => return Ok(response),
            }
        }
        Err(FetchError::TooManyRedirects { limit: REDIRECTS })
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        upload: Option<(reqwest::Body, Duration)>,
    ) -> Result<Response, FetchError> {
        if url.scheme() == "https" && !self.has_roots {
            return Err(FetchError::NoRoots);
        }
        let mut request = self.http.request(method, url).headers(headers);
        let mut limit = self.limits.idle;
        if let Some((body, time)) = upload {
            request = request.body(body);
            limit = limit.saturating_add(time);
        }
        match timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(FetchError::Connect(Cause::new(error))),
            Ok(Err(error)) => Err(FetchError::Exchange(Cause::new(error))),
            Err(_) => Err(FetchError::Idle(limit)),
        }
    }
}

fn parse_url(text: &str) -> Result<Url, FetchError> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or(FetchError::BadUrl)
}

fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or(FetchError::BadRedirect)?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(FetchError::RedirectToPlain);
    }
    Ok(to)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn text_header(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= HEADER_LIMIT).then(|| value.to_owned())
}

fn tls(roots: RootCertStore, clock: &Clock) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::SetUp(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(files: &[PathBuf]) -> Result<RootCertStore, ClientError> {
    let mut store = RootCertStore::empty();
    for path in files {
        let pem = read_roots(path)?;
        let bad = || ClientError::BadRoots { path: path.clone() };
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| bad())?;
            store.add(certificate).map_err(|_| bad())?;
        }
        if store.len() == before {
            return Err(bad());
        }
    }
    Ok(store)
}

fn read_roots(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|cause| ClientError::Read {
        path: path.to_owned(),
        cause,
    })
}

/// The limit for a maintenance script: more than a thousand times a usual one.
pub const SCRIPT_LIMIT: u64 = 1 << 20;

const USER_AGENT: &str = concat!("rekindled/", env!("CARGO_PKG_VERSION"));
/// As many as browsers and curl's users know; a chain of them is a loop.
const REDIRECTS: u8 = 10;
/// Shorter than the keep-alive of common servers, so that a reused connection is rarely a dead one.
const POOL_IDLE: Duration = Duration::from_secs(4);
const HEADER_LIMIT: usize = 1024;
