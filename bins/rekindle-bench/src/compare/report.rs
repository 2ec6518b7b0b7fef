//! What came out, as JSON and as a table.

use alloc::collections::BTreeMap;
use core::fmt;
use std::path::Path;

use serde::Serialize;

use crate::race::Lap;
use crate::samples::Samples;
use crate::size::Size;

/// The result; docs/benchmarks.md describes it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    benchmark: &'static str,
    old_image: String,
    new_image: String,
    file_system: String,
    optimised: bool,
    /// First line of what each says of itself.
    peers: BTreeMap<&'static str, String>,
    rows: Vec<Row>,
    limits: Vec<Limit>,
    met: bool,
}

impl Report {
    pub(super) fn new(
        images: [&Path; 2],
        file_system: &str,
        peers: BTreeMap<&'static str, String>,
        rows: Vec<Row>,
        limits: Vec<Limit>,
    ) -> Self {
        let [old_image, new_image] = images.map(|path| path.display().to_string());
        Self {
            benchmark: "compare",
            old_image,
            new_image,
            file_system: file_system.to_owned(),
            optimised: !cfg!(debug_assertions),
            peers,
            met: rows.iter().all(|row| row.met) && limits.iter().all(|limit| limit.met),
            rows,
            limits,
        }
    }

    pub(super) fn is_met(&self) -> bool {
        self.met
    }
}

/// One piece of work, done by us and by the peers.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    work: &'static str,
    ours: Side,
    peers: Vec<Side>,
    /// The peer that counts.
    against: &'static str,
    ratio: f64,
    target: f64,
    met: bool,
}

/// How one of them did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Side {
    name: &'static str,
    #[serde(flatten)]
    measure: Measure,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Measure {
    Time {
        seconds: Samples,
        #[serde(skip_serializing_if = "Option::is_none")]
        peak_rss_bytes: Option<u64>,
    },
    Size {
        bytes: u64,
    },
}

impl Side {
    pub(super) fn bytes(name: &'static str, bytes: u64) -> Self {
        Self {
            name,
            measure: Measure::Size { bytes },
        }
    }

    /// Median or bytes.
    fn value(&self) -> f64 {
        match &self.measure {
            Measure::Time { seconds, .. } => seconds.median(),
            Measure::Size { bytes } => float(*bytes),
        }
    }
}

impl From<Lap> for Side {
    fn from(lap: Lap) -> Self {
        Self {
            name: lap.name,
            measure: Measure::Time {
                seconds: lap.seconds,
                peak_rss_bytes: lap.peak_rss,
            },
        }
    }
}

impl Row {
    /// Against the best of the first `counted` of the peers; at least one. Those behind them are for the reader.
    pub(super) fn new(
        work: &'static str,
        ours: Side,
        peers: Vec<Side>,
        counted: usize,
        target: f64,
    ) -> Self {
        let best = peers[..counted]
            .iter()
            .min_by(|a, b| a.value().total_cmp(&b.value()))
            .expect("a row has a peer");
        let ratio = ours.value() / best.value();
        Self {
            work,
            against: best.name,
            ours,
            peers,
            ratio,
            target,
            met: ratio <= target,
        }
    }
}

/// A limit that is no ratio.
#[derive(Debug, Serialize)]
pub(super) struct Limit {
    what: &'static str,
    bytes: u64,
    limit_bytes: u64,
    met: bool,
}

impl Limit {
    pub(super) fn new(what: &'static str, bytes: u64, limit_bytes: u64) -> Self {
        Self {
            what,
            bytes,
            limit_bytes,
            met: bytes <= limit_bytes,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} -> {}, into files on {}",
            self.old_image, self.new_image, self.file_system
        )?;
        for row in &self.rows {
            writeln!(f, "\n{}", row.work)?;
            for side in core::iter::once(&row.ours).chain(&row.peers) {
                writeln!(f, "  {side}")?;
            }
            writeln!(
                f,
                "  ratio to {} {:.2}, target at most {:.2}: {}",
                row.against,
                row.ratio,
                row.target,
                verdict(row.met)
            )?;
        }
        writeln!(f)?;
        for limit in &self.limits {
            writeln!(
                f,
                "{} {}, at most {}: {}",
                limit.what,
                Size(limit.bytes),
                Size(limit.limit_bytes),
                verdict(limit.met)
            )?;
        }
        for version in self.peers.values() {
            write!(f, "{version}; ")?;
        }
        if !self.optimised {
            write!(
                f,
                "\nthis is no optimised build: the ratios say nothing; use cargo build --release"
            )?;
        }
        write!(f, "\nall of it: {}", verdict(self.met))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24}", self.name)?;
        match &self.measure {
            Measure::Time {
                seconds,
                peak_rss_bytes,
            } => {
                let spread = format!("{:.3}..{:.3}", seconds.lowest(), seconds.highest());
                write!(f, " {:>8.3} s {spread:>17}", seconds.median())?;
                match peak_rss_bytes {
                    Some(bytes) => write!(f, "  peak RSS {}", Size(*bytes)),
                    None => Ok(()),
                }
            }
            Measure::Size { bytes } => write!(f, " {bytes:>10} bytes"),
        }
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// Exact up to 2^52, which no count here reaches.
fn float(bytes: u64) -> f64 {
    let high = u32::try_from(bytes >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(bytes & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn lap(name: &'static str, milliseconds: u64) -> Side {
        Side::from(Lap {
            name,
            seconds: Samples::new(&[Duration::from_millis(milliseconds)]),
            peak_rss: Some(10 << 20),
        })
    }

    fn report(target: f64, limit: u64) -> Report {
        let rows = vec![
            Row::new(
                "scan of a slot",
                lap("rekindled scrub", 500),
                vec![lap("slow", 2000), lap("fast", 1000), lap("not counted", 1)],
                2,
                target,
            ),
            Row::new(
                "bytes fetched",
                Side::bytes("rekindled install", 3 << 32),
                vec![Side::bytes("peer", 4 << 32)],
                1,
                0.75,
            ),
        ];
        let limits = vec![Limit::new("memory of rekindled", 10 << 20, limit)];
        let images = [Path::new("v1"), Path::new("v2")];
        let peers = BTreeMap::from([("fast", "fast 1.0".to_owned())]);
        Report::new(images, "ext4", peers, rows, limits)
    }

    #[test]
    fn the_best_of_the_counted_peers_decides() {
        let text = report(0.5, 12 << 20).to_string();
        for part in [
            "v1 -> v2, into files on ext4\n",
            "  ratio to fast 0.50, target at most 0.50: met\n",
            "  ratio to peer 0.75, target at most 0.75: met\n",
            "memory of rekindled 10 MiB, at most 12 MiB: met\n",
            "12884901888 bytes\n",
            "all of it: met",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn one_target_or_limit_that_is_missed_is_enough() {
        assert!(report(0.5, 10 << 20).is_met());
        assert!(!report(0.49, 10 << 20).is_met());
        assert!(!report(0.5, (10 << 20) - 1).is_met());
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let json = serde_json::to_value(report(0.5, 12 << 20)).unwrap();
        let expected = serde_json::json!({
            "work": "bytes fetched",
            "ours": { "name": "rekindled install", "bytes": 12_884_901_888_u64 },
            "peers": [{ "name": "peer", "bytes": 17_179_869_184_u64 }],
            "against": "peer",
            "ratio": 0.75,
            "target": 0.75,
            "met": true,
        });
        assert_eq!(json["rows"][1], expected);
        let expected = serde_json::json!({
            "name": "rekindled scrub",
            "seconds": { "median": 0.5, "lowest": 0.5, "highest": 0.5, "all": [0.5] },
            "peak_rss_bytes": 10_485_760,
        });
        assert_eq!(json["rows"][0]["ours"], expected);
        let limit = serde_json::json!({
            "what": "memory of rekindled",
            "bytes": 10_485_760,
            "limit_bytes": 12_582_912,
            "met": true,
        });
        assert_eq!(json["limits"], serde_json::json!([limit]));
        assert_eq!(json["benchmark"], "compare");
        assert_eq!(json["met"], true);
    }
}
