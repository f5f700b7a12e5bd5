// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of `states.md`, walked.
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use super::tests::{NOW, PERIOD, PERIODS, TICK};
use super::*;

const TABLE: &str = include_str!("../states.md");

/// A state, as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a pair of words of the table"
)]
struct State {
    up: bool,
    cancelled: bool,
    done: bool,
    running: bool,
    timer: &'static str,
    attempts: bool,
    runs: bool,
    overtaken: bool,
    reset: bool,
}

impl State {
    fn all() -> impl Iterator<Item = Self> {
        (0..1_u32 << 8)
            .flat_map(|bits| ["no timer", "timer", "due"].map(|timer| (bits, timer)))
            .map(|(bits, timer)| {
                let bit = |n: u32| bits >> n & 1 == 1;
                Self {
                    up: bit(0),
                    cancelled: bit(1),
                    done: bit(2),
                    running: bit(3),
                    timer,
                    attempts: bit(4),
                    runs: bit(5),
                    overtaken: bit(6),
                    reset: bit(7),
                }
            })
            .filter(Self::exists)
    }

    /// The machine's invariants, and what a cancel and a reset since an
    /// attempt began leave behind.
    fn exists(&self) -> bool {
        let quiet = self.timer == "no timer" && !self.attempts;
        (self.up || self.timer != "due")
            && (!self.done || quiet)
            && (!self.cancelled || quiet && !self.runs)
            && (self.running || !self.overtaken && !self.reset)
            && (!self.running || !self.cancelled || self.overtaken)
    }

    fn has(&self, word: &str) -> bool {
        match word {
            "up" => self.up,
            "down" => !self.up,
            "cancelled" => self.cancelled,
            "not cancelled" => !self.cancelled,
            "done" => self.done,
            "undone" => !self.done,
            "running" => self.running,
            "idle" => !self.running,
            "no timer" | "timer" | "due" => self.timer == word,
            "attempts" => self.attempts,
            "no attempts" => !self.attempts,
            "runs" => self.runs,
            "no runs" => !self.runs,
            "overtaken" => self.overtaken,
            "not overtaken" => !self.overtaken,
            "reset" => self.reset,
            "not reset" => !self.reset,
            _ => panic!("the table says `{word}`"),
        }
    }

    fn change(&mut self, word: &str) {
        match word {
            "up" | "down" => self.up = word == "up",
            "cancelled" | "not cancelled" => self.cancelled = word == "cancelled",
            "done" | "undone" => self.done = word == "done",
            "running" | "idle" => self.running = word == "running",
            "no timer" => self.timer = "no timer",
            "timer" => self.timer = "timer",
            "due" => self.timer = "due",
            "attempts" | "no attempts" => self.attempts = word == "attempts",
            "runs" | "no runs" => self.runs = word == "runs",
            _ => panic!("the table says `{word}`"),
        }
    }

    fn wants_worker(&self) -> bool {
        let pending = self.timer == "due" || self.attempts || self.runs;
        self.up && !self.cancelled && !self.running && pending
    }

    /// A machine in this state.
    fn machine(&self) -> Machine<()> {
        let mut machine = Machine::new(self.up);
        machine.cancelled = self.cancelled;
        machine.done = self.done;
        machine.runner = self.running.then(ThreadId::current);
        machine.timer = match (self.timer, self.up) {
            ("due", _) => Scheduled::Due,
            ("timer", true) => Scheduled::Armed(NOW),
            ("timer", false) => Scheduled::Remembered(PERIOD),
            _ => Scheduled::Nothing,
        };
        machine.attempts = self.attempts.into();
        if self.runs {
            machine.runs.push(()).unwrap();
        }
        machine.overtaken = self.overtaken;
        machine.reset = self.reset;
        machine
    }

    fn of(machine: &Machine<()>, before: Self) -> Self {
        Self {
            up: machine.up,
            cancelled: machine.cancelled,
            done: machine.done,
            running: machine.is_running(),
            timer: match (machine.timer, machine.up) {
                (Scheduled::Nothing, _) => "no timer",
                (Scheduled::Due, true) => "due",
                (Scheduled::Armed(_), true) | (Scheduled::Remembered(_), false) => "timer",
                (timer, up) => panic!("{timer:?} while up = {up}"),
            },
            attempts: machine.attempts > 0,
            runs: !machine.runs.is_empty(),
            ..before
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    does: &'static str,
    worker: bool,
}

impl From<Effects> for Done {
    fn from(effects: Effects) -> Self {
        Self {
            does: match effects.timer {
                TimerEffect::Leave => "",
                TimerEffect::Start(_) => "start timer",
                TimerEffect::Stop => "stop timer",
            },
            worker: effects.worker,
        }
    }
}

/// Something without effects, which calls no worker.
fn only(does: &'static str) -> Done {
    Done {
        does,
        worker: false,
    }
}

fn play(event: &str, machine: &mut Machine<()>) -> Done {
    let thread = ThreadId::current();
    let mut finish = |after, result| {
        let result = Some(result);
        machine.finish(after, result, &PERIODS, || NOW).into()
    };
    match event {
        "`Success`" => finish(After::Deferred, TaskResult::Success),
        "`SuccessButTryAgain`" => finish(After::Immediate, TaskResult::SuccessButTryAgain),
        "`FailButTryAgain`" => finish(After::Deferred, TaskResult::FailButTryAgain),
        "`FailButTryAgain`, immediate" => finish(After::Immediate, TaskResult::FailButTryAgain),
        "`Fail`" => finish(After::Deferred, TaskResult::Fail),
        "moment of a deferred task" => machine.moment(PERIOD, NOW).into(),
        "moment of an immediate task" => {
            only(machine.immediate_attempt().map_or("", |_| "attempt"))
        }
        "other hook up" => machine.resume(|| NOW).into(),
        "hook down" => {
            machine.pause(NOW);
            Done::default()
        }
        "timer fires" => machine.timer_fired(|| NOW, TICK).into(),
        "timer fires, was started anew" => {
            machine.timer_is_overtaken = true;
            let early = Instant::from_units(NOW.units() - PERIOD.units());
            machine.timer_fired(|| early, TICK).into()
        }
        "`execute_now_deferred_ex`" => match machine.request_attempt() {
            Ok(effects) => effects.into(),
            Err(status) => {
                assert_eq!(status, NtStatus::CANCELLED);
                only("refuse")
            }
        },
        "`execute_now_deferred`" => match machine.request_run(()) {
            Ok(effects) => effects.into(),
            Err((status, ())) => {
                assert_eq!(status, NtStatus::CANCELLED);
                only("refuse")
            }
        },
        "`execute_now`" => only(machine.allows_run().map_or("refuse", |()| "run")),
        "`cancel`" => machine.cancel().0.into(),
        "`restart`" => {
            machine.restart();
            Done::default()
        }
        "`times_run_set(0)`" => {
            machine.set_undone();
            Done::default()
        }
        "`times_run_set(1)`" => machine.set_done().into(),
        "somebody begins to run it" => only(if machine.begin(thread) {
            "run"
        } else {
            "refuse"
        }),
        "who runs it looks for more" => only(match machine.next_turn() {
            Some((Turn::Attempt(_), _)) => "attempt",
            Some((Turn::Run(()), _)) => "run",
            None => "",
        }),
        "who runs it leaves" => machine.end().into(),
        _ => panic!("the table says `{event}`"),
    }
}

/// Events after which no worker is called, because somebody runs the
/// task, or nothing new is pending.
const WITHOUT_EFFECTS: [&str; 8] = [
    "moment of an immediate task",
    "hook down",
    "`execute_now`",
    "`restart`",
    "`times_run_set(0)`",
    "somebody begins to run it",
    "who runs it looks for more",
    "refuse",
];

fn words(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn rows() -> Vec<[&'static str; 4]> {
    TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Event"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            cells.try_into().unwrap_or_else(|_| panic!("{line}"))
        })
        .collect()
}

#[test]
fn is_what_the_machine_does_in_all_states_at_all_events() {
    ntsim::run(|| {
        let rows = rows();
        let events: BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
        let mut walked = 0;
        let mut matched = vec![0; rows.len()];
        for event in events {
            // Some events are of the one who runs the task.
            let of_the_runner = rows
                .iter()
                .filter(|row| row[0] == event)
                .all(|row| words(row[1]).any(|word| word == "running"));
            for state in State::all() {
                if of_the_runner && !state.running {
                    continue;
                }
                let mut fitting = rows.iter().enumerate().filter(|(_, [of, when, ..])| {
                    *of == event && words(when).all(|word| state.has(word))
                });
                let (at, [_, _, does, then]) = fitting
                    .next()
                    .unwrap_or_else(|| panic!("no row for {event} in {state:?}"));
                assert_eq!(fitting.next(), None, "{event} in {state:?}");
                matched[at] += 1;

                let mut machine = state.machine();
                let done = play(event, &mut machine);
                let mut after = state;
                words(then).for_each(|word| after.change(word));
                assert_eq!(
                    State::of(&machine, state),
                    after,
                    "after {event} in {state:?}"
                );
                let quiet = WITHOUT_EFFECTS.contains(&event) || does == &"refuse";
                let expected = Done {
                    does,
                    worker: !quiet && after.wants_worker(),
                };
                assert_eq!(done, expected, "{event} in {state:?}");
                walked += 1;
            }
        }
        assert!(walked > 1000, "{walked}");
        for (row, times) in rows.iter().zip(matched) {
            assert_ne!(times, 0, "no state fits {row:?}");
        }
    });
}
