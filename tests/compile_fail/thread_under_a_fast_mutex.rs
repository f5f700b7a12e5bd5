// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call that is limited to PASSIVE_LEVEL, at APC_LEVEL.
//~ E0308
//~ expected `&Irql<'_, Passive>`, found `&mut Irql<'_, Apc>`

use dmf::prelude::*;
use dmf::sync::FastMutex;

fn refused(irql: &mut Irql<'_, Passive>, names: &FastMutex<u32>) {
    names.lock(irql, |_, irql| {
        let _ = Thread::spawn(irql, |_| {});
    });
}

fn main() {}
