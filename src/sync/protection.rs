// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`RundownProtection`].

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::irql::{AtMostApc, Irql};
use crate::status::{NtStatus, Result};
use crate::sys;

/// A value that is used by many until it is run down: from then on nobody gets
/// at it, and whoever runs it down waits until those that did have finished.
///
/// Use it for what must not be given up while it is in use, such as a connection
/// that a removal tears down. The methods of modules have one built in
/// ([`Handle`](crate::Handle)); to make users wait for each other, use a lock.
///
/// ```text
///            acquire / drop the guard         run_down (returns when n is 0)
///   open(n) ◄────────────────────────►   ────────────────────► run down
///      ▲                                 acquire is refused        │
///      └───────────────────── reinitialize ◄───────────────────────┘
/// ```
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::RundownProtection;
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let connection = RundownProtection::new(42);
/// assert_eq!(*connection.acquire().unwrap(), 42); // the guard ends here
/// connection.run_down(irql)?;
/// assert!(connection.acquire().is_none());
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`EX_RUNDOWN_REF`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/run-down-protection
///
/// # Invariants
/// The kernel's reference counts the guards. One thread at a time waits for it.
pub struct RundownProtection<T = ()> {
    /// Zero is open, without guards; there is nothing to initialize.
    reference: UnsafeCell<sys::EX_RUNDOWN_REF>,
    stage: AtomicU8,
    value: T,
}

/// Nobody has begun to run it down.
const OPEN: u8 = 0;
/// Somebody waits for the guards.
const RUNNING_DOWN: u8 = 1;
/// The wait is over.
const RUN_DOWN: u8 = 2;

// SAFETY: it owns its value as a plain field would; the reference is a number.
unsafe impl<T: Send> Send for RundownProtection<T> {}
// SAFETY: guards share the value; the kernel synchronizes the reference.
unsafe impl<T: Sync> Sync for RundownProtection<T> {}

impl<T> RundownProtection<T> {
    /// Protection, open, around `value`.
    ///
    /// C counterpart: [`ExInitializeRundownProtection`][ms], which stores the
    /// same zero.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializerundownprotection
    pub const fn new(value: T) -> Self {
        Self {
            reference: UnsafeCell::new(sys::EX_RUNDOWN_REF {
                __bindgen_anon_1: sys::_EX_RUNDOWN_REF__bindgen_ty_1 { Count: 0 },
            }),
            stage: AtomicU8::new(OPEN),
            value,
        }
    }

    /// Gives access to the value until the guard is dropped, or none if it is
    /// run down or about to be.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`ExAcquireRundownProtection`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotection
    #[must_use]
    pub fn acquire(&self) -> Option<RundownGuard<'_, T>> {
        // SAFETY: the reference is initialized.
        let given = unsafe { sys::ntddk::ExAcquireRundownProtection(self.reference.get()) };
        // INVARIANT: counted by the kernel.
        (given != 0).then(|| RundownGuard { protection: self })
    }

    /// Refuses access from now on, and waits until all guards are dropped.
    ///
    /// Does nothing if it is run down already. A caller with a guard of its own
    /// waits for itself, which Windows does for ever and `ntsim` reports.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// `STATUS_DELETE_PENDING` if another thread is running it down, and has not
    /// finished. (The kernel has room for one waiter.)
    ///
    /// C counterpart: [`ExWaitForRundownProtectionRelease`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exwaitforrundownprotectionrelease
    pub fn run_down(&self, _irql: &Irql<'_, impl AtMostApc>) -> Result {
        let begun = self.stage.compare_exchange(
            OPEN,
            RUNNING_DOWN,
            Ordering::Relaxed,
            // Acquire: what was done under the guards happens before the return.
            Ordering::Acquire,
        );
        match begun {
            Ok(_) => {
                // SAFETY: initialized; the token proves the level, and the stage
                // lets one thread through.
                unsafe {
                    sys::ntddk::ExWaitForRundownProtectionRelease(self.reference.get());
                }
                self.stage.store(RUN_DOWN, Ordering::Release);
                Ok(())
            }
            Err(RUN_DOWN) => Ok(()),
            Err(_) => Err(NtStatus::DELETE_PENDING),
        }
    }

    /// Opens it again after [`run_down`](Self::run_down); does nothing before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`ExReInitializeRundownProtection`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreinitializerundownprotection
    pub fn reinitialize(&mut self) {
        if *self.stage.get_mut() == RUN_DOWN {
            // SAFETY: a wait has run it down, and nobody else has it.
            unsafe { sys::ntddk::ExReInitializeRundownProtection(self.reference.get()) };
            *self.stage.get_mut() = OPEN;
        }
    }

    /// The value, run down or not: nobody else can use it.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Takes the value out, run down or not: nobody else can use it.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> fmt::Debug for RundownProtection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RundownProtection").finish_non_exhaustive()
    }
}

/// Access to the value of a [`RundownProtection`], which is not run down while
/// this lives. Any thread may drop it.
///
/// C counterpart: [`ExAcquireRundownProtection`][ms] and `ExReleaseRundownProtection`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotection
///
/// # Invariants
/// The kernel's reference counts this guard.
#[must_use = "access ends when the guard is dropped"]
pub struct RundownGuard<'a, T> {
    protection: &'a RundownProtection<T>,
}

impl<T> Deref for RundownGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.protection.value
    }
}

impl<T> Drop for RundownGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the invariant.
        unsafe { sys::ntddk::ExReleaseRundownProtection(self.protection.reference.get()) };
    }
}

impl<T: fmt::Debug> fmt::Debug for RundownGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
