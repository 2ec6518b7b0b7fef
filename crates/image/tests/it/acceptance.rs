//! A device's rules, each broken alone.

use rekindle_image::{Acceptance, DeviceFacts, Downgrade, Manifest, Refusal, Requirement};

use crate::crafted::manifest;

const FACTS: DeviceFacts<'static> = DeviceFacts {
    device_type: "IP1200",
    hardware: Some("102"),
    component: "prot",
    security_floor: 3,
    slot_capacity: 100_000,
    table_capacity: 4096,
    installed: &[("boot", 5), ("prot", 6)],
};

fn check(facts: &DeviceFacts<'_>, change: impl Fn(&mut Manifest)) -> Result<(), String> {
    let mut manifest = manifest();
    change(&mut manifest);
    Acceptance::check(&manifest, facts, Downgrade::Refuse).map_err(|refusal| refusal.to_string())
}

fn needs(component: &str, release: u64) -> impl Fn(&mut Manifest) {
    move |manifest| {
        manifest.requires = vec![Requirement {
            component: component.to_owned(),
            release,
        }];
    }
}

#[test]
fn an_image_that_fits_is_taken() {
    assert_eq!(check(&FACTS, |_| ()), Ok(()));
    assert_eq!(
        check(&FACTS, |m| m.hardware = vec!["102".to_owned()]),
        Ok(())
    );
    assert_eq!(check(&FACTS, needs("boot", 5)), Ok(()));
}

#[test]
fn each_rule_refuses_in_its_own_words() {
    let refused = |change: fn(&mut Manifest), why: &str| {
        assert_eq!(check(&FACTS, change), Err(why.to_owned()));
    };
    refused(
        |m| m.device_types = vec!["IP222".to_owned(), "IP240".to_owned()],
        "the image is for IP222, IP240, this device is a IP1200",
    );
    refused(
        |m| m.device_types = vec!["ip1200".to_owned()],
        "the image is for ip1200, this device is a IP1200",
    );
    refused(
        |m| m.hardware = vec!["101".to_owned()],
        "the image is for hardware 101, this device is 102",
    );
    refused(
        |m| m.component = "boot".to_owned(),
        "the image is a boot, a prot is to be installed",
    );
    refused(
        |m| m.security_version = 2,
        "rollback: the image has security version 2, this device takes 3 or later",
    );
    refused(
        |m| m.size = 100_001,
        "the image has 100001 bytes, the slot holds 100000",
    );
    refused(
        |m| m.table.chunks = 103,
        "the image's chunk table has 12288 bytes, the slot keeps 4096: pack it with a larger chunk size",
    );
    assert_eq!(
        check(&FACTS, needs("boot", 6)),
        Err("the image needs boot of release 6 or later, this device has 5".to_owned())
    );
    assert_eq!(
        check(&FACTS, needs("bmc", 0)),
        Err("the image needs bmc of release 0 or later, this device has none".to_owned())
    );
}

#[test]
fn hardware_that_the_device_does_not_know_is_no_match() {
    let facts = DeviceFacts {
        hardware: None,
        ..FACTS
    };
    assert_eq!(check(&facts, |_| ()), Ok(()));
    assert_eq!(
        check(&facts, |m| m.hardware = vec!["102".to_owned()]),
        Err("the image is for hardware 102, this device is of unknown hardware".to_owned())
    );
}

#[test]
fn a_local_operator_may_go_below_the_floor_and_nothing_else() {
    let mut manifest = manifest();
    manifest.security_version = 0;
    let allow = |manifest: &Manifest| Acceptance::check(manifest, &FACTS, Downgrade::Allow);
    assert_eq!(allow(&manifest), Ok(()));
    manifest.size = 100_001;
    assert_eq!(
        allow(&manifest),
        Err(Refusal::TooLarge {
            size: 100_001,
            capacity: 100_000
        })
    );
}

#[test]
fn an_older_release_of_the_same_security_version_is_no_downgrade() {
    assert_eq!(check(&FACTS, |m| m.release = 0), Ok(()));
}
