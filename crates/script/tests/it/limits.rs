use rekindle_script::{Dialect, Limits, parse};

fn message(source: &[u8], limits: &Limits) -> String {
    parse(source, limits, &Dialect::default())
        .expect_err("the limit is broken")
        .to_string()
}

#[test]
fn a_script_at_its_limits_is_read_and_one_beyond_is_refused() {
    let limits = Limits {
        script_bytes: 12,
        line_bytes: 5,
        lines: 3,
    };
    let read = |source: &[u8]| {
        parse(source, &limits, &Dialect::default())
            .unwrap()
            .lines
            .len()
    };
    assert_eq!(read(b"reset\r\n1\n2\r\n"), 3);
    assert_eq!(
        message(b"reset\n1\n2\n333", &limits),
        "line 1, column 1: the script is longer than 12 bytes"
    );
    assert_eq!(
        message(b"1\n resets\n3\n", &limits),
        "line 2, column 6: the line is longer than 5 bytes"
    );
    assert_eq!(
        message(b"1\n2\n3\n4", &limits),
        "line 4, column 1: the script has more than 3 lines"
    );
}

#[test]
fn a_script_may_be_empty_under_any_limit() {
    let none = Limits {
        script_bytes: 0,
        line_bytes: 0,
        lines: 0,
    };
    assert_eq!(parse(b"", &none, &Dialect::default()).unwrap().lines, []);
}
