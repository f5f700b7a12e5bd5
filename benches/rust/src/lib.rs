// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver on dmf that `cargo xtask bench` compares with `benches/c/bench_c.c`.
//!
//! What both do, and what is counted, is in `benches/README.md`.

#![no_std]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::pool::Vec;
use dmf::prelude::*;
use dmf::registry::{self, Key};
use dmf::string::UnicodeStr;
use dmf::wdf::{DefaultQueue, Guid, Ioctl, Offer, QueueCallback, Request};
use dmf_modules::alertable_sleep::{AlertableSleep, SleepOutcome};
use dmf_modules::scheduled_task::{ExecuteWhen, ScheduledTask, Task, TaskResult};

dmf::driver!(Bench);

/// The class of the device interface.
pub const BENCH: Guid = Guid::parse("3f9be6c2-64a7-4c55-9b8e-08d3a7d1f201");

/// Does nothing: what the others cost beyond it is theirs.
pub const NOTHING: IoctlCode<(), ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);
/// Aborts the sleeper, which resets the abort and sleeps again.
pub const ABORT: IoctlCode<(), ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x801, Access::Any);
/// Has the task run on a worker thread.
pub const EXECUTE: IoctlCode<(), ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x802, Access::Any);

/// How long the sleeper sleeps: longer than anything that is counted takes.
const SLEEP: Duration = Duration::from_hours(1);

/// The device.
#[derive(Debug)]
pub struct Bench {
    me: Owner<Bench>,
    /// The first is slept on; the others are there to weigh them.
    sleeps: Vec<Handle<AlertableSleep>>,
    /// The first is executed on demand; the others are there to weigh them.
    tasks: Vec<Handle<ScheduledTask>>,
    _handshake: Handle<ScheduledTask>,
    _provision: Handle<ScheduledTask>,
    sleeper: SpinLock<Option<Thread>>,
    stopping: AtomicBool,
    handshakes: AtomicU32,
    provisions: AtomicU32,
    executions: AtomicU32,
}

impl Device for Bench {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.device_interface(BENCH)?;
        let mut sleeps = Vec::default();
        for _ in 0..count(add.irql(), dmf::unicode_string!("Sleeps")) {
            sleeps.push(add.module(AlertableSleep::config())?)?;
        }
        let mut tasks = Vec::default();
        for _ in 0..count(add.irql(), dmf::unicode_string!("Tasks")) {
            tasks.push(add.module(ScheduledTask::config(Bench::execute))?)?;
        }
        Ok(Bench {
            me: add.owner(),
            sleeps,
            tasks,
            _handshake: add.module(
                ScheduledTask::config(Bench::handshake)
                    .execute_when(ExecuteWhen::D0Entry)
                    .deferred()
                    .initial_delay(Duration::from_secs(1))
                    .retry_on_fail(Duration::from_secs(2)),
            )?,
            _provision: add.module(
                ScheduledTask::config(Bench::provision)
                    .execute_when(ExecuteWhen::PrepareHardware)
                    .deferred()
                    .initial_delay(Duration::from_secs(10))
                    .retry_on_fail(Duration::from_secs(10))
                    .persistent_across_reboots(),
            )?,
            sleeper: SpinLock::new(None),
            stopping: AtomicBool::new(false),
            handshakes: AtomicU32::new(0),
            provisions: AtomicU32::new(0),
            executions: AtomicU32::new(0),
        })
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        self.stopping.store(false, Ordering::Relaxed);
        let me = self.me.clone();
        let sleeper = Thread::spawn(cx.irql(), move |irql| {
            if let Ok(bench) = me.enter() {
                bench.sleep(irql);
            }
        })?;
        self.sleeper.with(|slot| *slot = Some(sleeper));
        Ok(())
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(sleep) = self.sleeps.first() {
            let _ = sleep.abort(0);
        }
        if let Some(sleeper) = self.sleeper.with(Option::take) {
            sleeper.join(cx.irql());
        }
    }

    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request
            .on(NOTHING, |()| Ok(()))
            .on(ABORT, |()| {
                let sleep = self.sleeps.first().ok_or(NtStatus::NOT_FOUND)?;
                sleep.abort(0).map(|_| ())
            })
            .on(EXECUTE, |()| {
                let task = self.tasks.first().ok_or(NtStatus::NOT_FOUND)?;
                task.execute_now_deferred()
            })
    }
}

impl Bench {
    /// Sleeps until told to stop.
    fn sleep(&self, irql: &Irql<'_, Passive>) {
        let Some(sleep) = self.sleeps.first() else {
            return;
        };
        loop {
            match sleep.sleep(irql, 0, SLEEP) {
                Ok(SleepOutcome::Elapsed) => {}
                Ok(SleepOutcome::Aborted(seen)) => {
                    if sleep.reset_for_reuse(0, seen).is_err()
                        || self.stopping.load(Ordering::Relaxed)
                    {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Succeeds at the third attempt.
    fn handshake(&self, _task: &mut Task<'_>) -> TaskResult {
        if (self.handshakes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(3) {
            TaskResult::Success
        } else {
            TaskResult::FailButTryAgain
        }
    }

    /// Succeeds at the second attempt.
    fn provision(&self, _task: &mut Task<'_>) -> TaskResult {
        if (self.provisions.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(2) {
            TaskResult::Success
        } else {
            TaskResult::FailButTryAgain
        }
    }

    fn execute(&self, _task: &mut Task<'_>) -> TaskResult {
        self.executions.fetch_add(1, Ordering::Relaxed);
        TaskResult::Success
    }
}

/// How many of a thing the driver's `Parameters` key asks for; one if it does not say.
fn count(irql: &Irql<'_, Passive>, name: UnicodeStr<'_>) -> u32 {
    Key::parameters(irql, registry::Access::Read)
        .ok()
        .and_then(|key| key.query_u32(name).ok())
        .unwrap_or(1)
}
