//! Images that a device must not take, on their way through the whole agent. The exhaustive part,
//! every byte and every lie of a manifest, is tested in the crates.

use alloc::sync::Arc;
use std::sync::Mutex;

use rekindle_image::{ImageFile, Layout};

use crate::harness::{Device, Origin, Recipe, Reply, Settings, script, secret_key, serve_file};

/// A device, and a server that serves whatever the test puts there.
struct Bench {
    file: Arc<Mutex<(usize, Vec<u8>)>>,
    device: Device,
}

impl Bench {
    fn new() -> Self {
        let file = Arc::new(Mutex::new((0, Vec::new())));
        let origin = Origin::start(|_| Reply::Bytes(Vec::new()));
        let served = Arc::clone(&file);
        let base = origin.url("");
        origin.change(move |request| {
            let (number, image) = &*served.lock().unwrap();
            Reply::Bytes(if request.path.ends_with(".bin") {
                serve_file(request, image, &format!("\"{number}\""))
            } else if image.is_empty() {
                serve_file(request, b"# nothing yet", "")
            } else {
                let text = script(&format!("{base}/{number}.bin"), &format!("s{number}"));
                serve_file(request, text.as_bytes(), "")
            })
        });
        let device = Device::started(&origin.url("/"), &Settings::default());
        Self { file, device }
    }

    fn serve(&self, image: Vec<u8>) {
        let mut file = self.file.lock().unwrap();
        file.0 += 1;
        file.1 = image;
    }

    /// Serves each, and looks for what the device says of it.
    fn refuses(&self, cases: Vec<(&str, Vec<u8>, &str)>) {
        let running = self.device.slot_hash('a');
        for (name, image, expected) in cases {
            self.serve(image);
            // The poll under way may still see the image before.
            let _: serde_json::Value = self.device.wait_for_poll();
            self.device
                .wait_for(&format!("{name}: {expected}"), |status| {
                    let detail = status["lines"][0]["detail"].as_str()?;
                    detail.contains(expected).then_some(())
                });
            assert_eq!(self.device.slot_hash('a'), running, "{name}");
            let record = self.device.boot_record();
            assert!(!record.is_trial(), "{name}");
            assert_eq!(record.next("prot").unwrap().to_string(), "A", "{name}");
            assert_eq!(self.device.resets(), 0, "{name}");
        }
    }

    /// After all that it takes a good image.
    fn takes(&mut self, image: Vec<u8>) {
        self.serve(image);
        self.device.wait_for_reset(1);
        assert_eq!(self.device.boot().to_string(), "B");
        self.device.wait_for("the confirm", |status| {
            (status["components"][0]["confirmed"] == "B").then_some(())
        });
    }
}

fn flipped(image: &[u8], at: u64) -> Vec<u8> {
    let mut image = image.to_vec();
    image[usize::try_from(at).unwrap()] ^= 0x10;
    image
}

fn layout(image: &[u8]) -> Layout {
    let file = ImageFile::open(std::io::Cursor::new(image)).unwrap();
    file.layout().clone()
}

#[test]
fn a_flipped_byte_in_any_region_of_an_image_is_found() {
    let mut bench = Bench::new();
    let good = Recipe::new("1.0").bytes();
    let Layout {
        manifest,
        table,
        chunks,
        ..
    } = layout(&good);
    let middle = chunks.start + (chunks.end - chunks.start) / 2;
    bench.refuses(vec![
        ("magic", flipped(&good, 0), "no Rekindle image"),
        (
            "version",
            flipped(&good, 8),
            "image format version 17 is not known",
        ),
        ("reserved", flipped(&good, 10), "reserved bytes"),
        ("length of the manifest", flipped(&good, 13), "manifest"),
        ("manifest", flipped(&good, manifest.start + 60), "manifest"),
        (
            "signature",
            flipped(&good, manifest.end - 1),
            "is wrong: the manifest was changed",
        ),
        ("padding", flipped(&good, table.start - 1), "not zero"),
        (
            "first page of the table",
            flipped(&good, table.start + 20),
            "page 0 of the chunk table is not the signed one",
        ),
        (
            "last byte of the table",
            flipped(&good, table.end - 1),
            "of the chunk table is not the signed one",
        ),
        (
            "first chunk",
            flipped(&good, chunks.start),
            "chunk 0 (byte 0 of the image) is not the signed one",
        ),
        (
            "a chunk in the middle",
            flipped(&good, middle),
            "is not the signed one: the bytes are not the ones signed for",
        ),
        (
            "last chunk",
            flipped(&good, chunks.end - 1),
            "is not the signed one: the bytes are not the ones signed for",
        ),
    ]);
    bench.takes(good);
}

#[test]
fn an_image_that_is_not_for_this_device_is_refused_with_the_reason() {
    let mut bench = Bench::new();
    let recipe = || Recipe::new("1.0");
    let mut trailing = recipe().bytes();
    trailing.push(0);
    let mut truncated = recipe().bytes();
    truncated.pop();
    bench.refuses(vec![
        (
            "wrong key",
            recipe().signed_by(&[2]).bytes(),
            "the image is not trusted: the image is signed by none of the trusted keys",
        ),
        (
            "unsigned",
            recipe().signed_by(&[]).bytes(),
            "the image is not trusted: the image is not signed",
        ),
        (
            "another device type",
            recipe()
                .with(|options| options.device_types = vec!["IP222".to_owned()])
                .bytes(),
            "the image is for IP222, this device is a IP1200",
        ),
        (
            "another hardware",
            recipe()
                .with(|options| options.hardware = vec!["103".to_owned()])
                .bytes(),
            "the image is for hardware 103, this device is 102",
        ),
        (
            "another component",
            recipe()
                .with(|options| options.component = "boot".to_owned())
                .bytes(),
            "the image is a boot, a prot is to be installed",
        ),
        (
            "larger than the slot",
            recipe().of_length(3 << 20).bytes(),
            "the image has 3145728 bytes, the slot holds",
        ),
        (
            "a requirement",
            recipe()
                .with(|options| {
                    options.requires = vec![rekindle_image::Requirement {
                        component: "boot".to_owned(),
                        release: 7,
                    }];
                })
                .bytes(),
            "the image needs boot of release 7 or later, this device has none",
        ),
        ("trailing bytes", trailing, "something was added at its end"),
        ("truncated", truncated, "it is truncated"),
        (
            "some web page",
            b"<html><title>Log in</title></html>".repeat(200),
            "no Rekindle image",
        ),
        (
            "a few bytes",
            b"\x89RKIMG\r\n".to_vec(),
            "the image is truncated: it has 8 bytes",
        ),
    ]);
    // Signed by a stranger beside the vendor: the stranger's signature does not matter.
    bench.takes(recipe().signed_by(&[2, 1]).bytes());
    assert_ne!(secret_key(1).public(), secret_key(2).public());
}

#[test]
fn an_image_below_the_security_version_of_the_device_is_a_rollback() {
    let mut bench = Bench::new();
    let version = |build: &str, version| {
        Recipe::new(build)
            .with(|options| options.security_version = version)
            .bytes()
    };
    bench.takes(version("2.0", 3));
    bench.device.wait_for("the floor", |status| {
        (status["components"][0]["security_floor"] == 3).then_some(())
    });
    let running = bench.device.slot_hash('b');
    bench.serve(version("1.0", 2));
    bench.device.wait_for_line(
        "the image is refused: rollback: the image has security version 2, this device takes 3 or later",
    );
    assert_eq!(bench.device.slot_hash('b'), running);
    // An older build of the same security version is no rollback.
    bench.serve(version("1.5", 3));
    bench.device.wait_for_reset(2);
}
