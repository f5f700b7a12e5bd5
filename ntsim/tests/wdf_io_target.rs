// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF's I/O targets and the requests that a driver makes itself: a driver
//! linked into this program, written against the raw interface as a C driver
//! would be.

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

#[macro_use]
#[path = "support/raw.rs"]
mod raw;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ntsim::machine::Error;
use ntsim::{Answer, LowerRequest, Machine};
use ntsim_sys::{
    DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PVOID, PWDF_REQUEST_COMPLETION_PARAMS,
    PWDFDEVICE_INIT, UNICODE_STRING, WDF_DRIVER_CONFIG, WDF_IO_QUEUE_CONFIG,
    WDF_IO_TARGET_OPEN_PARAMS, WDF_REQUEST_COMPLETION_PARAMS, WDF_REQUEST_REUSE_PARAMS,
    WDF_REQUEST_SEND_OPTIONS, WDFDEVICE, WDFDRIVER, WDFIOTARGET, WDFMEMORY, WDFMEMORY_OFFSET,
    WDFQUEUE, WDFREQUEST,
};
use raw::attributes;

unsafe extern "C-unwind" {
    safe fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *const i64) -> NTSTATUS;
    safe fn KeGetCurrentIrql() -> u8;
}

const SUCCESS: NTSTATUS = 0;
const fn code(status: u32) -> NTSTATUS {
    status.cast_signed()
}
const CANCELLED: NTSTATUS = code(0xC000_0120);
const IO_TIMEOUT: NTSTATUS = code(0xC000_00B5);
const INVALID_DEVICE_STATE: NTSTATUS = code(0xC000_0184);
const INVALID_DEVICE_REQUEST: NTSTATUS = code(0xC000_0010);
const INVALID_PARAMETER: NTSTATUS = code(0xC000_000D);
const NOT_SENT: NTSTATUS = code(0xC020_0206);

const STARTED: i32 = 1;
const STOPPED: i32 = 2;
const CLOSED_FOR_QUERY_REMOVE: i32 = 3;
const CLOSED: i32 = 4;
const PURGED: i32 = 6;

const ECHO: u32 = 0x22_2000;

type Handler = Rc<dyn Fn(WDFREQUEST)>;

/// What the driver of this test does; each test runs on a thread of its own.
#[derive(Default)]
struct Script {
    /// It is a filter.
    filter: bool,
    /// What its default queue does with any request; none: it has no queue.
    handler: Option<Handler>,
    devices: Vec<usize>,
    /// Requests whose completion routine was called.
    landed: Vec<Landed>,
    /// What a completion routine does in addition.
    on_landing: Option<Handler>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Landed {
    request: usize,
    status: NTSTATUS,
    information: u64,
    context: usize,
    kind: i32,
    irql: u8,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

unsafe extern "C-unwind" fn driver_entry(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    let mut config: WDF_DRIVER_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_DRIVER_CONFIG>() as u32;
    config.EvtDriverDeviceAdd = Some(device_add);
    wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        object, path, std::ptr::null_mut(), &raw mut config, std::ptr::null_mut()))
}

fn unicode(text: &str) -> UNICODE_STRING {
    let text: Vec<u16> = text.encode_utf16().collect();
    UNICODE_STRING {
        Length: (text.len() * 2) as u16,
        MaximumLength: (text.len() * 2) as u16,
        Buffer: text.leak().as_mut_ptr(),
    }
}

unsafe extern "C-unwind" fn device_add(_: WDFDRIVER, mut init: PWDFDEVICE_INIT) -> NTSTATUS {
    let (filter, handles, number) = SCRIPT.with_borrow(|script| {
        (
            script.filter,
            script.handler.is_some(),
            script.devices.len(),
        )
    });
    if filter {
        wdf!(WdfFdoInitSetFilter: WdfFdoInitSetFilterTableIndex as PFN_WDFFDOINITSETFILTER(init));
    }
    let mut attributes = attributes();
    let mut device: WDFDEVICE = std::ptr::null_mut();
    let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
        as PFN_WDFDEVICECREATE(&raw mut init, &raw mut attributes, &raw mut device));
    assert_eq!(status, SUCCESS);
    let mut name = unicode(&format!(r"\DosDevices\Probe{number}"));
    let status = wdf!(WdfDeviceCreateSymbolicLink: WdfDeviceCreateSymbolicLinkTableIndex
        as PFN_WDFDEVICECREATESYMBOLICLINK(device, &raw mut name));
    assert_eq!(status, SUCCESS);
    if handles {
        let mut config: WDF_IO_QUEUE_CONFIG = unsafe { std::mem::zeroed() };
        config.Size = size_of::<WDF_IO_QUEUE_CONFIG>() as u32;
        config.DispatchType = 2;
        config.Settings.Parallel.NumberOfPresentedRequests = u32::MAX;
        config.PowerManaged = 2;
        config.DefaultQueue = 1;
        config.EvtIoDefault = Some(io_default);
        let status = wdf!(WdfIoQueueCreate: WdfIoQueueCreateTableIndex
            as PFN_WDFIOQUEUECREATE(device, &raw mut config, std::ptr::null_mut(), std::ptr::null_mut()));
        assert_eq!(status, SUCCESS);
    }
    SCRIPT.with_borrow_mut(|script| script.devices.push(device as usize));
    SUCCESS
}

unsafe extern "C-unwind" fn io_default(_: WDFQUEUE, request: WDFREQUEST) {
    let handler = SCRIPT.with_borrow(|script| script.handler.clone());
    handler.expect("the queue has one")(request);
}

unsafe extern "C-unwind" fn request_cancel(request: WDFREQUEST) {
    wdf!(WdfRequestComplete: WdfRequestCompleteTableIndex as PFN_WDFREQUESTCOMPLETE(request, CANCELLED));
}

unsafe extern "C-unwind" fn completion(
    request: WDFREQUEST,
    _: WDFIOTARGET,
    params: PWDF_REQUEST_COMPLETION_PARAMS,
    context: PVOID,
) {
    let params = unsafe { params.read() };
    let landed = Landed {
        request: request as usize,
        status: unsafe { params.IoStatus.__bindgen_anon_1.Status },
        information: params.IoStatus.Information,
        context: context as usize,
        kind: params.Type,
        irql: KeGetCurrentIrql(),
    };
    let then = SCRIPT.with_borrow_mut(|script| {
        script.landed.push(landed);
        script.on_landing.clone()
    });
    if let Some(then) = then {
        then(request);
    }
}

fn landed() -> Vec<Landed> {
    SCRIPT.with_borrow_mut(|script| std::mem::take(&mut script.landed))
}

// ---- the framework, less its casts ---------------------------------------

fn local_target(device: usize) -> WDFIOTARGET {
    wdf!(WdfDeviceGetIoTarget: WdfDeviceGetIoTargetTableIndex
        as PFN_WDFDEVICEGETIOTARGET(device as WDFDEVICE))
}

fn make(target: WDFIOTARGET) -> WDFREQUEST {
    try_make(target).unwrap()
}

fn try_make(target: WDFIOTARGET) -> Result<WDFREQUEST, NTSTATUS> {
    let mut request = std::ptr::null_mut();
    let status = wdf!(WdfRequestCreate: WdfRequestCreateTableIndex
        as PFN_WDFREQUESTCREATE(std::ptr::null_mut(), target, &raw mut request));
    if status < 0 { Err(status) } else { Ok(request) }
}

fn memory(bytes: &[u8]) -> WDFMEMORY {
    let (mut memory, mut buffer) = (std::ptr::null_mut(), std::ptr::null_mut());
    let status = wdf!(WdfMemoryCreate: WdfMemoryCreateTableIndex
        as PFN_WDFMEMORYCREATE(std::ptr::null_mut(), 512, 0, bytes.len() as _, &raw mut memory, &raw mut buffer));
    assert_eq!(status, SUCCESS);
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), bytes.len()) };
    memory
}

fn contents(memory: WDFMEMORY) -> Vec<u8> {
    let mut size = 0;
    let buffer = wdf!(WdfMemoryGetBuffer: WdfMemoryGetBufferTableIndex
        as PFN_WDFMEMORYGETBUFFER(memory, &raw mut size));
    unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), size) }.to_vec()
}

fn delete(object: PVOID) {
    wdf!(WdfObjectDelete: WdfObjectDeleteTableIndex as PFN_WDFOBJECTDELETE(object));
}

fn format_read(target: WDFIOTARGET, request: WDFREQUEST, memory: WDFMEMORY) -> NTSTATUS {
    let mut offset = 0x1_0000_i64;
    wdf!(WdfIoTargetFormatRequestForRead: WdfIoTargetFormatRequestForReadTableIndex
        as PFN_WDFIOTARGETFORMATREQUESTFORREAD(target, request, memory, std::ptr::null_mut(), &raw mut offset))
}

fn format_ioctl(
    target: WDFIOTARGET,
    request: WDFREQUEST,
    input: WDFMEMORY,
    output: WDFMEMORY,
    offsets: Option<(u64, u64)>,
) -> NTSTATUS {
    let mut part: WDFMEMORY_OFFSET = unsafe { std::mem::zeroed() };
    if let Some((offset, length)) = offsets {
        part.BufferOffset = offset as _;
        part.BufferLength = length as _;
    }
    let part = if offsets.is_some() {
        &raw mut part
    } else {
        std::ptr::null_mut()
    };
    wdf!(WdfIoTargetFormatRequestForIoctl: WdfIoTargetFormatRequestForIoctlTableIndex
        as PFN_WDFIOTARGETFORMATREQUESTFORIOCTL(target, request, ECHO, input, std::ptr::null_mut(), output, part))
}

fn set_routine(request: WDFREQUEST, context: usize) {
    wdf!(WdfRequestSetCompletionRoutine: WdfRequestSetCompletionRoutineTableIndex
        as PFN_WDFREQUESTSETCOMPLETIONROUTINE(request, Some(completion), context as PVOID));
}

const TIMEOUT: u32 = 1;
const SYNCHRONOUS: u32 = 2;
const IGNORE_TARGET_STATE: u32 = 4;
const FORGET: u32 = 8;

/// `WDF_REQUEST_SEND_OPTIONS_INIT`, with a relative timeout if there are milliseconds.
fn options(flags: u32, milliseconds: i64) -> WDF_REQUEST_SEND_OPTIONS {
    let mut options: WDF_REQUEST_SEND_OPTIONS = unsafe { std::mem::zeroed() };
    options.Size = size_of::<WDF_REQUEST_SEND_OPTIONS>() as u32;
    options.Flags = flags as _;
    options.Timeout = -milliseconds * 10_000;
    options
}

fn send(request: WDFREQUEST, target: WDFIOTARGET, flags: u32, milliseconds: i64) -> bool {
    let mut options = options(flags, milliseconds);
    wdf!(WdfRequestSend: WdfRequestSendTableIndex
        as PFN_WDFREQUESTSEND(request, target, &raw mut options))
        != 0
}

fn cancel(request: WDFREQUEST) -> bool {
    wdf!(WdfRequestCancelSentRequest: WdfRequestCancelSentRequestTableIndex
        as PFN_WDFREQUESTCANCELSENTREQUEST(request))
        != 0
}

fn reuse(request: WDFREQUEST) -> NTSTATUS {
    let mut params: WDF_REQUEST_REUSE_PARAMS = unsafe { std::mem::zeroed() };
    params.Size = size_of::<WDF_REQUEST_REUSE_PARAMS>() as u32;
    wdf!(WdfRequestReuse: WdfRequestReuseTableIndex as PFN_WDFREQUESTREUSE(request, &raw mut params))
}

fn status(request: WDFREQUEST) -> NTSTATUS {
    wdf!(WdfRequestGetStatus: WdfRequestGetStatusTableIndex as PFN_WDFREQUESTGETSTATUS(request))
}

fn information(request: WDFREQUEST) -> u64 {
    wdf!(WdfRequestGetInformation: WdfRequestGetInformationTableIndex
        as PFN_WDFREQUESTGETINFORMATION(request)) as u64
}

fn start(target: WDFIOTARGET) -> NTSTATUS {
    wdf!(WdfIoTargetStart: WdfIoTargetStartTableIndex as PFN_WDFIOTARGETSTART(target))
}

const CANCEL_SENT: i32 = 1;
const WAIT_FOR_SENT: i32 = 2;
const LEAVE_SENT: i32 = 3;

fn stop(target: WDFIOTARGET, action: i32) {
    wdf!(WdfIoTargetStop: WdfIoTargetStopTableIndex as PFN_WDFIOTARGETSTOP(target, action));
}

fn purge(target: WDFIOTARGET, action: i32) {
    wdf!(WdfIoTargetPurge: WdfIoTargetPurgeTableIndex as PFN_WDFIOTARGETPURGE(target, action));
}

fn state(target: WDFIOTARGET) -> i32 {
    wdf!(WdfIoTargetGetState: WdfIoTargetGetStateTableIndex as PFN_WDFIOTARGETGETSTATE(target))
        as i32
}

fn create_target(device: usize) -> WDFIOTARGET {
    let mut target = std::ptr::null_mut();
    let status = wdf!(WdfIoTargetCreate: WdfIoTargetCreateTableIndex
        as PFN_WDFIOTARGETCREATE(device as WDFDEVICE, std::ptr::null_mut(), &raw mut target));
    assert_eq!(status, SUCCESS);
    target
}

fn open_params() -> WDF_IO_TARGET_OPEN_PARAMS {
    let mut params: WDF_IO_TARGET_OPEN_PARAMS = unsafe { std::mem::zeroed() };
    params.Size = size_of::<WDF_IO_TARGET_OPEN_PARAMS>() as u32;
    params
}

fn open_with(target: WDFIOTARGET, mut params: WDF_IO_TARGET_OPEN_PARAMS) -> NTSTATUS {
    wdf!(WdfIoTargetOpen: WdfIoTargetOpenTableIndex as PFN_WDFIOTARGETOPEN(target, &raw mut params))
}

fn open(target: WDFIOTARGET, name: &str) -> NTSTATUS {
    let mut params = open_params();
    params.Type = 2;
    params.TargetDeviceName = unicode(name);
    params.DesiredAccess = 0xC000_0000;
    open_with(target, params)
}

fn close(target: WDFIOTARGET) {
    wdf!(WdfIoTargetClose: WdfIoTargetCloseTableIndex as PFN_WDFIOTARGETCLOSE(target));
}

fn sleep(milliseconds: i64) {
    assert_eq!(
        KeDelayExecutionThread(0, 0, &(-milliseconds * 10_000)),
        SUCCESS
    );
}

// ---- the bench -----------------------------------------------------------

/// A machine with the driver installed, and one device of it.
struct Bench {
    machine: Machine,
    device: String,
}

impl Bench {
    fn new(answer: impl Fn(&LowerRequest) -> Answer + 'static) -> Self {
        Self::with(1, Script::default(), answer)
    }

    fn with(seed: u64, script: Script, answer: impl Fn(&LowerRequest) -> Answer + 'static) -> Self {
        SCRIPT.set(script);
        let mut machine = Machine::with_seed(seed);
        let device = machine.add_driver("Probe", driver_entry).unwrap();
        machine.set_lower_driver(&device, answer);
        machine.start_device(&device).unwrap();
        Self { machine, device }
    }

    /// One more device of the same driver.
    fn another(&mut self) -> String {
        let device = self.machine.plug_in(r"Root\Probe").unwrap();
        self.machine.start_device(&device).unwrap();
        device
    }

    /// Runs a piece of driver on a thread of its own, with the first device.
    fn run<R: 'static>(&mut self, body: impl FnOnce(usize) -> R + 'static) -> R {
        let device = SCRIPT.with_borrow(|script| script.devices[0]);
        self.machine
            .run_thread("driver", move || body(device))
            .unwrap_or_else(|stop| panic!("{stop}"))
    }

    /// The same for a piece that ends the simulation; gives the report.
    fn stops(mut self, body: impl FnOnce(usize) + 'static) -> String {
        let device = SCRIPT.with_borrow(|script| script.devices[0]);
        let stop = self.machine.run_thread("driver", move || body(device));
        stop.expect_err("the machine stops").to_string()
    }

    /// Removes the device; nothing is left behind, or this fails.
    fn end(mut self) {
        self.machine.remove_device(&self.device).unwrap();
    }
}

fn after(milliseconds: u64, bytes: &[u8]) -> Answer {
    Answer::After(Duration::from_millis(milliseconds), 0, bytes.to_vec())
}

fn seeds() -> impl Iterator<Item = u64> {
    1..=40
}

// ---- requests of the driver's own ---------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/sending-i-o-requests-asynchronously>
#[test]
fn a_request_of_the_drivers_own_comes_back_to_its_completion_routine_with_the_answer() {
    let mut bench = Bench::new(|asked| match asked {
        LowerRequest::Read { length, offset } => {
            assert_eq!((*length, *offset), (4, 0x1_0000));
            after(20, b"data")
        }
        other => panic!("{other:?}"),
    });
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        assert_eq!(format_read(target, request, buffer), SUCCESS);
        set_routine(request, 0x77);
        assert!(send(request, target, 0, 0));
        assert_eq!(landed(), []);
        sleep(100);
        let one = Landed {
            request: request as usize,
            status: SUCCESS,
            information: 4,
            context: 0x77,
            kind: 3,
            irql: 2,
        };
        assert_eq!(landed(), [one]);
        assert_eq!(contents(buffer), b"data");
        assert_eq!((status(request), information(request)), (SUCCESS, 4));
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

/// A lower driver that completes at once does so before `WdfRequestSend` returns.
#[test]
fn an_answer_at_once_lands_before_send_returns() {
    let mut bench = Bench::new(|_| Answer::Now(0, b"ab".to_vec()));
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        format_read(target, request, buffer);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        let [one] = landed()[..] else { panic!() };
        assert_eq!((one.information, one.irql), (2, 0));
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetformatrequestforioctl>
#[test]
fn formats_take_parts_of_memory_and_refuse_what_is_outside_of_it() {
    let mut bench = Bench::new(|asked| match asked {
        LowerRequest::Control {
            code: ECHO,
            input,
            output: 3,
            internal: false,
        } => Answer::Now(0, input[..2].to_vec()),
        other => panic!("{other:?}"),
    });
    bench.run(|device| {
        let target = local_target(device);
        let request = make(target);
        let (input, output) = (memory(b"input"), memory(&[b'.'; 6]));
        let format = |part| format_ioctl(target, request, input, output, part);
        assert_eq!(format(Some((4, 3))), code(0xC000_0023), "BUFFER_TOO_SMALL");
        assert_eq!(
            format(Some((u64::MAX, 2))),
            code(0xC000_0095),
            "INTEGER_OVERFLOW"
        );
        assert_eq!(format(Some((2, 3))), SUCCESS);
        assert!(send(request, target, SYNCHRONOUS, 0));
        assert_eq!(contents(output), b"..in..");
        let mut params: WDF_REQUEST_COMPLETION_PARAMS = unsafe { std::mem::zeroed() };
        params.Size = size_of::<WDF_REQUEST_COMPLETION_PARAMS>() as u32;
        wdf!(WdfRequestGetCompletionParams: WdfRequestGetCompletionParamsTableIndex
            as PFN_WDFREQUESTGETCOMPLETIONPARAMS(request, &raw mut params));
        let ioctl = unsafe { params.Parameters.Ioctl };
        assert_eq!(ioctl.IoControlCode, ECHO);
        assert_eq!(ioctl.Input.Buffer, input);
        assert_eq!(ioctl.Output.Buffer, output);
        assert_eq!((ioctl.Output.Offset, ioctl.Output.Length), (2, 2));
        for object in [request.cast(), input.cast(), output.cast()] {
            delete(object);
        }
    });
    bench.end();
}

#[test]
fn a_formatted_request_keeps_its_memory_until_it_is_reused() {
    let mut bench = Bench::new(|_| Answer::Now(0, b"late".to_vec()));
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        format_read(target, request, buffer);
        delete(buffer.cast());
        assert!(send(request, target, SYNCHRONOUS, 0));
        assert_eq!(contents(buffer), b"late");
        assert_eq!(reuse(request), SUCCESS);
        delete(request.cast());
    });
    bench.end();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestreuse>
#[test]
fn a_request_is_sent_again_after_it_was_reused_and_formatted() {
    let mut bench = Bench::new(|_| Answer::Now(0, b"x".to_vec()));
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 1]));
        for round in 0..3 {
            assert_eq!(reuse(request), SUCCESS);
            assert!(!send(request, target, 0, 0), "not formatted");
            assert_eq!(status(request), code(0xC000_00D0), "REQUEST_NOT_ACCEPTED");
            format_read(target, request, buffer);
            set_routine(request, round);
            assert!(send(request, target, 0, 0));
            // Its format and its routine are used up.
            assert!(!send(request, target, 0, 0));
            assert_eq!(landed().len(), 1);
        }
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

#[test]
fn a_request_that_was_cancelled_before_it_is_sent_is_not_sent() {
    let mut bench = Bench::new(|asked| panic!("{asked:?}"));
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 1]));
        format_read(target, request, buffer);
        assert!(!cancel(request));
        assert!(!send(request, target, 0, 0));
        assert_eq!(status(request), CANCELLED);
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/canceling-i-o-requests>
#[test]
fn a_sent_request_is_cancelled_if_the_lower_driver_lets_it() {
    let answer = Rc::new(RefCell::new(Answer::Never));
    let next = answer.clone();
    let mut bench = Bench::new(move |_| next.borrow().clone());
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        format_read(target, request, buffer);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        sleep(1000);
        assert_eq!(landed(), []);
        assert!(cancel(request));
        assert_eq!(landed()[0].status, CANCELLED);
        assert!(!cancel(request), "it is back already");
        delete(request.cast());
        delete(buffer.cast());
    });
    *answer.borrow_mut() = Answer::Determined(Duration::from_millis(50), 0, b"done".to_vec());
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        format_read(target, request, buffer);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        assert!(!cancel(request), "nobody was asked");
        sleep(100);
        assert_eq!(landed()[0].status, SUCCESS);
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ns-wdfrequest-_wdf_request_send_options>
#[test]
fn a_timeout_cancels_and_the_status_says_so() {
    let mut bench = Bench::new(|_| Answer::Never);
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        format_read(target, request, buffer);
        set_routine(request, 0);
        assert!(send(request, target, TIMEOUT, 100));
        sleep(60);
        assert_eq!(landed(), []);
        sleep(100);
        let [one] = landed()[..] else { panic!() };
        assert_eq!((one.status, one.irql), (IO_TIMEOUT, 2));
        reuse(request);
        format_read(target, request, buffer);
        assert!(send(request, target, TIMEOUT | SYNCHRONOUS, 100));
        assert_eq!(status(request), IO_TIMEOUT);
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

#[test]
fn cancellation_answer_and_timeout_race_and_one_of_them_ends_the_request() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in seeds() {
        let mut bench = Bench::with(seed, Script::default(), |_| after(31, b"data"));
        let device = SCRIPT.with_borrow(|script| script.devices[0]);
        let request = bench.run(move |device| {
            let target = local_target(device);
            let (request, buffer) = (make(target), memory(&[0; 4]));
            format_read(target, request, buffer);
            delete(buffer.cast());
            set_routine(request, 0);
            request as usize
        });
        let sender = bench.machine.spawn_thread("sender", move || {
            let timeout = if seed % 2 == 0 { 31 } else { 0 };
            assert!(send(
                request as WDFREQUEST,
                local_target(device),
                TIMEOUT,
                timeout
            ));
        });
        let canceler = bench.machine.spawn_thread("canceler", move || {
            sleep(31);
            cancel(request as WDFREQUEST);
        });
        bench.machine.join(sender).unwrap();
        bench.machine.join(canceler).unwrap();
        bench.run(move |_| {
            sleep(100);
            delete(request as PVOID);
        });
        let [one] = landed()[..] else {
            panic!("seed {seed}: not once")
        };
        seen.insert(one.status);
        bench.end();
    }
    assert!(seen.contains(&SUCCESS), "{seen:x?}");
    assert!(
        seen.contains(&CANCELLED) && seen.contains(&IO_TIMEOUT),
        "{seen:x?}"
    );
}

// ---- the target's state --------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetstop>
#[test]
fn a_stopped_target_keeps_requests_until_it_is_started_in_their_order() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let seen = asked.clone();
    let mut bench = Bench::new(move |asked| {
        seen.borrow_mut().push(asked.clone());
        Answer::Now(0, Vec::new())
    });
    let seen = asked.clone();
    bench.run(move |device| {
        let target = local_target(device);
        assert_eq!(state(target), STARTED);
        stop(target, LEAVE_SENT);
        assert_eq!(state(target), STOPPED);
        let buffers = [memory(&[0; 1]), memory(&[0; 2])];
        let requests = buffers.map(|buffer| {
            let request = make(target);
            format_read(target, request, buffer);
            set_routine(request, 0);
            assert!(send(request, target, 0, 0));
            request
        });
        let ignoring = make(target);
        let buffer = memory(&[0; 3]);
        format_read(target, ignoring, buffer);
        assert!(send(ignoring, target, IGNORE_TARGET_STATE, 0));
        let lengths = move || {
            let asked = std::mem::take(&mut *seen.borrow_mut());
            let lengths = asked.iter().map(|asked| match asked {
                LowerRequest::Read { length, .. } => *length,
                other => panic!("{other:?}"),
            });
            lengths.collect::<Vec<_>>()
        };
        assert_eq!(lengths(), [3]);
        assert_eq!(landed(), []);
        assert_eq!(start(target), SUCCESS);
        assert_eq!(lengths(), [1, 2]);
        let order: Vec<_> = landed().iter().map(|landed| landed.request).collect();
        assert_eq!(order, requests.map(|request| request as usize));
        for request in requests.into_iter().chain([ignoring]) {
            delete(request.cast());
        }
        for buffer in buffers.into_iter().chain([buffer]) {
            delete(buffer.cast());
        }
    });
    bench.end();
}

#[test]
fn a_request_that_waits_for_the_start_can_be_cancelled_and_can_time_out() {
    let mut bench = Bench::new(|asked| panic!("{asked:?}"));
    bench.run(|device| {
        let target = local_target(device);
        stop(target, LEAVE_SENT);
        for (timeout, expected) in [(0, CANCELLED), (50, IO_TIMEOUT)] {
            let (request, buffer) = (make(target), memory(&[0; 1]));
            format_read(target, request, buffer);
            set_routine(request, 0);
            assert!(send(request, target, TIMEOUT, timeout));
            sleep(100);
            if timeout == 0 {
                assert!(cancel(request));
            }
            assert_eq!(landed()[0].status, expected);
            delete(request.cast());
            delete(buffer.cast());
        }
        let (mut result, mut wait) = (0, options(TIMEOUT, 50));
        let read = wdf!(WdfIoTargetSendReadSynchronously: WdfIoTargetSendReadSynchronouslyTableIndex
            as PFN_WDFIOTARGETSENDREADSYNCHRONOUSLY(target, std::ptr::null_mut(), std::ptr::null_mut(),
                std::ptr::null_mut(), &raw mut wait, &raw mut result));
        assert_eq!(read, IO_TIMEOUT);
    });
    bench.end();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/ne-wdfiotarget-_wdf_io_target_sent_io_action>
#[test]
fn a_stop_cancels_or_awaits_or_leaves_what_is_sent() {
    for (action, expected) in [(CANCEL_SENT, CANCELLED), (WAIT_FOR_SENT, SUCCESS)] {
        let mut bench = Bench::new(|_| after(50, b""));
        bench.run(move |device| {
            let target = local_target(device);
            let (request, buffer) = (make(target), memory(&[0; 1]));
            format_read(target, request, buffer);
            set_routine(request, 0);
            assert!(send(request, target, 0, 0));
            stop(target, LEAVE_SENT);
            assert_eq!(landed(), []);
            stop(target, action);
            assert_eq!(landed()[0].status, expected);
            delete(request.cast());
            delete(buffer.cast());
        });
        bench.end();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetpurge>
#[test]
fn a_purge_ends_what_is_sent_and_what_waits_and_takes_nothing_new() {
    let mut bench = Bench::new(|_| Answer::Never);
    bench.run(move |device| {
        let target = local_target(device);
        let requests = [0, 1].map(|_| {
            let (request, buffer) = (make(target), memory(&[0; 1]));
            format_read(target, request, buffer);
            delete(buffer.cast());
            set_routine(request, 0);
            assert!(send(request, target, 0, 0));
            stop(target, LEAVE_SENT);
            request
        });
        purge(target, 1);
        assert_eq!(state(target), PURGED);
        let ends: Vec<_> = landed()
            .iter()
            .map(|landed| (landed.request, landed.status))
            .collect();
        let [sent, queued] = requests.map(|request| request as usize);
        assert_eq!(ends, [(queued, NOT_SENT), (sent, CANCELLED)]);
        let (request, buffer) = (requests[0], memory(&[0; 1]));
        reuse(request);
        format_read(target, request, buffer);
        assert!(!send(request, target, 0, 0));
        assert_eq!(status(request), INVALID_DEVICE_STATE);
        assert_eq!(start(target), SUCCESS);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        purge(target, 2);
        assert_eq!(landed().len(), 1);
        for request in requests {
            delete(request.cast());
        }
        delete(buffer.cast());
    });
    bench.end();
}

/// A target goes with its device, and its requests come back before:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/controlling-a-general-i-o-target-s-state>
#[test]
fn removing_the_device_cancels_what_its_target_has() {
    let mut bench = Bench::new(|_| Answer::Never);
    bench.run(move |device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 1]));
        format_read(target, request, buffer);
        delete(buffer.cast());
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        SCRIPT.with_borrow_mut(|script| {
            script.on_landing = Some(Rc::new(|request| delete(request.cast())));
        });
    });
    bench.end();
    assert_eq!(landed()[0].status, CANCELLED);
}

// ---- misuse ---------------------------------------------------------------

fn sent_forever(device: usize) -> WDFREQUEST {
    let target = local_target(device);
    let (request, buffer) = (make(target), memory(&[0; 1]));
    assert_eq!(format_read(target, request, buffer), SUCCESS);
    set_routine(request, 0);
    assert!(send(request, target, 0, 0));
    request
}

/// `WDF_REQUEST_FATAL_ERROR_REQUEST_ALREADY_SENT` of bug check 0x10D/6:
/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation>
#[test]
fn a_request_that_is_sent_must_be_left_alone() {
    let misuses: [fn(usize, WDFREQUEST); 4] = [
        |device, request| {
            send(request, local_target(device), 0, 0);
        },
        |device, request| {
            format_read(local_target(device), request, memory(&[0; 1]));
        },
        |_, request| {
            reuse(request);
        },
        |_, request| delete(request.cast()),
    ];
    for misuse in misuses {
        let report = Bench::new(|_| Answer::Never).stops(move |device| {
            let request = sent_forever(device);
            misuse(device, request);
        });
        assert!(
            report.contains("0x10D") || report.contains("0x0000010d"),
            "{report}"
        );
        assert!(report.contains("is sent to an I/O target"), "{report}");
    }
}

#[test]
fn a_request_of_the_drivers_own_is_never_completed_and_has_no_type() {
    let report = Bench::new(|_| Answer::Never).stops(|device| {
        let request = make(local_target(device));
        wdf!(WdfRequestComplete: WdfRequestCompleteTableIndex as PFN_WDFREQUESTCOMPLETE(request, 0));
    });
    assert!(report.contains("the driver made itself"), "{report}");
    let report = Bench::new(|_| Answer::Never).stops(|device| {
        let request = make(local_target(device));
        wdf!(WdfRequestFormatRequestUsingCurrentType: WdfRequestFormatRequestUsingCurrentTypeTableIndex
            as PFN_WDFREQUESTFORMATREQUESTUSINGCURRENTTYPE(request));
    });
    assert!(report.contains("it has no type yet"), "{report}");
}

#[test]
fn bad_options_are_refused_loudly_and_own_requests_are_not_forgotten() {
    for flags in [0x100, FORGET | SYNCHRONOUS, FORGET | TIMEOUT] {
        let report = Bench::new(|_| Answer::Never).stops(move |device| {
            let target = local_target(device);
            let request = make(target);
            format_read(target, request, memory(&[0; 1]));
            send(request, target, flags, 0);
        });
        assert!(report.contains("options that are refused"), "{report}");
    }
    let mut bench = Bench::new(|_| Answer::Never);
    bench.run(|device| {
        let target = local_target(device);
        let (request, buffer) = (make(target), memory(&[0; 1]));
        format_read(target, request, buffer);
        assert!(!send(request, target, FORGET, 0));
        assert_eq!(status(request), INVALID_DEVICE_STATE);
        delete(request.cast());
        delete(buffer.cast());
    });
    bench.end();
}

// ---- requests from a queue ------------------------------------------------

fn passing(send_on: impl Fn(WDFREQUEST, WDFIOTARGET) + 'static) -> Script {
    Script {
        handler: Some(Rc::new(move |request| {
            let device = SCRIPT.with_borrow(|script| script.devices[0]);
            wdf!(WdfRequestFormatRequestUsingCurrentType: WdfRequestFormatRequestUsingCurrentTypeTableIndex
                as PFN_WDFREQUESTFORMATREQUESTUSINGCURRENTTYPE(request));
            send_on(request, local_target(device));
        })),
        ..Script::default()
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/forwarding-i-o-requests>
#[test]
fn a_received_request_is_passed_on_and_forgotten() {
    let script = passing(|request, target| assert!(send(request, target, FORGET, 0)));
    let mut bench = Bench::with(1, script, |asked| match asked {
        LowerRequest::Read { length: 4, .. } => after(20, b"down"),
        other => panic!("{other:?}"),
    });
    let file = bench.machine.open(r"\\.\Probe0").unwrap();
    let read = bench.machine.read(file, 4).unwrap();
    assert_eq!((read.status, read.data.as_slice()), (0, &b"down"[..]));
    bench.machine.close(file).unwrap();
    bench.end();
}

#[test]
fn a_received_request_comes_back_to_its_completion_routine_which_completes_it() {
    let mut script = passing(|request, target| {
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
    });
    script.on_landing = Some(Rc::new(|request| {
        wdf!(WdfRequestCompleteWithInformation: WdfRequestCompleteWithInformationTableIndex
            as PFN_WDFREQUESTCOMPLETEWITHINFORMATION(request, status(request), information(request) as _));
    }));
    let mut bench = Bench::with(1, script, |asked| match asked {
        LowerRequest::Control {
            code: ECHO, input, ..
        } => after(20, input),
        LowerRequest::Write { .. } => Answer::Transferred(0, 3),
        other => panic!("{other:?}"),
    });
    let file = bench.machine.open(r"\\.\Probe0").unwrap();
    let echoed = bench.machine.ioctl(file, ECHO, b"hello", 8).unwrap();
    assert_eq!(echoed.bytes(), Ok(b"hello".to_vec()));
    let written = bench.machine.write(file, b"much").unwrap();
    assert_eq!((written.status, written.information), (0, 3));
    // Type 255: it was not formatted for a target of its own.
    assert_eq!(
        landed()
            .iter()
            .map(|landed| landed.kind)
            .collect::<Vec<_>>(),
        [255, 255]
    );
    bench.machine.close(file).unwrap();
    bench.end();
}

#[test]
fn a_user_who_cancels_reaches_the_lower_driver() {
    let script = passing(|request, target| assert!(send(request, target, FORGET, 0)));
    let mut bench = Bench::with(1, script, |_| Answer::Never);
    let file = bench.machine.open(r"\\.\Probe0").unwrap();
    let pending = bench.machine.begin_read(file, 4).unwrap();
    assert!(bench.machine.cancel(pending).unwrap());
    let end = bench.machine.wait(pending, Duration::ZERO).unwrap();
    assert_eq!(end.unwrap().status.cast_signed(), CANCELLED);
    bench.machine.close(file).unwrap();
    bench.end();
}

#[test]
fn a_received_request_without_a_routine_is_not_sent_unless_it_is_forgotten() {
    let script = passing(|request, target| {
        send(request, target, 0, 0);
    });
    let mut bench = Bench::with(1, script, |_| Answer::Never);
    let file = bench.machine.open(r"\\.\Probe0").unwrap();
    let report = bench.machine.read(file, 4).expect_err("the machine stops");
    assert!(
        report.to_string().contains("has no completion routine"),
        "{report}"
    );
}

/// What a filter has no queue for goes to the next lower driver:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdffdo/nf-wdffdo-wdffdoinitsetfilter>
#[test]
fn a_filter_without_a_queue_is_transparent() {
    let answer = |asked: &LowerRequest| match asked {
        LowerRequest::Write { bytes, .. } => Answer::Transferred(0, bytes.len()),
        _ => Answer::Now(0, b"below".to_vec()),
    };
    for filter in [true, false] {
        let script = Script {
            filter,
            ..Script::default()
        };
        let mut bench = Bench::with(1, script, answer);
        let file = bench.machine.open(r"\\.\Probe0").unwrap();
        let read = bench.machine.read(file, 8).unwrap();
        let written = bench.machine.write(file, b"123").unwrap();
        if filter {
            assert_eq!(read.bytes(), Ok(b"below".to_vec()));
            assert_eq!((written.status, written.information), (0, 3));
        } else {
            assert_eq!(read.status.cast_signed(), INVALID_DEVICE_REQUEST);
        }
        bench.machine.close(file).unwrap();
        bench.end();
    }
}

// ---- remote targets ---------------------------------------------------------

/// The upper device's own requests would come here too: it has the same driver.
fn serving(serve: impl Fn(WDFREQUEST) + 'static) -> Script {
    Script {
        handler: Some(Rc::new(serve)),
        ..Script::default()
    }
}

fn answer_read(request: WDFREQUEST, bytes: &[u8]) {
    let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
    let status = wdf!(WdfRequestRetrieveOutputBuffer: WdfRequestRetrieveOutputBufferTableIndex
        as PFN_WDFREQUESTRETRIEVEOUTPUTBUFFER(request, bytes.len() as _, &raw mut buffer, &raw mut length));
    assert_eq!(status, SUCCESS);
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), bytes.len()) };
    wdf!(WdfRequestCompleteWithInformation: WdfRequestCompleteWithInformationTableIndex
        as PFN_WDFREQUESTCOMPLETEWITHINFORMATION(request, SUCCESS, bytes.len() as _));
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/initializing-a-general-i-o-target>
#[test]
fn a_remote_target_reaches_the_queue_of_another_device() {
    let mut bench = Bench::with(1, serving(|request| answer_read(request, b"yes")), |_| {
        Answer::Never
    });
    let other = bench.another();
    bench.run(|device| {
        let target = create_target(device);
        assert_eq!(state(target), CLOSED);
        assert_eq!(try_make(target), Err(INVALID_DEVICE_STATE), "closed");
        assert_eq!(open(target, r"\DosDevices\Nowhere"), code(0xC000_0034));
        assert_eq!(open(target, r"\DosDevices\Probe1"), SUCCESS);
        assert_eq!(state(target), STARTED);
        assert_eq!(open(target, r"\DosDevices\Probe1"), INVALID_DEVICE_STATE);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        assert_eq!(format_read(target, request, buffer), SUCCESS);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        let [one] = landed()[..] else { panic!() };
        assert_eq!((one.status, one.information), (SUCCESS, 3));
        assert_eq!(contents(buffer), b"yes\0");
        close(target);
        assert_eq!(state(target), CLOSED);
        assert_eq!(format_read(target, request, buffer), INVALID_DEVICE_STATE);
        let mut params = open_params();
        params.Type = 3;
        assert_eq!(open_with(target, params), SUCCESS, "reopened");
        delete(request.cast());
        delete(buffer.cast());
        delete(target.cast());
    });
    bench.machine.remove_device(&other).unwrap();
    bench.end();
}

#[test]
fn an_existing_device_object_is_a_target_too() {
    let mut bench = Bench::with(1, serving(|request| answer_read(request, b"own")), |_| {
        Answer::Now(0, b"pdo".to_vec())
    });
    bench.run(|device| {
        let device = device as WDFDEVICE;
        let own = wdf!(WdfDeviceWdmGetDeviceObject: WdfDeviceWdmGetDeviceObjectTableIndex
            as PFN_WDFDEVICEWDMGETDEVICEOBJECT(device));
        let below = wdf!(WdfDeviceWdmGetPhysicalDevice: WdfDeviceWdmGetPhysicalDeviceTableIndex
            as PFN_WDFDEVICEWDMGETPHYSICALDEVICE(device));
        for (object, expected) in [(own, b"own"), (below, b"pdo")] {
            let target = create_target(device as usize);
            let mut params = open_params();
            params.Type = 1;
            assert_eq!(
                open_with(target, params),
                INVALID_PARAMETER,
                "no device object"
            );
            params.TargetDeviceObject = object;
            assert_eq!(open_with(target, params), SUCCESS);
            params.Type = 3;
            assert_eq!(
                open_with(target, params),
                INVALID_DEVICE_REQUEST,
                "reopen by name only"
            );
            let (request, buffer) = (make(target), memory(&[0; 3]));
            format_read(target, request, buffer);
            assert!(send(request, target, SYNCHRONOUS, 0));
            assert_eq!(contents(buffer), expected);
            delete(request.cast());
            delete(buffer.cast());
            delete(target.cast());
        }
    });
    bench.end();
}

#[test]
fn cancelling_reaches_the_other_devices_cancel_routine() {
    let script = serving(|request| {
        wdf!(WdfRequestMarkCancelable: WdfRequestMarkCancelableTableIndex
            as PFN_WDFREQUESTMARKCANCELABLE(request, Some(request_cancel)));
    });
    let mut bench = Bench::with(1, script, |_| Answer::Never);
    let other = bench.another();
    bench.run(|device| {
        let target = create_target(device);
        assert_eq!(open(target, r"\DosDevices\Probe1"), SUCCESS);
        let (request, buffer) = (make(target), memory(&[0; 4]));
        format_read(target, request, buffer);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        assert!(cancel(request));
        assert_eq!(landed()[0].status, CANCELLED);
        reuse(request);
        format_read(target, request, buffer);
        assert!(send(request, target, SYNCHRONOUS | TIMEOUT, 50));
        assert_eq!(status(request), IO_TIMEOUT);
        // And closing cancels.
        reuse(request);
        format_read(target, request, buffer);
        set_routine(request, 0);
        assert!(send(request, target, 0, 0));
        close(target);
        assert_eq!(landed()[0].status, CANCELLED);
        delete(request.cast());
        delete(buffer.cast());
        delete(target.cast());
    });
    bench.machine.remove_device(&other).unwrap();
    bench.end();
}

/// Without callbacks of the driver's, the framework closes the target for the
/// query, and for good when the device is gone.
#[test]
fn removing_the_targets_device_closes_the_target() {
    let mut bench = Bench::with(1, serving(|request| answer_read(request, b"")), |_| {
        Answer::Never
    });
    let other = bench.another();
    let target = bench.run(|device| {
        let target = create_target(device);
        assert_eq!(open(target, r"\DosDevices\Probe1"), SUCCESS);
        target as usize
    });
    // A file that a user has open keeps the device; the target is open again.
    let file = bench.machine.open(r"\\.\Probe1").unwrap();
    let kept = bench.machine.remove_device(&other);
    assert!(
        matches!(kept, Err(Error::State { state: "open", .. })),
        "{kept:?}"
    );
    assert_eq!(bench.run(move |_| state(target as WDFIOTARGET)), STARTED);
    bench.machine.close(file).unwrap();
    bench.machine.remove_device(&other).unwrap();
    assert_eq!(bench.run(move |_| state(target as WDFIOTARGET)), CLOSED);
    bench.end();
}

unsafe extern "C-unwind" fn query_remove(_: WDFIOTARGET) -> NTSTATUS {
    code(0x8000_0011) // STATUS_DEVICE_BUSY
}

#[test]
fn a_target_can_refuse_the_removal_of_its_device_but_not_its_surprise_removal() {
    let mut bench = Bench::with(1, serving(|request| answer_read(request, b"")), |_| {
        Answer::Never
    });
    let other = bench.another();
    let target = bench.run(|device| {
        let target = create_target(device);
        let mut params = open_params();
        params.Type = 2;
        params.TargetDeviceName = unicode(r"\DosDevices\Probe1");
        params.EvtIoTargetQueryRemove = Some(query_remove);
        assert_eq!(open_with(target, params), SUCCESS);
        target as usize
    });
    let refused = bench.machine.remove_device(&other);
    assert!(
        matches!(
            refused,
            Err(Error::Driver {
                status: 0x8000_0011,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(bench.run(move |_| state(target as WDFIOTARGET)), STARTED);
    bench.machine.surprise_remove(&other).unwrap();
    assert_eq!(bench.run(move |_| state(target as WDFIOTARGET)), CLOSED);
    bench.end();
}

#[test]
fn a_target_closed_for_query_remove_takes_no_requests_and_can_be_reopened() {
    let mut bench = Bench::with(1, serving(|request| answer_read(request, b"")), |_| {
        Answer::Never
    });
    let other = bench.another();
    bench.run(|device| {
        let target = create_target(device);
        assert_eq!(open(target, r"\DosDevices\Probe1"), SUCCESS);
        wdf!(WdfIoTargetCloseForQueryRemove: WdfIoTargetCloseForQueryRemoveTableIndex
            as PFN_WDFIOTARGETCLOSEFORQUERYREMOVE(target));
        assert_eq!(state(target), CLOSED_FOR_QUERY_REMOVE);
        assert_eq!(try_make(target), Err(INVALID_DEVICE_STATE));
        assert_eq!(start(target), INVALID_DEVICE_STATE);
        let mut params = open_params();
        params.Type = 3;
        assert_eq!(open_with(target, params), SUCCESS);
        assert_eq!(state(target), STARTED);
    });
    bench.machine.remove_device(&other).unwrap();
    bench.end();
}
