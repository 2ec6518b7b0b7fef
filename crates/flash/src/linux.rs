//! The system calls for which there is no safe function: the ioctls of MTD and UBI, and the
//! I/O priority of a thread. No other module of the workspace has `unsafe`.

#![expect(
    unsafe_code,
    reason = "docs/decisions/unsafe-in-one-module.md: the kernel offers these no other way"
)]

use core::ffi::{c_int, c_void};
use core::ptr::from_mut;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use alloc::format;

use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, ioctl, opcode};

/// Puts the calling thread into the idle class of I/O: the disk serves it when nobody else wants
/// anything. It holds for this thread alone and until it ends.
///
/// A block device whose scheduler knows no classes (`none`), and MTD, which has no scheduler,
/// take no notice.
///
/// # Errors
///
/// The kernel has no I/O priorities, or a sandbox forbids the call.
pub fn idle_io_priority() -> io::Result<()> {
    let who: c_int = 1; // IOPRIO_WHO_PROCESS: of one thread
    let this_thread: c_int = 0;
    let idle: c_int = 3 << 13; // IOPRIO_CLASS_IDLE, which has no levels
    // SAFETY: the call takes three integers and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, who, this_thread, idle) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An open MTD character device: what the ioctls of MTD may be sent to.
#[derive(Debug)]
pub(crate) struct MtdDevice {
    file: File,
    number: u32,
}

/// What the driver says about a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MtdInfo {
    pub(crate) kind: u8,
    pub(crate) flags: u32,
    pub(crate) erase_size: u32,
    pub(crate) write_size: u32,
}

impl MtdDevice {
    /// Returns `None` for what is no MTD character device: there the same numbers might mean
    /// another ioctl, one that writes elsewhere.
    pub(crate) fn new(file: File) -> io::Result<Option<Self>> {
        let number = Self::number_in(&file.metadata()?);
        Ok(number.map(|number| Self { file, number }))
    }

    /// Returns N for the character device of mtdN.
    pub(crate) fn number_in(metadata: &Metadata) -> Option<u32> {
        let is_mtd = metadata.file_type().is_char_device()
            && rustix::fs::major(metadata.rdev()) == MTD_CHAR_MAJOR;
        // Two names for each: the odd ones are read-only.
        is_mtd.then(|| rustix::fs::minor(metadata.rdev()) / 2)
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// N of mtdN.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn info(&self) -> io::Result<MtdInfo> {
        // SAFETY: MEMGETINFO fills a `struct mtd_info_user`, and the file is an MTD device.
        let info = unsafe { ioctl(&self.file, Getter::<MEMGETINFO, MtdInfoUser>::new()) }?;
        Ok(MtdInfo {
            kind: info.kind,
            flags: info.flags,
            erase_size: info.erase_size,
            write_size: info.write_size,
        })
    }

    /// Erases whole blocks; returns when they are erased.
    pub(crate) fn erase(&self, start: u64, length: u64) -> io::Result<()> {
        let blocks = EraseInfoUser64 { start, length };
        // SAFETY: MEMERASE64 reads a `struct erase_info_user64`, and the file is an MTD device.
        let erased = unsafe { ioctl(&self.file, Setter::<MEMERASE64, _>::new(blocks)) };
        Ok(erased?)
    }

    /// Whether all of these blocks are locked against writing.
    pub(crate) fn is_locked(&self, start: u32, length: u32) -> io::Result<bool> {
        let blocks = IsLocked(EraseInfoUser { start, length });
        // SAFETY: MEMISLOCKED is as `IsLocked` says, and the file is an MTD device.
        let locked = unsafe { ioctl(&self.file, blocks) };
        Ok(locked?)
    }

    pub(crate) fn unlock(&self, start: u32, length: u32) -> io::Result<()> {
        let blocks = EraseInfoUser { start, length };
        // SAFETY: MEMUNLOCK reads a `struct erase_info_user`, and the file is an MTD device.
        let unlocked = unsafe { ioctl(&self.file, Setter::<MEMUNLOCK, _>::new(blocks)) };
        Ok(unlocked?)
    }
}

/// An open volume of UBI: what the ioctls of volumes may be sent to.
#[derive(Debug)]
pub(crate) struct UbiVolume(File);

impl UbiVolume {
    /// Returns `None` for what is no volume, as for MTD.
    pub(crate) fn new(file: File) -> io::Result<Option<Self>> {
        let folder = Self::folder_of(&file.metadata()?);
        Ok(folder.map(|_| Self(file)))
    }

    /// Where sysfs tells about the volume. UBI has no number of its own: the kernel gives each
    /// of its devices one as it comes, so sysfs has to say what a number is.
    pub(crate) fn folder_of(metadata: &Metadata) -> Option<PathBuf> {
        if !metadata.file_type().is_char_device() {
            return None;
        }
        let (major, minor) = (
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev()),
        );
        let folder = Path::new("/sys/dev/char").join(format!("{major}:{minor}"));
        let folder = folder.canonicalize().ok()?;
        let subsystem = folder.join("subsystem").canonicalize().ok()?;
        // The device of the volumes is of the same subsystem and has no such file.
        let is_volume = subsystem.ends_with("ubi") && folder.join("reserved_ebs").exists();
        is_volume.then_some(folder)
    }

    pub(crate) const fn file(&self) -> &File {
        &self.0
    }

    /// Without this a write is refused that is no update of the whole volume.
    pub(crate) fn allow_direct_writes(&self) -> io::Result<()> {
        let property = UbiSetVolPropReq {
            property: 1, // UBI_VOL_PROP_DIRECT_WRITE
            _padding: [0; 7],
            value: 1,
        };
        // SAFETY: UBI_IOCSETVOLPROP reads a `struct ubi_set_vol_prop_req`, and this is a volume.
        let set = unsafe { ioctl(&self.0, Setter::<UBI_IOCSETVOLPROP, _>::new(property)) };
        Ok(set?)
    }

    /// Erases one logical block; returns when it is erased.
    pub(crate) fn erase(&self, block: i32) -> io::Result<()> {
        // SAFETY: UBI_IOCEBER reads a 32-bit integer, and the file is a volume.
        let erased = unsafe { ioctl(&self.0, Setter::<UBI_IOCEBER, i32>::new(block)) };
        Ok(erased?)
    }
}

/// MEMISLOCKED: the answer is what the call itself returns.
struct IsLocked(EraseInfoUser);

// SAFETY: MEMISLOCKED reads a `struct erase_info_user`, writes nothing, and returns 0 or 1.
unsafe impl Ioctl for IsLocked {
    type Output = bool;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::read::<EraseInfoUser>(MTD_GROUP, 23)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        from_mut(&mut self.0).cast()
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(output != 0)
    }
}

// The structures and numbers of `mtd/mtd-abi.h`.

#[repr(C)]
struct MtdInfoUser {
    kind: u8,
    flags: u32,
    _size: u32,
    erase_size: u32,
    write_size: u32,
    _oob_size: u32,
    _padding: u64,
}

#[repr(C)]
struct EraseInfoUser {
    start: u32,
    length: u32,
}

#[repr(C)]
struct EraseInfoUser64 {
    start: u64,
    length: u64,
}

// The structure and numbers of `mtd/ubi-user.h`.

#[repr(C)]
struct UbiSetVolPropReq {
    property: u8,
    _padding: [u8; 7],
    value: u64,
}

const UBI_VOLUME_GROUP: u8 = b'O';
const UBI_IOCEBER: Opcode = opcode::write::<i32>(UBI_VOLUME_GROUP, 1);
const UBI_IOCSETVOLPROP: Opcode = opcode::write::<UbiSetVolPropReq>(UBI_VOLUME_GROUP, 6);

const MTD_CHAR_MAJOR: u32 = 90;
const MTD_GROUP: u8 = b'M';
const MEMGETINFO: Opcode = opcode::read::<MtdInfoUser>(MTD_GROUP, 1);
const MEMUNLOCK: Opcode = opcode::write::<EraseInfoUser>(MTD_GROUP, 6);
const MEMERASE64: Opcode = opcode::write::<EraseInfoUser64>(MTD_GROUP, 20);

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers as a C compiler makes them from the kernel's header.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_requests_are_those_of_the_kernel() {
        assert_eq!(MEMGETINFO, 0x8020_4d01);
        assert_eq!(MEMUNLOCK, 0x4008_4d06);
        assert_eq!(MEMERASE64, 0x4010_4d14);
        assert_eq!(UBI_IOCEBER, 0x4004_4f01);
        assert_eq!(UBI_IOCSETVOLPROP, 0x4010_4f06);
        let is_locked = IsLocked(EraseInfoUser {
            start: 0,
            length: 0,
        });
        assert_eq!(is_locked.opcode(), 0x8008_4d17);
    }

    #[test]
    fn nothing_but_its_device_gets_an_ioctl() {
        for path in ["/dev/null", "/proc/self/exe"] {
            let file = File::open(path).unwrap();
            assert!(MtdDevice::new(file).unwrap().is_none(), "{path}");
            let file = File::open(path).unwrap();
            assert!(UbiVolume::new(file).unwrap().is_none(), "{path}");
        }
    }

    #[test]
    fn a_thread_becomes_idle_and_no_other_does() {
        let class = || {
            // SAFETY: the call takes two integers and touches no memory of this process.
            unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) >> 13 }
        };
        let before = class();
        let idle = std::thread::spawn(move || {
            idle_io_priority().unwrap();
            class()
        });
        assert_eq!(idle.join().unwrap(), 3);
        assert_eq!(class(), before);
    }
}
