// SPDX-License-Identifier: MIT OR Apache-2.0

//! A token that is taken into `with`.
//~ E0277
//~ TokenThatStaysInItsCallback
//~ cannot be shared between threads safely
//~ Irql<'_, dmf::irql::Passive>|Irql<'_, Passive>|Irql<'_, _>
//~ required by a bound in `dmf::sync::SpinLock::<T>::with`|required by a bound in `SpinLock::<T>::with`

use dmf::prelude::*;

fn refused(irql: &Irql<'_, Passive>, lock: &SpinLock<u32>, event: &Event) {
    lock.with(|_| {
        let _ = event.wait(irql, Timeout::Never);
    });
}

fn main() {}
