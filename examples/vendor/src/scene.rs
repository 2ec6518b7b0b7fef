use alloc::vec::Vec;

use rekindle_flash::SlotId;
use rekindle_script::{Command, Dialect, Limits, Load, parse};

use crate::board::Board;
use crate::served::Served;

static SCRIPT: &[u8] = b"mod cmd UP0 prot http://192.0.2.1/example.bin ireset 1.2\r\n";
static KEY: &[u8; 32] = include_bytes!(concat!(env!("OUT_DIR"), "/vendor.pub"));
static FIRST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware-1.bin"));
static FIRST_RAW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware-1.raw"));
static SECOND: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware-2.bin"));
static SECOND_RAW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware-2.raw"));

/// Where the scene ended early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Script,
    Factory,
    AcceptedDamage,
    Install,
    Content,
    Trial,
    Confirm,
    Cut,
    SecondInstall,
    Delta,
    SecondContent,
    SecondConfirm,
    State,
}

impl Step {
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::Script => 1,
            Self::Factory => 2,
            Self::AcceptedDamage => 3,
            Self::Install => 4,
            Self::Content => 5,
            Self::Trial => 6,
            Self::Confirm => 7,
            Self::Cut => 8,
            Self::SecondInstall => 9,
            Self::Delta => 10,
            Self::SecondContent => 11,
            Self::SecondConfirm => 12,
            Self::State => 13,
        }
    }
}

/// Takes the serial from a script, refuses a damaged image, installs the sound one into slot B,
/// starts and confirms it; then a second version into slot A, with a power cut in the middle and
/// at most half of it fetched.
pub(crate) fn run() -> Result<(), Step> {
    let serial = serial_of_prot().ok_or(Step::Script)?;
    let board = Board::new(KEY).ok_or(Step::Factory)?;
    if board.restart() != Some(SlotId::A) {
        return Err(Step::Factory);
    }

    let mut damaged = FIRST.to_vec();
    *damaged.last_mut().ok_or(Step::AcceptedDamage)? ^= 1;
    if board
        .update(SlotId::A, &mut Served::new(&damaged), &serial)
        .is_some()
    {
        return Err(Step::AcceptedDamage);
    }
    let first = board
        .update(SlotId::A, &mut Served::new(FIRST), &serial)
        .ok_or(Step::Install)?;
    if board.content(SlotId::B, FIRST_RAW.len()).as_deref() != Some(FIRST_RAW) {
        return Err(Step::Content);
    }
    if board.restart() != Some(SlotId::B) {
        return Err(Step::Trial);
    }
    board.confirm(SlotId::B, &first).ok_or(Step::Confirm)?;

    // Most of the second version lies in the slot that runs.
    let mut image = Served::new(SECOND);
    board.cut_after(5000);
    if board.update(SlotId::B, &mut image, b"1.3").is_some() || board.restart() != Some(SlotId::B) {
        return Err(Step::Cut);
    }
    let second = board
        .update(SlotId::B, &mut image, b"1.3")
        .ok_or(Step::SecondInstall)?;
    if image.fetched() > SECOND.len() / 2 {
        return Err(Step::Delta);
    }
    if board.content(SlotId::A, SECOND_RAW.len()).as_deref() != Some(SECOND_RAW)
        || board.content(SlotId::B, FIRST_RAW.len()).as_deref() != Some(FIRST_RAW)
    {
        return Err(Step::SecondContent);
    }
    if board.restart() != Some(SlotId::A) {
        return Err(Step::SecondConfirm);
    }
    board
        .confirm(SlotId::A, &second)
        .ok_or(Step::SecondConfirm)?;
    match board.prot() {
        Some(prot) if prot.confirmed == SlotId::A && prot.security_floor == 4 => {}
        _ => return Err(Step::SecondConfirm),
    }

    let state = board.state().ok_or(Step::State)?;
    let serials: Vec<_> = [SlotId::A, SlotId::B]
        .map(|slot| state.slots.iter().find(|record| record.slot == slot))
        .into_iter()
        .flatten()
        .filter_map(|record| record.serial.as_deref())
        .collect();
    if serials == [b"1.3".as_slice(), &serial] {
        Ok(())
    } else {
        Err(Step::State)
    }
}

fn serial_of_prot() -> Option<Vec<u8>> {
    let script = parse(SCRIPT, &Limits::default(), &Dialect::field()).ok()?;
    script.lines.iter().find_map(|line| match &line.command {
        Command::Load {
            component: Load::Prot,
            serial,
            ..
        } => Some(serial.as_bytes().to_vec()),
        _ => None,
    })
}
