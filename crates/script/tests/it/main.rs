//! The public API, as an integrator sees it.

mod corpus;
mod errors;
mod forms;
mod limits;
mod lint;
mod round_trip;

use rekindle_script::{Command, Dialect, Limits, Script, Text, parse};

fn script(source: &[u8]) -> Script<'_> {
    parse(source, &Limits::default(), &Dialect::field())
        .expect("scripts in tests are within the limits")
}

/// The command of a script of one line.
#[track_caller]
fn command(line: &str) -> Command<'_> {
    let mut lines = script(line.as_bytes()).lines;
    assert_eq!(lines.len(), 1, "{line}");
    lines.remove(0).command
}

fn text(text: &str) -> Text<'_> {
    Text::new(text.as_bytes()).expect("texts in tests are one line")
}
