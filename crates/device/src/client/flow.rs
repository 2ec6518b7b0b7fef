//! The waits of a body under way: bounded each, and fast enough together.

use alloc::sync::Arc;
use core::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout};

use super::meter::Throttle;
use super::{Cause, FetchError, Limits};

/// Counts what comes and how long it was waited for. The time in which the caller is busy, writing
/// flash, does not count against the server.
#[derive(Debug)]
pub(super) struct Flow {
    limits: Limits,
    throttle: Option<Arc<Throttle>>,
    received: u64,
    window_received: u64,
    window_waited: Duration,
}

impl Flow {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            throttle: None,
            received: 0,
            window_received: 0,
            window_waited: Duration::ZERO,
        }
    }

    /// Waits before each piece as long as the throttle demands. That does not count against the server
    /// either.
    pub(super) fn throttled(mut self, throttle: Option<Arc<Throttle>>) -> Self {
        self.throttle = throttle;
        self
    }

    /// The next piece of the body, never empty; `None` at its end.
    pub(super) async fn next(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<Bytes>, FetchError> {
        loop {
            if let Some(throttle) = &self.throttle {
                throttle.wait().await;
            }
            let start = Instant::now();
            let chunk = timeout(self.limits.idle, response.chunk())
                .await
                .map_err(|_| FetchError::Idle(self.limits.idle))?
                .map_err(|error| self.cut(Some(Cause::new(error))))?;
            let Some(chunk) = chunk else {
                return Ok(None);
            };
            if let Some(throttle) = &self.throttle {
                throttle.count(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            }
            self.count(&chunk, start.elapsed())?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    pub(super) fn cut(&self, cause: Option<Cause>) -> FetchError {
        FetchError::Cut {
            received: self.received,
            cause,
        }
    }

    fn count(&mut self, chunk: &Bytes, waited: Duration) -> Result<(), FetchError> {
        let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(len);
        self.window_received = self.window_received.saturating_add(len);
        self.window_waited = self.window_waited.saturating_add(waited);
        if self.window_waited < WINDOW {
            return Ok(());
        }
        let minimum = self.limits.minimum_rate;
        let needed = minimum.saturating_mul(self.window_waited.as_secs());
        let enough = self.window_received >= needed;
        self.window_received = 0;
        self.window_waited = Duration::ZERO;
        if enough {
            Ok(())
        } else {
            Err(FetchError::TooSlow { minimum })
        }
    }
}

/// Long enough that a stalled mobile link recovers within it.
const WINDOW: Duration = Duration::from_secs(30);
