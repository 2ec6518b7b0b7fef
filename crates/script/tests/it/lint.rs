use crate::script;

#[test]
fn each_warning_has_its_message() {
    for (line, expected) in [
        (
            "mod cmd UP1 check serr 1",
            "line 1, column 1: the final command \"serr\" is not known and does nothing",
        ),
        (
            "mod cmd UP0 prot http://h/ irest 1",
            "line 1, column 1: the final command \"irest\" is not known and does nothing",
        ),
        (
            "  mod cmd UP0 scfg http://h/#h-#x.txt",
            "line 1, column 3: the meta character \"#x\" is not known and is kept as it is",
        ),
        (
            "mod cmd UP0 scfg http://h/#b",
            "line 1, column 1: the meta character \"#b\" is not known and is kept as it is",
        ),
        (
            "mod cmd up0 prot http://h/ ser 1",
            "line 1, column 1: module names are case-sensitive: \"up0\" is not the update module",
        ),
        (
            "vars create UPDATE/PROT pb 1",
            "line 1, column 1: \"UPDATE/PROT\" says what is on flash: a device ignores this line",
        ),
        (
            "# a\rreset",
            "line 1, column 1: a carriage return within a line ends no line: what follows it is not run by itself",
        ),
    ] {
        let found = script(line.as_bytes());
        let warnings: Vec<_> = found
            .warnings()
            .map(|warning| warning.to_string())
            .collect();
        assert_eq!(warnings, [expected], "{line}");
    }
}

#[test]
fn the_second_check_is_warned_about_and_the_first_is_not() {
    let found = script(b"mod cmd UP1 check ser 1\n\nmod cmd UP1 check ser 2\n");
    let warnings: Vec<_> = found
        .warnings()
        .map(|warning| (warning.position().line, warning.kind().code()))
        .collect();
    assert_eq!(warnings, [(3, "several-checks")]);
}

#[test]
fn what_the_field_uses_gives_no_warning() {
    for line in [
        "mod cmd UP0 scfg http://h/#b5-#F#B#H#h#m#d#i#t",
        "mod cmd UP1 check /SER 1",
        "mod cmd UP0 cfg http://h/ nop",
        "vars create UPDATE/CHECK pb 1",
        "ser",
        "mod cmd_ro X y",
    ] {
        assert_eq!(script(line.as_bytes()).warnings().count(), 0, "{line}");
    }
}
