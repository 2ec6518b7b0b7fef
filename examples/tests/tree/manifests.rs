use std::collections::BTreeSet;

use super::metadata::Metadata;
use super::{assert_none, decisions, read, root};

#[test]
fn members_share_one_rust_version_and_one_licence() {
    let versions: BTreeSet<(Option<String>, Option<String>)> = Metadata::load()
        .members()
        .map(|member| (member.rust_version.clone(), member.license.clone()))
        .collect();
    let expected = (Some("1.95".to_owned()), Some("Apache-2.0".to_owned()));
    assert_eq!(versions, BTreeSet::from([expected]));
}

#[test]
fn members_take_the_lints_of_the_workspace_or_a_decision_says_why_not() {
    let decisions = decisions();
    let mut findings = Vec::new();
    for member in Metadata::load().members() {
        let text = std::fs::read_to_string(&member.manifest).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        let shared = lints.and_then(toml::Value::as_bool) == Some(true);
        if !shared && !decisions.contains(&relative(&member.manifest)) {
            findings.push(relative(&member.manifest));
        }
    }
    assert_none(
        "neither workspace lints nor a page in docs/decisions",
        &findings,
    );
}

/// A table cannot inherit the workspace's and change one line, so it is a copy.
#[test]
fn a_member_with_lints_of_its_own_differs_in_unsafe_code_alone() {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let mut expected = workspace["workspace"]["lints"].clone();
    expected["rust"]["unsafe_code"] = toml::Value::String("deny".to_owned());
    let mut findings = Vec::new();
    for member in Metadata::load().members() {
        let text = std::fs::read_to_string(&member.manifest).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let lints = manifest.get("lints").unwrap();
        if lints.get("workspace").is_none() && *lints != expected {
            findings.push(relative(&member.manifest));
        }
    }
    assert_none(
        "lints that are not the workspace's with `unsafe_code` denied",
        &findings,
    );
}

#[test]
fn every_library_ships_a_licence_and_a_readme_and_the_front_page_lists_it() {
    let front = read("README.md");
    let mut findings = Vec::new();
    for member in Metadata::load()
        .members()
        .filter(|member| member.is_published)
    {
        let folder = relative(&member.manifest).replace("/Cargo.toml", "");
        for file in ["LICENSE", "README.md"] {
            if !root().join(&folder).join(file).is_file() {
                findings.push(format!("{folder} has no {file}"));
            }
        }
        if !front.contains(&format!("({folder})")) {
            findings.push(format!("README.md does not link to {folder}"));
        }
    }
    assert_none("libraries and their front pages", &findings);
}

fn relative(manifest: &str) -> String {
    let root = root();
    let path = std::path::Path::new(manifest);
    let path = path
        .strip_prefix(&root)
        .expect("members lie in the workspace");
    path.to_str().expect("our file names are ASCII").to_owned()
}
