//! What the agent says: answers on standard output, everything else in the log on standard error.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to people"
)]

use core::future::Future;
use std::process::ExitCode;

use rekindle_device::OrderError;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Starts the log: one line an event, fields as `name=value`.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Prints the answer of a command.
pub(crate) fn answer(text: &str) {
    println!("{text}");
}

/// Nothing was installed: 1, the answer is no, or 2, something failed.
pub(crate) fn not_installed(error: &OrderError) -> ExitCode {
    eprintln!("rekindled: not installed: {error}");
    ExitCode::from(if error.is_refusal() { 1 } else { 2 })
}

/// The command line is not understood.
pub(crate) fn usage_error(error: &anyhow::Error) -> ExitCode {
    eprintln!("rekindled: {error:#}; see rekindled --help");
    ExitCode::from(2)
}

/// Configuration or I/O failed.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("rekindled: {error:#}");
    ExitCode::from(2)
}

/// Ready when the agent is told to stop: SIGTERM or SIGINT.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
