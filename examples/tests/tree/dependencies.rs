use std::collections::BTreeMap;

use super::metadata::Metadata;
use super::{assert_none, licence, read};

/// Layer of every crate of ours; an arrow goes from a higher layer to a lower one.
const LAYERS: [(&str, u8); 15] = [
    ("rekindle-script", 0),
    ("rekindle-image", 0),
    ("rekindle-flash", 0),
    ("rekindle-state", 1),
    ("rekindle-testkit", 1),
    ("rekindle-update", 2),
    ("rekindle-peer", 2),
    ("rekindle-upload", 2),
    ("rekindle-device", 3),
    ("rekindle-fleet", 3),
    ("rekindle", 4),
    ("rekindled", 4),
    ("rekindle-server", 4),
    ("rekindle-bench", 4),
    ("rekindle-examples", 4),
];

/// Sockets, runtimes and TLS: only layers 3 and 4 have them.
const SYSTEM_CRATES: [&str; 8] = [
    "axum", "hyper", "mio", "reqwest", "ring", "rustls", "socket2", "tokio",
];

/// What `deny.toml` says under `[bans] deny`: a name, and who may use it (nobody: banned).
fn bans() -> BTreeMap<String, Vec<String>> {
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    let rules = deny["bans"]["deny"].as_array().unwrap();
    rules
        .iter()
        .map(|rule| {
            let wrappers = rule.get("wrappers").map_or_else(Vec::new, |wrappers| {
                let wrappers = wrappers.as_array().unwrap().iter();
                wrappers
                    .map(|name| name.as_str().unwrap().to_owned())
                    .collect()
            });
            (rule["crate"].as_str().unwrap().to_owned(), wrappers)
        })
        .collect()
}

fn layer(name: &str) -> u8 {
    LAYERS
        .iter()
        .find(|(member, _)| *member == name)
        .unwrap_or_else(|| panic!("{name} has no layer: give it one in this file"))
        .1
}

#[test]
fn arrows_between_crates_are_those_of_deny_toml() {
    let metadata = Metadata::load();
    let bans = bans();
    let findings: Vec<String> = metadata
        .arrows()
        .into_iter()
        .filter(|(user, used)| {
            let allowed = bans.get(*used);
            allowed.is_some_and(|allowed| !allowed.iter().any(|name| name == user))
        })
        .map(|(user, used)| format!("{user} uses {used}"))
        .collect();
    assert_none("deny.toml allows these to nobody or to others", &findings);
}

#[test]
fn every_library_of_ours_has_an_entry_in_deny_toml() {
    let bans = bans();
    let findings: Vec<String> = Metadata::load()
        .members()
        .filter(|member| member.is_published && bans.get(&member.name).is_none_or(Vec::is_empty))
        .map(|member| member.name.clone())
        .collect();
    assert_none("[bans] deny does not say who may use", &findings);
}

#[test]
fn deny_toml_allows_arrows_that_go_down_only() {
    let mut findings = Vec::new();
    for (used, users) in bans() {
        if !LAYERS.iter().any(|(member, _)| *member == used) {
            continue;
        }
        let upwards = users.iter().filter(|user| layer(user) <= layer(&used));
        findings.extend(upwards.map(|user| format!("{user} -> {used}")));
    }
    assert_none("not an arrow from a higher layer to a lower one", &findings);
}

#[test]
fn below_device_and_fleet_there_are_no_sockets_and_no_runtime() {
    let metadata = Metadata::load();
    let mut findings = Vec::new();
    for member in metadata.members().filter(|member| layer(&member.name) < 3) {
        let closure = metadata.closure(&member.name);
        let system = SYSTEM_CRATES.iter().filter(|name| closure.contains(*name));
        findings.extend(system.map(|name| format!("{} needs {name}", member.name)));
    }
    assert_none("crates that work without I/O", &findings);
}

#[test]
fn the_agent_has_no_command_line_parser_and_renders_no_diagnostics() {
    let metadata = Metadata::load();
    let closure = metadata.closure("rekindled");
    let findings: Vec<String> = [
        "annotate-snippets",
        "ariadne",
        "clap",
        "indicatif",
        "miette",
    ]
    .iter()
    .filter(|name| closure.contains(*name))
    .map(|name| (*name).to_owned())
    .collect();
    assert_none("rekindled links", &findings);
}

/// In the whole lock file, that is also where only a test or another platform would use it.
#[test]
fn banned_crates_are_not_locked() {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let locked = lock["package"].as_array().unwrap();
    let bans = bans();
    let findings: Vec<String> = locked
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .filter(|name| bans.get(*name).is_some_and(Vec::is_empty))
        .map(str::to_owned)
        .collect();
    assert_none("banned by deny.toml", &findings);
}

#[test]
fn every_locked_package_has_a_licence_on_the_list() {
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    let allow: Vec<&str> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let findings: Vec<String> = Metadata::load()
        .packages()
        .filter(|package| {
            let expression = package.license.as_deref().unwrap_or_default();
            !licence::is_satisfied(expression, &allow)
        })
        .map(|package| {
            let licence = package.license.as_deref().unwrap_or("no licence");
            format!("{} {}: {licence}", package.name, package.version)
        })
        .collect();
    assert_none("not covered by [licenses] allow in deny.toml", &findings);
}
