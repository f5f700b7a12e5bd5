// SPDX-License-Identifier: MIT OR Apache-2.0

//! The pool: a block is allocated and freed.

use std::hint::black_box;

use ntsim::memory::{Fill, GuardedPool, PoolOptions};

use crate::measure::{Goal, Row, in_turns};

/// The rows of this section.
pub fn measure() -> Vec<Row> {
    let mut pool = GuardedPool::new(PoolOptions::default());
    let mut pair = |size: usize, n: u64| {
        for _ in 0..n {
            let block = pool.allocate(size, 1, Fill::Zero).expect("memory");
            pool.free(black_box(block)).expect("it is sound");
        }
    };
    let malloc = |n: u64| {
        for _ in 0..n {
            drop(black_box(vec![0_u8; 256]));
        }
    };
    let pair = std::cell::RefCell::new(&mut pair);
    let [malloc, small, large] = in_turns([
        &mut { malloc },
        &mut |n| pair.borrow_mut()(256, n),
        &mut |n| pair.borrow_mut()(5_000, n),
    ]);
    let row = |what: &str, value: f64, goal| Row {
        what: what.to_owned(),
        value,
        unit: "ns",
        baseline: "malloc and free, 256 bytes".to_owned(),
        baseline_value: malloc,
        goal,
    };
    vec![
        row("pool pair, 256 bytes", small, Some(Goal::AtMost(600.0))),
        row("pool pair, 5,000 bytes", large, None),
    ]
}
