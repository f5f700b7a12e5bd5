// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fault injection: which calls fail, and what befalls devices.

#[macro_use]
#[path = "support/raw.rs"]
#[allow(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
mod raw;

use std::cell::Cell;
use std::time::Duration;

use ntsim::inject::{Blow, Faults, Report, Stacks, Walk};
use ntsim::machine::Error;
use ntsim::{Machine, Settings, StopKind, Written};
use ntsim_sys::ntddk::{ExAllocatePool2, ExFreePoolWithTag};
use raw::{Bench, delay};

const TAG: u32 = u32::from_le_bytes(*b"tseT");
const OTHER: u32 = u32::from_le_bytes(*b"htoT");

/// Allocates a block, and tells whether there was one.
fn allocate(tag: u32) -> bool {
    // SAFETY: the machine checks it.
    let block = unsafe { ExAllocatePool2(0x40, 8, tag) };
    if !block.is_null() {
        // SAFETY: as above.
        unsafe { ExFreePoolWithTag(block, tag) };
    }
    !block.is_null()
}

/// Whether each of the calls that `body` makes succeeded, with these faults.
fn with(faults: Faults, body: fn() -> Vec<bool>) -> (Vec<bool>, Report) {
    with_seed(1, faults, body)
}

fn with_seed(seed: u64, faults: Faults, body: fn() -> Vec<bool>) -> (Vec<bool>, Report) {
    let mut machine = Machine::with_seed(seed);
    machine.inject(faults);
    let results = machine.run_thread("driver", body).unwrap();
    (results, machine.faults().clone())
}

fn many() -> Vec<bool> {
    (0..2_000).map(|_| allocate(TAG)).collect()
}

#[test]
fn each_stack_fails_once_and_what_was_seen_never_again() {
    // The three that the loop makes come from one place; a function's callers matter.
    fn body() -> Vec<bool> {
        let mut results: Vec<_> = (0..3).map(|_| allocate(TAG)).collect();
        results.push(allocate(TAG));
        results
    }
    let (results, first) = with(Faults::each_stack(Stacks::default()), body);
    if cfg!(target_os = "linux") {
        assert_eq!(results, [false, true, true, false]);
        assert_eq!((first.failures, first.stacks.len()), (2, 2));
    }
    // https://learn.microsoft.com/windows-hardware/drivers/devtest/systematic-low-resource-simulation
    let (results, second) = with(Faults::each_stack(first.stacks.clone()), body);
    assert_eq!(results, [true; 4]);
    assert_eq!((second.failures, second.stacks), (0, first.stacks));
}

#[test]
fn each_stack_hits_as_many_in_a_run_as_it_is_told() {
    fn body() -> Vec<bool> {
        vec![allocate(TAG), allocate(TAG), allocate(TAG)]
    }
    let mut seen = Stacks::default();
    for fails in [0, 1, 2] {
        let (results, report) = with(Faults::each_stack(seen).at_most(1), body);
        let expected: Vec<_> = (0..3).map(|call| call != fails).collect();
        assert_eq!(results, expected);
        seen = report.stacks;
    }
}

#[test]
fn chance_fails_as_many_as_it_says_and_the_seed_decides_which() {
    // https://learn.microsoft.com/windows-hardware/drivers/devtest/low-resources-simulation:
    // "600 means 600/10000, or 6%".
    let (results, report) = with(Faults::at_random(600), many);
    let failed = results.iter().filter(|ok| !**ok).count();
    assert!((60..180).contains(&failed), "{failed} of 2000, about 120");
    assert_eq!(report.failures, failed as u64);
    assert_eq!(with(Faults::at_random(600), many).0, results);
    assert_ne!(with_seed(2, Faults::at_random(600), many).0, results);
    // A seed of its own does not follow the machine's.
    let own = || Faults::at_random(600).seed(7);
    assert_eq!(with_seed(1, own(), many).0, with_seed(2, own(), many).0);
    assert_eq!(with(Faults::at_random(0), many).1.failures, 0);
    assert_eq!(with(Faults::at_random(10_000), many).1.failures, 2_000);
}

#[test]
fn a_tag_or_a_function_narrows_down_what_may_fail() {
    fn body() -> Vec<bool> {
        vec![allocate(TAG), allocate(OTHER), allocate(TAG)]
    }
    let all = || Faults::at_random(10_000);
    assert_eq!(with(all().only_tag(OTHER), body).0, [true, false, true]);
    assert_eq!(
        with(all().only_tag(OTHER).only_tag(TAG), body).0,
        [false; 3]
    );
    assert_eq!(
        with(all().only_function("ExAllocatePool2"), body).0,
        [false; 3]
    );
    assert_eq!(with(all().only_function("WDFTIMER"), body).0, [true; 3]);
    // Points are those of what may fail.
    let second = Faults::nth(2).only_tag(TAG);
    assert_eq!(with(second, body).0, [true, true, false]);
}

#[test]
fn nothing_fails_before_the_delay_is_over() {
    fn body() -> Vec<bool> {
        let early = allocate(TAG);
        delay(200);
        vec![early, allocate(TAG)]
    }
    let late = Faults::at_random(10_000).after(Duration::from_millis(100));
    assert_eq!(with(late, body).0, [true, false]);
}

#[test]
fn only_the_service_that_is_meant_is_hit() {
    for (service, status) in [("Probe", Some(0xC000_009A)), ("Other", None)] {
        let mut bench = Bench::new(1);
        bench.machine.inject(Faults::nth(1).only_service(service));
        let failed = match bench.try_start() {
            Err(Error::Driver { status, .. }) => Some(status),
            other => {
                other.unwrap();
                None
            }
        };
        assert_eq!(failed, status, "{service}");
    }
}

// ---- blows ---------------------------------------------------------------------

thread_local! {
    static BLOCK: Cell<usize> = const { Cell::new(0) };
}

/// A driver whose D0Entry allocates what `free_in` frees.
fn driver() -> (Machine, String) {
    let bench = Bench::new(1);
    (bench.machine, bench.device)
}

/// What it does is said anew: a power cut may have hit one of its callbacks.
fn script(free_in: &'static str) {
    BLOCK.set(0);
    raw::on("D0Entry", |_| {
        // SAFETY: the machine checks it.
        BLOCK.set(unsafe { ExAllocatePool2(0x40, 8, TAG) } as usize);
        0
    });
    raw::on(free_in, |_| {
        let block = BLOCK.replace(0);
        if block != 0 {
            // SAFETY: the machine checks it.
            unsafe { ExFreePoolWithTag(block as *mut _, TAG) };
        }
        0
    });
}

fn life(free_in: &'static str) -> impl Fn(&mut Machine, &str) -> Result<(), Error> {
    move |machine, device| {
        script(free_in);
        machine.start_device(device)?;
        machine.power_down(device)?;
        machine.power_up(device)?;
        machine.remove_device(device)
    }
}

#[test]
fn a_driver_that_frees_in_d0_exit_survives_every_blow() {
    for blow in Blow::ALL {
        let walked = Walk::new(blow, driver, life("D0Exit")).run().unwrap();
        assert!(walked.broken.is_empty(), "{blow:?}: {walked}");
        assert!(walked.moments > 0, "{blow:?}");
        assert_eq!(walked.tried, walked.moments, "{blow:?}");
        assert_eq!(walked.struck, walked.moments, "{blow:?}");
    }
}

#[test]
fn the_walk_tells_at_which_moment_a_driver_breaks() {
    // Suspend is not called if Init was not, but D0Exit is: where Init fails, the
    // block stays behind.
    let walked = Walk::new(Blow::FailedCallback, driver, life("SelfManagedIoSuspend"))
        .run()
        .unwrap();
    // PrepareHardware, D0Entry, SelfManagedIoInit; then those of the power cycle.
    let first = &walked.broken[0];
    assert_eq!((first.moment, first.when), (3, "while it happened"));
    let Error::Stop(stop) = &first.error else {
        panic!("{}", first.error)
    };
    assert_eq!(stop.bug_check_code(), Some(0xC4), "{stop}");
}

#[test]
fn a_budget_spreads_the_moments_that_are_tried() {
    let walk = Walk::new(Blow::SurpriseRemoval, driver, life("D0Exit")).budget(5);
    let walked = walk.run().unwrap();
    assert!(walked.moments > 10, "{walked}");
    assert!((4..=5).contains(&walked.tried), "{walked}");
}

#[test]
fn a_scenario_that_fails_by_itself_is_no_walk() {
    let walk = Walk::new(Blow::FailedStart, driver, |machine, device| {
        machine.power_up(device)
    });
    assert!(matches!(walk.run(), Err(Error::State { .. })));
}

#[test]
fn a_device_that_goes_during_a_power_change_gets_its_removal_callbacks_once() {
    for moment in 1..200 {
        let (mut machine, device) = driver();
        script("D0Exit");
        machine.start_device(&device).unwrap();
        machine.ambush(Blow::SurpriseRemoval, &device, Some(moment));
        machine.power_down(&device).unwrap();
        let _ = machine.power_up(&device);
        machine.run_for(Duration::ZERO).unwrap();
        let gone = !machine.started_devices().contains(&device);
        let trace: Vec<_> = machine.trace().iter().map(ToString::to_string).collect();
        let exits = trace
            .iter()
            .filter(|line| line.contains("EvtDeviceD0Exit("));
        let entries = trace
            .iter()
            .filter(|line| line.contains("EvtDeviceD0Entry("));
        if !gone {
            assert!(
                moment > 3,
                "{moment}: the device went too late to be noticed"
            );
            return;
        }
        assert_eq!(exits.count(), entries.count(), "moment {moment}");
    }
    panic!("it goes whenever it goes");
}

#[test]
fn cutting_the_power_works_as_before() {
    let mut machine = Machine::new(Settings::default());
    machine.cut_power_at(Some(2));
    let stop = machine
        .run_thread("driver", || {
            delay(1);
            delay(1);
        })
        .unwrap_err();
    assert_eq!(stop.kind, StopKind::PowerCut);
    machine.boot_after_power_cut(Written::Everything).unwrap();
    machine.run_thread("driver", || delay(1)).unwrap();
}
