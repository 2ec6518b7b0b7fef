//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use lexopt::{Arg, ValueExt as _};

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) config: PathBuf,
    pub(crate) command: Command,
}

/// A command of the agent.
#[derive(Debug)]
pub(crate) enum Command {
    Run,
    Install {
        image: String,
        component: Option<String>,
        allow_downgrade: bool,
        limits: Limits,
    },
    Confirm,
    Rollback,
    Recover {
        image: Option<String>,
    },
    Scrub {
        json: bool,
    },
    Repair {
        image: Option<String>,
    },
    FactoryReset,
}

/// What stands in for the configuration's limits of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_download: Option<u64>,
    pub(crate) max_rate: Option<u64>,
}

impl Arguments {
    /// Reads the command line; `None`: help or version was asked for and is printed.
    pub(crate) fn parse() -> anyhow::Result<Option<Self>> {
        let mut parser = lexopt::Parser::from_env();
        let mut config = None;
        let mut words: Vec<OsString> = Vec::new();
        let mut allow_downgrade = false;
        let mut limits = Limits::default();
        let mut json = None;
        let mut component = None;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("config") | Arg::Short('c') => config = Some(parser.value()?.into()),
                Arg::Long("allow-downgrade") => allow_downgrade = true,
                Arg::Long("max-download") => limits.max_download = Some(size(&parser.value()?)?),
                Arg::Long("max-rate") => limits.max_rate = Some(size(&parser.value()?)?),
                Arg::Long("component") => component = Some(parser.value()?.string()?),
                Arg::Long("format") => json = Some(is_json(&parser.value()?)?),
                Arg::Long("help") | Arg::Short('h') => {
                    crate::log::answer(HELP.trim_end());
                    return Ok(None);
                }
                Arg::Long("version") | Arg::Short('V') => {
                    crate::log::answer(concat!("rekindled ", env!("CARGO_PKG_VERSION")));
                    return Ok(None);
                }
                Arg::Value(word) => words.push(word),
                other => return Err(other.unexpected().into()),
            }
        }
        let mut command = command(&words, allow_downgrade, limits, json)?;
        match (&mut command, component) {
            (_, None) => {}
            (Command::Install { component, .. }, named) => component.clone_from(&named),
            _ => bail!("--component belongs to install"),
        }
        let config = config.context("--config FILE is missing")?;
        Ok(Some(Self { config, command }))
    }
}

fn size(text: &std::ffi::OsStr) -> anyhow::Result<u64> {
    text.to_str()
        .and_then(rekindle_device::parse_size)
        .filter(|size| *size > 0)
        .with_context(|| format!("{} is no size such as 64MiB", text.display()))
}

fn is_json(format: &OsString) -> anyhow::Result<bool> {
    match format.to_str() {
        Some("json") => Ok(true),
        Some("human") => Ok(false),
        _ => bail!("--format is human or json"),
    }
}

fn command(
    words: &[OsString],
    allow_downgrade: bool,
    limits: Limits,
    json: Option<bool>,
) -> anyhow::Result<Command> {
    let words: Vec<&str> = words
        .iter()
        .map(|word| word.to_str().context("an argument is no text"))
        .collect::<Result<_, _>>()?;
    let command = match words.as_slice() {
        [] | ["run"] => Command::Run,
        ["install", image] => Command::Install {
            image: (*image).to_owned(),
            component: None,
            allow_downgrade,
            limits,
        },
        ["confirm"] => Command::Confirm,
        ["rollback"] => Command::Rollback,
        ["recover"] => Command::Recover { image: None },
        ["recover", image] => Command::Recover {
            image: Some((*image).to_owned()),
        },
        ["install"] => bail!("install needs an image: a file or an http(s) URL"),
        ["scrub"] => Command::Scrub {
            json: json.unwrap_or_default(),
        },
        ["repair"] => Command::Repair { image: None },
        ["repair", image] => Command::Repair {
            image: Some((*image).to_owned()),
        },
        ["factory-reset"] => Command::FactoryReset,
        [other, ..] => bail!("unknown command or argument: {other}"),
    };
    if allow_downgrade && !matches!(command, Command::Install { .. }) {
        bail!("--allow-downgrade belongs to install");
    }
    if limits != Limits::default() && !matches!(command, Command::Install { .. }) {
        bail!("--max-download and --max-rate belong to install; run has them in its configuration");
    }
    if json.is_some() && !matches!(command, Command::Scrub { .. }) {
        bail!("--format belongs to scrub");
    }
    Ok(command)
}

const HELP: &str = "\
rekindled: the device agent

usage: rekindled --config FILE [COMMAND]

commands:
  run              poll, install, confirm, until stopped (the default)
  install IMAGE [--component NAME] [--allow-downgrade]
          [--max-download SIZE] [--max-rate SIZE]
                   install one image, a file or an http(s) URL, into the free slot of the
                   component that it is for
  confirm          confirm now what runs on trial
  rollback         give up the trial that runs or waits: the confirmed slots boot next
  recover [IMAGE]  from a recovery environment: bring single slots to a whole image, from a
                   file or http(s) URL, or from where [recovery] images points
  scrub [--format human|json]
                   compare all slots with their own manifests; nothing is written
  repair [IMAGE]   bring damaged slots back, from a file or http(s) URL, or from
                   where their images came from
  factory-reset    forget update variables: the device is new again

options:
  -c, --config FILE   the device configuration
  -h, --help          this text
  -V, --version       the version

exit codes: 0 done, 1 the answer is no (an image was refused, a slot is damaged), 2 usage,
configuration or I/O
The log goes to standard error; RUST_LOG sets its level (info unless set).
";
