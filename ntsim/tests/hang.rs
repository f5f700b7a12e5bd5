// SPDX-License-Identifier: MIT OR Apache-2.0

//! What never ends: deadlocks, lost wake-ups, and what the watchdog stops.

use std::hint::black_box;
use std::time::Duration;

use ntsim::rules::deadlock;
use ntsim::{MILLISECOND, Machine, SECOND, Settings, Stop, StopKind, Strategy};

#[path = "support/nt.rs"]
mod nt;

use nt::*;

/// The stop that `body` ends in, with a seed.
fn stop(settings: Settings, body: impl FnOnce() + 'static) -> Box<Stop> {
    Machine::new(settings)
        .run_thread("main", body)
        .expect_err("the simulation should have been stopped")
}

fn seeds() -> impl Iterator<Item = Settings> {
    (0..20).map(|seed| Settings {
        seed,
        ..Settings::default()
    })
}

/// A synchronization event lets one waiter go:
/// <https://learn.microsoft.com/windows-hardware/drivers/kernel/event-objects>
#[test]
fn a_second_waiter_that_nobody_wakes_is_a_lost_wake_up() {
    for settings in seeds() {
        let stop = stop(settings, || {
            let event = event(SYNCHRONIZATION);
            let [first, second] = [0, 1].map(|_| start(move || _ = wait(event, None)));
            KeSetEvent(event, 0, 0);
            join(first);
            join(second);
        });
        assert_eq!(stop.kind, StopKind::LostWakeUp, "{stop}");
        assert!(
            stop.message.contains("main waits for thread#")
                && stop
                    .message
                    .contains("waits for event#1, which nobody is left to signal"),
            "{stop}"
        );
    }
}

#[test]
fn two_mutexes_in_opposite_order_are_a_deadlock_that_names_the_circle() {
    for mut settings in seeds() {
        // They would tell before it happens.
        settings.without_rules = vec![&deadlock::ORDER, &deadlock::CIRCLE];
        let stop = stop(settings, || {
            let (a, b) = (mutex(), mutex());
            let other = start(move || {
                wait(b, None);
                delay(MILLISECOND);
                wait(a, None);
            });
            wait(a, None);
            delay(MILLISECOND);
            wait(b, None);
            join(other);
        });
        assert_eq!(stop.kind, StopKind::Deadlock, "{stop}");
        assert!(
            stop.message.ends_with(
                "main waits for mutex#2 of thread#1, thread#1 waits for mutex#1 of main"
            ),
            "{stop}"
        );
    }
}

#[test]
fn who_waits_for_a_lock_of_somebody_who_waits_for_an_event_has_lost_a_wake_up() {
    for settings in seeds() {
        let stop = stop(settings, || {
            let (lock, event) = (mutex(), event(NOTIFICATION));
            let _ = start(move || {
                wait(lock, None);
                wait(event, None);
            });
            delay(SECOND);
            wait(lock, None);
        });
        assert_eq!(stop.kind, StopKind::LostWakeUp, "{stop}");
        assert!(stop.message.contains("mutex#1 of thread#1"), "{stop}");
    }
}

#[test]
fn what_goes_on_for_ever_in_virtual_time_is_stopped_by_the_time_limit() {
    let settings = Settings {
        time_limit: Duration::from_mins(1),
        ..Settings::default()
    };
    let stop = stop(settings.clone(), || {
        let never = event(NOTIFICATION);
        let _ = start(|| {
            loop {
                delay(10 * MILLISECOND);
            }
        });
        wait(never, None);
    });
    assert_eq!(stop.kind, StopKind::Watchdog, "{stop}");
    assert!(
        stop.message.contains("main is not at its end after")
            && stop.message.contains("it waits for event#1"),
        "{stop}"
    );
    // What only takes its time is let be.
    Machine::new(settings)
        .run_thread("main", || delay(59 * SECOND))
        .unwrap();
}

#[test]
fn what_takes_no_virtual_time_worth_the_name_is_stopped_by_the_step_limit() {
    let settings = Settings {
        step_limit: 1_000,
        ..Settings::default()
    };
    let stop = stop(settings.clone(), || {
        loop {
            KeStallExecutionProcessor(1);
        }
    });
    assert_eq!(stop.kind, StopKind::Watchdog, "{stop}");
    assert!(stop.message.contains("after 1000 steps"), "{stop}");
    let mut machine = Machine::new(settings);
    for _ in 0..10 {
        // The limit is for each wait, not for the machine.
        machine
            .run_thread("main", || {
                (0..500).for_each(|_| KeStallExecutionProcessor(1));
            })
            .unwrap();
    }
}

#[test]
fn stalling_for_no_time_is_polling() {
    let settings = Settings {
        livelock_limit: 1_000,
        ..Settings::default()
    };
    let stop = stop(settings, || {
        loop {
            KeStallExecutionProcessor(0);
        }
    });
    assert_eq!(stop.kind, StopKind::Livelock, "{stop}");
}

fn watched() -> Settings {
    Settings {
        processor_limit: Some(Duration::from_millis(100)),
        strategy: Strategy::RoundRobin,
        ..Settings::default()
    }
}

#[inline(never)]
fn a_loop_without_a_call() {
    let mut number = 0_u64;
    while black_box(number) < u64::MAX {
        number += 1;
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_loop_without_a_call_is_stopped_with_its_backtrace() {
    for _ in 0..3 {
        let stop = stop(watched(), || {
            let _ = start(a_loop_without_a_call);
            delay(SECOND);
        });
        assert_eq!(stop.kind, StopKind::Watchdog, "{stop}");
        assert!(stop.message.contains("no call in 100ms"), "{stop}");
        assert!(stop.to_string().contains("a_loop_without_a_call"), "{stop}");
        assert_eq!(stop.context, "thread#1");
    }
    // The machine is over, the process is not.
    Machine::new(watched())
        .run_thread("main", || delay(SECOND))
        .unwrap();
}

/// `DPC_WATCHDOG_VIOLATION`:
/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x133-dpc-watchdog-violation>
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_loop_at_dispatch_level_is_the_bug_check_that_windows_makes_of_it() {
    extern "C-unwind" fn dpc(_: usize, _: usize, _: usize, _: usize) {
        a_loop_without_a_call();
    }
    let raised = stop(watched(), || {
        KfRaiseIrql(2);
        a_loop_without_a_call();
    });
    let deferred = stop(watched(), || {
        let object = Object::boxed();
        KeInitializeDpc(object, dpc as *const () as usize, std::ptr::null());
        KeInsertQueueDpc(object, 0, 0);
        delay(SECOND);
    });
    for (stop, first) in [(raised, 1), (deferred, 0)] {
        let StopKind::BugCheck { code, parameters } = stop.kind else {
            panic!("{stop}");
        };
        assert_eq!((code, parameters[0]), (0x133, first), "{stop}");
        assert!(stop.to_string().contains("a_loop_without_a_call"), "{stop}");
    }
}

#[test]
fn long_work_with_calls_in_between_is_no_concern_of_the_watchdog() {
    Machine::new(watched())
        .run_thread("main", || {
            for _ in 0..20 {
                let begun = std::time::Instant::now();
                while begun.elapsed() < Duration::from_millis(20) {
                    black_box(());
                }
                KeGetCurrentIrql();
            }
        })
        .unwrap();
}
