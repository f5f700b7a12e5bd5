// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`PushLock`].

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::irql::{AtMostApc, Irql};
use crate::sys;

/// A value that many threads may look at together, or one may change.
///
/// Use it for what is read often and written seldom, by threads. It is one
/// pointer large and cheap to take while nobody waits. For one owner at a time
/// use a [`FastMutex`](super::FastMutex), with DPCs a [`SpinLock`](super::SpinLock).
///
/// ```text
///            read: n + 1                  write: waits until nobody reads
///   free ──────────────► shared(n)    free ──────────────► exclusive
///     ▲                     │           ▲                     │
///     └─────────────────────┘           └─────────────────────┘
///       the last guard is dropped           the guard is dropped
/// ```
///
/// A holder stays at its level and may wait; the thread is in a critical region,
/// so normal kernel APCs, among them the one that suspends a thread, are not
/// delivered to it. It is not recursive, not even for readers: a second `read`
/// waits behind a writer that waits for the first one.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::PushLock;
///
/// static ROUTES: PushLock<[u32; 2]> = PushLock::new([1, 2]);
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// ROUTES.write(irql)[0] = 7;
/// assert_eq!(*ROUTES.read(irql), [7, 2]);
/// # });
/// ```
///
/// A reader cannot write:
///
/// ```compile_fail,E0594
/// use dmf::prelude::*;
/// fn refused(irql: &Irql<'_, Passive>, lock: &dmf::sync::PushLock<u32>) {
///     *lock.read(irql) = 1;
/// }
/// ```
///
/// C counterpart: [`EX_PUSH_LOCK`][ms], with `KeEnterCriticalRegion`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusiveex
///
/// # Invariants
/// `value` is changed only while `lock` is held exclusively, read only while it
/// is held, or touched through `&mut self`.
pub struct PushLock<T> {
    /// Zero is a lock that is not held; there is nothing to initialize.
    lock: UnsafeCell<sys::EX_PUSH_LOCK>,
    value: UnsafeCell<T>,
}

/// `EX_DEFAULT_PUSH_LOCK_FLAGS`.
const DEFAULT_FLAGS: u32 = 0;

// SAFETY: a lock owns its value as a plain field would.
unsafe impl<T: Send> Send for PushLock<T> {}
// SAFETY: readers share the value between threads, a writer moves it.
unsafe impl<T: Send + Sync> Sync for PushLock<T> {}

impl<T> PushLock<T> {
    /// A lock, not held, around `value`.
    ///
    /// C counterpart: [`ExInitializePushLock`][ms], which stores the same zero.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializepushlock
    pub const fn new(value: T) -> Self {
        Self {
            lock: UnsafeCell::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until nobody writes, and lets the caller read until the guard is dropped.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`ExAcquirePushLockSharedEx`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlocksharedex
    pub fn read<'a>(&'a self, _irql: &Irql<'_, impl AtMostApc>) -> PushLockReadGuard<'a, T> {
        // SAFETY: the token proves the level; the guard leaves the region.
        unsafe { sys::ntddk::KeEnterCriticalRegion() };
        // SAFETY: the lock is valid, and in a critical region it may be taken.
        unsafe { sys::ntddk::ExAcquirePushLockSharedEx(self.lock.get(), DEFAULT_FLAGS) };
        // INVARIANT: just acquired.
        PushLockReadGuard {
            lock: self,
            thread: PhantomData,
        }
    }

    /// Waits until nobody reads or writes, and lets the caller write until the
    /// guard is dropped.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`ExAcquirePushLockExclusiveEx`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusiveex
    pub fn write<'a>(&'a self, _irql: &Irql<'_, impl AtMostApc>) -> PushLockWriteGuard<'a, T> {
        // SAFETY: the token proves the level; the guard leaves the region.
        unsafe { sys::ntddk::KeEnterCriticalRegion() };
        // SAFETY: the lock is valid, and in a critical region it may be taken.
        unsafe { sys::ntddk::ExAcquirePushLockExclusiveEx(self.lock.get(), DEFAULT_FLAGS) };
        // INVARIANT: just acquired.
        PushLockWriteGuard {
            lock: self,
            thread: PhantomData,
        }
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> fmt::Debug for PushLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushLock").finish_non_exhaustive()
    }
}

/// A [`PushLock`] that is held for reading. Dropping it releases the lock.
///
/// # IRQL
/// To be dropped at `<= APC_LEVEL`: after the guard of a spin lock taken later.
///
/// # Invariants
/// The running thread holds the lock, shared.
#[must_use = "the lock is released when the guard is dropped"]
pub struct PushLockReadGuard<'a, T> {
    lock: &'a PushLock<T>,
    /// A lock is released by the thread that took it.
    thread: PhantomData<*mut ()>,
}

/// A [`PushLock`] that is held for writing. Dropping it releases the lock.
///
/// # IRQL
/// To be dropped at `<= APC_LEVEL`: after the guard of a spin lock taken later.
///
/// # Invariants
/// The running thread holds the lock, exclusively.
#[must_use = "the lock is released when the guard is dropped"]
pub struct PushLockWriteGuard<'a, T> {
    lock: &'a PushLock<T>,
    /// A lock is released by the thread that took it.
    thread: PhantomData<*mut ()>,
}

impl<T> Deref for PushLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for PushLockReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::ExReleasePushLockSharedEx(self.lock.lock.get(), DEFAULT_FLAGS) };
        // SAFETY: acquiring entered the region.
        unsafe { sys::ntddk::KeLeaveCriticalRegion() };
    }
}

impl<T: fmt::Debug> fmt::Debug for PushLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Deref for PushLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for PushLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for PushLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::ExReleasePushLockExclusiveEx(self.lock.lock.get(), DEFAULT_FLAGS) };
        // SAFETY: acquiring entered the region.
        unsafe { sys::ntddk::KeLeaveCriticalRegion() };
    }
}

impl<T: fmt::Debug> fmt::Debug for PushLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
