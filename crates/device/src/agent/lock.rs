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
    /// Another agent runs on this device.
    #[error("another agent runs on this device: it holds {}", path.display())]
    Running {
        /// The file that it holds.
        path: PathBuf,
    },
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
        match lock(state_dir, "update.lock")? {
            (_, Some(file)) => Ok(Self { _file: file }),
            (_, None) => Err(LockError::Busy),
        }
    }
}

/// Held by the agent as long as it runs: two would both watch the trial and restart the device.
#[derive(Debug)]
pub(crate) struct AgentLock {
    _file: File,
}

impl AgentLock {
    /// Takes the lock if no other agent runs.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, LockError> {
        match lock(state_dir, "agent.lock")? {
            (_, Some(file)) => Ok(Self { _file: file }),
            (path, None) => Err(LockError::Running { path }),
        }
    }
}

/// The path of a lock, and its file if nobody else holds it.
fn lock(state_dir: &Path, name: &str) -> Result<(PathBuf, Option<File>), LockError> {
    let path = state_dir.join(name);
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
        Ok(()) => Ok((path, Some(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok((path, None)),
        Err(cause) => Err(fail(&path, cause.into())),
    }
}
