//! The tree checks itself: layers, licences, sizes of files, and words that do not belong here.
//!
//! The rules for dependencies are those of `deny.toml`, so that `cargo deny check` and these tests
//! say the same; the tests need nothing but cargo and git.

#![cfg(test)]
#![expect(clippy::std_instead_of_alloc, reason = "tests have std")]

mod dependencies;
mod documents;
mod licence;
mod manifests;
mod metadata;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace.
fn root() -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"));
    examples
        .parent()
        .expect("examples is a folder of the workspace")
        .to_owned()
}

/// Paths of all files under version control, relative to the root.
fn tracked_files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the files of a checkout");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let files: Vec<String> = String::from_utf8(output.stdout)
        .expect("our file names are ASCII")
        .split_terminator('\0')
        // Deleted in the work tree and not committed yet.
        .filter(|path| root().join(path).is_file())
        .map(str::to_owned)
        .collect();
    assert!(files.iter().any(|path| path == "Cargo.toml"), "{files:?}");
    files
}

fn read(path: &str) -> String {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text of all pages in `docs/decisions`: where a rule is broken on purpose, one of them says so.
fn decisions() -> String {
    tracked_files()
        .iter()
        .filter(|path| path.starts_with("docs/decisions/"))
        .map(|path| read(path))
        .collect()
}

/// Fails with all findings at once, one a line.
#[track_caller]
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
