// SPDX-License-Identifier: MIT OR Apache-2.0

//! The page with the timeline, in a browser without a window.
//!
//! `cargo xtask test` runs these, with the browser that `CHROMIUM` names; without
//! the feature `browser` they are not built, since nothing else here needs one.

#[path = "nt/threads.rs"]
mod threads;

use std::borrow::Cow;
use std::process::Command;

use ntsim::trace::{Event, Format, Line, Trace};
use ntsim::{MILLISECOND, Machine};
use serde_json::Value;
use threads::*;

/// Opens a page and gives what its self-check found.
fn checked(page: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, page).unwrap();
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let output = Command::new(&browser)
        // The sandbox cannot be had as root, and the page is ours.
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
        ])
        .arg("--window-size=1400,900")
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!("file://{}#check", file.display()))
        .output()
        .unwrap_or_else(|error| {
            panic!("{browser} does not start ({error}); apt-get install chromium, or CHROMIUM=path")
        });
    let dom = String::from_utf8_lossy(&output.stdout);
    let result = dom
        .split_once("<pre id=\"check\"")
        .and_then(|(_, rest)| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .map(|(result, _)| result);
    let result = result.unwrap_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!(
            "the page has no result; {browser} said:\n{said}\n{}",
            dom.len()
        )
    });
    let result = result
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error}: {result}"))
}

#[track_caller]
fn passes(trace: &Trace<'_>) -> Value {
    let result = checked(&trace.show(Format::Html));
    assert_eq!(result["errors"], serde_json::json!([]), "{result:#}");
    assert_eq!(result["problems"], serde_json::json!([]), "{result:#}");
    assert_eq!(result["lines"], trace.lines.len());
    let begun = trace.lines.iter().filter(|line| {
        matches!(
            line.what,
            Event::Call { .. } | Event::Enter { .. } | Event::Callback { .. }
        )
    });
    assert_eq!(
        result["bars"],
        begun.count(),
        "a bar for each call and callback"
    );
    result
}

#[test]
fn a_run_that_stops_is_drawn_with_a_bar_for_each_call() {
    let mut machine = Machine::with_seed(5);
    let stop = machine
        .run_thread("main", || {
            let threads: Vec<_> = (1..4)
                .map(|turns| {
                    start(move || {
                        for _ in 0..turns {
                            delay(MILLISECOND);
                            let old = KfRaiseIrql(2);
                            KeLowerIrql(old);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(join);
            let event = Object::boxed();
            KeInitializeEvent(event.cast(), 0, 0);
            KeWaitForSingleObject(event, 0, 0, 0, std::ptr::null());
        })
        .expect_err("the last wait never ends");
    let result = passes(&Trace::of(&machine, Some(&stop)));
    assert_eq!(result["lanes"], 5, "the machine and four threads");
    assert!(result["waits"].as_u64() >= Some(7), "{result}");
}

/// As many lines as a long run has: `threads` that call, are called and wait in turn.
fn long(lines: usize, threads: u32) -> Trace<'static> {
    let line = |at: usize| {
        let thread = u32::try_from(at / 20).unwrap() % threads;
        let (args, result) = (format!("Object=event#{at}"), "0".to_owned());
        let what = match at % 20 {
            0 => Event::Callback {
                name: "EvtTimerFunc",
                args,
            },
            5 => Event::Enter {
                name: "KeWaitForSingleObject",
                args,
            },
            6 => Event::Return {
                name: "KeWaitForSingleObject",
                result,
            },
            19 => Event::Return {
                name: "EvtTimerFunc",
                result: String::new(),
            },
            11 => Event::Print("hello".to_owned()),
            _ => Event::Call {
                name: "KeSetEvent",
                args,
                result,
            },
        };
        Line {
            time: (at as u64 / 6) * 40,
            context: thread + 1,
            who: format!("thread#{}", thread + 1),
            irql: 0,
            depth: usize::from(!at.is_multiple_of(20)),
            what,
        }
    };
    Trace {
        title: "long".to_owned(),
        seed: 1,
        strategy: "random".to_owned(),
        lines: Cow::Owned((0..lines).map(line).collect()),
        stop: None,
    }
}

#[test]
fn a_hundred_thousand_lines_are_drawn_in_time_and_an_empty_trace_at_all() {
    passes(&long(100_000, 12));
    passes(&long(0, 1));
    passes(&long(1, 1));
}

#[test]
fn the_check_notices_bars_that_overlap_and_scripts_that_fail() {
    let page = long(100, 2).show(Format::Html);
    // The callback of the first line ends in the midst of the wait that is in it.
    let overlap = page.replacen(",0,19,0,0]", ",0,5,0,0]", 1);
    assert!(overlap != page, "its bars are written in another way");
    assert_ne!(checked(&overlap)["problems"], serde_json::json!([]));
    let broken = page.replacen(
        "const check = () => {",
        "const check = () => { nothing();",
        1,
    );
    assert!(broken != page, "its script is another one");
    assert_ne!(checked(&broken)["errors"], serde_json::json!([]));
}
