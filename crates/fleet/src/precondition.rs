use core::ops::Range;
use core::time::Duration;
use std::time::SystemTime;

use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

/// What a GET or HEAD is answered with, by RFC 9110 sections 13.2.2 and 14.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    Whole,
    Part(Range<u64>),
    NotModified,
    Failed,
    Unsatisfiable,
}

/// The state of a file, as far as the headers of a request may ask for it.
#[derive(Debug)]
pub(crate) struct Validators<'a> {
    /// Strong, with its quotes, and without a comma inside.
    pub(crate) entity_tag: &'a str,
    pub(crate) modified: Option<SystemTime>,
    pub(crate) size: u64,
    /// When the answer is made.
    pub(crate) now: SystemTime,
}

impl Validators<'_> {
    pub(crate) fn select(&self, headers: &HeaderMap, ranges: Ranges) -> Selection {
        if headers.contains_key(IF_MATCH) {
            if !self.is_listed(headers, &IF_MATCH, Compare::Strong) {
                return Selection::Failed;
            }
        } else if let Some(since) = date(headers, &IF_UNMODIFIED_SINCE)
            && self.modified.is_none_or(|modified| modified > since)
        {
            return Selection::Failed;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            if self.is_listed(headers, &IF_NONE_MATCH, Compare::Weak) {
                return Selection::NotModified;
            }
        } else if let Some(since) = date(headers, &IF_MODIFIED_SINCE)
            && self.modified.is_some_and(|modified| modified <= since)
        {
            return Selection::NotModified;
        }
        if matches!(ranges, Ranges::Ignored) || !self.is_range_wanted(headers) {
            return Selection::Whole;
        }
        let mut values = headers.get_all(RANGE).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value
                .to_str()
                .map_or(Selection::Whole, |value| select_range(value, self.size)),
            _ => Selection::Whole,
        }
    }

    fn is_listed(&self, headers: &HeaderMap, name: &HeaderName, compare: Compare) -> bool {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|list| {
                list.split(',').map(str::trim).any(|tag| {
                    tag == "*"
                        || match compare {
                            Compare::Strong => tag == self.entity_tag,
                            Compare::Weak => {
                                tag.strip_prefix("W/").unwrap_or(tag) == self.entity_tag
                            }
                        }
                })
            })
    }

    fn is_range_wanted(&self, headers: &HeaderMap) -> bool {
        let Some(condition) = headers.get(IF_RANGE) else {
            return true;
        };
        let Ok(condition) = condition.to_str() else {
            return false;
        };
        if condition.contains('"') {
            return condition.trim() == self.entity_tag;
        }
        let (Ok(date), Some(modified)) = (httpdate::parse_http_date(condition), self.modified)
        else {
            return false;
        };
        // A date is a strong validator only if the file could not have changed again within its second.
        date == modified && self.now >= modified + Duration::from_secs(1)
    }
}

/// RFC 9110 section 14.2: a Range header counts for GET only.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ranges {
    Served,
    Ignored,
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Strong,
    Weak,
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// A list of ranges, another unit and bad syntax are answered with the whole file, as section 14.2 allows.
fn select_range(value: &str, size: u64) -> Selection {
    let Some((unit, set)) = value.split_once('=') else {
        return Selection::Whole;
    };
    let Some((first, last)) = set.trim().split_once('-') else {
        return Selection::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    match (position(first), position(last)) {
        (Position::Absent, Position::At(0)) => Selection::Unsatisfiable,
        (Position::Absent, Position::At(_)) if size == 0 => Selection::Unsatisfiable,
        (Position::Absent, Position::At(suffix)) => {
            Selection::Part(size.saturating_sub(suffix)..size)
        }
        (Position::At(first), Position::At(last)) if last < first => Selection::Whole,
        (Position::At(first), Position::Absent | Position::At(_)) if first >= size => {
            Selection::Unsatisfiable
        }
        (Position::At(first), Position::Absent) => Selection::Part(first..size),
        (Position::At(first), Position::At(last)) => {
            Selection::Part(first..last.saturating_add(1).min(size))
        }
        (Position::Absent, Position::Absent) | (Position::Bad, _) | (_, Position::Bad) => {
            Selection::Whole
        }
    }
}

enum Position {
    Absent,
    At(u64),
    Bad,
}

/// Digits only: a number larger than any file is the end of every file.
fn position(text: &str) -> Position {
    let text = text.trim();
    if text.is_empty() {
        Position::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Position::At(text.parse().unwrap_or(u64::MAX))
    } else {
        Position::Bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn select(headers: &[(HeaderName, &str)], size: u64) -> Selection {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let modified = httpdate::parse_http_date(DATE).unwrap();
        let validators = Validators {
            entity_tag: "\"tag\"",
            modified: Some(modified),
            size,
            now: modified + Duration::from_secs(100),
        };
        validators.select(&headers, Ranges::Served)
    }

    #[test]
    fn selects_one_range_by_every_form() {
        use Selection::{Part, Unsatisfiable, Whole};
        for (range, size, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=2-5", 10, Part(2..6)),
            ("bytes=2-", 10, Part(2..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-30", 10, Part(0..10)),
            ("bytes=9-99", 10, Part(9..10)),
            ("BYTES=1-1", 10, Part(1..2)),
            ("bytes= 1 - 2 ", 10, Part(1..3)),
            ("bytes=0-99999999999999999999999", 10, Part(0..10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-12", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes 0-1", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("bytes=", 10, Whole),
        ] {
            assert_eq!(
                select(&[(RANGE, range)], size),
                expected,
                "{range} of {size}"
            );
        }
    }

    #[test]
    fn weighs_conditions_in_the_order_of_the_rfc() {
        use Selection::{Failed, NotModified, Part, Whole};
        let range = (RANGE, "bytes=0-0");
        for (headers, expected) in [
            (vec![(IF_NONE_MATCH, "\"tag\"")], NotModified),
            (vec![(IF_NONE_MATCH, "\"x\", W/\"tag\"")], NotModified),
            (vec![(IF_NONE_MATCH, "*")], NotModified),
            (
                vec![(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, DATE)],
                Whole,
            ),
            (vec![(IF_MODIFIED_SINCE, DATE)], NotModified),
            (vec![(IF_MODIFIED_SINCE, BEFORE)], Whole),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Whole),
            (vec![(IF_MATCH, "\"x\"")], Failed),
            (vec![(IF_MATCH, "W/\"tag\"")], Failed),
            (vec![(IF_MATCH, "\"tag\""), range.clone()], Part(0..1)),
            (vec![(IF_UNMODIFIED_SINCE, BEFORE)], Failed),
            (vec![(IF_UNMODIFIED_SINCE, DATE)], Whole),
            (vec![(IF_RANGE, "\"tag\""), range.clone()], Part(0..1)),
            (vec![(IF_RANGE, "\"old\""), range.clone()], Whole),
            (vec![(IF_RANGE, "W/\"tag\""), range.clone()], Whole),
            (vec![(IF_RANGE, DATE), range.clone()], Part(0..1)),
            (vec![(IF_RANGE, BEFORE), range.clone()], Whole),
            (vec![range.clone(), range], Whole),
        ] {
            assert_eq!(select(&headers, 10), expected, "{headers:?}");
        }
    }
}
