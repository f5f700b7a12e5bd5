// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Timer`].

use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

use super::object::{ContextInfo, ObjectLink, attributes, no_handle};
use crate::irql::{Irql, Passive};
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// A one-shot timer whose callback is a function of its owner, at `PASSIVE_LEVEL`.
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
/// C counterpart: [`WDFTIMER`][ms], not serialized, passive execution level.
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

/// What a timer's callback is given.
#[derive(Debug)]
pub struct TimerFired<'a> {
    irql: Irql<'a, Passive>,
}

impl<'a> TimerFired<'a> {
    /// The proof that the callback runs at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }
}

#[repr(C)]
struct Context {
    link: ObjectLink,
    owner: NonNull<Header>,
    function: *const (),
    /// Safety: `function` is that of the owner's type, and the level is `PASSIVE_LEVEL`.
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
        let mut config = sys::WDF_TIMER_CONFIG {
            Size: sys::size_field::<sys::WDF_TIMER_CONFIG>(),
            EvtTimerFunc: Some(evt_timer),
            ..sys::WDF_TIMER_CONFIG::default()
        };
        let mut attributes = attributes(&CONTEXT, device);
        attributes.ExecutionLevel = sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive;
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
                call: call::<O>,
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
        // SAFETY: the context's fields belong together, and passive timers are
        // called at PASSIVE_LEVEL.
        unsafe { (context.call)(context.owner, context.function) };
    }
}

/// # Safety
/// `function` is a `fn(&O, &mut TimerFired<'_>)`, `owner` is the header of a
/// `Node<O>` whose memory is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn call<O: 'static>(owner: NonNull<Header>, function: *const ()) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        // The owner is being dropped: there is nobody to tell.
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, &mut TimerFired<'_>) = unsafe { core::mem::transmute(function) };
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
