//! `SWUpdate`: a signed archive with one image for its raw handler.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::archive::Archive;
use super::credentials::Credentials;
use super::stage::{Stage, tail};
use crate::medium;
use crate::process::Watched;
use crate::programs;
use crate::race::Contender;

/// An update, and the slot that it goes to.
#[derive(Debug)]
pub(super) struct Swupdate<'a> {
    stage: &'a Stage,
    program: &'a Path,
    certificate: &'a Path,
    expected: &'a Path,
    folder: PathBuf,
}

impl<'a> Swupdate<'a> {
    /// Makes an update of `image`, compressed with zstd or not at all.
    pub(super) fn make(
        stage: &'a Stage,
        program: &'a Path,
        credentials: &'a Credentials,
        image: &'a Path,
        compressed: bool,
    ) -> anyhow::Result<Self> {
        let folder = stage.path(if compressed {
            "swupdate-zstd"
        } else {
            "swupdate"
        });
        std::fs::create_dir(&folder).context("cannot make a folder for swupdate")?;
        let payload = folder.join(PAYLOAD);
        if compressed {
            compress(image, &payload)?;
        } else {
            std::fs::copy(image, &payload).context("cannot copy the image for swupdate")?;
        }
        let sum = programs::call(Command::new("sha256sum").arg(&payload))?;
        let description = DESCRIPTION
            .replace("PAYLOAD", PAYLOAD)
            .replace(
                "COMPRESSED",
                if compressed {
                    "compressed = \"zstd\";"
                } else {
                    ""
                },
            )
            .replace("SUM", sum.split(' ').next().unwrap_or_default())
            .replace("SLOT", &folder.join(SLOT).display().to_string());
        let (list, signature) = (folder.join(LIST), folder.join(SIGNATURE));
        std::fs::write(&list, description).context("cannot describe the update")?;
        credentials.sign(&list, &signature)?;
        let mut archive = Archive::create(&folder.join(UPDATE))?;
        for (name, path) in [(LIST, &list), (SIGNATURE, &signature), (PAYLOAD, &payload)] {
            archive.add(name, path)?;
        }
        archive.finish()?;
        std::fs::remove_file(&payload).context("cannot remove what the archive has")?;
        Ok(Self {
            stage,
            program,
            certificate: credentials.certificate(),
            expected: image,
            folder,
        })
    }
}

impl Contender for Swupdate<'_> {
    fn name(&self) -> &'static str {
        "swupdate -i"
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        self.stage.empty_slot(&self.folder.join(SLOT))?;
        Stage::settle(&[])
    }

    fn run(&mut self) -> anyhow::Result<Option<u64>> {
        let log = self.folder.join("log");
        let said = File::create(&log).context("cannot write swupdate's log")?;
        let mut command = Command::new(self.program);
        command
            .arg("-k")
            .arg(self.certificate)
            // It marks nothing in a boot loader that is not there.
            .args(["-H", "bench:1.0", "-M", "-m", "-i"])
            .arg(self.folder.join(UPDATE))
            // Its sockets lie there.
            .env("TMPDIR", &self.folder)
            .stderr(said.try_clone().context("cannot write swupdate's log")?)
            .stdout(said);
        let peak = Watched::start("swupdate", &mut command)?
            .finish()
            .with_context(|| format!("swupdate said: {}", tail(&log)))?;
        medium::make_durable(&self.folder.join(SLOT))?;
        Ok(Some(peak))
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.stage.check(self.expected, &self.folder.join(SLOT))
    }
}

fn compress(image: &Path, out: &Path) -> anyhow::Result<()> {
    let input = File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let output = File::create(out).context("cannot compress the image")?;
    let mut output = BufWriter::with_capacity(1 << 20, output);
    zstd::stream::copy_encode(BufReader::with_capacity(1 << 20, input), &mut output, LEVEL)
        .and_then(|()| output.flush())
        .context("cannot compress the image")
}

const UPDATE: &str = "update.swu";
const LIST: &str = "sw-description";
const SIGNATURE: &str = "sw-description.sig";
const PAYLOAD: &str = "rootfs.img";
const SLOT: &str = "slot.img";

/// Levels decode at much the same speed; this one takes seconds.
const LEVEL: i32 = 9;

const DESCRIPTION: &str = r#"software = {
  version = "2";
  hardware-compatibility: [ "1.0" ];
  images: ( {
    filename = "PAYLOAD";
    type = "raw";
    COMPRESSED
    device = "SLOT";
    installed-directly = true;
    sha256 = "SUM";
  } );
}
"#;
