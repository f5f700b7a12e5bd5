// SPDX-License-Identifier: MIT OR Apache-2.0

//! The formats of a trace, from what a machine did.

#[path = "nt/threads.rs"]
mod threads;

use std::collections::BTreeMap;

use ntsim::trace::{Event, Format, Trace};
use ntsim::{MILLISECOND, Machine, Stop};
use serde_json::Value;
use threads::*;

/// Threads that wait for time and for each other; with `stuck` one that waits for ever.
fn machine(seed: u64, stuck: bool) -> (Machine, Option<Box<Stop>>) {
    let mut machine = Machine::with_seed(seed);
    let ended = machine.run_thread("main", move || {
        let threads: Vec<_> = (1..4)
            .map(|turns| {
                start(move || {
                    for _ in 0..turns {
                        delay(MILLISECOND);
                        KeGetCurrentIrql();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(join);
        if stuck {
            let event = Object::boxed();
            KeInitializeEvent(event.cast(), 0, 0);
            KeWaitForSingleObject(event, 0, 0, 0, std::ptr::null());
        }
    });
    (machine, ended.err())
}

#[test]
fn a_saved_trace_is_read_back_without_a_difference_with_its_stop() {
    for seed in 0..5 {
        let (machine, stop) = machine(seed, true);
        let trace = Trace::of(&machine, stop.as_deref());
        let again = Trace::read(&trace.to_json()).unwrap();
        assert_eq!(again, trace);
        let mark = again.stop.expect("it waits for ever");
        assert_eq!(Some(&mark.name), stop.as_ref().map(|stop| &stop.name));
        assert_eq!(mark.report["contexts"][0]["name"], "main");
        for format in [Format::Text, Format::Json, Format::Perfetto, Format::Html] {
            assert_eq!(again_shown(&trace, format), trace.show(format));
        }
    }
}

/// The trace in a format, by way of a file.
fn again_shown(trace: &Trace<'_>, format: Format) -> String {
    Trace::read(&trace.to_json()).unwrap().show(format)
}

#[test]
fn one_seed_gives_the_same_bytes_in_every_format() {
    for format in [Format::Text, Format::Json, Format::Perfetto, Format::Html] {
        let shown = |seed| {
            let (machine, _) = machine(seed, false);
            Trace::of(&machine, None).show(format)
        };
        assert_eq!(shown(3), shown(3));
        assert_ne!(shown(3), shown(4));
    }
}

/// What the page says: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>
/// A complete event has `ts` and `dur`; those of one thread nest.
#[test]
fn complete_events_of_one_track_nest_and_there_is_one_for_each_call() {
    for seed in 0..10 {
        let (machine, stop) = machine(seed, true);
        let trace = Trace::of(&machine, stop.as_deref());
        let shown: Value = serde_json::from_str(&trace.show(Format::Perfetto)).unwrap();
        let events = shown["traceEvents"].as_array().unwrap();
        let begun = |line: &&ntsim::trace::Line| {
            matches!(
                line.what,
                Event::Call { .. } | Event::Enter { .. } | Event::Callback { .. }
            )
        };
        let of = |cat: &str| events.iter().filter(|event| event["cat"] == cat).count();
        assert_eq!(
            of("call") + of("callback"),
            trace.lines.iter().filter(begun).count()
        );
        assert!(of("wait") >= 6, "each delay is a wait");
        assert_eq!(of("stop"), 1);
        let mut tracks: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
        for event in events.iter().filter(|event| event["ph"] == "X") {
            let (ts, dur) = (
                event["ts"].as_f64().unwrap(),
                event["dur"].as_f64().unwrap(),
            );
            assert!(dur > 0.0, "{event}");
            // In nanoseconds, which are whole.
            let (ts, end) = ((ts * 1000.0).round(), ((ts + dur) * 1000.0).round());
            let open = tracks.entry(event["tid"].as_u64().unwrap()).or_default();
            while open.last().is_some_and(|(_, last)| *last <= ts) {
                open.pop();
            }
            if let Some((begin, last)) = open.last() {
                assert!(*begin <= ts && end <= *last, "seed {seed}: {event}");
            }
            open.push((ts, end));
        }
        let names: Vec<_> = (events.iter())
            .filter(|event| event["name"] == "thread_name")
            .filter_map(|event| event["args"]["name"].as_str())
            .collect();
        for name in ["machine", "main", "thread#1", "thread#3"] {
            assert!(names.contains(&name), "{names:?}");
        }
    }
}

#[test]
fn a_page_is_one_file_and_what_a_driver_prints_cannot_leave_its_data() {
    let (machine, _) = machine(1, false);
    let mut trace = Trace::of(&machine, None);
    trace.title = "<b>&".to_owned();
    let line = ntsim::trace::Line {
        what: Event::Print("</script><script>alert(1)".to_owned()),
        ..trace.lines.last().expect("it made calls").clone()
    };
    trace.lines.to_mut().push(line);
    let page = trace.show(Format::Html);
    assert_eq!(
        page.matches("</script>").count(),
        2,
        "the data's and the page's"
    );
    assert!(page.contains("<title>&lt;b>&amp; · ntsim</title>"));
    for outside in ["src=", "href=", "http:", "https:", "url(", "import("] {
        assert!(!page.contains(outside), "{outside}");
    }
}
