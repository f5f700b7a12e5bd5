// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a kernel call costs above a direct call of a function.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

use ntsim::Machine;

use crate::measure::{Goal, Row, now, since, to_float};
use crate::{nt, schedules};

#[inline(never)]
extern "C-unwind" fn direct(state: *mut nt::Object) -> i32 {
    black_box(state);
    1
}

const CALLS: u64 = 200_000;
const ROUNDS: usize = 15;

/// Times of one call in nanoseconds, medians: the baseline's and ours.
fn time_calls(trace: bool) -> (f64, Vec<(&'static str, f64)>) {
    let mut settings = schedules::settings(1);
    settings.trace = trace;
    settings.livelock_limit = u64::MAX;
    settings.step_limit = u64::MAX;
    let calls = if trace { CALLS / 20 } else { CALLS };
    let mut machine = Machine::new(settings);
    let out = Rc::new(RefCell::new(vec![Vec::new(); 4]));
    let results = out.clone();
    machine
        .run_thread("bench", move || {
            let event = nt::Object::leaked();
            nt::KeInitializeEvent(event, 0, 0);
            for _ in 0..ROUNDS {
                let time = |slot: usize, call: &mut dyn FnMut()| {
                    let start = now();
                    for _ in 0..calls {
                        call();
                    }
                    let each = since(start) / to_float(calls);
                    results.borrow_mut()[slot].push(each);
                };
                time(0, &mut || _ = black_box(direct(black_box(event))));
                time(1, &mut || _ = black_box(nt::KeGetCurrentIrql()));
                time(2, &mut || {
                    _ = black_box(nt::KeReadStateEvent(black_box(event)));
                });
                time(3, &mut || {
                    _ = black_box(nt::KeSetEvent(black_box(event), 0, 0));
                });
            }
        })
        .expect("nothing goes wrong");
    let medians: Vec<f64> = out
        .borrow_mut()
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    let names = ["KeGetCurrentIrql", "KeReadStateEvent", "KeSetEvent"];
    (
        medians[0],
        names.into_iter().zip(medians[1..].to_vec()).collect(),
    )
}

/// The rows of this section.
pub fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for trace in [false, true] {
        let (direct, calls) = time_calls(trace);
        rows.extend(calls.into_iter().map(|(name, time)| Row {
            what: format!(
                "{name}{}, above a direct call",
                if trace { ", traced" } else { "" }
            ),
            value: time - direct,
            unit: "ns",
            baseline: "a direct call".to_owned(),
            baseline_value: direct,
            goal: (!trace).then_some(Goal::AtMost(60.0)),
        }));
    }
    rows
}
