// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`PushLock`].

use core::cell::UnsafeCell;
use core::fmt;

use super::finally;
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
///        the last reader returns             the writer returns
/// ```
///
/// A holder stays at its level and may wait, with the caller's token; the thread is in a critical region,
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
/// ROUTES.write(irql, |routes| routes[0] = 7);
/// assert_eq!(ROUTES.read(irql, |routes| *routes), [7, 2]);
/// # });
/// ```
///
/// A reader cannot write:
///
/// ```compile_fail,E0594
/// use dmf::prelude::*;
/// fn refused(irql: &Irql<'_, Passive>, lock: &dmf::sync::PushLock<u32>) {
///     lock.read(irql, |value| *value = 1);
/// }
/// ```
///
/// C counterpart: `EX_PUSH_LOCK`, taken by [`ExAcquirePushLockExclusive`][ms] after `KeEnterCriticalRegion`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusive
///
/// # Invariants
/// `value` is changed only while `lock` is held exclusively, read only while it
/// is held, or touched through `&mut self`.
pub struct PushLock<T> {
    /// Zero is a lock that is not held; there is nothing to initialize. An
    /// `EX_PUSH_LOCK`, which is a macro in some headers.
    lock: UnsafeCell<sys::ULONG_PTR>,
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

    /// Waits until nobody writes, and runs `action`, which may read.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`ExAcquirePushLockShared`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockshared
    pub fn read<R>(&self, _irql: &Irql<'_, impl AtMostApc>, action: impl FnOnce(&T) -> R) -> R {
        in_critical_region(|| {
            // SAFETY: the lock is valid, the token proves the level, and in a
            // critical region it may be taken.
            unsafe { sys::ntddk::ExAcquirePushLockSharedEx(self.lock.get(), DEFAULT_FLAGS) };
            finally(
                // SAFETY: the lock is held, so nobody writes.
                || action(unsafe { &*self.value.get() }),
                // SAFETY: acquired above. The level is the caller's again: what
                // raises it in the closure ends in the closure.
                || unsafe {
                    sys::ntddk::ExReleasePushLockSharedEx(self.lock.get(), DEFAULT_FLAGS);
                },
            )
        })
    }

    /// Waits until nobody reads or writes, and runs `action`, which may do both.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`ExAcquirePushLockExclusive`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusive
    pub fn write<R>(
        &self,
        _irql: &Irql<'_, impl AtMostApc>,
        action: impl FnOnce(&mut T) -> R,
    ) -> R {
        in_critical_region(|| {
            // SAFETY: the lock is valid, the token proves the level, and in a
            // critical region it may be taken.
            unsafe { sys::ntddk::ExAcquirePushLockExclusiveEx(self.lock.get(), DEFAULT_FLAGS) };
            finally(
                // SAFETY: the lock is held exclusively.
                || action(unsafe { &mut *self.value.get() }),
                // SAFETY: as in `read`.
                || unsafe {
                    sys::ntddk::ExReleasePushLockExclusiveEx(self.lock.get(), DEFAULT_FLAGS);
                },
            )
        })
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

/// Runs `action` while normal kernel APCs are not delivered to the thread. Called
/// at `<= APC_LEVEL`.
fn in_critical_region<R>(action: impl FnOnce() -> R) -> R {
    // SAFETY: the caller is at most at APC_LEVEL, and the region is left below.
    unsafe { sys::ntddk::KeEnterCriticalRegion() };
    // SAFETY: entered above, by this thread.
    finally(action, || unsafe { sys::ntddk::KeLeaveCriticalRegion() })
}
