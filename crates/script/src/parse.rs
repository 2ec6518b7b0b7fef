use alloc::vec::Vec;

use crate::{
    ast::{Line, Script},
    dialect::Dialect,
    error::{ParseError, ParseErrorKind},
    grammar,
    limits::Limits,
    span::{Position, Span, offset},
    text::is_blank,
};

/// Parses a script.
///
/// The script borrows from `source`; the only allocation is that of its lines. A known command that is not written as
/// it must be becomes a [`Command::Malformed`](crate::Command::Malformed) line, a line that is no known command a
/// [`Command::Other`](crate::Command::Other): neither makes this function fail.
///
/// # Errors
///
/// When a limit is broken, and only then.
pub fn parse<'a>(
    source: &'a [u8],
    limits: &Limits,
    dialect: &Dialect,
) -> Result<Script<'a>, ParseError> {
    let start = Position { line: 1, column: 1 };
    if exceeds(source.len(), limits.script_bytes) {
        let kind = ParseErrorKind::ScriptTooLong {
            limit: limits.script_bytes,
        };
        return Err(ParseError::new(kind, start, Span::default()));
    }
    let mut reader = Reader {
        source,
        limits,
        dialect,
        lines: Vec::with_capacity(expected_lines(source, limits)),
    };
    let mut begin = 0;
    for end in memchr::memchr_iter(b'\n', source) {
        reader.line(begin, end)?;
        begin = end.saturating_add(1);
    }
    if begin < source.len() {
        reader.line(begin, source.len())?;
    }
    Ok(Script {
        lines: reader.lines,
    })
}

struct Reader<'a, 'p> {
    source: &'a [u8],
    limits: &'p Limits,
    dialect: &'p Dialect,
    lines: Vec<Line<'a>>,
}

impl Reader<'_, '_> {
    /// Reads the line in `begin..end` of the source, of which the line feed is not part.
    fn line(&mut self, begin: usize, end: usize) -> Result<(), ParseError> {
        let raw = self.source.get(begin..end).unwrap_or_default();
        let number = offset(self.lines.len()).saturating_add(1);
        if number > self.limits.lines {
            let kind = ParseErrorKind::TooManyLines {
                limit: self.limits.lines,
            };
            return Err(self.broken(kind, number, begin, raw));
        }
        let text = trim_end(raw);
        if exceeds(text.len(), self.limits.line_bytes) {
            let kind = ParseErrorKind::LineTooLong {
                limit: self.limits.line_bytes,
            };
            return Err(self.broken(kind, number, begin, raw));
        }
        let indent = text.iter().take_while(|&&byte| is_blank(byte)).count();
        let text = text.get(indent..).unwrap_or_default();
        let at = begin.saturating_add(indent);
        let command = grammar::line(text, self.dialect, |fault_at, len| {
            let position = Position {
                line: number,
                column: offset(indent.saturating_add(fault_at)).saturating_add(1),
            };
            (position, Span::at(at.saturating_add(fault_at), len))
        });
        self.lines.push(Line {
            number,
            column: offset(indent).saturating_add(1),
            span: Span::at(at, text.len()),
            command,
        });
        Ok(())
    }

    #[cold]
    fn broken(&self, kind: ParseErrorKind, line: u32, begin: usize, raw: &[u8]) -> ParseError {
        let column = match kind {
            ParseErrorKind::LineTooLong { .. } => self.limits.line_bytes.saturating_add(1),
            _ => 1,
        };
        ParseError::new(
            kind,
            Position { line, column },
            Span::at(begin, trim_end(raw).len()),
        )
    }
}

fn exceeds(len: usize, limit: u32) -> bool {
    u32::try_from(len).map_or(true, |len| len > limit)
}

/// Counted first, so that the lines are allocated once and never more than the limit allows.
fn expected_lines(source: &[u8], limits: &Limits) -> usize {
    let limit = usize::try_from(limits.lines).unwrap_or(usize::MAX);
    memchr::memchr_iter(b'\n', source)
        .count()
        .saturating_add(1)
        .min(limit)
}

fn trim_end(line: &[u8]) -> &[u8] {
    let blanks = line
        .iter()
        .rev()
        .take_while(|&&byte| is_blank(byte))
        .count();
    line.get(..line.len().saturating_sub(blanks))
        .unwrap_or_default()
}
