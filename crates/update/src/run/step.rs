use rekindle_script::{Final, Load, Reset};

use super::{Changes, Outcome, Output};

/// Where the run stands between two calls.
#[derive(Debug)]
pub(super) enum Step<'s> {
    /// The next line, or the end.
    Next,
    /// An output to give out.
    Ask(Output<'s>, Await<'s>),
    /// An output was given out.
    Awaiting(Await<'s>),
    Done,
}

/// What an input is for.
#[derive(Debug)]
pub(super) enum Await<'s> {
    Install(Install<'s>),
    Upload(Job<'s>),
    Host(Job<'s>),
    Reset(Place, Reset),
    Store(Changes, Purpose<'s>),
}

/// A line that loads firmware.
#[derive(Debug)]
pub(super) struct Install<'s> {
    pub(super) at: At,
    pub(super) load: Load,
    pub(super) serial: &'s [u8],
    pub(super) final_command: Final<'s>,
}

/// A line that is being done, and what it changes when it succeeds.
#[derive(Debug)]
pub(super) struct Job<'s> {
    pub(super) at: At,
    pub(super) changes: Changes,
    pub(super) final_command: Option<Final<'s>>,
}

/// Why something is stored.
#[derive(Debug)]
pub(super) enum Purpose<'s> {
    Line {
        at: At,
        outcome: Outcome,
        final_command: Option<Final<'s>>,
    },
    Check(PendingCheck<'s>),
    Known,
}

/// The last `check` reached, whose serial was new.
#[derive(Debug)]
pub(super) struct PendingCheck<'s> {
    pub(super) serial: &'s [u8],
    pub(super) final_command: Final<'s>,
    /// Its place in the summary.
    pub(super) index: usize,
}

/// Where a reset was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In a line of its own.
    Line(At),
    /// As the final command of the line at this place in the summary.
    FinalOf(usize),
}

/// The line that is being done.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) number: u32,
    pub(super) verb: &'static str,
}
