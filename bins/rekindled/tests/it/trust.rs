//! Keys that change while devices are in the field, and fallbacks that their server hears of.

use core::num::NonZeroU8;

use rekindle_flash::SlotId;
use rekindle_image::{KeySet, SignedKeySet};

use crate::harness::{
    Device, Lab, Origin, Recipe, Reply, Settings, answer, script, secret_key, serve_file,
};

/// The set that replaces the vendor's key 1 with key 7.
fn key_set() -> SignedKeySet {
    let set = KeySet::new(1, NonZeroU8::MIN, vec![secret_key(7).public()]).unwrap();
    SignedKeySet::sign(&set, &[secret_key(1)]).unwrap()
}

#[test]
fn a_device_follows_a_change_of_keys_and_never_goes_back() {
    let lab = Lab::new();
    let changing = Recipe::new("2.0")
        .signed_by(&[7])
        .with(|options| options.key_sets = vec![key_set()]);
    lab.offer(&changing, "20");
    let mut device = lab.device(&Settings::default());
    device.wait_for_reset(1);
    assert_eq!(device.boot_record().key_set(), None);
    assert_eq!(device.boot(), SlotId::B);
    device.wait_for_line("already");
    let adopted = device.boot_record().key_set().expect("it is confirmed");
    assert_eq!(adopted.number, 1);

    // The old key is out, at every door, and says why.
    assert!(device.stop().success());
    Recipe::new("1.9").pack(&device.at("old.img"));
    let ran = device.run(&["install", "old.img"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("key rollback"), "{ran:?}");
    // The new one is in, also without the set.
    Recipe::new("2.1")
        .signed_by(&[7])
        .pack(&device.at("new.img"));
    let ran = device.run(&["install", "new.img"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");

    // A lost boot record does not bring the old key back.
    std::fs::remove_file(device.at("boot.state")).unwrap();
    let ran = device.run(&["install", "old.img"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("key rollback"), "{ran:?}");

    // Nor does a lost state.
    for generation in ["state/state.0", "state/state.1"] {
        let _: Result<(), _> = std::fs::remove_file(device.at(generation));
    }
    let ran = device.run(&["install", "old.img"]);
    assert_eq!(ran.exit, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("adopted set 1"), "{ran:?}");
}

#[test]
fn the_next_poll_tells_the_server_of_a_fallback_once() {
    let image = Recipe::new("1.0").bytes();
    let origin = Origin::start(|_| Reply::Bytes(answer("404 Not Found", "", b"")));
    let text = script(&origin.url("/1.0.bin"), "10");
    origin.change(move |request| {
        Reply::Bytes(if request.path.ends_with(".bin") {
            serve_file(request, &image, "\"1\"")
        } else {
            answer("200 OK", "", text.as_bytes())
        })
    });
    let mut device = Device::started(&origin.url("/scripts/"), &Settings::default());
    device.wait_for_reset(1);
    // It hangs before its agent starts, each time.
    for _ in 0..3 {
        assert_eq!(device.run_boot_loader(), SlotId::B);
    }
    assert_eq!(device.boot(), SlotId::A);
    let status = device.wait_for_poll();
    let text = status["rolled_back"]["text"].as_str().unwrap();
    assert!(
        text.contains("prot build 1.0 in slot B was given up") && text.contains("3 times"),
        "{text}"
    );
    let told: Vec<String> = origin
        .requests()
        .iter()
        .filter_map(|request| request.rolled_back.clone())
        .collect();
    assert_eq!(
        told.len(),
        1,
        "once it is answered it is not told again: {told:?}"
    );
    let start = "prot;build=\"1.0\";slot=B;running=A;reason=never-confirmed;attempts=3";
    assert!(told[0].starts_with(start), "{told:?}");
}
