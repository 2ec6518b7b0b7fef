use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Where an environment lies, as `fw_env.config` says it, the file that `fw_printenv` and
/// `fw_setenv` read.
///
/// ```
/// use rekindle_flash::FwEnvConfig;
///
/// // Device, offset, size; then, if wanted, the erase size and the number of erase blocks.
/// let config = FwEnvConfig::parse("
///     /dev/mmcblk0   0x100000   0x4000
///     /dev/mmcblk0   0x110000   0x4000
/// ")?;
/// assert_eq!(config.size, 0x4000);
/// assert_eq!(config.places[1].offset, 0x110000);
/// # Ok::<(), rekindle_flash::FwEnvError>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FwEnvConfig {
    /// The copies, one or two.
    pub places: Vec<FwEnvPlace>,
    /// Bytes of each copy.
    pub size: usize,
}

/// One copy of an environment.
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FwEnvPlace {
    /// The file or device.
    pub device: String,
    /// Where the copy begins, in bytes; below zero from the end of the device.
    pub offset: i64,
}

impl FwEnvConfig {
    /// Reads the text of the file: a line for each copy, numbers as in C, `#` begins a comment. The
    /// sizes of erase blocks are not needed, the device knows them.
    ///
    /// # Errors
    ///
    /// A line cannot be read, there are no copies or more than two, or they have different sizes.
    pub fn parse(text: &str) -> Result<Self, FwEnvError> {
        let mut places = Vec::new();
        let mut sizes = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (device, offset, size) = match words[..] {
                [] => continue,
                [device, offset, size, ..] if words.len() <= 5 => (device, offset, size),
                _ => return Err(FwEnvError::Line { line: index + 1 }),
            };
            let offset = number(offset);
            let size = number(size).and_then(|size| usize::try_from(size).ok());
            let extra = words.iter().skip(3).all(|word| number(word).is_some());
            let (Some(offset), Some(size), true) = (offset, size, extra) else {
                return Err(FwEnvError::Line { line: index + 1 });
            };
            places.push(FwEnvPlace {
                device: device.to_owned(),
                offset,
            });
            sizes.push(size);
        }
        let size = match sizes[..] {
            [size] => size,
            [first, second] if first == second => first,
            [first, second] => return Err(FwEnvError::Sizes { first, second }),
            _ => {
                return Err(FwEnvError::Copies {
                    count: places.len(),
                });
            }
        };
        Ok(Self { places, size })
    }
}

/// A number as in C: decimal, octal behind `0`, hexadecimal behind `0x`.
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let value = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) => i64::from_str_radix(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => i64::from_str_radix(digits, 8),
        (None, _) => lower.parse(),
    };
    let value = value
        .ok()
        .filter(|_| lower.starts_with(|first: char| first.is_ascii_digit()))?;
    Some(if negative { -value } else { value })
}

/// Why the text of a `fw_env.config` cannot be used.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FwEnvError {
    /// A line does not hold a device, an offset and a size, and at most two more numbers. (A file in
    /// YAML is not read: name the places in the configuration instead.)
    #[error("line {line} must hold a device, an offset and a size")]
    Line {
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment has one or two copies.
    #[error("{count} copies of the environment: there are one or two")]
    Copies {
        /// How many lines there are.
        count: usize,
    },
    /// Both copies have the same size.
    #[error("copies of {first} and {second} bytes: both have the same size")]
    Sizes {
        /// The first one's.
        first: usize,
        /// The second one's.
        second: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_tools_of_u_boot_read_them() {
        let text =
            "# comment\n\n/dev/mtd1 0x0000 0x4000 0x10000 2 # here\n\t/dev/mtd2\t-010\t16384\n";
        let config = FwEnvConfig::parse(text).unwrap();
        let place = |device: &str, offset| FwEnvPlace {
            device: device.to_owned(),
            offset,
        };
        assert_eq!(
            config.places,
            [place("/dev/mtd1", 0), place("/dev/mtd2", -8)]
        );
        assert_eq!(config.size, 0x4000);
    }

    #[test]
    fn every_mistake_names_its_line() {
        let cases = [
            ("", FwEnvError::Copies { count: 0 }),
            ("a 0 1\na 0 1\na 0 1", FwEnvError::Copies { count: 3 }),
            (
                "a 0 1\nb 0 2",
                FwEnvError::Sizes {
                    first: 1,
                    second: 2,
                },
            ),
            ("a 0", FwEnvError::Line { line: 1 }),
            ("\na 0 1 2 3 4", FwEnvError::Line { line: 2 }),
            ("a 0 -1", FwEnvError::Line { line: 1 }),
            ("a 0x 1", FwEnvError::Line { line: 1 }),
            ("a +1 1", FwEnvError::Line { line: 1 }),
            ("a 0 1 x", FwEnvError::Line { line: 1 }),
            ("uboot:\n", FwEnvError::Line { line: 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(FwEnvConfig::parse(text), Err(expected), "{text:?}");
        }
    }
}
