use core::{fmt, iter};

/// Bytes of a script that were not interpreted.
///
/// Scripts need not be UTF-8 (ISO-8859-1 is seen in the field), so text is bytes and stays bytes: nothing is decoded
/// except for display. A text never holds a line feed and never begins or ends with a blank.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Takes bytes that hold no line feed; anything else is `None`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.contains(&b'\n')).then_some(Self(bytes))
    }

    /// Takes one token: not empty, no blank and no line feed within.
    #[must_use]
    pub fn token(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.is_empty() && !bytes.iter().any(|&byte| is_blank(byte) || byte == b'\n'))
            .then_some(Self(bytes))
    }

    /// The bytes as they stand in the script.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text as a string, if it is UTF-8.
    #[must_use]
    pub fn to_str(self) -> Option<&'a str> {
        core::str::from_utf8(self.0).ok()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// For bytes that the grammar has already bounded.
    pub(crate) const fn from_line(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Lossy: what is not UTF-8 shows as U+FFFD, control characters are escaped (a script from the network must not drive
/// the terminal that shows it).
impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossy(f, self.0)
    }
}

/// The arguments of a `config` line: tokens, separated by any number of blanks.
///
/// Equality compares the tokens, not the blanks between them.
#[derive(Clone, Copy, Default)]
pub struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    /// Takes a run of tokens; `None` if it holds a line feed.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.contains(&b'\n')).then_some(Self(bytes))
    }

    /// Whether there is no token in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.tokens().next().is_none()
    }

    /// The tokens, one by one.
    pub fn tokens(self) -> impl Iterator<Item = Text<'a>> {
        self.0
            .split(|&byte| is_blank(byte))
            .filter(|token| !token.is_empty())
            .map(Text)
    }

    /// The tokens read as options: `/name value`, `/name` alone where the next token is an option again, and words
    /// that follow no option.
    ///
    /// Values are as written: in `config` lines they are percent-encoded, and the reader decodes them.
    pub fn options(self) -> impl Iterator<Item = Arg<'a>> {
        let mut tokens = self.tokens().peekable();
        iter::from_fn(move || {
            let token = tokens.next()?;
            let Some(name) = token.0.strip_prefix(b"/") else {
                return Some(Arg::Word(token));
            };
            let value = tokens.next_if(|next| !next.0.starts_with(b"/"));
            Some(Arg::Option {
                name: Text(name),
                value,
            })
        })
    }

    pub(crate) const fn from_line(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tokens()).finish()
    }
}

impl Eq for Args<'_> {}

impl PartialEq for Args<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.tokens().eq(other.tokens())
    }
}

/// One argument of a `config` line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "integrators match the whole AST; a new form is a breaking change on purpose"
)]
pub enum Arg<'a> {
    /// `/name value` or `/name`.
    Option {
        /// The name without its slash.
        name: Text<'a>,
        /// The value, percent-encoded; `None` where the next token is an option or the line ends.
        value: Option<Text<'a>>,
    },
    /// A token that belongs to no option, such as the sub-module of `config change PHONE SIG`.
    Word(Text<'a>),
}

/// Blanks separate tokens. A carriage return is one: CRLF and LF lines may be mixed in one script.
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

pub(crate) fn write_lossy(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    use fmt::Write as _;

    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if !chunk.invalid().is_empty() {
            f.write_char(char::REPLACEMENT_CHARACTER)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString as _, vec::Vec};

    use super::*;

    fn text(text: &str) -> Text<'_> {
        Text::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn text_takes_no_line_feed_and_a_token_no_blank() {
        assert_eq!(Text::new(b"a\nb"), None);
        for refused in ["", "a b", "a\rb", "\n"] {
            assert_eq!(Text::token(refused.as_bytes()), None, "{refused:?}");
        }
        assert_eq!(text("a b").as_bytes(), b"a b");
        assert_eq!(text("").to_str(), Some(""));
    }

    #[test]
    fn display_is_lossy_and_escapes_control_characters() {
        let shown = Text::new(b"B\xfcro \x1b[2J \xc3\xa4").unwrap().to_string();
        assert_eq!(shown, "B\u{fffd}ro \\u{1b}[2J \u{e4}");
    }

    #[test]
    fn options_have_a_value_unless_the_next_token_is_an_option() {
        let args = Args::new(b"SIG /prot SIP  /gk-addr /alt-gk\t/poll 15 x").unwrap();
        let option = |name, value: Option<&'static str>| Arg::Option {
            name: text(name),
            value: value.map(text),
        };
        assert_eq!(
            args.options().collect::<Vec<_>>(),
            [
                Arg::Word(text("SIG")),
                option("prot", Some("SIP")),
                option("gk-addr", None),
                option("alt-gk", None),
                option("poll", Some("15")),
                Arg::Word(text("x")),
            ]
        );
    }

    #[test]
    fn args_are_equal_whatever_blanks_lie_between() {
        let args = |text: &'static str| Args::new(text.as_bytes()).unwrap();
        assert_eq!(args("/a  1 "), args(" /a\t1"));
        assert_ne!(args("/a 1"), args("/a 1 2"));
        assert!(args("  ").is_empty());
    }
}
