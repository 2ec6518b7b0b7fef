//! `power_cuts [--quick] [--seed N] [--scenario NAME] [--preset NAME] [--one SCENARIO PRESET CUT [CUT]]`

mod arguments;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread::available_parallelism;

use rekindle_examples::{Catalogs, Outcome, enumerate, repeat, table};

use crate::arguments::{Arguments, USAGE};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to hear it if that fails.
            drop(writeln!(io::stderr(), "power_cuts: {error}\n{USAGE}"));
            ExitCode::from(2)
        }
    }
}

/// Whether nothing broke.
fn run() -> Result<bool, Box<dyn core::error::Error>> {
    let threads = available_parallelism()?.get();
    let arguments = Arguments::parse(threads)?;
    let catalogs = Catalogs::new()?;
    let seed = arguments.options.plan.seed;
    let mut out = io::stdout();
    if let Some(one) = &arguments.one {
        let failure = repeat(&one.scenario, &one.preset, one.cuts, seed, &catalogs)?;
        match &failure {
            Some(failure) => writeln!(out, "{failure}")?,
            None => writeln!(out, "nothing broke; seed {seed}")?,
        }
        return Ok(failure.is_none());
    }
    writeln!(out, "seed {seed}, {threads} threads")?;
    let progress = |done: usize, all: usize, bricks: usize| {
        if all >= 20 && done.is_multiple_of(all / 20) {
            drop(writeln!(
                io::stderr(),
                "{done} of {all} operations, {bricks} bricks"
            ));
        }
    };
    let outcome: Outcome = enumerate(&arguments.options, &catalogs, &progress)?;
    write!(out, "{}", table(&outcome, seed)?)?;
    Ok(outcome.total().bricks == 0)
}
