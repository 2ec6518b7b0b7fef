//! A device for maintenance runs: it does at once what a run asks for, and writes it down.

use alloc::collections::BTreeMap;
use core::time::Duration;

use rekindle_script::{Dialect, Limits};
use rekindle_state::{Dated, State, UnixTime};
use rekindle_update::run::{
    Changes, Clock, Component, Content, Facts, Failure, Hosted, Input, Loaded, Output, Restart,
    Run, Summary,
};
use rekindle_update::url::{LocalTime, UrlFacts};

/// How the device answers a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Fails,
    Refused,
    NotKnown,
    RunsAlready,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) serial: Option<Vec<u8>>,
    pub(crate) build: Option<String>,
    pub(crate) file_name: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) slots: BTreeMap<&'static str, Slot>,
    pub(crate) clock: Clock,
    /// Lines that do not simply succeed.
    pub(crate) answers: BTreeMap<u32, Answer>,
    /// The store is full.
    pub(crate) store_fails: bool,
    pub(crate) busy: bool,
    pub(crate) reset_required: bool,
    /// What was asked for, since it was last taken.
    pub(crate) log: Vec<String>,
}

impl World {
    /// A device that is not new: noon, an hour after boot, a firmware that a script has loaded
    /// and a boot code that came with the device.
    pub(crate) fn new() -> Self {
        let slot = |serial: Option<&str>, build: &str| Slot {
            serial: serial.map(|serial| serial.as_bytes().to_vec()),
            build: Some(build.to_owned()),
            file_name: None,
        };
        Self {
            state: State {
                known: true,
                ..State::default()
            },
            slots: BTreeMap::from([
                ("prot", slot(Some("p1"), "4.5")),
                ("boot", slot(None, "b1")),
            ]),
            clock: Clock {
                since_boot: Duration::from_hours(1),
                unix: Some(NOON),
                local: Some(LocalTime {
                    year: 2005,
                    month: 10,
                    day: 10,
                    hour: 12,
                    minute: 0,
                    second: 0,
                }),
            },
            answers: BTreeMap::new(),
            store_fails: false,
            busy: false,
            reset_required: false,
            log: Vec::new(),
        }
    }

    pub(crate) fn without_clock(&mut self) {
        self.clock.unix = None;
        self.clock.local = None;
    }

    pub(crate) fn at_hour(&mut self, hour: u8) {
        let local = self.clock.local.as_mut().expect("this device has a clock");
        local.hour = hour;
    }

    pub(crate) fn answer(&mut self, line: u32, answer: Answer) {
        self.answers.insert(line, answer);
    }

    /// Runs a script to the end of the run.
    pub(crate) fn run(&mut self, source: &[u8]) -> Summary {
        let script = rekindle_script::parse(source, &Limits::default(), &Dialect::field())
            .expect("the scripts of the tests keep the limits");
        let world = self.clone();
        let components: Vec<_> = world
            .slots
            .iter()
            .map(|(name, slot)| Component {
                name,
                serial: slot.serial.as_deref(),
                build: slot.build.as_deref(),
                file_name: slot.file_name,
            })
            .collect();
        let facts = Facts {
            url: UrlFacts {
                device_type: "IP1200",
                hardware_id: "IP1200-03-0d-f0",
                mac: "00-90-33-03-0d-f0",
                ..UrlFacts::default()
            },
            components: &components,
        };
        let mut run = Run::new(source, &script, &facts, &self.state, self.clock);
        loop {
            let output = run.poll_output();
            let input = match output {
                Output::Done => return run.into_summary(),
                output => self.act(output),
            };
            assert_eq!(run.poll_output(), Output::Wait);
            run.handle_input(self.clock, input)
                .expect("the answer fits what was asked");
        }
    }

    fn act(&mut self, output: Output<'_>) -> Input {
        match output {
            Output::Install {
                line,
                component,
                url,
                serial,
            } => {
                let text = String::from_utf8_lossy(serial);
                self.log
                    .push(format!("install {component} {text} from {}", lossy(&url)));
                let runs = self.answers.get(&line) == Some(&Answer::RunsAlready);
                Input::Installed(self.ok(line).map(|()| {
                    let slot = self
                        .slots
                        .get_mut(component)
                        .expect("only what the device has");
                    slot.serial = Some(serial.to_vec());
                    if runs {
                        return Loaded::Running;
                    }
                    self.reset_required = true;
                    Loaded::New
                }))
            }
            Output::Upload { line, url, content } => {
                let content = match content {
                    Content::Configuration => "configuration".to_owned(),
                    Content::OutputOf(command) => format!("output of `{}`", lossy(&command)),
                    other => unreachable!("this world knows no {other:?}"),
                };
                self.log.push(format!("put {content} to {}", lossy(&url)));
                Input::Uploaded(self.ok(line))
            }
            Output::Host { line, text } => {
                self.log.push(format!("host `{}`", lossy(text)));
                let known = self.answers.get(&line) != Some(&Answer::NotKnown);
                let hosted = if known {
                    Hosted::Done
                } else {
                    Hosted::NotKnown
                };
                Input::Host(self.ok(line).map(|()| hosted))
            }
            Output::Reset { line, reset } => {
                let restart = if reset.only_if_required() && !self.reset_required {
                    Restart::NotRequired
                } else if reset.waits_for_idle() && self.busy {
                    Restart::Pending
                } else {
                    Restart::Started
                };
                self.log.push(reset.as_str().to_owned());
                Input::Reset(self.ok(line).map(|()| restart))
            }
            Output::Store(changes) => {
                self.log.push(format!("store{}", told(&changes)));
                if self.store_fails {
                    return Input::Stored(Err(Failure::Failed("no space left".to_owned())));
                }
                changes.apply(&mut self.state);
                Input::Stored(Ok(()))
            }
            other => unreachable!("this world knows no {other:?}"),
        }
    }

    fn ok(&self, line: u32) -> Result<(), Failure> {
        match self.answers.get(&line) {
            Some(Answer::Fails) => Err(Failure::Failed("the server said 404".to_owned())),
            Some(Answer::Refused) => Err(Failure::Refused("the script is not signed".to_owned())),
            Some(Answer::NotKnown | Answer::RunsAlready) | None => Ok(()),
        }
    }
}

pub(crate) const NOON: UnixTime = UnixTime::new(1_128_945_600);

pub(crate) fn dated(value: &str, date: Option<UnixTime>) -> Option<Dated> {
    Some(Dated {
        value: value.as_bytes().to_vec(),
        date,
    })
}

fn told(changes: &Changes) -> String {
    let mut text = String::new();
    for (name, variable) in [
        ("CHECK", &changes.check),
        ("SCFG", &changes.scfg),
        ("CFG", &changes.cfg),
    ] {
        if let Some(variable) = variable {
            text += &format!(" {name}={}", lossy(&variable.value));
        }
    }
    if let Some(index) = changes.backup_index {
        text += &format!(" index={}", index.index);
    }
    if changes.known {
        text += " known";
    }
    text
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
