//! The device's web server: a bounded number of connections, each with time limits.

use alloc::sync::Arc;
use core::future::Future;
use core::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{Status, page};

/// The limits of the server: a stranger who opens connections and says nothing costs at most these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections served at once; more wait in the system's queue. 16.
    pub connections: usize,
    /// The longest wait for the head of a request. 10 s.
    pub header_time: Duration,
    /// The longest life of a connection, whatever it does. 60 s.
    pub connection_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 16,
            header_time: Duration::from_secs(10),
            connection_time: Duration::from_secs(60),
        }
    }
}

/// The routes of the status: `GET /` is a page for people, `GET /status.json` the value for programs.
pub fn router(status: watch::Receiver<Status>) -> Router {
    Router::new()
        .route("/", get(html))
        .route("/status.json", get(json))
        .with_state(status)
}

/// Serves `router` until `stop` is ready. Connections still open then are dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    stop: impl Future<Output = ()>,
) {
    let mut connections = tokio::task::JoinSet::new();
    let mut stop = core::pin::pin!(stop);
    let free = Arc::new(Semaphore::new(limits.connections));
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = accept(&listener, &free) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            return;
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_time)
                .max_buf_size(HEAD_LIMIT)
                .serve_connection(TokioIo::new(stream), service);
            match timeout(limits.connection_time, serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a connection to the status page failed"),
                Err(_) => debug!("a connection to the status page was open for too long"),
            }
            drop(permit);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(free).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, permit)),
            Err(error) => {
                // Out of file descriptors, most often: accepting again at once would spin.
                warn!(%error, "cannot accept a connection to the status page");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn html(State(status): State<watch::Receiver<Status>>) -> Response {
    let page = page::render(&status.borrow());
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page).into_response()
}

async fn json(State(status): State<watch::Receiver<Status>>) -> Response {
    let json = serde_json::to_vec(&*status.borrow());
    let Ok(json) = json else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, json).into_response()
}

/// hyper's smallest; no request of ours needs more.
const HEAD_LIMIT: usize = 8192;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
