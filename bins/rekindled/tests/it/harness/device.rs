//! A device: a folder with its configuration and slots, its boot loader, and the agent as a process.

use core::net::SocketAddr;
use core::time::Duration;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rekindle_flash::{BootControl, BootRecord, FileBootControl, SlotId};
use rekindle_image::Hash;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Content, eventually, noise, public_keys};

/// What a test configures otherwise than the device of the issue's example.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Where the scripts lie; none: nothing is polled.
    pub(crate) url: Option<String>,
    pub(crate) poll: &'static str,
    /// Of each slot.
    pub(crate) size: &'static str,
    /// Components besides `prot`, with their numbers of slots.
    pub(crate) components: &'static [(&'static str, u8)],
    /// Numbers of the keys in `vendor.pub`; `trust` holds further lines of that section.
    pub(crate) keys: &'static [u8],
    pub(crate) trust: &'static str,
    /// Further lines of `[update]` and of `[host]`.
    pub(crate) update: &'static str,
    pub(crate) host: &'static str,
    /// The lines of `[scrub]`.
    pub(crate) scrub: &'static str,
    pub(crate) health: &'static str,
    /// What slot A holds at first, in bytes: content that no manifest explains, as on a device that
    /// came without this agent.
    pub(crate) old_firmware: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            poll: "200 ms",
            size: "2 MiB",
            components: &[],
            keys: &[1],
            trust: "",
            update: "",
            host: "",
            scrub: "",
            health: "/bin/true",
            old_firmware: 2 << 20,
        }
    }
}

/// The device. Its agent ends with it.
pub(crate) struct Device {
    // Ends first, before its folder goes.
    agent: Option<Agent>,
    /// Component by component, `prot` first.
    running: Vec<(String, SlotId)>,
    starts: usize,
    components: &'static [(&'static str, u8)],
    folder: tempfile::TempDir,
}

/// A running agent; killed by its id when dropped.
struct Agent {
    child: Child,
    log: PathBuf,
    status: SocketAddr,
}

/// How a command of the agent ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Device {
    /// A device that runs from slot A. Its agent is not started.
    pub(crate) fn new(settings: &Settings) -> Self {
        let device = Self {
            folder: tempfile::tempdir().unwrap(),
            running: core::iter::once(&("prot", 2))
                .chain(settings.components)
                .map(|(name, _)| ((*name).to_owned(), SlotId::A))
                .collect(),
            components: settings.components,
            agent: None,
            starts: 0,
        };
        let old = Content {
            seed: 99,
            len: settings.old_firmware,
            mask: 0xff,
        };
        std::fs::write(device.at("slot-a.img"), noise(old)).unwrap();
        for (name, _) in settings.components {
            std::fs::write(device.at(&format!("{name}-a.img")), noise(old)).unwrap();
        }
        std::fs::write(device.at("vendor.pub"), public_keys(settings.keys)).unwrap();
        device.configure(settings);
        device
    }

    /// A device that polls the scripts of a server, and whose agent runs.
    pub(crate) fn started(scripts: &str, settings: &Settings) -> Self {
        let mut device = Self::new(&Settings {
            url: Some(scripts.to_owned()),
            ..settings.clone()
        });
        device.start();
        device
    }

    pub(crate) fn configure(&self, settings: &Settings) {
        let Settings {
            poll,
            size,
            components,
            trust,
            update,
            host,
            scrub,
            health,
            ..
        } = settings;
        let url = settings
            .url
            .as_ref()
            .map_or_else(String::new, |url| format!("url = \"{url}\""));
        let components: String = components
            .iter()
            .map(|(name, count)| {
                let slots = (0..*count).filter_map(SlotId::new);
                let slots: Vec<_> = slots
                    .map(|slot| format!("{name}-{}.img", slot.to_string().to_lowercase()))
                    .collect();
                format!("[[component]]\nname = \"{name}\"\nslots = {slots:?}\nsize = \"{size}\"\n")
            })
            .collect();
        let text = format!(
            r#"
[device]
type = "IP1200"
hardware-id = "IP1200-03-0d-f0"
mac = "00-90-33-03-0d-f0"
hardware = "102"
[trust]
keys = ["vendor.pub"]
threshold = 1
{trust}
[state]
dir = "state"
[[component]]
name = "prot"
slots = ["slot-a.img", "slot-b.img"]
size = "{size}"
{components}[boot]
control = "file"
path = "boot.state"
running = "env:REKINDLE_SLOT"
attempts = 3
[update]
{url}
poll = "{poll}"
idle-timeout = "2 s"
script-timeout = "3 s"
{update}
[scrub]
{scrub}
[http]
listen = "127.0.0.1:0"
[host]
reset = ["/bin/sh", "-c", "echo reset >> resets"]
reboot = ["/bin/sh", "-c", "echo reboot >> resets"]
idle = ["/bin/true"]
health = ["{health}"]
health-seconds = 2
{host}
"#
        );
        std::fs::write(self.at("device.toml"), text).unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent as it is after a boot into `running`, or after a mere restart of it.
    pub(crate) fn start(&mut self) {
        assert!(self.agent.is_none(), "one agent a device");
        self.starts += 1;
        let log = self.at(&format!("agent-{}.log", self.starts));
        let child = self
            .command(&["run"])
            .stderr(File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut agent = Agent {
            child,
            log,
            status: SocketAddr::from(([0; 4], 0)),
        };
        agent.status = eventually("the agent's status page", || {
            let log = agent.log();
            let ended = agent.child.try_wait().unwrap();
            assert_eq!(ended, None, "the agent ended: {log}");
            let address = log.split("the status page is up address=").nth(1)?;
            let (address, _) = address.split_once('\n')?;
            Some(address.parse().unwrap())
        });
        self.agent = Some(agent);
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        self.agent = None;
    }

    /// SIGTERM, as an init system does it.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(agent.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        agent.child.wait().unwrap()
    }

    /// The boot loader's part of a restart: it reads boot control, counts an attempt if a trial is
    /// pending, and says which slot runs now.
    pub(crate) fn run_boot_loader(&mut self) -> SlotId {
        self.kill();
        let mut control = self.boot_control();
        let mut record = control.load().unwrap();
        let started = record.start();
        control.store(&record).unwrap();
        self.running = started;
        self.running[0].1
    }

    /// A whole restart: the boot loader, then the agent.
    pub(crate) fn boot(&mut self) -> SlotId {
        let slot = self.run_boot_loader();
        self.start();
        slot
    }

    /// As a boot loader does it that knows nothing of attempts.
    pub(crate) fn start_from(&mut self, slot: SlotId) {
        self.runs("prot", slot);
        self.start();
    }

    /// As the hardware does it below the boot loader: this component runs from that slot.
    pub(crate) fn runs(&mut self, component: &str, slot: SlotId) {
        let mut running = self.running.iter_mut();
        running.find(|(name, _)| name == component).unwrap().1 = slot;
    }

    pub(crate) fn boot_record(&self) -> BootRecord {
        self.boot_control().load().unwrap()
    }

    fn boot_control(&self) -> FileBootControl {
        let components = [&[("prot", 2)], self.components].concat();
        FileBootControl::open(self.at("boot.state"), &components).unwrap()
    }

    /// How often the reset program has run.
    pub(crate) fn resets(&self) -> usize {
        std::fs::read_to_string(self.at("resets")).map_or(0, |text| text.lines().count())
    }

    /// Waits until the agent has asked for its `count`th restart.
    pub(crate) fn wait_for_reset(&self, count: usize) {
        eventually("a restart", || (self.resets() >= count).then_some(()));
    }

    /// The bytes of a slot, in a word.
    pub(crate) fn slot_hash(&self, slot: char) -> Hash {
        Hash::of(&std::fs::read(self.slot_path(slot)).unwrap())
    }

    pub(crate) fn slot_path(&self, slot: char) -> PathBuf {
        self.at(&format!("slot-{slot}.img"))
    }

    /// Everything that the agents of this device have logged.
    pub(crate) fn log(&self) -> String {
        (1..=self.starts)
            .filter_map(|start| {
                std::fs::read_to_string(self.at(&format!("agent-{start}.log"))).ok()
            })
            .collect()
    }

    pub(crate) fn status(&self) -> Value {
        self.agent().get_status()
    }

    /// Waits until the status is so.
    pub(crate) fn wait_for<T>(&self, what: &str, mut read: impl FnMut(&Value) -> Option<T>) -> T {
        let mut last = Value::Null;
        eventually(what, || {
            last = self.status();
            let read = read(&last);
            if read.is_none() {
                self.agent().note(&last);
            }
            read
        })
    }

    /// Waits for one more poll that began and ended after this call, and returns its status.
    pub(crate) fn wait_for_poll(&self) -> Value {
        let seen = self.status()["poll"]["count"].as_u64().unwrap();
        // The poll of that number may be under way; the one after the next has then ended.
        self.wait_for("another poll", |status| {
            (status["poll"]["count"].as_u64().unwrap() >= seen + 2).then(|| status.clone())
        })
    }

    /// Waits until a poll says so of the first line of the script.
    pub(crate) fn wait_for_line(&self, text: &str) {
        self.wait_for(text, |status| {
            let detail = status["lines"][0]["detail"].as_str()?;
            detail.contains(text).then_some(())
        });
    }

    /// A line of what the kernel says about the agent's memory, in KiB.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.agent().child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let mut words = line.unwrap().split_whitespace();
        words.next().unwrap().parse().unwrap()
    }

    /// Runs a command of the agent to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            exit: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Begins a command of the agent; whoever asked ends it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// The agent under test; the environment may name one that was built otherwise.
    fn program() -> PathBuf {
        std::env::var_os(OTHER_AGENT).map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_rekindled")),
            PathBuf::from,
        )
    }

    /// Whether the agent under test is the one that goes to devices, not the one of the test build.
    pub(crate) fn is_for_devices() -> bool {
        std::env::var_os(OTHER_AGENT).is_some() || !cfg!(debug_assertions)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // A single component need not be named.
        let running = match self.running.as_slice() {
            [(_, slot)] => slot.to_string(),
            several => {
                let named: Vec<_> = several
                    .iter()
                    .map(|(name, slot)| format!("{name}={slot}"))
                    .collect();
                named.join(",")
            }
        };
        let mut command = Command::new(Self::program());
        command
            .args(["--config", "device.toml"])
            .args(arguments)
            .env("REKINDLE_SLOT", running)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .current_dir(self.folder.path());
        command
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }
}

impl Agent {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn get_status(&self) -> Value {
        let mut stream = TcpStream::connect(self.status).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let request = "GET /status.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        serde_json::from_str(body).unwrap()
    }

    /// Keeps a status for the report of a failed test.
    fn note(&self, status: &Value) {
        std::fs::write(self.log.with_extension("json"), format!("{status:#}")).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if std::thread::panicking() {
            let status = std::fs::read_to_string(self.log.with_extension("json"));
            report(&self.log(), &status.unwrap_or_default());
        } else {
            killed.unwrap();
        }
    }
}

const OTHER_AGENT: &str = "REKINDLE_TEST_AGENT";

#[expect(clippy::print_stderr, reason = "the report of a failed test")]
fn report(log: &str, status: &str) {
    eprintln!("the agent's log:\n{log}\nits status:\n{status}");
}
