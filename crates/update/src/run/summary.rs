use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use rekindle_script::ParseError;

use super::{Failure, Restart};

/// What a run has done so far, line by line, for a status page. It holds neither URLs nor the text
/// of lines, since these may hold secrets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The lines that were reached, in order, without blank lines and comments.
    pub lines: Vec<LineOutcome>,
    /// How the run ended; `None` while it goes on.
    pub end: Option<End>,
    /// What became of UPDATE/CHECK; `None` if no `check` was reached or the run goes on.
    pub check: Option<Check>,
    /// A `poll` line: poll again after this run. The driver keeps an interval between polls, since
    /// a script that says this each time would never let it rest.
    pub poll: bool,
    /// The last `provision` line: its number, 0 turns fast polling off.
    pub provision: Option<u32>,
    /// Why a change could not be stored, the first time that happened.
    pub not_stored: Option<Failure>,
}

impl Summary {
    /// The lines that failed, with their outcome.
    pub fn failed(&self) -> impl Iterator<Item = &LineOutcome> {
        self.lines.iter().filter(|line| line.has_failed())
    }
}

impl fmt::Display for Summary {
    /// One sentence, such as `ran to its end, 2 of 5 lines failed; CHECK stays as it was: a line has
    /// failed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            None => f.write_str("still running")?,
            Some(end) => write!(f, "{end}")?,
        }
        match self.failed().count() {
            0 => {}
            failed => write!(f, ", {failed} of {} lines failed", self.lines.len())?,
        }
        if let Some(check) = self.check {
            write!(f, "; {check}")?;
        }
        Ok(())
    }
}

/// One line and what it came to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LineOutcome {
    /// The number of the line, from 1.
    pub number: u32,
    /// What kind of line: `check`, `prot`, `config` …
    pub verb: &'static str,
    /// What happened, and why.
    pub outcome: Outcome,
    /// What became of its final command, if that was a reset and was reached.
    pub final_command: Option<ResetOutcome>,
}

impl LineOutcome {
    /// Whether the line, or the reset it ended with, has failed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        matches!(
            (&self.outcome, &self.final_command),
            (
                Outcome::Failed(_) | Outcome::Reset(ResetOutcome::Failed(_)),
                _
            ) | (_, Some(ResetOutcome::Failed(_)))
        )
    }
}

impl fmt::Display for LineOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}: {}", self.number, self.verb, self.outcome)?;
        if let Some(reset) = &self.final_command {
            write!(f, "; then {reset}")?;
        }
        Ok(())
    }
}

/// What a line came to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// `check`: the serial is new, the lines after it run.
    CheckDiffers,
    /// `check`: UPDATE/CHECK is the serial, the lines after it are skipped.
    CheckEqual,
    /// `times`: the lines after it may run now.
    InTime,
    /// `times /initial`: the device has booted too recently.
    TooSoonAfterBoot {
        /// Until when, in seconds since boot.
        until_seconds: u64,
    },
    /// `times /allow`: not in this hour.
    HourNotAllowed {
        /// The hour it is.
        hour: u8,
    },
    /// `times /allow`: the device has no clock.
    NoClock,
    /// `prot`, `boot`, `bmc`: the variable is the serial already.
    SerialEqual,
    /// The variable is unset and the build of this component is the serial.
    BuildEqual,
    /// The device has no such component.
    Absent,
    /// The image was installed.
    Installed,
    /// The image is what runs already; its serial was recorded.
    RunsAlready,
    /// `scfg`: uploaded.
    Uploaded,
    /// `scfg`, `cfg`: the variable is the serial, nothing was done.
    Unchanged,
    /// The host has done it.
    Done,
    /// Nobody on this device knows the line.
    NotKnown,
    /// `poll`, `provision`: noted for after the run.
    Noted,
    /// A line of the reset family.
    Reset(ResetOutcome),
    /// The line failed. The run went on.
    Failed(LineFailure),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckDiffers => f.write_str("the serial is new, the rest runs"),
            Self::CheckEqual => f.write_str("this serial has been run, the rest is skipped"),
            Self::InTime => f.write_str("the rest may run now"),
            Self::TooSoonAfterBoot { until_seconds } => write!(
                f,
                "the rest waits until {} minutes after boot",
                until_seconds.div_ceil(60)
            ),
            Self::HourNotAllowed { hour } => {
                write!(
                    f,
                    "the rest does not run between {hour:02}:00 and {hour:02}:59"
                )
            }
            Self::NoClock => {
                f.write_str("the rest runs at certain hours only, and the device has no clock")
            }
            Self::SerialEqual => f.write_str("this serial is loaded already"),
            Self::BuildEqual => f.write_str("this build is there already"),
            Self::Absent => f.write_str("skipped, the device has no such component"),
            Self::Installed => f.write_str("installed"),
            Self::RunsAlready => f.write_str("this image runs already, its serial is recorded now"),
            Self::Uploaded => f.write_str("uploaded"),
            Self::Unchanged => f.write_str("this serial has been done already"),
            Self::Done => f.write_str("done"),
            Self::NotKnown => f.write_str("not known on this device, ignored"),
            Self::Noted => f.write_str("noted"),
            Self::Reset(reset) => reset.fmt(f),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
        }
    }
}

/// Why a line failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LineFailure {
    /// The line is not written as it must be.
    #[error("{}", .0.kind())]
    Malformed(Box<ParseError>),
    /// The serial is longer than what can be remembered, so the line would run for ever.
    #[error(
        "its serial has {len} bytes, at most {} can be remembered",
        rekindle_state::limit::VALUE
    )]
    SerialTooLong {
        /// How long it is.
        len: usize,
    },
    /// The command after `/always` holds a line break once it is percent-decoded.
    #[error("the command after /always holds a line break")]
    CommandBreaksLine,
    /// The driver could not do it.
    #[error(transparent)]
    Driver(#[from] Failure),
    /// It was done, and could not be recorded; it is done again in the next run.
    #[error("done, but it could not be recorded: {0}")]
    NotStored(Failure),
}

/// What became of a reset.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ResetOutcome {
    /// The device is going down.
    Started,
    /// The device restarts when it is idle.
    Pending,
    /// None was required.
    NotRequired,
    /// A line of this run was refused by policy, and a reset whoever answers the poll may ask for
    /// at will would keep the device restarting.
    Withheld,
    /// It could not be started.
    Failed(Failure),
}

impl From<Restart> for ResetOutcome {
    fn from(restart: Restart) -> Self {
        match restart {
            Restart::Started => Self::Started,
            Restart::Pending => Self::Pending,
            Restart::NotRequired => Self::NotRequired,
        }
    }
}

impl fmt::Display for ResetOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("restarts now"),
            Self::Pending => f.write_str("restarts as soon as the device is idle"),
            Self::NotRequired => f.write_str("no restart required"),
            Self::Withheld => f.write_str("no restart, since a line of this script was refused"),
            Self::Failed(failure) => write!(f, "the restart failed: {failure}"),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum End {
    /// After its last line.
    Complete,
    /// At a `check` whose serial has been run.
    UpToDate {
        /// Its line.
        line: u32,
    },
    /// At a `times /initial`: the device has booted too recently.
    TooSoon {
        /// Its line.
        line: u32,
    },
    /// At a `times /allow`: not in this hour.
    NotNow {
        /// Its line.
        line: u32,
    },
    /// At a reset that is under way or pending.
    Restart {
        /// Its line.
        line: u32,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("ran to its end"),
            Self::UpToDate { line } => write!(f, "nothing new after line {line}"),
            Self::TooSoon { line } => write!(f, "too soon after boot: held back by line {line}"),
            Self::NotNow { line } => write!(f, "not now: held back by line {line}"),
            Self::Restart { line } => write!(f, "ended by the restart in line {line}"),
        }
    }
}

/// What became of UPDATE/CHECK at the end of a run that reached a `check`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Check {
    /// It is the serial now.
    Set,
    /// It was the serial already.
    Equal,
    /// It stays as it was: a line has failed, so the next poll tries again.
    LineFailed,
    /// It stays as it was: the run did not reach its end.
    Interrupted,
    /// It could not be stored.
    NotStored,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "CHECK is set",
            Self::Equal => "CHECK is up to date",
            Self::LineFailed => "CHECK stays as it was, since a line has failed",
            Self::Interrupted => "CHECK stays as it was, since the run was cut short",
            Self::NotStored => "CHECK could not be stored",
        })
    }
}
