use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use thiserror::Error;

/// The path of a request, decoded once and checked: at least one name, and no name that could mean another folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SitePath {
    names: Vec<OsString>,
}

impl SitePath {
    /// Decodes the path of a request target. Names are bytes, as on the disk.
    pub(crate) fn parse(path: &str) -> Result<Self, BadPath> {
        let Some(path) = path.strip_prefix('/') else {
            return Err(BadPath::NotAbsolute);
        };
        if path.len() > MAX_PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        if path.is_empty() || path.ends_with('/') {
            return Err(BadPath::Folder);
        }
        let mut names = Vec::new();
        // Two slashes in a row are one: a URL that ends in "/" meets a name that begins with it.
        for name in path.split('/').filter(|name| !name.is_empty()) {
            names.push(OsString::from_vec(decode_name(name)?));
        }
        if names.len() > MAX_DEPTH {
            return Err(BadPath::TooLong);
        }
        Ok(Self { names })
    }

    /// Returns the folders on the way, and the last name.
    pub(crate) fn split(&self) -> (&[OsString], &OsStr) {
        let (last, folders) = self
            .names
            .split_last()
            .expect("a path has at least one name");
        (folders, last)
    }

    /// Tells whether the path lies below a folder, without regard to letter case.
    pub(crate) fn is_below(&self, folder: &Self) -> bool {
        self.names.len() > folder.names.len()
            && self
                .names
                .iter()
                .zip(&folder.names)
                .all(|(a, b)| a.as_bytes().eq_ignore_ascii_case(b.as_bytes()))
    }

    pub(crate) fn names(&self) -> &[OsString] {
        &self.names
    }
}

/// Why the path of a request names nothing that this server could ever have. Prints what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BadPath {
    #[error("the path must begin with a slash")]
    NotAbsolute,
    #[error("the path is too long")]
    TooLong,
    #[error("a \"%\" must be followed by two hexadecimal digits")]
    BadEncoding,
    #[error("a name must not be \".\" or \"..\"")]
    DotName,
    #[error("a name must not hold a slash, a backslash or a control character")]
    BadCharacter,
    #[error("names that begin with a dot are not used here")]
    Hidden,
    #[error("this names a folder: name a file in it, folders are not listed")]
    Folder,
}

fn decode_name(name: &str) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => decode_hex(bytes.next(), bytes.next()).ok_or(BadPath::BadEncoding)?,
            byte => byte,
        };
        if matches!(byte, b'/' | b'\\') || byte.is_ascii_control() {
            return Err(BadPath::BadCharacter);
        }
        decoded.push(byte);
    }
    match decoded.as_slice() {
        b"." | b".." => Err(BadPath::DotName),
        [b'.', ..] => Err(BadPath::Hidden),
        long if long.len() > MAX_NAME_BYTES => Err(BadPath::TooLong),
        _ => Ok(decoded),
    }
}

pub(crate) fn decode_hex(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high?)? << 4 | digit(low?)?)
}

/// Longer than any path that a maintenance script could name.
const MAX_PATH_BYTES: usize = 2048;
const MAX_DEPTH: usize = 16;
/// What Linux file systems take as a name.
const MAX_NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Result<Vec<String>, BadPath> {
        let path = SitePath::parse(path)?;
        Ok(path
            .names
            .iter()
            .map(|name| name.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn decodes_each_name_exactly_once() {
        for (path, expected) in [
            ("/a.bin", vec!["a.bin"]),
            ("//scripts//update.htm", vec!["scripts", "update.htm"]),
            ("/backups/00-90%2d33.TXT", vec!["backups", "00-90-33.TXT"]),
            ("/%252e%252e/x", vec!["%2e%2e", "x"]),
            ("/a..b/c..%20d", vec!["a..b", "c.. d"]),
        ] {
            assert_eq!(names(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn refuses_every_spelling_of_another_folder() {
        for (path, expected) in [
            ("/../etc/passwd", BadPath::DotName),
            ("/a/../../b", BadPath::DotName),
            ("/a/./b", BadPath::DotName),
            ("/%2e%2e/b", BadPath::DotName),
            ("/.%2E/b", BadPath::DotName),
            ("/a%2fb", BadPath::BadCharacter),
            ("/..%2f..%2fetc", BadPath::BadCharacter),
            ("/a%5cb", BadPath::BadCharacter),
            ("/..\\..\\b", BadPath::BadCharacter),
            ("/a%00.htm", BadPath::BadCharacter),
            ("/a%0d%0a", BadPath::BadCharacter),
            ("/a%zz", BadPath::BadEncoding),
            ("/a%2", BadPath::BadEncoding),
            ("/.ssh/id", BadPath::Hidden),
            ("/%2essh", BadPath::Hidden),
            ("/", BadPath::Folder),
            ("/scripts/", BadPath::Folder),
            ("*", BadPath::NotAbsolute),
        ] {
            assert_eq!(names(path), Err(expected), "{path}");
        }
        assert_eq!(
            names(&format!("/{}", "a".repeat(256))),
            Err(BadPath::TooLong)
        );
        assert_eq!(names(&"/a".repeat(17)), Err(BadPath::TooLong));
        assert_eq!(names(&"/a".repeat(2000)), Err(BadPath::TooLong));
    }

    #[test]
    fn is_below_ignores_letter_case_and_excludes_the_folder_itself() {
        let folder = SitePath::parse("/Backups").unwrap();
        assert!(SitePath::parse("/BACKUPS/a").unwrap().is_below(&folder));
        assert!(!SitePath::parse("/backups").unwrap().is_below(&folder));
        assert!(!SitePath::parse("/backups2/a").unwrap().is_below(&folder));
    }
}
