//! The update server, in this process.

use core::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rekindle_fleet::{Config, Server};
use tokio::sync::oneshot;

use super::Recipe;

/// The server with its data folder, on a port of its own.
pub(crate) struct Fleet {
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path());
        config.listen = "127.0.0.1:0".parse().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await.unwrap();
                bound.send(server.local_addr()).unwrap();
                tokio::select! {
                    () = server.serve(core::future::pending::<()>()) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: address.recv().unwrap(),
            folder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Puts a file in place as a whole, as an operator would.
    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let new = self.at(&format!("{path}.new"));
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, self.at(path)).unwrap();
    }

    /// Packs an image into the firmware folder, under its build as name, and returns its path.
    pub(crate) fn publish(&self, recipe: &Recipe) -> String {
        let path = format!("firmware/{}.bin", recipe.options.build);
        recipe.pack(&self.at(&path));
        path
    }

    /// The script of the harness's device type.
    pub(crate) fn write_script(&self, text: &str) {
        self.write("scripts/update-ip1200.htm", text);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _: Result<(), ()> = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the update server panicked");
        }
    }
}
