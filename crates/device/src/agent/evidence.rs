//! Fallbacks that no server knows of yet travel with the next request for the script.

use core::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use rekindle_state::{Evidence, Reason, State};

/// The request header that tells a server of fallbacks: a list in the form of RFC 8941, the newest
/// first, such as `prot;build="14r2";slot=B;running=A;reason=never-confirmed;attempts=3`.
pub(crate) const ROLLED_BACK: HeaderName = HeaderName::from_static("rekindle-rolled-back");

/// The headers of the next request for the script.
pub(crate) fn headers(state: &State) -> HeaderMap {
    let mut list = String::new();
    for evidence in state.fallbacks.iter().rev().filter(|known| !known.reported) {
        let item = item(evidence);
        let separator = if list.is_empty() { "" } else { ", " };
        if list.len() + separator.len() + item.len() > LIMIT {
            break;
        }
        list.push_str(separator);
        list.push_str(&item);
    }
    let mut headers = HeaderMap::new();
    if let Some(value) = HeaderValue::from_str(&list)
        .ok()
        .filter(|value| !value.is_empty())
    {
        headers.insert(ROLLED_BACK, value);
    }
    headers
}

/// Notes that a server has been told; says whether that changed anything.
pub(crate) fn mark_reported(state: &mut State) -> bool {
    let mut changed = false;
    for evidence in &mut state.fallbacks {
        changed |= !evidence.reported;
        evidence.reported = true;
    }
    changed
}

fn item(evidence: &Evidence) -> String {
    let mut item = plain(&evidence.component, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
    });
    // Names of RFC 8941 begin with a letter.
    if !item.starts_with(|first: char| first.is_ascii_alphabetic()) {
        item.insert(0, 'c');
    }
    if !evidence.build.is_empty() {
        let build = plain(&evidence.build, |c| {
            (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\')
        });
        let _ = write!(item, ";build=\"{build}\"");
    }
    let _ = write!(
        item,
        ";slot={};running={}",
        evidence.chosen, evidence.running
    );
    let _ = write!(item, ";reason={}", reason(evidence.reason));
    if evidence.attempts > 0 {
        let _ = write!(item, ";attempts={}", evidence.attempts);
    }
    if let Some(date) = evidence.date {
        let _ = write!(item, ";date={}", date.as_secs());
    }
    item
}

/// Names come from signed manifests and the configuration, and still a header takes not every one.
fn plain(text: &str, allowed: impl Fn(char) -> bool) -> String {
    text.chars()
        .take(NAME)
        .map(|c| if allowed(c) { c } else { '_' })
        .collect()
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::HealthFailed => "health-failed",
        Reason::NeverConfirmed => "never-confirmed",
        _ => "other",
    }
}

/// Bytes of the header's value: far below what servers take.
const LIMIT: usize = 1024;

/// Characters of a name or build that are shown.
const NAME: usize = 64;

#[cfg(test)]
mod tests {
    use rekindle_flash::SlotId;
    use rekindle_state::UnixTime;

    use super::*;

    fn evidence(component: &str, build: &str) -> Evidence {
        Evidence {
            component: component.to_owned(),
            chosen: SlotId::B,
            running: SlotId::A,
            manifest: Some([1; 32]),
            build: build.to_owned(),
            reason: Reason::NeverConfirmed,
            date: Some(UnixTime::new(1_800_000_000)),
            attempts: 3,
            reported: false,
        }
    }

    fn header(state: &State) -> Option<String> {
        let headers = headers(state);
        let value = headers.get(ROLLED_BACK)?;
        Some(value.to_str().expect("it is ASCII").to_owned())
    }

    #[test]
    fn what_no_server_knows_is_told_the_newest_first() {
        let mut state = State::default();
        assert_eq!(header(&state), None);
        state.add_fallback(evidence("prot", "14r1"));
        let mut boot = evidence("boot", "7");
        boot.reason = Reason::HealthFailed;
        boot.date = None;
        boot.attempts = 0;
        state.add_fallback(boot);
        assert_eq!(
            header(&state).as_deref(),
            Some(
                "boot;build=\"7\";slot=B;running=A;reason=health-failed, \
                 prot;build=\"14r1\";slot=B;running=A;reason=never-confirmed;attempts=3;date=1800000000"
            )
        );
        assert!(mark_reported(&mut state));
        assert!(!mark_reported(&mut state));
        assert_eq!(header(&state), None);
    }

    #[test]
    fn odd_names_and_many_fallbacks_make_a_short_plain_header() {
        let mut state = State::default();
        for _ in 0..rekindle_state::limit::FALLBACKS {
            state.add_fallback(evidence("8 bit\n", &"\"\u{e4}\\".repeat(100)));
        }
        let header = header(&state).expect("there is much to tell");
        assert!(header.starts_with("c8_bit_;build=\"___"), "{header}");
        assert!(header.len() <= LIMIT);
    }
}
