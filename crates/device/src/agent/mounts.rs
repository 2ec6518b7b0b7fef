//! Who uses a slot: a slot that is mounted must not change under a file system that writes to it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{major, minor};

/// How a file or block device is used beside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    /// Not at all, as far as mounts and devices on top of it tell.
    None,
    /// It is mounted, or lies below other devices, and all of that only reads.
    Readers,
    /// Something may write to it.
    Writers,
}

/// Says how a path is used.
///
/// # Errors
///
/// If the system does not tell.
pub(crate) fn users(path: &Path) -> io::Result<Users> {
    let meta = fs::metadata(path)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let path = path.canonicalize()?;
    let mut users = of_loops(&path, &mounts);
    if meta.file_type().is_block_device() {
        let device = format!("{}:{}", major(meta.rdev()), minor(meta.rdev()));
        users = worse(users, of_device(&device, &mounts, NESTED));
    }
    Ok(users)
}

/// The users of a block device, and of the devices on top of it.
fn of_device(device: &str, mounts: &str, depth: u8) -> Users {
    let mut users = mount_users(device, mounts);
    let Ok(holders) = fs::read_dir(format!("/sys/dev/block/{device}/holders")) else {
        return users;
    };
    for holder in holders.flatten() {
        let folder = holder.path();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let nested = if depth == 0 {
            Users::Writers
        } else {
            of_device(read("dev").trim(), mounts, depth - 1)
        };
        // A device that cannot be written is as good as one whose every mount only reads.
        users = worse(
            users,
            match nested {
                Users::None if read("ro").trim() == "1" => Users::Readers,
                Users::None => Users::Writers,
                known => known,
            },
        );
    }
    users
}

/// The loop devices over a file or device.
fn of_loops(path: &Path, mounts: &str) -> Users {
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return Users::None;
    };
    let mut users = Users::None;
    for device in devices.flatten() {
        let folder = device.path();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let backing = read("loop/backing_file");
        if Path::new(backing.trim_end_matches('\n')) != path {
            continue;
        }
        let through = match of_device(read("dev").trim(), mounts, NESTED) {
            Users::None if read("ro").trim() != "1" => Users::None,
            Users::None => Users::Readers,
            known => known,
        };
        users = worse(users, through);
    }
    users
}

/// What `/proc/self/mountinfo` says of a device, `major:minor`.
fn mount_users(device: &str, mounts: &str) -> Users {
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(device))
        .map(|line| {
            // Behind the dash: type, source, options of the file system itself.
            let options = line
                .split_once(" - ")
                .and_then(|(_, rest)| rest.split(' ').nth(2))
                .unwrap_or_default();
            if options.split(',').any(|option| option == "ro") {
                Users::Readers
            } else {
                Users::Writers
            }
        })
        .fold(Users::None, worse)
}

fn worse(one: Users, other: Users) -> Users {
    match (one, other) {
        (Users::Writers, _) | (_, Users::Writers) => Users::Writers,
        (Users::Readers, _) | (_, Users::Readers) => Users::Readers,
        (Users::None, Users::None) => Users::None,
    }
}

/// Devices on top of each other that are looked through.
const NESTED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_file_system_count_not_those_of_one_mount() {
        let mounts = "\
22 1 179:2 / / ro,relatime shared:1 - ext4 /dev/mmcblk0p2 rw,errors=continue
23 1 179:3 / /b ro,relatime shared:2 - squashfs /dev/mmcblk0p3 ro,errors=continue
24 1 179:4 / /c rw,relatime - ext4 /dev/mmcblk0p4 rw
25 1 179:3 / /b2 ro - squashfs /dev/mmcblk0p3 ro
";
        for (device, users) in [
            ("179:2", Users::Writers),
            ("179:3", Users::Readers),
            ("179:4", Users::Writers),
            ("179:5", Users::None),
        ] {
            assert_eq!(mount_users(device, mounts), users, "{device}");
        }
    }

    #[test]
    fn a_file_that_nothing_uses_has_no_users() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(users(file.path()).unwrap(), Users::None);
    }
}
