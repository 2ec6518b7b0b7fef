use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rekindle_flash::SlotId;

use crate::UnixTime;

/// The value of an update variable and when it was set.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Dated {
    /// The serial as the script wrote it: opaque bytes, at most [`limit::VALUE`](crate::limit::VALUE).
    pub value: Vec<u8>,
    /// `None` if the device had no clock then.
    pub date: Option<UnixTime>,
}

/// The rolling index of configuration backups and when it was advanced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct DatedIndex {
    /// The index used by the last successful upload.
    pub index: u32,
    /// `None` if the device had no clock then.
    pub date: Option<UnixTime>,
}

/// What was installed into a slot, and how it came there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct SlotRecord {
    /// The component, such as `prot`.
    pub component: String,
    /// The slot of that component.
    pub slot: SlotId,
    /// The manifest the slot was made to match.
    pub manifest: [u8; 32],
    /// The serial of the script line; `None` for the doors that know no serial. Then the variable
    /// counts as unset, and a script compares with the running build.
    pub serial: Option<Vec<u8>>,
    /// The build the manifest names.
    pub build: String,
    /// When the install ended, `None` without a clock.
    pub date: Option<UnixTime>,
    /// By which way the image came.
    pub door: Door,
}

/// By which way an image came to the device.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Door {
    /// A line of a maintenance script.
    Script,
    /// An upload by a browser or a tool.
    Upload,
    /// Recovery from a peer on the LAN.
    Peer,
    /// The operator's command on the device itself.
    Local,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Script => "script",
            Self::Upload => "upload",
            Self::Peer => "peer",
            Self::Local => "local command",
        })
    }
}

/// A manifest that was tried and did not prove itself.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Rejection {
    /// The manifest. A corrected image under the same serial has another one and is not held back.
    pub manifest: [u8; 32],
    /// The component it was installed for.
    pub component: String,
    /// The build it names.
    pub build: String,
    /// Why it was rejected the last time.
    pub reason: Reason,
    /// How many trials have ended like this.
    pub tries: u8,
    /// The earliest time of the next trial, where one is left and the device has a clock.
    pub retry_after: Option<UnixTime>,
    /// When the last trial ended, `None` without a clock.
    pub date: Option<UnixTime>,
}

impl Rejection {
    /// Trials after which a manifest that just never reported is rejected for good: the first, and
    /// two more in case the power flickered.
    pub const MAX_TRIES: u8 = 3;

    /// Whether another trial is left at all: only where the image never reported, and not for ever.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self.reason {
            Reason::HealthFailed => true,
            Reason::NeverConfirmed => self.tries >= Self::MAX_TRIES,
        }
    }

    /// Whether the manifest must not be installed at `now`. Without a clock the back-off cannot be
    /// measured; only the number of trials bounds it then.
    #[must_use]
    pub fn holds_back(&self, now: Option<UnixTime>) -> bool {
        if self.is_final() {
            return true;
        }
        matches!((self.retry_after, now), (Some(after), Some(now)) if now < after)
    }
}

/// Why a trial was no success.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// It ran, and its own health check said no. Rejected at once.
    HealthFailed,
    /// It used up its attempts and never reported. It may be tried again, see [`Rejection`].
    NeverConfirmed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HealthFailed => "its health check failed",
            Self::NeverConfirmed => "it was started but never confirmed that it works",
        })
    }
}

/// Evidence of a fallback: the device started something else than was chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct Evidence {
    /// The component.
    pub component: String,
    /// The slot that was to be tried.
    pub chosen: SlotId,
    /// The slot that runs instead.
    pub running: SlotId,
    /// The manifest in the chosen slot, where it could be read.
    pub manifest: Option<[u8; 32]>,
    /// The build it names, empty where it could not be read.
    pub build: String,
    /// Why it was given up.
    pub reason: Reason,
    /// When this was noticed, `None` without a clock.
    pub date: Option<UnixTime>,
    /// How often the chosen slot was started before; 0 where nobody counted.
    pub attempts: u8,
    /// A server has been told and has answered.
    pub reported: bool,
}

/// The key set that the device has adopted, as boot control names it: the keys themselves, so that
/// an image need not carry the sets that led to them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct AdoptedKeySet {
    /// Its place in the chain of sets.
    pub number: u64,
    /// How many different ones of the keys must sign.
    pub threshold: u8,
    /// The keys, at most [`limit::KEYS`](crate::limit::KEYS).
    pub keys: Vec<[u8; 32]>,
}
