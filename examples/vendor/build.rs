//! What happens on the release engineer's machine: a firmware is packed and signed, and the device is
//! given the public key.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use rekindle_image::{PackOptions, SecretKey, pack};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let out = Path::new(&out);
    let firmware = firmware();
    // A fixed key, so that the build can be repeated. A real one is random and never in a source file.
    let key = SecretKey::from_random(&[7; 32]);
    let mut options = PackOptions::new("EXAMPLE", "prot", "1.2");
    options.security_version = 3;
    options.chunk_size = 4096;
    fs::write(out.join("firmware.raw"), &firmware)?;
    fs::write(out.join("vendor.pub"), key.public().as_bytes())?;
    pack(
        firmware.as_slice(),
        &out.join("firmware.bin"),
        &options,
        &[key],
    )?;
    Ok(())
}

/// 96 KiB: a part that compresses, and one that does not and is stored raw.
fn firmware() -> Vec<u8> {
    let mut bytes = b"a line of the firmware's text\n".repeat(1100);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while bytes.len() < 96 << 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
