// SPDX-License-Identifier: MIT OR Apache-2.0

//! What KMDF and its verifier do not let pass.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]

use std::cell::Cell;
use std::ptr::null_mut;
use std::time::Duration;

use ntsim::machine::{Error, Hardware};
use ntsim::registry::{Value, Volatility};
use ntsim::rules::kmdf;
use ntsim::{Answer, Machine, Settings};
use ntsim_sys::{
    DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PWDFDEVICE_INIT, UNICODE_STRING, WDF_DRIVER_CONFIG,
    WDF_INTERRUPT_CONFIG, WDF_PNPPOWER_EVENT_CALLBACKS, WDF_REQUEST_SEND_OPTIONS, WDF_TIMER_CONFIG,
    WDF_WORKITEM_CONFIG, WDFCOLLECTION, WDFDEVICE, WDFINTERRUPT, WDFIOTARGET, WDFMEMORY, WDFOBJECT,
    WDFQUEUE, WDFREQUEST, WDFSPINLOCK, WDFTIMER, WDFWAITLOCK, WDFWORKITEM,
};

use crate::Case;
use crate::io_driver::raw::{self, attributes, below, delay, sized};
use crate::io_driver::{
    Bench, MANUAL, PARALLEL, acknowledge, complete, complete_with, create_queue, forward,
    mark_cancelable, queue_config, retrieve_next, unmark_cancelable,
};

// ---- scenarios --------------------------------------------------------------

/// Plays a driver that does this to its new device.
pub fn device(settings: Settings, body: fn(WDFDEVICE)) -> Result<(), Error> {
    let mut bench = Bench::with_settings(settings).after_create(body);
    live(&mut bench)
}

/// Starts the device, lets a second pass, and removes it.
fn live(bench: &mut Bench) -> Result<(), Error> {
    bench.machine.start_device(&bench.device)?;
    bench.machine.run_for(Duration::from_secs(1))?;
    bench.machine.remove_device(&bench.device)
}

/// Plays a driver that does this before it makes its device.
fn init(settings: Settings, body: fn(PWDFDEVICE_INIT)) -> Result<(), Error> {
    let mut bench = Bench::with_settings(settings).before_create(body);
    live(&mut bench)
}

/// Plays a driver that does this with a device control, of which it is given the code.
pub fn request(settings: Settings, body: fn(WDFREQUEST, usize)) -> Result<(), Error> {
    ask(Bench::with_settings(settings).on("Control", body))
}

/// Sends a device control to a driver with a parallel queue.
fn ask(bench: Bench) -> Result<(), Error> {
    let mut bench = bench.with_queue(PARALLEL);
    bench.machine.start_device(&bench.device)?;
    let file = bench.machine.open(r"\\.\Probe")?;
    let pending = bench
        .machine
        .begin_ioctl(file, crate::io_driver::ECHO, b"ask", 8)?;
    bench.machine.run_for(Duration::from_secs(1))?;
    bench.machine.cancel(pending)?;
    bench.machine.close(file)?;
    bench.machine.remove_device(&bench.device)
}

/// Plays what a callback of a timer, work item or deletion does, by its name.
fn with_callback(
    settings: Settings,
    name: &'static str,
    callback: fn(WDFOBJECT),
    body: fn(WDFDEVICE),
) -> Result<(), Error> {
    raw::on(name, move |object| {
        callback(object);
        0
    });
    device(settings, body)
}

unsafe extern "C-unwind" fn on_timer(timer: WDFTIMER) {
    raw::act("Timer", timer.cast());
}
unsafe extern "C-unwind" fn on_work(item: WDFWORKITEM) {
    raw::act("WorkItem", item.cast());
}
unsafe extern "C-unwind" fn on_cleanup(object: WDFOBJECT) {
    raw::act("Cleanup", object);
}

// ---- calls ------------------------------------------------------------------

fn spin_lock() -> WDFSPINLOCK {
    let mut lock = null_mut();
    wdf!(WdfSpinLockCreate: WdfSpinLockCreateTableIndex as PFN_WDFSPINLOCKCREATE(null_mut(), &raw mut lock));
    lock
}
fn acquire(lock: WDFSPINLOCK) {
    wdf!(WdfSpinLockAcquire: WdfSpinLockAcquireTableIndex as PFN_WDFSPINLOCKACQUIRE(lock));
}
fn release(lock: WDFSPINLOCK) {
    wdf!(WdfSpinLockRelease: WdfSpinLockReleaseTableIndex as PFN_WDFSPINLOCKRELEASE(lock));
}
fn wait_lock() -> WDFWAITLOCK {
    let mut lock = null_mut();
    wdf!(WdfWaitLockCreate: WdfWaitLockCreateTableIndex as PFN_WDFWAITLOCKCREATE(null_mut(), &raw mut lock));
    lock
}
fn object() -> WDFOBJECT {
    let mut object = null_mut();
    wdf!(WdfObjectCreate: WdfObjectCreateTableIndex as PFN_WDFOBJECTCREATE(null_mut(), &raw mut object));
    object
}
fn delete(object: WDFOBJECT) {
    wdf!(WdfObjectDelete: WdfObjectDeleteTableIndex as PFN_WDFOBJECTDELETE(object));
}
fn reference(object: WDFOBJECT) {
    wdf!(WdfObjectReferenceActual: WdfObjectReferenceActualTableIndex
        as PFN_WDFOBJECTREFERENCEACTUAL(object, null_mut(), 0, c"test".as_ptr()));
}
fn dereference(object: WDFOBJECT) {
    wdf!(WdfObjectDereferenceActual: WdfObjectDereferenceActualTableIndex
        as PFN_WDFOBJECTDEREFERENCEACTUAL(object, null_mut(), 0, c"test".as_ptr()));
}
fn lock_object(object: WDFOBJECT) {
    wdf!(WdfObjectAcquireLock: WdfObjectAcquireLockTableIndex as PFN_WDFOBJECTACQUIRELOCK(object));
}
fn unlock_object(object: WDFOBJECT) {
    wdf!(WdfObjectReleaseLock: WdfObjectReleaseLockTableIndex as PFN_WDFOBJECTRELEASELOCK(object));
}
fn set_io_type(init: PWDFDEVICE_INIT, io_type: i32) {
    wdf!(WdfDeviceInitSetIoType: WdfDeviceInitSetIoTypeTableIndex as PFN_WDFDEVICEINITSETIOTYPE(init, io_type));
}
fn set_callbacks(init: PWDFDEVICE_INIT, missing: u32) {
    let mut callbacks: WDF_PNPPOWER_EVENT_CALLBACKS = sized();
    callbacks.Size -= missing;
    wdf!(WdfDeviceInitSetPnpPowerEventCallbacks: WdfDeviceInitSetPnpPowerEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS(init, &raw mut callbacks));
}
fn set_request_attributes(init: PWDFDEVICE_INIT, execution_level: i32) {
    let mut attributes = attributes();
    attributes.ExecutionLevel = execution_level;
    wdf!(WdfDeviceInitSetRequestAttributes: WdfDeviceInitSetRequestAttributesTableIndex
        as PFN_WDFDEVICEINITSETREQUESTATTRIBUTES(init, &raw mut attributes));
}
fn free_init(init: PWDFDEVICE_INIT) {
    wdf!(WdfDeviceInitFree: WdfDeviceInitFreeTableIndex as PFN_WDFDEVICEINITFREE(init));
}
fn control_init() -> PWDFDEVICE_INIT {
    let sddl: Vec<u16> = "D:P(A;;GA;;;SY)(A;;GA;;;BA)".encode_utf16().collect();
    let length = u16::try_from(sddl.len() * 2).unwrap();
    let sddl = UNICODE_STRING {
        Length: length,
        MaximumLength: length,
        Buffer: sddl.leak().as_mut_ptr(),
    };
    let driver = unsafe { (*ntsim_sys::WdfDriverGlobals).Driver };
    wdf!(WdfControlDeviceInitAllocate: WdfControlDeviceInitAllocateTableIndex
        as PFN_WDFCONTROLDEVICEINITALLOCATE(driver, &raw const sddl))
}
fn finish_initializing(device: WDFDEVICE) {
    wdf!(WdfControlFinishInitializing: WdfControlFinishInitializingTableIndex
        as PFN_WDFCONTROLFINISHINITIALIZING(device));
}
fn timer(device: WDFDEVICE, execution_level: i32) -> WDFTIMER {
    let mut config = WDF_TIMER_CONFIG {
        EvtTimerFunc: Some(on_timer),
        ..sized()
    };
    let mut attributes = below(device.cast());
    attributes.ExecutionLevel = execution_level;
    attributes.EvtCleanupCallback = Some(on_cleanup);
    let mut timer = null_mut();
    let status = wdf!(WdfTimerCreate: WdfTimerCreateTableIndex as PFN_WDFTIMERCREATE(
        &raw mut config, &raw mut attributes, &raw mut timer));
    assert_eq!(status, 0);
    timer
}
const AT_PASSIVE: i32 = 2;
const AT_DISPATCH: i32 = 3;
fn start_timer(timer: WDFTIMER) {
    wdf!(WdfTimerStart: WdfTimerStartTableIndex as PFN_WDFTIMERSTART(timer, -10_000));
}
fn stop_timer(timer: WDFTIMER, wait: bool) {
    wdf!(WdfTimerStop: WdfTimerStopTableIndex as PFN_WDFTIMERSTOP(timer, u8::from(wait)));
}
fn work_item(device: WDFDEVICE) -> WDFWORKITEM {
    let mut config = WDF_WORKITEM_CONFIG {
        EvtWorkItemFunc: Some(on_work),
        ..sized()
    };
    let mut attributes = below(device.cast());
    attributes.EvtCleanupCallback = Some(on_cleanup);
    let mut item = null_mut();
    let status = wdf!(WdfWorkItemCreate: WdfWorkItemCreateTableIndex as PFN_WDFWORKITEMCREATE(
        &raw mut config, &raw mut attributes, &raw mut item));
    assert_eq!(status, 0);
    item
}
fn enqueue(item: WDFWORKITEM) {
    wdf!(WdfWorkItemEnqueue: WdfWorkItemEnqueueTableIndex as PFN_WDFWORKITEMENQUEUE(item));
}
fn flush(item: WDFWORKITEM) {
    wdf!(WdfWorkItemFlush: WdfWorkItemFlushTableIndex as PFN_WDFWORKITEMFLUSH(item));
}
fn collection() -> WDFCOLLECTION {
    let mut collection = null_mut();
    wdf!(WdfCollectionCreate: WdfCollectionCreateTableIndex
        as PFN_WDFCOLLECTIONCREATE(null_mut(), &raw mut collection));
    collection
}
fn remove_first(collection: WDFCOLLECTION) {
    wdf!(WdfCollectionRemoveItem: WdfCollectionRemoveItemTableIndex as PFN_WDFCOLLECTIONREMOVEITEM(collection, 0));
}
fn input_memory(request: WDFREQUEST) -> WDFMEMORY {
    let mut memory = null_mut();
    let status = wdf!(WdfRequestRetrieveInputMemory: WdfRequestRetrieveInputMemoryTableIndex
        as PFN_WDFREQUESTRETRIEVEINPUTMEMORY(request, &raw mut memory));
    assert_eq!(status, 0);
    memory
}
fn target(device: WDFDEVICE) -> WDFIOTARGET {
    wdf!(WdfDeviceGetIoTarget: WdfDeviceGetIoTargetTableIndex as PFN_WDFDEVICEGETIOTARGET(device))
}
fn make_request(device: WDFDEVICE) -> WDFREQUEST {
    let mut request = null_mut();
    let status = wdf!(WdfRequestCreate: WdfRequestCreateTableIndex as PFN_WDFREQUESTCREATE(
        null_mut(), target(device), &raw mut request));
    assert_eq!(status, 0);
    request
}
fn format_ioctl(device: WDFDEVICE, request: WDFREQUEST) {
    let status = wdf!(WdfIoTargetFormatRequestForIoctl: WdfIoTargetFormatRequestForIoctlTableIndex
        as PFN_WDFIOTARGETFORMATREQUESTFORIOCTL(target(device), request, crate::io_driver::ECHO,
            null_mut(), null_mut(), null_mut(), null_mut()));
    assert_eq!(status, 0);
}
fn format_as_it_is(request: WDFREQUEST) {
    wdf!(WdfRequestFormatRequestUsingCurrentType: WdfRequestFormatRequestUsingCurrentTypeTableIndex
        as PFN_WDFREQUESTFORMATREQUESTUSINGCURRENTTYPE(request));
}
fn send(device: WDFDEVICE, request: WDFREQUEST, flags: u32) -> bool {
    let mut options = WDF_REQUEST_SEND_OPTIONS {
        Flags: flags,
        ..sized()
    };
    wdf!(WdfRequestSend: WdfRequestSendTableIndex
        as PFN_WDFREQUESTSEND(request, target(device), &raw mut options))
        != 0
}
unsafe extern "C-unwind" fn on_completion(
    request: WDFREQUEST,
    _: WDFIOTARGET,
    _: *mut ntsim_sys::WDF_REQUEST_COMPLETION_PARAMS,
    _: *mut std::ffi::c_void,
) {
    raw::act("Completion", request.cast());
}
fn set_completion_routine(request: WDFREQUEST) {
    wdf!(WdfRequestSetCompletionRoutine: WdfRequestSetCompletionRoutineTableIndex
        as PFN_WDFREQUESTSETCOMPLETIONROUTINE(request, Some(on_completion), null_mut()));
}
const SYNCHRONOUS: u32 = 2;
const FORGET: u32 = 8;
fn queue_of(request: WDFREQUEST) -> WDFQUEUE {
    wdf!(WdfRequestGetIoQueue: WdfRequestGetIoQueueTableIndex as PFN_WDFREQUESTGETIOQUEUE(request))
}
fn device_of(request: WDFREQUEST) -> WDFDEVICE {
    let queue = queue_of(request);
    wdf!(WdfIoQueueGetDevice: WdfIoQueueGetDeviceTableIndex as PFN_WDFIOQUEUEGETDEVICE(queue))
}

/// A request that the driver made and sent to the driver below, which never answers.
fn sent_twice(settings: Settings, again: bool) -> Result<(), Error> {
    let mut bench = Bench::with_settings(settings).after_create(move |device| {
        let request = make_request(device);
        for _ in 0..=u8::from(again) {
            format_ioctl(device, request);
            set_completion_routine(request);
            send(device, request, 0);
        }
    });
    bench
        .machine
        .set_lower_driver(&bench.device, |_| Answer::Never);
    live(&mut bench)
}

/// A request that a queue brought is sent to the driver below.
fn sends(settings: Settings, body: fn(WDFDEVICE, WDFREQUEST)) -> Result<(), Error> {
    raw::on("Completion", |request| {
        complete(request.cast(), 0);
        0
    });
    let bench = Bench::with_settings(settings).on("Control", move |request, _| {
        body(device_of(request), request);
    });
    let mut bench = bench;
    bench
        .machine
        .set_lower_driver(&bench.device, |_| Answer::Now(0, Vec::new()));
    ask(bench)
}

/// A request is held until the device goes to sleep and wakes up again.
fn held_over_sleep(bench: Bench) -> Result<(), Error> {
    let mut bench = bench.with_queue(PARALLEL);
    bench.machine.start_device(&bench.device)?;
    let file = bench.machine.open(r"\\.\Probe")?;
    let pending = bench
        .machine
        .begin_ioctl(file, crate::io_driver::ECHO, b"ask", 8)?;
    bench.machine.run_for(Duration::from_secs(1))?;
    bench.machine.power_down(&bench.device)?;
    bench.machine.power_up(&bench.device)?;
    bench.machine.run_for(Duration::from_secs(1))?;
    bench.machine.wait(pending, Duration::from_secs(1))?;
    bench.machine.close(file)?;
    bench.machine.remove_device(&bench.device)
}

thread_local! {
    static KEPT: Cell<WDFREQUEST> = const { Cell::new(null_mut()) };
    static RECORD: Cell<PWDFDEVICE_INIT> = const { Cell::new(null_mut()) };
    static LINE: Cell<WDFINTERRUPT> = const { Cell::new(null_mut()) };
    static EARLY: Cell<bool> = const { Cell::new(false) };
}

/// A `DriverEntry` that makes an object, perhaps before it is known to the framework.
unsafe extern "C-unwind" fn hasty_entry(
    driver: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    if EARLY.get() {
        object();
    }
    let mut config: WDF_DRIVER_CONFIG = sized();
    let status = wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        driver, path, null_mut(), &raw mut config, null_mut()));
    object();
    status
}

fn hasty(settings: Settings, early: bool) -> Result<(), Error> {
    EARLY.set(early);
    let mut machine = Machine::new(settings);
    machine.add_service("Hasty", hasty_entry)?;
    machine.start_service("Hasty")
}

// ---- interrupts -------------------------------------------------------------

unsafe extern "C-unwind" fn isr(interrupt: WDFINTERRUPT, _: u32) -> u8 {
    raw::act("Isr", interrupt.cast());
    1
}
unsafe extern "C-unwind" fn interrupt_dpc(_: WDFINTERRUPT, _: WDFOBJECT) {}

/// A device with an interrupt, which is raised once; `body` plays when it is created.
fn interrupt(
    settings: Settings,
    passive: bool,
    with_dpc: bool,
    in_isr: fn(WDFINTERRUPT),
) -> Result<(), Error> {
    raw::on("Isr", move |object| {
        in_isr(object.cast());
        0
    });
    let mut bench = Bench::with_settings(settings).after_create(move |device| {
        let mut config = WDF_INTERRUPT_CONFIG {
            EvtInterruptIsr: Some(isr),
            EvtInterruptDpc: with_dpc.then_some(interrupt_dpc as _),
            PassiveHandling: u8::from(passive),
            ShareVector: 2,
            ReportInactiveOnPowerDown: 2,
            ..sized()
        };
        let mut attributes = attributes();
        let mut interrupt = null_mut();
        let status = wdf!(WdfInterruptCreate: WdfInterruptCreateTableIndex as PFN_WDFINTERRUPTCREATE(
            device, &raw mut config, &raw mut attributes, &raw mut interrupt));
        assert_eq!(status, 0);
        LINE.set(interrupt);
    });
    let device = bench.device.clone();
    bench
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    bench.machine.start_device(&device)?;
    bench.machine.raise_interrupt(&device, 0)?;
    bench.machine.run_for(Duration::from_secs(1))?;
    bench.machine.remove_device(&device)
}
fn queue_dpc(interrupt: WDFINTERRUPT) {
    wdf!(WdfInterruptQueueDpcForIsr: WdfInterruptQueueDpcForIsrTableIndex
        as PFN_WDFINTERRUPTQUEUEDPCFORISR(interrupt));
}

// ---- the cases --------------------------------------------------------------

pub const CASES: &[Case] = &[
    Case {
        rule: &kmdf::POWER_ROUTINE_TIMED_OUT,
        breaks: |settings| slow_and_not_pageable(settings, 10 * 60_000 + 1_000),
        comes_close: |settings| slow_and_not_pageable(settings, 10 * 60_000 - 1_000),
    },
    Case {
        rule: &kmdf::WAIT_FOR_SIGNAL,
        breaks: |settings| answers_late(settings, 6_000),
        comes_close: |settings| answers_late(settings, 4_000),
    },
    Case {
        rule: &kmdf::RECURSIVE_LOCK,
        breaks: |settings| {
            device(settings, |_| {
                let lock = spin_lock();
                acquire(lock);
                acquire(lock);
            })
        },
        comes_close: |settings| {
            device(settings, |_| {
                let (lock, other) = (spin_lock(), spin_lock());
                acquire(lock);
                acquire(other);
                release(other);
                release(lock);
                acquire(lock);
                release(lock);
            })
        },
    },
    Case {
        rule: &kmdf::REQUEST_MEMORY_REFERENCED,
        breaks: |settings| {
            request(settings, |request, _| {
                reference(input_memory(request).cast());
                complete(request, 0);
            })
        },
        comes_close: |settings| {
            request(settings, |request, _| {
                let memory = input_memory(request).cast();
                reference(memory);
                dereference(memory);
                complete(request, 0);
            })
        },
    },
    Case {
        rule: &kmdf::NULL_PARAMETER,
        breaks: |settings| {
            device(settings, |_| {
                wdf!(WdfSpinLockCreate: WdfSpinLockCreateTableIndex
                    as PFN_WDFSPINLOCKCREATE(null_mut(), null_mut()));
            })
        },
        comes_close: |settings| device(settings, |_| assert!(!spin_lock().is_null())),
    },
    Case {
        rule: &kmdf::INVALID_HANDLE,
        breaks: |settings| device(settings, |device| stop_timer(device.cast(), false)),
        comes_close: |settings| {
            device(settings, |device| {
                stop_timer(timer(device, AT_DISPATCH), false);
            })
        },
    },
    Case {
        rule: &kmdf::DELETED_HANDLE,
        breaks: |settings| {
            device(settings, |_| {
                let object = object();
                delete(object);
                reference(object);
            })
        },
        comes_close: |settings| {
            device(settings, |_| {
                let object = object();
                reference(object);
                delete(object);
                // Its handle lives as long as the last reference.
                reference(object);
                dereference(object);
                dereference(object);
            })
        },
    },
    Case {
        rule: &kmdf::DRIVER_CREATE,
        breaks: |settings| hasty(settings, true),
        comes_close: |settings| hasty(settings, false),
    },
    Case {
        rule: &kmdf::DEVICE_INIT_USED,
        breaks: |settings| {
            let mut bench = Bench::with_settings(settings)
                .before_create(|init| RECORD.set(init))
                .after_create(|_| set_io_type(RECORD.get(), 2));
            live(&mut bench)
        },
        comes_close: |settings| init(settings, |init| set_io_type(init, 2)),
    },
    Case {
        rule: &kmdf::REQUEST_NULL_IRP,
        breaks: |settings| device(settings, |device| format_as_it_is(make_request(device))),
        comes_close: |settings| {
            request(settings, |request, _| {
                format_as_it_is(request);
                complete(request, 0);
            })
        },
    },
    Case {
        rule: &kmdf::REQUEST_ALREADY_SENT,
        breaks: |settings| sent_twice(settings, true),
        comes_close: |settings| sent_twice(settings, false),
    },
    Case {
        rule: &kmdf::REQUEST_INFORMATION_LENGTH,
        breaks: |settings| request(settings, |request, _| complete_with(request, 0, 9)),
        comes_close: |settings| request(settings, |request, _| complete_with(request, 0, 8)),
    },
    Case {
        rule: &kmdf::DEREFERENCED_TO_DELETE,
        breaks: |settings| device(settings, |_| dereference(object())),
        comes_close: |settings| {
            device(settings, |_| {
                let object = object();
                reference(object);
                dereference(object);
                delete(object);
            })
        },
    },
    Case {
        rule: &kmdf::DELETE_NOT_ALLOWED,
        breaks: |settings| device(settings, |device| delete(device.cast())),
        comes_close: |settings| {
            device(settings, |device| delete(timer(device, AT_DISPATCH).cast()))
        },
    },
    Case {
        rule: &kmdf::NO_LOCK,
        breaks: |settings| device(settings, |_| lock_object(object())),
        comes_close: |settings| {
            device(settings, |device| {
                lock_object(device.cast());
                unlock_object(device.cast());
            })
        },
    },
    Case {
        rule: &kmdf::SPIN_LOCK_NOT_HELD,
        breaks: |settings| device(settings, |_| release(spin_lock())),
        comes_close: |settings| {
            device(settings, |_| {
                let lock = spin_lock();
                acquire(lock);
                release(lock);
            })
        },
    },
    Case {
        rule: &kmdf::WAIT_LOCK_NOT_HELD,
        breaks: |settings| {
            device(settings, |_| {
                wdf!(WdfWaitLockRelease: WdfWaitLockReleaseTableIndex as PFN_WDFWAITLOCKRELEASE(wait_lock()));
            })
        },
        comes_close: |settings| {
            device(settings, |_| {
                let lock = wait_lock();
                wdf!(WdfWaitLockAcquire: WdfWaitLockAcquireTableIndex
                    as PFN_WDFWAITLOCKACQUIRE(lock, null_mut()));
                wdf!(WdfWaitLockRelease: WdfWaitLockReleaseTableIndex as PFN_WDFWAITLOCKRELEASE(lock));
            })
        },
    },
    Case {
        rule: &kmdf::OBJECT_LOCK_NOT_HELD,
        breaks: |settings| device(settings, |device| unlock_object(device.cast())),
        comes_close: |settings| {
            device(settings, |device| {
                lock_object(device.cast());
                unlock_object(device.cast());
            })
        },
    },
    Case {
        rule: &kmdf::CALLBACK_IRQL,
        breaks: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |_| acquire(spin_lock()),
                |device| enqueue(work_item(device)),
            )
        },
        comes_close: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |_| {
                    let lock = spin_lock();
                    acquire(lock);
                    release(lock);
                },
                |device| enqueue(work_item(device)),
            )
        },
    },
    Case {
        rule: &kmdf::CALLBACK_CRITICAL_REGION,
        breaks: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |_| unsafe { ntsim_sys::ntddk::KeEnterCriticalRegion() },
                |device| enqueue(work_item(device)),
            )
        },
        comes_close: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |_| unsafe {
                    ntsim_sys::ntddk::KeEnterCriticalRegion();
                    ntsim_sys::ntddk::KeLeaveCriticalRegion();
                },
                |device| enqueue(work_item(device)),
            )
        },
    },
    Case {
        rule: &kmdf::RECORD_SIZE,
        breaks: |settings| init(settings, |init| set_callbacks(init, 8)),
        comes_close: |settings| init(settings, |init| set_callbacks(init, 0)),
    },
    Case {
        rule: &kmdf::ENUMERATION,
        breaks: |settings| init(settings, |init| set_io_type(init, 5)),
        comes_close: |settings| init(settings, |init| set_io_type(init, 4)),
    },
    Case {
        rule: &kmdf::ATTRIBUTES,
        breaks: |settings| init(settings, |init| set_request_attributes(init, 4)),
        comes_close: |settings| init(settings, |init| set_request_attributes(init, 3)),
    },
    Case {
        rule: &kmdf::CONTROL_DEVICE,
        breaks: |settings| device(settings, finish_initializing),
        comes_close: |settings| {
            device(settings, |_| {
                let (mut init, mut attributes) = (control_init(), attributes());
                let mut device = null_mut();
                let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
                    as PFN_WDFDEVICECREATE(&raw mut init, &raw mut attributes, &raw mut device));
                assert_eq!(status, 0);
                finish_initializing(device);
                delete(device.cast());
            })
        },
    },
    Case {
        rule: &kmdf::INIT_FREE,
        breaks: |settings| init(settings, free_init),
        comes_close: |settings| device(settings, |_| free_init(control_init())),
    },
    Case {
        rule: &kmdf::DOUBLE_COMPLETION,
        breaks: |settings| {
            request(settings, |request, _| {
                reference(request.cast());
                complete(request, 0);
                complete(request, 0);
            })
        },
        comes_close: |settings| {
            request(settings, |request, _| {
                reference(request.cast());
                complete(request, 0);
                dereference(request.cast());
            })
        },
    },
    Case {
        rule: &kmdf::REQUEST_IN_QUEUE,
        breaks: |settings| {
            request(settings, |request, _| {
                let queue = create_queue(device_of(request), queue_config(MANUAL, false)).unwrap();
                forward(request, queue);
                complete(request, 0);
            })
        },
        comes_close: |settings| {
            request(settings, |request, _| {
                let queue = create_queue(device_of(request), queue_config(MANUAL, false)).unwrap();
                forward(request, queue);
                complete(retrieve_next(queue).unwrap(), 0);
            })
        },
    },
    Case {
        rule: &kmdf::REQUEST_OF_DRIVER,
        breaks: |settings| device(settings, |device| complete(make_request(device), 0)),
        comes_close: |settings| device(settings, |device| delete(make_request(device).cast())),
    },
    Case {
        rule: &kmdf::REQUEST_CANCELABLE,
        breaks: |settings| {
            request(settings, |request, _| {
                mark_cancelable(request);
                complete(request, 0);
            })
        },
        comes_close: |settings| {
            request(settings, |request, _| {
                mark_cancelable(request);
                if unmark_cancelable(request) == 0 {
                    complete(request, 0);
                }
            })
        },
    },
    Case {
        rule: &kmdf::MARK_AFTER_CANCEL,
        breaks: |settings| {
            let bench = Bench::with_settings(settings)
                .on("Control", |request, _| mark_cancelable(request))
                .on("Cancel", |request, _| {
                    mark_cancelable(request);
                    complete(request, 0);
                });
            ask(bench)
        },
        comes_close: |settings| {
            let bench = Bench::with_settings(settings)
                .on("Control", |request, _| mark_cancelable(request))
                .on("Cancel", |request, _| complete(request, 0));
            ask(bench)
        },
    },
    Case {
        rule: &kmdf::NOT_CANCELABLE,
        breaks: |settings| {
            request(settings, |request, _| {
                unmark_cancelable(request);
                complete(request, 0);
            })
        },
        comes_close: |settings| {
            request(settings, |request, _| {
                mark_cancelable(request);
                if unmark_cancelable(request) == 0 {
                    complete(request, 0);
                }
            })
        },
    },
    Case {
        rule: &kmdf::STOP_ACKNOWLEDGE,
        breaks: |settings| request(settings, |request, _| acknowledge(request, false)),
        comes_close: |settings| {
            held_over_sleep(
                Bench::with_settings(settings)
                    .on("Control", |request, _| KEPT.set(request))
                    .on("Stop", |request, _| acknowledge(request, false))
                    .on("Resume", |request, _| complete(request, 0)),
            )
        },
    },
    Case {
        rule: &kmdf::SEND_OPTIONS,
        breaks: |settings| {
            sends(settings, |device, request| {
                format_as_it_is(request);
                send(device, request, FORGET | SYNCHRONOUS);
            })
        },
        comes_close: |settings| {
            sends(settings, |device, request| {
                format_as_it_is(request);
                send(device, request, FORGET);
            })
        },
    },
    Case {
        rule: &kmdf::SEND_AND_FORGET,
        breaks: |settings| {
            sends(settings, |device, request| {
                format_ioctl(device, request);
                send(device, request, FORGET);
            })
        },
        comes_close: |settings| {
            sends(settings, |device, request| {
                format_as_it_is(request);
                send(device, request, FORGET);
            })
        },
    },
    Case {
        rule: &kmdf::NO_COMPLETION_ROUTINE,
        breaks: |settings| {
            sends(settings, |device, request| {
                format_as_it_is(request);
                send(device, request, 0);
            })
        },
        comes_close: |settings| {
            sends(settings, |device, request| {
                format_as_it_is(request);
                set_completion_routine(request);
                send(device, request, 0);
            })
        },
    },
    Case {
        rule: &kmdf::QUEUE_WAITS_FOR_ITSELF,
        breaks: |settings| {
            request(settings, |request, _| {
                wdf!(WdfIoQueueStopSynchronously: WdfIoQueueStopSynchronouslyTableIndex
                    as PFN_WDFIOQUEUESTOPSYNCHRONOUSLY(queue_of(request)));
                complete(request, 0);
            })
        },
        comes_close: |settings| {
            request(settings, |request, _| {
                wdf!(WdfIoQueueStop: WdfIoQueueStopTableIndex
                    as PFN_WDFIOQUEUESTOP(queue_of(request), None, null_mut()));
                complete(request, 0);
            })
        },
    },
    Case {
        rule: &kmdf::TIMER_DELETED,
        breaks: |settings| {
            with_callback(
                settings,
                "Cleanup",
                |timer| start_timer(timer.cast()),
                |device| delete(timer(device, AT_DISPATCH).cast()),
            )
        },
        comes_close: |settings| {
            with_callback(
                settings,
                "Cleanup",
                |timer| stop_timer(timer.cast(), false),
                |device| {
                    let timer = timer(device, AT_DISPATCH);
                    start_timer(timer);
                    delete(timer.cast());
                },
            )
        },
    },
    Case {
        rule: &kmdf::TIMER_STOPS_ITSELF,
        breaks: |settings| {
            with_callback(
                settings,
                "Timer",
                |timer| stop_timer(timer.cast(), true),
                |device| start_timer(timer(device, AT_PASSIVE)),
            )
        },
        comes_close: |settings| {
            with_callback(
                settings,
                "Timer",
                |timer| stop_timer(timer.cast(), false),
                |device| start_timer(timer(device, AT_PASSIVE)),
            )
        },
    },
    Case {
        rule: &kmdf::TIMER_STOPPED_TWICE,
        breaks: |settings| stopped_by_two(settings, true),
        comes_close: |settings| stopped_by_two(settings, false),
    },
    Case {
        rule: &kmdf::TIMER_DELETES_ITSELF,
        breaks: |settings| {
            with_callback(settings, "Timer", delete, |device| {
                start_timer(timer(device, AT_PASSIVE));
            })
        },
        comes_close: |settings| {
            with_callback(settings, "Timer", delete, |device| {
                start_timer(timer(device, AT_DISPATCH));
            })
        },
    },
    Case {
        rule: &kmdf::WORK_ITEM_DELETED,
        breaks: |settings| {
            with_callback(
                settings,
                "Cleanup",
                |item| enqueue(item.cast()),
                |device| delete(work_item(device).cast()),
            )
        },
        comes_close: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |_| {},
                |device| {
                    let item = work_item(device);
                    enqueue(item);
                    delete(item.cast());
                },
            )
        },
    },
    Case {
        rule: &kmdf::WORK_ITEM_FLUSHES_ITSELF,
        breaks: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |item| flush(item.cast()),
                |device| enqueue(work_item(device)),
            )
        },
        comes_close: |settings| {
            with_callback(
                settings,
                "WorkItem",
                |_| {},
                |device| {
                    let item = work_item(device);
                    enqueue(item);
                    flush(item);
                },
            )
        },
    },
    Case {
        rule: &kmdf::TARGET_START,
        breaks: |settings| start_target(settings, true),
        comes_close: |settings| start_target(settings, false),
    },
    Case {
        rule: &kmdf::COLLECTION_ITEM,
        breaks: |settings| device(settings, |_| remove_first(collection())),
        comes_close: |settings| {
            device(settings, |_| {
                let collection = collection();
                let object = object();
                wdf!(WdfCollectionAdd: WdfCollectionAddTableIndex as PFN_WDFCOLLECTIONADD(collection, object));
                remove_first(collection);
            })
        },
    },
    Case {
        rule: &kmdf::RESUME_IDLE,
        breaks: |settings| resume_idle(settings, false),
        comes_close: |settings| resume_idle(settings, true),
    },
    Case {
        rule: &kmdf::INTERRUPT_CALLBACK,
        breaks: |settings| interrupt(settings, false, false, queue_dpc),
        comes_close: |settings| interrupt(settings, false, true, queue_dpc),
    },
    Case {
        rule: &kmdf::INTERRUPT_TRY_LOCK,
        breaks: |settings| try_interrupt_lock(settings, false),
        comes_close: |settings| try_interrupt_lock(settings, true),
    },
    Case {
        rule: &kmdf::INTERRUPT_LOCK_IRQL,
        breaks: |settings| lock_interrupt_at(settings, 15),
        comes_close: |settings| lock_interrupt_at(settings, 2),
    },
];

/// A driver that is not power-pageable takes so long to leave D0.
fn slow_and_not_pageable(settings: Settings, milliseconds: i64) -> Result<(), Error> {
    let stop = move |request: WDFREQUEST, _: usize| {
        delay(milliseconds);
        acknowledge(request, false);
    };
    held_over_sleep(
        Bench::with_settings(settings)
            .before_create(|init| {
                wdf!(WdfDeviceInitSetPowerNotPageable: WdfDeviceInitSetPowerNotPageableTableIndex
                    as PFN_WDFDEVICEINITSETPOWERNOTPAGEABLE(init));
            })
            .on("Control", |request, _| KEPT.set(request))
            .on("Stop", stop)
            .on("Resume", |request, _| complete(request, 0)),
    )
}

/// Another thread answers `EvtIoStop` so late, of a driver that has five seconds by
/// the registry.
fn answers_late(settings: Settings, milliseconds: i64) -> Result<(), Error> {
    let mut bench = Bench::with_settings(settings)
        .on("Control", |request, _| KEPT.set(request))
        .on("Stop", |_, _| EARLY.set(true))
        .on("Resume", |request, _| complete(request, 0));
    EARLY.set(false);
    let registry = bench.machine.registry_mut();
    let key = registry
        .create(
            r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe\Parameters\Wdf",
            Volatility::Persistent,
        )
        .unwrap();
    for (name, number) in [
        ("VerifierOn", 1),
        ("DbgBreakOnError", 1),
        ("DbgWaitForSignalTimeoutInSec", 5),
    ] {
        registry.set_value(key, name, Value::dword(number)).unwrap();
    }
    let _late = bench.machine.spawn_thread("late", move || {
        while !EARLY.get() {
            delay(100);
        }
        delay(milliseconds);
        acknowledge(KEPT.get(), false);
    });
    held_over_sleep(bench)
}

/// Two threads stop a timer and wait, at once or one after the other.
fn stopped_by_two(settings: Settings, at_once: bool) -> Result<(), Error> {
    thread_local! {
        static TIMER: Cell<WDFTIMER> = const { Cell::new(null_mut()) };
    }
    raw::on("Timer", |_| {
        delay(100);
        0
    });
    let mut bench = Bench::with_settings(settings).after_create(|device| {
        let timer = timer(device, AT_PASSIVE);
        start_timer(timer);
        TIMER.set(timer);
    });
    let machine = &mut bench.machine;
    machine.start_device(&bench.device)?;
    machine.run_for(Duration::from_millis(50))?;
    let first = machine.spawn_thread("first", || stop_timer(TIMER.get(), true));
    let second = machine.spawn_thread("second", move || {
        delay(if at_once { 1 } else { 500 });
        stop_timer(TIMER.get(), true);
    });
    machine.join(first)?;
    machine.join(second)?;
    machine.remove_device(&bench.device)
}

/// The default target is started at `DISPATCH_LEVEL`, perhaps while another thread
/// stops it and waits for what was sent.
fn start_target(settings: Settings, stopping: bool) -> Result<(), Error> {
    const WAIT_FOR_SENT: i32 = 2;
    thread_local! {
        static DEVICE: Cell<WDFDEVICE> = const { Cell::new(null_mut()) };
    }
    let mut bench = Bench::with_settings(settings).after_create(|device| DEVICE.set(device));
    let machine = &mut bench.machine;
    machine.set_lower_driver(&bench.device, |_| Answer::Never);
    machine.start_device(&bench.device)?;
    let _stopper = machine.spawn_thread("stopper", move || {
        if !stopping {
            return;
        }
        let device = DEVICE.get();
        let request = make_request(device);
        format_ioctl(device, request);
        set_completion_routine(request);
        send(device, request, 0);
        wdf!(WdfIoTargetStop: WdfIoTargetStopTableIndex
            as PFN_WDFIOTARGETSTOP(target(device), WAIT_FOR_SENT));
    });
    machine.run_thread("starter", || {
        delay(100);
        let old = unsafe { ntsim_sys::ntddk::KfRaiseIrql(2) };
        let status = wdf!(WdfIoTargetStart: WdfIoTargetStartTableIndex
            as PFN_WDFIOTARGETSTART(target(DEVICE.get())));
        assert_eq!(status, 0);
        unsafe { ntsim_sys::ntddk::KeLowerIrql(old) };
    })?;
    machine.remove_device(&bench.device)
}

fn resume_idle(settings: Settings, stopped: bool) -> Result<(), Error> {
    thread_local! {
        static DEVICE: Cell<WDFDEVICE> = const { Cell::new(null_mut()) };
    }
    let mut bench = Bench::with_settings(settings).after_create(|device| DEVICE.set(device));
    bench.machine.start_device(&bench.device)?;
    bench.machine.run_thread("test", move || {
        let device = DEVICE.get();
        if stopped {
            wdf!(WdfDeviceStopIdleNoTrack: WdfDeviceStopIdleNoTrackTableIndex
                as PFN_WDFDEVICESTOPIDLENOTRACK(device, 0));
        }
        wdf!(WdfDeviceResumeIdleNoTrack: WdfDeviceResumeIdleNoTrackTableIndex
            as PFN_WDFDEVICERESUMEIDLENOTRACK(device));
    })?;
    bench.machine.remove_device(&bench.device)
}

fn try_interrupt_lock(settings: Settings, passive: bool) -> Result<(), Error> {
    interrupt(settings, passive, false, |interrupt| {
        let got = wdf!(WdfInterruptTryToAcquireLock: WdfInterruptTryToAcquireLockTableIndex
            as PFN_WDFINTERRUPTTRYTOACQUIRELOCK(interrupt));
        // The ISR of a passive interrupt holds it already.
        assert_eq!(got, 0);
    })
}

fn lock_interrupt_at(settings: Settings, irql: u8) -> Result<(), Error> {
    let mut bench = Bench::with_settings(settings).after_create(|device| {
        let mut config = WDF_INTERRUPT_CONFIG {
            EvtInterruptIsr: Some(isr),
            ShareVector: 2,
            ReportInactiveOnPowerDown: 2,
            ..sized()
        };
        let mut interrupt = null_mut();
        let status = wdf!(WdfInterruptCreate: WdfInterruptCreateTableIndex as PFN_WDFINTERRUPTCREATE(
            device, &raw mut config, null_mut(), &raw mut interrupt));
        assert_eq!(status, 0);
        LINE.set(interrupt);
    });
    let device = bench.device.clone();
    bench
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    bench.machine.start_device(&device)?;
    bench.machine.run_thread("test", move || {
        let old = unsafe { ntsim_sys::ntddk::KfRaiseIrql(irql) };
        wdf!(WdfInterruptAcquireLock: WdfInterruptAcquireLockTableIndex
            as PFN_WDFINTERRUPTACQUIRELOCK(LINE.get()));
        wdf!(WdfInterruptReleaseLock: WdfInterruptReleaseLockTableIndex
            as PFN_WDFINTERRUPTRELEASELOCK(LINE.get()));
        unsafe { ntsim_sys::ntddk::KeLowerIrql(old) };
    })?;
    bench.machine.remove_device(&device)
}
