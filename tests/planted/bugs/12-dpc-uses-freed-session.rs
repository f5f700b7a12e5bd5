// SPDX-License-Identifier: MIT OR Apache-2.0

//! A DPC works on a session. Ending the session frees it, without a look whether
//! the DPC is queued or runs.
//!
//! ntsim: 0xD1; the driver reads or writes a freed block at `DISPATCH_LEVEL`, in `on_dpc`.

use std::sync::atomic::{AtomicPtr, Ordering};

use ntsim_sys::ntddk::{
    ExAllocatePool2, ExFreePoolWithTag, KeFlushQueuedDpcs, KeInitializeDpc, KeInsertQueueDpc,
};
use ntsim_sys::*;

use super::*;

struct Session {
    turns: u64,
}

struct Context {
    dpc: KDPC,
    session: AtomicPtr<Session>,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"DPC_SESSION");

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
                EvtDeviceSelfManagedIoCleanup: Some(cleanup),
                ..sized()
            },
        );
        let device = create_device(init, CONTEXT.attributes())?;
        // Waiting for DPCs needs PASSIVE_LEVEL, where the handlers are called here.
        create_queue(device, SEQUENTIAL, Some(on_control::<FIXED>), NO)?;
        Ok(())
    })())
}

unsafe extern "C-unwind" fn on_control<const FIXED: bool>(
    queue: WDFQUEUE,
    request: WDFREQUEST,
    _: usize,
    _: usize,
    code: u32,
) {
    let context = CONTEXT.of::<Context>(device_of(queue).cast());
    if code == control(0) {
        begin(context);
    } else {
        end::<FIXED>(context);
    }
    complete(request, 0);
}

fn begin(context: *mut Context) {
    let session = unsafe { ExAllocatePool2(NON_PAGED, size_of::<Session>() as u64, TAG) };
    let session = session.cast::<Session>();
    let old = unsafe { (*context).session.swap(session, Ordering::AcqRel) };
    if !old.is_null() {
        unsafe { KeFlushQueuedDpcs() };
        unsafe { ExFreePoolWithTag(old.cast(), TAG) };
    }
    if !session.is_null() {
        unsafe {
            KeInitializeDpc(&raw mut (*context).dpc, Some(on_dpc), session.cast());
            KeInsertQueueDpc(&raw mut (*context).dpc, null_mut(), null_mut());
        }
    }
}

fn end<const FIXED: bool>(context: *mut Context) {
    let session = unsafe { (*context).session.swap(null_mut(), Ordering::AcqRel) };
    if session.is_null() {
        return;
    }
    if FIXED {
        unsafe { KeFlushQueuedDpcs() };
    }
    unsafe { ExFreePoolWithTag(session.cast(), TAG) };
}

unsafe extern "C-unwind" fn on_dpc(_: PKDPC, session: PVOID, _: PVOID, _: PVOID) {
    let now = now();
    let session = session.cast::<Session>();
    unsafe { (*session).turns = (*session).turns.wrapping_add(now) };
}

unsafe extern "C-unwind" fn cleanup(device: WDFDEVICE) {
    end::<true>(CONTEXT.of::<Context>(device.cast()));
}
