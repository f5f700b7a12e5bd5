// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFWORKITEM`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-framework-work-items>
//!
//! A work item that is queued is not queued twice. It counts as queued until a
//! worker thread takes it up, so its callback may queue it again, and then two
//! callbacks of one work item can run at once. Flush and deletion wait until
//! none is queued or runs.

use crate::abi::{callback, param};
use crate::access::{peek, poke};
use crate::kernel::{ContextId, Kernel};
use crate::trap::kernel;

use super::lock::{self, Serial};
use super::object::{self, Allow, Data, Handle};
use super::raw::{CallbackConfig, ObjectAttributes};
use super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER,
    required,
};

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

/// `WdfWorkItemCreate`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER` (no callback),
/// `STATUS_WDF_PARENT_NOT_SPECIFIED`, `STATUS_INVALID_DEVICE_REQUEST` (no device
/// above it), `STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL`.
pub(crate) fn create(
    g: Globals,
    config: *const CallbackConfig,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfWorkItemCreate";
    kernel(|k| crate::ke::irql::at_most_dispatch(k, function));
    required(out, function, "WorkItem");
    required(config, function, "Config");
    poke(out, std::ptr::null_mut());
    let config = peek(config);
    if config.size as usize != size_of::<CallbackConfig>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    let created = object::attributes(from, Allow::ParentRequired, false).and_then(|attributes| {
        if config.evt == 0 {
            return Err(STATUS_INVALID_PARAMETER);
        }
        kernel(|k| {
            let (slot, parent) = object::parent_or_driver(k, g, &attributes, function);
            if object::device_of(k, parent).is_none() {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            let serial = lock::effective(k, parent, config.automatic_serialization != 0, true)?;
            let item = WorkItem {
                evt: config.evt,
                serial,
                enqueued: false,
                running: Vec::new(),
                running_down: false,
            };
            object::create(k, slot, Some(parent), &attributes, Data::WorkItem(item))
        })
    });
    object::give(out, created)
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
        object::get(k, handle)
            .parent
            .unwrap_or(std::ptr::null_mut())
    })
}
