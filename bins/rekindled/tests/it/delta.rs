//! An update of a device that runs an older build: what both share is copied from the slot that runs,
//! the rest comes in few requests, several at a time, and within the device's limits.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::ops::Range;
use core::time::Duration;
use std::io::Cursor;
use std::sync::{Condvar, Mutex};

use rekindle_image::{Comparison, ImageFile, WalkError, compare, pack};

use crate::harness::{
    Device, Origin, Recipe, Reply, Request, Settings, answer, noise, pause, script, serve_file,
};

/// Two builds of which the second has places changed, something inserted and something repeated.
struct Builds {
    contents: [Vec<u8>; 2],
    images: [Arc<Vec<u8>>; 2],
}

impl Builds {
    fn new() -> Self {
        let old = noise(Recipe::new("old").of_length(LEN).content);
        let mut new = old.clone();
        for place in 1..12 {
            let at = place * old.len() / 12;
            new[at..at + 3000].copy_from_slice(&noise(Recipe::new("x").content)[..3000]);
        }
        let inserted = noise(Recipe::new("y").content)[..50_000].to_vec();
        new.splice(1_000_000..1_000_000, [inserted.clone(), inserted].concat());
        let pack = |build: &str, content: &[u8]| {
            let recipe = Recipe::new(build);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("image");
            pack(content, &path, &recipe.options, &recipe.keys).unwrap();
            Arc::new(std::fs::read(path).unwrap())
        };
        Self {
            images: [pack("1.0", &old), pack("2.0", &new)],
            contents: [old, new],
        }
    }

    /// What `rekindle image diff` says.
    fn comparison(&self) -> Comparison {
        let [mut old, mut new] = self.images.each_ref().map(|image| {
            let bytes: &[u8] = image;
            ImageFile::open(Cursor::new(bytes)).unwrap()
        });
        compare(&mut old, &mut new).unwrap()
    }

    /// Where each chunk of the new build lies, in the file and in the content, and whether the old
    /// build has it.
    fn chunks(&self) -> Vec<(Range<usize>, Range<usize>, bool)> {
        let walk = |image: &[u8], visit: &mut dyn FnMut(Range<u64>, rekindle_image::Chunk)| {
            let mut file = ImageFile::open(Cursor::new(image)).unwrap();
            file.for_each_chunk(|file, chunk| {
                let start = file.stored_offset(chunk);
                visit(start..start + u64::from(chunk.stored_len), *chunk);
                Ok::<_, WalkError>(())
            })
            .unwrap();
        };
        let mut known = BTreeSet::new();
        walk(&self.images[0], &mut |_, chunk| {
            known.insert(chunk.hash);
        });
        let mut chunks = Vec::new();
        let size = |value: u64| usize::try_from(value).unwrap();
        walk(&self.images[1], &mut |stored, chunk| {
            let raw = size(chunk.raw_offset);
            chunks.push((
                size(stored.start)..size(stored.end),
                raw..raw + usize::try_from(chunk.raw_len).unwrap(),
                known.contains(&chunk.hash),
            ));
        });
        chunks
    }
}

/// A device that runs the old build from slot B, with a script that names the new one.
fn device(builds: &Builds, update: &'static str) -> (Origin, Device) {
    let origin = Origin::start(|_| Reply::Bytes(Vec::new()));
    let settings = Settings {
        size: "6 MiB",
        old_firmware: 6 << 20,
        ..Settings::default()
    };
    let first = script(&origin.url(OLD), "1");
    let old = Arc::clone(&builds.images[0]);
    origin.change(move |request| {
        Reply::Bytes(match request.path.as_str() {
            OLD => serve_file(request, &old, "\"old\""),
            _ => serve_file(request, first.as_bytes(), ""),
        })
    });
    let mut device = Device::started(&origin.url("/scripts/"), &settings);
    device.wait_for_reset(1);
    device.kill();
    device.configure(&Settings {
        url: Some(origin.url("/scripts/")),
        update,
        ..settings
    });
    assert_eq!(device.boot().to_string(), "B");
    device.wait_for("the confirm", |status| {
        (status["components"][0]["confirmed"] == "B").then_some(())
    });
    (origin, device)
}

/// From now on the script names the new build, which `serve` delivers.
fn publish(
    origin: &Origin,
    serve: impl Fn(&Request, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    builds: &Builds,
) {
    let second = script(&origin.url(NEW), "2");
    let new = Arc::clone(&builds.images[1]);
    origin.change(move |request| {
        Reply::Bytes(match request.path.as_str() {
            NEW => serve(request, &new),
            OLD => answer("404 Not Found", "", b""),
            _ => serve_file(request, second.as_bytes(), ""),
        })
    });
}

fn honest(request: &Request, image: &[u8]) -> Vec<u8> {
    serve_file(request, image, "\"new\"")
}

/// The ranges of the new image that were asked for.
fn asked(origin: &Origin) -> Vec<Range<usize>> {
    let requests = origin.requests().into_iter();
    requests
        .filter(|request| request.path == NEW)
        .map(|request| request.range.unwrap())
        .collect()
}

fn bytes(ranges: &[Range<usize>]) -> u64 {
    let len: usize = ranges.iter().map(Range::len).sum();
    u64::try_from(len).unwrap()
}

#[test]
fn an_update_fetches_what_diff_says_and_copies_the_rest() {
    let builds = Builds::new();
    let (origin, device) = device(&builds, "");
    publish(&origin, honest, &builds);
    device.wait_for_reset(2);
    let slot = std::fs::read(device.slot_path('a')).unwrap();
    assert!(slot.starts_with(&builds.contents[1]));
    let said = builds.comparison();
    let asked = asked(&origin);
    let fetched = bytes(&asked);
    assert!(said.shared.raw_bytes > 3 << 20 && said.repeated.chunks > 0);
    assert!(
        fetched * 100 <= said.transfer * 101,
        "{fetched} bytes, {said:?}"
    );
    assert!(asked.len() <= usize::try_from(said.requests).unwrap());
    assert!(fetched * 100 >= said.transfer * 99, "diff says too much");
}

/// Each of these answers waits for two other questions: asked one after the other, none would come.
#[test]
fn several_ranges_are_asked_for_at_a_time_and_no_more_than_configured() {
    let builds = Builds::new();
    let (origin, device) = device(&builds, "requests = 3");
    let waiting = Arc::new((Mutex::new((BTreeSet::new(), 0)), Condvar::new()));
    let most = Arc::clone(&waiting);
    let end = builds.chunks()[0].0.start;
    publish(
        &origin,
        move |request, image| {
            let start = request.range.as_ref().unwrap().start;
            if start >= end {
                let mut state = waiting.0.lock().unwrap();
                state.0.insert(start);
                waiting.1.notify_all();
                state = waiting
                    .1
                    .wait_while(state, |state| state.0.len() < 3 && state.1 == 0)
                    .unwrap();
                state.1 = state.1.max(state.0.len());
                state.0.remove(&start);
            }
            honest(request, image)
        },
        &builds,
    );
    device.wait_for_reset(2);
    let slot = std::fs::read(device.slot_path('a')).unwrap();
    assert!(slot.starts_with(&builds.contents[1]));
    assert_eq!(most.0.lock().unwrap().1, 3);
}

#[test]
fn the_limit_of_a_download_is_held_before_the_first_chunk_and_named_with_what_it_would_take() {
    let builds = Builds::new();
    let (origin, mut device) = device(&builds, "max-download = \"100 KiB\"");
    publish(&origin, honest, &builds);
    let needed = builds.comparison().transfer;
    let text = format!("at least {needed} bytes from the network, and 102400 may be fetched");
    device.wait_for_line(&text);
    let error = device.status()["last_error"]["text"].to_string();
    assert!(error.contains(&text), "{error}");
    let first_chunk = builds.chunks()[0].0.start;
    let asked = asked(&origin);
    assert!(
        asked
            .iter()
            .all(|range| range.end <= first_chunk.max(32768))
    );
    assert_eq!(device.resets(), 1);
    // The table is there: the next attempt pays for the opening and the chunks alone.
    device.kill();
    device.configure(&Settings {
        url: Some(origin.url("/scripts/")),
        size: "6 MiB",
        update: "max-download = \"700 KiB\"\nmax-rate = \"2 MiB\"",
        ..Settings::default()
    });
    assert!(needed < 700 << 10, "{needed}");
    device.start();
    device.wait_for_reset(2);
}

#[test]
fn a_server_without_ranges_is_held_to_the_limit_as_a_whole() {
    let builds = Builds::new();
    let (origin, device) = device(&builds, "max-download = \"1 MiB\"");
    publish(
        &origin,
        |_, image| answer("200 OK", "ETag: \"new\"\r\n", image),
        &builds,
    );
    let len = builds.images[1].len();
    let text = format!("at least {len} bytes from the network");
    device.wait_for_line(&text);
    assert_eq!(device.resets(), 1);
}

#[test]
fn the_limits_of_one_install_are_given_on_the_command_line() {
    let image = Arc::new(Recipe::new("1.0").bytes());
    let len = image.len();
    let origin = Origin::start(move |request| Reply::Bytes(serve_file(request, &image, "\"1\"")));
    let device = Device::new(&Settings::default());
    let url = origin.url("/image");
    let ran = device.run(&["install", &url, "--max-download", "100KiB"]);
    assert_eq!(ran.exit, Some(1), "{}", ran.stderr);
    let text = format!("at least {len} bytes from the network, and 102400 may be fetched");
    assert!(ran.stderr.contains(&text), "{}", ran.stderr);
    let ran = device.run(&[
        "install",
        &url,
        "--max-download",
        "1 MiB",
        "--max-rate",
        "4MiB",
    ]);
    assert_eq!(ran.exit, Some(0), "{}", ran.stderr);
    let ran = device.run(&["install", &url, "--max-rate", "fast"]);
    assert_eq!(ran.exit, Some(2));
    assert!(
        ran.stderr.contains("fast is no size such as 64MiB"),
        "{}",
        ran.stderr
    );
}

/// What is on the device, in either slot, is not asked for, wherever the agent was killed.
#[test]
fn an_agent_killed_in_a_delta_asks_for_nothing_that_the_device_has() {
    let builds = Builds::new();
    let (origin, mut device) = device(&builds, "");
    device.kill();
    publish(
        &origin,
        |request, image| {
            pause(Duration::from_millis(15));
            honest(request, image)
        },
        &builds,
    );
    let chunks = builds.chunks();
    let mut seen = 0;
    let mut kills = 0;
    for delay in [150, 20, 40, 60, 80, 100, 120, 140, 180, 240] {
        let slot = std::fs::read(device.slot_path('a')).unwrap();
        let held: Vec<bool> = chunks
            .iter()
            .map(|(_, raw, shared)| *shared || slot[raw.clone()] == builds.contents[1][raw.clone()])
            .collect();
        device.start();
        pause(Duration::from_millis(delay));
        device.kill();
        kills += 1;
        let asked = asked(&origin);
        for range in asked[seen..].iter().filter(|range| range.start >= 32768) {
            for ((stored, ..), held) in chunks.iter().zip(&held) {
                let overlaps = stored.start < range.end && range.start < stored.end;
                let whole = stored.start >= 32768;
                assert!(
                    !(*held && overlaps && whole),
                    "bytes {stored:?} are on the device and were asked for: {range:?}"
                );
            }
        }
        seen = asked.len();
        if device.resets() > 1 {
            break;
        }
    }
    assert!(kills > 0);
    device.start();
    device.wait_for_reset(2);
    let slot = std::fs::read(device.slot_path('a')).unwrap();
    assert!(slot.starts_with(&builds.contents[1]));
}

const OLD: &str = "/old.bin";
const NEW: &str = "/new.bin";
const LEN: u64 = 4 << 20;
