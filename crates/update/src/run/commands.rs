use alloc::vec::Vec;

use rekindle_script::{Final, Hours, Line, Text};
use rekindle_state::{Dated, DatedIndex, limit};

use super::step::{At, Await, Install, Job, PendingCheck, Step};
use super::{
    Changes, Check, Content, End, Failure, Hosted, LineFailure, Loaded, Outcome, Output, Run,
};
use crate::url;

/// The commands of UP1 and UP0: what each asks for, and what it makes of the answer.
impl<'s> Run<'s> {
    pub(super) fn check(&mut self, at: At, final_command: Final<'s>, serial: &'s [u8]) {
        if !self.serial_fits(at, serial) {
            return;
        }
        if holds(self.variables.check.as_ref(), serial) {
            self.record(at, Outcome::CheckEqual);
            self.check = None;
            self.summary.check = Some(Check::Equal);
            return self.end(End::UpToDate { line: at.number });
        }
        self.check = Some(PendingCheck {
            serial,
            final_command,
            index: self.summary.lines.len(),
        });
        self.record(at, Outcome::CheckDiffers);
    }

    pub(super) fn times(&mut self, at: At, allow: Option<Hours>, initial: Option<u32>) {
        let until_seconds = initial.map_or(0, |minutes| u64::from(minutes) * 60);
        if self.clock.since_boot.as_secs() < until_seconds {
            self.record(at, Outcome::TooSoonAfterBoot { until_seconds });
            return self.end(End::TooSoon { line: at.number });
        }
        let exempt = self.new && initial.is_some();
        let outcome = match (allow, self.clock.local) {
            (None, _) => Outcome::InTime,
            (Some(_), _) if exempt => Outcome::InTime,
            (Some(_), None) => Outcome::NoClock,
            (Some(hours), Some(local)) if hours.contains(local.hour) => Outcome::InTime,
            (Some(_), Some(local)) => Outcome::HourNotAllowed { hour: local.hour },
        };
        let in_time = outcome == Outcome::InTime;
        self.record(at, outcome);
        if !in_time {
            self.end(End::NotNow { line: at.number });
        }
    }

    pub(super) fn load(&mut self, job: Install<'s>, url: Text<'s>) {
        let name = job.load.as_str();
        let Some(component) = self.facts.components.iter().find(|it| it.name == name) else {
            return self.record(job.at, Outcome::Absent);
        };
        if !self.serial_fits(job.at, job.serial) {
            return;
        }
        let loaded = self.loaded.iter().rfind(|(load, _)| *load == job.load);
        match loaded.map(|(_, serial)| *serial).or(component.serial) {
            Some(serial) if serial == job.serial => {
                return self.record(job.at, Outcome::SerialEqual);
            }
            None if component.build.map(str::as_bytes) == Some(job.serial) => {
                return self.record(job.at, Outcome::BuildEqual);
            }
            Some(_) | None => {}
        }
        let url = match component.file_name {
            Some(name) => url::with_standard_name(url.as_bytes(), name),
            None => {
                let name = url::standard_name(job.load, self.facts.url.device_type);
                url::with_standard_name(url.as_bytes(), &name)
            }
        };
        let output = Output::Install {
            line: job.at.number,
            component: name,
            url: url::to_request(&url),
            serial: job.serial,
        };
        self.step = Step::Ask(output, Await::Install(job));
    }

    pub(super) fn installed(&mut self, job: &Install<'s>, result: Result<Loaded, Failure>) {
        match result {
            Ok(loaded) => {
                self.loaded.push((job.load, job.serial));
                match loaded {
                    Loaded::New => {
                        self.succeed(job.at, Outcome::Installed, Some(job.final_command));
                    }
                    Loaded::Running => self.record(job.at, Outcome::RunsAlready),
                }
            }
            Err(failure) => self.fail(job.at, failure),
        }
    }

    pub(super) fn save_config(
        &mut self,
        mut job: Job<'s>,
        url: &[u8],
        serial: Option<&'s [u8]>,
        force: Option<u32>,
        always: Option<Text<'s>>,
    ) {
        let content = match always {
            // Its serial is a placeholder and UPDATE/SCFG belongs to the backups.
            Some(command) => {
                let command: Vec<u8> =
                    percent_encoding::percent_decode(command.as_bytes()).collect();
                if command.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
                    let failure = LineFailure::CommandBreaksLine;
                    return self.record(job.at, Outcome::Failed(failure));
                }
                Content::OutputOf(command)
            }
            None => {
                if let Some(serial) = serial {
                    if !self.serial_fits(job.at, serial) {
                        return;
                    }
                    if holds(self.variables.scfg.as_ref(), serial) && !self.is_forced(force) {
                        return self.record(job.at, Outcome::Unchanged);
                    }
                    job.changes.scfg = Some(self.dated(serial));
                }
                Content::Configuration
            }
        };
        let facts = url::UrlFacts {
            local: self.clock.local,
            index: self.index,
            ..self.facts.url
        };
        let expanded = url::expand(url, &facts);
        if expanded.rolls {
            job.changes.backup_index = Some(DatedIndex {
                index: self.index,
                date: self.clock.unix,
            });
        }
        let output = Output::Upload {
            line: job.at.number,
            url: url::to_request(&expanded.url),
            content,
        };
        self.step = Step::Ask(output, Await::Upload(job));
    }

    /// Whether `/force` hours have passed since the last upload. An upload whose date nobody
    /// knows is long ago; without a clock nothing is forced.
    fn is_forced(&self, force: Option<u32>) -> bool {
        let (Some(hours), Some(now)) = (force, self.clock.unix) else {
            return false;
        };
        let date = self.variables.scfg.as_ref().and_then(|last| last.date);
        date.is_none_or(|date| {
            now.checked_since(date)
                .is_some_and(|seconds| seconds >= u64::from(hours) * 3600)
        })
    }

    pub(super) fn uploaded(&mut self, job: Job<'s>, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.store_line(job, Outcome::Uploaded),
            Err(failure) => self.fail(job.at, failure),
        }
    }

    pub(super) fn load_config(
        &mut self,
        mut job: Job<'s>,
        line: &Line<'s>,
        serial: Option<&'s [u8]>,
    ) {
        if let Some(serial) = serial {
            if !self.serial_fits(job.at, serial) {
                return;
            }
            if holds(self.variables.cfg.as_ref(), serial) {
                return self.record(job.at, Outcome::Unchanged);
            }
            job.changes.cfg = Some(self.dated(serial));
        }
        self.ask_host(job, line);
    }

    pub(super) fn host(&mut self, at: At, line: &Line<'s>) {
        let job = Job {
            at,
            changes: Changes::default(),
            final_command: None,
        };
        self.ask_host(job, line);
    }

    fn ask_host(&mut self, job: Job<'s>, line: &Line<'s>) {
        let text = self.source.get(line.span.range()).unwrap_or_default();
        let output = Output::Host {
            line: job.at.number,
            text,
        };
        self.step = Step::Ask(output, Await::Host(job));
    }

    pub(super) fn hosted(&mut self, job: Job<'s>, result: Result<Hosted, Failure>) {
        match result {
            Ok(Hosted::Done) => self.store_line(job, Outcome::Done),
            Ok(Hosted::NotKnown) => self.record(job.at, Outcome::NotKnown),
            Err(failure) => self.fail(job.at, failure),
        }
    }

    fn serial_fits(&mut self, at: At, serial: &[u8]) -> bool {
        let len = serial.len();
        let fits = len <= limit::VALUE;
        if !fits {
            self.record(at, Outcome::Failed(LineFailure::SerialTooLong { len }));
        }
        fits
    }
}

fn holds(variable: Option<&Dated>, serial: &[u8]) -> bool {
    variable.is_some_and(|variable| variable.value == serial)
}
