// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lock of the ring is a spin lock, and a writer who finds the ring full waits
//! for room with the lock held.
//!
//! ntsim: `KeWaitForSingleObject` at `DISPATCH_LEVEL` without a time-out.

use ntsim_sys::ntddk::{
    KeAcquireSpinLockRaiseToDpc, KeInitializeEvent, KeReleaseSpinLock, KeSetEvent,
};
use ntsim_sys::*;

use super::*;

const ROOM: u32 = 2;

struct Context {
    lock: KSPIN_LOCK,
    room: KEVENT,
    used: u32,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"RING");

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
        let mut attributes = CONTEXT.attributes();
        // Handlers wait.
        attributes.ExecutionLevel = 2;
        let device = create_device(init, attributes)?;
        let context = CONTEXT.of::<Context>(device.cast());
        unsafe { KeInitializeEvent(&raw mut (*context).room, 1, 0) };
        create_queue(device, PARALLEL, Some(on_control::<FIXED>), NO)?;
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
    let status = if code == control(0) {
        put::<FIXED>(context);
        0
    } else {
        take(context)
    };
    complete(request, status);
}

#[allow(
    clippy::while_immutable_condition,
    reason = "other threads change it while the lock is released"
)]
fn put<const FIXED: bool>(context: *mut Context) {
    let (lock, room) = unsafe { (&raw mut (*context).lock, &raw mut (*context).room) };
    let mut irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    while unsafe { (*context).used } == ROOM {
        if FIXED {
            unsafe { KeReleaseSpinLock(lock, irql) };
            wait(room.cast());
            irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
        } else {
            wait(room.cast());
        }
    }
    unsafe { (*context).used += 1 };
    unsafe { KeReleaseSpinLock(lock, irql) };
}

fn take(context: *mut Context) -> NTSTATUS {
    let (lock, room) = unsafe { (&raw mut (*context).lock, &raw mut (*context).room) };
    let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    let was_empty = unsafe { (*context).used } == 0;
    if !was_empty {
        unsafe { (*context).used -= 1 };
        unsafe { KeSetEvent(room, 0, 0) };
    }
    unsafe { KeReleaseSpinLock(lock, irql) };
    if was_empty { STATUS_UNSUCCESSFUL } else { 0 }
}
