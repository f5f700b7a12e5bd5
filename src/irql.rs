// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupt request levels as types.
//!
//! The kernel forbids most blocking calls above `PASSIVE_LEVEL`, and C states
//! that in an annotation. Here it is a type: a function that is limited to a
//! level asks for a *token* of that level, and only the framework makes tokens.
//!
//! # Vocabulary
//!
//! - *level*: [`Passive`], [`Apc`] or [`Dispatch`]. A function says which levels
//!   it is allowed at by one of them, by [`AtMostApc`] (it can wait), or by
//!   [`AtMostDispatch`].
//! - *token*: an [`Irql`], the proof that the code runs at that level now. It
//!   cannot be copied, sent to another thread, or kept beyond the callback that
//!   was given it.
//!
//! ```text
//!   KMDF calls the driver        token Irql<Passive>
//!     lock(&mut token, |value,   the token is borrowed;
//!                       irql| …) the closure has a token Irql<Dispatch>
//!     the closure returns        the token is free again
//! ```
//!
//! A function without a token parameter may be called at any level up to
//! `DISPATCH_LEVEL`.
//!
//! # Dropping
//!
//! Dropping takes no token. So that nothing is dropped where it must not be,
//! each type is one of these:
//!
//! | | Types | Why |
//! |---|---|---|
//! | dropped up to `DISPATCH_LEVEL` | all that this table does not name: non-paged memory, dispatcher objects, framework objects, handles of modules, requests, the references and guards of run-down protection | the kernel allows it |
//! | cannot get above its level | [`Key`](crate::registry::Key), and whatever else borrows a token of `PASSIVE_LEVEL` | a call that raises the level borrows that token mutably, and `with` takes nothing that is not `Send` |
//! | looks at the level | [`Thread`](crate::thread::Thread), [`Dynamic`](crate::module::Dynamic), [`PagedBox`](crate::pool::PagedBox), [`PagedVec`](crate::pool::PagedVec) | they are kept in devices and contexts, where no borrow lasts; above their level dropping is a panic that names the mistake, in a driver the bug check of `wdk-panic` |
//!
//! Locks are in no row: they are held for the length of a closure, and what ends
//! them is not a value (see [`sync`](crate::sync)).
//!
//! # Examples
//!
//! A wait under a spin lock does not compile, neither with the token that the
//! closure is given:
//!
//! ```compile_fail,E0277
//! use dmf::prelude::*;
//!
//! fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>, event: &Event) {
//!     lock.lock(irql, |_, irql| { let _ = event.wait(irql, Timeout::Never); });
//! }
//! ```
//!
//! nor with the one that the lock has borrowed:
//!
//! ```compile_fail,E0502
//! use dmf::prelude::*;
//!
//! fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>, event: &Event) {
//!     lock.lock(irql, |_, _| { let _ = event.wait(irql, Timeout::Never); });
//! }
//! ```
//!
//! After the closure the token is back, whatever the closure did: there is no
//! guard that could be leaked.
//!
//! ```
//! use dmf::prelude::*;
//! # use dmf::sync::{EventKind, WaitOutcome};
//!
//! # ntsim::run(|| {
//! # let irql = &mut unsafe { Irql::<Passive>::assume() };
//! # let (lock, event) = (SpinLock::new(0), Event::new(EventKind::Notification)?);
//! let count = lock.lock(irql, |count, _dispatch| { *count += 1; *count });
//! let outcome = event.wait(irql, Duration::from_millis(count));
//! # assert_eq!(outcome, WaitOutcome::TimedOut);
//! # Ok::<_, NtStatus>(())
//! # }).unwrap();
//! ```
//!
//! A token cannot be taken along to another thread:
//!
//! ```compile_fail,E0277
//! use dmf::prelude::*;
//!
//! fn refused(irql: &Irql<'_, Passive>) {
//!     fn send<T: Send>(_: T) {}
//!     send(irql);
//! }
//! ```
//!
//! See [Managing Hardware Priorities][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities

use core::fmt;
use core::marker::PhantomData;

/// The proof that the running code is at level `L`.
///
/// Use [`Passive`] for functions that may block, [`Dispatch`] for code in a DPC
/// or under a [`SpinLock`](crate::sync::SpinLock).
///
/// C counterpart: the annotations `_IRQL_requires_` and `_IRQL_requires_max_` of
/// [`KIRQL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
///
/// # Invariants
/// While a token that can be used exists, the current processor's IRQL is `L`.
pub struct Irql<'a, L: Level> {
    /// The callback that the token belongs to. It may be shortened, never stretched.
    scope: PhantomData<&'a ()>,
    level: PhantomData<(L, dyn TokenThatStaysInItsCallback)>,
}

/// Neither `Send` nor `Sync`: what is true of this thread is not true of others.
/// The compiler names it to whoever takes a token along.
trait TokenThatStaysInItsCallback {}

impl<L: Level> Irql<'_, L> {
    /// Makes a token.
    ///
    /// # Safety
    /// The code runs at level `L`, and keeps doing so until the token's scope
    /// ends, except while the token is mutably borrowed.
    #[must_use]
    pub const unsafe fn assume() -> Self {
        // INVARIANT: the caller's promise.
        Self {
            scope: PhantomData,
            level: PhantomData,
        }
    }

    /// The token by value, for as long as this one is borrowed.
    ///
    /// ```compile_fail,E0499
    /// use dmf::prelude::*;
    ///
    /// fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>) {
    ///     let same = irql.reborrow();
    ///     lock.lock(irql, |_, _| drop(same));
    /// }
    /// ```
    #[must_use]
    pub const fn reborrow(&mut self) -> Irql<'_, L> {
        // SAFETY: this token is borrowed for as long as the other can be used.
        unsafe { Irql::assume() }
    }
}

impl<L: Level> fmt::Debug for Irql<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(L::NAME)
    }
}

/// A level. Sealed: the list is the kernel's.
///
/// C counterpart: [`KIRQL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
pub trait Level: sealed::Sealed + 'static {
    /// The level's name in the WDK.
    const NAME: &'static str;
    /// The level's number in the WDK.
    const VALUE: u8;
}

/// A level from which `DISPATCH_LEVEL` can be raised to: what a spin lock needs.
///
/// C counterpart: the annotation `_IRQL_requires_max_(DISPATCH_LEVEL)` of
/// [`KIRQL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
#[diagnostic::on_unimplemented(
    message = "this call is allowed up to DISPATCH_LEVEL, and the token is for `{Self}`"
)]
pub trait AtMostDispatch: Level {}

/// A level at which a thread may wait: what waits and fast mutexes need.
///
/// C counterpart: the annotation `_IRQL_requires_max_(APC_LEVEL)` of [`KIRQL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
#[diagnostic::on_unimplemented(
    message = "this call can wait, and code at `{Self}` level must not",
    label = "a token of PASSIVE_LEVEL or APC_LEVEL is needed",
    note = "call it after the spin lock's closure has returned; in a DPC, queue a WorkItem that calls it, or use the `try_` form"
)]
pub trait AtMostApc: AtMostDispatch {}

impl AtMostApc for Passive {}
impl AtMostApc for Apc {}

/// `PASSIVE_LEVEL`: threads, work items, PnP and power callbacks. May block.
///
/// C counterpart: [`PASSIVE_LEVEL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
#[derive(Debug)]
pub enum Passive {}

/// `APC_LEVEL`: under a fast mutex. May block, but gets no APCs.
///
/// C counterpart: [`APC_LEVEL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
#[derive(Debug)]
pub enum Apc {}

/// `DISPATCH_LEVEL`: DPCs, and code under a spin lock. Must not block.
///
/// C counterpart: [`DISPATCH_LEVEL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
#[derive(Debug)]
pub enum Dispatch {}

macro_rules! levels {
    ($($level:ident = $value:literal, $name:literal;)*) => {$(
        impl sealed::Sealed for $level {}
        impl Level for $level {
            const NAME: &'static str = $name;
            const VALUE: u8 = $value;
        }
        impl AtMostDispatch for $level {}
    )*};
}

levels! {
    Passive = 0, "PASSIVE_LEVEL";
    Apc = 1, "APC_LEVEL";
    Dispatch = 2, "DISPATCH_LEVEL";
}

/// Stops, naming the mistake and the way out, if the level is above `highest`.
///
/// For the `Drop` of what must not be dropped there, takes no token, and is kept
/// in places that the types do not follow: a panic, in a driver a bug check,
/// comes before anything that is undefined.
pub(crate) fn assert_at_most(highest: u8, mistake: &str, way_out: &str) {
    // SAFETY: callable at any level.
    let level = unsafe { crate::sys::ntddk::KeGetCurrentIrql() };
    assert!(
        level <= highest,
        "{mistake} at IRQL {level}, and the highest for that is {highest}: {way_out}"
    );
}

mod sealed {
    pub trait Sealed {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_no_size() {
        assert_eq!(size_of::<Irql<'_, Passive>>(), 0);
    }

    #[test]
    fn levels_have_the_kernels_numbers() {
        assert_eq!([Passive::VALUE, Apc::VALUE, Dispatch::VALUE], [0, 1, 2]);
    }
}
