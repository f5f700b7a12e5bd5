// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mailbox's image, compared with the linked driver.
//!
//! `cargo xtask test` builds the image and says in `MAILBOX_INF` where it is.

#[path = "support/plan.rs"]
mod plan;

use plan::{FrontEnd, driver_visible, whole_life};

fn image() -> FrontEnd {
    let inf = std::env::var_os("MAILBOX_INF")
        .expect("MAILBOX_INF: run `cargo xtask test`, which builds the image and names its INF");
    FrontEnd::Image(inf.into())
}

#[test]
fn image_and_linked_driver_make_the_same_calls_with_the_same_results() {
    for seed in 0..10 {
        let image = driver_visible(&whole_life(&image(), seed));
        let host = driver_visible(&whole_life(&FrontEnd::Host, seed));
        for (number, (image, host)) in image.iter().zip(&host).enumerate() {
            assert_eq!(image, host, "seed {seed}, line {number}");
        }
        assert_eq!(image.len(), host.len(), "seed {seed}");
    }
}

#[test]
fn the_image_lives_its_life_under_every_schedule() {
    for seed in 0..50 {
        whole_life(&image(), seed);
    }
}
