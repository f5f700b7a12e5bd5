// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory over a million schedules, on one machine and on fresh ones.

use ntsim::{Machine, Strategy};

use crate::measure::{Goal, Row, to_float};
use crate::schedules;

/// The process's resident memory in KiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(f64::NAN);
    pages * 4.0
}

/// The rows of this section.
pub fn measure(schedules: u64) -> Vec<Row> {
    let mut machine = Machine::new(schedules::settings(0));
    let early = (schedules / 100).max(1);
    schedules::on_one_machine(&mut machine, 0..early, &Strategy::Random);
    let before = resident();
    schedules::on_one_machine(&mut machine, early..schedules, &Strategy::Random);
    let after = resident();
    vec![Row {
        what: format!("resident after {} schedules", to_float(schedules)),
        value: after,
        unit: "KiB",
        baseline: "after a hundredth of them".to_owned(),
        baseline_value: before,
        goal: Some(Goal::AtMost(before * 1.05)),
    }]
}
