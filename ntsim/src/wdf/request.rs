// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFREQUEST`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-request-objects>
//!
//! # Vocabulary
//! - *owned*: the driver was given the request and has to complete, forward or
//!   requeue it.
//! - *cancelable*: owned, and the driver registered an `EvtRequestCancel`.
//!
//! ```text
//!            presented, retrieved            WdfRequestComplete*
//!   Queued ───────────────────────► Owned ─────────────────────────► (deleted)
//!     ▲  │     requeue, forward     │  ▲                                ▲
//!     │  └──────────────────────────│──│──── cancelled: completed by ───┤
//!     └─────────────────────────────┘  │     the framework, unless      │
//!                   MarkCancelable │   │     EvtIoCanceledOnQueue       │
//!                                  ▼   │ UnmarkCancelable               │
//!                               Cancelable ── cancelled: ── EvtRequestCancel completes it
//! ```
//!
//! A request whose cancellation has begun is not unmarked any more:
//! `WdfRequestUnmarkCancelable` says `STATUS_CANCELLED`, and the driver leaves
//! the request to its `EvtRequestCancel`. See
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/synchronizing-cancel-and-completion-code>.

mod sent;

use crate::abi::{callback, param};
use crate::access::{Addr, peek, poke};
use crate::io::irp::{self, Buffer, IrpId, Kind, Method};
use crate::kernel::Kernel;
use crate::memory::Fill;
use crate::rules::{io, kmdf};
use crate::trace::Event;
use crate::trap::kernel;

use super::io_target::flight::{self, FlightId};
use super::io_target::format::Format;
use super::object::{self, Attributes, Data, Handle};
use super::raw::{CompletionParams, RequestParameters};
use super::{
    Globals, STATUS_BUFFER_TOO_SMALL, STATUS_CANCELLED, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_SUCCESS, memory, power_policy, queue, required,
};

pub(crate) use sent::{
    allocate_timer, cancel_sent, change_target, create as create_by_driver, dispose,
    get_completion_params, reuse, send, sendable, set_completion_routine,
};

/// Who has the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// It waits in its queue.
    Queue,
    Driver,
    /// The driver, which made it itself: it is never completed.
    Maker,
    /// An I/O target.
    Target,
    /// Nobody any more.
    Completed,
}

/// Whether the driver lets the request be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelability {
    No,
    /// With this `EvtRequestCancel`.
    Yes(usize),
    /// `EvtRequestCancel` was or is being called.
    Begun,
}

/// What a driver that was told to stop said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    No,
    /// Its queue stops; the driver has not answered.
    Asked,
    /// `WdfRequestStopAcknowledge(FALSE)`: the driver keeps it.
    Acknowledged,
}

/// What the framework keeps of a request.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the request"
)]
pub(crate) struct Request {
    pub(crate) irp: IrpId,
    pub(crate) kind: Kind,
    pub(crate) queue: Option<Handle>,
    pub(crate) holder: Holder,
    pub(crate) cancelability: Cancelability,
    pub(crate) stopping: Stopping,
    /// The driver had it once.
    pub(crate) presented: bool,
    /// It holds a power reference on its device.
    pub(crate) powers: bool,
    information: usize,
    status: i32,
    input_memory: Option<Handle>,
    output_memory: Option<Handle>,
    /// The addresses of the MDLs of input and output; 0 until asked for.
    mdls: [usize; 2],
    /// What its target is asked.
    pub(crate) format: Option<Format>,
    /// It was formatted since it was made, reused or completed.
    pub(crate) is_formatted: bool,
    /// The driver's completion routine and its context.
    pub(crate) routine: (usize, usize),
    /// `WdfRequestCancelSentRequest` was called since it was made or reused.
    pub(crate) canceled: bool,
    /// While it is sent.
    pub(crate) flight: Option<FlightId>,
    /// Whose it is again when it comes back.
    pub(crate) was: Holder,
    /// How its last sending ended.
    pub(crate) completion: Option<CompletionParams>,
}

impl Request {
    fn new(irp: IrpId, kind: Kind, holder: Holder) -> Self {
        Self {
            irp,
            kind,
            queue: None,
            holder,
            cancelability: Cancelability::No,
            stopping: Stopping::No,
            presented: false,
            powers: false,
            information: 0,
            status: STATUS_SUCCESS,
            input_memory: None,
            output_memory: None,
            mdls: [0; 2],
            format: None,
            is_formatted: false,
            routine: (0, 0),
            canceled: false,
            flight: None,
            was: holder,
            completion: None,
        }
    }
}

/// Memory for a request's data: guarded, and gone when the request is completed.
pub(crate) fn allocate_buffer(k: &mut Kernel, length: usize, fill: Fill, tag: u32) -> usize {
    k.wdf
        .memory
        .allocate(length, tag, fill)
        .expect("the host has memory for a request's data")
        .as_ptr() as usize
}

/// Makes the `WDFREQUEST` of a request.
///
/// # Errors
/// Those of [`object::create`].
pub(crate) fn create(k: &mut Kernel, irp: IrpId, attributes: &Attributes) -> Result<Handle, i32> {
    let (device, kind) = {
        let irp = k.io.irps.get(irp);
        (irp.device, irp.kind)
    };
    let slot = object::get(k, device).driver;
    let request = Data::Request(Box::new(Request::new(irp, kind, Holder::Driver)));
    let handle = object::create(k, slot, Some(device), attributes, request)?;
    k.io.irps.get(irp).request = Some(handle);
    Ok(handle)
}

/// The request of a handle that the framework keeps.
pub(crate) fn get(k: &mut Kernel, handle: Handle) -> &mut Request {
    object::request(k, handle, "the framework")
}

fn name(k: &Kernel, handle: Handle) -> String {
    k.name_of(handle as usize)
        .unwrap_or("the request")
        .to_owned()
}

/// Where the requests are that nobody has completed, for the report on somebody who waits.
pub(crate) fn uncompleted(k: &Kernel) -> Vec<String> {
    k.wdf
        .objects
        .iter()
        .filter_map(|(handle, object)| {
            let Data::Request(request) = &object.data else {
                return None;
            };
            let name = name(k, *handle);
            match (request.holder, request.queue) {
                (Holder::Driver, _) => Some(format!("the driver has {name}")),
                (Holder::Queue, Some(queue)) => {
                    let queue = k.name_of(queue as usize).unwrap_or("a queue");
                    Some(format!("{name} is in {queue}"))
                }
                _ => None,
            }
        })
        .collect()
}

/// The request of a handle that the driver gave, which must be the driver's now.
pub(crate) fn owned<'k>(k: &'k mut Kernel, handle: Handle, function: &str) -> &'k mut Request {
    let request = object::request(k, handle, function);
    match request.holder {
        Holder::Driver => {}
        Holder::Queue => {
            let message = format!(
                "{function} was called on {}, which is in a queue and not the driver's",
                name(k, handle)
            );
            super::verifier_break(k, &kmdf::REQUEST_IN_QUEUE, message)
        }
        Holder::Maker => {
            let message = format!(
                "{function} was called on {}, which the driver made itself: it came from nobody and is never completed",
                name(k, handle)
            );
            super::verifier_break(k, &kmdf::REQUEST_OF_DRIVER, message)
        }
        Holder::Target => flight::already_sent(k, handle, function),
        Holder::Completed => {
            let message = format!(
                "{function} was called on {}, which is completed",
                name(k, handle)
            );
            super::verifier_break(k, &kmdf::DOUBLE_COMPLETION, message)
        }
    }
    get(k, handle)
}

/// The same, which in addition must not be cancelable.
pub(crate) fn uncancelable<'k>(
    k: &'k mut Kernel,
    handle: Handle,
    function: &str,
) -> &'k mut Request {
    if let Cancelability::Yes(_) = owned(k, handle, function).cancelability {
        let message = format!(
            "{function} was called on {}, which is cancelable: WdfRequestUnmarkCancelable comes first, or EvtRequestCancel and this race for it",
            name(k, handle)
        );
        super::verifier_break(k, &kmdf::REQUEST_CANCELABLE, message)
    }
    get(k, handle)
}

// ---- completion --------------------------------------------------------

/// Ends a request whoever has it, and deletes it.
pub(crate) fn finish(handle: Handle, status: i32, information: usize) {
    let (irp, queue) = kernel(|k| {
        let request = get(k, handle);
        request.holder = Holder::Completed;
        request.status = status;
        request.information = information;
        let (irp, queue) = (request.irp, request.queue.take());
        if std::mem::take(&mut request.powers) {
            let device = k.io.irps.get(irp).device;
            power_policy::release(k, device);
        }
        if let Some(queue) = queue {
            queue::get(k, queue).owned.retain(|owned| *owned != handle);
            // Whoever completes the last request must find the queue there still.
            object::reference(k, queue);
        }
        (irp, queue)
    });
    // The cleanup callbacks come before the user hears of it: they may look at
    // the request's buffers. The request then goes, unless it is referenced.
    let file = kernel(|k| k.io.irps.get(irp).file);
    object::delete_around(handle, || {
        kernel(|k| {
            let text = format!(
                "{} ends with status {:#010x}, {information} bytes",
                name(k, handle),
                status.cast_unsigned()
            );
            k.log(Event::Machine(text));
            irp::complete(k, irp, status, information);
        });
    });
    if let Some(queue) = queue {
        queue::dispatch(queue);
        object::release(queue);
    }
    flight::device_completed(irp);
    super::file::close_if_last(file);
}

fn complete_by_driver(
    handle: Handle,
    status: i32,
    information: Option<usize>,
    function: &'static str,
) {
    const STATUS_PENDING: i32 = 0x103;
    let information = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let information =
            information.unwrap_or_else(|| object::request(k, handle, function).information);
        let (irp, kind) = {
            let request = uncancelable(k, handle, function);
            (request.irp, request.kind)
        };
        if status == STATUS_PENDING {
            let message = format!(
                "{function} was given STATUS_PENDING for {}, which is no way to complete it",
                name(k, handle)
            );
            k.fatal(
                &io::COMPLETED_PENDING,
                &[u64::from(status.cast_unsigned()), handle as u64],
                message,
            )
        }
        check_information(k, handle, irp, kind, information, function);
        check_memory(k, handle, function);
        information
    });
    finish(handle, status, information);
}

/// More bytes than the user's buffer has cannot have been transferred: bug
/// check 0x10D/6 with `WDF_REQUEST_FATAL_ERROR_INFORMATION_LENGTH_MISMATCH`.
fn check_information(
    k: &mut Kernel,
    handle: Handle,
    irp: IrpId,
    kind: Kind,
    information: usize,
    function: &str,
) {
    const INFORMATION_LENGTH_MISMATCH: u64 = 4;
    let irp = k.io.irps.get(irp);
    let limit = match kind {
        Kind::Write => irp.input.length,
        Kind::Read | Kind::DeviceControl | Kind::InternalDeviceControl => irp.output.length,
        Kind::Create => return,
    };
    if information > limit {
        let message = format!(
            "{function} says that {information} bytes were transferred for {}, whose buffer has {limit}",
            name(k, handle)
        );
        k.fatal(
            &kmdf::REQUEST_INFORMATION_LENGTH,
            &[INFORMATION_LENGTH_MISMATCH],
            message,
        )
    }
}

/// The memory of a request's buffers goes with it, so nobody may count on it.
fn check_memory(k: &mut Kernel, handle: Handle, function: &str) {
    let request = get(k, handle);
    let memory = [request.input_memory, request.output_memory];
    let left: u32 = memory
        .into_iter()
        .flatten()
        .map(|memory| object::get(k, memory).references - 1)
        .sum();
    if left > 0 {
        let message = format!(
            "{function} was called on {} while {left} reference(s) to the memory objects of its buffers are left",
            name(k, handle)
        );
        k.broken(
            &kmdf::REQUEST_MEMORY_REFERENCED,
            &[handle as u64, u64::from(left)],
            message,
        );
    }
}

/// `WdfRequestComplete`. Callable at `<= DISPATCH_LEVEL`. `Information` is what
/// `WdfRequestSetInformation` set, or 0.
pub(crate) fn complete(_: Globals, handle: Handle, status: i32) {
    complete_by_driver(handle, status, None, "WdfRequestComplete");
}

/// `WdfRequestCompleteWithInformation`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn complete_with_information(
    _: Globals,
    handle: Handle,
    status: i32,
    information: usize,
) {
    complete_by_driver(
        handle,
        status,
        Some(information),
        "WdfRequestCompleteWithInformation",
    );
}

/// `WdfRequestCompleteWithPriorityBoost`; the scheduler has no priorities to boost.
pub(crate) fn complete_with_priority_boost(_: Globals, handle: Handle, status: i32, _boost: i8) {
    complete_by_driver(handle, status, None, "WdfRequestCompleteWithPriorityBoost");
}

/// `WdfRequestSetInformation`.
pub(crate) fn set_information(_: Globals, handle: Handle, information: usize) {
    kernel(|k| owned(k, handle, "WdfRequestSetInformation").information = information);
}

/// `WdfRequestGetInformation`.
pub(crate) fn get_information(_: Globals, handle: Handle) -> usize {
    kernel(|k| object::request(k, handle, "WdfRequestGetInformation").information)
}

/// `WdfRequestGetStatus`.
pub(crate) fn get_status(_: Globals, handle: Handle) -> i32 {
    kernel(|k| object::request(k, handle, "WdfRequestGetStatus").status)
}

// ---- what it asks for --------------------------------------------------

/// `WdfRequestGetParameters`.
pub(crate) fn get_parameters(_: Globals, handle: Handle, out: *mut RequestParameters) {
    let function = "WdfRequestGetParameters";
    required(out, function, "Parameters");
    let size = peek(out.cast::<u16>());
    if usize::from(size) != size_of::<RequestParameters>() {
        kernel(|k| {
            let message = format!(
                "{function} was given a record of {size} bytes; it has {}",
                size_of::<RequestParameters>()
            );
            super::verifier_break(k, &kmdf::RECORD_SIZE, message)
        });
    }
    let parameters = kernel(|k| {
        let (irp, kind) = {
            let request = object::request(k, handle, function);
            if matches!(
                request.holder,
                Holder::Completed | Holder::Maker | Holder::Target
            ) {
                owned(k, handle, function);
            }
            let request = get(k, handle);
            (request.irp, request.kind)
        };
        let irp = k.io.irps.get(irp);
        let (output, input) = (irp.output.length as u64, irp.input.length as u64);
        let parameters = match kind {
            Kind::Create => [0; 4],
            Kind::Read => [output, 0, 0, 0],
            Kind::Write => [input, 0, 0, 0],
            Kind::DeviceControl | Kind::InternalDeviceControl => {
                [output, input, u64::from(irp.code), 0]
            }
        };
        RequestParameters {
            size,
            minor_function: 0,
            kind: kind as u32,
            parameters,
        }
    });
    poke(out, parameters);
}

/// Which of a request's buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

/// The buffer, if the request has one of that sort.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_REQUEST` for the wrong sort of request or transfer
/// method, `STATUS_BUFFER_TOO_SMALL` for an empty buffer, both as documented for
/// `WdfRequestRetrieveInputBuffer` and `WdfRequestRetrieveOutputBuffer`.
fn buffer(
    k: &mut Kernel,
    handle: Handle,
    side: Side,
    function: &'static str,
) -> Result<Buffer, i32> {
    crate::ke::irql::at_most_dispatch(k, function);
    let request = owned(k, handle, function);
    let (irp, kind) = (request.irp, request.kind);
    let irp = k.io.irps.get(irp);
    let fits = match kind {
        Kind::Read => side == Side::Output,
        Kind::Write => side == Side::Input,
        Kind::DeviceControl | Kind::InternalDeviceControl => true,
        Kind::Create => false,
    };
    if !fits || irp.method == Method::Neither {
        return Err(STATUS_INVALID_DEVICE_REQUEST);
    }
    let buffer = if side == Side::Input {
        irp.input
    } else {
        irp.output
    };
    if buffer.length == 0 {
        return Err(STATUS_BUFFER_TOO_SMALL);
    }
    if irp.callers_pages() == Some(buffer) {
        // Mapping the pages takes address space.
        crate::inject::check(k, function)?;
    }
    Ok(buffer)
}

fn retrieve_buffer(
    handle: Handle,
    side: Side,
    minimum: usize,
    out: *mut *mut u8,
    length: *mut usize,
    function: &'static str,
) -> i32 {
    required(out, function, "Buffer");
    let found = kernel(|k| {
        let buffer = buffer(k, handle, side, function)?;
        if buffer.length < minimum {
            return Err(STATUS_BUFFER_TOO_SMALL);
        }
        if k.name_of(buffer.address).is_none() {
            let name = format!("{}.Buffer", name(k, handle));
            k.name_as(buffer.address, name);
        }
        Ok(buffer)
    });
    match found {
        Ok(buffer) => {
            poke(out, buffer.address as *mut u8);
            if !length.is_null() {
                poke(length, buffer.length);
            }
            STATUS_SUCCESS
        }
        Err(status) => {
            poke(out, std::ptr::null_mut());
            if !length.is_null() {
                poke(length, 0);
            }
            status
        }
    }
}

/// `WdfRequestRetrieveInputBuffer`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn retrieve_input_buffer(
    _: Globals,
    handle: Handle,
    minimum: usize,
    out: *mut *mut u8,
    length: *mut usize,
) -> i32 {
    retrieve_buffer(
        handle,
        Side::Input,
        minimum,
        out,
        length,
        "WdfRequestRetrieveInputBuffer",
    )
}

/// `WdfRequestRetrieveOutputBuffer`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn retrieve_output_buffer(
    _: Globals,
    handle: Handle,
    minimum: usize,
    out: *mut *mut u8,
    length: *mut usize,
) -> i32 {
    retrieve_buffer(
        handle,
        Side::Output,
        minimum,
        out,
        length,
        "WdfRequestRetrieveOutputBuffer",
    )
}

fn retrieve_memory(handle: Handle, side: Side, out: *mut Handle, function: &'static str) -> i32 {
    required(out, function, "Memory");
    poke(out, std::ptr::null_mut());
    let created = kernel(|k| {
        let buffer = buffer(k, handle, side, function)?;
        let request = get(k, handle);
        let known = if side == Side::Input {
            request.input_memory
        } else {
            request.output_memory
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let slot = object::get(k, handle).driver;
        let memory = Data::Memory(memory::Memory::of_request(buffer.address, buffer.length));
        let created = object::create(k, slot, Some(handle), &Attributes::default(), memory)?;
        let request = get(k, handle);
        if side == Side::Input {
            request.input_memory = Some(created);
        } else {
            request.output_memory = Some(created);
        }
        Ok(created)
    });
    object::give(out, created)
}

/// `WdfRequestRetrieveInputMemory`. The object is the request's and goes with it.
pub(crate) fn retrieve_input_memory(_: Globals, handle: Handle, out: *mut Handle) -> i32 {
    retrieve_memory(handle, Side::Input, out, "WdfRequestRetrieveInputMemory")
}

/// `WdfRequestRetrieveOutputMemory`. The object is the request's and goes with it.
pub(crate) fn retrieve_output_memory(_: Globals, handle: Handle, out: *mut Handle) -> i32 {
    retrieve_memory(handle, Side::Output, out, "WdfRequestRetrieveOutputMemory")
}

/// The MDL of one of a request's buffers, made when it is asked for.
fn retrieve_mdl(
    handle: Handle,
    side: Side,
    out: *mut *mut ntsim_sys::MDL,
    function: &'static str,
) -> i32 {
    required(out, function, "Mdl");
    let made = kernel(|k| {
        let buffer = buffer(k, handle, side, function)?;
        let request = get(k, handle);
        let (irp, known) = (request.irp, request.mdls[usize::from(side == Side::Output)]);
        if known != 0 {
            return Ok((known, None));
        }
        crate::inject::check(k, function)?;
        let method = k.io.irps.get(irp).method;
        let mdl = mdl(buffer, side, method);
        let bytes = usize::try_from(mdl.Size).expect("a few pages");
        let name = format!("{}.Mdl", name(k, handle));
        let address = object::allocate_memory(k, bytes, name)
            .expect("the host has memory for a list of pages");
        k.io.irps.get(irp).keep(Buffer {
            address,
            length: bytes,
        });
        get(k, handle).mdls[usize::from(side == Side::Output)] = address;
        Ok((address, Some(mdl)))
    });
    match made {
        Ok((address, mdl)) => {
            if let Some(mdl) = mdl {
                poke(address as *mut ntsim_sys::MDL, mdl);
            }
            poke(out, address as *mut ntsim_sys::MDL);
            STATUS_SUCCESS
        }
        Err(status) => {
            poke(out, std::ptr::null_mut());
            status
        }
    }
}

/// Describes a buffer, which is mapped already. The page frames are zero.
fn mdl(buffer: Buffer, side: Side, method: Method) -> ntsim_sys::MDL {
    const MAPPED_TO_SYSTEM_VA: u16 = 0x1;
    const PAGES_LOCKED: u16 = 0x2;
    const SOURCE_IS_NONPAGED_POOL: u16 = 0x4;
    const WRITE_OPERATION: u16 = 0x80;
    let page = crate::memory::PAGE_SIZE;
    let offset = buffer.address % page;
    let pages = (offset + buffer.length).div_ceil(page);
    let flags = match (method, side) {
        (Method::Direct, Side::Output) => MAPPED_TO_SYSTEM_VA | PAGES_LOCKED | WRITE_OPERATION,
        (Method::Direct, Side::Input) => MAPPED_TO_SYSTEM_VA | PAGES_LOCKED,
        _ => SOURCE_IS_NONPAGED_POOL,
    };
    let number = |value: usize| u32::try_from(value).expect("requests have less than 4 GiB");
    ntsim_sys::MDL {
        Size: i16::try_from(size_of::<ntsim_sys::MDL>() + pages * size_of::<usize>())
            .unwrap_or(i16::MAX),
        MdlFlags: flags.cast_signed(),
        MappedSystemVa: std::ptr::with_exposed_provenance_mut(buffer.address),
        StartVa: std::ptr::with_exposed_provenance_mut(buffer.address - offset),
        ByteCount: number(buffer.length),
        ByteOffset: number(offset),
        ..ntsim_sys::MDL::default()
    }
}

/// `WdfRequestRetrieveInputWdmMdl`. Callable at `<= DISPATCH_LEVEL`. The list
/// is the request's and goes with it.
pub(crate) fn retrieve_input_mdl(_: Globals, handle: Handle, out: *mut *mut ntsim_sys::MDL) -> i32 {
    retrieve_mdl(handle, Side::Input, out, "WdfRequestRetrieveInputWdmMdl")
}

/// `WdfRequestRetrieveOutputWdmMdl`. Callable at `<= DISPATCH_LEVEL`. The list
/// is the request's and goes with it.
pub(crate) fn retrieve_output_mdl(
    _: Globals,
    handle: Handle,
    out: *mut *mut ntsim_sys::MDL,
) -> i32 {
    retrieve_mdl(handle, Side::Output, out, "WdfRequestRetrieveOutputWdmMdl")
}

/// `WdfRequestGetFileObject`: NULL if the device's driver wants no file objects.
pub(crate) fn get_file_object(_: Globals, handle: Handle) -> Handle {
    kernel(|k| {
        let irp = object::request(k, handle, "WdfRequestGetFileObject").irp;
        let file = match k.io.irps.find(irp) {
            Some(irp) => irp.file,
            None => return std::ptr::null_mut(),
        };
        k.io.irps
            .file(file)
            .and_then(|file| file.object)
            .unwrap_or(std::ptr::null_mut())
    })
}

/// `WdfRequestGetIoQueue`: NULL if the request did not come from a queue.
pub(crate) fn get_io_queue(_: Globals, handle: Handle) -> Handle {
    kernel(|k| {
        object::request(k, handle, "WdfRequestGetIoQueue")
            .queue
            .unwrap_or(std::ptr::null_mut())
    })
}

/// `WdfRequestGetRequestorMode`: users' requests are `UserMode`'s, drivers' are
/// `KernelMode`'s.
pub(crate) fn get_requestor_mode(_: Globals, handle: Handle) -> i8 {
    const KERNEL_MODE: i8 = 0;
    const USER_MODE: i8 = 1;
    kernel(|k| {
        let irp = object::request(k, handle, "WdfRequestGetRequestorMode").irp;
        match k.io.irps.find(irp) {
            Some(irp) if irp.flight.is_none() && irp.kind != Kind::InternalDeviceControl => {
                USER_MODE
            }
            _ => KERNEL_MODE,
        }
    })
}

/// `WdfRequestIsFrom32BitProcess`: no.
pub(crate) fn is_from_32_bit_process(_: Globals, handle: Handle) -> u8 {
    kernel(|k| {
        object::request(k, handle, "WdfRequestIsFrom32BitProcess");
    });
    0
}

/// `WdfRequestIsReserved`: no; there are no forward-progress requests.
pub(crate) fn is_reserved(_: Globals, handle: Handle) -> u8 {
    kernel(|k| {
        object::request(k, handle, "WdfRequestIsReserved");
    });
    0
}

// ---- cancellation ------------------------------------------------------

fn is_cancelled(k: &mut Kernel, irp: IrpId) -> bool {
    k.io.irps.get(irp).cancelled
}

fn mark(k: &mut Kernel, handle: Handle, evt: usize, function: &str) -> bool {
    crate::ke::irql::at_most_dispatch(k, function);
    if evt == 0 {
        let message = format!("{function} was given NULL for EvtRequestCancel, which it needs");
        k.fatal(&kmdf::NULL_PARAMETER, &[], message)
    }
    let request = uncancelable(k, handle, function);
    let (irp, cancelability) = (request.irp, request.cancelability);
    if cancelability == Cancelability::Begun {
        let message = format!(
            "{function} was called on {}, whose EvtRequestCancel was called",
            name(k, handle)
        );
        super::verifier_break(k, &kmdf::MARK_AFTER_CANCEL, message)
    }
    if is_cancelled(k, irp) {
        return false;
    }
    get(k, handle).cancelability = Cancelability::Yes(evt);
    true
}

/// `WdfRequestMarkCancelable`. Callable at `<= DISPATCH_LEVEL`. Calls
/// `EvtRequestCancel` before it returns if the request is cancelled already.
pub(crate) fn mark_cancelable(_: Globals, handle: Handle, Addr(evt): Addr) {
    let marked = kernel(|k| mark(k, handle, evt, "WdfRequestMarkCancelable"));
    if !marked {
        kernel(|k| get(k, handle).cancelability = Cancelability::Begun);
        callback::<()>("EvtRequestCancel", evt, &[param("Request", &handle)]);
    }
}

/// `WdfRequestMarkCancelableEx`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// `STATUS_CANCELLED` if the request is cancelled already: `EvtRequestCancel` is
/// not called, the driver completes the request.
pub(crate) fn mark_cancelable_ex(_: Globals, handle: Handle, Addr(evt): Addr) -> i32 {
    let marked = kernel(|k| mark(k, handle, evt, "WdfRequestMarkCancelableEx"));
    if marked {
        STATUS_SUCCESS
    } else {
        STATUS_CANCELLED
    }
}

/// `WdfRequestUnmarkCancelable`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// `STATUS_CANCELLED` if `EvtRequestCancel` was or is being called.
pub(crate) fn unmark_cancelable(_: Globals, handle: Handle) -> i32 {
    let function = "WdfRequestUnmarkCancelable";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let request = owned(k, handle, function);
        match request.cancelability {
            Cancelability::Yes(_) => {
                request.cancelability = Cancelability::No;
                STATUS_SUCCESS
            }
            Cancelability::Begun => STATUS_CANCELLED,
            Cancelability::No => {
                let message = format!(
                    "{function} was called on {}, which is not cancelable",
                    name(k, handle)
                );
                super::verifier_break(k, &kmdf::NOT_CANCELABLE, message)
            }
        }
    })
}

/// `WdfRequestIsCanceled`, for a request that is the driver's and not cancelable.
pub(crate) fn is_canceled(_: Globals, handle: Handle) -> u8 {
    let function = "WdfRequestIsCanceled";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let irp = uncancelable(k, handle, function).irp;
        u8::from(is_cancelled(k, irp))
    })
}

/// What a cancellation is to do.
enum Cancel {
    Nothing,
    /// The framework completes it.
    Complete(Handle),
    /// This callback gets it, with its queue.
    CanceledOnQueue(Handle, Handle, usize),
    /// `EvtRequestCancel`.
    Call(Handle, usize),
    /// It is sent: the target's driver is asked.
    Sent(FlightId),
}

/// Cancels a request, as `IoCancelIrp` does: whoever has it is asked. Tells
/// whether it was still under way.
pub(crate) fn cancel_irp(irp: IrpId) -> bool {
    let what = kernel(|k| {
        let irp = k.io.irps.find(irp)?;
        if irp.completion.is_some() {
            return None;
        }
        let again = std::mem::replace(&mut irp.cancelled, true);
        let request = irp.request;
        if again {
            return Some(Cancel::Nothing);
        }
        Some(request.map_or(Cancel::Nothing, |request| plan_cancel(k, request)))
    });
    match what {
        None => false,
        Some(plan) => {
            carry_out(plan);
            true
        }
    }
}

/// Writes into the pages of a direct request, which are its caller's.
pub(crate) fn scribble(irp: IrpId, offset: usize, bytes: &[u8]) -> bool {
    let part = kernel(|k| {
        let irp = k.io.irps.find(irp)?;
        if irp.completion.is_some() {
            return None;
        }
        let pages = irp.callers_pages()?;
        let end = offset.checked_add(bytes.len())?;
        (end <= pages.length).then_some(pages.address + offset)
    });
    if let Some(address) = part {
        crate::access::poke_bytes(address as *mut u8, bytes);
    }
    part.is_some()
}

fn plan_cancel(k: &mut Kernel, handle: Handle) -> Cancel {
    let request = get(k, handle);
    match (request.holder, request.cancelability) {
        (Holder::Queue, _) => {
            let queue = request.queue.expect("it is in one");
            let presented = request.presented;
            queue::remove_waiting(k, queue, handle);
            let evt = queue::get(k, queue).config.evt_io_canceled_on_queue;
            if presented && evt != 0 {
                queue::own(k, queue, handle);
                Cancel::CanceledOnQueue(queue, handle, evt)
            } else {
                get(k, handle).holder = Holder::Driver;
                Cancel::Complete(handle)
            }
        }
        (Holder::Driver, Cancelability::Yes(evt)) => {
            request.cancelability = Cancelability::Begun;
            Cancel::Call(handle, evt)
        }
        (Holder::Target, _) => request.flight.map_or(Cancel::Nothing, Cancel::Sent),
        _ => Cancel::Nothing,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a plan is carried out once")]
fn carry_out(plan: Cancel) {
    match plan {
        Cancel::Nothing => {}
        Cancel::Complete(request) => finish(request, STATUS_CANCELLED, 0),
        Cancel::Sent(id) => {
            flight::cancel(id);
        }
        Cancel::CanceledOnQueue(queue, request, evt) => {
            queue::serialized(queue, || {
                callback::<()>(
                    "EvtIoCanceledOnQueue",
                    evt,
                    &[param("Queue", &queue), param("Request", &request)],
                );
            });
        }
        Cancel::Call(request, evt) => {
            let queue = kernel(|k| get(k, request).queue);
            let call = || callback::<()>("EvtRequestCancel", evt, &[param("Request", &request)]);
            match queue {
                Some(queue) => queue::serialized(queue, call),
                None => call(),
            }
        }
    }
}

/// Cancels a request on the framework's own account, as a purge does.
pub(crate) fn cancel(handle: Handle) {
    let plan = kernel(|k| {
        if !k.wdf.objects.contains_key(&handle) {
            return Cancel::Nothing;
        }
        let irp = get(k, handle).irp;
        if get(k, handle).holder == Holder::Completed {
            return Cancel::Nothing;
        }
        k.io.irps.get(irp).cancelled = true;
        plan_cancel(k, handle)
    });
    carry_out(plan);
}
