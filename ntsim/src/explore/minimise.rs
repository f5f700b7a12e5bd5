// SPDX-License-Identifier: MIT OR Apache-2.0

//! The smallest schedule that fails in the same way.
//!
//! # Vocabulary
//! - *segment*: the steps that one context runs without another in between.
//! - *merge*: who is preempted at the end of a segment goes on with its next one at
//!   once (*sooner*), or does not run before that (*later*), so that the preemption is gone.
//!
//! ```text
//!   failing:   A A A│B B│A A│C│B│C C     4 preemptions (│ where the one before could go on)
//!   sooner:    A A A A A│B B│C│B│C C     the first merged
//!   later:     A A A A A│B B│B│C C C     the last merged, and it still fails
//! ```
//!
//! First it is [delta debugging][dd] over the preemptions: half of them are merged
//! away, a quarter, and so on to single ones, and what still fails is kept. The steps
//! of a merged schedule need not fit any more (somebody waits where it did not); it is
//! followed as far as it can be ([`Steer::Plan`]) and what has happened is recorded.
//!
//! Then all schedules with fewer preemptions than are left are played, the fewest
//! first, if they are few enough: delta debugging ends at a schedule of which no
//! preemption can be taken away, which need not be the smallest.
//!
//! [dd]: https://www.st.cs.uni-saarland.de/papers/tse2002/

use std::sync::Arc;

use super::exhaustive::Exhaustive;
use super::failure::{Failure, Quiet, Signature};
use super::schedule::Schedule;
use super::shard::Shard;
use super::stage::Stage;
use super::tape::{Segment, Steer, Step, Who};

/// The most schedules that are played to make one smaller.
const MOST: u64 = 3_000;
/// Of these, for all schedules with fewer preemptions.
const MOST_BELOW: u64 = 1_500;
/// The steps that these may have together: of long schedules fewer are played.
const STEPS_BELOW: u64 = 300_000;

/// A schedule that could not be made smaller.
pub(crate) struct Minimised {
    pub(crate) schedule: Schedule,
    pub(crate) preemptions: u64,
    /// How many were played for it.
    pub(crate) played: u64,
}

pub(crate) fn preemptions(steps: &[Step]) -> u64 {
    steps.iter().filter(|step| step.preempts()).count() as u64
}

/// Makes the schedule smaller that was just played and failed.
pub(crate) fn minimise(stage: &mut Stage<'_>, signature: &Signature) -> Minimised {
    let _quiet = Quiet::new();
    let mut search = Search {
        best: stage.steps(<[Step]>::to_vec),
        stage,
        signature,
        played: 0,
    };
    search.merge();
    search.below();
    Minimised {
        schedule: Schedule::of(&search.best),
        preemptions: preemptions(&search.best),
        played: search.played,
    }
}

struct Search<'a, 'b> {
    stage: &'a mut Stage<'b>,
    signature: &'a Signature,
    best: Vec<Step>,
    played: u64,
}

impl Search<'_, '_> {
    /// Whether this fails in the same way; if so and with fewer preemptions it is
    /// the best from now on.
    fn fails(&mut self, steer: Steer) -> bool {
        self.played += 1;
        let result = self.stage.steered(steer);
        let same = |failure: Failure| failure.signature() == *self.signature;
        if !result.is_err_and(same) {
            return false;
        }
        let size = |steps: &[Step]| (preemptions(steps), steps.len());
        let best = size(&self.best);
        let steps = self
            .stage
            .steps(|steps| (size(steps) < best).then(|| steps.to_vec()));
        match steps {
            Some(steps) => {
                self.best = steps;
                true
            }
            None => false,
        }
    }

    fn merge(&mut self) {
        let mut parts = 2;
        while self.played < MOST - MOST_BELOW {
            let segments = segments(&self.best);
            let preempted: Vec<usize> = (0..segments.len())
                .filter(|index| segments[*index].preempted)
                .collect();
            if preempted.is_empty() {
                return;
            }
            let size = preempted.len().div_ceil(parts);
            let smaller = preempted.chunks(size).any(|chunk| {
                [sooner, later].into_iter().any(|merge| {
                    self.played < MOST - MOST_BELOW
                        && self.fails(Steer::Plan(merge(&segments, chunk)))
                })
            });
            if smaller {
                // The same size again, on what is left.
                parts = (parts - 1).max(2);
            } else if size == 1 {
                return;
            } else {
                parts = (parts * 2).min(preempted.len());
            }
        }
    }

    /// Plays what has fewer preemptions.
    fn below(&mut self) {
        let Some(bound) = preemptions(&self.best).checked_sub(1) else {
            return;
        };
        let Ok(bound) = u32::try_from(bound) else {
            return;
        };
        let most = MOST_BELOW.min(STEPS_BELOW / (self.best.len() as u64).max(1));
        let mut all = Exhaustive::new(bound, most, Shard::default());
        for _ in 0..most {
            let Some((prefix, _)) = all.next() else {
                return;
            };
            if self.fails(Steer::Prefix(Arc::new(prefix))) {
                return;
            }
            self.stage.steps(|steps| all.played(steps));
        }
    }
}

struct Ran {
    segment: Segment,
    /// Whether it could have gone on at its end.
    preempted: bool,
}

/// The segments of a run.
fn segments(steps: &[Step]) -> Vec<Ran> {
    let mut segments: Vec<Ran> = Vec::new();
    for step in steps {
        match segments.last_mut() {
            Some(last) if last.segment.who == step.who && step.who != Who::Dpc => {
                last.segment.steps += 1;
            }
            last => {
                if let Some(last) = last {
                    last.preempted = step.preempts();
                }
                segments.push(Ran {
                    segment: Segment {
                        who: step.who,
                        steps: 1,
                    },
                    preempted: false,
                });
            }
        }
    }
    segments
}

type Plan = Vec<Option<Segment>>;

fn plan(segments: &[Ran]) -> Plan {
    segments.iter().map(|ran| Some(ran.segment)).collect()
}

/// The next segment of the same context.
fn next_of_same(plan: &Plan, at: usize) -> Option<usize> {
    let who = plan[at]?.who;
    (at + 1..plan.len()).find(|index| plan[*index].is_some_and(|other| other.who == who))
}

/// The plan without the preemptions at the ends of these segments: who is preempted
/// there goes on.
fn sooner(segments: &[Ran], ends: &[usize]) -> Arc<[Segment]> {
    let mut plan = plan(segments);
    // From the last on: what is merged into a segment has its own merges done.
    for &end in ends.iter().rev() {
        let more = match next_of_same(&plan, end) {
            Some(index) => plan[index].take().map_or(0, |other| other.steps),
            // It was never let go on: now it may, as far as it can.
            None => u64::MAX,
        };
        if let Some(segment) = &mut plan[end] {
            segment.steps = segment.steps.saturating_add(more);
        }
    }
    plan.into_iter().flatten().collect()
}

/// The same, where who is preempted there does not run before it would go on.
fn later(segments: &[Ran], ends: &[usize]) -> Arc<[Segment]> {
    let mut plan = plan(segments);
    for &end in ends {
        let next = next_of_same(&plan, end);
        let taken = plan[end].take();
        if let (Some(taken), Some(next)) = (taken, next.and_then(|next| plan[next].as_mut())) {
            next.steps = next.steps.saturating_add(taken.steps);
        }
    }
    plan.into_iter().flatten().collect()
}
