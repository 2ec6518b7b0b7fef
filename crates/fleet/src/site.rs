use alloc::sync::Arc;
use core::net::SocketAddr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::backup::{self, Backups};
use crate::body::{Body, Content, Downloads, FileContent};
use crate::folder::{Folder, OpenFile};
use crate::path::{BadPath, SitePath};
use crate::precondition::{Ranges, Selection, Validators};
use crate::record::Record;
use crate::{BindError, Config};

/// The data folder as a web site.
#[derive(Debug)]
pub(crate) struct Site {
    folder: Arc<Folder>,
    backups: Arc<Backups>,
    backup_path: SitePath,
    serve_backups: bool,
    downloads: Downloads,
}

impl Site {
    /// Creates and opens the folders. Blocking, once at the start.
    pub(crate) fn open(config: Config) -> Result<Self, BindError> {
        let data_dir = &config.data_dir;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| BindError::Folder { path, source }
        };
        let backup_path = backup_path(&config.backup_dir)?;
        std::fs::create_dir_all(data_dir).map_err(at(data_dir))?;
        let folder = Arc::new(Folder::open(data_dir).map_err(at(data_dir))?);
        for name in [SCRIPTS, FIRMWARE] {
            match std::fs::create_dir(data_dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(&data_dir.join(name))(error));
                }
                _ => {}
            }
        }
        let backup_dir = data_dir.join(&config.backup_dir);
        let opened = folder.create(&backup_path).map_err(at(&backup_dir))?;
        backup::remove_leftovers(opened);
        let backups = Backups::new(Arc::clone(&folder), config.backup_versions, config.limits);
        Ok(Self {
            folder,
            backups: Arc::new(backups),
            backup_path,
            serve_backups: config.serve_backups,
            downloads: Downloads::default(),
        })
    }

    /// Answers one request; whatever goes wrong is an answer too, in plain words.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        remote: SocketAddr,
    ) -> Response<Body> {
        let mut record = Record::new(&request, remote);
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => self
                .get(&request)
                .await
                .unwrap_or_else(|error| broken(&error, &mut record)),
            Method::PUT => self.put(request, &mut record).await,
            _ => {
                let words = "this server knows GET, HEAD and, for backups, PUT";
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, words);
                let allow = HeaderValue::from_static("GET, HEAD, PUT");
                response.headers_mut().insert(ALLOW, allow);
                response
            }
        };
        let status = response.status();
        let has_length = !(status == StatusCode::NOT_MODIFIED || status == StatusCode::NO_CONTENT);
        let len = response.body().len();
        if has_length {
            response.headers_mut().insert(CONTENT_LENGTH, len.into());
        }
        // What a device uploaded must not become a page with a script in a browser.
        let nosniff = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
        record.answered(status, len);
        response.map(|content| Body::new(content, record))
    }

    async fn get<B>(&self, request: &Request<B>) -> io::Result<Response<Content>> {
        let path = match SitePath::parse(request.uri().path()) {
            Ok(path) => path,
            Err(bad) => return Ok(refused_path(bad, StatusCode::NOT_FOUND)),
        };
        if !self.serve_backups && path.is_below(&self.backup_path) {
            return Ok(text(StatusCode::FORBIDDEN, "backups are not given out"));
        }
        let kind = self.content_type(&path);
        let folder = Arc::clone(&self.folder);
        let opening = tokio::task::spawn_blocking(move || folder.open_file(&path));
        let Some(opened) = opening.await.map_err(io::Error::other)?? else {
            return Ok(text(
                StatusCode::NOT_FOUND,
                "there is no file of this name here",
            ));
        };
        let ranges = if request.method() == Method::GET {
            Ranges::Served
        } else {
            Ranges::Ignored
        };
        Ok(self.selected(request, opened, kind, ranges))
    }

    fn selected<B>(
        &self,
        request: &Request<B>,
        opened: OpenFile,
        kind: &'static str,
        ranges: Ranges,
    ) -> Response<Content> {
        let stamp = opened.stamp;
        let size = stamp.size;
        let entity_tag = stamp.entity_tag();
        let validators = Validators {
            entity_tag: &entity_tag,
            modified: stamp.modified(),
            size,
            now: system_time(),
        };
        let content = |range| Content::File(FileContent::new(opened, range, &self.downloads));
        let mut response = match validators.select(request.headers(), ranges) {
            Selection::Whole => Response::new(content(0..size)),
            Selection::Part(range) => {
                let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let mut response = Response::new(content(range));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response.headers_mut().insert(CONTENT_RANGE, header(&value));
                response
            }
            Selection::NotModified => {
                let mut response = Response::new(Content::Empty);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            Selection::Failed => {
                return text(
                    StatusCode::PRECONDITION_FAILED,
                    "the file is another one by now",
                );
            }
            Selection::Unsatisfiable => {
                let words = "the file is shorter than the range asked for";
                let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, words);
                let value = format!("bytes */{size}");
                response.headers_mut().insert(CONTENT_RANGE, header(&value));
                return response;
            }
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, header(&entity_tag));
        if let Some(modified) = stamp.modified() {
            // RFC 9110 section 8.8.2.1: not later than the answer itself.
            let modified = modified.min(validators.now);
            headers.insert(LAST_MODIFIED, header(&httpdate::fmt_http_date(modified)));
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // A cache between us and the devices asks before it answers for us.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    async fn put(&self, request: Request<Incoming>, record: &mut Record) -> Response<Content> {
        let refusal = match SitePath::parse(request.uri().path()) {
            Err(bad) => refused_path(bad, StatusCode::FORBIDDEN),
            Ok(path) if !path.is_below(&self.backup_path) => text(
                StatusCode::FORBIDDEN,
                "only the backup folder takes uploads",
            ),
            Ok(path) => {
                return match Arc::clone(&self.backups).store(path, request, record).await {
                    Ok(backup::Stored::New) => text(StatusCode::CREATED, "stored"),
                    Ok(backup::Stored::Replaced) => {
                        let mut response = Response::new(Content::Empty);
                        *response.status_mut() = StatusCode::NO_CONTENT;
                        response
                    }
                    Err(error) => {
                        record.failed(&error);
                        text(error.status(), &error.to_string())
                    }
                };
            }
        };
        backup::discard(request).await;
        refusal
    }

    /// Scripts and backups are read by people too; everything else is bytes.
    fn content_type(&self, path: &SitePath) -> &'static str {
        let (folders, name) = path.split();
        let is_script = folders
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case(SCRIPTS));
        let extension = Path::new(name)
            .extension()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let extension = extension.to_str().unwrap_or_default();
        let is_text = if is_script || path.is_below(&self.backup_path) {
            !BINARY_EXTENSIONS.contains(&extension)
        } else {
            TEXT_EXTENSIONS.contains(&extension)
        };
        if is_text { TEXT } else { BYTES }
    }
}

fn backup_path(folder: &str) -> Result<SitePath, BindError> {
    let bad = || BindError::BackupDir(folder.to_owned());
    if folder.starts_with('/') || folder.contains('%') {
        return Err(bad());
    }
    SitePath::parse(&format!("/{}", folder.trim_end_matches('/'))).map_err(|_| bad())
}

/// `unusable` answers a well-formed path that names no file that could be.
fn refused_path(bad: BadPath, unusable: StatusCode) -> Response<Content> {
    let status = match bad {
        BadPath::Folder | BadPath::Hidden => unusable,
        BadPath::TooLong => StatusCode::URI_TOO_LONG,
        BadPath::NotAbsolute | BadPath::BadEncoding | BadPath::DotName | BadPath::BadCharacter => {
            StatusCode::BAD_REQUEST
        }
    };
    text(status, &bad.to_string())
}

/// A file that is there and cannot be read is the operator's to repair; the device is only told that it is not its fault.
fn broken(error: &io::Error, record: &mut Record) -> Response<Content> {
    record.failed(error);
    tracing::error!(%error, "cannot open a file of the data folder");
    text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the server cannot read this file: see its log",
    )
}

fn text(status: StatusCode, words: &str) -> Response<Content> {
    let line = format!("{} {words}\n", status.as_u16());
    let mut response = Response::new(Content::Text(Bytes::from(line)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("numbers, hexadecimal digits and dates are header values")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server is where the clock is read"
)]
fn system_time() -> SystemTime {
    SystemTime::now()
}

const SCRIPTS: &str = "scripts";
const FIRMWARE: &str = "firmware";

/// Without a character set: a script is bytes, often ISO-8859-1.
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

const TEXT_EXTENSIONS: [&str; 9] = [
    "htm", "html", "txt", "cfg", "conf", "ini", "log", "md", "pub",
];
const BINARY_EXTENSIONS: [&str; 8] = ["bin", "img", "gz", "xz", "zst", "zip", "tar", "apk"];
