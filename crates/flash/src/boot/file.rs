use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use core::time::Duration;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use rustix::fs::{FlockOperation, flock};

use super::codec::{BootCopy, BootCopyError};
use crate::file::{drop_cached, folder_of};
use crate::{BootControl, BootRecord, RecordError};

/// Boot control in one file, for devices whose boot loader can read a file, and for simulations.
///
/// The file holds two [`BootCopy`]s one after the other. A store overwrites the older and syncs,
/// so that a power cut leaves the newer as it was. Both damaged is an error that stays until
/// somebody acts: a default record could boot a half-written slot.
///
/// The file is locked during each load and store, not in between: the boot loader and the agent
/// may both have it open as long as they do not change the record at the same time.
#[derive(Debug)]
pub struct FileBootControl {
    path: PathBuf,
    file: File,
    components: Vec<(String, u8)>,
    /// A sync failed: what the medium holds is unknown until the file is opened anew.
    failed: bool,
}

impl FileBootControl {
    /// Opens the file, and creates it with every component on slot A if it does not exist.
    ///
    /// `components` are the names and numbers of slots of the configuration. A record that knows
    /// other ones is fitted to them by [`BootRecord::adapt`] whenever it is loaded.
    ///
    /// # Errors
    ///
    /// The file cannot be created or read, both copies are damaged, or the record cannot be fitted
    /// to the components.
    pub fn open(
        path: impl AsRef<Path>,
        components: &[(&str, u8)],
    ) -> Result<Self, FileBootControlError> {
        let path = path.as_ref();
        let fresh = BootRecord::new(components).map_err(FileBootControlError::Components)?;
        let open = || OpenOptions::new().read(true).write(true).open(path);
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, &fresh).and_then(|()| open())
            }
            other => other,
        };
        let mut control = Self {
            path: path.to_owned(),
            file: opened.map_err(|source| FileBootControlError::Io {
                path: path.to_owned(),
                source,
            })?,
            components: components
                .iter()
                .map(|(name, slots)| ((*name).to_owned(), *slots))
                .collect(),
            failed: false,
        };
        control.load()?;
        Ok(control)
    }

    /// Creates the file with this record, if there is none: for a device whose record was lost, or
    /// that has never had one, and that knows what it runs.
    ///
    /// # Errors
    ///
    /// The file cannot be created or synced.
    pub fn create(path: impl AsRef<Path>, record: &BootRecord) -> Result<(), FileBootControlError> {
        let path = path.as_ref();
        create(path, record).map_err(|source| FileBootControlError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Returns the newest valid copy and the place (0 or 1) of the other.
    fn newest(&self) -> Result<(BootCopy, u8), FileBootControlError> {
        if self.failed {
            return Err(FileBootControlError::SyncFailed {
                path: self.path.clone(),
            });
        }
        // After a failed sync in an earlier life of the process the kernel may still cache what
        // never reached the medium.
        drop_cached(&self.file, &(0..0));
        let first = self.read_copy(0)?;
        let second = self.read_copy(1)?;
        match (first, second) {
            (Ok(first), Ok(second)) if first.sequence >= second.sequence => Ok((first, 1)),
            (_, Ok(second)) => Ok((second, 0)),
            (Ok(first), Err(_)) => Ok((first, 1)),
            (Err(first), Err(second)) => Err(FileBootControlError::Damaged {
                path: self.path.clone(),
                first,
                second,
            }),
        }
    }

    fn read_copy(
        &self,
        place: u8,
    ) -> Result<Result<BootCopy, BootCopyError>, FileBootControlError> {
        let mut bytes = vec![0; BootCopy::LEN];
        let mut len = 0;
        while len < bytes.len() {
            let at = offset(place) + u64::try_from(len).expect("a copy is short");
            match self.file.read_at(&mut bytes[len..], at) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io(source)),
            }
        }
        Ok(BootCopy::decode(&bytes[..len]))
    }

    /// Holds the lock of the file until the guard is dropped; waits a while for it, since others
    /// hold it only for a moment.
    fn lock(&self, operation: FlockOperation) -> Result<Locked<'_>, FileBootControlError> {
        for _ in 0..LOCK_ATTEMPTS {
            match flock(&self.file, operation) {
                Ok(()) => return Ok(Locked(&self.file)),
                Err(rustix::io::Errno::WOULDBLOCK) => pause(),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.io(errno.into())),
            }
        }
        Err(FileBootControlError::Busy {
            path: self.path.clone(),
        })
    }

    fn io(&self, source: io::Error) -> FileBootControlError {
        FileBootControlError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

impl BootControl for FileBootControl {
    type Error = FileBootControlError;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        let (mut copy, _) = {
            let _locked = self.lock(FlockOperation::NonBlockingLockShared)?;
            self.newest()?
        };
        let components: Vec<(&str, u8)> = self
            .components
            .iter()
            .map(|(name, slots)| (name.as_str(), *slots))
            .collect();
        copy.record
            .adapt(&components)
            .map_err(|source| FileBootControlError::Configuration {
                path: self.path.clone(),
                source,
            })?;
        Ok(copy.record)
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        let locked = self.lock(FlockOperation::NonBlockingLockExclusive)?;
        let (newest, older) = self.newest()?;
        let sequence =
            newest
                .sequence
                .checked_add(1)
                .ok_or_else(|| FileBootControlError::WornOut {
                    path: self.path.clone(),
                })?;
        let copy = BootCopy {
            sequence,
            record: record.clone(),
        };
        let stored = self
            .file
            .write_all_at(&copy.encode(), offset(older))
            .and_then(|()| self.file.sync_data());
        drop(locked);
        stored.map_err(|source| {
            self.failed = true;
            self.io(source)
        })
    }
}

/// Boot control in a file failed.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum FileBootControlError {
    /// The components of the configuration are out of their limits.
    #[error("the components cannot be kept in a boot record")]
    Components(#[source] RecordError),
    /// The file cannot be opened, created, read, locked or written.
    #[error("boot control file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Neither copy can be used. Restore the file; or, where forgotten security floors are
    /// acceptable, remove it: the agent makes a new one of what runs.
    #[error(
        "boot control file {} is damaged (first copy: {first}; second copy: {second}); restore it, or remove it: the agent then takes what runs for confirmed, and the security floors start at 0",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the first copy.
        first: BootCopyError,
        /// What is wrong with the second copy.
        second: BootCopyError,
    },
    /// Another process holds the file and does not let go of it.
    #[error("boot control file {} is held by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A store failed before, so that what the medium holds is unknown: open the file anew.
    #[error("boot control file {} could not be written before; open it anew", path.display())]
    SyncFailed {
        /// The file.
        path: PathBuf,
    },
    /// The record does not fit the components of the configuration.
    #[error("the configured components do not fit boot control file {}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Which rule is broken.
        source: RecordError,
    },
    /// The sequence has no successor, which no number of stores reaches: the file was forged.
    #[error("boot control file {} states the last possible sequence; restore it", path.display())]
    WornOut {
        /// The file.
        path: PathBuf,
    },
}

/// Unlocks on drop.
struct Locked<'a>(&'a File);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and closing the file unlocks it as well.
        flock(self.0, FlockOperation::Unlock).unwrap_or_default();
    }
}

/// Creates the file whole: a cut leaves it absent or complete, never half.
fn create(path: &Path, record: &BootRecord) -> io::Result<()> {
    let folder = folder_of(path);
    let copy = BootCopy {
        sequence: 1,
        record: record.clone(),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".boot-")
        .tempfile_in(folder)?;
    file.write_all(&copy.encode())?;
    file.write_all(&[0; BootCopy::LEN])?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        // Another process was faster: its file counts.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error),
    }
    File::open(folder)?.sync_all()
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process holds the lock for the time of a store; there is nothing to wait on"
)]
fn pause() {
    std::thread::sleep(LOCK_PAUSE);
}

/// With [`LOCK_PAUSE`] five seconds: many times what a store takes.
const LOCK_ATTEMPTS: u32 = 250;

const LOCK_PAUSE: Duration = Duration::from_millis(20);

const fn offset(place: u8) -> u64 {
    if place == 0 { 0 } else { COPY_LEN }
}

/// [`BootCopy::LEN`] as an offset.
const COPY_LEN: u64 = 4096;
const _: () = assert!(BootCopy::LEN == 4096);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn after_a_store_that_failed_nothing_is_believed_until_the_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.state");
        let components = [("prot", 2)];
        let mut boot = FileBootControl::open(&path, &components).unwrap();
        let record = boot.load().unwrap();
        boot.file = File::open(&path).unwrap();
        let error = boot.store(&record).unwrap_err();
        assert!(matches!(error, FileBootControlError::Io { .. }), "{error}");
        let refused = alloc::format!(
            "boot control file {} could not be written before; open it anew",
            path.display()
        );
        assert_eq!(boot.load().unwrap_err().to_string(), refused);
        assert_eq!(boot.store(&record).unwrap_err().to_string(), refused);
        let mut boot = FileBootControl::open(&path, &components).unwrap();
        assert_eq!(boot.load().unwrap(), record);
    }
}
