use alloc::sync::Arc;
use core::convert::Infallible;
use core::net::SocketAddr;
use core::pin::pin;
use core::time::Duration;
use std::io;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::body::Body;
use crate::config::Limits;
use crate::site::Site;
use crate::stream::PacedStream;
use crate::{BindError, Config};

/// The update server, bound to its address and its data folder.
///
/// Dropping it, or the future of [`serve`](Self::serve), closes every connection at once; a backup under way is then not stored.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    site: Arc<Site>,
    limits: Limits,
}

impl Server {
    /// Creates what is missing of the data folder, removes what an interrupted upload left behind, and listens.
    ///
    /// Connections are accepted by the system from now on, and answered by [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// When the data folder or the address cannot be used, or the configuration contradicts itself.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O and time enabled.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        if config.limits.connections == 0 {
            return Err(BindError::NoConnections);
        }
        let limits = config.limits.clone();
        let address = config.listen;
        let site = Arc::new(Site::open(config)?);
        let listen = |source| BindError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        Ok(Self {
            listener,
            local_addr,
            site,
            limits,
        })
    }

    /// Returns the address that the server listens on, with the port that the system chose if the configuration said 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` completes; then accepts nothing more and gives the requests under way
    /// [`Limits::shutdown_time`] to end.
    ///
    /// Errors of single connections, and of accepting them, are logged and do not end the server.
    pub async fn serve(self, shutdown: impl Future) {
        let mut shutdown = pin!(shutdown);
        let places = Arc::new(Semaphore::new(
            self.limits.connections.min(Semaphore::MAX_PERMITS),
        ));
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = &mut shutdown => break,
                accepted = self.accept(&places) => accepted,
                Some(_) = tasks.join_next() => continue,
            };
            match accepted {
                Ok((stream, remote, place)) => {
                    let connection = Connection {
                        site: Arc::clone(&self.site),
                        limits: self.limits.clone(),
                        places: Arc::clone(&places),
                        remote,
                    };
                    let stopping = stopping.clone();
                    tasks.spawn(async move {
                        connection.run(stream, stopping).await;
                        drop(place);
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        let Self {
            listener, limits, ..
        } = self;
        drop(listener);
        stop.send_replace(true);
        let all_ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.shutdown_time, all_ended)
            .await
            .is_err()
        {
            tracing::warn!("connections did not end in time and are cut off");
            tasks.shutdown().await;
        }
    }

    /// Takes a place first, so that what is over the limit stays in the listen queue.
    async fn accept(
        &self,
        places: &Arc<Semaphore>,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = Arc::clone(places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, remote) = self.listener.accept().await?;
        Ok((stream, remote, place))
    }
}

struct Connection {
    site: Arc<Site>,
    limits: Limits,
    places: Arc<Semaphore>,
    remote: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
        let remote = self.remote;
        let io = TokioIo::new(PacedStream::new(stream, &self.limits));
        let service = service_fn(|request| self.answer(request));
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_time)
            .max_buf_size(CONNECTION_BUFFER)
            .serve_connection(io, service);
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = stopped(&mut stopping) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%remote, error = %Chain(&error), "connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let mut response = self.site.answer(request, self.remote).await;
        // Others wait for this place: no keeping it between two requests.
        if self.places.available_permits() == 0 {
            response.headers_mut().insert(
                http::header::CONNECTION,
                http::HeaderValue::from_static("close"),
            );
        }
        Ok(response)
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server itself is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Prints an error with its sources: hyper's own text names only the stage.
struct Chain<'a>(&'a dyn core::error::Error);

impl core::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Errors that `accept` reports for a connection that died in the queue.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Out of files or memory: both pass when other connections end.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Bounds a request head and, on the way out, what waits for the client beside the piece that is being sent.
const CONNECTION_BUFFER: usize = 32 * 1024;
