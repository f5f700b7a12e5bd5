// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which schedules a campaign plays.

use std::fmt;
use std::str::FromStr;

use crate::strategy::Strategy;

/// How a campaign comes by its schedules.
///
/// | | finds | seed |
/// |---|---|---|
/// | [`Portfolio`](Self::Portfolio) | a bit of everything | decides strategy and schedule |
/// | [`RoundRobin`](Self::RoundRobin) | what happens always | none: one schedule |
/// | [`Random`](Self::Random) | races with a wide window | decides the schedule |
/// | [`Pct`](Self::Pct) | races of a known depth, with a known probability | decides the schedule |
/// | [`Exhaustive`](Self::Exhaustive) | everything up to a number of preemptions | none: all schedules |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Search {
    /// The first schedule in turn, then half of them random, and half by PCT with
    /// depth 2 and 3.
    #[default]
    Portfolio,
    /// [`Strategy::RoundRobin`], once.
    RoundRobin,
    /// [`Strategy::Random`].
    Random,
    /// [`Strategy::Pct`]; its steps are those of the first run.
    Pct {
        /// How many events have to come in an order, 1 or more.
        depth: u32,
    },
    /// All schedules with at most so many preemptions, the fewest first. A
    /// *preemption* is a switch away from somebody who could have gone on.
    Exhaustive {
        /// The bound.
        preemptions: u32,
    },
}

impl Search {
    /// What the schedule of this seed is played with, in runs of about `steps` steps.
    pub(crate) fn strategy(self, seed: u64, steps: u32) -> Strategy {
        let pct = |depth| Strategy::Pct { depth, steps };
        match self {
            Self::Portfolio => match seed % 4 {
                _ if seed == 0 => Strategy::RoundRobin,
                1 | 3 => Strategy::Random,
                2 => pct(2),
                _ => pct(3),
            },
            Self::RoundRobin => Strategy::RoundRobin,
            Self::Random => Strategy::Random,
            Self::Pct { depth } => pct(depth),
            Self::Exhaustive { .. } => Strategy::RunOn,
        }
    }
}

/// Preemptions or depth if a search is named without.
const BOUND: u32 = 2;

/// Reads `portfolio`, `round-robin`, `random`, `pct[:DEPTH]` or `exhaustive[:PREEMPTIONS]`.
impl FromStr for Search {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_lowercase();
        let (name, number) = match lower.split_once(':') {
            Some((name, number)) => (name, Some(number.parse::<u32>().ok())),
            None => (lower.as_str(), None),
        };
        match (name, number) {
            ("portfolio", None) => Ok(Self::Portfolio),
            ("round-robin", None) => Ok(Self::RoundRobin),
            ("random", None) => Ok(Self::Random),
            ("pct", None) => Ok(Self::Pct { depth: BOUND }),
            ("pct", Some(Some(depth @ 1..))) => Ok(Self::Pct { depth }),
            ("exhaustive", None) => Ok(Self::Exhaustive { preemptions: BOUND }),
            ("exhaustive", Some(Some(preemptions))) => Ok(Self::Exhaustive { preemptions }),
            _ => Err(
                "not a search; write portfolio, round-robin, random, pct:DEPTH with a depth \
                 from 1, or exhaustive:PREEMPTIONS"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Portfolio => f.write_str("portfolio"),
            Self::RoundRobin => f.write_str("round-robin"),
            Self::Random => f.write_str("random"),
            Self::Pct { depth } => write!(f, "pct:{depth}"),
            Self::Exhaustive { preemptions } => write!(f, "exhaustive:{preemptions}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_read_as_it_is_written() {
        for search in [
            Search::Portfolio,
            Search::RoundRobin,
            Search::Random,
            Search::Pct { depth: 7 },
            Search::Exhaustive { preemptions: 0 },
        ] {
            assert_eq!(search.to_string().parse(), Ok(search));
        }
        for bad in [
            "",
            "pct:0",
            "pct:",
            "pct:x",
            "random:1",
            "exhaustive:-1",
            "all",
            "pct:1:2",
        ] {
            assert!(bad.parse::<Search>().is_err(), "{bad}");
        }
    }
}
