//! The integrator's command: scripts, keys, images, demo.

extern crate alloc;

mod demo;
mod exit;
mod image;
mod key;
mod key_set;
mod output;
mod progress;
mod script;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::demo::{Demo, DemoAgent, DemoReset};
use crate::exit::Exit;

#[derive(Parser)]
#[command(
    name = "rekindle",
    about = "Work with maintenance scripts, firmware images and their keys",
    after_help = "Exit status: 0 done, 1 the answer is no, 2 wrong usage or failed input or output.",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One variant and one module a command, each with `run(self) -> anyhow::Result<Exit>`.
#[derive(Subcommand)]
enum Command {
    /// Check maintenance scripts.
    #[command(subcommand)]
    Script(script::Script),
    /// Make the keys that images are signed with.
    #[command(subcommand)]
    Key(key::Command),
    /// Make, show, verify and compare firmware images.
    #[command(subcommand)]
    Image(image::Command),
    Demo(Demo),
    #[command(hide = true)]
    DemoAgent(DemoAgent),
    #[command(hide = true)]
    DemoReset(DemoReset),
}

impl Command {
    fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Script(script) => script.run(),
            Self::Key(command) => command.run(),
            Self::Image(command) => command.run(),
            Self::Demo(command) => command.run(),
            Self::DemoAgent(command) => command.run(),
            Self::DemoReset(command) => command.run(),
        }
    }
}

fn main() -> ExitCode {
    let exit = Arguments::parse().command.run().unwrap_or_else(|error| {
        #[expect(clippy::print_stderr, reason = "a command's error goes to its user")]
        {
            eprintln!("rekindle: {error:#}");
        }
        Exit::Failed
    });
    exit.into()
}
