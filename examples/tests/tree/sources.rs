use super::{assert_none, decisions, read, tracked_files};

/// Code lines of the windows of a crate, of a program, and of any other file.
const LIB_LINES: usize = 200;
const MAIN_LINES: usize = 80;
const FILE_LINES: usize = 600;

fn rust_files() -> impl Iterator<Item = (String, String)> {
    let files = tracked_files().into_iter();
    files.filter(|path| has_extension(path, "rs")).map(|path| {
        let text = read(&path);
        (path, text)
    })
}

fn has_extension(path: &str, extension: &str) -> bool {
    std::path::Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

fn line_limit(path: &str) -> usize {
    match path.rsplit_once('/') {
        Some((folder, "lib.rs")) if folder.ends_with("src") => LIB_LINES,
        Some((folder, "main.rs")) if folder.ends_with("src") => MAIN_LINES,
        _ => FILE_LINES,
    }
}

fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

#[test]
fn files_stay_within_their_size_or_a_decision_says_why_not() {
    let decisions = decisions();
    let findings: Vec<String> = rust_files()
        .filter_map(|(path, text)| {
            let lines = text.lines().filter(|line| is_code(line)).count();
            let limit = line_limit(&path);
            (lines > limit && !decisions.contains(&path))
                .then(|| format!("{path}: {lines} code lines, at most {limit}"))
        })
        .collect();
    assert_none(
        "split the file, or write a page in docs/decisions",
        &findings,
    );
}

#[test]
fn files_are_named_for_what_they_hold() {
    let findings: Vec<String> = tracked_files()
        .into_iter()
        .filter(|path| {
            let rooms = path.trim_end_matches(".rs").trim_end_matches("/mod");
            let room = rooms
                .rsplit('/')
                .next()
                .expect("rsplit yields one part at least");
            has_extension(path, "rs")
                && [
                    "util", "utils", "helper", "helpers", "common", "types", "misc", "manager",
                ]
                .contains(&room)
        })
        .collect();
    assert_none("rooms without a name of their own", &findings);
}

/// The words are put together here so that this file does not contain them.
#[test]
fn tracked_files_name_no_issue_no_machine_path_and_no_registry_host() {
    let words: Vec<String> = [
        ["/wo", "rk/"],
        ["/fa", "rm/"],
        ["/ro", "ot/"],
        ["/tmp/", "target"],
        ["../sha", "red"],
        ["crates", ".io"],
        ["pypi", ".org"],
        ["npmjs", ".com"],
        ["debian", ".org"],
        ["co-authored", "-by"],
    ]
    .iter()
    .map(|halves| halves.concat())
    .collect();
    let mut findings = Vec::new();
    // Lock files name the registry they came from.
    for path in tracked_files()
        .iter()
        .filter(|path| !has_extension(path, "lock"))
    {
        for (number, line) in read(path).lines().enumerate() {
            let line = line.to_lowercase();
            let word = words.iter().find(|word| line.contains(word.as_str()));
            if word.is_some() || names_an_issue(&line) {
                findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("words that do not belong in the project", &findings);
}

/// Whether a line in lower case has the word for a ticket, a blank and a number.
fn names_an_issue(line: &str) -> bool {
    line.match_indices(concat!("iss", "ue ")).any(|(at, word)| {
        let starts_word = !line[..at].ends_with(|c: char| c.is_alphanumeric());
        let rest = &line[at + word.len()..];
        starts_word && rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[test]
fn ignored_tests_say_why() {
    let bare = concat!("#[", "ignore]");
    assert_none("add a reason", &lines_with(|line| line.contains(bare)));
}

#[test]
fn unsafe_code_lies_in_the_files_that_a_decision_names() {
    let decisions = decisions();
    let words = ["{", "fn", "impl", "trait", "extern"].map(|next| format!("uns{} {next}", "afe"));
    let attribute = concat!("uns", "afe(");
    let mut files: Vec<String> = rust_files()
        .filter(|(_, text)| {
            let mut lines = text.lines().filter(|line| is_code(line));
            lines.any(|line| {
                line.contains(attribute) || words.iter().any(|word| line.contains(word))
            })
        })
        .map(|(path, _)| path)
        .collect();
    files.retain(|path| !decisions.contains(path));
    assert_none("files with unsafe code and no decision", &files);
}

#[test]
fn comments_are_neither_banners_nor_forms() {
    let banners = [concat!("// ", "==="), concat!("// ", "---")];
    let forms = ["# Arguments", "# Parameters", "# Returns"];
    let findings = lines_with(|line| {
        let line = line.trim_start();
        let form = line
            .strip_prefix("/// ")
            .or_else(|| line.strip_prefix("//! "));
        banners.iter().any(|banner| line.starts_with(banner))
            || form.is_some_and(|heading| forms.contains(&heading.trim_end()))
    });
    assert_none("let the code have structure instead", &findings);
}

fn lines_with(is_finding: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in rust_files() {
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| is_finding(line));
        findings
            .extend(lines.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())));
    }
    findings
}
