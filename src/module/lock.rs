// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Locked`]: the state of a module behind a lock, whose kind is a type.

use core::fmt;

use crate::irql::{AtMostDispatch, Dispatch, Irql, Level, Passive};
use crate::status::Result;
use crate::{sync, wdf};

/// A value behind a lock of kind `K`: [`Wait`] or [`Spin`].
///
/// An instance keeps in it what its methods share, one for each group of fields
/// that change together; the lock owns the value, so there is no way to it
/// without the lock, and no limit to how many there are. [`WaitLocked`] and
/// [`SpinLocked`] name the two kinds.
///
/// A module whose client chooses is generic over the kind: its methods then ask
/// for a token of a level at which the chosen lock can be taken. A module with a
/// fixed kind can as well use [`wdf::WaitLock`] and [`sync::SpinLock`] themselves.
///
/// ```
/// #![forbid(unsafe_code)]
/// use dmf::irql::Level;
/// use dmf::module::{Create, Instance, Link, LockKind, Locked, ModuleConfig, TakenAt, Wait};
/// use dmf::prelude::*;
///
/// /// Adds up what it is told, for clients at any level that the lock allows.
/// #[derive(Clone)]
/// pub struct Sum<K: LockKind>(Link<Adding<K>>);
///
/// pub struct Adding<K: LockKind>(Locked<u32, K>);
///
/// impl<K: LockKind> Sum<K> {
///     pub fn add<L: Level>(&self, irql: &mut Irql<'_, L>, value: u32) -> Result<u32>
///     where
///         K: TakenAt<L>,
///     {
///         let this = self.0.enter()?;
///         Ok(this.0.lock(irql, |sum, _held| { *sum += value; *sum }))
///     }
/// }
/// # impl<K: LockKind> Module for Sum<K> {
/// #     type Instance = Adding<K>;
/// #     fn over(instance: Link<Adding<K>>) -> Self { Sum(instance) }
/// # }
/// # impl<K: LockKind> Instance for Adding<K> {}
///
/// pub struct Config<K>(core::marker::PhantomData<K>);
///
/// impl<O, K: LockKind> ModuleConfig<O> for Config<K> {
///     type Module = Sum<K>;
///     fn create(self, _: &mut Create<'_, O, Adding<K>>) -> Result<Adding<K>> {
///         Ok(Adding(Locked::new(0)?))
///     }
/// }
///
/// dmf::driver!(Meter);
/// pub struct Meter { sum: Handle<Sum<Wait>> }
///
/// impl Device for Meter {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Meter { sum: add.module(Config(core::marker::PhantomData))? })
///     }
///     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
///         assert_eq!(self.sum.add(cx.irql(), 2)?, 2);
///         assert_eq!(self.sum.add(cx.irql(), 3)?, 5);
///         Ok(())
///     }
/// }
/// # ntsim::run_driver(Meter::DRIVER_ENTRY, |_, _| {});
/// ```
///
/// A wait lock cannot be taken in a DPC:
///
/// ```compile_fail,E0277
/// use dmf::module::WaitLocked;
/// use dmf::prelude::*;
///
/// fn refused(irql: &mut Irql<'_, Dispatch>, state: &WaitLocked<u32>) {
///     state.lock(irql, |state, _| *state += 1);
/// }
/// ```
///
/// nor can what waits be called while a spin lock is held:
///
/// ```compile_fail,E0277
/// use dmf::module::SpinLocked;
/// use dmf::prelude::*;
///
/// fn refused(irql: &mut Irql<'_, Passive>, state: &SpinLocked<u32>) {
///     state.lock(irql, |_, irql| dmf::sync::delay(irql, Duration::from_secs(1)));
/// }
/// ```
///
/// Taking it again inside is a deadlock or a bug check for either kind; the
/// token makes it as hard as it can be, since the closure borrows the caller's.
///
/// C counterpart: [`DMF_ModuleLock`][dmf], `DMF_ModuleUnlock` and the auxiliary locks;
/// `DMF_MODULE_OPTIONS_PASSIVE`, `_DISPATCH` and `_DISPATCH_MAXIMUM`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub struct Locked<T: Send, K: LockKind>(K::Lock<T>);

/// A value behind a lock for which threads wait. See [`Locked`].
pub type WaitLocked<T> = Locked<T, Wait>;
/// A value behind a lock that holds the processor at `DISPATCH_LEVEL`. See [`Locked`].
pub type SpinLocked<T> = Locked<T, Spin>;

/// The kind of lock for which threads wait: short or long work at
/// `PASSIVE_LEVEL`. A [`wdf::WaitLock`].
///
/// C counterpart: [`DMF_MODULE_OPTIONS_PASSIVE`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[derive(Clone, Copy, Debug)]
pub enum Wait {}

/// The kind of lock for short work up to `DISPATCH_LEVEL`. A [`sync::SpinLock`].
///
/// C counterpart: [`DMF_MODULE_OPTIONS_DISPATCH`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[derive(Clone, Copy, Debug)]
pub enum Spin {}

/// [`Wait`] or [`Spin`].
///
/// C counterpart: [`DmfModuleOptions`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub trait LockKind: sealed::Sealed + Copy + fmt::Debug + Send + Sync + 'static {
    /// The level at which the lock is held.
    type Held: Level;
    #[doc(hidden)]
    type Lock<T: Send>: MakeLock<T> + Send + Sync;
}

/// The kinds of lock that code at level `L` can take.
///
/// No C counterpart: there a module's option decides, and its code has to fit.
#[diagnostic::on_unimplemented(
    message = "the lock `{Self}` cannot be taken at `{L}` level",
    note = "use `SpinLocked`, or take it in a WorkItem, which runs at PASSIVE_LEVEL"
)]
pub trait TakenAt<L: Level>: LockKind {
    #[doc(hidden)]
    fn take<T: Send, R>(
        lock: &Self::Lock<T>,
        irql: &mut Irql<'_, L>,
        action: impl FnOnce(&mut T, &mut Irql<'_, Self::Held>) -> R,
    ) -> R;
}

/// What all locks can.
#[doc(hidden)]
pub trait MakeLock<T>: Sized {
    fn make(value: T) -> Result<Self>;
    fn value(&mut self) -> &mut T;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Wait {}
    impl Sealed for super::Spin {}
}

impl<T> MakeLock<T> for wdf::WaitLock<T> {
    fn make(value: T) -> Result<Self> {
        Self::new(value)
    }
    fn value(&mut self) -> &mut T {
        self.get_mut()
    }
}

impl<T> MakeLock<T> for sync::SpinLock<T> {
    fn make(value: T) -> Result<Self> {
        Ok(Self::new(value))
    }
    fn value(&mut self) -> &mut T {
        self.get_mut()
    }
}

impl LockKind for Wait {
    type Held = Passive;
    type Lock<T: Send> = wdf::WaitLock<T>;
}

impl LockKind for Spin {
    type Held = Dispatch;
    type Lock<T: Send> = sync::SpinLock<T>;
}

impl TakenAt<Passive> for Wait {
    fn take<T: Send, R>(
        lock: &wdf::WaitLock<T>,
        irql: &mut Irql<'_, Passive>,
        action: impl FnOnce(&mut T, &mut Irql<'_, Passive>) -> R,
    ) -> R {
        lock.lock(irql, |value| {
            // SAFETY: the caller's token is borrowed for the length of this
            // call, and a wait lock leaves the level as it is.
            action(value, &mut unsafe { Irql::assume() })
        })
    }
}

impl<L: AtMostDispatch> TakenAt<L> for Spin {
    fn take<T: Send, R>(
        lock: &sync::SpinLock<T>,
        irql: &mut Irql<'_, L>,
        action: impl FnOnce(&mut T, &mut Irql<'_, Dispatch>) -> R,
    ) -> R {
        lock.lock(irql, action)
    }
}

impl<T: Send, K: LockKind> Locked<T, K> {
    /// A lock, not held, around `value`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, of a wait lock, which is an object of KMDF.
    ///
    /// C counterpart: the locks that `DMF_ModuleCreate` makes.
    pub fn new(value: T) -> Result<Self> {
        K::Lock::make(value).map(Self)
    }

    /// Runs `action` with the lock held, and gives it a token of the level at
    /// which it is.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL` for [`Wait`]; `<= DISPATCH_LEVEL` for [`Spin`], which raises
    /// to `DISPATCH_LEVEL` meanwhile.
    ///
    /// C counterpart: `DMF_ModuleLock` and `DMF_ModuleUnlock`.
    pub fn lock<L: Level, R>(
        &self,
        irql: &mut Irql<'_, L>,
        action: impl FnOnce(&mut T, &mut Irql<'_, K::Held>) -> R,
    ) -> R
    where
        K: TakenAt<L>,
    {
        K::take(&self.0, irql, action)
    }

    /// The value, without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.value()
    }
}

impl<T: Send, K: LockKind> fmt::Debug for Locked<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").finish_non_exhaustive()
    }
}
