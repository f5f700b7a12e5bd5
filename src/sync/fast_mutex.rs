// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`FastMutex`].

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;

use crate::irql::{Apc, AtMostApc, Irql};
use crate::pool::Box;
use crate::status::Result;
use crate::sys;

/// A value that one thread at a time uses, at `APC_LEVEL`.
///
/// Use it for work that may wait and that no DPC takes part in; it is the
/// cheapest lock of that kind with one owner. Where most only look, use a
/// [`PushLock`](super::PushLock); where the lock is one of several objects of a
/// wait, a [`Mutex`](super::Mutex).
///
/// The owner is at `APC_LEVEL`: no APC is delivered to it, and calls that need
/// `PASSIVE_LEVEL` do not compile. It is not recursive: a thread that takes it
/// twice waits for itself, which Windows does for ever and `ntsim` reports.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::FastMutex;
///
/// # ntsim::run(|| {
/// # let irql = &mut unsafe { Irql::<Passive>::assume() };
/// let names = FastMutex::new([0_u8; 16])?;
/// let mut guard = names.lock(irql);
/// let (names, irql) = guard.parts();
/// names[0] = b'a';
/// dmf::sync::delay(irql, Duration::from_millis(1)); // allowed at APC_LEVEL
/// # drop(guard);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// What needs `PASSIVE_LEVEL` does not compile meanwhile:
///
/// ```compile_fail,E0502
/// use dmf::prelude::*;
/// use dmf::sync::FastMutex;
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &FastMutex<u32>) {
///     let guard = lock.lock(irql);
///     let thread = Thread::spawn(irql, |_| {}); // borrowed by `guard`
///     drop(guard);
/// }
/// ```
///
/// C counterpart: [`FAST_MUTEX`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/fast-mutexes-and-guarded-mutexes
pub struct FastMutex<T>(Pin<Box<Inner<T>>>);

/// # Invariants
/// `mutex` is initialized and pinned. `value` is touched only while it is owned,
/// or through `&mut FastMutex`.
struct Inner<T> {
    mutex: UnsafeCell<sys::FAST_MUTEX>,
    value: UnsafeCell<T>,
    /// The kernel links waiters to it.
    _pinned: PhantomPinned,
}

// SAFETY: a mutex owns its value as a plain field would, and the kernel
// synchronizes all access to its own part.
unsafe impl<T: Send> Send for Inner<T> {}
// SAFETY: the kernel's mutex lets one thread at a time at the value.
unsafe impl<T: Send> Sync for Inner<T> {}

impl<T> FastMutex<T> {
    /// Makes a mutex, not owned, around `value`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    ///
    /// C counterpart: [`ExInitializeFastMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializefastmutex
    pub fn new(value: T) -> Result<Self> {
        // As the inline function of the headers does it.
        let mutex = sys::FAST_MUTEX {
            Count: 1,
            ..sys::FAST_MUTEX::default()
        };
        let inner = Box::pin(Inner {
            mutex: UnsafeCell::new(mutex),
            value: UnsafeCell::new(value),
            _pinned: PhantomPinned,
        })?;
        let kind = sys::_EVENT_TYPE::SynchronizationEvent;
        // SAFETY: the mutex is valid, and nobody else has it yet.
        let event = unsafe { &raw mut (*inner.mutex.get()).Event };
        // SAFETY: the event is in pinned memory and nobody waits for it.
        unsafe { sys::ntddk::KeInitializeEvent(event, kind, 0) };
        // INVARIANT: initialized above.
        Ok(Self(inner))
    }

    /// Waits until the mutex is free, and takes it until the guard is dropped.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; raises to `APC_LEVEL`.
    ///
    /// C counterpart: [`ExAcquireFastMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirefastmutex
    pub fn lock<'a, L: AtMostApc>(&'a self, irql: &'a mut Irql<'_, L>) -> FastMutexGuard<'a, T> {
        let _ = irql;
        // SAFETY: the invariant, and the token proves the level.
        unsafe { sys::ntddk::ExAcquireFastMutex(self.0.mutex.get()) };
        self.acquired()
    }

    /// Takes the mutex if it is free, without waiting.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; raises to `APC_LEVEL`.
    ///
    /// C counterpart: [`ExTryToAcquireFastMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extrytoacquirefastmutex
    pub fn try_lock<'a, L: AtMostApc>(
        &'a self,
        irql: &'a mut Irql<'_, L>,
    ) -> Option<FastMutexGuard<'a, T>> {
        let _ = irql;
        // SAFETY: the invariant, and the token proves the level.
        let taken = unsafe { sys::ntddk::ExTryToAcquireFastMutex(self.0.mutex.get()) };
        (taken != 0).then(|| self.acquired())
    }

    /// The guard of a mutex that was just acquired.
    fn acquired(&self) -> FastMutexGuard<'_, T> {
        // INVARIANT: acquired by the caller.
        FastMutexGuard {
            inner: &self.0,
            // SAFETY: acquiring raised the level, and the guard ends it.
            irql: unsafe { Irql::assume() },
            thread: PhantomData,
        }
    }

    /// The value, without locking: nobody else can have the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `self` is borrowed mutably, so there is no guard.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> fmt::Debug for FastMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastMutex").finish_non_exhaustive()
    }
}

/// A [`FastMutex`] that is owned. Dropping it releases the mutex.
///
/// # Invariants
/// The running thread owns the mutex and is at `APC_LEVEL`.
#[must_use = "the mutex is released when the guard is dropped"]
pub struct FastMutexGuard<'a, T> {
    inner: &'a Inner<T>,
    irql: Irql<'a, Apc>,
    /// A mutex is released by the thread that took it.
    thread: PhantomData<*mut ()>,
}

impl<'a, T> FastMutexGuard<'a, T> {
    /// The value and a token of `APC_LEVEL`, with which to wait or to take another lock.
    pub fn parts(&mut self) -> (&mut T, &mut Irql<'a, Apc>) {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        (unsafe { &mut *self.inner.value.get() }, &mut self.irql)
    }

    /// A token of `APC_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Apc> {
        &mut self.irql
    }
}

impl<T> Deref for FastMutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { &*self.inner.value.get() }
    }
}

impl<T> DerefMut for FastMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        unsafe { &mut *self.inner.value.get() }
    }
}

impl<T> Drop for FastMutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::ExReleaseFastMutex(self.inner.mutex.get()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for FastMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
