use core::fmt;

use crate::{
    span::{Position, Span},
    text::write_lossy,
};

/// What is wrong with a line or with the script as a whole, and where.
///
/// Equality compares what is wrong and not where, as that of the AST does.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{at}: {kind}")]
pub struct ParseError {
    kind: ParseErrorKind,
    at: At,
}

impl ParseError {
    pub(crate) const fn new(kind: ParseErrorKind, position: Position, span: Span) -> Self {
        Self {
            kind,
            at: At { position, span },
        }
    }

    /// The rule that is broken.
    #[must_use]
    pub const fn kind(&self) -> &ParseErrorKind {
        &self.kind
    }

    /// The line and column, for people.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.at.position
    }

    /// The bytes at fault, for tools; empty where something is missing at the end of the line.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.at.span
    }
}

/// The rule that a line or a script breaks.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// An argument is missing, or what stands in its place is something else. Most often a URL that got lost when
    /// the script was copied from a web page.
    #[error("expected {argument} after {after}, found {found}")]
    Expected {
        /// The argument that belongs there.
        argument: Argument,
        /// What stands before it.
        after: After,
        /// What stands in its place.
        found: Found,
    },
    /// A URL names no host.
    #[error("expected a host in the URL after {after}, found \"{found}\"")]
    UrlWithoutHost {
        /// What stands before the URL.
        after: After,
        /// The URL.
        found: Excerpt,
    },
    /// The day has no such hour.
    #[error("expected an hour from 0 to 23 in \"/allow\", found \"{found}\"")]
    NotAnHour {
        /// What stands between the commas.
        found: Excerpt,
    },
    /// The number does not fit 32 bits.
    #[error("expected {argument} up to 4294967295 after {after}, found \"{found}\"")]
    NumberTooLarge {
        /// What the number is for.
        argument: Argument,
        /// What stands before it.
        after: After,
        /// The number.
        found: Excerpt,
    },
    /// An option is given twice.
    #[error("expected \"{option}\" at most once")]
    RepeatedOption {
        /// The option.
        option: Keyword,
    },
    /// The command is complete, and something follows.
    #[error("expected nothing more after {after}, found \"{found}\"")]
    Unexpected {
        /// The last thing that belongs to the command.
        after: After,
        /// What follows it.
        found: Excerpt,
    },
    /// The script is longer than [`Limits::script_bytes`](crate::Limits::script_bytes).
    #[error("the script is longer than {limit} bytes")]
    ScriptTooLong {
        /// The limit.
        limit: u32,
    },
    /// A line is longer than [`Limits::line_bytes`](crate::Limits::line_bytes).
    #[error("the line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: u32,
    },
    /// The script has more lines than [`Limits::lines`](crate::Limits::lines).
    #[error("the script has more than {limit} lines")]
    TooManyLines {
        /// The limit.
        limit: u32,
    },
}

impl ParseErrorKind {
    /// The name of the rule for programs; it stays the same whatever the sentence becomes.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Expected { .. } => "expected-argument",
            Self::UrlWithoutHost { .. } => "url-without-host",
            Self::NotAnHour { .. } => "not-an-hour",
            Self::NumberTooLarge { .. } => "number-too-large",
            Self::RepeatedOption { .. } => "repeated-option",
            Self::Unexpected { .. } => "unexpected-argument",
            Self::ScriptTooLong { .. } => "script-too-long",
            Self::LineTooLong { .. } => "line-too-long",
            Self::TooManyLines { .. } => "too-many-lines",
        }
    }
}

/// An argument of a command.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Argument {
    /// `http://…` or `https://…`.
    Url,
    /// What to do when the command has succeeded.
    FinalCommand,
    /// The token that says whether the command has been done.
    Serial,
    /// The hours of `/allow`.
    Hours,
    /// A number of hours.
    HourCount,
    /// A number of minutes.
    Minutes,
    /// A number.
    Number,
    /// The command whose output is uploaded.
    EncodedCommand,
    /// The name of a module.
    Module,
    /// A command of a module.
    ModuleCommand,
    /// The name of a variable.
    VariableName,
    /// The flags of a variable.
    VariableFlags,
    /// The value of a variable.
    VariableValue,
}

impl Argument {
    const fn name(self) -> &'static str {
        match self {
            Self::Url => "URL",
            Self::FinalCommand => "final command",
            Self::Serial => "serial",
            Self::Hours => "list of hours",
            Self::HourCount => "number of hours",
            Self::Minutes => "number of minutes",
            Self::Number => "number",
            Self::EncodedCommand => "percent-encoded command",
            Self::Module => "module name",
            Self::ModuleCommand => "module command",
            Self::VariableName => "variable name",
            Self::VariableFlags => "flags",
            Self::VariableValue => "value",
        }
    }
}

/// With its article: `a URL`.
impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VariableFlags => f.write_str(self.name()),
            _ => write!(f, "a {}", self.name()),
        }
    }
}

/// A fixed word of the language.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the word of that name, see `as_str`")]
pub enum Keyword {
    Activate,
    Add,
    Allow,
    Always,
    Bmc,
    Boot,
    Cfg,
    Change,
    Check,
    Cmd,
    CmdRo,
    Create,
    Del,
    Force,
    Initial,
    Ireboot,
    Ireset,
    Iresetn,
    Poll,
    Prot,
    Provision,
    Read,
    Reboot,
    Rem,
    Reset,
    Resetn,
    Scfg,
    Times,
    Write,
}

impl Keyword {
    /// The word as it is written in a script.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Add => "add",
            Self::Allow => "/allow",
            Self::Always => "/always",
            Self::Bmc => "bmc",
            Self::Boot => "boot",
            Self::Cfg => "cfg",
            Self::Change => "change",
            Self::Check => "check",
            Self::Cmd => "cmd",
            Self::CmdRo => "cmd_ro",
            Self::Create => "create",
            Self::Del => "del",
            Self::Force => "/force",
            Self::Initial => "/initial",
            Self::Ireboot => "ireboot",
            Self::Ireset => "ireset",
            Self::Iresetn => "iresetn",
            Self::Poll => "poll",
            Self::Prot => "prot",
            Self::Provision => "provision",
            Self::Read => "read",
            Self::Reboot => "reboot",
            Self::Rem => "rem",
            Self::Reset => "reset",
            Self::Resetn => "resetn",
            Self::Scfg => "scfg",
            Self::Times => "times",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands before the place of an error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum After {
    /// A fixed word.
    Keyword(Keyword),
    /// An argument.
    Argument(Argument),
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyword(keyword) => write!(f, "\"{keyword}\""),
            Self::Argument(argument) => write!(f, "the {}", argument.name()),
        }
    }
}

/// What stands where something else was expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Found {
    /// Nothing.
    EndOfLine,
    /// This token.
    Token(Excerpt),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOfLine => f.write_str("the end of the line"),
            Self::Token(token) => write!(f, "\"{token}\""),
        }
    }
}

/// The beginning of a token, copied so that an error outlives its script: at most 36 bytes.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Excerpt {
    bytes: [u8; Self::CAPACITY],
    /// At most `CAPACITY`.
    len: u8,
    is_cut: bool,
}

impl Excerpt {
    /// Keeps a line that carries an error as small as the largest that carries none.
    const CAPACITY: usize = 36;

    pub(crate) fn new(token: &[u8]) -> Self {
        let mut len = token.len().min(Self::CAPACITY);
        let is_cut = len < token.len();
        // Not in the middle of a UTF-8 character; in other character sets this costs three bytes of an excerpt.
        for _ in 0..3 {
            if is_cut && token.get(len).is_some_and(|byte| byte & 0xc0 == 0x80) {
                len = len.saturating_sub(1);
            }
        }
        let mut bytes = [0; Self::CAPACITY];
        for (to, from) in bytes.iter_mut().zip(token.iter().take(len)) {
            *to = *from;
        }
        Self {
            bytes,
            len: u8::try_from(len).unwrap_or(u8::MAX),
            is_cut,
        }
    }

    /// The bytes that were kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Lossy, as [`Text`](crate::Text) is; `…` where the token goes on.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossy(f, self.as_bytes())?;
        f.write_str(if self.is_cut { "…" } else { "" })
    }
}

#[derive(Clone, Copy, Debug, Eq)]
struct At {
    position: Position,
    span: Span,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        write!(f, "line {line}, column {column}")
    }
}

/// Always equal: see [`ParseError`].
impl PartialEq for At {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn an_excerpt_ends_between_characters_and_says_so() {
        let long = "x".repeat(35) + "ä and more";
        assert_eq!(
            Excerpt::new(long.as_bytes()).to_string(),
            "x".repeat(35) + "…"
        );
        assert_eq!(Excerpt::new(b"short").to_string(), "short");
        assert_eq!(Excerpt::new(&[b'y'; 36]).to_string(), "y".repeat(36));
    }
}
