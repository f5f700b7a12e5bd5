// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFQUEUE`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-queue-objects>
//!
//! # Vocabulary
//! - *present*: call the handler of a request's type; the request is the driver's then.
//! - *accept*: let new requests in. *dispatch*: let requests out.
//! - *held*: a power-managed queue dispatches only while its device is in D0.
//!
//! | | accepts | dispatches |
//! |---|---|---|
//! | started | yes | yes |
//! | stopped (`WdfIoQueueStop`) | yes | no |
//! | drained (`WdfIoQueueDrain`) | no | yes |
//! | purged (`WdfIoQueuePurge`) | no | yes, but what it has is cancelled |
//! | stopped and purged | no | no |
//!
//! A handler runs on the thread that brought the request, or on the one that
//! made room for it: that is at the IRQL of that thread, and while another
//! handler of the same queue may still run. A synchronization scope serialises
//! handlers, and an execution level of `PASSIVE_LEVEL` moves them to a system
//! worker thread where needed.

use std::collections::VecDeque;

use crate::abi::{Param, callback, param};
use crate::access::{Addr, peek, poke};
use crate::io::irp::{Buffer, FileId, Kind};
use crate::kernel::{ContextId, Dpc, Kernel, PASSIVE_LEVEL};
use crate::rules::kmdf;
use crate::trap::kernel;

use super::lock::{self, Serial};
use super::object::{self, Allow, Data, EXECUTION_PASSIVE, Handle, SCOPE_NONE};
use super::power_policy;
use super::raw::{ObjectAttributes, QueueConfig, RequestParameters};
use super::request::{self, Cancelability, Holder, Stopping};
use super::watchdog;
use super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_NO_MORE_ENTRIES,
    STATUS_NOT_FOUND, STATUS_SUCCESS, STATUS_UNSUCCESSFUL, STATUS_WDF_BUSY, STATUS_WDF_NO_CALLBACK,
    STATUS_WDF_PAUSED, required,
};

const SEQUENTIAL: u32 = 1;
const PARALLEL: u32 = 2;
const MANUAL: u32 = 3;

const SCOPE_DEVICE: u32 = 2;
const SCOPE_QUEUE: u32 = 3;

/// When a callback that the driver gave to a stop, drain or purge is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// The driver has no request of the queue.
    NoneOwned,
    /// Nor has the queue.
    Empty,
}

struct Notice {
    when: When,
    name: &'static str,
    evt: usize,
    context: usize,
}

/// What the framework keeps of a queue.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the queue"
)]
pub(crate) struct Queue {
    device: Handle,
    pub(crate) config: QueueConfig,
    power_managed: bool,
    /// Its handlers need `PASSIVE_LEVEL`.
    passive: bool,
    serial: Serial,
    /// It is the default queue, or requests of some type go to it.
    pub(crate) assigned: bool,
    accepting: bool,
    dispatching: bool,
    /// The device is in D0; always for a queue that is not power-managed.
    powered: bool,
    waiting: VecDeque<Handle>,
    pub(crate) owned: Vec<Handle>,
    /// Contexts in handlers of the queue.
    presenting: Vec<ContextId>,
    notices: Vec<Notice>,
    /// `EvtIoQueueState` of `WdfIoQueueReadyNotify`, and its context.
    ready: Option<(usize, usize)>,
}

impl Queue {
    fn dispatches(&self) -> bool {
        self.dispatching && self.powered
    }

    fn has_room(&self) -> bool {
        match self.config.dispatch_type {
            SEQUENTIAL => self.owned.is_empty(),
            PARALLEL => self.owned.len() < self.config.presented_requests as usize,
            _ => false,
        }
    }

    fn is_done(&self, when: When) -> bool {
        self.owned.is_empty() && (when == When::NoneOwned || self.waiting.is_empty())
    }
}

/// A queue that the framework keeps.
pub(crate) fn get(k: &mut Kernel, handle: Handle) -> &mut Queue {
    object::queue(k, handle, "the framework")
}

fn name(k: &Kernel, handle: Handle) -> String {
    k.name_of(handle as usize).unwrap_or("the queue").to_owned()
}

// ---- creation ----------------------------------------------------------

/// `WDF_IO_QUEUE_CONFIG` before KMDF 1.9 (no settings) and before 1.11 (no driver).
const OLDER_SIZES: [u32; 2] = [80, 88];

fn read_config(config: *const QueueConfig) -> Option<QueueConfig> {
    let size = peek(config.cast::<u32>());
    if size as usize == size_of::<QueueConfig>() {
        return Some(peek(config));
    }
    if !OLDER_SIZES.contains(&size) {
        return None;
    }
    let bytes = crate::access::peek_bytes(config.cast(), size as usize);
    let mut whole = [0_u8; size_of::<QueueConfig>()];
    whole[..bytes.len()].copy_from_slice(&bytes);
    let mut config: QueueConfig = peek(whole.as_ptr().cast());
    if config.dispatch_type == PARALLEL && size == OLDER_SIZES[0] {
        config.presented_requests = u32::MAX;
    }
    Some(config)
}

/// `WdfIoQueueCreate`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER`
/// (dispatch type, no presented requests for a parallel queue),
/// `STATUS_WDF_NO_CALLBACK` (no handler, unless manual), `STATUS_UNSUCCESSFUL`
/// (a second default queue), those of the attributes.
pub(crate) fn create(
    _: Globals,
    device: Handle,
    config: *const QueueConfig,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfIoQueueCreate";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        object::device(k, device, function);
    });
    required(config, function, "Config");
    if !out.is_null() {
        poke(out, std::ptr::null_mut());
    }
    let Some(config) = read_config(config) else {
        return STATUS_INFO_LENGTH_MISMATCH;
    };
    if let Err(status) = check_config(&config) {
        return status;
    }
    let created = object::attributes(from, Allow::Parent, true).and_then(|attributes| {
        kernel(|k| {
            let (slot, parent) = (
                object::get(k, device).driver,
                attributes.parent.unwrap_or(device),
            );
            object::any(k, parent, function);
            if object::device_of(k, parent) != Some(device) {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            let default = config.default_queue != 0;
            if default
                && object::device(k, device, function)
                    .io
                    .default_queue
                    .is_some()
            {
                return Err(STATUS_UNSUCCESSFUL);
            }
            let settings = &object::device(k, device, function);
            // `WdfUseDefault`: yes, unless the driver is a filter or has no hardware.
            let power_managed = match config.power_managed {
                0 => false,
                1 if settings.io.control.is_some() => return Err(STATUS_INVALID_PARAMETER),
                1 => true,
                _ => !settings.settings.is_filter() && settings.io.control.is_none(),
            };
            let powered = !power_managed || settings.pnp.is_in_d0();
            let queue = Queue {
                device,
                config,
                power_managed,
                passive: false,
                serial: Serial::None,
                assigned: default,
                accepting: true,
                dispatching: true,
                powered,
                waiting: VecDeque::new(),
                owned: Vec::new(),
                presenting: Vec::new(),
                notices: Vec::new(),
                ready: None,
            };
            let handle = object::create(
                k,
                slot,
                Some(parent),
                &attributes,
                Data::Queue(Box::new(queue)),
            )?;
            let (execution, scope) = {
                let object = object::get(k, handle);
                (object.execution, object.scope)
            };
            let passive = execution == EXECUTION_PASSIVE;
            let lock = match scope {
                SCOPE_DEVICE => Some(device),
                SCOPE_QUEUE => Some(handle),
                _ => None,
            };
            debug_assert!(scope <= SCOPE_NONE);
            let queue = get(k, handle);
            queue.passive = passive;
            queue.serial = match lock {
                None => Serial::None,
                Some(lock) if passive => Serial::Passive(lock),
                Some(lock) => Serial::Dispatch(lock),
            };
            let io = &mut object::device(k, device, function).io;
            io.queues.push(handle);
            if default {
                io.default_queue = Some(handle);
            }
            Ok(handle)
        })
    });
    match created {
        Ok(handle) => {
            if !out.is_null() {
                poke(out, handle);
            }
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

fn check_config(config: &QueueConfig) -> Result<(), i32> {
    if !(SEQUENTIAL..=MANUAL).contains(&config.dispatch_type) || config.power_managed > 2 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let handlers = [
        config.evt_io_default,
        config.evt_io_read,
        config.evt_io_write,
        config.evt_io_device_control,
        config.evt_io_internal_device_control,
    ];
    match config.dispatch_type {
        // A manual queue's handlers would never be called.
        MANUAL if handlers.iter().any(|evt| *evt != 0) => Err(STATUS_INVALID_PARAMETER),
        MANUAL => Ok(()),
        _ if handlers.iter().all(|evt| *evt == 0) => Err(STATUS_WDF_NO_CALLBACK),
        PARALLEL if config.presented_requests == 0 => Err(STATUS_INVALID_PARAMETER),
        _ => Ok(()),
    }
}

/// `WdfDeviceConfigureRequestDispatching`: requests of a type go to a queue of
/// their own.
///
/// # Errors
/// As documented: `STATUS_INVALID_PARAMETER` for other types than create, read,
/// write and the device controls, or another device's queue; `STATUS_WDF_BUSY`
/// if the type has a queue already.
pub(crate) fn configure_dispatching(_: Globals, device: Handle, queue: Handle, kind: u32) -> i32 {
    let function = "WdfDeviceConfigureRequestDispatching";
    kernel(|k| {
        object::device(k, device, function);
        if object::queue(k, queue, function).device != device || ![0, 3, 4, 14, 15].contains(&kind)
        {
            return STATUS_INVALID_PARAMETER;
        }
        let io = &mut object::device(k, device, function).io;
        if io.dispatch.contains_key(&kind) {
            return STATUS_WDF_BUSY;
        }
        io.dispatch.insert(kind, queue);
        get(k, queue).assigned = true;
        STATUS_SUCCESS
    })
}

/// `WdfDeviceGetDefaultQueue`: NULL if there is none.
pub(crate) fn get_default(_: Globals, device: Handle) -> Handle {
    kernel(|k| {
        let queue = object::device(k, device, "WdfDeviceGetDefaultQueue")
            .io
            .default_queue;
        queue.unwrap_or(std::ptr::null_mut())
    })
}

/// `WdfIoQueueGetDevice`.
pub(crate) fn get_device(_: Globals, queue: Handle) -> Handle {
    kernel(|k| object::queue(k, queue, "WdfIoQueueGetDevice").device)
}

/// `WdfIoQueueGetState`. The counts are optional.
pub(crate) fn get_state(_: Globals, queue: Handle, waiting: *mut u32, owned: *mut u32) -> u32 {
    const ACCEPT: u32 = 1;
    const DISPATCH: u32 = 2;
    const NO_REQUESTS: u32 = 4;
    const DRIVER_NO_REQUESTS: u32 = 8;
    const PNP_HELD: u32 = 16;
    let (state, counts) = kernel(|k| {
        let queue = object::queue(k, queue, "WdfIoQueueGetState");
        let state = [
            (queue.accepting, ACCEPT),
            (queue.dispatching, DISPATCH),
            (queue.waiting.is_empty(), NO_REQUESTS),
            (queue.owned.is_empty(), DRIVER_NO_REQUESTS),
            (!queue.powered, PNP_HELD),
        ];
        let state = state
            .iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, bit)| bit)
            .sum();
        (state, [queue.waiting.len(), queue.owned.len()])
    });
    for (out, count) in [waiting, owned].into_iter().zip(counts) {
        if !out.is_null() {
            poke(out, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
    state
}

// ---- requests in and out -----------------------------------------------

/// Where a new request goes; none if no queue takes its type.
pub(crate) fn queue_for(k: &mut Kernel, device: Handle, kind: Kind) -> Option<Handle> {
    let io = &object::device(k, device, "the framework").io;
    io.dispatch.get(&(kind as u32)).copied().or(match kind {
        Kind::Create => None,
        _ => io.default_queue,
    })
}

/// Puts a request into a queue, and lets the queue go on.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_STATE` if the queue accepts no requests: the request
/// is with whom it was.
pub(crate) fn insert(queue: Handle, request: Handle) -> Result<(), i32> {
    let ready = kernel(|k| {
        if !get(k, queue).accepting {
            return Err(STATUS_INVALID_DEVICE_STATE);
        }
        Ok(put(k, queue, request, false))
    })?;
    tell_ready(queue, ready);
    dispatch(queue);
    Ok(())
}

/// Puts a request at one of the queue's ends. Gives the ready callback that is to be called.
fn put(k: &mut Kernel, handle: Handle, request: Handle, first: bool) -> Option<(usize, usize)> {
    {
        let request = request::get(k, request);
        request.queue = Some(handle);
        request.holder = Holder::Queue;
        request.cancelability = Cancelability::No;
        request.stopping = Stopping::No;
    }
    let queue = get(k, handle);
    let was_empty = queue.waiting.is_empty();
    if first {
        queue.waiting.push_front(request);
    } else {
        queue.waiting.push_back(request);
    }
    let ready = if was_empty && queue.dispatches() {
        queue.ready
    } else {
        None
    };
    power_up(k, handle, request);
    super::wake(k);
    ready
}

/// A request of a power-managed queue keeps its device from idling:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-idle-power-down>
fn power_up(k: &mut Kernel, queue: Handle, request: Handle) {
    let queue = get(k, queue);
    let (device, managed) = (queue.device, queue.power_managed);
    let had = std::mem::replace(&mut request::get(k, request).powers, managed);
    match (had, managed) {
        (false, true) => {
            power_policy::acquire(k, device);
        }
        (true, false) => power_policy::release(k, device),
        _ => {}
    }
}

fn tell_ready(queue: Handle, ready: Option<(usize, usize)>) {
    if let Some((evt, context)) = ready {
        serialized(queue, || {
            callback::<()>(
                "EvtIoQueueState",
                evt,
                &[param("Queue", &queue), param("Context", &Addr(context))],
            );
        });
    }
}

/// Takes a request out that waits in the queue.
pub(crate) fn remove_waiting(k: &mut Kernel, queue: Handle, request: Handle) {
    get(k, queue).waiting.retain(|waiting| *waiting != request);
}

/// Makes a request the driver's.
pub(crate) fn own(k: &mut Kernel, queue: Handle, handle: Handle) {
    get(k, queue).owned.push(handle);
    let request = request::get(k, handle);
    request.queue = Some(queue);
    request.holder = Holder::Driver;
    request.presented = true;
}

/// Runs `body` under the queue's lock, if it has one and the caller does not hold it.
pub(crate) fn serialized(queue: Handle, body: impl FnOnce()) {
    let serial = kernel(|k| {
        let serial = get(k, queue).serial;
        if is_held_here(k, serial) {
            Serial::None
        } else {
            serial
        }
    });
    lock::with(serial, body);
}

fn is_held_here(k: &Kernel, serial: Serial) -> bool {
    let me = k.running();
    match serial {
        Serial::None => false,
        Serial::Passive(lock) => k.wdf.object_locks.get(&lock) == Some(&me),
        Serial::Dispatch(lock) => k.ke.spin_locks.get(&(lock as usize)) == Some(&me),
    }
}

/// What a queue is to do next.
enum Next {
    Nothing,
    /// Not here: the lock is held, or the IRQL too high.
    Elsewhere,
    Present(Handle),
}

fn next(k: &mut Kernel, handle: Handle) -> Next {
    let me = k.running();
    let high = k.irql() > PASSIVE_LEVEL;
    let queue = get(k, handle);
    // A handler of this queue is further up on this stack: it goes on when that returns.
    if !queue.dispatches()
        || queue.waiting.is_empty()
        || !queue.has_room()
        || queue.presenting.contains(&me)
    {
        return Next::Nothing;
    }
    let (passive, serial) = (queue.passive, queue.serial);
    if (passive && high) || is_held_here(k, serial) {
        return Next::Elsewhere;
    }
    let queue = get(k, handle);
    let request = queue.waiting.pop_front().expect("checked");
    queue.presenting.push(me);
    own(k, handle, request);
    Next::Present(request)
}

/// Presents what can be presented, then calls what waits for the queue to be done.
pub(crate) fn dispatch(queue: Handle) {
    loop {
        match kernel(|k| next(k, queue)) {
            Next::Nothing => break,
            Next::Elsewhere => {
                kernel(|k| dispatch_elsewhere(k, queue));
                break;
            }
            Next::Present(request) => {
                present(queue, request);
                kernel(|k| {
                    let me = k.running();
                    let presenting = &mut get(k, queue).presenting;
                    let at = presenting.iter().position(|context| *context == me);
                    presenting.remove(at.expect("it was put in before the handler"));
                });
            }
        }
    }
    notify(queue);
}

fn dispatch_elsewhere(k: &mut Kernel, queue: Handle) {
    object::reference(k, queue);
    let passive = get(k, queue).passive;
    let run = Box::new(move || {
        dispatch(queue);
        object::release(queue);
    });
    if passive {
        crate::ex::queue_work(k, run);
    } else {
        let name = name(k, queue);
        let queued = k.queue_dpc(Dpc {
            routine: 0,
            key: queue as usize,
            name,
            run,
        });
        if !queued {
            object::get(k, queue).references -= 1;
        }
    }
}

fn present(queue: Handle, request: Handle) {
    let (name, evt, arguments) = kernel(|k| {
        let (irp, kind) = {
            let request = request::get(k, request);
            (request.irp, request.kind)
        };
        let irp = k.io.irps.get(irp);
        let (Buffer { length: output, .. }, Buffer { length: input, .. }, code) =
            (irp.output, irp.input, irp.code);
        let config = &get(k, queue).config;
        let (name, evt, arguments) = match kind {
            Kind::Read => ("EvtIoRead", config.evt_io_read, vec![output]),
            Kind::Write => ("EvtIoWrite", config.evt_io_write, vec![input]),
            Kind::DeviceControl => (
                "EvtIoDeviceControl",
                config.evt_io_device_control,
                vec![output, input, code as usize],
            ),
            Kind::InternalDeviceControl => (
                "EvtIoInternalDeviceControl",
                config.evt_io_internal_device_control,
                vec![output, input, code as usize],
            ),
            Kind::Create => ("EvtIoDefault", config.evt_io_default, Vec::new()),
        };
        if evt == 0 {
            ("EvtIoDefault", config.evt_io_default, Vec::new())
        } else {
            (name, evt, arguments)
        }
    });
    if evt == 0 {
        // The queue has no handler for it.
        request::finish(request, STATUS_INVALID_DEVICE_REQUEST, 0);
        return;
    }
    let labels: &[&'static str] = match arguments.len() {
        1 => &["Length"],
        _ => &["OutputBufferLength", "InputBufferLength", "IoControlCode"],
    };
    let mut params: Vec<Param<'_>> = vec![param("Queue", &queue), param("Request", &request)];
    params.extend(
        labels
            .iter()
            .zip(&arguments)
            .map(|(label, value)| param(label, value)),
    );
    serialized(queue, || callback::<()>(name, evt, &params));
}

/// Calls the callbacks whose condition has come about.
fn notify(queue: Handle) {
    kernel(super::wake);
    while let Some(notice) = kernel(|k| {
        let queue = get(k, queue);
        let at = queue
            .notices
            .iter()
            .position(|notice| queue.is_done(notice.when))?;
        Some(queue.notices.remove(at))
    }) {
        callback::<()>(
            notice.name,
            notice.evt,
            &[
                param("Queue", &queue),
                param("Context", &Addr(notice.context)),
            ],
        );
    }
}

fn retrieve(
    queue: Handle,
    out: *mut Handle,
    function: &'static str,
    which: impl FnOnce(&mut Kernel, &VecDeque<Handle>) -> Result<Handle, i32>,
) -> i32 {
    required(out, function, "OutRequest");
    let taken = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let dispatches = object::queue(k, queue, function).dispatches();
        if !dispatches {
            return Err(STATUS_WDF_PAUSED);
        }
        let waiting = get(k, queue).waiting.clone();
        let request = which(k, &waiting)?;
        remove_waiting(k, queue, request);
        own(k, queue, request);
        super::wake(k);
        Ok(request)
    });
    poke(out, *taken.as_ref().unwrap_or(&std::ptr::null_mut()));
    taken.err().unwrap_or(STATUS_SUCCESS)
}

/// `WdfIoQueueRetrieveNextRequest`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_NO_MORE_ENTRIES` for an empty queue, `STATUS_WDF_PAUSED`
/// for one that does not dispatch.
pub(crate) fn retrieve_next(_: Globals, queue: Handle, out: *mut Handle) -> i32 {
    retrieve(queue, out, "WdfIoQueueRetrieveNextRequest", |_, waiting| {
        waiting.front().copied().ok_or(STATUS_NO_MORE_ENTRIES)
    })
}

fn file_of(k: &mut Kernel, request: Handle) -> Option<Handle> {
    let irp = request::get(k, request).irp;
    let file = k.io.irps.get(irp).file;
    k.io.irps.file(file)?.object
}

/// `WdfIoQueueRetrieveRequestByFileObject`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As [`retrieve_next`].
pub(crate) fn retrieve_by_file(_: Globals, queue: Handle, file: Handle, out: *mut Handle) -> i32 {
    let function = "WdfIoQueueRetrieveRequestByFileObject";
    kernel(|k| {
        object::file(k, file, function);
    });
    retrieve(queue, out, function, |k, waiting| {
        let found = waiting
            .iter()
            .find(|request| file_of(k, **request) == Some(file));
        found.copied().ok_or(STATUS_NO_MORE_ENTRIES)
    })
}

/// `WdfIoQueueFindRequest`. Callable at `<= DISPATCH_LEVEL`. The request that is
/// found stays in the queue; a reference on it is the driver's to drop.
///
/// # Errors
/// As documented: `STATUS_NO_MORE_ENTRIES`, `STATUS_NOT_FOUND` if the request to
/// start after is not in the queue any more, `STATUS_INVALID_PARAMETER`.
pub(crate) fn find(
    g: Globals,
    queue: Handle,
    after: Handle,
    file: Handle,
    parameters: *mut RequestParameters,
    out: *mut Handle,
) -> i32 {
    let function = "WdfIoQueueFindRequest";
    required(out, function, "OutRequest");
    let found = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let waiting = object::queue(k, queue, function).waiting.clone();
        if !file.is_null() {
            object::file(k, file, function);
        }
        let start = if after.is_null() {
            0
        } else {
            object::request(k, after, function);
            waiting
                .iter()
                .position(|request| *request == after)
                .ok_or(STATUS_NOT_FOUND)?
                + 1
        };
        let found = waiting
            .iter()
            .skip(start)
            .find(|request| file.is_null() || file_of(k, **request) == Some(file))
            .copied()
            .ok_or(STATUS_NO_MORE_ENTRIES)?;
        object::reference(k, found);
        Ok(found)
    });
    poke(out, *found.as_ref().unwrap_or(&std::ptr::null_mut()));
    match found {
        Ok(found) => {
            if !parameters.is_null() {
                request::get_parameters(g, found, parameters);
            }
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// `WdfIoQueueRetrieveFoundRequest`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_NOT_FOUND` if the request is not in the queue any
/// more, `STATUS_WDF_PAUSED`.
pub(crate) fn retrieve_found(_: Globals, queue: Handle, found: Handle, out: *mut Handle) -> i32 {
    let function = "WdfIoQueueRetrieveFoundRequest";
    kernel(|k| {
        object::request(k, found, function);
    });
    retrieve(queue, out, function, |_, waiting| {
        waiting
            .iter()
            .find(|request| **request == found)
            .copied()
            .ok_or(STATUS_NOT_FOUND)
    })
}

/// `WdfIoQueueReadyNotify`, for manual queues. NULL takes the callback back.
///
/// # Errors
/// As documented: `STATUS_INVALID_DEVICE_REQUEST` if there is a callback already.
pub(crate) fn ready_notify(_: Globals, queue: Handle, Addr(evt): Addr, Addr(context): Addr) -> i32 {
    let function = "WdfIoQueueReadyNotify";
    let ready = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let queue = object::queue(k, queue, function);
        if evt == 0 {
            queue.ready = None;
            return Ok(None);
        }
        if queue.ready.is_some() {
            return Err(STATUS_INVALID_DEVICE_REQUEST);
        }
        queue.ready = Some((evt, context));
        let now = !queue.waiting.is_empty() && queue.dispatches();
        Ok(queue.ready.filter(|_| now))
    });
    match ready {
        Ok(ready) => {
            tell_ready(queue, ready);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// Takes a request from the driver, to put it into a queue.
fn disown(k: &mut Kernel, handle: Handle) -> Option<Handle> {
    let queue = request::get(k, handle).queue.take()?;
    get(k, queue).owned.retain(|owned| *owned != handle);
    object::reference(k, queue);
    Some(queue)
}

/// `WdfRequestForwardToIoQueue`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INVALID_DEVICE_REQUEST` for the queue that the request
/// is from or another device's, `STATUS_WDF_BUSY` if the queue accepts nothing.
/// The request is the driver's still.
pub(crate) fn forward(_: Globals, request: Handle, queue: Handle) -> i32 {
    let function = "WdfRequestForwardToIoQueue";
    let forwarded = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let irp = {
            object::queue(k, queue, function);
            let request = request::uncancelable(k, request, function);
            if request.queue == Some(queue) {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            request.irp
        };
        if k.io.irps.get(irp).device != get(k, queue).device {
            return Err(STATUS_INVALID_DEVICE_REQUEST);
        }
        if !get(k, queue).accepting {
            return Err(STATUS_WDF_BUSY);
        }
        let old = disown(k, request);
        let cancelled = k.io.irps.get(irp).cancelled;
        request::get(k, request).presented = true;
        Ok((old, put(k, queue, request, false), cancelled))
    });
    match forwarded {
        Ok((old, ready, cancelled)) => {
            after_put(queue, request, ready, cancelled);
            if let Some(old) = old {
                dispatch(old);
                object::release(old);
            }
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// `WdfDeviceEnqueueRequest`: to the queue that takes requests of its type.
///
/// # Errors
/// As documented: `STATUS_INVALID_DEVICE_REQUEST` if there is none,
/// `STATUS_WDF_BUSY`.
pub(crate) fn enqueue_request(g: Globals, device: Handle, request: Handle) -> i32 {
    let function = "WdfDeviceEnqueueRequest";
    let queue = kernel(|k| {
        object::device(k, device, function);
        let kind = request::owned(k, request, function).kind;
        queue_for(k, device, kind)
    });
    match queue {
        Some(queue) => forward(g, request, queue),
        None => STATUS_INVALID_DEVICE_REQUEST,
    }
}

/// `WdfRequestRequeue`: back to the head of its queue. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INVALID_DEVICE_REQUEST` unless the queue is manual.
pub(crate) fn requeue(_: Globals, request: Handle) -> i32 {
    let function = "WdfRequestRequeue";
    let requeued = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let request_ = request::uncancelable(k, request, function);
        let (irp, queue) = (request_.irp, request_.queue);
        match queue {
            Some(queue) if get(k, queue).config.dispatch_type == MANUAL => {
                get(k, queue).owned.retain(|owned| *owned != request);
                let cancelled = k.io.irps.get(irp).cancelled;
                Ok((queue, put(k, queue, request, true), cancelled))
            }
            _ => Err(STATUS_INVALID_DEVICE_REQUEST),
        }
    });
    match requeued {
        Ok((queue, ready, cancelled)) => {
            after_put(queue, request, ready, cancelled);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// A request that was cancelled while the driver had it does not stay in a queue.
fn after_put(queue: Handle, request: Handle, ready: Option<(usize, usize)>, cancelled: bool) {
    if cancelled {
        request::cancel(request);
    } else {
        tell_ready(queue, ready);
    }
    dispatch(queue);
}

// ---- starting and stopping ---------------------------------------------

/// `WdfIoQueueStart`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn start(_: Globals, queue: Handle) {
    let function = "WdfIoQueueStart";
    let ready = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let queue = object::queue(k, queue, function);
        queue.accepting = true;
        queue.dispatching = true;
        let now = !queue.waiting.is_empty() && queue.dispatches();
        queue.ready.filter(|_| now)
    });
    tell_ready(queue, ready);
    dispatch(queue);
}

/// What a driver wants of a queue.
#[derive(Clone, Copy)]
struct Halt {
    function: &'static str,
    accept: bool,
    dispatch: bool,
    purge: bool,
    when: When,
}

const STOP: Halt = Halt {
    function: "WdfIoQueueStop",
    accept: true,
    dispatch: false,
    purge: false,
    when: When::NoneOwned,
};
const DRAIN: Halt = Halt {
    function: "WdfIoQueueDrain",
    accept: false,
    dispatch: true,
    purge: false,
    when: When::Empty,
};
const PURGE: Halt = Halt {
    function: "WdfIoQueuePurge",
    accept: false,
    dispatch: true,
    purge: true,
    when: When::Empty,
};
const STOP_AND_PURGE: Halt = Halt {
    function: "WdfIoQueueStopAndPurge",
    accept: true,
    dispatch: false,
    purge: true,
    when: When::NoneOwned,
};

fn halt(queue: Handle, what: Halt) {
    let cancel = kernel(|k| {
        let queue = object::queue(k, queue, what.function);
        queue.accepting &= what.accept;
        queue.dispatching &= what.dispatch;
        if !what.purge {
            return Vec::new();
        }
        queue.waiting.iter().chain(&queue.owned).copied().collect()
    });
    cancel_all(queue, &cancel);
}

/// Cancels requests: those that wait, and those of the driver that are cancelable.
fn cancel_all(queue: Handle, requests: &[Handle]) {
    for request in requests {
        let ours = kernel(|k| {
            k.wdf.objects.contains_key(request) && request::get(k, *request).queue == Some(queue)
        });
        if ours {
            request::cancel(*request);
        }
    }
}

fn halt_with_callback(queue: Handle, what: Halt, evt: usize, context: usize) {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, what.function);
        object::queue(k, queue, what.function);
        if evt != 0 {
            get(k, queue).notices.push(Notice {
                when: what.when,
                name: "EvtIoQueueState",
                evt,
                context,
            });
        }
    });
    halt(queue, what);
    dispatch(queue);
}

fn halt_and_wait(queue: Handle, what: Halt, function: &'static str) {
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        let me = k.running();
        if object::queue(k, queue, function).presenting.contains(&me) {
            let message = format!(
                "{function} was called by a handler of {}, for whose requests it waits",
                name(k, queue)
            );
            super::verifier_break(k, &kmdf::QUEUE_WAITS_FOR_ITSELF, message)
        }
    });
    halt(queue, what);
    dispatch(queue);
    super::wait_until(|k| get(k, queue).is_done(what.when));
}

/// `WdfIoQueueStop`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn stop(_: Globals, queue: Handle, evt: Addr, context: Addr) {
    halt_with_callback(queue, STOP, evt.0, context.0);
}

/// `WdfIoQueueStopSynchronously`. Needs `PASSIVE_LEVEL`.
pub(crate) fn stop_synchronously(_: Globals, queue: Handle) {
    halt_and_wait(queue, STOP, "WdfIoQueueStopSynchronously");
}

/// `WdfIoQueueDrain`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn drain(_: Globals, queue: Handle, evt: Addr, context: Addr) {
    halt_with_callback(queue, DRAIN, evt.0, context.0);
}

/// `WdfIoQueueDrainSynchronously`. Needs `PASSIVE_LEVEL`.
pub(crate) fn drain_synchronously(_: Globals, queue: Handle) {
    halt_and_wait(queue, DRAIN, "WdfIoQueueDrainSynchronously");
}

/// `WdfIoQueuePurge`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn purge(_: Globals, queue: Handle, evt: Addr, context: Addr) {
    halt_with_callback(queue, PURGE, evt.0, context.0);
}

/// `WdfIoQueuePurgeSynchronously`. Needs `PASSIVE_LEVEL`.
pub(crate) fn purge_synchronously(_: Globals, queue: Handle) {
    halt_and_wait(queue, PURGE, "WdfIoQueuePurgeSynchronously");
}

/// `WdfIoQueueStopAndPurge`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn stop_and_purge(_: Globals, queue: Handle, evt: Addr, context: Addr) {
    halt_with_callback(queue, STOP_AND_PURGE, evt.0, context.0);
}

/// `WdfIoQueueStopAndPurgeSynchronously`. Needs `PASSIVE_LEVEL`.
pub(crate) fn stop_and_purge_synchronously(_: Globals, queue: Handle) {
    halt_and_wait(queue, STOP_AND_PURGE, "WdfIoQueueStopAndPurgeSynchronously");
}

/// Part of the queue's deletion: what is in it is cancelled, what the driver has
/// is waited for.
pub(crate) fn dispose(queue: Handle) {
    halt(queue, PURGE);
    super::wait_until(|k| get(k, queue).is_done(When::Empty));
    kernel(|k| {
        let device = get(k, queue).device;
        let io = &mut object::device(k, device, "the framework").io;
        io.queues.retain(|other| *other != queue);
        io.dispatch.retain(|_, other| *other != queue);
        if io.default_queue == Some(queue) {
            io.default_queue = None;
        }
    });
}

/// A file goes: what waits of its requests is cancelled, as KMDF does on
/// `IRP_MJ_CLEANUP`.
pub(crate) fn cancel_of_file(device: Handle, file: FileId) {
    let requests = kernel(|k| {
        let queues = object::device(k, device, "the framework").io.queues.clone();
        let mut found = Vec::new();
        for queue in queues {
            for request in get(k, queue).waiting.clone() {
                let irp = request::get(k, request).irp;
                if k.io.irps.get(irp).file == file {
                    found.push((queue, request));
                }
            }
        }
        found
    });
    for (queue, request) in requests {
        let still = kernel(|k| {
            k.wdf.objects.contains_key(&queue) && get(k, queue).waiting.contains(&request)
        });
        if still {
            request::cancel(request);
        }
    }
}

// ---- power -------------------------------------------------------------

/// Why queues stop for power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerStop {
    /// The device leaves D0 and will be back.
    Suspend,
    /// The device goes for good: what the power-managed queues have is cancelled.
    Purge,
}

fn queues(k: &mut Kernel, device: Handle, power_managed: Option<bool>) -> Vec<Handle> {
    let all = object::device(k, device, "the framework").io.queues.clone();
    all.into_iter()
        .filter(|queue| power_managed.is_none_or(|managed| get(k, *queue).power_managed == managed))
        .collect()
}

/// Holds the power-managed queues, tells the driver of each request that it has
/// (`EvtIoStop`), and waits until the driver completed, requeued, forwarded or
/// acknowledged them all:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop>
pub(crate) fn stop_for_power(device: Handle, why: PowerStop) {
    const SUSPEND: u32 = 1;
    const PURGE_ACTION: u32 = 2;
    const CANCELABLE: u32 = 0x1000_0000;
    let stopping = kernel(|k| queues(k, device, Some(true)));
    for queue in &stopping {
        kernel(|k| {
            let queue = get(k, *queue);
            queue.powered = false;
            if why == PowerStop::Purge {
                queue.accepting = false;
            }
        });
    }
    for queue in &stopping {
        if why == PowerStop::Purge {
            let waiting: Vec<_> = kernel(|k| get(k, *queue).waiting.iter().copied().collect());
            cancel_all(*queue, &waiting);
        }
        // A handler that was called just before may still forward or complete.
        let asked = kernel(|k| {
            let asked = get(k, *queue).owned.clone();
            for request in &asked {
                request::get(k, *request).stopping = Stopping::Asked;
            }
            asked
        });
        for request in asked {
            tell_stop(
                *queue,
                request,
                if why == PowerStop::Purge {
                    PURGE_ACTION
                } else {
                    SUSPEND
                },
                CANCELABLE,
            );
        }
    }
    watchdog::over_signal(device, "the answer to EvtIoStop", || {
        for queue in stopping {
            super::wait_until(|k| {
                let owned = get(k, queue).owned.clone();
                owned
                    .iter()
                    .all(|request| request::get(k, *request).stopping == Stopping::Acknowledged)
            });
        }
    });
}

fn tell_stop(queue: Handle, request: Handle, action: u32, cancelable_flag: u32) {
    let call = kernel(|k| {
        if !get(k, queue).owned.contains(&request) {
            return None;
        }
        let evt = get(k, queue).config.evt_io_stop;
        let cancelable = matches!(
            request::get(k, request).cancelability,
            Cancelability::Yes(_)
        );
        (evt != 0).then_some((evt, action | if cancelable { cancelable_flag } else { 0 }))
    });
    if let Some((evt, flags)) = call {
        serialized(queue, || {
            callback::<()>(
                "EvtIoStop",
                evt,
                &[
                    param("Queue", &queue),
                    param("Request", &request),
                    param("ActionFlags", &flags),
                ],
            );
        });
    }
}

/// Lets the power-managed queues go on: `EvtIoResume` for each request that the
/// driver kept, then new ones.
pub(crate) fn resume_for_power(device: Handle) {
    let resuming = kernel(|k| queues(k, device, Some(true)));
    for queue in resuming {
        let kept = kernel(|k| {
            let queue = get(k, queue);
            queue.powered = true;
            queue.accepting = true;
            queue.owned.clone()
        });
        for request in kept {
            let evt = kernel(|k| {
                if !get(k, queue).owned.contains(&request) {
                    return 0;
                }
                let stopping =
                    std::mem::replace(&mut request::get(k, request).stopping, Stopping::No);
                if stopping == Stopping::Acknowledged {
                    get(k, queue).config.evt_io_resume
                } else {
                    0
                }
            });
            if evt != 0 {
                serialized(queue, || {
                    callback::<()>(
                        "EvtIoResume",
                        evt,
                        &[param("Queue", &queue), param("Request", &request)],
                    );
                });
            }
        }
        let ready = kernel(|k| {
            let queue = get(k, queue);
            let now = !queue.waiting.is_empty() && queue.dispatches();
            queue.ready.filter(|_| now)
        });
        tell_ready(queue, ready);
        dispatch(queue);
    }
}

/// Purges all queues of a device that is going, and waits for the driver's requests.
pub(crate) fn purge_all(device: Handle) {
    for queue in kernel(|k| queues(k, device, None)) {
        halt(queue, PURGE);
        watchdog::over_signal(device, "the completion of the driver's requests", || {
            super::wait_until(|k| get(k, queue).is_done(When::Empty));
        });
    }
}

/// `WdfRequestStopAcknowledge`, from `EvtIoStop` only. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn stop_acknowledge(_: Globals, request: Handle, requeue: u8) {
    let function = "WdfRequestStopAcknowledge";
    let requeued = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let held = if requeue != 0 {
            request::uncancelable(k, request, function)
        } else {
            request::owned(k, request, function)
        };
        if held.stopping != Stopping::Asked {
            let name = k
                .name_of(request as usize)
                .unwrap_or("the request")
                .to_owned();
            super::verifier_break(
                k,
                &kmdf::STOP_ACKNOWLEDGE,
                format!("{function} was called on {name}, for which EvtIoStop was not called"),
            )
        }
        if requeue == 0 {
            held.stopping = Stopping::Acknowledged;
            super::wake(k);
            return None;
        }
        let (irp, queue) = (held.irp, held.queue?);
        get(k, queue).owned.retain(|owned| *owned != request);
        let cancelled = k.io.irps.get(irp).cancelled;
        put(k, queue, request, true);
        Some((queue, cancelled))
    });
    if let Some((queue, cancelled)) = requeued {
        after_put(queue, request, None, cancelled);
    }
}
