// SPDX-License-Identifier: MIT OR Apache-2.0

//! A KMDF function driver for an imagined temperature sensor, in safe Rust.
//!
//! It shows the two modules at work:
//!
//! - The sensor has to be *provisioned* once in its life. A persistent
//!   [`ScheduledTask`] does that in PrepareHardware, and never again.
//! - After power-up it answers only when it has warmed up. A deferred
//!   [`ScheduledTask`] shakes hands with it and tries again until it answers.
//! - A thread *polls* it every ten seconds. It sleeps on an
//!   [`AlertableSleep`], which D0Exit aborts, so that losing power does not
//!   have to wait for it.
//!
//! ```text
//!   PrepareHardware   provision (once ever)
//!   D0Entry           start the poller ──► poll, sleep 10 s, poll, sleep 10 s, ...
//!                     handshake, deferred: try again, try again, answered
//!   D0Exit            abort the sleep, wait for the poller
//! ```

#![no_std]
#![forbid(unsafe_code)]

mod hardware;

use dmf::prelude::*;
use dmf::time::Tenths;
use dmf_modules::alertable_sleep::{AlertableSleep, SleepOutcome, Woken};
use dmf_modules::scheduled_task::{ExecuteWhen, ScheduledTask, Task, TaskResult};
use hardware::Hardware;

dmf::driver!(Sensor);

/// Time from one poll to the next.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Time from one handshake to the next, while the sensor warms up.
const HANDSHAKE_INTERVAL: Duration = Duration::from_secs(2);

/// One sensor.
#[derive(Debug)]
pub struct Sensor {
    /// The sensor itself, for the thread that polls it.
    me: Owner<Sensor>,
    hardware: SpinLock<Hardware>,
    /// What the poller sleeps on.
    pause: Handle<AlertableSleep>,
    poller: SpinLock<Option<Thread>>,
    /// The framework runs it: nothing here needs to.
    _provision: Handle<ScheduledTask>,
    /// As above.
    _handshake: Handle<ScheduledTask>,
}

impl Device for Sensor {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Sensor {
            me: add.owner(),
            hardware: SpinLock::new(Hardware::new()),
            pause: add.module(AlertableSleep::config())?,
            poller: SpinLock::new(None),
            _provision: add.module(
                ScheduledTask::config(Sensor::provision)
                    .execute_when(ExecuteWhen::PrepareHardware)
                    .immediate()
                    .persistent_across_reboots(),
            )?,
            _handshake: add.module(
                ScheduledTask::config(Sensor::handshake)
                    .execute_when(ExecuteWhen::D0Entry)
                    .deferred()
                    .retry_on_fail(HANDSHAKE_INTERVAL),
            )?,
        })
    }

    fn prepare_hardware(&self, _cx: &mut PrepareHardware<'_>) -> Result {
        dmf::println!("sensor: hardware ready");
        Ok(())
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        dmf::println!("sensor: awake, from {}", cx.previous_state());
        let me = self.me.clone();
        let poller = Thread::spawn(cx.irql(), move |irql| {
            // Refused only if the device is already gone.
            if let Ok(sensor) = me.enter()
                && let Err(status) = sensor.poll(irql)
            {
                dmf::println!("sensor: polling ended: {status}");
            }
        })?;
        self.poller.with(|slot| *slot = Some(poller));
        Ok(())
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        dmf::println!("sensor: going to {}", cx.target_state());
        if let Ok(Woken::Sleeper) = self.pause.abort(0) {
            dmf::println!("sensor: woke the poller");
        }
        // Taken out first: a spin lock must not be held while waiting.
        if let Some(poller) = self.poller.with(Option::take) {
            poller.join(cx.irql());
        }
        // Here and not in D0Entry: by then the handshake may have begun, since
        // a module's D0Entry comes before its owner's.
        self.hardware.with(Hardware::power_down);
    }

    fn surprise_removal(&self, _cx: &mut SurpriseRemoval<'_>) {
        dmf::println!("sensor: gone");
        self.hardware.with(Hardware::vanish);
    }
}

impl Sensor {
    /// Writes the calibration into the sensor's own memory. Once is enough.
    fn provision(&self, _task: &mut Task<'_>) -> TaskResult {
        self.hardware.with(Hardware::calibrate);
        dmf::println!("sensor: provisioned");
        TaskResult::Success
    }

    /// Asks the sensor whether it has warmed up.
    fn handshake(&self, task: &mut Task<'_>) -> TaskResult {
        let attempt = task.attempt();
        if self.hardware.with(Hardware::answers) {
            dmf::println!("sensor: handshake attempt {attempt}: answered");
            TaskResult::Success
        } else {
            let again = HANDSHAKE_INTERVAL.as_secs();
            dmf::println!("sensor: handshake attempt {attempt}: try again in {again} s");
            TaskResult::FailButTryAgain
        }
    }

    /// Polls until the sleep between two polls is aborted.
    fn poll(&self, irql: &Irql<'_, Passive>) -> Result {
        loop {
            match self.hardware.with(Hardware::read) {
                Some(reading) => dmf::println!("sensor: {reading}"),
                None => dmf::println!("sensor: no answer"),
            }
            let start = Instant::now();
            match self.pause.sleep(irql, 0, POLL_INTERVAL)? {
                SleepOutcome::Elapsed => {}
                SleepOutcome::Aborted(seen) => {
                    dmf::println!("sensor: sleep cut short after {}", Tenths(start.elapsed()));
                    // The next poller sleeps again.
                    self.pause.reset_for_reuse(0, seen)?;
                    return Ok(());
                }
                ended => {
                    dmf::println!("sensor: sleep {ended}");
                    return Ok(());
                }
            }
        }
    }
}
