//! How results reach the one who asked.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// What a result looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Human,
    /// For programs: described in docs/benchmarks.md.
    Json,
}

impl Format {
    /// Prints `value` as JSON, or as the table that it displays.
    pub(crate) fn print<T: Serialize + core::fmt::Display>(self, value: &T) -> io::Result<()> {
        let text = match self {
            Self::Human => value.to_string(),
            Self::Json => serde_json::to_string_pretty(value)?,
        };
        writeln!(io::stdout().lock(), "{}", text.trim_end())
    }

    /// Says how far a long comparison is; nothing where a program reads the result.
    pub(crate) fn progress(self, line: &str) {
        if self == Self::Human {
            // Whoever closed standard error does not want to know.
            let _: io::Result<()> = writeln!(io::stderr().lock(), "{line}");
        }
    }
}
