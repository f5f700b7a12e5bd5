// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measuring two things in turns, and the table.
//!
//! What is measured is the time of the processor for this thread, not of the wall
//! clock: whatever else the machine does takes caches, but no time.
//!
//! Its own few lines, since criterion and divan measure one thing after the
//! other and compare with earlier runs, where what is wanted is a ratio of two
//! things that shared the machine's mood.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use serde::Serialize;

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is measured.
    pub what: String,
    /// Its figure.
    pub value: f64,
    /// Of what kind the figures are.
    pub unit: &'static str,
    /// What it is compared with.
    pub baseline: String,
    /// That one's figure.
    pub baseline_value: f64,
    /// What the figure should be.
    pub goal: Option<Goal>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// How often each of the two takes its turn.
const ROUNDS: usize = 9;
/// How long a turn takes at least.
const TURN: Duration = Duration::from_millis(60);

/// Does a number of operations.
pub type Work<'a> = &'a mut dyn FnMut(u64);

/// The time of one operation of each, in nanoseconds: the medians of turns that alternate.
pub fn in_turns<const N: usize>(mut works: [Work<'_>; N]) -> [f64; N] {
    let counts: Vec<u64> = works.iter_mut().map(|work| calibrate(work)).collect();
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((work, count), times) in works.iter_mut().zip(&counts).zip(&mut times) {
            times.push(time(work, *count) / to_float(*count));
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// How many operations fill a turn.
fn calibrate(work: Work<'_>) -> u64 {
    let mut count = 1;
    loop {
        let time = Duration::from_nanos(to_count(time(work, count)));
        if time >= TURN {
            return count;
        }
        let factor = TURN.as_secs_f64() / time.as_secs_f64().max(1e-9);
        count = to_count(to_float(count) * factor.clamp(1.5, 10.0)) + 1;
    }
}

fn time(work: Work<'_>, count: u64) -> f64 {
    let start = now();
    work(count);
    since(start)
}

/// The time of the processor that this thread has had.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it is not negative")
}

/// Nanoseconds since then.
pub fn since(start: Duration) -> f64 {
    now().saturating_sub(start).as_secs_f64() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub fn to_float(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and far below 2^53"
)]
fn to_count(value: f64) -> u64 {
    value as u64
}

/// How many of something that takes so many nanoseconds there are in a second.
pub fn per_second(nanoseconds: f64) -> f64 {
    1e9 / nanoseconds
}

fn figure(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", &digits[..]), |rest| ("-", rest));
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{sign}{out}")
}

/// Prints the table.
pub fn print(rows: &[Row]) {
    println!(
        "{:<46} {:>12} {:<14} {:>12} {:<34} {:>7}  goal",
        "what", "figure", "unit", "baseline", "which is", "ratio"
    );
    for row in rows {
        let goal = row.goal.map_or_else(String::new, |goal| {
            let (word, limit) = match goal {
                Goal::AtLeast(limit) => ("at least", limit),
                Goal::AtMost(limit) => ("at most", limit),
            };
            let met = if goal.is_met(row.value) {
                "met"
            } else {
                "MISSED"
            };
            format!("{word} {}: {met}", figure(limit))
        });
        println!(
            "{:<46} {:>12} {:<14} {:>12} {:<34} {:>7.2}  {goal}",
            row.what,
            figure(row.value),
            row.unit,
            figure(row.baseline_value),
            row.baseline,
            row.value / row.baseline_value,
        );
    }
}
