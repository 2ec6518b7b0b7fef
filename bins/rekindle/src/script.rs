//! `rekindle script`: what can be said about a maintenance script without a device.

use core::ops::Range;
use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use rekindle_script::{Dialect, Limits, ParseError, Position, Span, Warning, parse};
use serde::Serialize;

use crate::exit::Exit;

/// The commands over scripts.
#[derive(Debug, Subcommand)]
pub(crate) enum Script {
    /// Report badly written lines, each with its place: status 1 if there are any
    Check(Check),
}

impl Script {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Check(check) => check.run(),
        }
    }
}

/// `rekindle script check`
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The scripts; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Let warnings count as errors
    #[arg(long)]
    deny_warnings: bool,
    /// How to report
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

impl Check {
    fn run(self) -> anyhow::Result<Exit> {
        let mut reports = Vec::new();
        for path in &self.files {
            reports.push(Report::of(path)?);
        }
        let text = match self.format {
            Format::Human => human(&reports),
            Format::Json => json(&reports)?,
        };
        io::stdout()
            .write_all(text.as_bytes())
            .context("standard output")?;
        let is_bad = |finding: &Finding| finding.severity == Severity::Error || self.deny_warnings;
        let is_good = !reports
            .iter()
            .flat_map(|report| &report.findings)
            .any(is_bad);
        Ok(if is_good { Exit::Done } else { Exit::No })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The lines, with marks under what is wrong
    Human,
    /// One object; see docs/formats/script.md
    Json,
}

/// What was found in one file.
#[derive(Serialize)]
struct Report {
    file: String,
    findings: Vec<Finding>,
    #[serde(skip)]
    source: Vec<u8>,
}

impl Report {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let limits = Limits::default();
        let source = read(path, &limits).with_context(|| path.display().to_string())?;
        let findings = match parse(&source, &limits, &Dialect::field()) {
            Ok(script) => {
                let errors = script.errors().map(Finding::error);
                let warnings = script.warnings().map(|warning| Finding::warning(&warning));
                let mut findings: Vec<_> = errors.chain(warnings).collect();
                findings.sort_by_key(|finding| finding.line);
                findings
            }
            Err(error) => vec![Finding {
                is_whole: true,
                ..Finding::error(&error)
            }],
        };
        Ok(Self {
            file: path.display().to_string(),
            findings,
            source,
        })
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text.push_str(&renderer.render(&[self.group(finding)]));
            text.push_str("\n\n");
        }
        text
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> Group<'a> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&finding.message).id(finding.code);
        let line = usize::try_from(finding.line).unwrap_or(usize::MAX);
        if finding.is_whole {
            let column = usize::try_from(finding.column).unwrap_or(usize::MAX);
            let origin = Origin::path(&self.file).line(line).char_column(column);
            return title.element(origin);
        }
        let (text, marked) = shown_line(&self.source, finding.span.range());
        let snippet = Snippet::source(text)
            .line_start(line)
            .path(&self.file)
            .annotation(AnnotationKind::Primary.span(marked));
        title.element(snippet)
    }
}

#[derive(Serialize)]
struct Finding {
    severity: Severity,
    code: &'static str,
    line: u32,
    column: u32,
    start: u32,
    end: u32,
    message: String,
    #[serde(skip)]
    span: Span,
    /// It is about the script and not about one line of it.
    #[serde(skip)]
    is_whole: bool,
}

impl Finding {
    fn error(error: &ParseError) -> Self {
        let message = error.kind().to_string();
        let place = (error.position(), error.span());
        Self::new(Severity::Error, error.kind().code(), place, message)
    }

    fn warning(warning: &Warning<'_>) -> Self {
        let message = warning.kind().to_string();
        let place = (warning.position(), warning.span());
        Self::new(Severity::Warning, warning.kind().code(), place, message)
    }

    fn new(
        severity: Severity,
        code: &'static str,
        (position, span): (Position, Span),
        message: String,
    ) -> Self {
        Self {
            severity,
            code,
            line: position.line,
            column: position.column,
            start: span.start,
            end: span.end,
            message,
            span,
            is_whole: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

/// Reads one byte more than a script may have, so that a longer one is refused by the parser and not read to its end.
fn read(path: &Path, limits: &Limits) -> io::Result<Vec<u8>> {
    let mut source = Vec::new();
    let most = u64::from(limits.script_bytes) + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut source)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut source)?;
    }
    Ok(source)
}

fn human(reports: &[Report]) -> String {
    let is_coloured =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let renderer = if is_coloured {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut text: String = reports
        .iter()
        .map(|report| report.render(&renderer))
        .collect();
    let count = |severity| {
        let findings = reports.iter().flat_map(|report| &report.findings);
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    };
    text.push_str(&format!(
        "{}: {}, {}\n",
        number_of(reports.len(), "file"),
        number_of(count(Severity::Error), "error"),
        number_of(count(Severity::Warning), "warning")
    ));
    text
}

fn number_of(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn json(reports: &[Report]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        files: &'a [Report],
    }
    let mut text = serde_json::to_string(&Document { files: reports })?;
    text.push('\n');
    Ok(text)
}

/// The line that holds `span`, fit for a terminal, and the span within it.
fn shown_line(source: &[u8], span: Range<usize>) -> (String, Range<usize>) {
    let (before, rest) = source.split_at(span.start.min(source.len()));
    let (marked, after) = rest.split_at(span.len().min(rest.len()));
    let before = before
        .rsplit(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let after = after
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();

    let mut line = shown(before);
    let start = line.len();
    line.push_str(&shown(marked));
    let end = line.len();
    line.push_str(shown(after).trim_end());
    (line, start..end)
}

/// One character for each that is not text, so that columns stay right where the script is no UTF-8.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().map(|character| {
            if character.is_control() && !matches!(character, '\t' | '\r') {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        }));
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
