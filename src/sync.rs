// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waiting, and taking turns: the kernel's dispatcher objects, its locks, delays.
//!
//! # Vocabulary
//!
//! - *dispatcher object*: one that a thread can wait for ([`Waitable`]).
//! - *signaled*: an object's state in which a wait for it ends.
//! - *acquire*: what the end of a wait does to the object: it clears a
//!   synchronization event, takes one from a semaphore, makes the thread the
//!   owner of a mutex, and leaves notification events and threads as they are.
//! - *outcome*: how a wait ended. It is an enum, never a status: `NT_SUCCESS`
//!   is true for a timeout, an alert and a user APC too.
//! - *alert*: what another thread does to end an alertable wait.
//!
//! # The wait family
//!
//! | Object | Signaled when | The end of a wait |
//! |---|---|---|
//! | [`Event`], notification | set, until cleared | changes nothing: all waiters wake |
//! | [`Event`], synchronization | set, until one wait ends | clears it: one waiter wakes |
//! | [`Semaphore`] | its count is not 0 | takes one |
//! | [`Mutex`] (a [`MutexClaim`]) | nobody owns it, or the waiter does | makes the waiter the owner |
//! | [`ThreadExit`](crate::thread::ThreadExit) | the thread has ended | changes nothing |
//!
//! | Function | Level | Ends with |
//! |---|---|---|
//! | [`wait`], [`Event::wait`], [`Semaphore::acquire`], [`Mutex::lock`] | <= APC | signaled, timed out; abandoned for a mutex |
//! | [`wait_any`] | <= APC | signaled(index), abandoned(index), timed out |
//! | [`wait_all`] | <= APC | all signaled, one was abandoned, timed out |
//! | [`try_wait`], [`Event::try_wait`], [`Semaphore::try_acquire`] | <= DISPATCH | the same, at once |
//! | [`Wait::one`], [`Wait::any`], [`Wait::all`] | <= APC | all five, when mode and alertability are chosen |
//! | [`delay`], [`Wait::delay`] | <= APC | the time passed; alerted, user APC if chosen |
//! | [`stall`] | any | at most 50 µs passed; the processor spins |
//!
//! A wait is in kernel mode and not alertable unless a [`Wait`] says otherwise:
//! the kernel's own advice for drivers, and the reason that a wait in a driver
//! thread ends only in the ways that its outcome names.
//!
//! ```text
//!                  signaled at once, or Timeout::Poll
//!   wait ────────────────────────────────────────────► outcome
//!     │ else                                              ▲
//!     ▼                                                   │
//!   waiting ── an object is signaled (in order of arrival)┤
//!           ── the timeout's clock tick                   ┤
//!           ── an alert, or a user APC, if chosen         ┘
//! ```
//!
//! A wait's timeout ends on a clock tick (15.6 ms apart by default), never too early.
//!
//! # The locks
//!
//! | Lock | Who | The holder's level | May the holder wait |
//! |---|---|---|---|
//! | [`SpinLock`] | one processor | DISPATCH | no |
//! | [`QueuedSpinLock`] | one processor, in order | DISPATCH | no |
//! | [`FastMutex`] | one thread | APC | yes |
//! | [`PushLock`] | readers, or one writer | unchanged, normal APCs off | yes |
//! | [`Mutex`] | one thread | unchanged, normal APCs off | yes, and for it and others at once |
//! | [`RundownProtection`] | all, until it is run down | unchanged | yes |
//!
//! None is recursive. A lock is held for the length of a closure, which no code
//! can forget to end:
//!
//! - `lock(token, |value, …| …)`, and `read` and `write` of a push lock. A lock
//!   that raises the level borrows the caller's [token](crate::irql) mutably and
//!   gives the closure one of the new level, so calls that the level forbids do
//!   not compile. A lock that leaves the level as it is borrows the token shared,
//!   and the closure goes on using it.
//! - `with(|value| …)`, of spin locks, for callers without a token. The closure
//!   must be [`Send`], which no token is.
//!
//! What a closure returns is what the call returns; the value and the token are
//! borrowed for its length only and cannot leave it. A panic of the closure, on
//! the host, releases the lock.
//!
//! See [Kernel dispatcher objects][objects] and [Synchronization techniques][locks].
//!
//! [objects]: https://learn.microsoft.com/windows-hardware/drivers/kernel/kernel-dispatcher-objects
//! [locks]: https://learn.microsoft.com/windows-hardware/drivers/kernel/synchronization-techniques

mod event;
mod fast_mutex;
mod mutex;
mod protection;
mod push_lock;
mod queued_spin_lock;
pub(crate) mod rundown;
mod semaphore;
mod spin_lock;
pub(crate) mod wait;

pub use event::{Event, EventKind};
pub use fast_mutex::FastMutex;
pub use mutex::{Mutex, MutexClaim, MutexOutcome};
pub use protection::{RundownGuard, RundownProtection};
pub use push_lock::PushLock;
pub use queued_spin_lock::QueuedSpinLock;
pub use semaphore::Semaphore;
pub use spin_lock::SpinLock;
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
/// ```
/// use dmf::prelude::*;
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let before = Instant::now();
/// dmf::sync::delay(irql, Duration::from_millis(20));
/// assert!(before.elapsed() >= Duration::from_millis(20));
/// # });
/// ```
///
/// # IRQL
/// `<= APC_LEVEL`
///
/// C counterpart: [`KeDelayExecutionThread`][ms], kernel mode, not alertable.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread
pub fn delay(irql: &Irql<'_, impl AtMostApc>, duration: Duration) {
    // Not alertable and in kernel mode, so the only outcome is that the time passed.
    let _ = Wait::ADVISED.delay(irql, duration);
}

/// Spins for `duration`, at most [`LONGEST_STALL`]. Rounded up to microseconds.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::stall;
///
/// # ntsim::run(|| {
/// assert_eq!(stall(Duration::from_micros(50)), Ok(()));
/// assert_eq!(stall(Duration::from_micros(51)), Err(NtStatus::INVALID_PARAMETER)); // delay
/// # });
/// ```
///
/// # IRQL
/// Any.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` if `duration` is longer than that: use [`delay`].
///
/// C counterpart: [`KeStallExecutionProcessor`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kestallexecutionprocessor
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

/// Runs `action` and then `last`: also when `action` panics, on the host.
pub(crate) fn finally<R>(action: impl FnOnce() -> R, last: impl Fn()) -> R {
    struct Last<F: Fn()>(F);
    impl<F: Fn()> Drop for Last<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let _last = Last(last);
    action()
}
