// SPDX-License-Identifier: MIT OR Apache-2.0

//! A free list of buffers, taken from by a compare-and-exchange of its head. Between
//! the look at the head's successor and the exchange others take the head and that
//! successor and give the head back: the exchange succeeds, and a buffer that is in
//! use is on the list.
//!
//! ntsim: 0xC2/7; a buffer is freed twice, in `take` or `drain`.

use std::sync::atomic::{AtomicPtr, Ordering};

use ntsim_sys::ntddk::{
    ExAllocatePool2, ExFreePoolWithTag, KeAcquireSpinLockRaiseToDpc, KeReleaseSpinLock,
};
use ntsim_sys::*;

use super::*;

const BUFFERS: usize = 3;

struct Context {
    /// The head: the twin has it under the lock.
    free: AtomicPtr<SINGLE_LIST_ENTRY>,
    lock: KSPIN_LOCK,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"FREE_LIST");

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
                EvtDeviceSelfManagedIoCleanup: Some(drain::<FIXED>),
                ..sized()
            },
        );
        let device = create_device(init, CONTEXT.attributes())?;
        let context = CONTEXT.of::<Context>(device.cast());
        for _ in 0..BUFFERS {
            let buffer = unsafe { ExAllocatePool2(NON_PAGED, 64, TAG) };
            if buffer.is_null() {
                return Err(STATUS_INSUFFICIENT_RESOURCES);
            }
            push::<FIXED>(context, buffer.cast());
        }
        create_queue(device, PARALLEL, Some(on_control::<FIXED>), NO)?;
        Ok(())
    })())
}

fn push<const FIXED: bool>(context: *mut Context, entry: *mut SINGLE_LIST_ENTRY) {
    if FIXED {
        let lock = unsafe { &raw mut (*context).lock };
        let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
        unsafe { (*entry).Next = (*context).free.load(Ordering::Relaxed) };
        unsafe { (*context).free.store(entry, Ordering::Relaxed) };
        unsafe { KeReleaseSpinLock(lock, irql) };
        return;
    }
    let free = unsafe { &(*context).free };
    let mut first = free.load(Ordering::Acquire);
    loop {
        unsafe { (*entry).Next = first };
        match free.compare_exchange(first, entry, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

fn pop<const FIXED: bool>(context: *mut Context) -> *mut SINGLE_LIST_ENTRY {
    if FIXED {
        let lock = unsafe { &raw mut (*context).lock };
        let irql = unsafe { KeAcquireSpinLockRaiseToDpc(lock) };
        let first = unsafe { (*context).free.load(Ordering::Relaxed) };
        if !first.is_null() {
            unsafe { (*context).free.store((*first).Next, Ordering::Relaxed) };
        }
        unsafe { KeReleaseSpinLock(lock, irql) };
        return first;
    }
    let free = unsafe { &(*context).free };
    let mut first = free.load(Ordering::Acquire);
    while !first.is_null() {
        let second = unsafe { (*first).Next };
        // A statistic: how long the exchange takes.
        let _ = now();
        match free.compare_exchange(first, second, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return first,
            Err(other) => first = other,
        }
    }
    null_mut()
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
        // Uses one.
        let buffer = pop::<FIXED>(context);
        if !buffer.is_null() {
            push::<FIXED>(context, buffer);
        }
    } else {
        // Uses two, gives the first one back and keeps the other for good.
        let (one, two) = (pop::<FIXED>(context), pop::<FIXED>(context));
        if !one.is_null() {
            push::<FIXED>(context, one);
        }
        if !two.is_null() {
            unsafe { ExFreePoolWithTag(two.cast(), TAG) };
        }
    }
    complete(request, 0);
}

unsafe extern "C-unwind" fn drain<const FIXED: bool>(device: WDFDEVICE) {
    let context = CONTEXT.of::<Context>(device.cast());
    loop {
        let buffer = pop::<FIXED>(context);
        if buffer.is_null() {
            return;
        }
        unsafe { ExFreePoolWithTag(buffer.cast(), TAG) };
    }
}
