// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Mutex`].

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::pin::Pin;

use super::finally;
use super::wait::{ObjectOutcome, sealed, wait};
use crate::irql::{AtMostApc, Irql};
use crate::pool::Box;
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// A value that one thread at a time uses, guarded by a kernel mutex.
///
/// Use it where the lock is part of a wait for several objects, or where the
/// owner waits. Otherwise [`FastMutex`](super::FastMutex) and
/// [`PushLock`](super::PushLock) are cheaper, and a
/// [`SpinLock`](super::SpinLock) is for what a DPC takes part in.
///
/// - *Level.* The owner stays at its level and may wait, with the caller's token.
/// - *APCs.* The kernel delivers no normal kernel-mode APC to the owner, as in a
///   critical region; user-mode APCs do not run in kernel mode anyway.
/// - *Recursion.* The kernel's mutex can be taken again by its owner. This one
///   cannot, because there would be two `&mut` to the value: the second attempt
///   is undone, and its outcome is [`MutexOutcome::AlreadyOwned`].
/// - *Abandonment.* A thread that ends while it owns the mutex stops Windows
///   with bug check `0x4000008A` (`THREAD_TERMINATE_HELD_MUTEX`). Ownership lasts
///   for the length of a closure, so safe code does not get there, and
///   [`MutexOutcome::Abandoned`] is for the case that the kernel documents all
///   the same.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{Mutex, MutexOutcome};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let total = Mutex::new(0)?;
/// let outcome = total.lock(irql, Duration::from_secs(1), |total| *total += 1);
/// assert_eq!(outcome, MutexOutcome::Locked(()));
/// assert_eq!(total.lock(irql, Timeout::Never, |total| *total).into_result()?, 1);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`KMUTEX`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/mutex-objects
pub struct Mutex<T>(Pin<Box<Inner<T>>>);

/// # Invariants
/// - `mutex` is initialized and pinned.
/// - `held` is touched only by the thread that owns `mutex`, or through
///   `&mut Mutex`. It is set while that thread uses the value or may begin to:
///   once, whatever it waits for.
/// - `value` is touched only by the closure that has taken `held`, or through
///   `&mut Mutex`.
struct Inner<T> {
    mutex: UnsafeCell<sys::KMUTEX>,
    held: Cell<bool>,
    value: UnsafeCell<T>,
    /// The kernel links waiters and the owner to it.
    _pinned: PhantomPinned,
}

// SAFETY: a mutex owns its value as a plain field would, and the kernel
// synchronizes all access to its own part.
unsafe impl<T: Send> Send for Inner<T> {}
// SAFETY: the kernel's mutex lets one thread at a time at the value and the flag.
unsafe impl<T: Send> Sync for Inner<T> {}

impl<T> Mutex<T> {
    /// Makes a mutex, not owned, around `value`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    ///
    /// C counterpart: [`KeInitializeMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializemutex
    pub fn new(value: T) -> Result<Self> {
        let inner = Box::pin(Inner {
            mutex: UnsafeCell::new(sys::KMUTEX::default()),
            held: Cell::new(false),
            value: UnsafeCell::new(value),
            _pinned: PhantomPinned,
        })?;
        // SAFETY: the memory is new and pinned. The level is reserved and zero.
        unsafe { sys::ntddk::KeInitializeMutex(inner.mutex.get(), 0) };
        // INVARIANT: initialized above; nobody owns it.
        Ok(Self(inner))
    }

    /// Waits until the mutex is free, and runs `action` as its owner.
    ///
    /// [`Timeout::Poll`] takes it only if it is free now.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`. Not at `DISPATCH_LEVEL` even without waiting: a DPC has
    /// no thread that could own it.
    ///
    /// C counterpart: `KeWaitForMutexObject`, which is [`KeWaitForSingleObject`][ms], kernel mode, not alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn lock<R>(
        &self,
        irql: &Irql<'_, impl AtMostApc>,
        timeout: impl Into<Timeout>,
        action: impl FnOnce(&mut T) -> R,
    ) -> MutexOutcome<R> {
        self.claim(irql, |claim| {
            let outcome = wait(irql, claim, timeout);
            match (outcome, claim.lock(action)) {
                (ObjectOutcome::TimedOut, _) => MutexOutcome::TimedOut,
                (_, None) => MutexOutcome::AlreadyOwned,
                (ObjectOutcome::Signaled, Some(result)) => MutexOutcome::Locked(result),
                (ObjectOutcome::Abandoned, Some(result)) => MutexOutcome::Abandoned(result),
            }
        })
    }

    /// Makes the mutex an object of a wait for several, for the length of `action`.
    ///
    /// A wait that ends with the mutex has acquired it: [`MutexClaim::lock`]
    /// then gives the value. What is still acquired when `action` returns is released.
    ///
    /// ```
    /// use dmf::prelude::*;
    /// use dmf::sync::{AnyOutcome, EventKind, Mutex, wait_any};
    ///
    /// # ntsim::run(|| {
    /// # let irql = &unsafe { Irql::<Passive>::assume() };
    /// let stop = Event::new(EventKind::Notification)?;
    /// let queue = Mutex::new([1, 2, 3])?;
    /// let first = queue.claim(irql, |claim| {
    ///     match wait_any(irql, [&stop, claim], Timeout::Never) {
    ///         AnyOutcome::Signaled(1) => claim.lock(|queue| queue[0]),
    ///         _ => None,
    ///     }
    /// });
    /// assert_eq!(first, Some(1));
    /// # Ok::<_, NtStatus>(())
    /// # }).unwrap();
    /// ```
    ///
    /// A claim belongs to the thread that waits with it, and to the closure:
    ///
    /// ```compile_fail,E0277
    /// fn send<T: Send>(_: T) {}
    /// fn refused(claim: &dmf::sync::MutexClaim<'_, u32>) {
    ///     send(claim);
    /// }
    /// ```
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    pub fn claim<R>(
        &self,
        _irql: &Irql<'_, impl AtMostApc>,
        action: impl FnOnce(&MutexClaim<'_, T>) -> R,
    ) -> R {
        let claim = MutexClaim {
            inner: &self.0,
            acquired: Cell::new(false),
            thread: PhantomData,
        };
        action(&claim)
    }

    /// Returns whether somebody owns the mutex, which can have changed by now.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeReadStateMutex`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatemutex
    #[must_use]
    pub fn is_owned(&self) -> bool {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::KeReadStateMutex(self.0.mutex.get()) != 1 }
    }

    /// The value, without locking: nobody else can have the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `self` is borrowed mutably, so nobody has the mutex.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Inner<T> {
    /// Gives back one acquisition of the kernel's mutex.
    ///
    /// # Safety
    /// The running thread owns the mutex, and counts on it once less.
    unsafe fn release(&self) {
        // SAFETY: the invariant and the caller's promise; no wait follows, so
        // any level up to DISPATCH_LEVEL will do.
        unsafe { sys::ntddk::KeReleaseMutex(self.mutex.get(), 0) };
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// How an attempt to take a [`Mutex`] ended, with what the closure returned.
///
/// C counterpart: the statuses of [`KeWaitForSingleObject`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the mutex may not have been taken, and the closure not have run"]
pub enum MutexOutcome<R> {
    /// The closure ran.
    Locked(R),
    /// The closure ran, but the last owner ended without releasing the mutex, so
    /// the value may have been half changed. Who needs to know it before uses a
    /// [claim](Mutex::claim).
    Abandoned(R),
    /// The time was over first.
    TimedOut,
    /// The running thread owned it already, and still does, once.
    AlreadyOwned,
}

impl<R> MutexOutcome<R> {
    /// What the closure returned, whether or not the mutex was abandoned before.
    ///
    /// # Errors
    /// - `STATUS_IO_TIMEOUT` for [`TimedOut`](Self::TimedOut).
    /// - `STATUS_POSSIBLE_DEADLOCK` for [`AlreadyOwned`](Self::AlreadyOwned).
    pub fn into_result(self) -> Result<R> {
        match self {
            Self::Locked(result) | Self::Abandoned(result) => Ok(result),
            Self::TimedOut => Err(NtStatus::IO_TIMEOUT),
            Self::AlreadyOwned => Err(NtStatus::POSSIBLE_DEADLOCK),
        }
    }
}

/// A [`Mutex`] as an object of a wait; made by [`Mutex::claim`].
///
/// C counterpart: a `KMUTEX` among the objects of [`KeWaitForMultipleObjects`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
///
/// # Invariants
/// If `acquired`, the running thread owns the mutex, `held` is set, and neither
/// another claim nor a closure has the value.
pub struct MutexClaim<'a, T> {
    inner: &'a Inner<T>,
    acquired: Cell<bool>,
    /// The thread that waits is the owner.
    thread: PhantomData<*mut ()>,
}

impl<T> MutexClaim<'_, T> {
    /// Runs `action` with the value if a wait has acquired the mutex for this
    /// claim since the last call, and then releases it.
    ///
    /// `None` if none has, and if the running thread owned the mutex already.
    /// The claim can be waited for again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeReleaseMutex`][ms], after `action`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasemutex
    #[must_use = "the closure may not have run"]
    pub fn lock<R>(&self, action: impl FnOnce(&mut T) -> R) -> Option<R> {
        // Taken before `action` runs, in which this function may be called again.
        self.acquired.take().then(|| {
            finally(
                // SAFETY: the invariant was true of this claim, and is now of this
                // closure alone: `held` lets nobody else acquire.
                || action(unsafe { &mut *self.inner.value.get() }),
                || {
                    self.inner.held.set(false);
                    // SAFETY: the claim's acquisition ends here.
                    unsafe { self.inner.release() };
                },
            )
        })
    }
}

impl<T> sealed::Object for MutexClaim<'_, T> {
    fn object(&self) -> sys::PVOID {
        self.inner.mutex.get().cast()
    }

    unsafe fn acquired(&self) {
        if self.inner.held.replace(true) {
            // The owner took it once more: not ours to have twice.
            // SAFETY: by the caller's promise there is the wait's acquisition,
            // and nothing else counts on it.
            unsafe { self.inner.release() };
        } else {
            // INVARIANT: the running thread's wait acquired it, and nobody held it.
            self.acquired.set(true);
        }
    }
}

impl<T> Drop for MutexClaim<'_, T> {
    fn drop(&mut self) {
        let _ = self.lock(|_| ());
    }
}

impl<T> fmt::Debug for MutexClaim<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexClaim").finish_non_exhaustive()
    }
}
