// SPDX-License-Identifier: MIT OR Apache-2.0

//! What DMF's own test module for `DMF_AlertableSleep` does, with the assertions
//! that it lacks: one thread sleeps for up to 15 seconds, again and again, and
//! another one cuts that short after up to 15 seconds, until the device goes.

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::Cell;

use dmf::prelude::*;
use dmf::sync::{Mutex, MutexOutcome};
use dmf_modules::AlertableSleep;
use dmf_modules::alertable_sleep::{SleepOutcome, Woken};
use probe::Probe;

dmf::driver!(Soak);

/// The two threads run from D0Entry to D0Exit.
struct Soak {
    test: Handle<AlertableSleep>,
    internal: Handle<AlertableSleep>,
    threads: Mutex<Option<[Thread; 2]>>,
}

const LONGEST: u64 = 15_000;
const TICK: Duration = Duration::from_micros(15_625);

thread_local! {
    static STOPPING: Cell<bool> = const { Cell::new(false) };
    static ELAPSED: Cell<u32> = const { Cell::new(0) };
    static ABORTED: Cell<u32> = const { Cell::new(0) };
    /// Aborts that woke somebody.
    static WOKE: Cell<u32> = const { Cell::new(0) };
}

fn more(counter: &'static std::thread::LocalKey<Cell<u32>>) {
    counter.set(counter.get() + 1);
}

/// A random time, of a generator of Lehmer's.
fn random(state: &mut u64) -> Duration {
    *state = *state * 48_271 % 0x7FFF_FFFF;
    Duration::from_millis(*state % (LONGEST + 1))
}

impl Device for Soak {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Soak {
            test: add.module(AlertableSleep::config())?,
            internal: add.module(AlertableSleep::config())?,
            threads: Mutex::new(None)?,
        })
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        let (test, internal) = (self.test.clone(), self.internal.clone());
        let sleeps = Thread::spawn(cx.irql(), move |irql| sleep(&test, irql))?;
        let test = self.test.clone();
        let interrupts = Thread::spawn(cx.irql(), move |irql| interrupt(&test, &internal, irql))?;
        let threads = [sleeps, interrupts];
        let _ = self
            .threads
            .lock(cx.irql(), Timeout::Never, |kept| *kept = Some(threads));
        Ok(())
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        STOPPING.set(true);
        let _ = self.internal.abort(0);
        let _ = self.test.abort(0);
        let threads = self.threads.lock(cx.irql(), Timeout::Never, Option::take);
        let MutexOutcome::Locked(Some(threads)) = threads else {
            panic!("they run from D0Entry to D0Exit");
        };
        for thread in threads {
            thread.join(cx.irql());
        }
    }
}

fn sleep(test: &AlertableSleep, irql: &mut Irql<'_, Passive>) {
    let mut state = 1;
    loop {
        let (time, start) = (random(&mut state), Instant::now());
        match test.sleep(irql, 0, time) {
            Ok(SleepOutcome::Elapsed) => {
                assert!(start.elapsed() >= time);
                assert!(start.elapsed() <= time + 2 * TICK);
                more(&ELAPSED);
            }
            Ok(SleepOutcome::Aborted(seen)) => {
                assert!(start.elapsed() <= time + 2 * TICK);
                more(&ABORTED);
                if STOPPING.get() {
                    return;
                }
                // One more abort since then is not lost.
                test.reset_for_reuse(0, seen).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

fn interrupt(test: &AlertableSleep, internal: &AlertableSleep, irql: &mut Irql<'_, Passive>) {
    let mut state = 2;
    loop {
        let outcome = internal.sleep(irql, 0, random(&mut state)).unwrap();
        if STOPPING.get() {
            return;
        }
        if let SleepOutcome::Aborted(seen) = outcome {
            // Of the last D0Exit: it latches until somebody resets it.
            internal.reset_for_reuse(0, seen).unwrap();
            continue;
        }
        if test.abort(0) == Ok(Woken::Sleeper) {
            more(&WOKE);
        }
    }
}

#[test]
fn dmfs_soak_ends_each_sleep_in_time_and_the_device_without_waiting() {
    for seed in 0..10 {
        ELAPSED.set(0);
        ABORTED.set(0);
        WOKE.set(0);
        STOPPING.set(false);
        let mut probe = Probe::started(Soak::DRIVER_ENTRY, seed);
        probe.run_for(Duration::from_hours(1));
        assert!(ELAPSED.get() > 100 && WOKE.get() > 100, "seed {seed}");
        let before = probe.machine.now();
        probe.power_down();
        let took = probe.machine.now().saturating_sub(before);
        assert!(
            took < TICK,
            "seed {seed}: {took:?}, with sleeps outstanding"
        );
        // Who was told that it woke somebody did; others came between two sleeps.
        assert!(ABORTED.get() >= WOKE.get(), "seed {seed}");
        // And once more.
        STOPPING.set(false);
        probe.power_up();
        probe.run_for(Duration::from_mins(1));
        probe.remove();
    }
}
