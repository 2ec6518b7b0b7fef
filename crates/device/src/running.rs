//! What runs now, as the boot loader tells it: a restart of the agent is no boot, so only the one
//! who booted can say.

use core::fmt;
use core::str::FromStr;
use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rekindle_flash::SlotId;
use thiserror::Error;

/// Where a short text about the running system is found.
///
/// Written `env:NAME` (environment variable), `cmdline:name` (word `name=value` of the kernel command
/// line) or `file:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An environment variable of the agent.
    Env(String),
    /// The value of `name=value` on the kernel command line; the last one counts, as for the kernel.
    Cmdline(String),
    /// The first line of a file.
    File(PathBuf),
}

impl Source {
    /// Reads the text, without surrounding blanks.
    ///
    /// # Errors
    ///
    /// The variable, word or file is absent, unreadable, empty or larger than 4 KiB.
    pub fn read(&self) -> Result<String, RunningError> {
        let text = match self {
            Self::Env(name) => env::var(name).ok(),
            Self::Cmdline(name) => {
                let line = self.read_file(Path::new("/proc/cmdline"))?;
                cmdline_value(&line, name).map(str::to_owned)
            }
            Self::File(path) => self.read_file(path)?.lines().next().map(str::to_owned),
        };
        text.map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
            .ok_or_else(|| RunningError::Absent {
                place: self.clone(),
            })
    }

    fn read_file(&self, path: &Path) -> Result<String, RunningError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(TEXT_LIMIT).read_to_end(&mut bytes))
            .map_err(|cause| RunningError::Read {
                place: self.clone(),
                cause,
            })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        let (kind, value) = text.split_once(':').ok_or(UnknownSource)?;
        match kind {
            _ if value.is_empty() => Err(UnknownSource),
            "env" if !value.contains('=') => Ok(Self::Env(value.to_owned())),
            "cmdline" if !value.contains([' ', '=']) => Ok(Self::Cmdline(value.to_owned())),
            "file" => Ok(Self::File(PathBuf::from(value))),
            _ => Err(UnknownSource),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Cmdline(name) => write!(f, "cmdline:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// The text is no source: it must be `env:NAME`, `cmdline:name` or `file:/path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected env:NAME, cmdline:name or file:/path")]
#[expect(clippy::exhaustive_structs, reason = "it carries nothing")]
pub struct UnknownSource;

/// The slot of every component that runs now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    slots: Vec<(String, SlotId)>,
}

impl Running {
    /// Nothing runs that would be updated: a recovery environment.
    pub(crate) const fn nothing() -> Self {
        Self { slots: Vec::new() }
    }

    /// Reads `source` and the slots in it.
    ///
    /// # Errors
    ///
    /// As [`Source::read`] and [`Running::parse`].
    pub fn read(source: &Source, components: &[(&str, u8)]) -> Result<Self, RunningError> {
        Self::parse(&source.read()?, components)
    }

    /// Reads slots from text: a letter or number alone is the first component's
    /// (`B`), several are written `prot=B,boot=A`. `components` are the names and slot counts of the
    /// device, in order; one with a single slot always runs from it and need not be named.
    ///
    /// # Errors
    ///
    /// A name or slot that the device does not have, a component named twice, or one with several
    /// slots that is not named.
    pub fn parse(text: &str, components: &[(&str, u8)]) -> Result<Self, RunningError> {
        let mut slots: Vec<(String, SlotId)> = Vec::new();
        for entry in text.split(',') {
            let (name, slot) = match entry.split_once('=') {
                Some((name, slot)) => (name.trim(), slot.trim()),
                None if !text.contains(',') => {
                    (components.first().map_or("", |first| first.0), entry.trim())
                }
                None => return Err(malformed(text)),
            };
            let Some((_, count)) = components.iter().find(|(known, _)| *known == name) else {
                return Err(RunningError::UnknownComponent {
                    name: name.to_owned(),
                });
            };
            let slot = SlotId::from_str(slot).map_err(|_| malformed(text))?;
            if slot.index() >= *count {
                return Err(RunningError::NoSuchSlot {
                    component: name.to_owned(),
                    slot,
                    count: *count,
                });
            }
            if slots.iter().any(|(known, _)| known == name) {
                return Err(malformed(text));
            }
            slots.push((name.to_owned(), slot));
        }
        for (name, count) in components {
            if slots.iter().any(|(known, _)| known == name) {
                continue;
            }
            match SlotId::new(0) {
                Some(only) if *count == 1 => slots.push(((*name).to_owned(), only)),
                _ => {
                    return Err(RunningError::NotNamed {
                        component: (*name).to_owned(),
                    });
                }
            }
        }
        Ok(Self { slots })
    }

    /// The running slot of a component; `None` for a component that the device does not have.
    #[must_use]
    pub fn slot(&self, component: &str) -> Option<SlotId> {
        let mut slots = self.slots.iter();
        slots
            .find(|(name, _)| name == component)
            .map(|(_, slot)| *slot)
    }

    /// Every component with its running slot.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SlotId)> {
        self.slots.iter().map(|(name, slot)| (name.as_str(), *slot))
    }
}

/// Why it is not known what runs now.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunningError {
    /// The boot loader left no text: the variable, word or first line is absent or empty.
    #[error("{place} says nothing; the boot loader must set it to the slot that it started")]
    Absent {
        /// Where it was looked for.
        place: Source,
    },
    /// The file, or the kernel command line, cannot be read.
    #[error("cannot read {place}: {cause}")]
    Read {
        /// Where it was looked for.
        place: Source,
        /// What the system said.
        cause: io::Error,
    },
    /// The text is neither a slot nor a list of `component=slot`.
    #[error("expected a slot such as \"B\", or \"prot=B,boot=A\", found \"{text}\"")]
    Malformed {
        /// The text, cut to 64 characters.
        text: String,
    },
    /// The text names a component that the configuration does not.
    #[error("component `{name}` is not in the configuration")]
    UnknownComponent {
        /// The name.
        name: String,
    },
    /// The text names a slot beyond the configured ones.
    #[error("component `{component}` has {count} slots, there is no slot {slot}")]
    NoSuchSlot {
        /// The component.
        component: String,
        /// The slot named.
        slot: SlotId,
        /// How many slots it has.
        count: u8,
    },
    /// A component with several slots is not named, so its running slot is unknown.
    #[error("the running slot of component `{component}` is not named")]
    NotNamed {
        /// The component.
        component: String,
    },
}

fn malformed(text: &str) -> RunningError {
    RunningError::Malformed {
        text: text.chars().take(64).collect(),
    }
}

fn cmdline_value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
        .next_back()
}

/// A kernel command line is at most 4 KiB on the machines we know; a slot's name is far shorter.
const TEXT_LIMIT: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u8) -> SlotId {
        SlotId::new(index).unwrap()
    }

    const DEVICE: &[(&str, u8)] = &[("prot", 2), ("boot", 2), ("bmc", 1)];

    #[test]
    fn a_bare_slot_is_the_first_components() {
        for (text, expected) in [("B", 1), ("b", 1), ("0", 0), (" A ", 0)] {
            let running = Running::parse(text, &[("prot", 2), ("bmc", 1)]).unwrap();
            assert_eq!(running.slot("prot"), Some(slot(expected)), "{text:?}");
            assert_eq!(running.slot("bmc"), Some(slot(0)), "{text:?}");
            assert_eq!(running.slot("boot"), None, "{text:?}");
        }
    }

    #[test]
    fn several_components_are_named() {
        let running = Running::parse("prot=B, boot=A", DEVICE).unwrap();
        let all: Vec<_> = running.iter().collect();
        assert_eq!(
            all,
            [("prot", slot(1)), ("boot", slot(0)), ("bmc", slot(0))]
        );
    }

    #[test]
    fn every_mistake_has_its_own_words() {
        let cases = [
            ("A", "the running slot of component `boot` is not named"),
            (
                "prot=C,boot=A",
                "component `prot` has 2 slots, there is no slot C",
            ),
            ("dsp=A", "component `dsp` is not in the configuration"),
            (
                "prot=A,B",
                "expected a slot such as \"B\", or \"prot=B,boot=A\", found \"prot=A,B\"",
            ),
            (
                "prot=A,prot=B",
                "expected a slot such as \"B\", or \"prot=B,boot=A\", found \"prot=A,prot=B\"",
            ),
            (
                "prot=",
                "expected a slot such as \"B\", or \"prot=B,boot=A\", found \"prot=\"",
            ),
        ];
        for (text, expected) in cases {
            let error = Running::parse(text, DEVICE).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_last_word_of_the_command_line_counts() {
        let line = "quiet rekindle.slot=A root=/dev/mmcblk0p2 rekindle.slot=\"B\" rekindle.slots=C";
        assert_eq!(cmdline_value(line, "rekindle.slot"), Some("B"));
        assert_eq!(cmdline_value(line, "slot"), None);
    }

    #[test]
    fn a_file_gives_its_first_line_and_an_absent_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slot");
        let source: Source = format!("file:{}", path.display()).parse().unwrap();
        assert!(matches!(source.read(), Err(RunningError::Read { .. })));
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(source.read(), Err(RunningError::Absent { .. })));
        std::fs::write(&path, "B\r\nwritten by the loader\n").unwrap();
        assert_eq!(source.read().unwrap(), "B");
    }

    #[test]
    fn sources_read_back_what_they_print() {
        for text in [
            "env:REKINDLE_SLOT",
            "cmdline:rekindle.slot",
            "file:/run/slot",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["REKINDLE_SLOT", "env:", "file:", "efi:x", "cmdline:a b"] {
            assert_eq!(text.parse::<Source>(), Err(UnknownSource), "{text:?}");
        }
    }
}
