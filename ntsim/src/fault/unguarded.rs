// SPDX-License-Identifier: MIT OR Apache-2.0

//! Systems whose faults ntsim does not catch: a fault in a driver ends the process.

use std::io;
use std::time::Duration;

use super::{Abandoned, Coroutine, Resumed, Stack, resumed};

/// Does nothing here.
///
/// # Errors
/// Never.
pub fn install() -> io::Result<()> {
    Ok(())
}

/// Resumes `coroutine`; a fault in it ends the process on this system.
pub fn resume<I, Y, R: Abandoned, S: Stack>(
    coroutine: &mut Coroutine<I, Y, R, S>,
    input: I,
) -> Resumed<Y, R> {
    resumed(coroutine.resume(input))
}

/// Does nothing here: a driver may run for ever.
pub(crate) fn watch(_limit: Option<Duration>) {}

/// Does nothing here.
pub(crate) fn runs() {}
