use core::ops::Range;

/// What an operation does to simulated flash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Write { offset: u64, data: Vec<u8> },
    Erase(Range<u64>),
}

impl Change {
    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Self::Write { offset, data } => {
                let len = u64::try_from(data.len()).expect("simulated flash fits into memory");
                *offset..*offset + len
            }
            Self::Erase(range) => range.clone(),
        }
    }

    /// The new bytes; `None`: erased.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Write { data, .. } => Some(data),
            Self::Erase(_) => None,
        }
    }
}
