// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's locks, called as a linked-in driver calls them.

#[path = "nt/threads.rs"]
mod threads;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ntsim::{MILLISECOND, Machine, StopKind};
use threads::*;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    unsafe extern "C-unwind" {
        pub safe fn ExAcquireFastMutex(mutex: *mut u8);
        pub safe fn ExTryToAcquireFastMutex(mutex: *mut u8) -> u8;
        pub safe fn ExReleaseFastMutex(mutex: *mut u8);
        pub safe fn ExAcquireFastMutexUnsafe(mutex: *mut u8);
        pub safe fn ExReleaseFastMutexUnsafe(mutex: *mut u8);
        pub safe fn KeInitializeGuardedMutex(mutex: *mut u8);
        pub safe fn KeAcquireGuardedMutex(mutex: *mut u8);
        pub safe fn KeTryToAcquireGuardedMutex(mutex: *mut u8) -> u8;
        pub safe fn KeReleaseGuardedMutex(mutex: *mut u8);
        pub safe fn KeAreAllApcsDisabled() -> u8;
        pub safe fn KeAreApcsDisabled() -> u8;
        pub safe fn KeEnterCriticalRegion();
        pub safe fn KeLeaveCriticalRegion();
        pub safe fn KeEnterGuardedRegion();
        pub safe fn KeLeaveGuardedRegion();
        pub safe fn ExInitializePushLock(lock: *mut usize);
        pub safe fn ExAcquirePushLockExclusiveEx(lock: *mut usize, flags: u32);
        pub safe fn ExAcquirePushLockSharedEx(lock: *mut usize, flags: u32);
        pub safe fn ExReleasePushLockExclusiveEx(lock: *mut usize, flags: u32);
        pub safe fn ExReleasePushLockSharedEx(lock: *mut usize, flags: u32);
        pub safe fn ExAcquireSpinLockShared(lock: *mut i32) -> u8;
        pub safe fn ExAcquireSpinLockExclusive(lock: *mut i32) -> u8;
        pub safe fn ExReleaseSpinLockShared(lock: *mut i32, irql: u8);
        pub safe fn ExReleaseSpinLockExclusive(lock: *mut i32, irql: u8);
        pub safe fn ExTryConvertSharedSpinLockExclusive(lock: *mut i32) -> i32;
        pub safe fn ExInitializeRundownProtection(reference: *mut usize);
        pub safe fn ExReInitializeRundownProtection(reference: *mut usize);
        pub safe fn ExAcquireRundownProtection(reference: *mut usize) -> u8;
        pub safe fn ExReleaseRundownProtection(reference: *mut usize);
        pub safe fn ExWaitForRundownProtectionRelease(reference: *mut usize);
        pub safe fn IoInitializeRemoveLockEx(
            lock: *mut u8,
            tag: u32,
            minutes: u32,
            high: u32,
            size: u32,
        );
        pub safe fn IoAcquireRemoveLockEx(
            lock: *mut u8,
            tag: usize,
            file: *const u8,
            line: u32,
            size: u32,
        ) -> i32;
        pub safe fn IoReleaseRemoveLockEx(lock: *mut u8, tag: usize, size: u32);
        pub safe fn IoReleaseRemoveLockAndWaitEx(lock: *mut u8, tag: usize, size: u32);
        pub safe fn KeAcquireInStackQueuedSpinLock(lock: *mut usize, handle: *mut [usize; 3]);
        pub safe fn KeReleaseInStackQueuedSpinLock(handle: *mut [usize; 3]);
        pub safe fn KeTryToAcquireSpinLockAtDpcLevel(lock: *mut usize) -> u8;
        pub safe fn KeReleaseSpinLockFromDpcLevel(lock: *mut usize);
        pub safe fn KeInitializeMutex(mutex: *mut super::Object, level: u32);
        pub safe fn KeReleaseMutex(mutex: *mut super::Object, wait: u8) -> i32;
        pub safe fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8;
        pub safe fn KeReleaseSpinLock(lock: *mut usize, irql: u8);
        pub safe fn KeTestSpinLock(lock: *mut usize) -> u8;
        pub safe fn ExInterlockedInsertHeadList(
            head: *mut [usize; 2],
            entry: *mut [usize; 2],
            lock: *mut usize,
        ) -> *mut [usize; 2];
        pub safe fn ExInterlockedInsertTailList(
            head: *mut [usize; 2],
            entry: *mut [usize; 2],
            lock: *mut usize,
        ) -> *mut [usize; 2];
        pub safe fn ExInterlockedRemoveHeadList(
            head: *mut [usize; 2],
            lock: *mut usize,
        ) -> *mut [usize; 2];
    }
}
use nt::*;

/// A fast mutex as `ExInitializeFastMutex`, which is inline, makes it.
fn fast_mutex() -> *mut u8 {
    let mutex = Object::boxed().cast::<u8>();
    KeInitializeEvent(mutex.wrapping_add(24), 1, 0);
    mutex
}

fn guarded_mutex() -> *mut u8 {
    let mutex = Object::boxed().cast::<u8>();
    KeInitializeGuardedMutex(mutex);
    mutex
}

/// Whether `enter` .. `leave` keeps three threads apart under many schedules.
fn excludes(setup: fn() -> usize, enter: fn(usize) -> u8, leave: fn(usize, u8)) {
    every_schedule(move || {
        let lock = setup();
        let inside = Rc::new(Cell::new(0));
        let rounds = Rc::new(Cell::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (inside, rounds) = (inside.clone(), rounds.clone());
                start(move || {
                    for _ in 0..3 {
                        let token = enter(lock);
                        inside.set(inside.get() + 1);
                        KeGetCurrentIrql();
                        assert_eq!(inside.get(), 1, "two threads hold the lock");
                        inside.set(0);
                        rounds.set(rounds.get() + 1);
                        leave(lock, token);
                        assert_eq!(KeGetCurrentIrql(), 0);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(join);
        assert_eq!(rounds.get(), 9);
    });
}

#[test]
fn a_fast_mutex_excludes_under_every_schedule() {
    excludes(
        || fast_mutex() as usize,
        |mutex| {
            ExAcquireFastMutex(mutex as *mut u8);
            assert_eq!(KeGetCurrentIrql(), 1);
            0
        },
        |mutex, _| ExReleaseFastMutex(mutex as *mut u8),
    );
}

#[test]
fn a_guarded_mutex_excludes_in_a_guarded_region_at_the_callers_irql() {
    excludes(
        || guarded_mutex() as usize,
        |mutex| {
            KeAcquireGuardedMutex(mutex as *mut u8);
            assert_eq!((KeGetCurrentIrql(), KeAreAllApcsDisabled()), (0, 1));
            0
        },
        |mutex, _| {
            KeReleaseGuardedMutex(mutex as *mut u8);
            assert_eq!(KeAreAllApcsDisabled(), 0);
        },
    );
}

#[test]
fn push_locks_and_spin_locks_taken_exclusively_exclude() {
    excludes(
        || {
            let lock = leaked(0);
            ExInitializePushLock(lock);
            lock as usize
        },
        |lock| {
            KeEnterCriticalRegion();
            ExAcquirePushLockExclusiveEx(lock as *mut usize, 0);
            0
        },
        |lock, _| {
            ExReleasePushLockExclusiveEx(lock as *mut usize, 0);
            KeLeaveCriticalRegion();
        },
    );
    excludes(
        || leaked(0_i32) as usize,
        |lock| ExAcquireSpinLockExclusive(lock as *mut i32),
        |lock, irql| ExReleaseSpinLockExclusive(lock as *mut i32, irql),
    );
}

#[test]
fn a_queued_spin_lock_excludes_and_returns_to_the_callers_irql() {
    excludes(
        || leaked(0_usize) as usize,
        |lock| {
            let handle = leaked([0_usize; 3]);
            HANDLES.with_borrow_mut(|handles| handles.push(handle));
            KeAcquireInStackQueuedSpinLock(lock as *mut usize, handle);
            assert_eq!(KeGetCurrentIrql(), 2);
            HELD.set(handle);
            0
        },
        |_, _| KeReleaseInStackQueuedSpinLock(HELD.get()),
    );
}

#[test]
fn the_name_of_a_lock_that_is_gone_is_not_shown_for_what_is_there_now() {
    let mut machine = ntsim::Machine::default();
    let run = machine.run_thread("test", || {
        // A driver's stack: a push lock, and later something else in its place.
        let place = leaked([0_usize; 3]);
        ExInitializePushLock(place.cast());
        ExInitializePushLock(place.cast());
        let lock = leaked(0_usize);
        KeAcquireInStackQueuedSpinLock(lock, place);
        KeReleaseInStackQueuedSpinLock(place);
    });
    run.unwrap_or_else(|stop| panic!("{stop}"));
    let lines: Vec<_> = machine.trace().iter().map(ToString::to_string).collect();
    for shown in ["PushLock=pushlock#1", "LockHandle=ptr"] {
        let shows = |line: &&String| line.contains(shown);
        assert!(lines.iter().any(|line| shows(&line)), "{shown}: {lines:#?}");
    }
}

thread_local! {
    static HANDLES: RefCell<Vec<*mut [usize; 3]>> = const { RefCell::new(Vec::new()) };
    static HELD: Cell<*mut [usize; 3]> = const { Cell::new(std::ptr::null_mut()) };
}

#[test]
fn trying_for_a_mutex_tells_whether_it_was_free() {
    every_schedule(|| {
        let (fast, guarded) = (fast_mutex(), guarded_mutex());
        let other = start(move || {
            delay(MILLISECOND);
            assert_eq!(ExTryToAcquireFastMutex(fast), 0);
            assert_eq!(KeTryToAcquireGuardedMutex(guarded), 0);
            assert_eq!((KeGetCurrentIrql(), KeAreAllApcsDisabled()), (0, 0));
        });
        assert_eq!(ExTryToAcquireFastMutex(fast), 1);
        assert_eq!(KeTryToAcquireGuardedMutex(guarded), 1);
        join(other);
        KeReleaseGuardedMutex(guarded);
        assert_eq!(KeGetCurrentIrql(), 1);
        ExReleaseFastMutex(fast);
        assert_eq!(KeGetCurrentIrql(), 0);
    });
}

#[test]
fn readers_share_a_lock_and_a_writer_waits_for_them() {
    every_schedule(|| {
        let lock = leaked(0_usize);
        let order = Rc::new(RefCell::new(Vec::new()));
        KeEnterCriticalRegion();
        ExAcquirePushLockSharedEx(lock, 0);
        let writer = {
            let order = order.clone();
            start(move || {
                KeEnterCriticalRegion();
                ExAcquirePushLockExclusiveEx(lock, 0);
                order.borrow_mut().push("writer");
                ExReleasePushLockExclusiveEx(lock, 0);
                KeLeaveCriticalRegion();
            })
        };
        let reader = start(move || {
            KeEnterCriticalRegion();
            ExAcquirePushLockSharedEx(lock, 0);
            ExReleasePushLockSharedEx(lock, 0);
            KeLeaveCriticalRegion();
        });
        join(reader);
        delay(MILLISECOND);
        order.borrow_mut().push("first reader leaves");
        ExReleasePushLockSharedEx(lock, 0);
        KeLeaveCriticalRegion();
        join(writer);
        assert_eq!(*order.borrow(), ["first reader leaves", "writer"]);
    });
}

#[test]
fn the_only_reader_can_become_the_writer() {
    ntsim::run(|| {
        let lock = leaked(0_i32);
        let old = ExAcquireSpinLockShared(lock);
        assert_eq!(ExTryConvertSharedSpinLockExclusive(lock), 1);
        ExReleaseSpinLockExclusive(lock, old);
        let old = ExAcquireSpinLockShared(lock);
        ExReleaseSpinLockShared(lock, old);
        assert_eq!(KeGetCurrentIrql(), 0);
    });
}

#[test]
fn misused_mutexes_are_bug_checks() {
    expect_bug_check(
        &stop(|| ExAcquireFastMutex(Object::boxed().cast())),
        0xC4,
        0x1002,
    );
    expect_bug_check(
        &stop(|| {
            let mutex = fast_mutex();
            KfRaiseIrql(2);
            ExAcquireFastMutex(mutex);
        }),
        0xC4,
        0x2_0005,
    );
    expect_bug_check(
        &stop(|| {
            let mutex = fast_mutex();
            ExAcquireFastMutex(mutex);
            ExAcquireFastMutex(mutex);
        }),
        0xC4,
        0x1000,
    );
    expect_bug_check(
        &stop(|| {
            let mutex = fast_mutex();
            ExAcquireFastMutex(mutex);
            KeLowerIrql(0);
            ExReleaseFastMutex(mutex);
        }),
        0xC4,
        0x34,
    );
    expect_bug_check(
        &stop(|| {
            let mutex = fast_mutex();
            KfRaiseIrql(1);
            ExReleaseFastMutex(mutex);
        }),
        0xC4,
        0x1007,
    );
    expect_bug_check(&stop(|| ExAcquireFastMutexUnsafe(fast_mutex())), 0xC4, 0x39);
    expect_bug_check(
        &stop(|| {
            let mutex = guarded_mutex();
            join(start(move || KeAcquireGuardedMutex(mutex)));
        }),
        0xC4,
        0x100A,
    );
}

#[test]
fn the_unsafe_variants_work_where_apcs_are_disabled() {
    ntsim::run(|| {
        let mutex = fast_mutex();
        KeEnterCriticalRegion();
        assert_eq!((KeAreApcsDisabled(), KeAreAllApcsDisabled()), (1, 0));
        ExAcquireFastMutexUnsafe(mutex);
        assert_eq!(KeGetCurrentIrql(), 0);
        ExReleaseFastMutexUnsafe(mutex);
        KeLeaveCriticalRegion();
    });
}

#[test]
fn guarded_regions_nest_and_are_left_before_the_thread_ends() {
    ntsim::run(|| {
        KeEnterGuardedRegion();
        KeEnterGuardedRegion();
        KeLeaveGuardedRegion();
        assert_eq!(KeAreAllApcsDisabled(), 1);
        KeLeaveGuardedRegion();
        assert_eq!(KeAreAllApcsDisabled(), 0);
    });
    expect_bug_check(&stop(|| KeLeaveGuardedRegion()), 0xC4, 0x4_000E);
    expect_bug_check(&stop(|| join(start(|| KeEnterGuardedRegion()))), 0x01, 0);
}

#[test]
fn a_push_lock_outside_of_a_critical_region_is_a_bug_check() {
    expect_bug_check(
        &stop(|| ExAcquirePushLockSharedEx(leaked(0), 0)),
        0xC4,
        0xEA,
    );
}

/// Takes two locks in one order on one thread, and then in the other on another.
fn in_both_orders(first: fn() -> Lock, second: fn() -> Lock) -> Box<ntsim::Stop> {
    stop(move || {
        let locks = [Rc::new(first()), Rc::new(second())];
        for [outer, inner] in [[0, 1], [1, 0]] {
            let (outer, inner) = (locks[outer].clone(), locks[inner].clone());
            join(start(move || {
                let old = (outer.take)(outer.at);
                let inner_old = (inner.take)(inner.at);
                (inner.give)(inner.at, inner_old);
                (outer.give)(outer.at, old);
            }));
        }
    })
}

/// A lock of some kind, and how it is used.
struct Lock {
    at: usize,
    take: fn(usize) -> u8,
    give: fn(usize, u8),
}

fn a_fast_mutex() -> Lock {
    Lock {
        at: fast_mutex() as usize,
        take: |lock| {
            ExAcquireFastMutex(lock as *mut u8);
            0
        },
        give: |lock, _| ExReleaseFastMutex(lock as *mut u8),
    }
}

fn a_mutex() -> Lock {
    let mutex = Object::boxed();
    KeInitializeMutex(mutex, 0);
    Lock {
        at: mutex as usize,
        take: |lock| {
            let mutex = lock as *mut Object;
            assert_eq!(KeWaitForSingleObject(mutex, 0, 0, 0, std::ptr::null()), 0);
            0
        },
        give: |lock, _| {
            KeReleaseMutex(lock as *mut Object, 0);
        },
    }
}

fn a_push_lock() -> Lock {
    Lock {
        at: leaked(0_usize) as usize,
        take: |lock| {
            KeEnterCriticalRegion();
            ExAcquirePushLockSharedEx(lock as *mut usize, 0);
            0
        },
        give: |lock, _| {
            ExReleasePushLockSharedEx(lock as *mut usize, 0);
            KeLeaveCriticalRegion();
        },
    }
}

fn a_spin_lock() -> Lock {
    Lock {
        at: leaked(0_usize) as usize,
        take: |lock| KeAcquireSpinLockRaiseToDpc(lock as *mut usize),
        give: |lock, irql| KeReleaseSpinLock(lock as *mut usize, irql),
    }
}

fn a_shared_spin_lock() -> Lock {
    Lock {
        at: leaked(0_i32) as usize,
        take: |lock| ExAcquireSpinLockExclusive(lock as *mut i32),
        give: |lock, irql| ExReleaseSpinLockExclusive(lock as *mut i32, irql),
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/devtest/deadlock-detection>:
/// found although the threads never run at the same time.
#[test]
fn two_locks_in_opposite_order_are_reported_before_anybody_waits() {
    type Make = fn() -> Lock;
    let pairs: [(Make, Make); 5] = [
        (a_mutex, a_mutex),
        (a_mutex, a_fast_mutex),
        (a_push_lock, a_mutex),
        (a_spin_lock, a_spin_lock),
        (a_shared_spin_lock, a_spin_lock),
    ];
    for (first, second) in pairs {
        let stop = in_both_orders(first, second);
        expect_bug_check(&stop, 0xC4, 0x1001);
        assert!(
            stop.message.starts_with("thread#2 takes ")
                && stop.message.contains("; before, thread#1 took "),
            "{stop}"
        );
        // Each place where a lock was taken is in the report, besides the stop's own.
        assert_eq!(stop.related.len(), 3, "{stop}");
        for related in &stop.related {
            let mut frames = related.backtrace.iter();
            let here = frames.any(|frame| {
                frame
                    .file
                    .as_deref()
                    .is_some_and(|file| file.ends_with("nt_locks.rs"))
            });
            assert!(here, "{stop}");
        }
    }
}

#[test]
fn three_locks_in_a_circle_are_reported_with_each_step() {
    let stop = stop(|| {
        let locks = [fast_mutex(), fast_mutex(), fast_mutex()];
        for [outer, inner] in [[0, 1], [1, 2], [2, 0]] {
            join(start(move || {
                ExAcquireFastMutex(locks[outer]);
                ExAcquireFastMutex(locks[inner]);
                ExReleaseFastMutex(locks[inner]);
                ExReleaseFastMutex(locks[outer]);
            }));
        }
    });
    expect_bug_check(&stop, 0xC4, 0x1001);
    for step in [
        "thread#3 takes mutex#1 (ExAcquireFastMutex) while it holds mutex#3",
        "thread#1 took mutex#2 (ExAcquireFastMutex) while it held mutex#1",
        "thread#2 took mutex#3 (ExAcquireFastMutex) while it held mutex#2",
    ] {
        assert!(stop.message.contains(step), "{stop}");
    }
}

#[test]
fn who_only_tries_or_whose_lock_was_freed_meanwhile_is_in_no_order() {
    ntsim::run(|| {
        let locks = [fast_mutex(), fast_mutex()];
        ExAcquireFastMutex(locks[0]);
        assert_eq!(ExTryToAcquireFastMutex(locks[1]), 1);
        ExReleaseFastMutex(locks[1]);
        ExReleaseFastMutex(locks[0]);
        ExAcquireFastMutex(locks[1]);
        ExAcquireFastMutex(locks[0]);
        ExReleaseFastMutex(locks[0]);
        ExReleaseFastMutex(locks[1]);
    });
    // A lock that is initialised again is another one at the same address.
    ntsim::run(|| {
        let locks = [guarded_mutex(), guarded_mutex()];
        for [outer, inner] in [[0, 1], [1, 0]] {
            KeAcquireGuardedMutex(locks[outer]);
            KeAcquireGuardedMutex(locks[inner]);
            KeReleaseGuardedMutex(locks[inner]);
            KeReleaseGuardedMutex(locks[outer]);
            KeInitializeGuardedMutex(locks[1]);
        }
    });
}

/// What an order of locks cannot show: a thread that is waited for needs the lock of who waits.
#[test]
fn a_circle_of_waits_is_a_deadlock_at_once_though_time_could_go_on() {
    for seed in 0..20 {
        let result = Machine::with_seed(seed).run_thread("main", || {
            // Somebody has a timer, so that the machine never comes to rest.
            let _sleeper = start(|| delay(1_000_000 * MILLISECOND));
            let mutex = fast_mutex();
            ExAcquireFastMutex(mutex);
            KeLowerIrql(0);
            let other = start(move || {
                ExAcquireFastMutex(mutex);
                ExReleaseFastMutex(mutex);
            });
            join(other);
        });
        let stop = result.expect_err("nobody can go on");
        assert_eq!(stop.kind, StopKind::Deadlock, "{stop}");
        assert_eq!(stop.rule, Some("DeadlockCircle"));
        assert!(
            stop.message.contains("main waits for thread#2 to end")
                && stop
                    .message
                    .contains("thread#2 waits for mutex#1, which main holds"),
            "{stop}"
        );
        assert!(stop.time < 1_000_000 * MILLISECOND);
    }
}

#[test]
fn run_down_waits_for_the_last_user_and_admits_no_other() {
    every_schedule(|| {
        let reference = leaked(0_usize);
        ExInitializeRundownProtection(reference);
        let gone = Rc::new(Cell::new(false));
        assert_eq!(ExAcquireRundownProtection(reference), 1);
        let user = {
            let gone = gone.clone();
            start(move || {
                delay(MILLISECOND);
                assert!(!gone.get());
                ExReleaseRundownProtection(reference);
            })
        };
        ExWaitForRundownProtectionRelease(reference);
        gone.set(true);
        assert_eq!(ExAcquireRundownProtection(reference), 0);
        join(user);
        ExReInitializeRundownProtection(reference);
        assert_eq!(ExAcquireRundownProtection(reference), 1);
    });
    assert_eq!(
        stop(|| {
            let reference = leaked(0_usize);
            ExInitializeRundownProtection(reference);
            ExReleaseRundownProtection(reference);
        })
        .kind,
        StopKind::Misuse,
    );
}

const SIZE: u32 = 32;
const DELETE_PENDING: i32 = 0xC000_0056_u32.cast_signed();

fn remove_lock() -> *mut u8 {
    let lock = Object::boxed().cast();
    IoInitializeRemoveLockEx(lock, 0, 0, 0, SIZE);
    lock
}

fn acquire(lock: *mut u8, tag: usize) -> i32 {
    IoAcquireRemoveLockEx(lock, tag, c"".as_ptr().cast(), 1, SIZE)
}

#[test]
fn removal_waits_for_operations_and_refuses_new_ones() {
    every_schedule(|| {
        let lock = remove_lock();
        let removed = Rc::new(Cell::new(false));
        assert_eq!(acquire(lock, 1), 0);
        let operation = {
            let removed = removed.clone();
            start(move || {
                delay(MILLISECOND);
                assert!(!removed.get());
                assert_eq!(acquire(lock, 3), DELETE_PENDING);
                IoReleaseRemoveLockEx(lock, 1, SIZE);
            })
        };
        assert_eq!(acquire(lock, 2), 0);
        IoReleaseRemoveLockAndWaitEx(lock, 2, SIZE);
        removed.set(true);
        assert_eq!(acquire(lock, 4), DELETE_PENDING);
        join(operation);
    });
}

#[test]
fn a_remove_lock_released_with_another_tag_is_a_bug_check() {
    expect_bug_check(
        &stop(|| {
            let lock = remove_lock();
            acquire(lock, 1);
            IoReleaseRemoveLockEx(lock, 2, SIZE);
        }),
        0xC4,
        0xD5,
    );
    expect_bug_check(
        &stop(|| IoReleaseRemoveLockAndWaitEx(remove_lock(), 1, SIZE)),
        0xC4,
        0xD6,
    );
}

#[test]
fn a_spin_lock_can_be_tried_and_tested() {
    ntsim::run(|| {
        let lock = leaked(0_usize);
        let old = KfRaiseIrql(2);
        assert_eq!(KeTestSpinLock(lock), 1);
        assert_eq!(KeTryToAcquireSpinLockAtDpcLevel(lock), 1);
        assert_eq!(KeTestSpinLock(lock), 0);
        assert_eq!(KeTryToAcquireSpinLockAtDpcLevel(lock), 0);
        KeReleaseSpinLockFromDpcLevel(lock);
        KeLowerIrql(old);
    });
}

#[test]
fn an_interlocked_list_gives_back_what_was_put_in() {
    ntsim::run(|| {
        let (head, lock) = (leaked([0_usize; 2]), leaked(0_usize));
        // SAFETY: just allocated; this is `InitializeListHead`.
        unsafe { *head = [head as usize; 2] };
        let entries = [leaked([0; 2]), leaked([0; 2]), leaked([0; 2])];
        let none = std::ptr::null_mut();
        assert_eq!(ExInterlockedRemoveHeadList(head, lock), none);
        assert_eq!(ExInterlockedInsertTailList(head, entries[1], lock), none);
        assert_eq!(
            ExInterlockedInsertTailList(head, entries[2], lock),
            entries[1]
        );
        assert_eq!(
            ExInterlockedInsertHeadList(head, entries[0], lock),
            entries[1]
        );
        for entry in entries {
            assert_eq!(ExInterlockedRemoveHeadList(head, lock), entry);
        }
        assert_eq!(ExInterlockedRemoveHeadList(head, lock), none);
        assert_eq!(KeGetCurrentIrql(), 0);
    });
    let corrupt = stop(|| {
        let (head, lock) = (leaked([0_usize; 2]), leaked(0_usize));
        let other = leaked([0_usize; 2]);
        // SAFETY: just allocated.
        unsafe { *head = [other as usize; 2] };
        ExInterlockedRemoveHeadList(head, lock);
    });
    expect_bug_check(&corrupt, 0x139, 3);
}
