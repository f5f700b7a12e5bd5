// SPDX-License-Identifier: MIT OR Apache-2.0

//! Framework objects: handles, parents and children, contexts, references,
//! deletion.
//!
//! # Vocabulary
//! - *dispose*: an object stops: its timer is cancelled and waited for, and its
//!   `EvtCleanupCallback`s are called. Children are disposed before their
//!   parent, in the order in which they were created.
//! - *destroy*: the last reference is gone: the `EvtDestroyCallback`s are called
//!   and the contexts are freed.
//! - *deferred*: a deletion above `PASSIVE_LEVEL` of something that can only be
//!   disposed at `PASSIVE_LEVEL` is done by a system worker thread.
//!
//! ```text
//!              WdfObjectDelete,            all references
//!              or the parent's             dropped
//!   Created ──────────► Disposing ──► Disposed ──────► (destroyed)
//!      │                    ▲
//!      │  the parent is     │ the parent gets to it
//!      │  being disposed    │
//!      └──────────► WaitingForParent
//! ```
//!
//! The order is that of KMDF's object state machine
//! (`src/framework/shared/object/fxobjectstatemachine.cpp` of
//! Windows-Driver-Frameworks); see also
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-life-cycle>.

use crate::abi::{callback, param};
use crate::access::{peek, peek_c_str, poke};
use crate::bugcheck::BugCheck;
use crate::kernel::{Kernel, PASSIVE_LEVEL};
use crate::memory::Fill;
use crate::origin::Origin;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::raw::{ContextTypeInfo, ObjectAttributes};
use super::{
    Globals, STATUS_DELETE_PENDING, STATUS_INFO_LENGTH_MISMATCH, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_OBJECT_NAME_EXISTS, STATUS_SUCCESS, STATUS_WDF_EXECUTION_LEVEL_INVALID,
    STATUS_WDF_OBJECT_ATTRIBUTES_INVALID, STATUS_WDF_PARENT_ASSIGNMENT_NOT_ALLOWED,
    STATUS_WDF_PARENT_NOT_SPECIFIED, STATUS_WDF_SYNCHRONIZATION_SCOPE_INVALID, control, device,
    dpc, file, hardware, interrupt, io_target, lock, lookaside, memory, queue, registry, request,
    required, timer, work_item,
};

/// What a handle points at, if it pointed at anything.
pub(crate) enum Opaque {}

/// `WDFOBJECT` and every other handle of the framework.
pub(crate) type Handle = *mut Opaque;

/// Handles are addresses at which nothing can be mapped.
const HANDLE_BASE: usize = 0xFFFF_D00D_0000_0000;
/// The first ones are the drivers', so that a driver's handle depends on
/// nothing but its place among the drivers.
const DRIVER_HANDLES: usize = 256;

/// The handle of the driver in place `slot`.
pub(crate) const fn driver_handle(slot: usize) -> Handle {
    (HANDLE_BASE | ((slot + 1) << 4)) as Handle
}

/// `WdfExecutionLevelInheritFromParent` and its siblings.
pub(crate) const EXECUTION_INHERIT: u32 = 1;
pub(crate) const EXECUTION_PASSIVE: u32 = 2;
pub(crate) const EXECUTION_DISPATCH: u32 = 3;

/// `WdfSynchronizationScopeInheritFromParent` and its siblings.
pub(crate) const SCOPE_INHERIT: u32 = 1;
pub(crate) const SCOPE_NONE: u32 = 4;

/// What sort of object a handle stands for, with what the framework keeps of it.
pub(crate) enum Data {
    /// The driver in this place.
    Driver(usize),
    Device(Box<device::Device>),
    General,
    Timer(timer::Timer),
    WorkItem(work_item::WorkItem),
    Dpc(dpc::Dpc),
    SpinLock(lock::SpinLock),
    WaitLock(lock::WaitLock),
    Key(registry::Key),
    Memory(memory::Memory),
    String(memory::Text),
    Collection(Vec<Handle>),
    ResourceList(hardware::ResourceList),
    Queue(Box<queue::Queue>),
    Request(Box<request::Request>),
    File(file::File),
    IoTarget(Box<io_target::Target>),
    Interrupt(interrupt::Interrupt),
    Lookaside(lookaside::Lookaside),
}

impl Data {
    /// The handle's type, as drivers know it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Driver(_) => "WDFDRIVER",
            Self::Device(_) => "WDFDEVICE",
            Self::General => "WDFOBJECT",
            Self::Timer(_) => "WDFTIMER",
            Self::WorkItem(_) => "WDFWORKITEM",
            Self::Dpc(_) => "WDFDPC",
            Self::SpinLock(_) => "WDFSPINLOCK",
            Self::WaitLock(_) => "WDFWAITLOCK",
            Self::Key(_) => "WDFKEY",
            Self::Memory(_) => "WDFMEMORY",
            Self::String(_) => "WDFSTRING",
            Self::Collection(_) => "WDFCOLLECTION",
            Self::ResourceList(_) => "WDFCMRESLIST",
            Self::Queue(_) => "WDFQUEUE",
            Self::Request(_) => "WDFREQUEST",
            Self::File(_) => "WDFFILEOBJECT",
            Self::IoTarget(_) => "WDFIOTARGET",
            Self::Interrupt(_) => "WDFINTERRUPT",
            Self::Lookaside(_) => "WDFLOOKASIDE",
        }
    }

    /// Whether it can be disposed at `PASSIVE_LEVEL` only.
    fn needs_passive(&self) -> bool {
        match self {
            Self::Driver(_)
            | Self::Device(_)
            | Self::Timer(_)
            | Self::WorkItem(_)
            | Self::Dpc(_)
            | Self::WaitLock(_)
            | Self::Key(_)
            | Self::Queue(_)
            | Self::File(_)
            | Self::IoTarget(_)
            | Self::Interrupt(_)
            | Self::String(_) => true,
            Self::Memory(memory) => memory.is_paged(),
            Self::General
            | Self::SpinLock(_)
            | Self::Collection(_)
            | Self::Lookaside(_)
            | Self::Request(_)
            | Self::ResourceList(_) => false,
        }
    }

    /// Whether only the framework may delete it.
    fn is_frameworks(&self) -> bool {
        match self {
            Self::Driver(_) | Self::ResourceList(_) | Self::File(_) => true,
            Self::Device(device) => device.io.control.is_none(),
            Self::Request(request) => !request.is_makers(),
            Self::IoTarget(target) => target.is_local(),
            Self::Queue(queue) => queue.assigned,
            _ => false,
        }
    }
}

/// How far an object's deletion has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Created,
    /// Deleted by the driver while the parent is being disposed, which will get to it.
    WaitingForParent,
    /// Deleted above `PASSIVE_LEVEL`; a worker thread will get to it.
    Deferred,
    Disposing,
    Disposed,
}

/// A context that the driver asked for, or the callbacks of attributes without one.
#[derive(Clone)]
pub(crate) struct Context {
    /// `UniqueType`; 0 for callbacks without a context.
    key: usize,
    address: usize,
    size: usize,
    evt_cleanup: usize,
    evt_destroy: usize,
}

/// An object of the framework.
pub(crate) struct Object {
    pub(crate) handle: Handle,
    /// Where the driver made it.
    pub(crate) origin: Option<Origin>,
    pub(crate) data: Data,
    /// The place of the driver that it belongs to.
    pub(crate) driver: usize,
    pub(crate) parent: Option<Handle>,
    pub(crate) children: Vec<Handle>,
    contexts: Vec<Context>,
    pub(crate) references: u32,
    pub(crate) life: Life,
    pub(crate) execution: u32,
    pub(crate) scope: u32,
}

impl Object {
    pub(crate) fn is_deleted(&self) -> bool {
        self.life != Life::Created
    }
}

/// The driver's `WDF_OBJECT_ATTRIBUTES`, checked.
#[derive(Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) evt_cleanup: usize,
    pub(crate) evt_destroy: usize,
    pub(crate) execution: u32,
    pub(crate) scope: u32,
    pub(crate) parent: Option<Handle>,
    context: Option<ContextSpec>,
}

#[derive(Clone)]
struct ContextSpec {
    key: usize,
    size: usize,
    name: String,
}

/// What attributes an object may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allow {
    /// The parent must be given.
    ParentRequired,
    /// The parent may be given.
    Parent,
    /// The framework chooses the parent.
    NoParent,
}

/// Reads and checks attributes, in the driver's context.
///
/// The checks and their statuses are those of `FxValidateObjectAttributes`.
pub(crate) fn attributes(
    from: *const ObjectAttributes,
    allow: Allow,
    levels: bool,
) -> Result<Attributes, i32> {
    if from.is_null() {
        return if allow == Allow::ParentRequired {
            Err(STATUS_WDF_PARENT_NOT_SPECIFIED)
        } else {
            Ok(Attributes::default())
        };
    }
    let raw = peek(from);
    if raw.size as usize != size_of::<ObjectAttributes>() {
        return Err(STATUS_INFO_LENGTH_MISMATCH);
    }
    let context = context_spec(&raw)?;
    if raw.parent.is_null() {
        if allow == Allow::ParentRequired {
            return Err(STATUS_WDF_PARENT_NOT_SPECIFIED);
        }
    } else if allow == Allow::NoParent {
        return Err(STATUS_WDF_PARENT_ASSIGNMENT_NOT_ALLOWED);
    }
    let execution_ok = if levels {
        (EXECUTION_INHERIT..=EXECUTION_DISPATCH).contains(&raw.execution_level)
    } else {
        raw.execution_level == EXECUTION_INHERIT
    };
    if !execution_ok {
        return Err(STATUS_WDF_EXECUTION_LEVEL_INVALID);
    }
    let scope_ok = if levels {
        (SCOPE_INHERIT..=SCOPE_NONE).contains(&raw.synchronization_scope)
    } else {
        raw.synchronization_scope == SCOPE_INHERIT
    };
    if !scope_ok {
        return Err(STATUS_WDF_SYNCHRONIZATION_SCOPE_INVALID);
    }
    Ok(Attributes {
        evt_cleanup: raw.evt_cleanup,
        evt_destroy: raw.evt_destroy,
        execution: raw.execution_level,
        scope: raw.synchronization_scope,
        parent: (!raw.parent.is_null()).then_some(raw.parent),
        context,
    })
}

fn context_spec(raw: &ObjectAttributes) -> Result<Option<ContextSpec>, i32> {
    if raw.context_type.is_null() {
        return if raw.context_size_override == 0 {
            Ok(None)
        } else {
            Err(STATUS_WDF_OBJECT_ATTRIBUTES_INVALID)
        };
    }
    let info = peek(raw.context_type);
    if info.size as usize != size_of::<ContextTypeInfo>() {
        return Err(STATUS_INFO_LENGTH_MISMATCH);
    }
    if info.name.is_null()
        || (raw.context_size_override != 0 && raw.context_size_override < info.context_size)
    {
        return Err(STATUS_WDF_OBJECT_ATTRIBUTES_INVALID);
    }
    let size = if raw.context_size_override == 0 {
        info.context_size
    } else {
        raw.context_size_override
    };
    let name = String::from_utf8_lossy(&peek_c_str(info.name)).into_owned();
    Ok(Some(ContextSpec {
        key: unique_type(&info),
        size,
        name,
    }))
}

fn unique_type(info: &ContextTypeInfo) -> usize {
    if info.evt_get_unique_type == 0 {
        return info.unique_type as usize;
    }
    let unique: *mut u8 = callback(
        "EvtDriverGetUniqueContextType",
        info.evt_get_unique_type,
        &[],
    );
    unique as usize
}

/// Makes an object. Its context is zeroed.
///
/// # Errors
/// `STATUS_DELETE_PENDING` if the parent is being deleted,
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn create(
    k: &mut Kernel,
    driver: usize,
    parent: Option<Handle>,
    attributes: &Attributes,
    data: Data,
) -> Result<Handle, i32> {
    // A resource list is the framework's own, which has it before it asks the driver.
    // A device's default target is made with the device.
    let is_devices = matches!(&data, Data::IoTarget(target) if target.is_local());
    if !is_devices && !matches!(data, Data::ResourceList(_)) {
        crate::inject::check(k, data.kind())?;
        super::driver::count_allocation(k, driver, data.kind())?;
    }
    let handle = if let Data::Driver(slot) = data {
        driver_handle(slot)
    } else {
        k.wdf.next_object += 1;
        (HANDLE_BASE | ((DRIVER_HANDLES + k.wdf.next_object) << 4)) as Handle
    };
    let (mut execution, mut scope) = (EXECUTION_DISPATCH, SCOPE_NONE);
    if let Some(parent) = parent {
        let parent = k
            .wdf
            .objects
            .get_mut(&parent)
            .expect("the caller looked the parent up");
        if parent.is_deleted() {
            return Err(STATUS_DELETE_PENDING);
        }
        (execution, scope) = (parent.execution, parent.scope);
        parent.children.push(handle);
    }
    if attributes.execution > EXECUTION_INHERIT {
        execution = attributes.execution;
    }
    if attributes.scope > SCOPE_INHERIT {
        scope = attributes.scope;
    }
    k.name(handle as usize, data.kind());
    let origin = if matches!(data, Data::Request(_)) {
        None
    } else {
        Origin::of_one_of(k, k.wdf.objects.len())
    };
    k.wdf.objects.insert(
        handle,
        Object {
            handle,
            origin,
            data,
            driver,
            parent,
            children: Vec::new(),
            contexts: Vec::new(),
            references: 1,
            life: Life::Created,
            execution,
            scope,
        },
    );
    if let Err(status) = add_context(k, handle, attributes) {
        if let Some(parent) = parent.and_then(|parent| k.wdf.objects.get_mut(&parent)) {
            parent.children.retain(|child| *child != handle);
        }
        k.wdf.objects.remove(&handle);
        return Err(status);
    }
    Ok(handle)
}

/// The framework's pool tag.
pub(crate) const FRAMEWORK_TAG: u32 = u32::from_le_bytes(*b"FxDr");

fn add_context(k: &mut Kernel, handle: Handle, attributes: &Attributes) -> Result<usize, i32> {
    let (key, size, address) = match &attributes.context {
        None => (0, 0, 0),
        Some(spec) => {
            // An empty context is one still: its address tells it apart.
            let size = spec.size.max(1);
            let block = k
                .wdf
                .memory
                .allocate(size, FRAMEWORK_TAG, Fill::Zero)
                .ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
            let address = block.as_ptr() as usize;
            let name = format!(
                "{}.{}",
                k.name_of(handle as usize).unwrap_or("object"),
                spec.name
            );
            k.name_as(address, name);
            k.wdf.contexts.insert(address, handle);
            (spec.key, size, address)
        }
    };
    if address != 0 || attributes.evt_cleanup != 0 || attributes.evt_destroy != 0 {
        get(k, handle).contexts.push(Context {
            key,
            address,
            size,
            evt_cleanup: attributes.evt_cleanup,
            evt_destroy: attributes.evt_destroy,
        });
    }
    Ok(address)
}

/// The object of a handle that the framework itself keeps.
pub(crate) fn get(k: &mut Kernel, handle: Handle) -> &mut Object {
    k.wdf
        .objects
        .get_mut(&handle)
        .expect("an object is in the table until its last reference is dropped")
}

/// The object of a handle that the driver gave, whatever its type.
pub(crate) fn any<'k>(k: &'k mut Kernel, handle: Handle, function: &str) -> &'k mut Object {
    if !k.wdf.objects.contains_key(&handle) {
        let what = match k.name_of(handle as usize) {
            _ if handle.is_null() => "NULL".to_owned(),
            Some(name) if is_handle(handle) => {
                let message = format!("{function} was given {name}, which was deleted");
                k.fatal(&kmdf::DELETED_HANDLE, &[handle as u64], message)
            }
            Some(name) => format!("{name}, which is no framework object"),
            None => format!("{:#x}, which is no handle", handle as usize),
        };
        invalid(k, handle, format!("{function} was given {what}"));
    }
    get(k, handle)
}

fn is_handle(handle: Handle) -> bool {
    handle as usize >> 32 == HANDLE_BASE >> 32
}

/// Stops the machine over a bad handle.
pub(crate) fn invalid(k: &mut Kernel, handle: Handle, message: String) -> ! {
    k.fatal(&kmdf::INVALID_HANDLE, &[handle as u64], message)
}

/// Looks a handle up as an object of one type; makes a function for each type.
macro_rules! typed {
    ($($name:ident: $variant:ident => $ty:ty = $kind:literal;)*) => {$(
        /// The object of a handle of this type that the driver gave.
        pub(crate) fn $name<'k>(k: &'k mut Kernel, handle: Handle, function: &str) -> &'k mut $ty {
            if !matches!(any(k, handle, function).data, Data::$variant(_)) {
                let name = k.name_of(handle as usize).unwrap_or("an object").to_owned();
                invalid(k, handle, format!("{function} was given {name}, which is no {}", $kind));
            }
            match &mut get(k, handle).data {
                Data::$variant(data) => data,
                _ => unreachable!("checked above"),
            }
        }
    )*};
}

typed! {
    driver: Driver => usize = "WDFDRIVER";
    device: Device => device::Device = "WDFDEVICE";
    timer: Timer => timer::Timer = "WDFTIMER";
    work_item: WorkItem => work_item::WorkItem = "WDFWORKITEM";
    dpc: Dpc => dpc::Dpc = "WDFDPC";
    spin_lock: SpinLock => lock::SpinLock = "WDFSPINLOCK";
    wait_lock: WaitLock => lock::WaitLock = "WDFWAITLOCK";
    key: Key => registry::Key = "WDFKEY";
    memory: Memory => memory::Memory = "WDFMEMORY";
    string: String => memory::Text = "WDFSTRING";
    collection: Collection => Vec<Handle> = "WDFCOLLECTION";
    queue: Queue => Box<queue::Queue> = "WDFQUEUE";
    request: Request => Box<request::Request> = "WDFREQUEST";
    file: File => file::File = "WDFFILEOBJECT";
    io_target: IoTarget => Box<io_target::Target> = "WDFIOTARGET";
    interrupt: Interrupt => interrupt::Interrupt = "WDFINTERRUPT";
    lookaside: Lookaside => lookaside::Lookaside = "WDFLOOKASIDE";
}

/// The place of the driver that calls, and its handle.
pub(crate) fn caller(k: &mut Kernel, globals: Globals, function: &str) -> (usize, Handle) {
    let slot = super::driver::slot_of(k, globals);
    match slot {
        Some(slot) if k.wdf.objects.contains_key(&driver_handle(slot)) => {
            (slot, driver_handle(slot))
        }
        Some(_) => {
            let message = format!("{function} was called before WdfDriverCreate");
            k.fatal(&kmdf::DRIVER_CREATE, &[0], message)
        }
        None => {
            let message =
                format!("{function} was given driver globals that the framework did not make");
            invalid(k, std::ptr::null_mut(), message)
        }
    }
}

/// The parent that the attributes give, or else the driver. Checks that it is an object.
pub(crate) fn parent_or_driver(
    k: &mut Kernel,
    globals: Globals,
    attributes: &Attributes,
    function: &str,
) -> (usize, Handle) {
    let (slot, driver) = caller(k, globals, function);
    match attributes.parent {
        Some(parent) => {
            any(k, parent, function);
            (slot, parent)
        }
        None => (slot, driver),
    }
}

/// The nearest device at or above `handle`.
pub(crate) fn device_of(k: &Kernel, handle: Handle) -> Option<Handle> {
    let mut at = Some(handle);
    while let Some(handle) = at {
        let object = k.wdf.objects.get(&handle)?;
        if matches!(object.data, Data::Device(_)) {
            return Some(handle);
        }
        at = object.parent;
    }
    None
}

// ---- deletion --------------------------------------------------------

/// What is to be done about a deletion.
enum Deletion {
    Now,
    Later,
}

/// Deletes an object and its children, on the caller's context, or on a worker
/// thread if the IRQL is too high for it.
pub(crate) fn delete(handle: Handle) {
    let deletion = kernel(|k| begin_deletion(k, handle));
    if matches!(deletion, Deletion::Now) {
        dispose(handle);
        finish(handle);
    }
}

/// The same, for a request: `between` runs when it is disposed and not destroyed yet.
pub(crate) fn delete_around(handle: Handle, between: impl FnOnce()) {
    if matches!(kernel(|k| begin_deletion(k, handle)), Deletion::Now) {
        dispose(handle);
        between();
        finish(handle);
    } else {
        between();
    }
}

fn begin_deletion(k: &mut Kernel, handle: Handle) -> Deletion {
    let (life, parent) = {
        let object = get(k, handle);
        (object.life, object.parent)
    };
    // A deletion is under way already, or waits for the parent's.
    if life != Life::Created {
        return Deletion::Later;
    }
    if let Some(parent) = parent {
        if get(k, parent).life == Life::Disposing {
            get(k, handle).life = Life::WaitingForParent;
            return Deletion::Later;
        }
        get(k, parent).children.retain(|child| *child != handle);
        get(k, handle).parent = None;
    }
    if k.irql() > PASSIVE_LEVEL && subtree_needs_passive(k, handle) {
        get(k, handle).life = Life::Deferred;
        k.wdf.deferred_deletions += 1;
        crate::ex::queue_work(
            k,
            Box::new(move || {
                dispose(handle);
                finish(handle);
                kernel(|k| {
                    k.wdf.deferred_deletions -= 1;
                    super::wake(k);
                });
            }),
        );
        return Deletion::Later;
    }
    Deletion::Now
}

/// Waits until no deletion is left to a worker thread.
pub(crate) fn flush_deferred_deletions() {
    super::wait_until(|k| k.wdf.deferred_deletions == 0);
}

fn subtree_needs_passive(k: &Kernel, handle: Handle) -> bool {
    let Some(object) = k.wdf.objects.get(&handle) else {
        return false;
    };
    object.data.needs_passive()
        || object
            .children
            .iter()
            .any(|child| subtree_needs_passive(k, *child))
}

/// Disposes the children, then the object itself.
fn dispose(handle: Handle) {
    kernel(|k| get(k, handle).life = Life::Disposing);
    // No child joins or leaves while the life is `Disposing`.
    let children = kernel(|k| get(k, handle).children.clone());
    for child in children {
        let mine = kernel(|k| matches!(get(k, child).life, Life::Created | Life::WaitingForParent));
        if mine {
            dispose(child);
        }
    }
    let stop: fn(Handle) = kernel(|k| match get(k, handle).data {
        Data::Timer(_) => timer::dispose,
        Data::WorkItem(_) => work_item::dispose,
        Data::Dpc(_) => dpc::dispose,
        Data::Queue(_) => queue::dispose,
        Data::Interrupt(_) => interrupt::dispose,
        Data::IoTarget(_) => io_target::dispose,
        Data::Request(_) => request::dispose,
        _ => drop,
    });
    stop(handle);
    clean_up(handle);
    kernel(|k| get(k, handle).life = Life::Disposed);
}

/// Calls the cleanup callbacks that were not called yet.
pub(crate) fn clean_up(handle: Handle) {
    let mut index = 0;
    // A cleanup callback may add a context.
    while let Some(evt) = kernel(|k| {
        let context = get(k, handle).contexts.get_mut(index)?;
        Some(std::mem::take(&mut context.evt_cleanup))
    }) {
        if evt != 0 {
            callback::<()>("EvtCleanupCallback", evt, &[param("Object", &handle)]);
        }
        index += 1;
    }
}

/// Drops the parent's hold on the children, then the object's own reference.
fn finish(handle: Handle) {
    let children = kernel(|k| std::mem::take(&mut get(k, handle).children));
    for child in children {
        kernel(|k| get(k, child).parent = None);
        finish(child);
    }
    release(handle);
}

/// Counts a reference; the framework's own.
pub(crate) fn reference(k: &mut Kernel, handle: Handle) {
    get(k, handle).references += 1;
}

/// Drops a reference; the last one destroys the object.
pub(crate) fn release(handle: Handle) {
    let (last, later) = kernel(|k| {
        let passive = k.irql() == PASSIVE_LEVEL;
        let object = get(k, handle);
        object.references -= 1;
        let last = object.references == 0;
        let later = last && !passive && object.data.needs_passive();
        if later {
            k.wdf.deferred_deletions += 1;
            crate::ex::queue_work(
                k,
                Box::new(move || {
                    destroy(handle);
                    kernel(|k| {
                        k.wdf.deferred_deletions -= 1;
                        super::wake(k);
                    });
                }),
            );
        }
        (last, later)
    });
    if last && !later {
        destroy(handle);
    }
}

/// Calls the destroy callbacks and frees what the object had.
fn destroy(handle: Handle) {
    clean_up(handle);
    let mut index = 0;
    while let Some(evt) = kernel(|k| {
        let context = get(k, handle).contexts.get_mut(index)?;
        Some(std::mem::take(&mut context.evt_destroy))
    }) {
        if evt != 0 {
            callback::<()>("EvtDestroyCallback", evt, &[param("Object", &handle)]);
        }
        index += 1;
    }
    let held = kernel(|k| {
        let object = k.wdf.objects.remove(&handle).expect("it is destroyed once");
        for context in &object.contexts {
            if context.address != 0 {
                k.wdf.contexts.remove(&context.address);
                free_memory(k, context.address, context.size);
            }
        }
        match object.data {
            Data::Memory(memory) => {
                memory.free(k);
                Vec::new()
            }
            Data::String(text) => {
                text.free(k);
                Vec::new()
            }
            Data::ResourceList(list) => {
                list.free(k);
                Vec::new()
            }
            Data::File(file) => {
                file.free(k);
                Vec::new()
            }
            Data::Key(key) => {
                key.free(k);
                Vec::new()
            }
            Data::Collection(items) => items,
            _ => Vec::new(),
        }
    });
    for item in held {
        release(item);
    }
}

/// Memory of the framework's own that the driver may look at; zeroed.
pub(crate) fn allocate_memory(k: &mut Kernel, size: usize, name: String) -> Option<usize> {
    let block = k
        .wdf
        .memory
        .allocate(size.max(1), FRAMEWORK_TAG, Fill::Zero)?;
    let address = block.as_ptr() as usize;
    k.name_as(address, name);
    Some(address)
}

/// Gives such memory back; if the driver wrote outside of it, that is a bug check.
pub(crate) fn free_memory(k: &mut Kernel, address: usize, size: usize) {
    crate::ex::memory_freed(k, address, size);
    k.unname(address);
    let block =
        std::ptr::NonNull::new(address as *mut u8).expect("memory of the framework is not at NULL");
    if let Err(error) = k.wdf.memory.free(block) {
        k.bug_check(BugCheck::new(
            0xC1,
            [address as u64, 0, 0, 0x23],
            error.to_string(),
        ));
    }
}

// ---- functions of the table ------------------------------------------

/// `WdfObjectGetTypedContextWorker`: the context of that type, or NULL.
pub(crate) fn get_typed_context(
    _: Globals,
    handle: Handle,
    info: *const ContextTypeInfo,
) -> *mut u8 {
    required(info, "WdfObjectGetTypedContextWorker", "TypeInfo");
    let key = unique_type(&peek(info));
    kernel(|k| {
        any(k, handle, "WdfObjectGetTypedContextWorker")
            .contexts
            .iter()
            .find(|context| context.key == key && context.address != 0)
            .map_or(0, |context| context.address)
    }) as *mut u8
}

/// `WdfObjectAllocateContext`.
///
/// `STATUS_OBJECT_NAME_EXISTS` if the object has a context of the type already;
/// its address is given then, too.
pub(crate) fn allocate_context(
    _: Globals,
    handle: Handle,
    from: *const ObjectAttributes,
    out: *mut *mut u8,
) -> i32 {
    let function = "WdfObjectAllocateContext";
    required(from, function, "ContextAttributes");
    kernel(|k| {
        any(k, handle, function);
    });
    let attributes = match attributes(from, Allow::NoParent, false) {
        Ok(attributes) => attributes,
        Err(status) => return status,
    };
    let Some(spec) = attributes.context.clone() else {
        return STATUS_WDF_OBJECT_ATTRIBUTES_INVALID;
    };
    let (status, address) = kernel(|k| {
        let object = get(k, handle);
        if object.is_deleted() {
            return (STATUS_DELETE_PENDING, None);
        }
        if let Some(context) = object
            .contexts
            .iter()
            .find(|context| context.key == spec.key && context.address != 0)
        {
            return (STATUS_OBJECT_NAME_EXISTS, Some(context.address));
        }
        match add_context(k, handle, &attributes) {
            Ok(address) => (STATUS_SUCCESS, Some(address)),
            Err(status) => (status, None),
        }
    });
    if let Some(address) = address
        && !out.is_null()
    {
        poke(out, address as *mut u8);
    }
    status
}

/// `WdfObjectContextGetObject`.
pub(crate) fn context_get_object(_: Globals, context: *mut u8) -> Handle {
    required(context, "WdfObjectContextGetObject", "ContextPointer");
    kernel(|k| match k.wdf.contexts.get(&(context as usize)) {
        Some(handle) => *handle,
        None => invalid(
            k,
            context.cast(),
            "WdfObjectContextGetObject was given an address that is not the start of a context"
                .to_owned(),
        ),
    })
}

/// `WdfObjectReferenceActual`.
pub(crate) fn reference_actual(
    _: Globals,
    handle: Handle,
    _tag: *const u8,
    _line: i32,
    _file: *const u8,
) {
    kernel(|k| any(k, handle, "WdfObjectReference").references += 1);
}

/// `WdfObjectDereferenceActual`.
pub(crate) fn dereference_actual(
    _: Globals,
    handle: Handle,
    _tag: *const u8,
    _line: i32,
    _file: *const u8,
) {
    kernel(|k| {
        let object = any(k, handle, "WdfObjectDereference");
        if object.references == 1 && !object.is_deleted() {
            let name = k.name_of(handle as usize).unwrap_or("an object").to_owned();
            k.fatal(
                &kmdf::DEREFERENCED_TO_DELETE,
                &[handle as u64],
                format!(
                    "WdfObjectDereference drops the last reference to {name}, which was not deleted"
                ),
            );
        }
    });
    release(handle);
}

/// `WdfObjectCreate`.
///
/// Callable at `<= DISPATCH_LEVEL`. The parent is the driver unless the attributes name one.
pub(crate) fn create_general(g: Globals, from: *const ObjectAttributes, out: *mut Handle) -> i32 {
    let function = "WdfObjectCreate";
    required(out, function, "Object");
    poke(out, std::ptr::null_mut());
    let created = attributes(from, Allow::Parent, true).and_then(|attributes| {
        kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            let (slot, parent) = parent_or_driver(k, g, &attributes, function);
            create(k, slot, Some(parent), &attributes, Data::General)
        })
    });
    give(out, created)
}

/// Hands a new object to the driver.
pub(crate) fn give(out: *mut Handle, created: Result<Handle, i32>) -> i32 {
    match created {
        Ok(handle) => {
            poke(out, handle);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// `WdfObjectDelete`. Callable at `<= DISPATCH_LEVEL`.
///
/// Objects that the framework made may not be deleted.
pub(crate) fn delete_by_driver(_: Globals, handle: Handle) {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, "WdfObjectDelete");
        if any(k, handle, "WdfObjectDelete").data.is_frameworks() {
            let name = k.name_of(handle as usize).unwrap_or("an object").to_owned();
            k.fatal(
                &kmdf::DELETE_NOT_ALLOWED,
                &[handle as u64],
                format!("WdfObjectDelete was called on {name}, which only the framework deletes"),
            );
        }
    });
    if kernel(|k| control::is_control(k, handle)) {
        control::delete(handle);
    } else {
        delete(handle);
    }
}
