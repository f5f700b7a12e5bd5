// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pending timers: started, cancelled and fired, a thousand to a million of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ntsim::Machine;

use crate::measure::{Goal, Row, now, since, to_float};
use crate::{nt, schedules};

const COUNTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

#[derive(Clone, Copy, Default)]
struct Times {
    start: f64,
    cancel: f64,
    fire: f64,
}

fn ktimers(count: usize) -> Times {
    let mut settings = schedules::settings(3);
    settings.livelock_limit = u64::MAX;
    settings.step_limit = u64::MAX;
    let mut machine = Machine::new(settings);
    let times = Rc::new(RefCell::new(Times::default()));
    let out = times.clone();
    machine
        .run_thread("bench", move || {
            let each = |start: Duration, n: usize| since(start) / to_float(n as u64);
            let objects = nt::Object::many(count);
            for timer in &objects {
                nt::KeInitializeTimer(*timer);
            }
            // Mixed due times, all of them after one second and before a thousand.
            let due = |index: usize| {
                -(10_000_000 + (index.cast_signed() as i64 * 7_919_113) % 9_000_000_000)
            };
            let start = now();
            for (index, timer) in objects.iter().enumerate() {
                nt::KeSetTimer(*timer, due(index), std::ptr::null_mut());
            }
            out.borrow_mut().start = each(start, count);
            // Every second one, in an order that is not the order of their starts.
            let half = count / 2;
            let start = now();
            for index in 0..half {
                nt::KeCancelTimer(objects[(index * 2 * 7_919) % count / 2 * 2]);
            }
            out.borrow_mut().cancel = each(start, half);
            for timer in objects.iter().step_by(2) {
                nt::KeCancelTimer(*timer);
            }
            let start = now();
            let long = -10_000_000_000;
            nt::KeDelayExecutionThread(0, 0, &raw const long);
            out.borrow_mut().fire = each(start, count - half);
        })
        .expect("nothing goes wrong");
    times.take()
}

/// The rows of this section.
pub fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut first: Option<Times> = None;
    for count in COUNTS {
        let times = ktimers(count);
        let base = *first.get_or_insert(times);
        // The logarithm of the number, over that of a thousand.
        let growth = to_float(count as u64).log2() / 1_000_f64.log2();
        for (what, value, baseline_value) in [
            ("start", times.start, base.start),
            ("cancel", times.cancel, base.cancel),
            ("fire", times.fire, base.fire),
        ] {
            rows.push(Row {
                what: format!("KTIMER, {count} pending, {what}"),
                value,
                unit: "ns",
                baseline: "the same with 1,000 pending".to_owned(),
                baseline_value,
                goal: (count == 1_000_000).then_some(Goal::AtMost(growth * baseline_value)),
            });
        }
    }
    rows
}
