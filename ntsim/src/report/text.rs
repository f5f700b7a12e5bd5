// SPDX-License-Identifier: MIT OR Apache-2.0

//! A stop's report as text of 100 columns.

use std::fmt::{self, Display, Write as _};

use anstyle::{AnsiColor, Style};

use super::{ContextKind, ContextReport, ContextState, Frame, LockReport};
use crate::bugcheck::{Stop, StopKind};
use crate::trace::Seconds;

/// The columns that a report takes.
const WIDTH: usize = 100;
/// How far a context's own lines are in.
const INNER: usize = 4;
/// How many frames of another context's backtrace are shown.
const OTHERS_FRAMES: usize = 8;

/// A report for people: with colours, or as `Display` of [`Stop`] shows it, without.
#[derive(Clone, Copy, Debug)]
pub struct Styled<'a> {
    stop: &'a Stop,
    look: Look,
}

/// How the parts of a report look.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    alarm: Style,
    title: Style,
    name: Style,
    faint: Style,
}

impl<'a> Styled<'a> {
    pub(crate) fn plain(stop: &'a Stop) -> Self {
        Self {
            stop,
            look: Look::default(),
        }
    }

    pub(crate) fn coloured(stop: &'a Stop) -> Self {
        Self {
            stop,
            look: Look {
                alarm: AnsiColor::Red.on_default().bold(),
                title: Style::new().bold(),
                name: AnsiColor::Cyan.on_default(),
                faint: Style::new().dimmed(),
            },
        }
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stop, look } = self;
        let Look { alarm, title, .. } = look;
        match stop.kind {
            StopKind::BugCheck {
                code,
                parameters: [first, second, third, fourth],
            } => writeln!(
                f,
                "{alarm}bug check {code:#X} {}{alarm:#} ({first:#x}, {second:#x}, {third:#x}, {fourth:#x})",
                stop.name
            )?,
            _ => writeln!(f, "{alarm}{}{alarm:#}", stop.name)?,
        }
        for line in wrapped(&stop.message, WIDTH - 2) {
            writeln!(f, "  {title}{line}{title:#}")?;
        }
        if let Some(rule) = stop.broken_rule() {
            self.row(f, "rule", &format!("{}: {}", rule.name, rule.what))?;
            self.row(f, "", rule.link)?;
        } else if let Some(rule) = stop.rule {
            self.row(f, "rule", rule)?;
        }
        self.row(
            f,
            "at",
            &format!(
                "{} s in {} at IRQL {}",
                Seconds(stop.time),
                stop.context,
                stop.irql
            ),
        )?;
        let parameters = stop.parameters();
        if parameters.iter().any(|it| !it.meaning.is_empty()) {
            for (index, parameter) in parameters.iter().enumerate() {
                let title = if index == 0 { "parameters" } else { "" };
                let text = format!("{:<18} {}", parameter.value, parameter.meaning);
                self.row(f, title, text.trim_end())?;
            }
        }
        Ok(())
    }

    /// A short fact beside its title.
    fn row(&self, f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
        let faint = self.look.faint;
        for (index, line) in wrapped(text, WIDTH - 14).iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            writeln!(f, "  {faint}{title:<11}{faint:#} {line}")?;
        }
        Ok(())
    }

    fn section(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let style = self.look.title;
        writeln!(f, "  {style}{title}:{style:#}")
    }

    fn list<T: Display>(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        items: &[T],
    ) -> fmt::Result {
        if items.is_empty() {
            return Ok(());
        }
        self.section(f, title)?;
        items.iter().try_for_each(|item| line(f, INNER, item))
    }

    fn frames(&self, f: &mut fmt::Formatter<'_>, frames: &[Frame], indent: usize) -> fmt::Result {
        let faint = self.look.faint;
        for frame in frames {
            let whole = frame.to_string();
            if indent + whole.chars().count() <= WIDTH {
                writeln!(f, "{:indent$}{whole}", "")?;
                continue;
            }
            // The place on a line of its own; neither is cut, for both are searched for.
            let place = whole.rfind(" at ").filter(|_| frame.file.is_some());
            let (function, place) = whole.split_at(place.unwrap_or(whole.len()));
            writeln!(f, "{:indent$}{function}", "")?;
            if !place.is_empty() {
                writeln!(f, "{:indent$}   {faint}{}{faint:#}", "", place.trim_start())?;
            }
        }
        Ok(())
    }

    fn contexts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<_> = (self.stop.contexts.iter())
            .filter(|context| context.state != ContextState::Running)
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let title = if others.len() == self.stop.contexts.len() {
            "threads and DPCs"
        } else {
            "other threads and DPCs"
        };
        self.section(f, title)?;
        others
            .iter()
            .try_for_each(|context| self.context(f, context))
    }

    fn context(&self, f: &mut fmt::Formatter<'_>, context: &ContextReport) -> fmt::Result {
        let name = self.look.name;
        let kind = match context.kind {
            ContextKind::Thread => "",
            ContextKind::Dpc => " (DPC)",
        };
        let state = match (&context.wait, context.state) {
            (Some(wait), _) => format!("waits for {wait}"),
            (None, ContextState::Queued) => "is queued".to_owned(),
            (None, _) => "could run".to_owned(),
        };
        let text = format!("{kind}, IRQL {}, {state}", context.irql);
        let mut lines = wrapped(&text, WIDTH - INNER - context.name.chars().count()).into_iter();
        let first = lines.next().unwrap_or_default();
        writeln!(f, "{:INNER$}{name}{}{name:#}{first}", "", context.name)?;
        for rest in lines {
            writeln!(f, "{:INNER$}  {rest}", "")?;
        }
        if let Some(call) = context.calls.last() {
            line(f, INNER + 2, &format!("in {call}"))?;
        }
        let shown = context.backtrace.len().min(OTHERS_FRAMES);
        self.frames(f, &context.backtrace[..shown], INNER + 4)?;
        match context.backtrace.len() - shown {
            0 => Ok(()),
            more => line(f, INNER + 4, &format!("… {more} more")),
        }
    }

    fn locks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stop.locks.is_empty() {
            return Ok(());
        }
        self.section(f, "held locks")?;
        for lock in &self.stop.locks {
            line(f, INNER, &describe(lock))?;
            if let Some(call) = &lock.acquired {
                let words: Vec<_> = call.split_whitespace().collect();
                line(f, INNER + 2, &format!("since {}", words.join(" ")))?;
            }
        }
        Ok(())
    }
}

fn describe(lock: &LockReport) -> String {
    let mut text = format!("{}: held by {}", lock.name, lock.held_by.join(", "));
    if lock.shared {
        text.push_str(", shared");
    }
    if !lock.waiters.is_empty() {
        let _ = write!(text, ", wanted by {}", lock.waiters.join(", "));
    }
    text
}

impl Display for Styled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stop = self.stop;
        self.head(f)?;
        self.list(f, "in", &stop.calls)?;
        if !stop.backtrace.is_empty() {
            self.section(f, "backtrace")?;
            self.frames(f, &stop.backtrace, INNER)?;
        }
        for related in &stop.related {
            self.section(f, &related.what)?;
            self.frames(f, &related.backtrace, INNER)?;
        }
        self.locks(f)?;
        self.contexts(f)?;
        let changes: Vec<_> = (stop.irql_history.iter())
            .map(|change| {
                format!(
                    "{:>2} -> {:<2} at {} s: {}",
                    change.from,
                    change.to,
                    Seconds(change.time),
                    change.by
                )
            })
            .collect();
        self.list(f, &format!("IRQL of {}", stop.context), &changes)?;
        let devices: Vec<_> = (stop.devices.iter())
            .map(|device| {
                format!(
                    "{} {}: {}, {}",
                    device.name, device.instance, device.pnp, device.power
                )
            })
            .collect();
        self.list(f, "devices", &devices)?;
        // The same lines if nobody else ran.
        if stop.last_calls.iter().any(|line| !stop.last.contains(line)) {
            self.list(
                f,
                &format!("last calls of {}", stop.context),
                &stop.last_calls,
            )?;
        }
        self.list(f, "last events", &stop.last)?;
        if !stop.traced {
            writeln!(
                f,
                "  the trace is off: no last calls, no history of the IRQL (Settings::trace)"
            )?;
        }
        let style = self.look.title;
        write!(f, "{style}replay: {}{style:#}", stop.replay)
    }
}

/// Writes an item, the lines that it does not fit into further in.
fn line(f: &mut fmt::Formatter<'_>, indent: usize, item: &impl Display) -> fmt::Result {
    for (index, part) in wrapped(&item.to_string(), WIDTH - indent - 4)
        .iter()
        .enumerate()
    {
        let more = if index == 0 { 0 } else { 4 };
        writeln!(f, "{:1$}{part}", "", indent + more)?;
    }
    Ok(())
}

/// Breaks a text at spaces into lines of at most `width` columns; what has no
/// space stays whole, since it is a name that somebody searches for.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut rest = paragraph;
        while rest.chars().count() > width {
            let end = rest
                .char_indices()
                .nth(width + 1)
                .map_or(rest.len(), |(at, _)| at);
            // Spaces at the beginning are indentation.
            let content = rest.len() - rest.trim_start().len();
            let inside = rest[content..end.max(content)].rfind(' ');
            let at = match inside {
                Some(at) => content + at,
                None => match rest[content..].find(' ') {
                    Some(at) => content + at,
                    None => break,
                },
            };
            lines.push(rest[..at].trim_end().to_owned());
            rest = rest[at..].trim_start();
        }
        if !rest.is_empty() {
            lines.push(rest.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn a_text_is_broken_at_spaces_and_words_stay_whole() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(
            wrapped("one twothree4 five", 7),
            ["one", "twothree4", "five"]
        );
        assert_eq!(wrapped("  indented text", 11), ["  indented", "text"]);
        assert_eq!(wrapped("fits", 7), ["fits"]);
        assert_eq!(wrapped("", 7), [""; 0]);
        assert_eq!(wrapped("ümläut ümläut", 6), ["ümläut", "ümläut"]);
    }
}
