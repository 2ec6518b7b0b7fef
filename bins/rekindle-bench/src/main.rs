//! Comparisons of the real programs with their peers: ratios of one run, as a table and as JSON.

extern crate alloc;

mod compare;
mod content;
mod exit;
mod format;
mod images;
mod install;
mod medium;
mod process;
mod programs;
mod race;
mod random;
mod relay;
mod samples;
mod server;
mod size;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Exit;

/// Compares Rekindle's programs with their peers.
#[derive(Debug, Parser)]
#[command(
    name = "rekindle-bench",
    version,
    arg_required_else_help = true,
    after_help = "Exit status: 0 the target is met, 1 it is missed, 2 wrong usage, a missing program, or failed input \
                  or output.\nThe method and the JSON are described in docs/benchmarks.md."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One variant and one module a comparison, each with `run(&self) -> anyhow::Result<Exit>`.
#[derive(Debug, Subcommand)]
enum Command {
    /// A full install over loopback HTTP, compared with `curl | dd conv=fsync` from the same server.
    Install(install::Install),
    /// A device's work beside RAUC, `SWUpdate`, casync, zchunk and plain hashes, on two versions of a root file system.
    Compare(Box<compare::Compare>),
    /// The two versions that `compare` takes: Debian packages before and after their security updates.
    Images(images::Images),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Install(install) => install.run(),
        Command::Compare(compare) => compare.run(),
        Command::Images(images) => images.run(),
    };
    let exit = done.unwrap_or_else(|error| {
        #[expect(clippy::print_stderr, reason = "a command's error goes to its user")]
        {
            eprintln!("rekindle-bench: {error:#}");
        }
        Exit::Failed
    });
    exit.into()
}
