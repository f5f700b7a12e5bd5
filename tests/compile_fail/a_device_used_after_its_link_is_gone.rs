// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a link gives access to, kept longer than the link.
//~ E0505
//~ cannot move out of `meter` because it is borrowed

use dmf::prelude::*;

struct Meter {
    reading: SpinLock<u32>,
}

fn refused(meter: Owner<Meter>) -> Result<u32> {
    let entered = meter.enter()?;
    drop(meter);
    Ok(entered.reading.with(|reading| *reading))
}

fn main() {}
