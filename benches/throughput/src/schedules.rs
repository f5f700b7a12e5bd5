// SPDX-License-Identifier: MIT OR Apache-2.0

//! Schedules per second: four threads take a mutex twice each and count under it.
//!
//! The same in both: four threads are started and joined; each takes the lock,
//! adds one to a number, releases the lock, and does it again. That is 16 calls
//! of the scheduler by the threads, and those for starting, blocking and joining:
//! about 20 to 26 points at which somebody is chosen.

use std::cell::Cell;
use std::rc::Rc;

use ntsim::{Machine, Settings, Strategy};

use crate::measure::{Goal, Row, in_turns, per_second};
use crate::nt;

const THREADS: u32 = 4;
const ROUNDS: u32 = 2;

/// Plays one schedule on the machine.
fn play(machine: &mut Machine) {
    let mutex = nt_mutex(machine);
    let sum = Rc::new(Cell::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|index| {
            let sum = sum.clone();
            machine.spawn_thread(NAMES[index as usize], move || {
                let (reason, mode, alertable) = nt::PASSIVE_WAIT;
                for _ in 0..ROUNDS {
                    nt::KeWaitForSingleObject(mutex, reason, mode, alertable, std::ptr::null());
                    sum.set(sum.get() + 1);
                    nt::KeReleaseMutex(mutex, 0);
                }
            })
        })
        .collect();
    for thread in threads {
        machine.join(thread).expect("nothing goes wrong");
    }
    assert_eq!(sum.get(), THREADS * ROUNDS);
}

const NAMES: [&str; THREADS as usize] = ["first", "second", "third", "fourth"];

thread_local! {
    static MUTEX: *mut nt::Object = nt::Object::leaked();
}

fn nt_mutex(machine: &mut Machine) -> *mut nt::Object {
    let mutex = MUTEX.with(|mutex| *mutex);
    machine
        .run_thread("first", move || nt::KeInitializeMutex(mutex, 0))
        .expect("nothing goes wrong");
    mutex
}

/// The settings with which many schedules are played.
pub fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        trace: false,
        ..Settings::default()
    }
}

/// Plays schedules on one machine.
pub fn on_one_machine(machine: &mut Machine, seeds: std::ops::Range<u64>, strategy: &Strategy) {
    for seed in seeds {
        machine.reschedule(strategy.clone(), seed);
        play(machine);
    }
}

fn on_fresh_machines(count: u64) {
    for seed in 0..count {
        play(&mut Machine::new(settings(seed)));
    }
}

fn shuttle_test() {
    use shuttle::sync::{Arc, Mutex};
    let sum = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let sum = sum.clone();
            shuttle::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    *sum.lock().unwrap() += 1;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*sum.lock().unwrap(), THREADS * ROUNDS);
}

/// The rows of this section.
pub fn measure() -> Vec<Row> {
    const PCT: Strategy = Strategy::Pct {
        depth: 3,
        steps: 25,
    };
    let count = |count: u64| usize::try_from(count).expect("it fits");
    let mut machine = Machine::new(settings(0));
    let mut pct_machine = Machine::new(settings(0));
    let [random, pct, ours, ours_pct, fresh] = in_turns([
        &mut |n| shuttle::check_random(shuttle_test, count(n)),
        &mut |n| shuttle::check_pct(shuttle_test, count(n), 3),
        &mut |n| on_one_machine(&mut machine, 0..n, &Strategy::Random),
        &mut |n| on_one_machine(&mut pct_machine, 0..n, &PCT),
        &mut on_fresh_machines,
    ]);
    let row = |what: &str, ours: f64, shuttle: f64, baseline: &str| Row {
        what: what.to_owned(),
        value: per_second(ours),
        unit: "schedules/s",
        baseline: baseline.to_owned(),
        baseline_value: per_second(shuttle),
        goal: Some(Goal::AtLeast(50_000.0)),
    };
    vec![
        row(
            "4 threads, random, one machine",
            ours,
            random,
            "Shuttle, random",
        ),
        row(
            "4 threads, random, fresh machines",
            fresh,
            random,
            "Shuttle, random",
        ),
        row(
            "4 threads, PCT 3, one machine",
            ours_pct,
            pct,
            "Shuttle, PCT 3",
        ),
    ]
}
