// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random operations under explored schedules, and what fails, shrunk.
//!
//! `DMF_SCHEDULES` sets how many cases are played, and `DMF_SEED` decides them
//! all. A run without it takes a seed of its own, and prints it.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use dmf::sync::SpinLock;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Who runs when in one case.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub strategy: ntsim::Strategy,
    pub seed: u64,
}

/// Half of the cases choose at random, half by PCT with depth 1 to 4.
pub fn schedules(steps: u32) -> impl Strategy<Value = Schedule> {
    let strategy = prop_oneof![
        Just(ntsim::Strategy::Random),
        (1..=4_u32).prop_map(move |depth| ntsim::Strategy::Pct { depth, steps }),
    ];
    // The seed is not shrunk: a smaller one is another schedule, not a simpler.
    (strategy, any::<u64>().no_shrink()).prop_map(|(strategy, seed)| Schedule { strategy, seed })
}

/// Runs `action` with a spin lock held.
pub fn at_dispatch<R: Send>(action: impl FnOnce() -> R + Send) -> R {
    static LOCK: SpinLock<()> = SpinLock::new(());
    LOCK.with(|()| action())
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} = {value} is not a number")),
    )
}

/// Plays `test` on that many cases, and panics with the smallest that fails.
pub fn explore<T: Debug>(
    cases: u32,
    strategy: impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), String>,
) {
    let cases = number("DMF_SCHEDULES").map_or(cases, |cases| cases.try_into().unwrap());
    let seed = number("DMF_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() ^ u64::from(now.subsec_nanos()) << 24
    });
    println!("{cases} cases: DMF_SCHEDULES={cases} DMF_SEED={seed} plays them again");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let result = TestRunner::new_with_rng(config, rng)
        .run(&strategy, |case| test(case).map_err(TestCaseError::fail));
    if let Err(failure) = result {
        panic!("DMF_SEED={seed}: {failure}");
    }
}
