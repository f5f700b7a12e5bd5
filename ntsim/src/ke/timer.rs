// SPDX-License-Identifier: MIT OR Apache-2.0

//! `KTIMER`: <https://learn.microsoft.com/windows-hardware/drivers/kernel/timer-objects-and-dpcs>

use crate::access::peek;
use crate::kernel::{Expiry, Kernel, MILLISECOND, TimerKey};
use crate::origin::{Origin, Related};
use crate::rules;
use crate::trap::kernel;

use super::dispatcher::{self, Header, Object, initialize};
use super::dpc::{self, KDpc};

/// A timer that is set.
pub(crate) struct Set {
    key: TimerKey,
    /// 0 for a one-shot timer; 100 ns units.
    period: u64,
    dpc: Option<dpc::Prepared>,
    /// Where it was set.
    origin: Option<Origin>,
}

impl Set {
    /// The DPC that it queues.
    pub(crate) fn dpc(&self) -> Option<dpc::Prepared> {
        self.dpc
    }
}

/// Where a timer was set, for a report.
pub(crate) fn where_set(k: &Kernel, timer: usize) -> Vec<Related> {
    let origin =
        k.ke.set_timers
            .get(&timer)
            .and_then(|set| set.origin.as_ref());
    let name = k.name_of(timer).unwrap_or("the timer");
    origin
        .map(|origin| Related::new(k, format!("{name} was set"), Some(origin)))
        .into_iter()
        .collect()
}

/// `KeInitializeTimer`.
pub(crate) fn ke_initialize_timer(timer: *mut Header) {
    ke_initialize_timer_ex(timer, 0);
}

/// `KeInitializeTimerEx`.
pub(crate) fn ke_initialize_timer_ex(timer: *mut Header, kind: i32) {
    kernel(|k| {
        let address = timer as usize;
        if k.ke.set_timers.contains_key(&address) {
            let name = k.name_of(address).unwrap_or("a timer").to_owned();
            let related = where_set(k, address);
            k.broken_with(
                &rules::deferred::TIMER_INITIALIZED_WHILE_SET,
                &[timer as u64],
                format!("KeInitializeTimer was given {name}, which is set"),
                related,
            );
            cancel(k, address);
        }
    });
    initialize(
        timer,
        Object::Timer {
            notification: kind == 0,
            set: false,
        },
    );
}

/// `KeSetTimer`. Returns whether the timer was set already.
pub(crate) fn ke_set_timer(timer: *mut Header, due: i64, dpc: *mut KDpc) -> u8 {
    set(timer, due, 0, dpc, "KeSetTimer")
}

/// `KeSetTimerEx`; the period is in milliseconds.
pub(crate) fn ke_set_timer_ex(timer: *mut Header, due: i64, period: i32, dpc: *mut KDpc) -> u8 {
    if period < 0 {
        kernel(|k| {
            k.broken(
                &rules::deferred::TIMER_PERIOD,
                &[],
                format!("KeSetTimerEx was given the period {period} ms, which is below 0"),
            );
        });
    }
    set(
        timer,
        due,
        u32::try_from(period).unwrap_or(0),
        dpc,
        "KeSetTimerEx",
    )
}

/// `KeSetCoalescableTimer`; the tolerance never delays a timer here.
pub(crate) fn ke_set_coalescable_timer(
    timer: *mut Header,
    due: i64,
    period: u32,
    _tolerance: u32,
    dpc: *mut KDpc,
) -> u8 {
    set(timer, due, period, dpc, "KeSetCoalescableTimer")
}

fn set(timer: *mut Header, due: i64, period: u32, dpc: *mut KDpc, function: &'static str) -> u8 {
    let _ = peek(timer);
    let dpc = dpc::prepare(dpc);
    kernel(|k| {
        let address = timer as usize;
        expect_timer(k, address, function);
        let was_set = cancel(k, address);
        set_signal(k, address, false);
        let due = k.due_time(due);
        let key = k.insert_timer(due, Expiry::Timer(address));
        let origin = Origin::of_one_of(k, k.ke.set_timers.len());
        k.ke.set_timers.insert(
            address,
            Set {
                origin,
                key,
                period: u64::from(period) * MILLISECOND,
                dpc,
            },
        );
        u8::from(was_set)
    })
}

/// `KeCancelTimer`. Returns whether the timer was set.
pub(crate) fn ke_cancel_timer(timer: *mut Header) -> u8 {
    let _ = peek(timer);
    kernel(|k| {
        expect_timer(k, timer as usize, "KeCancelTimer");
        u8::from(cancel(k, timer as usize))
    })
}

/// `KeReadStateTimer`.
pub(crate) fn ke_read_state_timer(timer: *mut Header) -> u8 {
    let _ = peek(timer);
    kernel(|k| {
        expect_timer(k, timer as usize, "KeReadStateTimer");
        u8::from(matches!(
            k.ke.objects[&(timer as usize)],
            Object::Timer { set: true, .. }
        ))
    })
}

fn expect_timer(k: &mut Kernel, address: usize, function: &str) {
    if !matches!(dispatcher::get(k, address, function), Object::Timer { .. }) {
        let name = k.name_of(address).unwrap_or("it").to_owned();
        k.fatal(
            &rules::deferred::NO_TIMER,
            &[],
            format!("{function} was given {name}, which is no timer"),
        );
    }
}

fn set_signal(k: &mut Kernel, address: usize, signal: bool) {
    if let Some(Object::Timer { set, .. }) = k.ke.objects.get_mut(&address) {
        *set = signal;
    }
}

fn cancel(k: &mut Kernel, address: usize) -> bool {
    match k.ke.set_timers.remove(&address) {
        Some(set) => k.remove_timer(set.key),
        None => false,
    }
}

/// The timer at `address` is due.
pub(crate) fn expire(k: &mut Kernel, address: usize) {
    let Some(set) = k.ke.set_timers.remove(&address) else {
        return;
    };
    set_signal(k, address, true);
    super::wait::signaled(k, address);
    if let Some(dpc) = set.dpc {
        let now = k.system_time();
        // The system arguments are the time's two halves, as documented for CustomTimerDpc.
        dpc::queue(k, dpc, (now & 0xFFFF_FFFF) as usize, (now >> 32) as usize);
    }
    if set.period != 0 {
        let due = k.now + set.period;
        let key = k.insert_timer(due, Expiry::Timer(address));
        k.ke.set_timers.insert(address, Set { key, ..set });
    }
}
