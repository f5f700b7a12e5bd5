// SPDX-License-Identifier: MIT OR Apache-2.0

//! Timers, DPCs and work items.

#![allow(
    clippy::wildcard_imports,
    clippy::cast_ptr_alignment,
    clashing_extern_declarations,
    reason = "the kernel's functions and objects, as a driver in C has them; pool is aligned to 16 bytes"
)]

use std::ffi::c_void;

use ntsim::machine::Error;
use ntsim::rules::deferred;
use ntsim::{MILLISECOND, Settings};

use crate::Case;
use crate::locks::*;

unsafe extern "C-unwind" {
    safe fn KeInitializeTimer(timer: *mut Object);
    safe fn KeSetTimer(timer: *mut Object, due: i64, dpc: *mut Object) -> u8;
    safe fn KeSetTimerEx(timer: *mut Object, due: i64, period: i32, dpc: *mut Object) -> u8;
    safe fn KeCancelTimer(timer: *mut Object) -> u8;
    safe fn KeRemoveQueueDpc(dpc: *mut Object) -> u8;
    safe fn KeSetTargetProcessorDpc(dpc: *mut Object, number: i8);
    safe fn ExQueueWorkItem(item: *mut Object, queue: i32);
    safe fn IoAllocateWorkItem(object: usize) -> *mut Object;
    safe fn IoInitializeWorkItem(object: usize, item: *mut Object);
    safe fn IoUninitializeWorkItem(item: *mut Object);
    safe fn IoFreeWorkItem(item: *mut Object);
    safe fn IoQueueWorkItem(item: *mut Object, routine: usize, queue: i32, context: usize);
}

/// `DelayedWorkQueue`.
const DELAYED: i32 = 1;
/// Any object will do: nothing asks it.
const DEVICE: usize = 0x1000;

pub const CASES: &[Case] = &[
    Case {
        rule: &deferred::TIMER_FREED,
        breaks: |settings| free_with_timer(settings, false),
        comes_close: |settings| free_with_timer(settings, true),
    },
    Case {
        rule: &deferred::TIMER_INITIALIZED_WHILE_SET,
        breaks: |settings| initialize_timer_again(settings, false),
        comes_close: |settings| initialize_timer_again(settings, true),
    },
    Case {
        rule: &deferred::NO_TIMER,
        breaks: |settings| {
            play(settings, || {
                let event = Object::boxed();
                KeInitializeEvent(event.cast(), 0, 0);
                KeCancelTimer(event);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                KeCancelTimer(timer());
            })
        },
    },
    Case {
        rule: &deferred::TIMER_PERIOD,
        breaks: |settings| periodic(settings, -1),
        comes_close: |settings| periodic(settings, 0),
    },
    Case {
        rule: &deferred::DPC_FREED,
        breaks: |settings| free_with_dpc(settings, false),
        comes_close: |settings| free_with_dpc(settings, true),
    },
    Case {
        rule: &deferred::DPC_PROCESSOR,
        breaks: |settings| dpc_for(settings, 2),
        comes_close: |settings| dpc_for(settings, 1),
    },
    Case {
        rule: &deferred::WORK_ITEM_MEMORY_FREED,
        breaks: |settings| {
            play(settings, || {
                let item = pool(64);
                // As many as there are workers have to wait before it.
                busy_workers();
                queue_item(item.cast(), DELAYED);
                ExFreePool(item);
            })
        },
        // It may be freed from its own routine, and after that.
        comes_close: |settings| {
            play(settings, || {
                let item = pool(64);
                queue_item(item.cast(), DELAYED);
                delay(MILLISECOND);
                ExFreePool(item);
            })
        },
    },
    Case {
        rule: &deferred::WORK_ITEM_QUEUED_TWICE,
        breaks: |settings| {
            play(settings, || {
                let item = Object::boxed();
                busy_workers();
                queue_item(item, DELAYED);
                queue_item(item, DELAYED);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let item = Object::boxed();
                queue_item(item, DELAYED);
                delay(MILLISECOND);
                queue_item(item, DELAYED);
                delay(MILLISECOND);
            })
        },
    },
    Case {
        rule: &deferred::WORK_ITEM_FREED,
        breaks: |settings| {
            play(settings, || {
                let item = IoAllocateWorkItem(DEVICE);
                busy_workers();
                IoQueueWorkItem(item, works as *const () as usize, DELAYED, 0);
                IoFreeWorkItem(item);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let item = IoAllocateWorkItem(DEVICE);
                IoQueueWorkItem(item, works as *const () as usize, DELAYED, 0);
                delay(MILLISECOND);
                IoFreeWorkItem(item);
            })
        },
    },
    Case {
        rule: &deferred::WORK_ITEM_OBJECT,
        breaks: |settings| allocate_item(settings, 0),
        comes_close: |settings| allocate_item(settings, DEVICE),
    },
    Case {
        rule: &deferred::WORK_ITEM_QUEUE,
        breaks: |settings| queue_in(settings, 7),
        // 32 and more are priorities of their own.
        comes_close: |settings| queue_in(settings, 32),
    },
    Case {
        rule: &deferred::WORK_ITEM_ROUTINE,
        breaks: |settings| play(settings, || ExQueueWorkItem(Object::boxed(), DELAYED)),
        comes_close: |settings| queue_in(settings, DELAYED),
    },
    Case {
        rule: &deferred::WORK_ITEM_PAGED,
        breaks: |settings| item_in_pool(settings, 0x100),
        comes_close: |settings| item_in_pool(settings, 0x40),
    },
    Case {
        rule: &deferred::WORK_ITEM_UNINITIALIZED,
        breaks: |settings| {
            play(settings, || {
                let item = Object::boxed();
                IoQueueWorkItem(item, works as *const () as usize, DELAYED, 0);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let item = leaked([0_usize; 16]).cast();
                IoInitializeWorkItem(DEVICE, item);
                IoQueueWorkItem(item, works as *const () as usize, DELAYED, 0);
                delay(MILLISECOND);
                IoUninitializeWorkItem(item);
            })
        },
    },
    Case {
        rule: &deferred::WORK_ITEM_NOT_ALLOCATED,
        breaks: |settings| {
            play(settings, || {
                let item = leaked([0_usize; 16]).cast();
                IoInitializeWorkItem(DEVICE, item);
                IoFreeWorkItem(item);
            })
        },
        comes_close: |settings| allocate_item(settings, DEVICE),
    },
    Case {
        rule: &deferred::WORKER_IRQL,
        breaks: |settings| run_worker(settings, keeps_irql),
        comes_close: |settings| run_worker(settings, gives_irql_back),
    },
];

fn timer() -> *mut Object {
    let timer = Object::boxed();
    KeInitializeTimer(timer);
    timer
}

const FAR: i64 = -(1_000 * MILLISECOND.cast_signed());

fn free_with_timer(settings: Settings, cancel: bool) -> Result<(), Error> {
    play(settings, move || {
        let block = pool(64);
        KeInitializeTimer(block.cast());
        KeSetTimer(block.cast(), FAR, std::ptr::null_mut());
        if cancel {
            KeCancelTimer(block.cast());
        }
        ExFreePool(block);
    })
}

fn initialize_timer_again(settings: Settings, cancel: bool) -> Result<(), Error> {
    play(settings, move || {
        let timer = timer();
        KeSetTimer(timer, FAR, std::ptr::null_mut());
        if cancel {
            KeCancelTimer(timer);
        }
        KeInitializeTimer(timer);
    })
}

fn periodic(settings: Settings, period: i32) -> Result<(), Error> {
    play(settings, move || {
        let timer = timer();
        KeSetTimerEx(timer, FAR, period, std::ptr::null_mut());
        KeCancelTimer(timer);
    })
}

fn free_with_dpc(settings: Settings, remove: bool) -> Result<(), Error> {
    play(settings, move || {
        let block = pool(64);
        KeInitializeDpc(block.cast(), dpc_routine as *const () as usize, 0);
        let timer = timer();
        KeSetTimer(timer, FAR, block.cast());
        if remove {
            KeCancelTimer(timer);
            KeInsertQueueDpc(block.cast(), 0, 0);
            KeRemoveQueueDpc(block.cast());
            delay(MILLISECOND);
        }
        ExFreePool(block);
    })
}

/// Of two processors.
fn dpc_for(settings: Settings, processor: i8) -> Result<(), Error> {
    play(settings, move || {
        let dpc = Object::boxed();
        KeInitializeDpc(dpc, dpc_routine as *const () as usize, 0);
        KeSetTargetProcessorDpc(dpc, processor);
        KeInsertQueueDpc(dpc, 0, 0);
        delay(MILLISECOND);
    })
}

/// `ExInitializeWorkItem`, which is inline, and `ExQueueWorkItem`.
fn queue_routine(item: *mut Object, routine: usize, queue: i32) {
    // SAFETY: there is room for a work item: a list entry, the routine and its argument.
    unsafe { item.cast::<[usize; 4]>().write([0, 0, routine, 0]) };
    ExQueueWorkItem(item, queue);
}

fn queue_item(item: *mut Object, queue: i32) {
    queue_routine(item, works as *const () as usize, queue);
}

/// Gives all workers work, and more in the queue.
fn busy_workers() {
    for _ in 0..40 {
        queue_routine(Object::boxed(), sleeps as *const () as usize, DELAYED);
    }
}

fn allocate_item(settings: Settings, object: usize) -> Result<(), Error> {
    play(settings, move || IoFreeWorkItem(IoAllocateWorkItem(object)))
}

fn queue_in(settings: Settings, queue: i32) -> Result<(), Error> {
    play(settings, move || {
        queue_item(Object::boxed(), queue);
        delay(MILLISECOND);
    })
}

fn item_in_pool(settings: Settings, flags: u64) -> Result<(), Error> {
    play(settings, move || {
        let item = ExAllocatePool2(flags, 64, u32::from_le_bytes(*b"tseT"));
        queue_item(item.cast(), DELAYED);
        delay(MILLISECOND);
        ExFreePool(item);
    })
}

fn run_worker(settings: Settings, routine: extern "C-unwind" fn(*mut c_void)) -> Result<(), Error> {
    play(settings, move || {
        queue_routine(Object::boxed(), routine as *const () as usize, DELAYED);
        delay(MILLISECOND);
    })
}

extern "C-unwind" fn works(_: *mut c_void) {}

extern "C-unwind" fn sleeps(_: *mut c_void) {
    delay(MILLISECOND);
}

extern "C-unwind" fn keeps_irql(_: *mut c_void) {
    KfRaiseIrql(2);
}

extern "C-unwind" fn gives_irql_back(_: *mut c_void) {
    KeLowerIrql(KfRaiseIrql(2));
}

extern "C-unwind" fn dpc_routine(_: *mut Object, _: usize, _: usize, _: usize) {}
