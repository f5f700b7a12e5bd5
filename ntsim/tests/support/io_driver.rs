// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver linked into a test program, written against the raw interface as a
//! C driver would be, whose handlers each test scripts.

#![allow(dead_code, reason = "each test program uses some of it")]
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
#[path = "raw.rs"]
pub mod raw;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ntsim::machine::Error;
use ntsim::trace::Event;
use ntsim::{File, Machine, Settings, StopKind};
use ntsim_sys::{
    DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PWDFDEVICE_INIT, UNICODE_STRING, WDF_DRIVER_CONFIG,
    WDF_FILEOBJECT_CONFIG, WDF_IO_QUEUE_CONFIG, WDF_PNPPOWER_EVENT_CALLBACKS, WDFDEVICE, WDFDRIVER,
    WDFFILEOBJECT, WDFQUEUE, WDFREQUEST,
};
pub use raw::attributes;

pub type Handler = Rc<dyn Fn(WDFREQUEST, usize)>;

/// What the driver of this test does; each test runs on a thread of its own.
#[derive(Default)]
pub struct Script {
    before_create: Option<Box<dyn FnMut(PWDFDEVICE_INIT)>>,
    after_create: Option<Box<dyn FnMut(WDFDEVICE)>>,
    /// What handlers do with their request, by the callback's name, and the last argument.
    handlers: HashMap<&'static str, Handler>,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

pub fn handle(name: &'static str, request: WDFREQUEST, argument: usize) {
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
unsafe extern "C-unwind" fn io_internal(
    _: WDFQUEUE,
    request: WDFREQUEST,
    _output: usize,
    _input: usize,
    code: u32,
) {
    handle("Internal", request, code as usize);
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
pub unsafe extern "C-unwind" fn request_cancel(request: WDFREQUEST) {
    handle("Cancel", request, 0);
}
pub unsafe extern "C-unwind" fn queue_state(queue: WDFQUEUE, context: *mut std::ffi::c_void) {
    handle("QueueState", queue.cast(), context as usize);
}
pub unsafe extern "C-unwind" fn file_create(_: WDFDEVICE, request: WDFREQUEST, _: WDFFILEOBJECT) {
    handle("FileCreate", request, 0);
}
pub unsafe extern "C-unwind" fn file_cleanup(file: WDFFILEOBJECT) {
    handle("FileCleanup", file.cast(), 0);
}
pub unsafe extern "C-unwind" fn file_close(file: WDFFILEOBJECT) {
    handle("FileClose", file.cast(), 0);
}

pub const SEQUENTIAL: i32 = 1;
pub const PARALLEL: i32 = 2;
pub const MANUAL: i32 = 3;

/// `WDF_IO_QUEUE_CONFIG_INIT`, with handlers for what the script handles.
pub fn queue_config(dispatch: i32, default: bool) -> WDF_IO_QUEUE_CONFIG {
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
        config.EvtIoInternalDeviceControl = has("Internal").then_some(io_internal as _);
    }
    config.EvtIoStop = has("Stop").then_some(io_stop as _);
    config.EvtIoResume = has("Resume").then_some(io_resume as _);
    config.EvtIoCanceledOnQueue = has("CanceledOnQueue").then_some(canceled_on_queue as _);
    config
}

pub fn create_queue(
    device: WDFDEVICE,
    mut config: WDF_IO_QUEUE_CONFIG,
) -> Result<WDFQUEUE, NTSTATUS> {
    let mut queue = std::ptr::null_mut();
    let status = wdf!(WdfIoQueueCreate: WdfIoQueueCreateTableIndex
        as PFN_WDFIOQUEUECREATE(device, &raw mut config, std::ptr::null_mut(), &raw mut queue));
    if status < 0 { Err(status) } else { Ok(queue) }
}

pub fn complete(request: WDFREQUEST, status: NTSTATUS) {
    wdf!(WdfRequestComplete: WdfRequestCompleteTableIndex as PFN_WDFREQUESTCOMPLETE(request, status));
}

pub fn complete_with(request: WDFREQUEST, status: NTSTATUS, information: u64) {
    wdf!(WdfRequestCompleteWithInformation: WdfRequestCompleteWithInformationTableIndex
        as PFN_WDFREQUESTCOMPLETEWITHINFORMATION(request, status, information));
}

pub fn output(request: WDFREQUEST, minimum: usize) -> Result<(*mut u8, usize), NTSTATUS> {
    let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
    let status = wdf!(WdfRequestRetrieveOutputBuffer: WdfRequestRetrieveOutputBufferTableIndex
        as PFN_WDFREQUESTRETRIEVEOUTPUTBUFFER(request, minimum as _, &raw mut buffer, &raw mut length));
    if status < 0 {
        Err(status)
    } else {
        Ok((buffer.cast(), length))
    }
}

pub fn input(request: WDFREQUEST, minimum: usize) -> Result<Vec<u8>, NTSTATUS> {
    let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
    let status = wdf!(WdfRequestRetrieveInputBuffer: WdfRequestRetrieveInputBufferTableIndex
        as PFN_WDFREQUESTRETRIEVEINPUTBUFFER(request, minimum as _, &raw mut buffer, &raw mut length));
    if status < 0 {
        return Err(status);
    }
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    Ok(bytes.to_vec())
}

pub fn fill(request: WDFREQUEST, bytes: &[u8]) {
    let (buffer, length) = output(request, bytes.len()).unwrap();
    assert!(length >= bytes.len());
    unsafe { buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    complete_with(request, 0, bytes.len() as u64);
}

pub fn mark_cancelable(request: WDFREQUEST) {
    wdf!(WdfRequestMarkCancelable: WdfRequestMarkCancelableTableIndex
        as PFN_WDFREQUESTMARKCANCELABLE(request, Some(request_cancel)));
}

pub fn unmark_cancelable(request: WDFREQUEST) -> NTSTATUS {
    wdf!(WdfRequestUnmarkCancelable: WdfRequestUnmarkCancelableTableIndex
        as PFN_WDFREQUESTUNMARKCANCELABLE(request))
}

pub fn retrieve_next(queue: WDFQUEUE) -> Result<WDFREQUEST, NTSTATUS> {
    let mut request = std::ptr::null_mut();
    let status = wdf!(WdfIoQueueRetrieveNextRequest: WdfIoQueueRetrieveNextRequestTableIndex
        as PFN_WDFIOQUEUERETRIEVENEXTREQUEST(queue, &raw mut request));
    if status < 0 { Err(status) } else { Ok(request) }
}

pub fn forward(request: WDFREQUEST, queue: WDFQUEUE) -> NTSTATUS {
    wdf!(WdfRequestForwardToIoQueue: WdfRequestForwardToIoQueueTableIndex
        as PFN_WDFREQUESTFORWARDTOIOQUEUE(request, queue))
}

pub fn acknowledge(request: WDFREQUEST, requeue: bool) {
    wdf!(WdfRequestStopAcknowledge: WdfRequestStopAcknowledgeTableIndex
        as PFN_WDFREQUESTSTOPACKNOWLEDGE(request, u8::from(requeue)));
}

/// A machine with the driver installed and its device plugged in.
pub struct Bench {
    pub machine: Machine,
    pub device: String,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_seed(1)
    }

    pub fn with_seed(seed: u64) -> Self {
        Self::with_settings(Settings {
            seed,
            ..Settings::default()
        })
    }

    pub fn with_settings(settings: Settings) -> Self {
        SCRIPT.set(Script::default());
        let raw::Bench { machine, device } = raw::Bench::with_settings(settings, driver_entry);
        Self { machine, device }
    }

    pub fn on(self, name: &'static str, body: impl Fn(WDFREQUEST, usize) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.handlers.insert(name, Rc::new(body)));
        self
    }

    pub fn before_create(self, body: impl FnMut(PWDFDEVICE_INIT) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.before_create = Some(Box::new(body)));
        self
    }

    pub fn after_create(self, body: impl FnMut(WDFDEVICE) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.after_create = Some(Box::new(body)));
        self
    }

    /// With a default queue of this sort.
    pub fn with_queue(self, dispatch: i32) -> Self {
        self.after_create(move |device| {
            create_queue(device, queue_config(dispatch, true)).unwrap();
        })
    }

    pub fn start(&mut self) {
        self.machine
            .start_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn open(&mut self) -> File {
        self.machine
            .open(r"\\.\Probe")
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Closes the file and removes the device: nothing may be left behind.
    pub fn end(&mut self, file: File) {
        self.machine
            .close(file)
            .unwrap_or_else(|error| panic!("{error}"));
        self.machine
            .remove_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// The names of the callbacks, in order.
    pub fn callbacks(&self) -> Vec<&'static str> {
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
    pub fn position(&self, name: &str) -> usize {
        let found = self
            .callbacks()
            .iter()
            .position(|callback| *callback == name);
        found.unwrap_or_else(|| panic!("{name} was not called: {:?}", self.callbacks()))
    }
}

/// The stop of a bug check, with its code, first parameter and sentence.
pub fn bug_check<T>(result: Result<T, Error>) -> (u32, u64, String) {
    match result {
        Err(Error::Stop(stop)) => match stop.kind {
            StopKind::BugCheck { code, parameters } => (code, parameters[0], stop.message.clone()),
            _ => panic!("not a bug check: {stop}"),
        },
        Err(error) => panic!("not a stop: {error}"),
        Ok(_) => panic!("no bug check happened"),
    }
}

pub fn second() -> Duration {
    Duration::from_secs(1)
}

pub const CANCELLED: u32 = 0xC000_0120;
/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)`.
pub const ECHO: u32 = 0x0022_2000;

/// `WDF_FILEOBJECT_CONFIG_INIT`, with all callbacks.
pub fn with_file_object(init: PWDFDEVICE_INIT) {
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
