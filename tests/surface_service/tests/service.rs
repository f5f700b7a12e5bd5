// SPDX-License-Identifier: MIT OR Apache-2.0

//! The life of the driver without devices, linked.

#[path = "support/plan.rs"]
mod plan;

use ntsim::trace::Event;
use plan::{FrontEnd, whole_life};

#[test]
fn the_life_is_lived_under_every_schedule() {
    for seed in 0..10 {
        let trace = whole_life(&FrontEnd::Host, seed);
        let told = |text: &str| {
            let matches = |line: &&ntsim::trace::Line| matches!(&line.what, Event::Print(said) if said.contains(text));
            trace.iter().filter(matches).count()
        };
        for (text, count) in [
            ("load: limit Err(NotFound)", 1),
            ("load: limit Ok(100)", 2),
            ("close Some(7)", 2),
            ("unload: Ok(10)", 1),
            ("unload: Ok(100)", 1),
            ("dropped: desk: true", 2),
            ("shutdown: 0", 2),
        ] {
            assert_eq!(told(text), count, "seed {seed}: {text}");
        }
    }
}
