//! One stored generation: header, checksum, CBOR. Normative: `docs/formats/state.md`.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `89 52 4B 53 54 41 0D 0A` |
//! | 8..10 | version, u16 little endian, 1 |
//! | 10..12 | reserved, 0 |
//! | 12..16 | payload length, u32 little endian |
//! | 16..24 | sequence, u64 little endian |
//! | 24..28 | CRC-32 of bytes 0..24 and the payload, u32 little endian |
//! | 28.. | payload: a CBOR map, to the end of the file |

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Decoder, Encoder, decode, encode};
use rekindle_flash::SlotId;

use crate::limit::{self, FALLBACKS, FILE, KEYS, REJECTIONS, SLOTS};
use crate::{
    AdoptedKeySet, Dated, DatedIndex, Door, Evidence, LimitError, Reason, Rejection, SlotRecord,
    State, UnixTime,
};

/// A state as it lies on the medium, with the number that orders the copies: the highest is the
/// newest.
///
/// For stores outside this crate; [`FileStore`](crate::FileStore) writes the same bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that stores build"
)]
pub struct Generation {
    /// Rises by one with each commit.
    pub sequence: u64,
    /// What was committed.
    pub state: State,
}

impl Generation {
    /// The bytes of format version 1.
    ///
    /// # Errors
    ///
    /// If a text or list of the state exceeds its [`limit`].
    ///
    /// # Panics
    ///
    /// Never: the limits keep the payload far below what its length field can say.
    pub fn encode(&self) -> Result<Vec<u8>, LimitError> {
        limit::check(&self.state)?;
        let payload = payload(&self.state);
        let length = u32::try_from(payload.len()).expect("the limits keep a payload below 64 KiB");
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        let checksum = checksum(&bytes, &payload);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// Whatever differs from what this version writes is an error; nothing is guessed, and no
    /// unreadable state ever becomes an empty one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if bytes.len() > FILE {
            return Err(DecodeError::TooLarge { len: bytes.len() });
        }
        let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::Truncated {
                expected: HEADER_LEN,
                len: bytes.len(),
            });
        };
        let (sealed, sum) = header.split_at(24);
        let Some(Header {
            sequence,
            len: expected,
        }) = Header::peek(header)
        else {
            return Err(DecodeError::NotState);
        };
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(DecodeError::Version { version });
        }
        if header[10..12] != [0, 0] {
            return Err(DecodeError::NotState);
        }
        if bytes.len() < expected {
            return Err(DecodeError::Truncated {
                expected,
                len: bytes.len(),
            });
        }
        if bytes.len() > expected {
            return Err(DecodeError::Trailing {
                expected,
                len: bytes.len(),
            });
        }
        if checksum(sealed, payload).to_le_bytes() != *sum {
            return Err(DecodeError::Checksum);
        }
        let mut reader = Reader::new(payload);
        let state = reader.state()?;
        reader.end()?;
        Ok(Self { sequence, state })
    }
}

/// What the header of a generation states, believed or not.
pub(crate) struct Header {
    pub(crate) sequence: u64,
    /// Of the whole generation.
    pub(crate) len: usize,
}

impl Header {
    /// `None` if this is no header of a state.
    pub(crate) fn peek(header: &[u8; HEADER_LEN]) -> Option<Self> {
        let field = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        (header[..8] == MAGIC).then(|| Self {
            sequence: u64::from(field(16)) | u64::from(field(20)) << 32,
            len: usize::try_from(field(12))
                .unwrap_or(usize::MAX)
                .saturating_add(HEADER_LEN),
        })
    }
}

/// Why a stored generation cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing was written where a state should be.
    #[error("it is empty")]
    Empty,
    /// It ends too early, as after a power cut on a medium that does not keep its promises.
    #[error("it ends after {len} of {expected} bytes")]
    Truncated {
        /// How long it says it is.
        expected: usize,
        /// How long it is.
        len: usize,
    },
    /// Bytes follow the end it names.
    #[error("it has {len} bytes and should end after {expected}")]
    Trailing {
        /// How long it says it is.
        expected: usize,
        /// How long it is.
        len: usize,
    },
    /// It is larger than any state can be.
    #[error("it has {len} bytes, a state has at most {FILE}")]
    TooLarge {
        /// How long it is.
        len: usize,
    },
    /// It begins with something else.
    #[error("it does not begin like a state")]
    NotState,
    /// Another format version: a newer firmware wrote it.
    #[error("it has format version {version}, this firmware reads version {VERSION}")]
    Version {
        /// The version it names.
        version: u16,
    },
    /// A bit has changed since it was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the content is none that this version writes.
    #[error("its content makes no sense at byte {offset} of the content")]
    Content {
        /// Where, counted from the start of the payload.
        offset: usize,
    },
    /// Two readings of it differ: a power cut left cells between two values.
    #[error("it reads differently from one time to the next")]
    Unsettled,
    /// The medium cannot read it.
    #[error("it cannot be read")]
    Unreadable,
    /// A text or list is longer than any that can be written.
    #[error("its content exceeds a limit")]
    Limit(#[from] LimitError),
}

type Sink<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), encode::Error<Infallible>>;

fn payload(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_state(&mut Encoder::new(&mut bytes), state).expect("writing to memory does not fail");
    bytes
}

fn write_state(out: &mut Sink<'_>, state: &State) -> Written {
    let present = [
        state.check.is_some(),
        state.scfg.is_some(),
        state.cfg.is_some(),
        state.backup_index.is_some(),
        !state.slots.is_empty(),
        !state.rejections.is_empty(),
        state.last_time.is_some(),
        state.known,
        !state.fallbacks.is_empty(),
        state.key_set.is_some(),
    ];
    write_map(out, &present)?;
    for (key, dated) in [(0, &state.check), (1, &state.scfg), (2, &state.cfg)] {
        if let Some(dated) = dated {
            out.u8(key)?;
            write_map(out, &[true, dated.date.is_some()])?;
            out.u8(0)?.bytes(&dated.value)?;
            write_time(out, 1, dated.date)?;
        }
    }
    if let Some(index) = state.backup_index {
        out.u8(3)?;
        write_map(out, &[true, index.date.is_some()])?;
        out.u8(0)?.u32(index.index)?;
        write_time(out, 1, index.date)?;
    }
    write_list(out, 4, &state.slots, write_slot)?;
    write_list(out, 5, &state.rejections, write_rejection)?;
    write_time(out, 6, state.last_time)?;
    if state.known {
        out.u8(7)?.bool(true)?;
    }
    write_list(out, 8, &state.fallbacks, write_evidence)?;
    if let Some(key_set) = &state.key_set {
        out.u8(9)?.map(3)?;
        out.u8(0)?.u64(key_set.number)?;
        out.u8(1)?.u8(key_set.threshold)?;
        write_list(out, 2, &key_set.keys, |out, key| {
            out.bytes(key)?;
            Ok(())
        })?;
    }
    Ok(())
}

fn write_slot(out: &mut Sink<'_>, record: &SlotRecord) -> Written {
    write_map(
        out,
        &[
            true,
            true,
            true,
            record.serial.is_some(),
            true,
            record.date.is_some(),
            true,
        ],
    )?;
    out.u8(0)?.str(&record.component)?;
    out.u8(1)?.u8(record.slot.index())?;
    out.u8(2)?.bytes(&record.manifest)?;
    if let Some(serial) = &record.serial {
        out.u8(3)?.bytes(serial)?;
    }
    out.u8(4)?.str(&record.build)?;
    write_time(out, 5, record.date)?;
    out.u8(6)?.u8(door_code(record.door))?;
    Ok(())
}

fn write_rejection(out: &mut Sink<'_>, rejection: &Rejection) -> Written {
    write_map(
        out,
        &[
            true,
            true,
            true,
            true,
            true,
            rejection.retry_after.is_some(),
            rejection.date.is_some(),
        ],
    )?;
    out.u8(0)?.bytes(&rejection.manifest)?;
    out.u8(1)?.str(&rejection.component)?;
    out.u8(2)?.str(&rejection.build)?;
    out.u8(3)?.u8(reason_code(rejection.reason))?;
    out.u8(4)?.u8(rejection.tries)?;
    write_time(out, 5, rejection.retry_after)?;
    write_time(out, 6, rejection.date)
}

fn write_evidence(out: &mut Sink<'_>, evidence: &Evidence) -> Written {
    write_map(
        out,
        &[
            true,
            true,
            true,
            evidence.manifest.is_some(),
            true,
            true,
            evidence.date.is_some(),
            evidence.attempts > 0,
            evidence.reported,
        ],
    )?;
    out.u8(0)?.str(&evidence.component)?;
    out.u8(1)?.u8(evidence.chosen.index())?;
    out.u8(2)?.u8(evidence.running.index())?;
    if let Some(manifest) = &evidence.manifest {
        out.u8(3)?.bytes(manifest)?;
    }
    out.u8(4)?.str(&evidence.build)?;
    out.u8(5)?.u8(reason_code(evidence.reason))?;
    write_time(out, 6, evidence.date)?;
    if evidence.attempts > 0 {
        out.u8(7)?.u8(evidence.attempts)?;
    }
    if evidence.reported {
        out.u8(8)?.bool(true)?;
    }
    Ok(())
}

/// A map head for the entries that are present.
fn write_map(out: &mut Sink<'_>, present: &[bool]) -> Written {
    let mut len = 0_u64;
    for _ in present.iter().filter(|present| **present) {
        len += 1;
    }
    out.map(len)?;
    Ok(())
}

fn write_time(out: &mut Sink<'_>, key: u8, time: Option<UnixTime>) -> Written {
    if let Some(time) = time {
        out.u8(key)?.u64(time.as_secs())?;
    }
    Ok(())
}

fn write_list<T>(
    out: &mut Sink<'_>,
    key: u8,
    list: &[T],
    write: fn(&mut Sink<'_>, &T) -> Written,
) -> Written {
    if list.is_empty() {
        return Ok(());
    }
    let len = u64::try_from(list.len()).expect("a length fits 64 bits");
    out.u8(key)?.array(len)?;
    list.iter().try_for_each(|entry| write(out, entry))
}

/// Reads exactly what the writers above write: definite lengths, keys in rising order, none
/// unknown.
struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    fn new(payload: &'a [u8]) -> Self {
        Self(Decoder::new(payload))
    }

    fn state(&mut self) -> Result<State, DecodeError> {
        let mut state = State::default();
        self.map(|reader, key| {
            match key {
                0 => state.check = Some(reader.dated("UPDATE/CHECK")?),
                1 => state.scfg = Some(reader.dated("UPDATE/SCFG")?),
                2 => state.cfg = Some(reader.dated("UPDATE/CFG")?),
                3 => state.backup_index = Some(reader.dated_index()?),
                4 => state.slots = reader.list("slot records", SLOTS, Self::slot)?,
                5 => state.rejections = reader.list("rejections", REJECTIONS, Self::rejection)?,
                6 => state.last_time = Some(reader.time()?),
                7 => state.known = reader.get(Decoder::bool)?,
                8 => state.fallbacks = reader.list("fallbacks", FALLBACKS, Self::evidence)?,
                9 => state.key_set = Some(reader.key_set()?),
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        Ok(state)
    }

    fn dated(&mut self, what: &'static str) -> Result<Dated, DecodeError> {
        let (mut value, mut date) = (None, None);
        self.map(|reader, key| {
            match key {
                0 => value = Some(reader.value(what)?),
                1 => date = Some(reader.time()?),
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        let value = self.required(value)?;
        Ok(Dated { value, date })
    }

    fn dated_index(&mut self) -> Result<DatedIndex, DecodeError> {
        let (mut index, mut date) = (None, None);
        self.map(|reader, key| {
            match key {
                0 => index = Some(reader.get(Decoder::u32)?),
                1 => date = Some(reader.time()?),
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        let index = self.required(index)?;
        Ok(DatedIndex { index, date })
    }

    fn slot(&mut self) -> Result<SlotRecord, DecodeError> {
        let (mut component, mut slot, mut manifest, mut serial) = (None, None, None, None);
        let (mut build, mut date, mut door) = (None, None, None);
        self.map(|reader, key| {
            match key {
                0 => component = Some(reader.text("the component of a slot record")?),
                1 => slot = Some(reader.slot_id()?),
                2 => manifest = Some(reader.hash()?),
                3 => serial = Some(reader.value("the serial of a slot record")?),
                4 => build = Some(reader.text("the build of a slot record")?),
                5 => date = Some(reader.time()?),
                6 => door = Some(reader.door()?),
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        Ok(SlotRecord {
            component: self.required(component)?,
            slot: self.required(slot)?,
            manifest: self.required(manifest)?,
            serial,
            build: self.required(build)?,
            date,
            door: self.required(door)?,
        })
    }

    fn rejection(&mut self) -> Result<Rejection, DecodeError> {
        let (mut manifest, mut component, mut build, mut reason) = (None, None, None, None);
        let (mut tries, mut retry_after, mut date) = (None, None, None);
        self.map(|reader, key| {
            match key {
                0 => manifest = Some(reader.hash()?),
                1 => component = Some(reader.text("the component of a rejection")?),
                2 => build = Some(reader.text("the build of a rejection")?),
                3 => reason = Some(reader.reason()?),
                4 => tries = Some(reader.get(Decoder::u8)?),
                5 => retry_after = Some(reader.time()?),
                6 => date = Some(reader.time()?),
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        Ok(Rejection {
            manifest: self.required(manifest)?,
            component: self.required(component)?,
            build: self.required(build)?,
            reason: self.required(reason)?,
            tries: self.required(tries)?,
            retry_after,
            date,
        })
    }

    fn evidence(&mut self) -> Result<Evidence, DecodeError> {
        let (mut component, mut chosen, mut running, mut manifest) = (None, None, None, None);
        let (mut build, mut reason, mut date) = (None, None, None);
        let (mut attempts, mut reported) = (0, false);
        self.map(|reader, key| {
            match key {
                0 => component = Some(reader.text("the component of a fallback")?),
                1 => chosen = Some(reader.slot_id()?),
                2 => running = Some(reader.slot_id()?),
                3 => manifest = Some(reader.hash()?),
                4 => build = Some(reader.text("the build of a fallback")?),
                5 => reason = Some(reader.reason()?),
                6 => date = Some(reader.time()?),
                7 => attempts = reader.get(Decoder::u8)?,
                8 => reported = reader.get(Decoder::bool)?,
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        Ok(Evidence {
            component: self.required(component)?,
            chosen: self.required(chosen)?,
            running: self.required(running)?,
            manifest,
            build: self.required(build)?,
            reason: self.required(reason)?,
            date,
            attempts,
            reported,
        })
    }

    fn key_set(&mut self) -> Result<AdoptedKeySet, DecodeError> {
        let (mut number, mut threshold, mut keys) = (None, None, Vec::new());
        self.map(|reader, key| {
            match key {
                0 => number = Some(reader.get(Decoder::u64)?),
                1 => threshold = Some(reader.get(Decoder::u8)?),
                2 => keys = reader.list("keys of the adopted key set", KEYS, Self::hash)?,
                _ => return Err(reader.nonsense()),
            }
            Ok(())
        })?;
        Ok(AdoptedKeySet {
            number: self.required(number)?,
            threshold: self.required(threshold)?,
            keys,
        })
    }

    fn map(
        &mut self,
        mut entry: impl FnMut(&mut Self, u8) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let len = self.get(Decoder::map)?.ok_or_else(|| self.nonsense())?;
        let mut last = None;
        for _ in 0..len {
            let key = self.get(Decoder::u8)?;
            if last >= Some(key) {
                return Err(self.nonsense());
            }
            last = Some(key);
            entry(self, key)?;
        }
        Ok(())
    }

    fn list<T>(
        &mut self,
        what: &'static str,
        max: usize,
        entry: fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let len = self.get(Decoder::array)?.ok_or_else(|| self.nonsense())?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        limit::list(what, len, max)?;
        (0..len).map(|_| entry(self)).collect()
    }

    fn value(&mut self, what: &'static str) -> Result<Vec<u8>, DecodeError> {
        let bytes = self.get(Decoder::bytes)?;
        limit::value(what, bytes)?;
        Ok(bytes.to_vec())
    }

    fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let text = self.get(Decoder::str)?;
        limit::text(what, text)?;
        Ok(String::from(text))
    }

    fn time(&mut self) -> Result<UnixTime, DecodeError> {
        self.get(Decoder::u64).map(UnixTime::new)
    }

    fn hash(&mut self) -> Result<[u8; 32], DecodeError> {
        let bytes = self.get(Decoder::bytes)?;
        bytes
            .first_chunk()
            .filter(|hash| hash.len() == bytes.len())
            .copied()
            .ok_or_else(|| self.nonsense())
    }

    fn slot_id(&mut self) -> Result<SlotId, DecodeError> {
        let index = self.get(Decoder::u8)?;
        SlotId::new(index).ok_or_else(|| self.nonsense())
    }

    fn door(&mut self) -> Result<Door, DecodeError> {
        let code = self.get(Decoder::u8)?;
        [Door::Script, Door::Upload, Door::Peer, Door::Local]
            .into_iter()
            .find(|door| door_code(*door) == code)
            .ok_or_else(|| self.nonsense())
    }

    fn reason(&mut self) -> Result<Reason, DecodeError> {
        let code = self.get(Decoder::u8)?;
        [Reason::HealthFailed, Reason::NeverConfirmed]
            .into_iter()
            .find(|reason| reason_code(*reason) == code)
            .ok_or_else(|| self.nonsense())
    }

    fn required<T>(&self, field: Option<T>) -> Result<T, DecodeError> {
        field.ok_or_else(|| self.nonsense())
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.0.position() == self.0.input().len() {
            Ok(())
        } else {
            Err(self.nonsense())
        }
    }

    fn get<T>(
        &mut self,
        item: impl FnOnce(&mut Decoder<'a>) -> Result<T, decode::Error>,
    ) -> Result<T, DecodeError> {
        let offset = self.0.position();
        item(&mut self.0).map_err(|_| DecodeError::Content { offset })
    }

    fn nonsense(&self) -> DecodeError {
        DecodeError::Content {
            offset: self.0.position(),
        }
    }
}

const fn door_code(door: Door) -> u8 {
    match door {
        Door::Script => 0,
        Door::Upload => 1,
        Door::Peer => 2,
        Door::Local => 3,
    }
}

const fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::HealthFailed => 0,
        Reason::NeverConfirmed => 1,
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

const MAGIC: [u8; 8] = *b"\x89RKSTA\r\n";
const VERSION: u16 = 1;
pub(crate) const HEADER_LEN: usize = 28;
