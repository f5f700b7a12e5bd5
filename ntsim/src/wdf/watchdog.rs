// SPDX-License-Identifier: MIT OR Apache-2.0

//! Watchdogs over what a driver is asked to do, in virtual time.
//!
//! # Vocabulary
//! - *armed*: somebody waits for the driver, and only so long.
//! - *bites*: the time is over. The simulation ends with the watchdog's rule.
//!
//! ```text
//!   watch ──► armed ── the driver is done ──► (gone)
//!               └── time passes ──► bites
//! ```
//!
//! A watchdog is looked at when time passes, and does not make it pass: where
//! nothing is left to run, that itself is what is reported.

use crate::kernel::{Kernel, SECOND};
use crate::rules::{Rule, kmdf, pnp_power};
use crate::trap::kernel;

use super::object::{self, Handle};

/// How long a power change may take: what KMDF and, as the page on bug check
/// 0x9F says, Windows usually give it.
/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x9f--driver-power-state-failure>
const POWER: u64 = 600 * SECOND;
/// How long a PnP request may take. The page on bug check 0x1D5 does not say;
/// this is what the fourth parameter comes to in dumps of Windows 10 and 11.
const PNP: u64 = 360 * SECOND;

/// The armed ones.
#[derive(Default)]
pub(crate) struct Watchdogs {
    next: u64,
    armed: Vec<Watchdog>,
}

struct Watchdog {
    id: u64,
    due: u64,
    rule: &'static Rule,
    parameters: [u64; 4],
    what: String,
}

fn name(k: &Kernel, device: Handle) -> String {
    let name = k.name_of(device as usize).unwrap_or("a device");
    name.to_owned()
}

/// Does `body`, which changes the power of the device, under a watchdog.
pub(crate) fn over_power<R>(device: Handle, change: &'static str, body: impl FnOnce() -> R) -> R {
    let id = kernel(|k| {
        let settings = object::device(k, device, "the power manager");
        let (physical, pageable) = (settings.physical(), settings.settings.is_power_pageable());
        let what = format!(
            "{change} of {} is not over after {} s",
            name(k, device),
            POWER / SECOND
        );
        if pageable {
            let parameters = [physical as u64, 0, 0, 0];
            arm(k, POWER, &pnp_power::POWER_IRP_BLOCKED, parameters, what)
        } else {
            arm(k, POWER, &kmdf::POWER_ROUTINE_TIMED_OUT, [0; 4], what)
        }
    });
    let result = body();
    kernel(|k| disarm(k, id));
    result
}

/// Does `body`, a PnP request for the device, under a watchdog.
pub(crate) fn over_pnp<R>(device: Handle, request: &'static str, body: impl FnOnce() -> R) -> R {
    let id = kernel(|k| {
        let slot = object::get(k, device).driver;
        let service = super::driver::bound(k, slot).service().to_owned();
        let characters = service.encode_utf16().take(4).enumerate();
        let first = characters.fold(0, |all, (index, unit)| {
            all | u64::from(unit) << (16 * index)
        });
        let thread = k.running_thread().map_or(0, |id| id.address() as u64);
        let what = format!(
            "{request} of {} is not over after {} s",
            name(k, device),
            PNP / SECOND
        );
        let parameters = [first, 0, thread, PNP / 10_000];
        arm(k, PNP, &pnp_power::PNP_WATCHDOG, parameters, what)
    });
    let result = body();
    kernel(|k| disarm(k, id));
    result
}

/// Does `body`, in which the framework waits for a signal from the driver of this
/// device, under the watchdog of KMDF's verifier if its driver's settings have it.
pub(crate) fn over_signal(device: Handle, signal: &'static str, body: impl FnOnce()) {
    let id = kernel(|k| {
        let slot = object::get(k, device).driver;
        let seconds = super::driver::bound(k, slot).verifier.wait_for_signal?;
        let what = format!(
            "{signal} of {} did not come for {seconds} s",
            name(k, device)
        );
        let time = u64::from(seconds) * SECOND;
        Some(arm(k, time, &kmdf::WAIT_FOR_SIGNAL, [0; 4], what))
    });
    body();
    if let Some(id) = id {
        kernel(|k| disarm(k, id));
    }
}

fn arm(k: &mut Kernel, time: u64, rule: &'static Rule, parameters: [u64; 4], what: String) -> u64 {
    let due = k.now.saturating_add(time);
    let watchdogs = &mut k.wdf.watchdogs;
    watchdogs.next += 1;
    let id = watchdogs.next;
    watchdogs.armed.push(Watchdog {
        id,
        due,
        rule,
        parameters,
        what,
    });
    id
}

fn disarm(k: &mut Kernel, id: u64) {
    k.wdf.watchdogs.armed.retain(|watchdog| watchdog.id != id);
}

/// Whether one bites before `until`, so that time must not pass so far at once.
pub(crate) fn bites_before(k: &Kernel, until: u64) -> bool {
    let mut armed = k.wdf.watchdogs.armed.iter();
    armed.any(|watchdog| watchdog.due < until)
}

/// Lets the first one bite.
pub(crate) fn bite(k: &mut Kernel) {
    let armed = &mut k.wdf.watchdogs.armed;
    let first = armed.iter().enumerate().min_by_key(|(_, dog)| dog.due);
    let Some(index) = first.map(|(index, _)| index) else {
        return;
    };
    let watchdog = armed.remove(index);
    let by = watchdog.due.saturating_sub(k.now);
    k.advance(by);
    let parameters = match watchdog.rule.report {
        crate::rules::Report::BugCheckWith(..) => &watchdog.parameters[..3],
        _ => &watchdog.parameters[..],
    };
    k.broken(watchdog.rule, parameters, watchdog.what);
}
