// SPDX-License-Identifier: MIT OR Apache-2.0

//! A registry key that is open while a spin lock is taken.
//~ E0502
//~ cannot borrow `*irql` as mutable because it is also borrowed as immutable

use dmf::prelude::*;
use dmf::registry::{Access, Key};

fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>) -> Result {
    let key = Key::parameters(irql, Access::Read)?;
    lock.lock(irql, |_, _| drop(key));
    Ok(())
}

fn main() {}
