// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`ScheduledTask`] against its promises, under explored schedules.
//!
//! Up to three threads, at `DISPATCH_LEVEL` now and then, call random methods while
//! the device loses power and gets it back; the task itself returns random
//! results, takes its time, and cancels itself. Afterwards the device is left
//! alone until nothing is pending. Each promise is a condition on the history of
//! calls and runs, whose times are points in one order of events:
//!
//! | Promise | |
//! |---|---|
//! | runs never overlap | checked as they run |
//! | nothing runs in low power | between the end of a power-down and the next power-up |
//! | cancel is sticky | from its return, or that of the run it was called in, to the next restart nothing begins, and calls are refused |
//! | only then | what nobody cancelled is not refused |
//! | N calls, N runs | each context that was accepted runs once, in order, unless cancelled |
//! | done is done | after a `Success` no attempt begins, unless the task was reset |
//! | nothing comes of itself | there are no more attempts than moments, calls and retries; an attempt that was cancelled has none |
//! | nothing is forgotten | what wants to try again does, and what was asked for comes, unless cancelled |

#[path = "support/explore.rs"]
mod explore;
#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;

use dmf::prelude::*;
use dmf_modules::ScheduledTask;
use dmf_modules::scheduled_task::{Cancelled, ExecuteWhen, Task, TaskResult};
use explore::{Schedule, at_dispatch, explore, schedules};
use probe::Probe;
use proptest::prelude::*;

dmf::driver!(Model);

struct Model {
    task: Handle<ScheduledTask<Parcel>>,
}

/// The context of a run: a number, and a note of its end.
struct Parcel(usize);

impl Drop for Parcel {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push(self.0));
    }
}

thread_local! {
    static SETUP: Cell<Setup> = const { Cell::new(Setup { when: ExecuteWhen::Other, delay: 0, reset: false }) };
    static SCRIPT: RefCell<VecDeque<Run>> = const { RefCell::new(VecDeque::new()) };
    static HISTORY: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    static DROPPED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static CLOCK: Cell<u64> = const { Cell::new(0) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static TASK: RefCell<Option<ManuallyDrop<Handle<ScheduledTask<Parcel>>>>> =
        const { RefCell::new(None) };
}

// ---- a case ---------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Setup {
    when: ExecuteWhen,
    /// The initial delay, in milliseconds.
    delay: u64,
    /// Whether threads reset what the task has done.
    reset: bool,
}

/// What the task does in one run.
#[derive(Clone, Copy, Debug)]
struct Run {
    result: TaskResult,
    /// How long it takes, in milliseconds.
    takes: u64,
    cancels: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    ExecuteNow,
    Deferred,
    DeferredAtDispatch,
    DeferredEx,
    Cancel,
    Restart,
    Reset,
    Pause(u64),
}

#[derive(Clone, Debug)]
struct Case {
    setup: Setup,
    script: Vec<Run>,
    threads: Vec<Vec<Op>>,
    /// When power goes and comes back, in milliseconds after each other.
    power: Vec<(u64, u64)>,
    schedule: Schedule,
}

// ---- what happens -------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Called(Op, Result),
    /// A run of a call with a context.
    Ran(usize),
    /// An attempt.
    Tried(TaskResult),
    /// From the beginning of power-down to the end of power-up.
    Asleep {
        from: u64,
        to: u64,
    },
}

/// Something that took from one point in the order of events to another.
#[derive(Clone, Copy, Debug)]
struct Event {
    what: What,
    /// The context of a call.
    parcel: Option<usize>,
    from: u64,
    to: u64,
}

fn tick() -> u64 {
    CLOCK.set(CLOCK.get() + 1);
    CLOCK.get()
}

fn note(what: What, parcel: Option<usize>, from: u64) {
    let to = tick();
    HISTORY.with_borrow_mut(|history| {
        history.push(Event {
            what,
            parcel,
            from,
            to,
        });
    });
}

impl Device for Model {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let setup = SETUP.get();
        let task = add.module(
            ScheduledTask::config(Model::run)
                .execute_when(setup.when)
                .initial_delay(Duration::from_millis(setup.delay))
                .retry_on_fail(Duration::from_millis(50))
                .retry_on_success(Duration::from_millis(80)),
        )?;
        TASK.set(Some(ManuallyDrop::new(task.clone())));
        Ok(Model { task })
    }
}

impl Model {
    fn run(&self, task: &mut Task<'_, Parcel>) -> TaskResult {
        assert!(!RUNNING.replace(true), "runs overlap");
        let from = tick();
        let run = SCRIPT.with_borrow_mut(VecDeque::pop_front).unwrap_or(Run {
            result: TaskResult::Success,
            takes: 0,
            cancels: false,
        });
        if run.cancels {
            assert_eq!(
                self.task.cancel(task.irql()),
                Ok(Cancelled::WhenTheTaskReturns)
            );
            note(What::Called(Op::Cancel, Ok(())), None, from);
        }
        if run.takes > 0 {
            dmf::sync::delay(task.irql(), Duration::from_millis(run.takes));
        }
        let context = task.take_context();
        let what = match &context {
            Some(parcel) => What::Ran(parcel.0),
            None => What::Tried(run.result),
        };
        RUNNING.set(false);
        note(what, None, from);
        run.result
    }
}

fn play(
    ops: &[Op],
    parcels: usize,
    task: &Handle<ScheduledTask<Parcel>>,
    irql: &mut Irql<'_, Passive>,
) {
    for (at, op) in ops.iter().enumerate() {
        let parcel = Parcel(parcels + at);
        let number = matches!(op, Op::ExecuteNow | Op::Deferred | Op::DeferredAtDispatch)
            .then_some(parcel.0);
        let from = tick();
        let result = match *op {
            Op::Pause(time) => {
                dmf::sync::delay(irql, Duration::from_millis(time));
                continue;
            }
            Op::ExecuteNow => task.execute_now_with(irql, parcel).map(drop),
            Op::Deferred => task.execute_now_deferred_with(parcel),
            Op::DeferredAtDispatch => at_dispatch(|| task.execute_now_deferred_with(parcel)),
            Op::DeferredEx => task.execute_now_deferred_ex(),
            Op::Cancel => task.cancel(irql).map(|cancelled| {
                assert_eq!(cancelled, Cancelled::Quiet);
                assert!(!RUNNING.get(), "cancel waits for the run");
            }),
            Op::Restart => task.restart(),
            Op::Reset => task.times_run_set(irql, 0),
        };
        note(What::Called(*op, result), number, from);
    }
}

fn run(case: &Case) -> Result<Vec<Event>, String> {
    SETUP.set(case.setup);
    SCRIPT.set(case.script.iter().copied().collect());
    HISTORY.take();
    DROPPED.take();
    CLOCK.set(0);
    RUNNING.set(false);
    let mut probe = Probe::new(Model::DRIVER_ENTRY, 0);
    let Schedule { strategy, seed } = case.schedule.clone();
    probe.machine.reschedule(strategy, seed);
    live(&mut probe, case).map_err(|error| error.to_string())?;
    let mut dropped = DROPPED.take();
    dropped.sort_unstable();
    if dropped.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("a context was dropped twice: {dropped:?}"));
    }
    let history = HISTORY.take();
    match (history.iter().filter_map(|event| event.parcel)).find(|parcel| !dropped.contains(parcel))
    {
        Some(parcel) => Err(format!("context {parcel} was not dropped")),
        None => Ok(history),
    }
}

fn live(probe: &mut Probe, case: &Case) -> Result<(), ntsim::machine::Error> {
    probe.start()?;
    let plans = case.threads.clone();
    let threads = probe.try_thread(move |irql| {
        let plans = plans.into_iter().enumerate();
        plans
            .map(|(thread, ops)| {
                let task = TASK.with_borrow(|task| task.as_deref().cloned().unwrap());
                let body =
                    move |irql: &mut Irql<'_, Passive>| play(&ops, thread * 100, &task, irql);
                ManuallyDrop::new(Thread::spawn(irql, body).unwrap())
            })
            .collect::<Vec<_>>()
    })?;
    for (up, down) in &case.power {
        probe.machine.run_for(Duration::from_millis(*up))?;
        let from = tick();
        probe.machine.power_down(&probe.device)?;
        let asleep = tick();
        probe.machine.run_for(Duration::from_millis(*down))?;
        let awakes = tick();
        probe.machine.power_up(&probe.device)?;
        let what = What::Asleep {
            from: asleep,
            to: awakes,
        };
        note(what, None, from);
    }
    // Longer than all that is pending.
    probe.machine.run_for(Duration::from_secs(10))?;
    probe.try_thread(move |irql| {
        for thread in threads {
            ManuallyDrop::into_inner(thread).join(irql);
        }
        drop(TASK.take().map(ManuallyDrop::into_inner));
    })?;
    probe.machine.remove_device(&probe.device)
}

// ---- the promises -----------------------------------------------------------------------

struct History<'a> {
    events: &'a [Event],
    when: ExecuteWhen,
}

impl History<'_> {
    fn of(&self, op: Op) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .filter(move |event| matches!(event.what, What::Called(of, Ok(())) if of == op))
    }

    fn runs(&self) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .filter(|event| matches!(event.what, What::Ran(_) | What::Tried(_)))
    }

    fn attempts(&self) -> impl Iterator<Item = (&Event, TaskResult)> {
        self.events.iter().filter_map(|event| match event.what {
            What::Tried(result) => Some((event, result)),
            _ => None,
        })
    }

    /// Whether the task was surely reset between the beginning of the attempt and `call`.
    fn undone(&self, attempt: &Event, call: &Event) -> bool {
        self.of(Op::Reset)
            .any(|reset| reset.from > attempt.from && reset.to < call.from)
    }

    /// Whether the attempt has surely been cancelled, by itself.
    fn cancelled_itself(&self, attempt: &Event) -> bool {
        self.of(Op::Cancel)
            .any(|cancel| cancel.from == attempt.from)
    }

    /// Whether a cancel has surely been in force from before `from` to after `to`.
    fn surely_cancelled(&self, from: u64, to: u64) -> bool {
        self.of(Op::Cancel).any(|cancel| {
            cancel.to < from
                && !self
                    .of(Op::Restart)
                    .any(|restart| restart.to > cancel.from && restart.from < to)
        })
    }

    /// Whether a cancel may have been in force, or have forgotten something,
    /// between `from` and `to`.
    fn maybe_cancelled(&self, from: u64, to: u64) -> bool {
        self.of(Op::Cancel).any(|cancel| {
            cancel.from < to
                && (cancel.to > from
                    || !self
                        .of(Op::Restart)
                        .any(|restart| restart.from > cancel.to && restart.to < from))
        })
    }

    fn check(&self) -> Result<(), String> {
        let fail = |promise: &str, event: &Event| Err(format!("{promise}: {event:?}"));
        for event in self.events {
            match event.what {
                What::Asleep { from, to } if self.when != ExecuteWhen::Other => {
                    if let Some(run) = self.runs().find(|run| run.to > from && run.from < to) {
                        return fail("nothing runs in low power", run);
                    }
                }
                What::Called(Op::Cancel | Op::Restart | Op::Reset, Err(_)) => {
                    return fail("is never refused", event);
                }
                What::Called(op, Err(NtStatus::CANCELLED)) => {
                    if !self.maybe_cancelled(event.from, event.to) {
                        return fail("refused, though nobody cancelled", event);
                    }
                    debug_assert!(op != Op::Restart);
                }
                What::Called(Op::ExecuteNow, Err(NtStatus::INVALID_DEVICE_STATE)) => {
                    let may_be_down = self.when != ExecuteWhen::Other
                        && (self.events.iter()).any(|other| {
                            matches!(other.what, What::Asleep { .. })
                                && other.from < event.to
                                && other.to > event.from
                        });
                    if !may_be_down {
                        return fail("refused, though the device was up", event);
                    }
                }
                What::Called(_, Err(_)) => return fail("an undocumented status", event),
                What::Called(op, Ok(())) => self.check_accepted(op, event)?,
                What::Ran(_) | What::Tried(_) => {
                    if self.surely_cancelled(event.from, event.from) {
                        return fail("cancel is sticky", event);
                    }
                }
                What::Asleep { .. } => {}
            }
        }
        self.check_attempts()?;
        self.check_order()
    }

    fn check_accepted(&self, op: Op, call: &Event) -> Result<(), String> {
        let fail = |promise: &str| Err(format!("{promise}: {call:?}"));
        let asks = matches!(
            op,
            Op::ExecuteNow | Op::Deferred | Op::DeferredAtDispatch | Op::DeferredEx
        );
        if asks && self.surely_cancelled(call.from, call.to) {
            return fail("cancelled, but not refused");
        }
        if let Some(parcel) = call.parcel {
            let runs = self.runs().filter(|run| run.what == What::Ran(parcel));
            let may_be_forgotten =
                op != Op::ExecuteNow && self.maybe_cancelled(call.from, u64::MAX);
            let runs = runs.count();
            if runs > 1 || runs == 0 && !may_be_forgotten {
                return fail("N calls, N runs");
            }
        }
        if op == Op::DeferredEx {
            let came = self.attempts().any(|(attempt, result)| {
                let done = result == TaskResult::Success && !self.undone(attempt, call);
                attempt.to > call.from || done
            });
            if !came && !self.maybe_cancelled(call.from, u64::MAX) {
                return fail("what was asked for comes");
            }
        }
        Ok(())
    }

    fn check_attempts(&self) -> Result<(), String> {
        let mut attempts: Vec<_> = self.attempts().collect();
        attempts.sort_by_key(|(attempt, _)| attempt.from);
        for (at, (attempt, result)) in attempts.iter().enumerate() {
            let next = attempts.get(at + 1);
            match result {
                TaskResult::Success => {
                    let reset = self.of(Op::Reset).any(|reset| reset.to > attempt.from);
                    if next.is_some() && !reset {
                        return Err(format!("done is done: {attempt:?}, {next:?}"));
                    }
                }
                TaskResult::FailButTryAgain | TaskResult::SuccessButTryAgain => {
                    if next.is_none() && !self.maybe_cancelled(attempt.from, u64::MAX) {
                        return Err(format!("nothing is forgotten: {attempt:?}"));
                    }
                }
                TaskResult::Fail => {}
            }
        }
        let wakes = (self.events.iter()).filter(|event| matches!(event.what, What::Asleep { .. }));
        let moments = match self.when {
            ExecuteWhen::Other => 0,
            ExecuteWhen::PrepareHardware => 1,
            ExecuteWhen::D0Entry => 1 + wakes.count(),
        };
        let retries = (attempts.iter()).filter(|(attempt, result)| {
            let again = [TaskResult::FailButTryAgain, TaskResult::SuccessButTryAgain];
            again.contains(result) && !self.cancelled_itself(attempt)
        });
        let causes = moments + retries.count() + self.of(Op::DeferredEx).count();
        if attempts.len() > causes {
            return Err(format!("{} attempts have {causes} causes", attempts.len()));
        }
        let has_moment = self.when != ExecuteWhen::Other;
        if has_moment && attempts.is_empty() && !self.maybe_cancelled(0, u64::MAX) {
            return Err("the moment came, and the task did not run".to_owned());
        }
        Ok(())
    }

    /// Of two deferred calls, one after the other, the first runs first.
    fn check_order(&self) -> Result<(), String> {
        let deferred: Vec<_> = (self.of(Op::Deferred))
            .chain(self.of(Op::DeferredAtDispatch))
            .collect();
        let run_of = |call: &Event| {
            self.runs().find(|run| {
                call.parcel
                    .is_some_and(|parcel| run.what == What::Ran(parcel))
            })
        };
        for first in &deferred {
            for second in deferred.iter().filter(|second| first.to < second.from) {
                if let (Some(a), Some(b)) = (run_of(first), run_of(second))
                    && a.from > b.from
                {
                    return Err(format!("in order: {first:?}, {second:?}"));
                }
            }
        }
        Ok(())
    }
}

fn check(case: &Case) -> Result<(), String> {
    let mut events = run(case)?;
    events.sort_by_key(|event| event.from);
    let history = History {
        events: &events,
        when: case.setup.when,
    };
    history.check().map_err(|promise| {
        let lines: Vec<_> = events
            .iter()
            .map(|event| {
                let (what, parcel) = (event.what, event.parcel);
                format!("  {:4} to {:4}  {what:?} {parcel:?}", event.from, event.to)
            })
            .collect();
        format!("{promise}\n{}", lines.join("\n"))
    })
}

fn ops(reset: bool) -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::ExecuteNow),
        3 => Just(Op::Deferred),
        1 => Just(Op::DeferredAtDispatch),
        3 => Just(Op::DeferredEx),
        2 => Just(Op::Cancel),
        2 => Just(Op::Restart),
        1 => Just(if reset { Op::Reset } else { Op::DeferredEx }),
        2 => prop::sample::select(vec![1, 20, 60, 100]).prop_map(Op::Pause),
    ]
}

fn runs() -> impl Strategy<Value = Run> {
    use TaskResult::{Fail, FailButTryAgain, Success, SuccessButTryAgain};
    let results = vec![Success, Fail, FailButTryAgain, SuccessButTryAgain];
    let takes = prop::sample::select(vec![0, 1, 20]);
    let cancels = prop_oneof![3 => Just(false), 1 => Just(true)];
    (prop::sample::select(results), takes, cancels).prop_map(|(result, takes, cancels)| Run {
        result,
        takes,
        cancels,
    })
}

fn cases() -> impl Strategy<Value = Case> {
    use ExecuteWhen::{D0Entry, Other, PrepareHardware};
    let when = prop::sample::select(vec![Other, D0Entry, PrepareHardware]);
    let delay = prop::sample::select(vec![0, 30]);
    let setup =
        (when, delay, any::<bool>()).prop_map(|(when, delay, reset)| Setup { when, delay, reset });
    let times = || prop::sample::select(vec![0, 1, 30, 70]);
    setup.prop_flat_map(move |setup| {
        (
            prop::collection::vec(runs(), 0..5),
            prop::collection::vec(prop::collection::vec(ops(setup.reset), 1..6), 0..4),
            prop::collection::vec((times(), times()), 0..3),
            schedules(200),
        )
            .prop_map(move |(script, threads, power, schedule)| Case {
                setup,
                script,
                threads,
                power,
                schedule,
            })
    })
}

#[test]
fn every_promise_holds_whatever_threads_power_and_the_task_do() {
    explore(200, cases(), |case| check(&case));
}
