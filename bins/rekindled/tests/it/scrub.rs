//! Rot is found and repaired: by command and by the agent itself, in the slot that runs and beside it.

use alloc::sync::Arc;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use rekindle_flash::{Geometry, SlotId, SlotLayout};
use serde_json::Value;

use crate::harness::{
    Content, Device, Origin, Recipe, Reply, Request, Settings, answer, eventually, noise,
    serve_file,
};

/// A device that runs build two from slot A and has build one in slot B, and where it got them.
struct Ward {
    device: Device,
    origin: Origin,
    one: Recipe,
    two: Recipe,
}

impl Ward {
    fn new(settings: &Settings) -> Self {
        let (one, two) = (Recipe::new("one"), Recipe::new("two"));
        let origin = Origin::start(serving(&one, &two));
        let mut device = Device::new(settings);
        for path in ["/one", "/two"] {
            let url = origin.url(path);
            let ran = device.run(&["install", &url]);
            assert_eq!(ran.exit, Some(0), "{ran:?}");
            device.boot();
            device.wait_for("a confirmed trial", |status| {
                status["trial"].is_null().then_some(())
            });
            device.kill();
        }
        assert_eq!(device.boot_record().next("prot"), Some(SlotId::A));
        Self {
            device,
            origin,
            one,
            two,
        }
    }

    fn flip(&self, slot: char, offset: u64) {
        let mut byte = [0];
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = options.open(self.device.slot_path(slot)).unwrap();
        file.read_exact_at(&mut byte, offset).unwrap();
        byte[0] ^= 0x40;
        file.write_all_at(&byte, offset).unwrap();
    }

    /// Whether a slot's content is what the image was made of.
    fn is_whole(&self, slot: char) -> bool {
        let recipe = if slot == 'a' { &self.two } else { &self.one };
        let held = std::fs::read(self.device.slot_path(slot)).unwrap();
        held.starts_with(&noise(recipe.content))
    }

    /// What `scrub` says, as JSON, and its exit status.
    fn scrub(&self) -> (Value, i32) {
        let ran = self.device.run(&["scrub", "--format", "json"]);
        let exit = ran.exit.unwrap();
        let json = serde_json::from_str(&ran.stdout);
        (json.unwrap_or_else(|_| panic!("{ran:?}")), exit)
    }

    fn conditions(&self) -> (String, i32) {
        let (json, exit) = self.scrub();
        let slots = json["slots"].as_array().unwrap();
        let words: Vec<_> = slots
            .iter()
            .map(|slot| slot["condition"].as_str().unwrap())
            .collect();
        (words.join(" "), exit)
    }

    /// Bytes of chunks that the origin was asked for.
    fn asked(&self) -> usize {
        let requests = self.origin.requests();
        let ranges = requests.iter().filter_map(|request| request.range.clone());
        ranges
            .filter(|range| range.start >= 4096)
            .map(|range| range.len())
            .sum()
    }

    fn repair(&self, arguments: &[&str]) -> (String, i32) {
        let ran = self.device.run(&[&["repair"], arguments].concat());
        assert!(!ran.stderr.contains('\r'), "quiet in a pipe: {ran:?}");
        (ran.stdout, ran.exit.unwrap())
    }
}

fn serving(one: &Recipe, two: &Recipe) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let (one, two) = (Arc::new(one.bytes()), Arc::new(two.bytes()));
    move |request| {
        Reply::Bytes(match request.path.as_str() {
            "/one" => serve_file(request, &one, "\"1\""),
            "/two" => serve_file(request, &two, "\"2\""),
            _ => answer("404 Not Found", "", b""),
        })
    }
}

/// Where things lie in a slot of the harness.
fn layout() -> SlotLayout {
    SlotLayout::new(&Geometry {
        size: 2 << 20,
        write_size: 4096,
        erase_size: 0,
    })
    .unwrap()
}

#[test]
fn a_slot_that_was_wiped_is_damaged_and_not_merely_empty() {
    let ward = Ward::new(&Settings::default());
    let wiped = vec![0; 2 << 20];
    std::fs::write(ward.device.slot_path('b'), wiped).unwrap();
    assert_eq!(ward.conditions(), ("whole damaged".to_owned(), 1));
    let (text, exit) = ward.repair(&[]);
    assert_eq!(exit, 0, "{text}");
    assert_eq!(ward.conditions(), ("whole whole".to_owned(), 0));
    assert!(ward.is_whole('b'));
    std::fs::remove_file(ward.device.slot_path('b')).unwrap();
    assert_eq!(ward.conditions(), ("whole damaged".to_owned(), 1));
}

#[test]
fn flipped_bits_are_found_in_every_slot_and_repaired_without_fetching_more() {
    let ward = Ward::new(&Settings::default());
    assert_eq!(ward.conditions(), ("whole whole".to_owned(), 0));
    let record = ward.device.boot_record();
    ward.flip('a', 100_000);
    ward.flip('b', 300_000);
    let (json, exit) = ward.scrub();
    assert_eq!(exit, 1, "{json}");
    assert_eq!(json["damaged"], 2);
    for (slot, place) in [(0, 100_000), (1, 300_000)] {
        let slot = &json["slots"][slot];
        assert_eq!(slot["damaged_chunks"], 1);
        let range = &slot["damage"][0];
        let (offset, bytes) = (&range["offset"], &range["bytes"]);
        let offset = offset.as_u64().unwrap();
        assert!((offset..offset + bytes.as_u64().unwrap()).contains(&place));
    }
    let human = ward.device.run(&["scrub"]);
    assert!(
        human.stdout.contains("prot A: damaged: build two: 1 of "),
        "{human:?}"
    );

    let before = ward.asked();
    let (said, exit) = ward.repair(&[]);
    assert_eq!(exit, 0, "{said}");
    let damaged = json["slots"].as_array().unwrap().iter();
    let damaged: u64 = damaged
        .map(|slot| slot["damaged_bytes"].as_u64().unwrap())
        .sum();
    let fetched = u64::try_from(ward.asked() - before).unwrap();
    assert_eq!(fetched, damaged, "{:?}", ward.origin.requests());
    assert!(ward.is_whole('a') && ward.is_whole('b'));
    assert_eq!(ward.conditions(), ("whole whole".to_owned(), 0));
    assert_eq!(ward.device.boot_record(), record);

    let requests = ward.origin.requests().len();
    let (said, exit) = ward.repair(&[]);
    assert_eq!(
        (exit, ward.origin.requests().len()),
        (0, requests),
        "{said}"
    );
    assert!(
        said.contains("prot A: whole: build two\nprot B: whole: build one"),
        "{said}"
    );
}

#[test]
fn damage_in_the_tail_is_found_and_repaired() {
    let ward = Ward::new(&Settings::default());
    // The device was given slot B first, then slot A, each once: copy 0 speaks in both.
    let copy = &layout().copies[0];
    for offset in [
        copy.mark.start,
        copy.head.start + 300,
        copy.table.start + 20,
    ] {
        for slot in ['a', 'b'] {
            ward.flip(slot, offset);
        }
        let (conditions, exit) = ward.conditions();
        assert_eq!(
            (conditions.as_str(), exit),
            ("damaged damaged", 1),
            "{offset}"
        );
        let (said, exit) = ward.repair(&[]);
        assert_eq!(exit, 0, "{said}");
        assert_eq!(ward.conditions(), ("whole whole".to_owned(), 0), "{offset}");
        assert!(ward.is_whole('a') && ward.is_whole('b'));
    }
}

#[test]
fn a_slot_full_of_garbage_is_brought_back_whole() {
    let ward = Ward::new(&Settings::default());
    let record = ward.device.boot_record();
    let garbage = Content {
        seed: 5,
        len: 2 << 20,
        mask: 0xff,
    };
    std::fs::write(ward.device.slot_path('b'), noise(garbage)).unwrap();
    assert_eq!(ward.conditions(), ("whole damaged".to_owned(), 1));
    let (said, exit) = ward.repair(&[]);
    assert_eq!(exit, 0, "{said}");
    assert!(ward.is_whole('b'));
    assert_eq!(ward.conditions(), ("whole whole".to_owned(), 0));
    assert_eq!(ward.device.boot_record(), record);
}

#[test]
fn a_slot_that_never_held_an_image_is_no_damage() {
    let mut device = Device::new(&Settings::default());
    device.start();
    device.kill();
    let ran = device.run(&["scrub"]);
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let slots: Vec<_> = ran.stdout.lines().collect();
    assert!(slots[0].starts_with("prot A: it holds something that no manifest describes"));
    assert_eq!(slots[1], "prot B: empty");
}

#[test]
fn an_origin_with_another_build_is_refused_and_another_one_may_be_named() {
    let ward = Ward::new(&Settings::default());
    ward.flip('a', 5000);
    let three = Recipe::new("three");
    ward.origin.change(serving(&three, &three));
    let before = ward.device.slot_hash('a');
    let (said, exit) = ward.repair(&[]);
    assert_eq!(exit, 1, "{said}");
    let why = "prot A: not repaired: the image there is build three, not the one that the slot \
               holds (build two)";
    assert!(said.contains(why), "{said}");
    assert_eq!(ward.device.slot_hash('a'), before, "nothing was written");

    let file = ward.device.at("two.bin");
    std::fs::write(&file, ward.two.bytes()).unwrap();
    let (said, exit) = ward.repair(&["two.bin"]);
    assert_eq!(exit, 0, "{said}");
    assert!(ward.is_whole('a'));
}

#[test]
fn the_images_of_recovery_are_asked_where_no_other_place_is_known() {
    let ward = Ward::new(&Settings::default());
    std::fs::remove_file(ward.device.at("state/origins.json")).unwrap();
    ward.flip('a', 5000);
    let (said, exit) = ward.repair(&[]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("it is not known where"), "{said}");

    let configuration = ward.device.at("device.toml");
    let text = std::fs::read_to_string(&configuration).unwrap();
    // The first one has another image.
    let (one, two) = (ward.origin.url("/one"), ward.origin.url("/two"));
    let text = format!("{text}[recovery]\nimages = [\"{one}\", \"{two}\"]\n");
    std::fs::write(&configuration, text).unwrap();
    let (said, exit) = ward.repair(&[]);
    assert_eq!(exit, 0, "{said}");
    assert!(ward.is_whole('a'));
}

#[test]
fn a_repair_that_is_killed_leaves_a_device_that_boots_and_is_repaired_by_the_next() {
    let ward = Ward::new(&Settings::default());
    let record = ward.device.boot_record();
    // Far apart: a request for each.
    for offset in [1000, 200_000, 400_000, 590_000] {
        ward.flip('a', offset);
        ward.flip('b', offset);
    }
    let serve = serving(&ward.one, &ward.two);
    let (one, two) = (ward.one.clone(), ward.two.clone());
    // The last place is never delivered whole.
    ward.origin.change(move |request| {
        let late = request
            .range
            .as_ref()
            .is_some_and(|range| range.start > 500_000);
        match serve(request) {
            Reply::Bytes(bytes) if late => Reply::Hang(bytes[..bytes.len() - 100].to_vec()),
            reply => reply,
        }
    });
    let mut repair = ward.device.spawn(&["repair"]);
    eventually("the last place", || {
        let requests = ward.origin.requests();
        let late = |request: &Request| {
            let range = request.range.as_ref();
            range.is_some_and(|range| range.start > 500_000)
        };
        requests.iter().skip(4).any(late).then_some(())
    });
    repair.kill().unwrap();
    repair.wait().unwrap();
    ward.origin.change(serving(&one, &two));

    let mut ward = ward;
    assert_eq!(ward.device.run_boot_loader(), SlotId::A);
    let (said, exit) = ward.repair(&[]);
    assert_eq!(exit, 0, "{said}");
    assert!(ward.is_whole('a') && ward.is_whole('b'));
    assert_eq!(ward.conditions(), ("whole whole".to_owned(), 0));
    assert_eq!(ward.device.boot_record(), record);
}

#[test]
fn the_agent_finds_rot_by_itself_and_repairs_it() {
    let settings = Settings {
        scrub: "every = \"1 s\"\npace = \"64 MiB\"",
        ..Settings::default()
    };
    let mut ward = Ward::new(&settings);
    ward.flip('a', 123_456);
    ward.flip('b', 456_789);
    ward.device.start();
    for slot in [0, 1] {
        ward.device.wait_for("a repair", |status| {
            let scrub = &status["components"][0]["slots"][slot]["scrub"];
            let text = scrub["text"].as_str()?;
            let repaired = scrub["result"] == "repaired" && text.starts_with("repaired: build");
            // The next round finds it whole.
            (repaired || scrub["result"] == "whole").then_some(())
        });
    }
    eventually("both slots", || {
        (ward.is_whole('a') && ward.is_whole('b')).then_some(())
    });
    let log = ward.device.log();
    assert!(log.contains("1 of "), "{log}");
    assert_eq!(ward.device.boot_record().next("prot"), Some(SlotId::A));
}

#[test]
fn the_agent_only_reports_rot_if_told_so_and_remembers_it_over_a_restart() {
    let settings = Settings {
        scrub: "every = \"1 s\"\npace = \"64 MiB\"\nrepair = \"report\"",
        ..Settings::default()
    };
    let mut ward = Ward::new(&settings);
    ward.flip('b', 456_789);
    ward.device.start();
    let damaged = |status: &Value| {
        let scrub = &status["components"][0]["slots"][1]["scrub"];
        (scrub["result"] == "damaged" && scrub["damaged_chunks"] == 1).then_some(())
    };
    ward.device.wait_for("the report", |status| {
        damaged(status)?;
        let text = status["last_error"]["text"].as_str()?;
        text.contains("rekindled repair brings it back")
            .then_some(())
    });
    assert!(!ward.is_whole('b'));
    ward.device.kill();
    ward.device.configure(&Settings {
        scrub: "every = \"off\"",
        ..Settings::default()
    });
    ward.device.start();
    ward.device.wait_for("the last scrub", damaged);
}
