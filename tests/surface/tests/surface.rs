// SPDX-License-Identifier: MIT OR Apache-2.0

//! The life of the driver that goes through all of dmf, linked: what comes of it.

#[path = "support/plan.rs"]
mod plan;

use plan::{FrontEnd, told, whole_life};

#[test]
fn the_life_is_lived_under_every_schedule() {
    for seed in 0..10 {
        let trace = whole_life(&FrontEnd::Host, seed);
        let told = told(&trace);
        let has = |text: &str| told.iter().any(|line| line.contains(text));
        for text in [
            "time: a long stall: Err(",
            "threads: counted: (9, 9, 9, 9, Locked(9), 9, 3)",
        ] {
            assert!(has(text), "seed {seed}: {text}\n{}", told.join("\n"));
        }
    }
}
