// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim run`: a driver's whole life, for any KMDF image.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ntsim::inf::{Architecture, Inf};
use ntsim::machine::Error;
use ntsim::store::{MachineDir, PackageSource};
use ntsim::story::{self, Outcome};
use ntsim::{Machine, Settings, Strategy};

const EXAMPLES: &str = "Examples:
  ntsim run sensor.sys
  ntsim run sensor.sys --inf sensor.inf --machine ./vm --seed 7 --trace trace.txt
  ntsim run sensor.sys --json | jq .stop";

/// Install a driver image, start it, power-cycle it, remove it and unload it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The driver's image, a KMDF .sys file for x64
    image: PathBuf,
    /// The INF to install it from; without one, a root-enumerated device is made for it
    #[arg(long, value_name = "FILE")]
    inf: Option<PathBuf>,
    /// The number that decides the schedule
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write every call, callback and message to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where the simulated machine is kept; without it, the machine is forgotten
    #[arg(long, value_name = "DIR")]
    machine: Option<PathBuf>,
    /// Tell the outcome as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn execute(&self) -> ExitCode {
        let mut machine = match self.prepare() {
            Ok(machine) => machine,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(1);
            }
        };
        let result = story::play(&mut machine, &story::whole_life(), &mut |line| {
            if !self.json && story::is_narrative(line) {
                println!("{}", story::narrate(line));
            }
        });
        let kept = machine.commit();
        if let Err(error) = self
            .write_trace(&machine)
            .and(kept.map_err(|error| error.to_string()))
        {
            eprintln!("error: {error}");
            return ExitCode::from(1);
        }
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
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}", self.explain(&error));
                ExitCode::from(if matches!(error, Error::Stop(_) | Error::Driver { .. }) {
                    2
                } else {
                    1
                })
            }
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
                strategy: Strategy::Random,
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

    fn write_trace(&self, machine: &Machine) -> Result<(), String> {
        let Some(path) = &self.trace else {
            return Ok(());
        };
        story::write_trace(machine, path)
    }

    fn explain(&self, error: &Error) -> String {
        let mut command = format!("ntsim run {}", self.image.display());
        if let Some(inf) = &self.inf {
            let _ = write!(command, " --inf {}", inf.display());
        }
        format!("{error}\nreplay: {command} --seed {}", self.seed)
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
