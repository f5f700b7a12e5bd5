// SPDX-License-Identifier: MIT OR Apache-2.0

//! Modules that are made at run time.
//!
//! ```text
//!   owner.create(config)          Dynamic::close(), or drop
//!          │                              │
//!   ───────┴──────── open ────────────────┴──── gone
//!                      │
//!                      └── the owner is closed: the framework takes it down
//! ```

use core::fmt;
use core::ops::Deref;

use super::node::{self, Reference};
use super::order::Step;
use super::{
    Close, Handle, Instance, InstanceOf, Module, ModuleConfig, Open, OpenPolicy, Owner, make,
};
use crate::irql::{Irql, Level, Passive, assert_at_most};
use crate::status::Result;

/// The state of a module without hooks, which can therefore be made at run time
/// as well: PnP and power callbacks do not reach it.
///
/// A type that implements this is an [`Instance`] that opens by
/// [`OpenPolicy::Create`].
///
/// An instance with hooks is refused at run time's door, by its type:
///
/// ```compile_fail,E0277
/// use dmf::prelude::*;
/// use dmf_modules::ScheduledTask;
/// use dmf_modules::scheduled_task::{Task, TaskResult};
///
/// fn run(_: &Sensor, _: &mut Task<'_>) -> TaskResult { TaskResult::Success }
///
/// struct Sensor;
/// fn refused(me: &Owner<Sensor>, irql: &Irql<'_, Passive>) {
///     let _ = me.create(irql, ScheduledTask::config(run)); // it has d0_entry
/// }
/// ```
///
/// C counterpart: a [Dynamic Module][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[diagnostic::on_unimplemented(
    message = "`{Self}` may have PnP and power hooks, so its module cannot be made at run time",
    note = "add the module in `Device::modules`; or, if its instance has no hooks, implement `DynamicInstance` for it instead of `Instance`"
)]
pub trait DynamicInstance: Sized + Send + Sync + 'static {
    /// See [`Instance::open`].
    ///
    /// # Errors
    /// Any: the module is not made.
    fn open(&self, cx: &mut Open<'_>) -> Result {
        let _ = cx;
        Ok(())
    }

    /// See [`Instance::closing`].
    fn closing(&self) {}

    /// See [`Instance::close`].
    fn close(&self, cx: &mut Close<'_>) {
        let _ = cx;
    }
}

impl<T: DynamicInstance> Instance for T {
    const OPEN: OpenPolicy = OpenPolicy::Create;
    const DYNAMIC: bool = true;

    fn open(&self, cx: &mut Open<'_>) -> Result {
        DynamicInstance::open(self, cx)
    }

    fn closing(&self) {
        DynamicInstance::closing(self);
    }

    fn close(&self, cx: &mut Close<'_>) {
        DynamicInstance::close(self, cx);
    }
}

impl<O: Send + Sync + 'static> Owner<O> {
    /// Makes and opens a module now. What is returned owns it.
    ///
    /// ```
    /// use dmf::prelude::*;
    /// use dmf_modules::AlertableSleep;
    ///
    /// dmf::driver!(Sensor);
    /// struct Sensor { me: Owner<Sensor> }
    ///
    /// impl Device for Sensor {
    ///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
    ///         Ok(Sensor { me: add.owner() })
    ///     }
    ///     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
    ///         let pause = self.me.create(cx.irql(), AlertableSleep::config())?;
    ///         pause.abort(0)?;
    ///         let kept = pause.handle().clone();
    ///         pause.close(cx.irql());
    ///         // The module is gone; a handle to it does no harm.
    ///         assert!(kept.abort(0).is_err());
    ///         Ok(())
    ///     }
    /// }
    /// # ntsim::run_driver(Sensor::DRIVER_ENTRY, |_, _| {});
    /// ```
    ///
    /// The config cannot bring a token along, because the module that it makes
    /// is given another, with which it could take a spin lock:
    ///
    /// ```compile_fail,E0277
    /// use dmf::module::{DynamicInstance, Module, ModuleConfig, Owner};
    /// use dmf::prelude::*;
    ///
    /// fn refused<O, C>(owner: &Owner<O>, irql: &Irql<'_, Passive>, config: C)
    /// where
    ///     O: Send + Sync + 'static,
    ///     C: ModuleConfig<O>, // and perhaps of `&Irql`: it is not `Send`
    ///     <C::Module as Module>::Instance: DynamicInstance,
    /// {
    ///     let _ = owner.create(irql, config);
    /// }
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What the config or the module's `open` refuses;
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is
    /// gone; `STATUS_INVALID_PARAMETER` if the module adds a child with hooks;
    /// `STATUS_INSUFFICIENT_RESOURCES`. Nothing is left behind.
    ///
    /// C counterpart: `DMF_<Module>_Create`, with `DynamicModule` set.
    pub fn create<C>(&self, _irql: &Irql<'_, Passive>, config: C) -> Result<Dynamic<C::Module>>
    where
        // What is made gets a token of its own, so it must not bring another.
        C: ModuleConfig<O> + Send,
        InstanceOf<C, O>: DynamicInstance,
    {
        let owner = self.0.node();
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(owner) }?;
        // SAFETY: as above.
        let device = unsafe { owner.as_ref() }.device.get();
        // SAFETY: the owner is alive, so the device exists; the token proves the level.
        let child = unsafe { make(owner, device, config, true) }?;
        // SAFETY: the child has a value, and nobody else has it.
        if let Err(status) = unsafe { node::dispatch(child.node(), Step::Create) } {
            // SAFETY: as above; `dispatch` has closed what it had opened.
            unsafe { node::destroy(child.node()) };
            return Err(status);
        }
        let dynamic = Dynamic {
            handle: Handle::over(child.clone()),
            owner: self.0.clone(),
        };
        // SAFETY: both are valid, and the owner's gate was entered.
        unsafe { node::push_dynamic(owner, child) };
        Ok(dynamic)
    }
}

/// The owner of a module that was made at run time.
///
/// It dereferences to the module's handle, of which there may be clones; their
/// methods are refused once this is dropped. Dropping it waits for the methods in
/// flight, so it is to be dropped at `PASSIVE_LEVEL`, and not in a method of the
/// module itself. Above that level dropping it panics, in a driver a bug check.
/// If the owner goes first, the framework takes the module down, and this
/// becomes an empty shell.
///
/// C counterpart: a [Dynamic Module][dmf] and its `WdfObjectDelete`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[must_use = "dropping it takes the module down"]
pub struct Dynamic<M: Module> {
    handle: Handle<M>,
    owner: Reference,
}

impl<M: Module> Dynamic<M> {
    /// Closes and destroys the module.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: `WdfObjectDelete`.
    pub fn close(self, _irql: &Irql<'_, Passive>) {
        drop(self);
    }

    /// The module's handle, to clone.
    pub const fn handle(&self) -> &Handle<M> {
        &self.handle
    }
}

impl<M: Module> Deref for Dynamic<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.handle
    }
}

impl<M: Module> Drop for Dynamic<M> {
    fn drop(&mut self) {
        let owner = self.owner.node();
        // SAFETY: the reference keeps the memory valid.
        let Ok(_alive) = (unsafe { node::enter_alive_erased(owner) }) else {
            // The owner is being destroyed, and takes the module down itself.
            return;
        };
        assert_at_most(
            Passive::VALUE,
            "a Dynamic module was dropped",
            "close it at PASSIVE_LEVEL, or move it out of the spin lock before dropping it",
        );
        // SAFETY: the owner is valid; the level was just checked.
        let child = unsafe { node::pop_dynamic(owner, Some(self.handle.node.node())) };
        if let Some(child) = child {
            // SAFETY: it has a value and is in no list any more; the owner is
            // alive, so the device exists.
            unsafe { node::take_down(child) };
        }
    }
}

impl<M: Module> fmt::Debug for Dynamic<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dynamic").field(&self.handle.name()).finish()
    }
}
