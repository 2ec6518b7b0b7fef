use proptest::prelude::*;
use rekindle_script::{Dialect, Limits, parse};

use crate::script;

#[test]
fn written_text_is_canonical() {
    let source = b"  MOD  CMD UP1 Times /initial 06\t/allow 23,0,0 \r\n\r\n#  note \nConfig  Add UP1  /poll  15\n\
        vars CREATE A  pb  x  y\nmod cmd X0  Do a  b\n\tser\nIRESETN\nmod  cmd UP0 prot  x\n\
        mod cmd UP0 cfg http://h/ IRESETN";
    let expected =
        b"mod cmd UP1 times /allow 0,23 /initial 6\n\n#  note\nconfig add UP1 /poll 15\n\
        vars create A pb x  y\nmod cmd X0 Do a  b\nser\niresetn\nmod  cmd UP0 prot  x\n\
        mod cmd UP0 cfg http://h/ iresetn\n";
    let written = script(source).to_bytes();
    assert_eq!(
        String::from_utf8(written).unwrap(),
        str::from_utf8(expected).unwrap()
    );
}

/// Words of the language and bytes that mean something, so that random lines reach every production.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"mod",
        b"cmd",
        b"cmd_ro",
        b"UP0",
        b"UP1",
        b"up1",
        b"check",
        b"times",
        b"time",
        b"poll",
        b"provision",
        b"prot",
        b"boot",
        b"bmc",
        b"scfg",
        b"cfg",
        b"/allow",
        b"/initial",
        b"/force",
        b"/always",
        b"http://h/",
        b"https://h/a?b#c",
        b"http://",
        b"reset",
        b"IResetN",
        b"ser",
        b"/ser",
        b"config",
        b"change",
        b"add",
        b"rem",
        b"write",
        b"activate",
        b"vars",
        b"create",
        b"del",
        b"read",
        b"0,1,23",
        b"24",
        b"4294967296",
        b"#",
        b"\xfc",
        b",",
        b"/",
        b"\r",
        b"\0",
    ];
    prop_oneof![
        8 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn source() -> impl Strategy<Value = Vec<u8>> {
    let blanks: &[&[u8]] = &[b" ", b"  ", b"\t", b"\n", b"\r\n", b"\r"];
    let blank = prop::sample::select(blanks);
    prop::collection::vec((word(), blank), 0..40).prop_map(|parts| {
        parts
            .iter()
            .flat_map(|(word, blank)| [word.as_slice(), blank])
            .collect::<Vec<_>>()
            .concat()
    })
}

proptest! {
    #[test]
    fn a_written_script_reads_back_equal(source in source()) {
        for dialect in [Dialect::default(), Dialect::field()] {
            let limits = Limits::default();
            let first = parse(&source, &limits, &dialect).unwrap();
            let written = first.to_bytes();
            let second = parse(&written, &limits, &dialect).unwrap();
            prop_assert_eq!(&first, &second);
            prop_assert_eq!(second.to_bytes(), written);
        }
    }

    #[test]
    fn every_line_says_where_it_stands(source in source()) {
        let found = parse(&source, &Limits::default(), &Dialect::field()).unwrap();
        let raw: Vec<_> = source.split(|&byte| byte == b'\n').collect();
        for line in &found.lines {
            let whole = raw[usize::try_from(line.number).unwrap() - 1];
            let column = usize::try_from(line.column).unwrap() - 1;
            let text = &source[line.span.range()];
            prop_assert!(whole[column..].starts_with(text));
            prop_assert!(whole[..column].iter().all(|byte| b" \t\r".contains(byte)));
        }
        for error in found.errors() {
            let whole = raw[usize::try_from(error.position().line).unwrap() - 1];
            let column = usize::try_from(error.position().column).unwrap() - 1;
            prop_assert!(whole[column..].starts_with(&source[error.span().range()]));
        }
    }
}
