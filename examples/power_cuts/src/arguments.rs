//! The command line.

use lexopt::{Arg, Parser, ValueExt as _};
use rekindle_examples::Options;
use rekindle_testkit::Point;

/// What is to be done.
pub(crate) struct Arguments {
    pub(crate) options: Options,
    /// Only this case.
    pub(crate) one: Option<One>,
}

/// One case, as a failure prints it.
pub(crate) struct One {
    pub(crate) scenario: String,
    pub(crate) preset: String,
    pub(crate) cuts: (Point, Option<Point>),
}

impl Arguments {
    pub(crate) fn parse(threads: usize) -> Result<Self, Box<dyn core::error::Error>> {
        let mut parser = Parser::from_env();
        let mut quick = false;
        let mut seed = 1;
        let (mut scenario, mut preset, mut one) = (None, None, None);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("quick") => quick = true,
                Arg::Long("seed") => seed = parser.value()?.parse()?,
                Arg::Long("scenario") => scenario = Some(parser.value()?.string()?),
                Arg::Long("preset") => preset = Some(parser.value()?.string()?),
                Arg::Long("one") => {
                    let (scenario, preset) = (parser.value()?.string()?, parser.value()?.string()?);
                    let first = parser.value()?.parse()?;
                    let more = parser
                        .raw_args()?
                        .peek()
                        .is_some_and(|next| !next.to_string_lossy().starts_with('-'));
                    let second = more.then(|| parser.value()).transpose()?;
                    let second = second.map(|text| text.parse()).transpose()?;
                    one = Some(One {
                        scenario,
                        preset,
                        cuts: (first, second),
                    });
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let mut options = if quick {
            Options::quick(seed, threads)
        } else {
            Options::full(seed, threads)
        };
        options.scenario = scenario;
        options.preset = preset;
        Ok(Self { options, one })
    }
}

pub(crate) const USAGE: &str =
    "usage: power_cuts [--quick] [--seed N] [--scenario NAME] [--preset NAME]
       power_cuts [--seed N] --one SCENARIO PRESET CUT [SECOND CUT]";
