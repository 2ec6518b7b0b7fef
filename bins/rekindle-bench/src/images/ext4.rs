//! A folder as an ext4 image in which nothing is left to chance.

use core::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{EPOCH, SIZE, tree};
use crate::programs;

/// The programs of e2fsprogs.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) mke2fs: PathBuf,
    pub(super) debugfs: PathBuf,
    pub(super) e2fsck: PathBuf,
}

impl Tools {
    /// Makes `image` of what lies below `root`; `work` is for scratch files.
    pub(super) fn make(&self, root: &Path, work: &Path, image: &Path) -> anyhow::Result<()> {
        if image.exists() {
            std::fs::remove_file(image).context("cannot remove the old image")?;
        }
        let _: String = programs::call(
            Command::new(&self.mke2fs)
                .env(FAKE_TIME, EPOCH.to_string())
                .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal"])
                .args(["-b", "4096", "-m", "0", "-N", INODES, "-U", ID])
                .args([
                    "-E",
                    &format!("hash_seed={ID},root_owner=0:0,lazy_itable_init=0"),
                ])
                .arg("-d")
                .arg(root)
                .arg(image)
                .arg(format!("{}k", SIZE / 1024)),
        )?;
        let commands = work.join("dates");
        std::fs::write(&commands, dates(&tree::walk(root)?)?)
            .context("cannot write the dates down")?;
        let _: String = programs::call(
            Command::new(&self.debugfs)
                .env(FAKE_TIME, EPOCH.to_string())
                .arg("-w")
                .arg("-f")
                .arg(&commands)
                .arg(image),
        )?;
        let _: String = programs::call(Command::new(&self.e2fsck).args(["-f", "-n"]).arg(image))?;
        Ok(())
    }
}

/// mke2fs takes the dates of access and of change as it finds them, and the latter nobody can set on a mounted file system.
fn dates(paths: &[PathBuf]) -> anyhow::Result<String> {
    let mut commands = String::new();
    for path in paths {
        let name = path.to_string_lossy();
        if name.contains(['"', '\\', '\n']) {
            bail!("{} cannot be named to debugfs", path.display());
        }
        for field in ["atime", "ctime"] {
            writeln!(commands, "set_inode_field \"/{name}\" {field} @{EPOCH}")?;
        }
    }
    Ok(commands)
}

/// What e2fsprogs takes for now.
const FAKE_TIME: &str = "E2FSPROGS_FAKE_TIME";

/// Of the file system, and where its hashes of names begin.
const ID: &str = "72656b69-6e64-4c65-8000-62656e636800";

/// Twice what the files need; the usual number would take 16 MiB.
const INODES: &str = "16384";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_gets_both_dates() {
        let commands = dates(&[PathBuf::new(), PathBuf::from("etc/a b")]).unwrap();
        let expected = "\
set_inode_field \"/\" atime @1700000000
set_inode_field \"/\" ctime @1700000000
set_inode_field \"/etc/a b\" atime @1700000000
set_inode_field \"/etc/a b\" ctime @1700000000
";
        assert_eq!(commands, expected);
    }

    #[test]
    fn a_name_that_debugfs_would_misread_is_an_error() {
        let error = dates(&[PathBuf::from("a\"b")]).unwrap_err();
        assert_eq!(error.to_string(), "a\"b cannot be named to debugfs");
    }
}
