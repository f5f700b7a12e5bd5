// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`WorkItem`].

use core::fmt;
use core::ptr::NonNull;

use super::object::{ContextInfo, ObjectLink, attributes, no_handle};
use crate::irql::{Irql, Passive};
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;

/// A callback of its owner that a system worker thread runs at `PASSIVE_LEVEL`.
///
/// ```text
///           enqueue                 a worker takes it
///   idle ───────────► queued ─────────────────────────► callback ──► idle
///                       │ enqueue: nothing                 │ enqueue: queued again
/// ```
///
/// For work that takes long use a [`Thread`](crate::thread::Thread): workers
/// are shared by the whole system.
///
/// C counterpart: [`WDFWORKITEM`][ms], not serialized.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-framework-work-items
///
/// # Invariants
/// `handle` is valid as long as the node of `owner` is alive.
pub struct WorkItem {
    owner: Reference,
    handle: sys::WDFWORKITEM,
}

// SAFETY: KMDF synchronizes all access to a work item.
unsafe impl Send for WorkItem {}
// SAFETY: as above.
unsafe impl Sync for WorkItem {}

/// What a work item's callback is given.
#[derive(Debug)]
pub struct WorkItemRun<'a> {
    irql: Irql<'a, Passive>,
}

impl<'a> WorkItemRun<'a> {
    /// The proof that the callback runs at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }
}

#[repr(C)]
struct Context {
    link: ObjectLink,
    owner: NonNull<Header>,
    function: *const (),
    /// Safety: `function` is that of the owner's type, and the level is `PASSIVE_LEVEL`.
    call: unsafe fn(NonNull<Header>, *const ()),
}

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::WorkItem", &CONTEXT);

impl WorkItem {
    /// # Safety
    /// `owner` is the header of a `Node<O>` of `device`, and the caller is the
    /// device's device-add callback.
    pub(crate) unsafe fn new<O: 'static>(
        owner: NonNull<Header>,
        device: sys::WDFDEVICE,
        function: fn(&O, &mut WorkItemRun<'_>),
    ) -> Result<Self> {
        let mut config = sys::WDF_WORKITEM_CONFIG {
            Size: sys::size_field::<sys::WDF_WORKITEM_CONFIG>(),
            EvtWorkItemFunc: Some(evt_work_item),
            ..sys::WDF_WORKITEM_CONFIG::default()
        };
        let mut attributes = attributes(&CONTEXT, device);
        let mut handle = no_handle();
        // SAFETY: the structures are valid for the length of the call, and so is the device.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfWorkItemCreate(&raw mut config, &raw mut attributes, &raw mut handle)
        })
        .into_result()?;
        // SAFETY: the work item was created with this context.
        let context = unsafe { CONTEXT.of::<Context>(handle) };
        // SAFETY: the context is ours, and the work item has not been queued.
        unsafe {
            context.write(Context {
                link: ObjectLink::new(handle, flush),
                owner,
                function: function as *const (),
                call: call::<O>,
            });
        }
        // SAFETY: the link is the context's first field, and new.
        unsafe { ObjectLink::push(owner, context.cast()) };
        // INVARIANT: the node deletes the work item after it has ceased to be alive.
        Ok(Self {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            handle,
        })
    }

    /// Runs `action` while the owner is alive, and with it the work item.
    fn with<R>(&self, action: impl FnOnce() -> R) -> Result<R> {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        Ok(action())
    }

    /// Queues the callback, unless it is queued already. May be called from the
    /// callback itself, which then runs again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfWorkItemEnqueue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemenqueue
    pub fn enqueue(&self) -> Result {
        // SAFETY: the invariant.
        self.with(|| unsafe { sys::kmdf::WdfWorkItemEnqueue(self.handle) })
    }

    /// Waits until the callback is neither queued nor running. Not to be called
    /// from the callback itself.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfWorkItemFlush`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemflush
    pub fn flush(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        self.with(|| unsafe { sys::kmdf::WdfWorkItemFlush(self.handle) })
    }
}

impl fmt::Debug for WorkItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkItem").finish_non_exhaustive()
    }
}

callback! {
    /// KMDF's callback for each work item of this crate.
    unsafe fn evt_work_item(item: sys::WDFWORKITEM) {
        // SAFETY: KMDF calls this for work items that were created with this context.
        let context = unsafe { CONTEXT.of::<Context>(item) };
        // SAFETY: the context was written before the work item could be queued.
        let context = unsafe { context.as_ref() };
        // SAFETY: the context's fields belong together, and work items run at
        // PASSIVE_LEVEL.
        unsafe { (context.call)(context.owner, context.function) };
    }
}

/// # Safety
/// `function` is a `fn(&O, &mut WorkItemRun<'_>)`, `owner` is the header of a
/// `Node<O>` whose memory is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn call<O: 'static>(owner: NonNull<Header>, function: *const ()) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        // The owner is being dropped: there is nobody to tell.
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, &mut WorkItemRun<'_>) = unsafe { core::mem::transmute(function) };
    let mut run = WorkItemRun {
        // SAFETY: the caller's promise.
        irql: unsafe { Irql::assume() },
    };
    function(&owner, &mut run);
}

/// # Safety
/// The work item is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn flush(item: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    unsafe { sys::kmdf::WdfWorkItemFlush(item) };
}
