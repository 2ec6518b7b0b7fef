use nom::{
    IResult, Parser as _,
    bytes::complete::{take, take_while},
    error::ErrorKind,
};

use crate::{
    ast::{Final, Reset},
    error::{After, Argument, Excerpt, Found, Keyword, ParseErrorKind},
    text::{Text, is_blank},
};

pub(super) type Parsed<'a, T> = IResult<&'a [u8], T, Failure<'a>>;

/// What is wrong and from where on; small, since every production returns it.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    rest: &'a [u8],
    fault: Fault,
}

/// A rule that the token at the place of the failure breaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Expected(Argument, After),
    NoHost(After),
    NotAnHour,
    TooLarge(Argument, After),
    Repeated(Keyword),
    Unexpected(After),
}

impl<'a> Failure<'a> {
    /// A failure that is never shown: the line is no known command.
    pub(super) const fn none(rest: &'a [u8]) -> Self {
        Self {
            rest,
            fault: Fault::Unexpected(After::Keyword(Keyword::Cmd)),
        }
    }

    /// From the fault to the end of the line.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes at fault; empty at the end of the line.
    pub(super) fn token(&self) -> &'a [u8] {
        let is_end = |&byte: &u8| match self.fault {
            Fault::NotAnHour => is_blank(byte) || byte == b',',
            _ => is_blank(byte),
        };
        let len = self.rest.iter().position(is_end);
        // An hour that is not there: its comma stands for it.
        let len = len.unwrap_or(self.rest.len()).max(1);
        self.rest.get(..len).unwrap_or_default()
    }

    /// The error to report, where `found` is the token at fault.
    pub(super) fn kind(&self, found: &[u8]) -> ParseErrorKind {
        let excerpt = Excerpt::new(found);
        match self.fault {
            Fault::Expected(argument, after) => ParseErrorKind::Expected {
                argument,
                after,
                found: if found.is_empty() {
                    Found::EndOfLine
                } else {
                    Found::Token(excerpt)
                },
            },
            Fault::NoHost(after) => ParseErrorKind::UrlWithoutHost {
                after,
                found: excerpt,
            },
            Fault::NotAnHour => ParseErrorKind::NotAnHour { found: excerpt },
            Fault::TooLarge(argument, after) => ParseErrorKind::NumberTooLarge {
                argument,
                after,
                found: excerpt,
            },
            Fault::Repeated(option) => ParseErrorKind::RepeatedOption { option },
            Fault::Unexpected(after) => ParseErrorKind::Unexpected {
                after,
                found: excerpt,
            },
        }
    }
}

impl<'a> nom::error::ParseError<&'a [u8]> for Failure<'a> {
    fn from_error_kind(input: &'a [u8], _: ErrorKind) -> Self {
        Self::none(input)
    }

    fn append(_: &'a [u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// token = 1*byte ; no blanks
#[inline]
pub(super) fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    match token_len(input) {
        0 => Err(nom::Err::Error(Failure::none(input))),
        len => take(len).parse(input),
    }
}

/// Where the first blank is, eight bytes at a step: most of the time of a parse goes into this.
#[inline]
fn token_len(input: &[u8]) -> usize {
    let (steps, _) = input.as_chunks::<8>();
    let mut len = 0_usize;
    for step in steps {
        // A byte below 0x21 sets its high bit. The first that is set is right, those above it may be borrowed.
        let word = u64::from_le_bytes(*step);
        let low = word.wrapping_sub(0x2121_2121_2121_2121) & !word & 0x8080_8080_8080_8080;
        if low != 0 {
            let skipped = usize::try_from(low.trailing_zeros() / 8).unwrap_or(0);
            let rest = step.get(skipped..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|&byte| is_blank(byte)) {
                return len.saturating_add(skipped).saturating_add(at);
            }
        }
        len = len.saturating_add(8);
    }
    let tail = input.get(len..).unwrap_or_default();
    let at = tail.iter().position(|&byte| is_blank(byte));
    len.saturating_add(at.unwrap_or(tail.len()))
}

/// *WSP
#[inline]
pub(super) fn blanks(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(is_blank).parse(input)
}

/// SP token, of which `fit` makes a value: anything else is a failure at the token.
#[inline]
pub(super) fn required<'a, T>(
    fit: impl Fn(&'a [u8], After) -> Result<T, Fault>,
    after: After,
) -> impl Fn(&'a [u8]) -> Parsed<'a, T> {
    move |input| {
        let (input, _) = blanks(input)?;
        let (rest, token) = take(token_len(input)).parse(input)?;
        let value = fit(token, after).map_err(|fault| fail(input, fault))?;
        Ok((rest, value))
    }
}

/// SP text ; the rest of the line
pub(super) fn remainder(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (rest, _) = blanks(input)?;
    Ok((&[], rest))
}

/// Nothing but the end of the line.
pub(super) fn end<'a>(after: After) -> impl Fn(&'a [u8]) -> Parsed<'a, ()> {
    move |input| {
        let (input, _) = blanks(input)?;
        if input.is_empty() {
            Ok((input, ()))
        } else {
            Err(fail(input, Fault::Unexpected(after)))
        }
    }
}

pub(super) const fn fail(rest: &[u8], fault: Fault) -> nom::Err<Failure<'_>> {
    nom::Err::Failure(Failure { rest, fault })
}

/// The fit of any token.
pub(super) fn any<'a>(argument: Argument) -> impl Fn(&'a [u8], After) -> Result<Text<'a>, Fault> {
    move |token, after| {
        if token.is_empty() {
            Err(Fault::Expected(argument, after))
        } else {
            Ok(Text::from_line(token))
        }
    }
}

/// url = ( "http" / "https" ) "://" 1*byte ; the host is not empty
pub(super) fn url(token: &[u8], after: After) -> Result<Text<'_>, Fault> {
    let scheme_len = if starts_with(token, b"http://") {
        7
    } else if starts_with(token, b"https://") {
        8
    } else {
        return Err(Fault::Expected(Argument::Url, after));
    };
    match token.get(scheme_len) {
        None | Some(b'/' | b'?' | b'#') => Err(Fault::NoHost(after)),
        Some(_) => Ok(Text::from_line(token)),
    }
}

/// number = 1*DIGIT ; fits 32 bits
pub(super) fn number(argument: Argument) -> impl Fn(&[u8], After) -> Result<u32, Fault> {
    move |token, after| match decimal(token) {
        Decimal::Value(number) => Ok(number),
        Decimal::TooLarge => Err(Fault::TooLarge(argument, after)),
        Decimal::NoNumber => Err(Fault::Expected(argument, after)),
    }
}

pub(super) enum Decimal {
    Value(u32),
    TooLarge,
    NoNumber,
}

/// 1*DIGIT
pub(super) fn decimal(token: &[u8]) -> Decimal {
    if token.is_empty() || !token.iter().all(u8::is_ascii_digit) {
        return Decimal::NoNumber;
    }
    token
        .iter()
        .try_fold(0_u32, |value, digit| {
            value
                .checked_mul(10)?
                .checked_add(u32::from(digit.wrapping_sub(b'0')))
        })
        .map_or(Decimal::TooLarge, Decimal::Value)
}

/// final = reset / token ; an unknown token does nothing
pub(super) fn final_command(token: &[u8], after: After) -> Result<Final<'_>, Fault> {
    match reset(token) {
        Some(reset) => Ok(Final::Reset(reset)),
        None => any(Argument::FinalCommand)(token, after).map(Final::Nothing),
    }
}

/// reset = "reset" / "ireset" / "resetn" / "iresetn" / "reboot" / "ireboot"
pub(super) fn reset(token: &[u8]) -> Option<Reset> {
    let is = |word: &[u8]| token.eq_ignore_ascii_case(word);
    match token.len() {
        5 if is(b"reset") => Some(Reset::Reset),
        6 if is(b"ireset") => Some(Reset::IReset),
        6 if is(b"resetn") => Some(Reset::ResetN),
        6 if is(b"reboot") => Some(Reset::Reboot),
        7 if is(b"iresetn") => Some(Reset::IResetN),
        7 if is(b"ireboot") => Some(Reset::IReboot),
        _ => None,
    }
}

fn starts_with(token: &[u8], prefix: &[u8]) -> bool {
    token
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
