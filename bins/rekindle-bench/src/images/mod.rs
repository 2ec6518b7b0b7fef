//! `rekindle-bench images`: two versions of a root file system from Debian packages, before and after their security updates.

mod archive;
mod ext4;
mod tree;

use alloc::collections::BTreeMap;
use core::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use self::archive::Archive;
use crate::exit::Exit;
use crate::format::Format;
use crate::programs;

/// The command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// The folder for both images [default: `bench-images` where this program lies].
    #[arg(long)]
    out: Option<PathBuf>,

    /// Makes them anew, though the folder has them: the archive may have newer packages.
    #[arg(long)]
    again: bool,

    /// What the result looks like.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

impl Images {
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        let folder = folder(self.out.as_deref())?;
        if self.again && folder.join(RECORD).exists() {
            std::fs::remove_file(folder.join(RECORD)).context("cannot forget the old images")?;
        }
        let pair = Pair::find_or_make(&folder, self.format)?;
        self.format
            .print(&pair)
            .context("cannot print the result")?;
        Ok(Exit::Met)
    }
}

/// The folder given, else the usual one.
pub(crate) fn folder(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(folder) => Ok(folder.to_owned()),
        None => Ok(programs::folder(None)?.join("bench-images")),
    }
}

/// Two images of the same packages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// Another recipe makes other images.
    recipe: String,
    old: PathBuf,
    new: PathBuf,
    size_bytes: u64,
    packages: usize,
    changed: Vec<Change>,
}

/// A package that the security updates changed. A version that is missing: the package itself is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    package: String,
    old: Option<String>,
    new: Option<String>,
}

impl Pair {
    /// What an earlier call has left in `folder`, else made now: that takes some minutes and the archive.
    pub(crate) fn find_or_make(folder: &Path, format: Format) -> anyhow::Result<Self> {
        if let Some(pair) = Self::find(folder)? {
            return Ok(pair);
        }
        let tools = Tools::find()?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder
            .canonicalize()
            .context("cannot find the folder of the images")?;
        let archive = Archive::configured(&tools.apt_get)?;
        format.progress("old image: the packages as released");
        let (old, before) = tools.make(&folder, "v1.img", &archive.suite, &archive.released)?;
        format.progress("new image: the same packages with security updates");
        let (new, after) = tools.make(&folder, "v2.img", &archive.suite, &archive.updated)?;
        let pair = Self {
            recipe: recipe(),
            old,
            new,
            size_bytes: SIZE,
            packages: after.len(),
            changed: changes(&before, &after),
        };
        let record = serde_json::to_vec_pretty(&pair).context("cannot write down the result")?;
        std::fs::write(folder.join(RECORD), record).context("cannot write down the result")?;
        Ok(pair)
    }

    fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        let record = folder.join(RECORD);
        if !record.exists() {
            return Ok(None);
        }
        let text =
            std::fs::read(&record).with_context(|| format!("cannot read {}", record.display()))?;
        let pair: Option<Self> = serde_json::from_slice(&text).ok();
        Ok(pair.filter(|pair| pair.recipe == recipe() && pair.old.exists() && pair.new.exists()))
    }

    /// The packages as released.
    pub(crate) fn released(&self) -> &Path {
        &self.old
    }

    /// The same with security updates.
    pub(crate) fn updated(&self) -> &Path {
        &self.new
    }

    /// Of each of them.
    pub(crate) fn size(&self) -> u64 {
        self.size_bytes
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.old.display(), self.new.display())?;
        writeln!(
            f,
            "{} packages, of which {} differ:",
            self.packages,
            self.changed.len()
        )?;
        for change in &self.changed {
            let version =
                |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
            writeln!(
                f,
                "  {:<24} {} -> {}",
                change.package,
                version(&change.old),
                version(&change.new)
            )?;
        }
        Ok(())
    }
}

/// What makes an image.
#[derive(Debug)]
struct Tools {
    apt_get: PathBuf,
    mmdebstrap: PathBuf,
    ext4: ext4::Tools,
}

impl Tools {
    fn find() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("images of a root file system are made by root, who may give files to others");
        }
        let tool = |name| {
            programs::peer(name)
                .context("images are made on Debian: install mmdebstrap and e2fsprogs")
        };
        Ok(Self {
            apt_get: tool("apt-get")?,
            mmdebstrap: tool("mmdebstrap")?,
            ext4: ext4::Tools {
                mke2fs: tool("mke2fs")?,
                debugfs: tool("debugfs")?,
                e2fsck: tool("e2fsck")?,
            },
        })
    }

    /// Makes `folder`/`name`; returns its path and the packages in it.
    fn make(
        &self,
        folder: &Path,
        name: &str,
        suite: &str,
        sources: &[String],
    ) -> anyhow::Result<(PathBuf, BTreeMap<String, String>)> {
        let work = tempfile::Builder::new()
            .prefix("root-")
            .tempdir_in(folder)
            .context("cannot make a folder for the file system")?;
        let root = work.path().join("root");
        archive::unpack(&self.mmdebstrap, suite, sources, &root)?;
        let packages = tree::packages(&root)?;
        tree::tidy(&root)?;
        let image = folder.join(name);
        self.ext4.make(&root, work.path(), &image)?;
        Ok((image, packages))
    }
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Change> {
    let names: alloc::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Change {
            package: name.clone(),
            old: before.get(name).cloned(),
            new: after.get(name).cloned(),
        })
        .collect()
}

/// What the images depend on, apart from the archive.
fn recipe() -> String {
    format!("1 {} {SIZE} {EPOCH}", archive::PACKAGES.join(","))
}

/// Written last: with it the images are whole.
const RECORD: &str = "images.json";

/// Of an image.
const SIZE: u64 = 256 << 20;

/// The one date of everything in the images, in seconds since 1970.
const EPOCH: i64 = 1_700_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect()
    }

    #[test]
    fn packages_that_changed_came_or_went_are_listed() {
        let before = packages(&[("curl", "1"), ("gone", "1"), ("same", "1")]);
        let after = packages(&[("curl", "2"), ("new", "1"), ("same", "1")]);
        let change = |package: &str, old: Option<&str>, new: Option<&str>| Change {
            package: package.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let expected = [
            change("curl", Some("1"), Some("2")),
            change("gone", Some("1"), None),
            change("new", None, Some("1")),
        ];
        assert_eq!(changes(&before, &after), expected);
    }
}
