//! The real binary: what it prints, how it ends, and what it costs.

#![expect(
    clippy::unwrap_used,
    reason = "a harness is test code, where a panic is the report"
)]

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

struct Server {
    child: Child,
    address: SocketAddr,
    line: String,
    _out: BufReader<ChildStdout>,
}

impl Server {
    fn start(data: &Path) -> Self {
        Self::start_with(data, "warn", Stdio::inherit())
    }

    /// Everything that it logs goes to a file.
    fn start_logging(data: &Path, log: &Path) -> Self {
        Self::start_with(data, "info", std::fs::File::create(log).unwrap().into())
    }

    fn start_with(data: &Path, level: &str, log: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rekindle-server"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("RUST_LOG", level)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line
            .split("http://")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        Self {
            child,
            address: address.parse().unwrap(),
            line,
            _out: out,
        }
    }

    fn get(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    fn peak_memory_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn makes_its_folders_says_so_in_one_line_and_ends_well_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new/data");
    for signal in [Signal::INT, Signal::TERM] {
        let server = Server::start(&data);
        let expected = format!(
            "serving {} on http://{}/ : GET scripts/ and firmware/, PUT backups/\n",
            data.display(),
            server.address
        );
        assert_eq!(server.line, expected);
        for name in ["scripts", "firmware", "backups"] {
            assert!(data.join(name).is_dir());
        }
        assert_eq!(server.stop(signal).code(), Some(0));
    }
}

#[test]
fn wrong_usage_and_unusable_folders_are_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let data = folder.path().to_str().unwrap();
    for (arguments, message) in [
        (vec![], "--data"),
        (vec!["--data", file], "cannot create or open the folder"),
        (vec!["--data", data, "--listen", "nonsense"], "--listen"),
        (
            vec!["--data", data, "--listen", "192.0.2.1:80"],
            "cannot listen on 192.0.2.1:80",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_rekindle-server"))
            .args(&arguments)
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
    }
}

#[test]
fn the_log_tells_of_a_device_that_fell_back() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let server = Server::start_logging(folder.path(), &log);
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "GET /scripts/update-ip1200.htm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Rekindle-Rolled-Back: prot;build=\"1.3\";slot=B;running=A;reason=never-confirmed\u{9b}31m\r\n\r\n"
    )
    .unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(server.stop(Signal::TERM).code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("build=\\\"1.3\\\";slot=B"), "{log}");
    assert!(!log.contains("\u{9b}"), "{log}");
}

#[test]
fn a_hundred_slow_devices_at_once_cost_at_most_64_mib() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let content: Vec<u8> = (0..8 << 20_u32)
        .map(|at: u32| (at * 31 + at / 251).to_le_bytes()[0])
        .collect();
    std::fs::write(folder.path().join("firmware/a.bin"), &content).unwrap();
    let mut devices: Vec<(TcpStream, Vec<u8>)> = (0..100)
        .map(|_| (server.get("/firmware/a.bin"), Vec::new()))
        .collect();
    // Everybody is in the middle of the download before anybody is done with it, and slower than the server could be.
    let mut piece = vec![0; 256 * 1024];
    while !devices.is_empty() {
        devices.retain_mut(|(stream, got)| {
            let read = stream.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..read]);
            if read > 0 {
                return true;
            }
            let body = got.len() - content.len();
            assert!(got[body..] == content, "every device gets the very file");
            assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
            false
        });
    }
    let peak = server.peak_memory_kib();
    assert!(peak <= 64 * 1024, "{peak} KiB");
    assert_eq!(server.stop(Signal::TERM).code(), Some(0));
}
