//! `rekindle-bench compare`: the work of a device beside programs that do the same.

mod archive;
mod casync;
mod credentials;
mod device;
mod hash;
mod rauc;
mod report;
mod stage;
mod swupdate;
mod zchunk;

use alloc::collections::BTreeMap;
use core::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use self::casync::Casync;
use self::credentials::Credentials;
use self::device::{Device, Install, Repair, Scan};
use self::hash::Hash;
use self::rauc::Rauc;
use self::report::{Limit, Report, Row, Side};
use self::stage::{NEW, NEW_RAW, OLD, Stage};
use self::swupdate::Swupdate;
use self::zchunk::Zchunk;
use crate::exit::Exit;
use crate::format::Format;
use crate::images::{self, Pair};
use crate::race::{Contender, Lap, race};
use crate::relay::Relay;
use crate::server::Server;
use crate::{medium, programs};

/// The command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// The folder with the images, which `images` fills [default: `bench-images` where this program lies].
    #[arg(long)]
    images: Option<PathBuf>,

    /// Only this work; may be given more than once [default: all of it].
    #[arg(long, value_enum)]
    only: Vec<Work>,

    /// Runs of each side; their median counts. One more of each warms up and is checked byte by byte.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,

    /// A folder on a disk for slots and copies [default: where this program lies].
    #[arg(long)]
    dir: Option<PathBuf>,

    /// The folder of rekindled and rekindle-server [default: where this program lies].
    #[arg(long)]
    bin_dir: Option<PathBuf>,

    /// What the result looks like.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// A full install, nothing compressed.
    Full,
    /// A full install, compressed with zstd.
    FullZstd,
    /// Bytes fetched for an update.
    Bytes,
    /// An install that takes from the other slot what that has.
    Delta,
    /// The repair of one damaged block.
    Repair,
    /// A look at everything in a slot.
    Scan,
}

impl Compare {
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        let bin_dir = programs::folder(self.bin_dir.as_deref())?;
        let programs = Programs::find(&bin_dir)?;
        if !rustix::process::geteuid().is_root() {
            bail!("rauc mounts what it installs: run this as root");
        }
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => programs::folder(None)?,
        };
        let file_system = medium::file_system(&dir)?;
        let pair = Pair::find_or_make(&images::folder(self.images.as_deref())?, self.format)?;
        self.format.progress("packing the images");
        let stage = Stage::set(&dir, &pair)?;
        let server = Server::start(
            &programs.server,
            &stage.path("data"),
            &stage.path("server.log"),
        )?;
        let mut bench = Bench {
            programs: &programs,
            pair: &pair,
            stage: &stage,
            server: &server,
            runs: self.runs,
            format: self.format,
            peak_rss: 0,
            rows: Vec::new(),
            limits: Vec::new(),
        };
        for work in Work::value_variants() {
            if self.only.is_empty() || self.only.contains(work) {
                bench.work(*work)?;
            }
        }
        let Bench {
            rows,
            mut limits,
            peak_rss,
            ..
        } = bench;
        if peak_rss > 0 {
            limits.insert(0, Limit::new("peak RSS of rekindled", peak_rss, MEMORY));
        }
        let _: u64 = server.stop()?;
        let report = Report::new(
            [pair.released(), pair.updated()],
            &file_system,
            programs.versions()?,
            rows,
            limits,
        );
        self.format
            .print(&report)
            .context("cannot print the result")?;
        Ok(if report.is_met() {
            Exit::Met
        } else {
            Exit::Missed
        })
    }
}

/// All programs that take part; one that is missing ends it before anything is measured.
#[derive(Debug)]
struct Programs {
    rekindled: PathBuf,
    server: PathBuf,
    openssl: PathBuf,
    rauc: rauc::Tools,
    swupdate: PathBuf,
    casync: PathBuf,
    zchunk: Zchunk,
    b3sum: PathBuf,
    sha256sum: PathBuf,
}

impl Programs {
    fn find(bin_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            rekindled: programs::own(bin_dir, "rekindled")?,
            server: programs::own(bin_dir, "rekindle-server")?,
            openssl: programs::peer("openssl")?,
            rauc: rauc::Tools::find()?,
            swupdate: programs::peer("swupdate")?,
            casync: programs::peer("casync")?,
            zchunk: Zchunk::find()?,
            b3sum: programs::peer("b3sum")?,
            sha256sum: programs::peer("sha256sum")?,
        })
    }

    /// What each peer says of itself.
    fn versions(&self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let ask = |program: &Path| programs::call(Command::new(program).arg("--version"));
        let said = [
            ("rauc", self.rauc.version()?),
            ("swupdate", ask(&self.swupdate)?),
            ("casync", ask(&self.casync)?),
            ("zchunk", self.zchunk.version()?),
            ("b3sum", ask(&self.b3sum)?),
            ("sha256sum", ask(&self.sha256sum)?),
        ];
        Ok(said
            .into_iter()
            .map(|(name, said)| (name, said.lines().next().unwrap_or_default().to_owned()))
            .collect())
    }
}

/// A comparison under way.
#[derive(Debug)]
struct Bench<'a> {
    programs: &'a Programs,
    pair: &'a Pair,
    stage: &'a Stage,
    server: &'a Server,
    runs: NonZeroUsize,
    format: Format,
    /// The highest of `rekindled` in all its runs.
    peak_rss: u64,
    rows: Vec<Row>,
    limits: Vec<Limit>,
}

impl<'a> Bench<'a> {
    fn work(&mut self, work: Work) -> anyhow::Result<()> {
        match work {
            Work::Full => self.full("full install, chunks raw", NEW_RAW, false),
            Work::FullZstd => self.full("full install, zstd", NEW, true),
            Work::Bytes => self.bytes(),
            Work::Delta => self.delta(),
            Work::Repair => self.repair(),
            Work::Scan => self.scan(),
        }
    }

    fn full(&mut self, work: &'static str, image: &str, compressed: bool) -> anyhow::Result<()> {
        let folder = self.stage.path(work);
        std::fs::create_dir(&folder).context("cannot make a folder")?;
        let credentials = Credentials::make(&self.programs.openssl, &folder)?;
        let (stage, new) = (self.stage, self.pair.updated());
        let mut ours = Install {
            device: self.device(folder.join("device")),
            url: self.server.url(image),
            expected: new,
            donor: None,
        };
        let mut rauc = Rauc::start(stage, &self.programs.rauc, &credentials, new, compressed)?;
        let swupdate = &self.programs.swupdate;
        let mut swupdate = Swupdate::make(stage, swupdate, &credentials, new, compressed)?;
        let mut contenders: [&mut dyn Contender; 3] = [&mut ours, &mut rauc, &mut swupdate];
        let laps = race(work, &mut contenders, self.runs, self.format)?;
        let peak = rauc.stop()?;
        self.row(work, laps, 2, FULL, Some(("rauc install", peak)))
    }

    fn bytes(&mut self) -> anyhow::Result<()> {
        let work = "bytes fetched for the update";
        self.format.progress(work);
        let (old, new) = (self.pair.released(), self.pair.updated());
        let relay = Relay::to(self.server.authority())?;
        let donor = self.donor("bytes-donor")?;
        let device = self.device(self.stage.path("bytes-device"));
        device.reset_with_slot_of(&donor)?;
        let peak = device.call("A", &["install", &relay.url(NEW)])?;
        self.peak_rss = self.peak_rss.max(peak);
        let fetched = relay.take();
        self.stage.check(new, &device.slot('b'))?;
        let casync = Casync::make(self.stage, &self.programs.casync, self.server, old, new)?;
        let folder = self.stage.path("zchunk");
        std::fs::create_dir(&folder).context("cannot make a folder for zchunk")?;
        let zchunk = self.programs.zchunk.fetched(&folder, old, new)?;
        let peers = vec![
            Side::bytes("casync", casync.fetched()?),
            Side::bytes("zchunk", zchunk),
        ];
        let ours = Side::bytes("rekindled install", fetched);
        self.rows.push(Row::new(work, ours, peers, 2, BYTES));
        casync.remove()
    }

    fn delta(&mut self) -> anyhow::Result<()> {
        let work = "delta install";
        let (stage, old, new) = (self.stage, self.pair.released(), self.pair.updated());
        let donor = self.donor("delta-donor")?;
        let mut ours = Install {
            device: self.device(stage.path("delta-device")),
            url: self.server.url(NEW),
            expected: new,
            donor: Some(&donor),
        };
        let mut casync = Casync::make(stage, &self.programs.casync, self.server, old, new)?;
        let mut contenders: [&mut dyn Contender; 2] = [&mut ours, &mut casync];
        let laps = race(work, &mut contenders, self.runs, self.format)?;
        casync.remove()?;
        self.row(work, laps, 1, DELTA, None)
    }

    fn repair(&mut self) -> anyhow::Result<()> {
        let work = "repair of one damaged block";
        let old = self.pair.released();
        let relay = Relay::to(self.server.authority())?;
        let device = self.donor("repair-device")?;
        let mut ours = Repair {
            url: self.server.url(OLD),
            expected: old,
            device,
            damage: self.pair.size() / 3 / BLOCK * BLOCK,
        };
        ours.prepare()?;
        ours.repair_from(&relay.url(OLD))?;
        ours.check()?;
        self.limits.push(Limit::new(
            "fetched by a repair, everything counted",
            relay.take(),
            REPAIR_BYTES,
        ));
        let mut hashes = self.hashes(&ours.device.slot('a'), true);
        let mut contenders: Vec<&mut dyn Contender> = vec![&mut ours];
        contenders.extend(hashes.iter_mut().map(|hash| -> &mut dyn Contender { hash }));
        let laps = race(work, &mut contenders, self.runs, self.format)?;
        self.row(work, laps, 1, REPAIR, None)
    }

    fn scan(&mut self) -> anyhow::Result<()> {
        let work = "scan of a slot";
        let device = self.donor("scan-device")?;
        let mut hashes = self.hashes(&device.slot('a'), false);
        let mut ours = Scan { device };
        let mut contenders: Vec<&mut dyn Contender> = vec![&mut ours];
        contenders.extend(hashes.iter_mut().map(|hash| -> &mut dyn Contender { hash }));
        let laps = race(work, &mut contenders, self.runs, self.format)?;
        self.row(work, laps, 1, SCAN, None)
    }

    /// Passes over a file; that of our own hash first.
    fn hashes(&self, file: &Path, all: bool) -> Vec<Hash<'a>> {
        let mut hashes = vec![Hash {
            name: "b3sum --num-threads 1",
            program: &self.programs.b3sum,
            arguments: &["--num-threads", "1"],
            file: file.to_owned(),
        }];
        if all {
            hashes.push(Hash {
                name: "sha256sum",
                program: &self.programs.sha256sum,
                arguments: &[],
                file: file.to_owned(),
            });
        }
        hashes
    }

    fn device(&self, folder: PathBuf) -> Device<'a> {
        Device::new(self.stage, &self.programs.rekindled, folder)
    }

    /// A device whose slot A has the old image.
    fn donor(&mut self, name: &str) -> anyhow::Result<Device<'a>> {
        let donor = self.device(self.stage.path(name));
        donor.reset()?;
        let peak = donor.call("B", &["install", &self.server.url(OLD)])?;
        self.peak_rss = self.peak_rss.max(peak);
        self.stage.check(self.pair.released(), &donor.slot('a'))?;
        Ok(donor)
    }

    /// Books a row: the first lap is ours. `peak`: of a peer whose runs do not tell it.
    fn row(
        &mut self,
        work: &'static str,
        mut laps: Vec<Lap>,
        counted: usize,
        target: f64,
        peak: Option<(&'static str, u64)>,
    ) -> anyhow::Result<()> {
        if let Some((name, peak)) = peak {
            for lap in laps.iter_mut().filter(|lap| lap.name == name) {
                lap.peak_rss = Some(peak);
            }
        }
        let peers = laps.split_off(1);
        let ours = laps.pop().context("nobody took part")?;
        self.peak_rss = self.peak_rss.max(ours.peak_rss.unwrap_or(0));
        let peers = peers.into_iter().map(Side::from).collect();
        self.rows
            .push(Row::new(work, ours.into(), peers, counted, target));
        Ok(())
    }
}

/// A full install beside the faster of rauc and swupdate.
const FULL: f64 = 0.9;

/// Bytes fetched beside the smaller of casync and zchunk.
const BYTES: f64 = 0.9;

/// A delta install beside casync.
const DELTA: f64 = 0.8;

/// A repair beside one pass of our own hash.
const REPAIR: f64 = 1.3;

/// A scan beside one pass of our own hash.
const SCAN: f64 = 1.1;

/// Resident memory of the agent.
const MEMORY: u64 = 12 << 20;

/// Chunks that the repair of one block may fetch.
const REPAIR_BYTES: u64 = 64 << 10;

const BLOCK: u64 = 4096;
