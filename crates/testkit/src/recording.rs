use core::fmt;

use alloc::sync::Arc;

use crate::cells::{Torn, index};
use crate::change::Change;
use crate::medium::Medium;
use crate::point::{Inside, Plan, Point, Unsynced};
use crate::random::Random;

/// One operation on simulated flash, with its bytes; see [`Power::record`](crate::Power::record).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    part: Arc<str>,
    /// `None`: a sync.
    change: Option<Change>,
    /// A sync that does nothing.
    lies: bool,
}

impl Step {
    pub(crate) fn new(part: &Arc<str>, change: Option<&Change>) -> Self {
        Self {
            part: Arc::clone(part),
            change: change.cloned(),
            lies: false,
        }
    }

    /// Returns the name of the flash.
    #[must_use]
    pub fn part(&self) -> &str {
        &self.part
    }

    /// Whether it is a sync.
    #[must_use]
    pub const fn is_sync(&self) -> bool {
        self.change.is_none()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.part;
        match &self.change {
            Some(change) => {
                let verb = match change {
                    Change::Write { .. } => "write",
                    Change::Erase(_) => "erase",
                };
                let range = change.range();
                write!(f, "{part}: {verb} {:#x}..{:#x}", range.start, range.end)
            }
            None => write!(f, "{part}: sync"),
        }
    }
}

/// A good run of a device, to be taken apart: what its media held before, and every operation on
/// them.
///
/// [`Power::record`](crate::Power::record) makes one. For each operation [`moment`](Self::moment)
/// gives the media as they are then, and from it every state in which a power cut could leave them,
/// without running anything again.
///
/// ```
/// use rekindle_flash::{Flash, FlashError};
/// use rekindle_testkit::{Medium, Plan, Power, Preset, Recording, SimFlash, SimFlashError};
///
/// /// Data first, then the mark that says it is whole.
/// fn install(flash: &mut SimFlash) -> Result<(), SimFlashError> {
///     flash.write(0, b"datadata")?;
///     flash.sync()?;
///     flash.write(8, b"mark")?;
///     flash.sync()
/// }
///
/// let blank = Medium::new("flash", &Preset::NOR_WORD, 4096);
/// let power = Power::new(1);
/// power.record();
/// install(&mut blank.start(&power))?;
/// let recording = Recording::new(vec![blank], power.recorded());
/// let plan = Plan::full(1);
/// let mut cuts = 0;
/// for step in 0..=recording.len() {
///     let moment = recording.moment(step);
///     for point in moment.points(&plan) {
///         let media = moment.cut(&point, plan.seed);
///         let (data, mark) = media[0].bytes()[..12].split_at(8);
///         assert!(mark != b"mark" || data == b"datadata", "cut at {point}");
///         cuts += 1;
///     }
/// }
/// assert!(cuts > 30);
/// # Ok::<(), SimFlashError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recording {
    start: Vec<Medium>,
    /// Which medium, and the operation.
    steps: Vec<(usize, Step)>,
}

impl Recording {
    /// Takes the media as they were when [`Power::record`](crate::Power::record) was called, and what
    /// [`Power::recorded`](crate::Power::recorded) returned.
    ///
    /// # Panics
    ///
    /// If a step is of a flash that is not among the media.
    #[must_use]
    pub fn new(start: Vec<Medium>, steps: Vec<Step>) -> Self {
        let steps = steps
            .into_iter()
            .map(|step| {
                let part = start.iter().position(|medium| medium.name == step.part);
                let part =
                    part.unwrap_or_else(|| unreachable!("no medium is called {}", step.part));
                (part, step)
            })
            .collect();
        Self { start, steps }
    }

    /// Makes every sync of this flash a lie: it returns, and nothing is on the medium for it. For tests
    /// of tests: what survives this has never been cut.
    #[must_use]
    pub fn with_lying_syncs(mut self, part: &str) -> Self {
        for (_, step) in &mut self.steps {
            step.lies |= step.is_sync() && step.part() == part;
        }
        self
    }

    /// Returns how many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the operations, in order.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> + ExactSizeIterator {
        self.steps.iter().map(|(_, step)| step)
    }

    /// Returns where the device stands before operation number `step`, or at the end.
    ///
    /// # Panics
    ///
    /// If there are fewer operations.
    #[must_use]
    pub fn moment(&self, step: usize) -> Moment<'_> {
        let mut media = self.start.clone();
        let mut pending: Vec<(usize, &Change)> = Vec::new();
        for (part, step) in &self.steps[..step] {
            match &step.change {
                Some(change) => pending.push((*part, change)),
                None if step.lies => {}
                None => pending.retain(|(of, change)| {
                    if of == part {
                        apply(&mut media[*part], change);
                    }
                    of != part
                }),
            }
        }
        Moment {
            step,
            next: self.steps.get(step),
            media,
            pending,
        }
    }
}

/// The media of a device at one moment of a [`Recording`]: what is certain, what is not synced, and
/// what comes next.
#[derive(Debug)]
pub struct Moment<'a> {
    step: usize,
    next: Option<&'a (usize, Step)>,
    media: Vec<Medium>,
    pending: Vec<(usize, &'a Change)>,
}

impl Moment<'_> {
    /// Returns what is on the media for certain.
    #[must_use]
    pub fn synced(&self) -> &[Medium] {
        &self.media
    }

    /// Returns what comes next; `None` at the end.
    #[must_use]
    pub fn next(&self) -> Option<&Step> {
        self.next.map(|(_, step)| step)
    }

    /// Returns how many operations are not synced.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// Returns into how many pieces a cut inside the next operation can fall; 0 for a sync and at
    /// the end.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.next.map_or(0, |(part, step)| {
            let medium = &self.media[*part];
            step.change.as_ref().map_or(0, |change| {
                medium.cells.pieces(change, index(medium.word.into()))
            })
        })
    }

    fn piece_len(&self) -> u64 {
        self.next.map_or(0, |(part, step)| {
            let medium = &self.media[*part];
            match &step.change {
                Some(Change::Write { .. }) => medium.word.max(medium.geometry.write_size).into(),
                Some(Change::Erase(_)) => medium.geometry.erase_size.into(),
                None => 0,
            }
        })
    }

    /// Returns the points at which the power may be cut here: before the next operation with every
    /// fate of what is not synced, and inside it at every piece, as far as the plan goes.
    #[must_use]
    pub fn points(&self, plan: &Plan) -> Vec<Point> {
        let mut points = Vec::new();
        let count = self.pending.len();
        let at = |inside, unsynced| Point {
            step: self.step,
            inside,
            unsynced,
        };
        points.extend((0..=count).rev().map(|n| at(None, Unsynced::First(n))));
        // Without the last one it is a prefix.
        points.extend((1..count).map(|n| at(None, Unsynced::AllBut(n - 1))));
        if count > 0 {
            points.extend((0..plan.subsets).map(|n| at(None, Unsynced::Some(n))));
        }
        let Some((_, step)) = self.next else {
            return points;
        };
        if step.is_sync() {
            if count > 0 {
                let seeds = plan.subsets..2 * plan.subsets;
                points.extend(seeds.map(|n| at(Some(Inside::Sync), Unsynced::Some(n))));
            }
            return points;
        }
        let pieces = self.pieces();
        let fate = |turn: usize| match turn % 3 {
            _ if count == 0 => Unsynced::First(0),
            0 => Unsynced::First(count),
            1 => Unsynced::First(0),
            _ => Unsynced::Some(u32::try_from(turn).unwrap_or(0)),
        };
        for piece in plan.chosen(self.step, pieces) {
            for (turn, torn) in plan.torn(piece, pieces) {
                // Half of a single byte is the old one.
                if torn == Torn::Half && self.piece_len() == 1 {
                    continue;
                }
                let inside = Inside::Piece { at: piece, torn };
                points.push(at(Some(inside), fate(piece + turn)));
            }
        }
        points.extend((0..plan.subsets).map(|n| {
            let turn = index(n.into());
            at(Some(Inside::Scattered(n)), fate(turn))
        }));
        points
    }

    /// Returns what the media hold after a cut at this point, which must be one of this moment.
    /// The same point and seed give the same bytes.
    ///
    /// # Panics
    ///
    /// If the point is of another moment.
    #[must_use]
    pub fn cut(&self, point: &Point, seed: u64) -> Vec<Medium> {
        assert_eq!(point.step, self.step, "the point is of this moment");
        let mut media = self.media.clone();
        let mut random = Random::new(seed ^ point.salt());
        for (number, (part, change)) in self.pending.iter().enumerate() {
            let medium = &mut media[*part];
            match point.unsynced {
                Unsynced::First(kept) if number < kept => apply(medium, change),
                Unsynced::First(_) => {}
                Unsynced::AllBut(lost) if number == lost => {}
                Unsynced::AllBut(_) => apply(medium, change),
                Unsynced::Some(_) => match random.below(4) {
                    0 => {}
                    1 => scatter(medium, change, &mut random),
                    _ => apply(medium, change),
                },
            }
        }
        if let (Some(inside), Some((part, step))) = (point.inside, self.next)
            && let Some(change) = &step.change
        {
            let medium = &mut media[*part];
            match inside {
                Inside::Piece { at, torn } => {
                    let word = index(medium.word.into());
                    Arc::make_mut(&mut medium.cells).tear(change, word, at, torn, &mut random);
                }
                Inside::Scattered(_) => scatter(medium, change, &mut random),
                Inside::Sync => {}
            }
        }
        media
    }
}

fn apply(medium: &mut Medium, change: &Change) {
    Arc::make_mut(&mut medium.cells).apply(change);
}

fn scatter(medium: &mut Medium, change: &Change, random: &mut Random) {
    let word = index(medium.word.into());
    Arc::make_mut(&mut medium.cells).scatter(change, word, random);
}
