// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one state machine of a task: what is pending, who runs, what is allowed.
//!
//! It is plain data under one lock. Timer, worker, hooks and methods do nothing
//! but change it, and then what it says.
//!
//! Time is interrupt time since the system started.

use core::time::Duration;

use dmf::thread::ThreadId;

use super::{TaskResult, Trigger};

#[derive(Debug)]
pub(super) struct Machine {
    /// Between the moment's callback and the one that undoes it.
    pub(super) up: bool,
    /// Everything is refused until `restart`.
    pub(super) cancelled: bool,
    /// The task has succeeded, and does not run again.
    pub(super) done: bool,
    /// The thread that runs the task, or is about to.
    pub(super) runner: Option<ThreadId>,
    scheduled: Scheduled,
    /// Runs on demand whose result counts.
    pub(super) attempts: usize,
    /// Runs on demand whose result does not count.
    pub(super) runs: usize,
    /// Attempts since the last that did not ask to try again.
    count: u32,
    /// How often in a row an attempt has ended with `FailButTryAgain`.
    failures: u32,
    /// How often the task was cancelled.
    cancels: u64,
    /// How often what it has done was declared undone.
    resets: u64,
    /// An attempt whose success is not in the registry yet.
    unwritten: Option<Begun>,
}

/// What the timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduled {
    Nothing,
    /// The timer is queued, and due at this time.
    Armed(Duration),
    /// The timer has fired, and the run has not begun.
    Due,
    /// While not up: to be armed anew with this delay.
    Remembered(Duration),
}

/// What there was when a turn began. What came later is not undone by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Which attempt it is.
    pub(super) attempt: u32,
    cancels: u64,
    resets: u64,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The result counts.
    Attempt(Trigger),
    /// The result does not count.
    Run,
}

/// How long after an attempt the next one is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Periods {
    pub(super) on_fail: Duration,
    pub(super) on_success: Duration,
    /// Doubles `on_fail` with each failure in a row, up to this.
    pub(super) back_off: Option<Duration>,
    /// How many failures in a row are followed by a retry.
    pub(super) retry_limit: Option<u32>,
}

impl Periods {
    fn retry(&self, after: After, result: Option<TaskResult>, failures: u32) -> Option<Duration> {
        match (result, after) {
            (Some(TaskResult::SuccessButTryAgain), _) => Some(self.on_success),
            (Some(TaskResult::FailButTryAgain), After::Deferred) => self
                .retry_limit
                .is_none_or(|limit| failures <= limit)
                .then(|| self.after_failures(failures)),
            // The hook fails: no timer stays behind a device that does not start.
            (Some(TaskResult::FailButTryAgain), After::Immediate)
            | (Some(TaskResult::Fail | TaskResult::Success) | None, _) => None,
        }
    }

    /// The period after that many failures in a row.
    fn after_failures(&self, failures: u32) -> Duration {
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

impl Machine {
    pub(super) const fn new() -> Self {
        Self {
            up: false,
            cancelled: false,
            done: false,
            runner: None,
            scheduled: Scheduled::Nothing,
            attempts: 0,
            runs: 0,
            count: 0,
            failures: 0,
            cancels: 0,
            resets: 0,
            unwritten: None,
        }
    }

    /// The moment of a deferred task has come. What was pending before the
    /// device went down goes before the first run.
    pub(super) fn schedule_first(&mut self, initial_delay: Duration) {
        if self.scheduled == Scheduled::Nothing && !self.done && !self.cancelled {
            self.scheduled = Scheduled::Remembered(initial_delay);
        }
    }

    /// Coming up: the delay with which to start the timer, if it was for something.
    pub(super) fn arm_remembered(&mut self, now: Duration) -> Option<Duration> {
        match self.scheduled {
            Scheduled::Remembered(delay) if self.up && !self.done && !self.cancelled => {
                self.scheduled = Scheduled::Armed(now.saturating_add(delay));
                Some(delay)
            }
            _ => None,
        }
    }

    /// Going down: what the timer was for is kept, and what is left of its delay.
    /// The whole delay might never pass between two power cycles.
    pub(super) fn remember(&mut self, now: Duration) {
        self.scheduled = match self.scheduled {
            Scheduled::Armed(due) => Scheduled::Remembered(due.saturating_sub(now)),
            Scheduled::Due => Scheduled::Remembered(Duration::ZERO),
            other => other,
        };
    }

    /// The timer has fired. If meanwhile it was stopped, that counts; and if it
    /// was started anew, what is left of its delay is returned.
    ///
    /// ```text
    ///   timer                         others
    ///   fires
    ///                                 stop; start anew
    ///   callback: not due yet
    /// ```
    ///
    /// It fires on a clock tick, which may be `tick` before the precise time.
    pub(super) fn timer_fired(&mut self, now: Duration, tick: Duration) -> Option<Duration> {
        let Scheduled::Armed(due) = self.scheduled else {
            return None;
        };
        if now.saturating_add(tick) < due {
            return Some(due.saturating_sub(now));
        }
        self.scheduled = Scheduled::Due;
        None
    }

    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        self.cancels += 1;
        self.scheduled = Scheduled::Nothing;
        self.attempts = 0;
        self.runs = 0;
        self.count = 0;
        self.failures = 0;
    }

    /// Declares that the task has not run. A turn that has begun does not change that.
    pub(super) fn reset(&mut self) {
        self.resets += 1;
        self.done = false;
    }

    /// The success of the attempt is to be written later.
    pub(super) fn write_later(&mut self, begun: Begun) {
        self.unwritten = Some(begun);
    }

    pub(super) fn is_unwritten(&self) -> bool {
        self.unwritten.is_some()
    }

    /// Whether there is a success that is to be written now, and still counts.
    pub(super) fn take_unwritten(&mut self) -> bool {
        self.unwritten
            .take()
            .is_some_and(|begun| self.still_counts(begun))
    }

    /// Whether nobody has reset the task since the turn began.
    pub(super) fn still_counts(&self, begun: Begun) -> bool {
        self.resets == begun.resets
    }

    /// The registry says that the task has run.
    pub(super) fn found_done(&mut self, begun: Begun) {
        if self.still_counts(begun) {
            self.done = true;
        }
    }

    pub(super) fn runs_on(&self, thread: ThreadId) -> bool {
        self.runner == Some(thread)
    }

    /// Whether there is something to run and nobody who does.
    pub(super) fn wants_worker(&self) -> bool {
        self.runner.is_none()
            && self.up
            && !self.cancelled
            && (self.scheduled == Scheduled::Due || self.attempts > 0 || self.runs > 0)
    }

    /// What the one who runs the task does next.
    pub(super) fn next_turn(&mut self) -> Option<(Turn, Begun)> {
        if !self.up || self.cancelled {
            return None;
        }
        if self.scheduled == Scheduled::Due {
            self.scheduled = Scheduled::Nothing;
            if !self.done {
                return Some((Turn::Attempt(Trigger::Scheduled), self.next_attempt()));
            }
        }
        if self.done {
            self.attempts = 0;
        }
        if let Some(rest) = self.attempts.checked_sub(1) {
            self.attempts = rest;
            return Some((Turn::Attempt(Trigger::OnDemand), self.next_attempt()));
        }
        self.runs = self.runs.checked_sub(1)?;
        Some((Turn::Run, self.begun(1)))
    }

    pub(super) fn next_attempt(&mut self) -> Begun {
        self.count = self.count.saturating_add(1);
        self.begun(self.count)
    }

    pub(super) const fn begun(&self, attempt: u32) -> Begun {
        Begun {
            attempt,
            cancels: self.cancels,
            resets: self.resets,
        }
    }

    /// An attempt has ended: the delay with which to start the timer, if the
    /// task wants to run again and may. While not up, that is remembered.
    ///
    /// If the task was cancelled since the attempt began it may not, even if it
    /// was restarted meanwhile.
    pub(super) fn finish(
        &mut self,
        after: After,
        begun: Begun,
        result: Option<TaskResult>,
        periods: &Periods,
        now: Duration,
    ) -> Option<Duration> {
        if result == Some(TaskResult::Success) && self.still_counts(begun) {
            self.done = true;
            self.scheduled = Scheduled::Nothing;
        }
        self.failures = match result {
            Some(TaskResult::FailButTryAgain) => self.failures.saturating_add(1),
            _ => 0,
        };
        let may_retry = !self.cancelled && self.cancels == begun.cancels;
        let retry = periods.retry(after, result, self.failures);
        let Some(delay) = retry.filter(|_| may_retry) else {
            self.count = 0;
            self.failures = 0;
            return None;
        };
        self.scheduled = Scheduled::Remembered(delay);
        self.arm_remembered(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);
    const PERIODS: Periods = Periods {
        on_fail: PERIOD,
        on_success: Duration::from_secs(10),
        back_off: None,
        retry_limit: None,
    };
    const TICK: Duration = Duration::from_millis(15);
    const NOW: Duration = Duration::from_secs(100);

    fn up() -> Machine {
        Machine {
            up: true,
            ..Machine::new()
        }
    }

    /// The machine's next turn ends with `result`.
    fn end(machine: &mut Machine, begun: Begun, result: TaskResult) -> Option<Duration> {
        machine.finish(After::Deferred, begun, Some(result), &PERIODS, NOW)
    }

    fn turn(machine: &mut Machine) -> Option<(Turn, u32)> {
        machine
            .next_turn()
            .map(|(turn, begun)| (turn, begun.attempt))
    }

    #[test]
    fn a_retry_that_is_pending_at_power_down_is_armed_again() {
        let mut machine = up();
        let begun = machine.next_attempt();
        assert_eq!(
            end(&mut machine, begun, TaskResult::FailButTryAgain),
            Some(PERIOD)
        );
        machine.up = false;
        machine.remember(NOW);
        assert_eq!(machine.arm_remembered(NOW), None);
        machine.up = true;
        machine.schedule_first(Duration::ZERO);
        assert_eq!(machine.arm_remembered(NOW), Some(PERIOD));
    }

    #[test]
    fn what_is_left_of_a_delay_is_armed_again() {
        let mut machine = up();
        machine.schedule_first(PERIOD);
        machine.arm_remembered(NOW);
        let later = NOW + PERIOD * 2 / 5;
        machine.remember(later);
        assert_eq!(machine.arm_remembered(later + PERIOD), Some(PERIOD * 3 / 5));
        machine.remember(later + PERIOD * 3);
        assert_eq!(machine.arm_remembered(NOW), Some(Duration::ZERO));
    }

    #[test]
    fn a_timer_that_fired_while_going_down_is_not_lost() {
        let mut machine = up();
        machine.schedule_first(PERIOD);
        machine.arm_remembered(NOW);
        machine.timer_fired(NOW + PERIOD, TICK);
        machine.up = false;
        machine.remember(NOW + PERIOD);
        assert_eq!(machine.next_turn(), None);
        machine.up = true;
        assert_eq!(machine.arm_remembered(NOW), Some(Duration::ZERO));
    }

    #[test]
    fn a_callback_of_a_timer_that_was_started_anew_is_not_taken_for_the_new_one() {
        let mut machine = up();
        machine.schedule_first(PERIOD);
        machine.arm_remembered(NOW);
        let rest = machine.timer_fired(NOW + PERIOD / 5, TICK);
        assert_eq!(rest, Some(PERIOD * 4 / 5));
        assert!(!machine.wants_worker());
        // A clock tick may be a little early.
        let early = (NOW + PERIOD).saturating_sub(TICK);
        assert_eq!(machine.timer_fired(early, TICK), None);
        assert!(machine.wants_worker());
    }

    #[test]
    fn a_retry_that_is_asked_for_while_down_waits_for_power() {
        let mut machine = up();
        let begun = machine.next_attempt();
        machine.up = false;
        assert_eq!(
            end(&mut machine, begun, TaskResult::SuccessButTryAgain),
            None
        );
        machine.up = true;
        assert_eq!(machine.arm_remembered(NOW), Some(PERIOD * 2));
    }

    #[test]
    fn success_is_the_end_of_attempts_but_not_of_plain_runs() {
        let mut machine = up();
        machine.attempts = 3;
        machine.runs = 2;
        let (turn_of, begun) = machine.next_turn().unwrap();
        assert_eq!(turn_of, Turn::Attempt(Trigger::OnDemand));
        assert_eq!(end(&mut machine, begun, TaskResult::Success), None);
        assert_eq!(turn(&mut machine), Some((Turn::Run, 1)));
        assert_eq!(turn(&mut machine), Some((Turn::Run, 1)));
        assert_eq!(turn(&mut machine), None);
    }

    #[test]
    fn cancel_forgets_everything_and_refuses() {
        let mut machine = up();
        machine.attempts = 1;
        machine.runs = 1;
        machine.schedule_first(PERIOD);
        machine.arm_remembered(NOW);
        machine.cancel();
        machine.timer_fired(NOW + PERIOD, TICK);
        assert!(!machine.wants_worker());
        assert_eq!(machine.next_turn(), None);
        machine.schedule_first(PERIOD);
        assert_eq!(machine.arm_remembered(NOW), None);
        machine.cancelled = false;
        assert_eq!(machine.next_turn(), None);
    }

    #[test]
    fn a_cancelled_task_that_asks_to_try_again_does_not() {
        let mut machine = up();
        let begun = machine.next_attempt();
        machine.cancel();
        let result = TaskResult::FailButTryAgain;
        assert_eq!(end(&mut machine, begun, result), None);
        machine.cancelled = false;
        assert_eq!(machine.arm_remembered(NOW), None);
    }

    #[test]
    fn a_restart_before_the_end_of_a_cancelled_attempt_does_not_bring_it_back() {
        let mut machine = up();
        let begun = machine.next_attempt();
        machine.cancel();
        machine.cancelled = false;
        let result = TaskResult::FailButTryAgain;
        assert_eq!(end(&mut machine, begun, result), None);
        // The next attempt is one of its own.
        let begun = machine.next_attempt();
        assert_eq!(begun.attempt, 1);
        assert_eq!(end(&mut machine, begun, result), Some(PERIOD));
    }

    #[test]
    fn a_reset_during_an_attempt_outlives_its_success() {
        let mut machine = up();
        let begun = machine.next_attempt();
        machine.reset();
        end(&mut machine, begun, TaskResult::Success);
        assert!(!machine.done);
        machine.found_done(begun);
        assert!(!machine.done);
        let begun = machine.next_attempt();
        machine.found_done(begun);
        assert!(machine.done);
    }

    #[test]
    fn a_success_that_was_reset_before_it_was_written_is_not_written() {
        let mut machine = up();
        let begun = machine.next_attempt();
        machine.write_later(begun);
        assert!(machine.take_unwritten());
        assert!(!machine.take_unwritten());
        machine.write_later(begun);
        machine.reset();
        assert!(machine.is_unwritten());
        assert!(!machine.take_unwritten());
    }

    #[test]
    fn the_period_doubles_up_to_the_longest_and_never_overflows() {
        let periods = Periods {
            back_off: Some(PERIOD * 5),
            ..PERIODS
        };
        let seconds = |failures| periods.after_failures(failures).as_secs();
        assert_eq!(
            [1, 2, 3, 4, 32, 33, u32::MAX].map(seconds),
            [5, 10, 20, 25, 25, 25, 25]
        );
        let shorter = Periods {
            back_off: Some(PERIOD / 5),
            ..PERIODS
        };
        assert_eq!(shorter.after_failures(3), PERIOD);
    }

    #[test]
    fn the_retry_limit_counts_failures_in_a_row() {
        use TaskResult::{FailButTryAgain, SuccessButTryAgain};
        let periods = Periods {
            retry_limit: Some(1),
            ..PERIODS
        };
        let mut machine = up();
        let mut retried = |result| {
            let begun = machine.next_attempt();
            let result = Some(result);
            machine
                .finish(After::Deferred, begun, result, &periods, NOW)
                .is_some()
        };
        assert!(retried(FailButTryAgain));
        assert!(retried(SuccessButTryAgain));
        assert!(retried(FailButTryAgain));
        assert!(!retried(FailButTryAgain));
        // That was the end of it. The next begins anew.
        assert!(retried(FailButTryAgain));
    }

    #[test]
    fn an_immediate_failure_arms_no_timer() {
        let mut machine = up();
        let begun = machine.next_attempt();
        let result = Some(TaskResult::FailButTryAgain);
        assert_eq!(
            machine.finish(After::Immediate, begun, result, &PERIODS, NOW),
            None
        );
        assert_eq!(machine.arm_remembered(NOW), None);
    }

    #[test]
    fn attempts_are_counted_until_one_does_not_ask_for_another() {
        let mut machine = up();
        machine.attempts = 1;
        let (_, begun) = machine.next_turn().unwrap();
        assert_eq!(begun.attempt, 1);
        end(&mut machine, begun, TaskResult::FailButTryAgain);
        machine.timer_fired(NOW + PERIOD, TICK);
        let (turn_of, begun) = machine.next_turn().unwrap();
        assert_eq!(turn_of, Turn::Attempt(Trigger::Scheduled));
        assert_eq!(begun.attempt, 2);
        end(&mut machine, begun, TaskResult::Fail);
        machine.attempts = 1;
        let again = Turn::Attempt(Trigger::OnDemand);
        assert_eq!(turn(&mut machine), Some((again, 1)));
    }
}
