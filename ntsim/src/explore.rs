// SPDX-License-Identifier: MIT OR Apache-2.0

//! Playing many schedules, and keeping the one that fails.

pub(crate) mod schedule;
pub(crate) mod tape;

pub use schedule::{Schedule, ScheduleError};
pub use tape::{Coverage, Tape};
