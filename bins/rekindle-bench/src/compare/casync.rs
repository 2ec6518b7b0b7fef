//! casync: chunks in a store, fetched over HTTP as far as a seed does not have them.

use alloc::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::stage::{Stage, remove, tail};
use crate::medium;
use crate::process::Watched;
use crate::programs;
use crate::race::Contender;
use crate::server::Server;

/// Both versions in stores, the new one's where the server serves it.
#[derive(Debug)]
pub(super) struct Casync<'a> {
    stage: &'a Stage,
    program: &'a Path,
    seed: &'a Path,
    expected: &'a Path,
    folder: PathBuf,
    index: String,
    store: String,
}

impl<'a> Casync<'a> {
    /// Makes both stores.
    pub(super) fn make(
        stage: &'a Stage,
        program: &'a Path,
        server: &Server,
        old: &'a Path,
        new: &'a Path,
    ) -> anyhow::Result<Self> {
        let folder = stage.path("casync");
        std::fs::create_dir(&folder).context("cannot make a folder for casync")?;
        let served = stage.path("data/firmware");
        for (image, folder, name) in [(old, &folder, "old"), (new, &served, "new")] {
            let _: String = programs::call(
                Command::new(program)
                    .arg("make")
                    .arg(format!(
                        "--store={}",
                        folder.join(format!("{name}.castr")).display()
                    ))
                    .arg(folder.join(format!("{name}.caibx")))
                    .arg(image),
            )?;
        }
        Ok(Self {
            stage,
            program,
            seed: old,
            expected: new,
            folder,
            index: server.url("new.caibx"),
            store: server.url("new.castr"),
        })
    }

    /// Bytes that an update fetches: the index, and the chunks that the old version lacks.
    pub(super) fn fetched(&self) -> anyhow::Result<u64> {
        let served = self.stage.path("data/firmware");
        let old = chunks(&self.folder.join("old.castr"))?;
        let new = chunks(&served.join("new.castr"))?;
        let index = std::fs::metadata(served.join("new.caibx"))
            .context("casync made no index")?
            .len();
        let missing = new.iter().filter(|(name, _)| !old.contains_key(*name));
        Ok(index + missing.map(|(_, len)| len).sum::<u64>())
    }

    /// Removes both stores.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        let served = self.stage.path("data/firmware");
        std::fs::remove_dir_all(served.join("new.castr"))
            .and_then(|()| std::fs::remove_file(served.join("new.caibx")))
            .and_then(|()| std::fs::remove_dir_all(&self.folder))
            .context("cannot remove casync's stores")
    }

    fn out(&self) -> PathBuf {
        self.folder.join("out.img")
    }
}

impl Contender for Casync<'_> {
    fn name(&self) -> &'static str {
        "casync extract --seed"
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        remove(&self.out())?;
        Stage::settle(&[self.seed])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        let log = self.folder.join("log");
        let said = File::create(&log).context("cannot write casync's log")?;
        let mut command = Command::new(self.program);
        command
            .arg("extract")
            .arg(format!("--store={}", self.store))
            .arg(format!("--seed={}", self.seed.display()))
            .arg(&self.index)
            .arg(self.out())
            .stderr(said.try_clone().context("cannot write casync's log")?)
            .stdout(said);
        let peak = Watched::start("casync", &mut command)?
            .finish()
            .with_context(|| format!("casync said: {}", tail(&log)))?;
        medium::make_durable(&self.out())?;
        Ok(Some(peak))
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.stage.check(self.expected, &self.out())
    }
}

/// The chunks of a store, by name, with their stored length.
fn chunks(store: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let list = |folder: &Path| {
        std::fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot list {}", folder.display()))
    };
    let mut found = BTreeMap::new();
    for folder in list(store)? {
        for chunk in list(&folder.path())? {
            let len = chunk.metadata().context("cannot look at a chunk")?.len();
            found.insert(chunk.file_name().to_string_lossy().into_owned(), len);
        }
    }
    Ok(found)
}
