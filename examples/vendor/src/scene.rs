use rekindle_flash::{
    BootRecord, CompletionMark, CopyHeader, Flash, SlotId, SlotLayout, read_slot,
};

use crate::nor::Nor;

/// Where the scene ended early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Flash,
    Slot,
    Boot,
}

impl Step {
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::Flash => 1,
            Self::Slot => 2,
            Self::Boot => 3,
        }
    }
}

/// Writes a slot's description, finds it again, and has the boot record try that slot.
pub(crate) fn run() -> Result<(), Step> {
    let mut flash = Nor::erased();
    let layout = SlotLayout::new(&flash.geometry()).map_err(|_| Step::Flash)?;
    let manifest = b"a manifest";
    let header = CopyHeader::new(1, [7; 32], manifest).map_err(|_| Step::Slot)?;
    let copy = &layout.copies[0];
    write_padded(&mut flash, copy.head.start, &header.encode(manifest))?;
    write_padded(
        &mut flash,
        copy.mark.start,
        &CompletionMark::encode(&header),
    )?;
    let content = read_slot(&mut flash, &layout).map_err(|_| Step::Flash)?;
    let (0, held) = content.current().ok_or(Step::Slot)? else {
        return Err(Step::Slot);
    };
    if !held.complete || held.manifest != manifest {
        return Err(Step::Slot);
    }

    let mut boot = BootRecord::new(&[("prot", 2)]).map_err(|_| Step::Boot)?;
    let target = SlotId::new(1).ok_or(Step::Boot)?;
    boot.withdraw("prot", target).map_err(|_| Step::Boot)?;
    boot.choose("prot", target, 3).map_err(|_| Step::Boot)?;
    boot.start();
    boot.confirm().map_err(|_| Step::Boot)?;
    let runs = boot.component("prot").map(|component| component.confirmed);
    if runs == Some(target) {
        Ok(())
    } else {
        Err(Step::Boot)
    }
}

fn write_padded(flash: &mut Nor, offset: u64, bytes: &[u8]) -> Result<(), Step> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(16), 0xff);
    flash.write(offset, &padded).map_err(|_| Step::Flash)
}
