// SPDX-License-Identifier: MIT OR Apache-2.0

//! What KMDF promises of queues beyond presenting requests: draining, finding,
//! forwarding, power; of direct I/O; of control codes from other drivers; of
//! files whose requests outlive them. On the raw interface.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of structures and of short strings"
)]

#[path = "support/io_driver.rs"]
#[macro_use]
mod io_driver;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use io_driver::*;
use ntsim_sys::{MDL, NTSTATUS, WDF_REQUEST_PARAMETERS, WDFDEVICE, WDFQUEUE, WDFREQUEST};

const PENDING_QUEUE: usize = 7;
const INVALID_PARAMETER: NTSTATUS = 0xC000_000D_u32.cast_signed();
const INVALID_DEVICE_REQUEST: NTSTATUS = 0xC000_0010_u32.cast_signed();
const INVALID_DEVICE_STATE: u32 = 0xC000_0184;
const NO_MORE_ENTRIES: NTSTATUS = 0x8000_001A_u32.cast_signed();
const NOT_FOUND: NTSTATUS = 0xC000_0225_u32.cast_signed();
const BUFFER_TOO_SMALL: NTSTATUS = 0xC000_0023_u32.cast_signed();
const WDF_PAUSED: NTSTATUS = 0xC020_0203_u32.cast_signed();
const WDF_BUSY: NTSTATUS = 0xC020_0204_u32.cast_signed();

/// Calls a function of a queue that takes nothing else.
macro_rules! queue_call {
    ($queue:expr, $name:ident: $index:ident as $pointer:ident) => {
        wdf!($name: $index as $pointer($queue))
    };
}

/// What the driver has, oldest first.
#[derive(Clone, Default)]
struct Held(Rc<RefCell<Vec<WDFREQUEST>>>);

impl Held {
    fn handler(&self) -> impl Fn(WDFREQUEST, usize) + use<> {
        let held = self.0.clone();
        move |request, _| held.borrow_mut().push(request)
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Completes the oldest, on a thread of its own.
    fn complete_oldest(&self, bench: &mut Bench) {
        let request = self.0.borrow_mut().remove(0);
        on_thread(bench, move || complete(request, 0));
    }
}

/// A queue that is made with the device.
#[derive(Clone, Default)]
struct Made(Rc<Cell<WDFQUEUE>>);

impl Made {
    fn get(&self) -> WDFQUEUE {
        self.0.get()
    }
}

fn on_thread<R: 'static>(bench: &mut Bench, body: impl FnOnce() -> R + 'static) -> R {
    bench
        .machine
        .run_thread("driver's thread", body)
        .unwrap_or_else(|stop| panic!("{stop}"))
}

/// A device with this default queue.
fn device_with(bench: Bench, dispatch: i32) -> (Bench, Made) {
    let made = Made::default();
    let slot = made.clone();
    let bench = bench.after_create(move |device| {
        slot.0
            .set(create_queue(device, queue_config(dispatch, true)).unwrap());
    });
    (bench, made)
}

fn status(bench: &mut Bench, pending: ntsim::Pending) -> u32 {
    let ended = bench.machine.wait(pending, second()).unwrap();
    ended.expect("the request is completed").status
}

fn state(queue: WDFQUEUE) -> (i32, u32, u32) {
    let (mut waiting, mut owned) = (0, 0);
    let flags = wdf!(WdfIoQueueGetState: WdfIoQueueGetStateTableIndex
        as PFN_WDFIOQUEUEGETSTATE(queue, &raw mut waiting, &raw mut owned));
    (flags, waiting, owned)
}

// ---- draining and stopping ----------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuedrain>
#[test]
fn a_drain_presents_what_waits_refuses_the_rest_and_tells_when_all_is_done() {
    let (held, told) = (Held::default(), Rc::new(Cell::new(0)));
    let count = told.clone();
    let bench = Bench::new()
        .on("Read", held.handler())
        .on("QueueState", move |_, context| {
            count.set(count.get() + context);
        });
    let (mut bench, queue) = device_with(bench, SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let reads = [(); 2].map(|()| bench.machine.begin_read(file, 4).unwrap());
    let queue = queue.get();
    on_thread(&mut bench, move || {
        wdf!(WdfIoQueueDrain: WdfIoQueueDrainTableIndex
            as PFN_WDFIOQUEUEDRAIN(queue, Some(queue_state), PENDING_QUEUE as *mut std::ffi::c_void));
    });
    let refused = bench.machine.read(file, 4).unwrap();
    assert_eq!(refused.status, INVALID_DEVICE_STATE);
    for read in reads {
        assert_eq!(told.get(), 0, "requests are there still");
        held.complete_oldest(&mut bench);
        assert_eq!(status(&mut bench, read), 0);
    }
    assert_eq!(told.get(), PENDING_QUEUE);
    on_thread(&mut bench, move || {
        queue_call!(queue, WdfIoQueueStart: WdfIoQueueStartTableIndex as PFN_WDFIOQUEUESTART);
    });
    let read = bench.machine.begin_read(file, 4).unwrap();
    held.complete_oldest(&mut bench);
    assert_eq!(status(&mut bench, read), 0, "a start takes requests again");
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestopsynchronously>
#[test]
fn a_synchronous_stop_returns_when_the_driver_has_no_request() {
    for seed in 0..16 {
        let held = Held::default();
        let (mut bench, queue) = device_with(
            Bench::with_seed(seed).on("Read", held.handler()),
            SEQUENTIAL,
        );
        bench.start();
        let file = bench.open();
        let reads = [(); 2].map(|()| bench.machine.begin_read(file, 4).unwrap());
        let queue = queue.get();
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        let stopper = bench.machine.spawn_thread("stopper", move || {
            queue_call!(queue, WdfIoQueueStopSynchronously: WdfIoQueueStopSynchronouslyTableIndex
                as PFN_WDFIOQUEUESTOPSYNCHRONOUSLY);
            flag.set(true);
        });
        bench.machine.run_for(second()).unwrap();
        assert!(!done.get(), "seed {seed}");
        held.complete_oldest(&mut bench);
        bench.machine.join(stopper).unwrap();
        assert_eq!(held.count(), 0, "seed {seed}: nothing new is presented");
        // Accepts, does not dispatch; one waits, the driver has none.
        assert_eq!(on_thread(&mut bench, move || state(queue)), (1 | 8, 1, 0));
        on_thread(&mut bench, move || {
            queue_call!(queue, WdfIoQueueStart: WdfIoQueueStartTableIndex as PFN_WDFIOQUEUESTART);
        });
        held.complete_oldest(&mut bench);
        for read in reads {
            assert_eq!(status(&mut bench, read), 0);
        }
        bench.end(file);
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestopandpurgesynchronously>
#[test]
fn a_stop_with_purge_cancels_what_is_there_and_keeps_what_comes() {
    let (mut bench, queue) = device_with(Bench::new(), MANUAL);
    bench.start();
    let file = bench.open();
    let before = bench.machine.begin_read(file, 4).unwrap();
    let queue = queue.get();
    on_thread(&mut bench, move || {
        queue_call!(queue, WdfIoQueueStopAndPurgeSynchronously:
            WdfIoQueueStopAndPurgeSynchronouslyTableIndex as PFN_WDFIOQUEUESTOPANDPURGESYNCHRONOUSLY);
    });
    assert_eq!(status(&mut bench, before), CANCELLED);
    let after = bench.machine.begin_read(file, 4).unwrap();
    let paused = on_thread(&mut bench, move || retrieve_next(queue));
    assert_eq!(paused, Err(WDF_PAUSED));
    assert!(bench.machine.wait(after, second()).unwrap().is_none());
    bench.machine.cancel(after).unwrap();
    assert_eq!(status(&mut bench, after), CANCELLED);
    bench.end(file);
}

// ---- finding --------------------------------------------------------------

fn find(
    queue: WDFQUEUE,
    after: WDFREQUEST,
    file: ntsim_sys::WDFFILEOBJECT,
) -> Result<(WDFREQUEST, usize), NTSTATUS> {
    let mut parameters: WDF_REQUEST_PARAMETERS = unsafe { std::mem::zeroed() };
    parameters.Size = size_of::<WDF_REQUEST_PARAMETERS>() as u16;
    let mut found = std::ptr::null_mut();
    let status = wdf!(WdfIoQueueFindRequest: WdfIoQueueFindRequestTableIndex
        as PFN_WDFIOQUEUEFINDREQUEST(queue, after, file, &raw mut parameters, &raw mut found));
    if status < 0 {
        return Err(status);
    }
    let length = unsafe { parameters.Parameters.Read.Length };
    Ok((found, length as usize))
}

fn retrieve_found(queue: WDFQUEUE, found: WDFREQUEST) -> Result<WDFREQUEST, NTSTATUS> {
    let mut request = std::ptr::null_mut();
    let status = wdf!(WdfIoQueueRetrieveFoundRequest: WdfIoQueueRetrieveFoundRequestTableIndex
        as PFN_WDFIOQUEUERETRIEVEFOUNDREQUEST(queue, found, &raw mut request));
    if status < 0 { Err(status) } else { Ok(request) }
}

fn dereference(request: WDFREQUEST) {
    wdf!(WdfObjectDereferenceActual: WdfObjectDereferenceActualTableIndex
        as PFN_WDFOBJECTDEREFERENCEACTUAL(request.cast(), std::ptr::null_mut(), 0, std::ptr::null()));
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuefindrequest>
#[test]
fn a_request_is_found_in_its_place_and_taken_out_of_it() {
    let (mut bench, queue) = device_with(Bench::new(), MANUAL);
    bench.start();
    let file = bench.open();
    let reads = [1, 2, 3].map(|length| bench.machine.begin_read(file, length).unwrap());
    let queue = queue.get();
    let null = std::ptr::null_mut();
    on_thread(&mut bench, move || {
        let (first, length) = find(queue, null, null).unwrap();
        assert_eq!(length, 1);
        let (second, length) = find(queue, first, null).unwrap();
        assert_eq!(length, 2);
        let (third, _) = find(queue, second, null).unwrap();
        assert_eq!(find(queue, third, null), Err(NO_MORE_ENTRIES));
        // Taken out of the middle; after it nothing can be found any more.
        complete(retrieve_found(queue, second).unwrap(), 0);
        for request in [first, third] {
            dereference(request);
        }
        assert_eq!(find(queue, second, null), Err(NOT_FOUND));
        assert_eq!(retrieve_found(queue, second), Err(NOT_FOUND));
        dereference(second);
        assert_eq!(state(queue).1, 2);
    });
    assert_eq!(status(&mut bench, reads[1]), 0);
    bench.machine.close(file).unwrap();
    for read in [reads[0], reads[2]] {
        assert_eq!(status(&mut bench, read), CANCELLED);
    }
    bench.machine.remove_device(&bench.device).unwrap();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrievefoundrequest>
#[test]
fn a_request_that_was_cancelled_since_it_was_found_is_not_there() {
    let (mut bench, queue) = device_with(Bench::new(), MANUAL);
    bench.start();
    let file = bench.open();
    let read = bench.machine.begin_read(file, 1).unwrap();
    let queue = queue.get();
    let null = std::ptr::null_mut();
    let (found, _) = on_thread(&mut bench, move || find(queue, null, null)).unwrap();
    bench.machine.cancel(read).unwrap();
    assert_eq!(status(&mut bench, read), CANCELLED);
    on_thread(&mut bench, move || {
        assert_eq!(retrieve_found(queue, found), Err(NOT_FOUND));
        dereference(found);
    });
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrieverequestbyfileobject>
#[test]
fn requests_are_told_apart_by_their_files() {
    let (mut bench, queue) = device_with(Bench::new().before_create(with_file_object), MANUAL);
    let mut bench = {
        bench = bench.on("FileCreate", |request, _| complete(request, 0));
        bench
    };
    bench.start();
    let files = [(); 2].map(|()| bench.open());
    let reads = [0, 1, 0].map(|at| bench.machine.begin_read(files[at], at + 1).unwrap());
    let queue = queue.get();
    let null = std::ptr::null_mut();
    on_thread(&mut bench, move || {
        let first = retrieve_next(queue).unwrap();
        let file = wdf!(WdfRequestGetFileObject: WdfRequestGetFileObjectTableIndex
            as PFN_WDFREQUESTGETFILEOBJECT(first));
        assert!(!file.is_null());
        let (found, length) = find(queue, null, file).unwrap();
        assert_eq!(length, 1, "the other file's is passed over");
        dereference(found);
        let mut second = null;
        let mut by_file = || {
            wdf!(WdfIoQueueRetrieveRequestByFileObject:
                WdfIoQueueRetrieveRequestByFileObjectTableIndex
                as PFN_WDFIOQUEUERETRIEVEREQUESTBYFILEOBJECT(queue, file, &raw mut second))
        };
        assert_eq!(by_file(), 0);
        complete(second, 0);
        assert_eq!(
            wdf!(WdfIoQueueRetrieveRequestByFileObject:
                WdfIoQueueRetrieveRequestByFileObjectTableIndex
                as PFN_WDFIOQUEUERETRIEVEREQUESTBYFILEOBJECT(queue, file, &raw mut second)),
            NO_MORE_ENTRIES
        );
        complete(first, 0);
    });
    for read in [reads[0], reads[2]] {
        assert_eq!(status(&mut bench, read), 0);
    }
    bench.machine.close(files[1]).unwrap();
    assert_eq!(status(&mut bench, reads[1]), CANCELLED);
    bench.end(files[0]);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuereadynotify>
#[test]
fn a_manual_queue_tells_when_it_is_no_longer_empty() {
    fn notify(queue: WDFQUEUE, on: bool) -> NTSTATUS {
        wdf!(WdfIoQueueReadyNotify: WdfIoQueueReadyNotifyTableIndex
            as PFN_WDFIOQUEUEREADYNOTIFY(queue, on.then_some(queue_state as _), std::ptr::without_provenance_mut(1)))
    }
    let told = Rc::new(Cell::new(0));
    let count = told.clone();
    let bench = Bench::new().on("QueueState", move |_, context| {
        count.set(count.get() + context);
    });
    let (mut bench, queue) = device_with(bench, MANUAL);
    bench.start();
    let file = bench.open();
    let queue = queue.get();
    on_thread(&mut bench, move || {
        assert_eq!(notify(queue, true), 0);
        assert_eq!(notify(queue, true), INVALID_DEVICE_REQUEST, "there is one");
    });
    let _ = bench.machine.begin_read(file, 1).unwrap();
    assert_eq!(told.get(), 1);
    let _ = bench.machine.begin_read(file, 1).unwrap();
    assert_eq!(told.get(), 1, "it was not empty");
    on_thread(&mut bench, move || {
        complete(retrieve_next(queue).unwrap(), 0);
        complete(retrieve_next(queue).unwrap(), 0);
    });
    let _ = bench.machine.begin_read(file, 1).unwrap();
    assert_eq!(told.get(), 2);
    on_thread(&mut bench, move || {
        complete(retrieve_next(queue).unwrap(), 0);
        assert_eq!(notify(queue, false), 0);
    });
    let _ = bench.machine.begin_read(file, 1).unwrap();
    assert_eq!(told.get(), 2, "it was taken back");
    bench.end(file);
}

// ---- forwarding, requeuing, routing ---------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestforwardtoioqueue>
#[test]
fn a_request_is_forwarded_unless_the_queue_is_its_own_or_takes_none() {
    let (other, seen) = (Made::default(), Rc::new(RefCell::new(Vec::new())));
    let (slot, target, log) = (other.clone(), other.clone(), seen.clone());
    let own = Made::default();
    let own_slot = own.clone();
    let mut bench = Bench::new()
        .on("Read", move |request, _| {
            log.borrow_mut().push(forward(request, own.get()));
            let status = forward(request, target.get());
            log.borrow_mut().push(status);
            if status < 0 {
                complete(request, status);
            }
        })
        .after_create(move |device| {
            own_slot
                .0
                .set(create_queue(device, queue_config(PARALLEL, true)).unwrap());
            slot.0
                .set(create_queue(device, queue_config(MANUAL, false)).unwrap());
        });
    bench.start();
    let file = bench.open();
    let read = bench.machine.begin_read(file, 1).unwrap();
    assert_eq!(*seen.borrow(), [INVALID_DEVICE_REQUEST, 0]);
    let other = other.get();
    on_thread(&mut bench, move || {
        // Back to the head of the queue that it was taken from.
        let request = retrieve_next(other).unwrap();
        let status =
            wdf!(WdfRequestRequeue: WdfRequestRequeueTableIndex as PFN_WDFREQUESTREQUEUE(request));
        assert_eq!(status, 0);
        complete(retrieve_next(other).unwrap(), 0);
        queue_call!(other, WdfIoQueuePurgeSynchronously: WdfIoQueuePurgeSynchronouslyTableIndex
            as PFN_WDFIOQUEUEPURGESYNCHRONOUSLY);
    });
    assert_eq!(status(&mut bench, read), 0);
    let refused = bench.machine.read(file, 1).unwrap();
    assert_eq!(refused.status, WDF_BUSY.cast_unsigned());
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestrequeue>
#[test]
fn only_a_manual_queue_takes_its_request_back() {
    let mut bench = Bench::new()
        .on("Read", |request, _| {
            let status = wdf!(WdfRequestRequeue: WdfRequestRequeueTableIndex
                as PFN_WDFREQUESTREQUEUE(request));
            complete(request, status);
        })
        .with_queue(SEQUENTIAL);
    bench.start();
    let file = bench.open();
    let read = bench.machine.read(file, 1).unwrap();
    assert_eq!(read.status, INVALID_DEVICE_REQUEST.cast_unsigned());
    bench.end(file);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceconfigurerequestdispatching>
#[test]
fn a_type_of_requests_goes_to_one_queue() {
    fn route(device: WDFDEVICE, queue: WDFQUEUE, kind: i32) -> NTSTATUS {
        wdf!(WdfDeviceConfigureRequestDispatching: WdfDeviceConfigureRequestDispatchingTableIndex
            as PFN_WDFDEVICECONFIGUREREQUESTDISPATCHING(device, queue, kind))
    }
    let mut bench = Bench::new()
        .on("Read", |request, _| complete(request, 0))
        .after_create(|device| {
            create_queue(device, queue_config(PARALLEL, true)).unwrap();
            let writes = create_queue(device, queue_config(MANUAL, false)).unwrap();
            let (write, cleanup) = (4, 18);
            assert_eq!(route(device, writes, write), 0);
            assert_eq!(route(device, writes, write), WDF_BUSY);
            assert_eq!(route(device, writes, cleanup), INVALID_PARAMETER);
            let mut deaf = queue_config(PARALLEL, false);
            deaf.DispatchType = MANUAL;
            assert_eq!(create_queue(device, deaf), Err(INVALID_PARAMETER));
        });
    bench.start();
    let file = bench.open();
    assert_eq!(bench.machine.read(file, 1).unwrap().status, 0);
    let write = bench.machine.begin_write(file, b"x").unwrap();
    assert!(bench.machine.wait(write, second()).unwrap().is_none());
    bench.end(file);
}

/// `AllowZeroLengthRequests`:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config>
#[test]
fn requests_without_bytes_reach_a_driver_that_asks_for_them() {
    let mut bench = Bench::new()
        .on("Read", |request, length| {
            assert_eq!(length, 0);
            assert_eq!(output(request, 0), Err(BUFFER_TOO_SMALL));
            complete(request, 0);
        })
        .after_create(|device| {
            let mut config = queue_config(PARALLEL, true);
            config.AllowZeroLengthRequests = 1;
            create_queue(device, config).unwrap();
        });
    bench.start();
    let file = bench.open();
    assert_eq!(bench.machine.read(file, 0).unwrap().status, 0);
    bench.position("EvtIoRead");
    bench.end(file);
}

// ---- power ------------------------------------------------------------------

/// The acknowledgement may come after `EvtIoStop` returned, from anywhere:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop>
#[test]
fn a_request_is_acknowledged_late_and_power_waits_for_it() {
    for seed in 0..16 {
        let (held, asked) = (Held::default(), Rc::new(Cell::new(false)));
        let flag = asked.clone();
        let mut bench = Bench::with_seed(seed)
            .on("Read", held.handler())
            .on("Stop", move |_, _| flag.set(true))
            .on("Resume", |request, _| complete(request, 0))
            .with_queue(PARALLEL);
        bench.start();
        let file = bench.open();
        let read = bench.machine.begin_read(file, 4).unwrap();
        let request = held.0.borrow()[0];
        let late = bench.machine.spawn_thread("late", move || {
            let _ = read.wait(second());
            assert!(asked.get());
            acknowledge(request, false);
        });
        bench.machine.power_down(&bench.device).unwrap();
        bench.machine.join(late).unwrap();
        bench.machine.power_up(&bench.device).unwrap();
        assert_eq!(status(&mut bench, read), 0, "seed {seed}");
        assert!(bench.position("EvtIoStop") < bench.position("EvtDeviceD0Exit"));
        bench.end(file);
    }
}

/// `STATUS_CANCELLED`, and the cancel routine is not called:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestmarkcancelableex>
#[test]
fn a_request_that_is_cancelled_already_is_not_marked() {
    let held = Held::default();
    let mut bench = Bench::new()
        .on("Read", held.handler())
        .on("Cancel", |_, _| panic!("it is the driver's to complete"))
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let read = bench.machine.begin_read(file, 4).unwrap();
    bench.machine.cancel(read).unwrap();
    let request = held.0.borrow_mut().remove(0);
    let marked = on_thread(&mut bench, move || {
        let status = wdf!(WdfRequestMarkCancelableEx: WdfRequestMarkCancelableExTableIndex
            as PFN_WDFREQUESTMARKCANCELABLEEX(request, Some(request_cancel)));
        complete(request, status);
        status
    });
    assert_eq!(marked.cast_unsigned(), CANCELLED);
    assert_eq!(status(&mut bench, read), CANCELLED);
    bench.end(file);
}

// ---- direct I/O -------------------------------------------------------------

fn direct_io(init: ntsim_sys::PWDFDEVICE_INIT) {
    let direct = 3;
    wdf!(WdfDeviceInitSetIoType: WdfDeviceInitSetIoTypeTableIndex
        as PFN_WDFDEVICEINITSETIOTYPE(init, direct));
}

fn output_mdl(request: WDFREQUEST) -> Result<MDL, NTSTATUS> {
    let mut mdl = std::ptr::null_mut();
    let status = wdf!(WdfRequestRetrieveOutputWdmMdl: WdfRequestRetrieveOutputWdmMdlTableIndex
        as PFN_WDFREQUESTRETRIEVEOUTPUTWDMMDL(request, &raw mut mdl));
    if status < 0 {
        Err(status)
    } else {
        Ok(unsafe { mdl.read() })
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputwdmmdl>
#[test]
fn the_mdl_of_a_direct_read_describes_the_buffer_that_the_driver_writes() {
    for init in [None, Some(direct_io as fn(_))] {
        let mapped = if init.is_some() { 1 | 2 | 0x80 } else { 4 };
        let mut bench = Bench::new()
            .before_create(move |device| {
                if let Some(init) = init {
                    init(device);
                }
            })
            .on("Read", move |request, length| {
                let mdl = output_mdl(request).unwrap();
                assert_eq!(mdl.ByteCount as usize, length);
                assert_eq!(i32::from(mdl.MdlFlags), mapped);
                let (buffer, _) = output(request, 1).unwrap();
                assert_eq!(mdl.MappedSystemVa.cast(), buffer);
                let start = mdl.StartVa.addr() + mdl.ByteOffset as usize;
                assert_eq!(start, buffer.addr());
                assert_eq!(mdl.StartVa.addr() % 4096, 0);
                assert_eq!(output_mdl(request).unwrap().StartVa, mdl.StartVa);
                let mut none = std::ptr::null_mut();
                let input = wdf!(WdfRequestRetrieveInputWdmMdl:
                    WdfRequestRetrieveInputWdmMdlTableIndex
                    as PFN_WDFREQUESTRETRIEVEINPUTWDMMDL(request, &raw mut none));
                assert_eq!((input, none.is_null()), (INVALID_DEVICE_REQUEST, true));
                fill(request, b"pages");
            })
            .with_queue(PARALLEL);
        bench.start();
        let file = bench.open();
        assert_eq!(bench.machine.read(file, 5000).unwrap().data, b"pages");
        bench.end(file);
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/kernel/buffer-descriptions-for-i-o-control-codes>
#[test]
fn each_method_gives_the_driver_the_buffers_it_says() {
    let code = |method: u32| 0x0022_2000 | method;
    let mut bench = Bench::new()
        .on("Control", |request, code| match code & 3 {
            // METHOD_IN_DIRECT: the second buffer is more input.
            1 => {
                let more = output(request, 3).unwrap();
                let more = unsafe { std::slice::from_raw_parts(more.0, more.1) };
                assert_eq!(
                    (input(request, 1).unwrap().as_slice(), more),
                    (&b"in"[..], &b"two"[..])
                );
                complete(request, 0);
            }
            // METHOD_OUT_DIRECT: the input stays while the output is written.
            2 => {
                let (buffer, length) = output(request, 3).unwrap();
                assert_eq!(length, 3);
                unsafe { buffer.copy_from_nonoverlapping(b"out".as_ptr(), 3) };
                assert_eq!(input(request, 1).unwrap(), b"in");
                complete_with(request, 0, 3);
            }
            // METHOD_NEITHER: the framework gives nothing.
            _ => {
                assert_eq!(input(request, 1), Err(INVALID_DEVICE_REQUEST));
                assert_eq!(output(request, 1), Err(INVALID_DEVICE_REQUEST));
                assert!(output_mdl(request).is_err());
                complete(request, 0);
            }
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let sent = bench
        .machine
        .begin_ioctl_with(file, code(1), b"in", b"two")
        .unwrap();
    assert_eq!(status(&mut bench, sent), 0);
    let answer = bench.machine.ioctl(file, code(2), b"in", 3).unwrap();
    assert_eq!(answer.bytes(), Ok(b"out".to_vec()));
    assert!(
        bench
            .machine
            .ioctl(file, code(3), b"in", 3)
            .unwrap()
            .is_success()
    );
    bench.end(file);
}

// ---- from a driver above ------------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_internal_device_control>,
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestgetrequestormode>
#[test]
fn an_internal_control_code_comes_from_the_kernel_to_a_handler_of_its_own() {
    fn mode(request: WDFREQUEST) -> i8 {
        wdf!(WdfRequestGetRequestorMode: WdfRequestGetRequestorModeTableIndex
            as PFN_WDFREQUESTGETREQUESTORMODE(request))
    }
    let mut bench = Bench::new()
        .on("Control", |request, _| {
            assert_eq!(mode(request), 1);
            complete(request, 0);
        })
        .on("Internal", |request, code| {
            assert_eq!((mode(request), code as u32), (0, ECHO));
            let bytes = input(request, 1).unwrap();
            fill(request, &bytes);
        })
        .with_queue(PARALLEL);
    bench.start();
    let file = bench.open();
    let answer = bench
        .machine
        .run_thread("the driver above", move || {
            file.internal_ioctl(ECHO, b"abc", 8)
        })
        .unwrap();
    assert_eq!(answer.data, b"abc");
    assert!(
        bench
            .machine
            .ioctl(file, ECHO, b"abc", 8)
            .unwrap()
            .is_success()
    );
    bench.end(file);
}

// ---- files --------------------------------------------------------------------

/// Cleanup when the last handle goes, close when the last request does:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-file-objects>
#[test]
fn a_file_is_closed_after_its_last_request_which_is_after_its_cleanup() {
    for seed in 0..16 {
        let held = Held::default();
        let mut bench = Bench::with_seed(seed)
            .before_create(with_file_object)
            .on("FileCreate", |request, _| complete(request, 0))
            .on("Read", held.handler())
            .with_queue(PARALLEL);
        bench.start();
        let file = bench.open();
        let read = bench.machine.begin_read(file, 4).unwrap();
        bench.machine.close(file).unwrap();
        bench.position("EvtFileCleanup");
        assert!(!bench.callbacks().contains(&"EvtFileClose"), "seed {seed}");
        held.complete_oldest(&mut bench);
        assert_eq!(status(&mut bench, read), 0);
        bench.position("EvtFileClose");
        bench.machine.remove_device(&bench.device).unwrap();
    }
}

// ---- what is not simulated ------------------------------------------------------

/// `WdfIoQueueAssignForwardProgressPolicy` and `EvtIoInCallerContext` stop by name.
#[test]
fn forward_progress_and_the_callers_context_are_named_as_not_simulated() {
    let made = Rc::new(Cell::new(std::ptr::null_mut()));
    let slot = made.clone();
    let mut bench = Bench::new().after_create(move |device| {
        slot.set(create_queue(device, queue_config(MANUAL, true)).unwrap());
    });
    bench.start();
    let queue = made.get();
    let stop = bench
        .machine
        .run_thread("driver's thread", move || {
            wdf!(WdfIoQueueAssignForwardProgressPolicy:
                WdfIoQueueAssignForwardProgressPolicyTableIndex
                as PFN_WDFIOQUEUEASSIGNFORWARDPROGRESSPOLICY(queue, std::ptr::null_mut()))
        })
        .unwrap_err();
    assert!(
        stop.message
            .contains("WdfIoQueueAssignForwardProgressPolicy"),
        "{stop}"
    );

    let mut bench = Bench::new().before_create(|init| {
        wdf!(WdfDeviceInitSetIoInCallerContextCallback:
            WdfDeviceInitSetIoInCallerContextCallbackTableIndex
            as PFN_WDFDEVICEINITSETIOINCALLERCONTEXTCALLBACK(init, None));
    });
    let stop = bench.machine.start_device(&bench.device).unwrap_err();
    assert!(
        stop.to_string()
            .contains("WdfDeviceInitSetIoInCallerContextCallback"),
        "{stop}"
    );
}
