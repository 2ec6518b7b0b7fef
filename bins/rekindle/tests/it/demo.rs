use core::time::Duration;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A demo whose temporary folder lies in `folder`, its output in a pipe.
fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The processes that work in `folder`, as the agents of a demo do.
fn processes_in(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("the system lists its processes");
    // Processes of others, and those that end just now, cannot be read.
    processes
        .flatten()
        .map(|process| process.path())
        .filter(|process| {
            fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
        })
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    entries.flatten().map(|entry| entry.path()).collect()
}

/// A demo that is killed at the end of a test that failed.
struct Running(Child);

impl Running {
    /// Starts a demo of one device and reads its output up to the first line that holds `text`.
    fn until(folder: &Path, text: &str) -> Self {
        let spawned = demo(folder, &["--devices", "1"]).spawn();
        let mut running = Self(spawned.expect("the command starts"));
        let output = running.0.stdout.take().expect("its output is a pipe");
        let mut lines = BufReader::new(output).lines();
        let found = lines.any(|line| line.is_ok_and(|line| line.contains(text)));
        assert!(found, "the demo never said {text:?}");
        assert!(!processes_in(folder).is_empty(), "no agent was started");
        running
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has an id"), signal).expect("the demo runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Most tests have seen it end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn once_tells_the_whole_story_in_plain_lines_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--once", "--devices", "2"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), errors.as_str()),
        (Some(0), ""),
        "{text}"
    );
    for expected in [
        "ok    device-1 runs 04-5678 from slot A and has polled",
        "ok    device-1 runs 04-5679 from slot B, confirmed, after one boot",
        "ok    device-2 polled twice more and stays on 04-5679 in slot B",
        "device-1   the agent ended (signal 9), started again, no boot",
        "device-2   boot loader: slot A holds 04-5680, attempt 3 of 3",
        "device-2   boot loader: no attempt left, back to 04-5679 in slot B",
        "ok    device-2 tried 04-5680 3 times and fell back to 04-5679 in slot B, confirmed",
        "ok    device-1 was not touched: runs 04-5679 from slot B",
        "All went as it must.",
    ] {
        assert!(
            text.lines().any(|line| line == expected),
            "no line {expected:?} in\n{text}"
        );
    }
    assert!(
        text.lines().any(|line| line.contains("loading 04-5679  ")),
        "no load in\n{text}"
    );
    assert!(!text.contains('\u{1b}'), "an escape code in a pipe\n{text}");
    assert!(!text.contains("FAILED"), "{text}");
    assert_eq!(processes_in(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(entries(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupt_ends_every_process_and_removes_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Running::until(folder.path(), "runs 04-5678 from slot A, confirmed");
    demo.signal(Signal::INT);
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    assert_eq!(processes_in(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(entries(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn no_agent_outlives_a_demo_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Running::until(folder.path(), "runs 04-5678 from slot A, confirmed");
    demo.signal(Signal::KILL);
    demo.0.wait().unwrap();
    for _ in 0..100 {
        if processes_in(folder.path()).is_empty() {
            return;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "nothing tells when a stranger's process ends"
        )]
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("still there: {:?}", processes_in(folder.path()));
}

#[test]
fn a_demo_of_no_devices_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--once", "--devices", "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("0 is not in 1..=16"), "{errors}");
}
