// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim run`: a driver's whole life, for any KMDF image.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ntsim::inf::{Architecture, Inf};
use ntsim::machine::Error;
use ntsim::store::{MachineDir, PackageSource};
use ntsim::story::{self, Outcome, Step};
use ntsim::trace::Format;
use ntsim::{Machine, Settings, Strategy};

use crate::end::{End, Ended, Failure};

const EXAMPLES: &str = "Examples:
  ntsim run sensor.sys
  ntsim run sensor.sys --inf sensor.inf --machine ./vm --seed 7 --trace trace.txt
  ntsim run sensor.sys --steps start,run=30s,sleep=s3,wake,reboot,start,remove
  ntsim run sensor.sys --story life.txt --processors 4 --strategy pct:3
  ntsim run sensor.sys --json | jq .stop
  ntsim run sensor.sys --trace timeline.html

Steps, in --steps and --story, with commas, spaces or line ends between them:
  start            start every device that is not started
  run=TIME         let virtual time pass: 30s, 500ms, 2h
  power-down       take every device to D3
  power-up         bring every device back to D0
  sleep=STATE      put the system to sleep: s1, s2, s3, s4
  wake             wake it
  surprise-remove  take every device away without asking
  remove           remove every device in good order; drivers are unloaded
  reboot           shut down, keep the registry, boot
In a story file, # begins a comment.";

/// Install a driver image, start it, power-cycle it, remove it and unload it
///
/// The machine is a new one that is forgotten, unless --machine names its folder.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The driver's image, a KMDF .sys file for x64
    image: PathBuf,
    /// The INF to install it from; without one, a root-enumerated device is made for it
    #[arg(long, value_name = "FILE")]
    inf: Option<PathBuf>,
    /// What happens, instead of a whole life
    #[arg(long, value_name = "STEP,...", conflicts_with = "story")]
    steps: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    story: Option<PathBuf>,
    /// The number that decides the schedule
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How the schedule is chosen: random, round-robin, pct, pct:DEPTH or pct:DEPTH:STEPS
    #[arg(long, default_value_t = Strategy::Random)]
    strategy: Strategy,
    /// How many processors the machine has, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    processors: u32,
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
        let steps = self.read_steps().map_err(Failure::Input)?;
        let mut machine = self.prepare().map_err(Failure::Input)?;
        let result = story::play(&mut machine, &steps, &mut |line| {
            if !self.json && story::is_narrative(line) {
                println!("{}", story::narrate(line));
            }
        });
        let kept = machine.commit();
        self.write_trace(&machine, &result)
            .map_err(Failure::Input)?;
        kept?;
        if self.json {
            let outcome = Outcome::new(&machine, self.seed, "image", &result);
            println!(
                "{}",
                serde_json::to_string_pretty(&outcome).expect("an outcome is plain data")
            );
        }
        match result {
            Ok(()) => {
                if !self.json {
                    println!("{} virtual seconds; nothing found", machine.now().as_secs());
                }
                Ok(End::Done)
            }
            Err(error @ (Error::Stop(_) | Error::Driver { .. })) => {
                Err(Failure::Found(self.explain(&error)))
            }
            Err(error) => Err(Failure::Input(self.explain(&error))),
        }
    }

    fn read_steps(&self) -> Result<Vec<Step>, String> {
        match (&self.steps, &self.story) {
            (Some(steps), _) => story::parse(steps).map_err(|error| {
                // There is only one line.
                format!("--steps: {}", error.trim_start_matches("line 1: "))
            }),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map_err(|error| format!("{}: cannot read the story: {error}", path.display()))
                .and_then(|text| {
                    story::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
                }),
            (None, None) => Ok(story::whole_life()),
        }
    }

    /// The machine with the driver installed and its device plugged in.
    fn prepare(&self) -> Result<Machine, String> {
        let name = file_name(&self.image)?;
        let bytes = std::fs::read(&self.image)
            .map_err(|error| format!("{}: cannot read the image: {error}", self.image.display()))?;
        // Looked at before anything is changed.
        ntsim::machine::check_image(&name, &bytes).map_err(|error| error.to_string())?;
        let package = if let Some(inf) = &self.inf {
            let package = ntsim::store::read_package(inf).map_err(|error| error.to_string())?;
            let binaries: Vec<_> = package
                .services()
                .map(|service| service.binary_name.clone())
                .collect();
            if !binaries
                .iter()
                .any(|binary| binary.eq_ignore_ascii_case(&name))
            {
                return Err(format!(
                    "{}: its services use {}, not {name}; name the image that belongs to the INF",
                    inf.display(),
                    if binaries.is_empty() {
                        "no image".to_owned()
                    } else {
                        binaries.join(", ")
                    },
                ));
            }
            package
        } else {
            let text = minimal_inf(&name);
            Inf::parse(format!("{}.inf", stem(&name)), text.as_bytes())
                .and_then(|inf| inf.validate_for(Architecture::Amd64))
                .map_err(|error| error.to_string())?
        };
        let dir = match &self.machine {
            Some(folder) => {
                MachineDir::open_or_create(folder).map_err(|error| error.to_string())?
            }
            None => MachineDir::in_memory(),
        };
        let mut machine = Machine::boot(
            dir,
            Settings {
                seed: self.seed,
                strategy: self.strategy.clone(),
                processors: self.processors,
                replay: Some(self.replay()),
                symbol_path: self.image.parent().map(Into::into).into_iter().collect(),
                ..Settings::for_images()
            },
        );
        let installed = if let Some(inf) = &self.inf {
            machine.install(inf)
        } else {
            let files = [
                (
                    format!("{}.inf", stem(&name)),
                    minimal_inf(&name).into_bytes(),
                ),
                (name.clone(), bytes),
            ]
            .into();
            machine.install_package(&package, PackageSource::Memory(&files))
        };
        let installed = installed.map_err(|error| error.to_string())?;
        if installed.devices.is_empty() {
            let model = package
                .models
                .first()
                .ok_or_else(|| format!("{}: the INF names no device", package.inf_name))?;
            machine
                .plug_in(&model.hardware_id)
                .map_err(|error| error.to_string())?;
        }
        Ok(machine)
    }

    fn write_trace(&self, machine: &Machine, result: &Result<(), Error>) -> Result<(), String> {
        let Some(path) = &self.trace else {
            return Ok(());
        };
        let format = self.trace_format.unwrap_or_else(|| Format::of_file(path));
        let stop = result.as_ref().err().and_then(Error::stop);
        story::write_trace(machine, stop, path, format)
    }

    fn explain(&self, error: &Error) -> String {
        match error {
            Error::Stop(stop) => stop.styled().to_string(),
            error => format!("{error}\nreplay: {}", self.replay()),
        }
    }

    /// What to type to see it again.
    fn replay(&self) -> String {
        let mut command = format!("ntsim run {}", self.image.display());
        if let Some(inf) = &self.inf {
            let _ = write!(command, " --inf {}", inf.display());
        }
        if let Some(steps) = &self.steps {
            let _ = write!(command, " --steps {steps:?}");
        }
        if let Some(story) = &self.story {
            let _ = write!(command, " --story {}", story.display());
        }
        if self.strategy != Strategy::Random {
            let _ = write!(command, " --strategy {}", self.strategy);
        }
        if self.processors != 2 {
            let _ = write!(command, " --processors {}", self.processors);
        }
        let _ = write!(command, " --seed {}", self.seed);
        command
    }
}

fn file_name(path: &Path) -> Result<String, String> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| format!("{}: not the name of an image file", path.display()))
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// An INF for an image that came without one.
fn minimal_inf(image: &str) -> String {
    let service = stem(image);
    format!(
        r#"[Version]
Signature = "$WINDOWS NT$"
Class = System
ClassGuid = {{4d36e97d-e325-11ce-bfc1-08002be10318}}
Provider = %Provider%
DriverVer = 01/01/2026,1.0.0.0
PnpLockdown = 1

[DestinationDirs]
DefaultDestDir = 13

[SourceDisksNames]
1 = %Disk%

[SourceDisksFiles]
{image} = 1

[Manufacturer]
%Provider% = Models,NTamd64

[Models.NTamd64]
%Device% = Install,Root\{service}

[Install.NT]
CopyFiles = Files

[Files]
{image}

[Install.NT.Services]
AddService = {service},2,Service

[Service]
ServiceType = 1
StartType = 3
ErrorControl = 1
ServiceBinary = %13%\{image}

[Strings]
Provider = "ntsim"
Disk = "{service}"
Device = "{service}"
"#
    )
}
