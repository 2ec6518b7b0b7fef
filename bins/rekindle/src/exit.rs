//! What the command's exit status says.

use std::process::ExitCode;

/// The end of a command that ran. A contract with scripts and CI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, or the answer is yes.
    Done,
    /// 1: the command ran and the answer is no.
    No,
    /// 2: wrong usage, or a file or the network failed: there is no answer.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Failed => 2,
        })
    }
}
