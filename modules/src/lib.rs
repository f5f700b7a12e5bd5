// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ready-made modules for drivers on [`dmf`], after those of Microsoft's DMF.
//!
//! | Module | For |
//! |---|---|
//! | [`AlertableSleep`] | delays that somebody else can cut short |
//! | [`ScheduledTask`] | work that runs once: now or later, with retries, once ever if need be |
//!
//! The names are those of DMF in `snake_case`. Its documented promises hold; its
//! defects do not. `docs/porting-from-dmf.md` leads from the one to the other, and
//! `docs/promises.md` tells which test keeps which promise.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod alertable_sleep;
pub mod scheduled_task;

pub use alertable_sleep::AlertableSleep;
pub use scheduled_task::ScheduledTask;

/// The porting guide, whose Rust runs as tests. No C counterpart.
#[cfg(doctest)]
#[doc = include_str!("../../docs/porting-from-dmf.md")]
pub struct PortingGuide;
