use core::fmt;

use crate::{
    ast::{Command, Final, Line, Script, Vars},
    span::{Position, Span},
    text::Text,
};

impl<'a> Script<'a> {
    /// What is well-formed and probably not meant, in order.
    pub fn warnings(&self) -> impl Iterator<Item = Warning<'a>> {
        let mut checks = 0_u32;
        self.lines.iter().filter_map(move |line| {
            if matches!(line.command, Command::Check { .. }) {
                checks = checks.saturating_add(1);
            }
            let kind = suspicion(&line.command, checks)?;
            Some(Warning::new(kind, line))
        })
    }
}

/// A line that is well-formed and probably not meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Warning<'a> {
    kind: WarningKind<'a>,
    position: Position,
    span: Span,
}

impl<'a> Warning<'a> {
    fn new(kind: WarningKind<'a>, line: &Line<'_>) -> Self {
        Self {
            kind,
            position: Position {
                line: line.number,
                column: line.column,
            },
            span: line.span,
        }
    }

    /// What is suspicious.
    #[must_use]
    pub const fn kind(&self) -> WarningKind<'a> {
        self.kind
    }

    /// Where the line begins, for people.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The bytes of the line, for tools.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }
}

/// `line 3, column 1: …`, as errors are shown.
impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        write!(f, "line {line}, column {column}: {}", self.kind)
    }
}

/// What is suspicious about a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WarningKind<'a> {
    /// Two lines in one, or more: carriage returns alone end no line.
    CarriageReturn,
    /// A variable that says what is on flash is set; devices ignore it.
    DerivedVariable(Text<'a>),
    /// The module `UP0` or `UP1` in another letter case is another module.
    ModuleCase(Text<'a>),
    /// A second `check`: each guards the lines after it, and the last one reached sets UPDATE/CHECK.
    SeveralChecks,
    /// A final command that is no known word does nothing.
    UnknownFinalCommand(Text<'a>),
    /// A meta character that no device replaces: `#` and this byte.
    UnknownMeta(u8),
}

impl WarningKind<'_> {
    /// The name of the warning for programs; it stays the same whatever the sentence becomes.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::CarriageReturn => "carriage-return",
            Self::DerivedVariable(_) => "derived-variable",
            Self::ModuleCase(_) => "module-case",
            Self::SeveralChecks => "several-checks",
            Self::UnknownFinalCommand(_) => "unknown-final-command",
            Self::UnknownMeta(_) => "unknown-meta",
        }
    }
}

impl fmt::Display for WarningKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CarriageReturn => {
                f.write_str("a carriage return within a line ends no line: what follows it is not run by itself")
            }
            Self::DerivedVariable(name) => {
                write!(f, "\"{name}\" says what is on flash: a device ignores this line")
            }
            Self::ModuleCase(module) => write!(
                f,
                "module names are case-sensitive: \"{module}\" is not the update module"
            ),
            Self::SeveralChecks => {
                f.write_str("another \"check\" came before: the last one reached sets UPDATE/CHECK")
            }
            Self::UnknownFinalCommand(word) => {
                write!(f, "the final command \"{word}\" is not known and does nothing")
            }
            Self::UnknownMeta(byte) => write!(
                f,
                "the meta character \"#{}\" is not known and is kept as it is",
                byte.escape_ascii()
            ),
        }
    }
}

fn suspicion<'a>(command: &Command<'a>, checks: u32) -> Option<WarningKind<'a>> {
    match *command {
        Command::Check { final_command, .. } => unknown_final(final_command)
            .or_else(|| (checks > 1).then_some(WarningKind::SeveralChecks)),
        Command::Load { final_command, .. } => unknown_final(final_command),
        Command::SaveConfig {
            url, final_command, ..
        } => final_command
            .and_then(unknown_final)
            .or_else(|| unknown_meta(url.as_bytes()).map(WarningKind::UnknownMeta)),
        Command::LoadConfig { final_command, .. } => final_command.and_then(unknown_final),
        Command::Vars(Vars::Create { name, .. }) => {
            is_derived(name).then_some(WarningKind::DerivedVariable(name))
        }
        Command::Module { module, .. } => {
            let name = module.as_bytes();
            let is_other_case = [&b"UP0"[..], b"UP1"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name) && *known != name);
            is_other_case.then_some(WarningKind::ModuleCase(module))
        }
        Command::Comment(text) | Command::Other(text) => text
            .as_bytes()
            .contains(&b'\r')
            .then_some(WarningKind::CarriageReturn),
        Command::Blank
        | Command::Times { .. }
        | Command::Poll
        | Command::Provision(_)
        | Command::Reset(_)
        | Command::Config(_)
        | Command::Vars(_)
        | Command::Malformed { .. } => None,
    }
}

fn unknown_final(final_command: Final<'_>) -> Option<WarningKind<'_>> {
    match final_command {
        Final::Nothing(word) if !final_command.is_known() => {
            Some(WarningKind::UnknownFinalCommand(word))
        }
        Final::Nothing(_) | Final::Reset(_) => None,
    }
}

/// meta = "#" ( "F" / "B" / "H" / "h" / "m" / "d" / "i" / "t" / "b" 1*DIGIT )
fn unknown_meta(url: &[u8]) -> Option<u8> {
    let mut rest = url.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'#' {
            continue;
        }
        match rest.clone().next() {
            Some(b'F' | b'B' | b'H' | b'h' | b'm' | b'd' | b'i' | b't') => {}
            Some(b'b')
                if rest
                    .clone()
                    .nth(1)
                    .is_some_and(|byte| byte.is_ascii_digit()) => {}
            Some(unknown) => return Some(unknown),
            None => {}
        }
    }
    None
}

fn is_derived(name: Text<'_>) -> bool {
    [&b"UPDATE/PROT"[..], b"UPDATE/BOOT", b"UPDATE/BMC"].contains(&name.as_bytes())
}
