// SPDX-License-Identifier: MIT OR Apache-2.0

//! A token of a callback, kept for later.
//~ escapes the closure body|borrowed data escapes|lifetime may not live long enough

use dmf::prelude::*;

fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>) {
    let mut kept: Option<&Irql<'_, Dispatch>> = None;
    lock.lock(irql, |_, irql| kept = Some(irql));
}

fn main() {}
