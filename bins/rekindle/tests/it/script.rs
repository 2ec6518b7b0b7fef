use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs `rekindle script check` in `folder` with `input` on standard input.
fn check(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(["script", "check"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A command that reads no standard input may be gone already.
    stdin.write_all(input).ok();
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("the report is UTF-8")
}

#[test]
fn good_scripts_end_with_0() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("a.htm"),
        "mod cmd UP1 time /allow 1\r\nser",
    )
    .unwrap();
    fs::write(folder.path().join("b.htm"), "").unwrap();
    let output = check(folder.path(), &["a.htm", "b.htm"], b"");
    assert_eq!(stdout(&output), "2 files: 0 errors, 0 warnings\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_bad_line_ends_with_1_and_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let script = b"# B\xfcro\r\n\tmod cmd UP0 prot ireset 05-1234\r\nmod cmd UP0 cfg";
    fs::write(folder.path().join("update.htm"), script).unwrap();
    let output = check(folder.path(), &["update.htm"], b"");
    let expected = "\
error[expected-argument]: expected a URL after \"prot\", found \"ireset\"
 --> update.htm:2:19
  |
2 |     mod cmd UP0 prot ireset 05-1234
  |                      ^^^^^^

error[expected-argument]: expected a URL after \"cfg\", found the end of the line
 --> update.htm:3:16
  |
3 | mod cmd UP0 cfg
  |                ^

1 file: 2 errors, 0 warnings
";
    assert_eq!(stdout(&output), expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn warnings_end_with_1_only_where_they_are_denied() {
    let folder = tempfile::tempdir().unwrap();
    let script = b"mod cmd up1 poll\n";
    let lenient = check(folder.path(), &["-"], script);
    assert!(stdout(&lenient).starts_with("warning[module-case]: "));
    assert_eq!(lenient.status.code(), Some(0));
    let strict = check(folder.path(), &["--deny-warnings", "-"], script);
    assert_eq!(stdout(&strict), stdout(&lenient));
    assert_eq!(strict.status.code(), Some(1));
}

#[test]
fn json_names_every_finding() {
    let folder = tempfile::tempdir().unwrap();
    let script = b"mod cmd up1 poll\nmod cmd UP1 times /allow 24\n";
    let output = check(folder.path(), &["--format", "json", "-"], script);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({ "files": [{ "file": "-", "findings": [
        {
            "severity": "warning", "code": "module-case", "line": 1, "column": 1, "start": 0, "end": 16,
            "message": "module names are case-sensitive: \"up1\" is not the update module",
        },
        {
            "severity": "error", "code": "not-an-hour", "line": 2, "column": 26, "start": 42, "end": 44,
            "message": "expected an hour from 0 to 23 in \"/allow\", found \"24\"",
        },
    ] }] });
    assert_eq!(found, expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_script_beyond_the_limits_is_refused_without_reading_on() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &["/dev/zero"], b"");
    assert!(stdout(&output).starts_with(
        "error[script-too-long]: the script is longer than 1048576 bytes\n--> /dev/zero:1:1\n"
    ));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_missing_file_ends_with_2_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &["none.htm"], b"");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with("rekindle: none.htm: "), "{stderr}");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(check(folder.path(), &[], b"").status.code(), Some(2));
}
