//! The web server of the demo: the real update server on a data folder of its own.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt::Debug;
use core::net::{Ipv4Addr, SocketAddr};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use rekindle_fleet::{Config, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// A running update server and its data folder.
#[derive(Debug)]
pub(super) struct Site {
    folder: PathBuf,
    address: SocketAddr,
    traffic: Traffic,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Site {
    pub(super) async fn start(folder: PathBuf) -> anyhow::Result<Self> {
        let traffic = Traffic::default();
        tracing_subscriber::registry()
            .with(traffic.clone())
            .try_init()?;
        let mut config = Config::new(&folder);
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::bind(config).await?;
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(stopped));
        Ok(Self {
            folder,
            address,
            traffic,
            stop,
            serving,
        })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(super) const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Puts an image where devices find it, in one step. What was there is gone.
    pub(super) fn publish_image(&self, image: &Path, name: &str) -> anyhow::Result<()> {
        let target = self.folder.join("firmware").join(name);
        fs::rename(image, &target).with_context(|| format!("cannot publish {}", target.display()))
    }

    /// Replaces a script in one step: a device reads the old one or the new one.
    pub(super) fn publish_script(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let target = self.folder.join("scripts").join(name);
        let folder = target.parent().context("a script lies in a folder")?;
        let write = || -> anyhow::Result<()> {
            fs::create_dir_all(folder)?;
            let fresh = target.with_extension("new");
            let mut file = File::create(&fresh)?;
            file.write_all(text.as_bytes())?;
            Ok(fs::rename(&fresh, &target)?)
        };
        write().with_context(|| format!("cannot publish {}", target.display()))
    }

    pub(super) async fn stop(self) {
        // It may have ended by itself, by a panic: then there is nothing to stop.
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}

/// What the server was asked for: GET requests by path, from the event that it emits for each.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Traffic {
    /// GET requests so far of paths that begin so.
    pub(super) fn gets(&self, prefix: &str) -> u64 {
        let counts = self.lock();
        counts
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        // A count is whole at any time, so that a panic elsewhere spoils nothing.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Traffic {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "rekindle_fleet::request" {
            return;
        }
        let mut request = Request::default();
        event.record(&mut request);
        if request.method != "GET" {
            return;
        }
        let mut counts = self.lock();
        if counts.len() < PATHS || counts.contains_key(&request.path) {
            *counts.entry(request.path).or_default() += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Request {
    method: String,
    path: String,
}

impl Visit for Request {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "method" => self.method = format!("{value:?}"),
            "path" => self.path = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Strangers on this machine may ask for whatever they like.
const PATHS: usize = 256;
