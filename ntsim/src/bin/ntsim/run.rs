// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim run`: a driver's whole life, for any KMDF image.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use ntsim::explore::Tape;
use ntsim::machine::Error;
use ntsim::store::MachineDir;
use ntsim::story::{self, Outcome};
use ntsim::trace::Format;
use ntsim::{Machine, Settings, StopKind, Strategy};

use crate::end::{End, Ended, Failure};
use crate::session::dump;
use crate::subject::{STEPS, Subject};

const EXAMPLES: &str = "Examples:
  ntsim run sensor.sys
  ntsim run sensor.sys --inf sensor.inf --machine ./vm --seed 7 --trace trace.txt
  ntsim run sensor.sys --steps start,run=30s,sleep=s3,wake,reboot,start,remove
  ntsim run sensor.sys --story life.txt --processors 4 --strategy pct:3
  ntsim run sensor.sys --json | jq .stop
  ntsim run sensor.sys --trace timeline.html";

/// Install a driver image, start it, power-cycle it, remove it and unload it
///
/// The machine is a new one that is forgotten, unless --machine names its folder.
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{STEPS}"))]
pub(crate) struct Run {
    #[command(flatten)]
    subject: Subject,
    /// The number that decides the schedule
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How the schedule is chosen: random, round-robin, run-on, pct, pct:DEPTH or pct:DEPTH:STEPS
    #[arg(long, default_value_t = Strategy::Random)]
    pub(crate) strategy: Strategy,
    /// Write every call, callback and message to this file: as text, or as its name says:
    /// .json, .html, .perfetto.json
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The format of that file, whatever its name: text, json, perfetto or html
    #[arg(long, value_name = "FORMAT", requires = "trace")]
    trace_format: Option<Format>,
    /// Where the simulated machine is kept; without it, the machine is forgotten
    #[arg(long, value_name = "DIR")]
    machine: Option<PathBuf>,
    /// Tell the outcome as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn execute(&self) -> Ended {
        let driver = self.subject.read().map_err(Failure::Input)?;
        let dir = match &self.machine {
            Some(folder) => MachineDir::open_or_create(folder)?,
            None => MachineDir::in_memory(),
        };
        let tape = Tape::new();
        let settings = Settings {
            seed: self.seed,
            strategy: self.strategy.clone(),
            replay: Some(self.replay()),
            tape: Some(tape.clone()),
            ..self.subject.settings()
        };
        let mut machine = driver.install(dir, settings).map_err(Failure::Input)?;
        let steps = &driver.steps;
        let result = story::play(&mut machine, steps, &mut |line| {
            if !self.json && story::is_narrative(line) {
                println!("{}", story::narrate(line));
            }
        });
        // What drivers wrote before a stop is lost, as when the power goes.
        let kept = match &result {
            Err(Error::Stop(stop)) => dump(&mut machine, stop),
            _ => machine.commit().map(|()| None),
        };
        self.write_trace(&machine, &result)
            .map_err(Failure::Input)?;
        let dump = kept?;
        if self.json {
            let outcome = Outcome::new(&machine, self.seed, "image", &result);
            println!(
                "{}",
                serde_json::to_string_pretty(&outcome).expect("an outcome is plain data")
            );
        }
        let now = machine.now();
        drop(machine);
        match result {
            Ok(()) => {
                self.check_all_was_replayed(&tape)?;
                if !self.json {
                    println!("{} virtual seconds; nothing found", now.as_secs());
                }
                Ok(End::Done)
            }
            // Another driver's schedule was given.
            Err(Error::Stop(stop)) if stop.kind == StopKind::Diverged => {
                Err(Failure::Input(stop.message))
            }
            Err(error @ (Error::Stop(_) | Error::Driver { .. })) => {
                let dump = dump.map_or_else(String::new, |line| format!("\n{line}"));
                Err(Failure::Found(self.explain(&error) + &dump))
            }
            Err(error) => Err(Failure::Input(self.explain(&error))),
        }
    }

    fn write_trace(&self, machine: &Machine, result: &Result<(), Error>) -> Result<(), String> {
        let Some(path) = &self.trace else {
            return Ok(());
        };
        let format = self.trace_format.unwrap_or_else(|| Format::of_file(path));
        let stop = result.as_ref().err().and_then(Error::stop);
        story::write_trace(machine, stop, path, format)
    }

    /// A run that ends in good order before its schedule does is not that schedule's.
    fn check_all_was_replayed(&self, tape: &Tape) -> Result<(), Failure> {
        let Strategy::Replay(schedule) = &self.strategy else {
            return Ok(());
        };
        let (played, of) = (tape.schedule().len(), schedule.len());
        if played < of {
            let unfinished = ntsim::explore::Failure::Unfinished { played, of };
            return Err(Failure::Input(unfinished.to_string()));
        }
        Ok(())
    }

    fn explain(&self, error: &Error) -> String {
        match error {
            Error::Stop(stop) => stop.styled().to_string(),
            error => format!("{error}\nreplay: {}", self.replay()),
        }
    }

    /// What to type to see it again.
    fn replay(&self) -> String {
        if let Strategy::Replay(schedule) = &self.strategy {
            return format!("{} --schedule {schedule}", self.subject.command("replay"));
        }
        let mut command = self.subject.command("run");
        if self.strategy != Strategy::Random {
            let _ = write!(command, " --strategy {}", self.strategy);
        }
        let _ = write!(command, " --seed {}", self.seed);
        command
    }
}
