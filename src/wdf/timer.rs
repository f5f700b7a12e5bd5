// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Timer`], and [`TimerConfig`], which says how it fires.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::time::Duration;

use super::bound::{self, Bound, Called, bound_handle};
use super::dpc::{Cancelled, Queued};
use crate::irql::{Dispatch, Irql, Level, Passive};
use crate::module::node::Header;
use crate::module::{Modules, Running};
use crate::status::Result;
use crate::sys;
use crate::time::Span;

/// A timer whose callback is a function of its owner.
///
/// [`Modules::timer`] adds one that fires once, at `PASSIVE_LEVEL`;
/// [`Timer::with_config`] any other.
///
/// ```text
///           start                 due
///   idle ──────────► queued ──────────────► callback ──► idle
///    ▲                 │  start: moves the due time
///    └─────────────────┘
///          stop
/// ```
///
/// It fires on the first clock tick at or after the due time. To run something
/// as soon as possible use a [`WorkItem`](super::WorkItem).
///
/// C counterpart: [`WDFTIMER`][ms], not serialized.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-timers
pub struct Timer(Bound);

bound_handle!(Timer, WDFTIMER);

/// What a timer's callback is given, at level `L`.
pub type TimerFired<'a, L = Passive> = Called<'a, L>;

/// How exactly a timer fires.
///
/// C counterpart: `TolerableDelay` and `UseHighResolutionTimer` of
/// [`WDF_TIMER_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/ns-wdftimer-_wdf_timer_config
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// On the first clock tick at or after the due time.
    #[default]
    Tick,
    /// Up to that much later, so that timers can share a wake of the processor.
    Tolerable(Duration),
    /// Within a millisecond. Costs power: the clock ticks faster meanwhile.
    HighResolution,
}

/// How a [`Timer`] fires: the level of its callback, its period, its precision.
///
/// A periodic timer fires at `DISPATCH_LEVEL`; KMDF has none at
/// `PASSIVE_LEVEL`, so that cannot be written:
///
/// ```compile_fail,E0599
/// use dmf::prelude::*;
/// use dmf::wdf::TimerConfig;
///
/// let refused = TimerConfig::passive().periodic(Duration::from_secs(1));
/// ```
///
/// ```
/// use dmf::prelude::*;
/// use dmf::wdf::{Precision, Timer, TimerConfig, TimerFired};
///
/// dmf::driver!(Watchdog);
///
/// struct Watchdog { tick: Timer, ticks: SpinLock<u32> }
///
/// impl Device for Watchdog {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         let config = TimerConfig::dispatch()
///             .periodic(Duration::from_millis(100))
///             .precision(Precision::Tolerable(Duration::from_millis(20)));
///         let tick = Timer::with_config(add, config, Watchdog::tick)?;
///         Ok(Watchdog { tick, ticks: SpinLock::new(0) })
///     }
///
///     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
///         self.tick.start(Duration::from_millis(100)).map(drop)
///     }
///
///     fn d0_exit(&self, cx: &mut D0Exit<'_>) {
///         let _ = self.tick.stop_and_wait(cx.irql());
///         assert!(self.ticks.lock(cx.irql(), |ticks, _| *ticks) >= 8);
///     }
/// }
///
/// impl Watchdog {
///     fn tick(&self, cx: &mut TimerFired<'_, Dispatch>) {
///         self.ticks.lock(cx.irql(), |ticks, _| *ticks += 1);
///     }
/// }
/// # ntsim::run_driver(Watchdog::DRIVER_ENTRY, |machine, _| machine.run_for(core::time::Duration::from_secs(1)).unwrap());
/// ```
///
/// C counterpart: `WDF_TIMER_CONFIG_INIT`, `WDF_TIMER_CONFIG_INIT_PERIODIC`,
/// [`WDF_TIMER_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/ns-wdftimer-_wdf_timer_config
#[derive(Debug)]
#[must_use]
pub struct TimerConfig<L: Level> {
    period: Option<Duration>,
    precision: Precision,
    level: PhantomData<fn(L)>,
}

impl<L: Level> Copy for TimerConfig<L> {}

impl<L: Level> Clone for TimerConfig<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl TimerConfig<Passive> {
    /// Fires once, at `PASSIVE_LEVEL`.
    pub const fn passive() -> Self {
        Self {
            period: None,
            precision: Precision::Tick,
            level: PhantomData,
        }
    }
}

impl TimerConfig<Dispatch> {
    /// Fires at `DISPATCH_LEVEL`: once, unless it is [`periodic`](Self::periodic).
    pub const fn dispatch() -> Self {
        Self {
            period: None,
            precision: Precision::Tick,
            level: PhantomData,
        }
    }

    /// Fires again each `period` after the first time, until it is stopped.
    ///
    /// Rounded up to milliseconds, at least one; more than `i32::MAX` of them
    /// are refused when the timer is made.
    pub const fn periodic(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }
}

impl<L: Level> TimerConfig<L> {
    /// How exactly. [`Precision::Tick`] unless given.
    pub const fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    fn to_raw(self) -> sys::WDF_TIMER_CONFIG {
        let (tolerable, high_resolution) = match self.precision {
            Precision::Tick => (0, 0),
            Precision::Tolerable(delay) => (milliseconds(delay), 0),
            Precision::HighResolution => (0, 1),
        };
        sys::WDF_TIMER_CONFIG {
            Size: sys::size_field::<sys::WDF_TIMER_CONFIG>(),
            EvtTimerFunc: Some(evt_timer),
            Period: self.period.map_or(0, |period| milliseconds(period).max(1)),
            TolerableDelay: tolerable,
            UseHighResolutionTimer: high_resolution,
            ..sys::WDF_TIMER_CONFIG::default()
        }
    }
}

/// What `WdfTimerStart` returns.
const fn was_queued(raw: sys::BOOLEAN) -> Queued {
    match raw {
        0 => Queued::Now,
        _ => Queued::Already,
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl Timer {
    /// # Safety
    /// `owner` is the header of a `Node<O>` of `device`, and the caller is the
    /// device's device-add callback.
    pub(crate) unsafe fn new<O: 'static>(
        owner: NonNull<Header>,
        device: sys::WDFDEVICE,
        function: fn(&O, &mut TimerFired<'_>),
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::create::<O, Passive>(owner, device, TimerConfig::passive(), function) }
    }

    /// Adds a timer whose callback is a function of the owner.
    ///
    /// # Errors
    /// What [`WdfTimerCreate`][ms] returns: `STATUS_INVALID_PARAMETER` for a
    /// period that is too long.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimercreate
    pub fn with_config<O: Send + Sync + 'static, L: Level>(
        add: &mut Modules<'_, O>,
        config: TimerConfig<L>,
        function: fn(&O, &mut TimerFired<'_, L>),
    ) -> Result<Self> {
        let (owner, device) = add.raw();
        // SAFETY: the node is a `Node<O>` of this device, and this is device-add.
        unsafe { Self::create(owner, device, config, function) }
    }

    /// # Safety
    /// As [`new`](Self::new).
    unsafe fn create<O: 'static, L: Level>(
        owner: NonNull<Header>,
        device: sys::WDFDEVICE,
        config: TimerConfig<L>,
        function: fn(&O, &mut TimerFired<'_, L>),
    ) -> Result<Self> {
        let mut config = config.to_raw();
        // The config's level is `Passive` or `Dispatch`.
        let level = if L::VALUE == Passive::VALUE {
            sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive
        } else {
            sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelDispatch
        };
        let make = |attributes: &mut sys::WDF_OBJECT_ATTRIBUTES, handle: &mut sys::WDFOBJECT| {
            attributes.ExecutionLevel = level;
            // SAFETY: the structures are valid for the length of the call, and so is the device.
            unsafe {
                sys::kmdf::WdfTimerCreate(&raw mut config, attributes, ptr::from_mut(handle).cast())
            }
        };
        // SAFETY: the caller's promise; the timer's callback calls the function
        // at the level that was asked for, and stopping it waits.
        unsafe { Bound::create(owner, device, function, stop, make) }.map(Self)
    }

    /// Makes the timer fire once, `due` from now. A timer that is queued
    /// already fires then instead. Tells whether it was.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfTimerStart`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstart
    pub fn start(&self, due: impl Into<Span>) -> Result<Queued> {
        let due = due.into().to_due_time();
        // SAFETY: the invariant.
        self.0
            .with(|timer| was_queued(unsafe { sys::kmdf::WdfTimerStart(timer.cast(), due) }))
    }

    /// [`start`](Self::start) for a function of the timer's owner, whose
    /// [proof](Running) saves counting the call.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// If another one's function runs, as [`start`](Self::start).
    ///
    /// C counterpart: [`WdfTimerStart`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstart
    #[inline]
    pub fn start_within(&self, running: Running<'_>, due: impl Into<Span>) -> Result<Queued> {
        let due = due.into().to_due_time();
        self.0.with_within(running, |timer| {
            // SAFETY: the invariant.
            was_queued(unsafe { sys::kmdf::WdfTimerStart(timer.cast(), due) })
        })
    }

    /// Takes the timer out of the queue, if it is there. Its callback may be
    /// running and may still begin. Tells whether it was there.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfTimerStop`][ms] without waiting.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstop
    pub fn stop(&self) -> Result<Cancelled> {
        // SAFETY: the invariant.
        self.0
            .with(|timer| Cancelled::from_raw(unsafe { sys::kmdf::WdfTimerStop(timer.cast(), 0) }))
    }

    /// Takes the timer out of the queue, and waits until its callback does not
    /// run any more. Not to be called from the callback itself. Tells whether it
    /// was queued.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfTimerStop`][ms], waiting.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstop
    pub fn stop_and_wait(&self, _irql: &Irql<'_, Passive>) -> Result<Cancelled> {
        // SAFETY: the invariant, and the token proves the level.
        self.0
            .with(|timer| Cancelled::from_raw(unsafe { sys::kmdf::WdfTimerStop(timer.cast(), 1) }))
    }
}

callback! {
    /// KMDF's callback for each timer of this crate.
    unsafe fn evt_timer(timer: sys::WDFTIMER) {
        // SAFETY: KMDF calls this for timers of this crate, at the level that
        // they were created with.
        unsafe { bound::call(timer.cast()) };
    }
}

/// # Safety
/// The timer is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn stop(timer: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    let _ = unsafe { sys::kmdf::WdfTimerStop(timer.cast(), 1) };
}
