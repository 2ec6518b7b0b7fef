use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::config::Limits;
use crate::pace::Pace;

/// A connection whose writes fail when the client takes nothing, or too little, for too long.
///
/// hyper has no limit of its own for this direction. Reads are limited where their meaning is known: the head by hyper's
/// header timer, a body by the upload.
#[derive(Debug)]
pub(crate) struct PacedStream {
    stream: TcpStream,
    pace: Pace,
    /// Set while a write waits.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl PacedStream {
    pub(crate) fn new(stream: TcpStream, limits: &Limits) -> Self {
        let _ = stream.set_nodelay(true);
        // Without it a write becomes possible only when a third of a send buffer of several MiB is free: a slow client
        // would look idle in between, and every stalled one would hold the whole buffer.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        Self {
            stream,
            pace: Pace::new(limits),
            alarm: None,
        }
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(result) => {
                self.alarm = None;
                if let Ok(bytes) = result {
                    self.pace.progress(Instant::now(), bytes);
                }
                Poll::Ready(result)
            }
            Poll::Pending => loop {
                let deadline = match self.pace.wait(Instant::now()) {
                    Ok(deadline) => deadline,
                    Err(slow) => {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)));
                    }
                };
                let alarm = self
                    .alarm
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if alarm.deadline() != deadline {
                    alarm.as_mut().reset(deadline);
                }
                ready!(alarm.as_mut().poll(context));
            },
        }
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buf);
        self.watch(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.watch(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

/// What the kernel may hold of what it has not sent yet; enough to keep a link busy until this process runs again.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 256 * 1024;
