// SPDX-License-Identifier: MIT OR Apache-2.0

//! A wait with the outer token, in a spin lock's closure.
//~ E0502
//~ cannot borrow `*irql` as mutable because it is also borrowed as immutable

use dmf::prelude::*;

fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>, event: &Event) {
    lock.lock(irql, |_, _| {
        let _ = event.wait(irql, Timeout::Never);
    });
}

fn main() {}
