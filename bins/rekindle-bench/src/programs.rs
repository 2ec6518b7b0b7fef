//! Where the programs under comparison are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The folder of our own programs: the one given, else the one that this program lies in.
pub(crate) fn folder(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.to_owned());
    }
    let own = std::env::current_exe().context("cannot find out where this program lies")?;
    own.parent()
        .map(Path::to_owned)
        .context("this program lies in no folder")
}

/// One of our own programs.
pub(crate) fn own(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: build it with `cargo build --release -p {name}`, or name its folder with --bin-dir",
            path.display()
        );
    }
    Ok(path)
}

/// A peer from the search path.
pub(crate) fn peer(name: &str) -> anyhow::Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name}, the peer to compare with, is not installed (looked in PATH)")
        })
}
