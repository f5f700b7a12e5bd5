// SPDX-License-Identifier: MIT OR Apache-2.0

//! The drivers in Rust, and what those on the raw interface have in common.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks these"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]
#![allow(
    clippy::wildcard_imports,
    reason = "as with the headers of a driver in C"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of structures and of short strings"
)]

use std::ffi::c_void;
use std::ptr::null_mut;

use ntsim_sys::ntddk::{
    KeQueryInterruptTimePrecise, KeWaitForSingleObject, ObReferenceObjectByHandle,
    ObfDereferenceObject, PsCreateSystemThread, ZwClose,
};
use ntsim_sys::*;

pub use crate::raw::{attributes, sized};

#[path = "../bugs/26-aba-free-list.rs"]
pub mod aba_free_list;
#[path = "../bugs/06-cancel-both-complete.rs"]
pub mod cancel_both_complete;
#[path = "../bugs/07-cancel-none-completes.rs"]
pub mod cancel_none_completes;
#[path = "../bugs/25-check-then-act.rs"]
pub mod check_then_act;
#[path = "../bugs/17-d0exit-race.rs"]
pub mod d0exit_race;
#[path = "../bugs/12-dpc-uses-freed-session.rs"]
pub mod dpc_uses_freed_session;
#[path = "../bugs/36-half-written-settings.rs"]
pub mod half_written_settings;
#[path = "../bugs/03-lost-wakeup.rs"]
pub mod lost_wakeup;
#[path = "../bugs/20-object-reference-leak.rs"]
pub mod object_reference_leak;
#[path = "../bugs/35-recursive-wait-lock.rs"]
pub mod recursive_wait_lock;
#[path = "../bugs/30-reference-dropped-early.rs"]
pub mod reference_dropped_early;
#[path = "../bugs/14-spin-lock-across-wait.rs"]
pub mod spin_lock_across_wait;
#[path = "../bugs/37-timer-after-d0exit.rs"]
pub mod timer_after_d0exit;
#[path = "../bugs/10-timer-restarts-itself.rs"]
pub mod timer_restarts_itself;
#[path = "../bugs/39-wait-lock-order.rs"]
pub mod wait_lock_order;

pub const TAG: u32 = u32::from_le_bytes(*b"Plnt");
/// `POOL_FLAG_NON_PAGED`.
pub const NON_PAGED: u64 = 0x40;

/// `DriverEntry`'s body.
pub fn create_driver(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
    device_add: PFN_WDF_DRIVER_DEVICE_ADD,
    unload: PFN_WDF_DRIVER_UNLOAD,
) -> NTSTATUS {
    let mut config = WDF_DRIVER_CONFIG {
        EvtDriverDeviceAdd: device_add,
        EvtDriverUnload: unload,
        ..sized()
    };
    wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        object, path, null_mut(), &raw mut config, null_mut()))
}

/// The type of the context `T`, which its users share.
pub struct ContextType(WDF_OBJECT_CONTEXT_TYPE_INFO);

// SAFETY: nobody writes it.
unsafe impl Sync for ContextType {}

impl ContextType {
    pub const fn new<T>(name: &'static std::ffi::CStr) -> Self {
        Self(WDF_OBJECT_CONTEXT_TYPE_INFO {
            Size: size_of::<WDF_OBJECT_CONTEXT_TYPE_INFO>() as u32,
            ContextName: name.as_ptr().cast_mut(),
            ContextSize: size_of::<T>(),
            UniqueType: std::ptr::null(),
            EvtDriverGetUniqueContextType: None,
        })
    }

    /// `WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE`.
    pub fn attributes(&'static self) -> WDF_OBJECT_ATTRIBUTES {
        WDF_OBJECT_ATTRIBUTES {
            ContextTypeInfo: &raw const self.0,
            ..attributes()
        }
    }

    pub fn of<T>(&'static self, object: WDFOBJECT) -> *mut T {
        wdf!(WdfObjectGetTypedContextWorker: WdfObjectGetTypedContextWorkerTableIndex
            as PFN_WDFOBJECTGETTYPEDCONTEXTWORKER(object, &raw const self.0))
        .cast()
    }
}

/// Makes the device.
pub fn create_device(
    mut init: PWDFDEVICE_INIT,
    mut attributes: WDF_OBJECT_ATTRIBUTES,
) -> Result<WDFDEVICE, NTSTATUS> {
    let mut device = null_mut();
    let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
        as PFN_WDFDEVICECREATE(&raw mut init, &raw mut attributes, &raw mut device));
    check(status)?;
    Ok(device)
}

/// Registers PnP and power callbacks.
pub fn set_callbacks(init: PWDFDEVICE_INIT, mut callbacks: WDF_PNPPOWER_EVENT_CALLBACKS) {
    wdf!(WdfDeviceInitSetPnpPowerEventCallbacks: WdfDeviceInitSetPnpPowerEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS(init, &raw mut callbacks));
}

/// `WdfIoQueueDispatchSequential` and so on.
pub const SEQUENTIAL: i32 = 1;
pub const PARALLEL: i32 = 2;
pub const MANUAL: i32 = 3;
/// `WDF_TRI_STATE`.
pub const NO: i32 = 0;

/// Makes a queue: with a handler of control codes, the default one.
pub fn create_queue(
    device: WDFDEVICE,
    dispatch: i32,
    control: PFN_WDF_IO_QUEUE_IO_DEVICE_CONTROL,
    power_managed: i32,
) -> Result<WDFQUEUE, NTSTATUS> {
    let mut config: WDF_IO_QUEUE_CONFIG = sized();
    config.DispatchType = dispatch;
    config.PowerManaged = power_managed;
    config.DefaultQueue = u8::from(control.is_some());
    config.EvtIoDeviceControl = control;
    if dispatch == PARALLEL {
        config.Settings.Parallel.NumberOfPresentedRequests = u32::MAX;
    }
    let mut queue = null_mut();
    let status = wdf!(WdfIoQueueCreate: WdfIoQueueCreateTableIndex
        as PFN_WDFIOQUEUECREATE(device, &raw mut config, null_mut(), &raw mut queue));
    check(status)?;
    Ok(queue)
}

pub fn device_of(queue: WDFQUEUE) -> WDFDEVICE {
    wdf!(WdfIoQueueGetDevice: WdfIoQueueGetDeviceTableIndex as PFN_WDFIOQUEUEGETDEVICE(queue))
}

pub fn complete(request: WDFREQUEST, status: NTSTATUS) {
    wdf!(WdfRequestComplete: WdfRequestCompleteTableIndex
        as PFN_WDFREQUESTCOMPLETE(request, status));
}

pub fn forward(request: WDFREQUEST, queue: WDFQUEUE) -> NTSTATUS {
    wdf!(WdfRequestForwardToIoQueue: WdfRequestForwardToIoQueueTableIndex
        as PFN_WDFREQUESTFORWARDTOIOQUEUE(request, queue))
}

/// The queue's next request; NULL if there is none.
pub fn next(queue: WDFQUEUE) -> WDFREQUEST {
    let mut request = null_mut();
    let _ = wdf!(WdfIoQueueRetrieveNextRequest: WdfIoQueueRetrieveNextRequestTableIndex
        as PFN_WDFIOQUEUERETRIEVENEXTREQUEST(queue, &raw mut request));
    request
}

/// `NT_SUCCESS`.
pub fn check(status: NTSTATUS) -> Result<(), NTSTATUS> {
    if status < 0 { Err(status) } else { Ok(()) }
}

/// The other way round.
pub fn status(result: Result<(), NTSTATUS>) -> NTSTATUS {
    result.err().unwrap_or(0)
}

/// Starts a system thread; gives a reference on it.
pub fn spawn(routine: PKSTART_ROUTINE, context: *mut c_void) -> Result<*mut c_void, NTSTATUS> {
    let (mut handle, mut thread) = (null_mut(), null_mut());
    check(unsafe {
        PsCreateSystemThread(
            &raw mut handle,
            0x001F_FFFF,
            null_mut(),
            null_mut(),
            null_mut(),
            routine,
            context,
        )
    })?;
    let status = unsafe {
        ObReferenceObjectByHandle(
            handle,
            0x0010_0000,
            null_mut(),
            0,
            &raw mut thread,
            null_mut(),
        )
    };
    let _ = unsafe { ZwClose(handle) };
    check(status)?;
    Ok(thread)
}

/// Waits for the end of a thread, and gives the reference back.
pub fn join(thread: *mut c_void) {
    wait(thread);
    unsafe { ObfDereferenceObject(thread) };
}

/// Waits for as long as it takes.
pub fn wait(object: *mut c_void) {
    let _ = unsafe { KeWaitForSingleObject(object, 0, 0, 0, null_mut()) };
}

/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + n, METHOD_BUFFERED, FILE_ANY_ACCESS)`.
pub const fn control(n: u32) -> u32 {
    0x22 << 16 | (0x800 + n) << 2
}

pub fn mark_cancelable(
    request: WDFREQUEST,
    cancel: unsafe extern "C-unwind" fn(WDFREQUEST),
) -> NTSTATUS {
    wdf!(WdfRequestMarkCancelableEx: WdfRequestMarkCancelableExTableIndex
        as PFN_WDFREQUESTMARKCANCELABLEEX(request, Some(cancel)))
}

/// The queue that a request came from.
pub fn queue_of(request: WDFREQUEST) -> WDFQUEUE {
    wdf!(WdfRequestGetIoQueue: WdfRequestGetIoQueueTableIndex
        as PFN_WDFREQUESTGETIOQUEUE(request))
}

pub fn unmark_cancelable(request: WDFREQUEST) -> NTSTATUS {
    wdf!(WdfRequestUnmarkCancelable: WdfRequestUnmarkCancelableTableIndex
        as PFN_WDFREQUESTUNMARKCANCELABLE(request))
}

/// Makes a timer below the device, periodic if `period` is not 0.
pub fn create_timer(
    device: WDFDEVICE,
    callback: unsafe extern "C-unwind" fn(WDFTIMER),
    period: u32,
) -> Result<WDFTIMER, NTSTATUS> {
    let mut config = WDF_TIMER_CONFIG {
        EvtTimerFunc: Some(callback),
        Period: period,
        AutomaticSerialization: 1,
        ..sized()
    };
    let mut attributes = crate::raw::below(device.cast());
    let mut timer = null_mut();
    check(wdf!(WdfTimerCreate: WdfTimerCreateTableIndex
        as PFN_WDFTIMERCREATE(&raw mut config, &raw mut attributes, &raw mut timer)))?;
    Ok(timer)
}

pub fn start_timer(timer: WDFTIMER, milliseconds: i64) {
    wdf!(WdfTimerStart: WdfTimerStartTableIndex
        as PFN_WDFTIMERSTART(timer, -milliseconds * 10_000));
}

pub fn stop_timer(timer: WDFTIMER, wait: bool) {
    wdf!(WdfTimerStop: WdfTimerStopTableIndex as PFN_WDFTIMERSTOP(timer, u8::from(wait)));
}

/// The time, in 100 ns units.
pub fn now() -> u64 {
    let mut counter = 0;
    unsafe { KeQueryInterruptTimePrecise(&raw mut counter) }
}
