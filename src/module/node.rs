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
//! 5. `alive` is shut, callbacks inside are waited for, the value is dropped,
//!    timers and work items are stopped and deleted, then the children follow,
//!    last to first.
//! 6. When the last handle is gone, too.
//!
//! Steps 2 to 5 happen in KMDF's device-add, PnP and cleanup callbacks, which
//! KMDF calls one at a time for a device. So what only they touch is in `Cell`s.

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{Instance, OpenPolicy};
use crate::device::{Device, PowerState};
use crate::hooks::Hook;
use crate::pool::Box;
use crate::status::Result;
use crate::sync::rundown::Rundown;
use crate::wdf::dispatch::{IoEvent, call_io};
use crate::wdf::object::ObjectLink;

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
    /// What was done on the way up and not yet undone.
    done: Cell<Done>,
    first: Cell<Option<NonNull<Header>>>,
    last: Cell<Option<NonNull<Header>>>,
    next: Cell<Option<NonNull<Header>>>,
    previous: Cell<Option<NonNull<Header>>>,
    /// Timers and work items that the framework stops and deletes, newest first.
    pub(crate) objects: Cell<Option<NonNull<ObjectLink>>>,
}

/// Steps on the way up that were done and not yet undone.
#[derive(Clone, Copy, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of each other"
)]
struct Done {
    opened: bool,
    prepared: bool,
    powered: bool,
    io_running: bool,
    io_initialized: bool,
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

/// A step on the way up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Up {
    Create,
    PrepareHardware,
    D0Entry(PowerState),
    SelfManagedIoInit,
    SelfManagedIoRestart,
}

/// A step on the way down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Down {
    SelfManagedIoSuspend,
    D0Exit(PowerState),
    ReleaseHardware,
    SelfManagedIoFlush,
    SelfManagedIoCleanup,
    SurpriseRemoval,
    /// Closes whatever is still open.
    Close,
}

impl Up {
    /// What undoes the step.
    const fn undo(self) -> Down {
        match self {
            Self::Create => Down::Close,
            Self::PrepareHardware => Down::ReleaseHardware,
            Self::D0Entry(_) => Down::D0Exit(PowerState::D3Final),
            Self::SelfManagedIoInit | Self::SelfManagedIoRestart => Down::SelfManagedIoSuspend,
        }
    }
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
    )
}

unsafe fn call_device<D: Device>(node: NonNull<Header>, hook: Hook) -> Result {
    // SAFETY: the table's contract.
    let this = unsafe { value::<D>(node) };
    call_hook!(this, hook; Hook::Open | Hook::Closing | Hook::Close => Ok(()))
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

/// Allocates a node without a value, with one reference.
fn allocate<T>(table: &'static Table) -> Result<Reference> {
    let node = Box::new(Node::<T> {
        header: Header {
            table,
            references: AtomicUsize::new(1),
            alive: Rundown::new(),
            open: Rundown::new(),
            done: Cell::default(),
            first: Cell::new(None),
            last: Cell::new(None),
            next: Cell::new(None),
            previous: Cell::new(None),
            objects: Cell::new(None),
        },
        value: UnsafeCell::new(MaybeUninit::uninit()),
    })?;
    // INVARIANT: the one reference is this one.
    Ok(Reference(Box::into_raw(node).cast()))
}

pub(crate) fn allocate_instance<I: Instance>() -> Result<Reference> {
    allocate::<I>(InstanceTable::<I>::TABLE)
}

pub(crate) fn allocate_device<D: Device>() -> Result<Reference> {
    allocate::<D>(DeviceTable::<D>::TABLE)
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

    fn header(&self) -> &Header {
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
/// # Invariants
/// the gate was entered, and belongs to the node that holds `value`.
#[derive(Debug)]
#[must_use = "the value can be used while this lives"]
pub struct InFlight<'a, T> {
    value: &'a T,
    _gate: Gate<'a>,
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
/// open later than its parent.
pub(crate) fn may_adopt(parent: &Header, child: OpenPolicy) -> bool {
    parent.table.policy.is_none_or(|policy| child <= policy)
}

/// Makes `child` the last child of `parent`, which takes over its count.
///
/// # Safety
/// Both are valid, `child` has no parent, and the caller is the device's
/// device-add callback.
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

/// Takes a step up, children first. If it fails anywhere, everything that it
/// did is undone in reverse order.
///
/// # Safety
/// `root` is the device's node and has a value; the caller is one of KMDF's
/// callbacks for the device, at `PASSIVE_LEVEL`.
pub(crate) unsafe fn up(root: NonNull<Header>, step: Up) -> Result {
    // SAFETY: the caller's promise.
    let result = unsafe { climb(root, step) };
    if result.is_err() {
        // SAFETY: the caller's promise.
        unsafe { down(root, step.undo()) };
    }
    result
}

unsafe fn climb(node: NonNull<Header>, step: Up) -> Result {
    // SAFETY: the contract of `up`, which holds for the nodes below as well.
    let header = unsafe { node.as_ref() };
    let mut child = header.first.get();
    while let Some(at) = child {
        // SAFETY: as above.
        unsafe { climb(at, step) }?;
        // SAFETY: as above.
        child = unsafe { at.as_ref() }.next.get();
    }
    // SAFETY: as above.
    unsafe { raise(node, step) }
}

unsafe fn raise(node: NonNull<Header>, step: Up) -> Result {
    // SAFETY: the contract of `up`.
    let call = |hook| unsafe { call(node, hook) };
    // SAFETY: the contract of `up`.
    let open = |policy| unsafe { open(node, policy) };
    match step {
        Up::Create => open(OpenPolicy::Create),
        Up::PrepareHardware => {
            call(Hook::PrepareHardware)?;
            // SAFETY: the contract of `up`.
            unsafe { update(node, |done| done.prepared = true) };
            open(OpenPolicy::PrepareHardware)
        }
        Up::D0Entry(previous) => {
            call(Hook::D0Entry(previous))?;
            // SAFETY: the contract of `up`.
            unsafe { update(node, |done| done.powered = true) };
            open(OpenPolicy::D0Entry)
        }
        Up::SelfManagedIoInit => {
            call(Hook::SelfManagedIoInit)?;
            // SAFETY: the contract of `up`.
            unsafe {
                update(node, |done| {
                    done.io_running = true;
                    done.io_initialized = true;
                });
            }
            Ok(())
        }
        Up::SelfManagedIoRestart => {
            call(Hook::SelfManagedIoRestart)?;
            // SAFETY: the contract of `up`.
            unsafe { update(node, |done| done.io_running = true) };
            Ok(())
        }
    }
}

/// Takes a step down, parents first and children last to first.
///
/// # Safety
/// As [`up`].
pub(crate) unsafe fn down(node: NonNull<Header>, step: Down) {
    // SAFETY: the caller's promise, which holds for the nodes below as well.
    unsafe { lower(node, step) };
    // SAFETY: as above.
    let mut child = unsafe { node.as_ref() }.last.get();
    while let Some(at) = child {
        // SAFETY: as above.
        unsafe { down(at, step) };
        // SAFETY: as above.
        child = unsafe { at.as_ref() }.previous.get();
    }
}

unsafe fn lower(node: NonNull<Header>, step: Down) {
    // SAFETY: the contract of `down`.
    let done = unsafe { node.as_ref() }.done.get();
    let call = |hook| {
        // SAFETY: the contract of `down`. What undoes something cannot fail.
        let _ = unsafe { call(node, hook) };
    };
    // SAFETY: the contract of `down`.
    let close = |policy| unsafe { close(node, policy) };
    match step {
        Down::Close => close(None),
        Down::SurpriseRemoval => call(Hook::SurpriseRemoval),
        Down::SelfManagedIoSuspend => {
            if done.io_running {
                call(Hook::SelfManagedIoSuspend);
                // SAFETY: the contract of `down`.
                unsafe { update(node, |done| done.io_running = false) };
            }
        }
        Down::D0Exit(target) => {
            close(Some(OpenPolicy::D0Entry));
            if done.powered {
                call(Hook::D0Exit(target));
                // SAFETY: the contract of `down`.
                unsafe { update(node, |done| done.powered = false) };
            }
        }
        Down::ReleaseHardware => {
            close(Some(OpenPolicy::PrepareHardware));
            if done.prepared {
                call(Hook::ReleaseHardware);
                // SAFETY: the contract of `down`.
                unsafe { update(node, |done| done.prepared = false) };
            }
        }
        Down::SelfManagedIoFlush => {
            if done.io_initialized {
                call(Hook::SelfManagedIoFlush);
            }
        }
        Down::SelfManagedIoCleanup => {
            if done.io_initialized {
                call(Hook::SelfManagedIoCleanup);
                // SAFETY: the contract of `down`.
                unsafe { update(node, |done| done.io_initialized = false) };
            }
        }
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
/// The node has a value, and the caller is one of KMDF's callbacks for the
/// device, at `PASSIVE_LEVEL`.
unsafe fn call(node: NonNull<Header>, hook: Hook) -> Result {
    // SAFETY: the caller's promise.
    let call = unsafe { node.as_ref() }.table.call;
    // SAFETY: the caller's promise.
    unsafe { call(node, hook) }
}

/// # Safety
/// As [`call`].
unsafe fn update(node: NonNull<Header>, change: impl FnOnce(&mut Done)) {
    // SAFETY: the caller's promise.
    let cell = &unsafe { node.as_ref() }.done;
    let mut done = cell.get();
    change(&mut done);
    cell.set(done);
}

/// Opens the node if this is its policy.
///
/// # Safety
/// As [`call`].
unsafe fn open(node: NonNull<Header>, policy: OpenPolicy) -> Result {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if header.table.policy != Some(policy) || header.done.get().opened {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { call(node, Hook::Open) }?;
    // SAFETY: the node is in the pool and does not move.
    let gate = unsafe { Pin::new_unchecked(&header.open) };
    // SAFETY: the node is not open, so the door is shut and nobody is inside.
    unsafe { gate.open() };
    // SAFETY: the caller's promise.
    unsafe { update(node, |done| done.opened = true) };
    Ok(())
}

/// Closes the node if it is open and this is its policy, or none is given.
///
/// ```text
///   close                               a method
///   open.shut()                         enter() → refused, from here on
///   closing(): wake those inside        ... wakes, returns, leave()
///   wait for those inside
///   close()                             nobody is inside any more
/// ```
///
/// # Safety
/// As [`call`].
unsafe fn close(node: NonNull<Header>, policy: Option<OpenPolicy>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    if !header.done.get().opened || (policy.is_some() && policy != header.table.policy) {
        return;
    }
    let inside = header.open.shut();
    // SAFETY: the caller's promise. These two cannot fail.
    let _ = unsafe { call(node, Hook::Closing) };
    // SAFETY: PASSIVE_LEVEL by the caller's promise, and PnP callbacks are not methods.
    unsafe { header.open.wait(inside) };
    // SAFETY: the caller's promise.
    let _ = unsafe { call(node, Hook::Close) };
    // SAFETY: the caller's promise.
    unsafe { update(node, |done| done.opened = false) };
}

/// Drops the value, then the children, last to first.
///
/// # Safety
/// The node has a value and is closed. The caller is one of KMDF's callbacks
/// for the device, at `PASSIVE_LEVEL`.
pub(crate) unsafe fn destroy(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    let inside = header.alive.shut();
    // SAFETY: PASSIVE_LEVEL by the caller's promise, and it is not inside.
    unsafe { header.alive.wait(inside) };
    // SAFETY: nobody is inside, and nobody gets in any more.
    unsafe { (header.table.drop)(node) };
    // SAFETY: the caller's promise.
    unsafe { abandon(node) };
}

/// Takes down what a node without a value has: its timers and work items, and
/// its children, last to first.
///
/// # Safety
/// As [`destroy`], but for the value.
pub(crate) unsafe fn abandon(node: NonNull<Header>) {
    // SAFETY: the caller's promise.
    let header = unsafe { node.as_ref() };
    // SAFETY: PASSIVE_LEVEL, and the links are those of this node.
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
