// SPDX-License-Identifier: MIT OR Apache-2.0

//! The wait family on a simulated machine.
//!
//! What each outcome stands for is documented at
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject>
//! and <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects>.

#[path = "kernel/machine.rs"]
mod kernel;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use dmf::pool::Arc;
use dmf::prelude::*;
use dmf::sync::{
    Alertability, AlertableOutcome, AnyOutcome, DelayOutcome, EventKind, MAXIMUM_WAIT_OBJECTS,
    Mutex, MutexOutcome, ObjectOutcome, Outcome, Semaphore, Wait, WaitMode, WaitOutcome, Waitable,
    delay, stall, try_wait, wait, wait_all, wait_any,
};
use kernel::{LONG, SHORT, bug_check, every_schedule, machine, passive, run};

const ALERTABLE: Wait = Wait {
    mode: WaitMode::Kernel,
    alertability: Alertability::Alertable,
};
const FOR_A_USER: Wait = Wait {
    mode: WaitMode::User,
    alertability: Alertability::Alertable,
};

fn event(kind: EventKind) -> Event {
    Event::new(kind).unwrap()
}

// ---- events ----------------------------------------------------------------

#[test]
fn a_notification_event_wakes_all_waiters_and_stays_signaled() {
    every_schedule(|irql| {
        let go = Arc::new(event(EventKind::Notification)).unwrap();
        let woken = Arc::new(AtomicUsize::new(0)).unwrap();
        let threads = [(); 3].map(|()| {
            let (go, woken) = (go.clone(), woken.clone());
            Thread::spawn(irql, move |irql| {
                assert_eq!(go.wait(irql, LONG), WaitOutcome::Signaled);
                woken.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap()
        });
        assert!(!go.set());
        for thread in threads {
            thread.join(irql);
        }
        assert_eq!(woken.load(Ordering::Relaxed), 3);
        assert!(go.is_signaled());
        assert!(go.reset());
        assert!(!go.is_signaled());
    });
}

#[test]
fn a_synchronization_event_wakes_one_waiter_for_each_set() {
    every_schedule(|irql| {
        let go = Arc::new(event(EventKind::Synchronization)).unwrap();
        let signaled = Arc::new(AtomicUsize::new(0)).unwrap();
        let threads = [(); 2].map(|()| {
            let (go, signaled) = (go.clone(), signaled.clone());
            Thread::spawn(irql, move |irql| {
                if go.wait(irql, SHORT) == WaitOutcome::Signaled {
                    signaled.fetch_add(1, Ordering::Relaxed);
                }
            })
            .unwrap()
        });
        go.set();
        for thread in threads {
            thread.join(irql);
        }
        assert_eq!(signaled.load(Ordering::Relaxed), 1);
        assert_eq!(go.try_wait(), WaitOutcome::TimedOut);
    });
}

#[test]
fn a_timeout_is_not_a_success() {
    run(|irql| {
        let event = event(EventKind::Notification);
        let start = Instant::now();
        assert_eq!(event.wait(irql, SHORT), WaitOutcome::TimedOut);
        assert!(start.elapsed() >= SHORT);
        assert_eq!(event.wait(irql, Timeout::Poll), WaitOutcome::TimedOut);
    });
}

#[test]
fn a_wait_until_a_point_in_time_ends_there() {
    run(|irql| {
        let event = event(EventKind::Notification);
        let until = dmf::time::SystemTime::now().after(SHORT);
        assert_eq!(event.wait(irql, Timeout::At(until)), WaitOutcome::TimedOut);
        assert!(dmf::time::SystemTime::now() >= until);
    });
}

// ---- semaphores ------------------------------------------------------------

#[test]
fn a_semaphore_lets_as_many_in_as_it_counts() {
    every_schedule(|irql| {
        let places = Arc::new(Semaphore::new(2, 2).unwrap()).unwrap();
        let inside = Arc::new(AtomicUsize::new(0)).unwrap();
        let threads = [(); 4].map(|()| {
            let (places, inside) = (places.clone(), inside.clone());
            Thread::spawn(irql, move |irql| {
                assert_eq!(places.acquire(irql, LONG), WaitOutcome::Signaled);
                assert!(inside.fetch_add(1, Ordering::Relaxed) < 2);
                delay(irql, Duration::from_millis(1));
                inside.fetch_sub(1, Ordering::Relaxed);
                places.release(1).unwrap();
            })
            .unwrap()
        });
        for thread in threads {
            thread.join(irql);
        }
        assert_eq!(places.count(), 2);
    });
}

#[test]
fn a_semaphore_is_never_released_beyond_its_limit() {
    // KeReleaseSemaphore raises an exception then; ntsim stops the machine.
    every_schedule(|irql| {
        let semaphore = Arc::new(Semaphore::new(0, 2).unwrap()).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0)).unwrap();
        let threads = [(); 3].map(|()| {
            let (semaphore, accepted) = (semaphore.clone(), accepted.clone());
            Thread::spawn(irql, move |_| match semaphore.release(1) {
                Ok(before) => {
                    assert!(before < 2);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                Err(status) => assert_eq!(status, NtStatus::SEMAPHORE_LIMIT_EXCEEDED),
            })
            .unwrap()
        });
        for thread in threads {
            thread.join(irql);
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 2);
        assert_eq!(semaphore.count(), 2);
    });
}

#[test]
fn a_semaphore_refuses_numbers_that_it_cannot_have() {
    run(|_| {
        for (count, limit) in [(0, 0), (2, 1), (0, u32::MAX)] {
            assert_eq!(
                Semaphore::new(count, limit).err(),
                Some(NtStatus::INVALID_PARAMETER)
            );
        }
        let semaphore = Semaphore::new(0, i32::MAX.unsigned_abs()).unwrap();
        assert_eq!(semaphore.release(0), Err(NtStatus::INVALID_PARAMETER));
        assert_eq!(
            semaphore.release(u32::MAX),
            Err(NtStatus::SEMAPHORE_LIMIT_EXCEEDED)
        );
        assert_eq!(semaphore.release(i32::MAX.unsigned_abs()), Ok(0));
        assert_eq!(
            semaphore.release(1),
            Err(NtStatus::SEMAPHORE_LIMIT_EXCEEDED)
        );
        assert_eq!(semaphore.try_acquire(), WaitOutcome::Signaled);
    });
}

// ---- mutexes ---------------------------------------------------------------

#[test]
fn a_mutex_lets_one_thread_in() {
    every_schedule(|irql| {
        let total = Arc::new(Mutex::new(0).unwrap()).unwrap();
        let threads = [(); 3].map(|()| {
            let total = total.clone();
            Thread::spawn(irql, move |irql| {
                for _ in 0..3 {
                    let outcome = total.lock(irql, LONG, |total| {
                        let before = *total;
                        delay(irql, Duration::from_millis(1)); // the owner may wait
                        *total = before + 1;
                    });
                    assert_eq!(outcome, MutexOutcome::Locked(()));
                }
            })
            .unwrap()
        });
        for thread in threads {
            thread.join(irql);
        }
        let outcome = total.lock(irql, Timeout::Poll, |total| *total);
        assert_eq!(outcome, MutexOutcome::Locked(9));
        assert!(!total.is_owned());
    });
}

#[test]
fn a_mutex_that_another_thread_owns_times_out() {
    run(|irql| {
        let mutex = Arc::new(Mutex::new(()).unwrap()).unwrap();
        let other = mutex.clone();
        let outcome = mutex.lock(irql, Timeout::Never, |()| {
            Thread::spawn(irql, move |irql| {
                let outcome = other.lock(irql, SHORT, |()| ());
                assert_eq!(outcome, MutexOutcome::TimedOut);
                let outcome = other.lock(irql, Timeout::Poll, |()| ());
                assert_eq!(outcome.into_result(), Err(NtStatus::IO_TIMEOUT));
            })
            .unwrap()
            .join(irql);
        });
        assert_eq!(outcome, MutexOutcome::Locked(()));
    });
}

#[test]
fn a_mutex_that_the_thread_owns_is_refused_and_stays_owned_once() {
    run(|irql| {
        let mutex = Mutex::new(1).unwrap();
        let outcome = mutex.lock(irql, Timeout::Never, |_| {
            let again = mutex.lock(irql, Timeout::Never, |_| ());
            assert_eq!(again, MutexOutcome::AlreadyOwned);
            let again = mutex.lock(irql, SHORT, |_| ());
            assert_eq!(again.into_result(), Err(NtStatus::POSSIBLE_DEADLOCK));
            mutex.is_owned()
        });
        assert_eq!(outcome, MutexOutcome::Locked(true));
        assert!(!mutex.is_owned());
    });
}

#[test]
fn a_mutex_is_had_through_a_wait_for_several() {
    every_schedule(|irql| {
        let stop = Arc::new(event(EventKind::Notification)).unwrap();
        let mutex = Arc::new(Mutex::new(0).unwrap()).unwrap();
        let threads = [(); 2].map(|()| {
            let (stop, mutex) = (stop.clone(), mutex.clone());
            Thread::spawn(irql, move |irql| {
                mutex.claim(irql, |claim| {
                    loop {
                        match wait_any(irql, [&*stop, claim], LONG) {
                            AnyOutcome::Signaled(0) => break,
                            AnyOutcome::Signaled(1) => claim.lock(|count| *count += 1).unwrap(),
                            other => panic!("{other:?}"),
                        }
                        delay(irql, Duration::from_millis(1));
                    }
                    assert!(claim.lock(|_| ()).is_none());
                });
            })
            .unwrap()
        });
        delay(irql, Duration::from_millis(50));
        stop.set();
        for thread in threads {
            thread.join(irql);
        }
        let count = mutex.lock(irql, Timeout::Poll, |count| *count);
        assert!(count.into_result().unwrap() >= 2);
    });
}

#[test]
fn a_claim_that_ends_releases_what_it_acquired() {
    run(|irql| {
        let mutex = Mutex::new(()).unwrap();
        let owned = mutex.claim(irql, |claim| {
            assert_eq!(wait(irql, claim, Timeout::Never), ObjectOutcome::Signaled);
            mutex.is_owned()
        });
        assert!(owned);
        assert!(!mutex.is_owned());
    });
}

#[test]
fn a_claim_of_a_mutex_that_the_thread_owns_has_no_value() {
    run(|irql| {
        let mutex = Mutex::new(()).unwrap();
        let outcome = mutex.lock(irql, Timeout::Never, |()| {
            mutex.claim(irql, |claim| {
                assert_eq!(wait(irql, claim, Timeout::Never), ObjectOutcome::Signaled);
                assert!(claim.lock(|()| ()).is_none());
            });
            mutex.is_owned()
        });
        assert_eq!(outcome, MutexOutcome::Locked(true));
        assert!(!mutex.is_owned());
    });
}

#[test]
fn a_claim_gives_its_value_to_one_closure_at_a_time() {
    run(|irql| {
        let mutex = Mutex::new(()).unwrap();
        mutex.claim(irql, |claim| {
            assert_eq!(wait(irql, claim, Timeout::Never), ObjectOutcome::Signaled);
            let inside = claim.lock(|()| {
                assert_eq!(claim.lock(|()| ()), None);
                assert_eq!(wait(irql, claim, Timeout::Never), ObjectOutcome::Signaled);
                claim.lock(|()| ())
            });
            assert_eq!(inside, Some(None));
            assert!(!mutex.is_owned());
        });
    });
}

#[test]
fn a_thread_that_ends_with_a_mutex_stops_the_machine() {
    // THREAD_TERMINATE_HELD_MUTEX
    bug_check(0x4000_008A, None, |irql| {
        let mutex = Arc::new(Mutex::new(()).unwrap()).unwrap();
        let thread = Thread::spawn(irql, move |irql| {
            // SAFETY: the thread is the driver's.
            let end = || unsafe { dmf::sys::ntddk::PsTerminateSystemThread(0) };
            let _ = mutex.lock(irql, Timeout::Never, |()| end());
        });
        thread.unwrap().join(irql);
    });
}

// ---- several objects -------------------------------------------------------

/// That many events, of which none is signaled.
fn events(count: usize) -> Vec<Event> {
    (0..count)
        .map(|_| event(EventKind::Synchronization))
        .collect()
}

fn as_objects(events: &[Event]) -> Vec<&dyn Waitable> {
    events.iter().map(|event| event as &dyn Waitable).collect()
}

#[test]
fn the_lowest_of_several_signaled_objects_ends_the_wait() {
    run(|irql| {
        let events = events(3);
        events[2].set();
        events[1].set();
        let objects = [&events[0] as &dyn Waitable, &events[1], &events[2]];
        assert_eq!(wait_any(irql, objects, LONG), AnyOutcome::Signaled(1));
        assert_eq!(wait_any(irql, objects, LONG), AnyOutcome::Signaled(2));
        assert_eq!(wait_any(irql, objects, SHORT), AnyOutcome::TimedOut);
    });
}

#[test]
fn each_of_sixty_four_objects_ends_a_wait() {
    run(|irql| {
        let events = events(MAXIMUM_WAIT_OBJECTS);
        let objects: [&dyn Waitable; MAXIMUM_WAIT_OBJECTS] =
            std::array::from_fn(|index| &events[index] as &dyn Waitable);
        for (index, event) in events.iter().enumerate() {
            event.set();
            assert_eq!(wait_any(irql, objects, LONG), AnyOutcome::Signaled(index));
            event.set();
            assert_eq!(
                Wait::ADVISED.any(irql, &objects, LONG),
                Ok(Outcome::Signaled(index))
            );
        }
        assert!(events.iter().all(|event| !event.set()));
        assert_eq!(wait_all(irql, objects, LONG), Ok(ObjectOutcome::Signaled));
        assert_eq!(wait_all(irql, objects, SHORT), Ok(ObjectOutcome::TimedOut));
    });
}

#[test]
fn a_wait_for_no_objects_or_too_many_is_an_error() {
    run(|irql| {
        let events = events(MAXIMUM_WAIT_OBJECTS + 1);
        for objects in [&[][..], &as_objects(&events)[..]] {
            let refused = Err(NtStatus::INVALID_PARAMETER);
            assert_eq!(Wait::ADVISED.any(irql, objects, LONG), refused);
            assert_eq!(Wait::ADVISED.all(irql, objects, LONG), refused);
        }
    });
}

#[test]
fn a_wait_for_all_refuses_an_object_that_is_there_twice() {
    run(|irql| {
        let semaphore = Semaphore::new(1, 2).unwrap();
        let refused = Err(NtStatus::INVALID_PARAMETER_MIX);
        assert_eq!(wait_all(irql, [&semaphore, &semaphore], LONG), refused);
        assert_eq!(
            Wait::ADVISED.all(irql, &[&semaphore, &semaphore], LONG),
            Err(NtStatus::INVALID_PARAMETER_MIX)
        );
        assert_eq!(semaphore.count(), 1);
    });
}

#[test]
fn a_wait_for_all_acquires_nothing_until_all_are_signaled() {
    every_schedule(|irql| {
        let pair = Arc::new((
            Semaphore::new(1, 1).unwrap(),
            event(EventKind::Synchronization),
        ))
        .unwrap();
        let both = pair.clone();
        let thread = Thread::spawn(irql, move |irql| {
            let outcome = wait_all(irql, [&both.0, &both.1], LONG);
            assert_eq!(outcome, Ok(ObjectOutcome::Signaled));
        })
        .unwrap();
        // The other one waits for both, so this takes what is there.
        assert_eq!(pair.0.acquire(irql, Timeout::Poll), WaitOutcome::Signaled);
        pair.1.set();
        delay(irql, Duration::from_millis(1));
        assert!(!thread.is_finished(irql));
        assert!(pair.1.is_signaled());
        pair.0.release(1).unwrap();
        thread.join(irql);
        assert_eq!(pair.0.count(), 0);
    });
}

#[test]
fn objects_of_all_kinds_can_be_waited_for_together() {
    run(|irql| {
        let event = event(EventKind::Notification);
        let semaphore = Semaphore::new(1, 1).unwrap();
        let mutex = Mutex::new(7).unwrap();
        let thread = Thread::spawn(irql, |irql| delay(irql, SHORT)).unwrap();
        let exit = thread.exit().unwrap();
        event.set();
        let taken = mutex.claim(irql, |claim| {
            let outcome = wait_all(irql, [&event, &semaphore, claim, &exit], LONG);
            assert_eq!(outcome, Ok(ObjectOutcome::Signaled));
            claim.lock(|value| *value)
        });
        assert_eq!(taken, Some(7));
        assert_eq!(semaphore.count(), 0);
        assert!(thread.is_finished(irql));
    });
}

// ---- alerts and user APCs --------------------------------------------------

thread_local! {
    static OUTCOME: Cell<Option<Outcome>> = const { Cell::new(None) };
    static DELAYED: Cell<Option<DelayOutcome>> = const { Cell::new(None) };
}

/// How the driver's first thread ends a wait of that kind, when `disturb` is
/// done to it meanwhile.
fn disturbed(wait: Wait, disturb: fn(&mut ntsim::Machine)) -> (Outcome, DelayOutcome) {
    OUTCOME.take();
    DELAYED.take();
    let mut machine = machine(1);
    let spawned = machine.run_thread("main", move || {
        let thread = Thread::spawn(&passive(), move |irql| {
            let event = Event::new(EventKind::Notification).unwrap();
            OUTCOME.set(Some(wait.one(irql, &event, SHORT)));
            DELAYED.set(Some(wait.delay(irql, SHORT)));
        });
        std::mem::forget(thread.unwrap());
    });
    spawned.unwrap_or_else(|stop| panic!("{stop}"));
    machine.run_for(SHORT / 2).unwrap();
    disturb(&mut machine);
    machine.run_for(Duration::from_millis(1)).unwrap();
    disturb(&mut machine);
    machine.run_for(LONG).unwrap();
    (OUTCOME.take().unwrap(), DELAYED.take().unwrap())
}

fn alert(machine: &mut ntsim::Machine) {
    machine.alert_thread("thread#1").expect("it runs");
}

fn user_apc(machine: &mut ntsim::Machine) {
    machine.queue_user_apc("thread#1").expect("it runs");
}

#[test]
fn an_alert_ends_an_alertable_wait_and_no_other() {
    let unmoved = (Outcome::TimedOut, DelayOutcome::Elapsed);
    let alerted = (Outcome::Alerted, DelayOutcome::Alerted);
    assert_eq!(disturbed(Wait::ADVISED, alert), unmoved);
    assert_eq!(disturbed(ALERTABLE, alert), alerted);
    assert_eq!(disturbed(FOR_A_USER, alert), alerted);
}

#[test]
fn a_user_apc_ends_an_alertable_wait_for_a_user_and_no_other() {
    let unmoved = (Outcome::TimedOut, DelayOutcome::Elapsed);
    let delivered = (Outcome::UserApc, DelayOutcome::UserApc);
    assert_eq!(disturbed(Wait::ADVISED, user_apc), unmoved);
    assert_eq!(disturbed(ALERTABLE, user_apc), unmoved);
    assert_eq!(disturbed(FOR_A_USER, user_apc), delivered);
}

thread_local! {
    static SEVERAL: Cell<Option<[Outcome; 2]>> = const { Cell::new(None) };
}

#[test]
fn an_alert_ends_a_wait_for_several_and_nothing_is_acquired() {
    let mut machine = machine(1);
    let spawned = machine.run_thread("main", || {
        let thread = Thread::spawn(&passive(), |irql| {
            // More than the thread has wait blocks of its own for; one is there.
            let (semaphore, events) = (Semaphore::new(1, 1).unwrap(), events(4));
            let mut objects = as_objects(&events);
            let any = FOR_A_USER.any(irql, &objects, LONG).unwrap();
            objects.push(&semaphore);
            let all = ALERTABLE.all(irql, &objects, LONG).unwrap();
            assert_eq!(semaphore.count(), 1);
            SEVERAL.set(Some([any, all]));
        });
        std::mem::forget(thread.unwrap());
    });
    spawned.unwrap_or_else(|stop| panic!("{stop}"));
    machine.run_for(SHORT).unwrap();
    user_apc(&mut machine);
    machine.run_for(SHORT).unwrap();
    alert(&mut machine);
    machine.run_for(SHORT).unwrap();
    assert_eq!(SEVERAL.take(), Some([Outcome::UserApc, Outcome::Alerted]));
}

#[test]
fn an_event_that_is_signaled_is_had_in_spite_of_an_alert() {
    // The kernel looks at the object first.
    let mut machine = machine(1);
    let spawned = machine.run_thread("main", || {
        let thread = Thread::spawn(&passive(), |irql| {
            let event = Event::new(EventKind::Synchronization).unwrap();
            delay(irql, SHORT);
            event.set();
            let first = event.wait_alertable(irql, LONG);
            assert_eq!(first, AlertableOutcome::Signaled);
            let second = event.wait_alertable(irql, LONG);
            assert_eq!(second, AlertableOutcome::Alerted);
            let third = event.wait_alertable(irql, SHORT);
            assert_eq!(third, AlertableOutcome::TimedOut);
        });
        std::mem::forget(thread.unwrap());
    });
    spawned.unwrap_or_else(|stop| panic!("{stop}"));
    machine.run_for(SHORT / 2).unwrap();
    alert(&mut machine);
    machine.run_for(LONG).unwrap();
}

#[test]
fn a_mutex_among_several_that_the_thread_owns_stays_owned_once() {
    run(|irql| {
        let mutex = Mutex::new(()).unwrap();
        let event = event(EventKind::Notification);
        event.set();
        let outcome = mutex.lock(irql, LONG, |()| {
            mutex.claim(irql, |claim| {
                let all = wait_all(irql, [&event, claim], LONG);
                assert_eq!(all, Ok(ObjectOutcome::Signaled));
                assert_eq!(claim.lock(|()| ()), None);
                let any = wait_any(irql, [claim as &dyn Waitable, &event], LONG);
                assert_eq!(any, AnyOutcome::Signaled(0));
                assert_eq!(claim.lock(|()| ()), None);
            });
        });
        assert_eq!(outcome, MutexOutcome::Locked(()));
        assert!(!mutex.is_owned());
    });
}

#[test]
fn a_claim_that_timed_out_has_acquired_nothing() {
    run(|irql| {
        let mutex = Mutex::new(()).unwrap();
        let event = event(EventKind::Notification);
        mutex.claim(irql, |claim| {
            let all = wait_all(irql, [&event, claim], SHORT);
            assert_eq!(all, Ok(ObjectOutcome::TimedOut));
            assert_eq!(claim.lock(|()| ()), None);
            assert!(!mutex.is_owned());
        });
    });
}

#[test]
fn a_thread_that_ends_in_a_claim_stops_the_machine() {
    // THREAD_TERMINATE_HELD_MUTEX: a KMUTEX is never abandoned.
    // https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x4000008a--thread-terminate-held-mutex
    bug_check(0x4000_008A, None, |irql| {
        let mutex = Arc::new(Mutex::new(()).unwrap()).unwrap();
        let thread = Thread::spawn(irql, move |irql| {
            mutex.claim(irql, |claim| {
                let _ = wait(irql, claim, Timeout::Never);
                // SAFETY: the thread is the driver's.
                let _ = unsafe { dmf::sys::ntddk::PsTerminateSystemThread(0) };
            });
        });
        thread.unwrap().join(irql);
    });
}

#[test]
fn the_default_is_the_kernels_advice() {
    assert_eq!(Wait::default(), Wait::ADVISED);
    assert_eq!(Wait::ADVISED.mode, WaitMode::Kernel);
    assert_eq!(Wait::ADVISED.alertability, Alertability::NotAlertable);
}

// ---- delays, levels, threads -----------------------------------------------

#[test]
fn a_delay_is_never_too_short() {
    run(|irql| {
        for milliseconds in [0, 1, 15, 16, 100] {
            let time = Duration::from_millis(milliseconds);
            let start = Instant::now();
            delay(irql, time);
            assert!(start.elapsed() >= time);
        }
    });
}

#[test]
fn a_long_stall_is_refused() {
    run(|_| {
        let start = Instant::now();
        assert_eq!(
            stall(Duration::from_micros(51)),
            Err(NtStatus::INVALID_PARAMETER)
        );
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(stall(Duration::from_nanos(49_001)), Ok(()));
        assert!(start.elapsed() >= Duration::from_micros(50));
    });
}

#[test]
fn what_is_there_is_taken_at_dispatch_level() {
    run(|irql| {
        let event = event(EventKind::Synchronization);
        let semaphore = Semaphore::new(1, 1).unwrap();
        let lock = SpinLock::new(());
        lock.lock(irql, |(), _| {
            assert_eq!(event.try_wait(), WaitOutcome::TimedOut);
            event.set();
            assert_eq!(try_wait(&event), ObjectOutcome::Signaled);
            assert_eq!(event.try_wait(), WaitOutcome::TimedOut);
            assert_eq!(semaphore.try_acquire(), WaitOutcome::Signaled);
            assert_eq!(semaphore.try_acquire(), WaitOutcome::TimedOut);
            assert_eq!(semaphore.release(1), Ok(0));
        });
    });
}

#[test]
fn a_thread_is_waited_for_when_it_is_dropped() {
    every_schedule(|irql| {
        let done = Arc::new(AtomicUsize::new(0)).unwrap();
        let count = done.clone();
        let thread = Thread::spawn(irql, move |irql| {
            delay(irql, Duration::from_millis(1));
            count.fetch_add(1, Ordering::Relaxed);
        });
        drop(thread);
        assert_eq!(done.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_thread_that_does_not_end_in_time_is_given_back() {
    run(|irql| {
        let thread = Thread::spawn(irql, |irql| delay(irql, SHORT)).unwrap();
        let thread = thread.join_timeout(irql, SHORT / 2).unwrap_err();
        assert!(!thread.is_finished(irql));
        thread.join_timeout(irql, LONG).unwrap();
    });
}

#[test]
fn a_thread_that_is_dropped_under_a_spin_lock_stops_the_machine() {
    let report = kernel::stop(|irql| {
        let thread = Thread::spawn(irql, |irql| delay(irql, SHORT)).unwrap();
        let lock = SpinLock::new(());
        lock.with(|()| drop(thread));
    });
    assert!(
        report.message.contains("a Thread was dropped at IRQL 2"),
        "{report}"
    );
}

#[test]
fn a_token_above_apc_level_that_is_a_lie_is_found_out() {
    // Driver Verifier: KeWaitForSingleObject at DISPATCH_LEVEL with a timeout.
    bug_check(0xC4, Some(0x122), |irql| {
        let event = event(EventKind::Notification);
        SpinLock::new(()).lock(irql, |(), _| {
            let _ = event.wait(&passive(), SHORT);
        });
    });
}
