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
    let file = File::open(state_dir.join("update.lock"));
    let Ok(place) = file.and_then(|file| place_of(&file)) else {
        return false;
    };
    std::fs::read_to_string("/proc/locks").is_ok_and(|locks| is_locked(&locks, &place))
}

/// Device and inode of a file as the kernel's list of locks has them.
fn place_of(file: &File) -> io::Result<String> {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;
    let meta = file.metadata()?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    // Where a file system has several devices or layers, `stat` names another one than the list.
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let device = mount.and_then(|mount| device_of(&mounts, mount.trim()));
    let (major, minor) =
        device.unwrap_or_else(|| (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev())));
    Ok(format!("{major:02x}:{minor:02x}:{}", meta.ino()))
}

/// The device of a mount in the kernel's table of them.
fn device_of(mounts: &str, mount: &str) -> Option<(u32, u32)> {
    // 29 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
    let device = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next() == Some(mount)).then(|| words.nth(1))?
    });
    let (major, minor) = device?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn is_locked(locks: &str, place: &str) -> bool {
    // 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234567 0 EOF
    locks.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(3) == Some(place)
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

    #[test]
    fn a_lock_on_another_file_system_is_no_update() {
        let locks = "1: FLOCK  ADVISORY  WRITE 612 fd:01:4711 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 613 00:1a:4712 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 614 00:1a:4713 0 EOF\n";
        assert!(is_locked(locks, "fd:01:4711"));
        for free in ["00:1a:4711", "fd:02:4711", "00:1a:4712", "00:1a:4713"] {
            assert!(!is_locked(locks, free), "{free}");
        }
        let mounts =
            "21 28 0:5 / /dev rw - devtmpfs dev rw\n28 1 253:1 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(device_of(mounts, "28"), Some((253, 1)));
        assert_eq!(device_of(mounts, "2"), None);
    }
}
