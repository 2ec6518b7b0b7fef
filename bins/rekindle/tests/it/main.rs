//! The real binary: what it prints, what it writes, how it exits.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod demo;
mod image;
mod key;
mod script;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own, and the command run in it.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs `rekindle` with the words of `line`, and then `more`.
    fn run_with(&self, line: &str, more: &[&str]) -> Ran {
        let output = Command::new(Path::new(env!("CARGO_BIN_EXE_rekindle")))
            .args(line.split_whitespace())
            .args(more)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        Ran::from(&output)
    }

    fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    /// Runs what must exit with 0, and returns what it printed.
    fn done(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{line}");
        ran.stdout
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    exit: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(exit: i32, stdout: &str, stderr: &str) -> Self {
        Self {
            exit,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        }
    }
}

impl From<&Output> for Ran {
    fn from(output: &Output) -> Self {
        Self::new(
            output.status.code().unwrap(),
            &String::from_utf8_lossy(&output.stdout),
            &String::from_utf8_lossy(&output.stderr),
        )
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let bench = Bench::new();
    for line in [
        "",
        "nonsense",
        "image pack in -o out",
        "image verify file --key k --threshold 0",
    ] {
        assert_eq!(bench.run(line).exit, 2, "{line}");
    }
}
