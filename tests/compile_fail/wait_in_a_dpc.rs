// SPDX-License-Identifier: MIT OR Apache-2.0

//! A wait in a DPC's callback.
//~ E0277
//~ this call can wait, and code at `Dispatch` level must not
//~ in a DPC, queue a WorkItem that calls it

use dmf::prelude::*;
use dmf::wdf::DpcRun;

fn refused(cx: &mut DpcRun<'_>) {
    dmf::sync::delay(cx.irql(), Duration::from_secs(1));
}

fn main() {}
