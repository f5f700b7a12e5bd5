// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events and waits, spin locks, delays.
//!
//! # Vocabulary
//!
//! - *signaled*: an object's state in which a wait for it ends.
//! - *notification* event: stays signaled until cleared, wakes all waiters.
//! - *synchronization* event: wakes one waiter and clears itself.
//! - *outcome*: how a wait ended. It is an enum, never a status: `NT_SUCCESS`
//!   is true for a timeout too.
//!
//! ```text
//!             set                       set, notification: all waiters wake
//!   clear ───────────► signaled         set, synchronization: one waiter wakes,
//!     ▲                   │                                    and it is clear again
//!     └───────────────────┘
//!       clear, reset, or a synchronization wait that ends
//! ```
//!
//! # The wait family
//!
//! | Function | Level | Use it |
//! |---|---|---|
//! | [`Event::wait`] | PASSIVE | for one event, with a timeout |
//! | [`Event::wait_alertable`] | PASSIVE | the same, where an alert must end it |
//! | [`Event::try_wait`] | <= DISPATCH | to look without waiting |
//! | [`wait_any`] | PASSIVE | for the first of several events |
//! | [`delay`] | PASSIVE | to let time pass; other threads run |
//! | [`stall`] | any | to let at most 50 µs pass; the processor spins |
//!
//! All waits are in kernel mode and, but for `wait_alertable`, not alertable:
//! the kernel's own advice for drivers, and the reason that a wait in a driver
//! thread ends only in the ways that its outcome names.
//!
//! See [Kernel dispatcher objects][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/kernel-dispatcher-objects

mod event;
pub(crate) mod rundown;
mod spin_lock;
pub(crate) mod wait;

pub use event::{Event, EventKind};
pub use spin_lock::{SpinLock, SpinLockGuard};
pub use wait::{
    Alertability, AlertableOutcome, AnyOutcome, DelayOutcome, MAXIMUM_WAIT_OBJECTS, ObjectOutcome,
    Outcome, THREAD_WAIT_OBJECTS, Wait, WaitMode, WaitOutcome, Waitable, try_wait, wait, wait_all,
    wait_any,
};

use core::time::Duration;

use crate::irql::{AtMostApc, Irql};
use crate::status::{NtStatus, Result};
use crate::sys;

/// The processor mode of all waits of this crate: the thread's stack, where
/// events of the kernel may lie, stays in memory.
#[allow(
    clippy::cast_possible_truncation,
    reason = "KPROCESSOR_MODE is one byte, and the value is 0"
)]
pub(crate) const KERNEL_MODE: sys::KPROCESSOR_MODE = sys::_MODE::KernelMode as sys::KPROCESSOR_MODE;

/// The most that [`stall`] accepts, as the kernel's documentation advises.
pub const LONGEST_STALL: Duration = Duration::from_micros(50);

/// Lets `duration` pass while other threads run.
///
/// The delay ends on a clock tick, so it can be up to one tick (15.6 ms by
/// default) longer than asked for. It cannot be cut short: for that use
/// `AlertableSleep` of `dmf-modules`, or [`Event::wait`].
///
/// # IRQL
/// `PASSIVE_LEVEL`
///
/// C counterpart: [`KeDelayExecutionThread`][ms], kernel mode, not alertable.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread
pub fn delay(irql: &Irql<'_, impl AtMostApc>, duration: Duration) {
    // Not alertable and in kernel mode, so the only outcome is that the time passed.
    let _ = Wait::ADVISED.delay(irql, duration);
}

/// Spins for `duration`, at most [`LONGEST_STALL`].
///
/// # IRQL
/// Any.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` if `duration` is longer than that: use [`delay`].
///
/// C counterpart: [`KeStallExecutionProcessor`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-kestallexecutionprocessor
pub fn stall(duration: Duration) -> Result {
    if duration > LONGEST_STALL {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let microseconds = duration.as_nanos().div_ceil(1_000);
    let microseconds = u32::try_from(microseconds).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    // SAFETY: callable at any level.
    unsafe { sys::ntddk::KeStallExecutionProcessor(microseconds) };
    Ok(())
}

/// The kernel's union of 64 bits.
pub(crate) fn large_integer(value: i64) -> sys::LARGE_INTEGER {
    sys::LARGE_INTEGER { QuadPart: value }
}
