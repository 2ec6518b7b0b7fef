//! What a user of the crate can do.

extern crate alloc;

mod converge;
mod delta;
mod errors;
mod faults;
mod hostile;
mod install;
mod keys;
mod repair;
mod rig;
mod run_properties;
mod run_rules;
mod run_world;
mod scrub;
mod single;
mod trial;
mod unreadable;
mod worn;
