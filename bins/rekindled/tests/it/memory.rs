//! What the agent costs while it installs.

use crate::harness::{Device, Fleet, Recipe, Settings, say, script};

/// Resident at the peak, whole.
const LIMIT_KIB: u64 = 16 * 1024;

/// A program built without optimisation is several times as large as one for devices, and the pages of
/// it that were touched are resident. What it allocates is the same: it may be what the limit
/// leaves beside the largest program that the gate lets pass and the C library.
const ALLOCATED_KIB: u64 = LIMIT_KIB - 4500 - 2500;

#[test]
fn an_image_of_256_mib_is_installed_in_16_mib() {
    installs_within_the_limit(&Recipe::new("raw").of_length(256 << 20));
}

/// With the longest chunks that there are.
#[test]
fn an_image_of_compressed_chunks_of_a_mib_is_installed_in_16_mib() {
    let recipe = Recipe::new("zstd").compressed().of_length(32 << 20);
    installs_within_the_limit(&recipe.with(|options| options.chunk_size = 512 * 1024));
}

fn installs_within_the_limit(recipe: &Recipe) {
    let fleet = Fleet::start();
    let path = fleet.publish(recipe);
    let url = format!("http://{}/{path}", fleet.address);
    fleet.write_script(&script(&url, "1"));
    let settings = Settings {
        size: "264 MiB",
        old_firmware: 4096,
        ..Settings::default()
    };
    let device = Device::started(&format!("http://{}/scripts/", fleet.address), &settings);
    device.wait_for_reset(1);
    let peak = device.memory_kib("VmHWM:");
    let program = device.memory_kib("RssFile:");
    say(&format!(
        "{peak} KiB at the most, {program} KiB of it the program itself"
    ));
    assert!(peak - program <= ALLOCATED_KIB, "{peak} - {program} KiB");
    if Device::is_for_devices() {
        assert!(peak <= LIMIT_KIB, "{peak} KiB");
    }
}
