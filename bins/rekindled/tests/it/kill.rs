//! Power cuts as far as a process can have them: the agent is killed at any moment, and goes on.

use core::ops::Range;
use core::time::Duration;
use std::fs::File;

use rekindle_image::{ImageFile, WalkError};

use crate::harness::{
    Device, Exchange, Fleet, Recipe, Relay, Settings, eventually, noise, pause, say, script,
};

/// One chunk of an image: where it lies in the file, and in the content.
pub(crate) struct Piece {
    pub(crate) stored: Range<u64>,
    pub(crate) raw: Range<usize>,
}

/// An image on the server with all that the test knows of it.
pub(crate) struct Target {
    pub(crate) url: String,
    path: String,
    pub(crate) content: Vec<u8>,
    pub(crate) pieces: Vec<Piece>,
}

impl Target {
    pub(crate) fn publish(fleet: &Fleet, relay: &Relay, build: &str) -> Self {
        let recipe = Recipe::new(build).of_length(IMAGE_LEN);
        let path = fleet.publish(&recipe);
        let mut file = ImageFile::open(File::open(fleet.at(&path)).unwrap()).unwrap();
        let mut pieces = Vec::new();
        file.for_each_chunk(|file, chunk| {
            let stored = file.stored_offset(chunk);
            let raw = usize::try_from(chunk.raw_offset).unwrap();
            pieces.push(Piece {
                stored: stored..stored + u64::from(chunk.stored_len),
                raw: raw..raw + usize::try_from(chunk.raw_len).unwrap(),
            });
            Ok::<_, WalkError>(())
        })
        .unwrap();
        Self {
            url: relay.url(&path),
            path: format!("/{path}"),
            content: noise(recipe.content),
            pieces,
        }
    }

    /// Which chunks a slot holds where they belong.
    pub(crate) fn found_in(&self, slot: &[u8]) -> Vec<bool> {
        let pieces = self.pieces.iter();
        pieces
            .map(|piece| slot.get(piece.raw.clone()) == Some(&self.content[piece.raw.clone()]))
            .collect()
    }

    /// What the slot held was not asked for.
    pub(crate) fn assert_nothing_again(&self, held: &[bool], exchanges: &[Exchange], when: &str) {
        for (range, _) in self.loads(exchanges) {
            for (piece, held) in self.pieces.iter().zip(held) {
                let overlaps = piece.stored.start < range.end && range.start < piece.stored.end;
                assert!(
                    !(*held && overlaps),
                    "bytes {:?} are in the slot and were asked for again: {range:?}, {when}",
                    piece.stored
                );
            }
        }
    }

    /// Requests for bytes behind the table.
    pub(crate) fn loads<'a>(
        &self,
        exchanges: &'a [Exchange],
    ) -> impl Iterator<Item = (&'a Range<u64>, u64)> {
        let first = self.pieces[0].stored.start;
        let path = self.path.clone();
        exchanges.iter().filter_map(move |exchange| {
            let range = exchange.range.as_ref()?;
            (exchange.path == path && range.start >= first).then_some((range, exchange.sent))
        })
    }
}

/// Where in an install the axe falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// So long after the agent's first request: its start, the table, the scan.
    Start(Duration),
    /// Once so many bytes of chunks have come, and so much later.
    Bytes(u64, Duration),
    /// So long after the last chunk has come: read-back, mark, state, boot control, reset.
    Last(Duration),
}

impl Moment {
    fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0..3 => Self::Start(Duration::from_millis(random.below(300))),
            3..9 => Self::Bytes(
                random.below(900 * 1024),
                Duration::from_millis(random.below(20)),
            ),
            _ => Self::Last(Duration::from_millis(random.below(400))),
        }
    }
}

/// The seed is printed, and can be given in the environment to see a run again as far as time allows.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("REKINDLE_TEST_SEED").ok();
        let seed = seed.map_or_else(
            || u64::from(std::process::id()),
            |seed| seed.parse().unwrap(),
        );
        say(&format!("REKINDLE_TEST_SEED={seed}"));
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn an_agent_killed_a_hundred_times_fetches_nothing_again_that_the_slot_holds() {
    let mut random = Random::new();
    let fleet = Fleet::start();
    let relay = Relay::to(fleet.address);
    let targets = [
        Target::publish(&fleet, &relay, "even"),
        Target::publish(&fleet, &relay, "odd"),
    ];
    let mut device = Device::new(&Settings {
        url: Some(relay.url("scripts/")),
        poll: "20 ms",
        size: "28 MiB",
        old_firmware: 28 << 20,
        ..Settings::default()
    });
    let old = device.slot_hash('a');
    let mut installs = 0;
    let mut in_transfer = 0;
    let mut wasted = 0;
    fleet.write_script(&script(&targets[0].url, "s0"));
    for _kill in 0..KILLS {
        let target = &targets[installs % 2];
        let held = target.found_in(&std::fs::read(device.slot_path('b')).unwrap_or_default());
        relay.take();
        let resets = device.resets();
        let moment = Moment::draw(&mut random);
        relay.set_rate(match moment {
            Moment::Last(_) => 0,
            _ => THROTTLED,
        });
        device.start();
        strike(&mut device, &relay, target, moment, resets);

        let exchanges = relay.take();
        let asked: Vec<_> = target.loads(&exchanges).collect();
        target.assert_nothing_again(&held, &exchanges, &format!("{moment:?}"));
        let slot = std::fs::read(device.slot_path('b')).unwrap_or_default();
        let now_held = target.found_in(&slot);
        for (before, now) in held.iter().zip(&now_held) {
            assert!(*now || !*before, "a chunk was lost, {moment:?}");
        }
        let gained: u64 = target
            .pieces
            .iter()
            .zip(held.iter().zip(&now_held))
            .filter(|(_, (before, now))| **now && !**before)
            .map(|(piece, _)| piece.stored.end - piece.stored.start)
            .sum();
        let came: u64 = asked.iter().map(|(_, sent)| sent).sum();
        wasted += came.saturating_sub(gained);
        in_transfer += usize::from(came > 0 && now_held.contains(&false));

        assert_eq!(device.slot_hash('a'), old, "{moment:?}");
        let record = device.boot_record();
        let confirmed = record.component("prot").unwrap().confirmed.to_string();
        assert_eq!(confirmed, "A", "{moment:?}");
        // What boots next is whole, whatever happened.
        let is_whole = slot.starts_with(&target.content);
        if record.is_trial() && !is_whole {
            // What was there before the script of this one was looked at.
            let previous = &targets[(installs + 1) % 2];
            assert!(
                installs > 0 && slot.starts_with(&previous.content),
                "{moment:?}"
            );
        } else if record.is_trial() {
            installs += 1;
            let next = &targets[installs % 2];
            fleet.write_script(&script(&next.url, &format!("s{installs}")));
        }
    }
    say(&format!(
        "{KILLS} kills, {in_transfer} of them in a transfer; {installs} installs; {wasted} bytes came in vain"
    ));
    assert!(
        in_transfer >= KILLS / 4,
        "{in_transfer} kills in a transfer"
    );
    assert!(installs >= 1);
    // Of each kill only what was on its way: in sockets, in buffers, in one write.
    assert!(
        wasted <= u64::try_from(KILLS).unwrap() * ON_ITS_WAY,
        "{wasted}"
    );

    relay.set_rate(0);
    device.start();
    let target = &targets[installs % 2];
    let serial = format!("s{installs}");
    device.wait_for("the last install", |status| {
        let prot = &status["components"][0];
        (prot["next"] == "B" && prot["serial"] == *serial).then_some(())
    });
    assert!(
        std::fs::read(device.slot_path('b'))
            .unwrap()
            .starts_with(&target.content)
    );
    assert_eq!(device.boot().to_string(), "B");
    device.wait_for("the confirm", |status| {
        (status["components"][0]["confirmed"] == "B").then_some(())
    });
    assert_eq!(device.slot_hash('a'), old);
}

/// Waits for the moment, or for the end of the install, and kills the agent.
fn strike(device: &mut Device, relay: &Relay, target: &Target, moment: Moment, resets: usize) {
    let come = |exchanges: &[Exchange]| -> u64 { target.loads(exchanges).map(|load| load.1).sum() };
    let all_come = |exchanges: &[Exchange]| {
        let end = target.pieces.last().unwrap().stored.end;
        let mut loads = target.loads(exchanges);
        loads.any(|(range, sent)| range.end == end && sent >= range.end - range.start)
    };
    eventually("the moment to kill", || {
        let exchanges = relay.exchanges();
        let is_now = match moment {
            Moment::Start(_) => !exchanges.is_empty(),
            Moment::Bytes(bytes, _) => come(&exchanges) > bytes,
            Moment::Last(_) => all_come(&exchanges),
        };
        (is_now || device.resets() > resets).then_some(())
    });
    let (Moment::Start(time) | Moment::Bytes(_, time) | Moment::Last(time)) = moment;
    pause(time);
    device.kill();
}

const KILLS: usize = 100;

/// Longer than a window, which is synced and read back at once.
const IMAGE_LEN: u64 = 24 << 20;

/// Bytes a second: slow enough that a kill a few milliseconds later hits the same megabyte.
const THROTTLED: u64 = 6 << 20;

/// One write of 256 KiB that is not full yet, two chunks, and what the relay has sent into the
/// sockets and the agent's buffers.
const ON_ITS_WAY: u64 = 512 << 10;
