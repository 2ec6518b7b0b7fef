//! A web server that misbehaves by script: one handler sees every request and says which bytes go out.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request: its head as text, and its body as far as `Content-Length` or chunks say.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) number: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    /// The bounds of `Range: bytes=a-b`, as a half-open range.
    pub(crate) fn range(&self) -> Option<core::ops::Range<usize>> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some(first.parse().unwrap()..last.parse::<usize>().unwrap() + 1)
    }
}

/// What goes out for one request; the connection is closed after it.
pub(crate) enum Reply {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then silence with the connection open.
    Hang(Vec<u8>),
    /// These bytes, then the second part again and again until the client goes.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, then the second part again and again with a pause before each.
    Drip(Vec<u8>, Vec<u8>, Duration),
}

/// A whole answer with `Content-Length`.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Reply {
    Reply::Bytes(raw(status, headers, body.len(), body))
}

/// An answer that promises `promised` bytes.
pub(crate) fn raw(status: &str, headers: &str, promised: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {promised}\r\nConnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// What an honest server says to a range request; 200 to one without a range.
pub(crate) fn serve_image(request: &Request, image: &[u8], headers: &str) -> Reply {
    let Some(range) = request.range() else {
        return answer("200 OK", headers, image);
    };
    let range = range.start..range.end.min(image.len());
    let headers = format!(
        "Content-Range: bytes {}-{}/{}\r\n{headers}",
        range.start,
        range.end - 1,
        image.len()
    );
    answer("206 Partial Content", &headers, &image[range])
}

pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                tokio::spawn(async move { connection(stream, &seen, &*handler).await });
            }
        });
        Self {
            url,
            requests,
            task,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one request and writes what the handler says. Errors end the connection, as they would.
pub(crate) async fn connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<Request>>,
    handler: &(dyn Fn(&Request) -> Reply + Sync),
) {
    let Some(mut request) = read_request(&mut stream).await else {
        return;
    };
    {
        let mut seen = seen.lock().unwrap();
        request.number = seen.len();
        seen.push(request.clone());
    }
    let sent = match handler(&request) {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await,
        Reply::Hang(bytes) => {
            let sent = stream.write_all(&bytes).await;
            let mut rest = [0; 64];
            while matches!(stream.read(&mut rest).await, Ok(1..)) {}
            sent
        }
        Reply::Endless(head, part) => {
            let mut sent = stream.write_all(&head).await;
            while sent.is_ok() {
                sent = stream.write_all(&part).await;
            }
            sent
        }
        Reply::Drip(head, part, pause) => {
            let mut sent = stream.write_all(&head).await;
            while sent.is_ok() {
                tokio::time::sleep(pause).await;
                sent = stream.write_all(&part).await;
            }
            sent
        }
    };
    if sent.is_ok() {
        let _closed = stream.shutdown().await;
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut request = Request {
        number: 0,
        head: String::from_utf8(bytes[..head_end].to_vec()).unwrap(),
        body: bytes.split_off(head_end + 4),
    };
    let chunked = request.header("transfer-encoding").is_some();
    let len = request
        .header("content-length")
        .map_or(0, |len| len.parse().unwrap());
    while if chunked {
        !request.body.ends_with(b"0\r\n\r\n")
    } else {
        request.body.len() < len
    } {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
