// SPDX-License-Identifier: MIT OR Apache-2.0

//! A callback that is not a function of the one who adds the module.
//~ E0277
//~ is not the config of a module that `Meter` can own
//~ functions of `Meter` as callbacks

use dmf::prelude::*;
use dmf_modules::ScheduledTask;
use dmf_modules::scheduled_task::{Task, TaskResult};

struct Meter;
struct Clock;

impl Clock {
    fn set(&self, _: &mut Task<'_>) -> TaskResult {
        TaskResult::Success
    }
}

fn refused(add: &mut Modules<'_, Meter>) -> Result {
    add.module(ScheduledTask::config(Clock::set)).map(drop)
}

fn main() {}
