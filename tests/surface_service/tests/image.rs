// SPDX-License-Identifier: MIT OR Apache-2.0

//! The image of the driver without devices, compared with the
//! linked driver.

#[path = "support/plan.rs"]
mod plan;

use plan::{PACKAGE, whole_life};

#[test]
fn image_and_linked_driver_make_the_same_calls_with_the_same_results() {
    PACKAGE.assert_image_and_host_agree(whole_life);
}
