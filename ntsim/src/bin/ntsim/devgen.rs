// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim devgen`: makes devices for tests, as the tool of that name of the WDK does.
//!
//! See [its syntax][devgen]. A device of ntsim is root-enumerated, there
//! `/bus ROOT`.
//!
//! [devgen]: https://learn.microsoft.com/windows-hardware/drivers/devtest/devgen-command-syntax

use clap::{ArgGroup, Args};

use crate::end::{End, Ended, Failure};
use crate::place::{self, Place};
use crate::pnputil;
use crate::session::{self, Boot, Session};

const EXAMPLES: &str = r"Examples:
  ntsim devgen /add /hardwareid Root\Sensor
  ntsim devgen /add /bus ROOT /hardwareid Root\Sensor --verbose
  ntsim devgen /remove ROOT\SENSOR\0000

Options may be written /add, -add or --add, in any case.";

/// Make a root-enumerated device, or remove it, as the WDK's devgen does
#[derive(Args)]
#[command(
    after_help = EXAMPLES,
    after_long_help = [EXAMPLES, place::ABOUT, session::ABOUT].join("\n\n"),
    override_usage = "ntsim devgen /add [/bus ROOT] /hardwareid <ID>\n       \
                      ntsim devgen /remove <INSTANCE_ID>",
    group = ArgGroup::new("command").required(true)
)]
pub(crate) struct Devgen {
    /// Make a device, install the best driver that the store has for it, and start it
    #[arg(long, group = "command", requires = "hardwareid")]
    add: bool,
    /// The bus: there is only ROOT
    #[arg(long, value_name = "BUS", ignore_case = true, value_parser = ["ROOT"])]
    bus: Option<String>,
    /// The hardware id, such as Root\Sensor
    #[arg(long, value_name = "ID")]
    hardwareid: Option<String>,
    /// Remove the device of this instance id
    #[arg(long, value_name = "INSTANCE_ID", group = "command")]
    remove: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    boot: Boot,
}

impl Devgen {
    pub(crate) fn execute(&self) -> Ended {
        if let Some(device) = &self.remove {
            if self.bus.is_some() || self.hardwareid.is_some() {
                let text = "/bus and /hardwareid: belong to /add";
                return Err(Failure::Input(text.to_owned()));
            }
            return pnputil::remove(&self.place, &self.boot, device, pnputil::How::InOrder);
        }
        let hardware_id = self.hardwareid.as_deref().unwrap_or_default();
        ntsim::store::check_hardware_id(hardware_id)?;
        let mut dir = self.place.open_or_create()?;
        let id = dir.add_root_device(hardware_id)?;
        let device = dir.device(&id)?;
        println!("Device made: {id}");
        if device.service.is_none() {
            println!("The driver store has no driver for it.");
            return Ok(End::Nothing);
        }
        let session = Session::begin(dir, &self.place, &self.boot, "pnputil /scan-devices")?;
        session.finish()?.check_started(Some(&id))?;
        let name = device.description.unwrap_or_default();
        println!("Device started: {name}");
        Ok(End::Done)
    }
}
