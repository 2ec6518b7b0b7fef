//! How large a state may grow. A commit beyond a limit is refused, so that what is written can
//! always be read again.

use crate::{Evidence, Rejection, SlotRecord, State};

/// Longest update variable or serial.
pub const VALUE: usize = 256;
/// Longest component name or build.
pub const TEXT: usize = 64;
/// Most slot records: 16 components of up to 26 slots would be more than any device known.
pub const SLOTS: usize = 64;
/// Most rejections; [`State::reject`](crate::State::reject) drops the oldest.
pub const REJECTIONS: usize = 32;
/// Most evidence of fallbacks; [`State::add_fallback`](crate::State::add_fallback) drops the oldest.
pub const FALLBACKS: usize = 16;
/// Most keys of the adopted key set.
pub const KEYS: usize = 16;
/// Largest encoded generation, header included. The other limits together stay below it.
pub const FILE: usize = 64 * 1024;

/// What exceeds its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A variable or serial; the line that brought it cannot be recorded.
    #[error("{what} has {len} bytes, at most {VALUE} can be stored")]
    Value {
        /// Which one.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A component name or a build.
    #[error("{what} has {len} bytes, at most {TEXT} can be stored")]
    Text {
        /// Which one.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A list with too many entries.
    #[error("{len} {what}, at most {max} can be stored")]
    List {
        /// Which one.
        what: &'static str,
        /// How many entries it has.
        len: usize,
        /// How many it may have.
        max: usize,
    },
}

/// Checks every text and list of `state`.
pub(crate) fn check(state: &State) -> Result<(), LimitError> {
    for (what, dated) in [
        ("UPDATE/CHECK", &state.check),
        ("UPDATE/SCFG", &state.scfg),
        ("UPDATE/CFG", &state.cfg),
    ] {
        if let Some(dated) = dated {
            value(what, &dated.value)?;
        }
    }
    list("slot records", state.slots.len(), SLOTS)?;
    list("rejections", state.rejections.len(), REJECTIONS)?;
    list("fallbacks", state.fallbacks.len(), FALLBACKS)?;
    if let Some(key_set) = &state.key_set {
        list("keys of the adopted key set", key_set.keys.len(), KEYS)?;
    }
    state.slots.iter().try_for_each(slot)?;
    state.rejections.iter().try_for_each(rejection)?;
    state.fallbacks.iter().try_for_each(fallback)
}

fn slot(record: &SlotRecord) -> Result<(), LimitError> {
    text("the component of a slot record", &record.component)?;
    text("the build of a slot record", &record.build)?;
    record.serial.as_ref().map_or(Ok(()), |serial| {
        value("the serial of a slot record", serial)
    })
}

fn rejection(rejection: &Rejection) -> Result<(), LimitError> {
    text("the component of a rejection", &rejection.component)?;
    text("the build of a rejection", &rejection.build)
}

fn fallback(evidence: &Evidence) -> Result<(), LimitError> {
    text("the component of a fallback", &evidence.component)?;
    text("the build of a fallback", &evidence.build)
}

pub(crate) fn value(what: &'static str, bytes: &[u8]) -> Result<(), LimitError> {
    let len = bytes.len();
    if len > VALUE {
        return Err(LimitError::Value { what, len });
    }
    Ok(())
}

pub(crate) fn text(what: &'static str, text: &str) -> Result<(), LimitError> {
    let len = text.len();
    if len > TEXT {
        return Err(LimitError::Text { what, len });
    }
    Ok(())
}

pub(crate) fn list(what: &'static str, len: usize, max: usize) -> Result<(), LimitError> {
    if len > max {
        return Err(LimitError::List { what, len, max });
    }
    Ok(())
}
