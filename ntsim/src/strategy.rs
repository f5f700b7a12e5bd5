// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who runs next: the one place where the schedule is decided.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::kernel::ContextId;

/// How the scheduler chooses among contexts that could run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Strategy {
    /// Each in turn, DPCs first. The seed plays no part.
    RoundRobin,
    /// Any of them with equal probability, at every preemption point.
    #[default]
    Random,
}

/// The scheduler's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Context(ContextId),
    /// Start the DPC at the head of the queue.
    Dpc,
    Nothing,
}

/// The source of every random decision.
pub(crate) struct Scheduler {
    strategy: Strategy,
    rng: ChaCha8Rng,
    last: Option<ContextId>,
}

impl Scheduler {
    pub(crate) fn new(strategy: Strategy, seed: u64) -> Self {
        Self {
            strategy,
            rng: ChaCha8Rng::seed_from_u64(seed),
            last: None,
        }
    }

    /// Chooses among `ready` (in order of creation) and, if it can start, the
    /// next DPC.
    pub(crate) fn choose(&mut self, ready: &[ContextId], dpc_can_start: bool) -> Choice {
        let options = ready.len() + usize::from(dpc_can_start);
        if options == 0 {
            return Choice::Nothing;
        }
        match self.strategy {
            Strategy::RoundRobin => {
                if dpc_can_start {
                    return Choice::Dpc;
                }
                let next = ready
                    .iter()
                    .copied()
                    .find(|id| self.last.is_none_or(|last| *id > last))
                    .unwrap_or(ready[0]);
                self.last = Some(next);
                Choice::Context(next)
            }
            Strategy::Random => {
                let index = if options == 1 { 0 } else { self.below(options) };
                ready
                    .get(index)
                    .map_or(Choice::Dpc, |id| Choice::Context(*id))
            }
        }
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Multiply-shift: the bias is below 2^-32 for the bounds that occur.
        let wide = u128::from(self.rng.next_u64()) * bound as u128;
        usize::try_from(wide >> 64).expect("the product's upper half is below the bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(strategy: Strategy, seed: u64) -> Vec<Choice> {
        let mut scheduler = Scheduler::new(strategy, seed);
        let ready = [ContextId(1), ContextId(2), ContextId(3)];
        (0..20).map(|_| scheduler.choose(&ready, false)).collect()
    }

    #[test]
    fn one_seed_gives_one_schedule_and_another_seed_another() {
        assert_eq!(walk(Strategy::Random, 1), walk(Strategy::Random, 1));
        assert_ne!(walk(Strategy::Random, 1), walk(Strategy::Random, 2));
    }

    #[test]
    fn round_robin_gives_everybody_a_turn_before_anybody_two() {
        let turns = walk(Strategy::RoundRobin, 0);
        for round in turns.chunks_exact(3) {
            assert_eq!(round, [1, 2, 3].map(|id| Choice::Context(ContextId(id))));
        }
    }
}
