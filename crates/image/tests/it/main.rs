//! What an integrator can do with the public API, and what an attacker cannot.
#![cfg(all(feature = "std", any(feature = "zstd", feature = "ruzstd")))]
#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod acceptance;
mod crafted;
mod decode;
mod format_v1;
#[cfg(feature = "pack")]
mod hostile;
mod key_change;
#[cfg(feature = "pack")]
mod packing;
#[cfg(feature = "pack")]
mod properties;
#[cfg(feature = "pack")]
mod signatures;

use core::num::NonZeroU8;
use std::io::Cursor;

use rekindle_image::{Report, SecretKey, Trust, Unsigned, VerifyImageError, verify_image};

#[cfg(feature = "pack")]
use crate::packing::{noise, options, packed, small_image, small_input};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_random(&[seed; 32])
}

fn trust(seeds: &[u8], threshold: u8) -> Trust {
    Trust {
        keys: seeds.iter().map(|seed| key(*seed).public()).collect(),
        threshold: NonZeroU8::new(threshold).unwrap(),
        unsigned: Unsigned::Refuse,
    }
}

fn verify(image: &[u8], trust: &Trust) -> Result<Report, VerifyImageError> {
    verify_image(Cursor::new(image), trust)
}

#[cfg(feature = "pack")]
/// What is wrong with an image that is refused.
fn refusal(image: &[u8], trust: &Trust) -> String {
    verify(image, trust).unwrap_err().to_string()
}
