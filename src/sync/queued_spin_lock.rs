// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`QueuedSpinLock`].

use core::cell::UnsafeCell;
use core::fmt;

use super::finally;
use crate::irql::{AtMostDispatch, Dispatch, Irql};
use crate::sys;

/// A value that one processor at a time uses, at `DISPATCH_LEVEL`, in the order
/// in which they asked.
///
/// Use it instead of a [`SpinLock`](super::SpinLock) where many processors
/// contend: each spins on memory of its own. The kernel links the callers' stack
/// frames into a queue. The two ways in are those of `SpinLock`:
///
/// - [`lock`](Self::lock) borrows the caller's token, and the closure gets one of
///   `DISPATCH_LEVEL`;
/// - [`with`](Self::with) needs no token. Its closure must be [`Send`], which no
///   token is.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::QueuedSpinLock;
///
/// static COUNT: QueuedSpinLock<u32> = QueuedSpinLock::new(0);
///
/// # ntsim::run(|| {
/// # let irql = &mut unsafe { Irql::<Passive>::assume() };
/// COUNT.with(|count| *count += 1);
/// assert_eq!(COUNT.lock(irql, |count, _dispatch| *count), 1);
/// # });
/// ```
///
/// Inside, nothing that waits compiles:
///
/// ```compile_fail,E0277
/// use dmf::prelude::*;
/// use dmf::sync::QueuedSpinLock;
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &QueuedSpinLock<u32>, event: &Event) {
///     lock.lock(irql, |_, irql| { let _ = event.wait(irql, Timeout::Never); });
/// }
/// ```
///
/// C counterpart: [`KLOCK_QUEUE_HANDLE`][ms]. A lock of this type and a
/// `SpinLock` are never the same memory, which the kernel forbids.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/queued-spin-locks
///
/// # Invariants
/// `value` is touched only while `lock` is held, or through `&mut self`.
pub struct QueuedSpinLock<T> {
    /// Zero is a lock that is not held; there is nothing to initialize.
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    value: UnsafeCell<T>,
}

// SAFETY: a lock owns its value as a plain field would.
unsafe impl<T: Send> Send for QueuedSpinLock<T> {}
// SAFETY: the kernel's lock lets one processor at a time at the value.
unsafe impl<T: Send> Sync for QueuedSpinLock<T> {}

impl<T> QueuedSpinLock<T> {
    /// A lock, not held, around `value`.
    ///
    /// C counterpart: [`KeInitializeSpinLock`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializespinlock
    pub const fn new(value: T) -> Self {
        Self {
            lock: UnsafeCell::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `action` with the lock held, and gives it a token for taking
    /// another lock inside.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`KeAcquireInStackQueuedSpinLock`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlock
    pub fn lock<R>(
        &self,
        irql: &mut Irql<'_, impl AtMostDispatch>,
        action: impl FnOnce(&mut T, &mut Irql<'_, Dispatch>) -> R,
    ) -> R {
        let _ = irql;
        // SAFETY: the caller's token is borrowed for the length of this call.
        unsafe { self.hold(action) }
    }

    /// Runs `action` with the lock held.
    ///
    /// No token comes in through the value either:
    ///
    /// ```compile_fail,E0277
    /// # use dmf::prelude::*;
    /// fn hidden(irql: &Irql<'_, Passive>, event: &Event) {
    ///     let lock = dmf::sync::QueuedSpinLock::new(irql);
    ///     lock.with(|irql| event.wait(irql, Timeout::Never));
    /// }
    /// ```
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`KeAcquireInStackQueuedSpinLock`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlock
    pub fn with<R>(&self, action: impl FnOnce(&mut T) -> R + Send) -> R
    where
        T: Send,
    {
        // SAFETY: neither the closure nor the value can hold a token, which is
        // not `Send`.
        unsafe { self.hold(|value, _| action(value)) }
    }

    /// # Safety
    /// `action` uses no token of a lower level.
    unsafe fn hold<R>(&self, action: impl FnOnce(&mut T, &mut Irql<'_, Dispatch>) -> R) -> R {
        let handle = UnsafeCell::new(sys::KLOCK_QUEUE_HANDLE::default());
        // SAFETY: the lock is valid, and the handle stays where it is until the
        // lock is released.
        unsafe { sys::ntddk::KeAcquireInStackQueuedSpinLock(self.lock.get(), handle.get()) };
        finally(
            || {
                // SAFETY: acquiring raised the level, until the lock is released.
                let mut irql = unsafe { Irql::assume() };
                // SAFETY: the lock is held.
                let value = unsafe { &mut *self.value.get() };
                action(value, &mut irql)
            },
            // SAFETY: the handle is that of the lock that was acquired.
            || unsafe { sys::ntddk::KeReleaseInStackQueuedSpinLock(handle.get()) },
        )
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> fmt::Debug for QueuedSpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedSpinLock").finish_non_exhaustive()
    }
}
