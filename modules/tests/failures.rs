// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every failure that the kernel can answer the modules with: each allocation,
//! each creation of a KMDF object and each call of the registry fails once, in a
//! life that uses the modules' whole surface; and the registry holds what it
//! should not.
//!
//! | What fails | What happens |
//! |---|---|
//! | while the device is made or started | the start fails with that status; nothing is left; the next one succeeds |
//! | a method | it returns the status |
//! | reading or writing the persistent value for the framework | `on_persistence_failure` is told; the task goes by its policy |

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

use dmf::prelude::*;
use dmf_modules::scheduled_task::{Config, ExecuteWhen, PersistenceFailure, Task, TaskResult};
use dmf_modules::{AlertableSleep, ScheduledTask};
use ntsim::machine::Error;
use ntsim::registry::{Value, Volatility};
use probe::Probe;

dmf::driver!(Fragile);

struct Fragile;

type Configure = fn(Config<Fragile, u64>) -> Config<Fragile, u64>;

#[derive(Clone)]
struct Kept {
    task: Handle<ScheduledTask<u64>>,
    sleep: Handle<AlertableSleep>,
    device: Owner<Fragile>,
}

thread_local! {
    static CONFIGURE: Cell<Configure> = const { Cell::new(|config| config) };
    static RUNS: Cell<usize> = const { Cell::new(0) };
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static KEPT: RefCell<Option<ManuallyDrop<Kept>>> = const { RefCell::new(None) };
}

impl Device for Fragile {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let config = ScheduledTask::config(Fragile::run)
            .execute_when(ExecuteWhen::PrepareHardware)
            .immediate()
            .persistent_across_reboots()
            .on_persistence_failure(Fragile::tell);
        let task = add.module(CONFIGURE.get()(config))?;
        let sleep = add.module(AlertableSleep::config().event_count(3))?;
        KEPT.set(Some(ManuallyDrop::new(Kept {
            task,
            sleep,
            device: add.owner(),
        })));
        Ok(Fragile)
    }

    fn release_hardware(&self, _cx: &mut ReleaseHardware<'_>) {
        drop_kept();
    }
}

#[expect(clippy::unused_self, reason = "functions of the device")]
impl Fragile {
    fn run(&self, _task: &mut Task<'_, u64>) -> TaskResult {
        RUNS.set(RUNS.get() + 1);
        TaskResult::Success
    }

    fn tell(&self, failure: &mut PersistenceFailure<'_>) {
        let (operation, name) = (failure.operation(), failure.name());
        let told = format!("{operation} of {name}: {}", failure.status());
        TOLD.with_borrow_mut(|all| all.push(told));
    }
}

fn drop_kept() {
    drop(KEPT.take().map(ManuallyDrop::into_inner));
}

/// The modules' whole surface. What fails, with the status that it returned.
fn methods(irql: &mut Irql<'_, Passive>) -> Vec<(&'static str, NtStatus)> {
    let kept = KEPT.with_borrow(|kept| (**kept.as_ref().unwrap()).clone());
    let mut failed = Vec::new();
    let mut note = |name, result: Result| {
        if let Err(status) = result {
            failed.push((name, status));
        }
    };
    let Kept {
        task,
        sleep,
        device,
    } = kept;
    note("execute_now_with", task.execute_now_with(irql, 1).map(drop));
    note(
        "execute_now_deferred_with",
        task.execute_now_deferred_with(2),
    );
    note("execute_now_deferred_ex", task.execute_now_deferred_ex());
    note("times_run_get", task.times_run_get(irql).map(drop));
    note("times_run_set", task.times_run_set(irql, 0));
    note("execute_now_deferred_ex", task.execute_now_deferred_ex());
    dmf::sync::delay(irql, Duration::from_millis(100));
    note("cancel", task.cancel(irql).map(drop));
    note("restart", task.restart());
    note(
        "sleep",
        sleep.sleep(irql, 0, Duration::from_millis(1)).map(drop),
    );
    note("try_sleep", sleep.try_sleep(1).map(drop));
    note("take_sleeper", sleep.take_sleeper(2).map(drop));
    note("abort_all", sleep.abort_all().map(drop));
    note(
        "create",
        device.create(irql, AlertableSleep::config()).map(drop),
    );
    failed
}

/// The methods that may be refused for lack of resources.
const FALLIBLE: [&str; 4] = [
    "execute_now_deferred_with",
    "times_run_get",
    "times_run_set",
    "create",
];

#[test]
fn each_call_that_can_fail_ends_in_a_documented_result() {
    for seed in 0..3 {
        let mut points = 0;
        let mut told = 0;
        for point in 1.. {
            RUNS.set(0);
            TOLD.take();
            let mut probe = Probe::new(Fragile::DRIVER_ENTRY, seed);
            probe.machine.fail_nth(Some(point));
            let started = probe.start();
            let at = format!("seed {seed}, point {point}");
            let failed = match &started {
                Ok(()) => probe.thread(methods),
                Err(Error::Driver { status, .. }) => {
                    assert_eq!(*status, 0xC000_009A, "{at}");
                    probe.thread(|_| drop_kept());
                    Vec::new()
                }
                Err(error) => panic!("{at}: {error}"),
            };
            let injected = probe.machine.fallible_calls().failed;
            probe.machine.fail_nth(None);
            for (method, status) in &failed {
                assert!(FALLIBLE.contains(method), "{at}: {method} failed");
                assert_eq!(*status, NtStatus::INSUFFICIENT_RESOURCES, "{at}: {method}");
            }
            let tellings = TOLD.take();
            told += tellings.len();
            let consequences = usize::from(started.is_err()) + failed.len() + tellings.len();
            match injected {
                Some(name) => assert_eq!(
                    consequences, 1,
                    "{at}: {name} failed, and {started:?}, {failed:?}, {tellings:?}"
                ),
                None => assert_eq!(consequences, 0, "{at}"),
            }
            // Whatever it was, the next try succeeds.
            if started.is_ok() {
                probe.remove();
            }
            probe
                .start()
                .unwrap_or_else(|error| panic!("{at}: {error}"));
            let failed = probe.thread(methods);
            assert_eq!(failed, [], "{at}");
            assert!(RUNS.get() > 0, "{at}");
            probe.remove();
            if injected.is_none() {
                points = point - 1;
                break;
            }
        }
        assert!(points > 20, "{points}");
        assert!(told >= 2, "a read and a write for the framework, {told}");
    }
}

/// What it is called, what it is, whether it means "has run", and what the
/// driver is told.
type Held<'a> = (&'a str, Option<Value>, Option<bool>, Option<&'a str>);

/// What the registry may hold, and whether that is "has run", by policy.
#[test]
fn whatever_the_registry_holds_the_policy_decides() {
    const PARAMETERS: &str =
        r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Probe\Parameters";
    let mismatch = "read of TimesRun: STATUS_OBJECT_TYPE_MISMATCH (0xC0000024)";
    let size = "read of TimesRun: STATUS_OBJECT_TYPE_MISMATCH (0xC0000024)";
    let values: [Held<'_>; 8] = [
        ("nothing", None, Some(false), None),
        ("zero", Some(Value::dword(0)), Some(false), None),
        ("one", Some(Value::dword(1)), Some(true), None),
        ("more", Some(Value::dword(u32::MAX)), Some(true), None),
        ("text", Some(Value::sz("1")), None, Some(mismatch)),
        ("eight bytes", Some(Value::qword(1)), None, Some(mismatch)),
        ("two bytes", Some(Value::new(4, [1, 0])), None, Some(size)),
        ("no bytes", Some(Value::new(4, [])), None, Some(size)),
    ];
    let policies: [(Configure, bool); 2] = [
        (|config| config, false),
        (|config| config.fail_closed(), true),
    ];
    for (configure, unreadable_means_run) in policies {
        for (what, value, means_run, told) in &values {
            CONFIGURE.set(configure);
            RUNS.set(0);
            TOLD.take();
            let mut probe = Probe::new(Fragile::DRIVER_ENTRY, 0);
            if let Some(value) = value {
                let registry = probe.machine.registry_mut();
                let key = registry.create(PARAMETERS, Volatility::Persistent).unwrap();
                registry.set_value(key, "TimesRun", value.clone()).unwrap();
            }
            probe.start().unwrap();
            let has_run = means_run.unwrap_or(unreadable_means_run);
            assert_eq!(RUNS.get(), usize::from(!has_run), "{what}");
            let expected: Vec<_> = told.iter().map(ToString::to_string).collect();
            assert_eq!(TOLD.take(), expected, "{what}");
            let registry = probe.machine.registry();
            let key = registry.open(PARAMETERS).unwrap();
            let after = registry.value(key, "TimesRun").ok().cloned();
            // Who has not run leaves the value alone.
            let expected = if has_run {
                value.clone()
            } else {
                Some(Value::dword(1))
            };
            assert_eq!(after, expected, "{what}");
            probe.remove();
        }
    }
}
