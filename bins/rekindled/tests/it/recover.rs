//! A device with one slot: the agent stages, the recovery environment brings the image in. And the
//! commands that decide on a trial.

use rekindle_flash::{BootControl as _, BootRecord, FileBootControl, SlotId};

use crate::harness::{Device, Fleet, Recipe, Settings, noise, script};

/// A device with one slot, and where its boot loader says what runs.
fn single(settings: &Settings, recovery: &str) -> Device {
    let device = Device::new(settings);
    let path = device.at("device.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text
        .replace(r#"["slot-a.img", "slot-b.img"]"#, r#"["slot-a.img"]"#)
        .replace("env:REKINDLE_SLOT", "file:running");
    std::fs::write(path, format!("{text}\n{recovery}\n")).unwrap();
    say_what_runs(&device, "A");
    device
}

fn say_what_runs(device: &Device, text: &str) {
    std::fs::write(device.at("running"), text).unwrap();
}

fn record(device: &Device) -> BootRecord {
    let path = device.at("boot.state");
    let mut control = FileBootControl::open(path, &[("prot", 1)]).unwrap();
    control.load().unwrap()
}

#[test]
fn an_image_for_the_only_slot_is_staged_and_recovery_brings_it_in() {
    let fleet = Fleet::start();
    let recipe = Recipe::new("ip1200");
    let path = fleet.publish(&recipe);
    let url = format!("http://{}/{path}", fleet.address);
    fleet.write_script(&script(&url, "s1"));
    let recovery = format!(
        "[recovery]\nimages = [\"http://{0}/nowhere/\", \"http://{0}/firmware/\"]",
        fleet.address
    );
    let settings = Settings {
        url: Some(format!("http://{}/scripts/", fleet.address)),
        ..Settings::default()
    };
    let mut device = single(&settings, &recovery);
    let content = noise(recipe.content);
    let before = std::fs::read(device.slot_path('a')).unwrap();
    device.start();
    device.wait_for_reset(1);
    let status = device.wait_for("the staged image", |status| {
        (status["reset_required"] == true).then(|| status.clone())
    });
    let prot = &status["components"][0];
    assert_eq!(prot["next_build"], "ip1200", "{prot:#}");
    assert_eq!(prot["serial"], "s1", "{prot:#}");
    let staged = std::fs::read(device.slot_path('a')).unwrap();
    let len = content.len();
    assert!(staged[..len] == before[..len], "what runs is untouched");
    assert_eq!(record(&device).next("prot"), None);
    device.kill();

    let ran = device.run(&["recover"]);
    assert_eq!(ran.exit, Some(2), "the system runs: {ran:?}");
    say_what_runs(&device, "recovery");
    let ran = device.run(&["recover"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("recovered: build ip1200"), "{ran:?}");
    let recovered = std::fs::read(device.slot_path('a')).unwrap();
    assert!(recovered.starts_with(&content));
    assert_eq!(record(&device).next("prot"), Some(SlotId::A));
    let ran = device.run(&["recover"]);
    assert!(ran.stdout.contains("whole: build ip1200"), "{ran:?}");

    say_what_runs(&device, "A");
    device.start();
    let status = device.wait_for_poll();
    assert_eq!(status["reset_required"], false, "{status:#}");
    assert_eq!(status["components"][0]["build"], "ip1200");
    assert_eq!(status["components"][0]["serial"], "s1");
    assert_eq!(device.resets(), 1, "the line is done");
}

#[test]
fn recovery_without_state_repairs_what_rot_and_refuses_what_is_not_for_the_device() {
    let device = single(&Settings::default(), "[recovery]");
    let recipe = Recipe::new("14r1");
    let image = device.at("image.bin");
    recipe.pack(&image);
    let image = image.to_str().unwrap();
    assert_eq!(device.run(&["install", image]).exit, Some(0));
    std::fs::remove_dir_all(device.at("state")).unwrap();
    say_what_runs(&device, "recovery");
    let ran = device.run(&["recover"]);
    assert_eq!(
        ran.exit,
        Some(1),
        "nobody knows where the image is: {ran:?}"
    );

    let stranger = device.at("stranger.bin");
    Recipe::new("14r2").signed_by(&[2]).pack(&stranger);
    let ran = device.run(&["recover", stranger.to_str().unwrap()]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert_eq!(device.run(&["recover", image]).exit, Some(0));
    let content = noise(recipe.content);
    let mut slot = std::fs::read(device.slot_path('a')).unwrap();
    assert!(slot.starts_with(&content));
    assert!(!device.at("state").exists());

    slot[300_000] ^= 1;
    std::fs::write(device.slot_path('a'), slot).unwrap();
    assert_eq!(device.run(&["recover", image]).exit, Some(0));
    let slot = std::fs::read(device.slot_path('a')).unwrap();
    assert!(slot.starts_with(&content));
    assert_eq!(record(&device).next("prot"), Some(SlotId::A));
}

#[test]
fn the_only_slot_is_not_updated_without_a_recovery_environment() {
    let device = single(&Settings::default(), "");
    let image = device.at("image.bin");
    Recipe::new("14r1").pack(&image);
    let ran = device.run(&["install", image.to_str().unwrap()]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("[recovery]"), "{ran:?}");
}

#[test]
fn an_operator_confirms_or_gives_up_a_trial() {
    let mut device = Device::new(&Settings::default());
    let image = device.at("image.bin");
    Recipe::new("14r1").pack(&image);
    let install = |device: &Device| {
        let ran = device.run(&["install", image.to_str().unwrap()]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
    };
    for command in ["confirm", "rollback"] {
        let ran = device.run(&[command]);
        assert_eq!(ran.exit, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("nothing is on trial"), "{ran:?}");
    }
    install(&device);
    assert_eq!(
        device.run(&["confirm"]).exit,
        Some(1),
        "it does not run yet"
    );
    assert_eq!(device.run(&["rollback"]).exit, Some(0));
    assert_eq!(device.boot_record().next("prot"), Some(SlotId::A));

    install(&device);
    assert_eq!(device.run_boot_loader(), SlotId::B);
    assert_eq!(device.run(&["confirm"]).exit, Some(0));
    let record = device.boot_record();
    assert!(!record.is_trial());
    assert_eq!(record.component("prot").unwrap().confirmed, SlotId::B);
}
