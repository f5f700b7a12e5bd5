// SPDX-License-Identifier: MIT OR Apache-2.0

//! Clocks and short delays.

use crate::access::poke;
use crate::kernel::{CLOCK_TICK, DISPATCH_LEVEL, Kernel};
use crate::rules;
use crate::trap::kernel;

/// `KeQueryPerformanceCounter` counts in 100 ns units, like Windows 10 and later.
const PERFORMANCE_FREQUENCY: i64 = 10_000_000;

/// `KeStallExecutionProcessor`. Burns virtual time.
pub(crate) fn ke_stall_execution_processor(microseconds: u32) {
    kernel(|k| {
        let time = u64::from(microseconds) * 10;
        let before = k.ke.dispatch_time;
        k.advance(time);
        if k.irql() >= DISPATCH_LEVEL {
            k.ke.dispatch_time = before + time;
            watch(k, time);
        }
    });
}

/// How long a DPC may run, in clock ticks: `DpcTimeout`, 20 s.
const DPC_TICKS: u64 = 0x500;
/// How long the system may be at `DISPATCH_LEVEL`: `DpcWatchdogPeriod`, 120 s.
const DISPATCH_TICKS: u64 = 0x1E00;

/// The DPC watchdog, after `time` at `DISPATCH_LEVEL` or above.
fn watch(k: &mut Kernel, time: u64) {
    let me = k.running();
    let context = k.context_mut(me);
    context.stalled += time;
    let (is_dpc, ran) = (context.thread.is_none(), context.stalled / CLOCK_TICK);
    if is_dpc && ran > DPC_TICKS {
        let name = k.context(me).name.clone();
        k.broken(
            &rules::wait::DPC_TIME,
            &[ran, DPC_TICKS, 0],
            format!(
                "{name} has run for {ran} clock ticks; {DPC_TICKS}, which are 20 s, are allowed"
            ),
        );
    }
    if k.ke.dispatch_time / CLOCK_TICK > DISPATCH_TICKS {
        k.broken(
            &rules::wait::DISPATCH_TIME,
            &[DISPATCH_TICKS, 0, 0],
            format!("the system has been at DISPATCH_LEVEL or above for more than {DISPATCH_TICKS} clock ticks, which are 120 s"),
        );
    }
}

/// `KeQuerySystemTimePrecise`: now, not as of the last tick.
pub(crate) fn ke_query_system_time_precise(time: *mut i64) {
    let now = kernel(|k| k.system_time());
    poke(time, now.cast_signed());
}

/// `KeQueryInterruptTime`: as of the last tick.
pub(crate) fn ke_query_interrupt_time() -> u64 {
    kernel(|k| k.tick_time())
}

/// `KeQueryUnbiasedInterruptTime`.
pub(crate) fn ke_query_unbiased_interrupt_time() -> u64 {
    kernel(|k| k.tick_time())
}

/// `KeQueryInterruptTimePrecise`.
pub(crate) fn ke_query_interrupt_time_precise(counter: *mut u64) -> u64 {
    let now = kernel(|k| k.now);
    if !counter.is_null() {
        poke(counter, now);
    }
    now
}

/// `KeQueryPerformanceCounter`. The result is a `LARGE_INTEGER` by value,
/// which the ABI passes like a 64-bit integer.
pub(crate) fn ke_query_performance_counter(frequency: *mut i64) -> i64 {
    if !frequency.is_null() {
        poke(frequency, PERFORMANCE_FREQUENCY);
    }
    kernel(|k| (k.boot_offset + k.now).cast_signed())
}

/// `KeQueryTimeIncrement`.
pub(crate) fn ke_query_time_increment() -> u32 {
    u32::try_from(CLOCK_TICK).expect("a tick is 15.6 ms")
}
