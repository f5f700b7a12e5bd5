// SPDX-License-Identifier: MIT OR Apache-2.0

//! Something that is not an object of a wait.
//~ E0277
//~ `dmf::sync::Mutex<u32>` cannot be waited for|`Mutex<u32>` cannot be waited for
//~ Event, Semaphore, MutexClaim (Mutex::claim) and ThreadExit (Thread::exit)

use dmf::prelude::*;
use dmf::sync::{Mutex, wait};

fn refused(irql: &Irql<'_, Passive>, mutex: &Mutex<u32>) {
    let _ = wait(irql, mutex, Timeout::Never);
}

fn main() {}
