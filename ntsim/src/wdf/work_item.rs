// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFWORKITEM`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-framework-work-items>
//!
//! A work item that is queued is not queued twice. It counts as queued until a
//! worker thread takes it up, so its callback may queue it again, and then two
//! callbacks of one work item can run at once. Flush and deletion wait until
//! none is queued or runs.

use crate::abi::{callback, param};
use crate::kernel::{ContextId, Kernel};
use crate::rules::kmdf;
use crate::trap::kernel;

use super::Globals;
use super::deferred::{self, Creation};
use super::lock::{self, Serial};
use super::object::{self, Data, Handle};
use super::raw::{CallbackConfig, ObjectAttributes};

/// What the framework keeps of a work item.
pub(crate) struct WorkItem {
    evt: usize,
    serial: Serial,
    enqueued: bool,
    running: Vec<ContextId>,
    running_down: bool,
}

impl WorkItem {
    fn is_idle(&self) -> bool {
        !self.enqueued && self.running.is_empty()
    }
}

/// `WdfWorkItemCreate`: see [`deferred::create`].
pub(crate) fn create(
    globals: Globals,
    config: *const CallbackConfig,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let by = Creation {
        globals,
        config,
        attributes,
        out,
        function: "WdfWorkItemCreate",
        parameter: "WorkItem",
        passive: true,
    };
    deferred::create(&by, |evt, serial| {
        Data::WorkItem(WorkItem {
            evt,
            serial,
            enqueued: false,
            running: Vec::new(),
            running_down: false,
        })
    })
}

fn item(k: &mut Kernel, handle: Handle) -> &mut WorkItem {
    object::work_item(k, handle, "the framework")
}

/// `WdfWorkItemEnqueue`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn enqueue(_: Globals, handle: Handle) {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, "WdfWorkItemEnqueue");
        let item = object::work_item(k, handle, "WdfWorkItemEnqueue");
        if item.enqueued {
            return;
        }
        if item.running_down {
            let name = k
                .name_of(handle as usize)
                .unwrap_or("the work item")
                .to_owned();
            super::verifier_break(
                k,
                &kmdf::WORK_ITEM_DELETED,
                format!("WdfWorkItemEnqueue was called on {name} while it is being deleted"),
            );
        }
        item.enqueued = true;
        object::reference(k, handle);
        crate::ex::queue_work(k, Box::new(move || run(handle)));
    });
}

/// Calls the driver's callback on a worker thread.
fn run(handle: Handle) {
    let (evt, serial) = kernel(|k| {
        let me = k.running();
        let item = item(k, handle);
        item.enqueued = false;
        item.running.push(me);
        (item.evt, item.serial)
    });
    lock::with(serial, || {
        callback::<()>("EvtWorkItem", evt, &[param("WorkItem", &handle)]);
    });
    kernel(|k| {
        let me = k.running();
        item(k, handle).running.retain(|context| *context != me);
        super::wake(k);
    });
    object::release(handle);
}

/// `WdfWorkItemFlush`: returns when the work item is idle. Needs
/// `PASSIVE_LEVEL`; never from the work item's own callback.
pub(crate) fn flush(_: Globals, handle: Handle) {
    let function = "WdfWorkItemFlush";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        let me = k.running();
        if object::work_item(k, handle, function).running.contains(&me) {
            let name = k
                .name_of(handle as usize)
                .unwrap_or("the work item")
                .to_owned();
            super::verifier_break(
                k,
                &kmdf::WORK_ITEM_FLUSHES_ITSELF,
                format!(
                    "{function} was called on {name} by its own callback, for whose end it would wait"
                ),
            );
        }
    });
    super::wait_until(|k| item(k, handle).is_idle());
}

/// Part of the work item's deletion. Its own callback may delete it.
pub(crate) fn dispose(handle: Handle) {
    let mine = kernel(|k| {
        let me = k.running();
        let item = item(k, handle);
        item.running_down = true;
        item.running.contains(&me)
    });
    if !mine {
        super::wait_until(|k| item(k, handle).is_idle());
    }
}

/// `WdfWorkItemGetParentObject`.
pub(crate) fn get_parent_object(_: Globals, handle: Handle) -> Handle {
    kernel(|k| {
        object::work_item(k, handle, "WdfWorkItemGetParentObject");
        deferred::parent(k, handle)
    })
}
