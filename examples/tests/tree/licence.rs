/// Whether the listed licences fulfil an SPDX expression: `AND` binds closer than `OR`, and the
/// old `MIT/Apache-2.0` means `OR`. What cannot be read is not fulfilled.
pub(crate) fn is_satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    let satisfied = any(&mut words, allowed);
    satisfied == Some(true) && words.is_empty()
}

fn any(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut satisfied = all(words, allowed)?;
    while accept(words, "OR") {
        satisfied |= all(words, allowed)?;
    }
    Some(satisfied)
}

fn all(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut satisfied = single(words, allowed)?;
    while accept(words, "AND") {
        satisfied &= single(words, allowed)?;
    }
    Some(satisfied)
}

fn single(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    if accept(words, "(") {
        let satisfied = any(words, allowed)?;
        return accept(words, ")").then_some(satisfied);
    }
    let (name, rest) = words.split_first()?;
    *words = rest;
    if !accept(words, "WITH") {
        return Some(allowed.contains(name));
    }
    let (exception, rest) = words.split_first()?;
    *words = rest;
    Some(allowed.contains(&format!("{name} WITH {exception}").as_str()))
}

fn accept(words: &mut &[&str], word: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == word => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[test]
fn expressions_are_fulfilled_by_listed_licences_only() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-2.0-only", false),
        ("MIT OR GPL-2.0-only", true),
        ("GPL-2.0-only/MIT", true),
        ("MIT AND GPL-2.0-only", false),
        ("(MIT OR GPL-2.0-only) AND ISC", true),
        ("GPL-2.0-only OR MIT AND GPL-3.0-only", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("MIT WITH LLVM-exception", false),
        ("", false),
        ("MIT OR", false),
        ("(MIT", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(
            is_satisfied(expression, &allowed),
            expected,
            "{expression:?}"
        );
    }
}
