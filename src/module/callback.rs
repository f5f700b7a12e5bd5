// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Callback`]: a function of an owner, callable without knowing the owner's type.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::Owner;
use super::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};

/// The arguments and the result of a kind of callback.
///
/// A module that calls its owner, whatever that is, names one, takes a
/// [`Function`] in its config, and [binds](super::Create::bind) it when it is made:
///
/// ```
/// use dmf::module::{Callback, Create, Function, Instance, Link, ModuleConfig, Signature};
/// use dmf::prelude::*;
///
/// /// "The temperature changed."
/// #[derive(Debug)]
/// pub struct Changed<'a> { pub reading: &'a i32 }
///
/// #[derive(Debug)]
/// pub enum OnChanged {}
///
/// impl Signature for OnChanged {
///     type Arguments<'a> = Changed<'a>;
///     type Output = bool;
/// }
///
/// #[derive(Clone)]
/// pub struct Thermometer(Link<Reading>);
/// pub struct Reading { on_changed: Callback<OnChanged> }
/// pub struct Config<O: 'static>(Function<O, OnChanged>);
///
/// impl<O: Send + Sync + 'static> ModuleConfig<O> for Config<O> {
///     type Module = Thermometer;
///     fn create(self, cx: &mut Create<'_, O, Reading>) -> Result<Reading> {
///         Ok(Reading { on_changed: cx.bind::<OnChanged>(self.0) })
///     }
/// }
/// # impl Module for Thermometer {
/// #     type Instance = Reading;
/// #     fn over(instance: Link<Reading>) -> Self { Thermometer(instance) }
/// # }
/// # impl Instance for Reading {}
///
/// impl Thermometer {
///     pub fn measure(&self, reading: i32) -> Result<bool> {
///         self.0.enter()?.on_changed.call(&mut Changed { reading: &reading })
///     }
/// }
///
/// dmf::driver!(Oven);
/// struct Oven { thermometer: Handle<Thermometer>, limit: i32 }
///
/// impl Oven {
///     fn is_hot(&self, changed: &mut Changed<'_>) -> bool { *changed.reading > self.limit }
/// }
///
/// impl Device for Oven {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Oven { thermometer: add.module(Config(Oven::is_hot))?, limit: 250 })
///     }
///     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
///         assert_eq!(self.thermometer.measure(20), Ok(false));
///         assert_eq!(self.thermometer.measure(300), Ok(true));
///         Ok(())
///     }
/// }
/// # ntsim::run_driver(Oven::DRIVER_ENTRY, |_, _| {});
/// ```
///
/// No C counterpart: there each callback has a function type of its own.
pub trait Signature: 'static {
    /// What the function is given, besides its owner.
    type Arguments<'a>;
    /// What it returns.
    type Output;
}

/// A function of `O` with this signature: `fn(&self, &mut Arguments<'_>) -> Output`.
pub type Function<O, S> =
    for<'o, 'b, 'a> fn(&'o O, &'b mut <S as Signature>::Arguments<'a>) -> <S as Signature>::Output;

/// A [`Function`] of an owner whose type has been forgotten. Pointers to sized
/// types are passed alike: [`fn`](primitive@fn#abi-compatibility).
type Erased<S> = for<'b, 'a> fn(
    NonNull<()>,
    &'b mut <S as Signature>::Arguments<'a>,
) -> <S as Signature>::Output;

/// The proof that a function of a module, or of a device, runs: as long as it
/// does, neither that nor what it was added to is dropped.
///
/// A function that KMDF calls [gets one](crate::wdf::Called::running).
///
/// No C counterpart: there nobody checks.
///
/// # Invariants
/// Whoever destroys `node`, or one of those above it, waits for the end of `'a`
/// after it has shut its `alive` and before it drops its value.
#[derive(Clone, Copy)]
pub struct Running<'a> {
    node: NonNull<Header>,
    scope: PhantomData<&'a ()>,
}

// SAFETY: the invariant is about the node and the length of `'a`, whatever thread
// looks at it; the pointer is compared, and reads what does not change.
unsafe impl Send for Running<'_> {}
// SAFETY: as above.
unsafe impl Sync for Running<'_> {}

impl Running<'_> {
    /// # Safety
    /// The invariant: a gate of the node was entered for the length of
    /// `'a`, or what runs is the callback of an object in the node's list.
    pub(crate) const unsafe fn new(node: NonNull<Header>) -> Self {
        // INVARIANT: the caller's promise: `destroy` makes the whole tree below a
        // node quiet before it drops the node's value.
        Self {
            node,
            scope: PhantomData,
        }
    }

    /// Whether it is a function of `node` that runs.
    #[inline]
    pub(crate) fn is_of(self, node: NonNull<Header>) -> bool {
        self.node == node
    }

    /// Whether it is a module of `owner` that runs.
    #[inline]
    fn is_below(self, owner: NonNull<Header>) -> bool {
        // SAFETY: the invariant.
        unsafe { self.node.as_ref() }.parent() == Some(owner)
    }
}

impl fmt::Debug for Running<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// A function tied to its owner, of whatever type that is.
///
/// A module keeps one for each function that its config was given, so that the
/// module's own type does not depend on the owner's.
///
/// No C counterpart: there a callback gets a `DMFMODULE` and finds its owner by it.
///
/// # Invariants
/// `function` is a `Function<O, S>`, `owner` is to a `Node<O>`, and `value` is where
/// its value is, for one and the same `O`.
pub struct Callback<S: Signature> {
    owner: Reference,
    value: NonNull<()>,
    function: Erased<S>,
}

// SAFETY: a function pointer can be called from any thread, and its owner is
// `Send` and `Sync`, which `new` requires.
unsafe impl<S: Signature> Send for Callback<S> {}
// SAFETY: as above.
unsafe impl<S: Signature> Sync for Callback<S> {}

impl<S: Signature> Callback<S> {
    pub(super) fn new<O: Send + Sync + 'static>(
        owner: &Owner<O>,
        function: Function<O, S>,
    ) -> Self {
        let owner = owner.0.clone();
        // INVARIANT: `owner` is to a `Node<O>`.
        Self {
            // SAFETY: as above, and the reference keeps the memory valid.
            value: unsafe { node::place::<O>(owner.node()) },
            owner,
            // SAFETY: only pointers to sized types differ.
            function: unsafe { core::mem::transmute::<Function<O, S>, Erased<S>>(function) },
        }
    }

    /// Calls the function. The owner is not dropped meanwhile.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is
    /// gone; the function is then not called.
    pub fn call(&self, arguments: &mut S::Arguments<'_>) -> Result<S::Output> {
        let owner = self.owner.node();
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(owner) }?;
        // The owner is alive: it has a value.
        Ok((self.function)(self.value, arguments))
    }

    /// The same, for a module that calls its owner from one of its own functions:
    /// that it runs keeps the owner, and nothing needs to be counted.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    #[inline]
    pub fn call_within(
        &self,
        running: Running<'_>,
        arguments: &mut S::Arguments<'_>,
    ) -> Result<S::Output> {
        let owner = self.owner.node();
        if !running.is_below(owner) {
            return self.call_counted(arguments);
        }
        if !self.owner.header().is_alive() {
            return Err(NtStatus::INVALID_DEVICE_STATE);
        }
        // The owner has a value, and whoever drops it waits for the module's function.
        Ok((self.function)(self.value, arguments))
    }

    #[cold]
    fn call_counted(&self, arguments: &mut S::Arguments<'_>) -> Result<S::Output> {
        self.call(arguments)
    }
}

impl<S: Signature> fmt::Debug for Callback<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").finish_non_exhaustive()
    }
}
