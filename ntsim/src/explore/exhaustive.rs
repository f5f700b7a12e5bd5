// SPDX-License-Identifier: MIT OR Apache-2.0

//! All schedules, those with the fewest preemptions first.
//!
//! A schedule is a *prefix* of choices, after which everybody runs on. Playing it
//! shows the scheduling points behind the prefix; at each of them, each option that
//! was not taken is a further schedule (a *branch*). So every schedule is played
//! once, and none is kept in memory but those whose branches wait to be played.
//!
//! ```text
//!   run on:    ●──●──●──●          branches of it:  ●─╮●──●──●   (at the first point)
//!                                                   ●──●─╮●──●   …
//! ```
//!
//! Small numbers of preemptions find most bugs and are few enough to be played
//! all: [Musuvathi and Qadeer, "Iterative Context Bounding for Systematic Testing of
//! Multithreaded Programs"][chess].
//!
//! [chess]: https://www.microsoft.com/en-us/research/publication/iterative-context-bounding-for-systematic-testing-of-multithreaded-programs/

use std::sync::Arc;

use super::schedule::{Point, Schedule};
use super::shard::Shard;
use super::tape::Step;

/// What is still to be played.
pub(crate) struct Exhaustive {
    /// By the number of preemptions.
    levels: Vec<Vec<Branch>>,
    /// The level that is played now.
    level: usize,
    /// How many branches may wait.
    room: u64,
    /// The lowest level of which a branch was left out for want of room.
    cut: Option<usize>,
    /// Whether there are schedules with more preemptions than the bound.
    beyond: bool,
    shard: Shard,
    /// Numbers the branches that the parts of a campaign share out.
    next_tree: u64,
    current: Current,
}

/// The schedule that was given out last.
struct Current {
    /// How many points it has before everybody runs on.
    prefix: usize,
    /// How many branches it is away from the first schedule.
    depth: u32,
    mine: bool,
}

struct Branch {
    base: Arc<[Point]>,
    at: usize,
    chosen: u32,
    depth: u32,
    /// Whether this part of the campaign plays it (and its branches) as its own.
    mine: bool,
}

/// What was played completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Complete {
    /// Every schedule that there is.
    Everything,
    /// Every schedule with at most so many preemptions.
    Preemptions(u32),
}

/// Branches so far from the first schedule are shared out; nearer ones are played by
/// all parts, since their branches have to be known, and counted by one.
const SHARED_FROM: u32 = 2;

impl Exhaustive {
    /// Up to that many preemptions; `room` bounds what waits to be played.
    pub(crate) fn new(preemptions: u32, room: u64, shard: Shard) -> Self {
        let first = Branch {
            base: Arc::new([]),
            at: 0,
            chosen: 0,
            depth: 0,
            mine: shard.has(0),
        };
        let mut levels: Vec<_> = (0..=preemptions).map(|_| Vec::new()).collect();
        levels[0].push(first);
        Self {
            levels,
            level: 0,
            room,
            cut: None,
            beyond: false,
            shard,
            next_tree: 1,
            current: Current {
                prefix: 0,
                depth: 0,
                mine: false,
            },
        }
    }

    /// The next schedule to play, as a prefix, and whether it is this part's own.
    pub(crate) fn next(&mut self) -> Option<(Schedule, bool)> {
        while self.levels[self.level].is_empty() {
            if self.level + 1 == self.levels.len() {
                return None;
            }
            self.level += 1;
        }
        let branch = self.levels[self.level].pop()?;
        self.room += 1;
        let mut points: Vec<Point> = branch.base[..branch.base.len().min(branch.at)].to_vec();
        if let Some(point) = branch.base.get(branch.at) {
            points.push(Point {
                chosen: Some(branch.chosen),
                ..*point
            });
        }
        self.current = Current {
            prefix: points.len(),
            depth: branch.depth,
            mine: branch.mine,
        };
        Some((Schedule::from_points(points), branch.mine))
    }

    /// The steps of the schedule that was given out: its branches.
    pub(crate) fn played(&mut self, steps: &[Step]) {
        let Current {
            prefix,
            depth,
            mine,
        } = self.current;
        let choices: Vec<&Step> = steps.iter().filter(|step| step.options > 1).collect();
        let base: Arc<[Point]> = choices.iter().map(|step| step.point()).collect();
        let before = choices.iter().take(prefix);
        let preemptions = before.filter(|step| step.preempts()).count();
        let depth = depth + 1;
        // The last come first from the stack: the earliest points.
        for (at, step) in choices.iter().enumerate().skip(prefix).rev() {
            let level = preemptions + usize::from(!step.free);
            for chosen in (0..step.options)
                .rev()
                .filter(|index| *index != step.chosen)
            {
                let mine = if depth > SHARED_FROM {
                    mine
                } else {
                    self.next_tree += 1;
                    self.shard.has(self.next_tree)
                };
                if depth >= SHARED_FROM && !mine {
                    continue;
                }
                if level >= self.levels.len() {
                    self.beyond = true;
                    continue;
                }
                if self.room == 0 {
                    self.cut = Some(self.cut.map_or(level, |cut| cut.min(level)));
                    continue;
                }
                self.room -= 1;
                self.levels[level].push(Branch {
                    base: base.clone(),
                    at,
                    chosen,
                    depth,
                    mine,
                });
            }
        }
    }

    /// What of it is complete now. With a part of a campaign, of that part.
    pub(crate) fn complete(&self) -> Option<Complete> {
        let empty = self.levels.iter().take_while(|level| level.is_empty());
        let done = empty.count().min(self.cut.unwrap_or(usize::MAX));
        if done == self.levels.len() && !self.beyond {
            return Some(Complete::Everything);
        }
        let preemptions = u32::try_from(done.checked_sub(1)?).ok()?;
        Some(Complete::Preemptions(preemptions))
    }
}
