// SPDX-License-Identifier: MIT OR Apache-2.0

//! A persistent [`ScheduledTask`], and the power cut at each step of its life.

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::Cell;
use std::time::Duration;

use dmf::prelude::*;
use dmf_modules::ScheduledTask;
use dmf_modules::scheduled_task::{Config, ExecuteWhen, Task, TaskResult};
use ntsim::machine::Error;
use ntsim::registry::Value;
use ntsim::{StopKind, Written};
use probe::Probe;

dmf::driver!(Once);

/// A device with a persistent task.
struct Once;

type Configure = fn(Config<Once>) -> Config<Once>;

thread_local! {
    static CONFIGURE: Cell<Configure> = const { Cell::new(|config| config) };
    static BEGUN: Cell<usize> = const { Cell::new(0) };
    static ENDED: Cell<usize> = const { Cell::new(0) };
}

impl Device for Once {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.module(CONFIGURE.get()(
            ScheduledTask::config(Once::run).persistent_across_reboots(),
        ))?;
        Ok(Once)
    }
}

impl Once {
    #[expect(clippy::unused_self, reason = "a task of the device")]
    fn run(&self, task: &mut Task<'_>) -> TaskResult {
        BEGUN.set(BEGUN.get() + 1);
        dmf::sync::delay(task.irql(), Duration::from_millis(1));
        ENDED.set(ENDED.get() + 1);
        TaskResult::Success
    }
}

/// The value on disk.
fn on_disk(probe: &Probe) -> Option<Value> {
    let registry = probe.machine.registry();
    let path = r"\Registry\Machine\System\CurrentControlSet\Services\Probe\Parameters";
    let key = registry.open(path).ok()?;
    registry.value(key, "TimesRun").ok().cloned()
}

/// Starts the device and lets it work, or until the power is cut.
fn live(probe: &mut Probe) -> Result<(), Error> {
    probe.start()?;
    probe.machine.run_for(Duration::from_secs(1))?;
    Ok(())
}

const LIVES: [(&str, Configure); 4] = [
    ("immediate, at PrepareHardware", |config| {
        config
            .execute_when(ExecuteWhen::PrepareHardware)
            .immediate()
    }),
    ("deferred, at PrepareHardware", |config| {
        config.execute_when(ExecuteWhen::PrepareHardware).deferred()
    }),
    ("immediate, at D0Entry", |config| {
        config.execute_when(ExecuteWhen::D0Entry).immediate()
    }),
    ("deferred, at D0Entry", |config| {
        config.execute_when(ExecuteWhen::D0Entry).deferred()
    }),
];

/// At each step the disk says either "not run", and the task runs again, or
/// "run", and then it had come to its end, and does not.
#[test]
fn a_power_cut_leaves_run_or_not_run_and_run_only_after_the_end() {
    for (life, configure) in LIVES {
        for written in [Written::Everything, Written::AsOfTheLastCommit] {
            for seed in 0..2 {
                let mut cut_between = 0;
                for step in 1.. {
                    CONFIGURE.set(configure);
                    BEGUN.set(0);
                    ENDED.set(0);
                    let mut probe = Probe::new(Once::DRIVER_ENTRY, seed);
                    probe.machine.cut_power_at(Some(step));
                    let at = format!("{life}, {written:?}, seed {seed}, step {step}");
                    match live(&mut probe) {
                        Ok(()) => break,
                        Err(Error::Stop(stop)) if stop.kind == StopKind::PowerCut => {}
                        Err(error) => panic!("{at}: {error}"),
                    }
                    probe.machine.boot_after_power_cut(written).unwrap();
                    let begun = BEGUN.get();
                    let disk = on_disk(&probe);
                    match &disk {
                        None => cut_between += usize::from(begun > 0),
                        Some(value) => {
                            assert_eq!(*value, Value::dword(1), "{at}");
                            assert_eq!(ENDED.get(), 1, "{at}: run, before it was");
                            assert_eq!(written, Written::Everything, "{at}");
                        }
                    }
                    live(&mut probe).unwrap_or_else(|error| panic!("{at}: {error}"));
                    let again = usize::from(disk.is_none());
                    assert_eq!(BEGUN.get(), begun + again, "{at}");
                    assert_eq!(on_disk(&probe), Some(Value::dword(1)), "{at}");
                    probe.remove();
                }
                assert!(cut_between > 0, "{life}: no cut before the write");
            }
        }
    }
}
