//! The two programs that the boards of a demo start: the agent and the one that presses reset.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rekindle_device::Config;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use crate::exit::Exit;

/// The device agent, as a process of its own.
#[derive(Debug, Args)]
pub(crate) struct DemoAgent {
    #[arg(long)]
    config: PathBuf,
}

impl DemoAgent {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(io::stderr)
            .init();
        let config = Config::load(&self.config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(rekindle_device::run(config, end_of_input()))?;
        Ok(Exit::Done)
    }
}

/// Presses the reset button of a board: what `[host] reset` runs on a demo device.
#[derive(Debug, Args)]
pub(crate) struct DemoReset {
    #[arg(long)]
    button: PathBuf,
}

impl DemoReset {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        UnixStream::connect(&self.button)
            .with_context(|| format!("cannot press {}", self.button.display()))?;
        Ok(Exit::Done)
    }
}

/// Completes when the demo closes the agent's input, or is gone, however it went: no agent outlives
/// its demo.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
        // The agent may have stopped for another reason.
        let _ = ended.send(());
    });
    // An error says that the thread is gone, and with it the only word on the input.
    let _ = end.await;
}
