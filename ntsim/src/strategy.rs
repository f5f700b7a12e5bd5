// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who runs next: the one place where the schedule is decided.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::explore::Schedule;
use crate::explore::schedule::Point;
use crate::explore::tape::{Recording, Segment, Steer, Step, Tape, Who};
use crate::kernel::ContextId;

/// How the scheduler chooses among contexts that could run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum Strategy {
    /// Each in turn, DPCs first. The seed plays no part.
    RoundRobin,
    /// Who runs goes on until it waits or ends; then a DPC, then the oldest that
    /// can run. Who is chosen a thousand times in a row is polling, and gives way.
    /// The seed plays no part.
    RunOn,
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
    /// As this schedule has it. A run in which another number of contexts could
    /// run at some point, or which goes on after the schedule's end, is stopped
    /// there as [diverged](crate::StopKind::Diverged).
    Replay(Arc<Schedule>),
}

/// Events in an order, and steps of a run, if `pct` is given without them.
const PCT: (u32, u32) = (3, 1_000);

/// Reads `round-robin`, `run-on`, `random`, `pct`, `pct:DEPTH`, `pct:DEPTH:STEPS`
/// or `replay:SCHEDULE`.
impl std::str::FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(schedule) = text.strip_prefix("replay:") {
            return match schedule.parse() {
                Ok(schedule) => Ok(Self::Replay(Arc::new(schedule))),
                Err(error) => Err(error.to_string()),
            };
        }
        let lower = text.to_lowercase();
        let mut parts = lower.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = parts.map(|part| part.parse().ok()).collect();
        match (name, numbers.as_deref()) {
            ("round-robin", Some([])) => Ok(Self::RoundRobin),
            ("run-on", Some([])) => Ok(Self::RunOn),
            ("random", Some([])) => Ok(Self::Random),
            ("pct", Some(numbers @ ([] | [1..=u32::MAX] | [1..=u32::MAX, 1..=u32::MAX]))) => {
                Ok(Self::Pct {
                    depth: numbers.first().copied().unwrap_or(PCT.0),
                    steps: numbers.get(1).copied().unwrap_or(PCT.1),
                })
            }
            _ => Err(
                "not a strategy; write random, round-robin, run-on, pct, pct:DEPTH or pct:DEPTH:STEPS, \
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
            Self::RunOn => f.write_str("run-on"),
            Self::Random => f.write_str("random"),
            Self::Pct { depth, steps } => write!(f, "pct:{depth}:{steps}"),
            Self::Replay(schedule) => write!(f, "replay:{schedule}"),
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
    /// The run is not the one of the schedule that is replayed.
    Diverged(Divergence),
}

/// Where a run differs from the schedule that it replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Divergence {
    /// The scheduling point, counted from 1.
    pub(crate) point: usize,
    /// How many the schedule has.
    pub(crate) of: usize,
    /// How many options it has here, if it has the point.
    pub(crate) expected: Option<u32>,
    pub(crate) found: u32,
}

/// Where a context is that is in no call: it has not begun, or it has ended.
pub(crate) const EDGE: &str = "(begin or end)";

/// The source of every random decision.
pub(crate) struct Scheduler {
    mode: Mode,
    rng: ChaCha8Rng,
    last: Option<ContextId>,
    pct: Pct,
    /// Who runs, to tell a preemption.
    running: Option<ContextId>,
    /// How often in a row it was chosen while others could have run.
    runs_on: u32,
    /// The call that the one who ran is in, for the coverage.
    pub(crate) at: &'static str,
    record: Option<(Tape, Recording)>,
}

/// Who decides.
enum Mode {
    Strategy(Strategy),
    Replay {
        schedule: Arc<Schedule>,
        next: usize,
        /// Whether it is an error if the run goes on after it.
        whole: bool,
    },
    Plan {
        segments: Arc<[Segment]>,
        next: usize,
        /// Of the segment before `next`.
        left: u64,
    },
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
    pub(crate) fn new(strategy: Strategy, seed: u64, tape: Option<&Tape>) -> Self {
        let (steer, record) = match tape {
            Some(tape) => {
                let (steer, recording) = tape.begin();
                (steer, Some((tape.clone(), recording)))
            }
            None => (Steer::Strategy, None),
        };
        let replay = |schedule, whole| Mode::Replay {
            schedule,
            next: 0,
            whole,
        };
        let mode = match (steer, strategy) {
            (Steer::Prefix(schedule), _) => replay(schedule, false),
            (Steer::Plan(segments), _) => Mode::Plan {
                segments,
                next: 0,
                left: 0,
            },
            (Steer::Strategy, Strategy::Replay(schedule)) => replay(schedule, true),
            (Steer::Strategy, strategy) => Mode::Strategy(strategy),
        };
        let mut scheduler = Self {
            mode,
            rng: ChaCha8Rng::seed_from_u64(seed),
            last: None,
            pct: Pct::default(),
            running: None,
            runs_on: 0,
            at: EDGE,
            record,
        };
        if let Mode::Strategy(Strategy::Pct { depth, steps }) = scheduler.mode {
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
    #[inline]
    pub(crate) fn choose(&mut self, ready: &[ContextId], dpc_can_start: bool) -> Choice {
        let options = ready.len() + usize::from(dpc_can_start);
        if options == 0 {
            return Choice::Nothing;
        }
        let plain = matches!(
            self.mode,
            Mode::Strategy(Strategy::RoundRobin | Strategy::Random | Strategy::Pct { .. })
        );
        if plain && self.record.is_none() {
            return self.by_strategy(ready, dpc_can_start);
        }
        self.watched(ready, dpc_can_start)
    }

    /// Chooses where it matters who ran before, or that the choice is written down.
    fn watched(&mut self, ready: &[ContextId], dpc_can_start: bool) -> Choice {
        let options = ready.len() + usize::from(dpc_can_start);
        let (default, free) = self.default(ready, dpc_can_start);
        let index = match &mut self.mode {
            Mode::Strategy(Strategy::RunOn | Strategy::Replay(_)) => default,
            Mode::Strategy(_) => match self.by_strategy(ready, dpc_can_start) {
                Choice::Context(id) => (ready.binary_search(&id))
                    .expect("a strategy chooses among those that are ready, which are in order"),
                _ => ready.len(),
            },
            Mode::Replay { .. } if options == 1 => 0,
            Mode::Replay {
                schedule,
                next,
                whole,
            } => {
                let point = schedule.points().get(*next).copied();
                *next += 1;
                match point {
                    Some(Point {
                        options: same,
                        chosen,
                    }) if same as usize == options => {
                        chosen.map_or(default, |chosen| chosen as usize)
                    }
                    None if !*whole => default,
                    other => {
                        return Choice::Diverged(Divergence {
                            point: *next,
                            of: schedule.len(),
                            expected: other.map(|point| point.options),
                            found: number(options),
                        });
                    }
                }
            }
            Mode::Plan {
                segments,
                next,
                left,
            } => planned(segments, next, left, ready, dpc_can_start).unwrap_or(default),
        };
        let choice = (ready.get(index)).map_or(Choice::Dpc, |id| Choice::Context(*id));
        let (who, runs) = match choice {
            Choice::Context(id) => (Who::Context(id), Some(id)),
            _ => (Who::Dpc, None),
        };
        self.runs_on = match runs {
            Some(_) if runs == self.running && options > 1 => self.runs_on + 1,
            Some(_) if runs == self.running => self.runs_on,
            _ => 0,
        };
        self.running = runs;
        if let Some((_, recording)) = &mut self.record {
            if options > 1 {
                recording.coverage.add(self.at, number(options));
            }
            recording.steps.push(Step {
                who,
                options: number(options),
                chosen: number(index),
                default: number(default),
                free,
            });
        }
        choice
    }

    /// The choice that is no preemption, and whether there are others.
    fn default(&self, ready: &[ContextId], dpc_can_start: bool) -> (usize, bool) {
        let at = self.running.and_then(|id| ready.binary_search(&id).ok());
        match at {
            Some(at) if self.runs_on < Pct::POLLS => (at, false),
            // Whoever comes behind it, for it polls; the DPC is the last.
            Some(at) => ((at + 1) % (ready.len() + usize::from(dpc_can_start)), true),
            None if dpc_can_start => (ready.len(), true),
            None => (0, true),
        }
    }

    /// The DPC that was chosen runs as this context.
    pub(crate) fn started(&mut self, id: ContextId) {
        self.running = Some(id);
    }

    /// Who ran last, if that is recorded.
    #[inline]
    pub(crate) fn recorded(&self) -> Option<ContextId> {
        self.running.filter(|_| self.record.is_some())
    }

    fn by_strategy(&mut self, ready: &[ContextId], dpc_can_start: bool) -> Choice {
        let options = ready.len() + usize::from(dpc_can_start);
        let Mode::Strategy(strategy) = &self.mode else {
            unreachable!("who replays asks no strategy");
        };
        match strategy {
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
            Strategy::RunOn | Strategy::Replay(_) => unreachable!("chosen by index"),
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
                Choice::Nothing | Choice::Diverged(_) => {}
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

impl Drop for Scheduler {
    fn drop(&mut self) {
        if let Some((tape, recording)) = self.record.take() {
            tape.give_back(recording);
        }
    }
}

/// The next of the plan who can run, as an index.
fn planned(
    segments: &[Segment],
    next: &mut usize,
    left: &mut u64,
    ready: &[ContextId],
    dpc_can_start: bool,
) -> Option<usize> {
    loop {
        let segment = segments.get(next.wrapping_sub(1)).filter(|_| *left > 0);
        let index = segment.and_then(|segment| match segment.who {
            Who::Context(id) => ready.binary_search(&id).ok(),
            Who::Dpc => dpc_can_start.then_some(ready.len()),
        });
        if index.is_some() {
            *left -= 1;
            return index;
        }
        *left = segments.get(*next)?.steps;
        *next += 1;
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a machine has memory for fewer contexts than that")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(strategy: Strategy, seed: u64) -> Vec<Choice> {
        let mut scheduler = Scheduler::new(strategy, seed, None);
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
        for strategy in [
            Strategy::RoundRobin,
            Strategy::RunOn,
            Strategy::Random,
            pct(2),
            Strategy::Replay(Arc::default()),
        ] {
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
            "replay:",
            "replay:nts1-A",
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
        let mut scheduler = Scheduler::new(pct(1), 0, None);
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

    /// Plays three contexts, the first of which cannot run every fourth time.
    fn play(strategy: Strategy, seed: u64, tape: &Tape) -> Vec<Choice> {
        let mut scheduler = Scheduler::new(strategy, seed, Some(tape));
        let ready = [1, 2, 3].map(ContextId);
        (0..20)
            .map(|n| scheduler.choose(&ready[usize::from(n % 4 == 3)..], n % 7 == 0))
            .collect()
    }

    #[test]
    fn a_recorded_schedule_replays_the_same_choices() {
        let tape = Tape::new();
        for seed in 0..50 {
            for strategy in [
                Strategy::Random,
                pct(3),
                Strategy::RoundRobin,
                Strategy::RunOn,
            ] {
                let choices = play(strategy, seed, &tape);
                let schedule: Schedule = tape.schedule().to_string().parse().unwrap();
                let replay = Strategy::Replay(Arc::new(schedule));
                assert_eq!(play(replay, 99, &tape), choices);
            }
        }
    }

    #[test]
    fn a_replay_says_where_the_options_are_others() {
        let tape = Tape::new();
        play(Strategy::Random, 7, &tape);
        let whole = tape.schedule();
        let replay = |points: Vec<Point>| {
            let schedule = Arc::new(Schedule::from_points(points));
            *play(Strategy::Replay(schedule), 0, &tape).last().unwrap()
        };
        let mut other = whole.points().to_vec();
        other.truncate(19);
        assert_eq!(
            replay(other.clone()),
            Choice::Diverged(Divergence {
                point: 20,
                of: 19,
                expected: None,
                found: 2
            })
        );
        other.push(Point {
            options: 4,
            chosen: None,
        });
        assert_eq!(
            replay(other),
            Choice::Diverged(Divergence {
                point: 20,
                of: 20,
                expected: Some(4),
                found: 2
            })
        );
    }

    #[test]
    fn who_runs_on_is_only_replaced_when_it_cannot_or_polls() {
        let tape = Tape::new();
        let mut scheduler = Scheduler::new(Strategy::RunOn, 0, Some(&tape));
        let [first, second] = [1, 2].map(ContextId);
        let both = [first, second];
        assert_eq!(scheduler.choose(&both, false), Choice::Context(first));
        assert_eq!(scheduler.choose(&[second], false), Choice::Context(second));
        assert_eq!(scheduler.choose(&both, true), Choice::Context(second));
        assert_eq!(scheduler.choose(&[first], true), Choice::Dpc);
        scheduler.started(ContextId(3));
        let all = [1, 2, 3].map(ContextId);
        for _ in 0..Pct::POLLS {
            assert_eq!(scheduler.choose(&all, false), Choice::Context(ContextId(3)));
        }
        assert_eq!(scheduler.choose(&all, false), Choice::Context(first));
        let preemptions = |steps: &[Step]| steps.iter().filter(|step| step.preempts()).count();
        drop(scheduler);
        assert_eq!(tape.with(|recording| preemptions(&recording.steps)), 0);
        play(Strategy::RoundRobin, 0, &tape);
        assert!(tape.with(|recording| preemptions(&recording.steps)) > 10);
    }

    #[test]
    fn a_plan_is_followed_as_far_as_it_can_be() {
        let tape = Tape::new();
        let run = |id, steps| Segment {
            who: Who::Context(ContextId(id)),
            steps,
        };
        let dpc = Segment {
            who: Who::Dpc,
            steps: 1,
        };
        tape.steer(Steer::Plan(
            [run(3, 2), run(9, 5), dpc, run(1, 3), run(2, 1)].into(),
        ));
        let mut scheduler = Scheduler::new(Strategy::Random, 0, Some(&tape));
        let ready = [1, 2, 3].map(ContextId);
        let mut chosen: Vec<_> = (0..3).map(|_| scheduler.choose(&ready, true)).collect();
        chosen.push(scheduler.choose(&ready, false));
        chosen.push(scheduler.choose(&ready[1..], false));
        chosen.push(scheduler.choose(&ready, false));
        let contexts = [3, 3, 0, 1, 2, 2].map(|id| match id {
            0 => Choice::Dpc,
            id => Choice::Context(ContextId(id)),
        });
        assert_eq!(chosen, contexts);
    }
}
