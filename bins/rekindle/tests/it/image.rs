use crate::{Bench, Ran};

/// 300 kB of text that repeats nowhere near and compresses.
fn firmware(build: u32) -> Vec<u8> {
    (0..20_000u32)
        .flat_map(|line| {
            let line = if line == 10_000 { line + build } else { line };
            format!("line {}\n", line.wrapping_mul(2_654_435_761)).into_bytes()
        })
        .collect()
}

const PACK: &str =
    "image pack in --key vendor --device-type IP1200 --component prot --build 9.1 -o out";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.done("key generate --out vendor");
    bench.write("in", &firmware(1));
    bench
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_packed_verifies_and_shows_what_it_was_told() {
    let bench = bench();
    bench.done("key generate --out second");
    let options = "--key second --device-type IP222 --hardware 102 --release 7 --security-version 3 \
                   --requires boot=2 --chunk-size 8KiB --align 512 --format json";
    let packed = json(&bench.done(&format!("{PACK} {options}")));
    let verify = "image verify out --key vendor.pub --key second.pub --threshold 2 --format json";
    let verified = json(&bench.done(verify));
    let inspected = json(&bench.done("image inspect out --format json"));
    for (field, value) in [
        ("component", json("\"prot\"")),
        ("build", json("\"9.1\"")),
        ("release", json("7")),
        ("security_version", json("3")),
        ("device_types", json(r#"["IP1200","IP222"]"#)),
        ("hardware", json(r#"["102"]"#)),
        ("requires", json(r#"[{"component":"boot","release":2}]"#)),
        ("size", bench.read("in").len().into()),
        ("max_chunk", json("16384")),
    ] {
        assert_eq!(packed[field], value, "{field}");
        assert_eq!(inspected[field], value, "{field}");
        assert_eq!(verified[field], value, "{field}");
    }
    assert_eq!(verified["valid"], true);
    assert_eq!(verified["signed_by"], 2);
    assert_eq!(packed["id"], inspected["id"]);
    assert_eq!(inspected["signers"].as_array().unwrap().len(), 2);
    assert_eq!(inspected["file_len"], bench.read("out").len());
    let human = bench.done("image inspect out");
    assert!(
        human.contains("\ndevice types      IP1200, IP222\n"),
        "{human}"
    );
    assert!(human.contains("(not checked)"), "{human}");
}

#[test]
fn packing_twice_gives_the_same_bytes_also_from_a_pipe() {
    let bench = bench();
    bench.done(PACK);
    let first = bench.read("out");
    bench.done(PACK);
    assert!(bench.read("out") == first, "a second run differs");
    let piped = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(PACK.replace(" in ", " - ").split_whitespace())
        .current_dir(bench.path("."))
        .stdin(std::fs::File::open(bench.path("in")).unwrap())
        .output()
        .unwrap();
    assert!(piped.status.success());
    assert!(bench.read("out") == first, "standard input differs");
}

#[test]
fn a_changed_byte_is_named_and_exits_with_1() {
    let bench = bench();
    bench.done(PACK);
    let good = bench.read("out");
    let verified = bench.done("image verify out --key vendor.pub");
    assert!(verified.starts_with("out: good: prot 9.1, "), "{verified}");
    let last = good.len() - 1;
    for (at, why) in [
        (0, "not a Rekindle image"),
        (60, "manifest"),
        (4000, "byte 4000, between manifest and table, is not zero"),
        (4100, "at byte 4096: table page 0 is damaged"),
        (8200, "chunk 0 at byte 8192: "),
        (last, "chunk "),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bench.write("out", &bad);
        let ran = bench.run("image verify out --key vendor.pub");
        assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "byte {at}");
        assert!(ran.stderr.starts_with("out: "), "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        let ran = bench.run("image verify out --key vendor.pub --format json");
        assert_eq!((ran.exit, ran.stderr.as_str()), (1, ""));
        let answer = json(&ran.stdout);
        assert_eq!(answer["valid"], false);
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
    }
}

#[test]
fn truncated_and_lengthened_files_are_named() {
    let bench = bench();
    bench.done(PACK);
    let good = bench.read("out");
    let mut long = good.clone();
    long.extend(b"evil");
    let len = good.len();
    for (bytes, why) in [
        (
            &good[..len - 1],
            format!(
                "out: truncated: the file ends after {} bytes, its image needs {len}\n",
                len - 1
            ),
        ),
        (
            &good[..10],
            "out: truncated: the file ends after 10 bytes, its image needs 16\n".to_owned(),
        ),
        (
            &[],
            "out: truncated: the file ends after 0 bytes, its image needs 16\n".to_owned(),
        ),
        (
            &long,
            format!("out: 4 bytes follow the end of the image at byte {len}\n"),
        ),
    ] {
        bench.write("out", bytes);
        for command in ["verify out --key vendor.pub", "inspect out", "diff out out"] {
            let ran = bench.run(&format!("image {command}"));
            assert_eq!(ran, Ran::new(1, "", &why), "{command}");
        }
    }
}

#[test]
fn signatures_decide_by_key_and_threshold() {
    let bench = bench();
    bench.done("key generate --out other");
    bench.done(PACK);
    let refused = |why: &str| Ran::new(1, "", &format!("out: {why}\n"));
    let verify = |keys: &str| bench.run(&format!("image verify out {keys}"));
    assert_eq!(
        verify("--key other.pub"),
        refused("the image is signed by none of the trusted keys")
    );
    assert_eq!(
        verify("--key vendor.pub --key other.pub --threshold 2"),
        refused("1 of the trusted keys signed the image, 2 are needed")
    );
    assert_eq!(
        verify("--key vendor.pub --key vendor.pub --threshold 2"),
        Ran::new(
            2,
            "",
            "rekindle: a threshold of 2 cannot be met by 1 different keys\n"
        )
    );
    let both = [bench.read("other.pub"), bench.read("vendor.pub")].concat();
    bench.write("both.pub", &both);
    assert_eq!(verify("--key both.pub").exit, 0);
    bench.done(&PACK.replace("--key vendor", "--unsigned"));
    assert_eq!(
        verify("--key vendor.pub"),
        refused("the image is not signed")
    );
}

#[test]
fn diff_says_what_a_device_must_fetch() {
    let bench = bench();
    bench.done(PACK);
    std::fs::rename(bench.path("out"), bench.path("old")).unwrap();
    bench.write("in", &firmware(2));
    bench.done(PACK);
    let same = json(&bench.done("image diff old old --format json"));
    assert_eq!(same["fetch"]["chunks"], 0);
    assert_eq!(same["shared"]["raw_bytes"], same["size"]);
    let diff = json(&bench.done("image diff old out --format json"));
    let fetched = diff["fetch"]["chunks"].as_u64().unwrap();
    assert!((1..=3).contains(&fetched), "{diff}");
    let raw = |part: &str| diff[part]["raw_bytes"].as_u64().unwrap();
    assert_eq!(raw("shared") + raw("repeated") + raw("fetch"), diff["size"]);
    let human = bench.done("image diff old out");
    assert!(human.contains("to fetch"), "{human}");
}

#[test]
fn pack_says_why_it_makes_no_image_and_leaves_nothing() {
    let bench = bench();
    bench.write("empty", b"");
    for (from, to, why) in [
        (" in ", " missing ", "missing: No such file"),
        (" in ", " . ", ". is a folder"),
        (" in ", " empty ", "out is not made: the input is empty"),
        (
            "--key vendor",
            "--key vendor.pub",
            "vendor.pub: line 1: this is a public key",
        ),
        (
            "--key vendor",
            "--key vendor --key vendor",
            "is given twice",
        ),
        (
            "prot",
            "PROT",
            "component: the character 'P' is not allowed",
        ),
        (
            "-o out",
            "-o out --chunk-size 5000",
            "a chunk size of 5000 bytes: it must be a power of two",
        ),
        (
            "-o out",
            "-o out --align 32KiB",
            "an alignment of 32768 bytes",
        ),
        (
            "-o out",
            "-o out --compression 23",
            "compression level 23: it must be from 1 to 22",
        ),
        (
            "-o out",
            "-o nowhere/out",
            "nowhere/out is not made: cannot write the image",
        ),
    ] {
        let ran = bench.run(&PACK.replace(from, to));
        assert_eq!(ran.exit, 2, "{to}");
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    let mut left: Vec<_> = std::fs::read_dir(bench.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["empty", "in", "vendor", "vendor.pub"]);
}

#[test]
fn unreadable_input_exits_with_2() {
    let bench = bench();
    for line in [
        "image verify missing --key vendor.pub",
        "image verify in --key missing",
        "image inspect missing",
        "image diff missing missing",
        "image inspect .",
    ] {
        let ran = bench.run(line);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{line}");
    }
}
