use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::codec::{decode_record, encode_record};
use super::environment::Environment;
use crate::{BootRecord, ComponentBoot, RecordError, SlotId};

/// The names of the variables by which the boot loader is told what to boot, and how it calls the
/// slots.
///
/// The default is what RAUC's U-Boot scripts use: `BOOT_ORDER`, `BOOT_A_LEFT`, `BOOT_B_LEFT` and so
/// on, slots called by their letters. Everything that these cannot say is in a variable of our own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UBootVariables {
    order: String,
    /// Around the slot's name.
    left: (String, String),
    slots: Vec<String>,
    record: String,
}

impl Default for UBootVariables {
    fn default() -> Self {
        Self {
            order: "BOOT_ORDER".to_owned(),
            left: ("BOOT_".to_owned(), "_LEFT".to_owned()),
            slots: Vec::new(),
            record: "rekindle_record".to_owned(),
        }
    }
}

impl UBootVariables {
    /// Names the variable with the slots that may boot, first one first, separated by blanks.
    ///
    /// # Errors
    ///
    /// It is no name of a variable.
    pub fn with_order(mut self, name: &str) -> Result<Self, VariableNameError> {
        self.order = variable(name)?;
        Ok(self)
    }

    /// Names the variables with a slot's attempts; `*` stands for the slot, as in `BOOT_*_LEFT`.
    ///
    /// # Errors
    ///
    /// It is no name of a variable, or has no `*` or several.
    pub fn with_left(mut self, pattern: &str) -> Result<Self, VariableNameError> {
        let (before, behind) = pattern
            .split_once('*')
            .filter(|(_, behind)| !behind.contains('*'))
            .ok_or_else(|| VariableNameError::Pattern(clip(pattern)))?;
        variable(&pattern.replace('*', "A"))?;
        self.left = (before.to_owned(), behind.to_owned());
        Ok(self)
    }

    /// Says what the boot loader calls the slots, A first.
    ///
    /// # Errors
    ///
    /// A name is empty, too long or holds other than printable ASCII, or two are the same.
    pub fn with_slots(mut self, names: &[&str]) -> Result<Self, VariableNameError> {
        let mut slots: Vec<String> = Vec::new();
        for name in names {
            let name = variable(name)?;
            if slots.contains(&name) {
                return Err(VariableNameError::Twice(name));
            }
            slots.push(name);
        }
        self.slots = slots;
        Ok(self)
    }

    /// Names the variable with the boot record as a whole.
    ///
    /// # Errors
    ///
    /// It is no name of a variable.
    pub fn with_record(mut self, name: &str) -> Result<Self, VariableNameError> {
        self.record = variable(name)?;
        Ok(self)
    }

    /// Checks that a component of so many slots can be told with these names: no two slots have the
    /// same name, be it configured or a letter, and no two values the same variable.
    ///
    /// # Errors
    ///
    /// Two of them are the same; the error names the keys of the configuration.
    pub fn check(&self, slots: u8) -> Result<(), VariableNameError> {
        let mut names: Vec<String> = Vec::new();
        let mut variables = Vec::from([("order", self.order.clone())]);
        let mut add = |key, variable| match variables.iter().find(|(_, known)| *known == variable) {
            Some((first, _)) => Err(VariableNameError::Shared {
                first,
                second: key,
                variable,
            }),
            None => {
                variables.push((key, variable));
                Ok(())
            }
        };
        add("record", self.record.clone())?;
        for slot in (0..slots).filter_map(SlotId::new) {
            let name = self.slot_name(slot);
            if names.contains(&name) {
                return Err(VariableNameError::Twice(name));
            }
            names.push(name);
            add("left", self.left_name(slot))?;
        }
        Ok(())
    }

    /// Returns how the boot loader calls a slot.
    #[must_use]
    pub fn slot_name(&self, slot: SlotId) -> String {
        self.slots
            .get(usize::from(slot.index()))
            .map_or_else(|| format!("{slot}"), Clone::clone)
    }

    pub(super) fn record_name(&self) -> &str {
        &self.record
    }

    fn left_name(&self, slot: SlotId) -> String {
        let (before, behind) = &self.left;
        format!("{before}{}{behind}", self.slot_name(slot))
    }

    /// What the boot loader is told for this record: names and values.
    ///
    /// `system` is the component that the boot loader starts.
    pub(super) fn loader_values(
        &self,
        record: &BootRecord,
        system: &ComponentBoot,
    ) -> Vec<(String, String)> {
        let trial = system.chosen.filter(|_| record.attempts_left() > 0);
        // A slot that must not boot is not in it, nor one that is neither confirmed nor chosen:
        // scripts that find nothing bootable give everything in the order new attempts.
        let mut order = String::new();
        for slot in trial.into_iter().chain([system.confirmed]) {
            if !order.is_empty() {
                order.push(' ');
            }
            order.push_str(&self.slot_name(slot));
        }
        let mut values = Vec::from([(self.order.clone(), order)]);
        for slot in (0..system.slots).filter_map(SlotId::new) {
            let left = if trial == Some(slot) {
                record.attempts_left()
            } else if slot == system.confirmed && !system.unbootable.contains(slot) {
                Self::ATTEMPTS_MAX
            } else {
                0
            };
            values.push((self.left_name(slot), format!("{left}")));
        }
        values
    }

    /// How many attempts of the chosen slot the boot loader would still make.
    pub(super) fn attempts_left(&self, environment: &Environment, chosen: SlotId) -> u8 {
        let first = environment.value(&self.order).and_then(|order| {
            order
                .split(u8::is_ascii_whitespace)
                .find(|word| !word.is_empty())
        });
        if first != Some(self.slot_name(chosen).as_bytes()) {
            return 0;
        }
        // U-Boot counts in hexadecimal, without a prefix.
        environment
            .value(&self.left_name(chosen))
            .and_then(|left| core::str::from_utf8(left).ok())
            .and_then(|left| u8::from_str_radix(left, 16).ok())
            .unwrap_or(0)
    }

    /// The most attempts that a boot loader's script counts and compares right: U-Boot calculates in
    /// hexadecimal and compares in decimal.
    ///
    /// A confirmed slot always has that many, for scripts that count them down at every boot.
    pub const ATTEMPTS_MAX: u8 = 9;
}

/// The record as a variable's text: a version, then the record's CBOR in hexadecimal.
pub(super) fn write_record(record: &BootRecord) -> String {
    let mut text = VERSION.to_owned();
    for byte in encode_record(record) {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}

/// Reads what [`write_record`] wrote, and nothing else.
pub(super) fn read_record(text: &[u8]) -> Result<BootRecord, RecordVariableError> {
    let Some(digits) = text.strip_prefix(VERSION.as_bytes()) else {
        return Err(RecordVariableError::Version);
    };
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks(2) {
        let [high, low] = pair else {
            return Err(RecordVariableError::Digits);
        };
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(RecordVariableError::Digits);
        };
        bytes.push((high << 4) | low);
    }
    let record = decode_record(&bytes)?;
    if encode_record(&record) != bytes {
        return Err(RecordError::Encoding.into());
    }
    Ok(record)
}

/// Why the variable with the boot record cannot be used.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordVariableError {
    /// Written by a later version, or by hand.
    #[error("it does not begin with \"{VERSION}\"")]
    Version,
    /// Changed by hand.
    #[error("it is not in hexadecimal")]
    Digits,
    /// The digits are right, the record is not.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A name cannot be used in a U-Boot environment.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VariableNameError {
    /// A name must have 1 to 64 printable ASCII characters, without blanks and `=`.
    #[error(
        "\"{0}\" is no name: 1 to {NAME_MAX} printable ASCII characters without blanks and '='"
    )]
    Name(String),
    /// The slot's place in the name is missing, or there are several.
    #[error("\"{0}\" must hold one '*' for the slot, as in \"BOOT_*_LEFT\"")]
    Pattern(String),
    /// Two slots would share their variable: name each of them, and each differently.
    #[error("`slot-names`: \"{0}\" names two slots; name every slot, each differently")]
    Twice(String),
    /// Two values would share their variable.
    #[error("`{first}` and `{second}` both name the variable {variable}; rename one")]
    Shared {
        /// The key of the configuration that names it.
        first: &'static str,
        /// The other key.
        second: &'static str,
        /// The variable.
        variable: String,
    },
}

fn variable(name: &str) -> Result<String, VariableNameError> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'=');
    if fits {
        Ok(name.to_owned())
    } else {
        Err(VariableNameError::Name(clip(name)))
    }
}

fn clip(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

const NAME_MAX: usize = 64;
const VERSION: &str = "1:";

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn told(record: &BootRecord) -> Vec<(String, String)> {
        let system = record.component("prot").unwrap();
        UBootVariables::default().loader_values(record, system)
    }

    #[test]
    fn the_loader_is_told_what_the_record_says() {
        let mut record = BootRecord::new(&[("prot", 2)]).unwrap();
        let check = |record: &BootRecord, order: &str, left: [&str; 2]| {
            let expected = [
                ("BOOT_ORDER", order),
                ("BOOT_A_LEFT", left[0]),
                ("BOOT_B_LEFT", left[1]),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(told(record), expected);
        };
        check(&record, "A", ["9", "0"]);
        record.withdraw("prot", SlotId::B).unwrap();
        check(&record, "A", ["9", "0"]);
        record.choose("prot", SlotId::B, 3).unwrap();
        check(&record, "B A", ["9", "3"]);
        let _: Vec<_> = record.start();
        check(&record, "B A", ["9", "2"]);
        let mut exhausted = record.clone();
        exhausted.exhaust();
        check(&exhausted, "A", ["9", "0"]);
        record.confirm().unwrap();
        check(&record, "B", ["0", "9"]);
    }

    #[test]
    fn a_single_slot_that_is_being_written_has_no_attempt() {
        let mut record = BootRecord::new(&[("prot", 1)]).unwrap();
        let check = |record: &BootRecord, left: &str| {
            let expected = [("BOOT_ORDER", "A"), ("BOOT_A_LEFT", left)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(told(record), expected);
        };
        check(&record, "9");
        record.withdraw("prot", SlotId::A).unwrap();
        check(&record, "0");
        record.choose("prot", SlotId::A, 1).unwrap();
        check(&record, "9");
    }

    #[test]
    fn every_text_that_is_no_record_is_refused() {
        let record = BootRecord::new(&[("prot", 2)]).unwrap();
        let text = write_record(&record);
        assert_eq!(read_record(text.as_bytes()), Ok(record));
        let cases = [
            ("", RecordVariableError::Version),
            ("2:00", RecordVariableError::Version),
            ("1:0", RecordVariableError::Digits),
            ("1:0g", RecordVariableError::Digits),
            ("1:", RecordError::Encoding.into()),
            (&alloc::format!("{text}00"), RecordError::Encoding.into()),
        ];
        for (text, expected) in cases {
            assert_eq!(read_record(text.as_bytes()), Err(expected), "{text}");
        }
    }

    #[test]
    fn names_that_two_slots_or_two_values_would_share_are_refused() {
        let default = UBootVariables::default;
        assert_eq!(default().check(26), Ok(()));
        let one = default().with_slots(&["B"]).unwrap();
        assert_eq!(one.check(1), Ok(()));
        assert_eq!(one.check(2), Err(VariableNameError::Twice("B".to_owned())));
        let some = default().with_slots(&["one", "two"]).unwrap();
        assert_eq!(some.check(3), Ok(()));
        let cases = [
            (default().with_record("BOOT_ORDER"), "order", "record"),
            (default().with_order("BOOT_B_LEFT"), "order", "left"),
            (default().with_record("BOOT_A_LEFT"), "record", "left"),
        ];
        for (variables, first, second) in cases {
            let error = variables.unwrap().check(2).unwrap_err();
            let VariableNameError::Shared {
                first: found,
                second: other,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((found, other), (first, second));
        }
        // Another slot's variable is free.
        let third = default().with_record("BOOT_C_LEFT").unwrap();
        assert_eq!(third.check(2), Ok(()));
    }

    #[test]
    fn names_that_the_environment_cannot_hold_are_refused() {
        let variables = UBootVariables::default;
        for name in ["", "a b", "a=b", "\u{e9}", &"x".repeat(65)] {
            assert!(variables().with_order(name).is_err(), "{name}");
            assert!(variables().with_record(name).is_err(), "{name}");
            assert!(variables().with_slots(&[name]).is_err(), "{name}");
        }
        for pattern in ["BOOT_LEFT", "*_*", "* x", ""] {
            assert!(variables().with_left(pattern).is_err(), "{pattern}");
        }
        assert_eq!(
            variables().with_slots(&["a", "a"]).unwrap_err().to_string(),
            "`slot-names`: \"a\" names two slots; name every slot, each differently"
        );
        let named = variables().with_left("tries_*").unwrap();
        let named = named.with_slots(&["system0", "system1"]).unwrap();
        assert_eq!(named.left_name(SlotId::B), "tries_system1");
    }
}
