//! The real binary: what it says and how it exits when it cannot measure.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::path::Path;
use std::process::Command;

/// Exit status and standard error of `rekindle-bench install` with our own programs looked for in `bin_dir`.
fn install(bin_dir: &Path, path: &str, more: &[&str]) -> (Option<i32>, String) {
    bench("install", bin_dir, path, more)
}

fn bench(command: &str, bin_dir: &Path, path: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rekindle-bench"))
        .args([command, "--bin-dir"])
        .arg(bin_dir)
        .args(more)
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

/// A folder with files that have the names of programs.
fn folder_with(programs: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for program in programs {
        std::fs::write(folder.path().join(program), "").unwrap();
    }
    folder
}

#[test]
fn a_missing_program_of_ours_exits_with_2_and_how_to_build_it() {
    let folder = folder_with(&["rekindled"]);
    let expected = format!(
        "rekindle-bench: {}/rekindle-server is missing: build it with `cargo build --release -p rekindle-server`, \
         or name its folder with --bin-dir\n",
        folder.path().display()
    );
    assert_eq!(install(folder.path(), "", &[]), (Some(2), expected));
}

#[test]
fn a_missing_peer_exits_with_2_and_its_name() {
    let folder = folder_with(&["rekindled", "rekindle-server"]);
    let peers = folder_with(&["curl"]);
    let path = peers.path().to_str().unwrap();
    let expected =
        "rekindle-bench: dd, the peer to compare with, is not installed (looked in PATH)\n";
    assert_eq!(
        install(folder.path(), path, &[]),
        (Some(2), expected.to_owned())
    );
}

#[test]
fn a_comparison_without_one_of_its_peers_exits_with_2_before_it_begins() {
    let folder = folder_with(&["rekindled", "rekindle-server"]);
    let all = [
        "openssl",
        "mksquashfs",
        "rauc",
        "dbus-daemon",
        "swupdate",
        "casync",
        "zck",
        "zck_delta_size",
        "b3sum",
        "sha256sum",
    ];
    for missing in all {
        let peers: Vec<&str> = all.into_iter().filter(|peer| *peer != missing).collect();
        let peers = folder_with(&peers);
        let said = bench(
            "compare",
            folder.path(),
            peers.path().to_str().unwrap(),
            &[],
        );
        let expected = format!(
            "rekindle-bench: {missing}, the peer to compare with, is not installed (looked in PATH)\n"
        );
        assert_eq!(said, (Some(2), expected));
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = folder_with(&[]);
    for more in [
        ["--size", "256 MB"],
        ["--runs", "0"],
        ["--target", "-1"],
        ["--target", "NaN"],
        ["--format", "xml"],
    ] {
        let (exit, said) = install(folder.path(), "", &more);
        assert_eq!(exit, Some(2), "{more:?}: {said}");
    }
}
