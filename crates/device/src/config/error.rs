use std::io;
use std::path::{Path, PathBuf};

use rekindle_flash::VariableNameError;
use rekindle_image::KeyFileError;
use thiserror::Error;

/// Why a device configuration is not usable. Displays as `file:line: what is wrong`.
#[derive(Debug, Error)]
#[error("{}{}: {kind}", .file.display(), Line(*.line))]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    kind: Box<ConfigErrorKind>,
}

impl ConfigError {
    pub(super) fn new(file: &Path, line: Option<usize>, kind: ConfigErrorKind) -> Self {
        Self {
            file: file.to_owned(),
            line,
            kind: Box::new(kind),
        }
    }

    /// The configuration file, as it was named to `load`.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line at fault, counted from 1, where one line is at fault.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The violated rule.
    #[must_use]
    pub fn kind(&self) -> &ConfigErrorKind {
        &self.kind
    }
}

/// The rule of the configuration that was violated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// The file, or a file that it names, cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Read {
        /// The file that could not be read.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is larger than any configuration can be.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    /// The file is not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// What the TOML parser expected.
        message: String,
    },
    /// A key that no one reads: most often a slip of the pen.
    #[error("unknown key `{key}`{}; the nearest known key is `{nearest}`", In(.section))]
    UnknownKey {
        /// The table that holds the key; empty at the top of the file.
        section: String,
        /// The key as written.
        key: String,
        /// The known key with the smallest edit distance.
        nearest: &'static str,
    },
    /// A key that has no default is absent.
    #[error("`{key}` is missing{}", In(.section))]
    Missing {
        /// The table that must hold the key; empty at the top of the file.
        section: String,
        /// The absent key.
        key: &'static str,
    },
    /// A value of another TOML type.
    #[error("`{key}` must be {expected}, found {found}")]
    WrongType {
        /// The key, with its table.
        key: String,
        /// The type that is read.
        expected: &'static str,
        /// The TOML type in the file.
        found: &'static str,
    },
    /// A number outside its range.
    #[error("`{key}` must be {min} to {max}, found {found}")]
    OutOfRange {
        /// The key, with its table.
        key: String,
        /// The number as written.
        found: String,
        /// The smallest number allowed.
        min: u64,
        /// The largest number allowed.
        max: u64,
    },
    /// A text that does not have the form that the key needs.
    #[error("`{key}` must be {expected}, found \"{found}\"")]
    BadValue {
        /// The key, with its table.
        key: String,
        /// The form that is read, with an example.
        expected: &'static str,
        /// The text in the file.
        found: String,
    },
    /// A list or text that must hold something is empty.
    #[error("`{key}` must not be empty")]
    Empty {
        /// The key, with its table.
        key: String,
    },
    /// A list holds more than its limit.
    #[error("`{key}` holds {found} entries, the limit is {limit}")]
    TooMany {
        /// The key, with its table.
        key: String,
        /// How many are there.
        found: usize,
        /// How many may be there.
        limit: usize,
    },
    /// Two components have the same name.
    #[error("component `{name}` is configured twice")]
    DuplicateComponent {
        /// The name.
        name: String,
    },
    /// Two slots lie in the same file or partition: they would overwrite each other.
    #[error("slot {} is configured twice", .path.display())]
    DuplicateSlot {
        /// The file or partition.
        path: PathBuf,
    },
    /// A slot in a file has no size.
    #[error(
        "component `{component}` needs `size`: slot {} is no block device under /dev",
        .path.display()
    )]
    SizeMissing {
        /// The component.
        component: String,
        /// Its slot.
        path: PathBuf,
    },
    /// Two slots or values would share a variable of U-Boot.
    #[error("[boot] {0}")]
    BootVariables(VariableNameError),
    /// No key could ever accept an image.
    #[error("`trust.keys` is empty, so no image could ever be accepted; name a key file")]
    NoKeys,
    /// More signatures are asked for than there are keys.
    #[error("`trust.threshold` is {threshold}, but the key files hold {keys} different keys")]
    ThresholdAboveKeys {
        /// The number of signatures asked for.
        threshold: u8,
        /// The number of keys.
        keys: usize,
    },
    /// A file of `trust.keys` is no key file.
    #[error("key file {}: {cause}", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: KeyFileError,
    },
}

struct Line(Option<usize>);

impl core::fmt::Display for Line {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

struct In<'a>(&'a str);

impl core::fmt::Display for In<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " in [{}]", self.0)
        }
    }
}
