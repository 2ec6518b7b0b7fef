//! All jobs, on all cores.

use alloc::collections::BTreeSet;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rekindle_testkit::{Inside, Moment, Plan, Point, Preset, Unsynced};

use crate::board::{BOARDS, Board};
use crate::broken::Broken;
use crate::image::Catalog;
use crate::job::{After, Job, Run};
use crate::scenario::{SCENARIOS, Scenario};

/// What is to be enumerated, and how far.
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
#[derive(Clone, Debug)]
pub struct Options {
    /// How a single run is cut.
    pub plan: Plan,
    /// Of the cuts at one operation, so many at most are tried; the others are left out evenly.
    pub most: usize,
    /// Of the operations of a run, each so-many-th is cut twice, and the second time at each
    /// so-many-th operation of the recovery; 1: all, 0: none.
    pub doubles: usize,
    /// Only this scenario.
    pub scenario: Option<String>,
    /// Only this kind of flash.
    pub preset: Option<String>,
    /// How many threads.
    pub threads: usize,
}

impl Options {
    /// Every word of every operation, and every double.
    #[must_use]
    pub fn full(seed: u64, threads: usize) -> Self {
        Self {
            plan: Plan::full(seed),
            most: usize::MAX,
            doubles: 1,
            scenario: None,
            preset: None,
            threads,
        }
    }

    /// A part of it that takes seconds.
    #[must_use]
    pub fn quick(seed: u64, threads: usize) -> Self {
        Self {
            plan: Plan::quick(seed),
            most: 2,
            doubles: 12,
            ..Self::full(seed, threads)
        }
    }
}

/// What one scenario on one kind of flash came to.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// The kind of flash.
    pub preset: &'static str,
    /// Operations of the good run.
    pub operations: usize,
    /// Power cuts tried in it.
    pub cuts: usize,
    /// Power cuts tried in recoveries from a cut.
    pub doubles: usize,
    /// Cuts that broke a promise.
    pub bricks: usize,
    /// Pieces of operations at which it was cut, and how many there are.
    pub pieces: (usize, usize),
    /// The most blocks whose synced content a cut has cost.
    pub lost_blocks: usize,
}

/// A cut that broke a promise, with what it takes to repeat it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Failure {
    /// The scenario.
    pub scenario: &'static str,
    /// The kind of flash.
    pub preset: &'static str,
    /// The seed.
    pub seed: u64,
    /// Where the power was cut.
    pub cut: Point,
    /// Where it was cut again.
    pub second: Option<Point>,
    /// What was found.
    pub broken: Broken,
    /// The last operations before each cut.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "BRICK: {}", self.broken)?;
        for line in &self.story {
            writeln!(f, "    {line}")?;
        }
        write!(
            f,
            "  again: --seed {} --one {} {} {}",
            self.seed, self.scenario, self.preset, self.cut
        )?;
        match &self.second {
            Some(second) => write!(f, " {second}"),
            None => Ok(()),
        }
    }
}

/// What an enumeration came to.
#[non_exhaustive]
#[derive(Debug)]
pub struct Outcome {
    /// One for each scenario and kind of flash.
    pub rows: Vec<Row>,
    /// The first failures.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Returns the sum of all rows.
    #[must_use]
    pub fn total(&self) -> Row {
        let mut total = Row {
            scenario: "total",
            ..Row::default()
        };
        for row in &self.rows {
            total.add(row);
        }
        total
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.cuts += other.cuts;
        self.doubles += other.doubles;
        self.bricks += other.bricks;
        self.pieces.0 += other.pieces.0;
        self.pieces.1 += other.pieces.1;
        self.lost_blocks = self.lost_blocks.max(other.lost_blocks);
    }
}

/// The images: a small set, and one for flash with large erase blocks.
#[derive(Debug)]
pub struct Catalogs {
    small: Catalog,
    large: Catalog,
}

impl Catalogs {
    /// Packs them.
    ///
    /// # Errors
    ///
    /// The temporary folder cannot be written.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            small: Catalog::new(14_001, 4 * 1024)?,
            large: Catalog::new(100_001, 16 * 1024)?,
        })
    }

    fn of(&self, preset: &Preset) -> &Catalog {
        if preset.erase_size > 4096 {
            &self.large
        } else {
            &self.small
        }
    }
}

/// Enumerates, short operations first; `progress` hears how many operations of how many were cut, and how
/// many bricks there are.
///
/// # Errors
///
/// A scenario does not work with the power on.
pub fn enumerate(
    options: &Options,
    catalogs: &Catalogs,
    progress: &(dyn Fn(usize, usize, usize) + Sync),
) -> Result<Outcome, Broken> {
    let mut jobs = Vec::new();
    for scenario in SCENARIOS
        .iter()
        .filter(|s| named(&options.scenario, s.name))
    {
        for board in BOARDS.iter().filter(|p| named(&options.preset, p.name)) {
            jobs.push(job(scenario, board, catalogs, options.plan.seed)?);
        }
    }
    let mut tasks: Vec<(usize, usize)> = jobs
        .iter()
        .enumerate()
        .flat_map(|(job, of)| (0..=of.operations()).map(move |step| (job, step)))
        .collect();
    tasks.sort_by_key(|(job, step)| jobs[*job].run().recording.moment(*step).pieces());
    let rows = jobs.iter().map(|job| Row {
        scenario: job.scenario.name,
        preset: job.board.name,
        operations: job.operations(),
        ..Row::default()
    });
    let outcome = Mutex::new(Outcome {
        rows: rows.collect(),
        failures: Vec::new(),
    });
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some((job, step)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (row, failures) = cut_operation(&jobs[*job], *step, options);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.rows[*job].add(&row);
            let room = FAILURES.saturating_sub(outcome.failures.len());
            outcome.failures.extend(failures.into_iter().take(room));
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(done, tasks.len(), outcome.total().bricks);
        }
    };
    thread::scope(|scope| {
        for _ in 1..options.threads {
            scope.spawn(work);
        }
        work();
    });
    Ok(outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) fn job<'a>(
    scenario: &'a Scenario,
    board: &'a Board,
    catalogs: &'a Catalogs,
    seed: u64,
) -> Result<Job<'a>, Broken> {
    Job::new(scenario, board, catalogs.of(&board.flash), seed)
        .map_err(|error| Broken::setup(format!("{} on {}: {error}", scenario.name, board.name)))
}

/// Repeats one case.
///
/// # Errors
///
/// There is no such case, or the scenario does not work with the power on.
pub fn repeat(
    scenario: &str,
    preset: &str,
    cuts: (Point, Option<Point>),
    seed: u64,
    catalogs: &Catalogs,
) -> Result<Option<Failure>, Broken> {
    let scenario = SCENARIOS.iter().find(|s| s.name == scenario);
    let preset = BOARDS.iter().find(|p| p.name == preset);
    let (Some(scenario), Some(preset)) = (scenario, preset) else {
        return Err(Broken::setup("there is no such scenario or kind of flash"));
    };
    let job = job(scenario, preset, catalogs, seed)?;
    let mut finder = Finder {
        job: &job,
        seed,
        failures: Vec::new(),
    };
    let (first, second) = cuts;
    if first.step > job.operations() {
        return Err(Broken::setup("the run has fewer operations"));
    }
    let moment = job.run().recording.moment(first.step);
    let run = finder.first(&moment, first, second.is_some()).run;
    if let (Some(run), Some(second)) = (&run, second) {
        if second.step > run.recording.len() {
            return Err(Broken::setup("the recovery has fewer operations"));
        }
        let moment = run.recording.moment(second.step);
        finder.second(run, &moment, first, second);
    }
    Ok(finder.failures.pop())
}

/// Cuts a run before one operation and inside of it, in every way.
pub(crate) fn cut_operation(job: &Job<'_>, step: usize, options: &Options) -> (Row, Vec<Failure>) {
    let plan = &options.plan;
    let moment = job.run().recording.moment(step);
    let mut finder = Finder {
        job,
        seed: plan.seed,
        failures: Vec::new(),
    };
    let mut row = Row {
        pieces: (0, moment.pieces()),
        ..Row::default()
    };
    let points = moment.points(plan);
    let twice = twice(&points, step, options.doubles);
    let stride = points.len().div_ceil(options.most);
    // Each operation begins with another one.
    let first = step % stride.max(1);
    let mut pieces = BTreeSet::new();
    for point in points.into_iter().skip(first).step_by(stride.max(1)) {
        if let Some(Inside::Piece { at, .. }) = point.inside {
            pieces.insert(at);
        }
        let found = finder.first(&moment, point, twice.contains(&point));
        row.cuts += 1;
        row.lost_blocks = row.lost_blocks.max(found.lost_blocks);
        let Some(run) = found.run else { continue };
        for step in (step % options.doubles..=run.recording.len()).step_by(options.doubles) {
            let moment = run.recording.moment(step);
            for second in seconds(&moment, step, plan) {
                row.doubles += 1;
                let lost = finder.second(&run, &moment, point, second);
                row.lost_blocks = row.lost_blocks.max(lost);
            }
        }
    }
    row.pieces.0 = pieces.len();
    row.bricks = finder.failures.len();
    (row, finder.failures)
}

/// The cuts that are followed by a second one: before the operation with everything or nothing of
/// what was not synced, and one inside.
fn twice(points: &[Point], step: usize, doubles: usize) -> Vec<Point> {
    if doubles == 0 || !step.is_multiple_of(doubles) {
        return Vec::new();
    }
    let before = points.iter().filter(|point| {
        point.inside.is_none() && matches!(point.unsynced, Unsynced::First(_) | Unsynced::AllBut(_))
    });
    let inside: Vec<&Point> = points.iter().filter(|p| p.inside.is_some()).collect();
    // A different one for each operation.
    let one = inside.get((step * 7 + 1) % inside.len().max(1));
    before.chain(one.copied()).copied().collect()
}

/// Where a recovery is cut: before the operation, and once inside.
fn seconds(moment: &Moment<'_>, step: usize, plan: &Plan) -> Vec<Point> {
    let few = Plan {
        pieces: 2,
        torn_in_every_way: 0,
        subsets: 1,
        ..*plan
    };
    let points = moment.points(&few);
    let before: Vec<&Point> = points.iter().filter(|p| p.inside.is_none()).collect();
    let inside: Vec<&Point> = points.iter().filter(|p| p.inside.is_some()).collect();
    let pick = |from: &[&Point]| from.get(step % from.len().max(1)).map(|point| **point);
    pick(&before).into_iter().chain(pick(&inside)).collect()
}

/// Tries cuts of one job and keeps what they broke.
struct Finder<'j> {
    job: &'j Job<'j>,
    seed: u64,
    failures: Vec<Failure>,
}

struct Found {
    lost_blocks: usize,
    run: Option<Run>,
}

impl Finder<'_> {
    fn first(&mut self, moment: &Moment<'_>, cut: Point, record: bool) -> Found {
        let run = self.job.run();
        let after = After {
            next_update: cut.inside.is_none(),
            record,
        };
        match self.job.cut(run, moment, &cut, self.seed, after) {
            Ok(recovered) => Found {
                lost_blocks: recovered.lost_blocks,
                run: recovered.run,
            },
            Err(broken) => {
                self.fail(cut, None, broken, Job::story(run, &cut));
                Found {
                    lost_blocks: 0,
                    run: None,
                }
            }
        }
    }

    fn second(&mut self, run: &Run, moment: &Moment<'_>, first: Point, second: Point) -> usize {
        let after = After {
            next_update: false,
            record: false,
        };
        match self.job.cut(run, moment, &second, self.seed, after) {
            Ok(recovered) => recovered.lost_blocks,
            Err(broken) => {
                let mut story = Job::story(self.job.run(), &first);
                story.extend(Job::story(run, &second));
                self.fail(first, Some(second), broken, story);
                0
            }
        }
    }

    fn fail(&mut self, cut: Point, second: Option<Point>, broken: Broken, story: Vec<String>) {
        self.failures.push(Failure {
            scenario: self.job.scenario.name,
            preset: self.job.board.name,
            seed: self.seed,
            cut,
            second,
            broken,
            story,
        });
    }
}

fn named(wanted: &Option<String>, name: &str) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == name)
}

/// Failures that are shown.
const FAILURES: usize = 5;
