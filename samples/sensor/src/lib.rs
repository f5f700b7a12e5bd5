// SPDX-License-Identifier: MIT OR Apache-2.0

//! A KMDF function driver for an imagined temperature sensor, in safe Rust.
//!
//! It shows the two modules at work:
//!
//! - The sensor has to be *provisioned* once in its life: a persistent
//!   [`ScheduledTask`] burns its calibration in. If the sensor gets so hot that
//!   it forgets it, the task is told to run once more.
//! - After power-up it answers only when it has warmed up. A deferred
//!   [`ScheduledTask`] *shakes hands* with it, less and less often.
//! - A thread *polls* it every ten seconds. In between it sleeps on an
//!   [`AlertableSleep`], from which D0Exit wakes it to end, and the sensor's
//!   *alarm* wakes it, at `DISPATCH_LEVEL`, to poll out of turn.
//! - A third [`ScheduledTask`] writes the *log*: what calls give it, and a sign
//!   of life every fifteen seconds. Its runs never overlap, so neither do its lines.
//!
//! ```text
//!   PrepareHardware    provision, deferred: burn in 100 ms (once ever)
//!   D0Entry            start the poller ──► poll, sleep 10 s, poll, sleep 10 s, ...
//!                      handshake, deferred: try again, try again, answered
//!   alarm (dispatch)   log it, abort the sleep ──► poll, provision again
//!   D0Exit             abort the sleeps, wait for the poller
//!   SurpriseRemoval    abort the sleeps, cancel the handshake
//! ```

#![no_std]
#![forbid(unsafe_code)]

mod hardware;

use core::sync::atomic::{AtomicBool, Ordering};

use dmf::prelude::*;
use dmf::time::Tenths;
use dmf::wdf::{Timer, TimerConfig, TimerFired};
use dmf_modules::alertable_sleep::{
    Aborter, AlertableSleep, SleepOutcome, Sleeper, SlotStatus, Woken,
};
use dmf_modules::scheduled_task::{
    ExecuteWhen, PersistenceFailure, ScheduledTask, Task, TaskResult,
};
use hardware::{Hardware, Temperature};

dmf::driver!(Sensor);

/// Time from one poll to the next.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Time from the first handshake to the second, while the sensor warms up.
const HANDSHAKE_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time from one handshake to the next.
const LONGEST_HANDSHAKE_INTERVAL: Duration = Duration::from_secs(4);
/// A sensor that has not answered so many handshakes more is given up.
const HANDSHAKE_RETRIES: u32 = 5;
/// Time from one sign of life to the next.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long the sensor takes to burn its calibration in.
const BURN_TIME: Duration = Duration::from_millis(100);
/// A real sensor would interrupt when it gets hot. This one does so long after
/// each power-up.
const HOT_AFTER: Duration = Duration::from_secs(17);

/// The slot on which the poller sleeps.
const POLLER: usize = 0;
/// The slot on which the task that provisions sleeps.
const BURNER: usize = 1;

/// One sensor.
#[derive(Debug)]
pub struct Sensor {
    /// The sensor itself, for the thread that polls it.
    me: Owner<Sensor>,
    hardware: SpinLock<Hardware>,
    pauses: Handle<AlertableSleep>,
    poller: SpinLock<Option<Poller>>,
    /// Whether the poller shall go on.
    polls: AtomicBool,
    alarm: Timer,
    provision: Handle<ScheduledTask>,
    handshake: Handle<ScheduledTask>,
    log: Handle<ScheduledTask<Record>>,
}

/// The thread that polls, and how to wake it.
#[derive(Debug)]
struct Poller {
    thread: Thread,
    aborter: Aborter,
}

/// What the log is told.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    /// A sign of life.
    Alive,
    /// The sensor got hot.
    Overheated(Temperature),
    /// The sensor loses power.
    PowerDown,
}

impl Device for Sensor {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Sensor {
            me: add.owner(),
            hardware: SpinLock::new(Hardware::new()),
            pauses: add.module(AlertableSleep::config().event_count(2))?,
            poller: SpinLock::new(None),
            polls: AtomicBool::new(false),
            alarm: Timer::with_config(add, TimerConfig::dispatch(), Sensor::on_alarm)?,
            provision: add.module(
                ScheduledTask::config(Sensor::provision)
                    .execute_when(ExecuteWhen::PrepareHardware)
                    .deferred()
                    .persistent_across_reboots()
                    .persistence_name(dmf::unicode_string!("Provisioned"))
                    .persistent_state_key()
                    // Burning wears the sensor out: not if in doubt.
                    .fail_closed()
                    .on_persistence_failure(Sensor::persistence_failed),
            )?,
            handshake: add.module(
                ScheduledTask::config(Sensor::handshake)
                    .execute_when(ExecuteWhen::D0Entry)
                    .deferred()
                    .retry_on_fail(HANDSHAKE_INTERVAL)
                    .back_off(LONGEST_HANDSHAKE_INTERVAL)
                    .retry_limit(HANDSHAKE_RETRIES),
            )?,
            log: add.module(
                ScheduledTask::config(Sensor::log)
                    .execute_when(ExecuteWhen::D0Entry)
                    .deferred()
                    .initial_delay(ALIVE_INTERVAL)
                    .retry_on_success(ALIVE_INTERVAL)
                    .context(Record::Alive),
            )?,
        })
    }

    fn prepare_hardware(&self, _cx: &mut PrepareHardware<'_>) -> Result {
        dmf::println!("sensor: hardware ready");
        Ok(())
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        dmf::println!("sensor: awake, from {}", cx.previous_state());
        self.alarm.start(HOT_AFTER)?;
        let mut sleeper = self.pauses.take_sleeper(POLLER)?;
        let aborter = sleeper.aborter();
        let me = self.me.clone();
        self.polls.store(true, Ordering::Release);
        let thread = Thread::spawn(cx.irql(), move |irql| {
            // Refused only if the device is already gone.
            if let Ok(sensor) = me.enter()
                && let Err(status) = sensor.poll(irql, &mut sleeper)
            {
                dmf::println!("sensor: polling ended: {status}");
            }
        })?;
        self.poller
            .with(|slot| *slot = Some(Poller { thread, aborter }));
        Ok(())
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        dmf::println!("sensor: going to {}", cx.target_state());
        let _ = self.alarm.stop_and_wait(cx.irql());
        // Before the abort, so that whoever wakes by it sees it.
        self.polls.store(false, Ordering::Release);
        // Taken out first: a spin lock must not be held while waiting.
        if let Some(poller) = self.poller.with(Option::take) {
            if let Ok(Woken::Sleeper) = poller.aborter.abort() {
                dmf::println!("sensor: woke the poller");
            }
            poller.thread.join(cx.irql());
        }
        // Asked first: an abort with nobody to wake would end the next burning.
        if self
            .pauses
            .status(BURNER)
            .is_ok_and(SlotStatus::is_sleeping)
        {
            let _ = self.pauses.abort(BURNER);
        }
        let _ = self.log.execute_now_with(cx.irql(), Record::PowerDown);
        // Here and not in D0Entry: by then the handshake may have begun, since
        // a module's D0Entry comes before its owner's.
        self.hardware.with(Hardware::power_down);
    }

    fn surprise_removal(&self, cx: &mut SurpriseRemoval<'_>) {
        dmf::println!("sensor: gone");
        self.hardware.with(Hardware::vanish);
        let _ = self.pauses.abort_all();
        // Nobody is there to answer.
        let _ = self.handshake.cancel(cx.irql());
    }
}

impl Sensor {
    /// Burns the calibration into the sensor's own memory. Once is enough.
    fn provision(&self, task: &mut Task<'_>) -> TaskResult {
        match self.pauses.sleep(task.irql(), BURNER, BURN_TIME) {
            Ok(SleepOutcome::Elapsed) => {
                self.hardware.with(Hardware::calibrate);
                dmf::println!("sensor: provisioned");
                TaskResult::Success
            }
            Ok(SleepOutcome::Aborted(seen)) => {
                dmf::println!("sensor: burning in was cut short");
                let _ = self.pauses.reset_for_reuse(BURNER, seen);
                TaskResult::FailButTryAgain
            }
            Ok(_) | Err(_) => TaskResult::Fail,
        }
    }

    /// Has the sensor provisioned again, now that it has forgotten its calibration.
    fn provision_again(&self, irql: &Irql<'_, Passive>) -> Result {
        // What may be being burnt in is forgotten too.
        let _ = self.provision.cancel(irql)?;
        let written = self.provision.times_run_set(irql, 0);
        self.provision.restart()?;
        written?;
        self.provision.execute_now_deferred_ex()
    }

    #[expect(clippy::unused_self, reason = "a callback of the device")]
    fn persistence_failed(&self, failure: &mut PersistenceFailure<'_>) {
        let (operation, name) = (failure.operation(), failure.name());
        dmf::println!("sensor: {operation} of {name}: {}", failure.status());
    }

    /// Asks the sensor whether it has warmed up.
    fn handshake(&self, task: &mut Task<'_>) -> TaskResult {
        let attempt = task.attempt();
        if self.hardware.with(Hardware::answers) {
            dmf::println!("sensor: handshake attempt {attempt}: answered");
            TaskResult::Success
        } else {
            dmf::println!("sensor: handshake attempt {attempt}: no answer yet");
            TaskResult::FailButTryAgain
        }
    }

    /// Writes a record.
    #[expect(clippy::unused_self, reason = "a callback of the device")]
    fn log(&self, task: &mut Task<'_, Record>) -> TaskResult {
        match task.context() {
            Some(Record::Overheated(at)) => dmf::println!("sensor: log: overheated, {at}"),
            Some(Record::PowerDown) => dmf::println!("sensor: log: power down"),
            Some(Record::Alive) | None => dmf::println!("sensor: log: alive"),
        }
        // For the signs of life: of a record that a call gave, nobody looks at it.
        TaskResult::SuccessButTryAgain
    }

    /// The sensor got hot.
    fn on_alarm(&self, cx: &mut TimerFired<'_, Dispatch>) {
        let at = self
            .hardware
            .lock(cx.irql(), |hardware, _| hardware.overheat());
        let _ = self.log.execute_now_deferred_with(Record::Overheated(at));
        let _ = self.pauses.abort(POLLER);
    }

    /// Polls until there is no more polling to be done.
    fn poll(&self, irql: &Irql<'_, Passive>, sleeper: &mut Sleeper) -> Result {
        while self.polls.load(Ordering::Acquire) {
            let Some(reading) = self.hardware.with(Hardware::read) else {
                dmf::println!("sensor: no answer");
                break;
            };
            dmf::println!("sensor: {reading}");
            if !reading.is_calibrated
                && let Err(status) = self.provision_again(irql)
            {
                // The next poll tries again.
                dmf::println!("sensor: not provisioned again: {status}");
            }
            let start = Instant::now();
            match sleeper.sleep(irql, POLL_INTERVAL)? {
                SleepOutcome::Elapsed => {}
                SleepOutcome::Aborted(seen) => {
                    dmf::println!("sensor: sleep cut short after {}", Tenths(start.elapsed()));
                    // If there was another abort, the next sleep is cut short too.
                    let _ = sleeper.reset(seen)?;
                }
                ended => {
                    dmf::println!("sensor: sleep {ended}");
                    break;
                }
            }
        }
        Ok(())
    }
}
