//! What goes wrong around the agent: a lost boot record, places configured twice, a second agent.

use rekindle_flash::SlotId;
use serde_json::json;

use crate::harness::{Device, Lab, Recipe, Settings};

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
