// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thread that uses the device, and may run when the device is gone.
//~ E0521
//~ borrowed data escapes outside of method
//~ argument requires that `'1` must outlive `'static`

use dmf::prelude::*;

struct Meter;

impl Device for Meter {
    fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Meter)
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        let _ = Thread::spawn(cx.irql(), move |_| self.measure());
        Ok(())
    }
}

impl Meter {
    fn measure(&self) {}
}

fn main() {}
