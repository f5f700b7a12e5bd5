// SPDX-License-Identifier: MIT OR Apache-2.0

//! The worker looks for requests, finds none, clears the event and waits. What
//! was set between the look and the clearing is lost: its request stays.
//!
//! ntsim: deadlock; the worker thread waits for the event without a time-out.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use ntsim_sys::ntddk::{KeClearEvent, KeInitializeEvent, KeSetEvent};
use ntsim_sys::*;

use super::*;

struct Context {
    work: KEVENT,
    stop: AtomicBool,
    requests: WDFQUEUE,
    worker: *mut c_void,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"LOST_WAKEUP");

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
                EvtDeviceSelfManagedIoInit: Some(start_worker::<FIXED>),
                EvtDeviceSelfManagedIoCleanup: Some(stop_worker),
                ..sized()
            },
        );
        let device = create_device(init, CONTEXT.attributes())?;
        let context = CONTEXT.of::<Context>(device.cast());
        unsafe { KeInitializeEvent(&raw mut (*context).work, 0, 0) };
        let requests = create_queue(device, MANUAL, None, NO)?;
        unsafe { (*context).requests = requests };
        create_queue(device, PARALLEL, Some(on_control), NO)?;
        Ok(())
    })())
}

unsafe extern "C-unwind" fn start_worker<const FIXED: bool>(device: WDFDEVICE) -> NTSTATUS {
    let context = CONTEXT.of::<Context>(device.cast());
    match spawn(Some(worker::<FIXED>), context.cast()) {
        Ok(thread) => {
            unsafe { (*context).worker = thread };
            0
        }
        Err(status) => status,
    }
}

unsafe extern "C-unwind" fn stop_worker(device: WDFDEVICE) {
    let context = CONTEXT.of::<Context>(device.cast());
    let worker = unsafe { (*context).worker };
    if !worker.is_null() {
        unsafe { (*context).stop.store(true, Ordering::Release) };
        unsafe { KeSetEvent(&raw mut (*context).work, 0, 0) };
        join(worker);
    }
}

unsafe extern "C-unwind" fn on_control(
    queue: WDFQUEUE,
    request: WDFREQUEST,
    _: usize,
    _: usize,
    _: u32,
) {
    let context = CONTEXT.of::<Context>(device_of(queue).cast());
    let status = forward(request, unsafe { (*context).requests });
    if status < 0 {
        complete(request, status);
    }
    unsafe { KeSetEvent(&raw mut (*context).work, 0, 0) };
}

unsafe extern "C-unwind" fn worker<const FIXED: bool>(context: *mut c_void) {
    let context = context.cast::<Context>();
    let (work, requests) = unsafe { (&raw mut (*context).work, (*context).requests) };
    while !unsafe { (*context).stop.load(Ordering::Acquire) } {
        if FIXED {
            unsafe { KeClearEvent(work) };
        }
        let mut request = next(requests);
        while !request.is_null() {
            complete(request, 0);
            request = next(requests);
        }
        if !FIXED {
            unsafe { KeClearEvent(work) };
        }
        if unsafe { (*context).stop.load(Ordering::Acquire) } {
            break;
        }
        wait(work.cast());
    }
}
