use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rekindle_script::Reset;
use rekindle_state::{Dated, DatedIndex, State, UnixTime};

use crate::url::{LocalTime, UrlFacts};

/// What the device knows when a run starts.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Facts<'s> {
    /// For the URLs. The run itself fills in `local` and `index`.
    pub url: UrlFacts<'s>,
    /// The components this device has.
    pub components: &'s [Component<'s>],
}

/// A component and what the slot holds that boot control boots next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Component<'s> {
    /// `prot`, `boot` or `bmc`; any other name is no verb of the language and is never looked up.
    pub name: &'s str,
    /// The update variable (UPDATE/PROT …): the serial recorded for that slot, `None` if unset.
    pub serial: Option<&'s [u8]>,
    /// The build in that slot; `None` if the device cannot tell. Compared where the variable is
    /// unset.
    pub build: Option<&'s str>,
    /// The file name to append to a URL that ends in `/`, where it is not the standard name.
    pub file_name: Option<&'s str>,
}

/// The time, as far as the device knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Clock {
    /// Time since the device has booted: an agent that is restarted does not begin anew.
    pub since_boot: Duration,
    /// `None` while the device has no clock.
    pub unix: Option<UnixTime>,
    /// The same moment as local time.
    pub local: Option<LocalTime>,
}

/// What the driver is to do next. Each output but [`Wait`](Output::Wait) and [`Done`](Output::Done)
/// is answered by exactly one [`Input`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output<'s> {
    /// Install an image: [`Input::Installed`].
    Install {
        /// The line of the script.
        line: u32,
        /// The component.
        component: &'static str,
        /// Where the image lies, standard name included, ready to be requested.
        url: Vec<u8>,
        /// The serial to record for the slot.
        serial: &'s [u8],
    },
    /// Upload by PUT: [`Input::Uploaded`].
    Upload {
        /// The line of the script.
        line: u32,
        /// Where to, meta characters expanded, ready to be requested.
        url: Vec<u8>,
        /// What.
        content: Content,
    },
    /// Hand a line to the host: [`Input::Host`].
    Host {
        /// The line of the script.
        line: u32,
        /// The line as written. It may hold secrets.
        text: &'s [u8],
    },
    /// Restart the device, unless a reset is not required and the command says that it then does
    /// nothing: [`Input::Reset`].
    ///
    /// Whether a reset is required is derived at this moment, never stored: what boots next is not
    /// what runs, or the host says so.
    Reset {
        /// The line of the script.
        line: u32,
        /// At once or when idle, reset or reboot, only if required or always.
        reset: Reset,
    },
    /// Apply the changes to the state and commit it: [`Input::Stored`].
    Store(Changes),
    /// The input for the last output has not come yet.
    Wait,
    /// The run is over; see [`Run::summary`](crate::run::Run::summary).
    Done,
}

/// What is uploaded.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// The configuration of the device.
    Configuration,
    /// What the host's command prints (`/always`). The command is percent-decoded.
    OutputOf(Vec<u8>),
}

/// What has become of an output.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// Answers [`Output::Install`].
    Installed(Result<Loaded, Failure>),
    /// Answers [`Output::Upload`].
    Uploaded(Result<(), Failure>),
    /// Answers [`Output::Host`].
    Host(Result<Hosted, Failure>),
    /// Answers [`Output::Reset`].
    Reset(Result<Restart, Failure>),
    /// Answers [`Output::Store`].
    Stored(Result<(), Failure>),
}

/// How an install went well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Loaded {
    /// The image was brought into a slot.
    New,
    /// It is what runs already; only its serial was recorded.
    Running,
}

/// How a host command went well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Hosted {
    /// It was done.
    Done,
    /// Nobody on this device knows the line. Devices ignore such lines, so it does not hold CHECK
    /// back; but it shows in the status.
    NotKnown,
}

/// What has become of a reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Restart {
    /// The device is going down.
    Started,
    /// The device is busy and restarts as soon as it is idle. No run starts until then.
    Pending,
    /// No reset is required, so `resetn` or `iresetn` did nothing.
    NotRequired,
}

/// Why the driver could not do it, in words for the status page. The driver keeps its typed error
/// for itself and its log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It was tried and did not work, or took too long.
    #[error("{0}")]
    Failed(String),
    /// A policy of the device forbids it.
    #[error("refused: {0}")]
    Refused(String),
}

/// What a run changes in the state, to be committed together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Changes {
    /// The new UPDATE/CHECK.
    pub check: Option<Dated>,
    /// The new UPDATE/SCFG.
    pub scfg: Option<Dated>,
    /// The new UPDATE/CFG.
    pub cfg: Option<Dated>,
    /// The rolling index that was used.
    pub backup_index: Option<DatedIndex>,
    /// The device is no longer new.
    pub known: bool,
}

impl Changes {
    /// Puts the changes into `state`; what is not changed stays.
    pub fn apply(&self, state: &mut State) {
        for (change, variable) in [
            (&self.check, &mut state.check),
            (&self.scfg, &mut state.scfg),
            (&self.cfg, &mut state.cfg),
        ] {
            if change.is_some() {
                variable.clone_from(change);
            }
        }
        if self.backup_index.is_some() {
            state.backup_index = self.backup_index;
        }
        state.known |= self.known;
    }
}

/// The driver answered what was not asked. Nothing has changed; the output still waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// No output waits for an input.
    #[error("no output waits for an input")]
    NothingAsked,
    /// The input belongs to another kind of output, or says that a reset that always happens was
    /// not required.
    #[error("the input does not answer the output that waits")]
    OtherAnswer,
}
