// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Semaphore`].

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;

use super::SpinLock;
use super::wait::{WaitOutcome, sealed, try_wait, wait};
use crate::irql::{AtMostApc, Irql};
use crate::pool::Box;
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// A kernel semaphore: a count of things to be had, in non-paged pool.
///
/// Use it to tell threads how many pieces of work there are, or to let at most
/// so many threads in. To tell one thing use an [`Event`](super::Event); to
/// guard a value, a lock.
///
/// ```text
///   release(n): count + n, at most the limit; wakes up to n waiters
///   acquire:    count - 1, or waits while the count is 0
/// ```
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{Semaphore, WaitOutcome};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let slots = Semaphore::new(0, 8)?;
/// assert_eq!(slots.release(2)?, 0);
/// assert_eq!(slots.acquire(irql, Timeout::Never), WaitOutcome::Signaled);
/// assert_eq!(slots.count(), 1);
/// assert_eq!(slots.release(8), Err(NtStatus::SEMAPHORE_LIMIT_EXCEEDED));
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`KSEMAPHORE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/semaphore-objects
pub struct Semaphore {
    raw: Pin<Box<RawSemaphore>>,
    /// Held by whoever releases. `KeReleaseSemaphore` raises an exception when
    /// the limit is exceeded, which Rust cannot catch, so the count is looked at
    /// first; with this lock held it can only fall in between.
    releasing: SpinLock<()>,
    limit: i32,
}

/// # Invariants
/// The kernel's semaphore is initialized and pinned.
struct RawSemaphore {
    raw: UnsafeCell<sys::KSEMAPHORE>,
    /// The kernel links waiters to it.
    _pinned: PhantomPinned,
}

// SAFETY: the kernel synchronizes all access to a semaphore.
unsafe impl Send for RawSemaphore {}
// SAFETY: as above.
unsafe impl Sync for RawSemaphore {}

impl Semaphore {
    /// Makes a semaphore with `count` things to be had, of at most `limit`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `limit` is 0 or above `i32::MAX`, or
    ///   `count` is above `limit`.
    /// - `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty.
    ///
    /// C counterpart: [`KeInitializeSemaphore`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializesemaphore
    pub fn new(count: u32, limit: u32) -> Result<Self> {
        if limit == 0 || count > limit {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let limit = i32::try_from(limit).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        // At most the limit, so it does not wrap.
        let count = count.cast_signed();
        let semaphore = Box::pin(RawSemaphore {
            raw: UnsafeCell::new(sys::KSEMAPHORE::default()),
            _pinned: PhantomPinned,
        })?;
        // SAFETY: the memory is new and pinned, and the numbers were checked.
        unsafe { sys::ntddk::KeInitializeSemaphore(semaphore.raw.get(), count, limit) };
        Ok(Self {
            raw: semaphore,
            releasing: SpinLock::new(()),
            limit,
        })
    }

    /// Waits until there is one to be had, and takes it.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms], kernel mode, not alertable.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn acquire(
        &self,
        irql: &Irql<'_, impl AtMostApc>,
        timeout: impl Into<Timeout>,
    ) -> WaitOutcome {
        wait(irql, self, timeout).without_owner()
    }

    /// Takes one if there is one, without waiting.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms] with a timeout of zero.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn try_acquire(&self) -> WaitOutcome {
        try_wait(self).without_owner()
    }

    /// Adds `count` things to be had and returns how many there were.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `count` is 0.
    /// - `STATUS_SEMAPHORE_LIMIT_EXCEEDED` if there would be more than the
    ///   limit. Nothing is added. (The C function raises an exception.)
    ///
    /// C counterpart: [`KeReleaseSemaphore`][ms], without priority boost.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasesemaphore
    pub fn release(&self, count: u32) -> Result<u32> {
        if count == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let count = i32::try_from(count).map_err(|_| NtStatus::SEMAPHORE_LIMIT_EXCEEDED)?;
        self.releasing.with(|()| {
            // Others can only take meanwhile, so what fits now still fits below.
            if self
                .raw_count()
                .checked_add(count)
                .is_none_or(|sum| sum > self.limit)
            {
                return Err(NtStatus::SEMAPHORE_LIMIT_EXCEEDED);
            }
            let semaphore = self.raw.raw.get();
            // SAFETY: the invariant; the limit is kept, and no wait follows.
            let before = unsafe { sys::ntddk::KeReleaseSemaphore(semaphore, 0, count, 0) };
            Ok(before.cast_unsigned())
        })
    }

    /// Returns how many there are to be had, which can have changed by now.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`KeReadStateSemaphore`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatesemaphore
    #[must_use]
    pub fn count(&self) -> u32 {
        self.raw_count().cast_unsigned()
    }

    fn raw_count(&self) -> i32 {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::KeReadStateSemaphore(self.raw.raw.get()) }
    }
}

impl sealed::Object for Semaphore {
    fn object(&self) -> sys::PVOID {
        self.raw.raw.get().cast()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
