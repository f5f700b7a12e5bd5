// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the tests of waits, locks and foundations share: code on threads of a
//! simulated machine, under many schedules, and the stops that misuse ends in.

#![allow(dead_code, reason = "each test program uses its part")]

use std::time::Duration;

use dmf::irql::{Irql, Passive};
use ntsim::{Machine, Settings, Stop, StopKind};

/// How many schedules a race is played under.
pub const SCHEDULES: u64 = 1_000;

/// Plays `body` on a thread of a fresh machine, under many schedules.
pub fn every_schedule(body: impl Fn(&mut Irql<'_, Passive>) + Clone + 'static) {
    for seed in 0..SCHEDULES {
        let body = body.clone();
        machine(seed)
            .run_thread("main", move || body(&mut passive()))
            .unwrap_or_else(|stop| panic!("seed {seed}: {stop}"));
    }
}

/// Plays `body` once, and gives what it returns.
pub fn run<R: 'static>(body: impl FnOnce(&mut Irql<'_, Passive>) -> R + 'static) -> R {
    ntsim::run(move || body(&mut passive()))
}

/// The stop that `body` ends in.
pub fn stop(body: impl FnOnce(&mut Irql<'_, Passive>) + 'static) -> Box<Stop> {
    machine(1)
        .run_thread("main", move || body(&mut passive()))
        .expect_err("the simulation should have been stopped")
}

/// Checks that `body` ends in that bug check.
#[track_caller]
pub fn bug_check(
    code: u32,
    first: Option<u64>,
    body: impl FnOnce(&mut Irql<'_, Passive>) + 'static,
) {
    let stop = stop(body);
    match stop.kind {
        StopKind::BugCheck {
            code: found,
            parameters,
        } if found == code && first.is_none_or(|first| first == parameters[0]) => {}
        _ => panic!("expected bug check {code:#x}, found: {stop}"),
    }
}

/// A machine whose schedule the seed decides.
pub fn machine(seed: u64) -> Machine {
    Machine::new(Settings {
        seed,
        trace: false,
        ..Settings::default()
    })
}

/// A token for the body of a system thread.
pub fn passive() -> Irql<'static, Passive> {
    // SAFETY: system threads run at PASSIVE_LEVEL, and only their bodies call this.
    unsafe { Irql::assume() }
}

/// Longer than anything in these tests takes.
pub const LONG: Duration = Duration::from_secs(100);
/// Shorter.
pub const SHORT: Duration = Duration::from_secs(1);
