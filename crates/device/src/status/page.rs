//! The status as a page that a phone can read: no script, nothing loaded from elsewhere.

use core::fmt::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{LineResult, Phase, Status};

/// Nothing may be loaded or run; the only style is the page's own.
pub(super) const SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// The whole page. It reloads itself every five seconds, and every second during an install.
pub(super) fn render(status: &Status) -> String {
    let mut page = String::with_capacity(8192);
    // A String takes whatever is written to it.
    let written = write_page(&mut page, status);
    debug_assert_eq!(written, Ok(()));
    page
}

fn write_page(out: &mut String, status: &Status) -> fmt::Result {
    let refresh = if status.progress.is_some() { 1 } else { 5 };
    let device = &status.device;
    let name = Text(&device.hardware_id);
    write!(
        out,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"{refresh}\"><title>{name}</title>\
         <style>{STYLE}</style></head><body><h1>{name}</h1>"
    )?;
    write!(out, "<p>{}", Text(&device.device_type))?;
    if let Some(hardware) = &device.hardware {
        write!(out, " &middot; hardware {}", Text(hardware))?;
    }
    if let Some(mac) = &device.mac {
        write!(out, " &middot; {}", Text(mac))?;
    }
    write!(out, " &middot; agent {}</p>", Text(&status.agent))?;
    for warning in &status.warnings {
        write!(out, "<p class=\"bad\">Warning: {}</p>", Text(warning))?;
    }
    progress(out, status)?;
    components(out, status)?;
    poll(out, status)?;
    trouble(out, status)?;
    out.write_str("<p><a href=\"status.json\">status.json</a></p></body></html>\n")
}

fn progress(out: &mut String, status: &Status) -> fmt::Result {
    let Some(progress) = &status.progress else {
        return Ok(());
    };
    let phase = match progress.phase {
        Phase::Manifest => "checking the manifest",
        Phase::Scan => "looking for what is already there",
        Phase::Fetch => "fetching and writing",
        Phase::Verify => "reading back",
        Phase::Commit => "choosing the slot",
    };
    let (done, total) = (progress.done_bytes, progress.total_bytes);
    write!(
        out,
        "<section><h2>Installing {} {}</h2><p>{phase}: {} of {}</p>\
         <progress value=\"{done}\" max=\"{}\"></progress></section>",
        Text(&progress.component),
        Text(&progress.build),
        Size(done),
        Size(total),
        total.max(1),
    )
}

fn components(out: &mut String, status: &Status) -> fmt::Result {
    out.write_str(
        "<section><h2>Firmware</h2><table><tr><th>component</th><th>runs</th><th>boots next</th>\
         <th>serial</th><th>falls back to</th></tr>",
    )?;
    for component in &status.components {
        write!(
            out,
            "<tr><td>{}</td><td>{} {}</td><td>{} {}</td><td>{}</td><td>{}</td></tr>",
            Text(&component.name),
            Maybe(component.running.as_deref()),
            Text(component.build.as_deref().unwrap_or_default()),
            Maybe(component.next.as_deref()),
            Text(component.next_build.as_deref().unwrap_or_default()),
            Maybe(component.serial.as_deref()),
            Maybe(component.confirmed.as_deref()),
        )?;
    }
    out.write_str("</table>")?;
    scrubs(out, status)?;
    if let Some(trial) = &status.trial {
        let what = if trial.running {
            "On trial: not confirmed yet"
        } else {
            "A trial begins with the next start"
        };
        let (left, attempts) = (trial.attempts_left, trial.attempts);
        write!(
            out,
            "<p class=\"warn\">{what}; {left} of {attempts} starts left.</p>"
        )?;
    }
    if status.reset_required {
        out.write_str("<p class=\"warn\">A reset is required.</p>")?;
    }
    if let Some(restart) = &status.pending_restart {
        write!(
            out,
            "<p class=\"warn\">Restart pending: {}</p>",
            Text(restart)
        )?;
    }
    out.write_str("</section>")
}

/// The last scrub of each slot that holds an image.
fn scrubs(out: &mut String, status: &Status) -> fmt::Result {
    for component in &status.components {
        for slot in &component.slots {
            let Some(scrub) = &slot.scrub else { continue };
            let class = match scrub.result.as_str() {
                "damaged" | "unreadable" => "bad",
                "repaired" => "warn",
                _ => continue,
            };
            write!(
                out,
                "<p class=\"{class}\">{} {}: {} ({}).</p>",
                Text(&component.name),
                Text(&slot.slot),
                Text(&scrub.text),
                Time(scrub.time)
            )?;
        }
    }
    let last = status
        .components
        .iter()
        .flat_map(|component| &component.slots)
        .filter_map(|slot| slot.scrub.as_ref())
        .map(|scrub| scrub.time)
        .max();
    match last {
        Some(time) => write!(out, "<p>Last scrub of a slot: {}.</p>", Time(time)),
        None => Ok(()),
    }
}

fn poll(out: &mut String, status: &Status) -> fmt::Result {
    let poll = &status.poll;
    write!(
        out,
        "<section><h2>Maintenance script</h2><p>{}: <b>{}</b>",
        Maybe(poll.url.as_deref()),
        Text(&poll.result)
    )?;
    if let Some(detail) = &poll.detail {
        write!(out, " ({})", Text(detail))?;
    }
    if let Some(last) = poll.last {
        write!(out, ", last {}", Time(last))?;
    }
    if let Some(next) = poll.next {
        write!(out, ", next {}", Time(next))?;
    }
    out.write_str("</p>")?;
    if !status.lines.is_empty() {
        out.write_str("<table><tr><th>line</th><th>command</th><th>outcome</th></tr>")?;
        for line in &status.lines {
            let (class, word) = match line.outcome {
                LineResult::Done => ("good", "done"),
                LineResult::Skipped => ("", "skipped"),
                LineResult::Running => ("warn", "running"),
                LineResult::Failed => ("bad", "failed"),
            };
            write!(
                out,
                "<tr><td>{}</td><td>{}</td><td><span class=\"{class}\">{word}</span>: {}</td></tr>",
                line.number,
                Text(&line.command),
                Text(&line.detail),
            )?;
        }
        out.write_str("</table>")?;
    }
    out.write_str("</section>")
}

fn trouble(out: &mut String, status: &Status) -> fmt::Result {
    let notices = [
        ("Rolled back", &status.rolled_back),
        ("Last error", &status.last_error),
    ];
    for (title, notice) in notices {
        if let Some(notice) = notice {
            let (text, time) = (Text(&notice.text), Time(notice.time));
            write!(
                out,
                "<section><h2>{title}</h2><p class=\"bad\">{text}</p><p>{time}</p></section>"
            )?;
        }
    }
    if status.rejections.is_empty() {
        return Ok(());
    }
    out.write_str("<section><h2>Rejected firmware</h2><ul>")?;
    for rejection in &status.rejections {
        write!(
            out,
            "<li>{} {}: {} (tries: {})",
            Text(&rejection.component),
            Text(&rejection.build),
            Text(&rejection.reason),
            rejection.tries,
        )?;
        if let Some(time) = rejection.retry_after {
            write!(out, ", again after {}", Time(time))?;
        }
        write!(out, "<br><small>{}</small></li>", Text(&rejection.manifest))?;
    }
    out.write_str("</ul></section>")
}

/// Text from outside: nothing in it is markup.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

struct Maybe<'a>(Option<&'a str>);

impl fmt::Display for Maybe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text(self.0.unwrap_or("\u{2013}")).fmt(f)
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |unit: u64| (self.0 / unit, self.0 % unit * 10 / unit);
        match self.0 {
            0..0x400 => write!(f, "{} B", self.0),
            0x400..0x10_0000 => write!(f, "{} KiB", self.0 >> 10),
            _ => {
                let (whole, tenth) = tenths(1 << 20);
                write!(f, "{whole}.{tenth} MiB")
            }
        }
    }
}

/// A time in the zone of the device.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        match time {
            Some(time) => {
                let local = time.to_zoned(TimeZone::system()).datetime();
                let (date, hour, minute) = (local.date(), local.hour(), local.minute());
                write!(f, "{date} {hour:02}:{minute:02}:{:02}", local.second())
            }
            None => write!(f, "@{}", self.0),
        }
    }
}

const STYLE: &str = "body{font:16px/1.4 system-ui,sans-serif;margin:0 auto;max-width:50em;\
    padding:.5em 1em;color:#222;background:#fff}h1{font-size:1.4em;margin:.3em 0}\
    h2{font-size:1.1em;margin:.2em 0}section{border-top:1px solid #ccc;padding:.5em 0;\
    overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;\
    padding:.2em .6em .2em 0;vertical-align:top;overflow-wrap:break-word}td:last-child{overflow-wrap:anywhere}th{font-weight:600;\
    color:#666}progress{width:100%}small{color:#666;overflow-wrap:anywhere}.good{color:#06662b}\
    .warn{color:#8a5a00}.bad{color:#b00020;font-weight:600}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.good{color:#6c8}\
    .warn{color:#db6}.bad{color:#f78}a{color:#8bf}th,small{color:#999}section{border-color:#444}}";
