//! What file system a folder lies on.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{Advice, fadvise};

/// The type of the file system that holds `folder`, which must be one that ends on a medium.
pub(crate) fn file_system(folder: &Path) -> anyhow::Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .context("cannot read /proc/self/mountinfo")?;
    let folder = folder
        .canonicalize()
        .with_context(|| format!("cannot find {}", folder.display()))?;
    let Some(kind) = type_of_mount(&mounts, &folder) else {
        bail!(
            "no mount of /proc/self/mountinfo holds {}",
            folder.display()
        );
    };
    if ["tmpfs", "ramfs"].contains(&kind.as_str()) {
        bail!(
            "{} lies in memory ({kind}), where a sync costs nothing: name a folder on a disk with --dir",
            folder.display()
        );
    }
    Ok(kind)
}

/// Drops what the kernel caches of a file, after all of it has reached the medium: who reads it next reads the medium.
pub(crate) fn forget(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.sync_all()
        .with_context(|| format!("cannot sync {}", path.display()))?;
    fadvise(&file, 0, None, Advice::DontNeed)
        .with_context(|| format!("cannot drop {} from the cache", path.display()))
}

/// Makes a file durable, for a program that does not do so itself.
pub(crate) fn make_durable(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot sync {}", path.display()))
}

/// The innermost mount point above `folder` decides; of several there, the last, which hides the others.
fn type_of_mount(mounts: &str, folder: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(parse_mount)
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind.to_owned())
}

/// The mount point (fifth field) and the type (first field after the dash); see proc(5).
fn parse_mount(line: &str) -> Option<(PathBuf, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let kind = after.split(' ').next()?;
    let point = point.replace("\\040", " ").replace("\\134", "\\");
    Some((PathBuf::from(point), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /tmp rw,nosuid - tmpfs tmpfs rw
24 22 254:16 / /tmp/a\\040b rw - xfs /dev/vdb rw
25 22 254:32 / /srv rw - ext3 /dev/vdc rw
26 25 254:48 / /srv rw - btrfs /dev/vdd rw
";

    #[test]
    fn the_innermost_and_last_mount_names_the_file_system() {
        for (folder, kind) in [
            ("/home/x", "ext4"),
            ("/tmp", "tmpfs"),
            ("/tmp/other", "tmpfs"),
            ("/tmp/a b/c", "xfs"),
            ("/tmpfoo", "ext4"),
            ("/srv/data", "btrfs"),
        ] {
            let found = type_of_mount(MOUNTS, Path::new(folder));
            assert_eq!(found.as_deref(), Some(kind), "{folder}");
        }
    }
}
