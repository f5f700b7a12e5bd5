// SPDX-License-Identifier: MIT OR Apache-2.0

//! A module without the part of its config that has no default.
//~ E0061
//~ this function takes 1 argument but 0 arguments were supplied
//~ argument #1 of type `fn(&_, &mut Task<'_, _>) -> TaskResult` is missing|argument #1 of type `for<'a, 'b, 'c>|argument #1 of type

use dmf::prelude::*;
use dmf_modules::ScheduledTask;

struct Meter {
    task: Handle<ScheduledTask>,
}

impl Device for Meter {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Meter { task: add.module(ScheduledTask::config())? })
    }
}

fn main() {}
