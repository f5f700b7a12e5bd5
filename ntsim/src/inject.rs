// SPDX-License-Identifier: MIT OR Apache-2.0

//! Systematic fault injection: failing the n-th of all calls that can fail for
//! lack of resources.
//!
//! # Vocabulary
//! - *fallible call*: a pool allocation, the creation of a KMDF object or a
//!   thread, a reference by handle, the opening, reading or writing of a
//!   registry key. Each counts once, whether it then succeeds or not.
//! - *point*: the number of a fallible call, from 1, counted from
//!   [`Machine::fail_nth`](crate::Machine::fail_nth).
//!
//! A test walks all points: fail the first, then the second, until a run comes
//! to its end before the point does.
//!
//! Driver Verifier does the same at random:
//! <https://learn.microsoft.com/windows-hardware/drivers/devtest/low-resources-simulation>

use std::collections::BTreeMap;

use crate::kernel::Kernel;
use crate::trace::Event;

/// `STATUS_INSUFFICIENT_RESOURCES`, with which injected failures fail.
pub(crate) const STATUS_INSUFFICIENT_RESOURCES: i32 = 0xC000_009A_u32.cast_signed();

/// What is counted, and what is to fail.
#[derive(Default)]
pub(crate) struct State {
    fail_at: Option<u64>,
    report: Report,
}

/// What [`Machine::fallible_calls`](crate::Machine::fallible_calls) tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many fallible calls there were.
    pub calls: u64,
    /// How many of each name.
    pub by_name: BTreeMap<&'static str, u64>,
    /// The one that was made to fail.
    pub failed: Option<&'static str>,
}

impl State {
    pub(crate) fn arm(&mut self, point: Option<u64>) {
        *self = Self {
            fail_at: point,
            report: Report::default(),
        };
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }
}

/// Counts a fallible call, and tells whether it is to fail.
pub(crate) fn fails(k: &mut Kernel, name: &'static str) -> bool {
    let State { fail_at, report } = &mut k.inject;
    report.calls += 1;
    *report.by_name.entry(name).or_default() += 1;
    if *fail_at != Some(report.calls) {
        return false;
    }
    report.failed = Some(name);
    let text = format!(
        "fault injection: fallible call {} ({name}) fails",
        report.calls
    );
    k.log(Event::Machine(text));
    true
}

/// The same as a result, for functions that end with the status of failure.
pub(crate) fn check(k: &mut Kernel, name: &'static str) -> Result<(), i32> {
    if fails(k, name) {
        Err(STATUS_INSUFFICIENT_RESOURCES)
    } else {
        Ok(())
    }
}
