// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFTIMER`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-timers>
//!
//! ```text
//!            WdfTimerStart            the time comes
//!   idle ───────────────► armed ──────────────────────► callback queued ──► callback runs
//!     ▲                     │  (a periodic timer is                             │
//!     │   WdfTimerStop      │   armed again here)                               │
//!     ├─────────────────────┘                                                   │
//!     └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A callback at `DISPATCH_LEVEL` runs in a DPC, one at `PASSIVE_LEVEL` on a
//! system worker thread. `WdfTimerStop` with Wait and the timer's deletion
//! return when no callback is queued or running, and a start in the meantime is
//! ignored; both as in KMDF's `fxtimer.cpp`.

use crate::abi::{callback, param};
use crate::access::{peek, poke};
use crate::kernel::{CLOCK_TICK, ContextId, Dpc, Expiry, Kernel, MILLISECOND, TimerKey};
use crate::rules::kmdf;
use crate::trap::kernel;

use super::lock::{self, Serial};
use super::object::{self, Allow, Data, EXECUTION_PASSIVE, Handle};
use super::raw::{ObjectAttributes, TimerConfig};
use super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER,
    STATUS_NOT_SUPPORTED, required,
};

/// What the framework keeps of a timer.
pub(crate) struct Timer {
    evt: usize,
    /// 100 ns units; 0 for a one-shot timer.
    period: u64,
    /// The ticks on which it expires.
    granularity: u64,
    passive: bool,
    serial: Serial,
    armed: Option<TimerKey>,
    /// A callback waits for its worker thread or processor.
    enqueued: bool,
    /// Callbacks that run: a passive one-shot timer that its own callback starts
    /// again can have two.
    running: Vec<ContextId>,
    stopping: Stopping,
    running_down: bool,
}

/// Whether somebody waits in `WdfTimerStop`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    Yes,
    /// Yes, and the timer was started meanwhile, which did nothing.
    StartAborted,
}

/// Sizes of `WDF_TIMER_CONFIG` before KMDF 1.9 and 1.13.
const OLDER_SIZES: [u32; 2] = [24, 32];

fn read_config(config: *const TimerConfig) -> Option<TimerConfig> {
    let size = peek(config.cast::<u32>());
    if size as usize == size_of::<TimerConfig>() {
        return Some(peek(config));
    }
    if !OLDER_SIZES.contains(&size) {
        return None;
    }
    // Read no further than the record goes.
    let bytes = crate::access::peek_bytes(config.cast(), size as usize);
    let mut whole = [0_u8; size_of::<TimerConfig>()];
    whole[..bytes.len()].copy_from_slice(&bytes);
    Some(peek(whole.as_ptr().cast()))
}

/// `WdfTimerCreate`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER` (no
/// callback, a period above `MAXLONG`, a tolerable delay with a high-resolution
/// timer), `STATUS_NOT_SUPPORTED` (periodic at passive level),
/// `STATUS_WDF_PARENT_NOT_SPECIFIED`, `STATUS_INVALID_DEVICE_REQUEST` (no device
/// above it), `STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL`.
pub(crate) fn create(
    g: Globals,
    config: *const TimerConfig,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfTimerCreate";
    kernel(|k| crate::ke::irql::at_most_dispatch(k, function));
    required(out, function, "Timer");
    required(config, function, "Config");
    poke(out, std::ptr::null_mut());
    let Some(config) = read_config(config) else {
        return STATUS_INFO_LENGTH_MISMATCH;
    };
    let created = object::attributes(from, Allow::ParentRequired, true).and_then(|attributes| {
        let high_resolution = config.use_high_resolution_timer != 0;
        if config.evt_timer == 0
            || i32::try_from(config.period).is_err()
            || (high_resolution && config.tolerable_delay != 0)
        {
            return Err(STATUS_INVALID_PARAMETER);
        }
        let passive = attributes.execution == EXECUTION_PASSIVE;
        if passive && config.period != 0 {
            return Err(STATUS_NOT_SUPPORTED);
        }
        kernel(|k| {
            let (slot, parent) = object::parent_or_driver(k, g, &attributes, function);
            if object::device_of(k, parent).is_none() {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            let serial = lock::effective(k, parent, config.automatic_serialization != 0, passive)?;
            let timer = Timer {
                evt: config.evt_timer,
                period: u64::from(config.period) * MILLISECOND,
                granularity: if high_resolution {
                    MILLISECOND
                } else {
                    CLOCK_TICK
                },
                passive,
                serial,
                armed: None,
                enqueued: false,
                running: Vec::new(),
                stopping: Stopping::No,
                running_down: false,
            };
            object::create(k, slot, Some(parent), &attributes, Data::Timer(timer))
        })
    });
    object::give(out, created)
}

fn timer(k: &mut Kernel, handle: Handle) -> &mut Timer {
    object::timer(k, handle, "the framework")
}

/// `WdfTimerStart`; the time is in 100 ns units, negative if relative. Callable
/// at `<= DISPATCH_LEVEL`. Returns whether the timer was armed already.
pub(crate) fn start(_: Globals, handle: Handle, due: i64) -> u8 {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, "WdfTimerStart");
        let timer = object::timer(k, handle, "WdfTimerStart");
        if timer.running_down {
            let name = k.name_of(handle as usize).unwrap_or("the timer").to_owned();
            super::verifier_break(
                k,
                &kmdf::TIMER_DELETED,
                format!("WdfTimerStart was called on {name} while it is being deleted"),
            );
        }
        if timer.stopping != Stopping::No {
            timer.stopping = Stopping::StartAborted;
            return 0;
        }
        let was_armed = disarm(k, handle);
        let granularity = self::timer(k, handle).granularity;
        let at = if granularity == CLOCK_TICK || due > 0 {
            k.due_time(due)
        } else {
            k.now.saturating_add(due.unsigned_abs())
        };
        arm(k, handle, at);
        u8::from(was_armed)
    })
}

fn arm(k: &mut Kernel, handle: Handle, at: u64) {
    let granularity = timer(k, handle).granularity;
    let key = k.insert_timer_with_period(
        at,
        granularity,
        Expiry::Host(Box::new(move |k| expire(k, handle))),
    );
    timer(k, handle).armed = Some(key);
}

fn disarm(k: &mut Kernel, handle: Handle) -> bool {
    match timer(k, handle).armed.take() {
        Some(key) => k.remove_timer(key),
        None => false,
    }
}

/// The time has come.
fn expire(k: &mut Kernel, handle: Handle) {
    let now = k.now;
    let timer = timer(k, handle);
    timer.armed = None;
    let (period, passive, enqueued) = (timer.period, timer.passive, timer.enqueued);
    if period != 0 {
        arm(k, handle, now + period);
    }
    if enqueued {
        return;
    }
    self::timer(k, handle).enqueued = true;
    if passive {
        crate::ex::queue_work(k, Box::new(move || run(handle)));
    } else {
        let name = k.name_of(handle as usize).unwrap_or("WDFTIMER").to_owned();
        k.queue_dpc(Dpc {
            routine: 0,
            key: handle as usize,
            name,
            run: Box::new(move || run(handle)),
        });
    }
}

/// Calls the driver's callback, in its DPC or on its worker thread.
fn run(handle: Handle) {
    let (evt, serial) = kernel(|k| {
        let me = k.running();
        object::reference(k, handle);
        let timer = timer(k, handle);
        timer.enqueued = false;
        timer.running.push(me);
        (timer.evt, timer.serial)
    });
    lock::with(serial, || {
        callback::<()>("EvtTimerFunc", evt, &[param("Timer", &handle)]);
    });
    kernel(|k| {
        let me = k.running();
        timer(k, handle).running.retain(|context| *context != me);
        super::wake(k);
    });
    object::release(handle);
}

/// `WdfTimerStop`. Callable at `<= DISPATCH_LEVEL`, with Wait at
/// `PASSIVE_LEVEL` only and never from the timer's own callback. Returns whether
/// the timer was armed.
pub(crate) fn stop(_: Globals, handle: Handle, wait: u8) -> u8 {
    let function = "WdfTimerStop";
    if wait == 0 {
        return kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            object::timer(k, handle, function);
            u8::from(disarm(k, handle))
        });
    }
    kernel(|k| {
        let me = k.running();
        if object::timer(k, handle, function).running.contains(&me) {
            let name = k.name_of(handle as usize).unwrap_or("the timer").to_owned();
            super::verifier_break(
                k,
                &kmdf::TIMER_STOPS_ITSELF,
                format!(
                    "WdfTimerStop with Wait was called on {name} by its own callback, for whose end it would wait"
                ),
            );
        }
        crate::ke::irql::passive(k, "WdfTimerStop with Wait");
        if timer(k, handle).stopping != Stopping::No {
            let name = k.name_of(handle as usize).unwrap_or("the timer").to_owned();
            super::verifier_break(
                k,
                &kmdf::TIMER_STOPPED_TWICE,
                format!("WdfTimerStop was called on {name} while another thread stops it"),
            );
        }
    });
    u8::from(stop_and_wait(handle))
}

/// Disarms the timer and waits for its callback.
fn stop_and_wait(handle: Handle) -> bool {
    let armed = kernel(|k| {
        let timer = timer(k, handle);
        timer.stopping = Stopping::Yes;
        disarm(k, handle)
    });
    super::wait_until(|k| {
        let timer = timer(k, handle);
        !timer.enqueued && timer.running.is_empty()
    });
    kernel(|k| {
        let stopping = std::mem::replace(&mut timer(k, handle).stopping, Stopping::No);
        super::wake(k);
        armed || stopping == Stopping::StartAborted
    })
}

/// Part of the timer's deletion.
pub(crate) fn dispose(handle: Handle) {
    kernel(|k| {
        let me = k.running();
        let timer = timer(k, handle);
        timer.running_down = true;
        if timer.running.contains(&me) {
            let name = k.name_of(handle as usize).unwrap_or("the timer").to_owned();
            super::verifier_break(
                k,
                &kmdf::TIMER_DELETES_ITSELF,
                format!(
                    "{name} is deleted by its own callback at PASSIVE_LEVEL, for whose end the deletion would wait"
                ),
            );
        }
    });
    // Somebody else may be in WdfTimerStop; its wait ends with this one's condition.
    super::wait_until(|k| timer(k, handle).stopping == Stopping::No);
    stop_and_wait(handle);
}

/// `WdfTimerGetParentObject`.
pub(crate) fn get_parent_object(_: Globals, handle: Handle) -> Handle {
    kernel(|k| {
        object::timer(k, handle, "WdfTimerGetParentObject");
        super::deferred::parent(k, handle)
    })
}
