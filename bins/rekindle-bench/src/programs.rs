//! Where the programs under comparison are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Runs a program to its end, which must be a success; returns what it printed.
pub(crate) fn call(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.trim().lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        bail!("{name} failed ({}): {last}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A peer, or a tool that one needs, from the search path or where administrators' programs are.
pub(crate) fn peer(name: &str) -> anyhow::Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(ADMINISTRATION.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name}, the peer to compare with, is not installed (looked in PATH)")
        })
}

/// Not in every user's search path.
const ADMINISTRATION: [&str; 2] = ["/usr/sbin", "/sbin"];

/// How much of what a program that failed has said is passed on.
const LINES: usize = 12;
