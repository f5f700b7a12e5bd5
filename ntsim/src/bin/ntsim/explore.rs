// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim explore`: a driver's life under many schedules.
//!
//! With several jobs the command starts itself that many times with `--worker`, one
//! process for each core: a driver that destroys the memory of its process takes one
//! of them along. Each plays its share and writes a line of JSON ([`Told`]) to its
//! standard output ten times a second, and one at its end.
//!
//! ```text
//!   explore --jobs 4 ─┬─► explore --worker 0/4 ──┐ a line each 100 ms, and
//!                     ├─► …                      ├─► the first finding ends all
//!                     └─► explore --worker 3/4 ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ntsim::explore::{self, Campaign, Complete, Explorer, Progress, Search, Seeds, Shard};
use ntsim::machine::Error;
use ntsim::store::MachineDir;
use ntsim::{Machine, Settings, story};
use serde::{Deserialize, Serialize};

use crate::end::{End, Ended, Failure};
use crate::subject::{Driver, STEPS, Subject};

const EXAMPLES: &str = "Examples:
  ntsim explore sensor.sys
  ntsim explore sensor.sys --inf sensor.inf --schedules 100000 --jobs 8
  ntsim explore sensor.sys --strategy exhaustive --depth 1 --steps start,remove
  ntsim explore sensor.sys --seeds 0..1000000 --shard count:3/16 --json
  ntsim explore sensor.sys --time-limit 10m --save found.txt

Without --schedules, --seeds, --seed and --time-limit it explores for ten seconds.

Strategies:
  portfolio    the first in turn, then half random, half pct of depth 2 and 3
  random       anybody, at each point
  pct          by priorities, with --depth events in an order (2)
  exhaustive   all schedules with at most --depth preemptions (2), the fewest first
  round-robin  one schedule, each in turn

A campaign on several machines: the same command on each, with --shard count:1/N to
count:N/N (or hash:K/N), as cargo-nextest shares out tests. No schedule is played
twice. --jobs shares out further, over the cores of one machine.

What is found is told with the smallest schedule that fails so, and the line that
plays it again: ntsim replay ... --schedule ...";

/// How long it explores if nothing says how much.
const TIME: Duration = Duration::from_secs(10);

/// Play a driver's life under many schedules, and make the one that fails small
///
/// The machine is in memory and new for each schedule.
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{STEPS}"))]
pub(crate) struct Explore {
    #[command(flatten)]
    subject: Subject,
    /// The seeds to play, a schedule each; the end is not among them
    #[arg(long, value_name = "FIRST..END", conflicts_with_all = ["seed", "schedules"])]
    seeds: Option<Seeds>,
    /// One seed alone
    #[arg(long, conflicts_with = "schedules")]
    seed: Option<u64>,
    /// How many schedules to play, from seed 0 on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    schedules: Option<u64>,
    /// How schedules come about: portfolio, random, pct[:DEPTH], exhaustive[:PREEMPTIONS], round-robin
    #[arg(long, value_name = "STRATEGY", default_value_t = Search::Portfolio)]
    strategy: Search,
    /// The depth of pct, 1 or more; the most preemptions of exhaustive
    #[arg(long, value_name = "N")]
    depth: Option<u32>,
    /// How many processes play, 1 to 1024; as many as there are cores if not told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// When to end, whatever is left: 30s, 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time_limit: Option<Duration>,
    /// The part of the seeds that is played here: count:K/N or hash:K/N
    #[arg(long, value_name = "PART")]
    shard: Option<Shard>,
    /// Write the schedule that was found to this file, for ntsim replay --schedule-file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Tell the outcome as JSON on standard output
    #[arg(long)]
    json: bool,
    /// The share of this process, JOB/JOBS
    #[arg(long, hide = true, value_parser = worker)]
    worker: Option<(u32, u32)>,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no time at all; write 30s or 10m".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

fn worker(text: &str) -> Result<(u32, u32), String> {
    let numbers = text
        .split_once('/')
        .and_then(|(job, jobs)| Some((job.parse().ok()?, jobs.parse().ok()?)));
    numbers
        .filter(|(job, jobs): &(u32, u32)| job < jobs)
        .ok_or_else(|| "not JOB/JOBS".to_owned())
}

/// What a process tells of its share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Told {
    schedules: u64,
    /// Scheduling points that the process has seen.
    seen: usize,
    /// Schedules that showed one that was new to their process.
    new: u64,
    longest: usize,
    /// Only at the end.
    end: Option<Finished>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Finished {
    /// Calls, and among how many there was a choice.
    points: BTreeMap<String, BTreeSet<u32>>,
    /// The preemptions up to which an exhaustive search is complete; `u32::MAX` if
    /// there are no more schedules.
    complete: Option<u32>,
    finding: Option<Found>,
}

/// A schedule that failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    /// In one line.
    what: String,
    /// The report as text.
    report: String,
    strategy: Option<String>,
    seed: Option<u64>,
    /// The smallest schedule, and what it took.
    schedule: String,
    preemptions: u64,
    scheduling_points: usize,
    /// The schedule that failed first, before it was made smaller.
    first: String,
    first_preemptions: u64,
    /// The command that plays the smallest again.
    replay: String,
    /// The report as data, if the simulation was stopped.
    stop: Option<serde_json::Value>,
}

/// The outcome as `--json` has it.
#[derive(Serialize)]
struct Outcome<'a> {
    strategy: String,
    shard: Option<String>,
    jobs: u32,
    schedules: u64,
    seconds: f64,
    per_second: f64,
    longest: usize,
    new: u64,
    points: &'a BTreeMap<String, BTreeSet<u32>>,
    /// `everything`, or up to how many preemptions.
    complete: Option<serde_json::Value>,
    finding: Option<&'a Found>,
}

impl Explore {
    pub(crate) fn execute(&self) -> Ended {
        let search = self.search().map_err(Failure::Input)?;
        let driver = self.subject.read().map_err(Failure::Input)?;
        let prepared = prepare(&driver, &self.subject)?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self
            .jobs
            .unwrap_or_else(|| u32::try_from(cores()).unwrap_or(1));
        let explorer = self.explorer(search);
        if let Some((job, jobs)) = self.worker {
            let shard = self.shard.unwrap_or_default().job(job, jobs);
            tell_parent(&explorer.shard(shard), &driver, &prepared);
            return Ok(End::Done);
        }
        let bar = self.bar(search);
        let begun = Instant::now();
        let told = if jobs == 1 {
            let campaign = play(&explorer, &driver, &prepared, &mut |progress| {
                show(&bar, &Told::so_far(progress));
            });
            Told::of(&campaign)
        } else {
            share_out(jobs, &bar)?
        };
        bar.finish_and_clear();
        self.tell(search, jobs, begun.elapsed(), &told)
    }

    fn search(&self) -> Result<Search, String> {
        match (self.strategy, self.depth) {
            (search, None) => Ok(search),
            (Search::Pct { .. }, Some(0)) => {
                Err("--depth 0: pct needs a depth of 1 or more".to_owned())
            }
            (Search::Pct { .. }, Some(depth)) => Ok(Search::Pct { depth }),
            (Search::Exhaustive { .. }, Some(preemptions)) => {
                Ok(Search::Exhaustive { preemptions })
            }
            (search, Some(depth)) => Err(format!(
                "--depth {depth}: {search} has none; it is for pct and exhaustive"
            )),
        }
    }

    fn explorer(&self, search: Search) -> Explorer {
        let seeds = match (&self.seeds, self.seed, self.schedules) {
            (Some(seeds), _, _) => seeds.clone(),
            (_, Some(seed), _) => Seeds::new(seed..seed.saturating_add(1)),
            (_, _, Some(schedules)) => Seeds::new(0..schedules),
            _ => Seeds::new(0..u64::MAX),
        };
        let bounded = self.seeds.is_some() || self.seed.is_some() || self.schedules.is_some();
        let limit = self.time_limit.or((!bounded).then_some(TIME));
        let explorer = Explorer::new()
            .search(search)
            .seeds(seeds)
            .shard(self.shard.unwrap_or_default())
            .settings(self.subject.settings())
            .replay_command(format!("{} --schedule", self.subject.command("replay")));
        match limit {
            Some(limit) => explorer.time_limit(limit),
            None => explorer,
        }
    }

    /// How many schedules this part has, if that is known.
    fn length(&self, search: Search) -> Option<u64> {
        let whole = match (&self.seeds, self.seed, self.schedules) {
            _ if search == Search::RoundRobin => 1,
            (Some(seeds), _, _) => seeds.range().end - seeds.range().start,
            (_, Some(_), _) => 1,
            (_, _, Some(schedules)) => schedules,
            _ => return None,
        };
        let parts = self.shard.map_or(1, |shard| shard.of());
        Some(whole.div_ceil(parts))
    }

    fn bar(&self, search: Search) -> ProgressBar {
        let (bar, template) = match self.length(search) {
            Some(length) => (
                ProgressBar::new(length),
                "{bar:30} {human_pos}/{human_len} schedules, {per_sec}, {msg}",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{spinner} {elapsed} {human_pos} schedules, {per_sec}, {msg}",
            ),
        };
        bar.with_style(
            ProgressStyle::with_template(template).expect("the template is one of indicatif's"),
        )
    }

    fn tell(&self, search: Search, jobs: u32, time: Duration, told: &Told) -> Ended {
        let end = told.end.as_ref().expect("a campaign has an end");
        let seconds = time.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let per_second = told.schedules as f64 / seconds.max(1e-9);
        let complete = end.complete.map(|preemptions| match preemptions {
            u32::MAX => "everything".to_owned(),
            preemptions => preemptions.to_string(),
        });
        if let (Some(path), Some(found)) = (&self.save, &end.finding) {
            std::fs::write(path, format!("{}\n", found.schedule)).map_err(|error| {
                Failure::Input(format!(
                    "{}: cannot write the schedule: {error}",
                    path.display()
                ))
            })?;
        }
        if self.json {
            let outcome = Outcome {
                strategy: search.to_string(),
                shard: self.shard.map(|shard| shard.to_string()),
                jobs,
                schedules: told.schedules,
                seconds,
                per_second,
                longest: told.longest,
                new: told.new,
                points: &end.points,
                complete: end.complete.map(|preemptions| match preemptions {
                    u32::MAX => "everything".into(),
                    preemptions => preemptions.into(),
                }),
                finding: end.finding.as_ref(),
            };
            let text = serde_json::to_string_pretty(&outcome).expect("an outcome is plain data");
            println!("{text}");
        } else {
            println!(
                "{} schedules of {search} in {seconds:.1} s with {jobs} job(s), {per_second:.0} per second",
                told.schedules
            );
            println!(
                "{} scheduling points at {} calls; {} schedules showed new ones; up to {} in a schedule",
                told.seen,
                end.points.len(),
                told.new,
                told.longest
            );
            match complete.as_deref() {
                Some("everything") => println!("these are all schedules that there are"),
                Some(preemptions) => {
                    println!("these are all with up to {preemptions} preemption(s)");
                }
                None => {}
            }
        }
        if let Some(found) = &end.finding {
            return Err(Failure::Found(found.report.clone()));
        }
        if !self.json {
            println!("nothing found");
        }
        Ok(End::Done)
    }
}

/// A machine with the driver installed, to be copied for each schedule. What is wrong
/// with image or INF shows here.
fn prepare(driver: &Driver, subject: &Subject) -> Result<MachineDir, Failure> {
    let mut machine = driver
        .install(MachineDir::in_memory(), subject.settings())
        .map_err(Failure::Input)?;
    machine.commit()?;
    let twin = machine.dir().twin();
    Ok(twin.expect("the machine is in memory"))
}

fn play(
    explorer: &Explorer,
    driver: &Driver,
    prepared: &MachineDir,
    tell: &mut dyn FnMut(&Progress),
) -> Campaign {
    let life = |settings: Settings| -> Result<(), Error> {
        let dir = prepared.twin().expect("the machine is in memory");
        let mut machine = Machine::boot(dir, settings);
        story::play(&mut machine, &driver.steps, &mut |_| {})
    };
    explorer.run_observed(life, tell)
}

/// Plays the share of a worker process.
fn tell_parent(explorer: &Explorer, driver: &Driver, prepared: &MachineDir) {
    let write = |told: &Told| {
        let line = serde_json::to_string(told).expect("it is plain data");
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            // Nobody listens any more.
            std::process::exit(0);
        }
    };
    let campaign = play(explorer, driver, prepared, &mut |progress| {
        write(&Told::so_far(progress));
    });
    write(&Told::of(&campaign));
}

/// Starts the processes, and puts together what they tell.
fn share_out(jobs: u32, bar: &ProgressBar) -> Result<Told, Failure> {
    let program = std::env::current_exe()?;
    let mut workers = Vec::new();
    let (sender, receiver) = mpsc::channel();
    for job in 0..jobs {
        let mut child = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .args(["--worker", &format!("{job}/{jobs}")])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().expect("it is piped");
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let told: Option<Told> = serde_json::from_str(&line).ok();
                // Whoever listens may have heard enough.
                let _ = sender.send((job, told));
            }
            let _ = sender.send((job, None));
        });
        workers.push(Worker {
            child,
            told: Told::default(),
            over: false,
        });
    }
    drop(sender);
    while let Ok((job, told)) = receiver.recv() {
        let worker = &mut workers[job as usize];
        match told {
            Some(told) => {
                let found = told.end.as_ref().is_some_and(|end| end.finding.is_some());
                worker.told = told;
                if found {
                    break;
                }
            }
            None if !worker.over => {
                worker.over = true;
                if worker.told.end.is_none() {
                    return Err(worker.died());
                }
            }
            None => {}
        }
        show(bar, &sum(&workers));
    }
    Ok(Told::together(&workers))
}

fn show(bar: &ProgressBar, told: &Told) {
    bar.set_position(told.schedules);
    bar.set_message(format!(
        "{} scheduling points seen, up to {} in a schedule",
        told.seen, told.longest
    ));
}

/// A process that plays a share.
struct Worker {
    child: Child,
    told: Told,
    over: bool,
}

impl Worker {
    /// It ended without a last word.
    fn died(&mut self) -> Failure {
        match self.child.wait() {
            // It has told why itself, as we would have.
            Ok(status) if status.code() == Some(1) => {
                Failure::Input("a process that was to play schedules could not".to_owned())
            }
            Ok(status) => Failure::Found(format!(
                "a process that played schedules died ({status}) after {} of them: most likely the \
                 driver has destroyed memory that is not its own. --jobs 1 shows where it dies.",
                self.told.schedules
            )),
            Err(error) => Failure::Input(format!("a process cannot be waited for: {error}")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What can be put together while they play. Each sees most scheduling points itself.
fn sum(workers: &[Worker]) -> Told {
    let told = || workers.iter().map(|worker| &worker.told);
    Told {
        schedules: told().map(|told| told.schedules).sum(),
        seen: told().map(|told| told.seen).max().unwrap_or(0),
        new: told().map(|told| told.new).max().unwrap_or(0),
        longest: told().map(|told| told.longest).max().unwrap_or(0),
        end: None,
    }
}

impl Told {
    fn so_far(progress: &Progress) -> Self {
        Self {
            schedules: progress.schedules,
            seen: progress.points,
            new: progress.new,
            longest: progress.longest,
            end: None,
        }
    }

    fn of(campaign: &Campaign) -> Self {
        let points = campaign.coverage.points();
        Self {
            schedules: campaign.schedules,
            seen: points.values().map(Vec::len).sum(),
            new: campaign.new,
            longest: campaign.longest,
            end: Some(Finished {
                points: points
                    .into_iter()
                    .map(|(call, options)| (call.to_owned(), options.into_iter().collect()))
                    .collect(),
                complete: campaign.complete.and_then(|complete| match complete {
                    Complete::Everything => Some(u32::MAX),
                    Complete::Preemptions(preemptions) => Some(preemptions),
                    _ => None,
                }),
                finding: campaign.finding.as_ref().map(Found::of),
            }),
        }
    }

    /// What all of them have told.
    fn together(workers: &[Worker]) -> Self {
        let ends: Vec<_> = workers
            .iter()
            .filter_map(|worker| worker.told.end.as_ref())
            .collect();
        let mut points: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (call, options) in ends.iter().flat_map(|end| &end.points) {
            points.entry(call.clone()).or_default().extend(options);
        }
        let complete: Option<Vec<u32>> = (ends.len() == workers.len())
            .then(|| ends.iter().map(|end| end.complete).collect())
            .flatten();
        Self {
            seen: points.values().map(BTreeSet::len).sum(),
            end: Some(Finished {
                points,
                complete: complete.and_then(|all| all.into_iter().min()),
                finding: ends.iter().find_map(|end| end.finding.clone()),
            }),
            ..sum(workers)
        }
    }
}

impl Found {
    fn of(finding: &explore::Finding) -> Self {
        let what = match finding.failure.stop() {
            Some(stop) => format!("{}: {}", stop.name, stop.message),
            None => finding.failure.to_string(),
        };
        Self {
            what: what.lines().next().unwrap_or_default().to_owned(),
            report: finding.to_string(),
            strategy: finding.strategy.as_ref().map(ToString::to_string),
            seed: finding.seed,
            schedule: finding.schedule.to_string(),
            preemptions: finding.preemptions,
            scheduling_points: finding.schedule.len(),
            first: finding.found.to_string(),
            first_preemptions: finding.found_preemptions,
            replay: finding.replay.clone(),
            stop: finding
                .failure
                .stop()
                .map(|stop| serde_json::to_value(stop).expect("a stop is plain data")),
        }
    }
}
