use rekindle_script::Command;

use crate::{command, script};

/// The message of a line that is malformed.
#[track_caller]
fn message(line: &str) -> String {
    let command = command(line);
    let Command::Malformed { text, error } = &command else {
        return format!("{command:?}");
    };
    assert_eq!(text.as_bytes(), line.trim().as_bytes());
    error.to_string()
}

#[test]
fn each_rule_has_its_message() {
    for (line, expected) in [
        // Expected
        (
            "mod cmd UP0 prot ireset 04-5656",
            "line 1, column 18: expected a URL after \"prot\", found \"ireset\"",
        ),
        (
            "mod cmd UP0 boot",
            "line 1, column 17: expected a URL after \"boot\", found the end of the line",
        ),
        (
            "  mod cmd UP0  bmc\tftp://h/x ser 1",
            "line 1, column 20: expected a URL after \"bmc\", found \"ftp://h/x\"",
        ),
        (
            "mod cmd UP0 scfg no-op WEEKLY /force 168",
            "line 1, column 18: expected a URL after \"scfg\", found \"no-op\"",
        ),
        (
            "mod cmd UP0 cfg",
            "line 1, column 16: expected a URL after \"cfg\", found the end of the line",
        ),
        (
            "mod cmd UP0 prot http://h/",
            "line 1, column 27: expected a final command after the URL, found the end of the line",
        ),
        (
            "mod cmd UP0 prot http://h/ 04-5656",
            "line 1, column 35: expected a serial after the final command, found the end of the line",
        ),
        (
            "mod cmd UP0 scfg http://h/ /force 168",
            "line 1, column 28: expected a final command after the URL, found \"/force\"",
        ),
        (
            "mod cmd UP0 scfg http://h/ ser /ALWAYS x",
            "line 1, column 32: expected a serial after the final command, found \"/ALWAYS\"",
        ),
        (
            "mod cmd UP0 scfg http://h/ ser 1 /force",
            "line 1, column 40: expected a number of hours after \"/force\", found the end of the line",
        ),
        (
            "mod cmd UP0 scfg http://h/ ser 1 /always",
            "line 1, column 41: expected a percent-encoded command after \"/always\", found the end of the line",
        ),
        (
            "mod cmd UP1 check",
            "line 1, column 18: expected a final command after \"check\", found the end of the line",
        ),
        (
            "mod cmd UP1 times /allow /initial 6",
            "line 1, column 26: expected a list of hours after \"/allow\", found \"/initial\"",
        ),
        (
            "mod cmd UP1 times /initial soon",
            "line 1, column 28: expected a number of minutes after \"/initial\", found \"soon\"",
        ),
        (
            "mod cmd UP1 times /initial +5",
            "line 1, column 28: expected a number of minutes after \"/initial\", found \"+5\"",
        ),
        (
            "mod cmd UP1 provision",
            "line 1, column 22: expected a number after \"provision\", found the end of the line",
        ),
        (
            "config change",
            "line 1, column 14: expected a module name after \"change\", found the end of the line",
        ),
        (
            "mod cmd",
            "line 1, column 8: expected a module name after \"cmd\", found the end of the line",
        ),
        (
            "mod cmd_ro UP0",
            "line 1, column 15: expected a module command after the module name, found the end of the line",
        ),
        (
            "vars read",
            "line 1, column 10: expected a variable name after \"read\", found the end of the line",
        ),
        (
            "vars create X",
            "line 1, column 14: expected flags after the variable name, found the end of the line",
        ),
        (
            "vars create X pb",
            "line 1, column 17: expected a value after the flags, found the end of the line",
        ),
        (
            "mod cmd UP0 prot htp://update.example.com/firmware/ip1200.bin ireset 1",
            "line 1, column 18: expected a URL after \"prot\", found \"htp://update.example.com/firmware/ip…\"",
        ),
        // UrlWithoutHost
        (
            "mod cmd UP0 prot http:///ip1200.bin ireset 1",
            "line 1, column 18: expected a host in the URL after \"prot\", found \"http:///ip1200.bin\"",
        ),
        (
            "mod cmd UP0 cfg https:// ireset 1",
            "line 1, column 17: expected a host in the URL after \"cfg\", found \"https://\"",
        ),
        // NotAnHour
        (
            "mod cmd UP1 times /allow 22,24,1",
            "line 1, column 29: expected an hour from 0 to 23 in \"/allow\", found \"24\"",
        ),
        (
            "mod cmd UP1 times /allow 22, 23",
            "line 1, column 28: expected an hour from 0 to 23 in \"/allow\", found \",\"",
        ),
        (
            "mod cmd UP1 times /allow 1,,2",
            "line 1, column 28: expected an hour from 0 to 23 in \"/allow\", found \",\"",
        ),
        (
            "mod cmd UP1 times /allow ,2",
            "line 1, column 26: expected an hour from 0 to 23 in \"/allow\", found \",\"",
        ),
        (
            "mod cmd UP1 times /allow 8-17",
            "line 1, column 26: expected an hour from 0 to 23 in \"/allow\", found \"8-17\"",
        ),
        (
            "mod cmd UP1 times /allow 3,99999999999",
            "line 1, column 28: expected an hour from 0 to 23 in \"/allow\", found \"99999999999\"",
        ),
        // NumberTooLarge
        (
            "mod cmd UP0 scfg http://h/ ser 1 /force 4294967296",
            "line 1, column 41: expected a number of hours up to 4294967295 after \"/force\", found \"4294967296\"",
        ),
        // RepeatedOption
        (
            "mod cmd UP1 times /allow 1 /Allow 2",
            "line 1, column 28: expected \"/allow\" at most once",
        ),
        (
            "mod cmd UP1 times /initial 1 /initial 1",
            "line 1, column 30: expected \"/initial\" at most once",
        ),
        (
            "mod cmd UP0 scfg http://h/ ser 1 /force 1 /always x /force 1",
            "line 1, column 53: expected \"/force\" at most once",
        ),
        (
            "mod cmd UP0 scfg http://h/ ser 1 /always x /always y",
            "line 1, column 44: expected \"/always\" at most once",
        ),
        // Unexpected
        (
            "reset now",
            "line 1, column 7: expected nothing more after \"reset\", found \"now\"",
        ),
        (
            "config write all",
            "line 1, column 14: expected nothing more after \"write\", found \"all\"",
        ),
        (
            "config activate all",
            "line 1, column 17: expected nothing more after \"activate\", found \"all\"",
        ),
        (
            "mod cmd UP1 poll 1",
            "line 1, column 18: expected nothing more after \"poll\", found \"1\"",
        ),
        (
            "mod cmd UP1 provision 1 2",
            "line 1, column 25: expected nothing more after the number, found \"2\"",
        ),
        (
            "mod cmd UP1 times 22",
            "line 1, column 19: expected nothing more after \"times\", found \"22\"",
        ),
        (
            "mod cmd UP1 check ser 1 2",
            "line 1, column 25: expected nothing more after the serial, found \"2\"",
        ),
        (
            "mod cmd UP0 prot http://h/ ser 1 # new",
            "line 1, column 34: expected nothing more after the serial, found \"#\"",
        ),
        (
            "mod cmd UP0 scfg http://h/ ser 1 168",
            "line 1, column 34: expected nothing more after the serial, found \"168\"",
        ),
        (
            "mod cmd UP0 cfg http://h/ ser 1 2",
            "line 1, column 33: expected nothing more after the serial, found \"2\"",
        ),
        (
            "vars del A B",
            "line 1, column 12: expected nothing more after the variable name, found \"B\"",
        ),
    ] {
        assert_eq!(message(line), expected, "{line}");
    }
}

#[test]
fn an_error_points_at_its_bytes() {
    let source = b"# \xfc\r\n\tmod cmd UP1 times /allow 1,24,2 /initial 6\r\n";
    let found = script(source);
    let errors: Vec<_> = found.errors().collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(&source[errors[0].span().range()], b"24");
    assert_eq!(errors[0].position().line, 2);
    assert_eq!(errors[0].position().column, 29);
    assert_eq!(errors[0].kind().code(), "not-an-hour");

    let source = b"mod cmd UP0 prot\n";
    let found = script(source);
    let span = found.errors().next().unwrap().span();
    assert_eq!((span.start, span.end), (16, 16));
}

#[test]
fn every_malformed_line_is_reported_and_the_good_ones_are_kept() {
    let found = script(b"reset 1\nreset\nmod cmd\n");
    assert_eq!(found.lines.len(), 3);
    assert_eq!(
        found
            .errors()
            .map(|error| error.position().line)
            .collect::<Vec<_>>(),
        [1, 3]
    );
}
