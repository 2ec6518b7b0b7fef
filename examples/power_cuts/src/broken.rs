//! What must never be.

use core::fmt::Display;

/// A promise that was broken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The scenario could not even be prepared.
    #[error("cannot prepare: {0}")]
    Setup(String),
    /// Boot control cannot be used any more.
    #[error("boot control is lost: {0}")]
    BootControl(String),
    /// State cannot be used any more.
    #[error("state is lost: {0}")]
    State(String),
    /// Boot control names no slot to boot.
    #[error("nothing boots")]
    NothingBoots,
    /// What boots does not call itself complete.
    #[error("slot {slot} boots and is not complete")]
    NotComplete {
        /// The slot.
        slot: &'static str,
    },
    /// What boots is no image that anybody signed.
    #[error("slot {slot} boots and holds no authentic image")]
    NotAuthentic {
        /// The slot.
        slot: &'static str,
    },
    /// The variable names another image than the one that boots.
    #[error("the variable says {serial}, but {boots} boots")]
    Variable {
        /// What it says.
        serial: String,
        /// The image that boots.
        boots: &'static str,
    },
    /// A committed boot record or state is gone.
    #[error(
        "{what} after the restart is neither what was committed last nor what was being committed"
    )]
    Lost {
        /// Which of them.
        what: &'static str,
    },
    /// The fallback could not be installed or booted again.
    #[error("the security floor is {floor}, above the confirmed image's {version}")]
    FloorTooHigh {
        /// The floor.
        floor: u64,
        /// The version of the confirmed image.
        version: u64,
    },
    /// Keys were adopted that the confirmed image does not bring.
    #[error("the keys of another image than the confirmed one are adopted")]
    KeysTooEarly,
    /// An image that keys signed which were replaced was not refused.
    #[error("keys that were replaced still count")]
    OldKeys,
    /// The agent cannot go on.
    #[error("the agent cannot {what}: {error}")]
    Agent {
        /// What it tried.
        what: &'static str,
        /// Why not.
        error: String,
    },
    /// The device runs, and does not come to run what it should.
    #[error("{goal} does not come to run, after {boots} boots")]
    NeverThere {
        /// What should run.
        goal: &'static str,
        /// How often it was started.
        boots: u32,
    },
    /// What runs in the end has no variable.
    #[error("{goal} was installed by a script and its variable is unset")]
    Unset {
        /// What runs.
        goal: &'static str,
    },
    /// What was on the medium was fetched again.
    #[error("{fetched} bytes were fetched where {missing} were missing")]
    FetchedAgain {
        /// Bytes fetched.
        fetched: u64,
        /// Bytes that were not there.
        missing: u64,
    },
    /// More than one erase block of what was synced before is gone.
    #[error("chunks of {blocks} blocks were synced before the cut and are gone")]
    WorkLost {
        /// How many.
        blocks: usize,
    },
}

impl Broken {
    pub(crate) fn setup(error: impl Display) -> Self {
        Self::Setup(error.to_string())
    }

    pub(crate) fn boot_control(error: impl Display) -> Self {
        Self::BootControl(error.to_string())
    }

    pub(crate) fn state(error: impl Display) -> Self {
        Self::State(error.to_string())
    }

    pub(crate) fn agent(what: &'static str, error: impl Display) -> Self {
        Self::Agent {
            what,
            error: error.to_string(),
        }
    }
}
