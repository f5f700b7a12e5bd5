// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tree of instances behind a device: one node for the device, one for each
//! module, and the one dispatcher that walks it.
//!
//! # Life of a node
//!
//! ```text
//!   allocate ──► construct ──► [open ──► close]* ──► destroy ──► free
//!      1             2             3       4            5          6
//! ```
//!
//! 1. Memory, no value. The `alive` and `open` doors are shut.
//! 2. The value is there; callbacks may reach it: `alive` opens.
//! 3. The author's `open` succeeded; methods may reach it: `open` opens.
//! 4. `open` is shut, the author's `closing` wakes those inside, the framework
//!    waits for them, the author's `close` runs.
//! 5. First all is quiet: `alive` is shut, callbacks inside are waited for,
//!    timers and work items are stopped; the same below. Then the value is
//!    dropped, the objects are deleted, and the children follow, last to first.
//! 6. When the last handle is gone, too.
//!
//! Steps 2 to 5 happen in KMDF's device-add, PnP and cleanup callbacks, which
//! KMDF calls one at a time for a device. So what only they touch is in `Cell`s.
//! A few callbacks come beside those: `beside` calls their hooks.
//!
//! Two kinds of module move at other times as well:
//!
//! - One that *opens itself* (the `Notify` policies) opens and closes under its
//!   node's `transition`, which the PnP callbacks take, too.
//! - A *dynamic* one is not in the list of children but in `dynamic`, which has
//!   a lock; whoever takes it out of there takes it down. Its owner's `alive`
//!   gate, which its creator and its dropper pass, keeps the owner from being
//!   destroyed meanwhile.

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicUsize, Ordering, fence};

use super::order::{Failure, Order, Step};
use super::{Instance, OpenPolicy, Running};
use crate::device::{Device, FilePath, PowerState};
use crate::hooks::Hook;
use crate::irql::{Irql, Passive};
use crate::pool::Box;
use crate::status::{NtStatus, Result};
use crate::sync::rundown::Rundown;
use crate::sync::{Event, EventKind, SpinLock};
use crate::sys;
use crate::time::Timeout;
use crate::wdf::dispatch::{IoEvent, call_io};
use crate::wdf::object::ObjectLink;
use crate::wdf::{ControlDevice, IoType};

/// What the dispatcher knows of a node, whatever its type.
///
/// # Invariants
/// A header is the first field of a `Node<T>` in the pool, and `table` is that
/// of the same `T`. `references` counts the owners of the memory.
pub(crate) struct Header {
    table: &'static Table,
    references: AtomicUsize,
    /// Open while there is a value: callbacks enter here.
    alive: Rundown,
    /// Open between open and close: methods enter here.
    open: Rundown,
    /// What was done on the way up and not yet undone. See [`done`]. Atomic,
    /// because KMDF arms for wake-up on a thread of its own.
    done: AtomicU16,
    pub(crate) device: Cell<sys::WDFDEVICE>,
    /// How the device's reads and writes get at their callers' bytes.
    pub(crate) io_type: Cell<IoType>,
    /// The device has neither PnP nor power: KMDF must not be asked for those.
    pub(crate) is_control: Cell<bool>,
    /// Only of the device: what nobody takes goes to the driver below.
    pub(crate) is_filter: Cell<bool>,
    pub(crate) name: Cell<&'static str>,
    parent: Cell<Option<NonNull<Header>>>,
    first: Cell<Option<NonNull<Header>>>,
    last: Cell<Option<NonNull<Header>>>,
    next: Cell<Option<NonNull<Header>>>,
    previous: Cell<Option<NonNull<Header>>>,
    /// Below a module that was made at run time: gets no PnP callbacks.
    is_dynamic: Cell<bool>,
    /// Modules that were made at run time, newest first, linked by `next`.
    dynamic: SpinLock<List>,
    pub(crate) post_open: Cell<Option<ClientCallback>>,
    pub(crate) pre_close: Cell<Option<ClientCallback>>,
    /// Only of modules that open themselves.
    transition: Option<Transition>,
    /// Timers and work items that the framework stops and deletes, newest first.
    pub(crate) objects: Cell<Option<NonNull<ObjectLink>>>,
}

/// Steps on the way up that were done and not yet undone: bits of [`Header::done`].
mod done {
    pub(super) const OPENED: u16 = 1;
    pub(super) const PREPARED: u16 = 1 << 1;
    pub(super) const POWERED: u16 = 1 << 2;
    pub(super) const INTERRUPTS_ENABLED: u16 = 1 << 3;
    pub(super) const IO_RUNNING: u16 = 1 << 4;
    pub(super) const IO_INITIALIZED: u16 = 1 << 5;
    pub(super) const REGISTERED: u16 = 1 << 6;
    pub(super) const ARMED_S0: u16 = 1 << 7;
    pub(super) const ARMED_SX: u16 = 1 << 8;
}

/// The head of a list of nodes.
struct List(Option<NonNull<Header>>);

// SAFETY: a pointer; what is done with it is under the list's lock.
unsafe impl Send for List {}

/// A function of the owner that wants to know when the module opens or closes.
#[derive(Clone, Copy)]
pub(crate) struct ClientCallback {
    pub(crate) function: *const (),
    /// Safety: the first is the header of the owner, alive and of the
    /// function's type, and the last that of the module; `PASSIVE_LEVEL`.
    pub(crate) call: unsafe fn(NonNull<Header>, *const (), NonNull<Header>),
}

/// One at a time opens or closes a module that opens itself.
struct Transition {
    /// Signaled while nobody does.
    free: Event,
    /// The thread that does, or 0.
    holder: AtomicUsize,
}

#[repr(C)]
pub(crate) struct Node<T> {
    header: Header,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// What is done with a value without knowing its type.
pub(crate) struct Table {
    /// `None` for the device, which does not open.
    policy: Option<OpenPolicy>,
    /// Calls the author's function.
    ///
    /// Safety: the node has a value, and the level is `PASSIVE_LEVEL`.
    call: unsafe fn(NonNull<Header>, Hook) -> Result,
    /// Calls the author's I/O function.
    ///
    /// Safety: as `call`.
    io: unsafe fn(NonNull<Header>, &mut IoEvent<'_>),
    /// Drops the value.
    ///
    /// Safety: the node has a value, which nobody uses.
    drop: unsafe fn(NonNull<Header>),
    /// Frees the memory.
    ///
    /// Safety: the node has no value, and nobody uses it.
    free: unsafe fn(NonNull<Header>),
}

/// The value of a node.
///
/// # Safety
/// `node` is the header of a `Node<T>` that has a value, for as long as `'a`.
pub(crate) unsafe fn value<'a, T>(node: NonNull<Header>) -> &'a T {
    let node = node.cast::<Node<T>>().as_ptr();
    // SAFETY: the caller's promise.
    let cell = unsafe { &raw const (*node).value };
    // SAFETY: as above; only shared references to the value exist until it is dropped.
    let value = unsafe { &*cell };
    // SAFETY: as above.
    let value = unsafe { &*value.get() };
    // SAFETY: as above.
    unsafe { value.assume_init_ref() }
}

/// Where the value of a node is, or will be.
///
/// # Safety
/// `node` is the header of a `Node<T>` whose memory is valid.
pub(crate) unsafe fn place<T>(node: NonNull<Header>) -> NonNull<()> {
    let node = node.cast::<Node<T>>().as_ptr();
    // SAFETY: the caller's promise: the field is in the same memory.
    let cell = unsafe { &raw mut (*node).value };
    // SAFETY: a field of something is not at null.
    unsafe { NonNull::new_unchecked(cell.cast()) }
}

unsafe fn drop_value<T>(node: NonNull<Header>) {
    let node = node.cast::<Node<T>>().as_ptr();
    // SAFETY: the table's contract.
    let cell = unsafe { &(*node).value };
    // SAFETY: the table's contract: nobody uses the value.
    let value = unsafe { &mut *cell.get() };
    // SAFETY: as above.
    unsafe { value.assume_init_drop() };
}

unsafe fn free<T>(node: NonNull<Header>) {
    // SAFETY: the table's contract; the node came from `Box::into_raw`.
    drop(unsafe { Box::from_raw(node.cast::<Node<T>>()) });
}

unsafe fn call_instance<I: Instance>(node: NonNull<Header>, hook: Hook) -> Result {
    // SAFETY: the table's contract.
    let this = unsafe { value::<I>(node) };
    call_hook!(this, hook;
        // SAFETY: the table's contract says PASSIVE_LEVEL.
        Hook::Open => this.open(&mut unsafe { super::Open::new() }),
        Hook::Closing => {
            this.closing();
            Ok(())
        },
        Hook::Close => {
            // SAFETY: the table's contract says PASSIVE_LEVEL.
            this.close(&mut unsafe { super::Close::new() });
            Ok(())
        },
        // SAFETY: the table's contract, also that the node is valid.
        Hook::Register => this.register(&mut unsafe { super::Register::new(node) }),
        Hook::Unregister => {
            // SAFETY: the table's contract says PASSIVE_LEVEL.
            this.unregister(&mut unsafe { super::Unregister::new() });
            Ok(())
        },
        Hook::AssignResources(resources) => {
            // SAFETY: the table's contract says PASSIVE_LEVEL.
            this.assign_resources(&mut unsafe { crate::device::AssignResources::new(resources) })
        },
    )
}

unsafe fn call_device<D: Device>(node: NonNull<Header>, hook: Hook) -> Result {
    // SAFETY: the table's contract.
    let this = unsafe { value::<D>(node) };
    call_hook!(this, hook;
        Hook::Open
        | Hook::Closing
        | Hook::Close
        | Hook::Register
        | Hook::Unregister
        | Hook::AssignResources(_) => Ok(()),
    )
}

unsafe fn io_instance<I: Instance>(node: NonNull<Header>, event: &mut IoEvent<'_>) {
    // SAFETY: the table's contract.
    let this = unsafe { value::<I>(node) };
    call_io!(this, event);
}

unsafe fn io_device<D: Device>(node: NonNull<Header>, event: &mut IoEvent<'_>) {
    // SAFETY: the table's contract.
    let this = unsafe { value::<D>(node) };
    call_io!(this, event);
}

struct InstanceTable<I>(PhantomData<I>);
impl<I: Instance> InstanceTable<I> {
    const TABLE: &'static Table = &Table {
        policy: Some(I::OPEN),
        call: call_instance::<I>,
        io: io_instance::<I>,
        drop: drop_value::<I>,
        free: free::<I>,
    };
}

struct DeviceTable<D>(PhantomData<D>);
impl<D: Device> DeviceTable<D> {
    const TABLE: &'static Table = &Table {
        policy: None,
        call: call_device::<D>,
        io: io_device::<D>,
        drop: drop_value::<D>,
        free: free::<D>,
    };
}

/// The root of what has no hooks: a driver, or a control device. All that is
/// added to it opens at once.
struct PlainTable<T>(PhantomData<T>);
impl<T> PlainTable<T> {
    const DRIVER: &'static Table = &Table {
        policy: Some(OpenPolicy::Create),
        call: call_nothing,
        io: io_nothing,
        drop: drop_value::<T>,
        free: free::<T>,
    };
}
impl<C: ControlDevice> PlainTable<C> {
    const CONTROL: &'static Table = &Table {
        policy: Some(OpenPolicy::Create),
        call: call_nothing,
        io: io_control::<C>,
        drop: drop_value::<C>,
        free: free::<C>,
    };
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "its type is that of a table's entry"
)]
unsafe fn call_nothing(_node: NonNull<Header>, _hook: Hook) -> Result {
    Ok(())
}

unsafe fn io_nothing(_node: NonNull<Header>, _event: &mut IoEvent<'_>) {}

unsafe fn io_control<C: ControlDevice>(node: NonNull<Header>, event: &mut IoEvent<'_>) {
    // SAFETY: the table's contract.
    let this = unsafe { value::<C>(node) };
    call_io!(this, event);
}

/// Allocates a node without a value, with one reference.
fn allocate<T>(table: &'static Table, device: sys::WDFDEVICE) -> Result<Reference> {
    let transition = match table.policy {
        Some(policy) if policy.is_notified() => Some(Transition::new()?),
        _ => None,
    };
    let node = Box::new(Node::<T> {
        header: Header {
            table,
            references: AtomicUsize::new(1),
            alive: Rundown::new(),
            open: Rundown::new(),
            done: AtomicU16::new(0),
            device: Cell::new(device),
            io_type: Cell::new(IoType::Buffered),
            is_control: Cell::new(false),
            is_filter: Cell::new(false),
            name: Cell::new(core::any::type_name::<T>()),
            parent: Cell::new(None),
            first: Cell::new(None),
            last: Cell::new(None),
            next: Cell::new(None),
            previous: Cell::new(None),
            is_dynamic: Cell::new(false),
            dynamic: SpinLock::new(List(None)),
            post_open: Cell::new(None),
            pre_close: Cell::new(None),
            transition,
            objects: Cell::new(None),
        },
        value: UnsafeCell::new(MaybeUninit::uninit()),
    })?;
    // INVARIANT: the one reference is this one.
    Ok(Reference(Box::into_raw(node).cast()))
}

pub(crate) fn allocate_instance<I: Instance>(device: sys::WDFDEVICE) -> Result<Reference> {
    allocate::<I>(InstanceTable::<I>::TABLE, device)
}

/// The node of a device that is about to be created.
pub(crate) fn allocate_device<D: Device>() -> Result<Reference> {
    allocate::<D>(DeviceTable::<D>::TABLE, core::ptr::null_mut())
}

/// The node of a control device that is about to be created.
pub(crate) fn allocate_control<C: ControlDevice>() -> Result<Reference> {
    let root = allocate::<C>(PlainTable::<C>::CONTROL, core::ptr::null_mut())?;
    root.header().is_control.set(true);
    Ok(root)
}

/// The node of a driver without devices.
pub(crate) fn allocate_driver<D>() -> Result<Reference> {
    allocate::<D>(PlainTable::<D>::DRIVER, core::ptr::null_mut())
}

/// One owner of a node's memory.
///
/// # Invariants
/// The node's count includes this one.
pub(crate) struct Reference(NonNull<Header>);

// SAFETY: counting is atomic, and the typed users of a reference ask for the
// value's own `Send` and `Sync`, which `Instance` and `Device` require.
unsafe impl Send for Reference {}
// SAFETY: as above.
unsafe impl Sync for Reference {}

impl Reference {
    pub(crate) const fn node(&self) -> NonNull<Header> {
        self.0
    }

    /// Counts one more owner.
    ///
    /// # Safety
    /// `node` is the header of a node whose memory is valid.
    pub(crate) unsafe fn to(node: NonNull<Header>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { node.as_ref() }
            .references
            .fetch_add(1, Ordering::Relaxed);
        Self(node)
    }

    /// Gives the count to whoever keeps the pointer.
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        core::mem::ManuallyDrop::new(self).0
    }

    /// Takes the count back.
    ///
    /// # Safety
    /// `node` came from `into_raw`, once.
    pub(crate) const unsafe fn from_raw(node: NonNull<Header>) -> Self {
        Self(node)
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Reference {
    fn clone(&self) -> Self {
        // SAFETY: the invariant.
        unsafe { Self::to(self.0) }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Release: what this owner did happens before the memory is freed.
        if self.header().references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let free = self.header().table.free;
        // SAFETY: nobody else has the node, and a node with a value has the
        // framework as an owner until `destroy`.
        unsafe { free(self.0) };
    }
}

/// The right to use a value, until dropped. Close or destroy waits for it.
///
/// C counterpart: [`DMF_ModuleReference`][dmf] and `DMF_ModuleDereference`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
///
/// # Invariants
/// the gate was entered, and belongs to the node of `running`, which holds `value`.
#[must_use = "the value can be used while this lives"]
pub struct InFlight<'a, T> {
    value: &'a T,
    running: Running<'a>,
    _gate: Gate<'a>,
}

impl<T> InFlight<'_, T> {
    /// The proof that a function of the value runs.
    #[must_use]
    pub const fn running(&self) -> Running<'_> {
        self.running
    }
}

impl<T> core::fmt::Debug for InFlight<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}

struct Gate<'a>(&'a Rundown);

impl core::fmt::Debug for Gate<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Gate")
    }
}

impl<T> Deref for InFlight<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        // SAFETY: the invariant of `InFlight`.
        unsafe { self.0.leave() };
    }
}

/// Enters as a method call.
///
/// # Safety
/// `reference` is to a `Node<T>`.
pub(crate) unsafe fn enter_open<T>(reference: &Reference) -> Result<InFlight<'_, T>> {
    let gate = &reference.header().open;
    gate.enter()?;
    Ok(InFlight {
        // SAFETY: the caller's promise, and an open node has a value until the gate is left.
        value: unsafe { value(reference.0) },
        // SAFETY: close and destroy wait for whoever is inside of a gate.
        running: unsafe { Running::new(reference.0) },
        _gate: Gate(gate),
    })
}

/// Enters as a callback.
///
/// # Safety
/// `node` is the header of a `Node<T>` whose memory is valid for `'a`.
pub(crate) unsafe fn enter_alive<'a, T>(node: NonNull<Header>) -> Result<InFlight<'a, T>> {
    // SAFETY: the caller's promise.
    let gate = unsafe { &node.as_ref().alive };
    gate.enter()?;
    Ok(InFlight {
        // SAFETY: as above, and a node that is alive has a value until the gate is left.
        value: unsafe { value(node) },
        // SAFETY: destroy waits for whoever is inside.
        running: unsafe { Running::new(node) },
        _gate: Gate(gate),
    })
}

/// Enters as a callback without looking at the value.
///
/// # Safety
/// `node` is the header of a node whose memory is valid for `'a`.
pub(crate) unsafe fn enter_alive_erased<'a>(node: NonNull<Header>) -> Result<impl Drop + 'a> {
    // SAFETY: the caller's promise.
    let gate = unsafe { &node.as_ref().alive };
    gate.enter()?;
    Ok(Gate(gate))
}

/// The same, for what has to do with PnP or power.
///
/// # Errors
/// Also `STATUS_INVALID_DEVICE_REQUEST` below a control device, which has neither.
///
/// # Safety
/// As [`enter_alive_erased`].
pub(crate) unsafe fn enter_pnp<'a>(node: NonNull<Header>) -> Result<impl Drop + 'a> {
    // SAFETY: the caller's promise.
    unsafe { node.as_ref() }.expect_pnp()?;
    // SAFETY: the caller's promise.
    unsafe { enter_alive_erased(node) }
}

/// Puts the value into the node and lets callbacks in.
///
/// # Safety
/// `node` is the header of a `Node<T>` without a value.
pub(crate) unsafe fn construct<T>(node: NonNull<Header>, content: T) {
    let typed = node.cast::<Node<T>>().as_ptr();
    // SAFETY: the caller's promise.
    let cell = unsafe { &(*typed).value };
    // SAFETY: as above: nobody has a reference to the value yet.
    unsafe { cell.get().write(MaybeUninit::new(content)) };
    // SAFETY: the caller's promise.
    let alive = unsafe { &node.as_ref().alive };
    // SAFETY: the node is in the pool and does not move.
    let alive = unsafe { Pin::new_unchecked(alive) };
    // SAFETY: the node had no value, so the door is shut and nobody is inside.
    unsafe { alive.open() };
}

/// Whether a child with this policy may be added below `parent`: it must not
/// open later than its parent, and below a dynamic module it must have no hooks.
pub(crate) fn may_adopt(parent: &Header, child: OpenPolicy, child_is_dynamic: bool) -> bool {
    (child_is_dynamic || !parent.is_dynamic.get())
        && parent
            .table
            .policy
            .is_none_or(|policy| child.moment() <= policy.moment())
}

/// Tells `child` whose it is, before it is made.
///
/// # Safety
/// Both are valid, and the parent outlives the child.
pub(crate) unsafe fn introduce(parent: NonNull<Header>, child: NonNull<Header>, at_run_time: bool) {
    // SAFETY: the caller's promise.
    let header = unsafe { child.as_ref() };
    header.parent.set(Some(parent));
    // SAFETY: the caller's promise.
    let parent = unsafe { parent.as_ref() };
    header
        .is_dynamic
        .set(at_run_time || parent.is_dynamic.get());
    header.io_type.set(parent.io_type.get());
    header.is_control.set(parent.is_control.get());
}

/// Makes `child` the last child of `parent`, which takes over its count.
///
/// # Safety
/// Both are valid, `child` has no siblings, and the caller is making `parent`.
pub(crate) unsafe fn adopt(parent: NonNull<Header>, child: Reference) {
    let child = child.into_raw();
    // SAFETY: the caller's promise.
    let parent = unsafe { parent.as_ref() };
    // SAFETY: the caller's promise.
    let header = unsafe { child.as_ref() };
    header.previous.set(parent.last.get());
    match parent.last.get() {
        // SAFETY: a child is valid as long as its parent has it.
        Some(last) => unsafe { last.as_ref() }.next.set(Some(child)),
        None => parent.first.set(Some(child)),
    }
    parent.last.set(Some(child));
}

/// Takes a step through the tree, in the order that its row says. If it fails
/// anywhere, everything that it did is undone in reverse order.
///
/// # Safety
/// `root` has a value; the caller is one of KMDF's callbacks for the device, at
/// `PASSIVE_LEVEL`, or makes or takes down a dynamic module, and `root` is that.
/// A step whose turn is [`Own`](super::order::Turn::Own) does not run beside another such.
pub(crate) unsafe fn dispatch(root: NonNull<Header>, step: Step) -> Result {
    let row = step.row();
    if let Some(hook) = step.beside() {
        // SAFETY: the caller's promise.
        return unsafe { beside(root, row.order, hook) };
    }
    let mut failed = None;
    let mut go = |node| {
        // SAFETY: the caller's promise, which holds for the nodes below as well.
        unsafe { visit(node, step) }.inspect_err(|_| failed = Some(node))
    };
    // SAFETY: the caller's promise.
    let result = unsafe { walk(root, row.order, &mut go) };
    if result.is_ok() || row.failure != Failure::Undone {
        return result;
    }
    let Some(undo) = step.undo() else {
        return result;
    };
    // Backwards, those that come after the one that failed were not reached.
    let mut reached = false;
    let mut back = |node| {
        reached |= failed == Some(node);
        if reached {
            // SAFETY: as above. What undoes something cannot fail, or nobody cares.
            let _ = unsafe { visit(node, undo) };
        }
        Ok(())
    };
    // SAFETY: as above.
    let _ = unsafe { walk(root, row.order.reversed(), &mut back) };
    result
}

/// Calls a hook through the tree, beside whatever step has its turn.
///
/// KMDF does not serialise these callbacks with those that bring a device up
/// and down. What keeps the two apart:
///
/// ```text
///   this walk                       a step beside it
///   enters the root's `alive`
///   reads the links of children     reads them, too: they change in device-add,
///                                   before the first of either, and in destroy
///   reads `table`, the value        calls functions of the value, which is Sync
///                                   changes `done`, `open`, `transition`, `dynamic`:
///                                   nothing of it is looked at here
///   leaves it                       destroy waits for that before it drops values
/// ```
///
/// # Errors
/// The hook's, with those before it told the opposite, if there is one;
/// `STATUS_INVALID_DEVICE_STATE` if the device is gone.
///
/// # Safety
/// `root` is a device's node whose memory is valid; `PASSIVE_LEVEL`.
unsafe fn beside(root: NonNull<Header>, order: Order, hook: Hook) -> Result {
    // SAFETY: the caller's promise.
    let _alive = unsafe { enter_alive_erased(root) }?;
    // Nobody can refuse what has happened already.
    let may_refuse = !matches!(hook, Hook::UsageNotification(_, FilePath::Left));
    let mut refused = None;
    let mut tell = |node| {
        // SAFETY: the root is alive, and so are the nodes below; the caller's promise.
        let answer = unsafe { call(node, hook) };
        if may_refuse && answer.is_err() {
            refused = Some(node);
            return answer;
        }
        Ok(())
    };
    // SAFETY: as above; nobody adds or removes children of a device that was made.
    let result = unsafe { walk(root, order, &mut tell) };
    let (Some(refused), Hook::UsageNotification(file, path)) = (refused, hook) else {
        return result;
    };
    // Backwards, those that come after the one that refused had agreed.
    let undo = Hook::UsageNotification(file, path.opposite());
    let mut had_agreed = false;
    let mut back = |node| {
        if had_agreed {
            // SAFETY: as above.
            let _ = unsafe { call(node, undo) };
        }
        had_agreed |= node == refused;
        Ok(())
    };
    // SAFETY: as above.
    let _ = unsafe { walk(root, order.reversed(), &mut back) };
    result
}

/// Goes through a tree until a visit fails.
///
/// # Safety
/// `node` is valid, and nobody adds or removes children meanwhile.
unsafe fn walk(
    node: NonNull<Header>,
    order: Order,
    visit: &mut dyn FnMut(NonNull<Header>) -> Result,
) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if order == Order::OwnerFirst {
        visit(node)?;
    }
    let mut child = match order {
        Order::ChildrenFirst => header.first.get(),
        Order::OwnerFirst => header.last.get(),
    };
    while let Some(at) = child {
        // SAFETY: a child is valid as long as its parent has it.
        unsafe { walk(at, order, visit) }?;
        // SAFETY: as above.
        let at = unsafe { at.as_ref() };
        child = match order {
            Order::ChildrenFirst => at.next.get(),
            Order::OwnerFirst => at.previous.get(),
        };
    }
    if order == Order::ChildrenFirst {
        visit(node)?;
    }
    Ok(())
}

/// Takes a step at one node.
///
/// # Safety
/// As [`dispatch`].
unsafe fn visit(node: NonNull<Header>, step: Step) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: the caller's promise.
    let call = |hook| unsafe { call(node, hook) };
    // The way up: what succeeded is remembered.
    let up = |hook, bit| call(hook).map(|()| header.set(bit));
    // The way down: only what was done is undone, once, and that cannot fail.
    let down = |hook, bit| {
        if header.clear(bit) {
            let _ = call(hook);
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    let come = |policies: &[OpenPolicy]| unsafe { come(node, policies) };
    // SAFETY: the caller's promise.
    let go = |policies: &[OpenPolicy]| unsafe { go(node, policies) };
    match step {
        Step::Create => come(&[OpenPolicy::Create, OpenPolicy::NotifyCreate]),
        Step::PrepareHardware(resources) => {
            let resources = resources.of(header.device.get());
            call(Hook::AssignResources(resources))?;
            up(Hook::PrepareHardware(resources), done::PREPARED)?;
            come(&[
                OpenPolicy::PrepareHardware,
                OpenPolicy::NotifyPrepareHardware,
            ])
        }
        Step::D0Entry(previous) => {
            up(Hook::D0Entry(previous), done::POWERED)?;
            come(&[
                OpenPolicy::D0Entry,
                OpenPolicy::D0EntrySystemPowerUp,
                OpenPolicy::NotifyD0Entry,
            ])
        }
        Step::D0EntryPostInterruptsEnabled(previous) => up(
            Hook::D0EntryPostInterruptsEnabled(previous),
            done::INTERRUPTS_ENABLED,
        ),
        Step::SelfManagedIoInit => up(
            Hook::SelfManagedIoInit,
            done::IO_RUNNING | done::IO_INITIALIZED,
        ),
        Step::SelfManagedIoRestart => up(Hook::SelfManagedIoRestart, done::IO_RUNNING),
        Step::SelfManagedIoSuspend => down(Hook::SelfManagedIoSuspend, done::IO_RUNNING),
        Step::D0ExitPreInterruptsDisabled(target) => down(
            Hook::D0ExitPreInterruptsDisabled(target),
            done::INTERRUPTS_ENABLED,
        ),
        Step::D0Exit(target) => {
            if header.table.policy == Some(OpenPolicy::D0EntrySystemPowerUp)
                && loses_power(header, target)
            {
                go(&[OpenPolicy::D0EntrySystemPowerUp]);
            }
            go(&[OpenPolicy::D0Entry, OpenPolicy::NotifyD0Entry]);
            down(Hook::D0Exit(target), done::POWERED)
        }
        Step::ReleaseHardware(resources) => {
            go(&[
                OpenPolicy::PrepareHardware,
                OpenPolicy::NotifyPrepareHardware,
                OpenPolicy::D0EntrySystemPowerUp,
            ]);
            down(Hook::ReleaseHardware(resources), done::PREPARED)
        }
        Step::SelfManagedIoFlush => {
            if header.has(done::IO_INITIALIZED) {
                let _ = call(Hook::SelfManagedIoFlush);
            }
            Ok(())
        }
        Step::SelfManagedIoCleanup => down(Hook::SelfManagedIoCleanup, done::IO_INITIALIZED),
        Step::Close => {
            // SAFETY: the caller's promise.
            unsafe { take_down_dynamic(node) };
            go(&OpenPolicy::ALL);
            Ok(())
        }
        Step::ArmWakeFromS0 => up(Hook::ArmWakeFromS0, done::ARMED_S0),
        Step::DisarmWakeFromS0 => down(Hook::DisarmWakeFromS0, done::ARMED_S0),
        Step::WakeFromS0Triggered => call(Hook::WakeFromS0Triggered),
        Step::ArmWakeFromSx(reason) => up(Hook::ArmWakeFromSx(reason), done::ARMED_SX),
        Step::DisarmWakeFromSx => down(Hook::DisarmWakeFromSx, done::ARMED_SX),
        Step::WakeFromSxTriggered => call(Hook::WakeFromSxTriggered),
        // These are nothing but a hook: see `beside`.
        Step::SurpriseRemoval
        | Step::QueryRemove
        | Step::QueryStop
        | Step::RelationsQuery(_)
        | Step::UsageNotification(..) => step.beside().map_or(Ok(()), call),
    }
}

/// Whether going to `target` means that the system is off afterwards.
fn loses_power(header: &Header, target: PowerState) -> bool {
    match target {
        PowerState::D3Final | PowerState::PrepareForHibernation => true,
        PowerState::D3 => {
            // SAFETY: a PnP callback of the device: it is valid.
            let action = unsafe { sys::kmdf::WdfDeviceGetSystemPowerAction(header.device.get()) };
            action == sys::POWER_ACTION::PowerActionHibernate
        }
        _ => false,
    }
}

impl Header {
    /// Whether only KMDF destroys the node, in a callback of its own: never the
    /// driver, which could do it from within a callback of the node's objects.
    pub(crate) fn is_destroyed_by_kmdf(&self) -> bool {
        !self.is_dynamic.get() && !self.is_control.get()
    }

    /// Whether there is a value that may be used. A callback that [`destroy`]
    /// stops before it drops anything need not be counted:
    ///
    /// ```text
    ///   callback                            destroy
    ///   alive? yes
    ///   uses the value                      alive.shut()
    ///                                       stop: waits for the callback
    ///   returns                             drops the value
    /// ```
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.is_open()
    }

    /// The node that this one was added to.
    #[inline]
    pub(crate) fn parent(&self) -> Option<NonNull<Header>> {
        self.parent.get()
    }

    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` below a control device.
    pub(crate) fn expect_pnp(&self) -> Result {
        if self.is_control.get() {
            Err(NtStatus::INVALID_DEVICE_REQUEST)
        } else {
            Ok(())
        }
    }

    /// Whether the device may be working while the node is being made.
    pub(crate) fn is_made_at_run_time(&self) -> bool {
        self.is_dynamic.get()
    }

    fn has(&self, bits: u16) -> bool {
        self.done.load(Ordering::Acquire) & bits != 0
    }

    fn set(&self, bits: u16) {
        self.done.fetch_or(bits, Ordering::AcqRel);
    }

    /// Takes the bits away; tells whether one of them was there.
    fn clear(&self, bits: u16) -> bool {
        self.done.fetch_and(!bits, Ordering::AcqRel) & bits != 0
    }
}

/// Tells the tree of an I/O event: the modules in the order of
/// [`dispatch`](crate::wdf::dispatch), then the device; or the reverse.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_STATE` if the device has not been made yet, or is gone.
///
/// # Safety
/// `root` is a device's node whose memory is valid; `PASSIVE_LEVEL`.
pub(crate) unsafe fn tell(root: NonNull<Header>, event: &mut IoEvent<'_>) -> Result {
    // The children are destroyed after the root has waited for this.
    // SAFETY: the caller's promise.
    let _alive = unsafe { enter_alive_erased(root) }?;
    // SAFETY: the root is alive, and so are the nodes below.
    unsafe { tell_node(root, event, true) };
    Ok(())
}

/// # Safety
/// The node and those below are alive; `PASSIVE_LEVEL`.
unsafe fn tell_node(node: NonNull<Header>, event: &mut IoEvent<'_>, is_root: bool) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // The device comes after its modules, a module before its own.
    let first = event.is_downward() == is_root;
    if first {
        // SAFETY: the caller's promise.
        unsafe { (header.table.io)(node, event) };
    }
    let mut child = if event.is_downward() {
        header.last.get()
    } else {
        header.first.get()
    };
    while let Some(at) = child
        && !event.is_over()
    {
        // SAFETY: the caller's promise.
        unsafe { tell_node(at, event, false) };
        // SAFETY: the caller's promise.
        let header = unsafe { at.as_ref() };
        child = if event.is_downward() {
            header.previous.get()
        } else {
            header.next.get()
        };
    }
    if !first && !event.is_over() {
        // SAFETY: the caller's promise.
        unsafe { (header.table.io)(node, event) };
    }
}

/// # Safety
/// The node has a value, and the level is `PASSIVE_LEVEL`.
unsafe fn call(node: NonNull<Header>, hook: Hook) -> Result {
    // SAFETY: the caller's promise.
    let call = unsafe { node.as_ref() }.table.call;
    // SAFETY: the caller's promise.
    unsafe { call(node, hook) }
}

/// Opens the node, or lets it register for its notifications, if its policy is
/// among these and it has not been done.
///
/// # Safety
/// As [`dispatch`].
unsafe fn come(node: NonNull<Header>, policies: &[OpenPolicy]) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if !header
        .table
        .policy
        .is_some_and(|own| policies.contains(&own))
    {
        return Ok(());
    }
    if header.transition.is_none() {
        // SAFETY: the caller's promise.
        return unsafe { open(node) };
    }
    if header.has(done::REGISTERED) {
        return Ok(());
    }
    // Before the hook, because notifications may come while it registers.
    header.set(done::REGISTERED);
    // SAFETY: the caller's promise.
    let registered = unsafe { call(node, Hook::Register) };
    if registered.is_err() {
        // SAFETY: the caller's promise.
        unsafe { leave_notifications(node) };
    }
    registered
}

/// Closes the node, if it is open, or ends its notifications, if its policy is
/// among these.
///
/// # Safety
/// As [`dispatch`].
unsafe fn go(node: NonNull<Header>, policies: &[OpenPolicy]) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if !header
        .table
        .policy
        .is_some_and(|own| policies.contains(&own))
    {
        return;
    }
    if header.transition.is_none() {
        // SAFETY: the caller's promise.
        unsafe { close(node) };
    } else if header.has(done::REGISTERED) {
        // SAFETY: the caller's promise. It cannot fail.
        let _ = unsafe { call(node, Hook::Unregister) };
        // SAFETY: the caller's promise.
        unsafe { leave_notifications(node) };
    }
}

/// Lets the node not open itself any more, and closes it if it did.
///
/// # Safety
/// As [`dispatch`].
unsafe fn leave_notifications(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: the caller's promise. PnP callbacks do not come from inside of a
    // transition, so it is not refused.
    let _turn = unsafe { Transition::enter(header) };
    header.clear(done::REGISTERED);
    // SAFETY: the caller's promise, and the turn is this thread's.
    unsafe { close(node) };
}

/// Opens a module that opens itself. One that is open stays so.
///
/// # Safety
/// The node's memory is valid, and the level is `PASSIVE_LEVEL`.
pub(crate) unsafe fn open_self(node: NonNull<Header>) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: the caller's promise.
    let _alive = unsafe { enter_alive_erased(node) }?;
    // SAFETY: the caller's promise.
    let _turn = unsafe { Transition::enter(header) }?;
    if !header.has(done::REGISTERED) {
        return Err(NtStatus::INVALID_DEVICE_STATE);
    }
    // SAFETY: the node is alive, and the turn is this thread's.
    unsafe { open(node) }
}

/// Closes a module that opens itself. One that is closed stays so.
///
/// # Safety
/// As [`open_self`].
pub(crate) unsafe fn close_self(node: NonNull<Header>) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: the caller's promise.
    let _alive = unsafe { enter_alive_erased(node) }?;
    // SAFETY: the caller's promise.
    let _turn = unsafe { Transition::enter(header) }?;
    // SAFETY: the node is alive, and the turn is this thread's.
    unsafe { close(node) };
    Ok(())
}

impl Transition {
    fn new() -> Result<Self> {
        let free = Event::new(EventKind::Synchronization)?;
        free.set();
        Ok(Self {
            free,
            holder: AtomicUsize::new(0),
        })
    }

    /// Waits for the turn to open or close the node.
    ///
    /// # Safety
    /// The level is `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if this thread has it already: the module's
    /// `open` or `close`, or a client's callback, tries to open or close it.
    unsafe fn enter(header: &Header) -> Result<impl Drop + '_> {
        struct Turn<'a>(&'a Transition);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                self.0.holder.store(0, Ordering::Relaxed);
                self.0.free.set();
            }
        }

        let this = header
            .transition
            .as_ref()
            .ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
        // SAFETY: callable at any level.
        let me = unsafe { sys::ntddk::PsGetCurrentThreadId() }.addr();
        if this.holder.load(Ordering::Relaxed) == me {
            return Err(NtStatus::INVALID_DEVICE_STATE);
        }
        // SAFETY: the caller's promise.
        let irql = unsafe { Irql::<Passive>::assume() };
        let _ = this.free.wait(&irql, Timeout::Never);
        this.holder.store(me, Ordering::Relaxed);
        Ok(Turn(this))
    }
}

/// Opens the node, unless it is open.
///
/// # Safety
/// As [`dispatch`]; if the node has a `transition`, the turn is the caller's.
unsafe fn open(node: NonNull<Header>) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if header.has(done::OPENED) {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { call(node, Hook::Open) }?;
    // SAFETY: the node is in the pool and does not move.
    let gate = unsafe { Pin::new_unchecked(&header.open) };
    // SAFETY: the node is not open, so the door is shut and nobody is inside.
    unsafe { gate.open() };
    header.set(done::OPENED);
    // After the change of state, so that the client finds the module open.
    // SAFETY: the caller's promise.
    unsafe { tell_client(node, header.post_open.get()) };
    Ok(())
}

/// Closes the node, if it is open.
///
/// ```text
///   close                               a method
///   the client's pre_close              enter() → runs
///   open.shut()                         enter() → refused, from here on
///   closing(): wake those inside        ... wakes, returns, leave()
///   wait for those inside
///   close()                             nobody is inside any more
/// ```
///
/// # Safety
/// As [`open`].
unsafe fn close(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if !header.has(done::OPENED) {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { tell_client(node, header.pre_close.get()) };
    let inside = header.open.shut();
    // SAFETY: the caller's promise. These two cannot fail.
    let _ = unsafe { call(node, Hook::Closing) };
    // SAFETY: PASSIVE_LEVEL by the caller's promise, and it is not a method.
    unsafe { header.open.wait(inside) };
    // SAFETY: the caller's promise.
    let _ = unsafe { call(node, Hook::Close) };
    header.clear(done::OPENED);
}

/// Calls a function of the node's owner, if there is one and the owner is alive.
///
/// # Safety
/// As [`call`].
unsafe fn tell_client(node: NonNull<Header>, callback: Option<ClientCallback>) {
    // SAFETY: the caller's promise.
    let parent = unsafe { node.as_ref() }.parent.get();
    let (Some(callback), Some(parent)) = (callback, parent) else {
        return;
    };
    // SAFETY: the parent outlives the child.
    let Ok(_alive) = (unsafe { enter_alive_erased(parent) }) else {
        return;
    };
    // SAFETY: the parent is alive, and the callback was made for it.
    unsafe { (callback.call)(parent, callback.function, node) };
}

/// Puts a module that was made and opened at run time into its owner's list.
///
/// # Safety
/// Both are valid, and the owner's `alive` gate was entered. `PASSIVE_LEVEL`.
pub(crate) unsafe fn push_dynamic(owner: NonNull<Header>, child: Reference) {
    let child = child.into_raw();
    // SAFETY: the caller's promise.
    let owner = unsafe { owner.as_ref() };
    // SAFETY: the caller's promise.
    let mut irql = unsafe { Irql::<Passive>::assume() };
    owner.dynamic.lock(&mut irql, |list, _| {
        // SAFETY: the caller's promise.
        unsafe { child.as_ref() }.next.set(list.0);
        list.0 = Some(child);
    });
}

/// Takes a module that was made at run time out of its owner's list: this one,
/// or the newest.
///
/// # Safety
/// The owner is valid, and the level is `PASSIVE_LEVEL`.
pub(crate) unsafe fn pop_dynamic(
    owner: NonNull<Header>,
    wanted: Option<NonNull<Header>>,
) -> Option<Reference> {
    // SAFETY: the caller's promise.
    let owner = unsafe { owner.as_ref() };
    // SAFETY: the caller's promise.
    let mut irql = unsafe { Irql::<Passive>::assume() };
    owner.dynamic.lock(&mut irql, |list, _| {
        let mut before: Option<NonNull<Header>> = None;
        let mut at = list.0;
        while let Some(node) = at {
            // SAFETY: what is in the list is counted by it.
            let next = unsafe { node.as_ref() }.next.get();
            if wanted.is_none_or(|wanted| wanted == node) {
                match before {
                    // SAFETY: as above.
                    Some(before) => unsafe { before.as_ref() }.next.set(next),
                    None => list.0 = next,
                }
                // SAFETY: `push_dynamic` left the count here.
                return Some(unsafe { Reference::from_raw(node) });
            }
            before = Some(node);
            at = next;
        }
        None
    })
}

/// Closes and destroys a module that was made at run time.
///
/// # Safety
/// The node has a value and is in no list; `PASSIVE_LEVEL`. The device exists.
pub(crate) unsafe fn take_down(node: Reference) {
    // SAFETY: the caller's promise. It cannot fail.
    let _ = unsafe { dispatch(node.0, Step::Close) };
    // SAFETY: the caller's promise, and the node is closed.
    unsafe { destroy(node.0) };
    drop(node);
}

/// The same with all of a node's modules that were made at run time, newest first.
///
/// # Safety
/// As [`destroy`].
unsafe fn take_down_dynamic(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    while let Some(child) = unsafe { pop_dynamic(node, None) } {
        // SAFETY: the caller's promise.
        unsafe { take_down(child) };
    }
}

/// Drops the value, then the children, last to first.
///
/// # Safety
/// The node has a value and is closed. The caller is one of KMDF's callbacks
/// for the device, at `PASSIVE_LEVEL`, or takes down a dynamic module.
pub(crate) unsafe fn destroy(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: the caller's promise.
    unsafe { quiet(node) };
    // SAFETY: nobody is inside, no callback runs, and nobody gets in any more.
    unsafe { (header.table.drop)(node) };
    // SAFETY: the caller's promise.
    unsafe { abandon(node) };
}

/// Lets no callback into the node and those below, and waits until none runs:
/// callbacks of its own objects, and those of the modules below, which call it.
///
/// # Safety
/// As [`destroy`].
unsafe fn quiet(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    let inside = header.alive.shut();
    // SAFETY: PASSIVE_LEVEL by the caller's promise, and it is not inside. If it
    // is shut already, somebody has waited, and nobody is inside.
    unsafe { header.alive.wait(inside) };
    // SAFETY: the caller's promise. What was made after the node was closed; no
    // more are made.
    unsafe { take_down_dynamic(node) };
    // SAFETY: PASSIVE_LEVEL, and the links are those of this node.
    unsafe { ObjectLink::stop_all(header.objects.get()) };
    // A callback that was waited for may have started what had been stopped
    // already (`Bound::with_within`). Those that begin now see that the node is
    // not alive, and start nothing.
    // SAFETY: as above.
    unsafe { ObjectLink::stop_all(header.objects.get()) };
    let mut child = header.last.get();
    while let Some(at) = child {
        // SAFETY: the caller's promise; a child has a value.
        unsafe { quiet(at) };
        // SAFETY: a child is valid as long as its parent has it.
        child = unsafe { at.as_ref() }.previous.get();
    }
}

/// Takes down what a node without a value has: modules made at run time, its
/// timers and work items, which do not run, and its children, last to first.
///
/// # Safety
/// As [`destroy`], but for the value.
pub(crate) unsafe fn abandon(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: PASSIVE_LEVEL, and the links are those of this node. Either they
    // were stopped, or never started.
    unsafe { ObjectLink::delete_all(header.objects.take()) };
    header.first.set(None);
    let mut child = header.last.take();
    while let Some(at) = child {
        // SAFETY: a child is valid as long as its parent has it.
        child = unsafe { at.as_ref() }.previous.get();
        // SAFETY: the caller's promise; a child has a value.
        unsafe { destroy(at) };
        // SAFETY: `adopt` gave this count to the parent.
        drop(unsafe { Reference::from_raw(at) });
    }
}
