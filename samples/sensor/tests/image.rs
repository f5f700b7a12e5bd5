// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sensor's story told by its image, and compared with the linked driver's.

#[path = "../examples/story/plan.rs"]
#[allow(dead_code, reason = "each test needs another part of it")]
mod plan;

use ntsim::store::MachineDir;
use ntsim::story;
use plan::{FrontEnd, PACKAGE};

fn told(front_end: &FrontEnd, seed: u64) -> Vec<ntsim::trace::Line> {
    let mut machine = plan::prepare(front_end, MachineDir::in_memory(), seed).unwrap();
    story::play(&mut machine, &plan::steps(), &mut |_| {})
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    machine.trace().to_vec()
}

#[test]
fn image_and_linked_driver_make_the_same_calls_with_the_same_results() {
    PACKAGE.assert_image_and_host_agree(told);
}

#[test]
fn the_image_tells_the_story_under_every_schedule() {
    for seed in 0..50 {
        assert_eq!(
            plan::check(&told(&PACKAGE.image(), seed)),
            Vec::<String>::new(),
            "seed {seed}"
        );
    }
}

#[test]
fn one_seed_gives_the_image_one_trace_byte_for_byte() {
    let text = |seed| {
        told(&PACKAGE.image(), seed)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(text(5), text(5));
}

#[test]
fn a_report_names_functions_and_lines_of_the_image() {
    let image = PACKAGE.image();
    let settings = ntsim::Settings {
        // Reached soon: the machine takes the driver for one that never waits.
        livelock_limit: 60,
        ..image.settings(0)
    };
    let mut machine = plan::prepare_with(&image, MachineDir::in_memory(), settings).unwrap();
    let error = story::play(&mut machine, &plan::steps(), &mut |_| {}).unwrap_err();
    let ntsim::machine::Error::Stop(stop) = error else {
        panic!("{error}")
    };
    let in_image = |frame: &&ntsim::report::Frame| {
        let text = frame.to_string();
        text.contains("sensor.sys!") && text.contains(".rs:")
    };
    assert!(stop.backtrace.iter().filter(in_image).count() > 1, "{stop}");
}
