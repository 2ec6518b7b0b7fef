//! The story of the demo, and whether it went as it must.

use core::fmt::Write as _;
use core::future::Future;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::board::{Gauge, LOG};
use super::factory::ATTEMPTS;
use super::firmware::Firmware;
use super::screen::Teller;
use super::site::Site;
use super::watch::{Activity, Glimpse, Watch};

/// A device whose power is on, seen from outside.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) watch: Watch,
    pub(super) gauge: watch::Receiver<Gauge>,
    pub(super) crash: mpsc::Sender<()>,
    pub(super) folder: PathBuf,
    pub(super) url: String,
}

impl Device {
    fn name(&self) -> &str {
        self.watch.name()
    }

    fn gauge(&self) -> Gauge {
        self.gauge.borrow().clone()
    }

    fn polls(&self) -> u64 {
        self.watch.glimpse().map_or(0, |glimpse| glimpse.polls)
    }

    /// Waits until the device is as it should be.
    async fn until(
        &mut self,
        deadline: Instant,
        is_there: impl Fn(&Gauge, &Glimpse) -> bool,
    ) -> bool {
        loop {
            let gauge = self.gauge();
            if self
                .watch
                .glimpse()
                .is_some_and(|glimpse| is_there(&gauge, &glimpse))
            {
                return true;
            }
            let change = async {
                tokio::select! {
                    () = self.watch.changed() => {}
                    changed = self.gauge.changed() => {
                        if changed.is_err() {
                            // The board is off for good; whoever switched it off says why.
                            core::future::pending::<()>().await;
                        }
                    }
                }
            };
            if timeout_at(deadline, change).await.is_err() {
                return false;
            }
        }
    }

    /// What there is instead of what was expected.
    fn state(&self) -> String {
        let gauge = self.gauge();
        let mut text = match (self.watch.glimpse(), &gauge.running) {
            (Some(glimpse), _) => {
                format!(
                    "it {glimpse}, {} polls ({})",
                    glimpse.polls, glimpse.poll_result
                )
            }
            (None, Some((slot, build))) => {
                format!("{build} was started from slot {slot} and does not answer")
            }
            (None, None) => "it was not started".to_owned(),
        };
        let _infallible = write!(text, ", {} boots, {} starts", gauge.boots, gauge.starts);
        if let Some(line) = self.watch.glimpse().and_then(|glimpse| glimpse.load) {
            let _infallible = write!(text, "; prot: {}, {}", line.outcome, line.detail);
        }
        text
    }
}

/// The whole story, with the list of what must happen.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) site: &'a Site,
    pub(super) teller: &'a Teller,
    pub(super) devices: &'a mut [Device],
    pub(super) deadline: Instant,
    pub(super) failures: usize,
}

/// The names under which the site serves the scripts of its devices and of its canary.
pub(super) const SCRIPT: &str = "update-ip1200.htm";
pub(super) const CANARY_SCRIPT: &str = "canary/update-ip1200.htm";

impl Story<'_> {
    /// Tells the story to its end, or to the first act that failed. The images are the second and
    /// the broken firmware's.
    pub(super) async fn tell(
        &mut self,
        [old, new, broken]: &[Firmware; 3],
        [new_image, broken_image]: [&Path; 2],
    ) -> anyhow::Result<()> {
        self.begins(old).await;
        if self.failures > 0 {
            return Ok(());
        }

        self.teller.tell(format!(
            "\nA new firmware: the site gets {} and its script.",
            new.build
        ));
        self.site.publish_image(new_image, IMAGE)?;
        let text = script(new, &self.site.url("firmware/"));
        self.site.publish_script(SCRIPT, &text)?;
        self.site.publish_script(CANARY_SCRIPT, &text)?;
        self.tell_script(&text);
        self.updates(new).await;
        if self.failures > 0 {
            return Ok(());
        }

        self.teller.tell("\nThe next polls: nothing is left to do.");
        self.stays_put(new).await;
        self.teller
            .tell("\nAn agent crashes: it is started again, which is no boot.");
        self.survives_a_crash(new).await;
        if self.failures > 0 {
            return Ok(());
        }

        let canary = self.canary().name().to_owned();
        self.teller.tell(format!(
            "\nA broken firmware, {}, for {canary} alone: it hangs as soon as it is started.",
            broken.build
        ));
        let name = format!("ip1200-{}.bin", broken.build);
        self.site.publish_image(broken_image, &name)?;
        let text = script(broken, &self.site.url(&format!("firmware/{name}")));
        self.site.publish_script(CANARY_SCRIPT, &text)?;
        self.tell_script(&text);
        self.falls_back(new, broken).await;
        Ok(())
    }

    async fn begins(&mut self, old: &Firmware) {
        for index in 0..self.devices.len() {
            let as_must = self.until(index, |gauge, now| {
                gauge.boots == 1 && runs(now, old, "A") && has_polled(now, 1)
            });
            let as_must = as_must.await;
            self.expect(
                index,
                as_must,
                &format!("runs {} from slot A and has polled", old.build),
            );
        }
        let gets = self.site.traffic().gets("/firmware/");
        self.expect_site(
            gets == 0,
            "no image was asked for",
            &format!("{gets} requests for images"),
        );
    }

    async fn updates(&mut self, new: &Firmware) {
        for index in 0..self.devices.len() {
            let as_must = self.until(index, |gauge, now| gauge.boots == 2 && runs(now, new, "B"));
            let as_must = as_must.await;
            let text = format!("runs {} from slot B, confirmed, after one boot", new.build);
            self.expect(index, as_must, &text);
        }
    }

    async fn stays_put(&mut self, new: &Firmware) {
        // The first poll after the boot may still be under way; it ends with the second.
        let due: Vec<u64> = self
            .devices
            .iter()
            .map(|device| device.polls() + 1)
            .collect();
        for (index, due) in due.iter().enumerate() {
            self.until(index, |_, now| has_polled(now, *due)).await;
        }
        let gets = self.site.traffic().gets("/firmware/");
        for (index, due) in due.iter().enumerate() {
            let as_must = self.until(index, |_, now| has_polled(now, due + 2)).await;
            let now = self
                .devices
                .get(index)
                .and_then(|device| device.watch.glimpse());
            let is_there = now.is_some_and(|now| runs(&now, new, "B"));
            let boots = self.devices.get(index).map(|device| device.gauge().boots);
            self.expect(
                index,
                as_must && is_there && boots == Some(2),
                &format!("polled twice more and stays on {} in slot B", new.build),
            );
        }
        let more = self.site.traffic().gets("/firmware/") - gets;
        let polls = self.site.traffic().gets("/scripts/");
        self.expect_site(
            more == 0 && gets > 0,
            &format!("answered {polls} polls so far, the last ones without an image"),
            &format!("{more} requests for images since, {gets} before"),
        );
    }

    async fn survives_a_crash(&mut self, new: &Firmware) {
        let Some(device) = self.devices.first() else {
            return;
        };
        let before = device.gauge();
        // A full queue means that the board is about to kill the agent anyway.
        let _ = device.crash.try_send(());
        let as_must = self.until(0, |gauge, now| {
            gauge.starts == before.starts + 1 && runs(now, new, "B") && has_polled(now, 1)
        });
        let as_must = as_must.await;
        let boots = self.devices.first().map(|device| device.gauge().boots);
        self.expect(
            0,
            as_must && boots == Some(before.boots),
            &format!(
                "was started again without a boot and still runs {} from slot B",
                new.build
            ),
        );
    }

    async fn falls_back(&mut self, good: &Firmware, broken: &Firmware) {
        let canary = self.devices.len() - 1;
        let before = self.canary().gauge();
        let as_must = self.until(canary, |gauge, now| {
            gauge.bites >= ATTEMPTS && now.rolled_back.is_some() && runs(now, good, "B")
        });
        let as_must = as_must.await;
        let gauge = self.canary().gauge();
        let boots = gauge.boots - before.boots;
        self.expect(
            canary,
            as_must && gauge.bites == ATTEMPTS && boots == ATTEMPTS + 1,
            &format!(
                "tried {} {ATTEMPTS} times and fell back to {} in slot B, confirmed",
                broken.build, good.build
            ),
        );
        let evidence = self.canary().watch.glimpse();
        let why = evidence
            .as_ref()
            .and_then(|glimpse| glimpse.rolled_back.clone());
        self.expect(
            canary,
            why.as_ref().is_some_and(|why| why.contains(broken.build))
                && evidence
                    .is_some_and(|now| now.rejected.iter().any(|build| build == broken.build)),
            &format!("says why: {}", why.as_deref().unwrap_or("nothing")),
        );
        self.teller
            .tell("\nThe next polls: the same firmware is not tried again.");
        let due = self.canary().polls() + 2;
        let as_must = self.until(canary, |_, now| has_polled(now, due)).await;
        let now = self.canary().watch.glimpse();
        let is_there = now.as_ref().is_some_and(|now| runs(now, good, "B"));
        let line = now.and_then(|now| now.load);
        let is_refused = line.as_ref().is_some_and(|line| line.outcome == "failed");
        let detail = line.map_or_else(|| "no such line".to_owned(), |line| line.detail);
        self.expect(
            canary,
            as_must && is_there && is_refused && self.canary().gauge().boots == gauge.boots,
            &format!("polled twice more and stays on {}: {detail}", good.build),
        );
        for index in 0..canary {
            let device = &self.devices[index];
            let as_must = device.gauge().boots == 2
                && device
                    .watch
                    .glimpse()
                    .is_some_and(|now| runs(&now, good, "B"));
            self.expect(
                index,
                as_must,
                &format!("was not touched: runs {} from slot B", good.build),
            );
        }
    }

    /// The last device gets new firmware before the others.
    fn canary(&self) -> &Device {
        self.devices.last().expect("a demo has at least one device")
    }

    fn until<'a>(
        &'a mut self,
        index: usize,
        is_there: impl Fn(&Gauge, &Glimpse) -> bool + 'a,
    ) -> impl Future<Output = bool> + 'a {
        let deadline = self.deadline;
        self.devices[index].until(deadline, is_there)
    }

    fn expect(&mut self, index: usize, as_must: bool, text: &str) {
        let device = &self.devices[index];
        let name = device.name();
        if as_must {
            self.teller.tell(format!("ok    {name} {text}"));
            return;
        }
        self.failures += 1;
        self.teller.tell(format!(
            "FAILED {name} {text}\n       but {}",
            device.state()
        ));
        // What fails after the first is mostly its consequence.
        if self.failures == 1 {
            for line in tail(&device.folder.join(LOG)) {
                self.teller.tell(format!("       | {line}"));
            }
        }
    }

    fn expect_site(&mut self, as_must: bool, text: &str, instead: &str) {
        if as_must {
            self.teller.tell(format!("ok    the server: {text}"));
        } else {
            self.failures += 1;
            self.teller
                .tell(format!("FAILED the server: {text}\n       but {instead}"));
        }
    }

    fn tell_script(&self, script: &str) {
        for line in script.lines() {
            self.teller.tell(format!("    {line}"));
        }
    }
}

/// The maintenance script that brings devices to a firmware.
pub(super) fn script(firmware: &Firmware, url: &str) -> String {
    let build = firmware.build;
    format!(
        "# firmware {build} for every device that reads this\n\
         mod cmd UP1 check ser site-{build}\n\
         mod cmd UP0 prot {url} ser {build}\n\
         iresetn\n"
    )
}

fn runs(now: &Glimpse, firmware: &Firmware, slot: &str) -> bool {
    now.build == firmware.build
        && now.slot == slot
        && now.confirmed
        && now.activity == Activity::Resting
}

fn has_polled(now: &Glimpse, polls: u64) -> bool {
    now.polls >= polls && now.activity == Activity::Resting
}

/// The last lines of a log.
fn tail(log: &Path) -> Vec<String> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .take(TAIL)
        .map(ToOwned::to_owned)
        .collect();
    lines.reverse();
    lines
}

/// The standard name that devices of the demo's type ask for.
pub(super) const IMAGE: &str = "ip1200.bin";

const TAIL: usize = 12;
