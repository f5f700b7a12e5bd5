// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Event`] and the waits for it.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr;

use super::{KERNEL_MODE, large_integer};
use crate::irql::{Irql, Passive};
use crate::pool::Box;
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// The two kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Stays signaled until it is cleared, and wakes all waiters.
    Notification,
    /// Wakes one waiter, whose wait clears it.
    Synchronization,
}

/// How a wait for one event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without the event being signaled"]
pub enum WaitOutcome {
    /// The event was signaled.
    Signaled,
    /// The time was over first.
    TimedOut,
}

/// How an alertable wait for one event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without the event being signaled"]
pub enum AlertableOutcome {
    /// The event was signaled.
    Signaled,
    /// The time was over first.
    TimedOut,
    /// The thread was alerted.
    Alerted,
    /// A user-mode APC was delivered to the thread.
    UserApc,
}

/// How a wait for the first of several events ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without an event being signaled"]
pub enum AnyOutcome {
    /// The event with this index was signaled. If several were, the lowest.
    Signaled(usize),
    /// The time was over first.
    TimedOut,
}

/// A kernel event, in non-paged pool, where it does not move.
///
/// Use it to tell a thread that something happened. For data that goes with
/// it, put that under a [`SpinLock`](super::SpinLock).
///
/// ```no_run
/// use dmf::prelude::*;
/// use dmf::sync::{EventKind, WaitOutcome};
///
/// fn example(irql: &Irql<'_, Passive>) -> Result {
///     let ready = Event::new(EventKind::Notification)?;
///     ready.set();
///     assert_eq!(ready.wait(irql, Duration::from_secs(1)), WaitOutcome::Signaled);
///     Ok(())
/// }
/// ```
///
/// C counterpart: [`KEVENT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/event-objects
pub struct Event(Pin<Box<RawEvent>>);

/// # Invariants
/// Once `initialize` was called, the kernel's event is initialized and pinned.
pub(crate) struct RawEvent {
    event: UnsafeCell<sys::KEVENT>,
    /// The kernel links waiters to it.
    _pinned: PhantomPinned,
}

// SAFETY: the kernel synchronizes all access to an event.
unsafe impl Send for RawEvent {}
// SAFETY: as above.
unsafe impl Sync for RawEvent {}

impl RawEvent {
    /// Memory for an event.
    pub(crate) fn new() -> Self {
        Self {
            event: UnsafeCell::new(sys::KEVENT::default()),
            _pinned: PhantomPinned,
        }
    }

    /// Makes it an event, not signaled.
    ///
    /// # Safety
    /// Nobody waits for it.
    pub(crate) unsafe fn initialize(self: Pin<&Self>, kind: EventKind) {
        let kind = match kind {
            EventKind::Notification => sys::_EVENT_TYPE::NotificationEvent,
            EventKind::Synchronization => sys::_EVENT_TYPE::SynchronizationEvent,
        };
        // SAFETY: the memory is valid and pinned, and by the caller's promise unused.
        unsafe { sys::ntddk::KeInitializeEvent(self.event.get(), kind, 0) };
    }

    fn get(&self) -> *mut sys::KEVENT {
        self.event.get()
    }

    /// Signals the event. Returns whether it was signaled before.
    pub(crate) fn signal(&self) -> bool {
        // SAFETY: the invariant. No wait follows, so the call is allowed at
        // DISPATCH_LEVEL.
        unsafe { sys::ntddk::KeSetEvent(self.get(), 0, 0) != 0 }
    }

    pub(crate) fn clear(&self) {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::KeClearEvent(self.get()) };
    }

    /// Waits and returns the kernel's status.
    ///
    /// # Safety
    /// The level is `<= APC_LEVEL`, or the timeout is zero and it is `<= DISPATCH_LEVEL`.
    pub(crate) unsafe fn wait(&self, timeout: Timeout, alertable: sys::BOOLEAN) -> NtStatus {
        let mut due = timeout.to_due_time().map(large_integer);
        let due = due.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: the invariant, and the caller's promise about the level.
        NtStatus::from_raw(unsafe {
            sys::ntddk::KeWaitForSingleObject(
                self.get().cast(),
                sys::_KWAIT_REASON::Executive,
                KERNEL_MODE,
                alertable,
                due,
            )
        })
    }
}

impl Event {
    /// Makes an event that is not signaled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty.
    ///
    /// C counterpart: [`KeInitializeEvent`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializeevent
    pub fn new(kind: EventKind) -> Result<Self> {
        let event = Box::pin(RawEvent::new())?;
        // SAFETY: it is new.
        unsafe { event.as_ref().initialize(kind) };
        Ok(Self(event))
    }

    /// Signals the event. Returns whether it was signaled before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeSetEvent`][ms], without priority boost.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetevent
    #[allow(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn set(&self) -> bool {
        self.0.signal()
    }

    /// Makes the event not signaled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeClearEvent`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keclearevent
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Makes the event not signaled. Returns whether it was signaled before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeResetEvent`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keresetevent
    #[allow(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn reset(&self) -> bool {
        // SAFETY: the event is initialized and pinned.
        unsafe { sys::ntddk::KeResetEvent(self.0.get()) != 0 }
    }

    /// Returns whether the event is signaled, which can have changed by now.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeReadStateEvent`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstateevent
    #[must_use]
    pub fn is_signaled(&self) -> bool {
        // SAFETY: the event is initialized and pinned.
        unsafe { sys::ntddk::KeReadStateEvent(self.0.get()) != 0 }
    }

    /// Waits until the event is signaled or the time is over.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms], kernel mode, not alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn wait(&self, _irql: &Irql<'_, Passive>, timeout: impl Into<Timeout>) -> WaitOutcome {
        // SAFETY: the token proves the level.
        match unsafe { self.0.wait(timeout.into(), 0) } {
            NtStatus::TIMEOUT => WaitOutcome::TimedOut,
            // Not alertable and in kernel mode: there is no other outcome.
            _ => WaitOutcome::Signaled,
        }
    }

    /// Waits until the event is signaled, the time is over, or the thread is alerted.
    ///
    /// Only for a thread that somebody alerts: drivers wait with [`wait`](Self::wait).
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms], kernel mode, alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn wait_alertable(
        &self,
        _irql: &Irql<'_, Passive>,
        timeout: impl Into<Timeout>,
    ) -> AlertableOutcome {
        // SAFETY: the token proves the level.
        match unsafe { self.0.wait(timeout.into(), 1) } {
            NtStatus::TIMEOUT => AlertableOutcome::TimedOut,
            NtStatus::ALERTED => AlertableOutcome::Alerted,
            NtStatus::USER_APC => AlertableOutcome::UserApc,
            _ => AlertableOutcome::Signaled,
        }
    }

    /// Takes the event if it is signaled, without waiting.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms] with a timeout of zero.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn try_wait(&self) -> WaitOutcome {
        // SAFETY: the timeout is zero.
        match unsafe { self.0.wait(Timeout::Poll, 0) } {
            NtStatus::TIMEOUT => WaitOutcome::TimedOut,
            _ => WaitOutcome::Signaled,
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").finish_non_exhaustive()
    }
}

/// The most objects of one wait (`MAXIMUM_WAIT_OBJECTS`).
pub const MAXIMUM_WAIT_OBJECTS: usize = 64;

/// Waits for the first of `N` events, 1 to 64, or until the time is over.
///
/// The wait blocks that the kernel needs for more than three objects lie on the
/// caller's stack: 48 bytes each.
///
/// ```no_run
/// use dmf::prelude::*;
/// use dmf::sync::{AnyOutcome, wait_any};
///
/// fn example(irql: &Irql<'_, Passive>, stop: &Event, work: &Event) {
///     match wait_any(irql, [stop, work], Timeout::Never) {
///         AnyOutcome::Signaled(0) => { /* stop */ }
///         AnyOutcome::Signaled(_) => { /* work */ }
///         AnyOutcome::TimedOut => unreachable!("there was no timeout"),
///     }
/// }
/// ```
///
/// # IRQL
/// `PASSIVE_LEVEL`
///
/// C counterpart: [`KeWaitForMultipleObjects`][ms] with `WaitAny`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
pub fn wait_any<const N: usize>(
    _irql: &Irql<'_, Passive>,
    events: [&Event; N],
    timeout: impl Into<Timeout>,
) -> AnyOutcome {
    const {
        assert!(
            N > 0 && N <= MAXIMUM_WAIT_OBJECTS,
            "a wait is for 1 to 64 objects"
        );
    }
    let mut objects = events.map(|event| event.0.get().cast());
    let mut blocks = [const { core::mem::MaybeUninit::<sys::KWAIT_BLOCK>::uninit() }; N];
    let mut due = timeout.into().to_due_time().map(large_integer);
    let due = due.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
    let count = N as u32;
    // SAFETY: the objects are initialized and borrowed for the length of the
    // call, there is a wait block for each, and the token proves the level.
    let status = NtStatus::from_raw(unsafe {
        sys::ntddk::KeWaitForMultipleObjects(
            count,
            objects.as_mut_ptr(),
            sys::_WAIT_TYPE::WaitAny,
            sys::_KWAIT_REASON::Executive,
            KERNEL_MODE,
            0,
            due,
            blocks.as_mut_ptr().cast(),
        )
    });
    match usize::try_from(status.to_raw()) {
        Ok(index) if index < N => AnyOutcome::Signaled(index),
        // Events are not abandoned, and the wait is not alertable.
        _ => AnyOutcome::TimedOut,
    }
}
