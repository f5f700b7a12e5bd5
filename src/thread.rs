// SPDX-License-Identifier: MIT OR Apache-2.0

//! System threads that are waited for.
//!
//! A driver must not be unloaded while a thread runs its code, so a [`Thread`]
//! is waited for when it is dropped. Tell it to end first: with an
//! [`Event`](crate::sync::Event), or by aborting its `AlertableSleep`.

use core::fmt;
use core::ptr;
use core::time::Duration;

use crate::irql::{Irql, Passive};
use crate::pool::Box;
use crate::status::{NtStatus, Result};
use crate::sync::{KERNEL_MODE, large_integer};
use crate::sys;
use crate::time::Timeout;

/// A system thread. Dropping it waits until the thread has ended.
///
/// For short work use a [`WorkItem`](crate::wdf::WorkItem): a thread has a
/// stack of its own.
///
/// ```no_run
/// use dmf::prelude::*;
///
/// fn example(irql: &Irql<'_, Passive>) -> Result {
///     let thread = Thread::spawn(irql, |irql| {
///         dmf::sync::delay(irql, Duration::from_millis(20));
///     })?;
///     thread.join(irql);
///     Ok(())
/// }
/// ```
///
/// C counterpart: [`PsCreateSystemThread`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread
#[must_use = "a thread that is dropped is waited for"]
pub struct Thread(Waitable);

/// # Invariants
/// The object is referenced, or the handle is open, and belongs to this value.
enum Waitable {
    Object(sys::PVOID),
    /// Only if the object could not be referenced.
    Handle(sys::HANDLE),
}

// SAFETY: a thread object can be waited for and dereferenced from any thread,
// and the handle is one of the system process.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

/// `OBJ_KERNEL_HANDLE`: the handle is the system's, not the current process's.
const OBJ_KERNEL_HANDLE: u32 = 0x200;
/// `THREAD_ALL_ACCESS`.
const THREAD_ALL_ACCESS: u32 = 0x001F_FFFF;
/// `SYNCHRONIZE`: enough to wait.
const SYNCHRONIZE: u32 = 0x0010_0000;

impl Thread {
    /// Starts a thread that runs `body`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`; so does `body`.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and what `PsCreateSystemThread` returns;
    /// `body` is then dropped.
    pub fn spawn<F>(_irql: &Irql<'_, Passive>, body: F) -> Result<Self>
    where
        F: FnOnce(&mut Irql<'_, Passive>) + Send + 'static,
    {
        let body = Box::into_raw(Box::new(body)?);
        let mut attributes = sys::OBJECT_ATTRIBUTES {
            Length: sys::size_field::<sys::OBJECT_ATTRIBUTES>(),
            Attributes: OBJ_KERNEL_HANDLE,
            ..sys::OBJECT_ATTRIBUTES::default()
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the token proves the level, the structures are valid for the
        // length of the call, and `start` takes this kind of context.
        let status = NtStatus::from_raw(unsafe {
            sys::ntddk::PsCreateSystemThread(
                &raw mut handle,
                THREAD_ALL_ACCESS,
                &raw mut attributes,
                ptr::null_mut(),
                ptr::null_mut(),
                Some(start::<F>),
                body.as_ptr().cast(),
            )
        });
        if let Err(status) = status.into_result() {
            // SAFETY: the thread was not started, so the body is still ours.
            drop(unsafe { Box::from_raw(body) });
            return Err(status);
        }
        let mut object = ptr::null_mut();
        // SAFETY: the handle is open; in kernel mode the type may be left out.
        let status = NtStatus::from_raw(unsafe {
            sys::ntddk::ObReferenceObjectByHandle(
                handle,
                SYNCHRONIZE,
                ptr::null_mut(),
                KERNEL_MODE,
                &raw mut object,
                ptr::null_mut(),
            )
        });
        if !status.is_success() {
            // The thread runs, so it must be waited for: keep the handle.
            return Ok(Self(Waitable::Handle(handle)));
        }
        // SAFETY: the handle is open and not used any more.
        let _ = unsafe { sys::ntddk::ZwClose(handle) };
        Ok(Self(Waitable::Object(object)))
    }

    /// Waits until the thread has ended.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    pub fn join(self, _irql: &Irql<'_, Passive>) {
        drop(self);
    }

    /// Waits at most `limit` for the thread to end, and gives it back if it did not.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// The thread, if it still runs.
    pub fn join_timeout(self, _irql: &Irql<'_, Passive>, limit: Duration) -> Result<(), Self> {
        // SAFETY: the token proves the level.
        match unsafe { self.wait(Timeout::After(limit)) } {
            NtStatus::TIMEOUT => Err(self),
            _ => Ok(()),
        }
    }

    /// # Safety
    /// The level is `PASSIVE_LEVEL`.
    unsafe fn wait(&self, timeout: Timeout) -> NtStatus {
        let mut due = timeout.to_due_time().map(large_integer);
        let due = due.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        NtStatus::from_raw(match self.0 {
            // SAFETY: the invariant, and the caller's promise.
            Waitable::Object(object) => unsafe {
                sys::ntddk::KeWaitForSingleObject(
                    object,
                    sys::_KWAIT_REASON::Executive,
                    KERNEL_MODE,
                    0,
                    due,
                )
            },
            // SAFETY: the invariant, and the caller's promise.
            Waitable::Handle(handle) => unsafe {
                sys::ntddk::ZwWaitForSingleObject(handle, 0, due)
            },
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: a thread is dropped where it may be waited for: its docs say so.
        let _ = unsafe { self.wait(Timeout::Never) };
        match self.0 {
            // SAFETY: the invariant.
            Waitable::Object(object) => unsafe {
                sys::ntddk::ObfDereferenceObject(object);
            },
            // SAFETY: the invariant.
            Waitable::Handle(handle) => drop(unsafe { sys::ntddk::ZwClose(handle) }),
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}

callback! {
    /// Where each thread of this crate starts.
    unsafe fn start<F: Body>(context: sys::PVOID) {
        // The body and what it captured are dropped in this block, because the
        // call after it does not return.
        {
            // SAFETY: `spawn` gave this thread the body.
            let context = unsafe { ptr::NonNull::new_unchecked(context.cast::<F>()) };
            // SAFETY: as above; nobody else takes it back.
            let body = Box::into_inner(unsafe { Box::from_raw(context) });
            // SAFETY: system threads start at PASSIVE_LEVEL.
            body(&mut unsafe { Irql::assume() });
        }
        // SAFETY: this is a thread that PsCreateSystemThread made.
        let _ = unsafe { sys::ntddk::PsTerminateSystemThread(NtStatus::SUCCESS.to_raw()) };
    }
}

/// What a thread runs.
trait Body: FnOnce(&mut Irql<'_, Passive>) + Send + 'static {}
impl<F: FnOnce(&mut Irql<'_, Passive>) + Send + 'static> Body for F {}

/// Which thread this is, to compare with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(usize);

impl ThreadId {
    /// The running thread's.
    ///
    /// # IRQL
    /// Any.
    ///
    /// C counterpart: [`PsGetCurrentThreadId`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetcurrentthreadid
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: callable at any level.
        Self(unsafe { sys::ntddk::PsGetCurrentThreadId() }.addr())
    }
}
