// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's own objects, called as a linked-in driver calls them.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::rc::Rc;

use ntsim::{
    CLOCK_TICK, MILLISECOND, Machine, SECOND, Settings, Stop, StopKind, Strategy, Written,
};

/// The part of `ntoskrnl` that these tests call.
#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    use std::ffi::c_void;

    #[repr(C, align(8))]
    pub struct Object(pub [u8; 64]);

    impl Object {
        pub fn boxed() -> *mut Self {
            Box::into_raw(Box::new(Self([0; 64])))
        }
    }

    unsafe extern "C-unwind" {
        pub safe fn KeInitializeEvent(event: *mut Object, kind: i32, state: u8);
        pub safe fn KeSetEvent(event: *mut Object, increment: i32, wait: u8) -> i32;
        pub safe fn KeResetEvent(event: *mut Object) -> i32;
        pub safe fn KeWaitForSingleObject(
            object: *mut Object,
            reason: i32,
            mode: i8,
            alertable: u8,
            timeout: *const i64,
        ) -> i32;
        pub safe fn KeWaitForMultipleObjects(
            count: u32,
            objects: *const *mut Object,
            kind: i32,
            reason: i32,
            mode: i8,
            alertable: u8,
            timeout: *const i64,
            blocks: *mut u8,
        ) -> i32;
        pub safe fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *const i64) -> i32;
        pub safe fn KeInitializeMutex(mutex: *mut Object, level: u32);
        pub safe fn KeReleaseMutex(mutex: *mut Object, wait: u8) -> i32;
        pub safe fn KeInitializeSemaphore(semaphore: *mut Object, count: i32, limit: i32);
        pub safe fn KeReleaseSemaphore(
            semaphore: *mut Object,
            increment: i32,
            adjustment: i32,
            wait: u8,
        ) -> i32;
        pub safe fn KeInitializeTimerEx(timer: *mut Object, kind: i32);
        pub safe fn KeSetTimerEx(timer: *mut Object, due: i64, period: i32, dpc: *mut Object)
        -> u8;
        pub safe fn KeCancelTimer(timer: *mut Object) -> u8;
        pub safe fn KeInitializeDpc(dpc: *mut Object, routine: usize, context: *const c_void);
        pub safe fn KeInsertQueueDpc(dpc: *mut Object, a: usize, b: usize) -> u8;
        pub safe fn KeFlushQueuedDpcs();
        pub safe fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8;
        pub safe fn KeReleaseSpinLock(lock: *mut usize, irql: u8);
        pub safe fn KeGetCurrentIrql() -> u8;
        pub safe fn KfRaiseIrql(irql: u8) -> u8;
        pub safe fn KeLowerIrql(irql: u8);
        pub safe fn KeQueryInterruptTime() -> u64;
        pub safe fn KeStallExecutionProcessor(microseconds: u32);
        pub safe fn PsCreateSystemThread(
            handle: *mut usize,
            access: u32,
            attributes: *mut u8,
            process: usize,
            client: *mut u8,
            routine: usize,
            context: *const c_void,
        ) -> i32;
        pub safe fn PsTerminateSystemThread(status: i32) -> i32;
        pub safe fn ObReferenceObjectByHandle(
            handle: usize,
            access: u32,
            kind: usize,
            mode: i8,
            object: *mut *mut Object,
            info: *mut u8,
        ) -> i32;
        pub safe fn ObfDereferenceObject(object: *mut Object) -> isize;
        pub safe fn ZwClose(handle: usize) -> i32;
        pub safe fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u8;
        pub safe fn ExFreePoolWithTag(block: *mut u8, tag: u32);
        pub safe fn KeBugCheckEx(code: u32, a: usize, b: usize, c: usize, d: usize);
    }

    pub const NON_PAGED: u64 = 0x40;
    pub const TIMEOUT: i32 = 0x102;
    pub const SYNCHRONIZATION: i32 = 1;
    pub const NOTIFICATION: i32 = 0;
}
use nt::*;

const FOREVER: *const i64 = std::ptr::null();

fn relative(units: u64) -> i64 {
    -units.cast_signed()
}

fn wait(object: *mut Object, timeout: Option<u64>) -> i32 {
    let timeout = timeout.map(relative);
    KeWaitForSingleObject(
        object,
        0,
        0,
        0,
        timeout.as_ref().map_or(FOREVER, std::ptr::from_ref),
    )
}

fn delay(units: u64) {
    assert_eq!(KeDelayExecutionThread(0, 0, &relative(units)), 0);
}

/// Starts a system thread that runs `body`; gives its object, referenced.
fn start(body: impl FnOnce() + 'static) -> *mut Object {
    extern "C-unwind" fn routine(context: *mut Box<dyn FnOnce()>) {
        // SAFETY: made by `Box::into_raw` below, and only this thread takes it.
        let body = unsafe { Box::from_raw(context) };
        body();
        PsTerminateSystemThread(0);
    }
    let context: *mut Box<dyn FnOnce()> = Box::into_raw(Box::new(Box::new(body)));
    let mut handle = 0;
    let none = std::ptr::null_mut();
    assert_eq!(
        PsCreateSystemThread(
            &raw mut handle,
            0,
            none,
            0,
            none,
            routine as *const () as usize,
            context.cast()
        ),
        0
    );
    let mut object = std::ptr::null_mut();
    assert_eq!(
        ObReferenceObjectByHandle(handle, 0, 0, 0, &raw mut object, none),
        0
    );
    assert_eq!(ZwClose(handle), 0);
    object
}

fn join(thread: *mut Object) {
    assert_eq!(wait(thread, None), 0);
    ObfDereferenceObject(thread);
}

fn event(kind: i32) -> *mut Object {
    let event = Object::boxed();
    KeInitializeEvent(event, kind, 0);
    event
}

/// The stop that `body` ends in.
fn stop(body: impl FnOnce() + 'static) -> Box<Stop> {
    Machine::with_seed(1)
        .run_thread("main", body)
        .expect_err("the simulation should have been stopped")
}

#[track_caller]
fn expect_bug_check(stop: &Stop, code: u32, first: Option<u64>) {
    match stop.kind {
        StopKind::BugCheck {
            code: found,
            parameters,
        } => {
            assert_eq!(found, code, "{stop}");
            if let Some(first) = first {
                assert_eq!(parameters[0], first, "{stop}");
            }
        }
        _ => panic!("{stop}"),
    }
}

#[test]
fn a_wait_times_out_on_the_clock_tick_at_or_after_its_due_time() {
    let times = ntsim::run(|| {
        let event = event(SYNCHRONIZATION);
        let mut times = Vec::new();
        for units in [1, CLOCK_TICK, CLOCK_TICK + 1, 10 * MILLISECOND, SECOND] {
            let before = KeQueryInterruptTime();
            assert_eq!(wait(event, Some(units)), TIMEOUT);
            times.push((KeQueryInterruptTime() - before) / CLOCK_TICK);
        }
        times
    });
    assert_eq!(times, [1, 1, 2, 1, 64]);
}

#[test]
fn a_synchronization_event_releases_one_thread_and_a_notification_event_all() {
    for (kind, expected) in [(SYNCHRONIZATION, 1), (NOTIFICATION, 3)] {
        let released = ntsim::run(move || {
            let event = event(kind);
            let released = Rc::new(Cell::new(0));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let released = released.clone();
                    start(move || {
                        if wait(event, Some(SECOND)) == 0 {
                            released.set(released.get() + 1);
                        }
                    })
                })
                .collect();
            delay(MILLISECOND);
            assert_eq!(KeSetEvent(event, 0, 0), 0);
            threads.into_iter().for_each(join);
            released.get()
        });
        assert_eq!(released, expected);
    }
}

#[test]
fn an_event_remembers_that_it_was_set_until_it_is_reset() {
    ntsim::run(|| {
        let event = event(NOTIFICATION);
        KeSetEvent(event, 0, 0);
        assert_eq!(wait(event, Some(0)), 0);
        assert_eq!(KeResetEvent(event), 1);
        assert_eq!(wait(event, Some(0)), TIMEOUT);
    });
}

#[test]
fn an_absolute_time_out_is_a_point_in_system_time() {
    ntsim::run(|| {
        let event = event(NOTIFICATION);
        let past = 1_i64;
        assert_eq!(
            KeWaitForSingleObject(event, 0, 0, 0, &raw const past),
            TIMEOUT
        );
        assert!(
            KeQueryInterruptTime() <= CLOCK_TICK,
            "a time in the past is due at once"
        );
    });
}

#[test]
fn waiting_for_any_tells_which_and_for_all_takes_all_or_none() {
    ntsim::run(|| {
        let objects = [
            event(SYNCHRONIZATION),
            event(SYNCHRONIZATION),
            event(SYNCHRONIZATION),
        ];
        let wait_multiple = |all: bool, timeout: i64| {
            KeWaitForMultipleObjects(
                3,
                objects.as_ptr(),
                i32::from(!all),
                0,
                0,
                0,
                &raw const timeout,
                std::ptr::null_mut(),
            )
        };
        KeSetEvent(objects[2], 0, 0);
        assert_eq!(wait_multiple(true, 0), TIMEOUT);
        assert_eq!(
            wait_multiple(false, 0),
            2,
            "the wait for all must not have consumed it"
        );
        for object in objects {
            KeSetEvent(object, 0, 0);
        }
        assert_eq!(wait_multiple(true, 0), 0);
        assert_eq!(wait_multiple(false, 0), TIMEOUT);
    });
}

#[test]
fn more_than_three_objects_need_wait_blocks() {
    let stop = stop(|| {
        let objects = [event(0), event(0), event(0), event(0)];
        KeWaitForMultipleObjects(
            4,
            objects.as_ptr(),
            1,
            0,
            0,
            0,
            FOREVER,
            std::ptr::null_mut(),
        );
    });
    expect_bug_check(&stop, 0x0C, Some(0));
}

#[test]
fn a_mutex_is_recursive_and_belongs_to_its_thread() {
    ntsim::run(|| {
        let mutex = Object::boxed();
        KeInitializeMutex(mutex, 0);
        assert_eq!(wait(mutex, None), 0);
        assert_eq!(wait(mutex, None), 0);
        let other = start(move || assert_eq!(wait(mutex, Some(SECOND)), TIMEOUT));
        join(other);
        assert_eq!(KeReleaseMutex(mutex, 0), -1);
        assert_eq!(KeReleaseMutex(mutex, 0), 0);
        join(start(move || {
            assert_eq!(wait(mutex, Some(0)), 0);
            KeReleaseMutex(mutex, 0);
        }));
    });
    expect_bug_check(
        &stop(|| {
            let mutex = Object::boxed();
            KeInitializeMutex(mutex, 0);
            KeReleaseMutex(mutex, 0);
        }),
        0x1E,
        Some(0xC000_0046),
    );
}

#[test]
fn a_semaphore_lets_through_as_many_as_its_count() {
    ntsim::run(|| {
        let semaphore = Object::boxed();
        KeInitializeSemaphore(semaphore, 1, 2);
        assert_eq!(wait(semaphore, Some(0)), 0);
        assert_eq!(wait(semaphore, Some(0)), TIMEOUT);
        assert_eq!(KeReleaseSemaphore(semaphore, 0, 2, 0), 0);
        assert_eq!(wait(semaphore, Some(0)), 0);
        assert_eq!(wait(semaphore, Some(0)), 0);
    });
    expect_bug_check(
        &stop(|| {
            let semaphore = Object::boxed();
            KeInitializeSemaphore(semaphore, 0, 1);
            KeReleaseSemaphore(semaphore, 0, 2, 0);
        }),
        0x1E,
        Some(0xC000_0047),
    );
}

#[test]
fn a_periodic_timer_is_signalled_every_period_until_it_is_cancelled() {
    let ticks = ntsim::run(|| {
        let timer = Object::boxed();
        KeInitializeTimerEx(timer, 1);
        assert_eq!(
            KeSetTimerEx(timer, relative(SECOND), 500, std::ptr::null_mut()),
            0
        );
        let periods: Vec<_> = (0..3)
            .map(|_| {
                assert_eq!(wait(timer, None), 0);
                KeQueryInterruptTime() / (SECOND / 2)
            })
            .collect();
        assert_eq!(KeCancelTimer(timer), 1);
        assert_eq!(KeCancelTimer(timer), 0);
        assert_eq!(wait(timer, Some(2 * SECOND)), TIMEOUT);
        periods
    });
    assert_eq!(ticks, [2, 3, 4]);
}

thread_local! {
    static SEEN: RefCell<Vec<(u8, usize, usize)>> = const { RefCell::new(Vec::new()) };
}

extern "C-unwind" fn note_dpc(_dpc: *mut Object, _context: *mut c_void, a: usize, b: usize) {
    SEEN.with(|seen| seen.borrow_mut().push((KeGetCurrentIrql(), a, b)));
}

#[test]
fn a_dpc_runs_once_per_queueing_at_dispatch_level() {
    ntsim::run(|| {
        let dpc = Object::boxed();
        KeInitializeDpc(dpc, note_dpc as *const () as usize, std::ptr::null());
        let old = KfRaiseIrql(2);
        assert_eq!(KeInsertQueueDpc(dpc, 7, 8), 1);
        KeLowerIrql(old);
        KeFlushQueuedDpcs();
        assert_eq!(SEEN.with(RefCell::take), [(2, 7, 8)]);
    });
}

#[test]
fn a_spin_lock_excludes_under_every_schedule() {
    for seed in 0..200 {
        let mut machine = Machine::with_seed(seed);
        let overlap = machine.run_thread("main", || {
            let lock = Box::into_raw(Box::new(0_usize));
            let inside = Rc::new(Cell::new(0));
            let overlap = Rc::new(Cell::new(false));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let (inside, overlap) = (inside.clone(), overlap.clone());
                    start(move || {
                        for _ in 0..3 {
                            let old = KeAcquireSpinLockRaiseToDpc(lock);
                            inside.set(inside.get() + 1);
                            KeGetCurrentIrql();
                            overlap.set(overlap.get() || inside.get() != 1);
                            inside.set(inside.get() - 1);
                            KeReleaseSpinLock(lock, old);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(join);
            overlap.get()
        });
        assert!(
            !overlap.unwrap_or_else(|stop| panic!("{stop}")),
            "seed {seed}"
        );
    }
}

/// Two threads that note the order in which they come by.
fn interleaving(seed: u64) -> (String, Vec<String>) {
    let mut machine = Machine::with_seed(seed);
    let order = machine
        .run_thread("main", || {
            let order = Rc::new(RefCell::new(String::new()));
            let threads: Vec<_> = ["a", "b"]
                .into_iter()
                .map(|name| {
                    let order = order.clone();
                    start(move || {
                        for _ in 0..4 {
                            order.borrow_mut().push_str(name);
                            KeGetCurrentIrql();
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(join);
            order.take()
        })
        .unwrap_or_else(|stop| panic!("{stop}"));
    let trace: Vec<_> = machine.trace().iter().map(ToString::to_string).collect();
    (order, trace)
}

#[test]
fn one_seed_gives_one_trace_and_seeds_differ() {
    let orders: std::collections::BTreeSet<_> = (0..10)
        .map(|seed| {
            let (order, trace) = interleaving(seed);
            assert_eq!((order.clone(), trace), interleaving(seed), "seed {seed}");
            order
        })
        .collect();
    assert!(
        orders.len() > 1,
        "ten seeds gave one interleaving: {orders:?}"
    );
}

#[test]
fn waiting_at_dispatch_level_is_a_bug_check_but_polling_is_not() {
    expect_bug_check(
        &stop(|| {
            let event = event(0);
            KfRaiseIrql(2);
            wait(event, None);
        }),
        0xC4,
        Some(0x121),
    );
    expect_bug_check(
        &stop(|| {
            let event = event(0);
            KfRaiseIrql(2);
            wait(event, Some(SECOND));
        }),
        0xC4,
        Some(0x122),
    );
    ntsim::run(|| {
        let event = event(0);
        let old = KfRaiseIrql(2);
        assert_eq!(wait(event, Some(0)), TIMEOUT);
        KeLowerIrql(old);
    });
}

#[test]
fn an_event_that_was_never_initialised_is_a_bug_check() {
    expect_bug_check(
        &stop(|| {
            KeSetEvent(Object::boxed(), 0, 0);
        }),
        0xC4,
        Some(0xE1),
    );
}

#[test]
fn pool_is_zeroed_guarded_and_freed_once() {
    let tag = u32::from_le_bytes(*b"Test");
    ntsim::run(move || {
        let block = ExAllocatePool2(NON_PAGED, 24, tag);
        assert_eq!(ntsim::memory::peek_u64(block as usize), Some(0));
        ExFreePoolWithTag(block, tag);
        assert!(
            ExAllocatePool2(0, 24, tag).is_null(),
            "no pool type is an invalid parameter"
        );
    });
    expect_bug_check(
        &stop(move || {
            let block = ExAllocatePool2(NON_PAGED, 24, tag);
            ExFreePoolWithTag(block, tag);
            ExFreePoolWithTag(block, tag);
        }),
        0xC2,
        Some(0x07),
    );
    expect_bug_check(
        &stop(move || {
            let block = ExAllocatePool2(NON_PAGED, 24, tag);
            ExFreePoolWithTag(block, u32::from_le_bytes(*b"Else"));
        }),
        0xC2,
        Some(0x0A),
    );
    expect_bug_check(
        &stop(move || {
            ExAllocatePool2(NON_PAGED, 0, tag);
        }),
        0xC4,
        Some(0),
    );
}

#[test]
fn touching_freed_pool_ends_the_simulation_with_the_blocks_story() {
    let tag = u32::from_le_bytes(*b"Test");
    let stop = stop(move || {
        let block = ExAllocatePool2(NON_PAGED, 24, tag);
        ExFreePoolWithTag(block, tag);
        // SAFETY: not sound, which is the point: the simulator must catch it.
        unsafe { block.write_volatile(1) };
    });
    expect_bug_check(&stop, 0xD5, None);
    assert!(
        stop.message.contains("'Test'") && stop.message.contains("freed"),
        "{stop}"
    );
}

#[test]
fn freeing_memory_with_a_set_timer_in_it_is_a_bug_check() {
    let tag = u32::from_le_bytes(*b"Test");
    let stop = stop(move || {
        #[expect(clippy::cast_ptr_alignment, reason = "pool is aligned to 16 bytes")]
        let timer = ExAllocatePool2(NON_PAGED, 64, tag).cast::<Object>();
        KeInitializeTimerEx(timer, 0);
        KeSetTimerEx(timer, relative(SECOND), 0, std::ptr::null_mut());
        ExFreePoolWithTag(timer.cast(), tag);
    });
    expect_bug_check(&stop, 0xC4, Some(0x15));
}

#[test]
fn a_panic_in_driver_code_is_a_bug_check_and_the_process_lives() {
    std::panic::set_hook(Box::new(|_| {}));
    let stop = stop(|| {
        join(start(|| panic!("sensor on fire")));
    });
    let _ = std::panic::take_hook();
    expect_bug_check(&stop, u32::from_be_bytes(*b"RPNC"), None);
    assert!(stop.message.contains("sensor on fire"), "{stop}");
}

#[test]
fn a_bug_check_of_the_driver_carries_its_code_and_parameters() {
    let stop = stop(|| KeBugCheckEx(0xDEAD, 1, 2, 3, 4));
    assert_eq!(
        stop.kind,
        StopKind::BugCheck {
            code: 0xDEAD,
            parameters: [1, 2, 3, 4]
        }
    );
}

#[test]
fn a_wait_for_what_nobody_can_signal_is_a_lost_wake_up_that_names_the_waiters() {
    let stop = stop(|| {
        wait(event(0), None);
    });
    assert_eq!(stop.kind, StopKind::LostWakeUp);
    assert!(
        stop.waiting()
            .iter()
            .any(|line| line.contains("main waits for event#1")),
        "{stop}"
    );
}

#[test]
fn polling_without_waiting_is_a_livelock() {
    let mut machine = Machine::new(Settings {
        livelock_limit: 1000,
        ..Settings::default()
    });
    let stop = machine
        .run_thread("main", || {
            loop {
                KeGetCurrentIrql();
            }
        })
        .expect_err("it never ends");
    assert_eq!(stop.kind, StopKind::Livelock);
}

#[test]
fn stalling_burns_time_and_a_thread_that_returns_at_raised_irql_is_caught() {
    ntsim::run(|| {
        KeStallExecutionProcessor(20_000);
        assert_eq!(
            KeQueryInterruptTime(),
            CLOCK_TICK,
            "20 ms are one whole tick and a bit"
        );
    });
    expect_bug_check(
        &stop(|| {
            KfRaiseIrql(2);
        }),
        0xC8,
        None,
    );
}

#[test]
fn round_robin_gives_every_ready_thread_its_turn() {
    let mut machine = Machine::new(Settings {
        strategy: Strategy::RoundRobin,
        ..Settings::default()
    });
    let order = machine
        .run_thread("main", || {
            let order = Rc::new(RefCell::new(String::new()));
            let threads: Vec<_> = ["a", "b"]
                .into_iter()
                .map(|name| {
                    let order = order.clone();
                    start(move || {
                        for _ in 0..12 {
                            KeGetCurrentIrql();
                            order.borrow_mut().push_str(name);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(join);
            order.take()
        })
        .unwrap_or_else(|stop| panic!("{stop}"));
    assert!(order.contains("ab") && order.contains("ba"), "{order}");
}

/// Uses more stack than there is.
#[expect(unconditional_recursion, reason = "the test is about it")]
fn recurse(depth: u64) -> u64 {
    let frame = [depth; 64];
    std::hint::black_box(&frame);
    recurse(depth + 1) + frame[3]
}

#[test]
fn every_fault_of_the_driver_is_a_bug_check_and_the_process_lives() {
    /// What it is called, how it is made, the bug check and its first parameter.
    type Case = (&'static str, fn(), u32, u64);
    let cases: [Case; 5] = [
        (
            "a null pointer",
            // SAFETY: not sound, which is the point: the simulator must catch it.
            || unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
            0x7E,
            0xC000_0005,
        ),
        (
            "breakpoint",
            // SAFETY: an instruction that only traps.
            || unsafe { std::arch::asm!("int3") },
            0x7E,
            0x8000_0003,
        ),
        (
            "privileged instruction",
            // SAFETY: as above.
            || unsafe { std::arch::asm!("cli") },
            0x7E,
            0xC000_0096,
        ),
        (
            "illegal instruction",
            // SAFETY: as above.
            || unsafe { std::arch::asm!("ud2") },
            0x7E,
            0xC000_001D,
        ),
        (
            "stack overflow",
            || {
                recurse(0);
            },
            0x7F,
            8,
        ),
    ];
    for (what, fault, code, first) in cases {
        let stop = stop(fault);
        expect_bug_check(&stop, code, Some(first));
        assert!(stop.message.contains(what), "{stop}");
        assert!(!stop.backtrace.is_empty(), "{stop}");
    }
}

#[test]
fn a_bad_pointer_at_dispatch_level_is_the_bug_check_that_names_the_driver() {
    let stop = stop(|| {
        KfRaiseIrql(2);
        // SAFETY: not sound, which is the point: the simulator must catch it.
        unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
    });
    expect_bug_check(&stop, 0xD1, Some(0));
}

#[test]
fn a_report_names_the_callers_of_the_failing_call() {
    #[inline(never)]
    fn culprit() {
        ExFreePoolWithTag(std::ptr::dangling_mut(), 0);
    }
    let stop = stop(culprit);
    assert!(
        stop.backtrace
            .iter()
            .any(|frame| frame.function.contains("culprit")),
        "{stop}"
    );
}

#[test]
fn an_alert_ends_an_alertable_wait_and_no_other() {
    let wait_alertable = |alertable: u8| {
        let mut machine = Machine::with_seed(1);
        machine
            .run_thread("main", move || {
                start(move || {
                    let status = KeWaitForSingleObject(
                        event(0),
                        0,
                        0,
                        alertable,
                        &raw const SECOND_FROM_NOW,
                    );
                    KeBugCheckEx(0xDEAD, usize::try_from(status).unwrap(), 0, 0, 0);
                });
            })
            .unwrap();
        machine
            .run_for(std::time::Duration::from_millis(100))
            .unwrap();
        assert_eq!(machine.alert_thread("nobody"), None);
        let woke = machine.alert_thread("thread#1").unwrap();
        let stop = machine
            .run_for(std::time::Duration::from_secs(2))
            .expect_err("it reports its status");
        (woke, stop.kind)
    };
    let reported = |status| StopKind::BugCheck {
        code: 0xDEAD,
        parameters: [status, 0, 0, 0],
    };
    assert_eq!(wait_alertable(1), (true, reported(0x101)));
    assert_eq!(wait_alertable(0), (false, reported(0x102)));
}

static SECOND_FROM_NOW: i64 = -10_000_000;

#[test]
fn a_machine_that_has_stopped_stays_stopped() {
    let mut machine = Machine::with_seed(1);
    let first = machine
        .run_thread("main", || KeBugCheckEx(0xDEAD, 1, 2, 3, 4))
        .expect_err("it stops");
    let again = machine
        .run_for(std::time::Duration::from_secs(1))
        .expect_err("it does not go on");
    assert_eq!(again.kind, first.kind);
    let later = machine
        .run_thread("later", || ())
        .expect_err("nor does anything new run");
    assert_eq!(later.kind, first.kind);
}

#[test]
fn a_power_cut_ends_a_run_between_two_calls_and_the_machine_boots_again() {
    let calls = Rc::new(Cell::new(0));
    let mut reached = Vec::new();
    for step in 1..=4 {
        let mut machine = Machine::with_seed(0);
        calls.set(0);
        machine.cut_power_at(Some(step));
        let counted = calls.clone();
        let stop = machine
            .run_thread("main", move || {
                let event = Object::boxed();
                KeInitializeEvent(event, NOTIFICATION, 0);
                for _ in 0..10 {
                    let _ = KeResetEvent(event);
                    counted.set(counted.get() + 1);
                }
            })
            .unwrap_err();
        assert_eq!(stop.kind, StopKind::PowerCut);
        assert!(machine.run_thread("main", || ()).is_err(), "it is off");
        reached.push(calls.get());
        machine.boot_after_power_cut(Written::Everything).unwrap();
        assert!(machine.run_thread("main", || ()).is_ok());
    }
    assert_eq!(reached, [0, 0, 0, 1]);
}

/// A thread's object goes when the thread has ended and its last handle and
/// reference are given up: waiting for it is then an error.
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obdereferenceobject>
#[test]
fn a_threads_object_goes_with_its_last_reference() {
    let stop = stop(|| {
        let thread = start(|| delay(MILLISECOND));
        // Still there after its end, since it is referenced.
        delay(SECOND);
        assert_eq!(wait(thread, Some(0)), 0);
        assert_eq!(ObfDereferenceObject(thread), 0);
        wait(thread, Some(0));
    });
    let StopKind::BugCheck { code, parameters } = stop.kind else {
        panic!("{stop}")
    };
    assert_eq!((code, parameters[0]), (0xC4, 0xE1), "{stop}");
}
