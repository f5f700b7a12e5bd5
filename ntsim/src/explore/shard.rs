// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which seeds a campaign plays, and which part of them is played here.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The seeds `A..B` of a campaign: one schedule each, `B` not among them.
///
/// ```
/// let seeds: ntsim::explore::Seeds = "100..200".parse()?;
/// assert_eq!(seeds.range(), 100..200);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(Range<u64>);

impl Seeds {
    /// These. An end at or before the start is no seed at all.
    #[must_use]
    pub fn new(range: Range<u64>) -> Self {
        Self(range)
    }

    /// As a range.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.0.clone()
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, end) = text
            .split_once("..")
            .ok_or("not a range of seeds; write FIRST..END, such as 0..1000")?;
        let number = |what: &str, text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{what} {text:?} is no number from 0 to {}", u64::MAX))
        };
        let (start, end) = (number("the first seed", start)?, number("the end", end)?);
        if start >= end {
            return Err(format!(
                "there is no seed in {start}..{end}: the end is not among them"
            ));
        }
        Ok(Self(start..end))
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.start, self.0.end)
    }
}

/// One of several parts of a campaign, in the manner of
/// [cargo-nextest's partitions](https://nexte.st/docs/ci-features/partitioning/):
/// `count:1/4` is each fourth seed, `hash:1/4` those of a fourth that looks random
/// and does not change when seeds are added. `1/4` is `count:1/4`.
///
/// ```
/// use ntsim::explore::Shard;
///
/// let shard: Shard = "count:2/4".parse()?;
/// let mine: Vec<_> = (0..10).filter(|seed| shard.has(*seed)).collect();
/// assert_eq!(mine, [1, 5, 9]);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    by_hash: bool,
    /// From 0.
    index: u64,
    of: u64,
    /// A part of the part, for the processes of one machine.
    job: (u64, u64),
}

impl Default for Shard {
    /// Everything.
    fn default() -> Self {
        Self {
            by_hash: false,
            index: 0,
            of: 1,
            job: (0, 1),
        }
    }
}

impl Shard {
    /// The share of one of several processes in this part; jobs are counted from 0.
    ///
    /// # Panics
    /// If there are no jobs, or the job is none of them.
    #[must_use]
    pub fn job(self, job: u32, jobs: u32) -> Self {
        assert!(job < jobs, "job {job} of {jobs}: jobs are counted from 0");
        Self {
            job: (job.into(), jobs.into()),
            ..self
        }
    }

    /// Whether this number, a seed or another one that all parts agree on, belongs
    /// to the part.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        let number = if self.by_hash { mix(number) } else { number };
        number % self.of == self.index && number / self.of % self.job.1 == self.job.0
    }

    /// How many parts there are.
    #[must_use]
    pub fn of(&self) -> u64 {
        self.of
    }
}

/// The finalizer of `SplitMix64`, which is the same everywhere and for ever.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "not a part; write count:K/N, hash:K/N or K/N, such as count:1/4";
        let (by_hash, parts) = match text.split_once(':') {
            None => (false, text),
            Some(("count", parts)) => (false, parts),
            Some(("hash", parts)) => (true, parts),
            Some(_) => return Err(form.to_owned()),
        };
        let (index, of) = parts.split_once('/').ok_or(form)?;
        let (Ok(index), Ok(of)) = (index.parse::<u64>(), of.parse::<u64>()) else {
            return Err(form.to_owned());
        };
        if of == 0 || !(1..=of).contains(&index) {
            return Err(format!(
                "there is no part {index} of {of}: parts are counted from 1"
            ));
        }
        Ok(Self {
            by_hash,
            index: index - 1,
            of,
            ..Self::default()
        })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.by_hash { "hash" } else { "count" };
        write!(f, "{way}:{}/{}", self.index + 1, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_campaign_are_the_whole_and_have_nothing_in_common() {
        for way in ["count", "hash"] {
            for parts in [1_u64, 2, 3, 7] {
                for jobs in [1, 2, 5] {
                    let shards: Vec<Shard> = (1..=parts)
                        .map(|index| format!("{way}:{index}/{parts}").parse().unwrap())
                        .flat_map(|shard: Shard| (0..jobs).map(move |job| shard.job(job, jobs)))
                        .collect();
                    let mut counts = vec![0; shards.len()];
                    for seed in 0..2_000 {
                        let mut owners = shards.iter().enumerate().filter(|(_, s)| s.has(seed));
                        counts[owners.next().unwrap().0] += 1;
                        assert!(owners.next().is_none(), "{way} {parts} {jobs}: {seed}");
                    }
                    let fair = 2_000 / shards.len();
                    assert!(
                        counts
                            .iter()
                            .all(|count| (fair * 2 / 3..=fair * 4 / 3 + 1).contains(count)),
                        "{counts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_part_and_no_range_is_told() {
        for bad in [
            "",
            "1",
            "1/",
            "/2",
            "0/2",
            "3/2",
            "1/0",
            "-1/2",
            "count:",
            "slice:1/2",
            "hash:1",
        ] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
        for bad in [
            "", "5", "..", "1..", "..3", "3..3", "4..3", "a..b", "0..-1", "0..=3",
        ] {
            assert!(bad.parse::<Seeds>().is_err(), "{bad}");
        }
        assert_eq!("hash:2/3".parse::<Shard>().unwrap().to_string(), "hash:2/3");
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "count:2/3");
        assert_eq!("7..9".parse::<Seeds>().unwrap().to_string(), "7..9");
    }
}
