//! What a user of the crate can do.

mod flash_store;
mod format_v1;
mod model;

#[cfg(feature = "std")]
mod file_store;

use rekindle_flash::SlotId;
use rekindle_state::{
    Dated, DatedIndex, Door, Evidence, Reason, Rejection, SlotRecord, State, UnixTime,
};

pub(crate) fn slot(index: u8) -> SlotId {
    SlotId::new(index).expect("tests use slots that exist")
}

/// A state with every field set.
pub(crate) fn full() -> State {
    State {
        check: Some(Dated {
            value: b"04-5656".to_vec(),
            date: Some(UnixTime::new(1_128_957_090)),
        }),
        scfg: Some(Dated {
            value: b"WEEKLY".to_vec(),
            date: None,
        }),
        cfg: Some(Dated {
            value: b"\xe9".to_vec(),
            date: Some(UnixTime::new(0)),
        }),
        backup_index: Some(DatedIndex {
            index: 4,
            date: Some(UnixTime::new(1_128_957_091)),
        }),
        slots: vec![SlotRecord {
            component: "prot".into(),
            slot: slot(1),
            manifest: [0x11; 32],
            serial: Some(b"138654".to_vec()),
            build: "13.8654".into(),
            date: Some(UnixTime::new(1_128_957_092)),
            door: Door::Script,
        }],
        rejections: vec![Rejection {
            manifest: [0x22; 32],
            component: "prot".into(),
            build: "13.8655".into(),
            reason: Reason::NeverConfirmed,
            tries: 1,
            retry_after: Some(UnixTime::new(1_128_960_000)),
            date: Some(UnixTime::new(1_128_957_093)),
        }],
        last_time: Some(UnixTime::new(1_128_957_094)),
        known: true,
        fallbacks: vec![Evidence {
            component: "boot".into(),
            chosen: slot(1),
            running: slot(0),
            manifest: Some([0x33; 32]),
            build: "205".into(),
            reason: Reason::HealthFailed,
            date: Some(UnixTime::new(1_128_957_095)),
            attempts: 0,
            reported: false,
        }],
        key_set: None,
    }
}
