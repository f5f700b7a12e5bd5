// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim replay`: what `ntsim explore` has found, again.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ntsim::Strategy;
use ntsim::explore::Schedule;

use crate::end::{Ended, Failure};
use crate::run::Run;
use crate::subject::STEPS;

const EXAMPLES: &str = "Examples:
  ntsim replay sensor.sys --schedule nts1-eNpjZmJiZmBiAAAAQgAN
  ntsim replay sensor.sys --schedule-file found.txt --trace trace.txt
  ntsim replay sensor.sys --seed 7 --strategy pct:2:512

A schedule is one of an image, an INF, steps, processors and a version of ntsim. If
one of them is another, the run is stopped where it differs.";

/// Play one schedule of a driver image: one that `ntsim explore` gave, or a seed's
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{STEPS}"))]
#[command(group = clap::ArgGroup::new("which").required(true).args(["schedule", "schedule_file", "seed"]))]
pub(crate) struct Replay {
    /// The schedule
    #[arg(long, conflicts_with = "strategy")]
    schedule: Option<Schedule>,
    /// A file with the schedule
    #[arg(long, value_name = "FILE", conflicts_with = "strategy")]
    schedule_file: Option<PathBuf>,
    #[command(flatten)]
    run: Run,
}

impl Replay {
    pub(crate) fn execute(mut self) -> Ended {
        let schedule = match (self.schedule.take(), &self.schedule_file) {
            (Some(schedule), _) => Some(schedule),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::Input(format!(
                        "{}: cannot read the schedule: {error}",
                        path.display()
                    ))
                })?;
                let schedule = text.parse::<Schedule>();
                Some(
                    schedule
                        .map_err(|error| Failure::Input(format!("{}: {error}", path.display())))?,
                )
            }
            (None, None) => None,
        };
        if let Some(schedule) = schedule {
            self.run.strategy = Strategy::Replay(Arc::new(schedule));
        }
        self.run.execute()
    }
}
