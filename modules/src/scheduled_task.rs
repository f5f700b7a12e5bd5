// SPDX-License-Identifier: MIT OR Apache-2.0

//! Work that runs once: at a moment of the device's life or on demand, now or
//! deferred, with retries, and if need be only once ever across reboots.
//!
//! # Vocabulary
//!
//! - *task*: a function of the owner that returns a [`TaskResult`].
//! - *moment*: when the framework runs it, an [`ExecuteWhen`].
//! - *immediate*, *deferred*: within the moment's callback, whose success then
//!   depends on it, or soon after on a worker thread.
//! - *done*: the task has returned [`TaskResult::Success`]. It does not run again.
//! - *up*: between the moment's callback and the one that undoes it. Tasks run
//!   only while up. A task of [`ExecuteWhen::Other`] is up while the module is open.
//!
//! # States
//!
//! ```text
//!               hook up, deferred: armed(initial delay)
//!               execute_now_deferred_ex: ready
//!      idle ───────────────────────────► armed, ready
//!       ▲                                   │ timer, worker; up, not done, not cancelled
//!       │                                   ▼
//!       │   Fail                         running ──── TryAgain ──► armed(retry period)
//!       ├───────────────────────────────────┤
//!       │   TryAgain over the retry limit   │
//!       │                                   │ Success
//!       │                                   ▼
//!       └── times_run_set(0) ◄──────────── done
//! ```
//!
//! | Event | armed | running | any |
//! |---|---|---|---|
//! | D0Exit, ReleaseHardware | timer stopped; what is left of the delay is remembered | waited for; what it wants next is remembered | not up: `execute_now` is refused, deferred calls are kept |
//! | next up callback | remembered: armed with what was left | – | up |
//! | `cancel` | forgotten | waited for, but not from the task itself; not retried, even after `restart` | refuses until `restart` |
//! | `times_run_set(0)` | – | its success does not make it done | not done |
//! | Close | forgotten | waited for | refuses |
//!
//! Callbacks of one task never overlap, whatever starts them: whoever finds the
//! task running leaves a note, and the one who runs it acts on the note.
//!
//! ```text
//!   timer                                worker
//!   lock: running = false → true
//!   task()                               lock: running, so leave the note
//!   lock: the note → another turn
//! ```
//!
//! # Before and after the owner's own callbacks
//!
//! Modules come before their owner on the way up, and after it on the way down.
//! So a task may run **while the owner's own `prepare_hardware` or `d0_entry` has
//! not begun**, and after its `d0_exit` or `release_hardware` has ended:
//!
//! ```text
//!   module D0Entry     owner d0_entry          owner d0_exit     module D0Exit
//!   ─────┬──────────────────┬───────────────────────┬─────────────────┬─────
//!        └──────────────────── the task may run ──────────────────────┘
//! ```
//!
//! | Task | What the author can rely on |
//! |---|---|
//! | immediate | ends before the owner's callback of the moment begins |
//! | deferred | may begin before the owner's callback of the moment has ended, and fall into its `d0_exit` |
//! | any | the hardware has power; the modules that the owner added before have had their callbacks |
//!
//! What a task needs has to be there without the owner's callback: set it up in
//! the modules that the owner adds before the task, or have the task return
//! [`TaskResult::FailButTryAgain`] until it is. What the owner tears down in
//! `d0_exit` a task may still use: lock it, or call [`ScheduledTask::cancel`]
//! first. Or use [`ExecuteWhen::Other`], and call
//! [`execute_now_deferred_ex`](ScheduledTask::execute_now_deferred_ex) at the
//! end of the owner's `d0_entry`.
//!
#![doc = include_str!("scheduled_task/states.md")]
//! # Results
//!
//! | | immediate | deferred | `execute_now_deferred_ex` | `execute_now_deferred` | `execute_now` |
//! |---|---|---|---|---|---|
//! | `Success` | hook succeeds; done | done | done | ignored | returned |
//! | `SuccessButTryAgain` | hook succeeds; retry | retry | retry | ignored | returned |
//! | `Fail` | hook fails | next hook up | next call | ignored | returned |
//! | `FailButTryAgain` | hook fails | retry | retry | ignored | returned |
//!
//! Without [`Config::retry_limit`] there are as many retries as it takes. With
//! [`Config::back_off`] they come less and less often:
//!
//! ```text
//!   retry_on_fail(1 s), back_off(5 s), retry_limit(4)
//!
//!   run    1 s  run      2 s      run        4 s        run         5 s         run
//!   ├───────────┼─────────────────┼─────────────────────┼───────────────────────┤ idle
//! ```
//!
//! # Contexts
//!
//! A `ScheduledTask<C>` has contexts of type `C`, of two kinds:
//!
//! | | given by | belongs to | [`Task::context`] | [`Task::take_context`] |
//! |---|---|---|---|---|
//! | the config's | [`Config::context`] | the module; it tells several tasks of one function apart | if the call gave none | – |
//! | a call's | [`ScheduledTask::execute_now_with`], [`ScheduledTask::execute_now_deferred_with`] | the one run | yes | yes |
//!
//! Contexts of calls that are pending when the task is cancelled or closed are
//! dropped.
//!
//! # Persistence
//!
//! A persistent task reads `TimesRun` (`REG_DWORD`, in the driver's `Parameters`
//! key) before it runs, and does not run if it is 1 or more; after `Success` it
//! writes 1. If the machine stops between the callback and the write, the task
//! runs again: on disk is "not run" until it is "run". All tasks of a driver
//! share the value unless [`Config::persistence_name`] gives them others.
//!
//! D0Entry must not wait for a disk, which may still be asleep. So for an
//! immediate task of [`ExecuteWhen::D0Entry`] the value is read at
//! PrepareHardware, and written by a worker, at the latest at Close. What another
//! device writes in between counts from the next PrepareHardware on. See
//! [KMDF's rule][d0].
//!
//! A value that is missing means "not run". One that cannot be read, or has
//! another type, means "not run" too, or "run" with
//! [`Config::fail_closed`]. What goes wrong is told to
//! [`Config::on_persistence_failure`].
//!
//! C counterpart: [`DMF_ScheduledTask`][dmf].
//!
//! [d0]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_d0_entry
//! [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md

mod machine;
mod persistence;
mod queue;

pub use persistence::{PersistenceFailure, PersistenceOperation};

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use dmf::device::{D0Entry, D0Exit, PowerState, PrepareHardware, ReleaseHardware};
use dmf::irql::{Irql, Passive};
use dmf::module::{
    Callback, Close, Create, Function, Instance, Link, Module, ModuleConfig, Running, Signature,
};
use dmf::registry::QueryError;
use dmf::string::UnicodeStr;
use dmf::sync::{Event, EventKind, SpinLock};
use dmf::thread::ThreadId;
use dmf::time::{Instant, Span, Timeout};
use dmf::wdf::{Timer, TimerFired, WorkItem, WorkItemRun};
use dmf::{NtStatus, Result};

use machine::{After, Effects, Machine, Periods, TimerEffect, Turn};
use persistence::{OnPersistenceFailure, Persistence};

/// Work that runs once.
///
/// `C` is what a run on demand can be given, its [context](self#contexts): by
/// default nothing.
///
/// See the [module's page](self).
///
/// C counterpart: the [`DMFMODULE`][dmf] of a `DMF_ScheduledTask`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md
pub struct ScheduledTask<C: Send + Sync + 'static = ()>(Link<State<C>>);

impl<C: Send + Sync + 'static> Clone for ScheduledTask<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Send + Sync + 'static> fmt::Debug for ScheduledTask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScheduledTask").field(&self.0).finish()
    }
}

/// Runs on demand without a context.
impl ScheduledTask {
    /// Runs the task now, on this thread, and returns its result, on which
    /// nothing else depends. Waits if the task is running.
    ///
    /// Unlike the deferred methods it cannot wait for power: it is refused
    /// while the task is not up.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_CANCELLED` if the task is cancelled.
    /// - `STATUS_POSSIBLE_DEADLOCK` if called from the task itself.
    /// - `STATUS_INVALID_DEVICE_STATE` if the task is not up, or the module is not open.
    ///
    /// C counterpart: [`DMF_ScheduledTask_ExecuteNow`][dmf].
    ///
    /// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md#dmf_scheduledtask_executenow
    pub fn execute_now(&self, irql: &mut Irql<'_, Passive>) -> Result<TaskResult> {
        self.execute_now_with(irql, ())
    }

    /// Has the task run once more on a worker thread, and ignores its result.
    /// N calls give N runs.
    ///
    /// If the task is not up, it runs when it is.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_CANCELLED` if the task is cancelled.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: [`DMF_ScheduledTask_ExecuteNowDeferred`][dmf].
    ///
    /// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md#dmf_scheduledtask_executenowdeferred
    #[inline]
    pub fn execute_now_deferred(&self) -> Result {
        self.execute_now_deferred_with(())
    }
}

impl<C: Send + Sync + 'static> ScheduledTask<C> {
    /// A config for a task: a function of the owner.
    ///
    /// By default it runs only on demand ([`ExecuteWhen::Other`]), is not
    /// persistent, and retries after one second.
    #[must_use]
    pub fn config<O>(task: fn(&O, &mut Task<'_, C>) -> TaskResult) -> Config<O, C> {
        Config {
            task,
            when: ExecuteWhen::Other,
            mode: Mode::Deferred,
            initial_delay: Duration::ZERO,
            retry_on_fail: Duration::from_secs(1),
            retry_on_success: Duration::from_secs(1),
            retry_limit: None,
            back_off: None,
            persistence: Persistence::new(),
            persistent: false,
            on_persistence_failure: None,
            context: None,
        }
    }

    /// Runs the task now, on this thread, with a context, and returns its
    /// result, on which nothing else depends. Waits if the task is running.
    ///
    /// Unlike the deferred methods it cannot wait for power: it is refused
    /// while the task is not up.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// The context is then dropped.
    /// - `STATUS_CANCELLED` if the task is cancelled.
    /// - `STATUS_POSSIBLE_DEADLOCK` if called from the task itself.
    /// - `STATUS_INVALID_DEVICE_STATE` if the task is not up, or the module is not open.
    ///
    /// C counterpart: [`DMF_ScheduledTask_ExecuteNow`][dmf].
    ///
    /// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md#dmf_scheduledtask_executenow
    pub fn execute_now_with(&self, irql: &mut Irql<'_, Passive>, context: C) -> Result<TaskResult> {
        self.0.enter()?.execute_now(irql, context)
    }

    /// Has the task run once more on a worker thread, with a context, and
    /// ignores its result. N calls give N runs, in the order of the calls, each
    /// with its own context.
    ///
    /// If the task is not up, it runs when it is.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// The context is then dropped, at the caller's IRQL.
    /// - `STATUS_CANCELLED` if the task is cancelled.
    /// - `STATUS_INSUFFICIENT_RESOURCES` if there is no memory to keep the context.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: [`DMF_ScheduledTask_ExecuteNowDeferred`][dmf].
    ///
    /// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md#dmf_scheduledtask_executenowdeferred
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each run on demand goes through it")]
    pub fn execute_now_deferred_with(&self, context: C) -> Result {
        let state = self.0.enter()?;
        state
            .change_within(state.running(), |machine| {
                match machine.request_run(context) {
                    Ok(effects) => (effects, Ok(())),
                    Err(refused) => (Effects::default(), Err(refused)),
                }
            })
            // Here, and not under the lock, the context is dropped.
            .map_err(|(status, _)| status)
    }

    /// Has the task run on a worker thread, and acts on its result: done after
    /// `Success`, again later after `TryAgain`. Does nothing if it is done.
    ///
    /// If the task is not up, it runs when it is.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_CANCELLED` if the task is cancelled.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: `DMF_ScheduledTask_ExecuteNowDeferredEx`.
    pub fn execute_now_deferred_ex(&self) -> Result {
        let state = self.0.enter()?;
        state.change_within(state.running(), |machine| match machine.request_attempt() {
            Ok(effects) => (effects, Ok(())),
            Err(status) => (Effects::default(), Err(status)),
        })
    }

    /// Forgets what is pending, and refuses everything until
    /// [`restart`](Self::restart). When it returns the task does not run; from
    /// the task itself it takes effect when the task returns, and says so.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: `DMF_ScheduledTask_Cancel`.
    pub fn cancel(&self, irql: &Irql<'_, Passive>) -> Result<Cancelled> {
        Ok(self.0.enter()?.cancel(irql))
    }

    /// Lets the task run again after [`cancel`](Self::cancel). Nothing that was
    /// forgotten comes back; a run that was in progress is not retried.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: `DMF_ScheduledTask_Restart`.
    pub fn restart(&self) -> Result {
        self.0.enter()?.machine.with(Machine::restart);
        Ok(())
    }

    /// Reads the persistent value: 0 if the task has not run.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What the registry returns, but that a value which is not there is 0;
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: `DMF_ScheduledTask_TimesRunGet`.
    pub fn times_run_get(&self, irql: &Irql<'_, Passive>) -> Result<u32> {
        let state = self.0.enter()?;
        state.write_unwritten(irql);
        Ok(state.persistence.read(irql)?)
    }

    /// Writes the persistent value. Zero lets the task run again at once: at
    /// the next moment or call. If the task is running, its success does not
    /// change that.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What the registry returns; `STATUS_INVALID_DEVICE_STATE` if the module
    /// is not open.
    ///
    /// C counterpart: `DMF_ScheduledTask_TimesRunSet`.
    pub fn times_run_set(&self, irql: &Irql<'_, Passive>, times: u32) -> Result {
        let state = self.0.enter()?;
        state.begin_writing_if(irql, |_| true);
        let written = state.persistence.write(irql, times);
        state.change(|machine| {
            let effects = if written.is_err() {
                Effects::default()
            } else if times == 0 {
                machine.set_undone();
                Effects::default()
            } else if state.persistent {
                machine.set_done()
            } else {
                Effects::default()
            };
            state.end_writing(machine);
            (effects, ())
        });
        written
    }
}

impl<C: Send + Sync + 'static> Module for ScheduledTask<C> {
    type Instance = State<C>;

    fn over(instance: Link<State<C>>) -> Self {
        Self(instance)
    }
}

/// What a task returns.
///
/// C counterpart: [`ScheduledTask_Result_Type`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskResult {
    /// Done: do not run again.
    Success,
    /// It worked, and should run again after the period for success.
    SuccessButTryAgain,
    /// It did not work. The next moment or call may try again.
    Fail,
    /// It did not work, and should run again after the period for failure.
    FailButTryAgain,
}

/// When the framework runs a task.
///
/// C counterpart: [`ScheduledTask_ExecuteWhen_Type`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecuteWhen {
    /// At PrepareHardware. Pauses while the device has no power.
    PrepareHardware,
    /// At D0Entry.
    D0Entry,
    /// Never: only on demand.
    Other,
}

/// What [`ScheduledTask::cancel`] achieved.
///
/// No C counterpart: `DMF_ScheduledTask_Cancel` does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cancelled {
    /// The task does not run.
    Quiet,
    /// Called from the task: it does not run again once it has returned.
    WhenTheTaskReturns,
}

/// What started a run.
///
/// No C counterpart: there a callback gets the power state, and not why it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// PrepareHardware or D0Entry, in its callback.
    Immediate,
    /// The timer: the deferred run at the moment, or a retry.
    Scheduled,
    /// One of the methods of [`ScheduledTask`].
    OnDemand,
}

/// What a task is given.
///
/// C counterpart: the arguments of [`EVT_DMF_ScheduledTask_Callback`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md
pub struct Task<'a, C = ()> {
    irql: Irql<'a, Passive>,
    trigger: Trigger,
    attempt: u64,
    previous_state: Option<PowerState>,
    context: Option<C>,
    of_the_config: &'a Option<C>,
}

impl<C> fmt::Debug for Task<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("trigger", &self.trigger)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<C> Task<'_, C> {
    /// The proof that the task runs at `PASSIVE_LEVEL`.
    #[must_use]
    pub fn irql(&self) -> &Irql<'_, Passive> {
        &self.irql
    }

    /// What started this run.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// Which run this is since the task last ended without "try again": 1 for
    /// the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.attempt).unwrap_or(u32::MAX)
    }

    /// The power state that the device comes from, in an immediate run at D0Entry.
    #[must_use]
    pub fn previous_state(&self) -> Option<PowerState> {
        self.previous_state
    }

    /// What the call that asked for this run gave it, or else what the config
    /// has: see [contexts](self#contexts).
    #[must_use]
    pub fn context(&self) -> Option<&C> {
        self.context.as_ref().or(self.of_the_config.as_ref())
    }

    /// Takes what the call that asked for this run gave it. `None` if it gave
    /// nothing, or it was taken already. What the task does not take is dropped
    /// when it returns.
    pub fn take_context(&mut self) -> Option<C> {
        self.context.take()
    }
}

struct RunTask<C>(PhantomData<fn(C)>);

impl<C: 'static> Signature for RunTask<C> {
    type Arguments<'a> = Task<'a, C>;
    type Output = TaskResult;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Immediate,
    Deferred,
}

/// The config of a [`ScheduledTask`] whose owner is an `O`.
///
/// The task may run before the owner's own `prepare_hardware` or `d0_entry`, and
/// after its `d0_exit` or `release_hardware`: see
/// [what to rely on](self#before-and-after-the-owners-own-callbacks).
///
/// C counterpart: [`DMF_CONFIG_ScheduledTask`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md
pub struct Config<O, C: 'static = ()> {
    task: Function<O, RunTask<C>>,
    when: ExecuteWhen,
    mode: Mode,
    initial_delay: Duration,
    retry_on_fail: Duration,
    retry_on_success: Duration,
    retry_limit: Option<u32>,
    back_off: Option<Duration>,
    persistence: Persistence,
    persistent: bool,
    on_persistence_failure: Option<Function<O, OnPersistenceFailure>>,
    context: Option<C>,
}

impl<O, C> Config<O, C> {
    /// What each run is given whose call gives nothing. Default nothing.
    #[must_use]
    pub fn context(mut self, context: C) -> Self {
        self.context = Some(context);
        self
    }

    /// When the framework runs the task. Default [`ExecuteWhen::Other`].
    #[must_use]
    pub const fn execute_when(mut self, when: ExecuteWhen) -> Self {
        self.when = when;
        self
    }

    /// Runs the task within the moment's callback, whose success depends on it.
    #[must_use]
    pub const fn immediate(mut self) -> Self {
        self.mode = Mode::Immediate;
        self
    }

    /// Runs the task on a worker thread, soon after the moment. The default.
    ///
    /// It may begin before the owner's own callback of the moment has ended.
    #[must_use]
    pub const fn deferred(mut self) -> Self {
        self.mode = Mode::Deferred;
        self
    }

    /// How long after the moment a deferred task runs first. Default zero.
    #[must_use]
    pub const fn initial_delay(mut self, delay: Duration) -> Self {
        self.initial_delay = delay;
        self
    }

    /// How long after [`TaskResult::FailButTryAgain`] the task runs again.
    /// Default one second; zero is refused, because it would not let anything
    /// else run.
    #[must_use]
    pub const fn retry_on_fail(mut self, period: Duration) -> Self {
        self.retry_on_fail = period;
        self
    }

    /// How long after [`TaskResult::SuccessButTryAgain`] the task runs again.
    /// Default one second; zero is refused.
    #[must_use]
    pub const fn retry_on_success(mut self, period: Duration) -> Self {
        self.retry_on_success = period;
        self
    }

    /// Gives up after that many retries: if [`TaskResult::FailButTryAgain`] comes
    /// once more in a row, it counts as [`TaskResult::Fail`]. The next moment or
    /// call begins anew. By default there is no limit.
    #[must_use]
    pub const fn retry_limit(mut self, retries: u32) -> Self {
        self.retry_limit = Some(retries);
        self
    }

    /// Doubles the period for failure with each [`TaskResult::FailButTryAgain`] in
    /// a row, up to `longest`. By default it stays the same. If `longest` is
    /// shorter than the period, it is refused.
    #[must_use]
    pub const fn back_off(mut self, longest: Duration) -> Self {
        self.back_off = Some(longest);
        self
    }

    /// Runs the task until it succeeds once, ever.
    #[must_use]
    pub const fn persistent_across_reboots(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// The name of the persistent value. Default `TimesRun`, as in DMF, which
    /// all tasks of a driver share. An empty name, and one of more than the
    /// registry's 16,383 characters, is refused with `STATUS_OBJECT_NAME_INVALID`.
    #[must_use]
    pub const fn persistence_name(mut self, name: UnicodeStr<'static>) -> Self {
        self.persistence.name = name;
        self
    }

    /// Keeps the persistent value in the key for state that the driver writes,
    /// instead of `Parameters`.
    #[must_use]
    pub const fn persistent_state_key(mut self) -> Self {
        self.persistence.place = persistence::Place::PersistentState;
        self
    }

    /// Does not run a persistent task whose value cannot be read. By default it runs.
    #[must_use]
    pub const fn fail_closed(mut self) -> Self {
        self.persistence.policy = persistence::Policy::FailClosed;
        self
    }

    /// A function of the owner that is told when the persistent value cannot be
    /// read or written.
    #[must_use]
    pub const fn on_persistence_failure(
        mut self,
        function: fn(&O, &mut PersistenceFailure<'_>),
    ) -> Self {
        self.on_persistence_failure = Some(function);
        self
    }
}

impl<O, C> fmt::Debug for Config<O, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("when", &self.when)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl<O: Send + Sync + 'static, C: Send + Sync + 'static> ModuleConfig<O> for Config<O, C> {
    type Module = ScheduledTask<C>;

    fn create(self, cx: &mut Create<'_, O, State<C>>) -> Result<State<C>> {
        for (name, period) in [
            ("retry_on_fail", self.retry_on_fail),
            ("retry_on_success", self.retry_on_success),
        ] {
            if period.is_zero() {
                dmf::println!(
                    "ScheduledTask: {name} = 0: a task that tries again at once keeps a worker \
                     busy; give it a period ({name}(Duration::from_millis(10)))"
                );
                return Err(NtStatus::INVALID_PARAMETER);
            }
        }
        if let Some(longest) = self.back_off
            && longest < self.retry_on_fail
        {
            let period = self.retry_on_fail;
            dmf::println!(
                "ScheduledTask: back_off = {longest:?} is shorter than retry_on_fail = \
                 {period:?}: the period begins with retry_on_fail and only grows \
                 (back_off({:?}))",
                period.saturating_mul(8)
            );
            return Err(NtStatus::INVALID_PARAMETER);
        }
        self.persistence.check_name()?;
        Ok(State {
            machine: SpinLock::new(Machine::new(self.when == ExecuteWhen::Other)),
            idle: Event::new(EventKind::Notification)?,
            written: Event::new(EventKind::Synchronization)?,
            timer: cx.timer(State::on_timer)?,
            work_item: cx.work_item(State::on_work_item)?,
            task: cx.bind::<RunTask<C>>(self.task),
            on_persistence_failure: self
                .on_persistence_failure
                .map(|tell| cx.bind::<OnPersistenceFailure>(tell)),
            when: self.when,
            mode: self.mode,
            initial_delay: self.initial_delay.into(),
            tick: dmf::time::tick().into(),
            periods: Periods {
                on_fail: self.retry_on_fail.into(),
                on_success: self.retry_on_success.into(),
                back_off: self.back_off.map(Span::new),
                retry_limit: self.retry_limit.unwrap_or(u32::MAX),
            },
            persistence: self.persistence,
            persistent: self.persistent,
            context: self.context,
        })
    }
}

/// The state of a [`ScheduledTask`].
///
/// C counterpart: `DMF_CONTEXT_ScheduledTask`, of [`DMF_ScheduledTask`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_ScheduledTask.md
pub struct State<C: 'static> {
    machine: SpinLock<Machine<C>>,
    /// Signaled by whoever ends running, for those who wait for it.
    idle: Event,
    /// Signaled by whoever ends writing the persistent value, for one of those
    /// who wait for it.
    written: Event,
    timer: Timer,
    work_item: WorkItem,
    task: Callback<RunTask<C>>,
    on_persistence_failure: Option<Callback<OnPersistenceFailure>>,
    when: ExecuteWhen,
    mode: Mode,
    initial_delay: Span,
    /// How much too early the timer may fire.
    tick: Span,
    periods: Periods,
    persistence: Persistence,
    persistent: bool,
    context: Option<C>,
}

impl<C: 'static> fmt::Debug for State<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("when", &self.when)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Instance for State<C> {
    fn closing(&self) {
        drop(self.change(Machine::cancel));
    }

    fn close(&self, cx: &mut Close<'_>) {
        // Once more: a method in flight may have restarted it after `closing`.
        let contexts = self.change(|machine| {
            machine.pause(Instant::now());
            machine.cancel()
        });
        drop(contexts);
        let _ = self.timer.stop_and_wait(cx.irql());
        self.wait_until_idle(cx.irql());
        // A work item that is queued finds nothing to do, but it must be gone.
        let _ = self.work_item.flush(cx.irql());
        self.write_unwritten(cx.irql());
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        match self.when {
            ExecuteWhen::PrepareHardware => self.moment(cx.irql(), None),
            ExecuteWhen::D0Entry if self.persistent && self.mode == Mode::Immediate => {
                // Nobody runs it before D0Entry.
                self.machine.with(Machine::begin_attempt);
                if self.has_run(cx.irql()) {
                    self.change(|machine| (machine.found_done(), ()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn release_hardware(&self, cx: &mut ReleaseHardware<'_>) {
        if self.when == ExecuteWhen::PrepareHardware {
            self.pause(cx.irql());
        }
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        let previous = cx.previous_state();
        match self.when {
            ExecuteWhen::D0Entry => self.moment(cx.irql(), Some(previous)),
            ExecuteWhen::PrepareHardware => {
                // It was paused at D0Exit, or not at all if this is the first time.
                self.resume();
                Ok(())
            }
            ExecuteWhen::Other => Ok(()),
        }
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        if self.when != ExecuteWhen::Other {
            self.pause(cx.irql());
        }
    }
}

impl<C: Send + Sync + 'static> State<C> {
    /// The task's moment has come.
    fn moment(&self, irql: &mut Irql<'_, Passive>, previous: Option<PowerState>) -> Result {
        let result = self.begin_moment(irql, previous);
        if result.is_err() {
            // The hook fails, so the one that undoes it will not come.
            self.pause(irql);
        }
        result
    }

    fn begin_moment(&self, irql: &mut Irql<'_, Passive>, previous: Option<PowerState>) -> Result {
        match self.mode {
            Mode::Deferred => {
                let initial_delay = self.initial_delay;
                self.change(|machine| (machine.moment(initial_delay, Instant::now()), ()));
                Ok(())
            }
            Mode::Immediate => {
                self.resume();
                self.run_immediately(irql, previous)
            }
        }
    }

    /// Tells the machine an event, and does what it answers.
    fn change<R: Send>(&self, event: impl FnOnce(&mut Machine<C>) -> (Effects, R) + Send) -> R {
        let (worker, result) = self.machine.with(|machine| {
            let (effects, result) = event(machine);
            match effects.timer {
                TimerEffect::Leave => {}
                TimerEffect::Start(delay) => {
                    let _ = self.timer.start(delay);
                }
                TimerEffect::Stop => self.stop_timer(),
            }
            (effects.worker, result)
        });
        if worker {
            // It is refused only once the module is gone, and its task with it.
            let _ = self.work_item.enqueue();
        }
        result
    }

    /// The same in a function that is known to run.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each run on demand goes through it")]
    fn change_within<R: Send>(
        &self,
        running: Running<'_>,
        event: impl FnOnce(&mut Machine<C>) -> (Effects, R) + Send,
    ) -> R {
        let (worker, result) = self.machine.with(|machine| {
            let (effects, result) = event(machine);
            self.set_timer(running, effects.timer);
            (effects.worker, result)
        });
        if worker {
            let _ = self.work_item.enqueue_within(running);
        }
        result
    }

    /// The machine is locked, so that the timer is what it says.
    #[inline]
    fn set_timer(&self, running: Running<'_>, effect: TimerEffect) {
        match effect {
            TimerEffect::Leave => {}
            TimerEffect::Start(delay) => {
                let _ = self.timer.start_within(running, delay);
            }
            TimerEffect::Stop => self.stop_timer(),
        }
    }

    #[cold]
    fn stop_timer(&self) {
        let _ = self.timer.stop();
    }

    /// Comes up: what was remembered is armed anew.
    fn resume(&self) {
        self.change(|machine| (machine.resume(Instant::now), ()));
    }

    /// Goes down: stops the timer, remembers what it was for, and waits until
    /// the task does not run.
    fn pause(&self, irql: &Irql<'_, Passive>) {
        self.machine.with(|machine| machine.pause(Instant::now()));
        // While not up, nobody starts it again.
        let _ = self.timer.stop_and_wait(irql);
        self.wait_until_idle(irql);
    }

    /// Forgets what is pending, and waits until the task does not run.
    fn cancel(&self, irql: &Irql<'_, Passive>) -> Cancelled {
        let thread = ThreadId::current();
        let (from_the_task, contexts) = self.change(|machine| {
            let (effects, contexts) = machine.cancel();
            (effects, (machine.runs_on(thread), contexts))
        });
        drop(contexts);
        if from_the_task {
            // Waiting would be for this very thread.
            return Cancelled::WhenTheTaskReturns;
        }
        self.wait_until_idle(irql);
        Cancelled::Quiet
    }

    fn wait_until_idle(&self, irql: &Irql<'_, Passive>) {
        while self.machine.with(|machine| machine.is_running()) {
            let _ = self.idle.wait(irql, Timeout::Never);
        }
    }

    fn on_timer(&self, fired: &mut TimerFired<'_>) {
        // This thread does what the worker would.
        let running = fired.running();
        self.run_turns(fired.irql().reborrow(), running, |machine| {
            let effects = machine.timer_fired(Instant::now, self.tick);
            self.set_timer(running, effects.timer);
            // What is to be written a worker has been called for.
            false
        });
    }

    fn on_work_item(&self, run: &mut WorkItemRun<'_>) {
        let running = run.running();
        self.run_turns(run.irql().reborrow(), running, |machine| {
            machine.is_unwritten()
        });
    }

    /// Takes turns as long as there are any after `event`, unless somebody else
    /// does already. First, if `event` says so, writes what has not been written.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each run goes through it")]
    fn run_turns(
        &self,
        mut irql: Irql<'_, Passive>,
        running: Running<'_>,
        event: impl FnOnce(&mut Machine<C>) -> bool + Send,
    ) {
        let thread = ThreadId::current();
        let (first, writes) = self.machine.with(|machine| {
            let writes = event(machine);
            let turn = machine.begin_turns(thread);
            if turn.is_some() {
                self.idle.clear();
            }
            (turn, writes)
        });
        if writes {
            self.write_unwritten(&irql);
        }
        let Some((mut turn, mut attempt)) = first else {
            return;
        };
        loop {
            // While this thread counts as running no worker is called.
            let goes_on = |machine: &mut Machine<C>, effects: Effects| {
                self.set_timer(running, effects.timer);
                self.next_turn(machine)
            };
            let next = match turn {
                Turn::Attempt(trigger) => {
                    let irql = &mut irql;
                    let result = self.attempt(irql, Some(running), trigger, attempt, None);
                    if result == Some(TaskResult::Success) {
                        self.machine.with(|machine| {
                            let effects = machine.succeed();
                            goes_on(machine, effects)
                        })
                    } else {
                        self.machine.with(|machine| {
                            let (after, now) = (After::Deferred, Instant::now);
                            let effects = machine.try_again(after, result, &self.periods, now);
                            goes_on(machine, effects)
                        })
                    }
                }
                Turn::Run(context) => {
                    let trigger = Trigger::OnDemand;
                    let _ = self.call(&mut irql, Some(running), trigger, 1, None, Some(context));
                    self.machine.with(|machine| self.next_turn(machine))
                }
            };
            let Some(following) = next else {
                return;
            };
            (turn, attempt) = following;
        }
    }

    fn next_turn(&self, machine: &mut Machine<C>) -> Option<(Turn<C>, u64)> {
        let turn = machine.next_turn();
        if turn.is_none() {
            self.idle.set();
        }
        turn
    }

    /// Becomes the one who runs the task, if nobody is.
    fn begin(&self, thread: ThreadId) -> bool {
        self.machine.with(|machine| {
            let begins = machine.begin(thread);
            if begins {
                self.idle.clear();
            }
            begins
        })
    }

    /// Becomes the one who runs the task, after whoever does now.
    fn begin_after_others(&self, irql: &Irql<'_, Passive>) -> Result {
        let thread = ThreadId::current();
        if self.machine.with(|machine| machine.runs_on(thread)) {
            return Err(NtStatus::POSSIBLE_DEADLOCK);
        }
        while !self.begin(thread) {
            let _ = self.idle.wait(irql, Timeout::Never);
        }
        Ok(())
    }

    /// Stops being the one who runs the task, and calls a worker for what has
    /// been noted meanwhile.
    fn end(&self) {
        self.change(|machine| {
            self.idle.set();
            (machine.end(), ())
        });
    }

    fn run_immediately(
        &self,
        irql: &mut Irql<'_, Passive>,
        previous: Option<PowerState>,
    ) -> Result {
        self.begin_after_others(irql)?;
        let attempt = self.machine.with(Machine::immediate_attempt);
        let result = attempt.and_then(|attempt| {
            let result = self.attempt(irql, None, Trigger::Immediate, attempt, previous);
            self.finish(After::Immediate, result);
            result
        });
        self.end();
        match result {
            // Done before, or now; or cancelled, which is not a failure of the device.
            None | Some(TaskResult::Success | TaskResult::SuccessButTryAgain) => Ok(()),
            Some(TaskResult::Fail | TaskResult::FailButTryAgain) => Err(NtStatus::UNSUCCESSFUL),
        }
    }

    fn execute_now(&self, irql: &mut Irql<'_, Passive>, context: C) -> Result<TaskResult> {
        self.begin_after_others(irql)?;
        // While it counts as running, whoever takes the power away waits for it.
        let allowed = self.machine.with(|machine| machine.allows_run());
        let result =
            allowed.and_then(|()| self.call(irql, None, Trigger::OnDemand, 1, None, Some(context)));
        self.end();
        result
    }

    /// One run whose result counts. `None` if it was not needed, or could not be.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each run goes through it")]
    fn attempt(
        &self,
        irql: &mut Irql<'_, Passive>,
        running: Option<Running<'_>>,
        trigger: Trigger,
        attempt: u64,
        previous: Option<PowerState>,
    ) -> Option<TaskResult> {
        // D0Entry is no place for the registry: read at PrepareHardware, written
        // by a worker.
        let in_d0_entry = trigger == Trigger::Immediate && self.when == ExecuteWhen::D0Entry;
        if self.persistent && !in_d0_entry && self.has_run(irql) {
            return Some(TaskResult::Success);
        }
        let result = self
            .call(irql, running, trigger, attempt, previous, None)
            .ok()?;
        if self.persistent && result == TaskResult::Success {
            if in_d0_entry {
                self.machine.with(Machine::write_later);
            } else {
                self.write_if(irql, |machine| machine.still_counts());
            }
        }
        Some(result)
    }

    /// Writes that the task has run if it has, unless somebody has written since
    /// its turn began that it has not.
    #[cold]
    fn write_unwritten(&self, irql: &Irql<'_, Passive>) {
        self.write_if(irql, Machine::take_unwritten);
    }

    /// Writes that the task has run, if `wanted` while nobody else writes.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "each success of a persistent task goes through it"
    )]
    fn write_if(
        &self,
        irql: &Irql<'_, Passive>,
        wanted: impl Fn(&mut Machine<C>) -> bool + Send + Sync,
    ) {
        if self.begin_writing_if(irql, wanted) {
            let written = self.persistence.write(irql, 1);
            self.machine.with(|machine| self.end_writing(machine));
            if let Err(status) = written {
                self.report(irql, PersistenceOperation::Write, status);
            }
        }
    }

    /// Becomes the one who writes the persistent value, after whoever does now,
    /// if then it is `wanted`.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    fn begin_writing_if(
        &self,
        irql: &Irql<'_, Passive>,
        wanted: impl Fn(&mut Machine<C>) -> bool + Send + Sync,
    ) -> bool {
        let mut has_waited = false;
        loop {
            let begins = self.machine.with(|machine| {
                let begins = machine.begin_writing(has_waited).then(|| wanted(machine));
                if begins == Some(false) {
                    self.end_writing(machine);
                }
                begins
            });
            if let Some(begins) = begins {
                return begins;
            }
            let _ = self.written.wait(irql, Timeout::Never);
            has_waited = true;
        }
    }

    fn end_writing(&self, machine: &mut Machine<C>) {
        if machine.end_writing() {
            self.written.set();
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each run goes through it")]
    fn call(
        &self,
        irql: &mut Irql<'_, Passive>,
        running: Option<Running<'_>>,
        trigger: Trigger,
        attempt: u64,
        previous_state: Option<PowerState>,
        context: Option<C>,
    ) -> Result<TaskResult> {
        let task = &mut Task {
            irql: irql.reborrow(),
            trigger,
            attempt,
            previous_state,
            context,
            of_the_config: &self.context,
        };
        match running {
            Some(running) => self.task.call_within(running, task),
            None => self.task.call(task),
        }
    }

    /// Whether the registry says that the task has run.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "each attempt of a persistent task goes through it"
    )]
    fn has_run(&self, irql: &Irql<'_, Passive>) -> bool {
        match self.persistence.read(irql) {
            Ok(times) => times > 0,
            Err(error) => self.has_run_without_reading(irql, error),
        }
    }

    #[cold]
    fn has_run_without_reading(&self, irql: &Irql<'_, Passive>, error: QueryError) -> bool {
        self.report(irql, PersistenceOperation::Read, error.into());
        self.persistence.policy == persistence::Policy::FailClosed
    }

    #[cold]
    fn report(&self, irql: &Irql<'_, Passive>, operation: PersistenceOperation, status: NtStatus) {
        let name = self.persistence.name;
        match &self.on_persistence_failure {
            Some(tell) => {
                let _ = tell.call(&mut PersistenceFailure::new(irql, operation, name, status));
            }
            None => dmf::println!("ScheduledTask: {operation} of {name}: {status}"),
        }
    }

    /// Acts on the result of an attempt, while the task still counts as running.
    fn finish(&self, after: After, result: Option<TaskResult>) {
        self.change(|machine| {
            let effects = machine.finish(after, result, &self.periods, Instant::now);
            (effects, ())
        });
    }
}
