// SPDX-License-Identifier: MIT OR Apache-2.0

//! What takes a driver too long.

use std::time::Duration;

use ntsim::Settings;
use ntsim::machine::Error;
use ntsim::rules::pnp_power;

use crate::Case;
use crate::io_driver::raw::{self, Bench, delay};

const MINUTE: i64 = 60_000;

pub const CASES: &[Case] = &[
    Case {
        rule: &pnp_power::POWER_IRP_BLOCKED,
        breaks: |settings| slow(settings, "SelfManagedIoSuspend", 10 * MINUTE + 1_000),
        comes_close: |settings| slow(settings, "SelfManagedIoSuspend", 10 * MINUTE - 1_000),
    },
    Case {
        rule: &pnp_power::PNP_WATCHDOG,
        breaks: |settings| slow(settings, "PrepareHardware", 6 * MINUTE + 1_000),
        comes_close: |settings| slow(settings, "PrepareHardware", 6 * MINUTE - 1_000),
    },
];

/// One of the driver's callbacks takes so long, once.
fn slow(settings: Settings, callback: &'static str, milliseconds: i64) -> Result<(), Error> {
    let mut bench = Bench::scripted(settings);
    let mut left = Some(milliseconds);
    raw::on(callback, move |_| {
        if let Some(milliseconds) = left.take() {
            delay(milliseconds);
        }
        0
    });
    bench.machine.start_device(&bench.device)?;
    bench.machine.power_down(&bench.device)?;
    bench.machine.power_up(&bench.device)?;
    bench.machine.run_for(Duration::from_secs(1))?;
    bench.machine.remove_device(&bench.device)
}
