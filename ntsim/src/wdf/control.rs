// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control devices: devices without hardware, PnP and power.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects>
//!
//! ```text
//!   WdfControlDeviceInitAllocate ── WdfDeviceInitFree ──► (gone)
//!        │
//!        │ WdfDeviceCreate        WdfControlFinishInitializing
//!        ▼                                  │
//!   initializing: cannot be opened ─────────┴──► open to users
//!                                                  │ WdfObjectDelete
//!                                                  ▼
//!                     deleted: the name is gone; the object follows when
//!                     the last file is closed
//! ```
//!
//! A driver with PnP devices has to delete its control devices itself: it cannot
//! be unloaded before. Those of a driver without are deleted by the framework
//! after `EvtDriverUnload`.

use crate::abi::{callback, param};
use crate::access::{UnicodeString, peek_unicode};
use crate::kernel::Kernel;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::device::{self, InitHandle};
use super::object::{self, Data, Handle};
use super::{Globals, required};

/// What the framework keeps of a control device besides what all devices have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// `WdfControlFinishInitializing` was called.
    pub(crate) finished: bool,
    /// `WdfObjectDelete` was called.
    pub(crate) deleted: bool,
    /// `EvtDeviceShutdownNotification`, and when it is called.
    shutdown: Shutdown,
}

/// What `WdfControlDeviceInitSetShutdownNotification` said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shutdown {
    evt: usize,
    flags: u8,
}

impl Control {
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            ..Self::default()
        }
    }
}

/// `WdfDeviceShutdown`: before the file systems are flushed.
pub(crate) const SHUTDOWN: u8 = 1;
/// `WdfDeviceLastChanceShutdown`: after that.
pub(crate) const LAST_CHANCE_SHUTDOWN: u8 = 2;

/// `WdfControlDeviceInitAllocate`. Needs `PASSIVE_LEVEL`. NULL if there is no memory.
///
/// What the text says is looked at by `WdfDeviceCreate`.
pub(crate) fn init_allocate(_: Globals, driver: Handle, sddl: *const UnicodeString) -> InitHandle {
    let function = "WdfControlDeviceInitAllocate";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::driver(k, driver, function);
    });
    required(sddl, function, "SDDLString");
    let sddl = String::from_utf16_lossy(&peek_unicode(sddl));
    kernel(|k| {
        if crate::inject::fails(k, "WDFDEVICE_INIT") {
            return std::ptr::null_mut();
        }
        let slot = *object::driver(k, driver, function);
        device::new_control_init(k, slot, sddl)
    })
}

/// `WdfControlDeviceInitSetShutdownNotification`. Needs `PASSIVE_LEVEL`.
pub(crate) fn init_set_shutdown_notification(
    _: Globals,
    init: InitHandle,
    evt: crate::access::Addr,
    flags: u8,
) {
    let function = "WdfControlDeviceInitSetShutdownNotification";
    required(evt.0 as *const u8, function, "Notification");
    kernel(|k| {
        if flags == 0 || flags & !(SHUTDOWN | LAST_CHANCE_SHUTDOWN) != 0 {
            let message = format!(
                "{function} was given Flags {flags:#x}; they are WdfDeviceShutdown (1), WdfDeviceLastChanceShutdown (2) or both"
            );
            super::verifier_break(k, &kmdf::ENUMERATION, message);
        }
        device::control_init(k, init, function).shutdown = Shutdown { evt: evt.0, flags };
    });
}

/// `WdfControlFinishInitializing`: users can open the device from now on.
/// Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn finish_initializing(_: Globals, handle: Handle) {
    let function = "WdfControlFinishInitializing";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        if let Some(control) = &mut object::device(k, handle, function).io.control {
            control.finished = true;
            return;
        }
        let name = k
            .name_of(handle as usize)
            .unwrap_or("the device")
            .to_owned();
        super::verifier_break(
            k,
            &kmdf::CONTROL_DEVICE,
            format!("{function} was given {name}, which is no control device"),
        );
    });
}

/// Whether this is a control device that the driver may delete.
pub(crate) fn is_control(k: &Kernel, handle: Handle) -> bool {
    control(k, handle).is_some()
}

fn control(k: &Kernel, handle: Handle) -> Option<Control> {
    match &k.wdf.objects.get(&handle)?.data {
        Data::Device(device) => device.io.control,
        _ => None,
    }
}

/// `WdfObjectDelete` for a control device. Needs `PASSIVE_LEVEL`. With files open
/// the object stays until the last is closed.
pub(crate) fn delete(handle: Handle) {
    let closed = kernel(|k| {
        crate::ke::irql::passive(k, "WdfObjectDelete for a control device");
        if let Some(control) = &mut object::device(k, handle, "WdfObjectDelete").io.control {
            control.deleted = true;
        }
        k.io.irps.open_files(handle) == 0
    });
    if closed {
        object::delete(handle);
    }
}

/// A file of the device was closed: deletes it if it waited for that.
pub(crate) fn file_closed(handle: Handle) {
    let due = kernel(|k| {
        control(k, handle).is_some_and(|control| control.deleted)
            && k.io.irps.open_files(handle) == 0
    });
    if due {
        object::delete(handle);
        kernel(super::wake);
    }
}

/// The control devices of the driver in place `slot`, and whether each waits only
/// for its files to be closed.
pub(crate) fn of_driver(k: &Kernel, slot: usize) -> Vec<(Handle, bool)> {
    k.wdf
        .objects
        .values()
        .filter(|object| object.driver == slot)
        .filter_map(|object| Some((object.handle, control(k, object.handle)?.deleted)))
        .collect()
}

/// Calls `EvtDeviceShutdownNotification` of the control devices that asked for
/// this moment, the last one first:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nc-wdfcontrol-evt_wdf_device_shutdown_notification>
pub(crate) fn notify_shutdown(moment: u8) {
    let told: Vec<_> = kernel(|k| {
        let handles: Vec<_> = k.wdf.objects.keys().rev().copied().collect();
        handles
            .into_iter()
            .filter_map(|handle| {
                let shutdown = control(k, handle)?.shutdown;
                (shutdown.flags & moment != 0).then_some((handle, shutdown.evt))
            })
            .collect()
    });
    for (handle, evt) in told {
        callback::<()>(
            "EvtDeviceShutdownNotification",
            evt,
            &[param("Device", &handle)],
        );
    }
}
