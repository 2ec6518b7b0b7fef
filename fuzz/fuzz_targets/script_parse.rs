//! No bytes make the parser panic, and what it reads it writes so that it reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_script::{Dialect, Limits, parse};

fuzz_target!(|source: &[u8]| {
    let limits = Limits::default();
    for dialect in [Dialect::default(), Dialect::field()] {
        let Ok(script) = parse(source, &limits, &dialect) else {
            continue;
        };
        let written = script.to_bytes();
        let again = parse(&written, &limits, &dialect).expect("written text is within the limits");
        assert_eq!(script, again);
        assert_eq!(again.to_bytes(), written);
        for error in script.errors() {
            assert!(source.get(error.span().range()).is_some());
            assert!(!error.to_string().contains('\n'));
        }
        for warning in script.warnings() {
            assert!(source.get(warning.span().range()).is_some());
            assert!(!warning.to_string().contains('\n'));
        }
    }
});
