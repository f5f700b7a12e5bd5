// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF's I/O side as a driver and its users see it: a driver linked into this
//! program, written against the raw interface as a C driver would be.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of structures and of short strings"
)]

#[path = "support/io_driver.rs"]
#[macro_use]
mod io_driver;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use io_driver::*;
use ntsim::machine::Error;
use ntsim::{Answer, LowerRequest, StopKind};
use ntsim_sys::{NTSTATUS, WDF_REQUEST_PARAMETERS, WDFDEVICE};

// ---- requests and queues ------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_read>
#[test]
fn a_read_gets_what_the_driver_put_into_its_buffer() {
    let mut bench = Bench::new()
        .on("Read", |request, length| {
            assert_eq!(length, 8);
            fill(request, b"hello");
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let read = bench.machine.read(file, 8).unwrap();
    assert_eq!((read.status, read.information), (0, 5));
    assert_eq!(read.data, b"hello");
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_write>
#[test]
fn a_write_brings_the_users_bytes() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    let mut bench = Bench::new()
        .on("Write", move |request, length| {
            *log.borrow_mut() = input(request, 1).unwrap();
            complete_with(request, 0, length as u64);
        })
        .with_queue(SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let written = bench.machine.write(file, b"abc").unwrap();
    assert_eq!((written.status, written.information), (0, 3));
    assert_eq!(*seen.borrow(), b"abc");
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_device_control>
#[test]
fn a_control_code_echoes() {
    let mut bench = Bench::new()
        .on("Control", |request, code| {
            assert_eq!(code as u32, ECHO);
            let bytes = input(request, 3).unwrap();
            fill(request, &bytes);
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let answer = bench.machine.ioctl(file, ECHO, b"abc", 16).unwrap();
    assert_eq!(answer.bytes(), Ok(b"abc".to_vec()));
    bench.end(file);
}

/// The transferred bytes are at most the buffer's:
/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation> (6, 4).
#[test]
fn more_bytes_than_the_buffer_has_are_a_bug_check() {
    let mut bench = Bench::new()
        .on("Read", |request, length| {
            complete_with(request, 0, length as u64 + 1);
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let (code, rule, message) = bug_check(bench.machine.read(file, 8));
    assert_eq!((code, rule), (0x10D, 6), "{message}");
}

/// A completed request is deleted, so its handle is none any more:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestcomplete>
#[test]
fn completing_twice_is_a_bug_check() {
    let mut bench = Bench::new()
        .on("Read", |request, _| {
            complete(request, 0);
            complete(request, 0);
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let (code, rule, message) = bug_check(bench.machine.read(file, 8));
    assert_eq!((code, rule), (0x10D, 5), "{message}");
    assert!(message.contains("deleted"), "{message}");
}

#[test]
fn touching_the_buffer_of_a_completed_request_is_a_bug_check() {
    let mut bench = Bench::new()
        .on("Read", |request, _| {
            let (buffer, _) = output(request, 1).unwrap();
            complete(request, 0);
            unsafe { buffer.write_volatile(1) };
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let (code, _, message) = bug_check(bench.machine.read(file, 8));
    assert_eq!(code, 0xD5, "{message}");
    assert!(message.contains("freed"), "{message}");
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputbuffer>
#[test]
fn a_buffer_that_is_too_small_or_of_the_wrong_sort_is_refused() {
    let mut bench = Bench::new()
        .on("Read", |request, _| {
            assert_eq!(output(request, 9), Err(0xC000_0023_u32.cast_signed()));
            assert_eq!(input(request, 1), Err(0xC000_0010_u32.cast_signed()));
            complete(request, 0);
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    assert!(bench.machine.read(file, 8).unwrap().is_success());
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestgetparameters>
#[test]
fn the_parameters_say_what_was_asked() {
    let mut bench = Bench::new()
        .on("Default", |request, _| {
            let mut parameters: WDF_REQUEST_PARAMETERS = unsafe { std::mem::zeroed() };
            parameters.Size = size_of::<WDF_REQUEST_PARAMETERS>() as u16;
            wdf!(WdfRequestGetParameters: WdfRequestGetParametersTableIndex
                as PFN_WDFREQUESTGETPARAMETERS(request, &raw mut parameters));
            assert_eq!(parameters.Type, 14);
            let control = unsafe { parameters.Parameters.DeviceIoControl };
            assert_eq!(
                (
                    control.IoControlCode,
                    control.InputBufferLength,
                    control.OutputBufferLength
                ),
                (ECHO, 3, 16)
            );
            complete(request, 0);
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    assert!(
        bench
            .machine
            .ioctl(file, ECHO, b"abc", 16)
            .unwrap()
            .is_success()
    );
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/dispatching-methods-for-i-o-requests>
#[test]
fn a_sequential_queue_presents_one_request_at_a_time() {
    for seed in 0..32 {
        let held = Rc::new(RefCell::new(Vec::new()));
        let log = held.clone();
        let mut bench = Bench::with_seed(seed)
            .on("Read", move |request, _| log.borrow_mut().push(request))
            .with_queue(SEQUENTIAL);
        bench.start();
        let file = bench.open();
        let first = bench.machine.begin_read(file, 4).unwrap();
        let second_read = bench.machine.begin_read(file, 4).unwrap();
        assert_eq!(held.borrow().len(), 1);
        let request = held.borrow()[0];
        bench
            .machine
            .run_thread("completer", move || fill(request, b"one"))
            .unwrap();
        assert_eq!(
            bench.machine.wait(first, second()).unwrap().unwrap().data,
            b"one"
        );
        assert_eq!(held.borrow().len(), 2, "the next one is presented");
        let request = held.borrow()[1];
        bench
            .machine
            .run_thread("completer", move || fill(request, b"two"))
            .unwrap();
        assert_eq!(
            bench
                .machine
                .wait(second_read, second())
                .unwrap()
                .unwrap()
                .data,
            b"two"
        );
        bench.end(file);
    }
}

/// `NumberOfPresentedRequests`:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config>
#[test]
fn a_parallel_queue_presents_as_many_as_it_says() {
    let held = Rc::new(RefCell::new(Vec::new()));
    let log = held.clone();
    let mut bench = Bench::new()
        .on("Read", move |request, _| log.borrow_mut().push(request))
        .after_create(|device| {
            let mut config = queue_config(PARALLEL, true);
            config.Settings.Parallel.NumberOfPresentedRequests = 2;
            create_queue(device, config).unwrap();
        });
    bench.start();
    let file = bench.open();
    for _ in 0..3 {
        let _ = bench.machine.begin_read(file, 4).unwrap();
    }
    assert_eq!(held.borrow().len(), 2);
    let list = held.clone();
    bench
        .machine
        .run_thread("completer", move || {
            while let Some(request) = { list.borrow_mut().pop() } {
                complete(request, 0);
            }
        })
        .unwrap();
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrievenextrequest>
#[test]
fn a_manual_queue_gives_requests_when_asked() {
    let made = Rc::new(RefCell::new(std::ptr::null_mut()));
    let slot = made.clone();
    let mut bench = Bench::new().after_create(move |device| {
        *slot.borrow_mut() = create_queue(device, queue_config(MANUAL, true)).unwrap();
    });
    bench.start();
    let queue = *made.borrow();
    let file = bench.open();
    let empty = bench
        .machine
        .run_thread("asker", move || retrieve_next(queue))
        .unwrap();
    assert_eq!(empty, Err(0x8000_001A_u32.cast_signed()));
    let pending = bench.machine.begin_read(file, 4).unwrap();
    bench
        .machine
        .run_thread("asker", move || {
            fill(retrieve_next(queue).unwrap(), b"1234");
        })
        .unwrap();
    assert_eq!(
        bench.machine.wait(pending, second()).unwrap().unwrap().data,
        b"1234"
    );
    bench.end(file);
}

/// `AllowZeroLengthRequests`:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config>
#[test]
fn requests_without_bytes_do_not_reach_the_driver() {
    let mut bench = Bench::new()
        .on("Read", |_, _| panic!("it was not asked for"))
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    assert!(bench.machine.read(file, 0).unwrap().is_success());
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-i-o-queues>
#[test]
fn requests_that_no_handler_takes_are_invalid() {
    let mut bench = Bench::new()
        .on("Read", |request, _| complete(request, 0))
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    assert_eq!(bench.machine.write(file, b"x").unwrap().status, 0xC000_0010);
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuecreate>
#[test]
fn queues_that_make_no_sense_are_refused() {
    let mut bench = Bench::new()
        .on("Read", |request, _| complete(request, 0))
        .after_create(|device| {
            let mut wrong_size = queue_config(PARALLEL, false);
            wrong_size.Size += 4;
            assert_eq!(
                create_queue(device, wrong_size),
                Err(0xC000_0004_u32.cast_signed())
            );
            let mut no_handler = queue_config(PARALLEL, false);
            no_handler.EvtIoRead = None;
            assert_eq!(
                create_queue(device, no_handler),
                Err(0xC020_020B_u32.cast_signed())
            );
            let mut nothing_presented = queue_config(PARALLEL, false);
            nothing_presented
                .Settings
                .Parallel
                .NumberOfPresentedRequests = 0;
            assert_eq!(
                create_queue(device, nothing_presented),
                Err(0xC000_000D_u32.cast_signed())
            );
            create_queue(device, queue_config(PARALLEL, true)).unwrap();
            assert_eq!(
                create_queue(device, queue_config(PARALLEL, true)),
                Err(0xC000_0001_u32.cast_signed())
            );
        });
    bench.start();
    let file = bench.open();
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestop>
#[test]
fn a_stopped_queue_keeps_requests_until_it_is_started() {
    let made = Rc::new(RefCell::new(std::ptr::null_mut()));
    let slot = made.clone();
    let told = Rc::new(RefCell::new(0));
    let count = told.clone();
    let mut bench = Bench::new()
        .on("Read", |request, _| fill(request, b"x"))
        .on("QueueState", move |_, context| {
            *count.borrow_mut() += context;
        })
        .after_create(move |device| {
            *slot.borrow_mut() = create_queue(device, queue_config(SEQUENTIAL, true)).unwrap();
        });
    bench.start();
    let queue = *made.borrow();
    let file = bench.open();
    bench
        .machine
        .run_thread("stopper", move || {
            wdf!(WdfIoQueueStop: WdfIoQueueStopTableIndex
                as PFN_WDFIOQUEUESTOP(queue, Some(queue_state), 7 as *mut std::ffi::c_void));
        })
        .unwrap();
    assert_eq!(
        *told.borrow(),
        7,
        "the driver had no request, so it is told at once"
    );
    let pending = bench.machine.begin_read(file, 1).unwrap();
    assert!(bench.machine.wait(pending, second()).unwrap().is_none());
    bench
        .machine
        .run_thread("starter", move || {
            wdf!(WdfIoQueueStart: WdfIoQueueStartTableIndex as PFN_WDFIOQUEUESTART(queue));
        })
        .unwrap();
    assert_eq!(
        bench.machine.wait(pending, second()).unwrap().unwrap().data,
        b"x"
    );
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuepurgesynchronously>
#[test]
fn a_purge_cancels_what_waits_and_what_is_cancelable() {
    let made = Rc::new(RefCell::new(std::ptr::null_mut()));
    let slot = made.clone();
    let mut bench = Bench::new()
        .on("Read", |request, _| mark_cancelable(request))
        .on("Cancel", |request, _| {
            complete(request, CANCELLED.cast_signed());
        })
        .after_create(move |device| {
            *slot.borrow_mut() = create_queue(device, queue_config(SEQUENTIAL, true)).unwrap();
        });
    bench.start();
    let queue = *made.borrow();
    let file = bench.open();
    let owned = bench.machine.begin_read(file, 1).unwrap();
    let waiting = bench.machine.begin_read(file, 1).unwrap();
    bench
        .machine
        .run_thread("purger", move || {
            wdf!(WdfIoQueuePurgeSynchronously: WdfIoQueuePurgeSynchronouslyTableIndex
                as PFN_WDFIOQUEUEPURGESYNCHRONOUSLY(queue));
        })
        .unwrap();
    for pending in [owned, waiting] {
        assert_eq!(
            bench
                .machine
                .wait(pending, second())
                .unwrap()
                .unwrap()
                .status,
            CANCELLED
        );
    }
    assert_eq!(bench.machine.read(file, 1).unwrap().status, 0xC000_0184);
    bench.end(file);
}

// ---- cancellation -------------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/canceling-i-o-requests>
#[test]
fn a_queued_request_is_cancelled_by_the_framework() {
    let mut bench = Bench::new().with_queue(MANUAL);
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    assert!(bench.machine.cancel(pending).unwrap());
    assert_eq!(
        bench
            .machine
            .wait(pending, second())
            .unwrap()
            .unwrap()
            .status,
        CANCELLED
    );
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nc-wdfrequest-evt_wdf_request_cancel>
#[test]
fn a_cancelable_request_is_cancelled_by_the_driver() {
    let mut bench = Bench::new()
        .on("Read", |request, _| mark_cancelable(request))
        .on("Cancel", |request, _| {
            complete(request, CANCELLED.cast_signed());
        })
        .with_queue(SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    assert!(bench.machine.wait(pending, second()).unwrap().is_none());
    assert!(bench.machine.cancel(pending).unwrap());
    assert_eq!(
        bench
            .machine
            .wait(pending, second())
            .unwrap()
            .unwrap()
            .status,
        CANCELLED
    );
    assert!(!bench.machine.cancel(pending).unwrap(), "it is over");
    bench.end(file);
}

#[test]
fn a_request_that_is_not_cancelable_outlives_its_cancellation() {
    let mut bench = Bench::new().on("Read", |_, _| {}).with_queue(SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    assert!(bench.machine.cancel(pending).unwrap());
    assert!(bench.machine.wait(pending, second()).unwrap().is_none());
}

/// Whoever unmarks first completes; the other leaves it alone:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/synchronizing-cancel-and-completion-code>
#[test]
fn completion_and_cancellation_race_to_one_end() {
    let mut ends = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let held = Rc::new(RefCell::new(std::ptr::null_mut()));
        let slot = held.clone();
        let mut bench = Bench::with_seed(seed)
            .on("Read", move |request, _| {
                *slot.borrow_mut() = request;
                mark_cancelable(request);
            })
            .on("Cancel", |request, _| {
                complete(request, CANCELLED.cast_signed());
            })
            .with_queue(SEQUENTIAL);
        bench.start();
        let file = bench.open();
        let pending = bench.machine.begin_read(file, 4).unwrap();
        let request = *held.borrow();
        let completer = bench.machine.spawn_thread("completer", move || {
            // A reference keeps the handle good, as the documentation asks for.
            if unmark_cancelable(request) == 0 {
                complete(request, 0);
            }
        });
        let canceller = bench
            .machine
            .spawn_thread("canceller", move || pending.cancel());
        let joined = bench.machine.join(completer);
        if let Err(stop) = joined {
            // The cancellation was over before the driver unmarked: without a
            // reference of the driver's the handle is gone.
            assert!(stop.message.contains("deleted"), "{stop}");
            ends.insert(0x10D);
            continue;
        }
        bench.machine.join(canceller).unwrap();
        let end = bench
            .machine
            .wait(pending, second())
            .unwrap()
            .unwrap()
            .status;
        ends.insert(end);
        bench.end(file);
    }
    assert!(
        ends.contains(&0) && (ends.contains(&CANCELLED) || ends.contains(&0x10D)),
        "{ends:?}"
    );
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestmarkcancelable>
#[test]
fn completing_a_cancelable_request_is_caught() {
    let mut bench = Bench::new()
        .on("Read", |request, _| {
            mark_cancelable(request);
            complete(request, 0);
        })
        .with_queue(SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let (code, _, message) = bug_check(bench.machine.read(file, 4));
    assert_eq!(code, 0x1E);
    assert!(message.contains("cancelable"), "{message}");
}

/// Only for requests that the driver had before:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_canceled_on_queue>
#[test]
fn a_forwarded_request_is_cancelled_through_the_queues_callback() {
    let manual = Rc::new(RefCell::new(std::ptr::null_mut()));
    let (slot, target) = (manual.clone(), manual.clone());
    let mut bench = Bench::new()
        .on("Read", move |request, _| {
            assert_eq!(forward(request, *target.borrow()), 0);
        })
        .on("CanceledOnQueue", |request, _| {
            complete(request, CANCELLED.cast_signed());
        })
        .after_create(move |device| {
            create_queue(device, queue_config(PARALLEL, true)).unwrap();
            *slot.borrow_mut() = create_queue(device, queue_config(MANUAL, false)).unwrap();
        });
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    bench.machine.cancel(pending).unwrap();
    assert_eq!(
        bench
            .machine
            .wait(pending, second())
            .unwrap()
            .unwrap()
            .status,
        CANCELLED
    );
    bench.position("EvtIoCanceledOnQueue");
    bench.end(file);
}

// ---- power and removal --------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-power-managed-i-o-queues>
#[test]
fn a_power_managed_queue_holds_requests_while_the_device_sleeps() {
    let mut bench = Bench::new()
        .on("Read", |request, _| fill(request, b"up"))
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    bench.machine.power_down(&bench.device).unwrap();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    assert!(bench.machine.wait(pending, second()).unwrap().is_none());
    bench.machine.power_up(&bench.device).unwrap();
    assert_eq!(
        bench.machine.wait(pending, second()).unwrap().unwrap().data,
        b"up"
    );
    bench.end(file);
}

/// Order: <https://learn.microsoft.com/windows-hardware/drivers/wdf/a-device-enters-a-low-power-state>
/// and <https://learn.microsoft.com/windows-hardware/drivers/wdf/a-device-returns-to-its-working-state>.
#[test]
fn the_driver_is_told_to_stop_between_suspend_and_d0_exit_and_to_resume() {
    let mut bench = Bench::new()
        .on("Read", |_, _| {})
        .on("Stop", |request, flags| {
            assert_eq!(flags, 1, "WdfRequestStopActionSuspend");
            acknowledge(request, false);
        })
        .on("Resume", |request, _| fill(request, b"on"))
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    bench.machine.power_down(&bench.device).unwrap();
    bench.machine.power_up(&bench.device).unwrap();
    assert_eq!(
        bench.machine.wait(pending, second()).unwrap().unwrap().data,
        b"on"
    );
    assert!(bench.position("EvtDeviceSelfManagedIoSuspend") < bench.position("EvtIoStop"));
    assert!(bench.position("EvtIoStop") < bench.position("EvtDeviceD0Exit"));
    assert!(bench.position("EvtIoResume") < bench.position("EvtDeviceSelfManagedIoRestart"));
    bench.end(file);
}

/// `WdfRequestStopAcknowledge(TRUE)`:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequeststopacknowledge>
#[test]
fn a_requeued_request_is_presented_again_after_power_up() {
    let count = Rc::new(RefCell::new(0));
    let presented = count.clone();
    let mut bench = Bench::new()
        .on("Read", move |request, _| {
            *presented.borrow_mut() += 1;
            if *presented.borrow() == 2 {
                fill(request, b"2");
            }
        })
        .on("Stop", |request, _| acknowledge(request, true))
        .with_queue(SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    bench.machine.power_down(&bench.device).unwrap();
    assert_eq!(*count.borrow(), 1);
    bench.machine.power_up(&bench.device).unwrap();
    assert_eq!(
        bench.machine.wait(pending, second()).unwrap().unwrap().data,
        b"2"
    );
    bench.end(file);
}

/// Without an `EvtIoStop` the framework waits for the driver's requests:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop>
#[test]
fn a_device_whose_driver_keeps_a_request_never_goes_to_sleep() {
    let mut bench = Bench::new().on("Read", |_, _| {}).with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let _ = bench.machine.begin_read(file, 4).unwrap();
    match bench.machine.power_down(&bench.device) {
        Err(Error::Stop(stop)) => assert_eq!(stop.kind, StopKind::Deadlock, "{stop}"),
        other => panic!("{other:?}"),
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/surprise-removal-sequence>
#[test]
fn a_surprise_removal_purges_the_queues_and_the_device_stays_until_its_files_are_closed() {
    let mut bench = Bench::new()
        .on("Write", |_, _| {})
        .on("Stop", |request, flags| {
            assert_eq!(flags, 2, "WdfRequestStopActionPurge");
            complete(request, CANCELLED.cast_signed());
        })
        .after_create(|device| {
            create_queue(device, queue_config(SEQUENTIAL, true)).unwrap();
        });
    bench.start();
    let file = bench.open();
    let owned = bench.machine.begin_write(file, b"1").unwrap();
    let waiting = bench.machine.begin_write(file, b"2").unwrap();
    bench.machine.surprise_remove(&bench.device).unwrap();
    for pending in [owned, waiting] {
        assert_eq!(
            bench
                .machine
                .wait(pending, second())
                .unwrap()
                .unwrap()
                .status,
            CANCELLED
        );
    }
    assert_eq!(bench.machine.write(file, b"3").unwrap().status, 0xC000_0184);
    match bench.machine.open(r"\\.\Probe") {
        Err(Error::Driver { status, .. }) => assert_eq!(status, 0xC000_000E),
        other => panic!("{other:?}"),
    }
    bench.machine.close(file).unwrap();
    let text = format!("{:?}", bench.machine.trace().last());
    assert!(text.contains("nothing is left behind"), "{text}");
}

#[test]
fn a_device_with_open_files_is_not_removed_in_good_order() {
    let mut bench = Bench::new()
        .on("Read", |request, _| complete(request, 0))
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    assert!(matches!(
        bench.machine.remove_device(&bench.device),
        Err(Error::State { state: "open", .. })
    ));
    bench.end(file);
}

// ---- files --------------------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-file-objects>
#[test]
fn a_file_is_created_cleaned_up_and_closed() {
    let mut bench = Bench::new()
        .before_create(with_file_object)
        .on("FileCreate", |request, _| complete(request, 0))
        .with_queue(MANUAL);
    bench.start();
    let file = bench.open();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    bench.machine.close(file).unwrap();
    let ended = bench.machine.wait(pending, second()).unwrap().unwrap();
    assert_eq!(
        ended.status, CANCELLED,
        "what waits in a queue goes with its file"
    );
    assert!(bench.position("EvtDeviceFileCreate") < bench.position("EvtFileCleanup"));
    assert!(bench.position("EvtFileCleanup") < bench.position("EvtFileClose"));
    bench.machine.remove_device(&bench.device).unwrap();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_file_create>
#[test]
fn a_driver_can_refuse_to_be_opened() {
    let mut bench = Bench::new()
        .before_create(with_file_object)
        .on("FileCreate", |request, _| {
            complete(request, 0xC000_0022_u32.cast_signed());
        })
        .with_queue(MANUAL);
    bench.start();
    match bench.machine.open(r"\\.\Probe") {
        Err(Error::Driver { status, .. }) => assert_eq!(status, 0xC000_0022),
        other => panic!("{other:?}"),
    }
    assert!(!bench.callbacks().contains(&"EvtFileClose"));
    bench.machine.remove_device(&bench.device).unwrap();
}

#[test]
fn an_unknown_name_is_not_found() {
    let mut bench = Bench::new().with_queue(MANUAL);
    bench.start();
    match bench.machine.open(r"\\.\Other") {
        Err(Error::Driver { status, .. }) => assert_eq!(status, 0xC000_0034),
        other => panic!("{other:?}"),
    }
}

/// Interfaces are enabled when the device has started:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-device-interfaces>
#[test]
fn an_interface_is_opened_by_its_guid() {
    let mut bench = Bench::new().on("Read", |request, _| complete(request, 0)).after_create(|device| {
        create_queue(device, queue_config(PARALLEL, true)).unwrap();
        let guid = ntsim_sys::GUID {
            Data1: 0x0123_4567,
            Data2: 0x89AB,
            Data3: 0xCDEF,
            Data4: [1, 2, 3, 4, 5, 6, 7, 8],
        };
        let status = wdf!(WdfDeviceCreateDeviceInterface: WdfDeviceCreateDeviceInterfaceTableIndex
            as PFN_WDFDEVICECREATEDEVICEINTERFACE(device, &raw const guid, std::ptr::null_mut()));
        assert_eq!(status, 0);
    });
    bench.start();
    let file = bench
        .machine
        .open("{01234567-89AB-CDEF-0102-030405060708}")
        .unwrap();
    assert!(bench.machine.read(file, 1).unwrap().is_success());
    bench.end(file);
}

/// Every schedule ends with all requests completed and nothing left behind.
#[test]
fn users_and_a_removal_do_not_trip_over_each_other() {
    for seed in 0..48 {
        let mut bench = Bench::with_seed(seed)
            .on("Read", |request, _| fill(request, b"x"))
            .with_queue(PARALLEL);
        bench.start();
        let file = bench.open();
        let users: Vec<_> = (0..3)
            .map(|_| {
                bench.machine.spawn_thread("reader", move || {
                    (0..4).map(|_| file.read(1).status).collect::<Vec<_>>()
                })
            })
            .collect();
        bench.machine.surprise_remove(&bench.device).unwrap();
        for user in users {
            for status in bench.machine.join(user).unwrap() {
                assert!(
                    [0, CANCELLED, 0xC000_0184].contains(&status),
                    "seed {seed}: {status:#x}"
                );
            }
        }
        bench.machine.close(file).unwrap();
    }
}

/// A driver that does not synchronise `EvtIoStop` with its completions is caught:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop>
#[test]
fn acknowledging_a_request_that_another_thread_completes_is_caught() {
    let caught = (0..48).any(|seed| {
        let mut bench = Bench::with_seed(seed)
            .on("Read", |request, _| fill(request, b"x"))
            .on("Stop", |request, _| acknowledge(request, false))
            .with_queue(PARALLEL);
        bench.start();
        let file = bench.open();
        let _reader = bench
            .machine
            .spawn_thread("reader", move || file.read(1).status);
        match bench.machine.power_down(&bench.device) {
            Err(Error::Stop(stop)) => {
                assert!(stop.message.contains("WdfRequestStopAcknowledge"), "{stop}");
                true
            }
            _ => false,
        }
    });
    assert!(caught, "no schedule shows the race");
}

// ---- the driver below ---------------------------------------------------

fn ask_lower(device: WDFDEVICE, seconds: Option<i64>) -> (NTSTATUS, Vec<u8>) {
    let target = wdf!(WdfDeviceGetIoTarget: WdfDeviceGetIoTargetTableIndex
        as PFN_WDFDEVICEGETIOTARGET(device));
    let mut buffer = [0_u8; 4];
    let mut output: ntsim_sys::WDF_MEMORY_DESCRIPTOR = unsafe { std::mem::zeroed() };
    output.Type = 1;
    output.u.BufferType.Buffer = buffer.as_mut_ptr().cast();
    output.u.BufferType.Length = 4;
    let mut options: ntsim_sys::WDF_REQUEST_SEND_OPTIONS = unsafe { std::mem::zeroed() };
    options.Size = size_of::<ntsim_sys::WDF_REQUEST_SEND_OPTIONS>() as u32;
    if let Some(seconds) = seconds {
        options.Flags = 1;
        options.Timeout = -seconds * 10_000_000;
    }
    let mut returned = 0;
    let status = wdf!(WdfIoTargetSendIoctlSynchronously: WdfIoTargetSendIoctlSynchronouslyTableIndex
        as PFN_WDFIOTARGETSENDIOCTLSYNCHRONOUSLY(target, std::ptr::null_mut(), ECHO, std::ptr::null_mut(),
            &raw mut output, &raw mut options, &raw mut returned));
    (status, buffer[..returned as usize].to_vec())
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetsendioctlsynchronously>
#[test]
fn the_lower_driver_answers_at_once_later_or_never() {
    let made = Rc::new(RefCell::new(std::ptr::null_mut()));
    let slot = made.clone();
    let mut bench = Bench::new().after_create(move |device| *slot.borrow_mut() = device);
    bench.start();
    let device = *made.borrow();
    let mut ask = |answer: Answer, seconds| {
        bench.machine.set_lower_driver(&bench.device, move |asked| {
            assert!(matches!(
                asked,
                LowerRequest::Control {
                    code: ECHO,
                    output: 4,
                    ..
                }
            ));
            answer.clone()
        });
        let before = bench.machine.now();
        let result = bench
            .machine
            .run_thread("sender", move || ask_lower(device, seconds))
            .unwrap();
        (result, bench.machine.now().checked_sub(before).unwrap())
    };
    let (answered, took) = ask(Answer::Now(0, b"now".to_vec()), None);
    assert_eq!((answered, took), ((0, b"now".to_vec()), Duration::ZERO));
    let (answered, took) = ask(Answer::After(second(), 0, b"late".to_vec()), Some(5));
    assert_eq!(answered, (0, b"late".to_vec()));
    assert!(took >= second() && took < 2 * second(), "{took:?}");
    let ((status, _), took) = ask(Answer::Never, Some(2));
    assert_eq!(status, 0xC000_00B5_u32.cast_signed());
    assert!(took <= 3 * second(), "{took:?}");
    bench.machine.remove_device(&bench.device).unwrap();
}
