// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sensor's story, with the driver linked into the test.

#[path = "../examples/story/plan.rs"]
#[allow(dead_code, reason = "each test needs another part of it")]
mod plan;

use std::collections::BTreeSet;

use ntsim::store::MachineDir;
use ntsim::story;
use plan::FrontEnd;

/// The story's trace under `seed`.
fn told(seed: u64) -> Vec<ntsim::trace::Line> {
    let mut machine = plan::prepare(&FrontEnd::Host, MachineDir::in_memory(), seed).unwrap();
    story::play(&mut machine, &plan::steps(), &mut |_| {})
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    machine.trace().to_vec()
}

#[test]
fn the_story_comes_out_the_same_under_every_schedule() {
    for seed in 0..50 {
        assert_eq!(
            plan::check(&told(seed)),
            Vec::<String>::new(),
            "seed {seed}"
        );
    }
}

#[test]
fn one_seed_tells_the_story_byte_for_byte() {
    let text = |seed| {
        told(seed)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(text(3), text(3));
}

#[test]
fn ten_seeds_give_different_interleavings() {
    let interleavings: BTreeSet<_> = (0..10)
        .map(|seed| plan::driver_visible(&told(seed)))
        .collect();
    assert!(interleavings.len() > 1);
}

#[test]
fn two_minutes_of_the_sensors_life_pass() {
    let last = told(0).last().map_or(0, |line| line.time);
    assert!(last > 120 * ntsim::SECOND, "{last}");
}
