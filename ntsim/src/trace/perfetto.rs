// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trace for Perfetto (<https://ui.perfetto.dev>) and `chrome://tracing`: the
//! [Trace Event Format][format], as a JSON object.
//!
//! One track per [lane](super::timeline): threads and DPCs in a process `ntsim`,
//! devices and the machine in one of their own. Calls, callbacks, waits and
//! states are complete events (`X`), messages and what the machine does are
//! instants (`i`).
//!
//! `ts` and `dur` are microseconds of virtual time, with three decimals. Where
//! virtual time stands still, lines are 1 ns apart in their order, so that
//! nesting stays visible ([places](super::timeline)); `args.time` has
//! the time itself, in units of 100 ns.
//!
//! [format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Event;
use super::file::Trace;
use super::timeline::{BarKind, LaneKind, Timeline};

/// The process that threads and DPCs are in.
const DRIVERS: u32 = 1;
/// The process that devices and the machine are in.
const MACHINE: u32 = 2;

/// The trace as the contents of a file.
#[must_use]
pub fn show(trace: &Trace<'_>) -> String {
    let timeline = Timeline::of(trace);
    let mut events = Vec::new();
    for (pid, name) in [
        (DRIVERS, "threads and DPCs"),
        (MACHINE, "machine and devices"),
    ] {
        events.push(json!({
            "ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": { "name": name },
        }));
    }
    for (tid, lane) in timeline.lanes.iter().enumerate() {
        let pid = match lane.kind {
            LaneKind::Machine | LaneKind::Device => MACHINE,
            LaneKind::Thread | LaneKind::Dpc => DRIVERS,
        };
        let name = match lane.kind {
            LaneKind::Dpc => format!("{} (DPC)", lane.name),
            _ => lane.name.clone(),
        };
        events.push(json!({
            "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": { "name": name },
        }));
        events.push(json!({
            "ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": { "sort_index": tid },
        }));
        for bar in &lane.bars {
            let (begin, end) = bar.span(&timeline.places);
            let name = match bar.kind {
                BarKind::Wait => format!("waits in {}", bar.name),
                _ => bar.name.clone(),
            };
            events.push(json!({
                "ph": "X", "pid": pid, "tid": tid, "cat": bar.kind.name(), "name": name,
                "ts": Micro(begin).value(), "dur": Micro(end - begin).value(),
                "args": arguments(trace, bar.first, bar.last),
            }));
        }
        for &mark in &lane.marks {
            let (cat, name) = match &trace.lines[mark].what {
                Event::Print(text) => ("print", text.clone()),
                other => (
                    "machine",
                    other.to_string().trim_start_matches("** ").to_owned(),
                ),
            };
            events.push(json!({
                "ph": "i", "s": "t", "pid": pid, "tid": tid, "cat": cat, "name": name,
                "ts": Micro(timeline.places[mark]).value(),
                "args": { "time": trace.lines[mark].time, "step": mark },
            }));
        }
    }
    if let Some(stop) = &trace.stop {
        let at = timeline.places.last().copied().unwrap_or_default();
        events.push(json!({
            "ph": "i", "s": "g", "pid": DRIVERS, "tid": 0, "cat": "stop", "name": stop.name,
            "ts": Micro(at).value(),
            "args": { "time": stop.time, "message": stop.message },
        }));
    }
    let mut text = String::from("{\"displayTimeUnit\":\"ns\",\"otherData\":");
    let about = json!({
        "title": trace.title, "seed": trace.seed, "strategy": trace.strategy,
        "note": "virtual time; where it stands still, lines are 1 ns apart in their order",
    });
    let _ = write!(text, "{about},\"traceEvents\":[");
    // An event a line, so that the file can be looked at and compared.
    for (index, event) in events.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\n{event}");
    }
    text.push_str("\n]}\n");
    text
}

/// What a click on a bar shows.
fn arguments(trace: &Trace<'_>, first: usize, last: usize) -> Value {
    let line = &trace.lines[first];
    let mut arguments = json!({ "time": line.time, "irql": line.irql, "step": first });
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            arguments[key] = value.into();
        }
    };
    match &line.what {
        Event::Call { args, result, .. } => {
            put("args", args);
            put("result", result);
        }
        Event::Enter { args, .. } | Event::Callback { args, .. } => put("args", args),
        _ => {}
    }
    if let Some(Event::Return { result, .. }) = trace.lines.get(last).map(|line| &line.what) {
        put("result", result);
    }
    arguments
}

/// Nanoseconds, to be written as microseconds.
struct Micro(u64);

impl Micro {
    fn value(&self) -> Value {
        // Exact up to 2^53 ns, a hundred days; the viewers read no more either.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let micro = self.0 as f64 / 1000.0;
        micro.into()
    }
}
