//! Packages from the archive that this machine is configured to use.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::EPOCH;
use crate::programs;

/// Lines for a list of sources.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) suite: String,
    /// The release alone.
    pub(super) released: Vec<String>,
    /// With what came after it.
    pub(super) updated: Vec<String>,
}

impl Archive {
    /// Asks apt where it gets its packages from.
    pub(super) fn configured(apt_get: &Path) -> anyhow::Result<Self> {
        let targets = programs::call(Command::new(apt_get).args([
            "indextargets",
            "--format",
            "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)",
        ]))?;
        parse(&targets).context(
            "apt is configured for no Debian release with its security updates: both are needed",
        )
    }
}

/// The release is the one whose security updates are configured too.
fn parse(targets: &str) -> Option<Archive> {
    let found: Vec<(&str, &str)> = targets
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                ["Packages", uri, suite, "main"] => Some((uri, suite)),
                _ => None,
            }
        })
        .collect();
    let suite = found
        .iter()
        .filter_map(|(_, suite)| suite.strip_suffix("-security"))
        .find(|base| found.iter().any(|(_, suite)| suite == base))?;
    let lines = |suffixes: &[&str]| {
        let mut lines = Vec::new();
        for (uri, found) in &found {
            let line = format!("deb {uri} {found} main");
            let wanted = found
                .strip_prefix(suite)
                .is_some_and(|rest| suffixes.contains(&rest));
            if wanted && !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    };
    Some(Archive {
        suite: suite.to_owned(),
        released: lines(&[""]),
        updated: lines(&["", "-updates", "-security"]),
    })
}

/// Unpacks and configures the packages below `root`.
pub(super) fn unpack(
    mmdebstrap: &Path,
    suite: &str,
    sources: &[String],
    root: &Path,
) -> anyhow::Result<()> {
    let mut command = Command::new(mmdebstrap);
    command
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .args(["--quiet", "--mode=root", "--format=directory"])
        .arg("--variant=minbase")
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg("--aptopt=APT::Install-Recommends \"false\"");
    if Path::new(MERGED).is_dir() {
        command.arg(format!("--hook-dir={MERGED}"));
    }
    for folder in ["doc", "man", "info", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command.arg(suite).arg(root).args(sources);
    let _: String = programs::call(&mut command)?;
    Ok(())
}

/// What a small router or camera with a web server and some scripts has.
pub(super) const PACKAGES: [&str; 18] = [
    "usr-is-merged",
    "avahi-daemon",
    "busybox",
    "ca-certificates",
    "curl",
    "dnsmasq-base",
    "gstreamer1.0-tools",
    "iproute2",
    "logrotate",
    "nftables",
    "nginx-light",
    "openssh-server",
    "openssl",
    "php-cgi",
    "python3",
    "rsync",
    "tzdata",
    "wpasupplicant",
];

/// Merges `/bin` with `/usr/bin` before the first package, which then needs no program for it.
const MERGED: &str = "/usr/share/mmdebstrap/hooks/merged-usr";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_release_whose_security_updates_are_configured() {
        let targets = "\
Packages http://a/debian/ bookworm main
Packages http://a/debian/ bookworm main
Packages http://a/debian/ bookworm contrib
Packages http://a/debian/ bookworm-updates main
Packages http://a/debian/ bookworm-backports main
Translations http://a/debian/ bookworm main
Packages http://b/tools/ tools-bookworm main
Packages http://a/security/ bookworm-security main
";
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let expected = Archive {
            suite: "bookworm".to_owned(),
            released: lines(&["deb http://a/debian/ bookworm main"]),
            updated: lines(&[
                "deb http://a/debian/ bookworm main",
                "deb http://a/debian/ bookworm-updates main",
                "deb http://a/security/ bookworm-security main",
            ]),
        };
        assert_eq!(parse(targets), Some(expected));
    }

    #[test]
    fn without_security_updates_there_is_no_second_version() {
        assert_eq!(parse("Packages http://a/debian/ bookworm main\n"), None);
        assert_eq!(parse("Packages http://a/ bookworm-security main\n"), None);
    }
}
