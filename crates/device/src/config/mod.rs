//! The device configuration: one TOML file. Its names are a contract; see the crate's README.

mod error;
mod reader;
mod section;
mod unit;

use core::net::SocketAddr;
use core::num::NonZeroU8;
use core::time::Duration;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rekindle_flash::{EnvironmentFlags, UBootVariables};
use rekindle_image::{PublicKey, Trust, Unsigned};
use toml::de::DeTable;

pub use error::{ConfigError, ConfigErrorKind};
pub use unit::parse_size;

use crate::running::Source as RunningSource;
use reader::{Section, Source};

/// What a device agent is told about its device: the whole configuration file, checked.
///
/// Paths are as written when absolute, otherwise joined to the folder of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file itself, as it was named; errors name it, and paths are relative to its folder.
    pub file: PathBuf,
    /// `[device]`: what this device is.
    pub device: DeviceConfig,
    /// `[trust]`: whose images it accepts.
    pub trust: TrustConfig,
    /// `[state] dir`: the folder of the update variables and records.
    pub state_dir: PathBuf,
    /// `[[component]]`, in file order: at least one; the first is the system itself.
    pub components: Vec<ComponentConfig>,
    /// `[boot]`: who decides what boots, and what runs now.
    pub boot: BootConfig,
    /// `[update]`: where the maintenance script lies and how often it is read.
    pub update: UpdateConfig,
    /// `[recovery]`: that the boot loader can start a recovery environment, and where that finds
    /// images; `None` without the section.
    pub recovery: Option<RecoveryConfig>,
    /// `[scrub]`: how the slots are looked after.
    pub scrub: ScrubConfig,
    /// `[http]`: the device's own web server.
    pub http: HttpConfig,
    /// `[host]`: the programs for what only the vendor knows.
    pub host: HostConfig,
}

/// `[device]`: the identity that images, scripts and servers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// `type`: the device type; an image must list it.
    pub device_type: String,
    /// `hardware-id`: the device's own name, `#h` in URLs.
    pub hardware_id: String,
    /// `mac`: the Ethernet address, `#m` in URLs, in lower case with hyphens.
    pub mac: Option<String>,
    /// `hardware`: the hardware build, `#H` in URLs; an image may be limited to some.
    pub hardware: Option<String>,
}

/// `[trust]`: which signatures an image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustConfig {
    /// `keys`: files with public keys, each with one or several.
    pub keys: Vec<PathBuf>,
    /// `threshold`: how many different keys must have signed; 1 unless set.
    pub threshold: NonZeroU8,
    /// `unsigned`: `"refuse"` unless set; `"accept"` is loud in log and status.
    pub unsigned: Unsigned,
}

/// `[[component]]`: one updatable part of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentConfig {
    /// `name`: prot, boot, bmc or a vendor's own.
    pub name: String,
    /// `slots`: 1 to 26 files or block devices, slot A first.
    pub slots: Vec<PathBuf>,
    /// `size` in bytes; `None` only when every slot lies under `/dev`.
    pub size: Option<u64>,
    /// `file`: the name appended to a URL that ends in `/`, instead of the standard one.
    pub file: Option<String>,
    /// `in-place`: whether the only copy of something that the device starts from is overwritten
    /// where it is.
    pub in_place: InPlace,
    /// `running-build`: where the running build is written; unset: the slot's own manifest says it.
    pub running_build: Option<RunningSource>,
}

/// `[boot]`: boot control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// `control`: who keeps the record, and where.
    pub control: BootControlConfig,
    /// `running`: where the boot loader says which slots run now.
    pub running: RunningSource,
    /// `attempts`: how often a new choice may start before it must be confirmed; 3 unless set.
    pub attempts: u8,
}

/// The backends of boot control that a configuration can name, each with its own keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootControlConfig {
    /// `"file"`: one file with two checksummed copies, `path`.
    File(PathBuf),
    /// `"uboot"`: the environment of U-Boot.
    UBoot(UBootConfig),
}

/// `[boot]` with `control = "uboot"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UBootConfig {
    /// Where the environment lies.
    pub place: EnvironmentPlace,
    /// `flags`: what the flags of two copies mean; unless set, what U-Boot does on such a medium.
    pub flags: Option<EnvironmentFlags>,
    /// `order`, `left`, `record` and `slot-names`: the names of the variables, and what U-Boot calls
    /// the slots; those of RAUC's scripts unless set.
    pub variables: UBootVariables,
    /// `slot-names`, A first; empty: their letters.
    pub slot_names: Vec<String>,
    /// `in-place`: whether an environment with a single copy is used, which a power cut loses.
    pub in_place: InPlace,
}

/// Where an environment of U-Boot lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvironmentPlace {
    /// `environment`: a `fw_env.config`, the file that `fw_printenv` reads.
    Named(PathBuf),
    /// `device`, `offsets` and `size`.
    At {
        /// The file or device with all copies.
        device: PathBuf,
        /// Where the copies begin, one or two.
        offsets: Vec<u64>,
        /// Bytes of each copy.
        size: usize,
    },
}

/// Whether something that a power cut must not interrupt is written in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between the two")]
pub enum InPlace {
    /// It is not: refused.
    #[default]
    Never,
    /// `"unsafe"`: it is, loud in log and status.
    Unsafe,
}

/// `[update]`: the maintenance script and how servers are talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateConfig {
    /// `url`: the script, meta characters (`#h`, `#m`, …) still in it; `None`: nothing is polled.
    pub url: Option<String>,
    /// `poll-minutes`, or `poll` for finer steps; 15 minutes unless set.
    pub poll: Duration,
    /// `script`: the name appended to a script URL that ends in `/`, instead of the standard one.
    pub script: Option<String>,
    /// `ca`: files of PEM certificates, the only roots that https servers are checked against.
    pub ca: Vec<PathBuf>,
    /// `connect-timeout`: 10 s unless set.
    pub connect_timeout: Duration,
    /// `idle-timeout`: the longest wait for the next byte of a server; 30 s unless set.
    pub idle_timeout: Duration,
    /// `script-timeout`: the longest that one whole script may take; 60 s unless set.
    pub script_timeout: Duration,
    /// `minimum-rate`: bytes a second below which a transfer is given up; 256 unless set.
    pub minimum_rate: u64,
    /// `max-rate`: bytes a second that images are read with at the most; any number unless set.
    pub max_rate: Option<u64>,
    /// `max-download`: bytes that may come over the network for one image; any number unless set.
    pub max_download: Option<u64>,
    /// `requests`: how many ranges of an image are asked for at a time; 4 unless set.
    pub requests: usize,
    /// `in-flight`: bytes asked for at a time, in whole ranges; 1 MiB unless set.
    pub in_flight: u64,
}

/// `[recovery]`: the way of components with a single slot, which the device starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// `images`: http(s) URLs where recovery looks for images, in this order; one that ends in `/`
    /// gets the component's file name.
    pub images: Vec<String>,
}

/// `[scrub]`: the agent reads its slots now and then, so that rot is found before a boot finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// `every`: from the end of one scrub of a slot to the next; 7 days unless set, `None` for
    /// `"off"`.
    pub every: Option<Duration>,
    /// `pace`: bytes read a second; 4 MiB unless set.
    pub pace: u64,
    /// `repair`: what follows when damage is found; `"auto"` unless set.
    pub repair: RepairPolicy,
}

/// What the agent does when a scrub finds damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairPolicy {
    /// `"auto"`: it repairs the slot at once. It restarts nothing by itself.
    Auto,
    /// `"report"`: it says so in log and status.
    Report,
}

/// `[http]`: the device's own web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// `listen`: the address of the status page; `None`: no server.
    pub listen: Option<SocketAddr>,
    /// `connections`: how many are served at once; 16 unless set.
    pub connections: usize,
}

/// `[host]`: programs, each a list of a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// `reset`: restarts the device softly.
    pub reset: Option<ProgramConfig>,
    /// `reboot`: restarts the device hard, boot loader included.
    pub reboot: Option<ProgramConfig>,
    /// `idle`: exit status 0 says that the device is idle; unset: it always is.
    pub idle: Option<ProgramConfig>,
    /// `health`: exit status 0 says that a new firmware works.
    pub health: Option<ProgramConfig>,
    /// `health-seconds`: how long a new firmware has to become healthy; without `health`, how long it
    /// must have run; 30 s unless set.
    pub health_time: Duration,
    /// `commands`: gets every unknown script line as its last argument.
    pub commands: Option<ProgramConfig>,
    /// `config`: writes the configuration to back up to its standard output.
    pub configuration: Option<ProgramConfig>,
    /// `timeout-seconds`: the time limit of every program; 60 s unless set.
    pub timeout: Duration,
}

/// A program and its arguments; never a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramConfig {
    /// The program: a bare name is looked up in `PATH`, a relative path is relative to the
    /// configuration file.
    pub program: PathBuf,
    /// Its arguments, as written.
    pub arguments: Vec<OsString>,
}

impl Config {
    /// Reads and checks the configuration file at `path`, and the key files that it names.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is not TOML or no key file, or a rule is broken; the error names the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let error = |kind| ConfigError::new(path, None, kind);
        let read = |cause: io::Error| {
            error(ConfigErrorKind::Read {
                path: path.to_owned(),
                cause,
            })
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes))
            .map_err(read)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_LIMIT) {
            return Err(error(ConfigErrorKind::TooLarge { limit: FILE_LIMIT }));
        }
        let text = String::from_utf8(bytes).map_err(|_| error(ConfigErrorKind::NotUtf8))?;
        let config = Self::parse(&text, path)?;
        config.trust()?;
        Ok(config)
    }

    /// Checks the text of a configuration file; `path` is what relative paths are relative to and
    /// what errors name.
    ///
    /// # Errors
    ///
    /// The text is not TOML or breaks a rule; the error names the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = Source { file: path, text };
        let table = DeTable::parse(text).map_err(|error| {
            let message = error.message().to_owned();
            source.error(error.span().as_ref(), ConfigErrorKind::Syntax { message })
        })?;
        let root = Section::root(source, &table).allow(&[
            "device",
            "trust",
            "state",
            "component",
            "boot",
            "update",
            "recovery",
            "scrub",
            "http",
            "host",
        ])?;
        let state = root.section("state")?.allow(&["dir"])?;
        let device = section::device(root.section("device")?)?;
        let trust = section::trust(root.section("trust")?)?;
        let state_dir = state.require("dir")?.path()?;
        let components = section::components(&root)?;
        Ok(Self {
            file: path.to_owned(),
            device,
            trust,
            state_dir,
            boot: section::boot(root.section("boot")?, &components)?,
            components,
            update: section::update(root.section("update")?)?,
            recovery: section::recovery(&root)?,
            scrub: section::scrub(root.section("scrub")?)?,
            http: section::http(root.section("http")?)?,
            host: section::host(root.section("host")?)?,
        })
    }

    /// Reads the key files: what images are checked against.
    ///
    /// # Errors
    ///
    /// A file cannot be read or holds no key, or together they hold fewer different keys than
    /// `trust.threshold`.
    pub fn trust(&self) -> Result<Trust, ConfigError> {
        let error = |kind| ConfigError::new(&self.file, None, kind);
        let mut keys: Vec<PublicKey> = Vec::new();
        for path in &self.trust.keys {
            let text = std::fs::read_to_string(path).map_err(|cause| {
                error(ConfigErrorKind::Read {
                    path: path.clone(),
                    cause,
                })
            })?;
            let read = PublicKey::parse_file(&text).map_err(|cause| {
                error(ConfigErrorKind::KeyFile {
                    path: path.clone(),
                    cause,
                })
            })?;
            for key in read {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        let threshold = self.trust.threshold;
        if usize::from(threshold.get()) > keys.len() && !self.trust.keys.is_empty() {
            return Err(error(ConfigErrorKind::ThresholdAboveKeys {
                threshold: threshold.get(),
                keys: keys.len(),
            }));
        }
        Ok(Trust {
            keys,
            threshold,
            unsigned: self.trust.unsigned,
        })
    }

    /// The component of this name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ComponentConfig> {
        self.components
            .iter()
            .find(|component| component.name == name)
    }
}

/// Far above any real configuration.
const FILE_LIMIT: u64 = 256 << 10;
