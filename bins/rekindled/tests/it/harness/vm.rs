//! A virtual machine on whose console a test reads and types, and the initial file system that it starts from.
//!
//! The machine is emulated (no KVM), so that it runs wherever the tests do: a Debian kernel is up
//! after two to six seconds of an idle core.

use core::time::Duration;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A kernel with its modules, both of Debian's package.
pub(crate) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// The folder with `boot/vmlinuz-*` and `lib/modules` that the environment names: an unpacked
    /// package `linux-image-*`, or `/` where one is installed that is not for clouds.
    ///
    /// # Panics
    ///
    /// If the environment names none.
    pub(crate) fn find() -> Self {
        let Some(folder) = std::env::var_os(KERNEL) else {
            panic!("{KERNEL} must name a folder with Debian's linux-image-* in it, unpacked");
        };
        Self {
            folder: PathBuf::from(folder),
        }
    }

    /// The file that boots.
    pub(crate) fn image(&self) -> PathBuf {
        only_one(&self.folder.join("boot"), "vmlinuz-")
    }

    /// The files of these modules and of all that they depend on, in the order to load them.
    pub(crate) fn modules(&self, names: &[&str]) -> Vec<PathBuf> {
        let modules = only_one(&self.folder.join("lib/modules"), "");
        let mut files = Vec::new();
        files_below(&modules, &mut files);
        let mut ordered = Vec::new();
        for name in names {
            add_module(&files, name, &mut ordered);
        }
        ordered
    }
}

fn add_module(files: &[PathBuf], name: &str, ordered: &mut Vec<PathBuf>) {
    let is_it = |path: &&PathBuf| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        path.extension().is_some_and(|found| found == "ko")
            && stem.replace('-', "_") == name.replace('-', "_")
    };
    let Some(file) = files.iter().find(is_it) else {
        panic!("the kernel has no module {name}");
    };
    if ordered.contains(file) {
        return;
    }
    let content = std::fs::read(file).unwrap();
    for needed in depends(&content) {
        add_module(files, &needed, ordered);
    }
    ordered.push(file.clone());
}

/// What a module says that it depends on: a text `depends=a,b` in a section of its own.
fn depends(module: &[u8]) -> Vec<String> {
    let tag = b"\0depends=";
    let at = module.windows(tag.len()).position(|window| window == tag);
    let text = &module[at.unwrap() + tag.len()..];
    let text = text.split(|byte| *byte == 0).next().unwrap();
    let names = core::str::from_utf8(text).unwrap().split(',');
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// An initial file system with busybox, to which the test adds its programs and modules.
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    entries: u32,
    folders: Vec<PathBuf>,
    /// Loaded by `/init`, in this order, each with its options.
    modules: Vec<String>,
}

impl Initramfs {
    pub(crate) fn new() -> Self {
        let mut fs = Self {
            archive: Vec::new(),
            entries: 0,
            folders: Vec::new(),
            modules: Vec::new(),
        };
        for folder in ["/proc", "/sys", "/dev", "/tmp", "/mnt"] {
            fs.folder(Path::new(folder));
        }
        // The kernel opens it before `/init` has mounted anything.
        fs.entry(Path::new("/dev/console"), 0o020_600, (5, 1), &[]);
        fs.program("/bin/busybox", &which("busybox"));
        fs
    }

    /// Adds a file with the folders above it.
    pub(crate) fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: &[u8]) -> &mut Self {
        let path = path.as_ref();
        self.folder(path.parent().unwrap());
        self.entry(path, 0o100_000 | mode, (0, 0), content);
        self
    }

    /// Adds a program with the libraries that the loader finds for it here.
    pub(crate) fn program(&mut self, path: &str, from: &Path) -> &mut Self {
        self.file(path, 0o755, &std::fs::read(from).unwrap());
        let found = Command::new("ldd").arg(from).output().unwrap();
        // `libc.so.6 => /lib/libc.so.6 (0x7f…)`, `/lib64/ld-linux-x86-64.so.2 (0x7f…)`; a static
        // program has none.
        for line in String::from_utf8(found.stdout).unwrap().lines() {
            let library = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(library) = library {
                let content = std::fs::read(library).unwrap();
                self.file(library, 0o755, &content);
            }
        }
        self
    }

    /// Has `/init` load a module, behind those that it depends on.
    pub(crate) fn module(&mut self, kernel: &Kernel, name: &str, options: &str) -> &mut Self {
        let files = kernel.modules(&[name]);
        for file in &files {
            let place = format!("/modules/{}", file.file_name().unwrap().to_str().unwrap());
            let last = Some(file) == files.last();
            if self.modules.iter().any(|line| line.starts_with(&place)) {
                continue;
            }
            self.file(&place, 0o644, &std::fs::read(file).unwrap());
            let options = if last { options } else { "" };
            self.modules.push(format!("{place} {options}"));
        }
        self
    }

    /// The archive, with an `/init` that mounts what every system has, loads the modules, runs
    /// these lines of a shell and switches the machine off.
    pub(crate) fn finish(mut self, script: &str) -> Vec<u8> {
        let modules: String = self
            .modules
            .iter()
            .map(|module| format!("insmod {module} || echo \"NOT LOADED: {module}\"\n"))
            .collect();
        let init = format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin\n\
             export PATH=/bin\n\
             mount -t proc none /proc\n\
             mount -t sysfs none /sys\n\
             mount -t devtmpfs none /dev\n\
             {modules}{script}\n\
             sync\n\
             poweroff -f\n"
        );
        self.file("/init", 0o755, init.as_bytes());
        self.entry(Path::new("/TRAILER!!!"), 0, (0, 0), &[]);
        self.archive
    }

    fn folder(&mut self, path: &Path) {
        if path == Path::new("/") || self.folders.iter().any(|known| known == path) {
            return;
        }
        self.folder(path.parent().unwrap());
        self.entry(path, 0o040_755, (0, 0), &[]);
        self.folders.push(path.to_owned());
    }

    /// One entry of a cpio archive in the form `newc`, the one that the kernel reads.
    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name = path.to_str().unwrap().trim_start_matches('/');
        let len = u32::try_from(content.len()).unwrap();
        let name_len = u32::try_from(name.len() + 1).unwrap();
        // Inode, mode, owner, group, links, time, length, the device that the file lies on, the
        // device that it is, length of the name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            len,
            0,
            0,
            device.0,
            device.1,
            name_len,
            0,
        ];
        self.archive.extend(b"070701");
        for field in fields {
            self.archive.extend(format!("{field:08x}").bytes());
        }
        self.archive.extend(name.bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive
            .resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// A running machine; killed by its id when dropped, which is a power cut.
pub(crate) struct Vm {
    child: Child,
    console: Receiver<String>,
    transcript: String,
    /// Up to here the transcript has been looked through.
    seen: usize,
}

impl Vm {
    /// Starts `qemu-system-x86_64` as a PC of 512 MiB with its console on ours, and these
    /// arguments more.
    pub(crate) fn start<I>(arguments: I) -> Self
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-M", "pc", "-accel", "tcg", "-m", "512", "-no-reboot"])
            .args(["-net", "none", "-display", "none", "-monitor", "none"])
            .args(["-serial", "stdio"])
            .args(arguments.into_iter().map(Into::into))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut screen = child.stdout.take().unwrap();
        let (writer, console) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = screen.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                if len == 0 || writer.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            console,
            transcript: String::new(),
            seen: 0,
        }
    }

    /// Starts a Linux kernel with an initial file system, and these arguments more.
    pub(crate) fn linux<I>(kernel: &Path, initramfs: &Path, command_line: &str, more: I) -> Self
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let mut arguments: Vec<OsString> = vec![
            "-kernel".into(),
            kernel.into(),
            "-initrd".into(),
            initramfs.into(),
            "-append".into(),
            format!("console=ttyS0 quiet panic=-1 {command_line}").into(),
        ];
        arguments.extend(more.into_iter().map(Into::into));
        Self::start(arguments)
    }

    /// Starts a machine until this text is on its console. An emulated machine hangs now and then
    /// in its first second, long before anything of ours runs: it is started a second time then.
    pub(crate) fn boot(start: impl Fn() -> Self, text: &str) -> Self {
        let mut vm = start();
        if vm.look_for(text, HANGS) {
            return vm;
        }
        super::say(&format!("the machine did not come up:\n{}", vm.transcript));
        drop(vm);
        let mut vm = start();
        vm.wait_for(text);
        vm
    }

    /// Waits until this text is on the console, behind what was waited for before.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let found = self.look_for(text, PATIENCE);
        assert!(found, "no \"{text}\" on the console:\n{}", self.transcript);
    }

    /// Waits until one of two texts is on the console; whether it is the first one.
    ///
    /// # Panics
    ///
    /// If neither comes.
    pub(crate) fn wait_for_either(&mut self, first: &str, second: &str) -> bool {
        loop {
            let unseen = &self.transcript[self.seen..];
            let places = [first, second].map(|text| unseen.find(text).map(|at| at + text.len()));
            match places {
                [Some(at), other] if other.is_none_or(|other| at <= other) => {
                    self.seen += at;
                    return true;
                }
                [_, Some(at)] => {
                    self.seen += at;
                    return false;
                }
                [_, None] => {}
            }
            let more = self.read(PATIENCE);
            assert!(
                more,
                "neither \"{first}\" nor \"{second}\":\n{}",
                self.transcript
            );
        }
    }

    /// The same, and returns the rest of that line.
    pub(crate) fn read_behind(&mut self, text: &str) -> String {
        self.wait_for(text);
        let start = self.seen;
        self.wait_for("\n");
        self.transcript[start..self.seen].trim().to_owned()
    }

    /// Everything that was on the console so far.
    pub(crate) fn transcript(&self) -> &str {
        &self.transcript
    }

    /// The power goes.
    pub(crate) fn cut_power(self) {
        drop(self);
    }

    /// Waits until the machine has switched itself off, and returns all that was on its console.
    ///
    /// # Panics
    ///
    /// If it does not, or the emulator fails.
    pub(crate) fn wait_for_power_off(mut self) -> String {
        while self.read(PATIENCE) {}
        let ended = super::eventually("the end of the emulator", || self.child.try_wait().unwrap());
        assert!(ended.success(), "{ended}:\n{}", self.transcript);
        core::mem::take(&mut self.transcript)
    }

    fn look_for(&mut self, text: &str, patience: Duration) -> bool {
        loop {
            if let Some(at) = self.transcript[self.seen..].find(text) {
                self.seen += at + text.len();
                return true;
            }
            if !self.read(patience) {
                return false;
            }
        }
    }

    /// Takes over what is on the console next; false at the end of it, or if it is silent so long.
    fn read(&mut self, patience: Duration) -> bool {
        let text = self.console.recv_timeout(patience);
        self.transcript
            .push_str(text.as_deref().unwrap_or_default());
        text.is_ok()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if !std::thread::panicking() {
            killed.unwrap();
        }
    }
}

/// The path of a command, also of one for root.
pub(crate) fn which(command: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut places = path
        .split(':')
        .map(|folder| Path::new(folder).join(command));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| panic!("{command} is not installed"))
}

fn only_one(folder: &Path, prefix: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut found = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(prefix));
    let first = found.next().map(|entry| entry.path());
    assert!(found.next().is_none(), "several in {}", folder.display());
    first.unwrap_or_else(|| panic!("no {prefix}* in {}", folder.display()))
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

const KERNEL: &str = "REKINDLE_TEST_KERNEL";

/// Twenty times what a boot takes on an idle machine.
const HANGS: Duration = Duration::from_secs(120);

/// Far longer than anything takes, also on a machine that builds something meanwhile.
const PATIENCE: Duration = Duration::from_secs(300);
