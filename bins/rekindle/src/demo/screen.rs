//! What the user sees: progress bars on a terminal, plain lines in a pipe.

use core::fmt::{self, Display};
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::watch::{Activity, Glimpse, Watch};

/// Says lines in the name of one device, or of the demo itself.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    who: Option<String>,
    lines: mpsc::UnboundedSender<Told>,
}

/// A line and in whose name it was said.
#[derive(Debug)]
pub(super) struct Told {
    who: Option<String>,
    text: String,
}

impl Teller {
    pub(super) fn tell(&self, text: impl Display) {
        // The screen is the last to go; what is said after it is for nobody.
        let _ = self.lines.send(Told {
            who: self.who.clone(),
            text: text.to_string(),
        });
    }

    pub(super) fn named(&self, who: &str) -> Self {
        Self {
            who: Some(who.to_owned()),
            lines: self.lines.clone(),
        }
    }
}

impl Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Some(who) => write!(f, "{who:<NAME_WIDTH$}  {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// The task that writes to standard output; nothing else does.
#[derive(Debug)]
pub(super) struct Screen {
    stop: oneshot::Sender<()>,
    drawing: JoinHandle<()>,
}

impl Screen {
    /// Makes the first teller and the place where its lines wait for a screen.
    pub(super) fn teller() -> (Teller, mpsc::UnboundedReceiver<Told>) {
        let (lines, waiting) = mpsc::unbounded_channel();
        (Teller { who: None, lines }, waiting)
    }

    /// Starts to show lines, and devices from when they come.
    pub(super) fn start(
        lines: mpsc::UnboundedReceiver<Told>,
        watches: mpsc::UnboundedReceiver<Watch>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let paper = if io::stdout().is_terminal() {
            Paper::Terminal(MultiProgress::with_draw_target(
                ProgressDrawTarget::stdout_with_hz(20),
            ))
        } else {
            Paper::Pipe
        };
        let drawing = tokio::spawn(draw(paper, lines, watches, stopped));
        Self { stop, drawing }
    }

    /// Shows what was said so far, and ends.
    pub(super) async fn stop(self) {
        // The task ends by itself only if it panicked.
        let _ = self.stop.send(());
        let _ = self.drawing.await;
    }
}

async fn draw(
    paper: Paper,
    mut lines: mpsc::UnboundedReceiver<Told>,
    mut watches: mpsc::UnboundedReceiver<Watch>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut rows: Vec<Row> = Vec::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            Some(told) = lines.recv() => {
                // What the device itself said until then comes first.
                rows.iter_mut().filter(|row| row.is_of(&told)).for_each(|row| row.refresh(&paper));
                paper.line(&told.to_string());
            }
            Some(watch) = watches.recv() => rows.push(Row::new(&paper, watch)),
            _ = tick.tick() => rows.iter_mut().for_each(|row| row.refresh(&paper)),
            _ = &mut stopped => break,
        }
    }
    for row in &rows {
        row.clear();
    }
}

enum Paper {
    Terminal(MultiProgress),
    Pipe,
}

impl Paper {
    fn line(&self, line: &str) {
        // Whoever reads may have left, as `head` does: the devices go on.
        let _ = match self {
            Self::Terminal(bars) => bars.println(line),
            Self::Pipe => writeln!(io::stdout(), "{line}"),
        };
    }
}

/// One device on the screen.
struct Row {
    watch: Watch,
    bar: Option<ProgressBar>,
    shown: Shown,
}

/// What was shown of a device last.
#[derive(Default)]
struct Shown {
    state: String,
    loading: Option<(Instant, u64)>,
}

impl Row {
    fn new(paper: &Paper, watch: Watch) -> Self {
        let bar = match paper {
            Paper::Terminal(bars) => {
                let bar = bars.add(ProgressBar::new(0));
                bar.set_style(style(STATE_STYLE));
                bar.set_prefix(watch.name().to_owned());
                Some(bar)
            }
            Paper::Pipe => None,
        };
        Self {
            watch,
            bar,
            shown: Shown::default(),
        }
    }

    fn is_of(&self, told: &Told) -> bool {
        told.who.as_deref() == Some(self.watch.name())
    }

    fn refresh(&mut self, paper: &Paper) {
        let glimpse = self.watch.glimpse();
        match &self.bar {
            Some(bar) => show(bar, glimpse.as_ref()),
            None => {
                if let Some(line) = self.shown.news(glimpse.as_ref()) {
                    paper.line(&format!("{:<NAME_WIDTH$}  {line}", self.watch.name()));
                }
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn show(bar: &ProgressBar, glimpse: Option<&Glimpse>) {
    if let Some(Activity::Loading { done, total, .. }) = glimpse.map(|glimpse| &glimpse.activity) {
        bar.set_style(style(LOADING_STYLE));
        bar.set_length(*total);
        bar.set_position(*done);
    } else {
        bar.set_style(style(STATE_STYLE));
    }
    bar.set_message(match glimpse {
        Some(now) if now.activity == Activity::Resting => format!("{now} ({} polls)", now.polls),
        Some(now) => now.to_string(),
        None => "does not answer".to_owned(),
    });
    bar.tick();
}

impl Shown {
    /// What a reader of a pipe should know beyond what was said already.
    fn news(&mut self, glimpse: Option<&Glimpse>) -> Option<String> {
        let Some(glimpse) = glimpse else {
            // A board tells of its boots itself; what its device says after one is news.
            *self = Self::default();
            return None;
        };
        let state = glimpse.to_string();
        if let Activity::Loading { done, total, .. } = &glimpse.activity {
            let (since, at) = self.loading.unwrap_or_else(|| (Instant::now(), 0));
            let is_new = self.state != state;
            let moved = done.saturating_sub(at) >= total / 4;
            let waited = since.elapsed() >= LOADING_PAUSE && *done != at;
            if !(is_new || moved || waited) {
                return None;
            }
            self.state.clone_from(&state);
            self.loading = Some((Instant::now(), *done));
            return Some(format!(
                "{state}  {}",
                Amount {
                    done: *done,
                    total: *total
                }
            ));
        }
        self.loading = None;
        if self.state == state {
            return None;
        }
        self.state.clone_from(&state);
        Some(state)
    }
}

/// `12.0 of 34.1 MiB`
struct Amount {
    done: u64,
    total: u64,
}

impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} MiB",
            Mebibytes(self.done),
            Mebibytes(self.total)
        )
    }
}

/// Bytes as `34.1`.
pub(super) struct Mebibytes(pub(super) u64);

impl Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10 + (1 << 19)) >> 20;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates below are well formed")
        .progress_chars("=> ")
}

const STATE_STYLE: &str = "{prefix:10} {wide_msg}";
const LOADING_STYLE: &str = "{prefix:10} {msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}";

const NAME_WIDTH: usize = 9;

/// How often devices are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Between two lines about one load in a pipe, unless a quarter of it has passed.
const LOADING_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_tenths_of_a_mebibyte() {
        for (bytes, expected) in [
            (0, "0.0"),
            (52_428, "0.0"),
            (52_429, "0.1"),
            (1 << 20, "1.0"),
            (35_756_442, "34.1"),
        ] {
            assert_eq!(Mebibytes(bytes).to_string(), expected, "{bytes}");
        }
    }
}
