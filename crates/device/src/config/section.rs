//! One function per table of the file: what each key must hold and what stands in for it.

use alloc::collections::BTreeSet;
use core::net::SocketAddr;
use core::num::NonZeroU8;
use core::time::Duration;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rekindle_flash::{EnvironmentFlags, UBootVariables};
use rekindle_image::Unsigned;

use super::error::{ConfigError, ConfigErrorKind};
use super::reader::{Field, Section};
use super::{
    BootConfig, BootControlConfig, ComponentConfig, DeviceConfig, EnvironmentPlace, HostConfig,
    HttpConfig, InPlace, ProgramConfig, RecoveryConfig, RepairPolicy, ScrubConfig, TrustConfig,
    UBootConfig, UpdateConfig, unit,
};
use crate::running::Source;

pub(super) fn device(section: Section<'_>) -> Result<DeviceConfig, ConfigError> {
    let section = section.allow(&["type", "hardware-id", "mac", "hardware"])?;
    Ok(DeviceConfig {
        device_type: section.require("type")?.read(NAME, name)?,
        hardware_id: section.require("hardware-id")?.read(NAME, name)?,
        mac: optional(&section, "mac", |field| {
            field.read("an Ethernet address such as \"00-90-33-03-0d-f0\"", mac)
        })?,
        hardware: optional(&section, "hardware", |field| field.read(NAME, name))?,
    })
}

pub(super) fn trust(section: Section<'_>) -> Result<TrustConfig, ConfigError> {
    let section = section.allow(&["keys", "threshold", "unsigned"])?;
    let unsigned = optional(&section, "unsigned", |field| {
        field.read("\"refuse\" or \"accept\"", |text| match text {
            "refuse" => Some(Unsigned::Refuse),
            "accept" => Some(Unsigned::Accept),
            _ => None,
        })
    })?
    .unwrap_or(Unsigned::Refuse);
    let keys = optional(&section, "keys", |field| field.paths(KEY_FILES))?.unwrap_or_default();
    if keys.is_empty() && unsigned == Unsigned::Refuse {
        return Err(section.error(ConfigErrorKind::NoKeys));
    }
    Ok(TrustConfig {
        keys,
        threshold: optional(&section, "threshold", |field| {
            let number = field.integer(1..=u64::from(u8::MAX))?;
            Ok(u8::try_from(number).ok().and_then(NonZeroU8::new))
        })?
        .flatten()
        .unwrap_or(NonZeroU8::MIN),
        unsigned,
    })
}

pub(super) fn components(root: &Section<'_>) -> Result<Vec<ComponentConfig>, ConfigError> {
    let sections = root.sections("component")?;
    if sections.is_empty() {
        return Err(root.error(ConfigErrorKind::Missing {
            section: String::new(),
            key: "[[component]]",
        }));
    }
    let mut names = BTreeSet::new();
    let mut slots = BTreeSet::new();
    let mut components = Vec::new();
    for section in sections {
        let section =
            section.allow(&["name", "slots", "size", "file", "in-place", "running-build"])?;
        let component = component(&section)?;
        if !names.insert(component.name.clone()) {
            let name = component.name;
            return Err(section.error(ConfigErrorKind::DuplicateComponent { name }));
        }
        for path in &component.slots {
            if !slots.insert(path.clone()) {
                let path = path.clone();
                return Err(section.error(ConfigErrorKind::DuplicateSlot { path }));
            }
        }
        components.push(component);
    }
    if components.len() > COMPONENTS {
        return Err(root.error(ConfigErrorKind::TooMany {
            key: "component".to_owned(),
            found: components.len(),
            limit: COMPONENTS,
        }));
    }
    Ok(components)
}

fn component(section: &Section<'_>) -> Result<ComponentConfig, ConfigError> {
    let name = section.require("name")?.read(
        "1 to 32 lower-case letters, digits, '-' or '_', a letter first",
        component_name,
    )?;
    let slots = section.require("slots")?.paths(SLOTS)?;
    let size = optional(section, "size", |field| {
        let size = field.read("a size such as \"256 MiB\"", unit::size)?;
        if size < SMALLEST_SLOT || size % SLOT_UNIT != 0 {
            let expected = "a multiple of 4 KiB, at least 64 KiB";
            return Err(field.bad_value(expected, field.text()?));
        }
        Ok(size)
    })?;
    if size.is_none()
        && let Some(path) = slots.iter().find(|path| !path.starts_with("/dev"))
    {
        return Err(section.error(ConfigErrorKind::SizeMissing {
            component: name,
            path: path.clone(),
        }));
    }
    Ok(ComponentConfig {
        name,
        slots,
        size,
        file: optional(section, "file", |field| field.read(FILE_NAME, file_name))?,
        in_place: optional(section, "in-place", |field| {
            field.read("\"unsafe\"", |text| {
                (text == "unsafe").then_some(InPlace::Unsafe)
            })
        })?
        .unwrap_or_default(),
        running_build: optional(section, "running-build", source)?,
    })
}

pub(super) fn boot(
    section: Section<'_>,
    components: &[ComponentConfig],
) -> Result<BootConfig, ConfigError> {
    let is_file = section
        .require("control")?
        .read("\"file\" or \"uboot\"", |text| match text {
            "file" => Some(true),
            "uboot" => Some(false),
            _ => None,
        })?;
    let (section, control) = if is_file {
        let section = section.allow(&["control", "path", "running", "attempts"])?;
        let path = section.require("path")?.path()?;
        (section, BootControlConfig::File(path))
    } else {
        let section = section.allow(&[
            "control",
            "environment",
            "device",
            "offsets",
            "size",
            "flags",
            "order",
            "left",
            "record",
            "slot-names",
            "in-place",
            "running",
            "attempts",
        ])?;
        let uboot = uboot(&section)?;
        // The variables speak of the component with several slots.
        let slots = components.iter().map(|component| component.slots.len());
        let slots = slots.max().and_then(|slots| u8::try_from(slots).ok());
        uboot
            .variables
            .check(slots.unwrap_or_default())
            .map_err(|error| section.error(ConfigErrorKind::BootVariables(error)))?;
        (section, BootControlConfig::UBoot(uboot))
    };
    let most = if is_file {
        ATTEMPTS
    } else {
        UBootVariables::ATTEMPTS_MAX.into()
    };
    Ok(BootConfig {
        control,
        running: source(&section.require("running")?)?,
        attempts: optional(&section, "attempts", |field| field.integer(1..=most))?
            .and_then(|attempts| u8::try_from(attempts).ok())
            .unwrap_or(3),
    })
}

fn uboot(section: &Section<'_>) -> Result<UBootConfig, ConfigError> {
    let place = match optional(section, "environment", Field::path)? {
        Some(path) => EnvironmentPlace::Named(path),
        None => EnvironmentPlace::At {
            device: section.require("device")?.path()?,
            offsets: section
                .require("offsets")?
                .read_each(2, OFFSET, unit::offset)?,
            size: section
                .require("size")?
                .read(OFFSET, |text| usize::try_from(unit::offset(text)?).ok())?,
        },
    };
    let named = |key, with: fn(UBootVariables, &str) -> Option<UBootVariables>| {
        move |variables: UBootVariables| match section.field(key) {
            Some(field) => field.read(VARIABLE, |text| with(variables, text)),
            None => Ok(variables),
        }
    };
    let order = named("order", |all, name| all.with_order(name).ok());
    let left = named("left", |all, name| all.with_left(name).ok());
    let record = named("record", |all, name| all.with_record(name).ok());
    let mut variables = order(left(record(UBootVariables::default())?)?)?;
    let mut slot_names = Vec::new();
    if let Some(field) = section.field("slot-names") {
        let names = field.texts(SLOTS)?;
        variables = variables
            .with_slots(&names)
            .map_err(|_| field.bad_value(SLOT_NAMES, &names.join(" ")))?;
        slot_names = names.into_iter().map(str::to_owned).collect();
    }
    Ok(UBootConfig {
        place,
        flags: optional(section, "flags", |field| {
            field.read("\"serial\" or \"active\"", |text| match text {
                "serial" => Some(EnvironmentFlags::Serial),
                "active" => Some(EnvironmentFlags::Active),
                _ => None,
            })
        })?,
        variables,
        slot_names,
        in_place: optional(section, "in-place", |field| {
            field.read("\"unsafe\"", |text| {
                (text == "unsafe").then_some(InPlace::Unsafe)
            })
        })?
        .unwrap_or_default(),
    })
}

pub(super) fn update(section: Section<'_>) -> Result<UpdateConfig, ConfigError> {
    let section = section.allow(&[
        "url",
        "poll-minutes",
        "poll",
        "script",
        "ca",
        "connect-timeout",
        "idle-timeout",
        "script-timeout",
        "minimum-rate",
        "max-rate",
        "max-download",
        "requests",
        "in-flight",
    ])?;
    let minutes = optional(&section, "poll-minutes", |field| {
        Ok(Duration::from_secs(60 * field.integer(1..=POLL_MINUTES)?))
    })?;
    Ok(UpdateConfig {
        url: optional(&section, "url", |field| {
            field.read("a URL such as \"http://192.0.2.1/scripts/\"", url)
        })?,
        poll: duration(&section, "poll")?.or(minutes).unwrap_or(POLL),
        script: optional(&section, "script", |field| field.read(FILE_NAME, file_name))?,
        ca: optional(&section, "ca", |field| field.paths(CA_FILES))?.unwrap_or_default(),
        connect_timeout: duration(&section, "connect-timeout")?.unwrap_or(CONNECT_TIMEOUT),
        idle_timeout: duration(&section, "idle-timeout")?.unwrap_or(IDLE_TIMEOUT),
        script_timeout: duration(&section, "script-timeout")?.unwrap_or(SCRIPT_TIMEOUT),
        minimum_rate: optional(&section, "minimum-rate", |field| {
            field.read("bytes a second such as \"1 KiB\"", unit::size)
        })?
        .unwrap_or(256),
        max_rate: optional(&section, "max-rate", |field| {
            field.read("bytes a second such as \"256 KiB\", not 0", some_size)
        })?,
        max_download: optional(&section, "max-download", |field| {
            field.read("a size such as \"64 MiB\", not 0", some_size)
        })?,
        requests: optional(&section, "requests", |field| field.integer(1..=REQUESTS))?
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(4),
        in_flight: optional(&section, "in-flight", |field| {
            field.read("a size such as \"1 MiB\", not 0", some_size)
        })?
        .unwrap_or(1 << 20),
    })
}

fn some_size(text: &str) -> Option<u64> {
    unit::size(text).filter(|size| *size > 0)
}

pub(super) fn recovery(root: &Section<'_>) -> Result<Option<RecoveryConfig>, ConfigError> {
    if root.field("recovery").is_none() {
        return Ok(None);
    }
    let section = root.section("recovery")?.allow(&["images"])?;
    let images = optional(&section, "images", |field| {
        field.read_each(RECOVERY_IMAGES, "an http:// or https:// URL", |text| {
            is_http(text).then(|| text.to_owned())
        })
    })?;
    Ok(Some(RecoveryConfig {
        images: images.unwrap_or_default(),
    }))
}

fn is_http(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

pub(super) fn scrub(section: Section<'_>) -> Result<ScrubConfig, ConfigError> {
    let section = section.allow(&["every", "pace", "repair"])?;
    let every = optional(&section, "every", |field| {
        field.read("a time such as \"7 days\", or \"off\"", |text| {
            if text == "off" {
                return Some(None);
            }
            unit::duration(text).map(Some)
        })
    })?;
    Ok(ScrubConfig {
        every: every.unwrap_or(Some(SCRUB_EVERY)),
        pace: optional(&section, "pace", |field| {
            field.read("bytes a second such as \"4 MiB\"", some_size)
        })?
        .unwrap_or(SCRUB_PACE),
        repair: optional(&section, "repair", |field| {
            field.read("\"auto\" or \"report\"", |text| match text {
                "auto" => Some(RepairPolicy::Auto),
                "report" => Some(RepairPolicy::Report),
                _ => None,
            })
        })?
        .unwrap_or(RepairPolicy::Auto),
    })
}

pub(super) fn http(section: Section<'_>) -> Result<HttpConfig, ConfigError> {
    let section = section.allow(&["listen", "connections"])?;
    Ok(HttpConfig {
        listen: optional(&section, "listen", |field| {
            field.read(
                "an IP address and port such as \"127.0.0.1:8081\"",
                |text| text.parse::<SocketAddr>().ok(),
            )
        })?,
        connections: optional(&section, "connections", |field| field.integer(1..=1024))?
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(16),
    })
}

pub(super) fn host(section: Section<'_>) -> Result<HostConfig, ConfigError> {
    let section = section.allow(&[
        "reset",
        "reboot",
        "idle",
        "health",
        "health-seconds",
        "commands",
        "config",
        "timeout-seconds",
    ])?;
    let seconds = |key, default| {
        let read = optional(&section, key, |field| field.integer(1..=DAY_SECONDS))?;
        Ok(Duration::from_secs(read.unwrap_or(default)))
    };
    Ok(HostConfig {
        reset: optional(&section, "reset", program)?,
        reboot: optional(&section, "reboot", program)?,
        idle: optional(&section, "idle", program)?,
        health: optional(&section, "health", program)?,
        health_time: seconds("health-seconds", 30)?,
        commands: optional(&section, "commands", program)?,
        configuration: optional(&section, "config", program)?,
        timeout: seconds("timeout-seconds", 60)?,
    })
}

fn optional<'a, T>(
    section: &Section<'a>,
    key: &'static str,
    read: impl FnOnce(&Field<'a>) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    section.field(key).map(|field| read(&field)).transpose()
}

fn duration(section: &Section<'_>, key: &'static str) -> Result<Option<Duration>, ConfigError> {
    optional(section, key, |field| {
        field.read("a time such as \"2 s\" (ms, s, min or h)", unit::duration)
    })
}

fn source(field: &Field<'_>) -> Result<Source, ConfigError> {
    const EXPECTED: &str = "\"env:NAME\", \"cmdline:name\" or \"file:/path\"";
    let source = field.read(EXPECTED, |text| text.parse().ok())?;
    Ok(match source {
        Source::File(path) => Source::File(field.folder().join(path)),
        other => other,
    })
}

fn program(field: &Field<'_>) -> Result<ProgramConfig, ConfigError> {
    let mut words = field.texts(ARGUMENTS)?.into_iter();
    let program = Path::new(words.next().unwrap_or_default());
    Ok(ProgramConfig {
        program: if program.components().count() > 1 {
            field.folder().join(program)
        } else {
            PathBuf::from(program)
        },
        arguments: words.map(OsString::from).collect(),
    })
}

fn name(text: &str) -> Option<String> {
    let fits = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

fn component_name(text: &str) -> Option<String> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let fits = text.len() <= 32
        && text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_lowercase());
    fits.then(|| text.to_owned())
}

fn file_name(text: &str) -> Option<String> {
    let fits = text.len() <= 128
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.#".contains(&byte));
    fits.then(|| text.to_owned())
}

fn mac(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase().replace(':', "-");
    let pairs: Vec<&str> = text.split('-').collect();
    let pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    (pairs.len() == 6 && pairs.iter().all(pair)).then_some(text)
}

fn url(text: &str) -> Option<String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))?;
    let fits = text.len() <= 2048
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !rest.is_empty()
        && !rest.starts_with(['/', '?', '#']);
    fits.then(|| text.to_owned())
}

/// As the devices of the field poll.
/// Servers are tried one after the other.
const RECOVERY_IMAGES: usize = 16;
const POLL: Duration = Duration::from_secs(15 * 60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Rot comes in years; a slot of a gigabyte takes four minutes of a week.
const SCRUB_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
/// A tenth of what slow flash reads.
const SCRUB_PACE: u64 = 4 << 20;

const NAME: &str = "1 to 64 printable ASCII characters without blanks";
const OFFSET: &str = "bytes such as \"1 MiB\" or \"0x100000\"";
const VARIABLE: &str =
    "a name of 1 to 64 printable ASCII characters without blanks and '=' (for `left` with one '*')";
const SLOT_NAMES: &str = "different names of printable ASCII characters without blanks and '='";
const FILE_NAME: &str = "a file name of letters, digits, '-', '_' and '.'";
const KEY_FILES: usize = 16;
const CA_FILES: usize = 16;
/// Slots have letters, A to Z.
const SLOTS: usize = 26;
const COMPONENTS: usize = 16;
const ARGUMENTS: usize = 64;
/// Room for two copies of header, manifest and table.
const SMALLEST_SLOT: u64 = 64 << 10;
const SLOT_UNIT: u64 = 4096;
const ATTEMPTS: u64 = 100;
/// Each costs a connection and a few hundred KiB.
const REQUESTS: u64 = 16;
const POLL_MINUTES: u64 = 60 * 24 * 31;
const DAY_SECONDS: u64 = 24 * 3600;
