// SPDX-License-Identifier: MIT OR Apache-2.0

//! `driver!` of a type that is not a device.
//~ E0277
//~ `Meter` is not a device
//~ write `impl Device for Meter` with `fn modules

dmf::driver!(Meter);

struct Meter;

fn main() {}
