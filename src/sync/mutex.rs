// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Mutex`].

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;

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
/// - *Level.* The owner stays at its level and may wait.
/// - *APCs.* The kernel delivers no normal kernel-mode APC to the owner, as in a
///   critical region; user-mode APCs do not run in kernel mode anyway.
/// - *Recursion.* The kernel's mutex can be taken again by its owner. This one
///   cannot, because there would be two `&mut` to the value: the second attempt
///   is undone, and its outcome is [`MutexOutcome::AlreadyOwned`].
/// - *Abandonment.* A thread that ends while it owns the mutex stops Windows
///   with bug check `0x4000008A` (`THREAD_TERMINATE_HELD_MUTEX`), so
///   [`MutexOutcome::Abandoned`] is for the case that the kernel documents all
///   the same.
/// - *Leaks.* A guard that is leaked keeps the mutex owned, and the mutex's
///   memory is then never freed, because the kernel has it in the owner's list.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{Mutex, MutexOutcome};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let total = Mutex::new(0)?;
/// if let MutexOutcome::Locked(mut guard) = total.lock(irql, Duration::from_secs(1)) {
///     *guard += 1;
/// }
/// assert_eq!(*total.lock(irql, Timeout::Never).guard()?, 1);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// The guard belongs to the thread:
///
/// ```compile_fail,E0277
/// fn send<T: Send>(_: T) {}
/// fn refused(guard: dmf::sync::MutexGuard<'_, u32>) {
///     send(guard);
/// }
/// ```
///
/// C counterpart: [`KMUTEX`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/mutex-objects
pub struct Mutex<T>(ManuallyDrop<Pin<Box<Inner<T>>>>);

/// # Invariants
/// - `mutex` is initialized and pinned.
/// - `held` is touched only by the thread that owns `mutex`, or through
///   `&mut Mutex`. It is set while a guard or claim exists, or was leaked.
/// - `value` is touched only through the one guard, or through `&mut Mutex`.
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
        Ok(Self(ManuallyDrop::new(inner)))
    }

    /// Waits until the mutex is free, and takes it.
    ///
    /// [`Timeout::Poll`] takes it only if it is free now.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`. Not at `DISPATCH_LEVEL` even without waiting: a DPC has
    /// no thread that could own it.
    ///
    /// C counterpart: [`KeWaitForMutexObject`][ms], kernel mode, not alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformutexobject
    pub fn lock(
        &self,
        irql: &Irql<'_, impl AtMostApc>,
        timeout: impl Into<Timeout>,
    ) -> MutexOutcome<'_, T> {
        let claim = self.claim(irql);
        let outcome = wait(irql, &claim, timeout);
        match (outcome, claim.take()) {
            (ObjectOutcome::TimedOut, _) => MutexOutcome::TimedOut,
            (_, None) => MutexOutcome::AlreadyOwned,
            (ObjectOutcome::Signaled, Some(guard)) => MutexOutcome::Locked(guard),
            (ObjectOutcome::Abandoned, Some(guard)) => MutexOutcome::Abandoned(guard),
        }
    }

    /// Makes the mutex an object of a wait for several.
    ///
    /// A wait that ends with the mutex has acquired it: [`MutexClaim::take`]
    /// then gives the guard. A claim that is dropped instead releases it.
    ///
    /// ```
    /// use dmf::prelude::*;
    /// use dmf::sync::{AnyOutcome, EventKind, Mutex, wait_any};
    ///
    /// # ntsim::run(|| {
    /// # let irql = &unsafe { Irql::<Passive>::assume() };
    /// let stop = Event::new(EventKind::Notification)?;
    /// let queue = Mutex::new([1, 2, 3])?;
    /// let claim = queue.claim(irql);
    /// if let AnyOutcome::Signaled(1) = wait_any(irql, [&stop, &claim], Timeout::Never)
    ///     && let Some(mut guard) = claim.take()
    /// {
    ///     guard[0] = 7;
    /// }
    /// # Ok::<_, NtStatus>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    pub fn claim(&self, _irql: &Irql<'_, impl AtMostApc>) -> MutexClaim<'_, T> {
        MutexClaim {
            inner: &self.0,
            acquired: Cell::new(false),
            thread: PhantomData,
        }
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
        // SAFETY: `self` is borrowed mutably, so there is no guard.
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

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        // Borrowed mutably: a guard or claim that still holds it was leaked.
        if !self.0.held.get() {
            // SAFETY: this is the drop, and the field is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// How an attempt to take a [`Mutex`] ended.
#[derive(Debug)]
#[must_use = "dropping the outcome releases the mutex again"]
pub enum MutexOutcome<'a, T> {
    /// It is the caller's.
    Locked(MutexGuard<'a, T>),
    /// It is the caller's; its last owner ended without releasing it, so the
    /// value may be half changed.
    Abandoned(MutexGuard<'a, T>),
    /// The time was over first.
    TimedOut,
    /// The running thread owned it already, and still does, once.
    AlreadyOwned,
}

impl<'a, T> MutexOutcome<'a, T> {
    /// The guard, whether or not the mutex was abandoned before.
    ///
    /// # Errors
    /// - `STATUS_IO_TIMEOUT` for [`TimedOut`](Self::TimedOut).
    /// - `STATUS_POSSIBLE_DEADLOCK` for [`AlreadyOwned`](Self::AlreadyOwned).
    pub fn guard(self) -> Result<MutexGuard<'a, T>> {
        match self {
            Self::Locked(guard) | Self::Abandoned(guard) => Ok(guard),
            Self::TimedOut => Err(NtStatus::IO_TIMEOUT),
            Self::AlreadyOwned => Err(NtStatus::POSSIBLE_DEADLOCK),
        }
    }
}

/// A [`Mutex`] that is owned. Dropping it releases the mutex.
///
/// # IRQL
/// To be dropped at `<= DISPATCH_LEVEL`, by the thread that took it.
///
/// # Invariants
/// The running thread owns the mutex, `held` is set, and no other guard or
/// acquired claim of the mutex exists.
#[must_use = "the mutex is released when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    inner: &'a Inner<T>,
    /// A mutex is released by the thread that took it.
    thread: PhantomData<*mut ()>,
}

// SAFETY: shared access to a guard gives shared access to the value, no more.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { &*self.inner.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and the guard is borrowed mutably.
        unsafe { &mut *self.inner.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.inner.held.set(false);
        // SAFETY: the invariant; this guard's acquisition ends here.
        unsafe { self.inner.release() };
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A [`Mutex`] as an object of a wait; made by [`Mutex::claim`].
///
/// # Invariants
/// If `acquired`, what [`MutexGuard`] says is true of this claim.
#[must_use = "a claim does nothing until it is waited for"]
pub struct MutexClaim<'a, T> {
    inner: &'a Inner<T>,
    acquired: Cell<bool>,
    /// The thread that waits is the owner.
    thread: PhantomData<*mut ()>,
}

impl<'a, T> MutexClaim<'a, T> {
    /// The guard, if a wait has acquired the mutex for this claim since the
    /// last call. None if the running thread owned the mutex already.
    ///
    /// The claim can be waited for again.
    #[must_use]
    pub fn take(&self) -> Option<MutexGuard<'a, T>> {
        // INVARIANT: what was true of this claim is now true of the guard.
        self.acquired.take().then(|| MutexGuard {
            inner: self.inner,
            thread: PhantomData,
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
        drop(self.take());
    }
}

impl<T> fmt::Debug for MutexClaim<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexClaim").finish_non_exhaustive()
    }
}
