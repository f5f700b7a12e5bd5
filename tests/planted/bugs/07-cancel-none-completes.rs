// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whoever answers a waiting request takes it and, if its cancellation has begun,
//! leaves it to the cancel routine. That completes it if it is still to be taken:
//! if not, nobody does.
//!
//! ntsim: deadlock; the program waits for its request.

use ntsim_sys::ntddk::{KeAcquireSpinLockRaiseToDpc, KeReleaseSpinLock};
use ntsim_sys::*;

use super::*;

struct Context {
    lock: KSPIN_LOCK,
    waiting: WDFREQUEST,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"CANCEL_NONE");

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
        let device = create_device(init, CONTEXT.attributes())?;
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
    if code == control(0) {
        keep(context, request, on_cancel::<FIXED>);
    } else {
        answer(context);
        complete(request, 0);
    }
}

/// Has a request wait, cancelable.
fn keep(
    context: *mut Context,
    request: WDFREQUEST,
    cancel: unsafe extern "C-unwind" fn(WDFREQUEST),
) {
    let lock = unsafe { &raw mut (*context).lock };
    let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    let status = mark_cancelable(request, cancel);
    if status >= 0 {
        unsafe { (*context).waiting = request };
    }
    unsafe { KeReleaseSpinLock(lock, irql) };
    if status < 0 {
        complete(request, status);
    }
}

fn answer(context: *mut Context) {
    let lock = unsafe { &raw mut (*context).lock };
    let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    let request = unsafe { std::mem::replace(&mut (*context).waiting, null_mut()) };
    let is_ours = !request.is_null() && unmark_cancelable(request) != STATUS_CANCELLED;
    unsafe { KeReleaseSpinLock(lock, irql) };
    if is_ours {
        complete(request, 0);
    }
}

unsafe extern "C-unwind" fn on_cancel<const FIXED: bool>(request: WDFREQUEST) {
    let context = CONTEXT.of::<Context>(device_of(queue_of(request)).cast());
    let lock = unsafe { &raw mut (*context).lock };
    let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    let was_waiting = unsafe { (*context).waiting } == request;
    if was_waiting {
        unsafe { (*context).waiting = null_mut() };
    }
    unsafe { KeReleaseSpinLock(lock, irql) };
    if was_waiting || FIXED {
        complete(request, STATUS_CANCELLED);
    }
}
