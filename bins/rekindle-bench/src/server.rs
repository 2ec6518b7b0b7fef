//! The server that both sides of a comparison fetch from.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::process::Watched;

/// A running `rekindle-server`.
#[derive(Debug)]
pub(crate) struct Server {
    base: String,
    process: Watched,
}

impl Server {
    /// Starts `program` on a free port of loopback; it serves `data` and writes its log to `log`.
    pub(crate) fn start(program: &Path, data: &Path, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).context("cannot write the server's log")?;
        let mut process = Watched::start(
            "rekindle-server",
            Command::new(program)
                .arg("--data")
                .arg(data)
                .args(["--listen", "127.0.0.1:0"])
                .stdout(Stdio::piped())
                .stderr(file),
        )?;
        let said = process
            .child()
            .stdout
            .take()
            .context("the server has no output")?;
        let mut line = String::new();
        BufReader::new(said)
            .read_line(&mut line)
            .context("cannot hear where the server listens")?;
        let Some(base) = address_in(&line) else {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            bail!("rekindle-server does not serve: {}", log.trim());
        };
        Ok(Self {
            base: base.to_owned(),
            process,
        })
    }

    /// The address of a file in the data folder's `firmware`.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}firmware/{name}", self.base)
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        self.base
            .trim_start_matches("http://")
            .trim_end_matches('/')
    }

    /// Ends it and returns the peak of its resident memory in bytes.
    pub(crate) fn stop(self) -> anyhow::Result<u64> {
        self.process.kill()
    }
}

/// The first URL in what the server says when it is ready.
fn address_in(line: &str) -> Option<&str> {
    line.split_whitespace()
        .find(|word| word.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_where_the_server_listens() {
        let line = "serving data on http://127.0.0.1:4711/ : GET scripts/ and firmware/\n";
        assert_eq!(address_in(line), Some("http://127.0.0.1:4711/"));
        assert_eq!(address_in(""), None);
    }
}
