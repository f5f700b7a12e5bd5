// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Event`] and the waits for it.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;

use super::wait::{
    Alertability, AlertableOutcome, Outcome, Wait, WaitOutcome, sealed, try_wait, wait,
};
use crate::irql::{AtMostApc, Irql};
use crate::pool::Box;
use crate::status::Result;
use crate::sys;
use crate::time::Timeout;

/// The two kinds of event.
///
/// C counterpart: `EVENT_TYPE`, of [`KeInitializeEvent`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializeevent
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Stays signaled until it is cleared, and wakes all waiters.
    Notification,
    /// Wakes one waiter, whose wait clears it.
    Synchronization,
}

/// A kernel event, in non-paged pool, where it does not move.
///
/// Use it to tell a thread that something happened. For data that goes with
/// it, put that under a [`SpinLock`](super::SpinLock).
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{EventKind, WaitOutcome};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let ready = Event::new(EventKind::Notification)?;
/// assert_eq!(ready.wait(irql, Duration::from_millis(1)), WaitOutcome::TimedOut);
/// ready.set();
/// assert_eq!(ready.wait(irql, Timeout::Never), WaitOutcome::Signaled);
/// assert!(ready.is_signaled()); // until it is cleared
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// It cannot be moved out of its pool block, nor copied:
///
/// ```compile_fail,E0277
/// fn send_by_copy<T: Copy>(_: T) {}
/// fn refused(event: dmf::sync::Event) {
///     send_by_copy(event);
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
}

impl sealed::Object for RawEvent {
    fn object(&self) -> sys::PVOID {
        self.get().cast()
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
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms], kernel mode, not alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn wait(
        &self,
        irql: &Irql<'_, impl AtMostApc>,
        timeout: impl Into<Timeout>,
    ) -> WaitOutcome {
        wait(irql, self, timeout).without_owner()
    }

    /// Waits until the event is signaled, the time is over, or the thread is alerted.
    ///
    /// Only for a thread that somebody alerts: drivers wait with [`wait`](Self::wait).
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms], kernel mode, alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn wait_alertable(
        &self,
        irql: &Irql<'_, impl AtMostApc>,
        timeout: impl Into<Timeout>,
    ) -> AlertableOutcome {
        let wait = Wait {
            alertability: Alertability::Alertable,
            ..Wait::ADVISED
        };
        match wait.one(irql, self, timeout) {
            Outcome::Signaled(_) | Outcome::Abandoned(_) => AlertableOutcome::Signaled,
            Outcome::TimedOut => AlertableOutcome::TimedOut,
            Outcome::Alerted => AlertableOutcome::Alerted,
            Outcome::UserApc => AlertableOutcome::UserApc,
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
        try_wait(self).without_owner()
    }
}

impl sealed::Object for Event {
    fn object(&self) -> sys::PVOID {
        self.0.object()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").finish_non_exhaustive()
    }
}
