//! Numbers with units, as people write them.

use core::time::Duration;

/// Reads a size as the configuration has it: `256 MiB`, `4096`, `1KiB`. `None`: it is none.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    size(text)
}

/// `256 MiB`, `4096`, `1 KiB`: bytes with a binary unit.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A size, or a number as U-Boot writes it, `0x100000`.
pub(super) fn offset(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => size(text),
    }
}

/// `500 ms`, `2 s`, `15 min`, `1 h`, `7 days`: never nothing.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "day" | "days" => 24 * 3_600_000,
        _ => return None,
    };
    let millis = number.checked_mul(factor)?;
    (millis > 0 && millis <= LONGEST_MS).then(|| Duration::from_millis(millis))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// A year; keeps sums of times far from overflow.
const LONGEST_MS: u64 = 365 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_with_binary_units_only() {
        let cases = [
            ("256 MiB", Some(256 << 20)),
            ("4096", Some(4096)),
            ("1KiB", Some(1024)),
            ("2 GiB", Some(2 << 30)),
            ("7 B", Some(7)),
            ("256 MB", None),
            ("MiB", None),
            ("-1 KiB", None),
            ("1.5 MiB", None),
            ("99999999999 GiB", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn reads_durations_that_are_neither_zero_nor_endless() {
        let cases = [
            ("500 ms", Some(Duration::from_millis(500))),
            ("2 s", Some(Duration::from_secs(2))),
            ("15 min", Some(Duration::from_secs(900))),
            ("7 days", Some(Duration::from_secs(604_800))),
            ("366 days", None),
            ("1 h", Some(Duration::from_secs(3600))),
            ("0 s", None),
            ("2", None),
            ("9000 h", None),
            ("18446744073709551615 h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text:?}");
        }
    }
}
