// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the report of a stop tells.

#[path = "nt/threads.rs"]
mod threads;

use ntsim::report::{ContextKind, ContextState};
use ntsim::rules::deadlock;
use ntsim::{MILLISECOND, Machine, Settings, Stop, StopKind};
use threads::*;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    use crate::Object;

    unsafe extern "C-unwind" {
        pub safe fn KeInitializeGuardedMutex(mutex: *mut u8);
        pub safe fn KeAcquireGuardedMutex(mutex: *mut u8);
        pub safe fn KeInitializeSpinLock(lock: *mut usize);
        pub safe fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8;
        pub safe fn KeReleaseSpinLock(lock: *mut usize, irql: u8);
        pub safe fn ExFreePoolWithTag(block: *mut u8, tag: u32);
        pub safe fn KeInitializeDpc(dpc: *mut Object, routine: usize, context: *mut usize);
        pub safe fn KeInsertQueueDpc(dpc: *mut Object, first: usize, second: usize) -> u8;
    }
}
use nt::*;

fn guarded_mutex() -> *mut u8 {
    let mutex = Object::boxed().cast::<u8>();
    KeInitializeGuardedMutex(mutex);
    mutex
}

fn take_b_then_a(a: *mut u8, b: *mut u8) {
    KeAcquireGuardedMutex(b);
    delay(MILLISECOND);
    KeAcquireGuardedMutex(a);
}

/// So that a deadlock happens, and is not noticed before.
fn unpredicted() -> Settings {
    Settings {
        without_rules: vec![&deadlock::ORDER, &deadlock::CIRCLE],
        ..Settings::default()
    }
}

/// Two threads that took two locks in opposite order.
fn deadlock(settings: Settings) -> Box<Stop> {
    Machine::new(settings)
        .run_thread("main", || {
            let (a, b) = (guarded_mutex(), guarded_mutex());
            let other = start(move || take_b_then_a(a, b));
            KeAcquireGuardedMutex(a);
            delay(MILLISECOND);
            KeAcquireGuardedMutex(b);
            join(other);
        })
        .expect_err("they wait for each other")
}

#[test]
fn a_deadlock_tells_who_waits_for_what_who_holds_it_and_where_each_is() {
    for seed in 0..10 {
        let stop = deadlock(Settings {
            seed,
            ..unpredicted()
        });
        assert_eq!(stop.kind, StopKind::Deadlock, "{stop}");
        let thread = |name: &str| {
            let found = stop.contexts.iter().find(|context| context.name == name);
            found.unwrap_or_else(|| panic!("no {name} in {stop}"))
        };
        let other = thread("thread#1");
        assert_eq!(other.kind, ContextKind::Thread);
        assert_eq!(other.state, ContextState::Waiting);
        let wait = other.wait.as_ref().expect("it waits");
        assert_eq!(wait.objects[0].name, "mutex#1");
        assert_eq!(wait.objects[0].held_by, ["main"]);
        assert!(
            other
                .backtrace
                .iter()
                .any(|frame| frame.function.contains("take_b_then_a") && frame.line.is_some()),
            "{stop}"
        );
        let wait = thread("main").wait.as_ref().expect("it waits");
        assert_eq!(wait.objects[0].held_by, ["thread#1"]);

        let lock = &stop.locks[0];
        assert_eq!((lock.name.as_str(), lock.shared), ("mutex#1", false));
        assert_eq!(
            (&lock.held_by[0], &lock.waiters[0]),
            (&"main".into(), &"thread#1".into())
        );
        let acquired = lock.acquired.as_ref().expect("the trace is on");
        assert!(
            acquired.contains("KeAcquireGuardedMutex(Mutex=mutex#1)"),
            "{acquired}"
        );
        let text = stop.to_string();
        assert!(
            text.contains("waits for mutex#1 (held by main) without a time-out"),
            "{text}"
        );
    }
}

/// At `DISPATCH_LEVEL` in a spin lock, frees NULL.
fn at_dispatch_level() -> Box<Stop> {
    stop(|| {
        let lock = leaked(0_usize);
        KeInitializeSpinLock(lock);
        let old = KeAcquireSpinLockRaiseToDpc(lock);
        KeReleaseSpinLock(lock, old);
        KfRaiseIrql(1);
        KeLowerIrql(0);
        KeAcquireSpinLockRaiseToDpc(lock);
        ExFreePoolWithTag(std::ptr::null_mut(), 0);
    })
}

#[test]
fn the_history_of_the_irql_names_the_call_that_made_each_change() {
    let stop = at_dispatch_level();
    assert_eq!(stop.irql, 2, "{stop}");
    let changes: Vec<_> = (stop.irql_history.iter())
        .map(|change| {
            let call = change.by.split('(').next().unwrap_or_default();
            (change.from, change.to, call)
        })
        .collect();
    assert_eq!(
        changes,
        [
            (0, 2, "KeAcquireSpinLockRaiseToDpc"),
            (2, 0, "KeReleaseSpinLock"),
            (0, 1, "KfRaiseIrql"),
            (1, 0, "KeLowerIrql"),
            (0, 2, "KeAcquireSpinLockRaiseToDpc"),
        ],
        "{stop}"
    );
    assert_eq!(stop.locks[0].held_by, ["main"]);
    let last = stop.last_calls.last().expect("it made calls");
    assert!(last.contains("KeAcquireSpinLockRaiseToDpc"), "{stop}");
    assert!(stop.calls[0].starts_with("ExFreePoolWithTag("), "{stop}");
}

#[test]
fn each_parameter_of_a_rules_bug_check_is_told_with_its_meaning() {
    let stop = at_dispatch_level();
    let rule = stop.broken_rule().expect("the table has it");
    let parameters = stop.parameters();
    assert_eq!(parameters.len(), 4);
    assert!(parameters[0].meaning.contains(rule.name), "{stop}");
    assert_eq!(parameters[1].meaning, rule.parameters[0]);
    let text = stop.to_string();
    assert!(
        text.contains(rule.link) && text.contains(rule.parameters[0]),
        "{text}"
    );
}

#[test]
fn without_a_trace_the_report_says_what_it_lacks_and_still_has_the_rest() {
    let stop = deadlock(Settings {
        trace: false,
        ..unpredicted()
    });
    assert!(!stop.traced && stop.last.is_empty());
    assert!(stop.to_string().contains("the trace is off"), "{stop}");
    assert_eq!(stop.locks.len(), 2, "{stop}");
    assert!(stop.locks.iter().all(|lock| lock.acquired.is_none()));
    assert!(
        stop.contexts
            .iter()
            .all(|context| !context.backtrace.is_empty())
    );
    assert_eq!(stop.waiting().len(), 2);
}

#[test]
fn without_backtraces_no_stack_is_walked() {
    let stop = deadlock(Settings {
        backtraces: false,
        ..Settings::default()
    });
    assert!(
        stop.contexts
            .iter()
            .all(|context| context.backtrace.is_empty())
    );
}

#[test]
fn a_report_ends_with_the_line_that_replays_it() {
    let last = |settings| {
        let stop = deadlock(settings);
        stop.to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned()
    };
    let seeded = Settings {
        seed: 7,
        ..Settings::default()
    };
    assert_eq!(last(seeded.clone()), "replay: seed 7, strategy random");
    assert_eq!(
        last(Settings {
            replay: Some("ntsim run x.sys --seed 7".to_owned()),
            ..seeded
        }),
        "replay: ntsim run x.sys --seed 7"
    );
}

#[test]
fn a_report_fits_into_a_hundred_columns_and_has_colours_only_if_asked() {
    for stop in [deadlock(Settings::default()), at_dispatch_level()] {
        let text = stop.to_string();
        for line in text.lines() {
            // A path or a link is not broken.
            let words = line.split_whitespace().count();
            assert!(line.chars().count() <= 100 || words <= 2, "{line}");
        }

        assert!(!text.contains('\u{1b}'));
        assert!(stop.styled().to_string().contains('\u{1b}'));
    }
}

extern "C-unwind" fn take_the_lock(_: *mut Object, lock: *mut usize, _: usize, _: usize) {
    let old = KeAcquireSpinLockRaiseToDpc(lock);
    KeReleaseSpinLock(lock, old);
}

#[test]
fn a_dpc_that_spins_on_a_lock_is_told_with_the_threads() {
    let waits = |seed| {
        let stop = Machine::with_seed(seed).run_thread("main", || {
            let lock = leaked(0_usize);
            KeInitializeSpinLock(lock);
            KeAcquireSpinLockRaiseToDpc(lock);
            let dpc = Object::boxed();
            KeInitializeDpc(dpc, take_the_lock as *const () as usize, lock);
            KeInsertQueueDpc(dpc, 0, 0);
            KeGetCurrentIrql();
            KeGetCurrentIrql();
            ExFreePoolWithTag(std::ptr::null_mut(), 0);
        });
        let stop = stop.expect_err("it frees NULL");
        let dpc = (stop.contexts.iter())
            .find(|context| context.kind == ContextKind::Dpc)
            .unwrap_or_else(|| panic!("no DPC in {stop}"));
        assert_eq!(dpc.irql, 2);
        let Some(wait) = &dpc.wait else {
            assert_ne!(dpc.state, ContextState::Waiting);
            return false;
        };
        assert_eq!(wait.objects[0].name, "spinlock#1");
        assert_eq!(wait.objects[0].held_by, ["main"]);
        assert_eq!(stop.locks[0].waiters, std::slice::from_ref(&dpc.name));
        true
    };
    let waiting = (0..40).filter(|seed| waits(*seed)).count();
    assert!((1..40).contains(&waiting), "{waiting} of 40");
}

/// The fields that the documentation lists under a heading.
fn documented(heading: &str) -> Vec<String> {
    let text = include_str!("../../docs/report-format.md");
    let section = text
        .split("\n## ")
        .find(|section| section.lines().next() == Some(heading))
        .unwrap_or_else(|| panic!("docs/report-format.md has no section {heading}"));
    let mut fields: Vec<_> = (section.lines())
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    fields.sort();
    fields
}

/// The fields of the first object at a path.
fn fields(json: &serde_json::Value, pointer: &str) -> Vec<String> {
    let object = json.pointer(pointer).and_then(|value| value.as_object());
    let object = object.unwrap_or_else(|| panic!("no object at {pointer} in {json:#}"));
    let mut fields: Vec<_> = object.keys().cloned().collect();
    fields.sort();
    fields
}

#[test]
fn the_json_of_a_stop_has_the_documented_fields_and_no_others() {
    let order = serde_json::to_value(deadlock(Settings::default())).unwrap();
    let deadlock = serde_json::to_value(deadlock(unpredicted())).unwrap();
    let bug_check = serde_json::to_value(at_dispatch_level()).unwrap();
    assert_eq!(bug_check["version"], ntsim::report::VERSION);
    assert_eq!(bug_check["kind"], "BUG_CHECK");
    assert_eq!(deadlock["kind"], "DEADLOCK");
    assert_eq!(deadlock["code"], serde_json::Value::Null);
    for (json, pointer, heading) in [
        (&bug_check, "", "A stop"),
        (&deadlock, "", "A stop"),
        (&bug_check, "/parameters/0", "Parameters"),
        (&bug_check, "/rule", "Rule"),
        (&bug_check, "/backtrace/0", "Frames"),
        (&order, "/related/0", "What happened before"),
        (&order, "/related/0/backtrace/0", "Frames"),
        (&deadlock, "/contexts/0", "Contexts"),
        (&deadlock, "/contexts/0/backtrace/0", "Frames"),
        (&deadlock, "/contexts/0/wait", "Waits"),
        (
            &deadlock,
            "/contexts/0/wait/objects/0",
            "What is waited for",
        ),
        (&deadlock, "/locks/0", "Locks"),
        (&bug_check, "/irql_history/0", "Changes of the IRQL"),
    ] {
        assert_eq!(fields(json, pointer), documented(heading), "{pointer}");
    }
}
