// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF 1.33.

pub(crate) mod bind;

/// What the framework remembers.
#[derive(Default)]
pub(crate) struct State {}
