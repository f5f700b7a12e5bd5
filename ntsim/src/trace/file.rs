// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trace as a value that is written to a file and read back.
//!
//! # The format
//! JSON lines: a header, a line for each line of the trace, and the report of
//! the stop if there was one. Nothing is lost.
//!
//! ```json
//! {"ntsim_trace":1,"title":"sensor.sys","seed":7,"strategy":"random","lines":2}
//! {"time":0,"context":1,"who":"main","irql":0,"depth":0,"event":"call","name":"KeGetCurrentIrql","args":"","result":"0"}
//! {"time":0,"context":0,"who":"machine","irql":0,"depth":0,"event":"machine","text":"the machine shuts down"}
//! {"event":"stop","report":{"version":1,"kind":"DEADLOCK"}}
//! ```
//!
//! | `event` | fields beside `time`, `context`, `who`, `irql`, `depth` |
//! |---|---|
//! | `call` | `name`, `args`, `result` |
//! | `enter`, `callback` | `name`, `args` |
//! | `return` | `name`, `result` |
//! | `print`, `machine` | `text` |
//! | `device` | `device`, `state` |
//! | `stop` | `report` alone, as in `docs/report-format.md` |
//!
//! A file that is damaged is refused with the line and the field ([`ReadError`]).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Event, Line};
use crate::bugcheck::Stop;
use crate::machine::Machine;

/// The version of the format.
pub const VERSION: u64 = 1;
/// No nesting is as deep as this; more would be drawn nowhere.
const DEEPEST: u64 = 10_000;

/// A whole trace, with what it is the trace of.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace<'a> {
    /// What it is about, for a page's title.
    pub title: String,
    /// The seed that decided the schedule.
    pub seed: u64,
    /// The strategy that it was drawn by.
    pub strategy: String,
    /// Its lines.
    pub lines: Cow<'a, [Line]>,
    /// Why the simulation ended before its time, if it did.
    pub stop: Option<StopMark>,
}

/// A stop, as a trace has it.
#[derive(Clone, Debug, PartialEq)]
pub struct StopMark {
    /// Virtual time, in 100 ns units since the first boot.
    pub time: u64,
    /// Whose call it was; 0 for the machine's.
    pub context: u32,
    /// Its short name.
    pub name: String,
    /// What happened, in one sentence.
    pub message: String,
    /// The whole report.
    pub report: Value,
}

/// How a trace is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line each, for people.
    Text,
    /// JSON lines, to be read back.
    Json,
    /// Trace events for `ui.perfetto.dev` and `chrome://tracing`.
    Perfetto,
    /// A page with a timeline.
    Html,
}

/// Why a file is no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ReadError {
    /// The line, counted from 1.
    pub line: usize,
    /// The field and what is wrong with it.
    pub problem: String,
}

impl Format {
    /// Each with the name that command lines know it by.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Text, "text"),
        (Self::Json, "json"),
        (Self::Perfetto, "perfetto"),
        (Self::Html, "html"),
    ];

    /// The format that a file's name asks for; text if it asks for none.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_ascii_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if ends(&[".html", ".htm"]) {
            Self::Html
        } else if ends(&[
            ".perfetto.json",
            ".perfetto",
            ".perfetto-trace",
            ".chrome.json",
        ]) {
            Self::Perfetto
        } else if ends(&[".json", ".jsonl"]) {
            Self::Json
        } else {
            Self::Text
        }
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        let names: Vec<_> = Self::NAMES.iter().map(|(_, name)| *name).collect();
        found
            .map(|(format, _)| *format)
            .ok_or_else(|| format!("expected one of {}", names.join(", ")))
    }
}

impl<'a> Trace<'a> {
    /// A machine's trace so far.
    ///
    /// # Panics
    /// Never: a stop is plain data.
    #[must_use]
    pub fn of(machine: &'a Machine, stop: Option<&Stop>) -> Self {
        let settings = machine.settings();
        Self {
            title: machine.drivers().join(", "),
            seed: settings.seed,
            strategy: settings.strategy.to_string(),
            lines: Cow::Borrowed(machine.trace()),
            stop: stop.map(|stop| StopMark {
                time: stop.time,
                context: stop.context_id,
                name: stop.name.clone(),
                message: stop.message.clone(),
                report: serde_json::to_value(stop).expect("a stop is plain data"),
            }),
        }
    }

    /// The trace as the contents of a file of that format.
    #[must_use]
    pub fn show(&self, format: Format) -> String {
        match format {
            Format::Text => self.to_text(),
            Format::Json => self.to_json(),
            Format::Perfetto => super::perfetto::show(self),
            Format::Html => super::html::show(self),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for line in &*self.lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// The trace as JSON lines.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        let header = Header {
            ntsim_trace: VERSION,
            title: &self.title,
            seed: self.seed,
            strategy: &self.strategy,
            lines: self.lines.len(),
        };
        row(&mut text, &header);
        for line in &*self.lines {
            row(&mut text, &Written::from(line));
        }
        if let Some(stop) = &self.stop {
            row(
                &mut text,
                &json!({ "event": "stop", "report": stop.report }),
            );
        }
        text
    }

    /// Reads what [`to_json`](Self::to_json) wrote. Names of functions stay in
    /// memory for as long as the program runs, each once.
    ///
    /// # Errors
    /// [`ReadError`]: the first line that is none, and its field.
    pub fn read(text: &str) -> Result<Trace<'static>, ReadError> {
        let mut rows = text.lines().enumerate().map(|(index, line)| Row {
            line: index + 1,
            text: line,
        });
        let header = rows.next().unwrap_or(Row { line: 1, text: "" }).fields()?;
        if !header.map.contains_key("ntsim_trace") {
            return Err(header.error("no trace of ntsim: it begins with no \"ntsim_trace\" header"));
        }
        let version = header.number("ntsim_trace", u64::MAX)?;
        if version != VERSION {
            return Err(header.error(format!(
                "field \"ntsim_trace\": version {version}, and this program reads version {VERSION}"
            )));
        }
        let count = header.number("lines", u64::MAX)?;
        let mut trace = Trace {
            title: header.text("title")?,
            seed: header.number("seed", u64::MAX)?,
            strategy: header.text("strategy")?,
            lines: Cow::default(),
            stop: None,
        };
        let (mut lines, mut last) = (Vec::new(), 1);
        for row in rows {
            last = row.line;
            let fields = row.fields()?;
            if trace.stop.is_some() {
                return Err(fields.error("a line after the stop, which is the last"));
            }
            if fields.text("event")? == "stop" {
                trace.stop = Some(fields.stop()?);
                continue;
            }
            let line = fields.line()?;
            let before = lines.last().map_or(0, |line: &Line| line.time);
            if line.time < before {
                return Err(fields.error(format!(
                    "field \"time\": {} comes after {before}",
                    line.time
                )));
            }
            lines.push(line);
        }
        if lines.len() as u64 != count {
            return Err(ReadError {
                line: last,
                problem: format!(
                    "the trace has {} lines, and its header says {count}: it is cut off or was changed",
                    lines.len()
                ),
            });
        }
        trace.lines = Cow::Owned(lines);
        Ok(trace)
    }
}

fn row(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).expect("a trace is plain data"));
    text.push('\n');
}

#[derive(Serialize)]
struct Header<'a> {
    ntsim_trace: u64,
    title: &'a str,
    seed: u64,
    strategy: &'a str,
    lines: usize,
}

/// A line as it is written.
#[derive(Serialize)]
struct Written<'a> {
    time: u64,
    context: u32,
    who: &'a str,
    irql: u8,
    depth: usize,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
}

impl<'a> From<&'a Line> for Written<'a> {
    fn from(line: &'a Line) -> Self {
        let none = Self {
            time: line.time,
            context: line.context,
            who: &line.who,
            irql: line.irql,
            depth: line.depth,
            event: line.what.kind(),
            name: None,
            args: None,
            result: None,
            text: None,
            device: None,
            state: None,
        };
        match &line.what {
            Event::Call { name, args, result } => Self {
                name: Some(name),
                args: Some(args),
                result: Some(result),
                ..none
            },
            Event::Enter { name, args } | Event::Callback { name, args } => Self {
                name: Some(name),
                args: Some(args),
                ..none
            },
            Event::Return { name, result } => Self {
                name: Some(name),
                result: Some(result),
                ..none
            },
            Event::Print(text) | Event::Machine(text) => Self {
                text: Some(text),
                ..none
            },
            Event::Device { device, state } => Self {
                device: Some(device),
                state: Some(state),
                ..none
            },
        }
    }
}

/// A line of the file.
struct Row<'a> {
    line: usize,
    text: &'a str,
}

impl Row<'_> {
    fn fields(&self) -> Result<Fields, ReadError> {
        let error = |problem: String| ReadError {
            line: self.line,
            problem,
        };
        match serde_json::from_str(self.text) {
            Ok(Value::Object(map)) => Ok(Fields {
                line: self.line,
                map,
            }),
            Ok(_) => Err(error("no JSON object".to_owned())),
            Err(cause) => Err(error(format!(
                "no JSON: column {}: {}",
                cause.column(),
                // Its line is always 1.
                cause
                    .to_string()
                    .split(" at line ")
                    .next()
                    .unwrap_or_default()
            ))),
        }
    }
}

struct Fields {
    line: usize,
    map: Map<String, Value>,
}

impl Fields {
    fn error(&self, problem: impl Into<String>) -> ReadError {
        ReadError {
            line: self.line,
            problem: problem.into(),
        }
    }

    fn get(&self, field: &str) -> Result<&Value, ReadError> {
        self.map
            .get(field)
            .ok_or_else(|| self.error(format!("field \"{field}\" is missing")))
    }

    fn wrong(&self, field: &str, expected: &str, found: &Value) -> ReadError {
        let mut found = found.to_string();
        if found.chars().count() > 40 {
            found = found.chars().take(40).chain(['…']).collect();
        }
        self.error(format!(
            "field \"{field}\": expected {expected}, found {found}"
        ))
    }

    fn number(&self, field: &str, most: u64) -> Result<u64, ReadError> {
        let value = self.get(field)?;
        let number = value.as_u64().filter(|number| *number <= most);
        number.ok_or_else(|| {
            let expected = if most == u64::MAX {
                "a number from 0".to_owned()
            } else {
                format!("a number from 0 to {most}")
            };
            self.wrong(field, &expected, value)
        })
    }

    fn text(&self, field: &str) -> Result<String, ReadError> {
        let value = self.get(field)?;
        let text = value.as_str();
        text.map(str::to_owned)
            .ok_or_else(|| self.wrong(field, "text", value))
    }

    fn name(&self, field: &str) -> Result<&'static str, ReadError> {
        self.text(field).map(interned)
    }

    fn line(&self) -> Result<Line, ReadError> {
        let event = self.text("event")?;
        let what = match event.as_str() {
            "call" => Event::Call {
                name: self.name("name")?,
                args: self.text("args")?,
                result: self.text("result")?,
            },
            "enter" => Event::Enter {
                name: self.name("name")?,
                args: self.text("args")?,
            },
            "callback" => Event::Callback {
                name: self.name("name")?,
                args: self.text("args")?,
            },
            "return" => Event::Return {
                name: self.name("name")?,
                result: self.text("result")?,
            },
            "print" => Event::Print(self.text("text")?),
            "machine" => Event::Machine(self.text("text")?),
            "device" => Event::Device {
                device: self.text("device")?,
                state: self.name("state")?,
            },
            _ => {
                return Err(self.wrong(
                    "event",
                    "call, enter, callback, return, print, machine, device or stop",
                    &event.into(),
                ));
            }
        };
        let depth = self.number("depth", DEEPEST)?;
        Ok(Line {
            time: self.number("time", u64::MAX)?,
            context: self.small("context")?,
            who: self.text("who")?,
            irql: self.small("irql")?,
            depth: usize::try_from(depth).expect("checked"),
            what,
        })
    }

    fn small<T: TryFrom<u64> + Into<u64> + Bounded>(&self, field: &str) -> Result<T, ReadError> {
        let number = self.number(field, T::MOST.into())?;
        T::try_from(number).map_err(|_| self.error(format!("field \"{field}\"")))
    }

    fn stop(&self) -> Result<StopMark, ReadError> {
        let report = self.get("report")?;
        let Value::Object(map) = report else {
            return Err(self.wrong("report", "an object", report));
        };
        let fields = Self {
            line: self.line,
            map: map.clone(),
        };
        let inner = |error: ReadError| ReadError {
            problem: format!("report: {}", error.problem),
            ..error
        };
        Ok(StopMark {
            time: fields.number("time", u64::MAX).map_err(inner)?,
            context: fields.small("context_id").map_err(inner)?,
            name: fields.text("name").map_err(inner)?,
            message: fields.text("message").map_err(inner)?,
            report: report.clone(),
        })
    }
}

/// An integer's largest value.
trait Bounded {
    const MOST: Self;
}

impl Bounded for u8 {
    const MOST: Self = Self::MAX;
}

impl Bounded for u32 {
    const MOST: Self = Self::MAX;
}

/// The one copy of a name that lives as long as the program.
fn interned(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = name.leak();
    names.insert(name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace<'static> {
        let line = |time, what| Line {
            time,
            context: 3,
            who: "thread#1".to_owned(),
            irql: 2,
            depth: 1,
            what,
        };
        Trace {
            title: "a \"driver\"".to_owned(),
            seed: u64::MAX,
            strategy: "random".to_owned(),
            lines: Cow::Owned(vec![
                line(
                    0,
                    Event::Enter {
                        name: "KeX",
                        args: "A=\"ü\\\n\"".to_owned(),
                    },
                ),
                line(
                    1,
                    Event::Callback {
                        name: "EvtX",
                        args: String::new(),
                    },
                ),
                line(
                    1,
                    Event::Call {
                        name: "KeY",
                        args: "A=1".to_owned(),
                        result: "0".to_owned(),
                    },
                ),
                line(
                    2,
                    Event::Return {
                        name: "EvtX",
                        result: "0".to_owned(),
                    },
                ),
                line(2, Event::Print("hello".to_owned())),
                line(2, Event::Machine("boots".to_owned())),
                line(
                    u64::MAX,
                    Event::Device {
                        device: "WDFDEVICE#1".to_owned(),
                        state: "D0",
                    },
                ),
            ]),
            stop: Some(StopMark {
                time: 9,
                context: 3,
                name: "DEADLOCK".to_owned(),
                message: "stuck".to_owned(),
                report: json!({
                    "time": 9, "context_id": 3, "name": "DEADLOCK", "message": "stuck",
                }),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Trace::read(&trace().to_json()).unwrap(), trace());
        let without = Trace {
            stop: None,
            ..trace()
        };
        assert_eq!(Trace::read(&without.to_json()).unwrap(), without);
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_line_and_field() {
        let good = trace().to_json();
        let rows: Vec<_> = good.lines().collect();
        let with = |index: usize, row: &str| {
            let mut rows = rows.clone();
            rows[index] = row;
            rows.join("\n")
        };
        let changed = |index: usize, from: &str, to: &str| {
            assert!(rows[index].contains(from), "{}", rows[index]);
            with(index, &rows[index].replace(from, to))
        };
        let cases = [
            (String::new(), 1, "no JSON"),
            ("[1]".to_owned(), 1, "no JSON object"),
            ("{}".to_owned(), 1, "no trace of ntsim"),
            (changed(0, ":1,", ":2,"), 1, "version 2"),
            (
                changed(0, "\"lines\":7", "\"lines\":8"),
                9,
                "its header says 8",
            ),
            (rows[..4].join("\n"), 4, "cut off"),
            (good[..good.len() - 30].to_owned(), 9, "no JSON: column"),
            (
                changed(1, "\"irql\":2", "\"irql\":256"),
                2,
                "field \"irql\": expected a number from 0 to 255, found 256",
            ),
            (changed(1, "\"time\":0", "\"time\":-1"), 2, "field \"time\""),
            (changed(1, "\"time\":0", "\"time\":5"), 3, "1 comes after 5"),
            (
                changed(2, "\"args\"", "\"arg\""),
                3,
                "field \"args\" is missing",
            ),
            (
                changed(3, "\"call\"", "\"cull\""),
                4,
                "field \"event\": expected call, enter",
            ),
            (
                changed(5, "\"hello\"", "17"),
                6,
                "field \"text\": expected text, found 17",
            ),
            (
                changed(8, "\"name\"", "\"nome\""),
                9,
                "report: field \"name\" is missing",
            ),
            (format!("{good}{}\n", rows[1]), 10, "after the stop"),
        ];
        for (text, line, problem) in cases {
            let error = Trace::read(&text).expect_err(&text);
            assert_eq!(error.line, line, "{error}");
            assert!(error.problem.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_files_name_asks_for_a_format() {
        for (name, format) in [
            ("t.txt", Format::Text),
            ("t", Format::Text),
            ("a.b/t.HTML", Format::Html),
            ("t.json", Format::Json),
            ("t.perfetto.json", Format::Perfetto),
            ("t.perfetto-trace", Format::Perfetto),
        ] {
            assert_eq!(Format::of_file(Path::new(name)), format, "{name}");
        }
        for (format, name) in Format::NAMES {
            assert_eq!(name.parse(), Ok(format));
        }
        assert!("pdf".parse::<Format>().unwrap_err().contains("perfetto"));
    }
}
