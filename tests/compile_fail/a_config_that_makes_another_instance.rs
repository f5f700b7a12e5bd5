// SPDX-License-Identifier: MIT OR Apache-2.0

//! A config that makes the state of another module.
//~ E0308
//~ expected `Counting`, found `Timing`

use dmf::module::{Create, Instance, Link, ModuleConfig};
use dmf::prelude::*;

#[derive(Clone)]
struct Counter(Link<Counting>);
struct Counting;
struct Timing;
struct Config;

impl Instance for Counting {}

impl Module for Counter {
    type Instance = Counting;
    fn over(instance: Link<Counting>) -> Self {
        Counter(instance)
    }
}

impl<O> ModuleConfig<O> for Config {
    type Module = Counter;
    fn create(self, _cx: &mut Create<'_, O, Counting>) -> Result<Counting> {
        Ok(Timing)
    }
}

fn main() {}
