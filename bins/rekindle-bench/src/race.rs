//! Contenders that do the same work, one after the other, again and again.

use core::num::NonZeroUsize;
use core::time::Duration;

use crate::format::Format;
use crate::process::timed;
use crate::samples::Samples;

/// A program that does the work.
pub(crate) trait Contender {
    /// What the result calls it.
    fn name(&self) -> &'static str;

    /// Makes everything as it was before the first run. Not counted.
    fn prepare(&mut self) -> anyhow::Result<()>;

    /// Does the work to its end, durable. Returns the peak of resident memory in bytes, where it is known.
    fn run(&mut self) -> anyhow::Result<Option<u64>>;

    /// Looks whether the work was done. Not counted.
    fn check(&mut self) -> anyhow::Result<()>;
}

/// How one contender did.
#[derive(Debug)]
pub(crate) struct Lap {
    pub(crate) name: &'static str,
    pub(crate) seconds: Samples,
    /// The highest of all runs.
    pub(crate) peak_rss: Option<u64>,
}

/// Runs each once to warm up, which is checked and not counted, then `runs` times. Who goes first changes from round to round, so
/// that a machine that slows down or warms up favours none.
pub(crate) fn race(
    work: &str,
    contenders: &mut [&mut dyn Contender],
    runs: NonZeroUsize,
    format: Format,
) -> anyhow::Result<Vec<Lap>> {
    let mut times = vec![Vec::new(); contenders.len()];
    let mut peaks = vec![None; contenders.len()];
    for round in 0..=runs.get() {
        for place in 0..contenders.len() {
            let index = (round + place) % contenders.len();
            let contender = &mut contenders[index];
            contender.prepare()?;
            let (time, peak) = timed(|| contender.run())?;
            let name = contender.name();
            if round == 0 {
                contender.check()?;
            } else {
                times[index].push(time);
                peaks[index] = peak.max(peaks[index]);
            }
            format.progress(&line(work, name, round, runs, time));
        }
    }
    let laps = contenders.iter().zip(times).zip(peaks);
    Ok(laps
        .map(|((contender, times), peak_rss)| Lap {
            name: contender.name(),
            seconds: Samples::new(&times),
            peak_rss,
        })
        .collect())
}

fn line(work: &str, name: &str, round: usize, runs: NonZeroUsize, time: Duration) -> String {
    let run = match round {
        0 => "warm-up".to_owned(),
        round => format!("run {round} of {runs}"),
    };
    format!("{work}, {run}: {name} {:.3} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Counted {
        prepared: u32,
        ran: u64,
        checked: u32,
    }

    impl Contender for Counted {
        fn name(&self) -> &'static str {
            "counted"
        }

        fn prepare(&mut self) -> anyhow::Result<()> {
            self.prepared += 1;
            Ok(())
        }

        fn run(&mut self) -> anyhow::Result<Option<u64>> {
            self.ran += 1;
            Ok(Some(10 - self.ran))
        }

        fn check(&mut self) -> anyhow::Result<()> {
            self.checked += 1;
            Ok(())
        }
    }

    #[test]
    fn the_warm_up_is_checked_and_does_not_count() {
        let (mut a, mut b) = (Counted::default(), Counted::default());
        let runs = NonZeroUsize::new(3).unwrap();
        let laps = race("work", &mut [&mut a, &mut b], runs, Format::Json).unwrap();
        let peaks: Vec<_> = laps.iter().map(|lap| lap.peak_rss).collect();
        assert_eq!(peaks, [Some(8), Some(8)], "the first run had 9");
        assert_eq!((a.prepared, a.ran, a.checked), (4, 4, 1));
        assert_eq!((b.prepared, b.ran, b.checked), (4, 4, 1));
    }
}
