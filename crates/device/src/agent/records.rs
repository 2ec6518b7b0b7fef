//! The state of the device, opened for each use: several processes share it, and none holds it for
//! longer than a read or a commit.

use core::time::Duration;
use std::path::PathBuf;

use rekindle_state::{FileStore, FileStoreError, Loaded, State, Store};

/// The state in its folder.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Gives up what cannot be read, so that the device goes on: nothing of it decides what boots.
    /// The device does not become new by this, or scripts would run outside their hours.
    pub(crate) fn start_over(&self) -> Result<(), FileStoreError> {
        self.open()?.start_over(&State {
            known: true,
            ..State::default()
        })
    }

    /// Waits while another process reads or commits.
    fn open(&self) -> Result<FileStore, FileStoreError> {
        for _ in 0..ATTEMPTS {
            match FileStore::open(&self.folder) {
                Err(FileStoreError::InUse { .. }) => pause(),
                other => return other,
            }
        }
        FileStore::open(&self.folder)
    }
}

impl Store for Records {
    type Error = FileStoreError;

    fn load(&mut self) -> Result<Loaded, FileStoreError> {
        self.open()?.load()
    }

    fn commit(&mut self, state: &State) -> Result<(), FileStoreError> {
        self.open()?.commit(state)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process holds the lock for the time of a commit; there is nothing to wait on"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// With [`PAUSE`] two seconds: many times what a commit takes.
const ATTEMPTS: u32 = 100;

const PAUSE: Duration = Duration::from_millis(20);
