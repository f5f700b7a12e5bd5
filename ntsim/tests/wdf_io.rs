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

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use ntsim::inf::{Architecture, Inf};
use ntsim::machine::Error;
use ntsim::store::PackageSource;
use ntsim::trace::Event;
use ntsim::{Answer, File, LowerRequest, Machine, StopKind};
use ntsim_sys::{
    DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PWDFDEVICE_INIT, UNICODE_STRING, WDF_DRIVER_CONFIG,
    WDF_FILEOBJECT_CONFIG, WDF_IO_QUEUE_CONFIG, WDF_OBJECT_ATTRIBUTES,
    WDF_PNPPOWER_EVENT_CALLBACKS, WDF_REQUEST_PARAMETERS, WDFDEVICE, WDFDRIVER, WDFFILEOBJECT,
    WDFQUEUE, WDFREQUEST,
};

/// Calls a function of the framework through its table, as the WDF headers do.
macro_rules! wdf {
    ($name:ident: $index:ident as $pointer:ident ($($arg:expr),* $(,)?)) => {
        unsafe {
            let entry = ntsim_sys::WdfFunctions.add(ntsim_sys::_WDFFUNCENUM::$index as usize).read();
            let function: ntsim_sys::$pointer = std::mem::transmute(entry);
            function.expect(stringify!($name))(ntsim_sys::WdfDriverGlobals, $($arg),*)
        }
    };
}

type Handler = Rc<dyn Fn(WDFREQUEST, usize)>;

/// What the driver of this test does; each test runs on a thread of its own.
#[derive(Default)]
struct Script {
    before_create: Option<Box<dyn FnMut(PWDFDEVICE_INIT)>>,
    after_create: Option<Box<dyn FnMut(WDFDEVICE)>>,
    /// What handlers do with their request, by the callback's name, and the last argument.
    handlers: HashMap<&'static str, Handler>,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

fn handle(name: &'static str, request: WDFREQUEST, argument: usize) {
    // Not borrowed meanwhile: it may call the kernel, which may run others.
    let handler = SCRIPT.with_borrow(|script| script.handlers.get(name).cloned());
    if let Some(handler) = handler {
        handler(request, argument);
    }
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

unsafe extern "C-unwind" fn d0_exit(
    _: WDFDEVICE,
    _: ntsim_sys::WDF_POWER_DEVICE_STATE,
) -> NTSTATUS {
    0
}

unsafe extern "C-unwind" fn self_managed_io(_: WDFDEVICE) -> NTSTATUS {
    0
}

unsafe extern "C-unwind" fn device_add(_: WDFDRIVER, mut init: PWDFDEVICE_INIT) -> NTSTATUS {
    let mut callbacks: WDF_PNPPOWER_EVENT_CALLBACKS = unsafe { std::mem::zeroed() };
    callbacks.Size = size_of::<WDF_PNPPOWER_EVENT_CALLBACKS>() as u32;
    callbacks.EvtDeviceD0Exit = Some(d0_exit);
    callbacks.EvtDeviceSelfManagedIoInit = Some(self_managed_io);
    callbacks.EvtDeviceSelfManagedIoSuspend = Some(self_managed_io);
    callbacks.EvtDeviceSelfManagedIoRestart = Some(self_managed_io);
    wdf!(WdfDeviceInitSetPnpPowerEventCallbacks: WdfDeviceInitSetPnpPowerEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS(init, &raw mut callbacks));
    if let Some(mut before) = SCRIPT.with_borrow_mut(|script| script.before_create.take()) {
        before(init);
    }
    let mut attributes = attributes();
    let mut device = std::ptr::null_mut();
    let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
        as PFN_WDFDEVICECREATE(&raw mut init, &raw mut attributes, &raw mut device));
    assert_eq!(status, 0);
    let name: Vec<u16> = r"\DosDevices\Probe".encode_utf16().collect();
    let mut name = UNICODE_STRING {
        Length: (name.len() * 2) as u16,
        MaximumLength: (name.len() * 2) as u16,
        Buffer: name.leak().as_mut_ptr(),
    };
    let status = wdf!(WdfDeviceCreateSymbolicLink: WdfDeviceCreateSymbolicLinkTableIndex
        as PFN_WDFDEVICECREATESYMBOLICLINK(device, &raw mut name));
    assert_eq!(status, 0);
    if let Some(mut after) = SCRIPT.with_borrow_mut(|script| script.after_create.take()) {
        after(device);
    }
    0
}

unsafe extern "C-unwind" fn io_default(_: WDFQUEUE, request: WDFREQUEST) {
    handle("Default", request, 0);
}
unsafe extern "C-unwind" fn io_read(_: WDFQUEUE, request: WDFREQUEST, length: usize) {
    handle("Read", request, length);
}
unsafe extern "C-unwind" fn io_write(_: WDFQUEUE, request: WDFREQUEST, length: usize) {
    handle("Write", request, length);
}
unsafe extern "C-unwind" fn io_control(
    _: WDFQUEUE,
    request: WDFREQUEST,
    _output: usize,
    _input: usize,
    code: u32,
) {
    handle("Control", request, code as usize);
}
unsafe extern "C-unwind" fn io_stop(_: WDFQUEUE, request: WDFREQUEST, flags: u32) {
    handle("Stop", request, flags as usize);
}
unsafe extern "C-unwind" fn io_resume(_: WDFQUEUE, request: WDFREQUEST) {
    handle("Resume", request, 0);
}
unsafe extern "C-unwind" fn canceled_on_queue(_: WDFQUEUE, request: WDFREQUEST) {
    handle("CanceledOnQueue", request, 0);
}
unsafe extern "C-unwind" fn request_cancel(request: WDFREQUEST) {
    handle("Cancel", request, 0);
}
unsafe extern "C-unwind" fn queue_state(queue: WDFQUEUE, context: *mut std::ffi::c_void) {
    handle("QueueState", queue.cast(), context as usize);
}
unsafe extern "C-unwind" fn file_create(_: WDFDEVICE, request: WDFREQUEST, _: WDFFILEOBJECT) {
    handle("FileCreate", request, 0);
}
unsafe extern "C-unwind" fn file_cleanup(file: WDFFILEOBJECT) {
    handle("FileCleanup", file.cast(), 0);
}
unsafe extern "C-unwind" fn file_close(file: WDFFILEOBJECT) {
    handle("FileClose", file.cast(), 0);
}

/// `WDF_OBJECT_ATTRIBUTES_INIT`.
fn attributes() -> WDF_OBJECT_ATTRIBUTES {
    let mut attributes: WDF_OBJECT_ATTRIBUTES = unsafe { std::mem::zeroed() };
    attributes.Size = size_of::<WDF_OBJECT_ATTRIBUTES>() as u32;
    attributes.ExecutionLevel = 1;
    attributes.SynchronizationScope = 1;
    attributes
}

const SEQUENTIAL: i32 = 1;
const PARALLEL: i32 = 2;
const MANUAL: i32 = 3;

/// `WDF_IO_QUEUE_CONFIG_INIT`, with handlers for what the script handles.
fn queue_config(dispatch: i32, default: bool) -> WDF_IO_QUEUE_CONFIG {
    let mut config: WDF_IO_QUEUE_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_IO_QUEUE_CONFIG>() as u32;
    config.DispatchType = dispatch;
    config.PowerManaged = 2;
    config.DefaultQueue = u8::from(default);
    if dispatch == PARALLEL {
        config.Settings.Parallel.NumberOfPresentedRequests = u32::MAX;
    }
    let has = |name| SCRIPT.with_borrow(|script| script.handlers.contains_key(name));
    if dispatch != MANUAL {
        config.EvtIoDefault = has("Default").then_some(io_default as _);
        config.EvtIoRead = has("Read").then_some(io_read as _);
        config.EvtIoWrite = has("Write").then_some(io_write as _);
        config.EvtIoDeviceControl = has("Control").then_some(io_control as _);
    }
    config.EvtIoStop = has("Stop").then_some(io_stop as _);
    config.EvtIoResume = has("Resume").then_some(io_resume as _);
    config.EvtIoCanceledOnQueue = has("CanceledOnQueue").then_some(canceled_on_queue as _);
    config
}

fn create_queue(device: WDFDEVICE, mut config: WDF_IO_QUEUE_CONFIG) -> Result<WDFQUEUE, NTSTATUS> {
    let mut queue = std::ptr::null_mut();
    let status = wdf!(WdfIoQueueCreate: WdfIoQueueCreateTableIndex
        as PFN_WDFIOQUEUECREATE(device, &raw mut config, std::ptr::null_mut(), &raw mut queue));
    if status < 0 { Err(status) } else { Ok(queue) }
}

fn complete(request: WDFREQUEST, status: NTSTATUS) {
    wdf!(WdfRequestComplete: WdfRequestCompleteTableIndex as PFN_WDFREQUESTCOMPLETE(request, status));
}

fn complete_with(request: WDFREQUEST, status: NTSTATUS, information: u64) {
    wdf!(WdfRequestCompleteWithInformation: WdfRequestCompleteWithInformationTableIndex
        as PFN_WDFREQUESTCOMPLETEWITHINFORMATION(request, status, information));
}

fn output(request: WDFREQUEST, minimum: usize) -> Result<(*mut u8, usize), NTSTATUS> {
    let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
    let status = wdf!(WdfRequestRetrieveOutputBuffer: WdfRequestRetrieveOutputBufferTableIndex
        as PFN_WDFREQUESTRETRIEVEOUTPUTBUFFER(request, minimum as _, &raw mut buffer, &raw mut length));
    if status < 0 {
        Err(status)
    } else {
        Ok((buffer.cast(), length))
    }
}

fn input(request: WDFREQUEST, minimum: usize) -> Result<Vec<u8>, NTSTATUS> {
    let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
    let status = wdf!(WdfRequestRetrieveInputBuffer: WdfRequestRetrieveInputBufferTableIndex
        as PFN_WDFREQUESTRETRIEVEINPUTBUFFER(request, minimum as _, &raw mut buffer, &raw mut length));
    if status < 0 {
        return Err(status);
    }
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    Ok(bytes.to_vec())
}

fn fill(request: WDFREQUEST, bytes: &[u8]) {
    let (buffer, length) = output(request, bytes.len()).unwrap();
    assert!(length >= bytes.len());
    unsafe { buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    complete_with(request, 0, bytes.len() as u64);
}

fn mark_cancelable(request: WDFREQUEST) {
    wdf!(WdfRequestMarkCancelable: WdfRequestMarkCancelableTableIndex
        as PFN_WDFREQUESTMARKCANCELABLE(request, Some(request_cancel)));
}

fn unmark_cancelable(request: WDFREQUEST) -> NTSTATUS {
    wdf!(WdfRequestUnmarkCancelable: WdfRequestUnmarkCancelableTableIndex
        as PFN_WDFREQUESTUNMARKCANCELABLE(request))
}

fn retrieve_next(queue: WDFQUEUE) -> Result<WDFREQUEST, NTSTATUS> {
    let mut request = std::ptr::null_mut();
    let status = wdf!(WdfIoQueueRetrieveNextRequest: WdfIoQueueRetrieveNextRequestTableIndex
        as PFN_WDFIOQUEUERETRIEVENEXTREQUEST(queue, &raw mut request));
    if status < 0 { Err(status) } else { Ok(request) }
}

fn forward(request: WDFREQUEST, queue: WDFQUEUE) -> NTSTATUS {
    wdf!(WdfRequestForwardToIoQueue: WdfRequestForwardToIoQueueTableIndex
        as PFN_WDFREQUESTFORWARDTOIOQUEUE(request, queue))
}

fn acknowledge(request: WDFREQUEST, requeue: bool) {
    wdf!(WdfRequestStopAcknowledge: WdfRequestStopAcknowledgeTableIndex
        as PFN_WDFREQUESTSTOPACKNOWLEDGE(request, u8::from(requeue)));
}

const INF: &str = r#"[Version]
Signature = "$WINDOWS NT$"
Class = Sample
ClassGuid = {78A1C341-4539-11d3-B88D-00C04FAD5171}
Provider = %P%
DriverVer = 09/21/2026,1.0.0.0
CatalogFile = probe.cat
[DestinationDirs]
DefaultDestDir = 12
[SourceDisksNames]
1 = %P%
[SourceDisksFiles]
probe.sys = 1
[Manufacturer]
%P% = Models,NTamd64
[Models.NTamd64]
%P% Probe = Probe_Install, Root\Probe
[Probe_Install.NT]
CopyFiles = @probe.sys
[Probe_Install.NT.Services]
AddService = Probe,2,Service
[Service]
ServiceType = 1
StartType = 3
ErrorControl = 1
ServiceBinary = %12%\probe.sys
[Probe_Install.NT.Wdf]
KmdfService = Probe, Kmdf
[Kmdf]
KmdfLibraryVersion = 1.33
[Strings]
P = "dmf"
"#;

/// A machine with the driver installed and its device plugged in.
struct Bench {
    machine: Machine,
    device: String,
}

impl Bench {
    fn new() -> Self {
        Self::with_seed(1)
    }

    fn with_seed(seed: u64) -> Self {
        SCRIPT.set(Script::default());
        let mut machine = Machine::with_seed(seed);
        machine.link_driver("Probe", driver_entry);
        let package = Inf::parse("probe.inf", INF.as_bytes())
            .and_then(|inf| inf.validate_for(Architecture::Amd64))
            .expect("the INF is right");
        let files = BTreeMap::from([
            ("probe.inf".to_owned(), INF.as_bytes().to_vec()),
            ("probe.sys".to_owned(), vec![0; 16]),
        ]);
        machine
            .install_package(&package, PackageSource::Memory(&files))
            .expect("it installs");
        let device = machine
            .plug_in(r"Root\Probe")
            .expect("the machine has room");
        Self { machine, device }
    }

    fn on(self, name: &'static str, body: impl Fn(WDFREQUEST, usize) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.handlers.insert(name, Rc::new(body)));
        self
    }

    fn before_create(self, body: impl FnMut(PWDFDEVICE_INIT) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.before_create = Some(Box::new(body)));
        self
    }

    fn after_create(self, body: impl FnMut(WDFDEVICE) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.after_create = Some(Box::new(body)));
        self
    }

    /// With a default queue of this sort.
    fn with_queue(self, dispatch: i32) -> Self {
        self.after_create(move |device| {
            create_queue(device, queue_config(dispatch, true)).unwrap();
        })
    }

    fn start(&mut self) {
        self.machine
            .start_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn open(&mut self) -> File {
        self.machine
            .open(r"\\.\Probe")
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Closes the file and removes the device: nothing may be left behind.
    fn end(&mut self, file: File) {
        self.machine
            .close(file)
            .unwrap_or_else(|error| panic!("{error}"));
        self.machine
            .remove_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// The names of the callbacks, in order.
    fn callbacks(&self) -> Vec<&'static str> {
        self.machine
            .trace()
            .iter()
            .filter_map(|line| match &line.what {
                Event::Callback { name, .. } => Some(*name),
                _ => None,
            })
            .collect()
    }

    /// Where the callback is in [`callbacks`](Self::callbacks).
    fn position(&self, name: &str) -> usize {
        let found = self
            .callbacks()
            .iter()
            .position(|callback| *callback == name);
        found.unwrap_or_else(|| panic!("{name} was not called: {:?}", self.callbacks()))
    }
}

/// The stop of a bug check, with its code, first parameter and sentence.
fn bug_check<T>(result: Result<T, Error>) -> (u32, u64, String) {
    match result {
        Err(Error::Stop(stop)) => match stop.kind {
            StopKind::BugCheck { code, parameters } => (code, parameters[0], stop.message.clone()),
            _ => panic!("not a bug check: {stop}"),
        },
        Err(error) => panic!("not a stop: {error}"),
        Ok(_) => panic!("no bug check happened"),
    }
}

fn second() -> Duration {
    Duration::from_secs(1)
}

const CANCELLED: u32 = 0xC000_0120;
/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)`.
const ECHO: u32 = 0x0022_2000;

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
    assert_eq!(code, 0x7E, "{message}");
    assert!(message.contains("access violation"), "{message}");
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

fn with_file_object(init: PWDFDEVICE_INIT) {
    let mut config: WDF_FILEOBJECT_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_FILEOBJECT_CONFIG>() as u32;
    config.EvtDeviceFileCreate = Some(file_create);
    config.EvtFileCleanup = Some(file_cleanup);
    config.EvtFileClose = Some(file_close);
    config.AutoForwardCleanupClose = 2;
    config.FileObjectClass = 2;
    wdf!(WdfDeviceInitSetFileObjectConfig: WdfDeviceInitSetFileObjectConfigTableIndex
        as PFN_WDFDEVICEINITSETFILEOBJECTCONFIG(init, &raw mut config, std::ptr::null_mut()));
}

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
