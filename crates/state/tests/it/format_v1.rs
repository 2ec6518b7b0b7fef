//! Golden bytes of format version 1: if this fails, revert your change, do not edit the bytes.

use rekindle_state::{DecodeError, Generation, LimitError, State, limit};

use crate::full;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = str::from_utf8(pair).expect("digits are ASCII");
            u8::from_str_radix(pair, 16).expect("only digits are left")
        })
        .collect()
}

const EMPTY: &str = "89524b5354410d0a 01000000 01000000 0100000000000000 c4e2ee27 a0";

const FULL: &str = "
    89524b5354410d0a 01000000 fe000000 0807060504030201 d71e466b
    a900a2004730342d35363536011a434a84a201a100465745454b4c5902a20041e9010003a2000401
    1a434a84a30481a7006470726f740101025820111111111111111111111111111111111111111111
    11111111111111111111110346313338363534046731332e38363534051a434a84a406000581a700
    58202222222222222222222222222222222222222222222222222222222222222222016470726f74
    026731332e3836353503010401051a434a9000061a434a84a5061a434a84a607f50881a70064626f
    6f740101020003582033333333333333333333333333333333333333333333333333333333333333
    3304633230350500061a434a84a7";

#[test]
fn an_empty_state_has_these_bytes() {
    let generation = Generation {
        sequence: 1,
        state: State::default(),
    };
    assert_eq!(generation.encode().unwrap(), hex(EMPTY));
    assert_eq!(Generation::decode(&hex(EMPTY)).unwrap(), generation);
}

#[test]
fn a_full_state_has_these_bytes() {
    let generation = Generation {
        sequence: 0x0102_0304_0506_0708,
        state: full(),
    };
    assert_eq!(generation.encode().unwrap(), hex(FULL));
    assert_eq!(Generation::decode(&hex(FULL)).unwrap(), generation);
}

/// Gives `bytes` the checksum that belongs to them, as a writer with other ideas would.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..24]);
    hasher.update(&bytes[28..]);
    bytes[24..28].copy_from_slice(&hasher.finalize().to_le_bytes());
    bytes
}

fn with_payload(payload: &[u8]) -> Vec<u8> {
    let mut bytes = hex(EMPTY)[..28].to_vec();
    bytes[12..16].copy_from_slice(
        &u32::try_from(payload.len())
            .expect("a short payload")
            .to_le_bytes(),
    );
    bytes.extend_from_slice(payload);
    sealed(bytes)
}

#[test]
fn each_kind_of_damage_is_named() {
    let good = hex(FULL);
    let len = good.len();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut longer = good.clone();
    longer.push(0);
    let cases = [
        (vec![], "it is empty"),
        (good[..20].to_vec(), "it ends after 20 of 28 bytes"),
        (good[..len - 1].to_vec(), "it ends after 281 of 282 bytes"),
        (longer, "it has 283 bytes and should end after 282"),
        (
            vec![0x41; 65537],
            "it has 65537 bytes, a state has at most 65536",
        ),
        (vec![0xff; 282], "it does not begin like a state"),
        (
            changed(8, 2),
            "it has format version 2, this firmware reads version 1",
        ),
        (changed(10, 1), "it does not begin like a state"),
        (changed(200, 0), "its checksum is wrong"),
    ];
    for (bytes, message) in cases {
        assert_eq!(Generation::decode(&bytes).unwrap_err().to_string(), message);
    }
}

#[test]
fn content_that_this_version_does_not_write_is_refused() {
    let cases: &[(&[u8], usize)] = &[
        (b"", 0),                                     // no map
        (b"\x80", 0),                                 // an array
        (b"\xbf\xff", 1),                             // an indefinite map
        (b"\xa0\x00", 1),                             // something after the end
        (b"\xa1\x09\xf5", 2),                         // an unknown key
        (b"\xa2\x07\xf5\x07\xf5", 4),                 // a key twice
        (b"\xa2\x07\xf5\x06\x00", 4),                 // keys out of order
        (b"\xa1\x07\x01", 2),                         // another type
        (b"\xa1\x00\xa0", 3),                         // a variable without a value
        (b"\xa1\x00\xa1\x00\x58\xff", 4),             // bytes beyond the end
        (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", 9), // a map that never ends
        (b"\xa1\x04\x81\xa1\x01\x18\x1a", 7),         // slot 26
        (b"\xa1\x04\x81\xa1\x02\x41\x00", 7),         // a manifest of one byte
        (b"\xa1\x04\x81\xa1\x06\x04", 6),             // an unknown door
        (b"\xa1\x05\x81\xa1\x03\x02", 6),             // an unknown reason
    ];
    for (payload, offset) in cases {
        assert_eq!(
            Generation::decode(&with_payload(payload)),
            Err(DecodeError::Content { offset: *offset }),
            "{payload:02x?}"
        );
    }
}

#[test]
fn lists_and_texts_beyond_their_limits_are_refused_before_they_are_read() {
    let list = Err(DecodeError::Limit(LimitError::List {
        what: "slot records",
        len: usize::MAX,
        max: limit::SLOTS,
    }));
    let payload = b"\xa1\x04\x9b\xff\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(Generation::decode(&with_payload(payload)), list);

    let mut payload = b"\xa1\x00\xa1\x00\x59\x01\x01".to_vec();
    payload.extend([0x41; 257]);
    assert_eq!(
        Generation::decode(&with_payload(&payload)),
        Err(DecodeError::Limit(LimitError::Value {
            what: "UPDATE/CHECK",
            len: 257
        }))
    );
}

#[test]
fn a_state_at_every_limit_fits_and_comes_back() {
    let mut state = full();
    let dated = state.check.as_mut().unwrap();
    dated.value = vec![0xff; limit::VALUE];
    state.scfg.clone_from(&state.check);
    state.cfg.clone_from(&state.check);
    let mut record = state.slots.remove(0);
    record.component = "c".repeat(limit::TEXT);
    record.build = "b".repeat(limit::TEXT);
    record.serial = Some(vec![0; limit::VALUE]);
    state.slots = vec![record; limit::SLOTS];
    let mut rejection = state.rejections.remove(0);
    rejection.component = "c".repeat(limit::TEXT);
    rejection.build = "b".repeat(limit::TEXT);
    state.rejections = vec![rejection; limit::REJECTIONS];
    let mut evidence = state.fallbacks.remove(0);
    evidence.component = "c".repeat(limit::TEXT);
    evidence.build = "b".repeat(limit::TEXT);
    state.fallbacks = vec![evidence; limit::FALLBACKS];
    let generation = Generation {
        sequence: u64::MAX,
        state,
    };
    let bytes = generation.encode().unwrap();
    assert!(bytes.len() <= limit::FILE, "{} bytes", bytes.len());
    assert_eq!(Generation::decode(&bytes), Ok(generation));
}

#[test]
fn a_state_beyond_a_limit_is_not_encoded() {
    type Change = fn(&mut State);

    let refused = |change: Change| {
        let mut state = full();
        change(&mut state);
        Generation { sequence: 1, state }
            .encode()
            .unwrap_err()
            .to_string()
    };
    let cases: [(Change, &str); 5] = [
        (
            |state| state.cfg.as_mut().unwrap().value = vec![0; 257],
            "UPDATE/CFG has 257 bytes, at most 256 can be stored",
        ),
        (
            |state| state.slots[0].serial = Some(vec![0; 300]),
            "the serial of a slot record has 300 bytes, at most 256 can be stored",
        ),
        (
            |state| state.rejections[0].build = "x".repeat(65),
            "the build of a rejection has 65 bytes, at most 64 can be stored",
        ),
        (
            |state| state.slots = vec![state.slots[0].clone(); 65],
            "65 slot records, at most 64 can be stored",
        ),
        (
            |state| state.fallbacks = vec![state.fallbacks[0].clone(); 17],
            "17 fallbacks, at most 16 can be stored",
        ),
    ];
    for (change, message) in cases {
        assert_eq!(refused(change), message);
    }
}
