//! Sizes on the command line and in tables.

use core::fmt;
use core::str::FromStr;

/// A number of bytes, written `256 MiB`, `1GiB` or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number_end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_end);
        let factor = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err("the unit must be B, KiB, MiB or GiB".to_owned()),
        };
        number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(factor))
            .filter(|bytes| ALLOWED.contains(bytes))
            .map(Self)
            .ok_or_else(|| "expected a size from 1 MiB to 64 GiB, as in \"256 MiB\"".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            bytes if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => (1 << 30, "GiB"),
            bytes if bytes >= 1 << 20 => (1 << 20, "MiB"),
            _ => (1 << 10, "KiB"),
        };
        let tenths = self.0.saturating_mul(10) / unit;
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(f, "{whole} {name}"),
            (whole, tenth) => write!(f, "{whole}.{tenth} {name}"),
        }
    }
}

/// Below, starting the programs is all that is measured; above, the medium and the patience end.
const ALLOWED: core::ops::RangeInclusive<u64> = 1 << 20..=64 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_binary_units() {
        for (text, bytes, printed) in [
            ("256 MiB", 256 << 20, "256 MiB"),
            ("256MiB", 256 << 20, "256 MiB"),
            ("1 GiB", 1 << 30, "1 GiB"),
            ("1536 KiB", 1536 << 10, "1.5 MiB"),
            ("1048576", 1 << 20, "1 MiB"),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), printed);
        }
    }

    #[test]
    fn refuses_what_is_no_size_or_makes_no_sense() {
        for text in [
            "",
            "MiB",
            "256 MB",
            "-1 MiB",
            "1 KiB",
            "65 GiB",
            "99999999999 GiB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
