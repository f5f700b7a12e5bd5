// SPDX-License-Identifier: MIT OR Apache-2.0

//! A one-shot timer's DPC sets the timer again. Stopping cancels the timer and
//! waits for the DPC, which meanwhile may have set it again.
//!
//! ntsim: 0xC7; memory is freed that holds the timer, which is set.

use std::sync::atomic::{AtomicBool, Ordering};

use ntsim_sys::ntddk::{
    KeCancelTimer, KeFlushQueuedDpcs, KeInitializeDpc, KeInitializeTimer, KeSetTimer,
};
use ntsim_sys::*;

use super::*;

struct Context {
    timer: KTIMER,
    dpc: KDPC,
    stopping: AtomicBool,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"TIMER_RESTARTS");

pub unsafe extern "C-unwind" fn entry<const FIXED: bool>(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    create_driver(object, path, Some(device_add::<FIXED>), None)
}

unsafe extern "C-unwind" fn device_add<const FIXED: bool>(
    _: WDFDRIVER,
    init: PWDFDEVICE_INIT,
) -> NTSTATUS {
    status((|| {
        set_callbacks(
            init,
            WDF_PNPPOWER_EVENT_CALLBACKS {
                EvtDeviceSelfManagedIoInit: Some(start),
                EvtDeviceSelfManagedIoCleanup: Some(stop::<FIXED>),
                ..sized()
            },
        );
        let device = create_device(init, CONTEXT.attributes())?;
        let context = CONTEXT.of::<Context>(device.cast());
        unsafe { KeInitializeTimer(&raw mut (*context).timer) };
        unsafe {
            KeInitializeDpc(
                &raw mut (*context).dpc,
                Some(on_timer::<FIXED>),
                context.cast(),
            );
        }
        Ok(())
    })())
}

fn set(context: *mut Context) {
    let due = LARGE_INTEGER {
        QuadPart: -10 * 10_000,
    };
    unsafe { KeSetTimer(&raw mut (*context).timer, due, &raw mut (*context).dpc) };
}

unsafe extern "C-unwind" fn start(device: WDFDEVICE) -> NTSTATUS {
    set(CONTEXT.of::<Context>(device.cast()));
    0
}

unsafe extern "C-unwind" fn on_timer<const FIXED: bool>(
    _: PKDPC,
    context: PVOID,
    _: PVOID,
    _: PVOID,
) {
    let context = context.cast::<Context>();
    let _ = now();
    if FIXED && unsafe { (*context).stopping.load(Ordering::Acquire) } {
        return;
    }
    set(context);
}

unsafe extern "C-unwind" fn stop<const FIXED: bool>(device: WDFDEVICE) {
    let context = CONTEXT.of::<Context>(device.cast());
    unsafe { (*context).stopping.store(true, Ordering::Release) };
    unsafe { KeCancelTimer(&raw mut (*context).timer) };
    unsafe { KeFlushQueuedDpcs() };
    if FIXED {
        // What the DPC set before it could see the flag.
        unsafe { KeCancelTimer(&raw mut (*context).timer) };
        unsafe { KeFlushQueuedDpcs() };
    }
}
