// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a client can say of any module: its name, and what it wants to be told.

use core::fmt;
use core::ptr::NonNull;

use super::node::{self, ClientCallback, Header, Reference};
use super::{Create, Instance, Module, ModuleConfig};
use crate::irql::{Irql, Passive};
use crate::status::Result;

/// What a client's `post_open` and `pre_close` are given.
///
/// C counterpart: the arguments of [`EVT_DMF_MODULE_OnDeviceNotificationPostOpen`][dmf]
/// and its like.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub struct Client<'a, M: Module> {
    module: M,
    irql: Irql<'a, Passive>,
}

impl<'a, M: Module> Client<'a, M> {
    /// The module, whose methods work now.
    pub const fn module(&self) -> &M {
        &self.module
    }

    /// The proof that the call is at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }
}

impl<M: Module> fmt::Debug for Client<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A function of the client `O` of a module `M`.
type ClientFunction<O, M> = for<'o, 'b, 'a> fn(&'o O, &'b mut Client<'a, M>);

/// Attributes for any config. Of one that is given twice, the last counts.
///
/// ```
/// use dmf::module::{Client, ModuleConfigExt};
/// use dmf::prelude::*;
/// use dmf_modules::AlertableSleep;
///
/// dmf::driver!(Sensor);
/// struct Sensor { pause: Handle<AlertableSleep> }
///
/// impl Device for Sensor {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Sensor {
///             pause: add.module(
///                 AlertableSleep::config()
///                     .named("pause between polls")
///                     .post_open(Sensor::opened),
///             )?,
///         })
///     }
/// }
///
/// impl Sensor {
///     fn opened(&self, _cx: &mut Client<'_, AlertableSleep>) {
///         assert_eq!(self.pause.name(), "pause between polls");
///         dmf::println!("{}: open", self.pause.name());
///     }
/// }
/// # ntsim::run_driver(Sensor::DRIVER_ENTRY, |machine, _| {
/// #     let said = |line: &ntsim::trace::Line| line.to_string().contains("pause between polls: open");
/// #     assert!(machine.trace().iter().any(said));
/// # });
/// ```
///
/// C counterpart: [`DMF_MODULE_ATTRIBUTES`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub trait ModuleConfigExt<O>: ModuleConfig<O> + Sized {
    /// Gives the instance a name, for traces: [`Handle::name`](super::Handle::name).
    ///
    /// C counterpart: `DMF_MODULE_ATTRIBUTES::ClientModuleInstanceName`.
    fn named(self, name: &'static str) -> Attributes<O, Self> {
        Attributes {
            name: Some(name),
            ..Attributes::of(self)
        }
    }

    /// Has a function of the owner called each time the module was opened. Its
    /// methods work already.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: `DMF_MODULE_EVENT_CALLBACKS::EvtModuleOnDeviceNotificationPostOpen`.
    fn post_open(self, function: ClientFunction<O, Self::Module>) -> Attributes<O, Self> {
        Attributes {
            post_open: Some(function),
            ..Attributes::of(self)
        }
    }

    /// Has a function of the owner called each time the module is about to be
    /// closed. Its methods still work.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: `DMF_MODULE_EVENT_CALLBACKS::EvtModuleOnDeviceNotificationPreClose`.
    fn pre_close(self, function: ClientFunction<O, Self::Module>) -> Attributes<O, Self> {
        Attributes {
            pre_close: Some(function),
            ..Attributes::of(self)
        }
    }
}

impl<O, C: ModuleConfig<O>> ModuleConfigExt<O> for C {}

/// A config with attributes. Made by [`ModuleConfigExt`].
///
/// C counterpart: [`DMF_MODULE_ATTRIBUTES`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub struct Attributes<O, C: ModuleConfig<O>> {
    config: C,
    name: Option<&'static str>,
    post_open: Option<ClientFunction<O, C::Module>>,
    pre_close: Option<ClientFunction<O, C::Module>>,
}

impl<O, C: ModuleConfig<O>> Attributes<O, C> {
    const fn of(config: C) -> Self {
        Self {
            config,
            name: None,
            post_open: None,
            pre_close: None,
        }
    }
}

impl<O, C: ModuleConfig<O>> fmt::Debug for Attributes<O, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributes")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<O: Send + Sync + 'static, C: ModuleConfig<O>> ModuleConfig<O> for Attributes<O, C> {
    type Module = C::Module;

    fn create(
        self,
        cx: &mut Create<'_, O, <C::Module as Module>::Instance>,
    ) -> Result<<C::Module as Module>::Instance> {
        let node = cx.add.node;
        let instance = self.config.create(cx)?;
        // Each wrapper sets only what it was given, so that they nest, and after
        // the ones inside, so that the last word counts.
        // SAFETY: the node is valid while its instance is being made.
        let header = unsafe { node.as_ref() };
        if let Some(name) = self.name {
            header.name.set(name);
        }
        let client = |function: ClientFunction<O, C::Module>| ClientCallback {
            function: function as *const (),
            call: call::<O, C::Module>,
        };
        if let Some(function) = self.post_open {
            header.post_open.set(Some(client(function)));
        }
        if let Some(function) = self.pre_close {
            header.pre_close.set(Some(client(function)));
        }
        Ok(instance)
    }
}

/// # Safety
/// `function` is a `ClientFunction<O, M>`, `owner` the header of a `Node<O>`
/// that is alive, `module` that of a `Node<M::Instance>`; `PASSIVE_LEVEL`.
unsafe fn call<O: 'static, M: Module>(
    owner: NonNull<Header>,
    function: *const (),
    module: NonNull<Header>,
) where
    M::Instance: Instance,
{
    // SAFETY: the caller's promise.
    let owner: &O = unsafe { node::value(owner) };
    // SAFETY: the caller's promise.
    let function: ClientFunction<O, M> = unsafe { core::mem::transmute(function) };
    // SAFETY: the caller's promise.
    let reference = unsafe { Reference::to(module) };
    let mut cx = Client {
        module: M::over(super::Link(reference, core::marker::PhantomData)),
        // SAFETY: the caller's promise.
        irql: unsafe { Irql::assume() },
    };
    function(owner, &mut cx);
}
