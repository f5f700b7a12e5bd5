// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device's life as a list of steps, played on a machine and told as it goes.
//!
//! ```
//! use std::time::Duration;
//! use ntsim::story::{Step, play};
//! use ntsim::Machine;
//!
//! let mut machine = Machine::default();
//! play(&mut machine, &[Step::Run(Duration::from_secs(3))], &mut |line| println!("{line}"))?;
//! assert_eq!(machine.now(), Duration::from_secs(3));
//! # Ok::<(), ntsim::machine::Error>(())
//! ```

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::bugcheck::Stop;
use crate::machine::{Error, Machine, Sleep};
use crate::trace::{Event, Format, Line, Trace};

/// One thing that happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start every device that is not started.
    Start,
    /// Let virtual time pass.
    Run(Duration),
    /// Take every device to D3.
    PowerDown,
    /// Bring every device back to D0.
    PowerUp,
    /// Remove every device in good order; drivers are unloaded.
    Remove,
    /// Take every device away; drivers are unloaded.
    SurpriseRemove,
    /// Put the system to sleep.
    Sleep(Sleep),
    /// Wake the system.
    Wake,
    /// Shut down, keep the registry, boot.
    Reboot,
}

/// The steps as they are written, apart from `run` and `sleep`, which take a value.
const WORDS: [(&str, Step); 7] = [
    ("start", Step::Start),
    ("power-down", Step::PowerDown),
    ("power-up", Step::PowerUp),
    ("remove", Step::Remove),
    ("surprise-remove", Step::SurpriseRemove),
    ("wake", Step::Wake),
    ("reboot", Step::Reboot),
];

/// How `sleep=` is followed.
const SLEEPS: [(&str, Sleep); 4] = [
    ("s1", Sleep::S1),
    ("s2", Sleep::S2),
    ("s3", Sleep::S3),
    ("s4", Sleep::Hibernate),
];

/// As in `start`, `run=30s`, `power-down`, `sleep=s3`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(time) => {
                // "1s 500ms" would be two words of a story.
                let time = humantime::format_duration(*time).to_string();
                write!(f, "run={}", time.replace(' ', ""))
            }
            Self::Sleep(how) => {
                let name = SLEEPS.iter().find(|(_, other)| other == how);
                write!(f, "sleep={}", name.map_or("s3", |(name, _)| name))
            }
            word => {
                let name = WORDS.iter().find(|(_, step)| step == word);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    }
}

/// Reads what `Display` writes, in any case.
impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_lowercase();
        if let Some((_, step)) = WORDS.iter().find(|(word, _)| *word == lower) {
            return Ok(step.clone());
        }
        let (word, value) = lower.split_once('=').unwrap_or((&lower, ""));
        match word {
            "run" => match humantime::parse_duration(value) {
                Ok(time) => Ok(Self::Run(time)),
                Err(error) => Err(format!(
                    "step \"{text}\": {error}; write a time such as run=30s or run=500ms"
                )),
            },
            "sleep" => match SLEEPS.iter().find(|(name, _)| *name == value) {
                Some((_, how)) => Ok(Self::Sleep(*how)),
                None => Err(format!("step \"{text}\": write sleep=s1, s2, s3 or s4")),
            },
            _ => Err(format!(
                "step \"{text}\": not a step; there are {}, run=TIME and sleep=STATE",
                WORDS.map(|(word, _)| word).join(", ")
            )),
        }
    }
}

/// Reads a story: steps with commas, spaces or line ends between them; what
/// follows a `#` on its line is a comment.
///
/// ```
/// use ntsim::story::{Step, parse};
///
/// let steps = parse("start, run=1s  # let it settle\nreboot")?;
/// assert_eq!(steps.len(), 3);
/// assert_eq!(steps[2], Step::Reboot);
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// The first that is not a step, with its line; and that there is none at all.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        for word in code.split(|letter: char| letter == ',' || letter.is_whitespace()) {
            if !word.is_empty() {
                let step = word.parse();
                steps.push(step.map_err(|error: String| format!("line {}: {error}", index + 1))?);
            }
        }
    }
    if steps.is_empty() {
        return Err("no steps; write one, such as start".to_owned());
    }
    Ok(steps)
}

/// What `ntsim run` does with a driver that it knows nothing about: two power
/// cycles, both kinds of removal, and a reboot.
#[must_use]
pub fn whole_life() -> Vec<Step> {
    let run = |seconds| Step::Run(Duration::from_secs(seconds));
    vec![
        Step::Start,
        run(30),
        Step::PowerDown,
        run(10),
        Step::PowerUp,
        run(30),
        Step::SurpriseRemove,
        Step::Start,
        run(10),
        Step::Reboot,
        Step::Start,
        run(10),
        Step::PowerDown,
        run(1),
        Step::PowerUp,
        run(10),
        Step::Remove,
    ]
}

/// Plays `steps`; `tell` gets the trace's lines after each.
///
/// # Errors
/// The first step's that fails; lines up to there have been told.
pub fn play(
    machine: &mut Machine,
    steps: &[Step],
    tell: &mut dyn FnMut(&Line),
) -> Result<(), Error> {
    let mut told = machine.trace().len();
    for step in steps {
        let result = one(machine, step);
        machine.trace()[told..].iter().for_each(&mut *tell);
        told = machine.trace().len();
        result?;
    }
    Ok(())
}

fn one(machine: &mut Machine, step: &Step) -> Result<(), Error> {
    let for_each = |machine: &mut Machine, act: fn(&mut Machine, &str) -> Result<(), Error>| {
        machine
            .started_devices()
            .iter()
            .try_for_each(|device| act(machine, device))
    };
    match step {
        Step::Start => machine.start_devices(),
        Step::Run(time) => Ok(machine.run_for(*time)?),
        Step::PowerDown => for_each(machine, Machine::power_down),
        Step::PowerUp => for_each(machine, Machine::power_up),
        Step::Remove => for_each(machine, Machine::remove_device),
        Step::SurpriseRemove => for_each(machine, Machine::surprise_remove),
        Step::Sleep(how) => machine.sleep(*how),
        Step::Wake => machine.wake(),
        Step::Reboot => machine.reboot(),
    }
}

/// Whether a line is part of the story that a person follows: what the machine
/// did, what the driver said, and its PnP and power callbacks.
#[must_use]
pub fn is_narrative(line: &Line) -> bool {
    match &line.what {
        Event::Machine(_) | Event::Print(_) => true,
        Event::Callback { name, .. } => {
            name.starts_with("EvtDevice") || name.starts_with("EvtDriver")
        }
        Event::Call { .. } | Event::Enter { .. } | Event::Return { .. } | Event::Device { .. } => {
            false
        }
    }
}

/// A line as a person reads it: seconds, who, what.
#[must_use]
pub fn narrate(line: &Line) -> String {
    let milliseconds = line.time / 10_000;
    let stamp = format!("{:>4}.{:03} s", milliseconds / 1000, milliseconds % 1000);
    match &line.what {
        Event::Machine(text) => format!("{stamp}  ▪ {text}"),
        Event::Print(text) => format!("{stamp}  │   {text}"),
        Event::Callback { name, args } => {
            let args = args
                .split(", ")
                .filter(|arg| !arg.starts_with("Device="))
                .collect::<Vec<_>>()
                .join(", ");
            format!("{stamp}  │ {name}({args})")
        }
        other => format!("{stamp}  │ {other}"),
    }
}

/// Writes the machine's whole trace to a file.
///
/// # Errors
/// A sentence that names the file and why it could not be written.
pub fn write_trace(
    machine: &Machine,
    stop: Option<&Stop>,
    path: &Path,
    format: Format,
) -> Result<(), String> {
    std::fs::write(path, Trace::of(machine, stop).show(format))
        .map_err(|error| format!("{}: cannot write the trace: {error}", path.display()))
}

/// The machine-readable outcome of a story.
#[derive(Debug, Serialize)]
pub struct Outcome<'a> {
    /// The seed that decided the schedule.
    pub seed: u64,
    /// `image` or `host`.
    pub front_end: &'a str,
    /// Virtual time at the end, in 100 ns units since the first boot.
    pub virtual_time: u64,
    /// The lines of the story.
    pub story: Vec<Told>,
    /// How many lines the whole trace has.
    pub trace_lines: usize,
    /// Why it ended early, if it did.
    pub stop: Option<&'a Stop>,
    /// Another error that ended it.
    pub error: Option<String>,
}

/// One line of the story in an [`Outcome`].
#[derive(Debug, Serialize)]
pub struct Told {
    /// Virtual time, in 100 ns units since the first boot.
    pub time: u64,
    /// The thread or DPC, or `machine`.
    pub who: String,
    /// `machine`, `print` or `callback`.
    pub kind: &'static str,
    /// What happened.
    pub text: String,
}

impl<'a> Outcome<'a> {
    /// Sums up a machine after `result`.
    #[must_use]
    pub fn new(
        machine: &Machine,
        seed: u64,
        front_end: &'a str,
        result: &'a Result<(), Error>,
    ) -> Self {
        let story = machine
            .trace()
            .iter()
            .filter(|line| is_narrative(line))
            .map(|line| {
                let (kind, text) = match &line.what {
                    Event::Machine(text) => ("machine", text.clone()),
                    Event::Print(text) => ("print", text.clone()),
                    Event::Callback { name, args } => ("callback", format!("{name}({args})")),
                    other => ("other", other.to_string()),
                };
                Told {
                    time: line.time,
                    who: line.who.clone(),
                    kind,
                    text,
                }
            })
            .collect();
        let (stop, error) = match result {
            Ok(()) => (None, None),
            Err(Error::Stop(stop)) => (Some(stop.as_ref()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let virtual_time = u64::try_from(machine.now().as_nanos() / 100).unwrap_or(u64::MAX);
        Self {
            seed,
            front_end,
            virtual_time,
            story,
            trace_lines: machine.trace().len(),
            stop,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_is_written() {
        let steps = [
            Step::Run(Duration::from_millis(1_500)),
            Step::Sleep(Sleep::S3),
            Step::Sleep(Sleep::Hibernate),
        ];
        for step in WORDS.map(|(_, step)| step).into_iter().chain(steps) {
            let text = step.to_string();
            assert_eq!(text.parse(), Ok(step.clone()), "{text}");
            assert_eq!(text.to_uppercase().parse(), Ok(step), "{text}");
        }
    }

    #[test]
    fn a_bad_step_is_named_with_its_line() {
        for (text, line, part) in [
            ("start\nfly", "line 2", "\"fly\": not a step"),
            ("run=fast", "line 1", "run=30s"),
            ("run", "line 1", "run=30s"),
            ("sleep=deep", "line 1", "s1, s2, s3"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(line) && error.contains(part), "{error}");
        }
        assert!(parse("  # nothing\n").unwrap_err().contains("no steps"));
    }
}
