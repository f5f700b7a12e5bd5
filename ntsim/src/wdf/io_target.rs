// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFIOTARGET`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-i-o-targets>
//!
//! # Vocabulary
//! - *local target*: a device's default target, the next lower driver. That is a
//!   closure of the test's ([`Machine::set_lower_driver`](crate::Machine::set_lower_driver));
//!   without one, requests fail with `STATUS_INVALID_DEVICE_REQUEST`, as a bus
//!   driver's PDO does with what it does not know.
//! - *remote target*: what [`WdfIoTargetCreate`](create) makes and
//!   [`WdfIoTargetOpen`](remote::open) connects to another device of the machine.
//! - *flight*: a request that is sent and not back ([`flight`]).
//!
//! | state | takes requests | delivers |
//! |---|---|---|
//! | started | yes | yes |
//! | stopped | yes | no: they wait for the start |
//! | purged, closed, closed for query-remove, deleted | no: `STATUS_INVALID_DEVICE_STATE` | no |
//!
//! Requests that ignore the state pass a stopped or purged target, those that
//! are sent and forgotten any. See
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/controlling-a-general-i-o-target-s-state>.
//!
//! A local target's state does not follow the power of its device; the target
//! goes with the device, and cancels and waits for what it was sent.

pub(crate) mod flight;
pub(crate) mod format;
pub(crate) mod remote;
mod synchronous;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::access::{peek, poke};
use crate::io::irp::FileId;
use crate::kernel::Kernel;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::object::{self, Allow, Attributes, Data, Handle};
use super::raw::{ObjectAttributes, SendOptions};
use super::{
    Globals, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE, STATUS_SUCCESS,
    STATUS_WDF_DEVICE_REMOVED_NOT_SENT, required,
};
use flight::FlightId;
pub(crate) use synchronous::{
    send_internal_ioctl, send_internal_ioctl_others, send_ioctl, send_read, send_write,
};

/// What a driver asks of the driver below it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LowerRequest {
    /// A read of so many bytes.
    Read {
        /// The buffer's size.
        length: usize,
        /// Where to begin.
        offset: i64,
    },
    /// A write.
    Write {
        /// What to write.
        bytes: Vec<u8>,
        /// Where to begin.
        offset: i64,
    },
    /// A device control code, or an internal one.
    Control {
        /// The code.
        code: u32,
        /// Its input.
        input: Vec<u8>,
        /// The output buffer's size.
        output: usize,
        /// Whether it is `IRP_MJ_INTERNAL_DEVICE_CONTROL`.
        internal: bool,
    },
    /// An internal control code with arguments that are no buffers.
    Others {
        /// The code.
        code: u32,
        /// The first, second and fourth argument: addresses.
        arguments: [usize; 3],
    },
}

/// What the driver below answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// At once, with a status and the bytes that were read or given out; what
    /// the buffer has no room for is cut off. A write that succeeds without
    /// bytes has taken all.
    Now(u32, Vec<u8>),
    /// At once, with a status and a number of bytes, and none of them.
    Transferred(u32, usize),
    /// As [`Now`](Self::Now), after so much virtual time, unless it is cancelled
    /// before: `STATUS_CANCELLED` then.
    After(Duration, u32, Vec<u8>),
    /// The same, and no cancellation shortens it.
    Determined(Duration, u32, Vec<u8>),
    /// When it is cancelled, with `STATUS_CANCELLED`.
    Never,
}

/// The driver below a device.
pub(crate) type Lower = Rc<dyn Fn(&LowerRequest) -> Answer>;

/// `WDF_IO_TARGET_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Started = 1,
    Stopped = 2,
    ClosedForQueryRemove = 3,
    Closed = 4,
    Deleted = 5,
    Purged = 6,
}

/// What the framework keeps of a target.
pub(crate) struct Target {
    device: Handle,
    pub(crate) state: State,
    /// None for a local one.
    remote: Option<remote::Remote>,
    /// Requests that the lower driver has, in the order in which they were sent.
    sent: Vec<FlightId>,
    /// Requests that wait for the target's start.
    queued: VecDeque<FlightId>,
    /// Requests whose completion routine runs.
    landing: usize,
    /// Somebody stops or purges it and waits.
    waiting: bool,
}

impl Target {
    /// Whether there is somebody below: a request may be formatted.
    pub(crate) fn is_open(&self) -> bool {
        self.remote.as_ref().is_none_or(remote::Remote::is_open)
    }

    /// Whether it is a device's default target, which goes with the device.
    pub(crate) fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    fn data(device: Handle, state: State, remote: Option<remote::Remote>) -> Data {
        Data::IoTarget(Box::new(Self {
            device,
            state,
            remote,
            sent: Vec::new(),
            queued: VecDeque::new(),
            landing: 0,
            waiting: false,
        }))
    }
}

/// Who gets what is sent to a target.
enum Below {
    /// The driver below a device, if the test gave it one.
    Driver(Option<Lower>),
    /// Another simulated device, through this file.
    Device(FileId),
    Nothing,
}

fn get(k: &mut Kernel, target: Handle) -> &mut Target {
    object::io_target(k, target, "the framework")
}

fn lower_of(k: &mut Kernel, device: Handle) -> Option<Lower> {
    let instance = &object::device(k, device, "the framework").instance;
    let instance = instance.to_lowercase();
    k.wdf.lower.get(&instance).cloned()
}

fn below(k: &mut Kernel, target: Handle) -> Below {
    let target = get(k, target);
    let device = target.device;
    match &target.remote {
        None => Below::Driver(lower_of(k, device)),
        Some(remote) => match remote.opened() {
            Some(remote::Opened::File(file)) => Below::Device(file),
            Some(remote::Opened::Below(device)) => Below::Driver(lower_of(k, device)),
            None => Below::Nothing,
        },
    }
}

/// `WdfDeviceGetIoTarget`: the default target.
pub(crate) fn of_device(_: Globals, device: Handle) -> Handle {
    kernel(|k| default_target(k, device))
}

fn default_target(k: &mut Kernel, device: Handle) -> Handle {
    let function = "WdfDeviceGetIoTarget";
    let io = &object::device(k, device, function).io;
    // Nothing is below a control device.
    if io.control.is_some() {
        return std::ptr::null_mut();
    }
    if let Some(target) = io.target {
        return target;
    }
    let slot = object::get(k, device).driver;
    let data = Target::data(device, State::Started, None);
    let target = object::create(k, slot, Some(device), &Attributes::default(), data)
        .unwrap_or(std::ptr::null_mut());
    if !target.is_null() {
        object::device(k, device, function).io.target = Some(target);
    }
    target
}

/// Passes a request on that a filter's driver has no queue for:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-device-objects-in-a-filter-driver>
pub(crate) fn pass_down(request: Handle) {
    let submitted = kernel(|k| {
        let device = object::device_of(k, request).expect("a received request has a device");
        let target = default_target(k, device);
        if target.is_null() {
            return Err(super::STATUS_INSUFFICIENT_RESOURCES);
        }
        let format = format::of_received(k, request);
        let manner = flight::Manner {
            end: flight::End::Forgotten,
            ignores_state: true,
            timeout: None,
        };
        flight::submit(k, target, Some(request), Some(format), manner)
    });
    match submitted {
        Ok(flight::Submitted::Send(id)) => flight::deliver(id),
        Ok(flight::Submitted::Queued(_)) => {}
        Err(status) => super::request::finish(request, status, 0),
    }
}

/// `WdfIoTargetGetDevice`.
pub(crate) fn get_device(_: Globals, target: Handle) -> Handle {
    kernel(|k| object::io_target(k, target, "WdfIoTargetGetDevice").device)
}

/// `WdfIoTargetCreate`. Needs `PASSIVE_LEVEL`. The target is closed.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_REQUEST` for a parent that is not below the device,
/// those of the attributes.
pub(crate) fn create(
    _: Globals,
    device: Handle,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfIoTargetCreate";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::device(k, device, function);
    });
    required(out, function, "IoTarget");
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            let parent = attributes.parent.unwrap_or(device);
            object::any(k, parent, function);
            if object::device_of(k, parent) != Some(device) {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            let slot = object::get(k, device).driver;
            let data = Target::data(device, State::Closed, Some(remote::Remote::default()));
            object::create(k, slot, Some(parent), &attributes, data)
        })
    });
    object::give(out, created)
}

/// `WdfIoTargetGetState`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn get_state(_: Globals, target: Handle) -> u32 {
    let function = "WdfIoTargetGetState";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        object::io_target(k, target, function).state as u32
    })
}

/// `WdfIoTargetStart`. Callable at `<= DISPATCH_LEVEL`; waits for a stop or a
/// purge that is under way. Sends what was queued.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_STATE` for a deleted or closed target.
pub(crate) fn start(_: Globals, target: Handle) -> i32 {
    let function = "WdfIoTargetStart";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let waiting = object::io_target(k, target, function).waiting;
        if waiting && k.irql() > crate::kernel::PASSIVE_LEVEL {
            let message = format!(
                "{function} was called above PASSIVE_LEVEL while the target is stopped or purged"
            );
            super::verifier_break(k, &kmdf::TARGET_START, message)
        }
    });
    super::wait_until(|k| !get(k, target).waiting);
    let started = kernel(|k| {
        let data = get(k, target);
        if !data.is_open() || data.state == State::Deleted {
            return false;
        }
        data.state = State::Started;
        true
    });
    if !started {
        return STATUS_INVALID_DEVICE_STATE;
    }
    flight::restart(target);
    STATUS_SUCCESS
}

/// `WdfIoTargetStop`. Needs `PASSIVE_LEVEL`, but for leaving what was sent.
pub(crate) fn stop(_: Globals, target: Handle, action: u32) {
    const CANCEL: u32 = 1;
    const LEAVE: u32 = 3;
    let function = "WdfIoTargetStop";
    let known = kernel(|k| {
        if action == LEAVE {
            crate::ke::irql::at_most_dispatch(k, function);
        } else {
            crate::ke::irql::passive(k, function);
        }
        let target = object::io_target(k, target, function);
        if !(CANCEL..=LEAVE).contains(&action) {
            return false;
        }
        if matches!(target.state, State::Started | State::Purged) {
            target.state = State::Stopped;
        }
        true
    });
    if known && action != LEAVE {
        quiesce(target, action == CANCEL);
    }
}

/// `WdfIoTargetPurge`. Needs `PASSIVE_LEVEL` if it is to wait.
pub(crate) fn purge(_: Globals, target: Handle, action: u32) {
    const AND_WAIT: u32 = 1;
    const ONLY: u32 = 2;
    let function = "WdfIoTargetPurge";
    let known = kernel(|k| {
        if action == ONLY {
            crate::ke::irql::at_most_dispatch(k, function);
        } else {
            crate::ke::irql::passive(k, function);
        }
        let target = object::io_target(k, target, function);
        if !(AND_WAIT..=ONLY).contains(&action) {
            return false;
        }
        if matches!(target.state, State::Started | State::Stopped) {
            target.state = State::Purged;
        }
        true
    });
    if !known {
        return;
    }
    fail_queued(target);
    if action == AND_WAIT {
        quiesce(target, true);
    } else {
        cancel_sent(target, false);
    }
}

/// Ends the requests that wait for the target's start.
fn fail_queued(target: Handle) {
    while let Some(id) = kernel(|k| get(k, target).queued.front().copied()) {
        flight::land(id, STATUS_WDF_DEVICE_REMOVED_NOT_SENT, 0, &[]);
    }
}

/// Asks for the end of what was sent, in the order in which it was.
fn cancel_sent(target: Handle, ignored_too: bool) {
    let sent = kernel(|k| {
        let sent = get(k, target).sent.clone();
        let mine = sent
            .into_iter()
            .filter(|id| ignored_too || !flight::ignores_state(k, *id));
        mine.collect::<Vec<_>>()
    });
    for id in sent {
        flight::cancel(id);
    }
}

/// Waits for what was sent, and cancels it first if asked to.
fn quiesce(target: Handle, cancel: bool) {
    let outstanding = move |k: &mut Kernel| {
        let sent = get(k, target).sent.clone();
        sent.iter().any(|id| !flight::ignores_state(k, *id))
    };
    if !kernel(|k| {
        let any = outstanding(k) || get(k, target).waiting;
        get(k, target).waiting |= any;
        any
    }) {
        return;
    }
    if cancel {
        cancel_sent(target, false);
    }
    super::wait_until(|k| !outstanding(k) && get(k, target).landing == 0);
    kernel(|k| {
        get(k, target).waiting = false;
        super::wake(k);
    });
}

/// Shuts a target: what it was sent is cancelled and waited for.
fn shut(target: Handle, state: State) {
    super::wait_until(|k| !get(k, target).waiting);
    kernel(|k| get(k, target).state = state);
    fail_queued(target);
    cancel_sent(target, true);
    super::wait_until(|k| {
        let target = get(k, target);
        target.sent.is_empty() && target.landing == 0
    });
}

/// Ends a target with its device, after its cleanup callbacks, so that a driver
/// can do otherwise in those.
pub(crate) fn dispose(target: Handle) {
    object::clean_up(target);
    shut(target, State::Deleted);
    remote::disconnect(target);
}

/// How a driver wants its request sent.
pub(crate) struct Options {
    pub(crate) synchronous: bool,
    pub(crate) forget: bool,
    pub(crate) ignores_state: bool,
    pub(crate) timeout: Option<i64>,
}

/// Reads `WDF_REQUEST_SEND_OPTIONS`.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH`; `STATUS_INVALID_PARAMETER` for unknown flags
/// and for a request that is forgotten and something else.
pub(crate) fn options(from: *const SendOptions) -> Result<Options, i32> {
    const TIMEOUT: u32 = 1;
    const SYNCHRONOUS: u32 = 2;
    const IGNORE_TARGET_STATE: u32 = 4;
    const SEND_AND_FORGET: u32 = 8;
    let (flags, timeout) = if from.is_null() {
        (0, 0)
    } else {
        let options = peek(from);
        if options.size as usize != size_of::<SendOptions>() {
            return Err(super::STATUS_INFO_LENGTH_MISMATCH);
        }
        (options.flags, options.timeout)
    };
    let all = TIMEOUT | SYNCHRONOUS | IGNORE_TARGET_STATE | SEND_AND_FORGET;
    let forget = flags & SEND_AND_FORGET != 0;
    if flags & !all != 0 || (forget && flags & (TIMEOUT | SYNCHRONOUS | IGNORE_TARGET_STATE) != 0) {
        return Err(super::STATUS_INVALID_PARAMETER);
    }
    Ok(Options {
        synchronous: flags & SYNCHRONOUS != 0,
        forget,
        ignores_state: flags & IGNORE_TARGET_STATE != 0,
        timeout: (flags & TIMEOUT != 0).then_some(timeout),
    })
}

/// Gives a number of bytes to who asked for it.
fn give<T: Copy>(out: *mut T, value: T) {
    if !out.is_null() {
        poke(out, value);
    }
}
