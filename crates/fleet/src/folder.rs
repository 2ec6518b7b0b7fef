use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::path::SitePath;

/// An open folder below which names are looked up without regard to letter case.
///
/// Everything is opened relative to the folder's descriptor in one step that the kernel keeps inside it, so that nobody who
/// swaps a folder for a link in between gains anything. Blocking.
#[derive(Debug)]
pub(crate) struct Folder {
    root: OwnedFd,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens a regular file for reading. Links count where they stay inside this folder.
    pub(crate) fn open_file(&self, path: &SitePath) -> io::Result<Option<OpenFile>> {
        let exact: PathBuf = path.names().iter().collect();
        if let Some(file) = self.try_file(&exact)? {
            return Ok(Some(file));
        }
        let (folders, last) = path.split();
        let Some(found) = self.find_folders(folders, Links::Inside)? else {
            return Ok(None);
        };
        if let Some(file) = self.try_file(&found.join(last))? {
            return Ok(Some(file));
        }
        for name in self.alike(&found, last, Links::Inside)? {
            if let Some(file) = self.try_file(&found.join(name))? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Opens the folder that a path's last name lies in. No link is followed.
    pub(crate) fn open_parent(&self, path: &SitePath) -> io::Result<Option<OwnedFd>> {
        let Some(found) = self.find_folders(path.split().0, Links::Never)? else {
            return Ok(None);
        };
        self.try_folder(&found, Links::Never)
    }

    /// Creates a folder and those on the way, and opens it. No link is followed.
    pub(crate) fn create(&self, path: &SitePath) -> io::Result<OwnedFd> {
        let mut found = PathBuf::new();
        for name in path.names() {
            found.push(name);
            match rustix::fs::mkdirat(&self.root, &found, Mode::from(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.open_at(&found, FOLDER_FLAGS, Links::Never)
    }

    /// Returns the path of the folders as they are spelled on the disk.
    fn find_folders(&self, names: &[OsString], links: Links) -> io::Result<Option<PathBuf>> {
        let mut found = PathBuf::new();
        'names: for name in names {
            let exact = found.join(name);
            if self.try_folder(&exact, links)?.is_some() {
                found = exact;
                continue;
            }
            for alike in self.alike(&found, name, links)? {
                let candidate = found.join(alike);
                if self.try_folder(&candidate, links)?.is_some() {
                    found = candidate;
                    continue 'names;
                }
            }
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Returns the names in a folder that differ from `name` in letter case only.
    fn alike(&self, folder: &Path, name: &OsStr, links: Links) -> io::Result<Vec<OsString>> {
        match self.try_folder(folder, links)? {
            Some(folder) => names_alike(folder, name),
            None => Ok(Vec::new()),
        }
    }

    fn try_folder(&self, path: &Path, links: Links) -> io::Result<Option<OwnedFd>> {
        found(self.open_at(path, FOLDER_FLAGS, links))
    }

    fn try_file(&self, path: &Path) -> io::Result<Option<OpenFile>> {
        let Some(file) = found(self.open_at(path, FILE_FLAGS, Links::Inside))? else {
            return Ok(None);
        };
        let file = File::from(file);
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then(|| OpenFile {
            stamp: Stamp::of(&metadata),
            file,
        }))
    }

    fn open_at(&self, path: &Path, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = match links {
            Links::Inside => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            Links::Never => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        };
        for _ in 0..RETRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // Something was renamed while a ".." of a link was followed.
                Err(Errno::AGAIN) => {}
                // Kernels before 5.6, and containers whose filter does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path, flags),
                result => return Ok(result?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens a path name by name and follows no link at all.
    fn walk(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut at = None;
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() {
                FOLDER_FLAGS
            } else {
                flags
            };
            let parent = at.as_ref().unwrap_or(&self.root);
            at = Some(rustix::fs::openat(
                parent,
                name,
                flags | OFlags::NOFOLLOW,
                Mode::empty(),
            )?);
        }
        at.ok_or_else(|| Errno::NOENT.into())
    }
}

/// A regular file, open for reading, and what identified it then.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) stamp: Stamp,
}

/// What changes when the content of an open file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    pub(crate) size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        }
    }

    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&file.metadata()?))
    }

    /// Returns a strong entity tag with its quotes.
    pub(crate) fn entity_tag(&self) -> String {
        format!(
            "\"{:x}-{:x}-{:x}.{:x}\"",
            self.inode, self.size, self.seconds, self.nanoseconds
        )
    }

    /// Returns when the content changed, in whole seconds as in HTTP; none where no HTTP date can say it.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds)
            .ok()
            .filter(|seconds| *seconds < YEAR_10000)?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// Returns the names in an open folder that differ from `name` in letter case only, in the order of their bytes.
///
/// The first one that fits counts: which one is answered does not depend on the file system.
pub(crate) fn names_alike(folder: impl AsFd, name: &OsStr) -> io::Result<Vec<OsString>> {
    let mut alike = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes.eq_ignore_ascii_case(name.as_bytes()) && bytes != name.as_bytes() {
            alike.push(OsString::from_vec(bytes.to_vec()));
        }
    }
    alike.sort();
    if alike.len() > 1 {
        tracing::warn!(
            asked = ?name, found = ?alike,
            "several names differ in letter case only: the first one that fits is used"
        );
    }
    Ok(alike)
}

/// Tells what a name in an open folder is, without following it.
pub(crate) fn kind_of(folder: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a link may be followed.
#[derive(Debug, Clone, Copy)]
enum Links {
    Inside,
    Never,
}

/// Turns "there is no such thing here", links that lead out included, into none.
fn found(result: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match result {
        Ok(fd) => Ok(Some(fd)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::NXIO,
            ) => Ok(None),
            _ => Err(error),
        },
    }
}

pub(crate) const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// `NONBLOCK`: a named pipe must not hang the server; it makes no difference to a regular file.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

const RETRIES: usize = 16;

/// The first second that an HTTP date has no digits for.
const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// What kernels before 5.6 get; those that run the tests know `openat2`.
    #[test]
    fn the_walk_without_openat2_follows_no_link() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(outer.path().join("out")).unwrap();
        std::fs::write(outer.path().join("out/secret"), "").unwrap();
        std::fs::write(root.join("a/b/file"), "").unwrap();
        symlink("../../out", root.join("a/out")).unwrap();
        symlink("../../../out/secret", root.join("a/b/secret")).unwrap();
        symlink("file", root.join("a/b/link")).unwrap();
        let folder = Folder::open(&root).unwrap();
        let open = |path: &str, flags| {
            found(folder.walk(Path::new(path), flags))
                .unwrap()
                .is_some()
        };
        for (path, flags, expected) in [
            ("a/b/file", FILE_FLAGS, true),
            ("a/b", FOLDER_FLAGS, true),
            (".", FOLDER_FLAGS, true),
            ("a/out", FOLDER_FLAGS, false),
            ("a/out/secret", FILE_FLAGS, false),
            ("a/b/secret", FILE_FLAGS, false),
            ("a/b/link", FILE_FLAGS, false),
            ("a/b/file/x", FILE_FLAGS, false),
            ("none", FILE_FLAGS, false),
        ] {
            assert_eq!(open(path, flags), expected, "{path}");
        }
    }
}
