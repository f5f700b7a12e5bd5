// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tells results, so that a trace has them beside the calls.

use core::fmt::Debug;

/// Tells the results of one chapter.
pub struct Teller {
    chapter: &'static str,
    count: u32,
}

impl Teller {
    pub fn new(chapter: &'static str) -> Self {
        Self { chapter, count: 0 }
    }

    /// How many results were told.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Tells one.
    pub fn value(&mut self, what: &str, value: impl Debug) {
        self.count += 1;
        dmf::println!("{}: {what}: {value:?}", self.chapter);
    }
}
