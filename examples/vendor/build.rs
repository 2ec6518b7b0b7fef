//! What happens on the release engineer's machine: two versions of a firmware are packed and signed,
//! and the device is given the public key.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use rekindle_image::{PackOptions, SecretKey, pack};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let out = Path::new(&out);
    // A fixed key, so that the build can be repeated. A real one is random and never in a source file.
    let keys = [SecretKey::from_random(&[7; 32])];
    fs::write(out.join("vendor.pub"), keys[0].public().as_bytes())?;
    for (number, build, security_version) in [(1, "1.2", 3), (2, "1.3", 4)] {
        let mut options = PackOptions::new("EXAMPLE", "prot", build);
        options.security_version = security_version;
        options.chunk_size = 4096;
        let firmware = firmware(build);
        fs::write(out.join(format!("firmware-{number}.raw")), &firmware)?;
        pack(
            firmware.as_slice(),
            &out.join(format!("firmware-{number}.bin")),
            &options,
            &keys,
        )?;
    }
    Ok(())
}

/// 96 KiB: a part that compresses and names the build, and one that does not and is stored raw.
fn firmware(build: &str) -> Vec<u8> {
    let mut bytes = format!("a line of the firmware {build}\n")
        .repeat(1100)
        .into_bytes();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while bytes.len() < 96 << 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
