// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device that does not say what it is made of: the one step that is mandatory.
//~ E0046
//~ missing: `modules`

use dmf::prelude::*;

dmf::driver!(Meter);

pub struct Meter;

impl Device for Meter {}

fn main() {}
