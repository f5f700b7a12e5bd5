// SPDX-License-Identifier: MIT OR Apache-2.0

//! A module whose state is not an instance.
//~ E0277
//~ `State` is not the instance of a module
//~ write `impl Instance for State {}`

use dmf::module::{Link, Module};

#[derive(Clone)]
struct Filter(Link<State>);

struct State;

impl Module for Filter {
    type Instance = State;

    fn over(instance: Link<State>) -> Self {
        Self(instance)
    }
}

fn main() {}
