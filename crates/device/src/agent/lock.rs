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

/// Whether an update is under way, in this process or another. It is not waited for and not disturbed: to try
/// the lock would make an update fail that begins in that moment.
pub(crate) fn is_update_under_way(state_dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = std::fs::metadata(state_dir.join("update.lock")) else {
        return false;
    };
    // 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234567 0 EOF
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else {
        return false;
    };
    let inode = meta.ino().to_string();
    locks.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next() == Some("FLOCK")
            && words.nth(3).and_then(|place| place.rsplit(':').next()) == Some(&inode)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_seen_while_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_update_under_way(folder.path()));
        let lock = UpdateLock::take(folder.path()).unwrap();
        assert!(is_update_under_way(folder.path()));
        drop(lock);
        assert!(!is_update_under_way(folder.path()));
    }
}
