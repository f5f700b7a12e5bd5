// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests on their way: sent to a target, and not back yet.
//!
//! # Vocabulary
//! - *flight*: one sending of one request. It has one end, whoever brings it.
//! - *queued*: with a target that is stopped; *below*: with the lower driver.
//! - *land*: end a flight: the driver has its request again, and its completion
//!   routine is called.
//!
//! ```text
//!              target stopped        started
//!   submit ──────────────────► queued ────► below ──┐ the lower driver's answer
//!      │                         │            ▲     ▼
//!      │        target started   │            │    landed ── completion routine
//!      └─────────────────────────│────────────┘     ▲
//!                                └── cancel, timeout, purge, removal
//! ```
//!
//! A timeout is a cancellation that turns `STATUS_CANCELLED` into
//! `STATUS_IO_TIMEOUT`. The lower driver's answer and a cancellation race for
//! the flight; the first one takes it out of the table.
//!
//! The order is that of `FxIoTarget` (`src/framework/shared/targets/general` of
//! Windows-Driver-Frameworks).

use std::time::Duration;

use crate::abi::{callback, param};
use crate::access::{Addr, poke_bytes};
use crate::io::irp::{Ask, IrpId};
use crate::kernel::{Dpc, Expiry, Kernel, TimerKey};
use crate::rules::kmdf;
use crate::trace::Event;
use crate::trap::kernel;

use super::super::request::{self, Holder};
use super::super::{
    STATUS_CANCELLED, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE,
    STATUS_IO_TIMEOUT, STATUS_REQUEST_NOT_ACCEPTED, file, object, wake,
};
use super::format::{Format, Operation};
use super::{Answer, Below, LowerRequest, State};
use object::Handle;

/// Names a flight for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlightId(usize);

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The target is stopped.
    Queued,
    /// The lower driver has it until it is cancelled or this timer expires.
    Below(Option<TimerKey>),
    /// The lower driver is about to complete it, and does not look whether it
    /// is cancelled.
    Determined,
    /// Another simulated device has it.
    Device(IrpId),
}

/// What happens when it lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The driver's completion routine is called, if it set one.
    Routine,
    /// The same, and the sender is told.
    Synchronous,
    /// The framework completes the request.
    Forgotten,
}

/// One sending of one request.
pub(crate) struct Flight {
    /// None for the synchronous functions that were given none.
    request: Option<Handle>,
    target: Handle,
    format: Format,
    place: Place,
    end: End,
    ignores_state: bool,
    timed_out: bool,
    timer: Option<TimerKey>,
}

/// Flights, and how synchronous ones ended.
#[derive(Default)]
pub(crate) struct Flights {
    next: usize,
    live: std::collections::BTreeMap<FlightId, Flight>,
    landed: std::collections::BTreeMap<FlightId, (i32, usize)>,
}

/// How a request is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) end: End,
    pub(crate) ignores_state: bool,
    /// A `WDF_REQUEST_SEND_OPTIONS` timeout: relative if negative.
    pub(crate) timeout: Option<i64>,
}

/// What became of a submission.
pub(crate) enum Submitted {
    Queued(FlightId),
    /// It is to be [delivered](deliver).
    Send(FlightId),
}

fn name(k: &Kernel, request: Option<Handle>) -> String {
    let name = request.and_then(|request| k.name_of(request as usize));
    name.unwrap_or("a request of the framework's").to_owned()
}

/// Begins a flight.
///
/// # Errors
/// `STATUS_REQUEST_NOT_ACCEPTED` if it is not formatted, `STATUS_INVALID_DEVICE_STATE`
/// if the target takes no requests, `STATUS_CANCELLED` if the request was
/// cancelled before.
pub(crate) fn submit(
    k: &mut Kernel,
    target: Handle,
    request: Option<Handle>,
    format: Option<Format>,
    manner: Manner,
) -> Result<Submitted, i32> {
    let format = format.ok_or(STATUS_REQUEST_NOT_ACCEPTED)?;
    let state = object::io_target(k, target, "the framework").state;
    let queued = match state {
        _ if manner.end == End::Forgotten && state != State::Deleted => false,
        State::Started => false,
        State::Stopped | State::Purged if manner.ignores_state => false,
        State::Stopped => true,
        _ => return Err(STATUS_INVALID_DEVICE_STATE),
    };
    if let Some(request) = request {
        if request::get(k, request).canceled {
            return Err(STATUS_CANCELLED);
        }
        object::reference(k, request);
    }
    object::reference(k, target);
    k.wdf.flights.next += 1;
    let id = FlightId(k.wdf.flights.next);
    if let Some(request) = request {
        let request = request::get(k, request);
        request.was = request.holder;
        request.holder = Holder::Target;
        request.flight = Some(id);
    }
    let timer = match (manner.timeout, manner.end) {
        // Its sender waits for so long itself.
        (None | Some(0), _) | (_, End::Synchronous) => None,
        (Some(timeout), _) => {
            let due = k.due_time(timeout);
            Some(k.insert_timer(
                due,
                Expiry::Host(Box::new(move |k| queue(k, id, 0, time_out))),
            ))
        }
    };
    k.wdf.flights.live.insert(
        id,
        Flight {
            request,
            target,
            format,
            place: if queued {
                Place::Queued
            } else {
                Place::Below(None)
            },
            end: manner.end,
            ignores_state: manner.ignores_state || manner.end == End::Forgotten,
            timed_out: false,
            timer,
        },
    );
    let data = object::io_target(k, target, "the framework");
    if queued {
        data.queued.push_back(id);
        Ok(Submitted::Queued(id))
    } else {
        data.sent.push(id);
        Ok(Submitted::Send(id))
    }
}

/// Runs `body` at `DISPATCH_LEVEL`, in a DPC of the flight's.
fn queue(k: &mut Kernel, id: FlightId, which: usize, body: fn(FlightId)) {
    let Some(flight) = k.wdf.flights.live.get(&id) else {
        return;
    };
    let name = name(k, flight.request);
    // No object has an address in this range.
    let key = 0x10_0000 + id.0 * 2 + which;
    k.queue_dpc(Dpc {
        routine: 0,
        key,
        name,
        run: Box::new(move || body(id)),
    });
}

/// Hands a flight to the lower driver, on the caller's context.
pub(crate) fn deliver(id: FlightId) {
    let Some((format, below)) = kernel(|k| {
        let flight = k.wdf.flights.live.get(&id)?;
        let (target, format) = (flight.target, flight.format.clone());
        Some((format, super::below(k, target)))
    }) else {
        return;
    };
    let asked = format.asked();
    match below {
        Below::Driver(lower) => {
            kernel(|k| {
                k.log(Event::Machine(format!(
                    "the lower driver is asked: {asked:?}"
                )));
            });
            let answer = match lower {
                // A closure of the host's: it may not call into the simulation.
                Some(lower) => kernel(|_: &mut Kernel| lower(&asked)),
                None => Answer::Now(STATUS_INVALID_DEVICE_REQUEST.cast_unsigned(), Vec::new()),
            };
            take_answer(id, answer);
        }
        Below::Device(file) => {
            let Some(ask) = ask(asked, &format) else {
                land(id, STATUS_INVALID_DEVICE_REQUEST, 0, &[]);
                return;
            };
            let (irp, what) = file::prepare(file, &ask);
            kernel(|k| {
                k.io.irps.get(irp).flight = Some(id);
                if let Some(flight) = k.wdf.flights.live.get_mut(&id) {
                    flight.place = Place::Device(irp);
                }
            });
            file::submit(irp, &what);
            device_completed(irp);
        }
        Below::Nothing => {
            land(id, STATUS_INVALID_DEVICE_STATE, 0, &[]);
        }
    }
}

/// The same as a request to another device.
fn ask(asked: LowerRequest, format: &Format) -> Option<Ask> {
    Some(match asked {
        LowerRequest::Read { length, .. } => Ask::Read(length),
        LowerRequest::Write { bytes, .. } => Ask::Write(bytes),
        LowerRequest::Control {
            code,
            input,
            internal,
            ..
        } => Ask::Control {
            code,
            input,
            output: format.output.contents(),
            internal,
        },
        LowerRequest::Others { .. } => return None,
    })
}

fn take_answer(id: FlightId, answer: Answer) {
    let (after, status, information, data, determined) = match answer {
        Answer::Now(status, data) => (Duration::ZERO, status, None, data, false),
        Answer::Transferred(status, count) => {
            (Duration::ZERO, status, Some(count), Vec::new(), false)
        }
        Answer::After(time, status, data) => (time, status, None, data, false),
        Answer::Determined(time, status, data) => (time, status, None, data, true),
        Answer::Never => return,
    };
    let status = status.cast_signed();
    if after.is_zero() && !determined {
        land_with(id, status, information, &data);
        return;
    }
    let units = u64::try_from(after.as_nanos() / 100).unwrap_or(u64::MAX);
    kernel(|k| {
        let due = k.now.saturating_add(units);
        let timer = k.insert_timer(
            due,
            Expiry::Host(Box::new(move |k| {
                let Some(flight) = k.wdf.flights.live.get_mut(&id) else {
                    return;
                };
                // A cancellation may still come before the DPC.
                if let Place::Below(timer) = &mut flight.place {
                    *timer = None;
                }
                let name = name(k, k.wdf.flights.live[&id].request);
                k.queue_dpc(Dpc {
                    routine: 0,
                    key: 0x10_0001 + id.0 * 2,
                    name,
                    run: Box::new(move || {
                        land_with(id, status, information, &data);
                    }),
                });
            })),
        );
        if let Some(flight) = k.wdf.flights.live.get_mut(&id) {
            flight.place = if determined {
                Place::Determined
            } else {
                Place::Below(Some(timer))
            };
        }
    });
}

/// A request that another device was given is completed, or may be.
pub(crate) fn device_completed(irp: IrpId) {
    let done = kernel(|k| {
        let id = k.io.irps.find(irp)?.flight?;
        Some((id, k.io.irps.take(irp)?))
    });
    if let Some((id, completion)) = done {
        land(
            id,
            completion.status,
            completion.information,
            &completion.data,
        );
    }
}

/// As [`land`]; what was transferred is what was asked or given, unless `information` says.
fn land_with(id: FlightId, status: i32, information: Option<usize>, data: &[u8]) -> bool {
    let Some(buffers) = kernel(|k| {
        let format = &k.wdf.flights.live.get(&id)?.format;
        let is_write = format.operation == Operation::Write;
        let (input, output) = (format.input.buffer.length, format.output.buffer.length);
        Some((is_write, input, output))
    }) else {
        return false;
    };
    let (is_write, input, output) = buffers;
    let transferred = information.unwrap_or_else(|| {
        if is_write && data.is_empty() && status >= 0 {
            input
        } else {
            data.len().min(output)
        }
    });
    land(id, status, transferred, data)
}

/// Ends a flight. Tells whether it was still under way.
pub(crate) fn land(id: FlightId, status: i32, information: usize, data: &[u8]) -> bool {
    let Some(flight) = kernel(|k| take(k, id)) else {
        return false;
    };
    let output = flight.format.output.buffer;
    let length = data.len().min(output.length);
    if length != 0 && output.address != 0 {
        poke_bytes(output.address as *mut u8, &data[..length]);
    }
    let status = if flight.timed_out && status == STATUS_CANCELLED {
        STATUS_IO_TIMEOUT
    } else {
        status
    };
    let routine = kernel(|k| give_back(k, &flight, status, information));
    if let (Some(request), End::Forgotten) = (flight.request, flight.end) {
        request::finish(request, status, information);
    } else if let (Some(request), Some((evt, context))) = (flight.request, routine) {
        let mut params = flight.format.completion(status, information);
        callback::<()>(
            "EvtRequestCompletionRoutine",
            evt,
            &[
                param("Request", &request),
                param("Target", &flight.target),
                param("Params", &(&raw mut params)),
                param("Context", &Addr(context)),
            ],
        );
    }
    kernel(|k| {
        object::io_target(k, flight.target, "the framework").landing -= 1;
        if flight.end == End::Synchronous {
            k.wdf.flights.landed.insert(id, (status, information));
        }
        wake(k);
    });
    if let Some(request) = flight.request {
        object::release(request);
    }
    object::release(flight.target);
    true
}

/// Takes a flight out of all tables.
fn take(k: &mut Kernel, id: FlightId) -> Option<Flight> {
    let flight = k.wdf.flights.live.remove(&id)?;
    for timer in [
        flight.timer,
        match flight.place {
            Place::Below(timer) => timer,
            _ => None,
        },
    ]
    .into_iter()
    .flatten()
    {
        k.remove_timer(timer);
    }
    let target = object::io_target(k, flight.target, "the framework");
    target.sent.retain(|sent| *sent != id);
    target.queued.retain(|queued| *queued != id);
    target.landing += 1;
    Some(flight)
}

/// The request is the driver's again. Gives the completion routine to call.
fn give_back(
    k: &mut Kernel,
    flight: &Flight,
    status: i32,
    information: usize,
) -> Option<(usize, usize)> {
    let completion = flight.format.completion(status, information);
    let text = format!(
        "{} comes back with status {:#010x}, {information} bytes",
        name(k, flight.request),
        status.cast_unsigned()
    );
    k.log(Event::Machine(text));
    let request = request::get(k, flight.request?);
    request.holder = request.was;
    request.flight = None;
    request.is_formatted = false;
    request.completion = Some(completion);
    request.set_result(status, information);
    let (evt, context) = std::mem::take(&mut request.routine);
    (evt != 0).then_some((evt, context))
}

/// Asks whoever has a flight for its end. Tells whether somebody could be asked.
pub(crate) fn cancel(id: FlightId) -> bool {
    let Some(place) = kernel(|k| k.wdf.flights.live.get(&id).map(|flight| flight.place)) else {
        return false;
    };
    match place {
        Place::Queued | Place::Below(_) => land(id, STATUS_CANCELLED, 0, &[]),
        Place::Determined => false,
        Place::Device(irp) => request::cancel_irp(irp),
    }
}

fn time_out(id: FlightId) {
    kernel(|k| {
        if let Some(flight) = k.wdf.flights.live.get_mut(&id) {
            flight.timed_out = true;
            flight.timer = None;
        }
    });
    cancel(id);
}

/// Waits until a synchronous flight lands. Gives its status and information.
pub(crate) fn wait(id: FlightId, timeout: Option<i64>) -> (i32, usize) {
    let end = kernel(|k| {
        let end = timeout
            .filter(|timeout| *timeout != 0)
            .map(|timeout| k.due_time(timeout));
        if let Some(end) = end {
            k.insert_timer(end, Expiry::Host(Box::new(wake)));
        }
        end
    });
    super::super::wait_until(|k| {
        k.wdf.flights.landed.contains_key(&id) || end.is_some_and(|end| k.now >= end)
    });
    if let Some(result) = kernel(|k| k.wdf.flights.landed.remove(&id)) {
        return result;
    }
    time_out(id);
    super::super::wait_until(|k| k.wdf.flights.landed.contains_key(&id));
    kernel(|k| k.wdf.flights.landed.remove(&id)).expect("it has landed")
}

/// Sends what was queued, now that the target is started. Its timeouts are
/// dropped, as `DrainPendedRequestsLocked` does.
pub(super) fn restart(target: Handle) {
    while let Some(id) = kernel(|k| {
        let data = object::io_target(k, target, "the framework");
        if data.state != State::Started {
            return None;
        }
        let id = data.queued.pop_front()?;
        data.sent.push(id);
        let flight = k.wdf.flights.live.get_mut(&id).expect("it is queued");
        flight.place = Place::Below(None);
        if let Some(timer) = flight.timer.take() {
            k.remove_timer(timer);
        }
        Some(id)
    }) {
        deliver(id);
    }
}

/// Whether a stop of the target has nothing to do with the flight.
pub(super) fn ignores_state(k: &Kernel, id: FlightId) -> bool {
    k.wdf
        .flights
        .live
        .get(&id)
        .is_none_or(|flight| flight.ignores_state)
}

/// Ends the simulation: a request that is sent cannot be sent, or deleted.
pub(crate) fn already_sent(k: &mut Kernel, request: Handle, function: &str) -> ! {
    const REQUEST_ALREADY_SENT: u64 = 3;
    let message = format!(
        "{function} was called on {}, which is sent to an I/O target",
        name(k, Some(request))
    );
    k.fatal(
        &kmdf::REQUEST_ALREADY_SENT,
        &[REQUEST_ALREADY_SENT, request as u64],
        message,
    )
}
