// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`SpinLock`].

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::irql::{AtMostDispatch, Dispatch, Irql};
use crate::sys;

/// A value that one processor at a time uses, at `DISPATCH_LEVEL`.
///
/// Use it for short work that a DPC or any caller up to `DISPATCH_LEVEL` takes
/// part in. There are two ways in:
///
/// - [`lock`](Self::lock) borrows the caller's token for as long as the guard
///   lives, so a call that needs `PASSIVE_LEVEL` does not compile meanwhile;
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

    /// Takes the lock until the guard is dropped.
    ///
    /// The guard has a token of its own, [`SpinLockGuard::irql`], for taking
    /// another lock inside.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; raises to `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`KeAcquireSpinLock`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlock
    pub fn lock<'a, L: AtMostDispatch>(
        &'a self,
        irql: &'a mut Irql<'_, L>,
    ) -> SpinLockGuard<'a, T> {
        let _ = irql;
        // SAFETY: the guard borrows the token, so its holder stays at
        // DISPATCH_LEVEL. (Who forgets the guard holds the lock for ever and
        // gets the token back at a raised level: the next wait is then a bug
        // check, but no memory is touched that is not the caller's.)
        unsafe { self.acquire() }
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
        // not `Send`, and the guard is dropped before this function returns.
        let mut guard = unsafe { self.acquire() };
        action(&mut guard)
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// # Safety
    /// As long as the guard lives, no token of a lower level is used.
    unsafe fn acquire(&self) -> SpinLockGuard<'_, T> {
        // SAFETY: the lock is valid; the caller is at most at DISPATCH_LEVEL,
        // above which no code of this crate's users has a way to run.
        let previous = unsafe { sys::ntddk::KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        SpinLockGuard {
            lock: self,
            previous,
            // SAFETY: acquiring raised the level, and the guard ends it.
            irql: unsafe { Irql::assume() },
            thread: PhantomData,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock").finish_non_exhaustive()
    }
}

/// A held [`SpinLock`]. Dropping it releases the lock.
///
/// # Invariants
/// The lock is held by the processor that runs this code.
#[must_use = "the lock is released when the guard is dropped"]
pub struct SpinLockGuard<'a, T> {
    lock: &'a SpinLock<T>,
    previous: sys::KIRQL,
    irql: Irql<'a, Dispatch>,
    /// A lock is released by the processor that took it.
    thread: PhantomData<*mut ()>,
}

impl<'a, T> SpinLockGuard<'a, T> {
    /// The value and a token of `DISPATCH_LEVEL`, with which to take another lock.
    pub fn parts(&mut self) -> (&mut T, &mut Irql<'a, Dispatch>) {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        (unsafe { &mut *self.lock.value.get() }, &mut self.irql)
    }

    /// A token of `DISPATCH_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Dispatch> {
        &mut self.irql
    }
}

impl<T> Deref for SpinLockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SpinLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinLockGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the invariant; `previous` is what acquiring returned.
        unsafe { sys::ntddk::KeReleaseSpinLock(self.lock.lock.get(), self.previous) };
    }
}
