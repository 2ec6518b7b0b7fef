//! One scenario on one kind of flash: a good run that is recorded, and every way to cut it.

use rekindle_testkit::{Medium, Moment, Point, Power, Recording};

use crate::board::Board;
use crate::broken::Broken;
use crate::device::{Commits, Device};
use crate::image::{Catalog, Image};
use crate::life::{keeps_commits, live};
use crate::scenario::Scenario;

/// A recorded run, ready to be cut.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// What the device does.
    pub(crate) scenario: &'a Scenario,
    /// The kind of device.
    pub(crate) board: &'a Board,
    catalog: &'a Catalog,
    run: Run,
}

/// What was recorded between two restarts.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) recording: Recording,
    commits: Commits,
}

/// How a cut is followed up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct After {
    /// The update after next is made as well.
    pub(crate) next_update: bool,
    /// What the device does is recorded, to be cut again.
    pub(crate) record: bool,
}

/// What a restart after a cut came to.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Blocks with chunks that were synced before the cut and are gone.
    pub(crate) lost_blocks: usize,
    pub(crate) run: Option<Run>,
}

impl<'a> Job<'a> {
    /// Prepares the device and records the run.
    pub(crate) fn new(
        scenario: &'a Scenario,
        board: &'a Board,
        catalog: &'a Catalog,
        seed: u64,
    ) -> Result<Self, Broken> {
        let mut device = Device::factory(catalog, board)?;
        (scenario.prepare)(&mut device)?;
        let (media, _) = device.stop();
        let power = Power::new(seed);
        power.record();
        let mut device = Device::start(catalog, board, &media, &power)?;
        device.rotten = scenario.is_repair();
        device.single = scenario.is_single();
        (scenario.act)(&mut device)?;
        let (_, commits) = device.stop();
        let run = Run {
            recording: Recording::new(media, power.recorded()),
            commits,
        };
        Ok(Self {
            scenario,
            board,
            catalog,
            run,
        })
    }

    /// Returns how many operations the run has.
    pub(crate) fn operations(&self) -> usize {
        self.run.recording.len()
    }

    pub(crate) const fn run(&self) -> &Run {
        &self.run
    }

    /// The same on a flash whose syncs do nothing.
    #[cfg(test)]
    pub(crate) fn lying(mut self, part: &str) -> Self {
        self.run.recording = self.run.recording.with_lying_syncs(part);
        self
    }

    /// Cuts a run, restarts the device and lets it live.
    pub(crate) fn cut(
        &self,
        run: &Run,
        moment: &Moment<'_>,
        point: &Point,
        seed: u64,
        after: After,
    ) -> Result<Recovered, Broken> {
        let media = moment.cut(point, seed);
        let goal = self.catalog.image(self.scenario.goal);
        let lost_blocks = self.lost_blocks(goal, moment, &media);
        let power = Power::new(seed);
        if after.record {
            power.record();
        }
        let mut device = Device::start(self.catalog, self.board, &media, &power)?;
        device.rotten = self.scenario.is_repair();
        device.single = self.scenario.is_single();
        keeps_commits(&mut device, &run.commits, point.step)?;
        live(&mut device, goal)?;
        (self.scenario.check)(&mut device)?;
        if let Some(wasted) = device.wasted.take() {
            return Err(wasted);
        }
        if lost_blocks > self.most_lost() {
            return Err(Broken::WorkLost {
                blocks: lost_blocks,
            });
        }
        let steps = after.record.then(|| power.recorded());
        if after.next_update {
            live(&mut device, self.catalog.image(self.scenario.next))?;
        }
        let (_, commits) = device.stop();
        Ok(Recovered {
            lost_blocks,
            run: steps.map(|steps| Run {
                recording: Recording::new(media, steps),
                commits,
            }),
        })
    }

    /// Of how many blocks a cut may cost what was synced. Where nothing is erased that is what shares a
    /// sector with what is written: converge writes up to eight such stretches before it syncs, each with
    /// two ends.
    const fn most_lost(&self) -> usize {
        if self.board.flash.erase_size == 0 {
            16
        } else {
            1
        }
    }

    /// How many blocks it takes to explain the chunks that were synced and are gone.
    fn lost_blocks(&self, goal: &Image, moment: &Moment<'_>, after: &[Medium]) -> usize {
        let target = if goal.component == "bmc" { 2 } else { 1 };
        let before = moment.synced();
        let flash = &self.board.flash;
        let block = u64::from(flash.erase_size.max(flash.word));
        let mut blocks = 0;
        let mut covered = 0;
        for ((chunk, was), (_, is)) in goal
            .chunks_on(before[target].bytes())
            .zip(goal.chunks_on(after[target].bytes()))
        {
            if was && !is && chunk.raw_offset >= covered {
                blocks += 1;
                let end = chunk.raw_offset + u64::from(chunk.raw_len);
                covered = end.next_multiple_of(block);
            }
        }
        blocks
    }

    /// The last operations before a cut, as the log of a device would have them.
    pub(crate) fn story(run: &Run, point: &Point) -> Vec<String> {
        let from = point.step.saturating_sub(STORY);
        let mut lines: Vec<String> = run
            .recording
            .steps()
            .enumerate()
            .take(point.step)
            .skip(from)
            .map(|(number, step)| format!("{number:4}  {step}"))
            .collect();
        lines.push(match run.recording.steps().nth(point.step) {
            Some(step) => format!("{:4}  {step}   <- cut {point}", point.step),
            None => format!("{:4}  the end   <- cut {point}", point.step),
        });
        lines
    }
}

/// Operations shown before a cut that broke something.
const STORY: usize = 12;
