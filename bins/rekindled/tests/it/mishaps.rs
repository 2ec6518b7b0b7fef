//! What goes wrong around the agent: a lost boot record, places configured twice, a second agent.

use std::fs::File;

use rekindle_flash::SlotId;
use serde_json::json;

use crate::harness::{Device, Lab, Recipe, Settings, eventually};

#[test]
fn a_lost_boot_record_is_made_of_what_runs() {
    let lab = Lab::new();
    let path = lab.fleet.publish(&Recipe::new("1.0"));
    let url = lab.relay.url(&path);
    lab.fleet
        .write_script(&format!("mod cmd UP0 prot {url} ser 10\niresetn\n"));
    let mut device = lab.device(&Settings::default());
    device.wait_for_reset(1);
    assert_eq!(device.boot(), SlotId::B);
    device.wait_for("the confirm", |status| {
        (status["components"][0]["confirmed"] == "B").then_some(())
    });
    assert!(device.stop().success());

    // Slot A holds nothing that a manifest explains: nothing may ever boot it.
    std::fs::remove_file(device.at("boot.state")).unwrap();
    device.start();
    let status = device.wait_for_poll();
    let component = &status["components"][0];
    assert_eq!(
        (
            &component["running"],
            &component["next"],
            &component["confirmed"]
        ),
        (&json!("B"), &json!("B"), &json!("B"))
    );
    assert_eq!(component["slots"][0]["bootable"], json!(false));
    assert_eq!(device.resets(), 1, "nothing requires another restart");
}

#[test]
fn a_loader_that_does_not_count_leaves_a_trial_that_can_be_confirmed() {
    let mut device = Device::new(&Settings::default());
    Recipe::new("1.0").pack(&device.at("one.img"));
    assert_eq!(device.run(&["install", "one.img"]).exit, Some(0));
    device.start_from(SlotId::B);
    device.wait_for("the confirm", |status| {
        (status["components"][0]["confirmed"] == "B").then_some(())
    });
}

#[test]
fn one_place_under_two_names_is_refused() {
    let device = Device::new(&Settings::default());
    Recipe::new("1.0").pack(&device.at("one.img"));
    let before = device.slot_hash('a');
    let text = std::fs::read_to_string(device.at("device.toml")).unwrap();
    std::os::unix::fs::symlink("slot-a.img", device.at("other.img")).unwrap();
    for (what, instead) in [
        ("\"slot-b.img\"", "\"./slot-a.img\""),
        ("\"slot-b.img\"", "\"other.img\""),
        ("path = \"boot.state\"", "path = \"slot-a.img\""),
        ("path = \"boot.state\"", "path = \"./slot-b.img\""),
    ] {
        std::fs::write(device.at("device.toml"), text.replace(what, instead)).unwrap();
        let ran = device.run(&["install", "one.img"]);
        assert_eq!(ran.exit, Some(2), "{instead}: {ran:?}");
        assert!(
            ran.stderr.contains("are the same file or device"),
            "{instead}: {ran:?}"
        );
        assert_eq!(device.slot_hash('a'), before, "{instead}");
    }
}

#[test]
fn a_single_slot_that_the_device_starts_from_is_refused_wherever_it_stands() {
    let device = Device::new(&Settings::default());
    let text = std::fs::read_to_string(device.at("device.toml")).unwrap();
    let text = text.replace("[\"slot-a.img\", \"slot-b.img\"]", "[\"slot-a.img\"]");
    std::fs::write(device.at("device.toml"), text).unwrap();
    Recipe::new("1.0").pack(&device.at("one.img"));
    let before = device.slot_hash('a');
    let ran = device.run(&["install", "one.img"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("has one slot"), "{ran:?}");
    assert_eq!(device.slot_hash('a'), before);
}

#[test]
fn a_second_agent_is_refused() {
    let mut device = Device::new(&Settings::default());
    device.start();
    let ran = device.run(&["run"]);
    assert_eq!(ran.exit, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("another agent runs"), "{ran:?}");
}

#[test]
fn looking_at_slots_creates_nothing() {
    let lab = Lab::new();
    lab.fleet.write_script("mod cmd UP1 check ser 1\n");
    let device = lab.device(&Settings::default());
    device.wait_for_line("this serial has been run");
    assert!(!device.slot_path('b').exists());
}

#[test]
fn a_start_beside_an_update_leaves_the_boot_loaders_variables_alone_until_it_has_ended() {
    let mut device = Device::new(&Settings::default());
    let text = std::fs::read_to_string(device.at("device.toml")).unwrap();
    let place =
        "control = \"uboot\"\ndevice = \"env.bin\"\noffsets = [\"0\", \"4 KiB\"]\nsize = \"4 KiB\"";
    let text = text.replace("control = \"file\"\npath = \"boot.state\"", place);
    std::fs::write(device.at("device.toml"), text).unwrap();
    let path = device.at("env.bin");
    std::fs::write(
        &path,
        [environment("board=1"), environment("board=1")].concat(),
    )
    .unwrap();
    // A store writes one copy of the two.
    let is_given_back = || {
        let held = std::fs::read(&path).unwrap();
        let mut parts = held.windows(13);
        parts.any(|part| part == b"BOOT_A_LEFT=9")
    };
    device.start();
    device.wait_for("the confirm", |status| {
        (status["components"][0]["confirmed"] == "A").then_some(())
    });
    assert!(device.stop().success());
    assert!(is_given_back());

    // The boot loader counts also what is confirmed, and somebody is updating.
    let mut held = std::fs::read(&path).unwrap();
    for copy in held.chunks_mut(4096) {
        let text = String::from_utf8(copy[5..].to_vec()).unwrap();
        let counted = text.replace("BOOT_A_LEFT=9", "BOOT_A_LEFT=1");
        let flag = copy[4];
        copy.copy_from_slice(&environment(&counted));
        copy[4] = flag;
    }
    std::fs::write(&path, &held).unwrap();
    let update = File::create(device.at("state/update.lock")).unwrap();
    update.lock().unwrap();
    device.start();
    device.wait_for("the start to be told", |status| {
        let text = status["last_error"]["text"].as_str()?;
        text.contains("another update is under way").then_some(())
    });
    assert!(!is_given_back());
    assert_eq!(std::fs::read(&path).unwrap(), held);
    drop(update);
    eventually("the attempts", || is_given_back().then_some(()));
}

/// A copy of an environment of U-Boot, its flag 0.
fn environment(variables: &str) -> Vec<u8> {
    let mut data = variables.as_bytes().to_vec();
    data.resize(4096 - 5, 0);
    let mut crc = u32::MAX;
    for byte in &data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    [&(!crc).to_le_bytes()[..], &[0], &data].concat()
}
