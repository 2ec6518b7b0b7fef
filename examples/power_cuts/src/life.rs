//! The life of a device from a restart on: it boots, its agent starts, and the same update is made
//! again, until what should run does.

use rekindle_flash::SlotId;

use crate::broken::Broken;
use crate::device::{Commits, Device, Started, Variable};
use crate::image::{Health, Image};
use crate::journal::may_be_found;

/// Lives on until this image runs, confirmed, or lies in its only slot. What boots on the way is
/// authentic, and variables say no more than that.
pub(crate) fn live(device: &mut Device<'_>, goal: &Image) -> Result<(), Broken> {
    if device.single {
        return live_single(device, goal);
    }
    for _ in 0..MOST_BOOTS {
        let runs = device.boot_loader()?;
        let image = device.image_in(runs.index().into())?;
        device.variable(image, runs)?;
        // It hangs, and somebody takes the power away.
        if image.health == Health::Hangs || device.agent(runs)? == Started::Restarts {
            continue;
        }
        if arrived(device, goal, runs)? {
            return Ok(());
        }
        if device.rotten && goal.component == "bmc" {
            device.repair(2, goal)?;
        } else {
            device.install(goal, runs)?;
        }
        device.rotten &= goal.component != "bmc";
        if goal.component == "bmc" && arrived(device, goal, runs)? {
            return Ok(());
        }
    }
    Err(Broken::NeverThere {
        goal: goal.name,
        boots: MOST_BOOTS,
    })
}

/// The same for the only slot of a component that is started from it: its loader starts the recovery
/// environment while nothing else is there to start.
fn live_single(device: &mut Device<'_>, goal: &Image) -> Result<(), Broken> {
    for _ in 0..MOST_BOOTS {
        device.boot_loader()?;
        if !device.boots_single()? {
            device.recover(goal)?;
            continue;
        }
        let image = match device.image_in(2) {
            // It does not know; until it was repaired that is as it was.
            Err(Broken::NotAuthentic { .. }) if device.rotten => {
                device.recover(goal)?;
                device.rotten = false;
                continue;
            }
            found => found?,
        };
        let variable = device.variable(image, SlotId::A)?;
        if image.id == goal.id && variable == Variable::Right {
            return Ok(());
        }
        device.stage(goal)?;
    }
    Err(Broken::NeverThere {
        goal: goal.name,
        boots: MOST_BOOTS,
    })
}

fn arrived(device: &mut Device<'_>, goal: &Image, runs: SlotId) -> Result<bool, Broken> {
    let found = if goal.component == "bmc" {
        match device.image_in(2) {
            // Being written: it says so.
            Err(Broken::NotComplete { .. }) => return Ok(false),
            // It does not know; until it was repaired that is as it was.
            Err(Broken::NotAuthentic { .. }) if device.rotten => return Ok(false),
            found => found?,
        }
    } else {
        device.image_in(runs.index().into())?
    };
    let slot = if goal.component == "bmc" {
        SlotId::A
    } else {
        runs
    };
    let variable = device.variable(found, slot)?;
    if found.id != goal.id {
        return Ok(false);
    }
    match variable {
        Variable::Right => Ok(true),
        // The content is there and its record is not: the script's line makes up for it.
        Variable::Unset if goal.component == "bmc" => Ok(false),
        Variable::Unset => Err(Broken::Unset { goal: goal.name }),
    }
}

/// Holds what was found after a restart against what was committed before the cut.
pub(crate) fn keeps_commits(
    device: &mut Device<'_>,
    commits: &Commits,
    step: usize,
) -> Result<(), Broken> {
    let (record, state) = &device.found;
    if !may_be_found(&commits.boot, step, record) {
        return Err(Broken::Lost {
            what: "the boot record",
        });
    }
    if !may_be_found(&commits.state, step, state) {
        return Err(Broken::Lost { what: "the state" });
    }
    let prot = record.component("prot").ok_or(Broken::NothingBoots)?;
    let (confirmed, floor) = (prot.confirmed, prot.security_floor);
    let fallback = device.image_in(confirmed.index().into())?;
    if floor > fallback.security_version {
        return Err(Broken::FloorTooHigh {
            floor,
            version: fallback.security_version,
        });
    }
    if device.found.0.key_set().is_some() && !fallback.changes_keys {
        return Err(Broken::KeysTooEarly);
    }
    Ok(())
}

/// A trial, its fallback, and what comes after need five.
const MOST_BOOTS: u32 = 12;
