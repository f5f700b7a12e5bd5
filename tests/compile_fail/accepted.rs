// SPDX-License-Identifier: MIT OR Apache-2.0

//! What compiles: so that the others are refused for what they do.

use dmf::prelude::*;
use dmf_modules::AlertableSleep;

dmf::driver!(Meter);

pub struct Meter {
    sleep: Handle<AlertableSleep>,
    reading: SpinLock<u32>,
}

impl Device for Meter {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Meter {
            sleep: add.module(AlertableSleep::config().event_count(1))?,
            reading: SpinLock::new(0),
        })
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        self.reading.lock(cx.irql(), |reading, _| *reading += 1);
        dmf::sync::delay(cx.irql(), Duration::from_millis(1));
        let _ = self.sleep.try_sleep(0)?;
        Ok(())
    }
}

fn main() {
    let _ = Meter::DRIVER_ENTRY;
}
