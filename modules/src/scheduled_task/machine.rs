// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one state machine of a task: what is pending, who runs, what is allowed.
//!
//! It is plain data under one lock. Timer, worker, hooks and methods do nothing
//! but tell it an event, and then what its answer, [`Effects`], says.
//!
//! Time is interrupt time since the system started.

use core::mem;

use dmf::NtStatus;
use dmf::thread::ThreadId;
use dmf::time::{Instant, Span};

use super::queue::Queue;
use super::{TaskResult, Trigger};

/// # Invariants
/// - The timer is `Remembered` only while down, and `Armed` or `Due` only while up.
/// - A task that is done has no timer and no attempts pending.
/// - A task that is cancelled has nothing pending.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a pair of words of the table of states"
)]
pub(super) struct Machine<C> {
    /// Between the moment's callback and the one that undoes it.
    up: bool,
    /// Everything is refused until `restart`.
    cancelled: bool,
    /// The task has succeeded, and does not run again.
    done: bool,
    /// The thread that runs the task, or is about to.
    runner: Option<ThreadId>,
    timer: Scheduled,
    /// It was stopped without waiting, or started while it was armed: then a
    /// callback may come that was meant for an earlier time.
    timer_is_overtaken: bool,
    /// Runs on demand whose result counts.
    attempts: usize,
    /// Runs on demand whose result does not count.
    runs: Queue<C>,
    /// Attempts since the last that did not ask to try again.
    count: u64,
    /// How often in a row an attempt has ended with `FailButTryAgain`.
    failures: u32,
    /// The attempt that runs was overtaken by a cancel.
    overtaken: bool,
    /// What the attempt that runs will have done was declared undone.
    reset: bool,
    /// A success is not in the registry yet.
    unwritten: bool,
    /// Somebody writes the persistent value.
    writing: bool,
    /// How many wait for that.
    writers: u32,
}

/// What the timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduled {
    Nothing,
    /// The timer is queued, and due at this time.
    Armed(Instant),
    /// The timer has fired, and the run has not begun.
    Due,
    /// While not up: to be armed anew with this delay.
    Remembered(Span),
}

/// What an event has the module do.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Under the machine's lock, so that the timer is what the machine says.
    pub(super) timer: TimerEffect,
    /// Call a worker: there is something to run, and nobody who does.
    pub(super) worker: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TimerEffect {
    #[default]
    Leave,
    Start(Span),
    Stop,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<C> {
    /// An attempt, whose result counts.
    Attempt(Trigger),
    /// A run whose result does not count.
    Run(C),
}

/// How long after an attempt the next one is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Periods {
    pub(super) on_fail: Span,
    pub(super) on_success: Span,
    /// Doubles `on_fail` with each failure in a row, up to this.
    pub(super) back_off: Option<Span>,
    /// How many failures in a row are followed by a retry; more than can be
    /// counted if there is no limit.
    pub(super) retry_limit: u32,
}

impl Periods {
    /// The period after that many failures in a row.
    fn after_failures(&self, failures: u32) -> Span {
        let Some(longest) = self.back_off else {
            return self.on_fail;
        };
        let factor = 1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        // Never shorter than without the option.
        self.on_fail
            .saturating_mul(factor)
            .min(longest)
            .max(self.on_fail)
    }
}

/// What kind of attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Immediate,
    Deferred,
}

/// What is left until `due`, if it is more than a tick.
#[cold]
fn rest(due: Instant, now: Instant, tick: Span) -> Option<Span> {
    (now.saturating_add(tick) < due).then(|| due.span_since(now))
}

impl<C> Machine<C> {
    /// A task that has not run, and is up or not.
    pub(super) const fn new(up: bool) -> Self {
        Self {
            up,
            cancelled: false,
            done: false,
            runner: None,
            timer: Scheduled::Nothing,
            timer_is_overtaken: false,
            attempts: 0,
            runs: Queue::new(),
            count: 0,
            failures: 0,
            overtaken: false,
            reset: false,
            unwritten: false,
            writing: false,
            writers: 0,
        }
    }

    /// The moment of a deferred task has come. What was pending before the
    /// device went down goes before the first run.
    pub(super) fn moment(&mut self, initial_delay: Span, now: Instant) -> Effects {
        if self.timer == Scheduled::Nothing && !self.done && !self.cancelled {
            self.timer = Scheduled::Remembered(initial_delay);
        }
        self.resume(|| now)
    }

    /// Comes up: what was remembered is armed anew.
    pub(super) fn resume(&mut self, now: impl FnOnce() -> Instant) -> Effects {
        self.up = true;
        self.arm_remembered(now)
    }

    fn arm_remembered(&mut self, now: impl FnOnce() -> Instant) -> Effects {
        match self.timer {
            Scheduled::Remembered(delay) => self.arm(delay, now),
            _ => self.effects(TimerEffect::Leave),
        }
    }

    /// Arms the timer, or remembers to.
    #[inline]
    fn arm(&mut self, delay: Span, now: impl FnOnce() -> Instant) -> Effects {
        let timer = if self.up {
            if matches!(self.timer, Scheduled::Armed(_)) {
                self.timer_is_overtaken = true;
            }
            self.timer = Scheduled::Armed(now().saturating_add(delay));
            TimerEffect::Start(delay)
        } else {
            self.timer = Scheduled::Remembered(delay);
            TimerEffect::Leave
        };
        self.effects(timer)
    }

    fn effects(&self, timer: TimerEffect) -> Effects {
        Effects {
            timer,
            worker: self.wants_worker(),
        }
    }

    /// Goes down: what the timer was for is kept, and what is left of its delay.
    /// The whole delay might never pass between two power cycles. The caller
    /// stops the timer, and waits for it, so that no callback of it is left.
    pub(super) fn pause(&mut self, now: Instant) {
        self.up = false;
        self.timer_is_overtaken = false;
        self.timer = match self.timer {
            Scheduled::Armed(due) => Scheduled::Remembered(due.span_since(now)),
            Scheduled::Due => Scheduled::Remembered(Span::ZERO),
            other => other,
        };
    }

    /// The timer has fired. If meanwhile it was stopped, that counts; and if it
    /// was started anew, it is started for what is left of its delay.
    ///
    /// ```text
    ///   timer                         others
    ///   fires
    ///                                 stop; start anew
    ///   callback: not due yet
    /// ```
    ///
    /// It fires on a clock tick, which may be `tick` before the precise time.
    #[inline]
    pub(super) fn timer_fired(&mut self, now: impl FnOnce() -> Instant, tick: Span) -> Effects {
        let Scheduled::Armed(due) = self.timer else {
            return self.effects(TimerEffect::Leave);
        };
        if self.timer_is_overtaken
            && let Some(rest) = rest(due, now(), tick)
        {
            return self.effects(TimerEffect::Start(rest));
        }
        self.timer = Scheduled::Due;
        self.effects(TimerEffect::Leave)
    }

    /// Asks for a run whose result counts.
    pub(super) fn request_attempt(&mut self) -> Result<Effects, NtStatus> {
        if self.cancelled {
            return Err(NtStatus::CANCELLED);
        }
        if !self.done {
            self.attempts = self.attempts.saturating_add(1);
        }
        Ok(self.effects(TimerEffect::Leave))
    }

    /// Asks for a run whose result does not count. If it is refused, the
    /// context comes back: it is not dropped under the lock.
    pub(super) fn request_run(&mut self, context: C) -> Result<Effects, (NtStatus, C)> {
        if self.cancelled {
            return Err((NtStatus::CANCELLED, context));
        }
        self.runs.push(context)?;
        Ok(Effects {
            timer: TimerEffect::Leave,
            // There is something to run.
            worker: self.runner.is_none() && self.up,
        })
    }

    /// Whether a run may begin on this thread now.
    pub(super) fn allows_run(&self) -> Result<(), NtStatus> {
        if self.cancelled {
            Err(NtStatus::CANCELLED)
        } else if self.up {
            Ok(())
        } else {
            Err(NtStatus::INVALID_DEVICE_STATE)
        }
    }

    /// Forgets what is pending, and refuses everything. The contexts that were
    /// pending come back: they are not dropped under the lock.
    ///
    /// The timer is stopped under the lock. Later would be too late:
    ///
    /// ```text
    ///   cancel                            others
    ///   lock: cancelled
    ///                                     restart, a run: armed, timer started
    ///   stop: armed, but no timer
    /// ```
    ///
    /// Its callback may still come. It finds nothing due.
    pub(super) fn cancel(&mut self) -> (Effects, Queue<C>) {
        self.cancelled = true;
        self.overtaken = true;
        self.count = 0;
        self.failures = 0;
        let contexts = mem::replace(&mut self.runs, Queue::new());
        (self.forget_attempts(), contexts)
    }

    /// No attempt is pending any more.
    fn forget_attempts(&mut self) -> Effects {
        self.attempts = 0;
        let timer = match mem::replace(&mut self.timer, Scheduled::Nothing) {
            Scheduled::Armed(_) => {
                self.timer_is_overtaken = true;
                TimerEffect::Stop
            }
            _ => TimerEffect::Leave,
        };
        self.effects(timer)
    }

    /// Everything is allowed again.
    pub(super) fn restart(&mut self) {
        self.cancelled = false;
    }

    /// Declares that the task has not run. A turn that has begun does not change that.
    pub(super) fn set_undone(&mut self) {
        self.reset = true;
        self.unwritten = false;
        self.done = false;
    }

    /// Declares that the task has run.
    pub(super) fn set_done(&mut self) -> Effects {
        self.done = true;
        self.forget_attempts()
    }

    /// The registry says that the task has run.
    pub(super) fn found_done(&mut self) -> Effects {
        if self.still_counts() {
            self.set_done()
        } else {
            self.effects(TimerEffect::Leave)
        }
    }

    /// The success of the attempt is to be written later.
    pub(super) fn write_later(&mut self) {
        self.unwritten = self.still_counts();
    }

    /// Whether there is a success that is to be written now, and still counts.
    pub(super) fn take_unwritten(&mut self) -> bool {
        mem::take(&mut self.unwritten)
    }

    /// Becomes the one who writes the persistent value, if nobody is. Else the
    /// caller waits until it has been written, and asks again.
    ///
    /// Whoever changes the value and what the machine says of it does both
    /// meanwhile, so that the two say the same.
    pub(super) fn begin_writing(&mut self, waited: bool) -> bool {
        if waited {
            self.writers -= 1;
        }
        let begins = !self.writing;
        if begins {
            self.writing = true;
        } else {
            self.writers += 1;
        }
        begins
    }

    /// Stops being that. Tells whether others wait for it.
    #[must_use]
    pub(super) fn end_writing(&mut self) -> bool {
        self.writing = false;
        self.writers > 0
    }

    /// Whether nobody has reset the task since the attempt began.
    pub(super) fn still_counts(&self) -> bool {
        !self.reset
    }

    pub(super) fn is_running(&self) -> bool {
        self.runner.is_some()
    }

    pub(super) fn runs_on(&self, thread: ThreadId) -> bool {
        self.runner == Some(thread)
    }

    /// Whether there is something to run and nobody who does.
    fn wants_worker(&self) -> bool {
        self.runner.is_none()
            && self.up
            && !self.cancelled
            && (self.timer == Scheduled::Due || self.attempts > 0 || !self.runs.is_empty())
    }

    /// Becomes the one who runs the task, if nobody is.
    pub(super) fn begin(&mut self, thread: ThreadId) -> bool {
        let begins = self.runner.is_none();
        if begins {
            self.runner = Some(thread);
        }
        begins
    }

    /// Becomes the one who runs the task, if nobody is and there is something to
    /// run, and takes the first turn.
    pub(super) fn begin_turns(&mut self, thread: ThreadId) -> Option<(Turn<C>, u64)> {
        if self.runner.is_some() {
            return None;
        }
        let turn = self.take_turn()?;
        self.runner = Some(thread);
        Some(turn)
    }

    /// Whether there is a success that may have to be written.
    pub(super) fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// Stops being the one who runs the task. A worker does what has been noted
    /// meanwhile.
    pub(super) fn end(&mut self) -> Effects {
        self.runner = None;
        let effects = self.effects(TimerEffect::Leave);
        Effects {
            worker: effects.worker || self.unwritten,
            ..effects
        }
    }

    /// What the one who runs the task does next, and which attempt it is. If it is nothing, he stops
    /// being that in the same moment: a note that comes later finds nobody
    /// running, and its author calls a worker.
    #[inline]
    pub(super) fn next_turn(&mut self) -> Option<(Turn<C>, u64)> {
        let turn = self.take_turn();
        if turn.is_none() {
            self.runner = None;
        }
        turn
    }

    #[inline]
    fn take_turn(&mut self) -> Option<(Turn<C>, u64)> {
        if !self.up {
            return None;
        }
        if self.timer == Scheduled::Due {
            self.timer = Scheduled::Nothing;
            return Some((Turn::Attempt(Trigger::Scheduled), self.next_attempt()));
        }
        if let Some(rest) = self.attempts.checked_sub(1) {
            self.attempts = rest;
            return Some((Turn::Attempt(Trigger::OnDemand), self.next_attempt()));
        }
        let context = self.runs.pop()?;
        Some((Turn::Run(context), 1))
    }

    /// The attempt of an immediate task, unless it is done or cancelled.
    pub(super) fn immediate_attempt(&mut self) -> Option<u64> {
        (!self.done && !self.cancelled).then(|| self.next_attempt())
    }

    /// The number of the attempt that begins.
    fn next_attempt(&mut self) -> u64 {
        self.begin_attempt();
        // More than there is time for.
        self.count += 1;
        self.count
    }

    /// Whether the task has run is about to be found out.
    pub(super) fn begin_attempt(&mut self) {
        self.overtaken = false;
        self.reset = false;
    }

    /// An attempt has ended. If the task wants to run again and may, the timer
    /// is started, or while not up that is remembered.
    pub(super) fn finish(
        &mut self,
        after: After,
        result: Option<TaskResult>,
        periods: &Periods,
        now: impl FnOnce() -> Instant,
    ) -> Effects {
        if result == Some(TaskResult::Success) {
            self.succeed()
        } else {
            self.try_again(after, result, periods, now)
        }
    }

    /// [`finish`](Self::finish) after a success.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each success goes through it")]
    pub(super) fn succeed(&mut self) -> Effects {
        self.count = 0;
        self.failures = 0;
        self.found_done()
    }

    /// [`finish`](Self::finish) after anything but a success.
    ///
    /// If the task was cancelled since the attempt began it may not run again,
    /// even if it was restarted meanwhile.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each retry goes through it")]
    pub(super) fn try_again(
        &mut self,
        after: After,
        result: Option<TaskResult>,
        periods: &Periods,
        now: impl FnOnce() -> Instant,
    ) -> Effects {
        let delay = match (result, after) {
            (Some(TaskResult::FailButTryAgain), After::Deferred) => {
                // After 4 billion failures in a row the back-off begins anew.
                self.failures = self.failures.wrapping_add(1);
                (self.failures <= periods.retry_limit)
                    .then(|| periods.after_failures(self.failures))
            }
            (Some(TaskResult::SuccessButTryAgain), _) => {
                self.failures = 0;
                Some(periods.on_success)
            }
            // The hook fails: no timer stays behind a device that does not start.
            _ => None,
        };
        // It began while it was not cancelled.
        if let Some(delay) = delay
            && !self.overtaken
            && !self.done
        {
            return self.arm(delay, now);
        }
        self.count = 0;
        self.failures = 0;
        self.effects(TimerEffect::Leave)
    }
}

#[cfg(test)]
mod table;

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    pub(super) const fn seconds(seconds: u64) -> Span {
        Span::new(core::time::Duration::from_secs(seconds))
    }

    pub(super) const PERIOD: Span = seconds(5);
    pub(super) const PERIODS: Periods = Periods {
        on_fail: PERIOD,
        on_success: seconds(10),
        back_off: None,
        retry_limit: u32::MAX,
    };
    pub(super) const TICK: Span = Span::new(core::time::Duration::from_millis(15));
    pub(super) const NOW: Instant = Instant::from_units(seconds(100).units());

    fn up() -> Machine<()> {
        Machine::new(true)
    }

    fn end(machine: &mut Machine<()>, result: TaskResult) -> TimerEffect {
        machine
            .finish(After::Deferred, Some(result), &PERIODS, || NOW)
            .timer
    }

    #[test]
    fn what_is_left_of_a_delay_is_armed_again() {
        let mut machine = up();
        let started = machine.moment(PERIOD, NOW);
        assert_eq!(started.timer, TimerEffect::Start(PERIOD));
        let later = NOW.saturating_add(seconds(2));
        machine.pause(later);
        let resumed = machine.resume(|| later.saturating_add(PERIOD));
        assert_eq!(resumed.timer, TimerEffect::Start(seconds(3)));
        machine.pause(later.saturating_add(seconds(15)));
        let resumed = machine.resume(|| NOW);
        assert_eq!(resumed.timer, TimerEffect::Start(Span::ZERO));
    }

    #[test]
    fn a_timer_that_fired_while_going_down_is_not_lost() {
        let mut machine = up();
        let _ = machine.moment(PERIOD, NOW);
        let _ = machine.timer_fired(|| NOW.saturating_add(PERIOD), TICK);
        machine.pause(NOW.saturating_add(PERIOD));
        let resumed = machine.resume(|| NOW);
        assert_eq!(resumed.timer, TimerEffect::Start(Span::ZERO));
    }

    #[test]
    fn a_callback_of_a_timer_that_was_started_anew_starts_it_for_the_rest() {
        let mut machine = up();
        let _ = machine.moment(PERIOD, NOW);
        let _ = machine.cancel();
        machine.restart();
        let _ = machine.moment(PERIOD, NOW);
        let early = machine.timer_fired(|| NOW.saturating_add(seconds(1)), TICK);
        assert_eq!(early.timer, TimerEffect::Start(seconds(4)));
        assert!(!early.worker);
        // A clock tick may be a little early.
        let on_the_tick = NOW.saturating_add(Span::new(core::time::Duration::from_millis(4985)));
        assert!(machine.timer_fired(|| on_the_tick, TICK).worker);
    }

    #[test]
    fn the_clock_is_looked_at_only_after_the_timer_was_overtaken() {
        let overtaken = |event: fn(&mut Machine<()>)| {
            let mut machine = up();
            let _ = machine.moment(PERIOD, NOW);
            event(&mut machine);
            let before = machine.timer;
            let _ = machine.timer_fired(|| NOW, TICK);
            machine.timer == before
        };
        assert!(!overtaken(|_| {}));
        assert!(overtaken(|machine| {
            let _ = machine.set_done();
            machine.set_undone();
            let _ = machine.moment(PERIOD, NOW);
        }));
        let try_again: fn(&mut Machine<()>) = |machine| {
            machine.next_attempt();
            end(machine, TaskResult::FailButTryAgain);
        };
        assert!(overtaken(try_again));
        // Who pauses waits for the timer.
        assert!(!overtaken(|machine| {
            machine.next_attempt();
            end(machine, TaskResult::FailButTryAgain);
            machine.pause(NOW);
            let _ = machine.resume(|| NOW);
        }));
    }

    #[test]
    fn one_at_a_time_writes_and_the_others_are_told() {
        let mut machine = up();
        assert!(machine.begin_writing(false));
        assert!(!machine.begin_writing(false));
        assert!(machine.end_writing(), "one waits");
        assert!(machine.begin_writing(true));
        assert!(!machine.end_writing());
    }

    #[test]
    fn each_result_has_its_period() {
        for (result, period) in [
            (TaskResult::FailButTryAgain, PERIODS.on_fail),
            (TaskResult::SuccessButTryAgain, PERIODS.on_success),
        ] {
            let mut machine = up();
            machine.next_attempt();
            assert_eq!(end(&mut machine, result), TimerEffect::Start(period));
            // And not from the end of the attempt, but of the way down.
            machine.pause(NOW);
            assert_eq!(machine.resume(|| NOW).timer, TimerEffect::Start(period));
        }
    }

    #[test]
    fn a_success_that_was_reset_before_it_was_written_is_not_written() {
        let mut machine = up();
        machine.next_attempt();
        machine.write_later();
        assert!(machine.end().worker, "somebody has to write it");
        assert!(machine.take_unwritten());
        assert!(!machine.take_unwritten());
        assert!(!machine.end().worker);
        machine.write_later();
        machine.set_undone();
        assert!(!machine.take_unwritten());
    }

    #[test]
    fn the_period_doubles_up_to_the_longest_and_never_overflows() {
        let periods = Periods {
            back_off: Some(seconds(25)),
            ..PERIODS
        };
        let whole_seconds = |failures| periods.after_failures(failures).units() / 10_000_000;
        assert_eq!(
            [1, 2, 3, 4, 32, 33, u32::MAX].map(whole_seconds),
            [5, 10, 20, 25, 25, 25, 25]
        );
        let shorter = Periods {
            back_off: Some(seconds(1)),
            ..PERIODS
        };
        assert_eq!(shorter.after_failures(3), PERIOD);
    }

    #[test]
    fn the_retry_limit_counts_failures_in_a_row() {
        use TaskResult::{FailButTryAgain, SuccessButTryAgain};
        let periods = Periods {
            retry_limit: 1,
            ..PERIODS
        };
        let mut machine = up();
        let mut retried = |result| {
            machine.next_attempt();
            let effects = machine.finish(After::Deferred, Some(result), &periods, || NOW);
            effects.timer != TimerEffect::Leave
        };
        assert!(retried(FailButTryAgain));
        assert!(retried(SuccessButTryAgain));
        assert!(retried(FailButTryAgain));
        assert!(!retried(FailButTryAgain));
        // That was the end of it. The next begins anew.
        assert!(retried(FailButTryAgain));
    }

    #[test]
    fn attempts_are_counted_until_one_does_not_ask_for_another() {
        let mut machine = up();
        assert_eq!(machine.next_attempt(), 1);
        end(&mut machine, TaskResult::FailButTryAgain);
        assert_eq!(machine.next_attempt(), 2);
        end(&mut machine, TaskResult::Fail);
        assert_eq!(machine.next_attempt(), 1);
        let _ = machine.cancel();
        machine.restart();
        assert_eq!(machine.next_attempt(), 1);
    }

    #[test]
    fn contexts_come_out_in_the_order_in_which_they_came_in() {
        ntsim::run(|| {
            let mut machine = Machine::new(true);
            let mut out = Vec::new();
            let mut take = |machine: &mut Machine<u32>| {
                out.push(machine.next_turn().map(|(turn, _)| turn));
            };
            let _ = machine.request_run(1);
            let _ = machine.request_run(2);
            take(&mut machine);
            let _ = machine.request_run(3);
            for _ in 0..3 {
                take(&mut machine);
            }
            let run = |context| Some(Turn::Run(context));
            assert_eq!(out, [run(1), run(2), run(3), None]);
        });
    }
}
