use super::{
    lexical::{Failure, Parsed, any, end, remainder, required, token},
    update::{up0, up1},
};
use crate::{
    ast::{Access, Command, Config, Edit, Vars},
    dialect::Dialect,
    error::{After, Argument, Keyword},
    text::{Args, Text},
};

/// modcmd = "mod" SP ( "cmd" / "`cmd_ro`" ) SP module SP ( up1 / up0 / token [ SP text ] )
pub(super) fn module<'a>(input: &'a [u8], dialect: &Dialect) -> Parsed<'a, Command<'a>> {
    let (rest, access) = verb(input)?;
    let access = if access.eq_ignore_ascii_case(b"cmd") {
        Access::Full
    } else if access.eq_ignore_ascii_case(b"cmd_ro") {
        Access::ReadOnly
    } else {
        return Err(nom::Err::Error(Failure::none(input)));
    };
    let after = After::Keyword(access.keyword());
    let (rest, module) = required(any(Argument::Module), after)(rest)?;
    let after = After::Argument(Argument::Module);
    let (rest, command) = required(any(Argument::ModuleCommand), after)(rest)?;

    let known = match (access, module.as_bytes()) {
        (Access::Full, b"UP0") => up0(command.as_bytes(), rest)?,
        (Access::Full, b"UP1") => up1(command.as_bytes(), rest, dialect)?,
        (Access::Full | Access::ReadOnly, _) => None,
    };
    if let Some(parsed) = known {
        return Ok(parsed);
    }
    let (rest, args) = remainder(rest)?;
    let command = Command::Module {
        access,
        module,
        command,
        args: Text::from_line(args),
    };
    Ok((rest, command))
}

/// config = "config" SP ( ( "change" / "add" / "rem" ) SP module *( SP token ) / "write" / "activate" )
pub(super) fn config(input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (rest, verb) = verb(input)?;
    let edit = if verb.eq_ignore_ascii_case(b"add") {
        Edit::Add
    } else if verb.eq_ignore_ascii_case(b"change") {
        Edit::Change
    } else if verb.eq_ignore_ascii_case(b"rem") {
        Edit::Rem
    } else if verb.eq_ignore_ascii_case(b"write") {
        let (rest, ()) = end(After::Keyword(Keyword::Write))(rest)?;
        return Ok((rest, Command::Config(Config::Write)));
    } else if verb.eq_ignore_ascii_case(b"activate") {
        let (rest, ()) = end(After::Keyword(Keyword::Activate))(rest)?;
        return Ok((rest, Command::Config(Config::Activate)));
    } else {
        return Err(nom::Err::Error(Failure::none(input)));
    };
    let after = After::Keyword(edit.keyword());
    let (rest, module) = required(any(Argument::Module), after)(rest)?;
    let (rest, args) = remainder(rest)?;
    let config = Config::Edit {
        edit,
        module,
        args: Args::from_line(args),
    };
    Ok((rest, Command::Config(config)))
}

/// vars = "vars" SP ( "create" SP name SP flags SP text / ( "del" / "read" ) SP name )
pub(super) fn vars(input: &[u8]) -> Parsed<'_, Command<'_>> {
    let (rest, verb) = verb(input)?;
    let name = |keyword| required(any(Argument::VariableName), After::Keyword(keyword));
    let whole = end(After::Argument(Argument::VariableName));
    let (rest, vars) = if verb.eq_ignore_ascii_case(b"create") {
        let (rest, name) = name(Keyword::Create)(rest)?;
        let after = After::Argument(Argument::VariableName);
        let (rest, flags) = required(any(Argument::VariableFlags), after)(rest)?;
        let after = After::Argument(Argument::VariableFlags);
        required(any(Argument::VariableValue), after)(rest)?;
        let (rest, value) = remainder(rest)?;
        let value = Text::from_line(value);
        (rest, Vars::Create { name, flags, value })
    } else if verb.eq_ignore_ascii_case(b"del") {
        let (rest, name) = name(Keyword::Del)(rest)?;
        (whole(rest)?.0, Vars::Del { name })
    } else if verb.eq_ignore_ascii_case(b"read") {
        let (rest, name) = name(Keyword::Read)(rest)?;
        (whole(rest)?.0, Vars::Read { name })
    } else {
        return Err(nom::Err::Error(Failure::none(input)));
    };
    Ok((rest, Command::Vars(vars)))
}

/// SP token
fn verb(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, _) = super::lexical::blanks(input)?;
    token(input)
}
