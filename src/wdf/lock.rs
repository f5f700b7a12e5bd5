// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`SpinLock`] and [`WaitLock`]: values behind the framework's locks.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use super::object::{Owned, no_handle, plain_attributes, raw_handle};
use crate::irql::{AtMostDispatch, Dispatch, Irql, Passive};
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// A value that one processor at a time uses, at `DISPATCH_LEVEL`, behind a
/// framework spin lock.
///
/// Use the kernel's own [`sync::SpinLock`](crate::sync::SpinLock), which needs no
/// allocation, unless something asks for a `WDFSPINLOCK`.
///
/// ```no_run
/// use dmf::prelude::*;
///
/// fn count(irql: &mut Irql<'_, Passive>) -> Result<u32> {
///     let lock = dmf::wdf::SpinLock::new(0)?;
///     *lock.lock(irql) += 1;
///     Ok(lock.with(|count| *count))
/// }
/// ```
///
/// What needs `PASSIVE_LEVEL` does not compile while the lock is held:
///
/// ```compile_fail,E0502
/// use dmf::prelude::*;
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &dmf::wdf::SpinLock<u32>) {
///     let guard = lock.lock(irql);
///     dmf::sync::delay(irql, Duration::from_secs(1));
///     drop(guard);
/// }
/// ```
///
/// C counterpart: [`WDFSPINLOCK`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfspinlockcreate
///
/// # Invariants
/// `value` is touched only while the lock is held, or through `&mut self`.
pub struct SpinLock<T> {
    object: Owned,
    value: UnsafeCell<T>,
}

// SAFETY: the framework's lock lets one processor at a time at the value.
unsafe impl<T: Send> Sync for SpinLock<T> {}

raw_handle!(SpinLock<T>, WDFSPINLOCK);

impl<T> SpinLock<T> {
    /// A lock, not held, around `value`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfSpinLockCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfspinlockcreate
    pub fn new(value: T) -> Result<Self> {
        let mut attributes = plain_attributes();
        let mut lock = no_handle();
        // SAFETY: the arguments are valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfSpinLockCreate(&raw mut attributes, &raw mut lock)
        })
        .into_result()?;
        Ok(Self {
            // SAFETY: just created, below the driver.
            object: unsafe { Owned::new(lock) },
            value: UnsafeCell::new(value),
        })
    }

    /// Takes the lock until the guard is dropped.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; raises to `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`WdfSpinLockAcquire`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfspinlockacquire
    pub fn lock<'a, L: AtMostDispatch>(
        &'a self,
        irql: &'a mut Irql<'_, L>,
    ) -> SpinLockGuard<'a, T> {
        let _ = irql;
        // SAFETY: the guard borrows the token, so its holder stays at DISPATCH_LEVEL.
        unsafe { self.acquire() }
    }

    /// Runs `action` with the lock held.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`WdfSpinLockAcquire`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfspinlockacquire
    pub fn with<R>(&self, action: impl FnOnce(&mut T) -> R + Send) -> R {
        // SAFETY: the closure is `Send`, so it has captured no token.
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
        // SAFETY: the lock is valid, and the level is at most DISPATCH_LEVEL.
        unsafe { sys::kmdf::WdfSpinLockAcquire(self.as_raw()) };
        SpinLockGuard {
            lock: self,
            // SAFETY: acquiring raised the level, and the guard ends it.
            irql: unsafe { Irql::assume() },
            thread: PhantomData,
        }
    }
}

/// A held [`SpinLock`]. Dropping it releases the lock.
///
/// # Invariants
/// The lock is held by the processor that runs this code.
#[must_use = "the lock is released when the guard is dropped"]
#[derive(Debug)]
pub struct SpinLockGuard<'a, T> {
    lock: &'a SpinLock<T>,
    irql: Irql<'a, Dispatch>,
    /// A lock is released by the processor that took it.
    thread: PhantomData<*mut ()>,
}

impl<'a, T> SpinLockGuard<'a, T> {
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
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfSpinLockRelease(self.lock.as_raw()) };
    }
}

/// A value that one thread at a time uses, at `PASSIVE_LEVEL`; others wait.
///
/// Normal kernel APCs are off while it is held, so the holder is not suspended.
/// It is not recursive: a thread that takes it twice is a bug check.
///
/// ```no_run
/// use dmf::prelude::*;
/// use dmf::wdf::WaitLock;
///
/// fn use_it(irql: &Irql<'_, Passive>, lock: &WaitLock<u32>) -> Option<u32> {
///     let mut value = lock.lock_for(irql, Timeout::After(Duration::from_millis(50)))?;
///     *value += 1;
///     Some(*value)
/// }
/// ```
///
/// It cannot be taken from a DPC:
///
/// ```compile_fail,E0308
/// use dmf::prelude::*;
///
/// fn refused(irql: &Irql<'_, Dispatch>, lock: &dmf::wdf::WaitLock<u32>) {
///     let _ = lock.lock(irql);
/// }
/// ```
///
/// C counterpart: [`WDFWAITLOCK`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfwaitlockcreate
///
/// # Invariants
/// `value` is touched only while the lock is held, or through `&mut self`.
pub struct WaitLock<T> {
    object: Owned,
    value: UnsafeCell<T>,
}

// SAFETY: the framework's lock lets one thread at a time at the value.
unsafe impl<T: Send> Sync for WaitLock<T> {}

raw_handle!(WaitLock<T>, WDFWAITLOCK);

impl<T> WaitLock<T> {
    /// A lock, not held, around `value`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfWaitLockCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfwaitlockcreate
    pub fn new(value: T) -> Result<Self> {
        let mut attributes = plain_attributes();
        let mut lock = no_handle();
        // SAFETY: the arguments are valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfWaitLockCreate(&raw mut attributes, &raw mut lock)
        })
        .into_result()?;
        Ok(Self {
            // SAFETY: just created, below the driver.
            object: unsafe { Owned::new(lock) },
            value: UnsafeCell::new(value),
        })
    }

    /// Takes the lock, however long that takes, until the guard is dropped.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`WdfWaitLockAcquire`][ms] without a timeout.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfwaitlockacquire
    pub fn lock<'a>(&'a self, _irql: &'a Irql<'_, Passive>) -> WaitLockGuard<'a, T> {
        // SAFETY: the lock is valid, and the token proves the level. Without a
        // timeout the call always succeeds.
        let _ = unsafe { sys::kmdf::WdfWaitLockAcquire(self.as_raw(), core::ptr::null_mut()) };
        WaitLockGuard {
            lock: self,
            thread: PhantomData,
        }
    }

    /// Takes the lock if that is possible within `timeout`. `None`: the time was over.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`WdfWaitLockAcquire`][ms] with a timeout.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfwaitlockacquire
    pub fn lock_for<'a>(
        &'a self,
        irql: &'a Irql<'_, Passive>,
        timeout: impl Into<Timeout>,
    ) -> Option<WaitLockGuard<'a, T>> {
        let Some(mut due) = timeout.into().to_due_time() else {
            return Some(self.lock(irql));
        };
        // SAFETY: the lock is valid, the token proves the level, and `due` is
        // valid for the length of the call.
        let status = unsafe { sys::kmdf::WdfWaitLockAcquire(self.as_raw(), &raw mut due) };
        // Not `then_some`: a guard that is made is a guard that releases.
        (NtStatus::from_raw(status) == NtStatus::SUCCESS).then(|| WaitLockGuard {
            lock: self,
            thread: PhantomData,
        })
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// A held [`WaitLock`]. Dropping it releases the lock.
///
/// # Invariants
/// The lock is held by this thread.
#[must_use = "the lock is released when the guard is dropped"]
#[derive(Debug)]
pub struct WaitLockGuard<'a, T> {
    lock: &'a WaitLock<T>,
    /// A lock is released by the thread that took it.
    thread: PhantomData<*mut ()>,
}

impl<T> Deref for WaitLockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WaitLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WaitLockGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfWaitLockRelease(self.lock.as_raw()) };
    }
}
