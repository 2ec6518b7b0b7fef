//! The life of a device: an update from poll to confirm, a fallback, a failed health check, and the
//! operator's commands.

use rekindle_flash::SlotId;
use serde_json::{Value, json};

use crate::harness::{
    Device, Fleet, Lab, Origin, Recipe, Reply, Settings, Tls, eventually, noise, script,
    secret_key, serve_file,
};

/// What the status says of the device's firmware.
fn firmware(status: &Value) -> Value {
    let prot = &status["components"][0];
    json!([
        prot["running"],
        prot["confirmed"],
        prot["next"],
        prot["build"],
        prot["serial"]
    ])
}

fn line_details(status: &Value) -> Vec<String> {
    let lines = status["lines"].as_array().unwrap().iter();
    lines
        .map(|line| line["detail"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_script_brings_new_firmware_and_the_next_polls_leave_it_alone() {
    let lab = Lab::new();
    let recipe = Recipe::new("13.8001");
    recipe.pack(&lab.fleet.at("firmware/IP1200.bin"));
    let url = lab.relay.url("firmware/");
    lab.fleet.write_script(&format!(
        "# one script for the whole fleet\r\n\
         mod cmd UP1 check ser 7f2a\r\n\
         mod cmd UP0 prot {url} ser 138001\r\n\
         iresetn\r\n"
    ));
    let mut device = lab.device(&Settings::default());
    let old = device.slot_hash('a');
    device.wait_for_reset(1);
    let status = device.wait_for("the choice", |status| {
        (status["reset_required"] == true).then(|| status.clone())
    });
    assert_eq!(status["trial"]["running"], false);
    assert_eq!(device.slot_hash('a'), old);
    let content = noise(recipe.content);
    let slot = std::fs::read(device.slot_path('b')).unwrap();
    assert!(slot.starts_with(&content));

    assert_eq!(device.boot(), SlotId::new(1).unwrap());
    device.wait_for("the confirm", |status| {
        let expected = json!(["B", "B", "B", "13.8001", "138001"]);
        (firmware(status) == expected && status["trial"].is_null()).then_some(())
    });
    device.wait_for("the check to be set", |status| {
        let details = line_details(status);
        (details == ["this serial has been run, the rest is skipped"]).then_some(())
    });
    let before = lab.relay.exchanges();
    device.wait_for_poll();
    device.wait_for_poll();
    let after = lab.relay.exchanges();
    let new = &after[before.len()..];
    assert!(new.len() >= 2);
    for exchange in new {
        assert_eq!(exchange.path, "/scripts/update-ip1200.htm");
    }
    assert_eq!(device.resets(), 1);
    assert_eq!(device.status()["poll"]["result"], "ok");
    assert!(device.stop().success());
}

#[test]
fn the_other_slot_takes_the_next_update() {
    let lab = Lab::new();
    lab.offer(&Recipe::new("1.0"), "10");
    let mut device = lab.device(&Settings::default());
    device.wait_for_reset(1);
    device.boot();
    device.wait_for("the confirm of 1.0", |status| {
        (firmware(status) == json!(["B", "B", "B", "1.0", "10"])).then_some(())
    });
    let first = device.slot_hash('b');
    lab.offer(&Recipe::new("2.0"), "20");
    device.wait_for_reset(2);
    assert_eq!(device.boot(), SlotId::A);
    device.wait_for("the confirm of 2.0", |status| {
        (firmware(status) == json!(["A", "A", "A", "2.0", "20"])).then_some(())
    });
    assert_eq!(device.slot_hash('b'), first);
}

#[test]
fn a_mere_restart_of_the_agent_is_no_boot() {
    let lab = Lab::new();
    lab.offer(&Recipe::new("1.0"), "10");
    let mut device = lab.device(&Settings::default());
    device.wait_for_reset(1);
    device.kill();
    device.start();
    // The restart is asked for again, since it has not happened.
    device.wait_for_reset(2);
    let record = device.boot_record();
    assert_eq!((record.attempts_left(), record.attempts()), (3, 3));
    assert_eq!(device.status()["rolled_back"], Value::Null);
    assert_eq!(lab.loads().len(), 1, "{:?}", lab.loads());
}

#[test]
fn firmware_that_never_confirms_is_given_up_and_not_loaded_again() {
    let lab = Lab::new();
    lab.offer(&Recipe::new("2.0"), "20");
    let mut device = lab.device(&Settings::default());
    let old = device.slot_hash('a');
    device.wait_for_reset(1);
    for _attempt in 0..3 {
        assert_eq!(device.run_boot_loader().to_string(), "B");
    }
    assert_eq!(device.boot(), SlotId::A);
    let loads = lab.loads().len();
    device.wait_for_line("tried and rejected");
    let status = device.wait_for_poll();
    let notice = status["rolled_back"]["text"].as_str().unwrap();
    assert_eq!(
        notice,
        "prot build 2.0 in slot B was given up: it was started but never confirmed that it works (started 3 times); slot A runs"
    );
    assert_eq!(status["rejections"][0]["build"], "2.0");
    assert_eq!(status["rejections"][0]["tries"], 1);
    assert_eq!(status["trial"], Value::Null);
    assert_eq!(lab.loads().len(), loads);
    assert_eq!((device.resets(), device.slot_hash('a')), (1, old));

    // A corrected image under the same serial is another image.
    let corrected = Recipe::new("2.0").of_length(650_000);
    lab.offer(&corrected, "20");
    device.wait_for_reset(2);
    assert_eq!(device.boot().to_string(), "B");
    device.wait_for("the confirm of the corrected image", |status| {
        (firmware(status) == json!(["B", "B", "B", "2.0", "20"])).then_some(())
    });
}

#[test]
fn firmware_that_is_not_healthy_is_rejected_at_once_and_for_good() {
    let lab = Lab::new();
    lab.offer(&Recipe::new("2.0"), "20");
    let settings = Settings {
        url: Some(lab.relay.url("scripts/")),
        health: "/bin/false",
        ..Settings::default()
    };
    let mut device = Device::new(&settings);
    device.start();
    device.wait_for_reset(1);
    assert_eq!(device.boot().to_string(), "B");
    // It asks to be restarted into what it came from, after a single attempt.
    device.wait_for_reset(2);
    assert_eq!(device.boot(), SlotId::A);
    let loads = lab.loads().len();
    device.wait_for_line("tried and rejected: its health check failed");
    let status = device.wait_for_poll();
    assert_eq!(status["rejections"][0]["reason"], "its health check failed");
    assert_eq!(status["rejections"][0]["retry_after"], Value::Null);
    assert_eq!((lab.loads().len(), device.resets()), (loads, 2));
}

#[test]
fn what_was_chosen_together_with_no_reset_starts_at_a_stray_power_cycle() {
    let lab = Lab::new();
    let path = lab.fleet.publish(&Recipe::new("1.0"));
    let url = lab.relay.url(&path);
    lab.fleet
        .write_script(&format!("mod cmd UP0 prot {url} ser 10\n"));
    let mut device = lab.device(&Settings::default());
    device.wait_for("the choice", |status| {
        (status["components"][0]["next"] == "B").then_some(())
    });
    assert_eq!(device.resets(), 0);
    assert_eq!(device.boot().to_string(), "B");
    device.wait_for("the confirm", |status| {
        (firmware(status) == json!(["B", "B", "B", "1.0", "10"])).then_some(())
    });
}

#[test]
fn factory_reset_makes_the_script_run_again_and_keeps_the_firmware() {
    let lab = Lab::new();
    lab.fleet
        .write_script("mod cmd UP1 check ser 1\nvars create LAB p 1\n");
    let mut device = lab.device(&Settings::default());
    device.wait_for_line("this serial has been run");
    assert!(device.stop().success());
    let ran = device.run(&["factory-reset"]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (Some(0), ""));
    let before = device.slot_hash('a');
    // Slow enough that the first run is seen before the second.
    device.configure(&Settings {
        url: Some(lab.relay.url("scripts/")),
        poll: "2 s",
        ..Settings::default()
    });
    device.start();
    let status = device.wait_for("the first poll", |status| {
        (status["poll"]["result"] == "ok").then(|| status.clone())
    });
    assert_eq!(
        status["lines"][0]["detail"],
        "the serial is new, the rest runs"
    );
    assert_eq!(device.slot_hash('a'), before);
}

#[test]
fn a_lost_state_is_begun_anew_and_said() {
    let lab = Lab::new();
    lab.fleet.write_script("mod cmd UP1 check ser 1\n");
    let mut device = lab.device(&Settings::default());
    device.wait_for_line("this serial has been run");
    assert!(device.stop().success());
    for generation in ["state/state.0", "state/state.1"] {
        std::fs::write(device.at(generation), b"rubbish").unwrap();
    }
    device.start();
    let warnings = device.wait_for("a poll", |status| {
        (status["poll"]["result"] == "ok").then(|| status["warnings"].clone())
    });
    let warning = warnings[0].as_str().unwrap_or_default();
    assert!(warning.starts_with("the state was lost"), "{warnings}");
    device.wait_for_line("this serial has been run");
}

#[test]
fn install_from_a_file_or_a_url_says_what_came_of_it() {
    let fleet = Fleet::start();
    let device = Device::new(&Settings::default());
    Recipe::new("1.0").pack(&device.at("one.img"));
    let ran = device.run(&["install", "one.img"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let start = "prot build 1.0 is in slot B and starts at the next boot (";
    assert!(ran.stdout.starts_with(start), "{ran:?}");

    let path = fleet.publish(&Recipe::new("2.0"));
    let ran = device.run(&["install", &format!("http://{}/{path}", fleet.address)]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(
        ran.stdout.starts_with("prot build 2.0 is in slot B"),
        "{ran:?}"
    );

    // The same again finds everything in place.
    let ran = device.run(&["install", &format!("http://{}/{path}", fleet.address)]);
    assert!(ran.stdout.ends_with("(0 bytes fetched)\n"), "{ran:?}");
}

#[test]
fn a_command_that_fails_says_why_and_tells_refusals_from_mistakes() {
    let device = Device::new(&Settings::default());
    Recipe::new("1.0")
        .signed_by(&[2])
        .pack(&device.at("foreign.img"));
    std::fs::write(device.at("text.img"), "this is no image").unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (
            &["install", "foreign.img"],
            1,
            "rekindled: not installed: the image is not trusted: the image is signed by none of the trusted keys",
        ),
        (&["install", "text.img"], 1, "no Rekindle image"),
        (
            &["install", "http://127.0.0.1:1/x"],
            2,
            "cannot connect to the server",
        ),
        (
            &["install", "missing.img"],
            2,
            "cannot open the image missing.img: No such file",
        ),
        (&["install"], 2, "install needs an image"),
        (&["instal"], 2, "unknown command or argument: instal"),
        (&["run", "--allow-downgrade"], 2, "belongs to install"),
        (&["--nonsense"], 2, "--nonsense"),
    ];
    for (arguments, exit, text) in cases {
        let ran = device.run(arguments);
        assert_eq!(ran.exit, Some(exit), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(text), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stdout, "");
    }
    assert!(!device.boot_record().is_trial());
}

#[test]
fn a_key_that_is_not_known_is_named_with_its_neighbour() {
    let device = Device::new(&Settings {
        update: "pol = \"1 s\"",
        ..Settings::default()
    });
    let ran = device.run(&["run"]);
    assert_eq!(ran.exit, Some(2));
    assert!(
        ran.stderr.contains("\"pol\"") || ran.stderr.contains("`pol`"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("poll"), "{ran:?}");
}

#[test]
fn a_second_door_is_told_that_the_device_is_busy() {
    let lab = Lab::new();
    lab.offer(&Recipe::new("1.0"), "10");
    lab.relay.set_rate(100_000);
    let device = lab.device(&Settings::default());
    eventually("the transfer", || (!lab.loads().is_empty()).then_some(()));
    Recipe::new("9.9").pack(&device.at("local.img"));
    let ran = device.run(&["install", "local.img"]);
    assert_eq!(ran.exit, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains("busy: another update is under way"),
        "{ran:?}"
    );
    lab.relay.set_rate(0);
    device.wait_for_reset(1);
}

#[test]
fn an_operator_may_go_below_the_security_floor_and_a_script_may_not() {
    let lab = Lab::new();
    let strict = Recipe::new("2.0").with(|options| options.security_version = 5);
    lab.offer(&strict, "20");
    let mut device = lab.device(&Settings::default());
    device.wait_for_reset(1);
    device.boot();
    device.wait_for("the floor", |status| {
        (status["components"][0]["security_floor"] == 5).then_some(())
    });
    let older = Recipe::new("1.0").with(|options| options.security_version = 4);
    lab.offer(&older, "10");
    device
        .wait_for_line("rollback: the image has security version 4, this device takes 5 or later");
    assert!(device.stop().success());
    older.pack(&device.at("older.img"));
    assert_eq!(device.run(&["install", "older.img"]).exit, Some(1));
    let ran = device.run(&["install", "older.img", "--allow-downgrade"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("a lower security version is allowed"),
        "{ran:?}"
    );
}

#[test]
fn a_device_that_accepts_unsigned_images_says_so_loudly() {
    let lab = Lab::new();
    lab.offer(&Recipe::new("1.0").signed_by(&[]), "10");
    let device = lab.device(&Settings {
        trust: "unsigned = \"accept\"",
        ..Settings::default()
    });
    device.wait_for_reset(1);
    let warning = device.status()["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("images without a signature are accepted"));
    let log = device.log();
    assert!(log.contains("WARN"), "{log}");
    assert!(
        log.contains("an image without a signature was installed"),
        "{log}"
    );
    assert!(log.contains("unsigned"), "{log}");
}

#[test]
fn a_configuration_backup_goes_to_the_server_once_a_serial() {
    let lab = Lab::new();
    let url = lab.relay.url("backups/#h-#m.txt");
    lab.fleet
        .write_script(&format!("mod cmd UP0 scfg {url} nop s-1\r\n"));
    let device = lab.device(&Settings {
        host: r#"config = ["/bin/echo", "config change IP0 /addr 10.0.0.2"]"#,
        ..Settings::default()
    });
    device.wait_for_line("this serial has been done already");
    let name = "backups/IP1200-03-0d-f0-00-90-33-03-0d-f0.txt";
    let backup = std::fs::read_to_string(lab.fleet.at(name)).unwrap();
    assert_eq!(backup, "config change IP0 /addr 10.0.0.2\n");
    assert_eq!(lab.relay.count("PUT", &format!("/{name}")), 1);
}

#[test]
fn https_is_spoken_with_the_pinned_authority_only() {
    let tls = Tls::new();
    let image = Recipe::new("1.0").bytes();
    let origin = Origin::start_with(Some(&tls), |_| Reply::Bytes(Vec::new()));
    let base = format!("https://{}", origin.address);
    let text = script(&format!("{base}/image.bin"), "10");
    origin.change(move |request| {
        Reply::Bytes(if request.path == "/image.bin" {
            serve_file(request, &image, "\"1\"")
        } else {
            serve_file(request, text.as_bytes(), "")
        })
    });
    let mut settings = Settings {
        url: Some(format!("{base}/")),
        update: "ca = [\"ca.pem\"]",
        ..Settings::default()
    };
    let mut device = Device::new(&settings);
    Tls::new().write_authority(device.at("ca.pem"));
    device.start();
    device.wait_for("the refusal of a foreign server", |status| {
        let detail = status["poll"]["detail"].as_str()?;
        (status["poll"]["result"] == "failed(502)" && detail.contains("cannot connect"))
            .then_some(())
    });
    device.kill();
    tls.write_authority(device.at("ca.pem"));
    device.start();
    device.wait_for_reset(1);

    device.kill();
    settings.update = "";
    device.configure(&settings);
    device.start();
    device.wait_for("the refusal without any authority", |status| {
        let detail = status["poll"]["detail"].as_str()?;
        detail.contains("https needs `update.ca`").then_some(())
    });
}

#[test]
fn a_threshold_of_two_keys_needs_both() {
    let device = Device::new(&Settings {
        keys: &[1, 2],
        ..Settings::default()
    });
    let config = std::fs::read_to_string(device.at("device.toml")).unwrap();
    let config = config.replace("threshold = 1", "threshold = 2");
    std::fs::write(device.at("device.toml"), config).unwrap();
    Recipe::new("1.0")
        .signed_by(&[1])
        .pack(&device.at("one.img"));
    let ran = device.run(&["install", "one.img"]);
    assert_eq!(ran.exit, Some(1));
    let text = "1 of the trusted keys signed the image, 2 are needed";
    assert!(ran.stderr.contains(text), "{ran:?}");
    Recipe::new("1.0")
        .signed_by(&[2, 1])
        .pack(&device.at("two.img"));
    assert_eq!(device.run(&["install", "two.img"]).exit, Some(0));
    assert_ne!(secret_key(1).key_id(), secret_key(2).key_id());
}
