// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables of `docs/porting-from-dmf.md` cannot rot: each Rust name in them
//! compiles here.

use std::time::Duration;

use dmf::NtStatus;
use dmf::irql::{Irql, Passive};
use dmf::module::{Modules, Owner};
use dmf::time::Timeout;
use dmf_modules::alertable_sleep::{
    self, Abort, Aborter, AlertableSleep, SleepOutcome, Sleeper, SlotStatus, Woken,
};
use dmf_modules::scheduled_task::{
    self, Cancelled, ExecuteWhen, ScheduledTask, Task, TaskResult, Trigger,
};

struct Device;

/// Never called: that it compiles is the test.
#[allow(dead_code, clippy::too_many_lines, reason = "it is a list")]
fn names(add: &mut Modules<'_, Device>) {
    {
        use alertable_sleep::Config;
        let _: fn() -> alertable_sleep::Config = AlertableSleep::config;
        let _ = (Config::event_count, Config::alertable);
        let _ = Modules::module(add, AlertableSleep::config());
        let _ = |owner: &Owner<Device>, irql: &Irql<'_, Passive>| {
            let _ = Owner::create(owner, irql, AlertableSleep::config());
        };
        let _ = |sleep: &AlertableSleep, irql: &Irql<'_, Passive>| {
            let _ = AlertableSleep::sleep(sleep, irql, 0, Duration::ZERO);
            AlertableSleep::sleep(sleep, irql, 0, Timeout::Never)
        };
        let _ = |sleeper: &mut Sleeper, irql: &Irql<'_, Passive>| {
            Sleeper::sleep(sleeper, irql, Duration::ZERO)
        };
        let _ = (AlertableSleep::try_sleep, AlertableSleep::abort);
        let _ = (AlertableSleep::abort_all, AlertableSleep::reset_for_reuse);
        let _ = (AlertableSleep::take_sleeper, AlertableSleep::aborter);
        let _ = (AlertableSleep::status, AlertableSleep::event_count);
        let _ = (Sleeper::reset, Sleeper::aborter);
        let _ = Aborter::abort;
        let _: Option<(Woken, SlotStatus)> = None;
        let _ = SleepOutcome::Elapsed;
        let _: fn(Abort) -> SleepOutcome = SleepOutcome::Aborted;
        let _ = (SleepOutcome::Closing, SleepOutcome::Alerted);
        let _ = SleepOutcome::UserApc;
        let _ = (NtStatus::INVALID_PARAMETER, NtStatus::DEVICE_BUSY);
        let _ = (NtStatus::INVALID_DEVICE_STATE, NtStatus::CANCELLED);
        let _: NtStatus = NtStatus::from(SleepOutcome::Elapsed);
        let _ = Timeout::Never;
    }
    {
        type Config = scheduled_task::Config<Device, u32>;
        type ScheduledTaskOfNumbers = ScheduledTask<u32>;
        fn callback(_: &Device, _: &mut Task<'_, u32>) -> TaskResult {
            TaskResult::Success
        }
        let _ = ScheduledTask::config(callback);
        let _ = (Config::context, Config::execute_when, Config::immediate);
        let _ = (Config::deferred, Config::persistent_across_reboots);
        let _ = (Config::persistence_name, Config::persistent_state_key);
        let _ = (Config::fail_closed, Config::on_persistence_failure);
        let _ = (Config::retry_on_success, Config::retry_on_fail);
        let _ = (Config::back_off, Config::retry_limit, Config::initial_delay);
        let _ = (Task::<u32>::previous_state, Task::<u32>::context);
        let _ = |task: &mut Task<'_, u32>| {
            let _ = (Task::irql(task), Task::trigger(task), Task::attempt(task));
            let _ = (Task::previous_state(task), Task::context(task).copied());
            Task::take_context(task)
        };
        let _: Option<(Trigger, Cancelled)> = None;
        let _ = (ExecuteWhen::PrepareHardware, ExecuteWhen::D0Entry);
        let _ = ExecuteWhen::Other;
        let _ = (TaskResult::Success, TaskResult::SuccessButTryAgain);
        let _ = (TaskResult::Fail, TaskResult::FailButTryAgain);
        let _ = (
            ScheduledTask::execute_now,
            ScheduledTask::execute_now_deferred,
        );
        let _ = |task: &ScheduledTaskOfNumbers| {
            let _ = ScheduledTask::execute_now_deferred_with(task, 1);
            let _ = ScheduledTask::execute_now_deferred_ex(task);
        };
        let _ = ScheduledTask::<u32>::execute_now_with;
        let _ = (ScheduledTask::<u32>::cancel, ScheduledTask::<u32>::restart);
        let _ = ScheduledTask::<u32>::times_run_get;
        let _ = ScheduledTask::<u32>::times_run_set;
    }
}

#[test]
fn each_rust_name_of_the_porting_guide_compiles() {
    let code = include_str!("porting.rs").replace("::<u32>", "");
    let guide = include_str!("../../docs/porting-from-dmf.md");
    let mut rows = 0;
    for line in guide.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, rust, _] = cells[..] else { continue };
        // The tables of functions, and not that of how values are kept.
        let names = rust.split(", ").filter(|name| name.starts_with('`'));
        for name in names.clone() {
            let name = name.trim_matches('`');
            let found = code.match_indices(name).any(|(at, _)| {
                let boundary =
                    |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                boundary(code[..at].chars().next_back())
                    && boundary(code[at + name.len()..].chars().next())
            });
            assert!(found, "{name}: {line}");
        }
        rows += usize::from(names.count() > 0);
    }
    assert!(rows > 35, "{rows} rows were read");
}
