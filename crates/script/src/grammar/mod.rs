//! The grammar of `docs/formats/script.md`, one function a production, in its order. The only place that knows nom.
//!
//! A backtracking error means "no known command", a failure means "a known command, badly written". Every production is
//! given the rest of its line, of which the blanks at the end are gone.

mod command;
mod lexical;
mod update;

use self::{
    command::{config, module, vars},
    lexical::{Failure, Parsed, end, reset, token},
};
use crate::{
    ast::Command,
    dialect::Dialect,
    error::{After, ParseError},
    span::{Position, Span, offset_of},
    text::Text,
};

/// Reads one line, of which the blanks at both ends are gone. `locate` says where in the script the bytes from an
/// offset in the line on are.
pub(crate) fn line<'a>(
    text: &'a [u8],
    dialect: &Dialect,
    locate: impl FnOnce(usize, usize) -> (Position, Span),
) -> Command<'a> {
    match content(text, dialect) {
        Ok((_, command)) => command,
        Err(nom::Err::Failure(failure)) => malformed(text, &failure, locate),
        Err(nom::Err::Error(_) | nom::Err::Incomplete(_)) => Command::Other(Text::from_line(text)),
    }
}

/// line = [ comment / command ]
fn content<'a>(input: &'a [u8], dialect: &Dialect) -> Parsed<'a, Command<'a>> {
    match input.split_first() {
        None => Ok((input, Command::Blank)),
        Some((b'#', comment)) => Ok((&[], Command::Comment(Text::from_line(comment)))),
        Some(_) => command(input, dialect),
    }
}

/// command = modcmd / config / vars / reset
fn command<'a>(input: &'a [u8], dialect: &Dialect) -> Parsed<'a, Command<'a>> {
    let (rest, verb) = token(input)?;
    if verb.eq_ignore_ascii_case(b"mod") {
        module(rest, dialect)
    } else if verb.eq_ignore_ascii_case(b"config") {
        config(rest)
    } else if verb.eq_ignore_ascii_case(b"vars") {
        vars(rest)
    } else if let Some(reset) = reset(verb) {
        let (rest, ()) = end(After::Keyword(reset.keyword()))(rest)?;
        Ok((rest, Command::Reset(reset)))
    } else {
        Err(nom::Err::Error(Failure::none(input)))
    }
}

#[cold]
fn malformed<'a>(
    text: &'a [u8],
    failure: &Failure<'a>,
    locate: impl FnOnce(usize, usize) -> (Position, Span),
) -> Command<'a> {
    let token = failure.token();
    let (position, span) = locate(offset_of(text, failure.rest()), token.len());
    Command::Malformed {
        text: Text::from_line(text),
        error: ParseError::new(failure.kind(token), position, span),
    }
}
