//! What the command's exit status says.

use std::process::ExitCode;

/// The end of a comparison. A contract with scripts and CI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: the target is met.
    Met,
    /// 1: the target is missed.
    Missed,
    /// 2: wrong usage, a missing program, or something failed: there is no answer.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Met => 0,
            Exit::Missed => 1,
            Exit::Failed => 2,
        })
    }
}
