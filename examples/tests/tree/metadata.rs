use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// One package of the lock file, as cargo resolved it.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) manifest: String,
    pub(crate) is_member: bool,
    pub(crate) is_published: bool,
    /// Ids of what it needs to be built: its normal and its build dependencies.
    needs: BTreeSet<String>,
}

/// What `cargo metadata` knows, with all features and for all platforms.
pub(crate) struct Metadata {
    packages: BTreeMap<String, Package>,
}

impl Metadata {
    pub(crate) fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--all-features"])
            .current_dir(super::root())
            .output()
            .expect("cargo runs this test");
        assert!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let members: BTreeSet<&str> = list(&metadata["workspace_members"])
            .map(|id| id.as_str().unwrap())
            .collect();
        let mut packages: BTreeMap<String, Package> = list(&metadata["packages"])
            .map(|package| {
                let id = text(&package["id"]).unwrap();
                let is_member = members.contains(id.as_str());
                (id, Package::from_json(package, is_member))
            })
            .collect();
        for node in list(&metadata["resolve"]["nodes"]) {
            let needs = list(&node["deps"])
                .filter(|dependency| {
                    list(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev")
                })
                .map(|dependency| text(&dependency["pkg"]).unwrap())
                .collect();
            packages
                .get_mut(node["id"].as_str().unwrap())
                .expect("every resolved node is a package")
                .needs = needs;
        }
        Self { packages }
    }

    pub(crate) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages().filter(|package| package.is_member)
    }

    /// Every pair (user, used) among what our members need to be built.
    pub(crate) fn arrows(&self) -> Vec<(&str, &str)> {
        let members = self
            .packages
            .iter()
            .filter(|(_, package)| package.is_member);
        self.reachable(members.map(|(id, _)| id.as_str()).collect())
            .into_iter()
            .flat_map(|id| {
                let user = &self.packages[id];
                let used = user.needs.iter().map(|id| self.packages[id].name.as_str());
                used.map(|used| (user.name.as_str(), used))
            })
            .collect()
    }

    /// Names of everything that one member needs to be built, itself included.
    pub(crate) fn closure(&self, member: &str) -> BTreeSet<&str> {
        let start = self
            .packages
            .iter()
            .find(|(_, package)| package.is_member && package.name == member)
            .unwrap_or_else(|| panic!("{member} is not a member"));
        self.reachable(vec![start.0])
            .into_iter()
            .map(|id| self.packages[id].name.as_str())
            .collect()
    }

    fn reachable<'a>(&'a self, mut open: Vec<&'a str>) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.packages[id].needs.iter().map(String::as_str));
            }
        }
        seen
    }
}

impl Package {
    fn from_json(package: &Value, is_member: bool) -> Self {
        Self {
            name: text(&package["name"]).unwrap(),
            version: text(&package["version"]).unwrap(),
            license: text(&package["license"]),
            rust_version: text(&package["rust_version"]),
            manifest: text(&package["manifest_path"]).unwrap(),
            is_member,
            // Absent: may go anywhere. An empty list: nowhere.
            is_published: package["publish"].is_null(),
            needs: BTreeSet::new(),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value
        .as_array()
        .expect("cargo metadata has a list here")
        .iter()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
