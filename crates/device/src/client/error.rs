use core::error::Error as StdError;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use thiserror::Error;

/// Why something could not be fetched or sent. It never holds the URL, which may hold a password;
/// whoever logs it names the script line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The text is no URL, or neither http nor https.
    #[error("not an http or https URL")]
    BadUrl,
    /// An https URL on a device that has no roots to check the server against.
    #[error("https needs `update.ca`: this device trusts no certificate authority")]
    NoRoots,
    /// The server cannot be reached: name, route, refusal, time-out, or TLS (the source says which).
    #[error("cannot connect to the server")]
    Connect(#[source] Cause),
    /// The server was reached, and the connection broke or spoke no HTTP before an answer was complete.
    #[error("the connection failed before the server answered")]
    Exchange(#[source] Cause),
    /// Nothing came for this long.
    #[error("the server sent nothing for {} s", .0.as_secs_f32())]
    Idle(Duration),
    /// A script as a whole took longer than this.
    #[error("the transfer took longer than {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The body trickles: slower than the minimum rate for half a minute.
    #[error("the server sends less than {minimum} bytes a second")]
    TooSlow {
        /// The configured minimum, in bytes a second.
        minimum: u64,
    },
    /// Another status than the request can use.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// More redirects than any honest server needs; most often a loop.
    #[error("more than {limit} redirects in a row")]
    TooManyRedirects {
        /// The limit.
        limit: u8,
    },
    /// A redirect leads from https to http: whoever follows it gives up the server's identity.
    #[error("the server redirects from https to http, which is refused")]
    RedirectToPlain,
    /// A redirect without a usable `Location`.
    #[error("the server redirects to no http or https URL")]
    BadRedirect,
    /// The body is longer than such a body may be; also a body that never ends.
    #[error("the body is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The connection ended inside the body. What came before is good as far as it goes.
    #[error("the connection ended after {received} bytes of the body")]
    Cut {
        /// The bytes of this body that came.
        received: u64,
        /// What the connection said.
        #[source]
        cause: Option<Cause>,
    },
    /// The file on the server is empty.
    #[error("the image on the server is empty (0 bytes)")]
    EmptyImage,
    /// The server did not say how long the image is.
    #[error("the server does not say how long the image is")]
    NoLength,
    /// The body is compressed or otherwise encoded, which was not asked for.
    #[error("the server encodes the body, which was not asked for")]
    Encoded,
    /// The server sent the whole image instead of the asked part of it.
    #[error(
        "the server answered 200 to a range request: it does not support ranges for this image"
    )]
    RangeIgnored,
    /// The server sent another part of the image than the asked one.
    #[error("asked for bytes {}-{}, the server sent {sent}", .asked.start, .asked.end.saturating_sub(1))]
    WrongRange {
        /// The bytes asked for.
        asked: Range<u64>,
        /// The `Content-Range` of the answer, cut to 100 characters.
        sent: String,
    },
    /// `Content-Length` contradicts the range or the length of the image.
    #[error("the server promises a body of {promised} bytes, {expected} were asked for")]
    WrongLength {
        /// What `Content-Length` says.
        promised: u64,
        /// What the range asked for.
        expected: u64,
    },
    /// Another image lies under the URL than at the first request: open it anew.
    #[error("the image on the server changed during the transfer")]
    ImageChanged,
    /// More would have to come over the network than may. Nothing of that was asked for.
    #[error(
        "the image needs at least {needed} bytes from the network, and `update.max-download` is {limit}"
    )]
    Budget {
        /// What came, what is on its way, and what was wanted now.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The caller asks for bytes beyond the end of the image.
    #[error("bytes {}-{} lie beyond the image of {len} bytes", .asked.start, .asked.end.saturating_sub(1))]
    BeyondEnd {
        /// The bytes asked for.
        asked: Range<u64>,
        /// The length of the image.
        len: u64,
    },
}

impl FetchError {
    /// Whether the same request may well succeed when it is simply made again in a while. An answer
    /// that shows the server or the URL to be wrong is not retryable before somebody changes that.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Exchange(_)
            | Self::Idle(_)
            | Self::TimedOut(_)
            | Self::TooSlow { .. }
            | Self::Cut { .. }
            | Self::ImageChanged => true,
            Self::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::BadUrl
            | Self::NoRoots
            | Self::TooManyRedirects { .. }
            | Self::RedirectToPlain
            | Self::BadRedirect
            | Self::TooLong { .. }
            | Self::EmptyImage
            | Self::NoLength
            | Self::Encoded
            | Self::RangeIgnored
            | Self::WrongRange { .. }
            | Self::WrongLength { .. }
            | Self::Budget { .. }
            | Self::BeyondEnd { .. } => false,
        }
    }

    /// The number for `failed(<number>)`: the status of the server, or 502 where there is none, as
    /// devices of the field have it.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Status(status) => *status,
            _ => 502,
        }
    }
}

/// What the HTTP or TLS layer said about a failed connection. For people: it is only displayed.
#[derive(Debug)]
pub struct Cause(reqwest::Error);

impl Cause {
    pub(super) fn new(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }
}

impl fmt::Display for Cause {
    /// The innermost causes, which say what happened; the outer ones only say that it did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut innermost: &dyn StdError = &self.0;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        write!(f, "{innermost}")
    }
}

impl StdError for Cause {}

/// Why no client could be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A file of certificates cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Read {
        /// The file of `update.ca`.
        path: std::path::PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file of certificates holds none, or one that is no certificate authority's.
    #[error("{} holds no usable PEM certificate", .path.display())]
    BadRoots {
        /// The file of `update.ca`.
        path: std::path::PathBuf,
    },
    /// The HTTP or TLS library could not be set up; a fault of the build.
    #[error("cannot set up the HTTP client: {0}")]
    SetUp(String),
}
