// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one state machine of a task: what is pending, who runs, what is allowed.
//!
//! It is plain data under one lock. Timer, worker, hooks and methods do nothing
//! but change it, and then what it says.

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
}

/// What the timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduled {
    Nothing,
    /// The timer is queued, with this delay.
    Armed(Duration),
    /// The timer has fired, and the run has not begun.
    Due,
    /// While not up: to be armed anew with this delay.
    Remembered(Duration),
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The result counts.
    Attempt(Trigger),
    /// The result does not count.
    Run,
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
    pub(super) fn arm_remembered(&mut self) -> Option<Duration> {
        match self.scheduled {
            Scheduled::Remembered(delay) if self.up && !self.done && !self.cancelled => {
                self.scheduled = Scheduled::Armed(delay);
                Some(delay)
            }
            _ => None,
        }
    }

    /// Going down: what the timer was for is kept.
    pub(super) fn remember(&mut self) {
        self.scheduled = match self.scheduled {
            Scheduled::Armed(delay) => Scheduled::Remembered(delay),
            Scheduled::Due => Scheduled::Remembered(Duration::ZERO),
            other => other,
        };
    }

    /// The timer has fired. If meanwhile it was stopped, that counts.
    pub(super) fn timer_fired(&mut self) {
        if let Scheduled::Armed(_) = self.scheduled {
            self.scheduled = Scheduled::Due;
        }
    }

    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        self.scheduled = Scheduled::Nothing;
        self.attempts = 0;
        self.runs = 0;
        self.count = 0;
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

    /// What the one who runs the task does next, and which attempt it is.
    pub(super) fn next_turn(&mut self) -> Option<(Turn, u32)> {
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
        Some((Turn::Run, 1))
    }

    pub(super) fn next_attempt(&mut self) -> u32 {
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// An attempt has ended: the delay with which to start the timer, if the
    /// task wants to run again and may. While not up, that is remembered.
    pub(super) fn finish(
        &mut self,
        after: After,
        result: Option<TaskResult>,
        on_fail: Duration,
        on_success: Duration,
    ) -> Option<Duration> {
        let retry = match (result, after) {
            (Some(TaskResult::SuccessButTryAgain), _) => Some(on_success),
            (Some(TaskResult::FailButTryAgain), After::Deferred) => Some(on_fail),
            // The hook fails: no timer stays behind a device that does not start.
            (Some(TaskResult::FailButTryAgain), After::Immediate)
            | (Some(TaskResult::Fail | TaskResult::Success) | None, _) => None,
        };
        if result == Some(TaskResult::Success) {
            self.done = true;
            self.scheduled = Scheduled::Nothing;
        }
        let Some(delay) = retry.filter(|_| !self.cancelled) else {
            self.count = 0;
            return None;
        };
        self.scheduled = Scheduled::Remembered(delay);
        self.arm_remembered()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn up() -> Machine {
        Machine {
            up: true,
            ..Machine::new()
        }
    }

    fn finish(machine: &mut Machine, result: TaskResult) -> Option<Duration> {
        machine.finish(After::Deferred, Some(result), PERIOD, PERIOD * 2)
    }

    #[test]
    fn a_retry_that_is_pending_at_power_down_is_armed_again() {
        let mut machine = up();
        assert_eq!(
            finish(&mut machine, TaskResult::FailButTryAgain),
            Some(PERIOD)
        );
        machine.up = false;
        machine.remember();
        assert_eq!(machine.arm_remembered(), None);
        machine.up = true;
        machine.schedule_first(Duration::ZERO);
        assert_eq!(machine.arm_remembered(), Some(PERIOD));
    }

    #[test]
    fn a_timer_that_fired_while_going_down_is_not_lost() {
        let mut machine = up();
        machine.schedule_first(PERIOD);
        machine.arm_remembered();
        machine.timer_fired();
        machine.up = false;
        machine.remember();
        assert_eq!(machine.next_turn(), None);
        machine.up = true;
        assert_eq!(machine.arm_remembered(), Some(Duration::ZERO));
    }

    #[test]
    fn a_retry_that_is_asked_for_while_down_waits_for_power() {
        let mut machine = up();
        machine.up = false;
        assert_eq!(finish(&mut machine, TaskResult::SuccessButTryAgain), None);
        machine.up = true;
        assert_eq!(machine.arm_remembered(), Some(PERIOD * 2));
    }

    #[test]
    fn success_is_the_end_of_attempts_but_not_of_plain_runs() {
        let mut machine = up();
        machine.attempts = 3;
        machine.runs = 2;
        assert_eq!(
            machine.next_turn(),
            Some((Turn::Attempt(Trigger::OnDemand), 1))
        );
        assert_eq!(finish(&mut machine, TaskResult::Success), None);
        assert_eq!(machine.next_turn(), Some((Turn::Run, 1)));
        assert_eq!(machine.next_turn(), Some((Turn::Run, 1)));
        assert_eq!(machine.next_turn(), None);
    }

    #[test]
    fn cancel_forgets_everything_and_refuses() {
        let mut machine = up();
        machine.attempts = 1;
        machine.runs = 1;
        machine.schedule_first(PERIOD);
        machine.arm_remembered();
        machine.cancel();
        machine.timer_fired();
        assert!(!machine.wants_worker());
        assert_eq!(machine.next_turn(), None);
        machine.schedule_first(PERIOD);
        assert_eq!(machine.arm_remembered(), None);
        machine.cancelled = false;
        assert_eq!(machine.next_turn(), None);
    }

    #[test]
    fn a_cancelled_task_that_asks_to_try_again_does_not() {
        let mut machine = up();
        machine.cancel();
        assert_eq!(finish(&mut machine, TaskResult::FailButTryAgain), None);
        machine.cancelled = false;
        assert_eq!(machine.arm_remembered(), None);
    }

    #[test]
    fn an_immediate_failure_arms_no_timer() {
        let mut machine = up();
        let result = Some(TaskResult::FailButTryAgain);
        assert_eq!(
            machine.finish(After::Immediate, result, PERIOD, PERIOD),
            None
        );
        assert_eq!(machine.arm_remembered(), None);
    }

    #[test]
    fn attempts_are_counted_until_one_does_not_ask_for_another() {
        let mut machine = up();
        machine.attempts = 1;
        assert_eq!(
            machine.next_turn(),
            Some((Turn::Attempt(Trigger::OnDemand), 1))
        );
        finish(&mut machine, TaskResult::FailButTryAgain);
        machine.timer_fired();
        assert_eq!(
            machine.next_turn(),
            Some((Turn::Attempt(Trigger::Scheduled), 2))
        );
        finish(&mut machine, TaskResult::Fail);
        machine.attempts = 1;
        assert_eq!(
            machine.next_turn(),
            Some((Turn::Attempt(Trigger::OnDemand), 1))
        );
    }
}
