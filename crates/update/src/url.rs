//! URLs of maintenance scripts: meta characters and standard file names.
//!
//! Facts: section 3 of the reference on update scripts. URLs are bytes and stay bytes: what the
//! script says is neither decoded nor normalised.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use rekindle_script::Load;

/// Local time as plain numbers, for `#d` and `times /allow`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct LocalTime {
    /// The year.
    pub year: i16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl fmt::Display for LocalTime {
    /// As `#d` gives it: `20051010-170130`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}{:02}{:02}-{:02}{:02}{:02}",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }
}

/// What the meta characters stand for. A fact that the device does not know is empty.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct UrlFacts<'a> {
    /// `#F`: the running build of the firmware.
    pub firmware: &'a str,
    /// `#B`: the build of the boot code.
    pub boot: &'a str,
    /// `#H`: the hardware build.
    pub hardware: &'a str,
    /// `#h`: the hardware id, such as `IP1200-03-0d-f0`.
    pub hardware_id: &'a str,
    /// `#m`: the MAC address, such as `00-90-33-03-0d-f0`.
    pub mac: &'a str,
    /// `#t`: the device type, such as `IP1200`.
    pub device_type: &'a str,
    /// `#i`: the address of the device in its network.
    pub address: Option<IpAddr>,
    /// `#d`: the local time; without a clock `00000000-000000`.
    pub local: Option<LocalTime>,
    /// `#b<n>`: this number modulo n.
    pub index: u32,
}

/// A URL after [`expand`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Expanded {
    /// The URL. A `#` that begins no meta character is left in it.
    pub url: Vec<u8>,
    /// Whether a rolling index (`#b<n>`) is part of it.
    pub rolls: bool,
}

/// Replaces the meta characters of a script URL or the URL of a configuration upload. They count
/// anywhere in it, also in the query. An unknown one is kept as it is.
///
/// What a fact brings into a URL is percent-encoded where it would otherwise change the URL's
/// structure.
#[must_use]
pub fn expand(url: &[u8], facts: &UrlFacts<'_>) -> Expanded {
    let mut out = Vec::with_capacity(url.len() + 32);
    let mut rolls = false;
    let mut rest = url;
    while let Some(at) = rest.iter().position(|byte| *byte == b'#') {
        let (plain, meta) = rest.split_at(at);
        out.extend_from_slice(plain);
        let text = |text| (Cow::Borrowed(text), 2);
        let (value, len) = match meta.get(1) {
            Some(b'F') => text(facts.firmware),
            Some(b'B') => text(facts.boot),
            Some(b'H') => text(facts.hardware),
            Some(b'h') => text(facts.hardware_id),
            Some(b'm') => text(facts.mac),
            Some(b't') => text(facts.device_type),
            Some(b'i') => (
                facts
                    .address
                    .map_or_else(Cow::default, |it| format!("{it}").into()),
                2,
            ),
            Some(b'd') => (
                facts
                    .local
                    .map_or_else(|| NO_TIME.into(), |it| format!("{it}").into()),
                2,
            ),
            Some(b'b') => match rolling(&meta[2..]) {
                Some((modulus, digits)) => {
                    rolls = true;
                    (format!("{}", facts.index % modulus).into(), 2 + digits)
                }
                None => (Cow::Borrowed("#"), 1),
            },
            Some(_) | None => (Cow::Borrowed("#"), 1),
        };
        if len == 1 {
            out.push(b'#');
        } else {
            push_encoded(&mut out, &value);
        }
        rest = &meta[len..];
    }
    out.extend_from_slice(rest);
    Expanded { url: out, rolls }
}

/// The URL as it is sent: a `#` that was left in it is data, and an HTTP client would take it for
/// the start of a fragment and cut the URL off there.
#[must_use]
pub fn to_request(url: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.len());
    for byte in url {
        match byte {
            b'#' => out.extend_from_slice(b"%23"),
            byte => out.push(*byte),
        }
    }
    out
}

/// Appends `name` to a URL that ends in `/`; any other URL is complete.
#[must_use]
pub fn with_standard_name(url: &[u8], name: &str) -> Vec<u8> {
    let mut out = url.to_vec();
    if url.ends_with(b"/") {
        push_encoded(&mut out, name);
    }
    out
}

/// The standard name of a device type's script: `update-ip1200.htm`.
#[must_use]
pub fn script_name(device_type: &str) -> String {
    format!("update-{}.htm", device_type.to_lowercase())
}

/// The standard name of a component's file: `ip222.bin`, `boot222.bin`, and for the radio firmware
/// the type without a suffix.
#[must_use]
pub fn standard_name(component: Load, device_type: &str) -> String {
    let name = device_type.to_lowercase();
    match component {
        Load::Prot => format!("{name}.bin"),
        Load::Boot => format!("boot{}.bin", name.strip_prefix("ip").unwrap_or(&name)),
        Load::Bmc => name,
    }
}

/// The modulus after `#b` and its number of digits; `None` if that is no rolling index.
fn rolling(after: &[u8]) -> Option<(u32, usize)> {
    let digits = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let modulus: u32 = core::str::from_utf8(&after[..digits]).ok()?.parse().ok()?;
    (modulus != 0).then_some((modulus, digits))
}

fn push_encoded(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// `#d` of a device without a clock: as long as any other, and before all of them.
const NO_TIME: &str = "00000000-000000";

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> UrlFacts<'static> {
        UrlFacts {
            firmware: "08-12345",
            boot: "401",
            hardware: "102",
            hardware_id: "IP1200-03-0d-f0",
            mac: "00-90-33-03-0d-f0",
            device_type: "IP1200",
            address: Some(IpAddr::from([192, 0, 2, 7])),
            local: Some(LocalTime {
                year: 2005,
                month: 10,
                day: 10,
                hour: 17,
                minute: 1,
                second: 30,
            }),
            index: 12,
        }
    }

    fn expanded(url: &str) -> String {
        String::from_utf8(expand(url.as_bytes(), &facts()).url).unwrap()
    }

    #[test]
    fn each_meta_character_stands_for_its_fact() {
        // Section 3, "Meta characters", with the values the base document shows.
        for (meta, value) in [
            ("#F", "08-12345"),
            ("#B", "401"),
            ("#H", "102"),
            ("#h", "IP1200-03-0d-f0"),
            ("#m", "00-90-33-03-0d-f0"),
            ("#d", "20051010-170130"),
            ("#b5", "2"),
            ("#b13", "12"),
            ("#i", "192.0.2.7"),
            ("#t", "IP1200"),
        ] {
            assert_eq!(expanded(meta), value, "{meta}");
        }
    }

    #[test]
    fn meta_characters_count_anywhere_in_the_url() {
        assert_eq!(
            expanded("http://h/u.php?mode=backup&hwid=#h&sn=#m"),
            "http://h/u.php?mode=backup&hwid=IP1200-03-0d-f0&sn=00-90-33-03-0d-f0"
        );
        assert_eq!(
            expanded("http://h/#h/#b5.txt"),
            "http://h/IP1200-03-0d-f0/2.txt"
        );
    }

    #[test]
    fn an_unknown_meta_character_is_kept_as_it_is() {
        // Design, section 5.
        for kept in [
            "#x",
            "#",
            "a#",
            "##",
            "#b",
            "#bx",
            "#b0",
            "#b99999999999",
            "%23m",
        ] {
            assert_eq!(expanded(kept), kept);
        }
        assert_eq!(expanded("##m"), "#00-90-33-03-0d-f0");
        assert_eq!(to_request(b"http://h/#x?a=#"), b"http://h/%23x?a=%23");
    }

    #[test]
    fn only_a_rolling_index_rolls() {
        let rolls = |url: &str| expand(url.as_bytes(), &facts()).rolls;
        assert!(rolls("http://h/#m-#b5"));
        for not in ["http://h/#m", "http://h/#b", "http://h/#b0", "http://h/b5"] {
            assert!(!rolls(not), "{not}");
        }
    }

    #[test]
    fn what_is_not_known_is_empty_and_no_clock_is_zeros() {
        let url = expand(b"[#F#B#H#h#m#t#i]#d-#b3", &UrlFacts::default()).url;
        assert_eq!(url, b"[]00000000-000000-0");
    }

    #[test]
    fn a_fact_cannot_change_the_structure_of_a_url() {
        let facts = UrlFacts {
            hardware: "a/../b?c&d #e\n\u{e4}",
            ..UrlFacts::default()
        };
        assert_eq!(
            expand(b"/#H/", &facts).url,
            b"/a%2F..%2Fb%3Fc%26d%20%23e%0A%C3%A4/"
        );
    }

    #[test]
    fn bytes_of_other_character_sets_stay() {
        assert_eq!(expand(b"/\xfc#t\xff", &facts()).url, b"/\xfcIP1200\xff");
    }

    #[test]
    fn standard_names_follow_the_device_type() {
        // Design, section 5, "standard names".
        for (kind, script, prot, boot, bmc) in [
            (
                "IP1200",
                "update-ip1200.htm",
                "ip1200.bin",
                "boot1200.bin",
                "ip1200",
            ),
            (
                "IP222",
                "update-ip222.htm",
                "ip222.bin",
                "boot222.bin",
                "ip222",
            ),
            (
                "IPBS2",
                "update-ipbs2.htm",
                "ipbs2.bin",
                "bootbs2.bin",
                "ipbs2",
            ),
            ("C1", "update-c1.htm", "c1.bin", "bootc1.bin", "c1"),
        ] {
            assert_eq!(script_name(kind), script);
            assert_eq!(standard_name(Load::Prot, kind), prot);
            assert_eq!(standard_name(Load::Boot, kind), boot);
            assert_eq!(standard_name(Load::Bmc, kind), bmc);
        }
    }

    #[test]
    fn a_standard_name_is_appended_to_a_folder_only() {
        let named = |url: &str| with_standard_name(url.as_bytes(), "ip1200.bin");
        assert_eq!(named("http://h/fw/"), b"http://h/fw/ip1200.bin");
        assert_eq!(named("http://h/fw/x.bin"), b"http://h/fw/x.bin");
        assert_eq!(named("http://h/fw/?a=b"), b"http://h/fw/?a=b");
        assert_eq!(with_standard_name(b"http://h/", "a b"), b"http://h/a%20b");
    }
}
