// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`AlertableSleep`] against a model, under explored schedules.
//!
//! Up to four threads, some of them at `DISPATCH_LEVEL`, call random methods on one slot
//! while it may be closed at any time. What they were told has to be explained by
//! the model: there is an order of the model's steps, each between the call and
//! the return of its operation, in which it would have told everybody the same
//! (linearizability, found by search). What the clock says is checked as well.

#[path = "support/explore.rs"]
mod explore;
#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::mem::ManuallyDrop;

use dmf::prelude::*;
use dmf_modules::AlertableSleep;
use dmf_modules::alertable_sleep::{Abort, Reset, SleepOutcome, Woken};
use explore::{Schedule, at_dispatch, explore, schedules};
use probe::Probe;
use proptest::prelude::*;

dmf::driver!(Model);

struct Model;

thread_local! {
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static OWNER: RefCell<Option<ManuallyDrop<Owner<Model>>>> = const { RefCell::new(None) };
    static PROBE: RefCell<Option<Probe>> = const { RefCell::new(None) };
    static HISTORY: RefCell<Vec<Done>> = const { RefCell::new(Vec::new()) };
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

impl Device for Model {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        OWNER.set(Some(ManuallyDrop::new(add.owner())));
        Ok(Model)
    }
}

// ---- what happens ------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Sleep(u64),
    TrySleep,
    Abort,
    /// The same, with a spin lock held.
    AbortAtDispatch,
    AbortAll,
    /// Resets what this thread has seen last, if anything.
    Reset,
    ResetAtDispatch,
    /// Does nothing for so many milliseconds.
    Pause(u64),
}

/// What a thread was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Elapsed,
    Aborted(u64),
    Closing,
    Busy,
    /// The module is not open.
    Refused,
    Woke(bool),
    Ready,
    StillAborted,
}

/// An operation, and the time it took: in the order of events and on the clock.
#[derive(Clone, Copy, Debug)]
struct Done {
    thread: usize,
    op: Op,
    /// What a reset was about.
    seen: Option<u64>,
    told: Told,
    order: (u64, u64),
    time: (Instant, Instant),
}

fn tick() -> u64 {
    CLOCK.set(CLOCK.get() + 1);
    CLOCK.get()
}

/// How many aborts there had been: the model's name for it.
fn count(abort: Abort) -> u64 {
    let text = format!("{abort:?}");
    let (_, count) = text.rsplit_once("aborts: ").unwrap();
    count.trim_end_matches(" }").parse().unwrap()
}

fn sleep_told(outcome: Result<SleepOutcome>, last: &mut Option<Abort>) -> Told {
    match outcome {
        Ok(SleepOutcome::Elapsed) => Told::Elapsed,
        Ok(SleepOutcome::Aborted(seen)) => {
            *last = Some(seen);
            Told::Aborted(count(seen))
        }
        Ok(SleepOutcome::Closing) => Told::Closing,
        Ok(other) => panic!("{other}"),
        Err(NtStatus::DEVICE_BUSY) => Told::Busy,
        Err(status) => refused(status),
    }
}

fn refused(status: NtStatus) -> Told {
    assert_eq!(status, NtStatus::INVALID_DEVICE_STATE);
    Told::Refused
}

fn woke(woken: Result<Woken>) -> Told {
    woken.map_or_else(refused, |woken| Told::Woke(woken == Woken::Sleeper))
}

fn reset_told(reset: Result<Reset>) -> Told {
    match reset {
        Ok(Reset::Ready) => Told::Ready,
        Ok(Reset::StillAborted) => Told::StillAborted,
        Err(status) => refused(status),
    }
}

/// One thread: plays its operations and writes down what it was told.
fn play(thread: usize, ops: &[Op], sleep: &Handle<AlertableSleep>, irql: &Irql<'_, Passive>) {
    let mut last = None;
    for op in ops {
        let begin = (tick(), Instant::now());
        let mut seen = None;
        let told = match *op {
            Op::Pause(time) => {
                dmf::sync::delay(irql, Duration::from_millis(time));
                continue;
            }
            Op::Sleep(time) => {
                let outcome = sleep.sleep(irql, 0, Duration::from_millis(time));
                sleep_told(outcome, &mut last)
            }
            Op::TrySleep => sleep_told(sleep.try_sleep(0), &mut last),
            Op::Abort => woke(sleep.abort(0)),
            Op::AbortAtDispatch => woke(at_dispatch(|| sleep.abort(0))),
            Op::AbortAll => woke(sleep.abort_all()),
            Op::Reset | Op::ResetAtDispatch => {
                let Some(abort) = last else { continue };
                seen = Some(count(abort));
                reset_told(if *op == Op::Reset {
                    sleep.reset_for_reuse(0, abort)
                } else {
                    at_dispatch(|| sleep.reset_for_reuse(0, abort))
                })
            }
        };
        let done = Done {
            thread,
            op: *op,
            seen,
            told,
            time: (begin.1, Instant::now()),
            order: (begin.0, tick()),
        };
        HISTORY.with_borrow_mut(|history| history.push(done));
    }
}

/// A whole case.
#[derive(Clone, Debug)]
struct Case {
    threads: Vec<Vec<Op>>,
    /// When the module is closed, in milliseconds.
    close_after: u64,
    schedule: Schedule,
}

/// What was told to whom, and when the module was closed: begun and ended.
fn run(case: &Case) -> Result<(Vec<Done>, (u64, u64)), String> {
    let mut probe = PROBE
        .take()
        .unwrap_or_else(|| Probe::started(Model::DRIVER_ENTRY, 0));
    HISTORY.take();
    probe
        .machine
        .reschedule(case.schedule.strategy.clone(), case.schedule.seed);
    let (threads, close_after) = (case.threads.clone(), case.close_after);
    let closed = probe.try_thread(move |irql| {
        let owner = OWNER.with_borrow(|owner| owner.as_deref().cloned().unwrap());
        let sleep = owner.create(irql, AlertableSleep::config()).unwrap();
        let threads: Vec<_> = (threads.into_iter().enumerate())
            .map(|(thread, ops)| {
                let sleep = sleep.handle().clone();
                let body = move |irql: &mut Irql<'_, Passive>| play(thread, &ops, &sleep, irql);
                Thread::spawn(irql, body).unwrap()
            })
            .collect();
        dmf::sync::delay(irql, Duration::from_millis(close_after));
        let begun = tick();
        sleep.close(irql);
        let closed = (begun, tick());
        for thread in threads {
            thread.join(irql);
        }
        closed
    });
    let closed = closed.map_err(|stop| stop.to_string())?;
    PROBE.set(Some(probe));
    Ok((HISTORY.take(), closed))
}

// ---- the model -----------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wait {
    Nobody,
    Waiting,
    Woken,
}

/// The slot, and the module around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of the model"
)]
struct Slot {
    /// New calls are let in.
    open: bool,
    closing: bool,
    taken: bool,
    wait: Wait,
    aborted: bool,
    aborts: u64,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Called,
    /// It was let in.
    In,
    /// A sleep that has taken the slot.
    Occupied,
    /// A sleep that waits, or was woken.
    Sleeping,
    /// A sleep that knows how it ends, and has not left.
    Leaving,
    Ended,
}

impl Slot {
    const fn new() -> Self {
        Self {
            open: true,
            closing: false,
            taken: false,
            wait: Wait::Nobody,
            aborted: false,
            aborts: 0,
        }
    }

    fn interruption(&self) -> Option<Told> {
        if self.closing {
            Some(Told::Closing)
        } else if self.aborted {
            Some(Told::Aborted(self.aborts))
        } else {
            None
        }
    }

    fn wake(&mut self) -> bool {
        let wakes = self.wait == Wait::Waiting;
        if wakes {
            self.wait = Wait::Woken;
        }
        wakes
    }

    /// The next step of an operation at `stage`, if the thread is to be told
    /// what it was told. There may be none, and is never more than one.
    fn step(mut self, done: &Done, stage: Stage) -> Option<(Self, Stage)> {
        let to = |stage| Some((self, stage));
        let ends = |as_told: bool| as_told.then_some((self, Stage::Ended));
        if stage == Stage::Called {
            return if self.open {
                to(Stage::In)
            } else {
                ends(done.told == Told::Refused)
            };
        }
        match (done.op, stage) {
            (Op::Pause(_), _) => None,
            (Op::TrySleep, _) => {
                if self.taken {
                    ends(done.told == Told::Busy)
                } else {
                    ends(done.told == self.interruption().unwrap_or(Told::Elapsed))
                }
            }
            (Op::Abort | Op::AbortAtDispatch | Op::AbortAll, _) => {
                self.aborted = true;
                self.aborts += 1;
                let woke = self.wake();
                (done.told == Told::Woke(woke)).then_some((self, Stage::Ended))
            }
            (Op::Reset | Op::ResetAtDispatch, _) => {
                if self.aborted && done.seen != Some(self.aborts) {
                    return ends(done.told == Told::StillAborted);
                }
                self.aborted = false;
                (done.told == Told::Ready).then_some((self, Stage::Ended))
            }
            (Op::Sleep(_), Stage::In) => {
                if self.taken {
                    return ends(done.told == Told::Busy);
                }
                self.taken = true;
                Some((self, Stage::Occupied))
            }
            (Op::Sleep(_), Stage::Occupied) => match self.interruption() {
                Some(told) if told == done.told => to(Stage::Leaving),
                Some(_) => None,
                None => {
                    self.wait = Wait::Waiting;
                    Some((self, Stage::Sleeping))
                }
            },
            (Op::Sleep(_), Stage::Sleeping) => {
                let told = match self.wait {
                    Wait::Waiting => Told::Elapsed,
                    // Somebody may have reset the abort since.
                    _ => self.interruption().unwrap_or(Told::Aborted(self.aborts)),
                };
                self.wait = Wait::Nobody;
                (told == done.told).then_some((self, Stage::Leaving))
            }
            (Op::Sleep(_), _) => {
                self.taken = false;
                Some((self, Stage::Ended))
            }
        }
    }
}

/// Whether there is an order of the model's steps that explains what was told.
fn is_explained(history: &[Done], closed: (u64, u64)) -> bool {
    // A close is an operation of two steps.
    let stages = vec![Stage::Called; history.len() + 1];
    let mut seen = HashSet::new();
    let mut open = vec![(Slot::new(), stages)];
    while let Some((slot, stages)) = open.pop() {
        if stages.iter().all(|stage| *stage == Stage::Ended) {
            return true;
        }
        if !seen.insert((slot, stages.clone())) {
            continue;
        }
        let order = |at: usize| history.get(at).map_or(closed, |done| done.order);
        let first_return = (0..stages.len())
            .filter(|at| stages[*at] != Stage::Ended)
            .map(|at| order(at).1)
            .min()
            .unwrap();
        for at in 0..stages.len() {
            // What was called after another returned cannot come before it.
            if stages[at] == Stage::Ended || order(at).0 > first_return {
                continue;
            }
            let next = match history.get(at) {
                Some(done) => slot.step(done, stages[at]),
                None => close(slot, stages[at], &stages),
            };
            if let Some((slot, stage)) = next {
                let mut stages = stages.clone();
                stages[at] = stage;
                open.push((slot, stages));
            }
        }
    }
    false
}

/// The close of the module: it lets nobody in any more, wakes, and waits.
fn close(mut slot: Slot, stage: Stage, all: &[Stage]) -> Option<(Slot, Stage)> {
    match stage {
        Stage::Called => {
            slot.open = false;
            Some((slot, Stage::In))
        }
        Stage::In => {
            slot.closing = true;
            slot.wake();
            Some((slot, Stage::Leaving))
        }
        _ => {
            let (_, methods) = all.split_last().unwrap();
            let all_left = methods
                .iter()
                .all(|stage| matches!(stage, Stage::Called | Stage::Ended));
            all_left.then_some((slot, Stage::Ended))
        }
    }
}

/// What a sleep was told is what the clock says.
fn check_clock(done: &Done, history: &[Done]) -> Result<(), String> {
    let Op::Sleep(asked) = done.op else {
        return Ok(());
    };
    let asked = Duration::from_millis(asked);
    let slept = done.time.1.since(done.time.0);
    let in_time = match done.told {
        Told::Elapsed => asked <= slept && slept <= asked + 2 * TICK,
        Told::Aborted(_) => {
            // At once, or at the time of an abort: nobody oversleeps.
            slept.is_zero()
                || history.iter().any(|other| {
                    matches!(other.told, Told::Woke(true)) && other.time.1 == done.time.1
                })
        }
        _ => true,
    };
    in_time
        .then_some(())
        .ok_or_else(|| format!("{done:?} took {slept:?}"))
}

/// The clock tick of the simulated machine.
const TICK: Duration = Duration::from_micros(15_625);

fn check(case: &Case) -> Result<(), String> {
    let (history, closed) = run(case)?;
    for done in &history {
        check_clock(done, &history)?;
    }
    if is_explained(&history, closed) {
        return Ok(());
    }
    let mut lines: Vec<_> = history
        .iter()
        .map(|done| {
            (
                done.order,
                format!(
                    "thread {}: {:?} {:?} → {:?}",
                    done.thread, done.op, done.seen, done.told
                ),
            )
        })
        .chain([(closed, "close".to_owned())])
        .collect();
    lines.sort();
    let lines: Vec<_> = lines
        .into_iter()
        .map(|((from, to), line)| format!("  {from:4} to {to:4}  {line}"))
        .collect();
    Err(format!("no order of steps explains\n{}", lines.join("\n")))
}

fn ops() -> impl Strategy<Value = Op> {
    let times = || prop::sample::select(vec![0, 1, 20, 40]);
    prop_oneof![
        3 => times().prop_map(Op::Sleep),
        1 => Just(Op::TrySleep),
        2 => Just(Op::Abort),
        1 => Just(Op::AbortAtDispatch),
        1 => Just(Op::AbortAll),
        2 => Just(Op::Reset),
        1 => Just(Op::ResetAtDispatch),
        1 => times().prop_map(Op::Pause),
    ]
}

#[test]
fn what_threads_are_told_is_what_the_model_tells_them() {
    let threads = prop::collection::vec(prop::collection::vec(ops(), 1..5), 1..5);
    let close_after = prop_oneof![Just(500), prop::sample::select(vec![0, 1, 20, 40])];
    let cases =
        (threads, close_after, schedules(60)).prop_map(|(threads, close_after, schedule)| Case {
            threads,
            close_after,
            schedule,
        });
    explore(500, cases, |case| check(&case));
    // The machine's rules, and what is left behind.
    if let Some(mut probe) = PROBE.take() {
        probe.thread(|_| drop(OWNER.take().map(ManuallyDrop::into_inner)));
        probe.remove();
    }
}
