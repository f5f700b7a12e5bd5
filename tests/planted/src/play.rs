// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plays a driver's scenario under many schedules.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ntsim::explore::{Campaign, Explorer, Seeds};
use ntsim::machine::Error;
use ntsim::{File, Machine, Settings};

use crate::table::{Bug, Driver};

/// Which of the two drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// The faulty one.
    Faulty,
    /// The fixed one.
    Fixed,
}

/// What a program does on its simulated thread.
pub type Program = Box<dyn FnOnce()>;

/// How long a bug is searched.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a scenario works on: a machine with the driver installed.
pub struct Bench {
    /// The machine.
    pub machine: Machine,
    /// The device's instance id.
    pub device: String,
}

impl Bench {
    /// Installs one of a bug's drivers on a fresh machine.
    ///
    /// # Errors
    /// Those of the machine, as for all functions here.
    ///
    /// # Panics
    /// If the image of a driver in C was not built.
    pub fn new(bug: &Bug, twin: Twin, settings: Settings) -> Result<Self, Error> {
        match bug.driver {
            Driver::C => {
                let directory = images().expect("PLANTED_IMAGES names the directory of images");
                let mut machine = Machine::new(Settings {
                    stack_size: Settings::for_images().stack_size,
                    symbol_path: vec![directory.clone()],
                    ..settings
                });
                let device = machine.add_image("Planted", image(&directory, bug.name, twin))?;
                Ok(Self { machine, device })
            }
            Driver::Raw(faulty, fixed) | Driver::Dmf(faulty, fixed) => {
                let mut machine = Machine::new(settings);
                let entry = match twin {
                    Twin::Faulty => faulty,
                    Twin::Fixed => fixed,
                };
                let device = machine.add_driver("Planted", entry)?;
                Ok(Self { machine, device })
            }
        }
    }

    /// Starts the device.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn start(&mut self) -> Result<(), Error> {
        self.machine.start_device(&self.device)
    }

    /// Starts the device, and opens it.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn start_and_open(&mut self) -> Result<File, Error> {
        self.start()?;
        self.open()
    }

    /// Opens the device.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn open(&mut self) -> Result<File, Error> {
        self.machine.open(&self.device)
    }

    /// Plays programs at once, each on a thread of its own, and waits for them.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn at_once<const N: usize>(&mut self, programs: [(&str, Program); N]) -> Result<(), Error> {
        let threads = programs.map(|(name, program)| self.machine.spawn_thread(name, program));
        for thread in threads {
            self.machine.join(thread)?;
        }
        Ok(())
    }

    /// Takes the device to D3 and back.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn power_cycle(&mut self) -> Result<(), Error> {
        self.machine.power_down(&self.device)?;
        self.machine.power_up(&self.device)
    }

    /// Removes the device, which unloads the driver.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn remove(&mut self) -> Result<(), Error> {
        self.machine.remove_device(&self.device)
    }

    /// Closes the file and removes the device.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn end(&mut self, file: File) -> Result<(), Error> {
        self.machine.close(file)?;
        self.remove()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn run_for(&mut self, milliseconds: u64) -> Result<(), Error> {
        Ok(self.machine.run_for(Duration::from_millis(milliseconds))?)
    }
}

/// The directory that the images of the drivers in C are in, if they were built.
#[must_use]
pub fn images() -> Option<PathBuf> {
    std::env::var_os("PLANTED_IMAGES").map(PathBuf::from)
}

/// Read once: many schedules are played.
fn image(directory: &Path, name: &str, twin: Twin) -> Vec<u8> {
    static READ: Mutex<Option<HashMap<PathBuf, Vec<u8>>>> = Mutex::new(None);
    let path = match twin {
        Twin::Faulty => directory.join(format!("{name}.sys")),
        Twin::Fixed => directory.join(format!("{name}-fixed.sys")),
    };
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    read.get_or_insert_default()
        .entry(path)
        .or_insert_with_key(|path| {
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .clone()
}

/// Plays one of a bug's drivers under the schedules of these seeds, with the
/// explorer's default settings.
#[must_use]
pub fn explore(bug: &Bug, twin: Twin, seeds: Seeds, time: Duration) -> Campaign {
    Explorer::new()
        .seeds(seeds)
        .time_limit(time)
        .run(|settings| {
            let mut bench = Bench::new(bug, twin, settings)?;
            (bug.scenario)(&mut bench)
        })
}

/// Searches a bug from that seed on.
///
/// # Errors
/// What is wrong with what was found, with the report.
pub fn find(bug: &Bug, seed: u64) -> Result<Campaign, String> {
    let seeds = Seeds::new(seed..u64::MAX);
    let campaign = explore(bug, Twin::Faulty, seeds, PATIENCE);
    match &campaign.finding {
        None => Err(format!(
            "{}: not found in {} schedules, {:?}",
            bug.name, campaign.schedules, campaign.time
        )),
        Some(finding) => match finding.failure.stop().map(|stop| bug.judge(stop)) {
            Some(Ok(())) => Ok(campaign),
            Some(Err(why)) => Err(format!("{why}\n{finding}")),
            None => Err(format!("{}: something else:\n{finding}", bug.name)),
        },
    }
}

/// Plays the fixed twin under so many schedules.
///
/// # Errors
/// The report, if it does not pass.
pub fn pass(bug: &Bug, schedules: u64) -> Result<Campaign, String> {
    let campaign = explore(bug, Twin::Fixed, Seeds::new(0..schedules), Duration::MAX);
    match &campaign.finding {
        None => Ok(campaign),
        Some(finding) => Err(format!("{}: its twin:\n{finding}", bug.name)),
    }
}
