// SPDX-License-Identifier: MIT OR Apache-2.0

//! One boot of a machine that is kept in a folder, for one command.
//!
//! ```text
//!  begin ──► devices start ──► with(…) … ──► finish: time passes, shutdown, commit
//!    │            │               │             │
//!    └────────────┴── a stop ─────┴─────────────┘
//!                     └──► Minidump/0001.txt, .json; registry as before the boot
//! ```
//! A device that does not start is no reason to stop: its problem is kept in the
//! registry, and told. A bug check is: what drivers have written to the registry
//! since the boot is lost then, as when the power goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ntsim::machine::Error;
use ntsim::store::{MachineDir, Status, status};
use ntsim::story;
use ntsim::trace::Format;
use ntsim::{Machine, Settings, Stop, Strategy};

use crate::end::Failure;
use crate::place::Place;

/// What `--help` says about it.
pub(crate) const ABOUT: &str = "\
The machine is off between commands. One that starts, stops or restarts a device
boots it, starts every device that is not disabled, does its work, lets time pass
(--run-for), and shuts down. A bug check loses what drivers wrote to the registry
in that boot; what is known of it is in the folder Minidump of the machine.";

/// How a machine runs for a command.
#[derive(Args)]
#[command(next_help_heading = "When the machine runs")]
pub(crate) struct Boot {
    /// The number that decides the schedule
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How the schedule is chosen: random, round-robin, pct, pct:DEPTH or pct:DEPTH:STEPS
    #[arg(long, default_value_t = Strategy::Random)]
    strategy: Strategy,
    /// How long devices work, in virtual time, before one is stopped and before the shutdown
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    run_for: Duration,
    /// A folder with PDB files; may be given more than once
    #[arg(long, value_name = "DIR")]
    symbols: Vec<PathBuf>,
    /// Write every call, callback and message to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Tell the story as it goes
    #[arg(long)]
    verbose: bool,
}

/// A machine that runs.
pub(crate) struct Session<'a> {
    machine: Machine,
    boot: &'a Boot,
    told: usize,
    /// The devices that did not start, or failed later, and how.
    started_badly: Vec<(String, String)>,
    /// Those that did not stop.
    stopped_badly: Vec<(String, String)>,
}

/// How a session has ended.
pub(crate) struct Ran {
    /// The machine, which is off again.
    pub(crate) dir: MachineDir,
    started_badly: Vec<(String, String)>,
    stopped_badly: Vec<(String, String)>,
}

impl<'a> Session<'a> {
    /// Boots a machine and starts its devices. `replay` is the command, without
    /// its place and seed, that does the same to the machine as it is now.
    pub(crate) fn begin(
        dir: MachineDir,
        place: &Place,
        boot: &'a Boot,
        replay: &str,
    ) -> Result<Self, Failure> {
        let settings = Settings {
            replay: Some(boot.replay(replay, &place.machine)),
            seed: boot.seed,
            strategy: boot.strategy.clone(),
            symbol_path: boot.symbols.clone(),
            ..Settings::for_images()
        };
        let mut session = Self {
            machine: Machine::boot(dir, settings),
            boot,
            told: 0,
            started_badly: Vec::new(),
            stopped_badly: Vec::new(),
        };
        let devices = session.machine.dir().devices()?;
        for device in devices {
            if device.service.is_some() && device.status != Status::Disabled {
                session.start(&device.instance_id)?;
            }
        }
        Ok(session)
    }

    /// Starts a device. If it does not, that is told when all is done.
    pub(crate) fn start(&mut self, device: &str) -> Result<(), Failure> {
        if let Err(text) = self.with(|machine| machine.start_device(device))? {
            self.started_badly.push((device.to_owned(), text));
        }
        Ok(())
    }

    /// Removes a device in good order, when it has worked for a while; one that has
    /// not started need not. If its driver refuses, that is told when all is done. Tells whether it is gone.
    pub(crate) fn stop(&mut self, device: &str) -> Result<bool, Failure> {
        self.wait()?;
        let started = self.machine.started_devices();
        if !started.iter().any(|other| other == device) {
            return Ok(false);
        }
        match self.with(|machine| machine.remove_device(device))? {
            Ok(()) => Ok(true),
            Err(text) => {
                self.stopped_badly.push((device.to_owned(), text));
                Ok(false)
            }
        }
    }

    fn with(
        &mut self,
        what: impl FnOnce(&mut Machine) -> Result<(), Error>,
    ) -> Result<Result<(), String>, Failure> {
        let result = what(&mut self.machine);
        self.tell();
        match result {
            Ok(()) => Ok(Ok(())),
            Err(Error::Stop(stop)) => Err(self.crash(&stop)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Lets time pass, takes down how the devices are, and shuts down.
    pub(crate) fn finish(mut self) -> Result<Ran, Failure> {
        self.wait()?;
        for device in self.machine.dir().devices()? {
            let name = &device.instance_id;
            let problem = self.machine.problem(name);
            let is_told = self.started_badly.iter().any(|(other, _)| other == name);
            if let Some(problem) = problem
                && !is_told
            {
                let text = format!("the device failed while it worked: {}", problem.name());
                self.started_badly.push((name.clone(), text));
            }
            if problem.is_some() || self.machine.started_devices().contains(name) {
                status::record(self.machine.registry_mut(), name, problem)?;
            }
        }
        let result = self.machine.shut_down();
        self.tell();
        match result {
            Ok(()) => {}
            Err(Error::Stop(stop)) => return Err(self.crash(&stop)),
            Err(error) => return Err(error.into()),
        }
        self.write_trace(None)?;
        Ok(Ran {
            dir: self.machine.into_dir(),
            started_badly: self.started_badly,
            stopped_badly: self.stopped_badly,
        })
    }

    /// Lets the time pass that was asked for.
    fn wait(&mut self) -> Result<(), Failure> {
        match self.machine.run_for(self.boot.run_for) {
            Ok(()) => Ok(()),
            Err(stop) => Err(self.crash(&stop)),
        }
    }

    fn tell(&mut self) {
        let trace = self.machine.trace();
        if self.boot.verbose {
            let new = trace[self.told..].iter();
            for line in new.filter(|line| story::is_narrative(line)) {
                println!("{}", story::narrate(line));
            }
        }
        self.told = trace.len();
    }

    fn write_trace(&self, stop: Option<&Stop>) -> Result<(), Failure> {
        match &self.boot.trace {
            Some(path) => story::write_trace(&self.machine, stop, path, Format::of_file(path))
                .map_err(Failure::Input),
            None => Ok(()),
        }
    }

    /// Keeps what is known of a stop.
    fn crash(&mut self, stop: &Stop) -> Failure {
        self.tell();
        let traced = self.write_trace(Some(stop));
        let mut report = stop.styled().to_string();
        match dump(&mut self.machine, stop) {
            Ok(line) => report = format!("{report}\n{}", line.unwrap_or_default()),
            Err(error) => report = format!("{report}\nno dump: {error}"),
        }
        if let Err(Failure::Input(error)) = traced {
            report = format!("{report}\nno trace: {error}");
        }
        Failure::Found(report)
    }
}

/// Keeps a report in the machine's folder, if it has one. Gives the line that tells so.
pub(crate) fn dump(machine: &mut Machine, stop: &Stop) -> Result<Option<String>, Error> {
    if machine.dir().path().is_none() {
        return Ok(None);
    }
    let json = serde_json::to_string_pretty(stop).expect("a stop is plain data");
    let name = machine.add_dump(json, format!("{stop}\n"))?;
    Ok(Some(format!("dump: {name} in the machine's folder")))
}

impl Ran {
    /// Tells which devices have not started: a failure if it is `device`, or with
    /// [`None`] any.
    pub(crate) fn check_started(&self, device: Option<&str>) -> Result<(), Failure> {
        let (ours, others): (Vec<_>, Vec<_>) = self
            .started_badly
            .iter()
            .partition(|(other, _)| device.is_none_or(|ours| ours == other));
        note(&others);
        fail(&ours)
    }

    /// The same for a device that was to stop and start again.
    pub(crate) fn check_restarted(&self, device: &str) -> Result<(), Failure> {
        fail(&self.stopped_badly.iter().collect::<Vec<_>>())?;
        self.check_started(Some(device))
    }

    /// Tells which devices have not stopped, which is a failure.
    pub(crate) fn check_stopped(&self) -> Result<(), Failure> {
        note(&self.started_badly.iter().collect::<Vec<_>>());
        fail(&self.stopped_badly.iter().collect::<Vec<_>>())
    }
}

fn note(devices: &[&(String, String)]) {
    for (device, text) in devices {
        eprintln!("note: {device}: {text}");
    }
}

fn fail(devices: &[&(String, String)]) -> Result<(), Failure> {
    let lines: Vec<_> = devices
        .iter()
        .map(|(device, text)| format!("{device}: {text}"))
        .collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Failure::Found(lines.join("\n")))
    }
}

impl Boot {
    fn replay(&self, command: &str, machine: &Path) -> String {
        let mut text = format!("ntsim {command} --machine {}", machine.display());
        if self.strategy != Strategy::Random {
            text = format!("{text} --strategy {}", self.strategy);
        }
        if self.run_for != Duration::from_secs(10) {
            let time = humantime::format_duration(self.run_for).to_string();
            text = format!("{text} --run-for {}", time.replace(' ', ""));
        }
        format!("{text} --seed {}", self.seed)
    }
}
