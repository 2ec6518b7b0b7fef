//! What came out, as JSON and as a table.

use alloc::collections::BTreeMap;
use core::fmt;

use serde::Serialize;

use crate::samples::Samples;
use crate::size::Size;

/// The result; docs/benchmarks.md describes it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    benchmark: &'static str,
    size_bytes: u64,
    file_system: String,
    optimised: bool,
    install: Side,
    copy: Side,
    server_peak_rss_bytes: u64,
    ratio: f64,
    target: f64,
    met: bool,
}

/// The measured sides.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) install: Side,
    pub(super) copy: Side,
    pub(super) server_peak: u64,
}

/// One side.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    seconds: Samples,
    mib_per_second: f64,
    peak_rss_bytes: BTreeMap<&'static str, u64>,
}

impl Side {
    pub(super) fn new(seconds: Samples, bytes: u64, peaks: Vec<(&'static str, u64)>) -> Self {
        Self {
            mib_per_second: mib(bytes) / seconds.median(),
            seconds,
            peak_rss_bytes: peaks.into_iter().collect(),
        }
    }
}

impl Report {
    pub(super) fn new(size_bytes: u64, target: f64, file_system: &str, sides: Sides) -> Self {
        let ratio = sides.install.seconds.median() / sides.copy.seconds.median();
        Self {
            benchmark: "install",
            size_bytes,
            file_system: file_system.to_owned(),
            optimised: !cfg!(debug_assertions),
            install: sides.install,
            copy: sides.copy,
            server_peak_rss_bytes: sides.server_peak,
            ratio,
            target,
            met: ratio <= target,
        }
    }

    pub(super) fn is_met(&self) -> bool {
        self.met
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = Size(self.size_bytes);
        writeln!(
            f,
            "install of {size} over loopback HTTP, into files on {}\n",
            self.file_system
        )?;
        writeln!(
            f,
            "{:<22} {:>9} {:>17} {:>8}  peak RSS",
            "", "median s", "lowest..highest", "MiB/s"
        )?;
        for (name, side) in [
            ("rekindled install", &self.install),
            ("curl | dd conv=fsync", &self.copy),
        ] {
            let seconds = &side.seconds;
            let spread = format!("{:.3}..{:.3}", seconds.lowest(), seconds.highest());
            let peaks: Vec<String> = side
                .peak_rss_bytes
                .iter()
                .map(|(program, bytes)| format!("{program} {}", Size(*bytes)))
                .collect();
            writeln!(
                f,
                "{name:<22} {:>9.3} {spread:>17} {:>8.0}  {}",
                seconds.median(),
                side.mib_per_second,
                peaks.join(", ")
            )?;
        }
        let server = Size(self.server_peak_rss_bytes);
        writeln!(
            f,
            "{:<22} {:>9} {:>17} {:>8}  {server}",
            "rekindle-server", "", "", ""
        )?;
        if !self.optimised {
            writeln!(
                f,
                "\nthis is no optimised build: the ratio says nothing; use cargo build --release"
            )?;
        }
        let verdict = if self.met { "met" } else { "missed" };
        write!(
            f,
            "\nratio of the medians {:.2}, target at most {:.2}: {verdict}",
            self.ratio, self.target
        )
    }
}

fn mib(bytes: u64) -> f64 {
    // Exact for every size that the command line takes.
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn side(milliseconds: u64, peaks: Vec<(&'static str, u64)>) -> Side {
        let times = [Duration::from_millis(milliseconds)];
        Side::new(Samples::new(&times), 256 << 20, peaks)
    }

    fn report(milliseconds: u64) -> Report {
        let sides = Sides {
            install: side(milliseconds, vec![("rekindled", 12 << 20)]),
            copy: side(500, vec![("curl", 9 << 20), ("dd", 3 << 20)]),
            server_peak: 10 << 20,
        };
        Report::new(256 << 20, 1.5, "ext4", sides)
    }

    #[test]
    fn the_target_itself_is_met_and_more_is_not() {
        assert!(report(750).is_met());
        assert!(!report(751).is_met());
    }

    #[test]
    fn the_table_names_ratio_spread_throughput_and_memory() {
        let text = report(750).to_string();
        for part in [
            "install of 256 MiB over loopback HTTP, into files on ext4",
            "rekindled install          0.750      0.750..0.750      341  rekindled 12 MiB\n",
            "curl | dd conv=fsync       0.500      0.500..0.500      512  curl 9 MiB, dd 3 MiB\n",
            "10 MiB\n",
            "ratio of the medians 1.50, target at most 1.50: met",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let expected = serde_json::json!({
            "benchmark": "install",
            "size_bytes": 268_435_456,
            "file_system": "ext4",
            "optimised": !cfg!(debug_assertions),
            "install": {
                "seconds": { "median": 1.0, "lowest": 1.0, "highest": 1.0, "all": [1.0] },
                "mib_per_second": 256.0,
                "peak_rss_bytes": { "rekindled": 12_582_912 },
            },
            "copy": {
                "seconds": { "median": 0.5, "lowest": 0.5, "highest": 0.5, "all": [0.5] },
                "mib_per_second": 512.0,
                "peak_rss_bytes": { "curl": 9_437_184, "dd": 3_145_728 },
            },
            "server_peak_rss_bytes": 10_485_760,
            "ratio": 2.0,
            "target": 1.5,
            "met": false,
        });
        assert_eq!(serde_json::to_value(report(1000)).unwrap(), expected);
    }
}
