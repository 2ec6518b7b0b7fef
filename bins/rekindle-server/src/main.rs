//! `rekindle-server`: serves maintenance scripts, firmware and configuration backups from a folder.

use core::net::SocketAddr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use rekindle_fleet::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};

/// Serves maintenance scripts and firmware to a fleet, and takes its configuration backups.
///
/// The data folder is created with the folders scripts, firmware and backups in it. Devices GET /scripts/... and /firmware/...
/// and PUT /backups/...; names match without regard to letter case.
///
/// Exit codes: 0 stopped by SIGINT or SIGTERM, 2 wrong usage, or a folder or address that cannot be used.
/// `RUST_LOG` sets what is logged to standard error (default: info, one line a request).
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The address and port to listen on.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// Give backups out to whoever asks: they hold the devices' passwords.
    #[arg(long)]
    readable_backups: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rekindle-server: {error:#}");
            ExitCode::from(USAGE_OR_IO)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
        let mut config = Config::new(&arguments.data);
        config.listen = arguments.listen;
        config.serve_backups = arguments.readable_backups;
        let server = Server::bind(config).await?;
        let (folder, address) = (arguments.data.display(), server.local_addr());
        let mut out = std::io::stdout();
        // Whoever started this may have closed the pipe: no reason not to serve.
        let _ = writeln!(
            out,
            "serving {folder} on http://{address}/ : GET scripts/ and firmware/, PUT backups/"
        );
        let _ = out.flush();
        server
            .serve(async {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            })
            .await;
        tracing::info!("stopped");
        Ok(())
    })
}

const USAGE_OR_IO: u8 = 2;

/// Enough to keep a disk busy; each costs a stack.
const BLOCKING_THREADS: usize = 16;
