//! A device with one slot: the agent stages, the recovery environment brings the image in. And the
//! commands that decide on a trial.

use core::time::Duration;

use rekindle_flash::{BootControl as _, BootRecord, FileBootControl, SlotId};

use crate::harness::{
    Device, Fleet, Ran, Recipe, Relay, Settings, eventually, noise, pause, say, script,
};
use crate::kill::{Random, Target};

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
fn recovery_takes_what_was_staged_although_its_first_source_has_another_build() {
    let fleet = Fleet::start();
    fleet.publish(&Recipe::new("ip1200"));
    let path = fleet.publish(&Recipe::new("2.0"));
    let recovery = format!(
        "[recovery]\nimages = [\"http://{}/firmware/\"]",
        fleet.address
    );
    let device = single(&Settings::default(), &recovery);
    let url = format!("http://{}/{path}", fleet.address);
    let ran = device.run(&["install", &url]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let ran = device.run(&["scrub"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("unfinished: build 2.0"), "{ran:?}");
    say_what_runs(&device, "recovery");
    let ran = device.run(&["recover"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("recovered: build 2.0"), "{ran:?}");

    // What nobody has any more gives way to what there is, and that is said.
    let path = fleet.publish(&Recipe::new("3.0"));
    let url = format!("http://{}/{path}", fleet.address);
    say_what_runs(&device, "A");
    let ran = device.run(&["install", &url]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    std::fs::remove_file(fleet.at(&path)).unwrap();
    say_what_runs(&device, "recovery");
    let ran = device.run(&["recover"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("recovered: build ip1200"), "{ran:?}");
    assert!(ran.stderr.contains("another one is taken"), "{ran:?}");
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
fn a_recovery_that_is_killed_a_dozen_times_fetches_nothing_again_that_the_slot_holds() {
    let mut random = Random::new();
    let fleet = Fleet::start();
    let relay = Relay::to(fleet.address);
    let target = Target::publish(&fleet, &relay, "1.0");
    let settings = Settings {
        size: "28 MiB",
        old_firmware: 28 << 20,
        ..Settings::default()
    };
    let device = single(&settings, "[recovery]");
    let ran = device.run(&["install", &target.url]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("is staged"), "{ran:?}");
    say_what_runs(&device, "recovery");
    relay.set_rate(SLOW);
    let found = || target.found_in(&std::fs::read(device.slot_path('a')).unwrap());
    let mut held = found();
    let mut in_transfer = 0;
    for kill in 0..KILLS {
        relay.take();
        // Some before anything is fetched; some surely after more has come than buffers hold.
        let start = kill % 4 == 1;
        let bytes = random.below(1 << 20) + if kill % 2 == 0 { 1 << 20 } else { 0 };
        let time = Duration::from_millis(random.below(if start { 400 } else { 20 }));
        let when = format!("kill {kill}, start {start}, {bytes} bytes, {time:?}");
        let mut recovery = device.spawn(&["recover"]);
        if !start {
            eventually("the moment to kill", || {
                let ended = recovery.try_wait().unwrap();
                assert_eq!(ended, None, "it is not through yet: {when}");
                let exchanges = relay.exchanges();
                let come: u64 = target.loads(&exchanges).map(|load| load.1).sum();
                (come > bytes).then_some(())
            });
        }
        pause(time);
        recovery.kill().unwrap();
        recovery.wait().unwrap();

        let exchanges = relay.take();
        target.assert_nothing_again(&held, &exchanges, &when);
        let now_held = found();
        for (before, now) in held.iter().zip(&now_held) {
            assert!(*now || !*before, "a chunk was lost, {when}");
        }
        in_transfer += usize::from(now_held != held);
        held = now_held;
        assert_eq!(record(&device).next("prot"), None, "nothing boots, {when}");
    }
    let chunks = held.iter().filter(|held| **held).count();
    say(&format!(
        "{KILLS} kills, {in_transfer} of them with a gain; {chunks} of {} chunks are in place",
        held.len()
    ));
    assert!(in_transfer >= KILLS / 4, "{in_transfer}");

    relay.set_rate(0);
    let ran = device.run(&["recover"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("recovered: build 1.0"), "{ran:?}");
    target.assert_nothing_again(&held, &relay.take(), "at last");
    let slot = std::fs::read(device.slot_path('a')).unwrap();
    assert!(slot.starts_with(&target.content));
    assert_eq!(record(&device).next("prot"), Some(SlotId::A));
}

const KILLS: usize = 12;

/// Bytes a second: the image takes longer than all kills together let it.
const SLOW: u64 = 6 << 20;

#[test]
fn confirm_and_rollback_say_what_they_did_or_why_not() {
    let mut device = Device::new(&Settings::default());
    let images = ["14r1", "14r2", "14r3"].map(|build| {
        let image = device.at(build);
        Recipe::new(build).pack(&image);
        image.to_str().unwrap().to_owned()
    });
    let install = |device: &Device, image: &str| {
        let ran = device.run(&["install", image]);
        assert_eq!(ran.exit, Some(0), "{ran:?}");
    };
    let rollback_of_nothing = "nothing is on trial; install the other build to go back to it";

    refused(&device.run(&["confirm"]), "nothing is on trial");
    refused(&device.run(&["rollback"]), rollback_of_nothing);

    // Chosen and not started: only a rollback decides anything, and nothing is held against the image.
    install(&device, &images[0]);
    let text = "what was chosen does not run yet; restart the device first";
    refused(&device.run(&["confirm"]), text);
    let text = "what was chosen is taken back; the confirmed slots boot";
    done(&device.run(&["rollback"]), text);
    assert!(!device.boot_record().is_trial());
    assert_eq!(device.run_boot_loader(), SlotId::A);

    // It runs: an operator confirms it.
    install(&device, &images[0]);
    assert_eq!(device.run_boot_loader(), SlotId::B);
    done(&device.run(&["confirm"]), "what runs is confirmed");
    refused(&device.run(&["confirm"]), "nothing is on trial");
    refused(&device.run(&["rollback"]), rollback_of_nothing);
    let record = device.boot_record();
    assert_eq!(record.component("prot").unwrap().confirmed, SlotId::B);

    // It runs: an operator gives it up, and that is noted.
    install(&device, &images[1]);
    assert_eq!(device.run_boot_loader(), SlotId::A);
    let text = "the trial is given up; the confirmed slots boot next";
    done(&device.run(&["rollback"]), text);
    refused(&device.run(&["confirm"]), "nothing is on trial");
    assert_eq!(device.run_boot_loader(), SlotId::B);
    let ran = device.run(&["install", &images[1]]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("was tried and rejected"), "{ran:?}");

    // It never ran long enough to say anything, and the boot loader fell back.
    install(&device, &images[2]);
    for _ in 0..3 {
        assert_eq!(device.run_boot_loader(), SlotId::A);
    }
    assert_eq!(device.run_boot_loader(), SlotId::B);
    let text = "what was chosen does not run; the device fell back";
    refused(&device.run(&["confirm"]), text);
    let text = "the trial had failed already; that is noted";
    done(&device.run(&["rollback"]), text);
    refused(&device.run(&["rollback"]), rollback_of_nothing);

    device.start();
    let status = device.wait_for("the evidence", |status| {
        (!status["rolled_back"].is_null()).then(|| status.clone())
    });
    let rejected = status["rejections"].as_array().unwrap();
    let builds: Vec<_> = rejected.iter().map(|one| &one["build"]).collect();
    assert_eq!(builds, ["14r2", "14r3"], "{status:#}");
    let text = status["rolled_back"]["text"].as_str().unwrap();
    let start = "prot build 14r3 in slot A was given up";
    assert!(text.starts_with(start), "{text}");
}

/// The command did what it was asked for and says this.
fn done(ran: &Ran, text: &str) {
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert_eq!(ran.stdout.trim_end(), text, "{ran:?}");
}

/// The answer of the command is no, and why.
fn refused(ran: &Ran, why: &str) {
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    let said = ran.stderr.lines().last().unwrap();
    assert_eq!(said, format!("rekindled: {why}"), "{ran:?}");
}
