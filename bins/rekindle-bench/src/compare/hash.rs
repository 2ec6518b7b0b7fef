//! One pass of a hash over a file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::stage::Stage;
use crate::process::Watched;
use crate::race::Contender;

/// A program that hashes files.
#[derive(Debug)]
pub(super) struct Hash<'a> {
    pub(super) name: &'static str,
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [&'a str],
    pub(super) file: PathBuf,
}

impl Contender for Hash<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        Stage::settle(&[&self.file])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .arg(&self.file)
            .stdout(Stdio::null());
        Watched::start(self.name, &mut command)?.finish().map(Some)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
