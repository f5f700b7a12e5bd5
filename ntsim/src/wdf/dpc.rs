// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFDPC`: <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/>

use crate::abi::{callback, param};
use crate::kernel::{self, Kernel};
use crate::trap::kernel;

use super::Globals;
use super::deferred::{self, Creation};
use super::lock::{self, Serial};
use super::object::{self, Data, Handle};
use super::raw::{CallbackConfig, ObjectAttributes};

/// What the framework keeps of a DPC.
pub(crate) struct Dpc {
    evt: usize,
    serial: Serial,
    /// It is in the queue, or was taken from it and is about to run.
    queued: bool,
    /// How many of its callbacks run; on different processors it can be several.
    running: u32,
}

impl Dpc {
    fn is_idle(&self) -> bool {
        !self.queued && self.running == 0
    }
}

/// `WdfDpcCreate`: see [`deferred::create`].
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
        function: "WdfDpcCreate",
        parameter: "Dpc",
        passive: false,
    };
    deferred::create(&by, |evt, serial| {
        Data::Dpc(Dpc {
            evt,
            serial,
            queued: false,
            running: 0,
        })
    })
}

fn take_back(k: &mut Kernel, handle: Handle) -> bool {
    let removed = k.remove_dpc(handle as usize);
    if removed {
        dpc(k, handle).queued = false;
    }
    removed
}

fn dpc(k: &mut Kernel, handle: Handle) -> &mut Dpc {
    object::dpc(k, handle, "the framework")
}

/// `WdfDpcEnqueue`. Callable at any IRQL. Returns whether it was not in the queue.
pub(crate) fn enqueue(_: Globals, handle: Handle) -> u8 {
    kernel(|k| {
        object::dpc(k, handle, "WdfDpcEnqueue");
        let name = k.name_of(handle as usize).unwrap_or("WDFDPC").to_owned();
        let queued = k.queue_dpc(kernel::Dpc {
            routine: 0,
            key: handle as usize,
            name,
            run: Box::new(move || run(handle)),
        });
        dpc(k, handle).queued |= queued;
        u8::from(queued)
    })
}

fn run(handle: Handle) {
    let (evt, serial) = kernel(|k| {
        object::reference(k, handle);
        let dpc = dpc(k, handle);
        dpc.queued = false;
        dpc.running += 1;
        (dpc.evt, dpc.serial)
    });
    lock::with(serial, || {
        callback::<()>("EvtDpcFunc", evt, &[param("Dpc", &handle)]);
    });
    kernel(|k| {
        dpc(k, handle).running -= 1;
        super::wake(k);
    });
    object::release(handle);
}

/// `WdfDpcCancel`. Callable at `<= DISPATCH_LEVEL`, with Wait at
/// `PASSIVE_LEVEL`. Returns whether it was in the queue.
pub(crate) fn cancel(_: Globals, handle: Handle, wait: u8) -> u8 {
    let function = "WdfDpcCancel";
    let cancelled = kernel(|k| {
        if wait == 0 {
            crate::ke::irql::at_most_dispatch(k, function);
        } else {
            crate::ke::irql::passive(k, "WdfDpcCancel with Wait");
        }
        object::dpc(k, handle, function);
        take_back(k, handle)
    });
    if wait != 0 {
        super::wait_until(|k| dpc(k, handle).is_idle());
    }
    u8::from(cancelled)
}

/// Part of the DPC's deletion.
pub(crate) fn dispose(handle: Handle) {
    kernel(|k| take_back(k, handle));
    super::wait_until(|k| dpc(k, handle).is_idle());
}

/// `WdfDpcGetParentObject`.
pub(crate) fn get_parent_object(_: Globals, handle: Handle) -> Handle {
    kernel(|k| {
        object::dpc(k, handle, "WdfDpcGetParentObject");
        deferred::parent(k, handle)
    })
}
