use core::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use crate::config::Limits;

/// Judges whether a client that the server waits for is still worth its place. Holds no clock: every call is told the time.
///
/// Only time spent waiting counts, so that a slow disk on our side is never the client's fault.
#[derive(Debug)]
pub(crate) struct Pace {
    idle_time: Duration,
    window: Duration,
    /// What must move in one `window` of waiting.
    window_bytes: u64,
    waiting: Option<Waiting>,
    /// Waited in this window before `waiting`; may pass `window` until the next `wait`.
    waited: Duration,
    /// Moved since this window began.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    idle_since: Instant,
    counted_from: Instant,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            idle_time: limits.idle_time,
            window: limits.rate_window,
            window_bytes: u64::from(limits.min_rate)
                .saturating_mul(limits.rate_window.as_secs().max(1)),
            waiting: None,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Notes that nothing can be done without the client, and returns when to ask again if it does not move.
    pub(crate) fn wait(&mut self, now: Instant) -> Result<Instant, TooSlow> {
        let waiting = self.waiting.get_or_insert(Waiting {
            idle_since: now,
            counted_from: now,
        });
        if now - waiting.idle_since >= self.idle_time {
            return Err(TooSlow::Idle);
        }
        if self.waited + (now - waiting.counted_from) >= self.window {
            if self.bytes < self.window_bytes {
                return Err(TooSlow::Rate);
            }
            self.waited = Duration::ZERO;
            self.bytes = 0;
            waiting.counted_from = now;
        }
        let window_left = self.window.saturating_sub(self.waited);
        Ok((waiting.idle_since + self.idle_time).min(waiting.counted_from + window_left))
    }

    /// Notes that the client sent or took `bytes`.
    pub(crate) fn progress(&mut self, now: Instant, bytes: usize) {
        if let Some(waiting) = self.waiting.take() {
            self.waited += now - waiting.counted_from;
        }
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// What a client did too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TooSlow {
    #[error("no byte moved for the whole idle time")]
    Idle,
    #[error("fewer bytes moved than the lowest rate asks for")]
    Rate,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> (Pace, Instant) {
        let limits = Limits {
            idle_time: Duration::from_secs(30),
            min_rate: 100,
            rate_window: Duration::from_secs(60),
            ..Limits::default()
        };
        (Pace::new(&limits), Instant::now())
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_that_does_nothing_is_idle_at_the_deadline_and_not_before() {
        let (mut pace, start) = pace();
        assert_eq!(pace.wait(start), Ok(after(start, 30)));
        assert_eq!(pace.wait(after(start, 29)), Ok(after(start, 30)));
        assert_eq!(pace.wait(after(start, 30)), Err(TooSlow::Idle));
    }

    #[test]
    fn a_client_that_trickles_is_too_slow_after_one_window() {
        let (mut pace, start) = pace();
        for second in 0..60 {
            pace.wait(after(start, second)).unwrap();
            pace.progress(after(start, second + 1), 99);
        }
        assert_eq!(pace.wait(after(start, 60)), Err(TooSlow::Rate));
    }

    #[test]
    fn a_client_at_the_lowest_rate_goes_on_for_many_windows() {
        let (mut pace, start) = pace();
        for second in 0..600 {
            pace.wait(after(start, second)).unwrap();
            pace.progress(after(start, second + 1), 101);
        }
    }

    #[test]
    fn time_in_which_the_server_does_not_wait_does_not_count() {
        let (mut pace, start) = pace();
        pace.wait(start).unwrap();
        pace.progress(after(start, 1), 1);
        assert_eq!(pace.wait(after(start, 1000)), Ok(after(start, 1030)));
    }
}
