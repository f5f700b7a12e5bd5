// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request that waits is cancelable. Whoever answers it makes it uncancelable
//! first, but does not look whether its cancellation had begun: both complete it.
//!
//! ntsim: 0x10D; `WdfRequestComplete` of a request that is completed or gone.

use ntsim_sys::ntddk::{KeAcquireSpinLockRaiseToDpc, KeReleaseSpinLock};
use ntsim_sys::*;

use super::*;

struct Context {
    lock: KSPIN_LOCK,
    waiting: WDFREQUEST,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"CANCEL_BOTH");

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
        keep(context, request, on_cancel);
    } else {
        answer::<FIXED>(context);
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

fn answer<const FIXED: bool>(context: *mut Context) {
    let lock = unsafe { &raw mut (*context).lock };
    let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    let request = unsafe { std::mem::replace(&mut (*context).waiting, null_mut()) };
    let status = if request.is_null() {
        0
    } else {
        unmark_cancelable(request)
    };
    unsafe { KeReleaseSpinLock(lock, irql) };
    let leave_it = FIXED && status == STATUS_CANCELLED;
    if !request.is_null() && !leave_it {
        complete(request, 0);
    }
}

unsafe extern "C-unwind" fn on_cancel(request: WDFREQUEST) {
    let context = CONTEXT.of::<Context>(device_of(queue_of(request)).cast());
    let lock = unsafe { &raw mut (*context).lock };
    let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
    if unsafe { (*context).waiting } == request {
        unsafe { (*context).waiting = null_mut() };
    }
    unsafe { KeReleaseSpinLock(lock, irql) };
    complete(request, STATUS_CANCELLED);
}
