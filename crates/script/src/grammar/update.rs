use super::lexical::{
    Decimal, Fault, Parsed, any, blanks, decimal, end, fail, final_command, number, required,
    token, url,
};
use crate::{
    ast::{Command, Final, Load},
    dialect::Dialect,
    error::{After, Argument, Keyword},
    hours::Hours,
    span::offset_of,
    text::Text,
};

type Known<'a> = Result<Option<(&'a [u8], Command<'a>)>, nom::Err<super::Failure<'a>>>;

/// up1 = "check" check / "times" times / "poll" / "provision" SP number
pub(super) fn up1<'a>(verb: &[u8], input: &'a [u8], dialect: &Dialect) -> Known<'a> {
    let is = |word: &[u8]| verb.eq_ignore_ascii_case(word);
    let parsed = if is(b"check") {
        check(input)?
    } else if is(b"times") || (dialect.time_as_times && is(b"time")) {
        times(input)?
    } else if is(b"poll") {
        let (rest, ()) = end(After::Keyword(Keyword::Poll))(input)?;
        (rest, Command::Poll)
    } else if is(b"provision") {
        let after = After::Keyword(Keyword::Provision);
        let (rest, number) = required(number(Argument::Number), after)(input)?;
        let (rest, ()) = end(After::Argument(Argument::Number))(rest)?;
        (rest, Command::Provision(number))
    } else {
        return Ok(None);
    };
    Ok(Some(parsed))
}

/// check = SP final SP serial
fn check(input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (rest, final_command) = required(final_command, After::Keyword(Keyword::Check))(input)?;
    let (rest, serial) = serial(rest)?;
    let (rest, ()) = end(After::Argument(Argument::Serial))(rest)?;
    let command = Command::Check {
        final_command,
        serial,
    };
    Ok((rest, command))
}

/// times = *( SP "/allow" SP hours / SP "/initial" SP number ) ; each at most once
fn times(input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (mut allow, mut initial) = (None, None);
    let mut rest = input;
    loop {
        let (at, _) = blanks(rest)?;
        if at.is_empty() {
            return Ok((at, Command::Times { allow, initial }));
        }
        let (after_option, option) = token(at)?;
        if option.eq_ignore_ascii_case(b"/allow") {
            once(at, Keyword::Allow, allow.is_some())?;
            let (after_value, value) = hours(after_option)?;
            (rest, allow) = (after_value, Some(value));
        } else if option.eq_ignore_ascii_case(b"/initial") {
            once(at, Keyword::Initial, initial.is_some())?;
            let after = After::Keyword(Keyword::Initial);
            let (after_value, value) = required(number(Argument::Minutes), after)(after_option)?;
            (rest, initial) = (after_value, Some(value));
        } else {
            return Err(fail(at, Fault::Unexpected(After::Keyword(Keyword::Times))));
        }
    }
}

/// hours = hour *( "," hour ) ; hour = 1*DIGIT, 0 to 23
fn hours(input: &[u8]) -> Parsed<'_, Hours> {
    let (start, _) = blanks(input)?;
    let after = After::Keyword(Keyword::Allow);
    let (rest, list) = required(hour_list, after)(input)?;
    let mut hours = Hours::NONE;
    let mut at = start;
    for part in list.split(|&byte| byte == b',') {
        let hour = match decimal(part) {
            Decimal::Value(hour) => u8::try_from(hour).ok(),
            Decimal::TooLarge | Decimal::NoNumber => None,
        };
        let Some(with) = hour.and_then(|hour| hours.with(hour)) else {
            return Err(fail(at, Fault::NotAnHour));
        };
        hours = with;
        at = at.get(part.len()..).unwrap_or_default();
        // A comma with no hour behind it stands for the missing hour.
        if offset_of(start, at).saturating_add(1) < list.len() {
            at = at.get(1..).unwrap_or_default();
        }
    }
    Ok((rest, hours))
}

/// up0 = load / scfg / cfg
pub(super) fn up0<'a>(verb: &[u8], input: &'a [u8]) -> Known<'a> {
    let is = |word: &[u8]| verb.eq_ignore_ascii_case(word);
    let parsed = if is(b"prot") {
        load(Load::Prot, input)?
    } else if is(b"boot") {
        load(Load::Boot, input)?
    } else if is(b"bmc") {
        load(Load::Bmc, input)?
    } else if is(b"scfg") {
        scfg(input)?
    } else if is(b"cfg") {
        cfg(input)?
    } else {
        return Ok(None);
    };
    Ok(Some(parsed))
}

/// load = ( "prot" / "boot" / "bmc" ) SP url SP final SP serial
fn load(component: Load, input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (rest, url) = required(url, After::Keyword(component.keyword()))(input)?;
    let (rest, final_command) = required(final_command, After::Argument(Argument::Url))(rest)?;
    let (rest, serial) = serial(rest)?;
    let (rest, ()) = end(After::Argument(Argument::Serial))(rest)?;
    let command = Command::Load {
        component,
        url,
        final_command,
        serial,
    };
    Ok((rest, command))
}

/// scfg = "scfg" SP url [ SP final SP serial *( SP "/force" SP number / SP "/always" SP token ) ] ; each at most once
fn scfg(input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (mut rest, url) = required(url, After::Keyword(Keyword::Scfg))(input)?;
    let (mut final_command, mut serial) = (None, None);
    if !blanks(rest)?.0.is_empty() {
        let (after_final, value) = required(upload_final, After::Argument(Argument::Url))(rest)?;
        final_command = Some(value);
        let after = After::Argument(Argument::FinalCommand);
        let (after_serial, value) = required(upload_serial, after)(after_final)?;
        (rest, serial) = (after_serial, Some(value));
    }
    let (mut force, mut always) = (None, None);
    loop {
        let (at, _) = blanks(rest)?;
        if at.is_empty() {
            let command = Command::SaveConfig {
                url,
                final_command,
                serial,
                force,
                always,
            };
            return Ok((at, command));
        }
        let (after_option, option) = token(at)?;
        match upload_option(option) {
            Some(Keyword::Force) => {
                once(at, Keyword::Force, force.is_some())?;
                let after = After::Keyword(Keyword::Force);
                let (after_value, value) =
                    required(number(Argument::HourCount), after)(after_option)?;
                (rest, force) = (after_value, Some(value));
            }
            Some(_) => {
                once(at, Keyword::Always, always.is_some())?;
                let after = After::Keyword(Keyword::Always);
                let (after_value, value) =
                    required(any(Argument::EncodedCommand), after)(after_option)?;
                (rest, always) = (after_value, Some(value));
            }
            None => {
                let after = After::Argument(Argument::Serial);
                return Err(fail(at, Fault::Unexpected(after)));
            }
        }
    }
}

/// cfg = "cfg" SP url [ SP final [ SP serial ] ]
fn cfg(input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (mut rest, url) = required(url, After::Keyword(Keyword::Cfg))(input)?;
    let (mut final_command, mut serial) = (None, None);
    if !blanks(rest)?.0.is_empty() {
        let after = After::Argument(Argument::Url);
        let (after_final, value) = required(super::lexical::final_command, after)(rest)?;
        (rest, final_command) = (after_final, Some(value));
    }
    if !blanks(rest)?.0.is_empty() {
        let (after_serial, value) = self::serial(rest)?;
        (rest, serial) = (after_serial, Some(value));
    }
    let (rest, ()) = end(After::Argument(Argument::Serial))(rest)?;
    let command = Command::LoadConfig {
        url,
        final_command,
        serial,
    };
    Ok((rest, command))
}

/// SP serial ; serial = token
fn serial(input: &[u8]) -> Parsed<'_, Text<'_>> {
    let after = After::Argument(Argument::FinalCommand);
    required(any(Argument::Serial), after)(input)
}

/// A final command before a serial before options: an option in its place means that both were left out.
fn upload_final(token: &[u8], after: After) -> Result<Final<'_>, Fault> {
    match upload_option(token) {
        Some(_) => Err(Fault::Expected(Argument::FinalCommand, after)),
        None => final_command(token, after),
    }
}

fn upload_serial(token: &[u8], after: After) -> Result<Text<'_>, Fault> {
    match upload_option(token) {
        Some(_) => Err(Fault::Expected(Argument::Serial, after)),
        None => any(Argument::Serial)(token, after),
    }
}

fn upload_option(token: &[u8]) -> Option<Keyword> {
    if token.eq_ignore_ascii_case(b"/force") {
        Some(Keyword::Force)
    } else if token.eq_ignore_ascii_case(b"/always") {
        Some(Keyword::Always)
    } else {
        None
    }
}

/// The token of an hour list: not an option, which would mean that the list was left out.
fn hour_list(token: &[u8], after: After) -> Result<&[u8], Fault> {
    match token.first() {
        None | Some(b'/') => Err(Fault::Expected(Argument::Hours, after)),
        Some(_) => Ok(token),
    }
}

fn once(at: &[u8], option: Keyword, is_repeated: bool) -> Result<(), nom::Err<super::Failure<'_>>> {
    if is_repeated {
        return Err(fail(at, Fault::Repeated(option)));
    }
    Ok(())
}
