// SPDX-License-Identifier: MIT OR Apache-2.0

//! Modules: what a driver is put together from.
//!
//! # Vocabulary
//!
//! - *module*: a type that implements [`Module`]: the methods that a client calls.
//! - *instance*: the state behind it, a type that implements [`Instance`]. The
//!   framework owns it, and only methods in flight can see it.
//! - *config*: a builder that implements [`ModuleConfig`] and makes the instance.
//! - *handle*: a [`Handle<M>`], counted, which a client keeps and calls methods on.
//! - *owner*: who added the module: the device, or another module.
//! - *open policy*: when the framework opens the instance; see [`OpenPolicy`].
//!
//! # Life of an instance
//!
//! ```text
//!   config.create()      open()         closing(), close()       drop
//!         │                 │                   │                  │
//!   ──────┴──── created ────┴────── open ───────┴───── created ────┴────
//!                           ▲                          │
//!                           └──────────────────────────┘
//!                             each PrepareHardware or D0Entry, by policy
//! ```
//!
//! | | before open | open | closing | after close |
//! |---|---|---|---|---|
//! | a method of the handle | `STATUS_INVALID_DEVICE_STATE` | runs | refused; those in flight are waited for | refused |
//! | hooks (`d0_entry`, …) | called | called | – | called |
//! | callbacks from timers and children | run | run | run | run |
//!
//! Children are created and opened before their parent, and closed and dropped
//! after it. Nothing on the way down can fail, and a failure on the way up
//! undoes exactly what was done.
//!
//! A hook and the open policy do not touch each other: the framework opens an
//! instance by its policy, whichever hooks it has. On the way up the hook comes
//! first, then `open`; on the way down `close`, then the hook.
//!
//! # Writing a module
//!
//! ```
//! #![forbid(unsafe_code)]
//! use dmf::module::{Create, Instance, Link, ModuleConfig};
//! use dmf::prelude::*;
//!
//! /// Counts.
//! #[derive(Clone, Debug)]
//! pub struct Counter(Link<Count>);
//!
//! #[derive(Debug)]
//! pub struct Count(SpinLock<u32>);
//!
//! #[derive(Debug)]
//! pub struct Config { start: u32 }
//!
//! impl Counter {
//!     pub fn config(start: u32) -> Config {
//!         Config { start }
//!     }
//!
//!     /// A method: `enter` refuses it unless the instance is open.
//!     pub fn next(&self) -> Result<u32> {
//!         let count = self.0.enter()?;
//!         Ok(count.0.with(|count| { *count += 1; *count }))
//!     }
//! }
//!
//! impl Module for Counter {
//!     type Instance = Count;
//!     fn over(instance: Link<Count>) -> Self { Counter(instance) }
//! }
//!
//! impl Instance for Count {}
//!
//! impl<O: 'static> ModuleConfig<O> for Config {
//!     type Module = Counter;
//!     fn create(self, _cx: &mut Create<'_, O, Count>) -> Result<Count> {
//!         Ok(Count(SpinLock::new(self.start)))
//!     }
//! }
//!
//! // A driver that uses it.
//! dmf::driver!(Turnstile);
//! pub struct Turnstile { visitors: Handle<Counter> }
//!
//! impl Device for Turnstile {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         let visitors = add.module(Counter::config(41))?;
//!         // The framework has not opened it yet.
//!         assert_eq!(visitors.next(), Err(NtStatus::INVALID_DEVICE_STATE));
//!         Ok(Turnstile { visitors })
//!     }
//!     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
//!         assert_eq!(self.visitors.next()?, 42);
//!         Ok(())
//!     }
//! }
//! # ntsim::run_driver(Turnstile::DRIVER_ENTRY, |_, _| {});
//! ```
//!
//! # Where to look
//!
//! | DMF | here |
//! |---|---|
//! | `DECLARE_DMF_MODULE`, the module's context and config | [`Module`], [`Instance`], [`ModuleConfig`] |
//! | `DMF_DmfModuleAdd` | [`Modules::module`] |
//! | `ClientModuleInstanceName`, `ClientCallbacks` | [`ModuleConfigExt`] |
//! | dynamic modules | [`Owner::create`], [`DynamicInstance`] |
//! | `DMF_ModuleReference` | [`Link::enter`], in each method |
//! | `DMF_ModuleLock`, `PassiveLevel` | [`Locked`] |
//! | `DMF_MODULE_OPEN_OPTION_NOTIFY_…` | [`OpenPolicy`], [`Opener`] |
//! | `DMF_Module_ResourcesAssign` | [`Instance::assign_resources`] |
//! | callbacks to the client | [`Callback`], [`Create::bind`] |

mod attributes;
mod callback;
mod dynamic;
mod lock;
pub(crate) mod node;
mod notify;
pub(crate) mod order;

pub use attributes::{Attributes, Client, ModuleConfigExt};
pub use callback::{Callback, Function, Running, Signature};
pub use dynamic::{Dynamic, DynamicInstance};
pub use lock::{LockKind, Locked, Spin, SpinLocked, TakenAt, Wait, WaitLocked};
pub use node::InFlight;
pub use notify::{Opener, Register, Unregister};

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::irql::{Irql, Passive};
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::wdf::{Timer, TimerFired, WorkItem, WorkItemRun};
use node::{Header, Reference};

/// What a client of a module sees: its methods.
///
/// The type holds a [`Link`] to its instance, and each of its methods begins
/// with [`Link::enter`].
///
/// C counterpart: the Methods of a [Module][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module",
    note = "a module is a type with a `Link` to its instance: `impl Module for {Self}`"
)]
pub trait Module: Clone + Send + Sync + 'static {
    /// The state behind the module.
    type Instance: Instance;

    /// The module over this instance.
    fn over(instance: Link<Self::Instance>) -> Self;
}

/// The state of a module, and what the framework calls on it.
///
/// All functions have defaults. `Drop` is the module's destroy.
///
/// C counterpart: the context and the callbacks of a [Module][dmf]:
/// `DMF_MODULE_DESCRIPTOR`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the instance of a module",
    note = "write `impl Instance for {Self} {{}}`; or `DynamicInstance`, for a module without hooks"
)]
pub trait Instance: Sized + Send + Sync + 'static {
    /// When the framework opens the instance.
    const OPEN: OpenPolicy = OpenPolicy::Create;

    /// Called when the instance is opened, after its children were.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// Any: what was opened in the same step is closed again, and the step fails.
    ///
    /// C counterpart: `DMF_Module_Open`.
    fn open(&self, cx: &mut Open<'_>) -> Result {
        let _ = cx;
        Ok(())
    }

    /// Called when the instance is about to be closed and no method can enter
    /// any more. Wakes the methods in flight that would otherwise wait.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    fn closing(&self) {}

    /// Called when no method is in flight any more. Undoes `open`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: `DMF_Module_Close`.
    fn close(&self, cx: &mut Close<'_>) {
        let _ = cx;
    }

    /// Called when a module with one of the `Notify` policies is to ask for the
    /// notifications upon which it opens and closes itself, with
    /// [`Register::opener`]. They may come before this function returns.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// Any: what was done in the same step is undone, and the step fails.
    ///
    /// C counterpart: `DMF_Module_NotificationRegister`.
    fn register(&self, cx: &mut Register<'_>) -> Result {
        let _ = cx;
        Ok(())
    }

    /// Called when such a module is to do without further notifications. Undoes
    /// `register`, and is called only if that succeeded. When it returns, the
    /// framework closes the instance if it is open; opening it is refused.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: `DMF_Module_NotificationUnregister`.
    fn unregister(&self, cx: &mut Unregister<'_>) {
        let _ = cx;
    }

    /// Called before `prepare_hardware`, whatever the open policy: the instance
    /// picks its own among the device's hardware resources.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// Any: the device does not start.
    ///
    /// C counterpart: `DMF_Module_ResourcesAssign`.
    fn assign_resources(&self, cx: &mut crate::device::AssignResources<'_>) -> Result {
        let _ = cx;
        Ok(())
    }

    /// Whether the type is known to have no hooks. Not for use by hand:
    /// implement [`DynamicInstance`].
    #[doc(hidden)]
    const DYNAMIC: bool = false;

    hooks!();

    crate::wdf::dispatch::io_hooks!();
}

/// When the framework opens and closes an instance.
///
/// | policy | opened | closed |
/// |---|---|---|
/// | `Create` | when the device was created | when it is deleted |
/// | `PrepareHardware` | after PrepareHardware | before ReleaseHardware |
/// | `D0EntrySystemPowerUp` | after a D0Entry that finds it closed | before a D0Exit to `D3Final` or for hibernation, or ReleaseHardware |
/// | `D0Entry` | after each D0Entry | before each D0Exit |
///
/// With the `Notify` policies the framework calls [`Instance::register`] and
/// [`Instance::unregister`] at these moments, and the module opens and closes
/// itself in between. After `unregister` it is closed, if it still is open.
///
/// A child must not be opened later than its parent, since a parent may use its
/// children while it is open: [`Modules::module`] refuses it. For the `Notify`
/// policies the moment of registering counts: a parent must be prepared for a
/// child of that kind to be closed.
///
/// C counterpart: [`DmfModuleOpenOption`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenPolicy {
    /// Opened when the device was created, closed when it is deleted.
    Create,
    /// Opened after PrepareHardware, closed before ReleaseHardware.
    PrepareHardware,
    /// Opened after the D0Entry in which the system comes up; stays open while
    /// the system sleeps or the device idles.
    D0EntrySystemPowerUp,
    /// Opened after each D0Entry, closed before each D0Exit.
    D0Entry,
    /// Opens itself, after PrepareHardware and before ReleaseHardware.
    NotifyPrepareHardware,
    /// Opens itself, after each D0Entry and before each D0Exit.
    NotifyD0Entry,
    /// Opens itself, from the device's creation to its deletion.
    NotifyCreate,
}

impl OpenPolicy {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Create,
        Self::PrepareHardware,
        Self::D0EntrySystemPowerUp,
        Self::D0Entry,
        Self::NotifyPrepareHardware,
        Self::NotifyD0Entry,
        Self::NotifyCreate,
    ];

    /// The module opens itself.
    pub(crate) const fn is_notified(self) -> bool {
        matches!(
            self,
            Self::NotifyPrepareHardware | Self::NotifyD0Entry | Self::NotifyCreate
        )
    }

    /// When it opens or registers, in the order of a device's start.
    pub(crate) const fn moment(self) -> u8 {
        match self {
            Self::Create | Self::NotifyCreate => 0,
            Self::PrepareHardware | Self::NotifyPrepareHardware => 1,
            Self::D0EntrySystemPowerUp => 2,
            Self::D0Entry | Self::NotifyD0Entry => 3,
        }
    }
}

/// Makes an instance for an owner of type `O`.
///
/// C counterpart: the Config of a [Module][dmf] and its `DMF_…_Create`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the config of a module that `{O}` can own",
    note = "give `add.module` what the module's `config()` returns, and functions of `{O}` as callbacks"
)]
pub trait ModuleConfig<O> {
    /// The module that this configures.
    type Module: Module;

    /// Makes the instance. Children, timers and work items are added through `cx`.
    ///
    /// # Errors
    /// Any: what was added through `cx` is taken down, and so is what the
    /// owner had added before.
    fn create(
        self,
        cx: &mut Create<'_, O, <Self::Module as Module>::Instance>,
    ) -> Result<<Self::Module as Module>::Instance>;
}

contexts! {
    /// What [`Instance::open`] is given.
    Open {}
    /// What [`Instance::close`] is given.
    Close {}
}

/// Adds modules, timers and work items to their owner, the device or module
/// `O` that is being made.
///
/// C counterpart: [`PDMFMODULE_INIT`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub struct Modules<'a, O> {
    node: NonNull<Header>,
    device: sys::WDFDEVICE,
    irql: Irql<'a, Passive>,
    owner: PhantomData<&'a mut O>,
}

impl<'a, O: Send + Sync + 'static> Modules<'a, O> {
    /// # Safety
    /// `node` is the header of a `Node<O>` below or of `device`, valid for
    /// `'a`, and the caller is the device's device-add callback.
    pub(crate) unsafe fn new(node: NonNull<Header>, device: sys::WDFDEVICE) -> Self {
        Self {
            node,
            device,
            // SAFETY: device-add callbacks are at PASSIVE_LEVEL.
            irql: unsafe { Irql::assume() },
            owner: PhantomData,
        }
    }

    /// The proof that the call is at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }

    /// The same, for what has to do with PnP or power.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` for a control device, which has neither.
    pub(crate) fn raw_pnp(&self) -> Result<(NonNull<Header>, sys::WDFDEVICE)> {
        // SAFETY: `new`'s contract.
        unsafe { self.node.as_ref() }.expect_pnp()?;
        Ok(self.raw())
    }

    /// The owner's node and the device, for the KMDF objects of this crate.
    pub(crate) const fn raw(&self) -> (NonNull<Header>, sys::WDFDEVICE) {
        (self.node, self.device)
    }

    /// Adds a module. Its methods work once the framework has opened it.
    ///
    /// # Errors
    /// What the config refuses; `STATUS_INVALID_PARAMETER` if the module opens
    /// later than the module that it is added to; `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: `DMF_DmfModuleAdd`.
    pub fn module<C: ModuleConfig<O>>(&mut self, config: C) -> Result<Handle<C::Module>> {
        // SAFETY: `new`'s contract.
        let parent = unsafe { self.node.as_ref() };
        let (open, is_dynamic) = (InstanceOf::<C, O>::OPEN, InstanceOf::<C, O>::DYNAMIC);
        if !node::may_adopt(parent, open, is_dynamic) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        // SAFETY: `new`'s contract.
        let child = unsafe { make(self.node, self.device, config, false) }?;
        let handle = Handle::over(child.clone());
        // SAFETY: both are valid, and the child is new.
        unsafe { node::adopt(self.node, child) };
        Ok(handle)
    }

    /// The device's handle, for code of the driver that calls KMDF itself.
    ///
    /// C counterpart: [`WDFDEVICE`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-device-object
    #[must_use]
    pub const fn as_raw_device(&self) -> sys::WDFDEVICE {
        self.device
    }

    /// A link to the owner itself, for threads and other callbacks that start
    /// later. It gives access once the owner has been made, and until it is dropped.
    #[must_use]
    pub fn owner(&self) -> Owner<O> {
        // SAFETY: the node is valid.
        Owner(unsafe { Reference::to(self.node) }, PhantomData)
    }

    /// Ties a function of the owner to the owner, for whoever calls it later.
    #[must_use]
    pub fn callback<S: Signature>(&self, function: Function<O, S>) -> Callback<S> {
        Callback::new(&self.owner(), function)
    }

    /// Adds a timer whose callback is a function of the owner, at `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// What [`WdfTimerCreate`][ms] returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimercreate
    pub fn timer(&mut self, function: fn(&O, &mut TimerFired<'_>)) -> Result<Timer> {
        // SAFETY: the node is a `Node<O>` of this device, and this is device-add.
        unsafe { Timer::new::<O>(self.node, self.device, function) }
    }

    /// Adds a work item whose callback is a function of the owner.
    ///
    /// # Errors
    /// What [`WdfWorkItemCreate`][ms] returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemcreate
    pub fn work_item(&mut self, function: fn(&O, &mut WorkItemRun<'_>)) -> Result<WorkItem> {
        // SAFETY: the node is a `Node<O>` of this device, and this is device-add.
        unsafe { WorkItem::new::<O>(self.node, self.device, function) }
    }

    /// Lets the system put this file onto the device, which hears of it in
    /// [`usage_notification`](crate::Device::usage_notification). By default it
    /// carries none.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for [`SpecialFile::Other`](crate::device::SpecialFile::Other).
    ///
    /// C counterpart: [`WdfDeviceSetSpecialFileSupport`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetspecialfilesupport
    pub fn support_special_file(&mut self, file: crate::device::SpecialFile) -> Result {
        let file = file.to_raw().ok_or(NtStatus::INVALID_PARAMETER)?;
        // SAFETY: the device is being made, so it exists, and the file is one.
        unsafe { sys::kmdf::WdfDeviceSetSpecialFileSupport(self.device, file, 1) };
        Ok(())
    }
}

type InstanceOf<C, O> = <<C as ModuleConfig<O>>::Module as Module>::Instance;

/// Makes an instance and its node below `parent`, in no list yet.
///
/// # Safety
/// `parent` is the header of a `Node<O>` of `device` that outlives the child;
/// `PASSIVE_LEVEL`.
unsafe fn make<O: Send + Sync + 'static, C: ModuleConfig<O>>(
    parent: NonNull<Header>,
    device: sys::WDFDEVICE,
    config: C,
    at_run_time: bool,
) -> Result<Reference> {
    let child = node::allocate_instance::<InstanceOf<C, O>>(device)?;
    // SAFETY: the caller's promise.
    unsafe { node::introduce(parent, child.node(), at_run_time) };
    let mut cx = Create {
        parent,
        // SAFETY: the node is below the device and outlives `cx`.
        add: unsafe { Modules::new(child.node(), device) },
        owner: PhantomData,
    };
    match config.create(&mut cx) {
        // SAFETY: the node is new and of this type.
        Ok(instance) => unsafe { node::construct(child.node(), instance) },
        Err(status) => {
            // SAFETY: the node has no value, and nobody else has it.
            unsafe { node::abandon(child.node()) };
            return Err(status);
        }
    }
    Ok(child)
}

impl<O> fmt::Debug for Modules<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modules").finish_non_exhaustive()
    }
}

/// What [`ModuleConfig::create`] is given: [`Modules`] of the instance `I` that
/// is being made, and a way to reach the owner `O`.
///
/// C counterpart: the arguments of [`DMF_…_ChildModulesAdd`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub struct Create<'a, O, I> {
    parent: NonNull<Header>,
    add: Modules<'a, I>,
    owner: PhantomData<&'a mut O>,
}

impl<O: Send + Sync + 'static, I> Create<'_, O, I> {
    /// Ties a function of the owner, given in the config, to the owner.
    #[must_use]
    pub fn bind<S: Signature>(&self, function: Function<O, S>) -> Callback<S> {
        Callback::new(&self.parent(), function)
    }

    /// A link to the owner.
    #[must_use]
    pub fn parent(&self) -> Owner<O> {
        // SAFETY: the parent's node is valid while its child is being made.
        Owner(unsafe { Reference::to(self.parent) }, PhantomData)
    }
}

impl<'a, O, I> Deref for Create<'a, O, I> {
    type Target = Modules<'a, I>;
    fn deref(&self) -> &Self::Target {
        &self.add
    }
}

impl<O, I> DerefMut for Create<'_, O, I> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.add
    }
}

impl<O, I> fmt::Debug for Create<'_, O, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Create").finish_non_exhaustive()
    }
}

/// A counted handle to a module. It dereferences to the module's methods.
///
/// A handle may outlive the device: its methods then return
/// `STATUS_INVALID_DEVICE_STATE`.
///
/// C counterpart: [`DMFMODULE`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[derive(Clone)]
pub struct Handle<M: Module> {
    module: M,
    node: Reference,
}

impl<M: Module> Handle<M> {
    /// The handle over a node of `M::Instance`.
    fn over(node: Reference) -> Self {
        Self {
            module: M::over(Link(node.clone(), PhantomData)),
            node,
        }
    }

    /// The instance's name: that which [`ModuleConfigExt::named`] gave it, or
    /// its type's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.node.header().name.get()
    }
}

impl<M: Module> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.name()).finish()
    }
}

impl<M: Module> Deref for Handle<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.module
    }
}

/// A module's counted link to its instance.
///
/// C counterpart: [`DMF_CONTEXT_GET`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
///
/// # Invariants
/// The reference is to a `Node<I>`.
pub struct Link<I>(Reference, PhantomData<I>);

impl<I: Instance> Link<I> {
    /// Enters the instance for the length of a method. Close waits until the
    /// returned value is dropped.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the instance is not open, or is being closed.
    ///
    /// C counterpart: `DMF_ModuleReference`.
    pub fn enter(&self) -> Result<InFlight<'_, I>> {
        // SAFETY: the invariant.
        unsafe { node::enter_open(&self.0) }
    }
}

impl<I> Clone for Link<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<I> fmt::Debug for Link<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link")
            .field(&core::any::type_name::<I>())
            .finish()
    }
}

/// A counted link to the owner of modules: to a [`Device`](crate::Device), or to
/// an instance that has children.
///
/// The owner may hold it itself. It gives access from the time that the owner
/// was made until it is dropped, which waits for those who have access.
///
/// C counterpart: [`DMF_ParentModuleGet`][dmf] and `DMF_ParentDeviceGet`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
///
/// # Invariants
/// The reference is to a `Node<O>`.
pub struct Owner<O>(Reference, PhantomData<O>);

impl<O: Send + Sync + 'static> Owner<O> {
    /// # Safety
    /// `node` is the header of a `Node<O>` whose memory is valid.
    pub(crate) unsafe fn to(node: NonNull<Header>) -> Self {
        // SAFETY: the caller's promise. INVARIANT: as well.
        Self(unsafe { Reference::to(node) }, PhantomData)
    }

    /// The node of the owner, whose memory is valid as long as this exists.
    pub(crate) const fn node(&self) -> NonNull<Header> {
        self.0.node()
    }

    /// Gets at the owner for as long as the returned value lives.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    pub fn enter(&self) -> Result<InFlight<'_, O>> {
        // SAFETY: the invariant.
        unsafe { node::enter_alive(self.0.node()) }
    }
}

impl<O> Clone for Owner<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<O> fmt::Debug for Owner<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner")
            .field(&core::any::type_name::<O>())
            .finish()
    }
}
