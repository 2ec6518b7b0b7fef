use alloc::vec::Vec;

use crate::{
    ast::{Command, Config, Final, Script, Vars},
    text::Text,
};

impl Script<'_> {
    /// Appends the canonical text: one blank between tokens, none around them, verbs in lower case, hours rising, each
    /// line ended by one line feed. Comments, unknown lines and malformed ones stay as they are.
    ///
    /// Parsing it again yields an equal script.
    pub fn write(&self, out: &mut Vec<u8>) {
        for line in &self.lines {
            line.command.write(out);
            out.push(b'\n');
        }
    }

    /// The canonical text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl Command<'_> {
    /// Appends the canonical text of the line, without a line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Blank => {}
            Self::Comment(text) => {
                out.push(b'#');
                out.extend_from_slice(text.as_bytes());
            }
            Self::Check {
                final_command,
                serial,
            } => words(
                out,
                &[b"mod cmd UP1 check", word(final_command), serial.as_bytes()],
            ),
            Self::Times { allow, initial } => {
                words(out, &[b"mod cmd UP1 times"]);
                option(out, b"/allow", allow);
                option(out, b"/initial", initial);
            }
            Self::Poll => words(out, &[b"mod cmd UP1 poll"]),
            Self::Provision(number) => option(out, b"mod cmd UP1 provision", Some(number)),
            Self::Load {
                component,
                url,
                final_command,
                serial,
            } => words(
                out,
                &[
                    b"mod cmd UP0",
                    component.as_str().as_bytes(),
                    url.as_bytes(),
                    word(final_command),
                    serial.as_bytes(),
                ],
            ),
            Self::SaveConfig {
                url,
                final_command,
                serial,
                force,
                always,
            } => {
                words(out, &[b"mod cmd UP0 scfg", url.as_bytes()]);
                done(out, final_command, serial);
                option(out, b"/force", force);
                if let Some(always) = always {
                    words(out, &[b"/always", always.as_bytes()]);
                }
            }
            Self::LoadConfig {
                url,
                final_command,
                serial,
            } => {
                words(out, &[b"mod cmd UP0 cfg", url.as_bytes()]);
                done(out, final_command, serial);
            }
            Self::Reset(reset) => words(out, &[reset.as_str().as_bytes()]),
            Self::Config(config) => config.write(out),
            Self::Vars(vars) => vars.write(out),
            Self::Module {
                access,
                module,
                command,
                args,
            } => words(
                out,
                &[
                    b"mod",
                    access.keyword().as_str().as_bytes(),
                    module.as_bytes(),
                    command.as_bytes(),
                    args.as_bytes(),
                ],
            ),
            Self::Malformed { text, .. } | Self::Other(text) => {
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// The canonical text of the line, without a line end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl Config<'_> {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Edit { edit, module, args } => {
                let verb = edit.keyword().as_str().as_bytes();
                words(out, &[b"config", verb, module.as_bytes()]);
                for token in args.tokens() {
                    words(out, &[token.as_bytes()]);
                }
            }
            Self::Write => words(out, &[b"config write"]),
            Self::Activate => words(out, &[b"config activate"]),
        }
    }
}

impl Vars<'_> {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Create { name, flags, value } => words(
                out,
                &[
                    b"vars create",
                    name.as_bytes(),
                    flags.as_bytes(),
                    value.as_bytes(),
                ],
            ),
            Self::Del { name } => words(out, &[b"vars del", name.as_bytes()]),
            Self::Read { name } => words(out, &[b"vars read", name.as_bytes()]),
        }
    }
}

/// Appends words with a blank before each, except at the start of a line and where a word is empty.
fn words(out: &mut Vec<u8>, words: &[&[u8]]) {
    for word in words {
        if word.is_empty() {
            continue;
        }
        if out.last().is_some_and(|&last| last != b'\n') {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

fn option(out: &mut Vec<u8>, name: &[u8], value: Option<impl core::fmt::Display>) {
    if let Some(value) = value {
        words(out, &[name, alloc::format!("{value}").as_bytes()]);
    }
}

fn done(out: &mut Vec<u8>, final_command: Option<Final<'_>>, serial: Option<Text<'_>>) {
    if let Some(final_command) = final_command {
        words(out, &[word(final_command)]);
    }
    if let Some(serial) = serial {
        words(out, &[serial.as_bytes()]);
    }
}

fn word(final_command: Final<'_>) -> &[u8] {
    match final_command {
        Final::Reset(reset) => reset.as_str().as_bytes(),
        Final::Nothing(text) => text.as_bytes(),
    }
}
