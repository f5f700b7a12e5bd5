// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is left when a driver is unloaded: here one whose `DriverEntry` fails, which is
//! gone at once.

#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(
    clippy::wildcard_imports,
    clippy::cast_ptr_alignment,
    clashing_extern_declarations,
    reason = "the kernel's functions and objects, as a driver in C has them; pool is aligned to 16 bytes"
)]

use std::cell::Cell;

use ntsim::machine::{DriverEntry, Error};
use ntsim::rules::unload;
use ntsim::{MILLISECOND, Machine, Settings};
use ntsim_sys::{DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, WDF_DRIVER_CONFIG, WDFOBJECT};

use crate::Case;
use crate::io_driver::raw::{attributes, sized};
use crate::locks::*;

unsafe extern "C-unwind" {
    safe fn KeInitializeTimer(timer: *mut Object);
    safe fn KeSetTimer(timer: *mut Object, due: i64, dpc: *mut Object) -> u8;
    safe fn KeCancelTimer(timer: *mut Object) -> u8;
    safe fn KeRemoveQueueDpc(dpc: *mut Object) -> u8;
    safe fn ExQueueWorkItem(item: *mut Object, queue: i32);
}

pub const CASES: &[Case] = &[
    Case {
        rule: &unload::THREAD,
        breaks: |settings| entry(settings, || ignore(start(|| delay(MILLISECOND)))),
        comes_close: |settings| entry(settings, || join(start(|| delay(MILLISECOND)))),
    },
    Case {
        rule: &unload::TIMER,
        breaks: |settings| entry(settings, || ignore(set_timer())),
        comes_close: |settings| entry(settings, || ignore(KeCancelTimer(set_timer()))),
    },
    Case {
        rule: &unload::DPC,
        breaks: |settings| entry(one_processor(settings), || queue_dpcs(false)),
        comes_close: |settings| entry(one_processor(settings), || queue_dpcs(true)),
    },
    Case {
        rule: &unload::WORK_ITEM,
        breaks: |settings| entry(settings, queue_items),
        comes_close: |settings| {
            entry(settings, || {
                queue_items();
                delay(100 * MILLISECOND);
            })
        },
    },
    Case {
        rule: &unload::HANDLE,
        breaks: |settings| entry(settings, || ignore(open_thread())),
        comes_close: |settings| entry(settings, || ignore(ZwClose(open_thread()))),
    },
    Case {
        rule: &unload::REFERENCE,
        breaks: |settings| entry(settings, || ignore(started_and_ended())),
        comes_close: |settings| {
            entry(settings, || {
                ignore(ObfDereferenceObject(started_and_ended()));
            })
        },
    },
    Case {
        rule: &unload::RESOURCE,
        breaks: |settings| entry(settings, || ignore(resource())),
        comes_close: |settings| entry(settings, || ignore(ExDeleteResourceLite(resource()))),
    },
    Case {
        rule: &unload::POOL,
        breaks: |settings| entry(settings, || ignore(pool(16))),
        comes_close: |settings| entry(settings, || ExFreePool(pool(16))),
    },
    Case {
        rule: &unload::OBJECT,
        breaks: |settings| load(settings, referenced_object),
        comes_close: |settings| load(settings, object),
    },
];

thread_local! {
    /// What `DriverEntry` does; each test runs on a thread of its own.
    static BODY: Cell<fn()> = const { Cell::new(|| ()) };
}

unsafe extern "C-unwind" fn driver_entry(_: *mut DRIVER_OBJECT, _: PCUNICODE_STRING) -> NTSTATUS {
    BODY.get()();
    // STATUS_UNSUCCESSFUL
    0xC000_0001_u32.cast_signed()
}

/// Loads a driver whose `DriverEntry` does that and fails.
fn entry(settings: Settings, body: fn()) -> Result<(), Error> {
    BODY.set(body);
    load(settings, driver_entry)
}

fn load(settings: Settings, driver_entry: DriverEntry) -> Result<(), Error> {
    let mut machine = Machine::new(settings);
    machine.add_service("Leaver", driver_entry)?;
    match machine.start_service("Leaver") {
        Err(Error::Driver { .. }) => Ok(()),
        other => other,
    }
}

/// A driver of the framework's that creates an object and fails.
unsafe extern "C-unwind" fn object(driver: *mut DRIVER_OBJECT, path: PCUNICODE_STRING) -> NTSTATUS {
    create_object(driver, path);
    0xC000_0001_u32.cast_signed()
}

/// The same, and it never gives a reference to the object back.
unsafe extern "C-unwind" fn referenced_object(
    driver: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    let object = create_object(driver, path);
    wdf!(WdfObjectReferenceActual: WdfObjectReferenceActualTableIndex as PFN_WDFOBJECTREFERENCEACTUAL(
        object, std::ptr::null_mut(), 0, std::ptr::null()));
    0xC000_0001_u32.cast_signed()
}

fn create_object(driver: *mut DRIVER_OBJECT, path: PCUNICODE_STRING) -> WDFOBJECT {
    let mut config: WDF_DRIVER_CONFIG = sized();
    // WdfDriverInitNonPnpDriver
    config.DriverInitFlags = 1;
    let status = wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        driver, path, std::ptr::null_mut(), &raw mut config, std::ptr::null_mut()));
    assert_eq!(status, 0);
    let (mut attributes, mut object) = (attributes(), std::ptr::null_mut());
    let status = wdf!(WdfObjectCreate: WdfObjectCreateTableIndex as PFN_WDFOBJECTCREATE(
        &raw mut attributes, &raw mut object));
    assert_eq!(status, 0);
    object
}

/// So that a DPC waits as long as its maker is at `DISPATCH_LEVEL`.
fn one_processor(settings: Settings) -> Settings {
    Settings {
        processors: 1,
        ..settings
    }
}

fn set_timer() -> *mut Object {
    let timer = Object::boxed();
    KeInitializeTimer(timer);
    KeSetTimer(timer, -1_000_000, std::ptr::null_mut());
    timer
}

/// More DPCs than run while the driver is on its way out, or none in the end.
fn queue_dpcs(remove: bool) {
    let old = KfRaiseIrql(2);
    for _ in 0..200 {
        let dpc = Object::boxed();
        KeInitializeDpc(dpc, dpc_routine as *const () as usize, 0);
        KeInsertQueueDpc(dpc, 0, 0);
        if remove {
            KeRemoveQueueDpc(dpc);
        }
    }
    KeLowerIrql(old);
}

extern "C-unwind" fn dpc_routine(_: *mut Object, _: usize, _: usize, _: usize) {}

/// More than there are workers.
fn queue_items() {
    for _ in 0..40 {
        let item = Object::boxed();
        // SAFETY: there is room for a work item: a list entry, the routine and its argument.
        unsafe {
            item.cast::<[usize; 4]>()
                .write([0, 0, sleeps as *const () as usize, 0]);
        };
        ExQueueWorkItem(item, 1);
    }
}

extern "C-unwind" fn sleeps(_: *mut std::ffi::c_void) {
    delay(MILLISECOND);
}

extern "C-unwind" fn ends(_: *mut std::ffi::c_void) {}

/// The handle of a thread that has ended.
fn open_thread() -> usize {
    let mut handle = 0;
    let none = std::ptr::null_mut();
    let routine = ends as *const () as usize;
    assert_eq!(
        PsCreateSystemThread(&raw mut handle, 0, none, 0, none, routine, std::ptr::null()),
        0
    );
    delay(MILLISECOND);
    handle
}

/// A thread that has ended, referenced.
fn started_and_ended() -> *mut Object {
    let thread = start(|| ());
    assert_eq!(KeWaitForSingleObject(thread, 0, 0, 0, std::ptr::null()), 0);
    thread
}
