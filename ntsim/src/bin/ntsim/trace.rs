// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim trace`: a saved trace in another format.

use std::borrow::Cow;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ntsim::trace::{Event, Format, Line, Trace};

use crate::end::{End, Ended, Failure};

const EXAMPLES: &str = "Examples:
  ntsim run sensor.sys --trace life.json
  ntsim trace life.json --to html -o life.html
  ntsim trace life.json --filter who=worker --filter name=Wdf
  ntsim trace life.json --filter time=10..20 --to perfetto -o life.perfetto.json

A line stays if each filter lets it:
  TEXT          it contains TEXT, in whatever case
  who=NAME      its thread's or DPC's name begins so
  name=NAME     its function's or callback's name begins so
  event=EVENT   it is a call, enter, callback, return, print, machine or device
  time=A..B     it is of that time, in seconds; either end may be missing";

/// Show a saved trace as text, as a page with a timeline, or for Perfetto
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// What `--trace FILE.json` wrote
    file: PathBuf,
    /// text, html, perfetto or json; without it, what the output's name says
    #[arg(long, value_name = "FORMAT")]
    to: Option<Format>,
    /// Where to write it; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out what does not match; see below
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
}

/// Which lines stay.
#[derive(Clone, Debug)]
enum Filter {
    Contains(String),
    Who(String),
    Name(String),
    Event(String),
    /// In units of 100 ns, both ends included.
    Time(u64, u64),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("who", name)) => Ok(Self::Who(name.to_lowercase())),
            Some(("name", name)) => Ok(Self::Name(name.to_lowercase())),
            Some(("event", event)) if Event::KINDS.contains(&event) => {
                Ok(Self::Event(event.to_owned()))
            }
            Some(("event", event)) => Err(format!(
                "event {event:?}: expected one of {}",
                Event::KINDS.join(", ")
            )),
            Some(("time", range)) => {
                let (from, to) = range
                    .split_once("..")
                    .ok_or_else(|| format!("time {range:?}: expected A..B"))?;
                let from = if from.is_empty() { 0 } else { units(from)? };
                let to = if to.is_empty() { u64::MAX } else { units(to)? };
                if from > to {
                    return Err(format!("time {range:?}: it ends before it begins"));
                }
                Ok(Self::Time(from, to))
            }
            _ if text.is_empty() => Err("an empty filter".to_owned()),
            _ => Ok(Self::Contains(text.to_lowercase())),
        }
    }
}

/// Seconds with up to seven decimals, in units of 100 ns.
fn units(text: &str) -> Result<u64, String> {
    let wrong = || format!("time {text:?}: expected seconds, e.g. 12 or 0.0156250");
    let number = text.trim_end_matches('s');
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.chars().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || part.len() > 7 || !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    format!("{whole}{part:0<7}").parse().map_err(|_| wrong())
}

impl Filter {
    fn lets(&self, line: &Line) -> bool {
        let name = match &line.what {
            Event::Call { name, .. }
            | Event::Enter { name, .. }
            | Event::Callback { name, .. }
            | Event::Return { name, .. } => *name,
            Event::Print(_) | Event::Machine(_) => "",
            Event::Device { device, .. } => device.as_str(),
        };
        match self {
            Self::Contains(text) => line.to_string().to_lowercase().contains(text),
            Self::Who(who) => line.who.to_lowercase().starts_with(who),
            Self::Name(wanted) => name.to_lowercase().starts_with(wanted),
            Self::Event(wanted) => line.what.kind() == wanted,
            Self::Time(from, to) => (*from..=*to).contains(&line.time),
        }
    }
}

impl Show {
    pub(crate) fn execute(&self) -> Ended {
        let file = self.file.display();
        let input = |problem: String| Failure::Input(format!("{file}: {problem}"));
        let bytes = std::fs::read(&self.file)
            .map_err(|error| input(format!("cannot read the trace: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.split(|byte| *byte == b'\n').count();
            input(format!("line {line}: no UTF-8 text"))
        })?;
        let mut trace = Trace::read(&text).map_err(|error| input(error.to_string()))?;
        if !self.filter.is_empty() {
            let mut lines = trace.lines.into_owned();
            lines.retain(|line| self.filter.iter().all(|filter| filter.lets(line)));
            trace.lines = Cow::Owned(lines);
        }
        let format = match (&self.to, &self.output) {
            (Some(format), _) => *format,
            (None, Some(output)) => Format::of_file(output),
            (None, None) => Format::Text,
        };
        let shown = trace.show(format);
        match &self.output {
            Some(output) => std::fs::write(output, shown).map_err(|error| {
                Failure::Input(format!("{}: cannot write it: {error}", output.display()))
            })?,
            // Who closes the pipe has seen enough.
            None => _ = std::io::stdout().write_all(shown.as_bytes()),
        }
        Ok(End::Done)
    }
}
