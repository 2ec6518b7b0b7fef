use core::fmt;
use core::str::FromStr;

/// Which of a component's slots: `A` is the first. There are at most 26.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SlotId(u8);

impl SlotId {
    /// The first slot, the one a new device runs from.
    pub const A: Self = Self(0);
    /// The second slot.
    pub const B: Self = Self(1);

    /// Returns the slot with this index, 0 for `A`; `None` beyond 25 (`Z`).
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < MAX_SLOTS {
            Some(Self(index))
        } else {
            None
        }
    }

    /// Returns the index, 0 for `A`.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&char::from(b'A' + self.0), f)
    }
}

impl FromStr for SlotId {
    type Err = ParseSlotIdError;

    /// Reads a letter in any case (`a`, `B`) or an index (`0`, `1`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let index = match text.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => {
                Some(letter.to_ascii_uppercase().wrapping_sub(b'A'))
            }
            digits if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                text.parse().ok()
            }
            _ => None,
        };
        index.and_then(Self::new).ok_or(ParseSlotIdError)
    }
}

/// The text names no slot.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no slot name: expected a letter A to Z or a number 0 to 25")]
pub struct ParseSlotIdError;

/// A set of a component's slots.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct SlotSet(u32);

impl SlotSet {
    /// The set without a slot.
    pub const EMPTY: Self = Self(0);

    pub(crate) const fn from_bits(bits: u32) -> Option<Self> {
        if bits >> MAX_SLOTS == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the slot is in the set.
    #[must_use]
    pub const fn contains(self, slot: SlotId) -> bool {
        self.0 & (1 << slot.0) != 0
    }

    /// Whether no slot is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds the slot.
    pub const fn insert(&mut self, slot: SlotId) {
        self.0 |= 1 << slot.0;
    }

    /// Takes the slot out.
    pub const fn remove(&mut self, slot: SlotId) {
        self.0 &= !(1 << slot.0);
    }

    /// Goes through the slots in order.
    pub fn iter(self) -> impl Iterator<Item = SlotId> {
        (0..MAX_SLOTS)
            .filter_map(SlotId::new)
            .filter(move |slot| self.contains(*slot))
    }
}

impl FromIterator<SlotId> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotId>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

/// Slots are named by letters.
pub(crate) const MAX_SLOTS: u8 = 26;

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_slot_is_read_as_letter_or_number_and_printed_as_a_letter() {
        for (text, printed) in [
            ("a", Some("A")),
            ("A", Some("A")),
            ("z", Some("Z")),
            ("0", Some("A")),
            ("25", Some("Z")),
            ("26", None),
            ("300", None),
            ("", None),
            ("AA", None),
            ("-1", None),
            ("+1", None),
            ("é", None),
        ] {
            let read = text.parse::<SlotId>().ok().map(|slot| slot.to_string());
            assert_eq!(read.as_deref(), printed, "{text:?}");
        }
        assert_eq!(SlotId::new(26), None);
    }

    #[test]
    fn a_set_holds_what_was_inserted_and_not_removed() {
        let mut set: SlotSet = [SlotId::B, SlotId(25), SlotId::A].into_iter().collect();
        set.remove(SlotId::A);
        assert_eq!(set.iter().collect::<Vec<_>>(), [SlotId::B, SlotId(25)]);
        assert_eq!(SlotSet::from_bits(set.bits()), Some(set));
        assert_eq!(SlotSet::from_bits(1 << 26), None);
    }
}
