// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waits for any object of the family: [`wait`], [`wait_any`], [`wait_all`],
//! [`try_wait`], and [`Wait`] for those that an alert may end.

use core::mem::MaybeUninit;
use core::ptr;
use core::time::Duration;

use super::KERNEL_MODE;
use crate::irql::{AtMostApc, Irql};
use crate::pool::Vec;
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// The most objects of one wait (`MAXIMUM_WAIT_OBJECTS`).
pub const MAXIMUM_WAIT_OBJECTS: usize = 64;

/// How many objects a thread can wait for without wait blocks of the caller's
/// (`THREAD_WAIT_OBJECTS`).
pub const THREAD_WAIT_OBJECTS: usize = 3;

/// An object that a thread can wait for.
///
/// [`Event`](super::Event), [`Semaphore`](super::Semaphore),
/// [`MutexClaim`](super::MutexClaim), and
/// [`ThreadExit`](crate::thread::ThreadExit). Sealed: the list is the kernel's.
///
/// C counterpart: a [kernel dispatcher object][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/kernel-dispatcher-objects
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be waited for",
    note = "the objects of a wait are Event, Semaphore, MutexClaim (Mutex::claim) and ThreadExit (Thread::exit)"
)]
pub trait Waitable: sealed::Object {}

impl<T: sealed::Object> Waitable for T {}

pub(crate) mod sealed {
    /// What the waits need to know of an object.
    pub trait Object {
        /// The kernel's object: initialized, and where it is as long as `self`
        /// is borrowed.
        fn object(&self) -> crate::sys::PVOID;

        /// Notes that the running thread's wait has acquired the object.
        ///
        /// # Safety
        /// It has, and this is called once for it. (Whoever has a `dyn Waitable`
        /// can call this, sealed or not.)
        unsafe fn acquired(&self) {}
    }
}

/// How a wait for objects that nobody can abandon ended.
///
/// C counterpart: the statuses of [`KeWaitForSingleObject`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without the object being signaled"]
pub enum WaitOutcome {
    /// The object was signaled.
    Signaled,
    /// The time was over first.
    TimedOut,
}

/// How an alertable wait for one such object ended.
///
/// C counterpart: the statuses of [`KeWaitForSingleObject`][ms] with `Alertable`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without the object being signaled"]
pub enum AlertableOutcome {
    /// The object was signaled.
    Signaled,
    /// The time was over first.
    TimedOut,
    /// The thread was alerted.
    Alerted,
    /// A user-mode APC was delivered to the thread.
    UserApc,
}

/// How a wait for one object of any kind, or for all of several, ended.
///
/// C counterpart: the statuses of [`KeWaitForSingleObject`][ms], of
/// `KeWaitForMultipleObjects` with `WaitAll`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without the objects being signaled"]
pub enum ObjectOutcome {
    /// The object was, or all objects were, signaled and acquired.
    Signaled,
    /// Acquired, but a mutex among them was abandoned by a thread that ended.
    /// The kernel does not tell which.
    Abandoned,
    /// The time was over first. Nothing was acquired.
    TimedOut,
}

/// How a wait for the first of several objects ended.
///
/// C counterpart: the statuses of [`KeWaitForMultipleObjects`][ms] with `WaitAny`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without an object being signaled"]
pub enum AnyOutcome {
    /// The object with this index was signaled, and only it was acquired. If
    /// several were signaled, the lowest.
    Signaled(usize),
    /// The mutex with this index was acquired, abandoned by a thread that ended.
    Abandoned(usize),
    /// The time was over first. Nothing was acquired.
    TimedOut,
}

/// How a wait whose mode and alertability were chosen ended: each of the five
/// ways that the kernel has.
///
/// Of a wait for all objects the index is 0.
///
/// C counterpart: the statuses of [`KeWaitForMultipleObjects`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a wait can end without an object being signaled"]
pub enum Outcome {
    /// The object with this index was signaled and acquired (`STATUS_WAIT_0` and on).
    Signaled(usize),
    /// The mutex with this index was acquired, abandoned by a thread that ended
    /// (`STATUS_ABANDONED_WAIT_0` and on).
    Abandoned(usize),
    /// The time was over first (`STATUS_TIMEOUT`).
    TimedOut,
    /// The thread was alerted (`STATUS_ALERTED`).
    Alerted,
    /// A user-mode APC is to be delivered, or the thread to be ended (`STATUS_USER_APC`).
    UserApc,
}

/// How a delay that can be cut short ended.
///
/// C counterpart: the statuses of [`KeDelayExecutionThread`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a delay that is alertable can be cut short"]
pub enum DelayOutcome {
    /// The time passed.
    Elapsed,
    /// The thread was alerted.
    Alerted,
    /// A user-mode APC is to be delivered, or the thread to be ended.
    UserApc,
}

/// On whose behalf a thread waits.
///
/// C counterpart: the `WaitMode` of [`KeWaitForSingleObject`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WaitMode {
    /// The driver's: the thread's kernel stack stays in memory, and no user-mode
    /// APC ends the wait. The kernel's advice for drivers.
    #[default]
    Kernel,
    /// The user's, in the context of whose thread the driver runs: the stack may
    /// be paged out, and ending the process ends the wait.
    User,
}

/// Whether an alert ends a wait.
///
/// C counterpart: the `Alertable` of [`KeWaitForSingleObject`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Alertability {
    /// It does not. The kernel's advice for drivers.
    #[default]
    NotAlertable,
    /// It does, and so does a user-mode APC if the [`WaitMode`] is `User`.
    Alertable,
}

/// A wait whose mode and alertability are chosen.
///
/// Only for threads that somebody alerts, or in whose context a user waits:
/// the functions [`wait`], [`wait_any`] and [`wait_all`] have the kernel's
/// advice built in, and fewer outcomes to look at.
///
/// | | not alertable | alertable |
/// |---|---|---|
/// | [`WaitMode::Kernel`] | ends when signaled or timed out | also by an alert |
/// | [`WaitMode::User`] | also when the thread is to end | also by an alert or a user-mode APC |
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{Alertability, EventKind, Outcome, Wait};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let answer = Event::new(EventKind::Synchronization)?;
/// answer.set();
/// let wait = Wait { alertability: Alertability::Alertable, ..Wait::default() };
/// match wait.one(irql, &answer, Duration::from_secs(1)) {
///     Outcome::Signaled(_) | Outcome::Abandoned(_) => println!("answered"),
///     Outcome::TimedOut => panic!("no answer"),
///     Outcome::Alerted | Outcome::UserApc => panic!("told to give up"),
/// }
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// See [Waits and APCs][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/waits-and-apcs
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Wait {
    /// On whose behalf.
    pub mode: WaitMode,
    /// Whether an alert ends it.
    pub alertability: Alertability,
}

impl Wait {
    /// In kernel mode, and not alertable: the kernel's advice.
    pub const ADVISED: Self = Self {
        mode: WaitMode::Kernel,
        alertability: Alertability::NotAlertable,
    };

    /// Waits for `object`.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`KeWaitForSingleObject`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
    pub fn one<W: Waitable + ?Sized>(
        self,
        _irql: &Irql<'_, impl AtMostApc>,
        object: &W,
        timeout: impl Into<Timeout>,
    ) -> Outcome {
        // SAFETY: the token proves the level.
        unsafe { self.single(object, timeout.into()) }
    }

    /// Waits for the first of `objects`, 1 to 64.
    ///
    /// For more than three, wait blocks are allocated: in user mode the stack
    /// can be paged out. [`wait_any`] has them on the stack and cannot fail.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if there are no objects, or more than 64.
    /// - `STATUS_INSUFFICIENT_RESOURCES` if there is no pool for wait blocks.
    ///
    /// C counterpart: [`KeWaitForMultipleObjects`][ms] with `WaitAny`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
    pub fn any(
        self,
        _irql: &Irql<'_, impl AtMostApc>,
        objects: &[&dyn Waitable],
        timeout: impl Into<Timeout>,
    ) -> Result<Outcome> {
        // SAFETY: the token proves the level.
        unsafe { self.allocating(objects, sys::_WAIT_TYPE::WaitAny, timeout.into()) }
    }

    /// Waits until all of `objects`, 1 to 64, are signaled at once, and then
    /// acquires them all.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if there are no objects, or more than 64.
    /// - `STATUS_INVALID_PARAMETER_MIX` if one object is there twice.
    /// - `STATUS_INSUFFICIENT_RESOURCES` if there is no pool for wait blocks.
    ///
    /// C counterpart: [`KeWaitForMultipleObjects`][ms] with `WaitAll`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
    pub fn all(
        self,
        _irql: &Irql<'_, impl AtMostApc>,
        objects: &[&dyn Waitable],
        timeout: impl Into<Timeout>,
    ) -> Result<Outcome> {
        no_object_twice(objects)?;
        // SAFETY: the token proves the level.
        unsafe { self.allocating(objects, sys::_WAIT_TYPE::WaitAll, timeout.into()) }
    }

    /// Lets `duration` pass while other threads run, unless it is cut short.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// C counterpart: [`KeDelayExecutionThread`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread
    pub fn delay(self, _irql: &Irql<'_, impl AtMostApc>, duration: Duration) -> DelayOutcome {
        let mut interval = DueTime::from(Timeout::After(duration));
        // SAFETY: the token proves the level, and `interval` outlives the call. A
        // relative time is never null.
        let status = unsafe {
            sys::ntddk::KeDelayExecutionThread(self.mode(), self.alertable(), interval.pointer())
        };
        match NtStatus::from_raw(status) {
            NtStatus::ALERTED => DelayOutcome::Alerted,
            NtStatus::USER_APC => DelayOutcome::UserApc,
            _ => DelayOutcome::Elapsed,
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "KPROCESSOR_MODE is one byte, and the values are 0 and 1"
    )]
    fn mode(self) -> sys::KPROCESSOR_MODE {
        match self.mode {
            WaitMode::Kernel => KERNEL_MODE,
            WaitMode::User => sys::_MODE::UserMode as sys::KPROCESSOR_MODE,
        }
    }

    const fn reason(self) -> sys::KWAIT_REASON {
        match self.mode {
            WaitMode::Kernel => sys::_KWAIT_REASON::Executive,
            WaitMode::User => sys::_KWAIT_REASON::UserRequest,
        }
    }

    fn alertable(self) -> sys::BOOLEAN {
        sys::BOOLEAN::from(self.alertability == Alertability::Alertable)
    }

    /// # Safety
    /// The level is `<= APC_LEVEL`, or the timeout is zero and it is `<= DISPATCH_LEVEL`.
    pub(crate) unsafe fn single<W: Waitable + ?Sized>(
        self,
        object: &W,
        timeout: Timeout,
    ) -> Outcome {
        // SAFETY: the trait's promise about the object, and the caller's.
        let status = unsafe { self.raw(object.object(), timeout) };
        let outcome = outcome(status, 1);
        if let Outcome::Signaled(_) | Outcome::Abandoned(_) = outcome {
            // SAFETY: the wait has just acquired it.
            unsafe { object.acquired() };
        }
        outcome
    }

    /// # Safety
    /// The object is initialized and stays where it is, and the level is as for
    /// [`single`](Self::single).
    pub(crate) unsafe fn raw(self, object: sys::PVOID, timeout: Timeout) -> NtStatus {
        let mut due = DueTime::from(timeout);
        // SAFETY: the caller's promise; the due time outlives the call.
        NtStatus::from_raw(unsafe {
            sys::ntddk::KeWaitForSingleObject(
                object,
                self.reason(),
                self.mode(),
                self.alertable(),
                due.pointer(),
            )
        })
    }

    /// A wait for several objects, with wait blocks from the pool.
    ///
    /// # Safety
    /// The level is `<= APC_LEVEL`.
    unsafe fn allocating(
        self,
        objects: &[&dyn Waitable],
        kind: sys::WAIT_TYPE,
        timeout: Timeout,
    ) -> Result<Outcome> {
        if objects.is_empty() || objects.len() > MAXIMUM_WAIT_OBJECTS {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let mut blocks = Vec::<MaybeUninit<sys::KWAIT_BLOCK>>::new();
        if objects.len() > THREAD_WAIT_OBJECTS {
            blocks = Vec::with_capacity(objects.len())?;
            for _ in objects {
                blocks.push(MaybeUninit::uninit())?;
            }
        }
        // SAFETY: the caller's promise; there is a block for each object, or
        // none and at most three objects.
        Ok(unsafe { self.multiple(objects, &mut blocks, kind, timeout) })
    }

    /// # Safety
    /// The level is `<= APC_LEVEL`. There are 1 to 64 objects, and a wait block
    /// for each, in memory that is not paged, or none for at most three.
    unsafe fn multiple(
        self,
        objects: &[&dyn Waitable],
        blocks: &mut [MaybeUninit<sys::KWAIT_BLOCK>],
        kind: sys::WAIT_TYPE,
        timeout: Timeout,
    ) -> Outcome {
        let mut pointers = [ptr::null_mut(); MAXIMUM_WAIT_OBJECTS];
        for (pointer, object) in pointers.iter_mut().zip(objects) {
            *pointer = object.object();
        }
        let mut due = DueTime::from(timeout);
        let blocks = match blocks {
            [] => ptr::null_mut(),
            blocks => blocks.as_mut_ptr().cast(),
        };
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let count = objects.len() as u32;
        // SAFETY: the objects are initialized and borrowed for the length of
        // the call; the rest is the caller's promise.
        let status = NtStatus::from_raw(unsafe {
            sys::ntddk::KeWaitForMultipleObjects(
                count,
                pointers.as_mut_ptr(),
                kind,
                self.reason(),
                self.mode(),
                self.alertable(),
                due.pointer(),
                blocks,
            )
        });
        // The kernel promises no index for all objects, only the two ranges.
        let all = kind == sys::_WAIT_TYPE::WaitAll;
        let limit = if all {
            MAXIMUM_WAIT_OBJECTS
        } else {
            objects.len()
        };
        let outcome = outcome(status, limit);
        let acquired = match outcome {
            Outcome::Signaled(_) | Outcome::Abandoned(_) if all => objects,
            Outcome::Signaled(index) | Outcome::Abandoned(index) => &objects[index..=index],
            _ => &[],
        };
        for object in acquired {
            // SAFETY: the wait has just acquired it.
            unsafe { object.acquired() };
        }
        match outcome {
            Outcome::Signaled(_) if all => Outcome::Signaled(0),
            Outcome::Abandoned(_) if all => Outcome::Abandoned(0),
            outcome => outcome,
        }
    }
}

/// A timeout as the kernel takes it: where the due time is, or nowhere.
pub(crate) struct DueTime(Option<sys::LARGE_INTEGER>);

impl From<Timeout> for DueTime {
    fn from(timeout: Timeout) -> Self {
        let due = timeout.to_due_time();
        Self(due.map(|due| sys::LARGE_INTEGER { QuadPart: due }))
    }
}

impl DueTime {
    /// Null for "without limit"; else valid as long as this is borrowed.
    pub(crate) fn pointer(&mut self) -> sys::PLARGE_INTEGER {
        self.0.as_mut().map_or(ptr::null_mut(), ptr::from_mut)
    }
}

/// What a wait's status means. Every value that the kernel documents has its
/// own arm, so nothing is mistaken for success.
fn outcome(status: NtStatus, count: usize) -> Outcome {
    const FIRST_ABANDONED: usize = NtStatus::ABANDONED_WAIT_0.to_raw().cast_unsigned() as usize;
    match (status, usize::try_from(status.to_raw())) {
        (NtStatus::USER_APC, _) => Outcome::UserApc,
        (NtStatus::ALERTED, _) => Outcome::Alerted,
        (_, Ok(index)) if index < count => Outcome::Signaled(index),
        (_, Ok(index)) if (FIRST_ABANDONED..FIRST_ABANDONED + count).contains(&index) => {
            Outcome::Abandoned(index - FIRST_ABANDONED)
        }
        // STATUS_TIMEOUT; and of a failure, which the kernel documents none of
        // for a valid object, it is true that nothing was acquired.
        _ => Outcome::TimedOut,
    }
}

/// # Errors
/// `STATUS_INVALID_PARAMETER_MIX` if one object is there twice, as from
/// `NtWaitForMultipleObjects`. The kernel-mode function does not look, and
/// would take two units from a semaphore that has one.
fn no_object_twice(objects: &[&dyn Waitable]) -> Result {
    for (index, object) in objects.iter().enumerate() {
        if objects[..index]
            .iter()
            .any(|other| ptr::eq(other.object(), object.object()))
        {
            return Err(NtStatus::INVALID_PARAMETER_MIX);
        }
    }
    Ok(())
}

/// Waits for `object`, of any kind.
///
/// [`Event::wait`](super::Event::wait), [`Semaphore::acquire`](super::Semaphore::acquire)
/// and [`Mutex::lock`](super::Mutex::lock) say the same of one kind.
///
/// # IRQL
/// `<= APC_LEVEL`
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{ObjectOutcome, Semaphore, wait};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let places = Semaphore::new(1, 1)?;
/// assert_eq!(wait(irql, &places, Timeout::Never), ObjectOutcome::Signaled);
/// assert_eq!(wait(irql, &places, Duration::from_millis(1)), ObjectOutcome::TimedOut);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`KeWaitForSingleObject`][ms], kernel mode, not alertable.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
pub fn wait<W: Waitable + ?Sized>(
    irql: &Irql<'_, impl AtMostApc>,
    object: &W,
    timeout: impl Into<Timeout>,
) -> ObjectOutcome {
    Wait::ADVISED.one(irql, object, timeout).of_all()
}

/// Acquires `object` if it is signaled, without waiting.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{EventKind, ObjectOutcome, try_wait};
///
/// # ntsim::run(|| {
/// # let irql = &mut unsafe { Irql::<Passive>::assume() };
/// let event = Event::new(EventKind::Synchronization)?;
/// let lock = SpinLock::new(());
/// lock.lock(irql, |_, _dispatch| {
///     assert_eq!(try_wait(&event), ObjectOutcome::TimedOut);
///     event.set();
///     assert_eq!(try_wait(&event), ObjectOutcome::Signaled);
/// });
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`KeWaitForSingleObject`][ms] with a timeout of zero.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
pub fn try_wait<W: Waitable + ?Sized>(object: &W) -> ObjectOutcome {
    // SAFETY: the timeout is zero.
    unsafe { Wait::ADVISED.single(object, Timeout::Poll) }.of_all()
}

/// Waits for the first of `N` objects, 1 to 64.
///
/// The objects may be of different kinds. The wait blocks that the kernel needs
/// for more than three lie on the caller's stack, 48 bytes each; [`Wait::any`]
/// takes a slice and has them in pool.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{AnyOutcome, EventKind, Semaphore, wait_any};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let stop = Event::new(EventKind::Notification)?;
/// let work = Semaphore::new(2, 10)?;
/// let mut done = 0;
/// while let AnyOutcome::Signaled(1) = wait_any(irql, [&stop, &work], Timeout::Never) {
///     done += 1;
///     if done == 2 {
///         stop.set();
///     }
/// }
/// assert_eq!(done, 2);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// Neither no objects nor more than 64 compile:
///
/// ```compile_fail,E0080
/// use dmf::prelude::*;
/// fn refused(irql: &Irql<'_, Passive>) {
///     let _ = dmf::sync::wait_any(irql, [], Timeout::Never);
/// }
/// # fn main() { refused(&unsafe { Irql::assume() }) }
/// ```
///
/// # IRQL
/// `<= APC_LEVEL`
///
/// C counterpart: [`KeWaitForMultipleObjects`][ms] with `WaitAny`, kernel mode,
/// not alertable.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
pub fn wait_any<const N: usize>(
    _irql: &Irql<'_, impl AtMostApc>,
    objects: [&dyn Waitable; N],
    timeout: impl Into<Timeout>,
) -> AnyOutcome {
    // SAFETY: the token proves the level.
    let outcome = unsafe { on_stack(&objects, sys::_WAIT_TYPE::WaitAny, timeout.into()) };
    match outcome {
        Outcome::Signaled(index) => AnyOutcome::Signaled(index),
        Outcome::Abandoned(index) => AnyOutcome::Abandoned(index),
        // Not alertable and in kernel mode: there is no other outcome.
        _ => AnyOutcome::TimedOut,
    }
}

/// Waits until all of `N` objects, 1 to 64, are signaled at once, and acquires
/// them together. While one of them is missing, none is acquired.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::sync::{EventKind, ObjectOutcome, Semaphore, wait_all};
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let powered = Event::new(EventKind::Notification)?;
/// let buffers = Semaphore::new(1, 4)?;
/// let second = Duration::from_secs(1);
/// assert_eq!(wait_all(irql, [&powered, &buffers], second)?, ObjectOutcome::TimedOut);
/// powered.set();
/// assert_eq!(wait_all(irql, [&powered, &buffers], second)?, ObjectOutcome::Signaled);
/// assert_eq!(buffers.count(), 0);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// # IRQL
/// `<= APC_LEVEL`
///
/// # Errors
/// `STATUS_INVALID_PARAMETER_MIX` if one object is there twice.
///
/// C counterpart: [`KeWaitForMultipleObjects`][ms] with `WaitAll`, kernel mode,
/// not alertable.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects
pub fn wait_all<const N: usize>(
    _irql: &Irql<'_, impl AtMostApc>,
    objects: [&dyn Waitable; N],
    timeout: impl Into<Timeout>,
) -> Result<ObjectOutcome> {
    no_object_twice(&objects)?;
    // SAFETY: the token proves the level.
    let outcome = unsafe { on_stack(&objects, sys::_WAIT_TYPE::WaitAll, timeout.into()) };
    Ok(outcome.of_all())
}

/// A wait as the kernel advises it, with wait blocks on the stack.
///
/// # Safety
/// The level is `<= APC_LEVEL`.
unsafe fn on_stack<const N: usize>(
    objects: &[&dyn Waitable; N],
    kind: sys::WAIT_TYPE,
    timeout: Timeout,
) -> Outcome {
    const {
        assert!(
            N > 0 && N <= MAXIMUM_WAIT_OBJECTS,
            "a wait is for 1 to 64 objects"
        );
    }
    let mut blocks = [const { MaybeUninit::uninit() }; N];
    // SAFETY: the caller's promise; there is a block for each object, and in
    // kernel mode the stack is not paged out.
    unsafe { Wait::ADVISED.multiple(objects, &mut blocks, kind, timeout) }
}

impl ObjectOutcome {
    /// The same, of an object that has no owner who could abandon it.
    pub(super) const fn without_owner(self) -> WaitOutcome {
        match self {
            Self::TimedOut => WaitOutcome::TimedOut,
            Self::Signaled | Self::Abandoned => WaitOutcome::Signaled,
        }
    }
}

impl Outcome {
    /// The same, of a wait as the kernel advises it, for one or for all objects.
    fn of_all(self) -> ObjectOutcome {
        match self {
            Self::Signaled(_) => ObjectOutcome::Signaled,
            Self::Abandoned(_) => ObjectOutcome::Abandoned,
            // Not alertable and in kernel mode: there is no other outcome.
            _ => ObjectOutcome::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_of_a_wait_has_its_outcome() {
        let of = |code: i32, count| outcome(NtStatus::from_raw(code), count);
        assert_eq!(of(0, 1), Outcome::Signaled(0));
        assert_eq!(of(63, 64), Outcome::Signaled(63));
        assert_eq!(of(0x80, 1), Outcome::Abandoned(0));
        assert_eq!(of(0xBF, 64), Outcome::Abandoned(63));
        assert_eq!(of(0xC0, 64), Outcome::UserApc);
        assert_eq!(of(0x101, 64), Outcome::Alerted);
        assert_eq!(of(0x102, 64), Outcome::TimedOut);
    }

    #[test]
    fn an_index_beyond_the_objects_is_not_signaled() {
        let of = |code: i32, count| outcome(NtStatus::from_raw(code), count);
        assert_eq!(of(1, 1), Outcome::TimedOut);
        assert_eq!(of(0x81, 1), Outcome::TimedOut);
        assert_eq!(
            of(NtStatus::INVALID_PARAMETER.to_raw(), 1),
            Outcome::TimedOut
        );
    }
}
