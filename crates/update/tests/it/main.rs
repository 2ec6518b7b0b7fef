//! What a user of the crate can do.

extern crate alloc;

mod run_properties;
mod run_rules;
mod run_world;
