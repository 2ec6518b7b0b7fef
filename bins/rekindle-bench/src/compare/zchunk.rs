//! zchunk: one compressed file, of which the header and some ranges are fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::programs;

/// The programs.
#[derive(Debug)]
pub(super) struct Zchunk {
    zck: PathBuf,
    delta_size: PathBuf,
}

impl Zchunk {
    pub(super) fn find() -> anyhow::Result<Self> {
        Ok(Self {
            zck: programs::peer("zck")?,
            delta_size: programs::peer("zck_delta_size")?,
        })
    }

    /// Name and version.
    pub(super) fn version(&self) -> anyhow::Result<String> {
        programs::call(Command::new(&self.zck).arg("--version"))
    }

    /// Bytes that an update from `old` to `new` fetches, header included. Its files go to `folder`.
    pub(super) fn fetched(&self, folder: &Path, old: &Path, new: &Path) -> anyhow::Result<u64> {
        let mut delta = Command::new(&self.delta_size);
        for (name, image) in [("old.zck", old), ("new.zck", new)] {
            let out = folder.join(name);
            let _: String = programs::call(Command::new(&self.zck).arg("-o").arg(&out).arg(image))?;
            delta.arg(out);
        }
        let said = programs::call(&mut delta)?;
        in_answer(&said).with_context(|| format!("zck_delta_size says no size: {}", said.trim()))
    }
}

fn in_answer(said: &str) -> Option<u64> {
    let rest = said
        .lines()
        .find_map(|line| line.strip_prefix("Would download "))?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_answer() {
        let said = "Would download 21053877 of 82018882 bytes\nMatched 4134 of 5473 chunks\n";
        assert_eq!(in_answer(said), Some(21_053_877));
        assert_eq!(in_answer("Unable to open file\n"), None);
    }
}
