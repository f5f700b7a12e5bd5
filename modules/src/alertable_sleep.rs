// SPDX-License-Identifier: MIT OR Apache-2.0

//! Delays that somebody else can cut short.
//!
//! For a thread that pauses between pieces of work and has to end at once when
//! the device loses power. If nobody needs to cut the pause short, use
//! [`dmf::sync::delay`].
//!
//! # Vocabulary
//!
//! - *slot*: one place to sleep, with its own event. A module has 1 or more.
//! - *sleeper*: the thread that sleeps on a slot; one at a time.
//! - *abort*: wakes the sleeper of a slot. It latches: until it is reset, each
//!   sleep on the slot returns at once.
//! - *seen*: an [`Abort`], which stands for the aborts of one slot that a sleeper
//!   has been told of. Resetting clears those, and no later one. It is of use
//!   for its own slot only.
//!
//! ```text
//!                    abort                          abort: remains, as a later one
//!   ready ─────────────────────────► aborted(n) ──────────────────► aborted(n + 1)
//!    │ ▲ ▲                               │ ▲
//!    │ │ └───────────────────────────────┘ │
//!    │ │     reset_for_reuse(seen n)       │ sleep: Aborted(n), at once
//!    │ │ time over: Elapsed                │
//!    ▼ │              abort                │
//!   sleeping ──────────────────────────────┘ the sleeper wakes: Aborted(n)
//! ```
//!
//! # The race of abort and reset
//!
//! ```text
//!   sleeper                                    somebody else
//!   sleep → Aborted(seen: 1)
//!                                              abort → aborted(2)
//!   reset_for_reuse(seen: 1) → StillAborted
//!   sleep → Aborted(seen: 2)                   the second abort is not lost
//! ```
//!
//! # Example
//!
//! A thread that samples every ten seconds, and ends when the device leaves D0:
//!
//! ```
//! use dmf::prelude::*;
//! use dmf_modules::alertable_sleep::{AlertableSleep, SleepOutcome};
//!
//! dmf::driver!(Meter);
//!
//! pub struct Meter {
//!     pause: Handle<AlertableSleep>,
//!     sampler: SpinLock<Option<Thread>>,
//! }
//!
//! fn sample(irql: &Irql<'_, Passive>, pause: &AlertableSleep) -> Result {
//!     loop {
//!         dmf::println!("a sample");
//!         match pause.sleep(irql, 0, Duration::from_secs(10))? {
//!             SleepOutcome::Elapsed => {}
//!             SleepOutcome::Aborted(seen) => {
//!                 pause.reset_for_reuse(0, seen)?;
//!                 return Ok(());
//!             }
//!             _ => return Ok(()),
//!         }
//!     }
//! }
//!
//! impl Device for Meter {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         let pause = add.module(AlertableSleep::config())?;
//!         Ok(Meter { pause, sampler: SpinLock::new(None) })
//!     }
//!
//!     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
//!         let pause = self.pause.clone();
//!         let sampler = Thread::spawn(cx.irql(), move |irql| {
//!             if let Err(status) = sample(irql, &pause) {
//!                 dmf::error!("no more samples: {status}");
//!             }
//!         })?;
//!         self.sampler.with(|place| *place = Some(sampler));
//!         Ok(())
//!     }
//!
//!     fn d0_exit(&self, cx: &mut D0Exit<'_>) {
//!         // It fails if the module is closed, and then nobody sleeps.
//!         let _ = self.pause.abort(0);
//!         if let Some(sampler) = self.sampler.with(Option::take) {
//!             sampler.join(cx.irql());
//!         }
//!     }
//! }
//! # ntsim::run_driver(Meter::DRIVER_ENTRY, |machine, device| {
//! #     machine.run_for(Duration::from_secs(25)).unwrap();
//! #     machine.power_down(device).unwrap();
//! #     let printed = format!("{:?}", machine.trace());
//! #     assert_eq!(printed.matches("a sample").count(), 3);
//! #     machine.power_up(device).unwrap();
//! # });
//! ```
//!
//! C counterpart: [`DMF_AlertableSleep`][dmf].
//!
//! [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_AlertableSleep.md

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use dmf::irql::{Irql, Passive};
use dmf::module::{Create, DynamicInstance, Link, Module, ModuleConfig};
use dmf::pool::Vec;
use dmf::sync::{AlertableOutcome, Event, EventKind, SpinLock, WaitOutcome};
use dmf::time::Timeout;
use dmf::{NtStatus, Result};

/// Interruptible delays on one or more slots.
///
/// It has no PnP or power hooks, so that [`Owner::create`](dmf::module::Owner::create)
/// can make one at run time as well.
///
/// See the [module's page](self).
///
/// C counterpart: the [`DMFMODULE`][dmf] of a `DMF_AlertableSleep`.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_AlertableSleep.md
#[derive(Clone, Debug)]
pub struct AlertableSleep(Link<Slots>);

impl AlertableSleep {
    /// A config with one slot.
    #[must_use]
    pub const fn config() -> Config {
        Config {
            event_count: 1,
            alertability: Alertability::NotAlertable,
        }
    }

    /// Sleeps on `slot` for `duration`, or until somebody aborts it.
    ///
    /// `Duration::ZERO` looks and returns; [`Timeout::Never`] sleeps until aborted.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event count.
    /// - `STATUS_DEVICE_BUSY` if the slot has a sleeper.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: `DMF_AlertableSleep_Sleep`.
    #[inline]
    pub fn sleep(
        &self,
        irql: &Irql<'_, Passive>,
        slot: usize,
        duration: impl Into<Timeout>,
    ) -> Result<SleepOutcome> {
        let slots = self.0.enter()?;
        let slot = slots.slot(slot)?;
        slot.sleep(irql, duration.into(), slots.alertability, By::Anybody)
    }

    /// Tells how a sleep of no time would end.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event count.
    /// - `STATUS_DEVICE_BUSY` if the slot has a sleeper.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn try_sleep(&self, slot: usize) -> Result<SleepOutcome> {
        let slots = self.0.enter()?;
        let slot = slots.slot(slot)?;
        let ended = slot.state.with(|state| {
            state.check(By::Anybody)?;
            Ok(state.interruption().unwrap_or(Ended::Elapsed))
        });
        ended.map(|ended| slot.outcome(ended))
    }

    /// Wakes the thread that sleeps on `slot`, or makes the next sleep return at once.
    ///
    /// Latches until [`reset_for_reuse`](Self::reset_for_reuse). Tells whether a
    /// thread was woken.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event count.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open: nobody sleeps.
    ///
    /// C counterpart: `DMF_AlertableSleep_Abort`.
    #[inline]
    pub fn abort(&self, slot: usize) -> Result<Woken> {
        let slots = self.0.enter()?;
        Ok(slots.slot(slot)?.abort())
    }

    /// Aborts all slots. Tells whether a thread was woken.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open: nobody sleeps.
    pub fn abort_all(&self) -> Result<Woken> {
        let slots = self.0.enter()?;
        Ok(slots
            .slots
            .iter()
            .fold(Woken::Nobody, |woken, slot| woken.or(slot.abort())))
    }

    /// Clears the aborts of `slot` that a sleeper has `seen`, so that sleeping
    /// is possible again, unless there was a later one.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event
    ///   count, or `seen` is of another slot or another module.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    ///
    /// C counterpart: `DMF_AlertableSleep_ResetForReuse`.
    #[inline]
    pub fn reset_for_reuse(&self, slot: usize, seen: Abort) -> Result<Reset> {
        let slots = self.0.enter()?;
        slots.slot(slot)?.reset(seen)
    }

    /// Tells whether somebody sleeps on `slot`, and whether it is aborted. It may
    /// be otherwise by the time that the caller looks.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event count.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn status(&self, slot: usize) -> Result<SlotStatus> {
        let slots = self.0.enter()?;
        let slot = slots.slot(slot)?;
        Ok(slot.state.with(|state| SlotStatus {
            is_aborted: state.aborted,
            is_sleeping: state.wait == Wait::Waiting,
            is_taken: state.is_taken,
        }))
    }

    /// How many slots there are.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn event_count(&self) -> Result<usize> {
        Ok(self.0.enter()?.slots.len())
    }

    /// Takes `slot` for one owner, so that a bad index and a second sleeper
    /// cannot happen. Dropping the [`Sleeper`] gives the slot back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event count.
    /// - `STATUS_DEVICE_BUSY` if the slot has a sleeper, or is taken.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn take_sleeper(&self, slot: usize) -> Result<Sleeper> {
        self.0.enter()?.slot(slot)?.take()?;
        Ok(Sleeper {
            module: self.clone(),
            slot,
        })
    }

    /// One who can abort `slot` and nothing else.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `slot` is not below the configured event count.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn aborter(&self, slot: usize) -> Result<Aborter> {
        self.0.enter()?.slot(slot)?;
        Ok(Aborter {
            module: self.clone(),
            slot,
        })
    }
}

impl Module for AlertableSleep {
    type Instance = Slots;

    fn over(instance: Link<Slots>) -> Self {
        Self(instance)
    }
}

/// The config of an [`AlertableSleep`].
///
/// C counterpart: [`DMF_CONFIG_AlertableSleep`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_AlertableSleep.md
#[derive(Clone, Debug)]
pub struct Config {
    event_count: usize,
    alertability: Alertability,
}

impl Config {
    /// How many slots there are, 1 or more. Default 1.
    #[must_use]
    pub const fn event_count(mut self, count: usize) -> Self {
        self.event_count = count;
        self
    }

    /// Lets an alert of the sleeping thread end a sleep. Not by default, as the
    /// kernel advises for drivers.
    #[must_use]
    pub const fn alertable(mut self) -> Self {
        self.alertability = Alertability::Alertable;
        self
    }
}

impl<O: Send + Sync + 'static> ModuleConfig<O> for Config {
    type Module = AlertableSleep;

    fn create(self, _cx: &mut Create<'_, O, Slots>) -> Result<Slots> {
        if self.event_count == 0 {
            dmf::println!(
                "AlertableSleep: event_count = 0: a module needs at least one event \
                 (AlertableSleep::config().event_count(1))"
            );
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let mut slots = Vec::with_capacity(self.event_count)?;
        for _ in 0..self.event_count {
            slots.push(Slot::new()?)?;
        }
        Ok(Slots {
            slots,
            alertability: self.alertability,
        })
    }
}

/// How a sleep ended.
///
/// C counterpart: the `NTSTATUS` of [`DMF_AlertableSleep_Sleep`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_AlertableSleep.md
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sleep can end early"]
pub enum SleepOutcome {
    /// The whole duration has passed.
    Elapsed,
    /// Somebody aborted it, now or before.
    Aborted(Abort),
    /// The module is being closed: do not sleep again.
    Closing,
    /// The thread was alerted. Only if the config says `alertable`.
    Alerted,
    /// A user-mode APC was delivered. Only if the config says `alertable`; and the
    /// kernel delivers none to a thread that waits in kernel mode, as all do here.
    UserApc,
}

/// DMF's two results: `STATUS_SUCCESS` for the whole delay, `STATUS_UNSUCCESSFUL`
/// for anything else.
impl From<SleepOutcome> for NtStatus {
    fn from(outcome: SleepOutcome) -> Self {
        match outcome {
            SleepOutcome::Elapsed => Self::SUCCESS,
            _ => Self::UNSUCCESSFUL,
        }
    }
}

/// The aborts of one slot up to the time at which a sleeper was told of them.
///
/// No C counterpart: there a reset clears whatever there is, and can lose an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    slot: Identity,
    aborts: u64,
}

/// One slot among those of all modules of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64);

impl Identity {
    /// One that no other slot has had.
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether an abort woke somebody.
///
/// No C counterpart: `DMF_AlertableSleep_Abort` does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A thread slept, and wakes now.
    Sleeper,
    /// Nobody slept, or was woken already. The next sleep returns at once.
    Nobody,
}

impl Woken {
    const fn or(self, other: Self) -> Self {
        match self {
            Self::Sleeper => Self::Sleeper,
            Self::Nobody => other,
        }
    }
}

/// What [`AlertableSleep::status`] tells of a slot.
///
/// No C counterpart: there the state of a slot cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotStatus {
    is_aborted: bool,
    is_sleeping: bool,
    is_taken: bool,
}

impl SlotStatus {
    /// The next sleep returns at once.
    #[must_use]
    pub const fn is_aborted(self) -> bool {
        self.is_aborted
    }

    /// A thread sleeps on it, and has not been woken.
    #[must_use]
    pub const fn is_sleeping(self) -> bool {
        self.is_sleeping
    }

    /// A [`Sleeper`] owns it.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        self.is_taken
    }
}

/// What a reset did.
///
/// No C counterpart: `DMF_AlertableSleep_ResetForReuse` does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The slot is ready.
    Ready,
    /// There was a later abort: the next sleep returns at once.
    StillAborted,
}

/// The one owner of a slot. Dropping it gives the slot back.
///
/// No C counterpart: there a slot is a number that everybody may use.
#[derive(Debug)]
pub struct Sleeper {
    module: AlertableSleep,
    slot: usize,
}

impl Sleeper {
    /// Sleeps for `duration`, or until somebody aborts it.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn sleep(
        &mut self,
        irql: &Irql<'_, Passive>,
        duration: impl Into<Timeout>,
    ) -> Result<SleepOutcome> {
        let slots = self.module.0.enter()?;
        let slot = slots.slot(self.slot)?;
        slot.sleep(irql, duration.into(), slots.alertability, By::Owner)
    }

    /// Clears the aborts that the sleeper has `seen`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INVALID_PARAMETER` if `seen` is of another slot.
    /// - `STATUS_INVALID_DEVICE_STATE` if the module is not open.
    pub fn reset(&mut self, seen: Abort) -> Result<Reset> {
        self.module.reset_for_reuse(self.slot, seen)
    }

    /// One who can abort this sleeper.
    #[must_use]
    pub fn aborter(&self) -> Aborter {
        Aborter {
            module: self.module.clone(),
            slot: self.slot,
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let Ok(slots) = self.module.0.enter()
            && let Ok(slot) = slots.slot(self.slot)
        {
            slot.state.with(|state| state.is_taken = false);
        }
    }
}

/// One who can abort a slot's sleeper, from anywhere.
///
/// No C counterpart: there a slot is a number that everybody may use.
#[derive(Clone, Debug)]
pub struct Aborter {
    module: AlertableSleep,
    slot: usize,
}

impl Aborter {
    /// Wakes the sleeper, or makes the next sleep return at once.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the module is not open: nobody sleeps.
    pub fn abort(&self) -> Result<Woken> {
        self.module.abort(self.slot)
    }
}

/// The state of an [`AlertableSleep`].
///
/// C counterpart: `DMF_CONTEXT_AlertableSleep`, of [`DMF_AlertableSleep`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Modules.Library/Dmf_AlertableSleep.md
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    alertability: Alertability,
}

#[derive(Clone, Copy, Debug)]
enum Alertability {
    NotAlertable,
    Alertable,
}

impl Slots {
    fn slot(&self, index: usize) -> Result<&Slot> {
        self.slots.get(index).ok_or(NtStatus::INVALID_PARAMETER)
    }
}

impl DynamicInstance for Slots {
    fn closing(&self) {
        for slot in &*self.slots {
            slot.state.with(|state| {
                state.closing = true;
                state.wake();
                slot.event.set();
            });
        }
    }

    // Nothing at `open`: slots are made ready, and opened once. Nothing at `close`:
    // sleeping is a method, and the framework has waited for those in flight.
}

/// # Invariants
/// Under the lock of `state`: the event is signaled if and only if the slot is
/// aborted or closing, or its sleeper has been woken and has not looked yet.
#[derive(Debug)]
struct Slot {
    identity: Identity,
    event: Event,
    state: SpinLock<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    /// A `Sleeper` owns the slot: nobody else may sleep.
    is_taken: bool,
    wait: Wait,
    aborted: bool,
    closing: bool,
    /// How often the slot was aborted.
    aborts: u64,
}

/// What a slot's sleeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nobody sleeps.
    None,
    /// It waits, or is about to.
    Waiting,
    /// It was woken, and has not looked yet. It needs the event until then, even
    /// if the abort is reset:
    ///
    /// ```text
    ///   sleep                    abort               reset
    ///   lock: waiting
    ///                            woken, set(event)
    ///                                                not aborted; no clear
    ///   wait(event) returns
    ///   lock: clear(event)
    /// ```
    Woken,
}

/// How a sleep on a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Elapsed,
    /// By the last of so many aborts.
    Aborted(u64),
    Closing,
    Alerted,
    UserApc,
}

/// Who wants to sleep on a slot.
#[derive(Clone, Copy, Debug)]
enum By {
    /// A caller of `AlertableSleep::sleep`.
    Anybody,
    /// The `Sleeper`, who cannot sleep twice at once.
    Owner,
}

impl SlotState {
    /// Whether `by` may sleep.
    fn check(&self, by: By) -> Result {
        match by {
            By::Anybody if self.is_taken || self.wait != Wait::None => Err(NtStatus::DEVICE_BUSY),
            By::Anybody | By::Owner => Ok(()),
        }
    }

    /// Why a sleep must not begin.
    fn interruption(&self) -> Option<Ended> {
        if self.closing {
            Some(Ended::Closing)
        } else if self.aborted {
            Some(Ended::Aborted(self.aborts))
        } else {
            None
        }
    }

    fn wake(&mut self) -> Woken {
        if self.wait == Wait::Waiting {
            self.wait = Wait::Woken;
            Woken::Sleeper
        } else {
            Woken::Nobody
        }
    }

    /// Whether the event is needed no more.
    fn is_quiet(&self) -> bool {
        !self.aborted && !self.closing && self.wait != Wait::Woken
    }
}

impl Slot {
    fn new() -> Result<Self> {
        Ok(Self {
            identity: Identity::new(),
            // Nobody but the one sleeper waits, and the abort latches.
            event: Event::new(EventKind::Notification)?,
            state: SpinLock::new(SlotState {
                is_taken: false,
                wait: Wait::None,
                aborted: false,
                closing: false,
                aborts: 0,
            }),
        })
    }

    /// Takes the slot for a `Sleeper`.
    fn take(&self) -> Result {
        self.state.with(|state| {
            state.check(By::Anybody)?;
            state.is_taken = true;
            Ok(())
        })
    }

    /// Sleeps.
    ///
    /// No abort is lost between the look at the state and the wait, because
    /// the event stays signaled:
    ///
    /// ```text
    ///   sleep                              abort
    ///   lock: not aborted
    ///                                      lock: aborted, set(event)
    ///   wait(event) returns at once
    ///   lock: Aborted
    /// ```
    #[inline]
    fn sleep(
        &self,
        irql: &Irql<'_, Passive>,
        duration: Timeout,
        alertability: Alertability,
        by: By,
    ) -> Result<SleepOutcome> {
        if let Some(ended) = self.begin(by)? {
            return Ok(self.outcome(ended));
        }
        // How it ends if nobody wakes the sleeper.
        let undisturbed = match alertability {
            Alertability::NotAlertable => match self.event.wait(irql, duration) {
                WaitOutcome::Signaled => None,
                WaitOutcome::TimedOut => Some(Ended::Elapsed),
            },
            Alertability::Alertable => match self.event.wait_alertable(irql, duration) {
                AlertableOutcome::Signaled => None,
                AlertableOutcome::TimedOut => Some(Ended::Elapsed),
                AlertableOutcome::Alerted => Some(Ended::Alerted),
                AlertableOutcome::UserApc => Some(Ended::UserApc),
            },
        };
        Ok(self.outcome(self.end(undisturbed)))
    }

    fn outcome(&self, ended: Ended) -> SleepOutcome {
        match ended {
            Ended::Elapsed => SleepOutcome::Elapsed,
            Ended::Aborted(aborts) => SleepOutcome::Aborted(Abort {
                slot: self.identity,
                aborts,
            }),
            Ended::Closing => SleepOutcome::Closing,
            Ended::Alerted => SleepOutcome::Alerted,
            Ended::UserApc => SleepOutcome::UserApc,
        }
    }

    /// Before the wait: why there must be none.
    fn begin(&self, by: By) -> Result<Option<Ended>> {
        self.state.with(|state| {
            state.check(by)?;
            let interruption = state.interruption();
            if interruption.is_none() {
                state.wait = Wait::Waiting;
            }
            Ok(interruption)
        })
    }

    /// After the wait: how it counts. The next sleep may begin.
    ///
    /// Whoever takes the sleeper out of `Waiting` decides how the sleep ends, so
    /// that an abort which says that it woke a sleeper did, also if the time was
    /// over in the same moment. If an abort comes after this, it is latched for
    /// the next sleep.
    fn end(&self, undisturbed: Option<Ended>) -> Ended {
        self.state.with(|state| {
            let wait = core::mem::replace(&mut state.wait, Wait::None);
            match undisturbed {
                // Nobody has set the event.
                Some(ended) if wait == Wait::Waiting => ended,
                _ => {
                    if state.is_quiet() {
                        self.event.clear();
                    }
                    // Somebody else may have reset the abort already. It was one.
                    state.interruption().unwrap_or(Ended::Aborted(state.aborts))
                }
            }
        })
    }

    /// The event is set under the lock, so that a reset cannot come between the
    /// latch and the event:
    ///
    /// ```text
    ///   abort, if it set the event outside    reset
    ///   lock: aborted
    ///                                         lock: not aborted, clear(event)
    ///   set(event)                            a later sleep wakes for nothing
    /// ```
    #[inline]
    fn abort(&self) -> Woken {
        self.state.with(|state| {
            state.aborted = true;
            state.aborts += 1;
            self.event.set();
            state.wake()
        })
    }

    #[inline]
    fn reset(&self, seen: Abort) -> Result<Reset> {
        if seen.slot != self.identity {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        self.state.with(|state| {
            if state.aborted && state.aborts != seen.aborts {
                return Ok(Reset::StillAborted);
            }
            state.aborted = false;
            if state.is_quiet() {
                self.event.clear();
            }
            Ok(Reset::Ready)
        })
    }
}

impl fmt::Display for SleepOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elapsed => "elapsed",
            Self::Aborted(_) => "aborted",
            Self::Closing => "closing",
            Self::Alerted => "alerted",
            Self::UserApc => "ended by a user APC",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn outcomes_become_dmfs_two_results() {
        assert_eq!(NtStatus::from(SleepOutcome::Elapsed), NtStatus::SUCCESS);
        for early in [
            SleepOutcome::Aborted(Abort {
                slot: Identity::new(),
                aborts: 1,
            }),
            SleepOutcome::Closing,
            SleepOutcome::Alerted,
            SleepOutcome::UserApc,
        ] {
            assert_eq!(NtStatus::from(early), NtStatus::UNSUCCESSFUL);
        }
    }

    #[test]
    fn outcomes_have_names_for_people() {
        assert_eq!(SleepOutcome::Elapsed.to_string(), "elapsed");
        assert_eq!(SleepOutcome::Closing.to_string(), "closing");
    }

    #[test]
    fn a_sleeper_that_was_woken_wakes_even_if_the_abort_is_reset_before_it_waits() {
        ntsim::run(|| {
            let slot = Slot::new().unwrap();
            assert_eq!(slot.begin(By::Anybody), Ok(None));
            assert_eq!(slot.abort(), Woken::Sleeper);
            let aborts = slot.state.with(|state| state.aborts);
            let seen = Abort {
                slot: slot.identity,
                aborts,
            };
            assert_eq!(slot.reset(seen), Ok(Reset::Ready));
            // Here the sleeper begins to wait.
            assert!(slot.event.is_signaled());
            let outcome = slot.end(None);
            assert_eq!(outcome, Ended::Aborted(aborts));
            assert!(!slot.event.is_signaled(), "the next sleep is a whole one");
        });
    }
}
