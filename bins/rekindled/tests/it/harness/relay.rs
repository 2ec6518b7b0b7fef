//! Between device and server: counts what is asked for and what comes, and can be slow.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;

use super::pause;

/// One request and how much came back for it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    /// The path, without the query.
    pub(crate) path: String,
    pub(crate) range: Option<Range<u64>>,
    /// Bytes of the answer, its head included.
    pub(crate) sent: u64,
}

/// The relay. It listens as long as the test process lives.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    exchanges: Mutex<Vec<Exchange>>,
    /// Bytes a second towards the device; 0: as fast as it goes.
    rate: AtomicU64,
}

impl Relay {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for device in listener.incoming() {
                let (Ok(device), Ok(server)) = (device, TcpStream::connect(server)) else {
                    continue;
                };
                device.set_nodelay(true).unwrap();
                relay(&own, &device, &server);
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn set_rate(&self, bytes_a_second: u64) {
        self.shared.rate.store(bytes_a_second, Ordering::Relaxed);
    }

    /// Everything since the last call.
    pub(crate) fn take(&self) -> Vec<Exchange> {
        core::mem::take(&mut *self.shared.exchanges.lock().unwrap())
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    /// How often this path was asked for.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        let exchanges = self.shared.exchanges.lock().unwrap();
        exchanges
            .iter()
            .filter(|exchange| exchange.method == method && exchange.path == path)
            .count()
    }
}

fn relay(shared: &Arc<Shared>, device: &TcpStream, server: &TcpStream) {
    // The exchange under way on this connection.
    let current = Arc::new(AtomicUsize::new(0));
    let (up_shared, up_current) = (Arc::clone(shared), Arc::clone(&current));
    let (from, to) = (device.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let ended = upwards(&up_shared, &up_current, &from, &to);
        drop(ended);
        let _: std::io::Result<()> = to.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    let (from, to) = (server.try_clone().unwrap(), device.try_clone().unwrap());
    std::thread::spawn(move || {
        let ended = downwards(&shared, &current, &from, &to);
        drop(ended);
        let _: std::io::Result<()> = to.shutdown(Shutdown::Both);
    });
}

/// Requests come one after the other on a connection, and only a PUT has a body.
fn upwards(
    shared: &Shared,
    current: &AtomicUsize,
    mut from: &TcpStream,
    mut to: &TcpStream,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut body_left = 0;
    let mut buf = [0; 4096];
    loop {
        let len = from.read(&mut buf)?;
        if len == 0 {
            return Ok(());
        }
        for byte in &buf[..len] {
            if body_left > 0 {
                body_left -= 1;
                continue;
            }
            head.push(*byte);
            if head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&head).into_owned();
                body_left = header(&text, "content-length")
                    .and_then(|len| len.parse().ok())
                    .unwrap_or(0);
                let mut exchanges = shared.exchanges.lock().unwrap();
                current.store(exchanges.len(), Ordering::Relaxed);
                exchanges.push(exchange(&text));
                head.clear();
            }
        }
        to.write_all(&buf[..len])?;
    }
}

fn downwards(
    shared: &Shared,
    current: &AtomicUsize,
    mut from: &TcpStream,
    mut to: &TcpStream,
) -> std::io::Result<()> {
    let mut buf = vec![0; 32 * 1024];
    loop {
        let len = from.read(&mut buf)?;
        if len == 0 {
            return Ok(());
        }
        let len_sent = u64::try_from(len).unwrap();
        let rate = shared.rate.load(Ordering::Relaxed);
        if let Some(micros) = (len_sent * 1_000_000).checked_div(rate) {
            pause(Duration::from_micros(micros));
        }
        to.write_all(&buf[..len])?;
        let mut exchanges = shared.exchanges.lock().unwrap();
        // The list may have been taken meanwhile.
        if let Some(exchange) = exchanges.get_mut(current.load(Ordering::Relaxed)) {
            exchange.sent += len_sent;
        }
    }
}

fn exchange(head: &str) -> Exchange {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    Exchange {
        method,
        path: target.split('?').next().unwrap_or_default().to_owned(),
        range: header(head, "range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
        }),
        sent: 0,
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
