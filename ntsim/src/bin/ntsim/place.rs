// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which simulated machine a command is about.

use std::path::PathBuf;

use clap::Args;
use ntsim::store::{MachineDir, StoreError};

/// What `--help` says about it.
pub(crate) const ABOUT: &str = "\
The machine is the folder that --machine names, else the environment variable
NTSIM_MACHINE, else ntsim-machine here. A command that adds something to a folder
that does not exist makes a new machine of it.";

#[derive(Args)]
pub(crate) struct Place {
    /// The folder of the simulated machine
    #[arg(
        long,
        value_name = "DIR",
        env = "NTSIM_MACHINE",
        default_value = "ntsim-machine"
    )]
    pub(crate) machine: PathBuf,
}

impl Place {
    /// Opens the machine to read it.
    pub(crate) fn look(&self) -> Result<MachineDir, StoreError> {
        MachineDir::look(&self.machine)
    }

    /// Opens the machine to change it.
    pub(crate) fn open(&self) -> Result<MachineDir, StoreError> {
        MachineDir::open(&self.machine)
    }

    /// The same, and makes a new one if there is none. To be called when nothing
    /// else can be wrong any more.
    pub(crate) fn open_or_create(&self) -> Result<MachineDir, StoreError> {
        MachineDir::open_or_create(&self.machine)
    }
}
