// SPDX-License-Identifier: MIT OR Apache-2.0

//! A handle of a type that is not a module.
//~ E0277
//~ `Filter` is not a module
//~ a module is a type with a `Link` to its instance: `impl Module for Filter`

use dmf::prelude::*;

struct Filter;

fn refused(_: Handle<Filter>) {}

fn main() {}
