use core::fmt::Write as _;

use crate::path::decode_hex;

/// What a device says of itself in the standard arguments of its query, ready to be logged: bounded, control characters escaped.
///
/// Everything else in a query is dropped: cameras put their password there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceFacts {
    pub(crate) ver: Option<String>,
    pub(crate) prot: Option<String>,
    pub(crate) boot: Option<String>,
    pub(crate) bmc: Option<String>,
    pub(crate) cfg: Option<String>,
    pub(crate) scfg: Option<String>,
    pub(crate) check: Option<String>,
    /// The dates and the backup index, as `name=value` with blanks between them.
    pub(crate) more: Option<String>,
}

impl DeviceFacts {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let mut facts = Self::default();
        for argument in query.unwrap_or_default().split('&').take(MAX_ARGUMENTS) {
            let Some((name, value)) = argument.split_once('=') else {
                continue;
            };
            let field = match name {
                "ver" => &mut facts.ver,
                "PROT" => &mut facts.prot,
                "BOOT" => &mut facts.boot,
                "BMC" => &mut facts.bmc,
                "CFG" => &mut facts.cfg,
                "SCFG" => &mut facts.scfg,
                "CHECK" => &mut facts.check,
                _ if MORE.contains(&name) => {
                    let more = facts.more.get_or_insert_default();
                    if !more.is_empty() {
                        more.push(' ');
                    }
                    let _ = write!(more, "{name}={}", printable(value));
                    continue;
                }
                _ => continue,
            };
            // The first one counts; a device sends each name once.
            field.get_or_insert_with(|| printable(value));
        }
        facts
    }
}

/// Decodes a value and escapes what could forge a line or drive a terminal.
fn printable(value: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = value.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match decode_hex(tail.first().copied(), tail.get(1).copied()) {
                Some(byte) => {
                    rest = &tail[2..];
                    byte
                }
                None => b'%',
            },
            byte => *byte,
        });
    }
    escaped(&decoded)
}

/// Prints bytes for the log: as UTF-8 where they are, control characters and the rest escaped, cut after 128 characters.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut left = MAX_LOGGED_CHARS;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if left == 0 {
                text.push('…');
                return text;
            }
            left -= 1;
            if character == '\\' || !is_plain(character) {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
            left = left.saturating_sub(1);
        }
    }
    text
}

/// Not a control character, and none that turns the direction of text or hides in it.
fn is_plain(character: char) -> bool {
    !(character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
}

const MORE: [&str; 8] = [
    "PROTdate",
    "BOOTdate",
    "BMCdate",
    "CFGdate",
    "SCFGdate",
    "CHECKdate",
    "CFG-BACKUP-NUM",
    "CFG-BACKUP-NUMdate",
];

/// A device sends fifteen; a query full of separators is not read to its end.
const MAX_ARGUMENTS: usize = 64;
const MAX_LOGGED_CHARS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_standard_arguments_and_drops_the_rest() {
        let facts = DeviceFacts::parse(Some(
            "mode=x&ver=7.00+dvl-sr1%20IP6000[07-60600.03]&PROT=8&PROTdate=20260101&PWD=secret&CFG-BACKUP-NUM=3&PROT=9",
        ));
        assert_eq!(
            facts,
            DeviceFacts {
                ver: Some("7.00 dvl-sr1 IP6000[07-60600.03]".to_owned()),
                prot: Some("8".to_owned()),
                more: Some("PROTdate=20260101 CFG-BACKUP-NUM=3".to_owned()),
                ..DeviceFacts::default()
            }
        );
    }

    #[test]
    fn escapes_what_could_forge_a_log_line() {
        for (raw, expected) in [
            ("a%0d%0ab", r"a\r\nb"),
            ("%1b[31m", r"\u{1b}[31m"),
            ("%e9t%C3%A9", "\\xe9té"),
            ("%E2%80%AEx", r"\u{202e}x"),
            ("100%&", "100%"),
            ("%zz", "%zz"),
        ] {
            let facts = DeviceFacts::parse(Some(&format!("ver={raw}")));
            assert_eq!(facts.ver.as_deref(), Some(expected), "{raw}");
        }
        let long = DeviceFacts::parse(Some(&format!("ver={}", "x".repeat(5000))))
            .ver
            .unwrap();
        assert_eq!(long.chars().count(), 129);
    }
}
