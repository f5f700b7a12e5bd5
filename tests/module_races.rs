// SPDX-License-Identifier: MIT OR Apache-2.0

//! Races of opening, closing and methods on a tree of modules, three levels
//! deep, with a module that opens itself and modules that are made at run time.
//!
//! Each seed is a machine of its own: two threads call methods while the device
//! is started, put to sleep, woken and removed, in good order or by surprise. The instances themselves check
//! that no method runs while they are closed, that Close waited, and that they
//! are opened and closed by turns; the simulator checks its rules and, at
//! unload, that nothing is left.
//!
//! `DMF_SCHEDULES` sets how many seeds are played, `DMF_FIRST_SEED` the first.

#[path = "support/probe.rs"]
mod probe;
#[path = "support/tree.rs"]
#[allow(dead_code, reason = "each test program uses some of it")]
mod tree;

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

use dmf::prelude::*;
use ntsim::machine::PowerChange;
use probe::Probe;
use tree::{GuestConfig, Kept, Tree, drop_kept, journal, keep, keep_no_more, kept};

thread_local! {
    static THREADS: RefCell<Vec<ManuallyDrop<Thread>>> = const { RefCell::new(Vec::new()) };
    static ANSWERED: Cell<u64> = const { Cell::new(0) };
    static REFUSED: Cell<u64> = const { Cell::new(0) };
}

fn count(result: Result) {
    match result {
        Ok(()) => ANSWERED.set(ANSWERED.get() + 1),
        Err(NtStatus::INVALID_DEVICE_STATE) => REFUSED.set(REFUSED.get() + 1),
        Err(other) => panic!("{other}"),
    }
}

/// Calls the methods of the tree.
fn call(kept: &Kept, irql: &mut Irql<'_, Passive>) {
    for depth in [3, 1, 2, 3] {
        count(kept.top.work(depth));
        count(kept.watcher.look());
        dmf::sync::delay(irql, Duration::from_micros(1));
    }
}

/// Opens and closes what opens itself, and makes modules at run time.
fn stir(kept: &Kept, irql: &mut Irql<'_, Passive>) {
    let opener = kept.opener.as_ref().unwrap();
    for _ in 0..2 {
        count(opener.open(irql));
        match kept.device.create(irql, GuestConfig) {
            Ok(guest) => {
                count(guest.look());
                count(kept.watcher.look());
                guest.close(irql);
            }
            Err(status) => count(Err(status)),
        }
        count(opener.close(irql));
    }
}

fn play(seed: u64) {
    keep();
    let mut probe = Probe::new(Tree::DRIVER_ENTRY, seed);
    probe.start().unwrap();
    keep_no_more();
    probe.thread(|irql| {
        let (one, two) = (kept(), kept());
        let threads = [
            Thread::spawn(irql, move |irql| call(&one, irql)).unwrap(),
            Thread::spawn(irql, move |irql| stir(&two, irql)).unwrap(),
        ];
        THREADS.set(threads.map(ManuallyDrop::new).into());
    });
    probe.power_down();
    probe.power_up();
    if seed.is_multiple_of(2) {
        // The threads race sleep and waking only.
        join(&mut probe);
        probe.remove();
    } else {
        // They race the removal, too. A second device keeps the driver loaded.
        let second = probe.machine.plug_in(r"Root\Probe").unwrap();
        probe.machine.start_device(&second).unwrap();
        if seed % 4 == 1 {
            probe.machine.remove_device(&probe.device).unwrap();
        } else {
            // Which may come in the middle of the way down.
            probe
                .machine
                .surprise_remove_during(&probe.device, PowerChange::Down)
                .unwrap();
        }
        join(&mut probe);
        probe.machine.remove_device(&second).unwrap();
    }
    assert!(probe.machine.started_devices().is_empty());
    journal();
}

fn join(probe: &mut Probe) {
    probe.thread(|irql| {
        for thread in THREADS.take() {
            ManuallyDrop::into_inner(thread).join(irql);
        }
        drop_kept();
    });
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn close_always_waits_and_nothing_is_left_under_every_schedule() {
    let first = setting("DMF_FIRST_SEED", 0);
    let schedules = setting("DMF_SCHEDULES", 2_000);
    for seed in first..first + schedules {
        if let Err(panic) = std::panic::catch_unwind(|| play(seed)) {
            eprintln!(
                "replay: DMF_FIRST_SEED={seed} DMF_SCHEDULES=1 cargo test --test module_races"
            );
            std::panic::resume_unwind(panic);
        }
    }
    let (answered, refused) = (ANSWERED.get(), REFUSED.get());
    println!("{schedules} schedules: {answered} calls answered, {refused} refused");
    // The threads do meet both.
    assert!(answered > schedules && refused > schedules);
}
