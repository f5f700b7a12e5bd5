// SPDX-License-Identifier: MIT OR Apache-2.0

//! The pool: a block is allocated and freed.

use std::hint::black_box;

use ntsim::memory::{Fill, GuardedPool, PoolChecks, PoolOptions};

use crate::measure::{Goal, Row, in_turns};

/// The rows of this section.
pub fn measure() -> Vec<Row> {
    let pair = |checks: PoolChecks, size: usize| {
        let mut pool = GuardedPool::new(PoolOptions {
            checks,
            ..PoolOptions::default()
        });
        move |n: u64| {
            for _ in 0..n {
                let block = pool.allocate(size, 1, Fill::Zero).expect("memory");
                pool.free(black_box(block)).expect("it is sound");
            }
        }
    };
    let canaries = |guard_one_in| PoolChecks::Canaries { guard_one_in };
    let malloc = |n: u64| {
        for _ in 0..n {
            drop(black_box(vec![0_u8; 256]));
        }
    };
    let [malloc, small, large, open, sampled] = in_turns([
        &mut { malloc },
        &mut pair(PoolChecks::Guarded, 256),
        &mut pair(PoolChecks::Guarded, 5_000),
        &mut pair(canaries(0), 256),
        &mut pair(canaries(64), 256),
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
        row("pool pair, guarded, 256 bytes", small, None),
        row("pool pair, guarded, 5,000 bytes", large, None),
        row("pool pair, canaries", open, Some(Goal::AtMost(600.0))),
        row("pool pair, canaries, 1 in 64 guarded", sampled, None),
    ]
}
