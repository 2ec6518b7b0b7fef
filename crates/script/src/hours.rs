use core::fmt;

/// A set of hours of the day, 0 to 23. Hour 22 covers 22:00 to 22:59 local time.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Hours(u32);

impl Hours {
    /// No hour at all.
    pub const NONE: Self = Self(0);

    /// This set with one more hour in it; `None` if there is no such hour.
    #[must_use]
    pub const fn with(self, hour: u8) -> Option<Self> {
        match bit(hour) {
            Some(bit) => Some(Self(self.0 | bit)),
            None => None,
        }
    }

    /// Whether the hour is in the set. An hour above 23 never is.
    #[must_use]
    pub const fn contains(self, hour: u8) -> bool {
        match bit(hour) {
            Some(bit) => self.0 & bit != 0,
            None => false,
        }
    }

    /// Whether the set holds no hour.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The hours, rising.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..24).filter(move |&hour| self.contains(hour))
    }
}

impl fmt::Debug for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// As in `/allow`: `0,1,22`.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for hour in self.iter() {
            write!(f, "{separator}{hour}")?;
            separator = ",";
        }
        Ok(())
    }
}

const fn bit(hour: u8) -> Option<u32> {
    if hour < 24 { Some(1 << hour) } else { None }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn holds_the_hours_of_a_day_and_no_others() {
        let hours = [23, 0, 4]
            .into_iter()
            .try_fold(Hours::NONE, Hours::with)
            .unwrap();
        assert_eq!(hours.to_string(), "0,4,23");
        assert!(hours.contains(23));
        assert!(!hours.contains(1));
        assert!(!hours.contains(32));
        assert_eq!(hours.with(24), None);
        assert!(Hours::NONE.is_empty());
    }
}
