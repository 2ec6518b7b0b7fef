//! The wall clock, and local time as plain numbers.

use alloc::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rekindle_state::UnixTime;
use rekindle_update::url::LocalTime;

/// The system's clock, corrected upwards: never earlier than this build's date and the last time that
/// was known. A device without a battery starts in 1970, where every certificate is not yet valid.
///
/// Clones share the floor.
#[derive(Clone, Debug)]
pub struct Clock {
    floor: Arc<Mutex<UnixTime>>,
}

impl Clock {
    /// A clock that knows of a time before now, from `state`.
    #[must_use]
    pub fn new(last_known: Option<UnixTime>) -> Self {
        let floor = last_known.map_or(BUILD_DATE, |time| time.max(BUILD_DATE));
        Self {
            floor: Arc::new(Mutex::new(floor)),
        }
    }

    /// The time is at least `time`, as a stored record or a checked source says.
    pub fn raise(&self, time: UnixTime) {
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        *floor = floor.max(time);
    }

    /// The best guess: the system's time, or the floor where the system is behind it.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        system_time().max(self.floor())
    }

    /// The time, if the device has one: `None` where the system's clock lies more than a day behind
    /// the floor, which no correction of a set clock explains.
    #[must_use]
    pub fn known(&self) -> Option<UnixTime> {
        let (system, floor) = (system_time(), self.floor());
        (system.saturating_add(DAY_SECONDS) >= floor).then(|| system.max(floor))
    }

    fn floor(&self) -> UnixTime {
        *self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let since = core::time::Duration::from_secs(self.now().as_secs());
        Some(rustls_pki_types::UnixTime::since_unix_epoch(since))
    }
}

/// `time` in the time zone of the system (`TZ` or `/etc/localtime`, UTC without both).
pub(crate) fn local_time(time: UnixTime) -> LocalTime {
    in_zone(time, TimeZone::system())
}

fn in_zone(time: UnixTime, zone: TimeZone) -> LocalTime {
    let timestamp = i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX);
    let civil = timestamp.to_zoned(zone).datetime();
    let part = |value: i8| u8::try_from(value).unwrap_or_default();
    LocalTime {
        year: civil.year(),
        month: part(civil.month()),
        day: part(civil.day()),
        hour: part(civil.hour()),
        minute: part(civil.minute()),
        second: part(civil.second()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the device that reads the wall clock"
)]
fn system_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime::new(since.map_or(0, |since| since.as_secs()))
}

/// The date of this release, 2026-11-01: a constant, so that a build is reproducible. A vendor's
/// build sets `SOURCE_DATE_EPOCH` to something later.
const BUILD_DATE: UnixTime = {
    const RELEASED: u64 = 1_793_491_200;
    let epoch = match option_env!("SOURCE_DATE_EPOCH") {
        Some(text) => match u64::from_str_radix(text, 10) {
            Ok(seconds) => seconds,
            Err(_) => 0,
        },
        None => 0,
    };
    UnixTime::new(if epoch > RELEASED { epoch } else { RELEASED })
};

const DAY_SECONDS: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_earlier_than_the_build_and_the_last_known_time() {
        let future = UnixTime::new(4_000_000_000);
        assert!(Clock::new(None).now() >= BUILD_DATE);
        assert_eq!(Clock::new(Some(future)).now(), future);
        assert!(Clock::new(Some(UnixTime::new(5))).now() >= BUILD_DATE);
    }

    #[test]
    fn a_clock_far_behind_the_floor_is_not_set() {
        let clock = Clock::new(None);
        assert_eq!(clock.known(), Some(clock.now()));
        let far = clock.now().saturating_add(3 * DAY_SECONDS);
        let shared = clock.clone();
        shared.raise(far);
        assert_eq!(clock.known(), None);
        assert_eq!(clock.now(), far);
    }

    #[test]
    fn local_time_follows_the_zone_and_its_summer_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let winter = in_zone(UnixTime::new(1_793_491_200), zone.clone());
        assert_eq!(winter.to_string(), "20261101-010000");
        let summer = in_zone(UnixTime::new(1_782_864_000), zone);
        assert_eq!(summer.to_string(), "20260701-020000");
    }
}
