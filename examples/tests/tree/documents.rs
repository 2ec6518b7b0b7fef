use std::path::{Component, Path, PathBuf};

use super::{assert_none, read, root, tracked_files};

#[test]
fn relative_links_in_documents_lead_somewhere() {
    let mut findings = Vec::new();
    let files = tracked_files();
    for path in files
        .iter()
        .filter(|path| Path::new(path).extension().is_some_and(|e| e == "md"))
    {
        let folder = Path::new(path).parent().expect("a file lies in a folder");
        for target in links(&read(path)) {
            if !root().join(resolve(folder, &target)).exists() {
                findings.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none("broken links", &findings);
}

/// Targets of `[text](target)` outside of code blocks, without `#anchors`, without web addresses.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut targets = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, opening) in line.match_indices("](") {
            let rest = &line[at + opening.len()..];
            let target = rest
                .split([')', '#'])
                .next()
                .expect("split yields one part at least");
            if !target.is_empty() && !target.contains(':') {
                targets.push(target.to_owned());
            }
        }
    }
    targets
}

fn resolve(folder: &Path, target: &str) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            Component::Normal(name) => resolved.push(name),
            // An absolute target leads out of the repository: it will not be found.
            Component::RootDir | Component::Prefix(_) => resolved.push("absolute"),
        }
    }
    resolved
}
