//! A relay on loopback that counts what passes.

use core::sync::atomic::{AtomicU64, Ordering};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use alloc::sync::Arc;

use anyhow::Context as _;

/// Passes connections on to a server, as long as the program runs, and counts every byte that the server sends: heads,
/// bodies, whatever a device pays for.
#[derive(Debug)]
pub(crate) struct Relay {
    authority: String,
    down: Arc<AtomicU64>,
}

impl Relay {
    /// Listens on a free port of loopback, for the server at `authority`.
    pub(crate) fn to(authority: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let own = listener
            .local_addr()
            .context("cannot hear where the relay listens")?
            .to_string();
        let down = Arc::new(AtomicU64::new(0));
        let (counter, server) = (Arc::clone(&down), authority.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(&server) {
                    pass(client, server, &counter);
                }
            }
        });
        Ok(Self {
            authority: own,
            down,
        })
    }

    /// `url` of the server, by way of this relay.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/firmware/{name}", self.authority)
    }

    /// What the server has sent since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.down.swap(0, Ordering::SeqCst)
    }
}

/// Both directions of a connection, each in a thread of its own.
fn pass(client: TcpStream, server: TcpStream, down: &Arc<AtomicU64>) {
    let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let down = Arc::clone(down);
    thread::spawn(move || copy(client, to_server, &AtomicU64::new(0)));
    thread::spawn(move || copy(server, to_client, &down));
}

fn copy(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut piece = [0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..len]).is_err() {
            break;
        }
        count.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::SeqCst);
    }
    // One of the ends is gone; the other learns it here, if it does not know.
    let _: std::io::Result<()> = to.shutdown(Shutdown::Write);
    let _: std::io::Result<()> = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_server_sends_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::to(&listener.local_addr().unwrap().to_string()).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 9];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(b"an answer").unwrap();
            stream.write_all(&[0; 91]).unwrap();
        });
        let mut stream = TcpStream::connect(&relay.authority).unwrap();
        stream.write_all(b"question?").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        server.join().unwrap();
        assert_eq!((answer.len(), relay.take()), (100, 100));
        assert_eq!(relay.take(), 0);
    }
}
