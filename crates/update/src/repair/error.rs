use alloc::boxed::Box;
use core::ops::Range;

use rekindle_flash::{BootControl, BootRefused, Flash, LayoutError, SlotId};
use rekindle_state::Store;

use super::guard::GuardedError;
use super::origin::OriginError;
use crate::converge::ConvergeError;
use crate::install::InstallError;
use crate::pump::{PumpError, Source};
use crate::scrub::TailError;

/// Why a slot was not repaired. The slot is no worse than before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError<F, B, S, R> {
    /// It must not be written now.
    #[error(transparent)]
    Refused(#[from] RepairRefused),
    /// The slot is damaged, runs, and must not be written where it is: see
    /// [`repair_elsewhere`](crate::repair_elsewhere).
    #[error(
        "slot {slot} runs and cannot be written where it is; its image must go to another slot"
    )]
    NeedsOtherSlot {
        /// The slot.
        slot: SlotId,
        /// The id of its image's manifest.
        image: [u8; 32],
    },
    /// As above, and the component has no other slot.
    #[error(
        "slot {slot} is the only one and cannot be written while it runs; only a recovery environment can repair it"
    )]
    NeedsRecovery {
        /// The slot.
        slot: SlotId,
        /// The id of its image's manifest.
        image: [u8; 32],
    },
    /// The install into another slot was refused or failed.
    #[error(transparent)]
    Install(Box<InstallError<F, B, S, R>>),
    /// Neither the slot's tail nor the state says which image the slot held: install one.
    #[error("nothing says which image slot {0} held; install one")]
    Unknown(SlotId),
    /// The slot's manifest is not to be believed, and the state knows no other: install an image.
    #[error("what the slot holds is not to be believed; install an image")]
    NotAuthentic(#[source] TailError),
    /// The image at the source is of no use.
    #[error(transparent)]
    Origin(OriginError<R>),
    /// The image ends before its manifest says so.
    #[error("the image is truncated: it ends inside bytes {0:?}")]
    Truncated(Range<u64>),
    /// Boot control does not allow the step.
    #[error("boot control does not allow it")]
    BootRefused(#[from] BootRefused),
    /// The slot is too small to hold anything.
    #[error("the slot cannot hold an image")]
    Slot(#[from] LayoutError),
    /// The slot could not be made to match.
    #[error(transparent)]
    Converge(#[from] ConvergeError),
    /// The slot's flash failed.
    #[error("the slot's flash failed")]
    Flash(#[source] F),
    /// Boot control failed.
    #[error("boot control failed")]
    Boot(#[source] B),
    /// The state store failed.
    #[error("the state store failed")]
    Store(#[source] S),
}

/// Why a slot must not be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepairRefused {
    /// A trial is under way: its fallback must stay as it is until it has ended.
    #[error("what runs now is not confirmed yet; nothing is repaired before that")]
    OnTrial,
    /// The slot boots next, and its flash must be erased to be written: restart the device first.
    #[error(
        "slot {0} boots next and cannot be written beside what it holds; restart the device first"
    )]
    BootsNext(SlotId),
    /// The slot runs and must not be written where it is, and another slot was chosen and waits for
    /// its first boot: to move the image there would throw away an update. Restart the device first.
    #[error(
        "slot {slot} runs and cannot be written where it is, and slot {chosen} waits for its first boot; \
         the repair waits for the restart"
    )]
    ChoiceWaits {
        /// The slot that runs.
        slot: SlotId,
        /// The slot that was chosen.
        chosen: SlotId,
    },
}

/// The error of a repair on these parts.
pub type RepairErrorOf<F, B, S, R> = RepairError<
    <F as Flash>::Error,
    <B as BootControl>::Error,
    <S as Store>::Error,
    <R as Source>::Error,
>;

/// Nothing can be written to the slot.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed<B, R> {
    #[error(transparent)]
    Origin(OriginError<R>),
    #[error("boot control does not allow it")]
    Refused(#[from] BootRefused),
    #[error("boot control failed")]
    Boot(#[source] B),
}

/// Why it is not known what a slot held.
#[derive(Debug)]
pub(super) enum Unknown {
    NoManifest,
    NotAuthentic(TailError),
}

impl<F, B, R> GuardedError<F, Failed<B, R>> {
    /// Whether the first write was not allowed because the source has another image.
    pub(super) const fn is_other_image(&self) -> bool {
        matches!(
            self,
            Self::First(Failed::Origin(OriginError::OtherImage(_)))
        )
    }
}

impl<F, B, S, R> RepairError<F, B, S, R> {
    pub(super) fn unknown(unknown: Unknown, slot: SlotId) -> Self {
        match unknown {
            Unknown::NoManifest => Self::Unknown(slot),
            Unknown::NotAuthentic(error) => Self::NotAuthentic(error),
        }
    }

    pub(super) fn from_guarded(error: GuardedError<F, Failed<B, R>>) -> Self {
        match error {
            GuardedError::Flash(error) => Self::Flash(error),
            GuardedError::First(Failed::Origin(error)) => Self::Origin(error),
            GuardedError::First(Failed::Refused(refused)) => Self::BootRefused(refused),
            GuardedError::First(Failed::Boot(error)) => Self::Boot(error),
        }
    }

    pub(super) fn from_pump(
        error: PumpError<GuardedError<F, Failed<B, R>>, OriginError<R>>,
    ) -> Self {
        match error {
            PumpError::Flash(error) => Self::from_guarded(error),
            PumpError::Source(error) => Self::Origin(error),
            PumpError::Truncated(range) => Self::Truncated(range),
            PumpError::Converge(error) => Self::Converge(error),
        }
    }
}
