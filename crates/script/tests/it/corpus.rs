//! Scripts of the shapes that real servers, manuals and wikis have: `x.txt` reads as `x.ast` says, a line each.

use core::fmt::Write as _;
use std::{fs, path::Path};

use rekindle_script::Command;

use crate::script;

#[test]
fn scripts_of_the_field_read_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        count += 1;
        let source = fs::read(&path).unwrap();
        let mut found = String::new();
        for line in script(&source).lines {
            match line.command {
                Command::Malformed { text, error } => {
                    writeln!(found, "{} {text:?} {error}", line.number).unwrap();
                }
                good => writeln!(found, "{} {good:?}", line.number).unwrap(),
            }
        }
        let expected = fs::read_to_string(path.with_extension("ast")).unwrap_or_default();
        assert_eq!(found, expected, "{}", path.display());
    }
    assert_eq!(count, 9, "scripts are missing from {}", folder.display());
}

#[test]
fn a_lost_url_is_an_error_at_its_line() {
    let found = script(include_bytes!("../data/lost-urls.txt"));
    let errors: Vec<_> = found.errors().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "line 2, column 19: expected a URL after \"scfg\", found \"no-op\"",
            "line 3, column 18: expected a URL after \"prot\", found \"ireset\"",
            "line 4, column 18: expected a URL after \"prot\", found \"/ser\"",
        ]
    );
}
