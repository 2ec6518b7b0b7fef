use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{Zeroize, Zeroizing};

/// The 8 bytes by which an image names a signer: the start of the BLAKE3 hash of the public key.
///
/// Whoever grinds may make two keys with the same id; every key of that id is tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    pub(crate) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The 8 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// An Ed25519 key that an image may be signed with.
///
/// As text it is one line: `rekindle-ed25519-public`, 64 hex digits, and whatever comment follows.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes the 32 bytes of a key.
    ///
    /// # Errors
    ///
    /// When the bytes are no point of the curve, or one of the few under which anybody can sign.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            Ok(_) | Err(_) => Err(KeyError::NotAKey),
        }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The name of the key in a signature.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = *blake3::hash(self.as_bytes()).as_bytes();
        KeyId([b0, b1, b2, b3, b4, b5, b6, b7])
    }

    /// Reads a key file: one key a line; blank lines and lines that start with `#` are passed over.
    ///
    /// # Errors
    ///
    /// When a line is no public key, or there is none at all.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, KeyFileError> {
        let keys = key_lines(text)
            .map(|(line, key)| {
                key.parse()
                    .map_err(|error| KeyFileError::Line { line, error })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(KeyFileError::Empty);
        }
        Ok(keys)
    }

    pub(crate) fn is_signer_of(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC} ")?;
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&*key_bytes(line, PUBLIC, SECRET)?)
    }
}

/// The secret half of a key. Its memory is wiped when it is dropped, and it prints no more than its id.
///
/// As text it is one line: `rekindle-ed25519-secret`, 64 hex digits, and whatever comment follows.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes a key of 32 random bytes from the caller's best source.
    #[must_use]
    pub fn from_random(random: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(random))
    }

    /// The half that devices get.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The name of the key in a signature.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.public().key_id()
    }

    /// The line for a key file, wiped when dropped. Named, not `Display`, so that no secret is printed by accident.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it at once: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(SECRET.len() + 1 + 64));
        text.push_str(SECRET);
        text.push(' ');
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        for byte in self.0.as_bytes() {
            text.extend([digit(byte >> 4), digit(byte & 0xf)]);
        }
        text
    }

    /// Reads a key file, which holds exactly one secret key; blank lines and lines that start with `#` are passed over.
    ///
    /// # Errors
    ///
    /// When a line is no secret key, or there is none or more than one.
    pub fn parse_file(text: &str) -> Result<Self, KeyFileError> {
        let mut lines = key_lines(text);
        let (line, key) = lines.next().ok_or(KeyFileError::Empty)?;
        if let Some((line, _)) = lines.next() {
            return Err(KeyFileError::SecondSecret { line });
        }
        key.parse()
            .map_err(|error| KeyFileError::Line { line, error })
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.key_id())
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        Ok(Self::from_random(&*key_bytes(line, SECRET, PUBLIC)?))
    }
}

/// Why a line is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The line starts with neither word for a key.
    #[error("expected a line that starts with \"{PUBLIC}\" or \"{SECRET}\"")]
    Unknown,
    /// A secret key where a public one belongs.
    #[error("this is a secret key; a public one is expected here (its file ends in .pub)")]
    Secret,
    /// A public key where a secret one belongs.
    #[error("this is a public key; the secret one is expected here")]
    Public,
    /// Not 64 hex digits.
    #[error("expected 64 hex digits after the kind of key")]
    Digits,
    /// 32 bytes that are no key, or a key under which anybody can sign.
    #[error("the 64 hex digits are no usable Ed25519 key")]
    NotAKey,
}

/// Why a text is no key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// No line holds a key.
    #[error("no key in the file")]
    Empty,
    /// A line is no key of the kind wanted.
    #[error("line {line}: {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A file with more than one secret key: it would not be clear which one signs.
    #[error("line {line}: a second secret key; a file holds one")]
    SecondSecret {
        /// Counted from 1.
        line: usize,
    },
}

fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .map(str::trim)
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn key_bytes(line: &str, wanted: &str, other: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    if kind == other {
        return Err(if other == SECRET {
            KeyError::Secret
        } else {
            KeyError::Public
        });
    }
    if kind != wanted {
        return Err(KeyError::Unknown);
    }
    let digits = words.next().ok_or(KeyError::Digits)?;
    let mut bytes = [0; 32];
    let decoded = hex::decode_to_slice(digits, &mut bytes);
    let key = Zeroizing::new(bytes);
    bytes.zeroize();
    match decoded {
        Ok(()) => Ok(key),
        Err(_) => Err(KeyError::Digits),
    }
}

const PUBLIC: &str = "rekindle-ed25519-public";
const SECRET: &str = "rekindle-ed25519-secret";

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_random(&[7; 32])
    }

    #[test]
    fn keys_survive_a_round_trip_as_text() {
        let secret = secret();
        let text = format!("# made for a test\n\n{} ci\n", &*secret.to_text());
        assert_eq!(
            SecretKey::parse_file(&text).map(|key| key.public()),
            Ok(secret.public())
        );
        let public = format!("{} one\n{}\n", secret.public(), secret.public());
        assert_eq!(
            PublicKey::parse_file(&public),
            Ok(Vec::from([secret.public(), secret.public()]))
        );
    }

    #[test]
    fn key_files_are_refused_with_their_line() {
        let (secret, public) = (secret().to_text(), secret().public().to_string());
        let line = |line, error| Err(KeyFileError::Line { line, error });
        for (text, result) in [
            ("", Err(KeyFileError::Empty)),
            ("# nothing\n", Err(KeyFileError::Empty)),
            (&*secret, line(1, KeyError::Secret)),
            ("#\nssh-ed25519 AAAA", line(2, KeyError::Unknown)),
            ("rekindle-ed25519-public", line(1, KeyError::Digits)),
            ("rekindle-ed25519-public 12ab", line(1, KeyError::Digits)),
            (
                &format!("rekindle-ed25519-public {}", "00".repeat(32)),
                line(1, KeyError::NotAKey),
            ),
        ] {
            assert_eq!(PublicKey::parse_file(text), result, "{text}");
        }
        let refused = |text: &str| SecretKey::parse_file(text).map(|_| ()).unwrap_err();
        assert_eq!(
            refused(&public),
            KeyFileError::Line {
                line: 1,
                error: KeyError::Public
            }
        );
        assert_eq!(
            refused(&format!("{}\n{}", &*secret, &*secret)),
            KeyFileError::SecondSecret { line: 2 }
        );
    }

    #[test]
    fn a_secret_key_prints_only_its_id() {
        let printed = format!("{:?}", secret());
        assert_eq!(printed, format!("SecretKey({})", secret().key_id()));
    }
}
