// SPDX-License-Identifier: MIT OR Apache-2.0

//! What DMF's own test module for `DMF_ScheduledTask` does, as one scenario: 54
//! tasks in three groups of 18, driven through load, start, ten seconds of work
//! and removal; with the expectations that DMF has, checked on each schedule.
//!
//! | Group | Driven by |
//! |---|---|
//! | legacy | the framework; `execute_now_deferred` and `execute_now` |
//! | ex | the framework; `execute_now_deferred_ex` |
//! | cancelled | the framework, and cancelled before it is their turn |

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::RefCell;
use std::time::Duration;

use dmf::module::{Create, Instance, Link, ModuleConfig, Open};
use dmf::pool;
use dmf::prelude::*;
use dmf_modules::ScheduledTask;
use dmf_modules::scheduled_task::ExecuteWhen::{
    self, D0Entry as AtD0, Other, PrepareHardware as AtPrepare,
};
use dmf_modules::scheduled_task::TaskResult::{
    self, Fail, FailButTryAgain, Success, SuccessButTryAgain,
};
use dmf_modules::scheduled_task::{Cancelled, Task};
use probe::Probe;

dmf::driver!(Bus);

const TASKS: usize = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Legacy,
    Ex,
    Cancelled,
}

use Group::{Ex, Legacy};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Immediate,
    Deferred,
}

use Mode::{Deferred, Immediate};

/// One task: what its first run returns, when it runs, and how often.
#[derive(Clone, Copy, Debug)]
struct Row {
    first: TaskResult,
    persistent: bool,
    when: ExecuteWhen,
    mode: Mode,
    legacy: usize,
    ex: usize,
}

const fn row(first: TaskResult, when: ExecuteWhen, mode: Mode, legacy: usize, ex: usize) -> Row {
    Row {
        first,
        persistent: false,
        when,
        mode,
        legacy,
        ex,
    }
}

/// The groups "legacy" and "ex".
const TABLE: [Row; TASKS] = [
    row(Success, AtD0, Immediate, 1, 1),
    row(SuccessButTryAgain, AtD0, Immediate, 2, 2),
    row(Success, AtPrepare, Immediate, 1, 1),
    row(SuccessButTryAgain, AtPrepare, Immediate, 2, 2),
    row(Success, AtD0, Deferred, 1, 1),
    row(SuccessButTryAgain, AtD0, Deferred, 2, 2),
    row(Fail, AtD0, Deferred, 1, 1),
    row(FailButTryAgain, AtD0, Deferred, 2, 2),
    row(Success, AtPrepare, Deferred, 1, 1),
    row(SuccessButTryAgain, AtPrepare, Deferred, 2, 2),
    row(Fail, AtPrepare, Deferred, 1, 1),
    row(FailButTryAgain, AtPrepare, Deferred, 2, 2),
    // All persistent tasks of a driver share their value: the first wins.
    Row {
        persistent: true,
        ..row(Success, AtPrepare, Immediate, 1, 0)
    },
    Row {
        persistent: true,
        ..row(Success, AtD0, Immediate, 0, 0)
    },
    // 50 deferred runs and 50 on the caller's thread; 50 deferred attempts.
    row(Success, Other, Immediate, 100, 1),
    row(SuccessButTryAgain, Other, Immediate, 100, 2),
    row(Fail, Other, Immediate, 100, 2),
    row(FailButTryAgain, Other, Immediate, 100, 2),
];

/// The group that is cancelled: nothing of it ever runs.
const CANCELLED: [Row; TASKS] = {
    const fn never(first: TaskResult, when: ExecuteWhen) -> Row {
        row(first, when, Deferred, 0, 0)
    }
    const fn persistent(row: Row) -> Row {
        Row {
            persistent: true,
            ..row
        }
    }
    [
        never(Success, AtD0),
        never(SuccessButTryAgain, AtD0),
        never(Success, AtPrepare),
        never(SuccessButTryAgain, AtPrepare),
        never(Success, AtD0),
        never(SuccessButTryAgain, AtD0),
        never(Fail, AtD0),
        never(FailButTryAgain, AtD0),
        never(Success, AtPrepare),
        never(SuccessButTryAgain, AtPrepare),
        never(Fail, AtPrepare),
        never(FailButTryAgain, AtPrepare),
        persistent(never(Success, AtPrepare)),
        persistent(never(Success, AtD0)),
        never(Success, Other),
        never(SuccessButTryAgain, Other),
        never(Fail, Other),
        never(FailButTryAgain, Other),
    ]
};

const CALLS: usize = 50;

thread_local! {
    /// How often each task of each group has run.
    static EXECUTED: RefCell<[[usize; TASKS]; 3]> = const { RefCell::new([[0; TASKS]; 3]) };
}

fn executed(group: Group) -> [usize; TASKS] {
    EXECUTED.with_borrow(|executed| executed[group as usize])
}

/// Which task it is: the context of all its runs.
#[derive(Clone, Copy, Debug)]
struct Which {
    group: Group,
    index: usize,
    first: TaskResult,
}

struct Bus;

impl Device for Bus {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.module(SuiteConfig)?;
        Ok(Bus)
    }
}

#[derive(Clone, Debug)]
struct Suite(#[expect(dead_code, reason = "nobody calls methods of the suite")] Link<SuiteState>);

impl Module for Suite {
    type Instance = SuiteState;
    fn over(instance: Link<SuiteState>) -> Self {
        Self(instance)
    }
}

struct SuiteConfig;

type Task54 = (Row, Which, Handle<ScheduledTask<Which>>);

/// The parent of the 54 tasks.
struct SuiteState {
    tasks: pool::Vec<Task54>,
}

impl<O: Send + Sync + 'static> ModuleConfig<O> for SuiteConfig {
    type Module = Suite;

    fn create(self, cx: &mut Create<'_, O, SuiteState>) -> Result<SuiteState> {
        let mut tasks = pool::Vec::new();
        for (group, table, period) in [
            (Legacy, TABLE, Duration::from_secs(1)),
            (Ex, TABLE, Duration::from_secs(1)),
            (Group::Cancelled, CANCELLED, Duration::from_secs(4)),
        ] {
            for (index, row) in table.into_iter().enumerate() {
                let which = Which {
                    group,
                    index,
                    first: row.first,
                };
                let mut config = ScheduledTask::config(SuiteState::run)
                    .context(which)
                    .execute_when(row.when)
                    .retry_on_fail(period)
                    .retry_on_success(period);
                if row.mode == Immediate {
                    config = config.immediate();
                }
                if row.persistent {
                    config = config.persistent_across_reboots();
                }
                if group == Group::Cancelled {
                    config = config.initial_delay(period);
                }
                tasks.push((row, which, cx.module(config)?))?;
            }
        }
        Ok(SuiteState { tasks })
    }
}

impl SuiteState {
    #[expect(clippy::unused_self, reason = "a task of the suite")]
    fn run(&self, task: &mut Task<'_, Which>) -> TaskResult {
        let which = *task.context().unwrap();
        assert_ne!(which.group, Group::Cancelled, "{which:?} must never run");
        let before = EXECUTED.with_borrow_mut(|executed| {
            let times = &mut executed[which.group as usize][which.index];
            *times += 1;
            *times - 1
        });
        if before == 0 { which.first } else { Success }
    }

    fn tasks(&self, group: Group) -> impl Iterator<Item = &Task54> {
        self.tasks
            .iter()
            .filter(move |(_, which, _)| which.group == group)
    }

    fn on_demand(&self, group: Group) -> impl Iterator<Item = &Task54> {
        self.tasks(group).filter(|(row, ..)| row.when == Other)
    }

    fn times_run(&self, irql: &Irql<'_, Passive>) {
        let (.., task) = &self.tasks[0];
        for times in [1, 0] {
            task.times_run_set(irql, times).unwrap();
            assert_eq!(task.times_run_get(irql), Ok(times));
        }
    }

    fn run_manual_tasks(&self, irql: &mut Irql<'_, Passive>) {
        for (row, which, task) in self.on_demand(Legacy) {
            for call in 0..CALLS {
                task.execute_now_deferred_with(*which).unwrap();
                let result = task.execute_now_with(irql, *which).unwrap();
                // The deferred run may have been the first.
                assert!(result == Success || call == 0 && result == row.first);
            }
        }
    }

    fn run_manual_tasks_ex(&self) {
        for (.., task) in self.on_demand(Ex) {
            for _ in 0..CALLS {
                task.execute_now_deferred_ex().unwrap();
            }
        }
    }

    /// The tasks are done by now. DMF's test does this with the same tasks.
    fn run_manual_tasks_ex_cancel(&self, irql: &Irql<'_, Passive>) {
        for (.., task) in self.on_demand(Ex) {
            for call in 0..CALLS {
                if call > 0 {
                    task.restart().unwrap();
                }
                task.execute_now_deferred_ex().unwrap();
                dmf::sync::delay(irql, Duration::from_millis(30));
                assert_eq!(task.cancel(irql), Ok(Cancelled::Quiet));
            }
        }
    }

    /// The immediate tasks that have had their moment have run, and no others.
    fn check_immediate(&self, had_moment: impl Fn(ExecuteWhen) -> bool) {
        for group in [Legacy, Ex] {
            for (row, which, _) in self.tasks(group) {
                if row.mode == Immediate && row.when != Other {
                    let expected = if group == Legacy { row.legacy } else { row.ex };
                    let ran = executed(group)[which.index] > 0;
                    assert_eq!(ran, expected > 0 && had_moment(row.when), "{which:?}");
                }
            }
        }
    }

    fn cancel_all(&self, irql: &Irql<'_, Passive>, when: ExecuteWhen) {
        for (row, _, task) in self.tasks(Group::Cancelled) {
            if row.when == when {
                assert_eq!(task.cancel(irql), Ok(Cancelled::Quiet));
            }
        }
    }
}

impl Instance for SuiteState {
    fn open(&self, cx: &mut Open<'_>) -> Result {
        self.times_run(cx.irql());
        self.run_manual_tasks(cx.irql());
        self.run_manual_tasks_ex();
        self.run_manual_tasks_ex_cancel(cx.irql());
        Ok(())
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        self.check_immediate(|when| when == AtPrepare);
        self.cancel_all(cx.irql(), AtPrepare);
        Ok(())
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        self.check_immediate(|_| true);
        self.cancel_all(cx.irql(), AtD0);
        Ok(())
    }
}

fn expected(of: impl Fn(&Row) -> usize) -> [usize; TASKS] {
    TABLE.each_ref().map(of)
}

#[test]
fn dmfs_54_tasks_run_as_often_as_dmf_says() {
    for seed in 0..20 {
        EXECUTED.take();
        let mut probe = Probe::started(Bus::DRIVER_ENTRY, seed);
        probe.run_for(Duration::from_secs(2));
        assert_eq!(executed(Legacy), expected(|row| row.legacy), "seed {seed}");
        probe.run_for(Duration::from_secs(8));
        assert_eq!(executed(Legacy), expected(|row| row.legacy), "seed {seed}");
        assert_eq!(executed(Ex), expected(|row| row.ex), "seed {seed}");
        assert_eq!(executed(Group::Cancelled), [0; TASKS], "seed {seed}");
        let took = probe.machine.now();
        assert!(took >= Duration::from_secs(16), "as on a real machine");
        probe.remove();
    }
}

/// DMF's expectations hold for the first power-up only: it loses what is pending
/// when the device goes down, and never tries it.
#[test]
fn dmfs_54_tasks_run_as_often_if_the_device_loses_power_in_between() {
    for seed in 0..20 {
        EXECUTED.take();
        let mut probe = Probe::started(Bus::DRIVER_ENTRY, seed);
        probe.run_for(Duration::from_millis(500));
        probe.power_down();
        let asleep = executed(Legacy);
        probe.run_for(Duration::from_mins(1));
        assert_eq!(executed(Legacy), asleep, "seed {seed}");
        probe.power_up();
        probe.run_for(Duration::from_secs(10));
        // The next moment: what has failed is tried once more.
        let again = |of: fn(&Row) -> usize| {
            expected(|row| of(row) + usize::from(row.first == Fail && row.when == AtD0))
        };
        assert_eq!(executed(Legacy), again(|row| row.legacy), "seed {seed}");
        assert_eq!(executed(Ex), again(|row| row.ex), "seed {seed}");
        assert_eq!(executed(Group::Cancelled), [0; TASKS], "seed {seed}");
        probe.remove();
    }
}
