// SPDX-License-Identifier: MIT OR Apache-2.0

//! A wait with the token of a spin lock's closure.
//~ E0277
//~ this call can wait, and code at `Dispatch` level must not
//~ a token of PASSIVE_LEVEL or APC_LEVEL is needed
//~ call it after the spin lock's closure has returned

use dmf::prelude::*;

fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>, event: &Event) {
    lock.lock(irql, |_, irql| {
        let _ = event.wait(irql, Timeout::Never);
    });
}

fn main() {}
