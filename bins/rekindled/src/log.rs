//! What the agent says: answers on standard output, everything else in the log on standard error.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to people"
)]

use core::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use rekindle_device::{OrderError, RepairSummary, ScrubSummary};
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

/// Prints an answer; 1 if it is no.
pub(crate) fn decided(answered: Result<String, String>) -> ExitCode {
    match answered {
        Ok(said) => {
            answer(&said);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("rekindled: {why}");
            ExitCode::from(1)
        }
    }
}

/// Prints what a scrub found: 1 if something is damaged, 2 if a slot cannot be read.
pub(crate) fn scrubbed(summary: &ScrubSummary, json: bool) -> ExitCode {
    clear_meter();
    if json {
        answer(&summary.to_json());
    } else {
        answer(&summary.to_string());
    }
    ExitCode::from(match (summary.damaged, summary.unreadable) {
        (0, 0) => 0,
        (_, 0) => 1,
        _ => 2,
    })
}

/// Prints what a repair came to: 1 if something was refused, 2 if something failed.
pub(crate) fn repaired(summary: &RepairSummary) -> ExitCode {
    clear_meter();
    answer(&summary.to_string());
    ExitCode::from(if summary.is_done() {
        0
    } else if summary.is_refusal() {
        1
    } else {
        2
    })
}

/// Shows how far long work is, on a terminal; quiet otherwise.
pub(crate) fn meter(what: &'static str) -> impl FnMut(&str, &str, u64, u64) + Clone + Send {
    let mut shown = None;
    let terminal = std::io::stderr().is_terminal();
    move |component, slot, done, total| {
        let percent = done.saturating_mul(100) / total.max(1);
        let now = Some((component.to_owned(), slot.to_owned(), percent));
        if terminal && shown != now {
            eprint!("\r{what} {component} {slot}: {percent:3} %");
            shown = now;
        }
    }
}

fn clear_meter() {
    if std::io::stderr().is_terminal() {
        eprint!("\r{:60}\r", "");
    }
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
