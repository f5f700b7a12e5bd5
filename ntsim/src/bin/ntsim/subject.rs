// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver that a command is about, and what it is put through.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ntsim::inf::{Architecture, DriverPackage, Inf};
use ntsim::store::{MachineDir, PackageSource};
use ntsim::story::{self, Step};
use ntsim::{Machine, Settings};

/// What `--help` says about the steps.
pub(crate) const STEPS: &str =
    "Steps, in --steps and --story, with commas, spaces or line ends between them:
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

/// How many processors a machine has unless it is told.
const PROCESSORS: u32 = 2;

/// The options that name a driver and what happens to it.
#[derive(Args)]
pub(crate) struct Subject {
    /// The driver's image, a KMDF .sys file for x64
    pub(crate) image: PathBuf,
    /// The INF to install it from; without one, a root-enumerated device is made for it
    #[arg(long, value_name = "FILE")]
    inf: Option<PathBuf>,
    /// What happens, instead of a whole life
    #[arg(long, value_name = "STEP,...", conflicts_with = "story")]
    steps: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    story: Option<PathBuf>,
    /// How many processors the machine has, 1 to 64
    #[arg(long, value_name = "N", default_value_t = PROCESSORS, value_parser = clap::value_parser!(u32).range(1..=64))]
    processors: u32,
}

/// The same, read.
pub(crate) struct Driver {
    name: String,
    /// The INF's file, if there is one; otherwise the INF that is made for it.
    inf: Result<PathBuf, String>,
    package: DriverPackage,
    bytes: Vec<u8>,
    /// What happens.
    pub(crate) steps: Vec<Step>,
}

impl Subject {
    /// Reads and checks all files; nothing is changed.
    pub(crate) fn read(&self) -> Result<Driver, String> {
        let steps = self.read_steps()?;
        let name = file_name(&self.image)?;
        let bytes = std::fs::read(&self.image)
            .map_err(|error| format!("{}: cannot read the image: {error}", self.image.display()))?;
        ntsim::machine::check_image(&name, &bytes).map_err(|error| error.to_string())?;
        let (inf, package) = if let Some(inf) = &self.inf {
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
            (Ok(inf.clone()), package)
        } else {
            let text = minimal_inf(&name);
            let package = Inf::parse(format!("{}.inf", stem(&name)), text.as_bytes())
                .and_then(|inf| inf.validate_for(Architecture::Amd64))
                .map_err(|error| error.to_string())?;
            (Err(text), package)
        };
        Ok(Driver {
            name,
            inf,
            package,
            bytes,
            steps,
        })
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

    /// The machine's settings, as far as these options decide them.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            processors: self.processors,
            symbol_path: self.image.parent().map(Into::into).into_iter().collect(),
            ..Settings::for_images()
        }
    }

    /// `ntsim COMMAND` with these options.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut text = format!("ntsim {command} {}", self.image.display());
        if let Some(inf) = &self.inf {
            let _ = write!(text, " --inf {}", inf.display());
        }
        if let Some(steps) = &self.steps {
            let _ = write!(text, " --steps {steps:?}");
        }
        if let Some(story) = &self.story {
            let _ = write!(text, " --story {}", story.display());
        }
        if self.processors != PROCESSORS {
            let _ = write!(text, " --processors {}", self.processors);
        }
        text
    }
}

impl Driver {
    /// Boots a machine with the driver installed and its device plugged in.
    pub(crate) fn install(&self, dir: MachineDir, settings: Settings) -> Result<Machine, String> {
        let mut machine = Machine::boot(dir, settings);
        let installed = match &self.inf {
            Ok(inf) => machine.install(inf),
            Err(text) => {
                let files = BTreeMap::from([
                    (
                        format!("{}.inf", stem(&self.name)),
                        text.clone().into_bytes(),
                    ),
                    (self.name.clone(), self.bytes.clone()),
                ]);
                machine.install_package(&self.package, PackageSource::Memory(&files))
            }
        };
        let installed = installed.map_err(|error| error.to_string())?;
        if installed.devices.is_empty() {
            let model = self
                .package
                .models
                .first()
                .ok_or_else(|| format!("{}: the INF names no device", self.package.inf_name))?;
            machine
                .plug_in(&model.hardware_id)
                .map_err(|error| error.to_string())?;
        }
        Ok(machine)
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
