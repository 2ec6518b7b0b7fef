use core::ops::Range;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use alloc::borrow::ToOwned;

use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock, major};

use crate::{Flash, FlashError, FlashErrorKind, Geometry};

/// Flash in a file or on a block device.
///
/// It overwrites without an erase, in units of 4096 bytes: a smaller write would make the kernel
/// read, change and write back the page around it, which [`Flash`] forbids. The file or device is
/// locked (`flock`) while this lives, so that two processes cannot write one slot.
///
/// # What reaches the medium when
///
/// `write` goes to the page cache, and every few MiB the kernel is told to begin writing them out,
/// so that `sync` (`fdatasync`) finds little left to do. After one failed `sync` the flash refuses
/// everything but `read` until it is opened anew: the kernel reports such an error once, drops the
/// pages, and would answer the next `fdatasync` with success.
///
/// `read_stored` makes the kernel drop what it caches of the file and reads again, with the
/// kernel's read-ahead; that is about twice as fast as reading with `O_DIRECT`. A run of
/// calls at rising offsets drops once, also with writes behind it in between; whatever is read a second
/// time, or was written since the drop, is dropped again. The kernel keeps pages that are not yet synced, that another process maps, and
/// everything on a file system that lives in memory (tmpfs): there `read_stored` is `read`.
/// Whether the drive behind the kernel answers from a cache of its own, this cannot tell.
#[derive(Debug)]
pub struct FileFlash {
    path: PathBuf,
    file: File,
    size: u64,
    /// Written since the kernel was last told to begin writing out.
    unflushed: Range<u64>,
    /// Dropped from the page cache and neither handed out nor written since.
    unread: Range<u64>,
    /// Spans what was written and not yet synced: of that the kernel drops nothing.
    unsynced: Range<u64>,
    /// A sync failed: nothing that follows can be trusted.
    failed: bool,
}

impl FileFlash {
    /// The unit of writes.
    pub const WRITE_SIZE: u32 = 4096;

    /// Opens a file as flash of `size` bytes. It is created, or extended, without taking up space
    /// for what was never written; a new length and name are synced before this returns.
    ///
    /// # Errors
    ///
    /// `size` is zero or no multiple of 4096, the file is longer than that, is no regular file, is
    /// in use by another process, or cannot be created or synced.
    pub fn open(path: impl AsRef<Path>, size: u64) -> Result<Self, FileFlashError> {
        let path = path.as_ref();
        if size == 0 || !size.is_multiple_of(u64::from(Self::WRITE_SIZE)) {
            return Err(FileFlashError::Size {
                path: path.to_owned(),
                size,
            });
        }
        let failed = cannot_open(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(FileFlashError::NotAFile {
                path: path.to_owned(),
            });
        }
        lock(path, &file)?;
        if metadata.len() > size {
            return Err(FileFlashError::Longer {
                path: path.to_owned(),
                found: metadata.len(),
                size,
            });
        }
        if metadata.len() < size {
            file.set_len(size)
                .and_then(|()| file.sync_all())
                .and_then(|()| File::open(folder_of(path))?.sync_all())
                .map_err(failed)?;
        }
        Ok(Self::new(path, file, size))
    }

    /// Opens a block device (a partition, a loop device) as flash of its whole size.
    ///
    /// # Errors
    ///
    /// The path is no block device, or the block device of an MTD, which rewrites whole erase
    /// blocks for each page; the device is mounted or otherwise in use, has no room for a single
    /// write, or cannot be opened.
    pub fn open_block_device(path: impl AsRef<Path>) -> Result<Self, FileFlashError> {
        let path = path.as_ref();
        let failed = cannot_open(path);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.file_type().is_block_device() {
            return Err(FileFlashError::NotABlockDevice {
                path: path.to_owned(),
            });
        }
        refuse_mtd_block(path, &metadata)?;
        // Without O_CREAT, O_EXCL on a block device means: not while it is mounted.
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let file = match OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(exclusive)
            .open(path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(FileFlashError::Busy {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(failed(error)),
        };
        lock(path, &file)?;
        Self::whole(path, file)
    }

    /// Opens a file or block device for a look: nothing is created, locked or written, so this
    /// works on what is mounted or in use, and what is being written may be seen half written.
    ///
    /// # Errors
    ///
    /// The path is neither file nor block device, is too short for a single write, or cannot be
    /// opened.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, FileFlashError> {
        let path = path.as_ref();
        let failed = cannot_open(path);
        let file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(FileFlashError::NotAFile {
                path: path.to_owned(),
            });
        }
        Self::whole(path, file)
    }

    /// Opens a file or block device that exists, for one part of which the caller is responsible:
    /// nothing is locked, and a disk may be opened of which partitions are mounted.
    ///
    /// For an environment of the boot loader, which lies on a disk beside other things.
    ///
    /// # Errors
    ///
    /// The path is neither file nor block device, is the block device of an MTD, is too short for a
    /// single write, or cannot be opened.
    pub fn open_shared(path: impl AsRef<Path>) -> Result<Self, FileFlashError> {
        let path = path.as_ref();
        let look = Self::open_read_only(path)?;
        let failed = cannot_open(path);
        refuse_mtd_block(path, &look.file.metadata().map_err(failed)?)?;
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Self {
            file: file.map_err(failed)?,
            ..look
        })
    }

    /// Returns the path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what there is, down to whole writes.
    fn whole(path: &Path, mut file: File) -> Result<Self, FileFlashError> {
        let len = file.seek(SeekFrom::End(0)).map_err(cannot_open(path))?;
        let unit = u64::from(Self::WRITE_SIZE);
        let size = len / unit * unit;
        if size == 0 {
            return Err(FileFlashError::Size {
                path: path.to_owned(),
                size: len,
            });
        }
        Ok(Self::new(path, file, size))
    }

    fn new(path: &Path, file: File, size: u64) -> Self {
        Self {
            path: path.to_owned(),
            file,
            size,
            unflushed: 0..0,
            unread: 0..0,
            unsynced: 0..0,
            failed: false,
        }
    }

    /// Tells the kernel to begin writing out, once enough has come together.
    fn flush_early(&mut self, written: Range<u64>) {
        if written.start == self.unflushed.end {
            self.unflushed.end = written.end;
        } else {
            self.unflushed = written;
        }
        let len = self.unflushed.end - self.unflushed.start;
        if len >= FLUSH_AT {
            drop_cached(&self.file, &self.unflushed);
            self.unflushed = self.unflushed.end..self.unflushed.end;
        }
    }

    /// Notes that the page cache differs from the medium here.
    fn note_unsynced(&mut self, written: &Range<u64>) {
        if written.end > self.unread.start && written.start < self.unread.end {
            self.unread.end = written.start.max(self.unread.start);
        }
        self.unsynced = if self.unsynced.is_empty() {
            written.clone()
        } else {
            self.unsynced.start.min(written.start)..self.unsynced.end.max(written.end)
        };
    }

    /// How far a run of reads from `start` on may go before the cache must be dropped anew.
    fn dropped_until(&self, start: u64) -> u64 {
        if self.unsynced.end <= start {
            self.size
        } else {
            self.unsynced.start.max(start)
        }
    }

    fn usable(&self) -> Result<(), FileFlashError> {
        if self.failed {
            return Err(FileFlashError::SyncFailed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn refused(&self, kind: FlashErrorKind, offset: u64, len: u64) -> FileFlashError {
        let path = self.path.clone();
        match kind {
            FlashErrorKind::NotAligned => FileFlashError::NotAligned { path, offset, len },
            FlashErrorKind::OutOfBounds | FlashErrorKind::Full | FlashErrorKind::Io => {
                FileFlashError::OutOfBounds {
                    path,
                    offset,
                    len,
                    size: self.size,
                }
            }
        }
    }

    fn io(&self, operation: FileOperation, source: io::Error) -> FileFlashError {
        FileFlashError::Io {
            path: self.path.clone(),
            operation,
            source,
        }
    }
}

impl Flash for FileFlash {
    type Error = FileFlashError;

    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            write_size: Self::WRITE_SIZE,
            erase_size: 0,
        }
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.geometry()
            .check_read(offset, buf.len())
            .map_err(|kind| self.refused(kind, offset, length(buf)))?;
        self.file
            .read_exact_at(buf, offset)
            .map_err(|source| self.io(FileOperation::Read, source))
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.usable()?;
        self.geometry()
            .check_read(offset, buf.len())
            .map_err(|kind| self.refused(kind, offset, length(buf)))?;
        let end = offset + length(buf);
        let goes_on = offset == self.unread.start;
        if offset < self.unread.start || end > self.unread.end {
            // The whole file, not the range: a range keeps the large pages that straddle its ends.
            drop_cached(&self.file, &(0..0));
            self.unread.end = self.dropped_until(end);
        }
        self.unread.start = end;
        self.file
            .read_exact_at(buf, offset)
            .map_err(|source| self.io(FileOperation::Read, source))?;
        if goes_on {
            // The medium delivers the next piece while the caller looks at this one.
            let ahead = end..(end + READ_AHEAD).min(self.unread.end);
            advise(&self.file, &ahead, Advice::WillNeed);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.usable()?;
        self.geometry()
            .check_write(offset, data.len())
            .map_err(|kind| self.refused(kind, offset, length(data)))?;
        self.note_unsynced(&(offset..offset + length(data)));
        self.file
            .write_all_at(data, offset)
            .map_err(|source| self.io(FileOperation::Write, source))?;
        self.flush_early(offset..offset + length(data));
        Ok(())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.usable()?;
        self.geometry()
            .check_erase(&range)
            .map_err(|kind| self.refused(kind, range.start, range.end.saturating_sub(range.start)))
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.usable()?;
        self.unflushed = 0..0;
        self.file.sync_data().map_err(|source| {
            self.failed = true;
            self.io(FileOperation::Sync, source)
        })?;
        self.unsynced = 0..0;
        Ok(())
    }
}

fn refuse_mtd_block(path: &Path, metadata: &Metadata) -> Result<(), FileFlashError> {
    if metadata.file_type().is_block_device() && major(metadata.rdev()) == MTD_BLOCK_MAJOR {
        return Err(FileFlashError::MtdBlock {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// A file or block device failed as flash.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum FileFlashError {
    /// It cannot be opened, created or extended.
    #[error("cannot open {} as flash", path.display())]
    Open {
        /// The file or device.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process uses it, or the device is mounted: stop or unmount that first.
    #[error("{} is in use by another process or mounted", path.display())]
    Busy {
        /// The file or device.
        path: PathBuf,
    },
    /// The size is zero or no multiple of 4096: configure another.
    #[error(
        "{}: {size} bytes cannot be used as flash: the size must be a multiple of {}, and not zero",
        path.display(),
        FileFlash::WRITE_SIZE
    )]
    Size {
        /// The file or device.
        path: PathBuf,
        /// The size.
        size: u64,
    },
    /// The file is longer than configured. Its last bytes would be lost from sight, and with them
    /// what the slot says about itself: configure the old size, or remove the file.
    #[error(
        "{} has {found} bytes, more than the configured {size}; configure {found} bytes, or remove the file to start with an empty slot",
        path.display()
    )]
    Longer {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The configured one.
        size: u64,
    },
    /// The path is a folder, a device or something else.
    #[error("{} is no regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The path is a file or something else.
    #[error("{} is no block device", path.display())]
    NotABlockDevice {
        /// The path.
        path: PathBuf,
    },
    /// It is the block device of an MTD, which reads an erase block, changes a part and writes it
    /// back, so that a power cut destroys what nobody wrote: open the character device instead.
    #[error(
        "{} rewrites whole erase blocks, which a power cut in between destroys; use the character device /dev/mtdN",
        path.display()
    )]
    MtdBlock {
        /// The device.
        path: PathBuf,
    },
    /// The caller's mistake.
    #[error(
        "{}: {len} bytes at {offset} are not aligned to {}",
        path.display(),
        FileFlash::WRITE_SIZE
    )]
    NotAligned {
        /// The file or device.
        path: PathBuf,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// The caller's mistake.
    #[error("{}: {len} bytes at {offset} lie beyond the size of {size}", path.display())]
    OutOfBounds {
        /// The file or device.
        path: PathBuf,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The size of the flash.
        size: u64,
    },
    /// The system reports an error.
    #[error("{operation} {}", path.display())]
    Io {
        /// The file or device.
        path: PathBuf,
        /// What was being done.
        operation: FileOperation,
        /// What the system says.
        source: io::Error,
    },
    /// A sync failed before: what the medium holds is unknown. Open the flash anew and look.
    #[error("{} failed to sync before; open it anew", path.display())]
    SyncFailed {
        /// The file or device.
        path: PathBuf,
    },
}

impl FlashError for FileFlashError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::NotAligned { .. } => FlashErrorKind::NotAligned,
            Self::OutOfBounds { .. } => FlashErrorKind::OutOfBounds,
            Self::Io { source, .. } | Self::Open { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                        | io::ErrorKind::FileTooLarge
                ) =>
            {
                FlashErrorKind::Full
            }
            Self::Open { .. }
            | Self::Busy { .. }
            | Self::Size { .. }
            | Self::Longer { .. }
            | Self::NotAFile { .. }
            | Self::NotABlockDevice { .. }
            | Self::MtdBlock { .. }
            | Self::Io { .. }
            | Self::SyncFailed { .. } => FlashErrorKind::Io,
        }
    }
}

/// What a [`FileFlash`] was doing when the system reported an error.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileOperation {
    /// Reading.
    Read,
    /// Writing to the page cache.
    Write,
    /// Writing out to the medium.
    Sync,
}

impl core::fmt::Display for FileOperation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Read => "cannot read",
            Self::Write => "cannot write",
            Self::Sync => "cannot sync",
        })
    }
}

/// Returns the folder that holds the name.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// Drops what the kernel caches of the range (an empty one: of all) and begins writing out what is
/// dirty. Advice that a file system does not take is no error; then the cache stays.
pub(crate) fn drop_cached(file: &File, range: &Range<u64>) {
    advise(file, range, Advice::DontNeed);
}

/// Tells the kernel what is to come of a range; it may not listen.
fn advise(file: &File, range: &Range<u64>, advice: Advice) {
    let len = core::num::NonZeroU64::new(range.end.saturating_sub(range.start));
    if len.is_none() && advice == Advice::WillNeed {
        return;
    }
    fadvise(file, range.start, len, advice).unwrap_or_default();
}

fn cannot_open(path: &Path) -> impl Fn(io::Error) -> FileFlashError + Copy + '_ {
    |source| FileFlashError::Open {
        path: path.to_owned(),
        source,
    }
}

fn lock(path: &Path, file: &File) -> Result<(), FileFlashError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(FileFlashError::Busy {
            path: path.to_owned(),
        }),
        Err(errno) => Err(cannot_open(path)(errno.into())),
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("no slice is longer than a u64 counts")
}

/// As much as two of the pieces that a scan reads.
const READ_AHEAD: u64 = 1 << 20;

/// Large enough for an efficient write to any medium, small enough that little is left to `sync`.
const FLUSH_AT: u64 = 4 << 20;

/// The number of all mtdblockN.
const MTD_BLOCK_MAJOR: u32 = 31;

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use std::os::fd::OwnedFd;

    use super::*;

    /// A pipe refuses `fdatasync`, as a file does whose medium fails.
    #[test]
    fn after_a_failed_sync_only_plain_reads_are_tried() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut flash = FileFlash::new(Path::new("slot"), File::from(OwnedFd::from(writer)), 8192);
        assert_eq!(flash.sync().unwrap_err().to_string(), "cannot sync slot");
        let refused = "slot failed to sync before; open it anew";
        assert_eq!(flash.sync().unwrap_err().to_string(), refused);
        assert_eq!(flash.write(0, &[0; 4096]).unwrap_err().to_string(), refused);
        assert_eq!(flash.erase(0..4096).unwrap_err().to_string(), refused);
        let error = flash.read_stored(0, &mut [0]).unwrap_err();
        assert_eq!(error.to_string(), refused);
        let error = flash.read(0, &mut [0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read slot",
            "tried, and a pipe has no offsets"
        );
    }

    #[test]
    fn no_space_left_is_told_from_a_failing_medium() {
        for (source, kind) in [
            (io::ErrorKind::StorageFull, FlashErrorKind::Full),
            (io::ErrorKind::QuotaExceeded, FlashErrorKind::Full),
            (io::ErrorKind::Other, FlashErrorKind::Io),
        ] {
            let error = FileFlashError::Io {
                path: PathBuf::new(),
                operation: FileOperation::Write,
                source: source.into(),
            };
            assert_eq!(error.kind(), kind);
        }
    }

    #[test]
    fn a_run_of_stored_reads_drops_the_cache_once_and_a_repetition_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut flash = FileFlash::open(file.path(), 16 * 4096).unwrap();
        let mut page = [0; 4096];
        let mut unread_after = |flash: &mut FileFlash, offset| {
            flash.read_stored(offset, &mut page).unwrap();
            flash.unread.clone()
        };
        assert_eq!(unread_after(&mut flash, 0), 4096..65536);
        assert_eq!(unread_after(&mut flash, 4096), 8192..65536);
        assert_eq!(unread_after(&mut flash, 12288), 16384..65536);
        assert_eq!(
            unread_after(&mut flash, 0),
            4096..65536,
            "read before: dropped again"
        );
        flash.write(8192, &[1; 4096]).unwrap();
        flash.sync().unwrap();
        assert_eq!(unread_after(&mut flash, 8192), 12288..65536);
        assert_eq!(page, [1; 4096]);
    }

    #[test]
    fn a_run_of_stored_reads_goes_on_up_to_what_is_written_meanwhile() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut flash = FileFlash::open(file.path(), 16 * 4096).unwrap();
        let mut page = [0; 4096];
        flash.read_stored(0, &mut page).unwrap();
        flash.write(32768, &[1; 4096]).unwrap();
        assert_eq!(flash.unread, 4096..32768, "before the write it goes on");
        flash.write(36864, &[2; 4096]).unwrap();
        assert_eq!(flash.unread, 4096..32768);
        flash.read_stored(4096, &mut page).unwrap();
        assert_eq!(flash.unread, 8192..32768);
        flash.read_stored(0, &mut page).unwrap();
        assert_eq!(
            flash.unread,
            4096..32768,
            "dropped anew, but for what is not synced"
        );
        flash.read_stored(32768, &mut page).unwrap();
        assert!(flash.unread.is_empty(), "it came from the cache");
        flash.sync().unwrap();
        flash.read_stored(32768, &mut page).unwrap();
        assert_eq!(flash.unread, 36864..65536, "synced: now it can be dropped");
        flash.write(0, &[3; 4096]).unwrap();
        assert_eq!(
            flash.unread,
            36864..65536,
            "a write before it changes nothing"
        );
    }
}
