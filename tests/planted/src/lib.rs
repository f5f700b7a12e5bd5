// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faulty drivers on which the explorer is tried, each beside its fixed twin.
//!
//! # Vocabulary
//! - *bug*: a row of [`BUGS`]: a driver, what drives it, and what ntsim must say.
//! - *twin*: the same source without the fault: `#if FIXED` in C, a constant
//!   parameter `FIXED` in Rust.
//! - *play*: to run a driver's scenario once, on a fresh machine, under one schedule.
//!
//! The sources are in `bugs/`, one file for each. What is found, and how soon, is
//! on [a page](../../../docs/planted-bugs.md) that `cargo xtask planted` writes.

#[path = "../../../ntsim/tests/support/raw.rs"]
#[macro_use]
#[allow(
    warnings,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "the tests of ntsim's own"
)]
mod raw;

mod drivers;
mod play;
mod table;

pub use play::{Bench, PATIENCE, Program, Twin, explore, find, images, pass};
pub use table::{BUGS, Bug, Driver, Expect};
