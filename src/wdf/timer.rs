// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Timer`], and [`TimerConfig`], which says how it fires.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::time::Duration;

use super::object::{ContextInfo, ObjectLink, attributes, no_handle};
use crate::irql::{Dispatch, Irql, Level, Passive};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

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
///
/// # Invariants
/// `handle` is valid as long as the node of `owner` is alive.
pub struct Timer {
    owner: Reference,
    handle: sys::WDFTIMER,
}

// SAFETY: KMDF synchronizes all access to a timer.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

/// What a timer's callback is given, at level `L`.
#[derive(Debug)]
pub struct TimerFired<'a, L: Level = Passive> {
    irql: Irql<'a, L>,
}

impl<'a, L: Level> TimerFired<'a, L> {
    /// The proof that the callback runs at that level.
    pub fn irql(&mut self) -> &mut Irql<'a, L> {
        &mut self.irql
    }
}

/// How exactly a timer fires.
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
/// ```no_run
/// use dmf::prelude::*;
/// use dmf::wdf::{Precision, Timer, TimerConfig, TimerFired};
///
/// struct Watchdog { tick: Timer }
///
/// impl Device for Watchdog {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         let config = TimerConfig::dispatch()
///             .periodic(Duration::from_millis(100))
///             .precision(Precision::Tolerable(Duration::from_millis(20)));
///         Ok(Watchdog { tick: Timer::with_config(add, config, Watchdog::tick)? })
///     }
/// }
///
/// impl Watchdog {
///     fn tick(&self, _cx: &mut TimerFired<'_, Dispatch>) {}
/// }
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

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[repr(C)]
struct Context {
    link: ObjectLink,
    owner: NonNull<Header>,
    function: *const (),
    /// Safety: `function` is that of the owner's type and level, which is the level.
    call: unsafe fn(NonNull<Header>, *const ()),
}

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::Timer", &CONTEXT);

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
        let mut attributes = attributes(&CONTEXT, device);
        // The config's level is `Passive` or `Dispatch`.
        attributes.ExecutionLevel = if L::VALUE == Passive::VALUE {
            sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive
        } else {
            sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelDispatch
        };
        let mut handle = no_handle();
        // SAFETY: the structures are valid for the length of the call, and so is the device.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfTimerCreate(&raw mut config, &raw mut attributes, &raw mut handle)
        })
        .into_result()?;
        // SAFETY: the timer was created with this context.
        let context = unsafe { CONTEXT.of::<Context>(handle) };
        // SAFETY: the context is ours, and the timer has not been started.
        unsafe {
            context.write(Context {
                link: ObjectLink::new(handle, stop),
                owner,
                function: function as *const (),
                call: call::<O, L>,
            });
        }
        // SAFETY: the link is the context's first field, and new.
        unsafe { ObjectLink::push(owner, context.cast()) };
        // INVARIANT: the node deletes the timer after it has ceased to be alive.
        Ok(Self {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            handle,
        })
    }

    /// Runs `action` while the owner is alive, and with it the timer.
    fn with<R>(&self, action: impl FnOnce() -> R) -> Result<R> {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        Ok(action())
    }

    /// Makes the timer fire once, `due` from now. A timer that is queued
    /// already fires then instead.
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
    pub fn start(&self, due: Duration) -> Result {
        let due = Timeout::After(due).to_due_time().unwrap_or(0);
        // SAFETY: the invariant.
        self.with(|| unsafe {
            sys::kmdf::WdfTimerStart(self.handle, due);
        })
    }

    /// Takes the timer out of the queue, if it is there. Its callback may be
    /// running and may still begin.
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
    pub fn stop(&self) -> Result {
        // SAFETY: the invariant.
        self.with(|| unsafe {
            sys::kmdf::WdfTimerStop(self.handle, 0);
        })
    }

    /// Takes the timer out of the queue, and waits until its callback does not
    /// run any more. Not to be called from the callback itself.
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
    pub fn stop_and_wait(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        self.with(|| unsafe {
            sys::kmdf::WdfTimerStop(self.handle, 1);
        })
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}

callback! {
    /// KMDF's callback for each timer of this crate.
    unsafe fn evt_timer(timer: sys::WDFTIMER) {
        // SAFETY: KMDF calls this for timers that were created with this context.
        let context = unsafe { CONTEXT.of::<Context>(timer) };
        // SAFETY: the context was written before the timer could be started.
        let context = unsafe { context.as_ref() };
        // SAFETY: the context's fields belong together, and KMDF calls a timer
        // at the level that it was created with.
        unsafe { (context.call)(context.owner, context.function) };
    }
}

/// # Safety
/// `function` is a `fn(&O, &mut TimerFired<'_, L>)`, `owner` is the header of a
/// `Node<O>` whose memory is valid, and the level is `L`.
unsafe fn call<O: 'static, L: Level>(owner: NonNull<Header>, function: *const ()) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        // The owner is being dropped: there is nobody to tell.
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, &mut TimerFired<'_, L>) = unsafe { core::mem::transmute(function) };
    let mut fired = TimerFired {
        // SAFETY: the caller's promise.
        irql: unsafe { Irql::assume() },
    };
    function(&owner, &mut fired);
}

/// # Safety
/// The timer is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn stop(timer: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    let _ = unsafe { sys::kmdf::WdfTimerStop(timer, 1) };
}
