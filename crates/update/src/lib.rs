//! The two engines of an update, without I/O: the maintenance run and converge.
#![no_std]

extern crate alloc;

mod converge;
mod install;
mod pump;
pub mod run;
mod trial;
pub mod url;

pub use converge::{Converge, ConvergeError, Input, Output, Phase, Progress, Report};
pub use install::{
    Held, InstallError, InstallErrorOf, Installed, Outcome, Parts, Request, held_manifest, install,
};
pub use pump::{PumpError, Source, pump};
pub use trial::{SlotFacts, Standing, TrialError, confirm, give_up, standing};
