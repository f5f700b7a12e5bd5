// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events, waits and threads.

use crate::Case;

pub const CASES: &[Case] = &[crate::irql::SET_EVENT];
