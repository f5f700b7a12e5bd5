// SPDX-License-Identifier: MIT OR Apache-2.0

//! Module locks: each kind excludes under every schedule; what is taken twice,
//! and what there is no memory for.

#[path = "support/probe.rs"]
mod probe;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dmf::module::{LockKind, Locked, Spin, SpinLocked, TakenAt, Wait, WaitLocked};
use dmf::prelude::*;
use ntsim::StopKind;
use probe::Probe;

dmf::driver!(Nothing);

/// Binds the test to KMDF, which wait locks are of.
struct Nothing;

impl Device for Nothing {
    fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Nothing)
    }
}

/// Two threads add under the lock; `held` is what they do meanwhile.
fn excludes<K: LockKind + TakenAt<Passive>>(held: fn(&mut Irql<'_, K::Held>)) {
    for seed in 0..200 {
        let mut probe = Probe::started(Nothing::DRIVER_ENTRY, seed);
        probe.thread(move |irql| {
            let sum = Arc::new(Locked::<u32, K>::new(0).unwrap());
            let inside = Arc::new(AtomicU32::new(0));
            let threads = [1, 10].map(|value| {
                let (sum, inside) = (sum.clone(), inside.clone());
                Thread::spawn(irql, move |irql| {
                    sum.lock(irql, |sum, irql| {
                        assert_eq!(inside.fetch_add(1, Relaxed), 0, "two are inside");
                        let before = *sum;
                        held(irql);
                        *sum = before + value;
                        inside.fetch_sub(1, Relaxed);
                    });
                })
                .unwrap()
            });
            for thread in threads {
                thread.join(irql);
            }
            assert_eq!(sum.lock(irql, |sum, _| *sum), 11);
        });
        probe.remove();
    }
}

#[test]
fn a_wait_locked_value_belongs_to_one_thread_which_may_wait() {
    excludes::<Wait>(|irql| dmf::sync::delay(irql, Duration::from_millis(1)));
}

#[test]
fn a_spin_locked_value_belongs_to_one_processor_which_may_spin_for_another() {
    static OTHER: SpinLock<u32> = SpinLock::new(0);
    excludes::<Spin>(|irql| OTHER.lock(irql, |other, _| *other += 1));
}

/// The stop that `body` ends in.
fn stop(body: fn(&mut Irql<'_, Passive>)) -> StopKind {
    let mut probe = Probe::started(Nothing::DRIVER_ENTRY, 0);
    let stop = probe.machine.run_thread("test", move || {
        // SAFETY: system threads run at PASSIVE_LEVEL.
        body(&mut unsafe { Irql::<Passive>::assume() });
    });
    stop.expect_err("the simulation should have been stopped")
        .kind
}

#[test]
fn a_module_lock_that_is_taken_twice_stops_the_machine() {
    let wait = stop(|irql| {
        let lock = WaitLocked::new(0).unwrap();
        lock.lock(irql, |_, irql| lock.lock(irql, |value, _| *value += 1));
    });
    let spin = stop(|irql| {
        let lock = SpinLocked::new(0).unwrap();
        lock.lock(irql, |_, irql| lock.lock(irql, |value, _| *value += 1));
    });
    // KMDF's own bug check; the verifier's, for a spin lock.
    for (kind, expected) in [(wait, 0x10D), (spin, 0xC4)] {
        match kind {
            StopKind::BugCheck { code, .. } if code == expected => {}
            other => panic!("expected {expected:#x}, found {other:?}"),
        }
    }
}

#[test]
fn a_wait_lock_for_which_there_is_no_memory_is_an_error() {
    let mut probe = Probe::started(Nothing::DRIVER_ENTRY, 0);
    probe.machine.fail_nth(Some(1));
    let made = probe.thread(|_| WaitLocked::new(0).map(drop));
    assert_eq!(made, Err(NtStatus::INSUFFICIENT_RESOURCES));
    probe.remove();
}

#[test]
fn a_value_is_reached_without_the_lock_by_who_owns_it() {
    let mut probe = Probe::started(Nothing::DRIVER_ENTRY, 0);
    probe.thread(|irql| {
        let mut lock = WaitLocked::new(1).unwrap();
        *lock.get_mut() += 1;
        assert_eq!(lock.lock(irql, |value, _| *value), 2);
        let mut lock = SpinLocked::new(1).unwrap();
        *lock.get_mut() += 1;
        assert_eq!(lock.lock(irql, |value, _| *value), 2);
    });
    probe.remove();
}
