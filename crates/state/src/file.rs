use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::limit::FILE;
use crate::store::{Damage, Loaded, Store};
use crate::{DecodeError, Generation, LimitError, State};

/// A state in a folder of its own: two generations, `state.0` and `state.1`, of which the newer
/// whole one counts.
///
/// A commit writes a temporary file beside them, syncs it, renames it over the older generation
/// and syncs the folder. So whatever a power cut or a failing medium does to the file being
/// written, the one before is not touched. A commit that would change nothing writes nothing.
///
/// While the store is open the folder is locked: a second process gets
/// [`FileStoreError::InUse`].
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    /// `None` when what lies on the medium must be read first: before the first load, and after
    /// a commit that failed somewhere on its way.
    newest: Option<Newest>,
    /// Holds the lock; released when dropped.
    _lock: File,
}

/// What is known to lie on the medium, synced.
#[derive(Debug)]
struct Newest {
    /// Which file; `None` while there is none.
    generation: Option<usize>,
    sequence: u64,
    state: State,
}

impl FileStore {
    /// Opens the store in `folder`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created, read or written, or another process holds it.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, FileStoreError> {
        let folder = folder.into();
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
            if let Some(parent) = folder
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                sync_folder(parent)?;
            }
        }
        let path = folder.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileStoreError::InUse { folder }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        remove_leftovers(&folder)?;
        Ok(Self {
            folder,
            newest: None,
            _lock: lock,
        })
    }

    /// Begins anew with `state` where both generations are damaged, or the operator wants it so:
    /// what lies in the folder is given up.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`]. A power cut in between leaves either the old files, one of them, or
    /// the new one; never an empty state where there was a damaged one.
    pub fn start_over(&mut self, state: &State) -> Result<(), FileStoreError> {
        let sequence = GENERATIONS
            .iter()
            .filter_map(|name| self.read(name).ok().flatten()?.ok())
            .map(|generation| generation.sequence)
            .max()
            .unwrap_or(0);
        self.newest = None;
        self.write(0, sequence.saturating_add(1), state)?;
        let other = self.folder.join(GENERATIONS[1]);
        match fs::remove_file(&other) {
            Ok(()) => sync_folder(&self.folder)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &other)(error)),
        }
        Ok(())
    }

    /// Finds the newest whole generation and makes sure that it is durable.
    fn scan(&self) -> Result<(Newest, Option<Damage>), FileStoreError> {
        // A rename that a killed process did not get to sync.
        sync_folder(&self.folder)?;
        let mut newest: Option<Newest> = None;
        let mut damage: Vec<Damage> = Vec::new();
        for (index, name) in GENERATIONS.into_iter().enumerate() {
            match self.read(name)? {
                None => {}
                Some(Err(error)) => damage.push(Damage {
                    generation: self.folder.join(name).display().to_string(),
                    error,
                }),
                Some(Ok(found)) => {
                    let older = newest
                        .take()
                        .filter(|newest| newest.sequence >= found.sequence);
                    newest = Some(older.unwrap_or(Newest {
                        generation: Some(index),
                        sequence: found.sequence,
                        state: found.state,
                    }));
                }
            }
        }
        match (newest, damage.pop()) {
            (Some(newest), damage) => Ok((newest, damage)),
            (None, Some(last)) => Err(FileStoreError::Damaged {
                folder: self.folder.clone(),
                damage: Box::new(last),
            }),
            (None, None) => Ok((
                Newest {
                    generation: None,
                    sequence: 0,
                    state: State::default(),
                },
                None,
            )),
        }
    }

    /// `None` if the generation was never written.
    fn read(&self, name: &str) -> Result<Option<Result<Generation, DecodeError>>, FileStoreError> {
        let path = self.folder.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(FILE).expect("64 KiB fit 64 bits") + 1;
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        Ok(Some(Generation::decode(&bytes)))
    }

    fn write(&mut self, index: usize, sequence: u64, state: &State) -> Result<(), FileStoreError> {
        let generation = Generation {
            sequence,
            state: state.clone(),
        };
        let bytes = generation.encode()?;
        self.newest = None;
        let path = self.folder.join(GENERATIONS[index]);
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.folder)
            .map_err(failed("create a file in", &self.folder))?;
        file.write_all(&bytes)
            .map_err(failed("write", file.path()))?;
        file.as_file()
            .sync_all()
            .map_err(failed("sync", file.path()))?;
        file.persist(&path)
            .map_err(|error| failed("rename a new file to", &path)(error.error))?;
        sync_folder(&self.folder)?;
        self.newest = Some(Newest {
            generation: Some(index),
            sequence,
            state: generation.state,
        });
        Ok(())
    }
}

impl Store for FileStore {
    type Error = FileStoreError;

    fn load(&mut self) -> Result<Loaded, FileStoreError> {
        let (newest, damage) = self.scan()?;
        let state = newest.state.clone();
        self.newest = Some(newest);
        Ok(Loaded::new(state, damage))
    }

    fn commit(&mut self, state: &State) -> Result<(), FileStoreError> {
        let newest = match self.newest.take() {
            Some(newest) => newest,
            None => self.scan()?.0,
        };
        let (generation, sequence) = (newest.generation, newest.sequence);
        let unchanged = newest.state == *state && generation.is_some();
        self.newest = Some(newest);
        if unchanged {
            return Ok(());
        }
        let older = generation.map_or(0, |index| 1 - index);
        self.write(older, sequence.saturating_add(1), state)
    }
}

/// Why a [`FileStore`] could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileStoreError {
    /// Another process holds the folder: an agent that runs, most likely.
    #[error("the state in {} is in use by another process; stop it, or ask it instead", folder.display())]
    InUse {
        /// The folder of the store.
        folder: PathBuf,
    },
    /// A state was stored and none of it can be read.
    #[error(
        "no copy of the state in {} can be read: {} is damaged ({}); put back a saved copy of that folder, or give the state up with `rekindled factory-reset`",
        folder.display(), damage.generation, damage.error
    )]
    Damaged {
        /// The folder of the store.
        folder: PathBuf,
        /// One of the damaged generations.
        damage: Box<Damage>,
    },
    /// The state is larger than what can be stored; nothing was written.
    #[error("the state cannot be stored")]
    Limit(#[from] LimitError),
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FileStoreError + 'a {
    move |source| FileStoreError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

fn sync_folder(folder: &Path) -> Result<(), FileStoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", folder))
}

/// Removes what commits left behind that were cut off before their rename.
fn remove_leftovers(folder: &Path) -> Result<(), FileStoreError> {
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        let name: String = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(TEMPORARY) {
            let path = entry.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

const GENERATIONS: [&str; 2] = ["state.0", "state.1"];
const TEMPORARY: &str = ".state-";
const LOCK: &str = "lock";
