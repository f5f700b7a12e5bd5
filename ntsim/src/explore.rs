// SPDX-License-Identifier: MIT OR Apache-2.0

//! Playing one scenario under many schedules, and making the one that fails small.
//!
//! For a test that is to hold whatever runs when; for one schedule, give a
//! [`Machine`] a seed instead. `ntsim explore` is this for an image.
//!
//! # Vocabulary
//! - *scenario*: a closure that makes a machine from the [`Settings`] it gets, plays
//!   something on it, and returns what failed. What it does depends on nothing else.
//! - *scheduling point*: a moment at which more than one context could run: at the
//!   entry of a driver's call, where one waits or ends, when one is woken.
//! - *choice*: who runs on at a scheduling point. The *default* is who ran; if that
//!   one cannot, a queued DPC; else the oldest that can. (Who was chosen a thousand
//!   times in a row is polling, and the next one is the default.)
//! - *preemption*: a choice against somebody who could have gone on. What is found
//!   with few of them is easy to understand.
//! - *schedule*: the choices of a run ([`Schedule`]), which replay it.
//! - *campaign*: the schedules that an [`Explorer`] plays. A seed stands for each,
//!   so that a campaign can be shared out ([`Shard`]).
//!
//! ```text
//!   seed ──► strategy ──► choices ──► run ──► fine: the next seed
//!                            │         │
//!                         recorded     └► fails ──► again, twice: the same?
//!                            │                      smaller: fewer preemptions
//!                            └────────────────────► replayed in full: the report
//! ```
//!
//! # A test
//! ```should_panic
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use ntsim::Machine;
//! use ntsim::explore::Explorer;
//! # unsafe extern "C-unwind" { safe fn KeGetCurrentIrql() -> u8; }
//!
//! // Two threads add one to a number, each with a kernel call between read and write.
//! Explorer::new().schedules(100).check(|settings| {
//!     let mut machine = Machine::new(settings);
//!     let number = Rc::new(Cell::new(0));
//!     let threads = [0, 1].map(|_| {
//!         let number = number.clone();
//!         machine.spawn_thread("adder", move || {
//!             let read = number.get();
//!             KeGetCurrentIrql();
//!             number.set(read + 1);
//!         })
//!     });
//!     for thread in threads {
//!         machine.join(thread)?;
//!     }
//!     assert_eq!(number.get(), 2); // fails, with one preemption
//!     Ok(())
//! });
//! ```
//! The report ends with the line that plays the schedule again:
//! `NTSIM_SCHEDULE=nts1-… cargo test NAME`.
//!
//! | variable | what [`Explorer::check`] makes of it |
//! |---|---|
//! | `NTSIM_SCHEDULE` | plays this schedule and no other |
//! | `NTSIM_SCHEDULES` | plays so many |
//! | `NTSIM_SEEDS` | plays these seeds, `A..B` |
//! | `NTSIM_SHARD` | plays a part of them, `count:K/N` or `hash:K/N` |
//!
//! # A campaign on many machines
//! Tests are shared out by cargo-nextest (`cargo nextest run --partition hash:1/4`);
//! the schedules of each test by `NTSIM_SHARD=count:1/4`, or by giving each machine
//! seeds of its own, `NTSIM_SEEDS=0..100000`. A part plays nothing that another one
//! plays, and which are its own depends on the seeds alone. `ntsim explore` has
//! `--shard` and `--seeds`, and `--jobs` for the cores of one machine.
//!
//! One process plays one schedule at a time. A machine on each of several
//! operating-system threads is sound if the driver is an image, of which each machine
//! has a copy; a driver that is linked in has its statics once, and what a simulated
//! lock protects there is not protected against another machine. So cores are used by
//! processes: cargo-nextest runs each test in one, `ntsim explore --jobs` starts them.
//!
//! # What is noticed besides bug checks
//! Deadlocks, lost wake-ups and livelocks, as [`StopKind`](crate::StopKind) has them; runs without
//! end in steps, virtual or processor time ([`Settings`]); assertions of the scenario;
//! and a scenario that does not do the same when it is played twice
//! ([`Failure::NotDeterministic`]).

mod exhaustive;
mod failure;
mod minimise;
pub(crate) mod schedule;
mod search;
mod shard;
mod stage;
pub(crate) mod tape;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use exhaustive::Complete;
pub use failure::{Difference, Failure};
pub use schedule::{Schedule, ScheduleError};
pub use search::Search;
pub use shard::{Seeds, Shard};
pub use tape::{Coverage, Tape};

use crate::kernel::Settings;
use crate::machine::{Error, Machine};
use crate::strategy::Strategy;
use exhaustive::Exhaustive;
use stage::{Fresh, Kept, Scenario, Stage};
use tape::Steer;

/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);
/// Steps of a run that was not measured.
const STEPS: u32 = 1_000;
/// How many schedules of an exhaustive search may wait to be played, for their memory.
const MOST_WAITING: u64 = 1_000_000;
/// Calls without virtual time passing that are a livelock, unless the settings say
/// otherwise: fewer than for one run, because what polls is played many times.
const LIVELOCK: u64 = 50_000;
/// Schedules of a campaign that nobody gave a number.
const SCHEDULES: u64 = 1_000;

/// Plays a scenario under many schedules. See the [module](self).
#[derive(Clone, Debug)]
pub struct Explorer {
    search: Search,
    seeds: Seeds,
    shard: Shard,
    time_limit: Option<Duration>,
    settings: Settings,
    /// What the line that replays a schedule begins with.
    replay: Option<String>,
}

impl Default for Explorer {
    fn default() -> Self {
        Self {
            search: Search::default(),
            seeds: Seeds::new(0..SCHEDULES),
            shard: Shard::default(),
            time_limit: None,
            settings: Settings {
                livelock_limit: LIVELOCK,
                ..Settings::default()
            },
            replay: None,
        }
    }
}

impl Explorer {
    /// A thousand schedules of the [portfolio](Search::Portfolio).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How the schedules come about.
    #[must_use]
    pub fn search(self, search: Search) -> Self {
        Self { search, ..self }
    }

    /// Plays so many: the seeds from 0 on.
    #[must_use]
    pub fn schedules(self, schedules: u64) -> Self {
        self.seeds(Seeds::new(0..schedules))
    }

    /// Plays the schedules of these seeds. [`Search::Exhaustive`] has no seeds, but
    /// plays as many schedules.
    #[must_use]
    pub fn seeds(self, seeds: Seeds) -> Self {
        Self { seeds, ..self }
    }

    /// Plays a part of them.
    #[must_use]
    pub fn shard(self, shard: Shard) -> Self {
        Self { shard, ..self }
    }

    /// Ends the campaign after that much time of the clock, whatever is left.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        Self {
            time_limit: Some(limit),
            ..self
        }
    }

    /// The settings that the scenario gets; seed, strategy and tape are the explorer's.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// What a report gives to replay a schedule begins with: a command to which the
    /// schedule is the last word. Without it, it is what [`check`](Self::check) reads.
    #[must_use]
    pub fn replay_command(self, command: impl Into<String>) -> Self {
        Self {
            replay: Some(command.into()),
            ..self
        }
    }

    fn replay_line(&self, schedule: &Schedule) -> String {
        match &self.replay {
            Some(command) => format!("{command} {schedule}"),
            None => test_line(schedule),
        }
    }

    /// Plays the campaign until a schedule fails. Each is played on a machine that
    /// `scenario` makes from the settings.
    pub fn run(&self, scenario: impl FnMut(Settings) -> Result<(), Error>) -> Campaign {
        self.run_observed(scenario, &mut |_| {})
    }

    /// The same, and tells how it is going.
    pub fn run_observed(
        &self,
        scenario: impl FnMut(Settings) -> Result<(), Error>,
        tell: &mut dyn FnMut(&Progress),
    ) -> Campaign {
        self.play(&mut Fresh(scenario), tell)
    }

    /// Plays the campaign on one machine, made once by `make`, which is faster where
    /// making it takes longer than a schedule. The scenario leaves the machine as it
    /// found it; if it does not, the schedule that failed fails on no other machine,
    /// and is reported as [not deterministic](Failure::NotDeterministic).
    pub fn run_on(
        &self,
        make: impl FnMut(Settings) -> Result<Machine, Error>,
        scenario: impl FnMut(&mut Machine) -> Result<(), Error>,
    ) -> Campaign {
        let mut kept = Kept {
            make,
            scenario,
            machine: None,
        };
        self.play(&mut kept, &mut |_| {})
    }

    /// Plays the campaign as the environment has it ([module](self#a-test)), and
    /// panics with the report of a schedule that fails.
    ///
    /// # Panics
    /// If a schedule fails, or a variable cannot be read.
    #[track_caller]
    pub fn check(&self, scenario: impl FnMut(Settings) -> Result<(), Error>) {
        let mut scenario = scenario;
        if let Some(schedule) = variable::<Schedule>("NTSIM_SCHEDULE") {
            if let Err(failure) = self.replay(&schedule, &mut scenario) {
                panic!("{failure}");
            }
            return;
        }
        let mut explorer = self.clone();
        if let Some(schedules) = variable("NTSIM_SCHEDULES") {
            explorer = explorer.schedules(schedules);
        }
        if let Some(seeds) = variable("NTSIM_SEEDS") {
            explorer = explorer.seeds(seeds);
        }
        if let Some(shard) = variable("NTSIM_SHARD") {
            explorer = explorer.shard(shard);
        }
        if let Some(finding) = explorer.run(scenario).finding {
            panic!("{finding}");
        }
    }

    /// Plays one schedule, with trace and backtraces.
    ///
    /// # Errors
    /// What fails. A run that is not the schedule's [diverges](Failure::diverged).
    pub fn replay(
        &self,
        schedule: &Schedule,
        scenario: impl FnMut(Settings) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let mut fresh = Fresh(scenario);
        let mut stage = Stage::new(&mut fresh, &self.settings);
        stage.replay(schedule, Some(self.replay_line(schedule)))
    }

    /// Plays the first seed's schedule twice.
    ///
    /// # Errors
    /// Where the second run differs from the first.
    pub fn run_twice(
        &self,
        scenario: impl FnMut(Settings) -> Result<(), Error>,
    ) -> Result<(), Difference> {
        let mut fresh = Fresh(scenario);
        let mut stage = Stage::new(&mut fresh, &self.settings);
        let seed = self.seeds.range().start;
        stage.twice(&self.search.strategy(seed, STEPS), seed)
    }

    fn play(&self, scenario: &mut dyn Scenario, tell: &mut dyn FnMut(&Progress)) -> Campaign {
        let mut stage = Stage::new(scenario, &self.settings);
        let mut campaign = Running::new(self, tell);
        // The first run of every part is the same: it measures the others.
        if let Err(difference) = stage.twice(&Strategy::RoundRobin, 0) {
            let failure = Failure::NotDeterministic(difference);
            return campaign.end(&stage, None, Some(Finding::without_schedule(failure)));
        }
        let steps = stage.steps(<[_]>::len).next_power_of_two();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        // With nothing to choose there is one schedule, whatever the seed.
        let only = stage.steps(|steps| steps.iter().all(|step| step.options == 1));
        if let Search::Exhaustive { preemptions } = self.search {
            return self.play_all(&mut stage, campaign, preemptions);
        }
        let seeds = match self.search {
            Search::RoundRobin => 0..1,
            _ if only => {
                let first = self.seeds.range().start;
                first..first.saturating_add(1)
            }
            _ => self.seeds.range(),
        };
        for seed in seeds.filter(|seed| self.shard.has(*seed)) {
            let strategy = self.search.strategy(seed, steps);
            let result = stage.play(strategy.clone(), seed);
            campaign.count(&stage);
            if let Err(failure) = result {
                let finding = self.found(&mut stage, failure, strategy, Some(seed));
                return campaign.end(&stage, None, Some(finding));
            }
            if campaign.is_over() {
                break;
            }
        }
        campaign.end(&stage, only.then_some(Complete::Everything), None)
    }

    fn play_all(
        &self,
        stage: &mut Stage<'_>,
        mut campaign: Running<'_>,
        preemptions: u32,
    ) -> Campaign {
        let range = self.seeds.range();
        let most = range.end.saturating_sub(range.start);
        let mut all = Exhaustive::new(preemptions, most.min(MOST_WAITING), self.shard);
        while campaign.schedules < most && !campaign.is_over() {
            let Some((prefix, mine)) = all.next() else {
                break;
            };
            let result = stage.steered(Steer::Prefix(Arc::new(prefix)));
            if mine {
                campaign.count(stage);
            }
            if let Err(failure) = result {
                let finding = self.found(stage, failure, Strategy::RunOn, None);
                return campaign.end(stage, None, Some(finding));
            }
            stage.steps(|steps| all.played(steps));
        }
        campaign.end(stage, all.complete(), None)
    }

    /// What is to be told of the schedule that was just played and failed.
    fn found(
        &self,
        stage: &mut Stage<'_>,
        failure: Failure,
        strategy: Strategy,
        seed: Option<u64>,
    ) -> Finding {
        let (schedule, preemptions) =
            stage.steps(|steps| (Schedule::of(steps), minimise::preemptions(steps)));
        let mut finding = Finding {
            failure,
            strategy: Some(strategy),
            seed,
            found: schedule.clone(),
            found_preemptions: preemptions,
            schedule,
            preemptions,
            played: 0,
            replay: String::new(),
        };
        let signature = finding.failure.signature();
        let again = stage.replay(&finding.schedule, None);
        let how = again.as_ref().err().map(Failure::signature);
        if how.as_ref() != Some(&signature) {
            finding.replay = self.replay_line(&finding.schedule);
            finding.failure = Failure::NotDeterministic(Difference {
                line: None,
                first: Some(finding.failure.to_string()),
                second: again.err().map(|failure| failure.to_string()),
            });
            return finding;
        }
        let smaller = minimise::minimise(stage, &signature);
        finding.replay = self.replay_line(&smaller.schedule);
        finding.played = smaller.played;
        let told = stage.replay(&smaller.schedule, Some(finding.replay.clone()));
        match told {
            Err(failure) if failure.signature() == signature => {
                finding.schedule = smaller.schedule;
                finding.preemptions = smaller.preemptions;
                finding.failure = failure;
            }
            // It does not replay: the one that was found does.
            _ => {
                finding.replay = self.replay_line(&finding.schedule);
                if let Err(failure) = stage.replay(&finding.schedule, Some(finding.replay.clone()))
                {
                    finding.failure = failure;
                }
            }
        }
        finding
    }
}

/// A variable of the environment.
fn variable<T: std::str::FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("{name} = {text:?}: {error}"),
    }
}

/// How a test is played again: libtest names a test's thread after it.
fn test_line(schedule: &Schedule) -> String {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main").unwrap_or("");
    format!("NTSIM_SCHEDULE={schedule} cargo test {name}")
        .trim_end()
        .to_owned()
}

/// How a campaign is going.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Schedules played.
    pub schedules: u64,
    /// Scheduling points seen: calls, with how many could run then.
    pub points: usize,
    /// Schedules that showed one that no earlier one did.
    pub new: u64,
    /// Of the longest schedule, how many scheduling points.
    pub longest: usize,
    /// Time of the clock.
    pub time: Duration,
}

/// What became of a campaign.
#[derive(Debug)]
pub struct Campaign {
    /// Schedules played, without those that made a failing one smaller.
    pub schedules: u64,
    /// Schedules that showed a scheduling point that no earlier one did.
    pub new: u64,
    /// The scheduling points.
    pub coverage: Coverage,
    /// Of the longest schedule, how many scheduling points.
    pub longest: usize,
    /// What was played completely, of [`Search::Exhaustive`] or if there is nothing to
    /// choose.
    pub complete: Option<Complete>,
    /// Time of the clock.
    pub time: Duration,
    /// The schedule that failed.
    pub finding: Option<Finding>,
}

/// A schedule that fails.
#[derive(Debug)]
pub struct Finding {
    /// How the smallest schedule fails, with its report in full.
    pub failure: Failure,
    /// The strategy that came upon it.
    pub strategy: Option<Strategy>,
    /// Its seed then.
    pub seed: Option<u64>,
    /// The schedule that was found.
    pub found: Schedule,
    /// How many preemptions that has.
    pub found_preemptions: u64,
    /// The smallest that fails in the same way.
    pub schedule: Schedule,
    /// How many preemptions it has.
    pub preemptions: u64,
    /// How many schedules were played to make it smaller.
    pub played: u64,
    /// The line that replays the smallest.
    pub replay: String,
}

impl Finding {
    fn without_schedule(failure: Failure) -> Self {
        Self {
            failure,
            strategy: None,
            seed: None,
            found: Schedule::default(),
            found_preemptions: 0,
            schedule: Schedule::default(),
            preemptions: 0,
            played: 0,
            replay: String::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.failure.to_string();
        writeln!(f, "{}", report.trim_end())?;
        if let Some(strategy) = &self.strategy {
            write!(f, "found by {strategy}")?;
            if let Some(seed) = self.seed {
                write!(f, " with seed {seed}")?;
            }
            writeln!(
                f,
                ", with {} preemption(s) at {} scheduling points",
                self.found_preemptions,
                self.found.len()
            )?;
            if self.played > 0 {
                writeln!(
                    f,
                    "smallest of {} tried: {} preemption(s) at {} scheduling points",
                    self.played,
                    self.preemptions,
                    self.schedule.len()
                )?;
            }
        }
        if self.failure.stop().is_none() && !self.replay.is_empty() {
            writeln!(f, "replay: {}", self.replay)?;
        }
        Ok(())
    }
}

/// A campaign that is going on.
struct Running<'a> {
    schedules: u64,
    points: usize,
    new: u64,
    longest: usize,
    begun: Instant,
    time_limit: Option<Duration>,
    told: Instant,
    tell: &'a mut dyn FnMut(&Progress),
}

impl<'a> Running<'a> {
    fn new(explorer: &Explorer, tell: &'a mut dyn FnMut(&Progress)) -> Self {
        let now = Instant::now();
        Self {
            schedules: 0,
            points: 0,
            new: 0,
            longest: 0,
            begun: now,
            time_limit: explorer.time_limit,
            told: now,
            tell,
        }
    }

    /// Counts the schedule that was just played.
    fn count(&mut self, stage: &Stage<'_>) {
        self.schedules += 1;
        let (points, length) = stage.tape.with(|recording| {
            let choices = recording.steps.iter().filter(|step| step.options > 1);
            (recording.coverage.count(), choices.count())
        });
        self.longest = self.longest.max(length);
        if points > self.points {
            self.points = points;
            self.new += 1;
        }
    }

    /// Whether the time is over; tells how it is going, now and then.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.told) >= TELL {
            self.told = now;
            self.tell();
        }
        self.time_limit
            .is_some_and(|limit| now.duration_since(self.begun) >= limit)
    }

    fn tell(&mut self) {
        (self.tell)(&Progress {
            schedules: self.schedules,
            points: self.points,
            new: self.new,
            longest: self.longest,
            time: self.begun.elapsed(),
        });
    }

    fn end(
        mut self,
        stage: &Stage<'_>,
        complete: Option<Complete>,
        finding: Option<Finding>,
    ) -> Campaign {
        self.tell();
        Campaign {
            schedules: self.schedules,
            new: self.new,
            coverage: stage.tape.with(|recording| recording.coverage.clone()),
            longest: self.longest,
            complete,
            time: self.begun.elapsed(),
            finding,
        }
    }
}
