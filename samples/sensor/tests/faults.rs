// SPDX-License-Identifier: MIT OR Apache-2.0

//! What becomes of the sensor when calls fail for lack of resources, and when it
//! is pulled out or loses its power at a bad moment.

#[path = "../examples/story/plan.rs"]
#[allow(dead_code, reason = "each test needs another part of it")]
mod plan;

use std::time::Duration;

use ntsim::Machine;
use ntsim::inject::{Blow, Faults, Stacks, Walk};
use ntsim::machine::Error;
use ntsim::store::MachineDir;
use plan::FrontEnd;

fn fresh() -> (Machine, String) {
    let machine = plan::prepare(&FrontEnd::Host, MachineDir::in_memory(), 0).unwrap();
    let device = machine.dir().devices().unwrap()[0].instance_id.clone();
    (machine, device)
}

/// A life with a sleep in it.
fn life(machine: &mut Machine, device: &str) -> Result<(), Error> {
    machine.start_device(device)?;
    machine.run_for(Duration::from_secs(20))?;
    machine.power_down(device)?;
    machine.power_up(device)?;
    machine.run_for(Duration::from_secs(20))?;
    machine.remove_device(device)
}

/// Lives with these faults, is removed if it comes to that, and gives what was injected.
fn live_with(faults: Faults) -> ntsim::inject::Report {
    let (mut machine, device) = fresh();
    machine.inject(faults);
    match life(&mut machine, &device) {
        Ok(()) | Err(Error::Driver { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let report = machine.faults().clone();
    machine.inject(Faults::none());
    if machine.started_devices().contains(&device) {
        machine.remove_device(&device).unwrap();
    }
    report
}

#[test]
fn each_stack_once_reaches_every_place_in_fewer_runs_than_each_call() {
    // Every call once: which places are there?
    let mut every = 0;
    for point in 1.. {
        let report = live_with(Faults::nth(point));
        if report.failures == 0 {
            break;
        }
        every = point;
    }
    // Each place once, one in each run, so that none hides another.
    let (mut seen, mut one_each) = (Stacks::default(), 0);
    loop {
        let report = live_with(Faults::each_stack(seen).at_most(1));
        seen = report.stacks;
        if report.failures == 0 {
            break;
        }
        one_each += 1;
    }
    assert_eq!(seen.len(), one_each, "each run fails at one new place");
    // As Driver Verifier does it: whatever is new fails.
    let (mut all, mut runs) = (Stacks::default(), 0);
    loop {
        let report = live_with(Faults::each_stack(all));
        all = report.stacks;
        if report.failures == 0 {
            break;
        }
        runs += 1;
    }
    assert!(all.len() >= seen.len(), "{} < {}", all.len(), seen.len());
    println!(
        "{every} calls at {one_each} places; {} places in {runs} runs",
        all.len()
    );
    assert!((one_each as u64) < every, "{one_each} of {every}");
    assert!(runs <= one_each, "{runs} of {one_each}");
    // Nothing is new any more, also not in a run that reads them from a file.
    let seen: Stacks = all.to_string().parse().unwrap();
    assert_eq!(live_with(Faults::each_stack(seen)).failures, 0);
}

#[test]
fn the_sensor_survives_every_blow_at_moments_spread_over_its_life() {
    for blow in Blow::ALL {
        let walked = Walk::new(blow, fresh, life).budget(20).run().unwrap();
        println!("{blow:?}: {walked}");
        assert!(walked.broken.is_empty(), "{blow:?}: {walked}");
        assert!(
            walked.struck > 0 || walked.moments == 0,
            "{blow:?}: {walked}"
        );
    }
}
