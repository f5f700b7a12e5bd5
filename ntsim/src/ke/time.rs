// SPDX-License-Identifier: MIT OR Apache-2.0

//! Clocks and short delays.

use crate::access::poke;
use crate::bugcheck::BugCheck;
use crate::kernel::{CLOCK_TICK, HIGH_LEVEL};
use crate::trap::kernel;

/// `KeQueryPerformanceCounter` counts in 100 ns units, like Windows 10 and later.
const PERFORMANCE_FREQUENCY: i64 = 10_000_000;

/// `KeStallExecutionProcessor`. Burns virtual time.
pub(crate) fn ke_stall_execution_processor(microseconds: u32) {
    kernel(|k| {
        let irql = k.irql();
        if irql > HIGH_LEVEL {
            k.bug_check(BugCheck::new(
                0xC8,
                [u64::from(irql), 0, 0, 0],
                "KeStallExecutionProcessor",
            ));
        }
        k.advance(u64::from(microseconds) * 10);
    });
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
