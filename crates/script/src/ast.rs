use alloc::vec::Vec;

use crate::{
    error::{Keyword, ParseError},
    hours::Hours,
    span::Span,
    text::{Args, Text},
};

/// A maintenance script: its lines in order, blank ones and comments included.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Script<'a> {
    /// The lines.
    pub lines: Vec<Line<'a>>,
}

impl Script<'_> {
    /// The errors of the malformed lines, in order. A script without one is good.
    pub fn errors(&self) -> impl Iterator<Item = &ParseError> {
        self.lines.iter().filter_map(|line| match &line.command {
            Command::Malformed { error, .. } => Some(error),
            _ => None,
        })
    }
}

/// One line. Equality ignores where it stands.
#[derive(Clone, Debug, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// The column of its first byte that is no blank, from 1, in bytes.
    pub column: u32,
    /// Its bytes in the script, without the blanks around it and the line end.
    pub span: Span,
    /// What it says.
    pub command: Command<'a>,
}

impl PartialEq for Line<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.command == other.command
    }
}

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "integrators match the whole AST; a new form is a breaking change on purpose"
)]
pub enum Command<'a> {
    /// Nothing.
    Blank,
    /// `#` and the text after it.
    Comment(Text<'a>),
    /// `mod cmd UP1 check <final-command> <serial>`: the rest of the script only while UPDATE/CHECK is not the serial.
    Check {
        /// What to do after the last command.
        final_command: Final<'a>,
        /// What UPDATE/CHECK becomes.
        serial: Text<'a>,
    },
    /// `mod cmd UP1 times [/allow <hours>] [/initial <minutes>]`: the rest only at certain times.
    Times {
        /// The hours of the day in which the rest runs.
        allow: Option<Hours>,
        /// The minutes after each boot in which it does not.
        initial: Option<u32>,
    },
    /// `mod cmd UP1 poll`: polls now.
    Poll,
    /// `mod cmd UP1 provision <n>`: fast polling, 0 turns it off.
    Provision(u32),
    /// `mod cmd UP0 prot|boot|bmc <url> <final-command> <serial>`: loads firmware unless its serial is there.
    Load {
        /// Which firmware.
        component: Load,
        /// Where it lies; ends in `/` where the device appends its standard name.
        url: Text<'a>,
        /// What to do when it has been loaded.
        final_command: Final<'a>,
        /// What the variable of the component becomes.
        serial: Text<'a>,
    },
    /// `mod cmd UP0 scfg <url> [<final-command> <serial> [/force <hours>] [/always <command>]]`: uploads the
    /// configuration.
    SaveConfig {
        /// Where to; may hold meta characters (`#m`).
        url: Text<'a>,
        /// What to do when it has been uploaded; present exactly if the serial is.
        final_command: Option<Final<'a>>,
        /// What UPDATE/SCFG becomes; without it the line runs each time.
        serial: Option<Text<'a>>,
        /// Hours since the last upload after which an equal serial does not hold it back.
        force: Option<u32>,
        /// A percent-encoded command whose output is uploaded instead, on each run.
        always: Option<Text<'a>>,
    },
    /// `mod cmd UP0 cfg <url> [<final-command> [<serial>]]`: downloads configuration commands and runs them.
    LoadConfig {
        /// Where from.
        url: Text<'a>,
        /// What to do afterwards.
        final_command: Option<Final<'a>>,
        /// What UPDATE/CFG becomes; without it the line runs each time.
        serial: Option<Text<'a>>,
    },
    /// `iresetn` and its family as a whole line.
    Reset(Reset),
    /// `config …`.
    Config(Config<'a>),
    /// `vars …`.
    Vars(Vars<'a>),
    /// `mod cmd|cmd_ro <module> <command> …` that is none of the above.
    Module {
        /// `cmd` or `cmd_ro`.
        access: Access,
        /// The module, as written.
        module: Text<'a>,
        /// The command, as written.
        command: Text<'a>,
        /// The rest of the line as written: it may hold data whose blanks mean something.
        args: Text<'a>,
    },
    /// A known command that is not written as it must be. On a device it is a line that failed.
    Malformed {
        /// The line.
        text: Text<'a>,
        /// What is wrong.
        error: ParseError,
    },
    /// A line that is no known command, kept as it is: the device may know it.
    Other(Text<'a>),
}

/// The firmware that a line loads.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the language has these three; a new one changes what every device must do"
)]
pub enum Load {
    /// The firmware itself.
    Prot,
    /// The boot code.
    Boot,
    /// The radio's firmware of DECT devices.
    Bmc,
}

impl Load {
    /// The verb, which is also the name of the component: `prot`, `boot`, `bmc`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.keyword().as_str()
    }

    pub(crate) const fn keyword(self) -> Keyword {
        match self {
            Self::Prot => Keyword::Prot,
            Self::Boot => Keyword::Boot,
            Self::Bmc => Keyword::Bmc,
        }
    }
}

/// What to do when a command has succeeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whatever is no reset does nothing: there is no third case"
)]
pub enum Final<'a> {
    /// Restart.
    Reset(Reset),
    /// Nothing: `ser`, `/ser`, `no-op`, `nop`, and any word that is not known.
    Nothing(Text<'a>),
}

impl Final<'_> {
    /// Whether it is a known way to say nothing, or a reset; any other word is probably a slip of the pen.
    #[must_use]
    pub fn is_known(self) -> bool {
        match self {
            Self::Reset(_) => true,
            Self::Nothing(text) => [&b"ser"[..], b"/ser", b"no-op", b"nop"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(text.as_bytes())),
        }
    }
}

/// A restart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the language has these six; a new one changes what every device must do"
)]
pub enum Reset {
    /// `reset`: at once.
    Reset,
    /// `ireset`: as soon as the device is idle.
    IReset,
    /// `resetn`: at once if a reset is required.
    ResetN,
    /// `iresetn`: as soon as the device is idle, if a reset is required.
    IResetN,
    /// `reboot`: a hard restart at once.
    Reboot,
    /// `ireboot`: a hard restart as soon as the device is idle.
    IReboot,
}

impl Reset {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.keyword().as_str()
    }

    /// Whether it waits until the device is idle.
    #[must_use]
    pub const fn waits_for_idle(self) -> bool {
        match self {
            Self::IReset | Self::IResetN | Self::IReboot => true,
            Self::Reset | Self::ResetN | Self::Reboot => false,
        }
    }

    /// Whether it does nothing unless a reset is required.
    #[must_use]
    pub const fn only_if_required(self) -> bool {
        match self {
            Self::ResetN | Self::IResetN => true,
            Self::Reset | Self::IReset | Self::Reboot | Self::IReboot => false,
        }
    }

    /// Whether it is a hard restart.
    #[must_use]
    pub const fn is_hard(self) -> bool {
        match self {
            Self::Reboot | Self::IReboot => true,
            Self::Reset | Self::IReset | Self::ResetN | Self::IResetN => false,
        }
    }

    pub(crate) const fn keyword(self) -> Keyword {
        match self {
            Self::Reset => Keyword::Reset,
            Self::IReset => Keyword::Ireset,
            Self::ResetN => Keyword::Resetn,
            Self::IResetN => Keyword::Iresetn,
            Self::Reboot => Keyword::Reboot,
            Self::IReboot => Keyword::Ireboot,
        }
    }
}

/// A `config` line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "integrators match the whole AST; a new form is a breaking change on purpose"
)]
pub enum Config<'a> {
    /// `config change|add|rem <module> …`
    Edit {
        /// What is done to the module's settings.
        edit: Edit,
        /// The module, as written.
        module: Text<'a>,
        /// Its sub-module, if any, and its options.
        args: Args<'a>,
    },
    /// `config write`: saves.
    Write,
    /// `config activate`: puts into effect.
    Activate,
}

/// What a `config` line does to the settings of a module.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "integrators match the whole AST; a new form is a breaking change on purpose"
)]
pub enum Edit {
    /// Replaces the module's line.
    Change,
    /// Sets or adds the named options only.
    Add,
    /// Removes the named options.
    Rem,
}

impl Edit {
    pub(crate) const fn keyword(self) -> Keyword {
        match self {
            Self::Change => Keyword::Change,
            Self::Add => Keyword::Add,
            Self::Rem => Keyword::Rem,
        }
    }
}

/// A `vars` line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "integrators match the whole AST; a new form is a breaking change on purpose"
)]
pub enum Vars<'a> {
    /// `vars create <name> <flags> <value>`
    Create {
        /// The variable, such as `UPDATE/CHECK`.
        name: Text<'a>,
        /// Its flags, such as `pb`.
        flags: Text<'a>,
        /// Its value: the rest of the line.
        value: Text<'a>,
    },
    /// `vars del <name>`
    Del {
        /// The variable.
        name: Text<'a>,
    },
    /// `vars read <name>`
    Read {
        /// The variable.
        name: Text<'a>,
    },
}

/// How a module command is given.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "integrators match the whole AST; a new form is a breaking change on purpose"
)]
pub enum Access {
    /// `mod cmd`
    Full,
    /// `mod cmd_ro`
    ReadOnly,
}

impl Access {
    pub(crate) const fn keyword(self) -> Keyword {
        match self {
            Self::Full => Keyword::Cmd,
            Self::ReadOnly => Keyword::CmdRo,
        }
    }
}
