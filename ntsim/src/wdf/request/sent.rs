// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests that a driver makes itself, and sending of all requests.
//!
//! ```text
//!   create ──► made ── format ──► formatted ── send ──► sent ── it lands ──► completed
//!               ▲                                                              │
//!               └────────────────────────── reuse ◄────────────────────────────┘
//! ```
//!
//! A request from a queue goes the same way from `format` on, and is the
//! driver's to complete when it has landed. See
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-framework-request-objects>.

use crate::access::{Addr, peek, poke};
use crate::io::irp::{IrpId, Kind};
use crate::kernel::Kernel;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::super::io_target::{self, flight, format};
use super::super::object::{self, Allow, Data, Handle};
use super::super::raw::{CompletionParams, ObjectAttributes, ReuseParams, SendOptions};
use super::super::{
    Globals, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER,
    STATUS_SUCCESS, required, verifier_break,
};
use super::{Cancelability, Holder, Request, get, name};

/// A request that the driver may format and send now: its own or a received one.
pub(crate) fn sendable<'k>(k: &'k mut Kernel, handle: Handle, function: &str) -> &'k mut Request {
    let request = object::request(k, handle, function);
    match request.holder {
        Holder::Maker => {}
        Holder::Target => flight::already_sent(k, handle, function),
        _ => {
            super::uncancelable(k, handle, function);
        }
    }
    get(k, handle)
}

/// `WdfRequestCreate`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INVALID_DEVICE_STATE` for a target that is closed,
/// `STATUS_INSUFFICIENT_RESOURCES`, those of the attributes.
pub(crate) fn create(
    g: Globals,
    from: *const ObjectAttributes,
    target: Handle,
    out: *mut Handle,
) -> i32 {
    let function = "WdfRequestCreate";
    required(out, function, "Request");
    poke(out, std::ptr::null_mut());
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            if !target.is_null() && !object::io_target(k, target, function).is_open() {
                return Err(STATUS_INVALID_DEVICE_STATE);
            }
            let (slot, parent) = object::parent_or_driver(k, g, &attributes, function);
            let request = Request::new(IrpId::NONE, Kind::Create, Holder::Maker);
            let data = Data::Request(Box::new(request));
            object::create(k, slot, Some(parent), &attributes, data)
        })
    });
    object::give(out, created)
}

/// `WdfRequestReuse`. Callable at `<= DISPATCH_LEVEL`. Forgets format,
/// completion routine and cancellation. A request that is sent is a verifier's break.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for the record's size or unknown flags;
/// `STATUS_INVALID_DEVICE_REQUEST` for a request that came from a queue.
pub(crate) fn reuse(_: Globals, handle: Handle, from: *const ReuseParams) -> i32 {
    const SET_NEW_IRP: u32 = 1;
    const MUST_COMPLETE: u32 = 2;
    let function = "WdfRequestReuse";
    required(from, function, "ReuseParams");
    let params = peek(from);
    let ours = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        sendable(k, handle, function).holder == Holder::Maker
    });
    if params.size as usize != size_of::<ReuseParams>()
        || params.flags & !(SET_NEW_IRP | MUST_COMPLETE) != 0
    {
        return STATUS_INVALID_PARAMETER;
    }
    if params.flags != 0 {
        kernel(|k| {
            let stop = crate::bugcheck::Stop::not_simulated(
                k,
                "WdfRequestReuse with another IRP or a request that must be completed",
            );
            k.stop(stop)
        });
    }
    if !ours {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    format::set(handle, None);
    kernel(|k| {
        let request = get(k, handle);
        request.routine = (0, 0);
        request.canceled = false;
        request.is_formatted = false;
        request.completion = None;
        request.set_result(params.status, 0);
    });
    STATUS_SUCCESS
}

/// `WdfRequestChangeTarget`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_STATE` for a target that is closed.
pub(crate) fn change_target(_: Globals, handle: Handle, target: Handle) -> i32 {
    let function = "WdfRequestChangeTarget";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        sendable(k, handle, function);
        if !object::io_target(k, target, function).is_open() {
            return STATUS_INVALID_DEVICE_STATE;
        }
        STATUS_SUCCESS
    })
}

/// `WdfRequestSetCompletionRoutine`. NULL takes it away.
pub(crate) fn set_completion_routine(
    _: Globals,
    handle: Handle,
    Addr(evt): Addr,
    Addr(context): Addr,
) {
    let function = "WdfRequestSetCompletionRoutine";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        sendable(k, handle, function).routine = (evt, context);
    });
}

/// `WdfRequestGetCompletionParams`: of the last sending.
pub(crate) fn get_completion_params(_: Globals, handle: Handle, out: *mut CompletionParams) {
    let function = "WdfRequestGetCompletionParams";
    required(out, function, "Params");
    let size = peek(out.cast::<u32>());
    let params = kernel(|k| {
        if size as usize != size_of::<CompletionParams>() {
            let message = format!(
                "{function} was given a record of {size} bytes; it has {}",
                size_of::<CompletionParams>()
            );
            verifier_break(k, &kmdf::RECORD_SIZE, message)
        }
        sendable(k, handle, function).completion
    });
    poke(out, params.unwrap_or(CompletionParams::NOTHING));
}

/// `WdfRequestAllocateTimer`. Timers cost the simulation nothing.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`, by injection.
pub(crate) fn allocate_timer(_: Globals, handle: Handle) -> i32 {
    let function = "WdfRequestAllocateTimer";
    kernel(|k| {
        object::request(k, handle, function);
        crate::inject::check(k, function)
            .err()
            .unwrap_or(STATUS_SUCCESS)
    })
}

/// `WdfRequestSend`. Callable at `<= DISPATCH_LEVEL`, synchronously at
/// `PASSIVE_LEVEL` only. Tells whether it was sent; if not, or if it waited,
/// `WdfRequestGetStatus` has the status.
///
/// Bad options, and a received request without a completion routine that is not
/// forgotten either, are verifier's breaks, as `FxVerifierDbgBreakPoint` says.
pub(crate) fn send(_: Globals, handle: Handle, target: Handle, options: *const SendOptions) -> u8 {
    let function = "WdfRequestSend";
    let options = io_target::options(options);
    let submitted = kernel(|k| {
        let Ok(options) = &options else {
            let message = format!(
                "{function} was given options that are refused with STATUS_INVALID_PARAMETER for {}",
                name(k, handle)
            );
            verifier_break(k, &kmdf::SEND_OPTIONS, message)
        };
        if options.synchronous {
            crate::ke::irql::passive(k, function);
        } else {
            crate::ke::irql::at_most_dispatch(k, function);
        }
        object::io_target(k, target, function);
        let submitted = submit(k, handle, target, options);
        if let Err(status) = submitted {
            get(k, handle).set_result(status, 0);
        }
        submitted
    });
    let Ok(submitted) = submitted else {
        return 0;
    };
    let id = match submitted {
        flight::Submitted::Queued(id) => id,
        flight::Submitted::Send(id) => {
            flight::deliver(id);
            id
        }
    };
    if let Ok(options) = options
        && options.synchronous
    {
        flight::wait(id, options.timeout);
    }
    1
}

fn submit(
    k: &mut Kernel,
    handle: Handle,
    target: Handle,
    options: &io_target::Options,
) -> Result<flight::Submitted, i32> {
    let function = "WdfRequestSend";
    let request = sendable(k, handle, function);
    let (received, routine) = (request.holder != Holder::Maker, request.routine.0 != 0);
    let format = request
        .is_formatted
        .then(|| request.format.clone())
        .flatten();
    let end = if options.synchronous {
        flight::End::Synchronous
    } else if options.forget {
        flight::End::Forgotten
    } else {
        flight::End::Routine
    };
    if options.forget && !received {
        return Err(STATUS_INVALID_DEVICE_STATE);
    }
    if options.forget && format.as_ref().is_some_and(|format| !format.is_current) {
        let message = format!(
            "{function} is to forget {}, which was formatted anew and not by WdfRequestFormatRequestUsingCurrentType",
            name(k, handle)
        );
        verifier_break(k, &kmdf::SEND_AND_FORGET, message)
    }
    if received && !routine && end == flight::End::Routine {
        let message = format!(
            "{function} was called on {}, which came from a queue and has no completion routine: nobody would complete it",
            name(k, handle)
        );
        verifier_break(k, &kmdf::NO_COMPLETION_ROUTINE, message)
    }
    debug_assert!(!matches!(
        get(k, handle).cancelability,
        Cancelability::Yes(_)
    ));
    // The user may have cancelled it, which is for the lower driver to find.
    let manner = flight::Manner {
        end,
        ignores_state: options.ignores_state,
        timeout: options.timeout,
    };
    flight::submit(k, target, Some(handle), format, manner)
}

/// `WdfRequestCancelSentRequest`. Callable at `<= DISPATCH_LEVEL`. Tells whether
/// somebody was asked; the completion routine tells how it ended.
pub(crate) fn cancel_sent(_: Globals, handle: Handle) -> u8 {
    let function = "WdfRequestCancelSentRequest";
    let flight = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let request = object::request(k, handle, function);
        request.canceled = true;
        request.flight
    });
    u8::from(flight.is_some_and(flight::cancel))
}

/// Before a request is deleted: it must be nobody's, and lets its memory go.
pub(crate) fn dispose(handle: Handle) {
    kernel(|k| {
        if get(k, handle).holder == Holder::Target {
            flight::already_sent(k, handle, "WdfObjectDelete");
        }
    });
    // Destroying releases no other objects.
    object::clean_up(handle);
    format::set(handle, None);
}

impl Request {
    /// Whether the driver made it itself, and so deletes it.
    pub(crate) fn is_makers(&self) -> bool {
        self.irp == IrpId::NONE
    }

    /// What `WdfRequestGetStatus` and `WdfRequestGetInformation` give.
    pub(crate) fn set_result(&mut self, status: i32, information: usize) {
        self.status = status;
        self.information = information;
    }
}
