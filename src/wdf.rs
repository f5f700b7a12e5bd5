// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF objects: [`Timer`] and [`WorkItem`].
//!
//! They are made while their owner is made, by [`Modules::timer`] and
//! [`Modules::work_item`], and the framework owns them: it stops and deletes
//! them after the owner was dropped. What the owner holds is a link, whose
//! functions say `STATUS_INVALID_DEVICE_STATE` before and after that.
//!
//! [`Modules::timer`]: crate::module::Modules::timer
//! [`Modules::work_item`]: crate::module::Modules::work_item

pub(crate) mod object;
mod timer;
mod work_item;

pub use timer::{Timer, TimerFired};
pub use work_item::{WorkItem, WorkItemRun};
