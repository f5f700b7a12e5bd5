// SPDX-License-Identifier: MIT OR Apache-2.0

//! An event that moves away from a wait.
//~ E0505
//~ cannot move out of `event` because it is borrowed

use dmf::prelude::*;
use dmf::sync::{Waitable, wait_any};

fn refused(irql: &Irql<'_, Passive>, event: Event) {
    let objects: [&dyn Waitable; 1] = [&event];
    drop(event);
    let _ = wait_any(irql, objects, Timeout::Never);
}

fn main() {}
