// SPDX-License-Identifier: MIT OR Apache-2.0

//! The handle of one module, where that of another is wanted.
//~ E0308
//~ expected `&Handle<ScheduledTask>`, found `&Handle<AlertableSleep>`

use dmf::prelude::*;
use dmf_modules::{AlertableSleep, ScheduledTask};

fn restart(_: &Handle<ScheduledTask>) {}

fn refused(sleep: &Handle<AlertableSleep>) {
    restart(sleep);
}

fn main() {}
