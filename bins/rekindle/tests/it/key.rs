use std::os::unix::fs::PermissionsExt as _;

use crate::{Bench, Ran};

#[test]
fn generate_writes_a_secret_for_its_owner_alone_and_a_public_key() {
    let bench = Bench::new();
    let printed = bench.done("key generate --out vendor");
    let mode = std::fs::metadata(bench.path("vendor"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let id = printed
        .lines()
        .next()
        .unwrap()
        .strip_prefix("key ")
        .unwrap();
    assert_eq!(
        printed,
        format!("key {id}\nsecret vendor\npublic vendor.pub\n")
    );
    let public = String::from_utf8(bench.read("vendor.pub")).unwrap();
    assert!(public.starts_with("rekindle-ed25519-public "), "{public}");
    let secret = String::from_utf8(bench.read("vendor")).unwrap();
    assert!(secret.starts_with("rekindle-ed25519-secret "));
    assert!(!printed.contains(secret.split_whitespace().nth(1).unwrap()));
}

#[test]
fn generate_overwrites_neither_file() {
    for existing in ["vendor", "vendor.pub"] {
        let bench = Bench::new();
        bench.write(existing, b"precious");
        let ran = bench.run("key generate --out vendor");
        assert_eq!(ran.exit, 2);
        assert!(ran.stderr.contains(existing), "{}", ran.stderr);
        assert_eq!(bench.read(existing), b"precious");
        assert_eq!(std::fs::read_dir(bench.path(".")).unwrap().count(), 1);
    }
}

#[test]
fn a_secret_key_does_not_pass_for_a_public_one() {
    let bench = Bench::new();
    bench.done("key generate --out vendor");
    bench.write("image", b"");
    assert_eq!(
        bench.run("image verify image --key vendor"),
        Ran::new(
            2,
            "",
            "rekindle: vendor: line 1: this is a secret key; a public one is expected here (its file ends in .pub)\n"
        )
    );
}
