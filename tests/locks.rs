// SPDX-License-Identifier: MIT OR Apache-2.0

//! The locks and run-down protection on a simulated machine.

#[path = "kernel/machine.rs"]
mod kernel;

use std::sync::atomic::{AtomicUsize, Ordering};

use dmf::irql::{Apc, Level};
use dmf::pool::Arc;
use dmf::prelude::*;
use dmf::sync::{
    FastMutex, Mutex, MutexOutcome, PushLock, QueuedSpinLock, RundownProtection, WaitOutcome,
    delay, wait,
};
use kernel::{LONG, bug_check, every_schedule, run, stop};
use ntsim::StopKind;

/// The current level.
fn level() -> u8 {
    // SAFETY: callable at any level.
    unsafe { dmf::sys::ntddk::KeGetCurrentIrql() }
}

/// Ends the running thread, as no safe code can.
fn end_thread() {
    // Threads end at PASSIVE_LEVEL.
    // SAFETY: nothing is done at that level but this.
    unsafe { dmf::sys::ntddk::KeLowerIrql(0) };
    // SAFETY: the thread is the driver's.
    let _ = unsafe { dmf::sys::ntddk::PsTerminateSystemThread(0) };
}

/// A call that lets others run, if nothing keeps them.
fn let_others_run() {
    level();
}

/// Whether `section` keeps three threads apart, under many schedules. It is to
/// run its argument while it holds the lock.
fn excludes<T: Send + Sync + 'static>(
    setup: fn() -> T,
    section: fn(&T, &mut Irql<'_, Passive>, &(dyn Fn() + Sync)),
) {
    every_schedule(move |irql| {
        let shared = Arc::new((setup(), AtomicUsize::new(0), AtomicUsize::new(0))).unwrap();
        let threads = [(); 3].map(|()| {
            let shared = shared.clone();
            Thread::spawn(irql, move |irql| {
                let (lock, inside, rounds) = &*shared;
                for _ in 0..3 {
                    section(lock, irql, &|| {
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        let_others_run();
                        assert_eq!(inside.fetch_sub(1, Ordering::Relaxed), 1);
                        rounds.fetch_add(1, Ordering::Relaxed);
                    });
                    assert_eq!(level(), Passive::VALUE);
                }
            })
            .unwrap()
        });
        for thread in threads {
            thread.join(irql);
        }
        assert_eq!(shared.2.load(Ordering::Relaxed), 9);
    });
}

// ---- spin locks ------------------------------------------------------------

#[test]
fn a_spin_lock_excludes_with_a_token_and_without() {
    excludes(
        || SpinLock::new(()),
        |lock, irql, inside| {
            lock.lock(irql, |(), _| {
                assert_eq!(level(), Dispatch::VALUE);
                inside();
            });
        },
    );
    excludes(
        || SpinLock::new(()),
        |lock, _, inside| lock.with(|()| inside()),
    );
}

#[test]
fn a_queued_spin_lock_excludes_with_a_token_and_without() {
    excludes(
        || QueuedSpinLock::new(()),
        |lock, irql, inside| {
            lock.lock(irql, |(), _| {
                assert_eq!(level(), Dispatch::VALUE);
                inside();
            });
        },
    );
    excludes(
        || QueuedSpinLock::new(()),
        |lock, _, inside| lock.with(|()| inside()),
    );
}

#[test]
fn locks_nest_by_the_token_of_the_outer_one() {
    run(|irql| {
        let outer = SpinLock::new(1);
        let middle = QueuedSpinLock::new(2);
        let inner = SpinLock::new(3);
        let sum = outer.lock(irql, |one, irql| {
            middle.lock(irql, |two, irql| {
                inner.lock(irql, |three, _| *one + *two + *three)
            })
        });
        assert_eq!(sum, 6);
        assert_eq!(level(), Passive::VALUE);
    });
}

#[test]
fn a_spin_lock_that_is_taken_twice_stops_the_machine() {
    for body in [
        |_: &mut Irql<'_, Passive>| {
            let lock = SpinLock::new(());
            lock.with(|()| lock.with(|()| ()));
        },
        |_: &mut Irql<'_, Passive>| {
            let lock = QueuedSpinLock::new(());
            lock.with(|()| lock.with(|()| ()));
        },
    ] {
        let report = stop(body);
        assert!(report.irql >= Dispatch::VALUE, "{report}");
    }
}

#[test]
fn a_panic_in_a_closure_releases_the_lock() {
    fn panic() {
        std::panic::resume_unwind(Box::new(()));
    }
    fn releases(body: impl FnOnce()) {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        assert!(panicked.is_err());
        // SAFETY: callable at any level.
        assert_eq!(unsafe { dmf::sys::ntddk::KeAreApcsDisabled() }, 0);
        assert_eq!(level(), Passive::VALUE);
    }
    run(|irql| {
        let lock = SpinLock::new(());
        releases(|| lock.lock(irql, |(), _| panic()));
        releases(|| lock.with(|()| panic()));
        lock.with(|()| ());

        let lock = QueuedSpinLock::new(());
        releases(|| lock.lock(irql, |(), _| panic()));
        releases(|| lock.with(|()| panic()));
        lock.with(|()| ());

        let lock = FastMutex::new(()).unwrap();
        releases(|| lock.lock(irql, |(), _| panic()));
        assert_eq!(lock.try_lock(irql, |(), _| ()), Some(()));

        let lock = PushLock::new(());
        releases(|| lock.read(irql, |()| panic()));
        releases(|| lock.write(irql, |()| panic()));
        lock.write(irql, |()| ());

        let lock = Mutex::new(()).unwrap();
        releases(|| {
            let _ = lock.lock(irql, LONG, |()| panic());
        });
        releases(|| {
            lock.claim(irql, |claim| {
                let _ = wait(irql, claim, LONG);
                panic();
            });
        });
        assert!(!lock.is_owned());
        assert_eq!(lock.lock(irql, LONG, |()| ()), MutexOutcome::Locked(()));
    });
}

// ---- fast mutexes ----------------------------------------------------------

#[test]
fn a_fast_mutex_excludes_and_its_owner_may_wait() {
    excludes(
        || FastMutex::new(()).unwrap(),
        |mutex, irql, inside| {
            mutex.lock(irql, |(), irql| {
                assert_eq!(level(), Apc::VALUE);
                delay(irql, Duration::from_millis(1));
                inside();
            });
        },
    );
}

#[test]
fn a_fast_mutex_that_is_owned_is_not_to_be_had() {
    run(|irql| {
        let mutex = Arc::new(FastMutex::new(3).unwrap()).unwrap();
        let other = mutex.clone();
        let taken = Arc::new(Event::new(dmf::sync::EventKind::Notification).unwrap()).unwrap();
        let done = Arc::new(Event::new(dmf::sync::EventKind::Notification).unwrap()).unwrap();
        let (set_taken, wait_done) = (taken.clone(), done.clone());
        let thread = Thread::spawn(irql, move |irql| {
            other.lock(irql, |value, irql| {
                set_taken.set();
                assert_eq!(wait_done.wait(irql, LONG), WaitOutcome::Signaled);
                *value += 1;
            });
        })
        .unwrap();
        assert_eq!(taken.wait(irql, LONG), WaitOutcome::Signaled);
        assert!(mutex.try_lock(irql, |_, _| ()).is_none());
        assert_eq!(level(), Passive::VALUE);
        done.set();
        thread.join(irql);
        assert_eq!(mutex.try_lock(irql, |value, _| *value), Some(4));
        assert_eq!(level(), Passive::VALUE);
    });
}

#[test]
fn a_fast_mutex_that_is_taken_twice_stops_the_machine() {
    // Driver Verifier's deadlock detection: 0xC4/0x1000.
    bug_check(0xC4, Some(0x1000), |irql| {
        let mutex = FastMutex::new(()).unwrap();
        mutex.lock(irql, |(), irql| mutex.lock(irql, |(), _| ()));
    });
}

#[test]
fn a_thread_that_ends_with_a_fast_mutex_stops_the_machine() {
    bug_check(0xC4, Some(0x100A), |irql| {
        Thread::spawn(irql, |irql| {
            let mutex = std::boxed::Box::leak(Box::new(FastMutex::new(()).unwrap()));
            mutex.lock(irql, |(), _| end_thread());
        })
        .unwrap()
        .join(irql);
    });
}

// ---- push locks ------------------------------------------------------------

#[test]
fn a_writer_excludes_writers() {
    excludes(
        || PushLock::new(0),
        |lock, irql, inside| {
            lock.write(irql, |value| {
                delay(irql, Duration::from_millis(1)); // the holder may wait
                inside();
                *value += 1;
            });
        },
    );
}

#[test]
fn a_writer_excludes_readers_and_readers_share() {
    static READERS: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    every_schedule(|irql| {
        let pair = Arc::new(PushLock::new([0; 2])).unwrap();
        let writer = pair.clone();
        let writer = Thread::spawn(irql, move |irql| {
            for round in 1..4 {
                writer.write(irql, |pair| {
                    pair[0] = round;
                    let_others_run();
                    pair[1] = round;
                });
            }
        })
        .unwrap();
        let readers = [(); 2].map(|()| {
            let pair = pair.clone();
            Thread::spawn(irql, move |irql| {
                for _ in 0..3 {
                    pair.read(irql, |pair| {
                        let now = READERS.fetch_add(1, Ordering::Relaxed) + 1;
                        MOST.fetch_max(now, Ordering::Relaxed);
                        let before = pair[0];
                        let_others_run();
                        assert_eq!([before; 2], *pair);
                        READERS.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            })
            .unwrap()
        });
        writer.join(irql);
        for reader in readers {
            reader.join(irql);
        }
        assert_eq!(pair.read(irql, |pair| *pair), [3, 3]);
    });
    assert_eq!(
        MOST.load(Ordering::Relaxed),
        2,
        "two readers were never inside together"
    );
}

#[test]
fn the_holder_of_a_push_lock_is_in_a_critical_region() {
    run(|irql| {
        // SAFETY: callable at any level.
        let disabled = || unsafe { dmf::sys::ntddk::KeAreApcsDisabled() } != 0;
        let lock = PushLock::new(());
        assert!(lock.read(irql, |()| disabled()));
        assert!(!disabled());
        assert!(lock.write(irql, |()| disabled()));
        assert!(!disabled());
    });
}

#[test]
fn a_push_lock_that_a_writer_takes_twice_is_reported() {
    let report = stop(|irql| {
        let lock = PushLock::new(());
        lock.write(irql, |()| lock.write(irql, |()| ()));
    });
    assert!(
        matches!(report.kind, StopKind::Deadlock | StopKind::BugCheck { .. }),
        "{report}"
    );
}

#[test]
fn a_reader_that_wants_to_write_is_reported() {
    let report = stop(|irql| {
        let lock = PushLock::new(());
        lock.read(irql, |()| lock.write(irql, |()| ()));
    });
    assert!(
        matches!(report.kind, StopKind::Deadlock | StopKind::BugCheck { .. }),
        "{report}"
    );
}

#[test]
fn a_raised_level_ends_with_the_closure_that_raised_it() {
    run(|irql| {
        let (shared, spin) = (PushLock::new(1), SpinLock::new(2));
        let sum = shared.read(irql, |one| spin.with(|two| *one + *two));
        assert_eq!((sum, level()), (3, Passive::VALUE));
        let fast = FastMutex::new(3).unwrap();
        let sum = fast.lock(irql, |three, irql| {
            let sum = spin.lock(irql, |two, _| *two + *three);
            assert_eq!(level(), Apc::VALUE);
            sum
        });
        assert_eq!((sum, level()), (5, Passive::VALUE));
    });
}

// ---- run-down protection ---------------------------------------------------

#[test]
fn run_down_waits_for_all_guards_and_then_lets_nobody_in() {
    every_schedule(|irql| {
        let connection = Arc::new((RundownProtection::new(7), AtomicUsize::new(0))).unwrap();
        let users = [(); 3].map(|()| {
            let connection = connection.clone();
            Thread::spawn(irql, move |irql| {
                let (protection, inside) = &*connection;
                while let Some(guard) = protection.acquire() {
                    inside.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(*guard, 7);
                    delay(irql, Duration::from_millis(1));
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
            })
            .unwrap()
        });
        delay(irql, Duration::from_millis(20));
        connection.0.run_down(irql).unwrap();
        assert_eq!(connection.1.load(Ordering::Relaxed), 0);
        assert!(connection.0.acquire().is_none());
        for user in users {
            user.join(irql);
        }
    });
}

#[test]
fn only_one_thread_runs_down_at_a_time() {
    run(|irql| {
        let protection = Arc::new(RundownProtection::new(())).unwrap();
        let guard = protection.acquire().unwrap();
        let other = protection.clone();
        let thread = Thread::spawn(irql, move |irql| {
            assert_eq!(other.run_down(irql), Ok(()));
        })
        .unwrap();
        delay(irql, Duration::from_millis(1));
        assert_eq!(protection.run_down(irql), Err(NtStatus::DELETE_PENDING));
        drop(guard);
        thread.join(irql);
        assert_eq!(protection.run_down(irql), Ok(()));
    });
}

#[test]
fn protection_that_was_run_down_can_be_opened_again() {
    run(|irql| {
        let mut protection = RundownProtection::new(1);
        protection.reinitialize();
        assert!(protection.acquire().is_some());
        protection.run_down(irql).unwrap();
        *protection.get_mut() = 2;
        protection.reinitialize();
        assert_eq!(protection.acquire().as_deref(), Some(&2));
        assert_eq!(protection.into_inner(), 2);
    });
}

#[test]
fn a_guard_may_be_dropped_under_a_spin_lock() {
    run(|irql| {
        let protection = RundownProtection::new(());
        let lock = SpinLock::new(());
        lock.with(|()| drop(protection.acquire()));
        protection.run_down(irql).unwrap();
    });
}

#[test]
fn running_down_with_a_guard_of_ones_own_is_a_deadlock() {
    let report = stop(|irql| {
        let protection = RundownProtection::new(());
        let guard = protection.acquire();
        let _ = protection.run_down(irql);
        drop(guard);
    });
    assert!(matches!(report.kind, StopKind::Deadlock), "{report}");
}
