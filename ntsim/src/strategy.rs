// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who runs next: the one place where the schedule is decided.

use std::collections::{BTreeMap, VecDeque};

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
    /// Always the one with the highest priority, which is drawn when it first
    /// could run. At `depth - 1` of the next `steps` steps, drawn as well, the one
    /// that would run falls behind all others.
    ///
    /// Finds with a known probability, at least `1 / (n * steps^(depth - 1))` for
    /// `n` contexts, each bug that needs `depth` events in a certain order, where
    /// a random choice at each point rarely lets anybody get far ahead. See
    /// [Burckhardt and others, "A Randomized Scheduler with Probabilistic
    /// Guarantees of Finding Bugs"][pct].
    ///
    /// [pct]: https://www.microsoft.com/research/publication/a-randomized-scheduler-with-probabilistic-guarantees-of-finding-bugs/
    Pct {
        /// How many events have to come in an order, 1 or more.
        depth: u32,
        /// About how many steps a run takes.
        steps: u32,
    },
}

/// Events in an order, and steps of a run, if `pct` is given without them.
const PCT: (u32, u32) = (3, 1_000);

/// Reads `round-robin`, `random`, `pct`, `pct:DEPTH` or `pct:DEPTH:STEPS`.
impl std::str::FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_lowercase();
        let mut parts = lower.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = parts.map(|part| part.parse().ok()).collect();
        match (name, numbers.as_deref()) {
            ("round-robin", Some([])) => Ok(Self::RoundRobin),
            ("random", Some([])) => Ok(Self::Random),
            ("pct", Some(numbers @ ([] | [1..=u32::MAX] | [1..=u32::MAX, 1..=u32::MAX]))) => {
                Ok(Self::Pct {
                    depth: numbers.first().copied().unwrap_or(PCT.0),
                    steps: numbers.get(1).copied().unwrap_or(PCT.1),
                })
            }
            _ => Err(
                "not a strategy; write random, round-robin, pct, pct:DEPTH or pct:DEPTH:STEPS, \
                 with numbers from 1"
                    .to_owned(),
            ),
        }
    }
}

/// As it is read.
impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("round-robin"),
            Self::Random => f.write_str("random"),
            Self::Pct { depth, steps } => write!(f, "pct:{depth}:{steps}"),
        }
    }
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
    pct: Pct,
}

/// What [`Strategy::Pct`] remembers.
#[derive(Default)]
struct Pct {
    /// Of contexts that were ready once. Those that have fallen behind are
    /// below [`Pct::BEHIND`], the last to fall the lowest.
    priorities: BTreeMap<ContextId, u64>,
    /// The priority of the DPC at the head of the queue.
    dpc: Option<u64>,
    /// The steps at which somebody falls behind, in order.
    changes: VecDeque<u64>,
    step: u64,
    fallen: u64,
    /// How often in a row the same one was chosen.
    streak: u32,
}

impl Pct {
    const BEHIND: u64 = 1 << 63;
    /// Who was chosen so often in a row is polling for what another has to do,
    /// and falls behind.
    const POLLS: u32 = 1_000;
    /// Of how many contexts the priority is kept, most of which have ended.
    const KEPT: usize = 1_000;

    fn behind(&mut self) -> u64 {
        self.fallen += 1;
        Self::BEHIND - self.fallen
    }
}

impl Scheduler {
    pub(crate) fn new(strategy: Strategy, seed: u64) -> Self {
        let mut scheduler = Self {
            strategy,
            rng: ChaCha8Rng::seed_from_u64(seed),
            last: None,
            pct: Pct::default(),
        };
        if let Strategy::Pct { depth, steps } = strategy {
            let mut changes: Vec<_> = (1..depth)
                .map(|_| scheduler.below(steps.max(1) as usize) as u64 + 1)
                .collect();
            changes.sort_unstable();
            scheduler.pct.changes = changes.into();
        }
        scheduler
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
            Strategy::Pct { .. } => self.highest(ready, dpc_can_start),
        }
    }

    fn highest(&mut self, ready: &[ContextId], dpc_can_start: bool) -> Choice {
        if self.pct.priorities.len() > Pct::KEPT {
            self.pct.priorities.retain(|id, _| ready.contains(id));
        }
        for id in ready {
            if !self.pct.priorities.contains_key(id) {
                let priority = self.rng.next_u64() | Pct::BEHIND;
                self.pct.priorities.insert(*id, priority);
            }
        }
        if dpc_can_start && self.pct.dpc.is_none() {
            self.pct.dpc = Some(self.rng.next_u64() | Pct::BEHIND);
        }
        self.pct.step += 1;
        let mut falls = self.pct.streak >= Pct::POLLS;
        while self
            .pct
            .changes
            .front()
            .is_some_and(|step| *step <= self.pct.step)
        {
            self.pct.changes.pop_front();
            falls = true;
        }
        if falls {
            let priority = self.pct.behind();
            match self.first(ready, dpc_can_start) {
                Choice::Context(id) => _ = self.pct.priorities.insert(id, priority),
                Choice::Dpc => self.pct.dpc = Some(priority),
                Choice::Nothing => {}
            }
        }
        let choice = self.first(ready, dpc_can_start);
        let chosen = match choice {
            Choice::Context(id) => Some(id),
            _ => None,
        };
        self.pct.streak = if chosen.is_some() && chosen == self.last {
            self.pct.streak + 1
        } else {
            0
        };
        self.last = chosen;
        if choice == Choice::Dpc {
            self.pct.dpc = None;
        }
        choice
    }

    /// Whoever has the highest priority now.
    fn first(&self, ready: &[ContextId], dpc_can_start: bool) -> Choice {
        let contexts = ready
            .iter()
            .map(|id| (self.pct.priorities[id], Choice::Context(*id)));
        let dpc = (self.pct.dpc)
            .filter(|_| dpc_can_start)
            .map(|priority| (priority, Choice::Dpc));
        contexts
            .chain(dpc)
            .max_by_key(|(priority, _)| *priority)
            .map_or(Choice::Nothing, |(_, choice)| choice)
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
    fn a_strategy_is_read_as_it_is_written() {
        for strategy in [Strategy::RoundRobin, Strategy::Random, pct(2)] {
            assert_eq!(strategy.to_string().parse(), Ok(strategy));
        }
        assert_eq!(
            "PCT:4".parse(),
            Ok(Strategy::Pct {
                depth: 4,
                steps: 1_000
            })
        );
        for bad in [
            "",
            "rand",
            "random:1",
            "pct:",
            "pct:0",
            "pct:1:0",
            "pct:1:2:3",
            "pct:-1",
        ] {
            assert!(bad.parse::<Strategy>().is_err(), "{bad}");
        }
    }

    const fn pct(depth: u32) -> Strategy {
        Strategy::Pct { depth, steps: 20 }
    }

    #[test]
    fn pct_lets_one_run_until_a_change_point() {
        for seed in 0..50 {
            for depth in 1..4_u32 {
                let turns = walk(pct(depth), seed);
                let changes = turns.windows(2).filter(|pair| pair[0] != pair[1]).count();
                assert!(changes < depth as usize, "seed {seed}: {turns:?}");
            }
        }
        let changed = (0..50).filter(|seed| {
            walk(pct(2), *seed)
                .windows(2)
                .any(|pair| pair[0] != pair[1])
        });
        assert!(changed.count() > 40);
    }

    #[test]
    fn pct_starts_with_anybody_and_lets_nobody_poll_for_ever() {
        let first = |seed| walk(pct(1), seed)[0];
        assert!((0..50).any(|seed| first(seed) != first(0)));
        let mut scheduler = Scheduler::new(pct(1), 0);
        let ready = [ContextId(1), ContextId(2)];
        let ran: std::collections::HashSet<_> = (0..3_000)
            .map(|_| format!("{:?}", scheduler.choose(&ready, false)))
            .collect();
        assert_eq!(ran.len(), 2);
    }

    #[test]
    fn round_robin_gives_everybody_a_turn_before_anybody_two() {
        let turns = walk(Strategy::RoundRobin, 0);
        for round in turns.chunks_exact(3) {
            assert_eq!(round, [1, 2, 3].map(|id| Choice::Context(ContextId(id))));
        }
    }
}
