//! The maintenance run: a script and what the device knows in, actions out, results in.
//!
//! A run is a strict exchange: [`Run::poll_output`] says what to do next, the driver does it and
//! answers with [`Run::handle_input`], until the output is [`Output::Done`]. Nothing is done
//! twice and nothing at once; dropping a run at any moment is safe, since the next poll starts a
//! new one that finds out for itself what is done already.
//!
//! ```
//! # use core::time::Duration;
//! use rekindle_script::{Dialect, Limits, parse};
//! use rekindle_state::State;
//! use rekindle_update::run::{Clock, Component, Facts, Input, Loaded, Output, Run};
//! use rekindle_update::url::UrlFacts;
//!
//! let source = b"mod cmd UP0 prot http://192.0.2.1/fw/ ser 04-5656";
//! let script = parse(source, &Limits::default(), &Dialect::field())?;
//! let prot = Component { name: "prot", serial: None, build: Some("04-5600"), file_name: None };
//! let facts = Facts {
//!     url: UrlFacts { device_type: "IP1200", ..UrlFacts::default() },
//!     components: &[prot],
//! };
//! let clock = Clock { since_boot: Duration::from_secs(60), unix: None, local: None };
//! let mut state = State::default();
//!
//! let mut run = Run::new(source, &script, &facts, &state, clock);
//! loop {
//!     let input = match run.poll_output() {
//!         Output::Install { url, .. } => {
//!             assert_eq!(url, b"http://192.0.2.1/fw/ip1200.bin");
//!             Input::Installed(Ok(Loaded::New)) // fetched, verified, written, chosen
//!         }
//!         Output::Store(changes) => {
//!             changes.apply(&mut state); // and commit it
//!             Input::Stored(Ok(()))
//!         }
//!         Output::Done => break,
//!         other => unreachable!("this script asks for nothing else: {other:?}"),
//!     };
//!     run.handle_input(clock, input)?;
//! }
//! assert_eq!(run.summary().lines[0].to_string(), "line 1, prot: installed");
//! assert!(state.known);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! The rules are those of the reference on update scripts, section 4, and of the design, section
//! 5; `tests/it/run_rules.rs` has a row for each.

mod commands;
mod exchange;
mod step;
mod summary;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::{mem, slice};

use rekindle_script::{Command, Final, Line, Load, Reset, Script, Text};
use rekindle_state::{Dated, State};

pub use self::exchange::{
    Changes, Clock, Component, Content, Facts, Failure, Hosted, Input, Loaded, Misuse, Output,
    Restart,
};
use self::step::{At, Await, Install, Job, PendingCheck, Place, Purpose, Step};
pub use self::summary::{Check, End, LineFailure, LineOutcome, Outcome, ResetOutcome, Summary};

/// One run of a maintenance script.
///
/// What it guarantees, whatever the driver answers:
///
/// - UPDATE/CHECK is stored only by a run that reached the end of its script without a failed
///   line, and before its final command.
/// - A variable changes only after the command it belongs to has succeeded.
/// - A reset that is under way or pending is the last thing that happens.
#[derive(Debug)]
pub struct Run<'s> {
    source: &'s [u8],
    lines: slice::Iter<'s, Line<'s>>,
    facts: &'s Facts<'s>,
    clock: Clock,
    /// The update variables as stored by now; the rest of the state is not looked at.
    variables: State,
    /// Serials of what this run has loaded, which the facts do not know yet.
    loaded: Vec<(Load, &'s [u8])>,
    /// Whether the device was new when the run began.
    new: bool,
    /// The rolling index of this run: one for the whole script.
    index: u32,
    check: Option<PendingCheck<'s>>,
    /// A line has failed, so CHECK will not be set.
    failed: bool,
    /// A line was refused by policy, so unconditional resets are withheld.
    guarded: bool,
    step: Step<'s>,
    summary: Summary,
}

impl<'s> Run<'s> {
    /// A run of `script`, which was parsed from `source`.
    ///
    /// A device that holds `state.known == false` is new. Of the state only the update variables
    /// and that flag are used.
    #[must_use]
    pub fn new(
        source: &'s [u8],
        script: &'s Script<'s>,
        facts: &'s Facts<'s>,
        state: &State,
        clock: Clock,
    ) -> Self {
        Self {
            source,
            lines: script.lines.iter(),
            facts,
            clock,
            variables: State {
                check: state.check.clone(),
                scfg: state.scfg.clone(),
                cfg: state.cfg.clone(),
                backup_index: state.backup_index,
                known: state.known,
                ..State::default()
            },
            loaded: Vec::new(),
            new: !state.known,
            index: state
                .backup_index
                .map_or(0, |last| last.index.wrapping_add(1)),
            check: None,
            failed: false,
            guarded: false,
            step: Step::Next,
            summary: Summary::default(),
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Output<'s> {
        loop {
            match mem::replace(&mut self.step, Step::Next) {
                Step::Next => match self.lines.next() {
                    Some(line) => self.line(line),
                    None => self.complete(),
                },
                Step::Ask(output, awaiting) => {
                    self.step = Step::Awaiting(awaiting);
                    return output;
                }
                Step::Awaiting(awaiting) => {
                    self.step = Step::Awaiting(awaiting);
                    return Output::Wait;
                }
                Step::Done => {
                    self.step = Step::Done;
                    return Output::Done;
                }
            }
        }
    }

    /// What has become of the last output.
    ///
    /// # Errors
    ///
    /// If the input does not answer it. Nothing has changed then.
    pub fn handle_input(&mut self, now: Clock, input: Input) -> Result<(), Misuse> {
        match (mem::replace(&mut self.step, Step::Next), input) {
            (Step::Awaiting(Await::Install(job)), Input::Installed(result)) => {
                self.installed(&job, result);
            }
            (Step::Awaiting(Await::Upload(job)), Input::Uploaded(result)) => {
                self.uploaded(job, result);
            }
            (Step::Awaiting(Await::Host(job)), Input::Host(result)) => {
                self.hosted(job, result);
            }
            (Step::Awaiting(Await::Reset(place, reset)), Input::Reset(result))
                if reset.only_if_required() || result != Ok(Restart::NotRequired) =>
            {
                self.restarted(place, result);
            }
            (Step::Awaiting(Await::Store(changes, purpose)), Input::Stored(result)) => {
                self.stored(&changes, purpose, result);
            }
            (step, _) => {
                let asked = matches!(step, Step::Awaiting(_));
                self.step = step;
                return Err(if asked {
                    Misuse::OtherAnswer
                } else {
                    Misuse::NothingAsked
                });
            }
        }
        debug_assert!(
            now.since_boot >= self.clock.since_boot,
            "time goes backwards"
        );
        self.clock = now;
        Ok(())
    }

    /// What has happened so far.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What has happened: for after [`Output::Done`].
    #[must_use]
    pub fn into_summary(self) -> Summary {
        self.summary
    }

    fn line(&mut self, line: &'s Line<'s>) {
        let at = |verb| At {
            number: line.number,
            verb,
        };
        match &line.command {
            Command::Blank | Command::Comment(_) => {}
            Command::Check {
                final_command,
                serial,
            } => {
                self.check(at("check"), *final_command, serial.as_bytes());
            }
            Command::Times { allow, initial } => self.times(at("times"), *allow, *initial),
            Command::Poll => {
                self.summary.poll = true;
                self.record(at("poll"), Outcome::Noted);
            }
            Command::Provision(number) => {
                self.summary.provision = Some(*number);
                self.record(at("provision"), Outcome::Noted);
            }
            Command::Load {
                component,
                url,
                final_command,
                serial,
            } => {
                let job = Install {
                    at: at(component.as_str()),
                    load: *component,
                    serial: serial.as_bytes(),
                    final_command: *final_command,
                };
                self.load(job, *url);
            }
            Command::SaveConfig {
                url,
                final_command,
                serial,
                force,
                always,
            } => {
                let serial = serial.map(Text::as_bytes);
                let job = Job {
                    at: at("scfg"),
                    changes: Changes::default(),
                    final_command: *final_command,
                };
                self.save_config(job, url.as_bytes(), serial, *force, *always);
            }
            Command::LoadConfig {
                final_command,
                serial,
                ..
            } => {
                let serial = serial.map(Text::as_bytes);
                let job = Job {
                    at: at("cfg"),
                    changes: Changes::default(),
                    final_command: *final_command,
                };
                self.load_config(job, line, serial);
            }
            Command::Reset(reset) => self.reset(Place::Line(at(reset.as_str())), *reset),
            Command::Config(_) => self.host(at("config"), line),
            Command::Vars(_) => self.host(at("vars"), line),
            Command::Module { .. } => self.host(at("mod"), line),
            Command::Other(_) => self.host(at("command"), line),
            Command::Malformed { error, .. } => {
                let failure = LineFailure::Malformed(Box::new(error.clone()));
                self.record(at("malformed line"), Outcome::Failed(failure));
            }
        }
    }

    fn reset(&mut self, place: Place, reset: Reset) {
        if self.guarded && !reset.only_if_required() {
            return self.note_reset(place, ResetOutcome::Withheld);
        }
        let output = Output::Reset {
            line: self.number(place),
            reset,
        };
        self.step = Step::Ask(output, Await::Reset(place, reset));
    }

    fn restarted(&mut self, place: Place, result: Result<Restart, Failure>) {
        let line = self.number(place);
        match result {
            Ok(restart) => {
                self.note_reset(place, restart.into());
                if restart != Restart::NotRequired {
                    self.end(End::Restart { line });
                }
            }
            Err(failure) => {
                self.guarded |= matches!(failure, Failure::Refused(_));
                self.note_reset(place, ResetOutcome::Failed(failure));
            }
        }
    }

    fn note_reset(&mut self, place: Place, outcome: ResetOutcome) {
        self.failed |= matches!(outcome, ResetOutcome::Failed(_) | ResetOutcome::Withheld);
        match place {
            Place::Line(at) => self.record(at, Outcome::Reset(outcome)),
            Place::FinalOf(index) => self.summary.lines[index].final_command = Some(outcome),
        }
    }

    fn number(&self, place: Place) -> u32 {
        match place {
            Place::Line(at) => at.number,
            Place::FinalOf(index) => self.summary.lines[index].number,
        }
    }

    /// Stores what a line has changed; the line has succeeded only then.
    fn store_line(&mut self, job: Job<'s>, outcome: Outcome) {
        if job.changes == Changes::default() {
            return self.succeed(job.at, outcome, job.final_command);
        }
        let purpose = Purpose::Line {
            at: job.at,
            outcome,
            final_command: job.final_command,
        };
        self.store(job.changes, purpose);
    }

    fn store(&mut self, changes: Changes, purpose: Purpose<'s>) {
        let output = Output::Store(changes.clone());
        self.step = Step::Ask(output, Await::Store(changes, purpose));
    }

    fn stored(&mut self, changes: &Changes, purpose: Purpose<'s>, result: Result<(), Failure>) {
        let result = result.inspect_err(|failure| {
            self.summary
                .not_stored
                .get_or_insert_with(|| failure.clone());
        });
        if result.is_ok() {
            changes.apply(&mut self.variables);
        }
        match (purpose, result) {
            (
                Purpose::Line {
                    at,
                    outcome,
                    final_command,
                },
                Ok(()),
            ) => {
                self.succeed(at, outcome, final_command);
            }
            (Purpose::Line { at, .. }, Err(failure)) => {
                self.record(at, Outcome::Failed(LineFailure::NotStored(failure)));
            }
            (Purpose::Check(check), Ok(())) => {
                self.summary.check = Some(Check::Set);
                if let Final::Reset(reset) = check.final_command {
                    self.reset(Place::FinalOf(check.index), reset);
                }
            }
            (Purpose::Check(_), Err(_)) => self.summary.check = Some(Check::NotStored),
            (Purpose::Known, _) => self.step = Step::Done,
        }
    }

    /// After the last line, and again after the final command of `check`.
    fn complete(&mut self) {
        match self.check.take() {
            Some(_) if self.failed => self.summary.check = Some(Check::LineFailed),
            Some(check) => {
                let changes = Changes {
                    check: Some(self.dated(check.serial)),
                    known: true,
                    ..Changes::default()
                };
                return self.store(changes, Purpose::Check(check));
            }
            None => {}
        }
        self.end(End::Complete);
    }

    fn end(&mut self, end: End) {
        self.summary.end = Some(end);
        if self.check.take().is_some() {
            self.summary.check = Some(Check::Interrupted);
        }
        self.step = Step::Done;
        // A new device that waits for its first minutes stays new: else `/allow` would hold it
        // back when they are over.
        let waits = matches!(end, End::TooSoon { .. });
        if !self.variables.known && !waits {
            let changes = Changes {
                known: true,
                ..Changes::default()
            };
            self.store(changes, Purpose::Known);
        }
    }

    fn succeed(&mut self, at: At, outcome: Outcome, final_command: Option<Final<'s>>) {
        let index = self.summary.lines.len();
        self.record(at, outcome);
        if let Some(Final::Reset(reset)) = final_command {
            self.reset(Place::FinalOf(index), reset);
        }
    }

    fn fail(&mut self, at: At, failure: Failure) {
        self.guarded |= matches!(failure, Failure::Refused(_));
        self.record(at, Outcome::Failed(failure.into()));
    }

    fn record(&mut self, at: At, outcome: Outcome) {
        self.failed |= matches!(outcome, Outcome::Failed(_));
        self.summary.lines.push(LineOutcome {
            number: at.number,
            verb: at.verb,
            outcome,
            final_command: None,
        });
    }

    fn dated(&self, serial: &[u8]) -> Dated {
        Dated {
            value: serial.to_vec(),
            date: self.clock.unix,
        }
    }
}
