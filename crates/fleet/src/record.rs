use core::fmt;
use core::net::SocketAddr;

use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::facts::{DeviceFacts, escaped};

/// One request, logged when this is dropped: who, what, with which result.
///
/// The query is not logged, only the device facts in it; neither is a body, nor a header but the one in which a
/// device tells of a fallback.
#[derive(Debug)]
pub(crate) struct Record {
    remote: SocketAddr,
    method: Method,
    path: String,
    facts: DeviceFacts,
    rolled_back: Option<String>,
    since: Instant,
    status: StatusCode,
    expected: u64,
    sent: u64,
    received: Option<u64>,
    failure: Option<String>,
}

impl Record {
    pub(crate) fn new<B>(request: &Request<B>, remote: SocketAddr) -> Self {
        let uri = request.uri();
        Self {
            remote,
            method: request.method().clone(),
            path: escaped(uri.path().as_bytes()),
            facts: DeviceFacts::parse(uri.query()),
            rolled_back: rolled_back(request),
            since: Instant::now(),
            status: StatusCode::INTERNAL_SERVER_ERROR,
            expected: 0,
            sent: 0,
            received: None,
            failure: None,
        }
    }

    /// Notes the answer, and how many bytes of it hyper will ask for.
    pub(crate) fn answered(&mut self, status: StatusCode, expected: u64) {
        self.status = status;
        self.expected = if self.method == Method::HEAD {
            0
        } else {
            expected
        };
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.received = Some(bytes);
    }

    pub(crate) fn failed(&mut self, error: &dyn core::error::Error) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        self.failure = Some(text);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let facts = &self.facts;
        if self.failure.is_none() && self.sent < self.expected {
            self.failure = Some("the client left early".to_owned());
        }
        tracing::info!(
            target: "rekindle_fleet::request",
            remote = %self.remote,
            method = %Escaped(self.method.as_str()),
            path = %self.path,
            status = self.status.as_u16(),
            sent = self.sent,
            received = self.received,
            ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            ver = facts.ver,
            prot = facts.prot,
            boot = facts.boot,
            bmc = facts.bmc,
            cfg = facts.cfg,
            scfg = facts.scfg,
            check = facts.check,
            more = facts.more,
            rolled_back = self.rolled_back,
            failure = self.failure,
            "request"
        );
    }
}

/// The fallbacks that a device tells of; see `rekindle-device`.
fn rolled_back<B>(request: &Request<B>) -> Option<String> {
    let value = request.headers().get("rekindle-rolled-back")?.as_bytes();
    Some(escaped(&value[..value.len().min(ROLLED_BACK_MAX)]))
}

/// What a device sends at the most.
const ROLLED_BACK_MAX: usize = 1024;

/// A method is a token, but of any length.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(self.0.as_bytes()))
    }
}
