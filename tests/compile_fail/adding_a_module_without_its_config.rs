// SPDX-License-Identifier: MIT OR Apache-2.0

//! Something that is not the config of a module.
//~ E0277
//~ `AlertableSleep` is not the config of a module that `Meter` can own
//~ give `add.module` what the module's `config()` returns

use dmf::prelude::*;
use dmf_modules::AlertableSleep;

struct Meter;

fn refused(add: &mut Modules<'_, Meter>, sleep: AlertableSleep) -> Result {
    add.module(sleep).map(drop)
}

fn main() {}
