// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whole lives of a driver's image: loaded, started, power-cycled, removed, unloaded.

use std::path::Path;

use ntsim::Machine;

use crate::measure::Row;

pub fn measure(_inf: &Path) -> Result<Vec<Row>, ntsim::machine::Error> {
    let _ = Machine::default();
    Ok(Vec::new())
}
