// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`SpinLock`] and [`WaitLock`]: values behind the framework's locks.

use core::cell::UnsafeCell;

use super::object::{Owned, no_handle, plain_attributes, raw_handle};
use crate::irql::{AtMostDispatch, Dispatch, Irql, Passive};
use crate::status::{NtStatus, Result};
use crate::sync::finally;
use crate::sys;
use crate::time::Timeout;

/// A value that one processor at a time uses, at `DISPATCH_LEVEL`, behind a
/// framework spin lock.
///
/// Use the kernel's own [`sync::SpinLock`](crate::sync::SpinLock), which needs no
/// allocation, unless something asks for a `WDFSPINLOCK`.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Meter);
/// # pub struct Meter;
/// # impl Device for Meter {
/// #     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> { Ok(Meter) }
/// #     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result { assert_eq!(count(cx.irql())?, 1); Ok(()) }
/// # }
/// fn count(irql: &mut Irql<'_, Passive>) -> Result<u32> {
///     let lock = dmf::wdf::SpinLock::new(0)?;
///     lock.lock(irql, |count, _dispatch| *count += 1);
///     Ok(lock.with(|count| *count))
/// }
/// # ntsim::run_driver(Meter::DRIVER_ENTRY, |_, _| {});
/// ```
///
/// What needs `PASSIVE_LEVEL` does not compile while the lock is held:
///
/// ```compile_fail,E0277
/// use dmf::prelude::*;
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &dmf::wdf::SpinLock<u32>) {
///     lock.lock(irql, |_, irql| dmf::sync::delay(irql, Duration::from_secs(1)));
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
    /// Takes the lock apart: its handle, which the caller owns now, and its value.
    #[must_use]
    pub fn into_parts(self) -> (sys::WDFSPINLOCK, T) {
        (self.object.into_raw().cast(), self.value.into_inner())
    }

    /// Puts a lock together from a handle and a value.
    ///
    /// # Safety
    /// The lock is valid, its parent is the driver, and nobody holds it; nobody
    /// else deletes it, or relies on it to protect something that is used while
    /// this value is locked.
    #[must_use]
    pub const unsafe fn from_parts(lock: sys::WDFSPINLOCK, value: T) -> Self {
        Self {
            // SAFETY: the caller's promise.
            object: unsafe { Owned::new(lock.cast()) },
            value: UnsafeCell::new(value),
        }
    }

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
            object: unsafe { Owned::new(lock.cast()) },
            value: UnsafeCell::new(value),
        })
    }

    /// Runs `action` with the lock held, and gives it a token for taking
    /// another lock inside.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`WdfSpinLockAcquire`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfspinlockacquire
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
    ///     let lock = dmf::wdf::SpinLock::new(irql).unwrap();
    ///     lock.with(|irql| event.wait(irql, Timeout::Never));
    /// }
    /// ```
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs at `DISPATCH_LEVEL`.
    ///
    /// C counterpart: [`WdfSpinLockAcquire`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfspinlockacquire
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
        // SAFETY: the lock is valid, and the level is at most DISPATCH_LEVEL.
        unsafe { sys::kmdf::WdfSpinLockAcquire(self.as_raw()) };
        finally(
            || {
                // SAFETY: acquiring raised the level, until the lock is released.
                let mut irql = unsafe { Irql::assume() };
                // SAFETY: the lock is held.
                let value = unsafe { &mut *self.value.get() };
                action(value, &mut irql)
            },
            // SAFETY: acquired above, by this processor.
            || unsafe { sys::kmdf::WdfSpinLockRelease(self.as_raw()) },
        )
    }
}

/// A value that one thread at a time uses, at `PASSIVE_LEVEL`; others wait.
///
/// Normal kernel APCs are off while it is held, so the holder is not suspended.
/// It is not recursive: a thread that takes it twice is a bug check.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Meter);
/// # pub struct Meter;
/// # impl Device for Meter {
/// #     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> { Ok(Meter) }
/// #     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result { assert_eq!(use_it(cx.irql(), &dmf::wdf::WaitLock::new(1)?), Some(2)); Ok(()) }
/// # }
/// use dmf::wdf::WaitLock;
///
/// fn use_it(irql: &Irql<'_, Passive>, lock: &WaitLock<u32>) -> Option<u32> {
///     lock.lock_for(irql, Duration::from_millis(50), |value| {
///         *value += 1;
///         *value
///     })
/// }
/// # ntsim::run_driver(Meter::DRIVER_ENTRY, |_, _| {});
/// ```
///
/// It cannot be taken from a DPC:
///
/// ```compile_fail,E0308
/// use dmf::prelude::*;
///
/// fn refused(irql: &Irql<'_, Dispatch>, lock: &dmf::wdf::WaitLock<u32>) {
///     lock.lock(irql, |_| ());
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
    /// Takes the lock apart: its handle, which the caller owns now, and its value.
    #[must_use]
    pub fn into_parts(self) -> (sys::WDFWAITLOCK, T) {
        (self.object.into_raw().cast(), self.value.into_inner())
    }

    /// Puts a lock together from a handle and a value.
    ///
    /// # Safety
    /// The lock is valid, its parent is the driver, and nobody holds it; nobody
    /// else deletes it, or relies on it to protect something that is used while
    /// this value is locked.
    #[must_use]
    pub const unsafe fn from_parts(lock: sys::WDFWAITLOCK, value: T) -> Self {
        Self {
            // SAFETY: the caller's promise.
            object: unsafe { Owned::new(lock.cast()) },
            value: UnsafeCell::new(value),
        }
    }

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
            object: unsafe { Owned::new(lock.cast()) },
            value: UnsafeCell::new(value),
        })
    }

    /// Runs `action` with the lock held, however long it takes to get it.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`WdfWaitLockAcquire`][ms] without a timeout.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfwaitlockacquire
    pub fn lock<R>(&self, _irql: &Irql<'_, Passive>, action: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the lock is valid, and the token proves the level. Without a
        // timeout the call always succeeds.
        let _ = unsafe { sys::kmdf::WdfWaitLockAcquire(self.as_raw(), core::ptr::null_mut()) };
        // SAFETY: just acquired.
        unsafe { self.own(action) }
    }

    /// The same if it is possible to get the lock within `timeout`. `None`: the
    /// time was over.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`WdfWaitLockAcquire`][ms] with a timeout.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfwaitlockacquire
    pub fn lock_for<R>(
        &self,
        irql: &Irql<'_, Passive>,
        timeout: impl Into<Timeout>,
        action: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let Some(mut due) = timeout.into().to_due_time() else {
            return Some(self.lock(irql, action));
        };
        // SAFETY: the lock is valid, the token proves the level, and `due` is
        // valid for the length of the call.
        let status = unsafe { sys::kmdf::WdfWaitLockAcquire(self.as_raw(), &raw mut due) };
        // SAFETY: STATUS_TIMEOUT is a success code too, but not this one: acquired.
        (NtStatus::from_raw(status) == NtStatus::SUCCESS).then(|| unsafe { self.own(action) })
    }

    /// # Safety
    /// The running thread has just acquired the lock.
    unsafe fn own<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        finally(
            // SAFETY: the lock is held.
            || action(unsafe { &mut *self.value.get() }),
            // SAFETY: acquired by this thread. The level is the caller's again:
            // what raises it in the closure ends in the closure.
            || unsafe { sys::kmdf::WdfWaitLockRelease(self.as_raw()) },
        )
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}
