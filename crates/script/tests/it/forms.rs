use rekindle_script::{
    Access, Args, Command, Config, Dialect, Edit, Final, Hours, Limits, Load, Reset, Span, Vars,
    parse,
};

use crate::{command, script, text};

fn nothing(word: &str) -> Final<'_> {
    Final::Nothing(text(word))
}

fn hours(hours: &[u8]) -> Hours {
    let mut set = Hours::NONE;
    for &hour in hours {
        set = set.with(hour).expect("hours in tests exist");
    }
    set
}

fn module<'a>(name: &'a str, verb: &'a str, args: &'a str) -> Command<'a> {
    Command::Module {
        access: Access::Full,
        module: text(name),
        command: text(verb),
        args: text(args),
    }
}

fn edit<'a>(edit: Edit, module: &'a str, args: &'a str) -> Command<'a> {
    Command::Config(Config::Edit {
        edit,
        module: text(module),
        args: Args::new(args.as_bytes()).expect("arguments in tests are one line"),
    })
}

#[test]
fn every_form_of_the_grammar_is_read() {
    let url = text("http://h/f/");
    let save = Command::SaveConfig {
        url,
        final_command: None,
        serial: None,
        force: None,
        always: None,
    };
    let table = [
        ("", None),
        ("# a  b", Some(Command::Comment(text(" a  b")))),
        ("#", Some(Command::Comment(text("")))),
        (
            "mod cmd UP1 check ser 5aa0",
            Some(Command::Check {
                final_command: nothing("ser"),
                serial: text("5aa0"),
            }),
        ),
        (
            "mod cmd UP1 times /allow 23,0,1 /initial 6",
            Some(Command::Times {
                allow: Some(hours(&[0, 1, 23])),
                initial: Some(6),
            }),
        ),
        (
            "mod cmd UP1 times /initial 0 /allow 07",
            Some(Command::Times {
                allow: Some(hours(&[7])),
                initial: Some(0),
            }),
        ),
        (
            "mod cmd UP1 times",
            Some(Command::Times {
                allow: None,
                initial: None,
            }),
        ),
        ("mod cmd UP1 poll", Some(Command::Poll)),
        ("mod cmd UP1 provision 5", Some(Command::Provision(5))),
        (
            "mod cmd UP0 prot http://h/f/ ireset 04-5656",
            Some(Command::Load {
                component: Load::Prot,
                url,
                final_command: Final::Reset(Reset::IReset),
                serial: text("04-5656"),
            }),
        ),
        (
            "mod cmd UP0 boot HTTPS://h ireboot 205",
            Some(Command::Load {
                component: Load::Boot,
                url: text("HTTPS://h"),
                final_command: Final::Reset(Reset::IReboot),
                serial: text("205"),
            }),
        ),
        (
            "mod cmd UP0 bmc http://h/f/ /ser PCS04fd",
            Some(Command::Load {
                component: Load::Bmc,
                url,
                final_command: nothing("/ser"),
                serial: text("PCS04fd"),
            }),
        ),
        ("mod cmd UP0 scfg http://h/f/", Some(save.clone())),
        (
            "mod cmd UP0 scfg http://h/f/ no-op WEEKLY /force 168",
            Some(Command::SaveConfig {
                url,
                final_command: Some(nothing("no-op")),
                serial: Some(text("WEEKLY")),
                force: Some(168),
                always: None,
            }),
        ),
        (
            "mod cmd UP0 scfg http://h/f/ ser nop /always vars%20read%20X /force 1",
            Some(Command::SaveConfig {
                url,
                final_command: Some(nothing("ser")),
                serial: Some(text("nop")),
                force: Some(1),
                always: Some(text("vars%20read%20X")),
            }),
        ),
        (
            "mod cmd UP0 cfg http://h/f/",
            Some(Command::LoadConfig {
                url,
                final_command: None,
                serial: None,
            }),
        ),
        (
            "mod cmd UP0 cfg http://h/f/ iresetn",
            Some(Command::LoadConfig {
                url,
                final_command: Some(Final::Reset(Reset::IResetN)),
                serial: None,
            }),
        ),
        (
            "mod cmd UP0 cfg http://h/f/ ser 7",
            Some(Command::LoadConfig {
                url,
                final_command: Some(nothing("ser")),
                serial: Some(text("7")),
            }),
        ),
        ("reset", Some(Command::Reset(Reset::Reset))),
        ("ireset", Some(Command::Reset(Reset::IReset))),
        ("resetn", Some(Command::Reset(Reset::ResetN))),
        ("iresetn", Some(Command::Reset(Reset::IResetN))),
        ("reboot", Some(Command::Reset(Reset::Reboot))),
        ("ireboot", Some(Command::Reset(Reset::IReboot))),
        (
            "config change PHONE SIG /prot  SIP",
            Some(edit(Edit::Change, "PHONE", "SIG /prot SIP")),
        ),
        ("config add UP1", Some(edit(Edit::Add, "UP1", ""))),
        (
            "config rem UP1 /provision",
            Some(edit(Edit::Rem, "UP1", "/provision")),
        ),
        ("config write", Some(Command::Config(Config::Write))),
        ("config activate", Some(Command::Config(Config::Activate))),
        (
            "vars create X509/R pb 30  82",
            Some(Command::Vars(Vars::Create {
                name: text("X509/R"),
                flags: text("pb"),
                value: text("30  82"),
            })),
        ),
        (
            "vars del X509/R",
            Some(Command::Vars(Vars::Del {
                name: text("X509/R"),
            })),
        ),
        (
            "vars read X509/R",
            Some(Command::Vars(Vars::Read {
                name: text("X509/R"),
            })),
        ),
        (
            "mod cmd FLASHDIR0 add-item 101 (pbx=<user pwd=\"a  b\"/>)",
            Some(module(
                "FLASHDIR0",
                "add-item",
                "101 (pbx=<user pwd=\"a  b\"/>)",
            )),
        ),
        ("mod cmd UP1 other 1", Some(module("UP1", "other", "1"))),
        ("mod cmd UP0 other", Some(module("UP0", "other", ""))),
        (
            "mod cmd_ro UP1 check x",
            Some(Command::Module {
                access: Access::ReadOnly,
                module: text("UP1"),
                command: text("check"),
                args: text("x"),
            }),
        ),
    ];
    for (line, expected) in table {
        let expected = expected.unwrap_or(Command::Blank);
        let source = [line, "\n"].concat();
        assert_eq!(
            script(source.as_bytes()).lines.remove(0).command,
            expected,
            "{line}"
        );
    }
}

#[test]
fn lines_that_are_no_known_command_are_kept_as_they_are() {
    for line in [
        "ser",
        "{% if x %}",
        "mod",
        "mod  get UP0",
        "config",
        "config  show",
        "vars list",
        "resets",
        "modcmd UP0 prot",
        "caf\u{e9}",
    ] {
        assert_eq!(command(line), Command::Other(text(line)), "{line}");
    }
}

#[test]
fn verbs_are_read_in_any_letter_case_and_modules_are_not() {
    assert_eq!(command("MOD Cmd UP1 POLL"), Command::Poll);
    assert_eq!(command("IResetN"), Command::Reset(Reset::IResetN));
    assert_eq!(command("mod cmd up1 poll"), module("up1", "poll", ""));
    assert_eq!(
        command("mod cmd UP1 times /ALLOW 1"),
        Command::Times {
            allow: Some(hours(&[1])),
            initial: None
        }
    );
}

#[test]
fn line_ends_may_be_mixed_and_the_last_may_be_missing() {
    let source = b"\r\n  reset \t\r\n\nreboot\n# x\r\nser";
    let found = script(source);
    let expected: Vec<_> = [
        Command::Blank,
        Command::Reset(Reset::Reset),
        Command::Blank,
        Command::Reset(Reset::Reboot),
        Command::Comment(text(" x")),
        Command::Other(text("ser")),
    ]
    .into();
    let commands: Vec<_> = found
        .lines
        .iter()
        .map(|line| line.command.clone())
        .collect();
    assert_eq!(commands, expected);

    let reset = &found.lines[1];
    assert_eq!((reset.number, reset.column), (2, 3));
    assert_eq!(reset.span, Span { start: 4, end: 9 });
    assert_eq!(&source[reset.span.range()], b"reset");
    assert_eq!(script(b"").lines, []);
}

#[test]
fn bytes_that_are_no_utf8_pass_through() {
    let source = b"config change X /name B\xfcro\n";
    let found = script(source);
    let Command::Config(Config::Edit { args, .. }) = found.lines[0].command else {
        panic!("{found:?}");
    };
    assert_eq!(args.tokens().last().unwrap().as_bytes(), b"B\xfcro");
    assert_eq!(found.to_bytes(), source);
}

#[test]
fn the_singular_time_is_a_quirk_of_the_field_only() {
    let line = "mod cmd UP1 time /allow 12";
    assert_eq!(
        command(line),
        Command::Times {
            allow: Some(hours(&[12])),
            initial: None
        }
    );
    let strict = parse(line.as_bytes(), &Limits::default(), &Dialect::default()).unwrap();
    assert_eq!(strict.lines[0].command, module("UP1", "time", "/allow 12"));
}

#[test]
fn resets_know_when_they_happen() {
    let facts = |reset: Reset| {
        (
            reset.waits_for_idle(),
            reset.only_if_required(),
            reset.is_hard(),
        )
    };
    assert_eq!(facts(Reset::Reset), (false, false, false));
    assert_eq!(facts(Reset::IReset), (true, false, false));
    assert_eq!(facts(Reset::ResetN), (false, true, false));
    assert_eq!(facts(Reset::IResetN), (true, true, false));
    assert_eq!(facts(Reset::Reboot), (false, false, true));
    assert_eq!(facts(Reset::IReboot), (true, false, true));
}
