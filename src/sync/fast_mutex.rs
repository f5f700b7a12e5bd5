// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`FastMutex`].

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;

use super::finally;
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
/// names.lock(irql, |names, irql| {
///     names[0] = b'a';
///     dmf::sync::delay(irql, Duration::from_millis(1)); // allowed at APC_LEVEL
/// });
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// What needs `PASSIVE_LEVEL` does not compile meanwhile:
///
/// ```compile_fail,E0308
/// use dmf::prelude::*;
/// use dmf::sync::FastMutex;
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &FastMutex<u32>) {
///     lock.lock(irql, |_, irql| { let _ = Thread::spawn(irql, |_| {}); });
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

    /// Waits until the mutex is free, and runs `action` as its owner. Gives it a
    /// token with which to wait or to take another lock.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `action` runs at `APC_LEVEL`.
    ///
    /// C counterpart: [`ExAcquireFastMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirefastmutex
    pub fn lock<R>(
        &self,
        irql: &mut Irql<'_, impl AtMostApc>,
        action: impl FnOnce(&mut T, &mut Irql<'_, Apc>) -> R,
    ) -> R {
        let _ = irql;
        // SAFETY: the invariant, and the token proves the level.
        unsafe { sys::ntddk::ExAcquireFastMutex(self.0.mutex.get()) };
        // SAFETY: just acquired; the caller's token is borrowed until the return.
        unsafe { self.own(action) }
    }

    /// The same if the mutex is free, without waiting. `None`: it is not.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `action` runs at `APC_LEVEL`.
    ///
    /// C counterpart: [`ExTryToAcquireFastMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extrytoacquirefastmutex
    pub fn try_lock<R>(
        &self,
        irql: &mut Irql<'_, impl AtMostApc>,
        action: impl FnOnce(&mut T, &mut Irql<'_, Apc>) -> R,
    ) -> Option<R> {
        let _ = irql;
        // SAFETY: the invariant, and the token proves the level.
        let taken = unsafe { sys::ntddk::ExTryToAcquireFastMutex(self.0.mutex.get()) };
        // SAFETY: just acquired; the caller's token is borrowed until the return.
        (taken != 0).then(|| unsafe { self.own(action) })
    }

    /// # Safety
    /// The running thread has just acquired the mutex, and `action` uses no
    /// token of a lower level.
    unsafe fn own<R>(&self, action: impl FnOnce(&mut T, &mut Irql<'_, Apc>) -> R) -> R {
        finally(
            || {
                // SAFETY: acquiring raised the level, until the mutex is released.
                let mut irql = unsafe { Irql::assume() };
                // SAFETY: the mutex is owned.
                let value = unsafe { &mut *self.0.value.get() };
                action(value, &mut irql)
            },
            // SAFETY: acquired by this thread, which is at APC_LEVEL still or again.
            || unsafe { sys::ntddk::ExReleaseFastMutex(self.0.mutex.get()) },
        )
    }

    /// The value, without locking: nobody else can have the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `self` is borrowed mutably, so nobody has the mutex.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> fmt::Debug for FastMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastMutex").finish_non_exhaustive()
    }
}
