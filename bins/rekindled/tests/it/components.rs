//! Devices of several components: those with two slots are tried together, one that has a single slot
//! and starts nothing is brought up to date where it is, and a vendor names its own.

use rekindle_flash::SlotId;
use serde_json::{Value, json};

use crate::harness::{Device, Fleet, Lab, Recipe, Settings, noise};

/// An image of another component than the harness's usual one.
fn image_of(component: &str, build: &str) -> Recipe {
    Recipe::new(build).with(|options| component.clone_into(&mut options.component))
}

/// A device with two components that have two slots each, and both new in one script.
fn with_a_trial_of_two() -> (Lab, Device) {
    let lab = Lab::new();
    let prot = lab.fleet.publish(&Recipe::new("2.0"));
    let boot = lab.fleet.publish(&image_of("boot", "b2"));
    let (prot, boot) = (lab.relay.url(&prot), lab.relay.url(&boot));
    lab.fleet.write_script(&format!(
        "mod cmd UP0 prot {prot} ser p2\r\nmod cmd UP0 boot {boot} ser b2\r\niresetn\r\n"
    ));
    let device = lab.device(&Settings {
        components: &[("boot", 2)],
        ..Settings::default()
    });
    device.wait_for_reset(1);
    (lab, device)
}

/// What the status says of a component: what runs, is confirmed and boots next, build and serial.
fn firmware(status: &Value, index: usize) -> Value {
    let component = &status["components"][index];
    json!([
        component["name"],
        component["running"],
        component["confirmed"],
        component["next"],
        component["build"],
        component["serial"]
    ])
}

/// The slot of each component that a record has as confirmed.
fn confirmed(device: &Device) -> [SlotId; 2] {
    let record = device.boot_record();
    ["prot", "boot"].map(|name| record.component(name).unwrap().confirmed)
}

#[test]
fn two_components_of_one_script_are_tried_and_confirmed_together() {
    let (lab, mut device) = with_a_trial_of_two();
    let record = device.boot_record();
    for name in ["prot", "boot"] {
        let component = record.component(name).unwrap();
        assert_eq!(component.confirmed, SlotId::A, "{name}");
        assert_eq!(component.chosen, Some(SlotId::B), "{name}");
    }
    assert_eq!(record.attempts(), 3, "one count for both");
    assert_eq!(device.resets(), 1, "one restart for both");

    device.boot();
    let status = device.wait_for("the confirm", |status| {
        (status["trial"].is_null() && status["poll"]["count"] != 0).then(|| status.clone())
    });
    let expected = json!(["prot", "B", "B", "B", "2.0", "p2"]);
    assert_eq!(firmware(&status, 0), expected);
    let expected = json!(["boot", "B", "B", "B", "b2", "b2"]);
    assert_eq!(firmware(&status, 1), expected);
    assert_eq!(confirmed(&device), [SlotId::B; 2]);
    let slot = std::fs::read(device.at("boot-b.img")).unwrap();
    assert!(slot.starts_with(&noise(image_of("boot", "b2").content)));

    // The next polls leave both alone.
    lab.relay.take();
    let status = device.wait_for_poll();
    for line in [0, 1] {
        let detail = status["lines"][line]["detail"].as_str().unwrap();
        assert!(detail.contains("already"), "{detail}");
    }
    assert_eq!(lab.loads().len(), 0);
    assert_eq!(device.resets(), 1);
}

/// Both components are back on what was confirmed, and both are told of.
fn assert_both_were_given_up(device: &Device, running_prot: &str) {
    let status = device.wait_for("the fallback", |status| {
        (!status["rolled_back"].is_null()).then(|| status.clone())
    });
    let text = status["rolled_back"]["text"].as_str().unwrap();
    for (what, runs) in [
        ("prot build 2.0 in slot B was given up", running_prot),
        ("boot build b2 in slot B was given up", "A"),
    ] {
        let told = text.split("; ").collect::<Vec<_>>().join(";");
        let told = told
            .split(&format!(";slot {runs} runs"))
            .any(|part| part.contains(what));
        assert!(told, "{what}, {runs}: {text}");
    }
    let rejected: Vec<_> = status["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rejection| rejection["component"].as_str().unwrap())
        .collect();
    assert_eq!(rejected, ["prot", "boot"], "{status:#}");
    assert!(status["trial"].is_null());
    assert_eq!(confirmed(device), [SlotId::A; 2]);
    let record = device.boot_record();
    assert!(!record.is_trial());
    assert_eq!(record.next("boot"), Some(SlotId::A));
}

#[test]
fn two_components_of_one_script_are_given_up_together_when_the_agent_never_reports() {
    let (_lab, mut device) = with_a_trial_of_two();
    for _ in 0..3 {
        assert_eq!(device.run_boot_loader(), SlotId::B);
    }
    assert_eq!(device.boot(), SlotId::A);
    assert_both_were_given_up(&device, "A");
    assert_eq!(device.resets(), 1, "what runs is what is confirmed");
    let status = device.wait_for_poll();
    let detail = status["lines"][1]["detail"].as_str().unwrap();
    assert!(detail.contains("was tried and rejected"), "{detail}");
}

#[test]
fn one_component_that_does_not_start_takes_the_other_with_it() {
    let (lab, mut device) = with_a_trial_of_two();
    // Nobody asks for a restart but the agent itself.
    lab.fleet.write_script("# nothing to do\r\n");
    device.run_boot_loader();
    device.runs("boot", SlotId::A);
    device.start();
    assert_both_were_given_up(&device, "B");
    // A new system beside an old boot loader was never tried: the device leaves it.
    device.wait_for_reset(2);
    assert_eq!(device.boot(), SlotId::A);
    let status = device.wait_for_poll();
    assert_eq!(status["reset_required"], false, "{status:#}");
    assert_eq!(status["components"][0]["running"], "A");
    assert_eq!(device.resets(), 2);
}

#[test]
fn a_single_slot_that_starts_nothing_is_brought_up_to_date_in_place() {
    let lab = Lab::new();
    let recipe = image_of("bmc", "r7");
    let url = lab.relay.url(&lab.fleet.publish(&recipe));
    let script = format!("mod cmd UP0 bmc {url} ser s7\r\niresetn\r\n");
    lab.fleet.write_script(&script);
    let device = lab.device(&Settings {
        components: &[("bmc", 1)],
        ..Settings::default()
    });
    let read = || std::fs::read(device.at("bmc-a.img")).unwrap();
    device.wait_for_line("already");
    let expected = json!(["bmc", "A", "A", "A", "r7", "s7"]);
    assert_eq!(firmware(&device.status(), 1), expected);
    let slot = read();
    assert!(slot.starts_with(&noise(recipe.content)));
    assert_eq!(device.resets(), 0, "nothing waits for a restart");
    assert!(!device.boot_record().is_trial());

    // The same image under another serial: nothing to fetch, nothing to write, nothing to start.
    lab.relay.take();
    let script = format!("mod cmd UP0 bmc {url} reset s8\r\n");
    lab.fleet.write_script(&script);
    device.wait_for("the new serial", |status| {
        (status["components"][1]["serial"] == "s8").then_some(())
    });
    device.wait_for_poll();
    assert_eq!(lab.loads().len(), 0);
    assert!(read() == slot, "not one byte is another");
    assert_eq!(device.resets(), 0);

    // A new image replaces it, and what both have is not fetched.
    let next = image_of("bmc", "r8");
    let next = Recipe {
        content: recipe.content,
        ..next
    }
    .of_length(recipe.content.len + 40_000);
    let url = lab.relay.url(&lab.fleet.publish(&next));
    let script = format!("mod cmd UP0 bmc {url} ser s9\r\niresetn\r\n");
    lab.fleet.write_script(&script);
    device.wait_for("the new build", |status| {
        (firmware(status, 1) == json!(["bmc", "A", "A", "A", "r8", "s9"])).then_some(())
    });
    assert!(read().starts_with(&noise(next.content)));
    let fetched: u64 = lab.loads().iter().map(|load| load.sent).sum();
    assert!(fetched < recipe.content.len / 2, "{fetched} bytes came");
    assert_eq!(device.resets(), 0);
}

#[test]
fn an_install_goes_to_the_component_that_the_signed_manifest_names() {
    let fleet = Fleet::start();
    let mut device = Device::new(&Settings {
        components: &[("radio", 2)],
        ..Settings::default()
    });
    let before = device.slot_hash('a');
    let recipe = image_of("radio", "r1");
    recipe.pack(&device.at("radio.img"));

    // What an operator names instead is not what the vendor signed.
    let refused: [(&[&str], &str); 3] = [
        (
            &["--component", "prot"],
            "the image is a radio, a prot is to be installed",
        ),
        (&["--component", "dsp"], "this device has no component dsp"),
        (&["--component", "Radio"], "no component Radio"),
    ];
    for (named, text) in refused {
        let ran = device.run(&[&["install", "radio.img"], named].concat());
        assert_eq!(ran.exit, Some(1), "{named:?}: {ran:?}");
        assert!(ran.stderr.contains(text), "{named:?}: {ran:?}");
        assert_eq!(ran.stdout, "");
    }
    // Nor is a manifest that a stranger signed, or one of a component that the device lacks.
    let foreign = image_of("radio", "r9").signed_by(&[2]);
    foreign.pack(&device.at("foreign.img"));
    image_of("dsp", "d1").pack(&device.at("dsp.img"));
    for (image, text) in [
        ("foreign.img", "signed by none of the trusted keys"),
        ("dsp.img", "the image is a dsp"),
    ] {
        let ran = device.run(&["install", image]);
        assert_eq!(ran.exit, Some(1), "{image}: {ran:?}");
        assert!(ran.stderr.contains(text), "{image}: {ran:?}");
    }
    assert!(!device.boot_record().is_trial());
    assert!(!device.at("radio-b.img").exists(), "nothing was begun");

    let ran = device.run(&["install", "radio.img"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let start = "radio build r1 is in slot B and starts at the next boot (";
    assert!(ran.stdout.starts_with(start), "{ran:?}");
    let path = fleet.publish(&image_of("radio", "r2"));
    let url = format!("http://{}/{path}", fleet.address);
    let ran = device.run(&["install", &url, "--component", "radio"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let slot = std::fs::read(device.at("radio-b.img")).unwrap();
    assert!(slot.starts_with(&noise(image_of("radio", "r2").content)));
    let record = device.boot_record();
    assert_eq!(record.next("radio"), Some(SlotId::B));
    assert_eq!(record.next("prot"), Some(SlotId::A));

    assert_eq!(device.boot(), SlotId::A, "the system is the same");
    let status = device.wait_for("the confirm", |status| {
        (status["components"][1]["confirmed"] == "B").then(|| status.clone())
    });
    assert_eq!(status["components"][1]["build"], "r2");
    assert_eq!(device.slot_hash('a'), before);
}
