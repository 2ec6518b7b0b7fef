#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a harness is test code, where a panic is the report"
)]

use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;

use rekindle_fleet::{Config, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server on a port of its own, with a data folder inside an outer folder that must stay as it is.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    outer: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let mut config = Config::new(outer.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            outer,
            stop: Some(stop),
            serving,
        }
    }

    /// A path in the data folder.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.outer.path().join("data").join(path)
    }

    /// A path outside the data folder.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.outer.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    /// Every name in a folder of the data folder, hidden ones too.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are and reads the one answer. The request must ask for the connection to be closed.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        Reply::read(&mut stream).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[&str]) -> Reply {
        self.request("GET", path, headers, b"").await
    }

    pub(crate) async fn put(&self, path: &str, body: &[u8]) -> Reply {
        let length = format!("Content-Length: {}", body.len());
        self.request("PUT", path, &[&length], body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        self.send([request.as_bytes(), body].concat()).await
    }

    pub(crate) fn order_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn stopped(&mut self) {
        in_time(&mut self.serving).await.unwrap();
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads to the end of the connection.
    pub(crate) async fn read(stream: &mut TcpStream) -> Self {
        let mut all = Vec::new();
        // A reset after the answer is as good an end as any.
        let _ = in_time(stream.read_to_end(&mut all)).await;
        Self::parse(&all)
    }

    pub(crate) fn parse(all: &[u8]) -> Self {
        let text = String::from_utf8_lossy(all);
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else {
            panic!("no answer, but {text:?}");
        };
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: all[end + 4..].to_vec(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.body).unwrap()
    }
}

/// No test waits for ever for a server that does.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("it ends within a minute")
}

/// Content in which every piece differs from every other.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 + at / 251 + at / 65_521).to_le_bytes()[0])
        .collect()
}
