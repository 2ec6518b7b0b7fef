//! The update lock: one update at a time over all doors, also those of other processes.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held while something is installed or committed; released when dropped, also by a crash.
#[derive(Debug)]
pub(crate) struct UpdateLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another door is updating this device.
    #[error("busy: another update is under way on this device")]
    Busy,
    /// The lock's file cannot be used.
    #[error("cannot lock {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl UpdateLock {
    /// Takes the lock if it is free.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, LockError> {
        let path = state_dir.join("update.lock");
        let fail = |path: &Path, cause| LockError::Io {
            path: path.to_owned(),
            cause,
        };
        std::fs::create_dir_all(state_dir).map_err(|cause| fail(state_dir, cause))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|cause| fail(&path, cause))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Busy),
            Err(cause) => Err(fail(&path, cause.into())),
        }
    }
}
