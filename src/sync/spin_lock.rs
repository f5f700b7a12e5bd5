// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`SpinLock`].

use core::cell::UnsafeCell;
use core::fmt;

use super::finally;
use crate::irql::{AtMostDispatch, Dispatch, Irql};
use crate::sys;

/// A value that one processor at a time uses, at `DISPATCH_LEVEL`.
///
/// Use it for short work that a DPC or any caller up to `DISPATCH_LEVEL` takes
/// part in. There are two ways in:
///
/// - [`lock`](Self::lock) borrows the caller's token, and the closure gets one of
///   `DISPATCH_LEVEL`: a call that needs `PASSIVE_LEVEL` does not compile in it;
/// - [`with`](Self::with) needs no token. Its closure must be [`Send`], which
///   no token is, so none can be used inside.
///
/// ```
/// use dmf::prelude::*;
///
/// static COUNT: SpinLock<u32> = SpinLock::new(0);
///
/// fn at_any_level() -> u32 {
///     COUNT.with(|count| { *count += 1; *count })
/// }
///
/// # ntsim::run(|| {
/// # let irql = &mut unsafe { Irql::<Passive>::assume() };
/// assert_eq!(at_any_level(), 1);
/// assert_eq!(COUNT.lock(irql, |count, _dispatch| *count), 1);
/// # });
/// ```
///
/// A token does not get into `with`:
///
/// ```compile_fail,E0277
/// use dmf::prelude::*;
///
/// fn refused(irql: &Irql<'_, Passive>, lock: &SpinLock<u32>, event: &Event) {
///     lock.with(|_| { let _ = event.wait(irql, Timeout::Never); });
/// }
/// ```
///
/// Taking a lock that one holds already deadlocks, on Windows as in `ntsim`,
/// which reports it.
///
/// C counterpart: [`KSPIN_LOCK`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-spin-locks
///
/// # Invariants
/// `value` is touched only while `lock` is held, or through `&mut self`.
pub struct SpinLock<T> {
    /// Zero is a lock that is not held; there is nothing to initialize.
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    value: UnsafeCell<T>,
}

// SAFETY: a lock owns its value as a plain field would.
unsafe impl<T: Send> Send for SpinLock<T> {}
// SAFETY: the kernel's lock lets one processor at a time at the value.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
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
    /// Neither token nor value leaves the closure:
    ///
    /// ```compile_fail
    /// # use dmf::prelude::*;
    /// fn kept(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>) {
    ///     let _value = lock.lock(irql, |value, _| value);
    /// }
    /// ```
    ///
    /// ```compile_fail
    /// # use dmf::prelude::*;
    /// fn kept(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>) {
    ///     let _token = lock.lock(irql, |_, dispatch| dispatch);
    /// }
    /// ```
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`KeAcquireSpinLock`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlock
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
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`KeAcquireSpinLock`][ms].
    ///
    /// No token comes in through the value either:
    ///
    /// ```compile_fail,E0277
    /// # use dmf::prelude::*;
    /// fn hidden(irql: &Irql<'_, Passive>, event: &dmf::sync::Event) {
    ///     let lock = SpinLock::new(irql);
    ///     lock.with(|irql| event.wait(irql, dmf::time::Timeout::Never));
    /// }
    /// ```
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlock
    pub fn with<R>(&self, action: impl FnOnce(&mut T) -> R + Send) -> R
    where
        T: Send,
    {
        // SAFETY: neither the closure nor the value can hold a token, which is
        // not `Send`.
        unsafe { self.hold(|value, _| action(value)) }
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// # Safety
    /// `action` uses no token of a lower level.
    unsafe fn hold<R>(&self, action: impl FnOnce(&mut T, &mut Irql<'_, Dispatch>) -> R) -> R {
        // SAFETY: the lock is valid; the caller is at most at DISPATCH_LEVEL,
        // above which no code of this crate's users has a way to run.
        let previous = unsafe { sys::ntddk::KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        finally(
            || {
                // SAFETY: acquiring raised the level, until the lock is released.
                let mut irql = unsafe { Irql::assume() };
                // SAFETY: the lock is held.
                let value = unsafe { &mut *self.value.get() };
                action(value, &mut irql)
            },
            // SAFETY: acquired above, by this processor; `previous` is what that returned.
            || unsafe { sys::ntddk::KeReleaseSpinLock(self.lock.get(), previous) },
        )
    }
}

impl<T: fmt::Debug> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock").finish_non_exhaustive()
    }
}
