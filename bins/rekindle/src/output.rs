//! How results reach the one who asked.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// What a result looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For reading.
    Human,
    /// For programs: stable, described in docs/commands.md.
    Json,
}

impl Format {
    /// Prints `value` as JSON, or what `human` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        let text = match self {
            Self::Human => human(value),
            Self::Json => serde_json::to_string_pretty(value)?,
        };
        writeln!(io::stdout().lock(), "{}", text.trim_end())
    }
}

/// A number of bytes for reading: `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
