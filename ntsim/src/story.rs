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

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::bugcheck::Stop;
use crate::machine::{Error, Machine};
use crate::trace::{Event, Line};

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
    /// Shut down, keep the registry, boot.
    Reboot,
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
        Event::Call { .. } | Event::Enter { .. } | Event::Return { .. } => false,
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

/// Writes the machine's whole trace to a file, a line each.
///
/// # Errors
/// A sentence that names the file and why it could not be written.
pub fn write_trace(machine: &Machine, path: &Path) -> Result<(), String> {
    let mut text = String::new();
    for line in machine.trace() {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    std::fs::write(path, text)
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
