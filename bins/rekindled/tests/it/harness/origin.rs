//! A web server that says what the test wants: one answer a connection, byte by byte as given.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::ops::Range;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A request as far as the tests look at it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<Range<usize>>,
    pub(crate) if_range: Option<String>,
    /// What a device tells of a fallback.
    pub(crate) rolled_back: Option<String>,
}

/// What goes out for one request; the connection is closed after it.
pub(crate) enum Reply {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then silence with the connection open.
    Hang(Vec<u8>),
    /// The first part, then the second again and again until the client goes.
    Endless(Vec<u8>, Vec<u8>),
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server. It listens as long as the test process lives.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    handler: Arc<Mutex<Arc<Handler>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A certificate for 127.0.0.1 under an authority of its own.
pub(crate) struct Tls {
    /// The authority, in PEM.
    pub(crate) authority: String,
    config: Arc<ServerConfig>,
}

impl Origin {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    pub(crate) fn start_with(
        tls: Option<&Tls>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            handler: Arc::new(Mutex::new(Arc::new(handler))),
            requests: Arc::default(),
        };
        let handler = Arc::clone(&origin.handler);
        let requests = Arc::clone(&origin.requests);
        let tls = tls.map(|tls| Arc::clone(&tls.config));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (handler, requests) = (Arc::clone(&handler), Arc::clone(&requests));
                let tls = tls.clone();
                std::thread::spawn(move || {
                    // An error is a client that went away, which some are meant to do.
                    let _: std::io::Result<()> = match tls {
                        None => converse(stream, &handler, &requests),
                        Some(config) => ServerConnection::new(config)
                            .map_err(std::io::Error::other)
                            .and_then(|connection| {
                                let stream = StreamOwned::new(connection, stream);
                                converse(stream, &handler, &requests)
                            }),
                    };
                });
            }
        });
        origin
    }

    /// From now on this is what it says.
    pub(crate) fn change(&self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.handler.lock().unwrap() = Arc::new(handler);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Tls {
    pub(crate) fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        Self {
            authority,
            config: Arc::new(config),
        }
    }

    /// Writes the authority where a device's configuration can name it.
    pub(crate) fn write_authority(&self, path: PathBuf) {
        std::fs::write(path, &self.authority).unwrap();
    }
}

fn converse(
    mut stream: impl Read + Write,
    handler: &Mutex<Arc<Handler>>,
    requests: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut stream)? else {
        return Ok(());
    };
    requests.lock().unwrap().push(request.clone());
    let handler = Arc::clone(&handler.lock().unwrap());
    match handler(&request) {
        Reply::Bytes(bytes) => stream.write_all(&bytes)?,
        Reply::Hang(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()?;
            let _: usize = stream.read(&mut [0; 64])?;
        }
        Reply::Endless(head, part) => {
            stream.write_all(&head)?;
            loop {
                stream.write_all(&part)?;
            }
        }
    }
    stream.flush()
}

fn read_request(stream: &mut impl Read) -> std::io::Result<Option<Request>> {
    // One byte at a time, so that nothing behind the head is taken.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some(target) = line.split(' ').nth(1) else {
        return Ok(None);
    };
    let mut request = Request {
        path: target.split('?').next().unwrap_or_default().to_owned(),
        range: None,
        if_range: None,
        rolled_back: None,
    };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Ok(Some(request));
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                request.range = value
                    .strip_prefix("bytes=")
                    .and_then(|range| range.split_once('-'))
                    .map(|(first, last)| {
                        first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
                    });
            }
            "if-range" => request.if_range = Some(value.to_owned()),
            "rekindle-rolled-back" => request.rolled_back = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// A whole answer with its length.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    answer_with_length(status, headers, body.len(), body)
}

/// An answer that promises `promised` bytes.
pub(crate) fn answer_with_length(
    status: &str,
    headers: &str,
    promised: usize,
    body: &[u8],
) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {promised}\r\nConnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// What an honest server says, with `etag` if it has one.
pub(crate) fn serve_file(request: &Request, file: &[u8], etag: &str) -> Vec<u8> {
    let headers = if etag.is_empty() {
        String::new()
    } else {
        format!("ETag: {etag}\r\n")
    };
    let current = request.if_range.as_deref().is_none_or(|tag| tag == etag);
    match &request.range {
        Some(range) if current => {
            let range = range.start..range.end.min(file.len());
            let (first, last, len) = (range.start, range.end - 1, file.len());
            let headers = format!("Content-Range: bytes {first}-{last}/{len}\r\n{headers}");
            answer("206 Partial Content", &headers, &file[range])
        }
        _ => answer("200 OK", &headers, file),
    }
}
