//! `rekindle demo`: the whole system on this machine. The web server runs in this process, every
//! device is a board of this process with an agent as a process of its own, and all they say to
//! each other goes over HTTP. Nothing of the update is simulated but the hardware.

mod agent;
mod board;
mod factory;
mod firmware;
mod loader;
mod screen;
mod site;
mod story;
mod watch;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::board::{Board, Gauge};
use self::factory::{Factory, POLL_SECONDS};
use self::firmware::{Firmware, firmwares};
use self::screen::{Mebibytes, Screen, Teller};
use self::site::Site;
use self::story::{CANARY_SCRIPT, Device, IMAGE, SCRIPT, Story};
use self::watch::Watch;
use crate::exit::Exit;

pub(crate) use self::agent::{DemoAgent, DemoReset};

/// Run a server and devices on this machine and show how they update, and fall back.
///
/// The devices load firmware made of files of this machine, restart into it and confirm it; then one
/// of them gets a firmware that never confirms. Everything happens in a temporary folder, which is
/// gone afterwards.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End with the story; the exit status is 0 if all went as it must, 1 if not.
    #[arg(long)]
    once: bool,
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    devices: u8,
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let folder = tempfile::Builder::new().prefix("rekindle-demo-").tempdir();
        let folder = folder.context("cannot make a temporary folder")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.perform(folder))
    }

    /// Plays the story on a stage, and clears the stage however it ends.
    async fn perform(self, folder: TempDir) -> anyhow::Result<Exit> {
        let (teller, lines) = Screen::teller();
        let (watches, rows) = mpsc::unbounded_channel();
        let screen = Screen::start(lines, rows);
        let mut stage = Stage::new(folder, teller.clone(), watches);
        let mut stop = StopSignal::new()?;
        let ended = tokio::select! {
            ended = stage.play(&self) => ended.map(Some),
            () = stop.come() => Ok(None),
        };
        let cleared = stage.clear().await;
        let exit = match ended {
            Ok(Some(0)) => {
                teller.tell("\nAll went as it must.");
                Exit::Done
            }
            Ok(Some(failures)) => {
                teller.tell(format!("\n{failures} of these did not go as they must."));
                Exit::No
            }
            Ok(None) if self.once => {
                teller.tell("\nInterrupted before the end.");
                Exit::No
            }
            Ok(None) => Exit::Done,
            Err(error) => {
                screen.stop().await;
                return Err(error);
            }
        };
        screen.stop().await;
        cleared?;
        Ok(exit)
    }
}

/// Everything that must be gone afterwards.
struct Stage {
    folder: TempDir,
    teller: Teller,
    watches: mpsc::UnboundedSender<Watch>,
    /// Tells work that reads and writes files for seconds to give up.
    cancel: Arc<AtomicBool>,
    work: JoinSet<anyhow::Result<PathBuf>>,
    site: Option<Site>,
    off: channel::Sender<bool>,
    boards: JoinSet<anyhow::Result<()>>,
}

impl Stage {
    fn new(folder: TempDir, teller: Teller, watches: mpsc::UnboundedSender<Watch>) -> Self {
        Self {
            folder,
            teller,
            watches,
            cancel: Arc::default(),
            work: JoinSet::new(),
            site: None,
            off: channel::Sender::new(false),
            boards: JoinSet::new(),
        }
    }

    /// Sets everything up and plays; returns how much did not go as it must. Without `--once` a
    /// story that went well never ends.
    async fn play(&mut self, demo: &Demo) -> anyhow::Result<usize> {
        let since = Instant::now();
        let count = usize::from(demo.devices);
        let files = tokio::task::spawn_blocking(firmwares);
        let firmwares = files.await??;
        let program = env::current_exe().context("cannot find the program that runs")?;
        let factory = Factory::new(self.folder.path(), &program, &firmwares)?;
        let factory = Arc::new(factory);
        let mut images = Vec::new();
        for firmware in &firmwares {
            images.push(self.pack(&factory, firmware).await?);
        }
        let [old, new, broken] = images.as_slice() else {
            return Err(anyhow!("as many images as firmwares"));
        };

        let site = Site::start(self.folder.path().join("site")).await?;
        let site = self.site.insert(site);
        let slot = {
            let (factory, image) = (Arc::clone(&factory), old.clone());
            self.work.spawn_blocking(move || factory.fill_slot(&image));
            self.work
                .join_next()
                .await
                .context("the work was given")???
        };
        site.publish_image(old, IMAGE)?;
        let script = story::script(&firmwares[0], &site.url("firmware/"));
        site.publish_script(SCRIPT, &script)?;
        site.publish_script(CANARY_SCRIPT, &script)?;
        let url = site.url("scripts/");
        let canary_url = site.url("scripts/canary/");
        self.teller.tell(format!(
            "The server is at {}; devices: {count}, each polls it every {POLL_SECONDS} s.",
            site.url("")
        ));

        let client = watch::client()?;
        let mut devices = Vec::new();
        for number in 1..=count {
            let url = if number == count { &canary_url } else { &url };
            let delivered = factory.deliver(number, &slot, url)?;
            let (crash, crashes) = mpsc::channel(1);
            let (gauge, seen) = channel::channel(Gauge::default());
            let board = Board {
                loader: delivered.loader,
                folder: delivered.folder.clone(),
                program: program.clone(),
                teller: self.teller.named(&delivered.name),
                gauge,
                crashes,
            };
            let off = self.off.subscribe();
            let name = delivered.name.clone();
            self.boards
                .spawn(async move { board.run(off).await.context(name) });
            let watch = Watch::start(&delivered.name, &delivered.url, client.clone());
            // The screen ends after the stage.
            let _ = self.watches.send(watch.clone());
            devices.push(Device {
                watch,
                gauge: seen,
                crash,
                folder: delivered.folder,
                url: delivered.url,
            });
        }
        fs::remove_file(&slot)?;

        let more = u64::from(demo.devices).saturating_sub(3) * SECONDS_PER_DEVICE;
        let mut story = Story {
            site,
            teller: &self.teller,
            devices: &mut devices,
            deadline: since + STORY + Duration::from_secs(more),
            failures: 0,
        };
        tokio::select! {
            told = story.tell(&firmwares, [new, broken]) => told?,
            error = broken_board(&mut self.boards) => return Err(error),
        }
        let failures = story.failures;
        self.teller
            .tell(format!("\nThat took {} s.", since.elapsed().as_secs()));
        if demo.once || failures > 0 {
            return Ok(failures);
        }
        self.teller
            .tell("The devices go on until Ctrl-C. Their pages:");
        for device in &devices {
            self.teller
                .tell(format!("    {}  {}", device.watch.name(), device.url));
        }
        self.teller.tell(format!(
            "and the script: {}",
            site.url(&format!("scripts/{SCRIPT}"))
        ));
        Err(broken_board(&mut self.boards).await)
    }

    async fn pack(
        &mut self,
        factory: &Arc<Factory>,
        firmware: &Firmware,
    ) -> anyhow::Result<PathBuf> {
        let (build, size) = (firmware.build, Mebibytes(firmware.size()));
        let cancel = Arc::clone(&self.cancel);
        let (factory, firmware) = (Arc::clone(factory), firmware.clone());
        self.work
            .spawn_blocking(move || factory.pack(&firmware, &cancel));
        let image = self
            .work
            .join_next()
            .await
            .context("the work was given")???;
        let packed = Mebibytes(fs::metadata(&image)?.len());
        self.teller.tell(format!(
            "Packed and signed {build}: {size} MiB as {packed} MiB."
        ));
        Ok(image)
    }

    /// Ends every process and task, and removes the folder.
    async fn clear(mut self) -> anyhow::Result<()> {
        self.cancel.store(true, Ordering::Relaxed);
        self.off.send_replace(true);
        // What they came to is of no account any more.
        while self.boards.join_next().await.is_some() {}
        while self.work.join_next().await.is_some() {}
        if let Some(site) = self.site {
            site.stop().await;
        }
        self.folder
            .close()
            .context("cannot remove the temporary folder")
    }
}

/// Waits until a board cannot go on, and says why.
async fn broken_board(boards: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    match boards.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => anyhow::Error::new(error).context("a board crashed"),
        Some(Ok(Ok(()))) | None => anyhow!("a board went off by itself"),
    }
}

/// The signals that end a program.
struct StopSignal([tokio::signal::unix::Signal; 3]);

impl StopSignal {
    fn new() -> anyhow::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// From the first image to the end, with up to three devices: a slow machine takes half of it.
const STORY: Duration = Duration::from_secs(112);

/// For each device beyond those.
const SECONDS_PER_DEVICE: u64 = 8;
