//! Repeated measurements of one thing.

use core::time::Duration;

use serde::Serialize;

/// The times of all runs of one side, in the order in which they were taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Samples {
    median: f64,
    lowest: f64,
    highest: f64,
    all: Vec<f64>,
}

impl Samples {
    /// Of at least one time.
    pub(crate) fn new(times: &[Duration]) -> Self {
        let all: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self {
            median,
            lowest: sorted[0],
            highest: sorted[sorted.len() - 1],
            all,
        }
    }

    pub(crate) fn median(&self) -> f64 {
        self.median
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.lowest
    }

    pub(crate) fn highest(&self) -> f64 {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(milliseconds: &[u64]) -> Samples {
        let times: Vec<Duration> = milliseconds
            .iter()
            .map(|ms| Duration::from_millis(*ms))
            .collect();
        Samples::new(&times)
    }

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let expected = Samples {
            median: 0.25,
            lowest: 0.125,
            highest: 9.0,
            all: vec![9.0, 0.125, 0.25],
        };
        assert_eq!(samples(&[9000, 125, 250]), expected);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let median = samples(&[500, 125, 9000, 250]).median();
        assert!((median - 0.375).abs() < 1e-9, "{median}");
    }
}
