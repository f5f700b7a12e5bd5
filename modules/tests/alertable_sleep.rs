// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`AlertableSleep`] on a simulated machine.

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::time::Duration;

use dmf::driver::DriverEntry;
use dmf::prelude::*;
use dmf_modules::AlertableSleep;
use dmf_modules::alertable_sleep::{Reset, SleepOutcome, Woken};
use probe::Probe;

dmf::driver!(Sleepy);

/// A device with one `AlertableSleep`.
struct Sleepy {
    _sleep: Handle<AlertableSleep>,
}

thread_local! {
    static ALERTABLE: Cell<bool> = const { Cell::new(false) };
    static SLOTS: Cell<usize> = const { Cell::new(1) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static SLEEP: RefCell<Option<ManuallyDrop<Handle<AlertableSleep>>>> =
        const { RefCell::new(None) };
    static OWNER: RefCell<Option<ManuallyDrop<Owner<Sleepy>>>> = const { RefCell::new(None) };
    static OUTCOMES: RefCell<Vec<Result<SleepOutcome>>> = const { RefCell::new(Vec::new()) };
}

impl Device for Sleepy {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let config = AlertableSleep::config().event_count(SLOTS.get());
        let sleep = add.module(if ALERTABLE.get() {
            config.alertable()
        } else {
            config
        })?;
        SLEEP.set(Some(ManuallyDrop::new(sleep.clone())));
        OWNER.set(Some(ManuallyDrop::new(add.owner())));
        Ok(Sleepy { _sleep: sleep })
    }
}

/// The module of the device. Only for threads of the machine.
fn module() -> Handle<AlertableSleep> {
    SLEEP.with_borrow(|sleep| sleep.as_deref().cloned().unwrap())
}

/// Drops the test's handle. Only for threads of the machine.
fn forget_module() {
    drop(SLEEP.take().map(ManuallyDrop::into_inner));
    drop(OWNER.take().map(ManuallyDrop::into_inner));
}

/// Plays `test` on a machine whose device has `slots` slots, under several schedules.
fn with_slots(slots: usize, test: impl Fn(&mut Probe)) {
    with_slots_of(slots, Probe::new, test);
}

fn with_slots_of(slots: usize, new: fn(DriverEntry, u64) -> Probe, test: impl Fn(&mut Probe)) {
    for seed in 0..20 {
        SLOTS.set(slots);
        OUTCOMES.take();
        let mut probe = new(Sleepy::DRIVER_ENTRY, seed);
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        test(&mut probe);
        if !probe.machine.started_devices().is_empty() {
            probe.thread(|_| forget_module());
            probe.remove();
        }
    }
}

/// Starts a thread that sleeps on `slot` once and keeps the outcome.
fn sleeper(irql: &Irql<'_, Passive>, slot: usize, duration: Duration) -> Thread {
    let sleep = module();
    Thread::spawn(irql, move |irql| {
        let outcome = sleep.sleep(irql, slot, duration);
        drop(sleep);
        OUTCOMES.with_borrow_mut(|outcomes| outcomes.push(outcome));
    })
    .unwrap()
}

fn outcomes() -> Vec<Result<SleepOutcome>> {
    OUTCOMES.take()
}

const LONG: Duration = Duration::from_secs(100);
const SHORT: Duration = Duration::from_secs(1);

#[test]
fn a_sleep_lasts_as_long_as_asked_for() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            let start = Instant::now();
            assert_eq!(module().sleep(irql, 0, SHORT), Ok(SleepOutcome::Elapsed));
            assert!(start.elapsed() >= SHORT);
            assert!(start.elapsed() < SHORT + Duration::from_millis(32));
        });
    });
}

#[test]
fn abort_cuts_a_sleep_short_and_says_that_it_woke_somebody() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            let start = Instant::now();
            let thread = sleeper(irql, 0, LONG);
            dmf::sync::delay(irql, SHORT);
            assert_eq!(module().abort(0), Ok(Woken::Sleeper));
            assert_eq!(module().abort(0), Ok(Woken::Nobody));
            thread.join(irql);
            assert!(start.elapsed() < LONG);
            assert!(matches!(outcomes()[..], [Ok(SleepOutcome::Aborted(_))]));
        });
    });
}

#[test]
fn abort_before_sleep_makes_the_sleep_return_at_once_until_reset() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            assert_eq!(module().abort(0), Ok(Woken::Nobody));
            let start = Instant::now();
            for _ in 0..2 {
                assert!(matches!(
                    module().sleep(irql, 0, LONG),
                    Ok(SleepOutcome::Aborted(_))
                ));
            }
            let Ok(SleepOutcome::Aborted(seen)) = module().try_sleep(0) else {
                panic!("the abort latches");
            };
            assert!(start.elapsed() < SHORT);
            assert_eq!(module().reset_for_reuse(0, seen), Ok(Reset::Ready));
            assert_eq!(module().sleep(irql, 0, SHORT), Ok(SleepOutcome::Elapsed));
        });
    });
}

#[test]
fn a_reset_does_not_lose_an_abort_that_came_later() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            module().abort(0).unwrap();
            let Ok(SleepOutcome::Aborted(seen)) = module().sleep(irql, 0, LONG) else {
                panic!("aborted");
            };
            module().abort(0).unwrap();
            assert_eq!(module().reset_for_reuse(0, seen), Ok(Reset::StillAborted));
            assert!(matches!(
                module().sleep(irql, 0, LONG),
                Ok(SleepOutcome::Aborted(_))
            ));
        });
    });
}

#[test]
fn an_abort_of_one_slot_does_not_reset_another() {
    with_slots(2, |probe| {
        probe.thread(|irql| {
            module().abort(0).unwrap();
            module().abort(1).unwrap();
            let Ok(SleepOutcome::Aborted(seen)) = module().sleep(irql, 0, LONG) else {
                panic!("aborted");
            };
            assert_eq!(
                module().reset_for_reuse(1, seen),
                Err(NtStatus::INVALID_PARAMETER)
            );
            assert!(matches!(
                module().try_sleep(1),
                Ok(SleepOutcome::Aborted(_))
            ));
            assert_eq!(module().reset_for_reuse(0, seen), Ok(Reset::Ready));
        });
    });
}

#[test]
fn slots_are_independent_and_abort_all_reaches_all() {
    with_slots(3, |probe| {
        probe.thread(|irql| {
            module().abort(1).unwrap();
            assert_eq!(module().sleep(irql, 0, SHORT), Ok(SleepOutcome::Elapsed));
            let threads = [sleeper(irql, 0, LONG), sleeper(irql, 2, LONG)];
            dmf::sync::delay(irql, SHORT);
            assert_eq!(module().abort_all(), Ok(Woken::Sleeper));
            for thread in threads {
                thread.join(irql);
            }
            assert_eq!(outcomes().len(), 2);
        });
    });
}

#[test]
fn abort_all_says_whether_it_woke_anybody() {
    with_slots(3, |probe| {
        probe.thread(|irql| {
            for slot in 0..3 {
                let thread = sleeper(irql, slot, LONG);
                dmf::sync::delay(irql, SHORT);
                assert_eq!(module().abort_all(), Ok(Woken::Sleeper));
                assert_eq!(module().abort_all(), Ok(Woken::Nobody));
                thread.join(irql);
                for slot in 0..3 {
                    let Ok(SleepOutcome::Aborted(seen)) = module().try_sleep(slot) else {
                        panic!("it reaches all");
                    };
                    assert_eq!(module().reset_for_reuse(slot, seen), Ok(Reset::Ready));
                }
            }
        });
    });
}

#[test]
fn a_bad_index_and_a_second_sleeper_are_refused() {
    with_slots(2, |probe| {
        probe.thread(|irql| {
            assert_eq!(
                module().sleep(irql, 2, SHORT),
                Err(NtStatus::INVALID_PARAMETER)
            );
            assert_eq!(module().abort(2), Err(NtStatus::INVALID_PARAMETER));
            let thread = sleeper(irql, 0, SHORT * 5);
            dmf::sync::delay(irql, SHORT);
            assert_eq!(module().sleep(irql, 0, SHORT), Err(NtStatus::DEVICE_BUSY));
            assert_eq!(module().try_sleep(0), Err(NtStatus::DEVICE_BUSY));
            assert_eq!(
                module().take_sleeper(0).map(drop),
                Err(NtStatus::DEVICE_BUSY)
            );
            thread.join(irql);
            assert_eq!(outcomes(), [Ok(SleepOutcome::Elapsed)]);
        });
    });
}

#[test]
fn a_taken_slot_belongs_to_its_sleeper_until_it_is_dropped() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            let mut sleeper = module().take_sleeper(0).unwrap();
            assert_eq!(module().sleep(irql, 0, SHORT), Err(NtStatus::DEVICE_BUSY));
            sleeper.aborter().abort().unwrap();
            let Ok(SleepOutcome::Aborted(seen)) = sleeper.sleep(irql, LONG) else {
                panic!("aborted");
            };
            assert_eq!(sleeper.reset(seen), Ok(Reset::Ready));
            assert_eq!(sleeper.sleep(irql, SHORT), Ok(SleepOutcome::Elapsed));
            drop(sleeper);
            assert_eq!(module().sleep(irql, 0, SHORT), Ok(SleepOutcome::Elapsed));
        });
    });
}

#[test]
fn close_wakes_the_sleepers_and_waits_for_them_to_leave() {
    with_slots_of(2, Probe::keeping_threads, |probe| {
        let threads = probe.thread(|irql| {
            let threads = [sleeper(irql, 0, LONG), sleeper(irql, 1, LONG)];
            dmf::sync::delay(irql, SHORT);
            forget_module();
            threads
        });
        // A sleeper that had not left would be found here: its handle is
        // memory that the driver leaves behind, or frees under it.
        let device = probe.device.clone();
        let removed = probe.machine.remove_device(&device);
        join_all(probe, threads);
        removed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(outcomes(), [Ok(SleepOutcome::Closing); 2]);
    });
}

fn join_all(probe: &mut Probe, threads: [Thread; 2]) {
    probe.thread(move |irql| threads.into_iter().for_each(|thread| thread.join(irql)));
}

#[test]
fn a_device_that_comes_back_sleeps_whole_again() {
    with_slots(1, |probe| {
        probe.thread(|_| {
            module().abort(0).unwrap();
            forget_module();
        });
        probe.remove();
        probe.start().unwrap();
        probe.thread(|irql| {
            assert_eq!(module().sleep(irql, 0, SHORT), Ok(SleepOutcome::Elapsed));
        });
    });
}

#[test]
fn an_event_count_of_zero_is_refused_with_a_sentence() {
    SLOTS.set(0);
    let mut probe = Probe::new(Sleepy::DRIVER_ENTRY, 0);
    let error = probe.start().unwrap_err();
    assert!(error.to_string().contains("0xc000000d"), "{error}");
    let said = probe.machine.trace().iter().any(|line| {
        line.to_string()
            .contains("event_count = 0: a module needs at least one event")
    });
    assert!(said);
}

#[test]
fn an_event_count_for_which_there_is_no_memory_is_refused_and_leaves_nothing_behind() {
    // The second overflows the size in bytes.
    for slots in [usize::MAX >> 16, usize::MAX] {
        SLOTS.set(slots);
        let mut probe = Probe::new(Sleepy::DRIVER_ENTRY, 0);
        let error = probe.start().unwrap_err();
        assert!(error.to_string().contains("0xc000009a"), "{error}");
        SLOTS.set(1);
        probe.start().unwrap();
        probe.thread(|_| forget_module());
        probe.remove();
    }
}

#[test]
fn the_status_says_who_sleeps_and_what_is_aborted() {
    with_slots(2, |probe| {
        probe.thread(|irql| {
            let of = |slot| {
                let status = module().status(slot).unwrap();
                (status.is_sleeping(), status.is_aborted(), status.is_taken())
            };
            assert_eq!(of(0), (false, false, false));
            let thread = sleeper(irql, 0, LONG);
            dmf::sync::delay(irql, SHORT);
            assert_eq!(of(0), (true, false, false));
            assert_eq!(module().abort(0), Ok(Woken::Sleeper));
            // Woken, though it may not have left yet.
            assert_eq!(of(0), (false, true, false));
            thread.join(irql);
            assert_eq!(of(0), (false, true, false));
            let owner = module().take_sleeper(1).unwrap();
            assert_eq!(of(1), (false, false, true));
            drop(owner);
            assert_eq!(of(1), (false, false, false));
            assert_eq!(module().status(2), Err(NtStatus::INVALID_PARAMETER));
            outcomes();
        });
    });
}

#[test]
fn a_duration_that_no_clock_can_hold_is_as_good_as_for_ever() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            let thread = sleeper(irql, 0, Duration::MAX);
            dmf::sync::delay(irql, LONG);
            assert_eq!(outcomes(), []);
            assert_eq!(module().abort(0), Ok(Woken::Sleeper));
            thread.join(irql);
            assert!(matches!(outcomes()[..], [Ok(SleepOutcome::Aborted(_))]));
        });
    });
}

#[test]
fn a_module_that_is_made_at_run_time_closes_with_its_owner_and_wakes_its_sleeper() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            let owner = OWNER.with_borrow(|owner| owner.as_deref().cloned().unwrap());
            let pause = owner
                .create(irql, AlertableSleep::config().event_count(3))
                .unwrap();
            assert_eq!(pause.event_count(), Ok(3));
            let handle = pause.handle().clone();
            let thread = Thread::spawn(irql, move |irql| {
                let outcome = handle.sleep(irql, 2, LONG);
                OUTCOMES.with_borrow_mut(|outcomes| outcomes.push(outcome));
            })
            .unwrap();
            dmf::sync::delay(irql, SHORT);
            pause.close(irql);
            thread.join(irql);
            assert_eq!(outcomes(), [Ok(SleepOutcome::Closing)]);
        });
    });
}

#[test]
fn an_alert_ends_a_sleep_if_the_config_says_so_and_no_other() {
    for (alertable, expected) in [
        (false, SleepOutcome::Elapsed),
        (true, SleepOutcome::Alerted),
    ] {
        ALERTABLE.set(alertable);
        with_slots(1, |probe| {
            let thread = probe.thread(|irql| sleeper(irql, 0, LONG));
            probe.run_for(SHORT);
            probe.machine.alert_thread("thread#1").expect("it sleeps");
            probe.thread(move |irql| thread.join(irql));
            assert_eq!(outcomes(), [Ok(expected)]);
        });
    }
}

#[test]
fn no_time_looks_and_for_ever_ends_only_by_an_abort() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            let start = Instant::now();
            let looked = module().sleep(irql, 0, Duration::ZERO);
            assert_eq!(looked, Ok(SleepOutcome::Elapsed));
            assert_eq!(start.elapsed(), Duration::ZERO);

            let sleep = module();
            let thread = Thread::spawn(irql, move |irql| {
                let outcome = sleep.sleep(irql, 0, Timeout::Never);
                drop(sleep);
                OUTCOMES.with_borrow_mut(|outcomes| outcomes.push(outcome));
            })
            .unwrap();
            dmf::sync::delay(irql, LONG * 1000);
            assert_eq!(outcomes(), []);
            assert_eq!(module().abort(0), Ok(Woken::Sleeper));
            thread.join(irql);
            assert!(matches!(outcomes()[..], [Ok(SleepOutcome::Aborted(_))]));
        });
    });
}

#[test]
fn all_but_sleeping_may_be_called_at_dispatch_level() {
    static LOCK: SpinLock<()> = SpinLock::new(());
    with_slots(2, |probe| {
        probe.thread(|irql| {
            let sleep = module();
            let thread = sleeper(irql, 0, LONG);
            dmf::sync::delay(irql, SHORT);
            LOCK.with(|()| {
                assert!(sleep.status(0).unwrap().is_sleeping());
                assert_eq!(sleep.abort(0), Ok(Woken::Sleeper));
                let mut taken = sleep.take_sleeper(1).unwrap();
                assert_eq!(taken.aborter().abort(), Ok(Woken::Nobody));
                assert_eq!(sleep.try_sleep(1), Err(NtStatus::DEVICE_BUSY));
                assert_eq!(sleep.abort_all(), Ok(Woken::Nobody));
                let _ = &mut taken;
            });
            thread.join(irql);
            outcomes();
            LOCK.with(|()| {
                let Ok(SleepOutcome::Aborted(seen)) = sleep.try_sleep(0) else {
                    panic!("aborted");
                };
                assert_eq!(sleep.reset_for_reuse(0, seen), Ok(Reset::Ready));
                assert_eq!(sleep.try_sleep(0), Ok(SleepOutcome::Elapsed));
            });
        });
    });
}

#[test]
fn a_closed_module_refuses_everything() {
    with_slots(1, |probe| {
        probe.thread(|irql| {
            const REFUSED: NtStatus = NtStatus::INVALID_DEVICE_STATE;
            let owner = OWNER.with_borrow(|owner| owner.as_deref().cloned().unwrap());
            let pause = owner.create(irql, AlertableSleep::config()).unwrap();
            let sleep = pause.handle().clone();
            let mut taken = sleep.take_sleeper(0).unwrap();
            sleep.abort(0).unwrap();
            let Ok(SleepOutcome::Aborted(seen)) = taken.sleep(irql, LONG) else {
                panic!("aborted");
            };
            pause.close(irql);
            assert_eq!(taken.sleep(irql, SHORT), Err(REFUSED));
            assert_eq!(taken.reset(seen), Err(REFUSED));
            assert_eq!(taken.aborter().abort(), Err(REFUSED));
            assert_eq!(sleep.sleep(irql, 0, SHORT), Err(REFUSED));
            assert_eq!(sleep.try_sleep(0), Err(REFUSED));
            assert_eq!(sleep.abort(0), Err(REFUSED));
            assert_eq!(sleep.abort_all(), Err(REFUSED));
            assert_eq!(sleep.reset_for_reuse(0, seen), Err(REFUSED));
            assert_eq!(sleep.status(0), Err(REFUSED));
            assert_eq!(sleep.event_count(), Err(REFUSED));
            assert_eq!(sleep.take_sleeper(0).map(drop), Err(REFUSED));
            assert_eq!(sleep.aborter(0).map(drop), Err(REFUSED));
        });
    });
}

#[test]
fn memory_grows_by_the_same_for_each_slot() {
    let pool = |slots| {
        SLOTS.set(slots);
        let mut probe = Probe::started(Sleepy::DRIVER_ENTRY, 0);
        let pool = probe.machine.pool();
        probe.thread(|_| forget_module());
        probe.remove();
        pool
    };
    let [one, two, thousand] = [1, 2, 1000].map(pool);
    let slot = two.bytes - one.bytes;
    assert!((1..=128).contains(&slot), "{slot} bytes for a slot");
    assert_eq!(thousand.bytes - one.bytes, 999 * slot);
    // Its event has a block of its own, because it must not move.
    assert_eq!(thousand.blocks - one.blocks, 999);
}
