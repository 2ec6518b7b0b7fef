//! An unpacked root file system, rid of what differs from one unpacking to the next.

use alloc::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::EPOCH;

/// Package and version, as dpkg's status has them.
pub(super) fn packages(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let status = root.join("var/lib/dpkg/status");
    let text =
        fs::read_to_string(&status).with_context(|| format!("cannot read {}", status.display()))?;
    Ok(parse_status(&text))
}

fn parse_status(text: &str) -> BTreeMap<String, String> {
    let field = |entry: &str, name: &str| {
        entry
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(str::to_owned)
    };
    text.split("\n\n")
        .filter_map(|entry| Some((field(entry, "Package")?, field(entry, "Version")?)))
        .collect()
}

/// Removes caches, logs, keys and what the machine has lent, and gives everything one date.
pub(super) fn tidy(root: &Path) -> anyhow::Result<()> {
    for folder in EMPTIED {
        empty(&root.join(folder)).with_context(|| format!("cannot empty {folder}"))?;
    }
    for file in REMOVED {
        match fs::remove_file(root.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {file}"));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let keys = root.join("etc/ssh");
    for path in entries(&keys).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("ssh_host_") {
            fs::remove_file(&path).context("cannot remove a host key")?;
        }
    }
    for path in walk(root)? {
        date(&root.join(&path)).with_context(|| format!("cannot date {}", path.display()))?;
    }
    Ok(())
}

/// Everything below `root`, and itself as an empty path, by name; each folder before what it holds.
pub(super) fn walk(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        let path = root.join(&folder);
        let metadata = fs::symlink_metadata(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        if !metadata.is_dir() {
            continue;
        }
        let mut names: Vec<PathBuf> = entries(&path)
            .with_context(|| format!("cannot list {}", path.display()))?
            .iter()
            .filter_map(|path| Some(folder.join(path.file_name()?)))
            .collect();
        names.sort();
        found.extend(names);
    }
    Ok(found)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

fn empty(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for path in entries(folder)? {
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn date(path: &Path) -> io::Result<()> {
    let time = Timespec {
        tv_sec: EPOCH,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

const EMPTIED: [&str; 8] = [
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache",
    "var/lib/apt",
    "var/log",
];

/// Backups, and what comes from the machine that unpacks.
const REMOVED: [&str; 6] = [
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/status-old",
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn reads_packages_and_versions() {
        let status = "\
Package: curl
Status: install ok installed
Version: 7.88.1-10
Description: a tool
 Version: of this line is text

Package: zlib1g
Version: 1:1.2
";
        let expected = [("curl", "7.88.1-10"), ("zlib1g", "1:1.2")];
        let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(parse_status(status), BTreeMap::from(expected));
    }

    #[test]
    fn what_differs_from_one_unpacking_to_the_next_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in [
            "var/log/apt/history.log",
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/sshd_config",
            "etc/hostname",
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "x").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
        tidy(root).unwrap();
        let left = walk(root).unwrap();
        let expected = [
            "",
            "etc",
            "link",
            "var",
            "etc/ssh",
            "var/log",
            "etc/ssh/sshd_config",
        ];
        assert_eq!(left, expected.map(PathBuf::from));
        for path in left {
            let metadata = fs::symlink_metadata(root.join(path)).unwrap();
            assert_eq!(metadata.mtime(), EPOCH);
        }
    }
}
