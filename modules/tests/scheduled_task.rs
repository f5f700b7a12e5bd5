// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`ScheduledTask`] on a simulated machine.

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::time::Duration;

use dmf::driver::DriverEntry;
use dmf::module::{Close, Create, Instance, Link, Module, ModuleConfig};
use dmf::prelude::*;
use dmf::string::UnicodeStr;
use dmf_modules::ScheduledTask;
use dmf_modules::scheduled_task::{
    Cancelled, Config, ExecuteWhen, PersistenceFailure, Task, TaskResult, Trigger,
};
use probe::Probe;

dmf::driver!(Busy);

/// A device with one `ScheduledTask`.
struct Busy {
    task: Handle<ScheduledTask>,
}

/// What the task does on its first run; later ones succeed.
#[derive(Clone, Copy)]
enum First {
    Return(TaskResult),
    CancelAndTryAgain,
    CancelAndRestartAndTryAgain,
    Delay(Duration),
    /// Also later runs do, and take no time.
    AlwaysTryAgain,
}

type Configure = fn(Config<Busy>) -> Config<Busy>;

thread_local! {
    static CONFIGURE: Cell<Configure> = const { Cell::new(|config| config) };
    static FIRST: Cell<First> = const { Cell::new(First::Return(TaskResult::Success)) };
    static RUNS: RefCell<Vec<(Trigger, u32)>> = const { RefCell::new(Vec::new()) };
    /// The power state that each run was told.
    static PREVIOUS: RefCell<Vec<Option<PowerState>>> = const { RefCell::new(Vec::new()) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static TASK: RefCell<Option<ManuallyDrop<Handle<ScheduledTask>>>> =
        const { RefCell::new(None) };
    /// Whether the test keeps a handle. If the start fails, that would be memory
    /// that the driver leaves behind.
    static KEEP: Cell<bool> = const { Cell::new(true) };
    /// Whether the device's own hooks leave notes.
    static NOTE_HOOKS: Cell<bool> = const { Cell::new(false) };
    /// Whether there is an `Earlier`, and the result of its D0Entry.
    static EARLIER: Cell<Option<Result>> = const { Cell::new(None) };
    static NOTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Device for Busy {
    fn prepare_hardware(&self, _cx: &mut PrepareHardware<'_>) -> Result {
        if NOTE_HOOKS.get() {
            note("prepared".to_owned());
        }
        Ok(())
    }

    fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
        if NOTE_HOOKS.get() {
            note("awake".to_owned());
        }
        Ok(())
    }

    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        if EARLIER.get().is_some() {
            add.module(Earlier)?;
        }
        let task = add.module(CONFIGURE.get()(ScheduledTask::config(Busy::run)))?;
        if KEEP.get() {
            TASK.set(Some(ManuallyDrop::new(task.clone())));
        }
        Ok(Busy { task })
    }
}

/// The config, the module and the instance of a module that is added before the
/// task: it comes before the task on the way up, and after it on the way down.
#[derive(Clone)]
struct Earlier;

impl Instance for Earlier {
    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        dmf::sync::delay(cx.irql(), Duration::from_secs(1));
        EARLIER.get().unwrap()
    }

    fn close(&self, _cx: &mut Close<'_>) {
        note(format!("closed: running = {}", RUNNING.get()));
    }

    fn release_hardware(&self, _cx: &mut ReleaseHardware<'_>) {
        note(format!("released: running = {}", RUNNING.get()));
    }
}

impl Module for Earlier {
    type Instance = Earlier;

    fn over(_instance: Link<Earlier>) -> Self {
        Earlier
    }
}

impl<O: Send + Sync + 'static> ModuleConfig<O> for Earlier {
    type Module = Earlier;

    fn create(self, _cx: &mut Create<'_, O, Earlier>) -> Result<Earlier> {
        Ok(self)
    }
}

impl Busy {
    fn run(&self, task: &mut Task<'_>) -> TaskResult {
        assert!(
            !RUNNING.replace(true),
            "callbacks of one task never overlap"
        );
        PREVIOUS.with_borrow_mut(|states| states.push(task.previous_state()));
        let first = RUNS.with_borrow_mut(|runs| {
            runs.push((task.trigger(), task.attempt()));
            runs.len() == 1
        });
        if !matches!(FIRST.get(), First::AlwaysTryAgain) {
            // Gives another callback the time to overlap.
            dmf::sync::delay(task.irql(), Duration::from_millis(1));
        }
        let result = match (first, FIRST.get()) {
            (_, First::AlwaysTryAgain) => TaskResult::FailButTryAgain,
            (false, _) => TaskResult::Success,
            (true, First::Return(result)) => result,
            (true, First::CancelAndTryAgain) => {
                let cancelled = self.task.cancel(task.irql());
                note(format!("{cancelled:?}"));
                TaskResult::FailButTryAgain
            }
            (true, First::CancelAndRestartAndTryAgain) => {
                let cancelled = self.task.cancel(task.irql());
                note(format!("{cancelled:?}"));
                self.task.restart().unwrap();
                TaskResult::FailButTryAgain
            }
            (true, First::Delay(duration)) => {
                dmf::sync::delay(task.irql(), duration);
                TaskResult::FailButTryAgain
            }
        };
        RUNNING.set(false);
        result
    }

    #[expect(clippy::unused_self, reason = "a callback of the device")]
    fn persistence_failed(&self, failure: &mut PersistenceFailure<'_>) {
        note(format!(
            "{} of {}: {}",
            failure.operation(),
            failure.name(),
            failure.status()
        ));
    }
}

fn note(text: String) {
    NOTED.with_borrow_mut(|noted| noted.push(text));
}

/// The module of the device. Only for threads of the machine.
fn module() -> Handle<ScheduledTask> {
    TASK.with_borrow(|task| task.as_deref().cloned().unwrap())
}

/// Drops the test's handle. Only for threads of the machine.
fn forget_module() {
    drop(TASK.take().map(ManuallyDrop::into_inner));
}

fn runs() -> usize {
    RUNS.with_borrow(Vec::len)
}

/// Plays `test` under several schedules, on a machine that is not started.
fn play(first: First, configure: Configure, test: impl Fn(&mut Probe)) {
    play_seeds(20, first, configure, test);
}

/// Plays `test` under that many schedules.
fn play_seeds(seeds: u64, first: First, configure: Configure, test: impl Fn(&mut Probe)) {
    play_on(Probe::new, seeds, first, configure, test);
}

/// The same on that machine.
fn play_on(
    new: fn(DriverEntry, u64) -> Probe,
    seeds: u64,
    first: First,
    configure: Configure,
    test: impl Fn(&mut Probe),
) {
    for seed in 0..seeds {
        CONFIGURE.set(configure);
        FIRST.set(first);
        RUNS.take();
        PREVIOUS.take();
        NOTED.take();
        RUNNING.set(false);
        KEEP.set(true);
        let mut probe = new(Busy::DRIVER_ENTRY, seed);
        test(&mut probe);
        finish(&mut probe);
    }
}

/// Removes the device, if it is there.
fn finish(probe: &mut Probe) {
    if !probe.machine.started_devices().is_empty() {
        probe.thread(|_| forget_module());
        probe.remove();
    }
}

const PERIOD: Duration = Duration::from_secs(5);

#[test]
fn each_result_has_its_effect_at_each_moment_in_each_mode() {
    use TaskResult::{Fail, FailButTryAgain, Success, SuccessButTryAgain};

    const MOMENTS: [(Configure, Configure); 2] = [
        (
            |config| {
                config
                    .execute_when(ExecuteWhen::PrepareHardware)
                    .immediate()
            },
            |config| config.execute_when(ExecuteWhen::PrepareHardware).deferred(),
        ),
        (
            |config| config.execute_when(ExecuteWhen::D0Entry).immediate(),
            |config| config.execute_when(ExecuteWhen::D0Entry).deferred(),
        ),
    ];
    // (first result, runs when deferred, runs when immediate; `None`: the start fails)
    const TABLE: [(TaskResult, usize, Option<usize>); 4] = [
        (Success, 1, Some(1)),
        (SuccessButTryAgain, 2, Some(2)),
        (Fail, 1, None),
        (FailButTryAgain, 2, None),
    ];
    for (result, deferred_runs, immediate_runs) in TABLE {
        for (immediate, deferred) in MOMENTS {
            play(First::Return(result), deferred, |probe| {
                probe.start().unwrap();
                probe.run_for(PERIOD);
                assert_eq!(runs(), deferred_runs, "deferred, {result:?}");
            });
            play(First::Return(result), immediate, |probe| {
                KEEP.set(immediate_runs.is_some());
                let started = probe.start();
                if let Some(immediate_runs) = immediate_runs {
                    started.unwrap();
                    assert_eq!(runs(), 1, "immediate, {result:?}");
                    probe.run_for(PERIOD);
                    assert_eq!(runs(), immediate_runs, "immediate, {result:?}");
                } else {
                    let error = started.unwrap_err().to_string();
                    assert!(error.contains("0xc0000001"), "{error}");
                    probe.run_for(PERIOD);
                    assert_eq!(runs(), 1, "no timer is left armed, {result:?}");
                }
            });
        }
    }
}

#[test]
fn a_retry_that_is_pending_at_power_down_runs_after_power_up() {
    play(
        First::Return(TaskResult::FailButTryAgain),
        |config| {
            config
                .execute_when(ExecuteWhen::D0Entry)
                .retry_on_fail(PERIOD)
        },
        |probe| {
            probe.start().unwrap();
            probe.run_for(Duration::from_secs(1));
            assert_eq!(runs(), 1);
            probe.power_down();
            probe.run_for(PERIOD * 10);
            assert_eq!(runs(), 1, "no callback runs in low power");
            probe.power_up();
            probe.run_for(PERIOD * 2);
            assert_eq!(RUNS.take()[1..], [(Trigger::Scheduled, 2)]);
        },
    );
}

#[test]
fn a_power_down_during_the_callback_waits_for_it_and_keeps_its_retry() {
    play(
        First::Delay(Duration::from_secs(2)),
        |config| {
            config
                .execute_when(ExecuteWhen::PrepareHardware)
                .retry_on_fail(PERIOD)
        },
        |probe| {
            probe.start().unwrap();
            probe.run_for(Duration::from_secs(1));
            assert!(RUNNING.get());
            probe.power_down();
            assert!(!RUNNING.get());
            probe.run_for(PERIOD * 10);
            assert_eq!(runs(), 1);
            probe.power_up();
            probe.run_for(PERIOD * 2);
            assert_eq!(runs(), 2);
        },
    );
}

#[test]
fn a_persistent_task_runs_once_ever() {
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::PrepareHardware)
                .immediate()
                .persistent_across_reboots()
        },
        |probe| {
            probe.start().unwrap();
            assert_eq!(runs(), 1);
            finish(probe);
            probe.start().unwrap();
            assert_eq!(runs(), 1);
            assert_eq!(probe.thread(|irql| module().times_run_get(irql)), Ok(1));
            probe.thread(|_| forget_module());
            probe.machine.reboot().unwrap();
            probe.start().unwrap();
            assert_eq!(runs(), 1);
            // Zero lets it run again.
            probe
                .thread(|irql| module().times_run_set(irql, 0))
                .unwrap();
            finish(probe);
            probe.start().unwrap();
            assert_eq!(runs(), 2);
        },
    );
}

#[test]
fn a_persistent_task_in_d0_entry_uses_the_registry_outside() {
    NOTE_HOOKS.set(true);
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::D0Entry)
                .immediate()
                .persistent_across_reboots()
                .on_persistence_failure(Busy::persistence_failed)
        },
        |probe| {
            use ntsim::registry::Value;
            let path = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe\Parameters";
            set_value(probe, path, "TimesRun", Value::sz("text"));
            probe.start().unwrap();
            assert_eq!(runs(), 1);
            assert_eq!(
                NOTED.take(),
                [
                    "read of TimesRun: STATUS_OBJECT_TYPE_MISMATCH (0xC0000024)",
                    "prepared",
                    "awake"
                ]
            );
            assert_eq!(probe.thread(|irql| module().times_run_get(irql)), Ok(1));
            finish(probe);
            probe.start().unwrap();
            probe.power_down();
            probe.power_up();
            assert_eq!(runs(), 1, "it has run");
            // Zero lets it run again, and one forbids it.
            for (times, expected) in [(0, 2), (0, 3), (1, 3)] {
                probe
                    .thread(move |irql| module().times_run_set(irql, times))
                    .unwrap();
                probe.power_down();
                probe.power_up();
                assert_eq!(runs(), expected);
            }
            finish(probe);
            probe.start().unwrap();
            assert_eq!(runs(), 3);
            NOTED.take();
        },
    );
}

#[test]
fn at_prepare_hardware_only_a_persistent_immediate_task_of_d0_entry_goes_by_the_value() {
    use ntsim::registry::Value;
    let path = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe\Parameters";
    play(
        First::Return(TaskResult::Success),
        |config| config.execute_when(ExecuteWhen::D0Entry).immediate(),
        |probe| {
            set_value(probe, path, "TimesRun", Value::dword(1));
            probe.start().unwrap();
            assert_eq!(runs(), 1, "it is not persistent");
        },
    );
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::D0Entry)
                .persistent_across_reboots()
                .initial_delay(PERIOD)
        },
        |probe| {
            set_value(probe, path, "TimesRun", Value::dword(1));
            probe.start().unwrap();
            set_value(probe, path, "TimesRun", Value::dword(0));
            probe.run_for(PERIOD * 2);
            assert_eq!(runs(), 1, "a deferred one reads it before it runs");
        },
    );
}

#[test]
fn nothing_but_the_success_of_a_persistent_task_is_written() {
    use TaskResult::{Fail, Success, SuccessButTryAgain};
    let cases: [(Configure, TaskResult, u32); 4] = [
        (|config| config, Success, 0),
        (Config::persistent_across_reboots, Fail, 0),
        (Config::persistent_across_reboots, SuccessButTryAgain, 0),
        (Config::persistent_across_reboots, Success, 1),
    ];
    for (configure, result, expected) in cases {
        play(First::Return(result), configure, |probe| {
            probe.start().unwrap();
            let times = probe.thread(|irql| {
                module().execute_now_deferred_ex().unwrap();
                // Before the retry.
                dmf::sync::delay(irql, Duration::from_millis(500));
                module().times_run_get(irql)
            });
            assert_eq!(runs(), 1);
            assert_eq!(times, Ok(expected), "{result:?}");
        });
    }
}

#[test]
fn what_a_task_in_d0_entry_has_done_is_written_at_the_latest_at_close() {
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::D0Entry)
                .immediate()
                .persistent_across_reboots()
        },
        |probe| {
            probe.start().unwrap();
            finish(probe);
            probe.machine.reboot().unwrap();
            probe.start().unwrap();
            assert_eq!(runs(), 1);
        },
    );
}

#[test]
fn times_run_set_to_zero_lets_a_done_task_run_at_once() {
    play(
        First::Return(TaskResult::Success),
        dmf_modules::scheduled_task::Config::persistent_across_reboots,
        |probe| {
            probe.start().unwrap();
            let deferred = |probe: &mut Probe| {
                probe
                    .thread(|_| module().execute_now_deferred_ex())
                    .unwrap();
                probe.run_for(PERIOD);
            };
            deferred(probe);
            deferred(probe);
            assert_eq!(runs(), 1);
            probe
                .thread(|irql| module().times_run_set(irql, 0))
                .unwrap();
            deferred(probe);
            assert_eq!(runs(), 2);
        },
    );
}

#[test]
fn calls_that_ignore_the_result_give_as_many_runs() {
    play(
        First::Return(TaskResult::Fail),
        |config| config,
        |probe| {
            probe.start().unwrap();
            probe.thread(|irql| {
                for _ in 0..50 {
                    module().execute_now_deferred().unwrap();
                    module().execute_now(irql).unwrap();
                }
            });
            probe.run_for(PERIOD);
            assert_eq!(runs(), 100);
        },
    );
}

#[test]
fn calls_that_honour_the_result_stop_at_the_first_success() {
    for (first, expected) in [
        (TaskResult::Success, 1),
        (TaskResult::SuccessButTryAgain, 2),
        (TaskResult::Fail, 2),
        (TaskResult::FailButTryAgain, 2),
    ] {
        play(
            First::Return(first),
            |config| config,
            |probe| {
                probe.start().unwrap();
                probe.thread(|_| {
                    for _ in 0..50 {
                        module().execute_now_deferred_ex().unwrap();
                    }
                });
                probe.run_for(PERIOD);
                assert_eq!(runs(), expected, "{first:?}");
            },
        );
    }
}

#[test]
fn cancel_is_sticky_until_restart() {
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::D0Entry)
                .initial_delay(PERIOD)
        },
        |probe| {
            probe.start().unwrap();
            assert_eq!(
                probe.thread(|irql| module().cancel(irql)),
                Ok(Cancelled::Quiet)
            );
            probe.thread(|irql| {
                assert_eq!(module().execute_now(irql), Err(NtStatus::CANCELLED));
                assert_eq!(module().execute_now_deferred(), Err(NtStatus::CANCELLED));
                assert_eq!(module().execute_now_deferred_ex(), Err(NtStatus::CANCELLED));
            });
            probe.power_down();
            probe.power_up();
            probe.run_for(PERIOD * 2);
            assert_eq!(runs(), 0);
            probe.thread(|_| module().restart()).unwrap();
            probe.power_down();
            probe.power_up();
            probe.run_for(PERIOD * 2);
            assert_eq!(runs(), 1);
        },
    );
}

#[test]
fn cancel_from_the_task_itself_takes_effect_when_the_task_returns() {
    play(
        First::CancelAndTryAgain,
        |config| config.execute_when(ExecuteWhen::D0Entry),
        |probe| {
            probe.start().unwrap();
            probe.run_for(PERIOD);
            assert_eq!(NOTED.take(), ["Ok(WhenTheTaskReturns)"]);
            assert_eq!(runs(), 1);
        },
    );
}

#[test]
fn a_restart_does_not_bring_back_what_cancel_ended() {
    play(
        First::CancelAndRestartAndTryAgain,
        |config| config.execute_when(ExecuteWhen::D0Entry),
        |probe| {
            probe.start().unwrap();
            probe.run_for(PERIOD);
            assert_eq!(NOTED.take(), ["Ok(WhenTheTaskReturns)"]);
            assert_eq!(runs(), 1, "its retry does not come back");
            // What is asked for after the restart does run.
            probe
                .thread(|_| module().execute_now_deferred_ex())
                .unwrap();
            probe.run_for(PERIOD);
            assert_eq!(runs(), 2);
        },
    );
}

#[test]
fn a_cancel_that_is_overtaken_by_a_restart_does_not_stop_the_new_timer() {
    play_seeds(
        1_000,
        First::AlwaysTryAgain,
        |config| config,
        |probe| {
            probe.start().unwrap();
            probe.thread(|irql| {
                // So that somebody runs already what is asked for below.
                for _ in 0..20 {
                    module().execute_now_deferred().unwrap();
                }
                let task = module();
                let canceller = Thread::spawn(irql, move |irql| {
                    task.cancel(irql).unwrap();
                })
                .unwrap();
                let task = module();
                let restarter = Thread::spawn(irql, move |_| {
                    task.restart().unwrap();
                    let asked = task.execute_now_deferred_ex();
                    note(format!("{asked:?}"));
                })
                .unwrap();
                canceller.join(irql);
                restarter.join(irql);
            });
            probe.run_for(PERIOD);
            // Whoever was first: a task that is not cancelled and has asked to
            // run again does. (If the cancel was last, nothing is pending.)
            let cancelled =
                probe.thread(|_| module().execute_now_deferred()) == Err(NtStatus::CANCELLED);
            if !cancelled && NOTED.take() == ["Ok(())"] {
                let retried = RUNS.with_borrow(|runs| {
                    runs.iter()
                        .any(|(trigger, _)| *trigger == Trigger::Scheduled)
                });
                assert!(retried, "armed, but no timer");
            }
        },
    );
}

#[test]
fn execute_now_is_refused_in_low_power() {
    for configure in [
        (|config| config.execute_when(ExecuteWhen::D0Entry)) as Configure,
        |config| config.execute_when(ExecuteWhen::PrepareHardware),
    ] {
        play(First::Return(TaskResult::Success), configure, |probe| {
            probe.start().unwrap();
            probe.run_for(PERIOD);
            probe.power_down();
            let before = runs();
            assert_eq!(
                probe.thread(|irql| module().execute_now(irql)),
                Err(NtStatus::INVALID_DEVICE_STATE)
            );
            assert_eq!(runs(), before, "no callback runs in low power");
            probe.power_up();
            assert_eq!(
                probe.thread(|irql| module().execute_now(irql)),
                Ok(TaskResult::Success)
            );
        });
    }
}

#[test]
fn a_task_on_demand_runs_in_low_power_too() {
    play(
        First::Return(TaskResult::Success),
        |config| config,
        |probe| {
            probe.start().unwrap();
            probe.power_down();
            assert_eq!(
                probe.thread(|irql| module().execute_now(irql)),
                Ok(TaskResult::Success)
            );
            probe.power_up();
        },
    );
}

#[test]
fn power_cycles_do_not_starve_a_delay() {
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::D0Entry)
                .initial_delay(PERIOD * 2)
        },
        |probe| {
            probe.start().unwrap();
            // 12 s of power in all, 4 s at a time; the delay is 10 s.
            for _ in 0..2 {
                probe.run_for(Duration::from_secs(4));
                probe.power_down();
                probe.run_for(PERIOD * 10);
                assert_eq!(runs(), 0, "time without power does not count");
                probe.power_up();
            }
            probe.run_for(Duration::from_secs(1));
            assert_eq!(runs(), 0);
            probe.run_for(Duration::from_secs(3));
            assert_eq!(runs(), 1);
        },
    );
}

#[test]
fn times_run_set_to_zero_is_not_lost_if_the_task_is_just_succeeding() {
    for configure in [Config::persistent_across_reboots as Configure, |config| {
        config
    }] {
        play_seeds(
            300,
            First::Return(TaskResult::Success),
            configure,
            |probe| {
                probe.start().unwrap();
                probe.thread(|irql| {
                    module().execute_now_deferred_ex().unwrap();
                    let start = Instant::now();
                    while runs() == 0 {
                        assert!(start.elapsed() < PERIOD, "the run does not begin");
                        dmf::sync::delay(irql, Duration::from_millis(1));
                    }
                    // The first run has begun. So this is after its beginning.
                    module().times_run_set(irql, 0).unwrap();
                });
                probe.run_for(PERIOD);
                probe
                    .thread(|_| module().execute_now_deferred_ex())
                    .unwrap();
                probe.run_for(PERIOD);
                assert_eq!(runs(), 2);
            },
        );
    }
}

#[test]
fn retries_are_limited_and_come_less_and_less_often() {
    play(
        First::AlwaysTryAgain,
        |config| {
            config
                .retry_on_fail(Duration::from_secs(1))
                .back_off(Duration::from_secs(5))
                .retry_limit(4)
        },
        |probe| {
            probe.start().unwrap();
            for _ in 0..2 {
                RUNS.take();
                probe
                    .thread(|_| module().execute_now_deferred_ex())
                    .unwrap();
                // Runs at 0, 1, 3, 7 and 12 s.
                for expected in [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5] {
                    probe.run_for(Duration::from_millis(500));
                    assert_eq!(runs(), expected);
                    probe.run_for(Duration::from_millis(500));
                }
                probe.run_for(PERIOD * 20);
                assert_eq!(runs(), 5, "the limit");
                let attempts = RUNS.with_borrow(|runs| runs.last().map(|run| run.1));
                assert_eq!(attempts, Some(5));
            }
        },
    );
}

#[test]
fn cancel_and_a_power_down_wait_for_a_run_on_demand_too() {
    let waits: [fn(&mut Probe); 2] = [
        |probe| {
            let cancelled = probe.thread(|irql| module().cancel(irql));
            assert_eq!(cancelled, Ok(Cancelled::Quiet));
        },
        Probe::power_down,
    ];
    for wait in waits {
        play(
            First::Delay(Duration::from_secs(2)),
            |config| {
                config
                    .execute_when(ExecuteWhen::D0Entry)
                    .initial_delay(PERIOD * 10)
            },
            |probe| {
                probe.start().unwrap();
                // The worker runs it: to wait for the timer is not enough.
                probe
                    .thread(|_| module().execute_now_deferred_ex())
                    .unwrap();
                probe.run_for(Duration::from_secs(1));
                assert!(RUNNING.get());
                wait(probe);
                assert!(!RUNNING.get());
                assert_eq!(runs(), 1);
            },
        );
    }
}

#[test]
fn close_forgets_what_is_pending_even_if_a_call_is_waiting() {
    play_on(
        Probe::keeping_threads,
        20,
        First::Delay(Duration::from_secs(2)),
        |config| config,
        |probe| {
            probe.start().unwrap();
            let waiting = probe.thread(|irql| {
                for _ in 0..10 {
                    module().execute_now_deferred().unwrap();
                }
                let task = module();
                let waiting = Thread::spawn(irql, move |irql| {
                    note(format!("{:?}", task.execute_now(irql)));
                })
                .unwrap();
                dmf::sync::delay(irql, Duration::from_secs(1));
                forget_module();
                waiting
            });
            // Its thread's handle is memory that the driver leaves behind.
            let device = probe.device.clone();
            let removed = probe.machine.remove_device(&device);
            probe.thread(move |irql| waiting.join(irql));
            removed.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(runs(), 1);
            assert_eq!(NOTED.take(), ["Err(STATUS_CANCELLED (0xC0000120))"]);
        },
    );
}

#[test]
fn a_task_on_demand_runs_while_the_device_is_given_other_resources_and_afterwards() {
    play(
        First::Return(TaskResult::Success),
        |config| config,
        |probe| {
            probe.start().unwrap();
            let run = |probe: &mut Probe| probe.thread(|irql| module().execute_now(irql));
            let device = probe.device.clone();
            probe.machine.stop_device(&device).unwrap();
            assert_eq!(run(probe), Ok(TaskResult::Success));
            probe.machine.restart_device(&device).unwrap();
            assert_eq!(run(probe), Ok(TaskResult::Success));
        },
    );
}

#[test]
fn a_task_of_prepare_hardware_has_ended_at_release_hardware_even_if_d0_entry_failed() {
    // The task's own D0Entry does not come, and so no D0Exit either.
    EARLIER.set(Some(Err(NtStatus::UNSUCCESSFUL)));
    play(
        First::Delay(Duration::from_secs(2)),
        |config| config.execute_when(ExecuteWhen::PrepareHardware),
        |probe| {
            KEEP.set(false);
            probe.start().unwrap_err();
            assert_eq!(runs(), 1);
            let noted = NOTED.take();
            assert_eq!(noted[0], "released: running = false", "{noted:?}");
        },
    );
}

#[test]
fn close_waits_for_the_task() {
    EARLIER.set(Some(Ok(())));
    play(
        First::Delay(Duration::from_secs(2)),
        |config| config,
        |probe| {
            probe.start().unwrap();
            probe.thread(|_| {
                module().execute_now_deferred_ex().unwrap();
                forget_module();
            });
            probe.run_for(Duration::from_secs(1));
            assert!(RUNNING.get());
            probe.remove();
            let noted = NOTED.take();
            assert!(
                noted.contains(&"closed: running = false".to_owned()),
                "{noted:?}"
            );
        },
    );
}

#[test]
fn a_config_that_cannot_be_meant_is_refused_with_the_field_and_the_value() {
    const TOO_LONG: &[u16] = &[b'n' as u16; 16_384];
    const LONGEST: &[u16] = TOO_LONG.split_at(16_383).0;
    let refusals: [(Configure, &str, &str); 5] = [
        (
            |config| config.retry_on_fail(Duration::ZERO),
            "0xc000000d",
            "retry_on_fail = 0",
        ),
        (
            |config| config.retry_on_success(Duration::ZERO),
            "0xc000000d",
            "retry_on_success = 0",
        ),
        (
            |config| config.retry_on_fail(PERIOD).back_off(PERIOD / 5),
            "0xc000000d",
            "back_off = 1s is shorter than retry_on_fail = 5s",
        ),
        (
            |config| config.persistence_name(UnicodeStr::literal(&[])),
            "0xc0000033",
            "persistence_name is empty",
        ),
        (
            |config| config.persistence_name(UnicodeStr::literal(TOO_LONG)),
            "0xc0000033",
            "persistence_name has 16384 characters",
        ),
    ];
    KEEP.set(false);
    for (configure, status, sentence) in refusals {
        CONFIGURE.set(configure);
        let mut probe = Probe::new(Busy::DRIVER_ENTRY, 0);
        let error = probe.start().unwrap_err().to_string();
        assert!(error.contains(status), "{sentence}: {error}");
        let said = (probe.machine.trace().iter()).any(|line| line.to_string().contains(sentence));
        assert!(said, "{sentence}");
    }
    let just_allowed: [Configure; 2] = [
        |config| config.persistence_name(UnicodeStr::literal(LONGEST)),
        |config| config.retry_on_fail(PERIOD).back_off(PERIOD),
    ];
    for configure in just_allowed {
        CONFIGURE.set(configure);
        let mut probe = Probe::started(Busy::DRIVER_ENTRY, 0);
        probe.remove();
    }
}

#[test]
fn the_persistent_state_key_is_used_instead_of_parameters_if_the_config_says_so() {
    const SERVICE: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe";
    play(
        First::Return(TaskResult::Success),
        |config| {
            config
                .execute_when(ExecuteWhen::PrepareHardware)
                .persistent_across_reboots()
                .persistent_state_key()
        },
        |probe| {
            use ntsim::registry::Value;
            // What is in the other key does not count.
            let parameters = format!(r"{SERVICE}\Parameters");
            set_value(probe, &parameters, "TimesRun", Value::dword(5));
            probe.start().unwrap();
            probe.run_for(PERIOD);
            assert_eq!(runs(), 1);
            let times = |place: &str| {
                let registry = probe.machine.registry();
                let key = registry.open(format!(r"{SERVICE}\{place}")).unwrap();
                registry.value(key, "TimesRun").unwrap().clone()
            };
            assert_eq!(times("PersistentState"), Value::dword(1));
            assert_eq!(times("Parameters"), Value::dword(5));
        },
    );
}

#[test]
fn of_immediate_and_deferred_the_last_counts() {
    play(
        First::Return(TaskResult::Fail),
        |config| {
            config
                .execute_when(ExecuteWhen::PrepareHardware)
                .immediate()
                .deferred()
        },
        |probe| {
            probe.start().unwrap();
            probe.run_for(PERIOD);
            assert_eq!(runs(), 1);
        },
    );
}

#[test]
fn an_immediate_task_at_d0_entry_is_told_which_state_the_device_comes_from() {
    play(
        First::Return(TaskResult::SuccessButTryAgain),
        |config| config.execute_when(ExecuteWhen::D0Entry).immediate(),
        |probe| {
            probe.start().unwrap();
            probe.run_for(PERIOD);
            let previous = PREVIOUS.take();
            assert_eq!(previous, [Some(PowerState::D3Final), None], "{previous:?}");
        },
    );
}

#[test]
fn a_value_of_another_type_is_reported_and_the_policy_decides() {
    const NAME: UnicodeStr<'static> = dmf::unicode_string!("OtherType");
    let policies: [(Configure, usize); 2] =
        [(|config| config, 1), (|config| config.fail_closed(), 0)];
    for (policy, expected) in policies {
        thread_local!(static POLICY: Cell<Configure> = const { Cell::new(|config| config) });
        POLICY.set(policy);
        play(
            First::Return(TaskResult::Fail),
            |config| {
                POLICY.get()(config)
                    .persistent_across_reboots()
                    .persistence_name(NAME)
                    .on_persistence_failure(Busy::persistence_failed)
            },
            |probe| {
                use ntsim::registry::Value;
                let path = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe\Parameters";
                set_value(probe, path, "OtherType", Value::sz("text"));
                probe.start().unwrap();
                probe
                    .thread(|_| module().execute_now_deferred_ex())
                    .unwrap();
                probe.run_for(PERIOD);
                assert_eq!(runs(), expected);
                assert_eq!(
                    NOTED.take(),
                    ["read of OtherType: STATUS_OBJECT_TYPE_MISMATCH (0xC0000024)"]
                );
            },
        );
    }
}

fn set_value(probe: &mut Probe, path: &str, name: &str, value: ntsim::registry::Value) {
    let registry = probe.machine.registry_mut();
    let key = registry
        .create(path, ntsim::registry::Volatility::Persistent)
        .unwrap();
    registry.set_value(key, name, value).unwrap();
}

#[test]
fn a_persistent_value_has_the_name_and_the_key_that_the_config_says() {
    const SERVICE: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe";
    // (what is configured, the values that there are afterwards)
    const TASKS: [(Configure, [bool; 3]); 3] = [
        (|config| config, [true, false, false]),
        (
            |config| config.persistence_name(dmf::unicode_string!("Mine")),
            [true, true, false],
        ),
        (
            |config| {
                config
                    .persistence_name(dmf::unicode_string!("Mine"))
                    .persistent_state_key()
            },
            [true, true, true],
        ),
    ];
    thread_local!(static TASK: Cell<Configure> = const { Cell::new(|config| config) });
    play(
        First::Return(TaskResult::Success),
        |config| {
            TASK.get()(config)
                .execute_when(ExecuteWhen::PrepareHardware)
                .immediate()
                .persistent_across_reboots()
        },
        |probe| {
            for (number, (configure, expected)) in TASKS.into_iter().enumerate() {
                TASK.set(configure);
                // What one task has done is nothing to the next.
                probe.start().unwrap();
                assert_eq!(runs(), number + 1);
                finish(probe);
                let registry = probe.machine.registry();
                let is_there = [
                    ("Parameters", "TimesRun"),
                    ("Parameters", "Mine"),
                    ("PersistentState", "Mine"),
                ]
                .map(|(key, name)| {
                    registry
                        .open(format!(r"{SERVICE}\{key}").as_str())
                        .is_ok_and(|key| registry.value(key, name).is_ok())
                });
                assert_eq!(is_there, expected);
            }
        },
    );
}
