// SPDX-License-Identifier: MIT OR Apache-2.0

//! The life of the driver that goes through all of dmf, linked: what comes of it,
//! and whether anything of dmf is missing in it.

#[path = "support/plan.rs"]
mod plan;

use std::collections::BTreeSet;
use std::path::Path;

use ntsim::trace::Event;
use plan::{FrontEnd, told, whole_life};

/// What comes of the life, whatever the schedule, and how often.
const OUTCOMES: [(&str, usize); 38] = [
    ("starts: 0", 1),
    ("starts: 1", 1),
    ("time: a long stall: Err(STATUS_INVALID_PARAMETER", 2),
    ("time: counted: 1.23", 2),
    ("strings: a lone surrogate: dmf-beef-é\u{FFFD}", 2),
    ("strings: too long: Some(STATUS_OBJECT_NAME_INVALID", 2),
    ("pool: list: [0, 1, 2, 4, 5, 6]", 2),
    ("ERROR surface::foundations: error      1", 2),
    ("registry: nothing yet: Err(NotFound)", 1),
    ("registry: narrow: Err(WrongType)", 2),
    ("registry: only to read: Err(STATUS_ACCESS_DENIED", 2),
    (
        "registry: a stable key below a volatile one: Err(STATUS_CHILD_MUST_BE_VOLATILE",
        2,
    ),
    ("registry: runs: 0", 1),
    ("registry: runs: 1", 1),
    ("waits: all: Ok(Signaled)", 2),
    ("waits: chosen any: Ok(Signaled(3))", 2),
    ("locks: spin: 4", 2),
    ("threads: counted: (9, 9, 9, 9, Locked(9), 9, 3)", 2),
    ("object 12: dropped", 2),
    ("deferred: stopped early: Ok(BeforeItRan)", 2),
    ("modules: closed: Err(STATUS_INVALID_DEVICE_STATE", 2),
    ("D0Entry: internal from Kernel", 1),
    ("queues: stopped and purged: Ok((true, false", 2),
    ("targets: timed out: Ok(STATUS_IO_TIMEOUT", 2),
    ("targets: refused: Err(STATUS_INVALID_DEVICE_STATE", 2),
    ("landed: STATUS_CANCELLED", 2),
    ("interrupts: raised: (2, true)", 1),
    ("stop: Suspend, mine: true", 1),
    ("resume: true", 1),
    ("device: to PrepareForHibernation", 1),
    ("desk: twice: Some(STATUS_OBJECT_NAME_COLLISION", 3),
    ("device: woke s0", 1),
    ("device: usage Dump Joined", 1),
    ("device: query stop", 1),
    ("device: query remove", 1),
    ("device: gone", 2),
    ("read 16 at 0", 1),
    ("put back: Ok(())", 3),
];

#[test]
fn the_life_is_lived_under_every_schedule() {
    for seed in 0..10 {
        let trace = whole_life(&FrontEnd::Host, seed);
        let told = told(&trace);
        for (text, count) in OUTCOMES {
            let found = told.iter().filter(|line| line.contains(text)).count();
            assert_eq!(found, count, "seed {seed}: {text}");
        }
    }
}

/// What dmf calls and this life does not.
const ELSEWHERE: [&str; 2] = [
    // The device would be a filter.
    "WdfFdoInitSetFilter",
    // Only if a thread's object cannot be referenced.
    "ZwWaitForSingleObject",
];

#[test]
fn each_function_that_dmf_calls_is_called() {
    let mut called = BTreeSet::new();
    for line in whole_life(&FrontEnd::Host, 0) {
        if let Event::Call { name, .. } | Event::Enter { name, .. } = line.what {
            called.insert(name.to_owned());
        }
    }
    let mut expected = BTreeSet::new();
    functions(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../src")),
        &mut expected,
    );
    assert!(expected.len() > 150, "{}", expected.len());
    expected.retain(|name| !called.contains(name));
    let elsewhere: BTreeSet<_> = ELSEWHERE.iter().map(ToString::to_string).collect();
    assert_eq!(expected, elsewhere);
}

/// The kernel's functions that the sources in a folder name.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for start in ["ntddk::", "kmdf::", "fn Wdf"] {
            for (at, _) in text.match_indices(start) {
                let name = &text[at + start.len() - if start == "fn Wdf" { 3 } else { 0 }..];
                let end = name.find(|c: char| !c.is_ascii_alphanumeric());
                let name = &name[..end.unwrap_or(name.len())];
                if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                    found.insert(name.to_owned());
                }
            }
        }
    }
}
