// SPDX-License-Identifier: MIT OR Apache-2.0

//! System threads that are waited for.
//!
//! A driver must not be unloaded while a thread runs its code, so a [`Thread`]
//! is waited for when it is dropped. Tell it to end first: with an
//! [`Event`](crate::sync::Event), or by aborting its `AlertableSleep`.
//!
//! ```text
//!   spawn ──► running ──► body returns ──► ended
//!                │                           ▲
//!                └── join, drop: wait ───────┘
//! ```
//!
//! # Dropping at the wrong level
//!
//! Dropping takes no token, so the types do not keep a `Thread` from being
//! dropped under a spin lock, where nobody may wait. It cannot be let go there
//! either: only a wait for the thread object tells that its last instruction in
//! the driver has run. So dropping looks at the level, and above `APC_LEVEL` it
//! panics, in a driver the bug check of `wdk-panic`: a stop that names the
//! mistake and the way out, instead of a wait that is undefined. `join` has a
//! token and never panics.
//!
//! # Leaking
//!
//! A `Thread` that is leaked, as by `mem::forget`, is not waited for. It is then
//! the program's to see that the thread ends before the driver is unloaded: else
//! Windows stops with bug check 0xCE
//! ([`DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS`][ce]), and so does
//! `ntsim`.
//!
//! [ce]: https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xce--driver-unloaded-without-cancelling-pending-operations

use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::time::Duration;

use crate::irql::{Apc, Irql, Level, Passive, assert_at_most};
use crate::pool::Box;
use crate::status::{NtStatus, Result};
use crate::sync::wait::{DueTime, sealed};
use crate::sync::{KERNEL_MODE, Wait};
use crate::sys;
use crate::time::Timeout;

/// A system thread. Dropping it waits until the thread has ended.
///
/// For short work use a [`WorkItem`](crate::wdf::WorkItem): a thread has a
/// stack of its own.
///
/// ```
/// use dmf::prelude::*;
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let start = Instant::now();
/// let thread = Thread::spawn(irql, |irql| {
///     dmf::sync::delay(irql, Duration::from_millis(20));
/// })?;
/// thread.join(irql);
/// assert!(start.elapsed() >= Duration::from_millis(20));
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// What the thread uses has to be its own, or live for ever:
///
/// ```compile_fail,E0373
/// use dmf::prelude::*;
///
/// fn refused(irql: &Irql<'_, Passive>) -> Result {
///     let count = 3;
///     Thread::spawn(irql, |_| { dmf::println!("{}", count); })?.join(irql);
///     Ok(())
/// }
/// ```
///
/// A thread that is never dropped is not waited for: one that is given to
/// [`core::mem::forget`], or kept in a `static`, and still runs when the driver is
/// unloaded, runs in memory that is gone. The types do not see that; `ntsim` and
/// Windows stop with bug check 0xCE.
///
/// # IRQL
/// To be dropped at `<= APC_LEVEL`; see [the module](self).
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
    ///
    /// C counterpart: [`PsCreateSystemThread`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread
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

    /// Whether the thread has ended.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    #[must_use]
    pub fn is_finished(&self, _irql: &Irql<'_, Passive>) -> bool {
        // SAFETY: the token proves the level.
        unsafe { self.wait(Timeout::Poll) != NtStatus::TIMEOUT }
    }

    /// The thread's end, as an object of a wait for several. None in the rare
    /// case that the kernel gave a handle to the thread and no reference.
    ///
    /// ```
    /// use dmf::prelude::*;
    /// use dmf::sync::{AnyOutcome, EventKind, wait_any};
    ///
    /// # ntsim::run(|| {
    /// # let irql = &unsafe { Irql::<Passive>::assume() };
    /// let stop = Event::new(EventKind::Notification)?;
    /// let thread = Thread::spawn(irql, |_| {})?;
    /// if let Some(exit) = thread.exit() {
    ///     assert_eq!(wait_any(irql, [&stop, &exit], Timeout::Never), AnyOutcome::Signaled(1));
    /// }
    /// # Ok::<_, NtStatus>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn exit(&self) -> Option<ThreadExit<'_>> {
        match self.0 {
            Waitable::Object(object) => Some(ThreadExit {
                object,
                thread: PhantomData,
            }),
            Waitable::Handle(_) => None,
        }
    }

    /// # Safety
    /// The level is `PASSIVE_LEVEL`, or `APC_LEVEL` and the thread is an object.
    unsafe fn wait(&self, timeout: Timeout) -> NtStatus {
        match self.0 {
            // SAFETY: the invariant, and the caller's promise.
            Waitable::Object(object) => unsafe { Wait::ADVISED.raw(object, timeout) },
            Waitable::Handle(handle) => {
                let mut due = DueTime::from(timeout);
                // SAFETY: the invariant, and the caller's promise; the due time
                // outlives the call.
                NtStatus::from_raw(unsafe {
                    sys::ntddk::ZwWaitForSingleObject(handle, 0, due.pointer())
                })
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let highest = match self.0 {
            Waitable::Object(_) => Apc::VALUE,
            Waitable::Handle(_) => Passive::VALUE,
        };
        assert_at_most(
            highest,
            "a Thread was dropped",
            "join it at PASSIVE_LEVEL, or move it out of the spin lock before dropping it",
        );
        // SAFETY: just checked.
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

/// The end of a [`Thread`], to wait for among other objects.
///
/// C counterpart: a `PKTHREAD` that is waited for by [`KeWaitForSingleObject`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy)]
pub struct ThreadExit<'a> {
    /// Referenced by the `Thread`.
    object: sys::PVOID,
    thread: PhantomData<&'a Thread>,
}

// SAFETY: a thread object can be waited for from any thread.
unsafe impl Send for ThreadExit<'_> {}
// SAFETY: as above.
unsafe impl Sync for ThreadExit<'_> {}

impl sealed::Object for ThreadExit<'_> {
    fn object(&self) -> sys::PVOID {
        self.object
    }
}

impl fmt::Debug for ThreadExit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadExit").finish_non_exhaustive()
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
///
/// C counterpart: the `HANDLE` of [`PsGetCurrentThreadId`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetcurrentthreadid
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
