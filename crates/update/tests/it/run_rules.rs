//! Each rule of the maintenance run is a row that names its source: a section of the reference on
//! update scripts, or a row of the design's section 5.

use core::time::Duration;

use rekindle_script::{Dialect, Limits};
use rekindle_state::{DatedIndex, State, UnixTime};
use rekindle_update::run::{
    Check, End, Facts, Input, Misuse, Output, ResetOutcome, Restart, Run, Summary,
};
use rekindle_update::url::UrlFacts;

use crate::run_world::{Answer, NOON, World, dated};

/// A rule, where it comes from, a script it decides on, what the device is asked to do, and what
/// the status page says.
struct Rule {
    source: &'static str,
    given: fn(&mut World),
    script: &'static str,
    does: &'static [&'static str],
    says: &'static [&'static str],
}

#[track_caller]
fn holds(rules: &[Rule]) {
    for rule in rules {
        let mut world = World::new();
        (rule.given)(&mut world);
        let summary = world.run(rule.script.as_bytes());
        assert_eq!(world.log, rule.does, "{}:\n{}", rule.source, rule.script);
        assert_eq!(
            told(&summary),
            rule.says,
            "{}:\n{}",
            rule.source,
            rule.script
        );
    }
}

fn told(summary: &Summary) -> Vec<String> {
    let lines = summary.lines.iter().map(ToString::to_string);
    lines.chain([summary.to_string()]).collect()
}

fn nothing(_: &mut World) {}

#[test]
fn check() {
    holds(&[
        Rule {
            source: "4.1: another serial: the rest runs, then CHECK is set, then the final command",
            given: nothing,
            script: "mod cmd UP1 check reset c2\nfirst\nsecond",
            does: &[
                "host `first`",
                "host `second`",
                "store CHECK=c2 known",
                "reset",
            ],
            says: &[
                "line 1, check: the serial is new, the rest runs; then restarts now",
                "line 2, command: done",
                "line 3, command: done",
                "ended by the restart in line 1; CHECK is set",
            ],
        },
        Rule {
            source: "4.1: the same serial: all further commands are skipped, earlier ones have run",
            given: |world| world.state.check = dated("c2", None),
            script: "first\nmod cmd UP1 check reset c2\nsecond",
            does: &["host `first`"],
            says: &[
                "line 1, command: done",
                "line 2, check: this serial has been run, the rest is skipped",
                "nothing new after line 2; CHECK is up to date",
            ],
        },
        Rule {
            source: "4.1: serials are opaque and compared whole",
            given: |world| world.state.check = dated("c2", None),
            script: "mod cmd UP1 check ser C2",
            does: &["store CHECK=C2 known"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "ran to its end; CHECK is set",
            ],
        },
        Rule {
            source: "4.1: a reset that takes effect in the script interrupts it",
            given: |world| world.reset_required = true,
            script: "mod cmd UP1 check ser c2\niresetn\nsecond",
            does: &["iresetn"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, iresetn: restarts now",
                "ended by the restart in line 2; CHECK stays as it was, since the run was cut short",
            ],
        },
        Rule {
            source: "5, several checks: each guards the lines after it, the last one reached sets CHECK",
            given: nothing,
            script: "mod cmd UP1 check ser c2\nfirst\nmod cmd UP1 check ser c3\nsecond",
            does: &["host `first`", "host `second`", "store CHECK=c3 known"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, command: done",
                "line 3, check: the serial is new, the rest runs",
                "line 4, command: done",
                "ran to its end; CHECK is set",
            ],
        },
        Rule {
            source: "5, several checks: one that is up to date guards the lines after it",
            given: |world| world.state.check = dated("c3", None),
            script: "mod cmd UP1 check ser c2\nfirst\nmod cmd UP1 check ser c3\nsecond",
            does: &["host `first`"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, command: done",
                "line 3, check: this serial has been run, the rest is skipped",
                "nothing new after line 3; CHECK is up to date",
            ],
        },
        Rule {
            source: "5, a UP0 command fails: the run goes on, CHECK and its final command do not happen",
            given: |world| world.answer(2, Answer::Fails),
            script: "mod cmd UP1 check reset c2\nmod cmd UP0 prot http://h/ ser p2\nsecond",
            does: &["install prot p2 from http://h/ip1200.bin", "host `second`"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, prot: failed: the server said 404",
                "line 3, command: done",
                "ran to its end, 1 of 3 lines failed; CHECK stays as it was, since a line has failed",
            ],
        },
        Rule {
            source: "5, a failed line before the check holds it back too",
            given: |world| world.answer(1, Answer::Fails),
            script: "mod cmd UP0 scfg http://h/\nmod cmd UP1 check reset c2",
            does: &["put configuration to http://h/"],
            says: &[
                "line 1, scfg: failed: the server said 404",
                "line 2, check: the serial is new, the rest runs",
                "ran to its end, 1 of 2 lines failed; CHECK stays as it was, since a line has failed",
            ],
        },
        Rule {
            source: "4, script: a malformed known command is a failed line, not a refused script",
            given: nothing,
            script: "mod cmd UP1 check ser c2\nmod cmd UP0 prot ireset 04-5656\nsecond",
            does: &["host `second`"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, malformed line: failed: expected a URL after \"prot\", found \"ireset\"",
                "line 3, command: done",
                "ran to its end, 1 of 3 lines failed; CHECK stays as it was, since a line has failed",
            ],
        },
        Rule {
            source: "a CHECK that could not be stored is not followed by its final command",
            given: |world| world.store_fails = true,
            script: "mod cmd UP1 check reset c2",
            does: &["store CHECK=c2 known"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "ran to its end; CHECK could not be stored",
            ],
        },
    ]);
}

#[test]
fn times() {
    const TIMES: &str = "mod cmd UP1 times /allow 23,0,1 /initial 6\nfirst";
    holds(&[
        Rule {
            source: "4.2: hour h covers hh:00 to hh:59 local",
            given: |world| {
                world.at_hour(23);
                world.clock.local.as_mut().unwrap().minute = 59;
            },
            script: TIMES,
            does: &["host `first`"],
            says: &[
                "line 1, times: the rest may run now",
                "line 2, command: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.2: another hour: the rest is cancelled, earlier lines have run",
            given: nothing,
            script: "zeroth\nmod cmd UP1 times /allow 23,0,1\nfirst",
            does: &["host `zeroth`"],
            says: &[
                "line 1, command: done",
                "line 2, times: the rest does not run between 12:00 and 12:59",
                "not now: held back by line 2",
            ],
        },
        Rule {
            source: "4.2: no time set: cancelled",
            given: World::without_clock,
            script: TIMES,
            does: &[],
            says: &[
                "line 1, times: the rest runs at certain hours only, and the device has no clock",
                "not now: held back by line 1",
            ],
        },
        Rule {
            source: "4.2: no time set matters to /allow only",
            given: World::without_clock,
            script: "mod cmd UP1 times /initial 6\nfirst",
            does: &["host `first`"],
            says: &[
                "line 1, times: the rest may run now",
                "line 2, command: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.2: /initial: nothing in the first minutes after each boot, whatever the hour",
            given: |world| {
                world.at_hour(23);
                world.clock.since_boot = Duration::from_secs(359);
            },
            script: TIMES,
            does: &[],
            says: &[
                "line 1, times: the rest waits until 6 minutes after boot",
                "too soon after boot: held back by line 1",
            ],
        },
        Rule {
            source: "4.2: /initial: over when the minutes are",
            given: |world| {
                world.at_hour(23);
                world.clock.since_boot = Duration::from_mins(6);
            },
            script: TIMES,
            does: &["host `first`"],
            says: &[
                "line 1, times: the rest may run now",
                "line 2, command: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.2: with /initial set, /allow does not hold a new device back",
            given: |world| world.state.known = false,
            script: TIMES,
            does: &["host `first`", "store known"],
            says: &[
                "line 1, times: the rest may run now",
                "line 2, command: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "5, new device, /initial, no clock: /initial alone decides",
            given: |world| {
                world.state.known = false;
                world.without_clock();
            },
            script: TIMES,
            does: &["host `first`", "store known"],
            says: &[
                "line 1, times: the rest may run now",
                "line 2, command: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.2: a new device waits for its first minutes, and stays new meanwhile",
            given: |world| {
                world.state.known = false;
                world.clock.since_boot = Duration::from_mins(1);
            },
            script: TIMES,
            does: &[],
            says: &[
                "line 1, times: the rest waits until 6 minutes after boot",
                "too soon after boot: held back by line 1",
            ],
        },
        Rule {
            source: "4.2: without /initial a new device waits for its hour as any other",
            given: |world| world.state.known = false,
            script: "mod cmd UP1 times /allow 23\nfirst",
            does: &["store known"],
            says: &[
                "line 1, times: the rest does not run between 12:00 and 12:59",
                "not now: held back by line 1",
            ],
        },
        Rule {
            source: "4.1 and 4.2: a run that is held back does not set CHECK",
            given: nothing,
            script: "mod cmd UP1 check ser c2\nmod cmd UP1 times /allow 23\nfirst",
            does: &[],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, times: the rest does not run between 12:00 and 12:59",
                "not now: held back by line 2; CHECK stays as it was, since the run was cut short",
            ],
        },
    ]);
}

#[test]
fn load() {
    holds(&[
        Rule {
            source: "4.3: the variable is the serial: nothing",
            given: nothing,
            script: "mod cmd UP0 prot http://h/ reset p1",
            does: &[],
            says: &[
                "line 1, prot: this serial is loaded already",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.3: another serial: load, then the final command, which ends the run",
            given: nothing,
            script: "mod cmd UP0 prot http://h/a.bin reset p2\nsecond",
            does: &["install prot p2 from http://h/a.bin", "reset"],
            says: &[
                "line 1, prot: installed; then restarts now",
                "ended by the restart in line 1",
            ],
        },
        Rule {
            source: "5, prot to an older build: the serial is compared for equality only",
            given: nothing,
            script: "mod cmd UP0 prot http://h/a.bin ser p0",
            does: &["install prot p0 from http://h/a.bin"],
            says: &["line 1, prot: installed", "ran to its end"],
        },
        Rule {
            source: "4.3: the running build counts only while the variable is unset",
            given: nothing,
            script: "mod cmd UP0 prot http://h/a.bin ser 4.5",
            does: &["install prot 4.5 from http://h/a.bin"],
            says: &["line 1, prot: installed", "ran to its end"],
        },
        Rule {
            source: "5, unset and the running build equals the serial: nothing is loaded, it stays unset",
            given: nothing,
            script: "mod cmd UP0 boot http://h/ reset b1",
            does: &[],
            says: &[
                "line 1, boot: this build is there already",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.3: unset and another build: load",
            given: nothing,
            script: "mod cmd UP0 boot http://h/ ser b2",
            does: &["install boot b2 from http://h/boot1200.bin"],
            says: &["line 1, boot: installed", "ran to its end"],
        },
        Rule {
            source: "4.3: unset and a build that nobody knows: load",
            given: |world| world.slots.get_mut("boot").unwrap().build = None,
            script: "mod cmd UP0 boot http://h/ ser b1",
            does: &["install boot b1 from http://h/boot1200.bin"],
            says: &["line 1, boot: installed", "ran to its end"],
        },
        Rule {
            source: "5, a component that this device lacks: skipped, does not hold CHECK back",
            given: nothing,
            script: "mod cmd UP1 check ser c2\nmod cmd UP0 bmc http://h/ reset m1",
            does: &["store CHECK=c2 known"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, bmc: skipped, the device has no such component",
                "ran to its end; CHECK is set",
            ],
        },
        Rule {
            source: "5, standard names: configurable per component",
            given: |world| world.slots.get_mut("prot").unwrap().file_name = Some("x-1.img"),
            script: "mod cmd UP0 prot http://h/fw/ ser p2",
            does: &["install prot p2 from http://h/fw/x-1.img"],
            says: &["line 1, prot: installed", "ran to its end"],
        },
        Rule {
            source: "3: meta characters are not valid in a firmware URL",
            given: nothing,
            script: "mod cmd UP0 prot http://h/#m.bin ser p2",
            does: &["install prot p2 from http://h/%23m.bin"],
            says: &["line 1, prot: installed", "ran to its end"],
        },
        Rule {
            source: "4.3: a final command is run only when something was loaded",
            given: |world| world.answer(1, Answer::RunsAlready),
            script: "mod cmd UP0 prot http://h/ reset p2",
            does: &["install prot p2 from http://h/ip1200.bin"],
            says: &[
                "line 1, prot: this image runs already, its serial is recorded now",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.3: a failed load has no final command, and the same run may load another",
            given: |world| world.answer(1, Answer::Fails),
            script: "mod cmd UP0 prot http://h/ reset p2\nmod cmd UP0 prot http://h/ ser p3",
            does: &[
                "install prot p2 from http://h/ip1200.bin",
                "install prot p3 from http://h/ip1200.bin",
            ],
            says: &[
                "line 1, prot: failed: the server said 404",
                "line 2, prot: installed",
                "ran to its end, 1 of 2 lines failed",
            ],
        },
        Rule {
            source: "4.3: what an earlier line has loaded is the variable for a later one",
            given: nothing,
            script: "mod cmd UP0 prot http://h/ ser p2\nmod cmd UP0 prot http://h/ reset p2",
            does: &["install prot p2 from http://h/ip1200.bin"],
            says: &[
                "line 1, prot: installed",
                "line 2, prot: this serial is loaded already",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.3, vendor idiom: load, load, iresetn ends the run before what follows",
            given: nothing,
            script: "mod cmd UP0 prot http://h/ ser p2\nmod cmd UP0 boot http://h/ ser b2\n\
                     # up-to-date firmware from here\niresetn\nconfig write",
            does: &[
                "install prot p2 from http://h/ip1200.bin",
                "install boot b2 from http://h/boot1200.bin",
                "iresetn",
            ],
            says: &[
                "line 1, prot: installed",
                "line 2, boot: installed",
                "line 4, iresetn: restarts now",
                "ended by the restart in line 4",
            ],
        },
    ]);
}

#[test]
fn save_config() {
    fn uploaded(world: &mut World, hours_ago: u64) {
        let date = UnixTime::new(NOON.as_secs() - hours_ago * 3600);
        world.state.scfg = dated("WEEKLY", Some(date));
    }
    const WEEKLY: &str = "mod cmd UP0 scfg http://h/#h-#b5.txt reset WEEKLY /force 168";
    const UPLOADED: &[&str] = &[
        "put configuration to http://h/IP1200-03-0d-f0-0.txt",
        "store SCFG=WEEKLY index=0",
        "reset",
    ];
    const RESTARTS: &[&str] = &[
        "line 1, scfg: uploaded; then restarts now",
        "ended by the restart in line 1",
    ];
    const UNCHANGED: &[&str] = &[
        "line 1, scfg: this serial has been done already",
        "ran to its end",
    ];
    holds(&[
        Rule {
            source: "4.4: no serial: every time, and no variable changes",
            given: |world| uploaded(world, 0),
            script: "mod cmd UP0 scfg http://h/u?hwid=#h&sn=#m",
            does: &["put configuration to http://h/u?hwid=IP1200-03-0d-f0&sn=00-90-33-03-0d-f0"],
            says: &["line 1, scfg: uploaded", "ran to its end"],
        },
        Rule {
            source: "4.4: another serial: upload, then SCFG, then the final command",
            given: nothing,
            script: WEEKLY,
            does: UPLOADED,
            says: RESTARTS,
        },
        Rule {
            source: "4.4: the same serial: skip",
            given: |world| uploaded(world, 167),
            script: WEEKLY,
            does: &[],
            says: UNCHANGED,
        },
        Rule {
            source: "4.4: the same serial, /force hours have passed: upload",
            given: |world| uploaded(world, 168),
            script: WEEKLY,
            does: UPLOADED,
            says: RESTARTS,
        },
        Rule {
            source: "5, /force: without a clock it does not force",
            given: |world| {
                uploaded(world, 1000);
                world.without_clock();
            },
            script: WEEKLY,
            does: &[],
            says: UNCHANGED,
        },
        Rule {
            source: "5, /force: an upload without a date is long ago once there is a clock",
            given: |world| world.state.scfg = dated("WEEKLY", None),
            script: WEEKLY,
            does: UPLOADED,
            says: RESTARTS,
        },
        Rule {
            source: "5, /force: a date in the future forces nothing",
            given: |world| {
                world.state.scfg = dated("WEEKLY", Some(UnixTime::new(u64::MAX)));
            },
            script: WEEKLY,
            does: &[],
            says: UNCHANGED,
        },
        Rule {
            source: "3: the rolling index is one for the script and goes round",
            given: |world| {
                world.state.backup_index = Some(DatedIndex {
                    index: 3,
                    date: None,
                });
            },
            script: "mod cmd UP0 scfg http://h/#b5\nmod cmd UP0 scfg http://h/#b3\nmod cmd UP0 scfg http://h/",
            does: &[
                "put configuration to http://h/4",
                "store index=4",
                "put configuration to http://h/1",
                "store index=4",
                "put configuration to http://h/",
            ],
            says: &[
                "line 1, scfg: uploaded",
                "line 2, scfg: uploaded",
                "line 3, scfg: uploaded",
                "ran to its end",
            ],
        },
        Rule {
            source: "5, a UP0 command fails: SCFG and the rolling index stay",
            given: |world| world.answer(1, Answer::Fails),
            script: WEEKLY,
            does: &["put configuration to http://h/IP1200-03-0d-f0-0.txt"],
            says: &[
                "line 1, scfg: failed: the server said 404",
                "ran to its end, 1 of 1 lines failed",
            ],
        },
        Rule {
            source: "an upload that could not be recorded has failed, and has no final command",
            given: |world| world.store_fails = true,
            script: WEEKLY,
            does: &[
                "put configuration to http://h/IP1200-03-0d-f0-0.txt",
                "store SCFG=WEEKLY index=0",
            ],
            says: &[
                "line 1, scfg: failed: done, but it could not be recorded: no space left",
                "ran to its end, 1 of 1 lines failed",
            ],
        },
        Rule {
            source: "5, /always: the output of the percent-decoded command, on each run, SCFG untouched",
            given: |world| world.state.scfg = dated("nop", Some(NOON)),
            script: "mod cmd UP0 scfg http://h/q?sn=#m&id=admin ser nop /always mod%20cmd%20CMD0%20xml-info",
            does: &[
                "put output of `mod cmd CMD0 xml-info` to http://h/q?sn=00-90-33-03-0d-f0&id=admin",
            ],
            says: &["line 1, scfg: uploaded", "ran to its end"],
        },
        Rule {
            source: "a command that would become two lines is not run",
            given: nothing,
            script: "mod cmd UP0 scfg http://h/ ser nop /always vars%20read%20A%0Areset",
            does: &[],
            says: &[
                "line 1, scfg: failed: the command after /always holds a line break",
                "ran to its end, 1 of 1 lines failed",
            ],
        },
    ]);
}

#[test]
fn load_config_is_done_by_the_host_once_a_serial() {
    holds(&[
        Rule {
            source: "4.5: another serial: the host does it, CFG is set, then the final command",
            given: |world| world.state.cfg = dated("f1", None),
            script: "mod cmd UP0 cfg http://h/c.txt iresetn f2",
            does: &[
                "host `mod cmd UP0 cfg http://h/c.txt iresetn f2`",
                "store CFG=f2",
                "iresetn",
            ],
            says: &[
                "line 1, cfg: done; then no restart required",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.5: the same serial: nothing",
            given: |world| world.state.cfg = dated("f2", None),
            script: "mod cmd UP0 cfg http://h/c.txt iresetn f2",
            does: &[],
            says: &[
                "line 1, cfg: this serial has been done already",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.5: no serial: at each poll",
            given: nothing,
            script: "mod cmd UP0 cfg http://h/c.txt iresetn",
            does: &["host `mod cmd UP0 cfg http://h/c.txt iresetn`", "iresetn"],
            says: &[
                "line 1, cfg: done; then no restart required",
                "ran to its end",
            ],
        },
    ]);
}

#[test]
fn resets() {
    holds(&[
        Rule {
            source: "5, iresetn and resetn: nothing unless a reset is required",
            given: nothing,
            script: "iresetn\nresetn\nlast",
            does: &["iresetn", "resetn", "host `last`"],
            says: &[
                "line 1, iresetn: no restart required",
                "line 2, resetn: no restart required",
                "line 3, command: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "5, ireset while the device is busy: pending, ends the run without CHECK",
            given: |world| world.busy = true,
            script: "mod cmd UP1 check ser c2\nireset\nlast",
            does: &["ireset"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, ireset: restarts as soon as the device is idle",
                "ended by the restart in line 2; CHECK stays as it was, since the run was cut short",
            ],
        },
        Rule {
            source: "4.7: reset does not wait",
            given: |world| world.busy = true,
            script: "reset",
            does: &["reset"],
            says: &[
                "line 1, reset: restarts now",
                "ended by the restart in line 1",
            ],
        },
        Rule {
            source: "5, reboot is not configured: a clear status, the run goes on without CHECK",
            given: |world| world.answer(2, Answer::Fails),
            script: "mod cmd UP1 check ser c2\nreboot\nlast",
            does: &["reboot", "host `last`"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, reboot: the restart failed: the server said 404",
                "line 3, command: done",
                "ran to its end, 1 of 3 lines failed; CHECK stays as it was, since a line has failed",
            ],
        },
        Rule {
            source: "5, no-op spellings: unknown final commands do nothing",
            given: nothing,
            script: "mod cmd UP0 prot http://h/ /ser p2\nmod cmd UP1 check no-op c2",
            does: &[
                "install prot p2 from http://h/ip1200.bin",
                "store CHECK=c2 known",
            ],
            says: &[
                "line 1, prot: installed",
                "line 2, check: the serial is new, the rest runs",
                "ran to its end; CHECK is set",
            ],
        },
        Rule {
            source: "5, a line refused by policy: failed, and later unconditional resets do nothing",
            given: |world| {
                world.answer(1, Answer::Refused);
                world.reset_required = true;
            },
            script: "config write\nreset\nireset\nreboot\nmod cmd UP0 prot http://h/ reset p2\niresetn",
            does: &[
                "host `config write`",
                "install prot p2 from http://h/ip1200.bin",
                "iresetn",
            ],
            says: &[
                "line 1, config: failed: refused: the script is not signed",
                "line 2, reset: no restart, since a line of this script was refused",
                "line 3, ireset: no restart, since a line of this script was refused",
                "line 4, reboot: no restart, since a line of this script was refused",
                "line 5, prot: installed; then no restart, since a line of this script was refused",
                "line 6, iresetn: restarts now",
                "ended by the restart in line 6, 1 of 6 lines failed",
            ],
        },
        Rule {
            source: "a new device that restarts is no longer new",
            given: |world| world.state.known = false,
            script: "reset",
            does: &["reset", "store known"],
            says: &[
                "line 1, reset: restarts now",
                "ended by the restart in line 1",
            ],
        },
    ]);
}

#[test]
fn other_lines_go_to_the_host() {
    holds(&[
        Rule {
            source: "2 and 4.6: any command is allowed; lines go over as they are",
            given: nothing,
            script: "config change NTP0  /addr 192.0.2.1 \r\n\r\n# note\r\nvars del X509/REQUEST\n\
                     mod cmd WLANMGR0 activate-pwr",
            does: &[
                "host `config change NTP0  /addr 192.0.2.1`",
                "host `vars del X509/REQUEST`",
                "host `mod cmd WLANMGR0 activate-pwr`",
            ],
            says: &[
                "line 1, config: done",
                "line 4, vars: done",
                "line 5, mod: done",
                "ran to its end",
            ],
        },
        Rule {
            source: "4.7: unknown commands are ignored, and do not hold CHECK back",
            given: |world| world.answer(2, Answer::NotKnown),
            script: "mod cmd UP1 check ser c2\nser",
            does: &["host `ser`", "store CHECK=c2 known"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, command: not known on this device, ignored",
                "ran to its end; CHECK is set",
            ],
        },
        Rule {
            source: "5, a host command fails: the run goes on, CHECK stays unset",
            given: |world| world.answer(2, Answer::Fails),
            script: "mod cmd UP1 check ser c2\nconfig write\nlast",
            does: &["host `config write`", "host `last`"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "line 2, config: failed: the server said 404",
                "line 3, command: done",
                "ran to its end, 1 of 3 lines failed; CHECK stays as it was, since a line has failed",
            ],
        },
        Rule {
            source: "5, letter case of verbs: any",
            given: nothing,
            script: "MOD CMD UP1 CHECK SER c2",
            does: &["store CHECK=c2 known"],
            says: &[
                "line 1, check: the serial is new, the rest runs",
                "ran to its end; CHECK is set",
            ],
        },
    ]);
}

#[test]
fn poll_and_provision_are_noted_for_after_the_run() {
    let mut world = World::new();
    let summary = world.run(b"mod cmd UP1 provision 5\nmod cmd UP1 poll\nmod cmd UP1 provision 0");
    assert_eq!(world.log, [""; 0]);
    assert!(summary.poll);
    assert_eq!(summary.provision, Some(0));
    assert_eq!(told(&summary)[1], "line 2, poll: noted");
}

#[test]
fn an_empty_script_is_a_run_and_makes_a_device_known() {
    let mut world = World::new();
    world.state.known = false;
    let summary = world.run(b"");
    assert_eq!(world.log, ["store known"]);
    assert_eq!(summary.end, Some(End::Complete));
    assert_eq!(summary.check, None);
}

#[test]
fn a_serial_too_long_to_remember_fails_before_anything_is_loaded() {
    let long = "x".repeat(257);
    for line in [
        format!("mod cmd UP1 check reset {long}"),
        format!("mod cmd UP0 prot http://h/ reset {long}"),
        format!("mod cmd UP0 scfg http://h/ reset {long}"),
        format!("mod cmd UP0 cfg http://h/ reset {long}"),
    ] {
        let mut world = World::new();
        let summary = world.run(line.as_bytes());
        assert_eq!(world.log, [""; 0], "{line}");
        assert!(
            summary.lines[0]
                .to_string()
                .ends_with(": failed: its serial has 257 bytes, at most 256 can be remembered"),
            "{}",
            summary.lines[0]
        );
    }
}

#[test]
fn the_dates_are_those_of_the_clock() {
    let mut world = World::new();
    world.run(b"mod cmd UP0 scfg http://h/#b5 ser s1\nmod cmd UP1 check ser c2");
    let expected = State {
        check: dated("c2", Some(NOON)),
        scfg: dated("s1", Some(NOON)),
        backup_index: Some(DatedIndex {
            index: 0,
            date: Some(NOON),
        }),
        known: true,
        ..State::default()
    };
    assert_eq!(world.state, expected);
}

#[test]
fn an_answer_to_another_question_changes_nothing() {
    let world = World::new();
    let source = b"mod cmd UP1 check reset c2";
    let script = rekindle_script::parse(source, &Limits::default(), &Dialect::field()).unwrap();
    let facts = Facts {
        url: UrlFacts::default(),
        components: &[],
    };
    let mut run = Run::new(source, &script, &facts, &world.state, world.clock);
    let stored = || Input::Stored(Ok(()));
    assert_eq!(
        run.handle_input(world.clock, stored()),
        Err(Misuse::NothingAsked)
    );
    assert!(matches!(run.poll_output(), Output::Store(_)));
    let other = Input::Uploaded(Ok(()));
    assert_eq!(
        run.handle_input(world.clock, other),
        Err(Misuse::OtherAnswer)
    );
    assert_eq!(run.handle_input(world.clock, stored()), Ok(()));
    assert!(matches!(run.poll_output(), Output::Reset { line: 1, .. }));
    let impossible = Input::Reset(Ok(Restart::NotRequired));
    assert_eq!(
        run.handle_input(world.clock, impossible),
        Err(Misuse::OtherAnswer)
    );
    assert_eq!(run.poll_output(), Output::Wait);
    let started = Input::Reset(Ok(Restart::Started));
    assert_eq!(run.handle_input(world.clock, started), Ok(()));
    assert_eq!(run.poll_output(), Output::Done);
    assert_eq!(
        run.handle_input(world.clock, stored()),
        Err(Misuse::NothingAsked)
    );
    let summary = run.into_summary();
    assert_eq!(summary.check, Some(Check::Set));
    assert_eq!(summary.lines[0].final_command, Some(ResetOutcome::Started));
}
