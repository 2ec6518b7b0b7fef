use alloc::vec;
use alloc::vec::Vec;

/// The variables of an environment, as the bytes that they are stored in: `name=value`, in their
/// order. What nobody asks for stays as it was, byte by byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Environment {
    entries: Vec<Vec<u8>>,
}

impl Environment {
    /// Reads the part of a copy behind its header, whose checksum is right.
    ///
    /// The list ends with an empty entry; what follows is padding.
    fn decode(data: &[u8]) -> Result<Self, EnvironmentDamage> {
        let mut entries = Vec::new();
        let mut rest = data;
        loop {
            let Some(len) = rest.iter().position(|byte| *byte == 0) else {
                return Err(EnvironmentDamage::Unterminated);
            };
            let (entry, behind) = rest.split_at(len);
            if entry.is_empty() {
                return Ok(Self { entries });
            }
            entries.push(entry.to_vec());
            rest = &behind[1..];
        }
    }

    /// The value of a variable; of several, the last one, as for U-Boot.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        self.entries
            .iter()
            .rev()
            .find_map(|entry| value_of(entry, name))
    }

    /// Sets a variable in its place, or behind the others. Neither part contains a zero byte.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
        match self
            .entries
            .iter_mut()
            .rev()
            .find(|known| value_of(known, name).is_some())
        {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
    }

    /// The bytes that the variables take up, the end of the list included.
    pub(super) fn len(&self) -> usize {
        self.entries
            .iter()
            .map(|entry| entry.len() + 1)
            .sum::<usize>()
            + 1
    }
}

fn value_of<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// One copy of an environment as its bytes.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 4 | CRC-32 over the data, in the byte order of the processor |
/// | 4 | 1 | flag; only where there are two copies |
/// | 4 or 5 | | the data: `name=value` and a zero byte each, then a zero byte, then padding |
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct EnvironmentCopy {
    /// Says which of two copies counts; `None`: there is only one.
    pub(super) flag: Option<u8>,
    pub(super) environment: Environment,
}

impl EnvironmentCopy {
    /// Reads the bytes of a copy.
    pub(super) fn decode(bytes: &[u8], redundant: bool) -> Result<Self, EnvironmentDamage> {
        let Some((crc, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(EnvironmentDamage::Unterminated);
        };
        let (flag, data) = match (redundant, rest.split_first()) {
            (true, Some((flag, data))) => (Some(*flag), data),
            (true, None) => return Err(EnvironmentDamage::Unterminated),
            (false, _) => (None, rest),
        };
        if u32::from_ne_bytes(*crc) != crc32fast::hash(data) {
            return Err(if bytes.iter().all(|byte| *byte == 0xff) {
                EnvironmentDamage::Erased
            } else {
                EnvironmentDamage::Checksum
            });
        }
        Ok(Self {
            flag,
            environment: Environment::decode(data)?,
        })
    }

    /// Writes the copy into `size` bytes; `None`: the variables do not fit.
    pub(super) fn encode(&self, size: usize) -> Option<Vec<u8>> {
        let header = header_len(self.flag.is_some());
        let mut data = vec![0; size.checked_sub(header)?];
        let mut at = 0;
        for entry in &self.environment.entries {
            let end = at + entry.len();
            data.get_mut(at..end)?.copy_from_slice(entry);
            at = end + 1;
        }
        // The last entry's end and the list's.
        if self.environment.len() > data.len() {
            return None;
        }
        let mut bytes = crc32fast::hash(&data).to_ne_bytes().to_vec();
        bytes.extend(self.flag);
        bytes.append(&mut data);
        Some(bytes)
    }
}

/// How many bytes stand before the data.
pub(super) const fn header_len(redundant: bool) -> usize {
    if redundant { 5 } else { 4 }
}

/// Why a copy of a U-Boot environment cannot be used.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EnvironmentDamage {
    /// All bytes are erased: never written.
    #[error("erased")]
    Erased,
    /// Damaged, of another size or place than configured, or a power cut interrupted its writing.
    #[error("wrong checksum")]
    Checksum,
    /// Two readings differ: a power cut interrupted its writing.
    #[error("reads differently from one time to the next")]
    Unsettled,
    /// The medium cannot read it.
    #[error("cannot be read")]
    Unreadable,
    /// The checksum is right, and the list of variables does not end.
    #[error("a list of variables without an end")]
    Unterminated,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(data: &[u8]) -> Environment {
        Environment::decode(data).unwrap()
    }

    #[test]
    fn a_variable_is_replaced_in_its_place_and_the_others_stay_byte_by_byte() {
        let mut environment = decoded(b"a=1\0odd\0b=\xff=2\0a=3\0\0junk");
        assert_eq!(environment.value("a"), Some(&b"3"[..]));
        assert_eq!(environment.value("b"), Some(&b"\xff=2"[..]));
        assert_eq!(environment.value("odd"), None);
        environment.set("a", "4");
        environment.set("new", "");
        assert_eq!(environment, decoded(b"a=1\0odd\0b=\xff=2\0a=4\0new=\0\0"));
    }

    #[test]
    fn what_fits_exactly_is_written_and_one_byte_more_is_not() {
        for flag in [None, Some(7)] {
            let copy = EnvironmentCopy {
                flag,
                environment: decoded(b"a=1\0b=2\0\0"),
            };
            let exact = header_len(flag.is_some()) + 9;
            let bytes = copy.encode(exact).unwrap();
            assert_eq!(
                EnvironmentCopy::decode(&bytes, flag.is_some()),
                Ok(copy.clone())
            );
            for short in 0..exact {
                assert_eq!(copy.encode(short), None, "{short}");
            }
        }
    }

    #[test]
    fn every_damage_has_its_name() {
        let copy = EnvironmentCopy {
            flag: None,
            environment: decoded(b"a=1\0\0"),
        };
        let mut bytes = copy.encode(16).unwrap();
        bytes[5] ^= 1;
        assert_eq!(
            EnvironmentCopy::decode(&bytes, false),
            Err(EnvironmentDamage::Checksum)
        );
        assert_eq!(
            EnvironmentCopy::decode(&[0xff; 16], true),
            Err(EnvironmentDamage::Erased)
        );
        let mut endless = crc32fast::hash(b"a=1").to_ne_bytes().to_vec();
        endless.extend(b"a=1");
        assert_eq!(
            EnvironmentCopy::decode(&endless, false),
            Err(EnvironmentDamage::Unterminated)
        );
        assert_eq!(
            EnvironmentCopy::decode(&[0; 4], true),
            Err(EnvironmentDamage::Unterminated)
        );
    }
}
