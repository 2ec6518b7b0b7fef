//! What a transfer may cost: bytes in all, and bytes a second.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use super::FetchError;

/// Counts the bytes of one image against a limit: those that came, and those that were asked for and
/// may still come.
#[derive(Debug)]
pub(super) struct Meter {
    limit: u64,
    spent: AtomicU64,
}

impl Meter {
    pub(super) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.unwrap_or(u64::MAX),
            spent: AtomicU64::new(0),
        })
    }

    /// Sets so many bytes aside before they are asked for.
    pub(super) fn reserve(self: &Arc<Self>, len: u64) -> Result<Reserved, FetchError> {
        let taken = self
            .spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
                spent.checked_add(len).filter(|sum| *sum <= self.limit)
            });
        match taken {
            Ok(_) => Ok(Reserved {
                meter: Arc::clone(self),
                left: len,
            }),
            Err(spent) => Err(FetchError::Budget {
                needed: spent.saturating_add(len),
                limit: self.limit,
            }),
        }
    }
}

/// Bytes that were asked for and have not come. Dropped, they do not count any more.
#[derive(Debug)]
pub(super) struct Reserved {
    meter: Arc<Meter>,
    left: u64,
}

impl Reserved {
    /// So many have come. More than were asked for count as well, and are refused.
    pub(super) fn receive(&mut self, len: u64) -> Result<(), FetchError> {
        match self.left.checked_sub(len) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let more = self.meter.reserve(len - self.left);
                self.left = 0;
                more.map(|mut more| more.left = 0)
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.meter.spent.fetch_sub(self.left, Ordering::Relaxed);
    }
}

/// Keeps what all transfers read together below so many bytes a second, by waiting before the next
/// piece for as long as the ones before should have taken.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: u64,
    free: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            free: Mutex::new(Instant::now()),
        }
    }

    pub(super) async fn wait(&self) {
        let free = *self.free.lock().unwrap_or_else(PoisonError::into_inner);
        sleep_until(free).await;
    }

    pub(super) fn count(&self, len: u64) {
        let micros = u128::from(len) * 1_000_000 / u128::from(self.rate);
        let time = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (*free).max(Instant::now());
        *free = from.checked_add(time).unwrap_or(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_asked_for_count_until_they_are_given_back() {
        let meter = Meter::new(Some(100));
        let mut first = meter.reserve(60).unwrap();
        assert_eq!(
            meter.reserve(41).unwrap_err().to_string(),
            "the image needs at least 101 bytes from the network, and `update.max-download` is 100"
        );
        let second = meter.reserve(40).unwrap();
        first.receive(50).unwrap();
        drop(first);
        drop(second);
        drop(meter.reserve(50).unwrap());
        let mut last = meter.reserve(10).unwrap();
        last.receive(50).unwrap();
        meter.reserve(1).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_take_the_time_that_the_rate_gives_them() {
        let throttle = Throttle::new(1000);
        let start = Instant::now();
        for len in [500, 2000, 1] {
            throttle.wait().await;
            throttle.count(len);
        }
        throttle.wait().await;
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(2501) && took < Duration::from_millis(2510),
            "{took:?}"
        );
    }
}
