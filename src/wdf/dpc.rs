// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Dpc`].

use core::ptr;

use super::bound::{self, Bound, Called, bound_handle};
use crate::irql::{Dispatch, Irql, Passive};
use crate::module::Modules;
use crate::status::Result;
use crate::sys;

/// A callback of its owner that runs as soon as possible at `DISPATCH_LEVEL`.
///
/// ```text
///           enqueue                 a processor takes it
///   idle ───────────► queued ─────────────────────────────► callback ──► idle
///    ▲                  │ enqueue: nothing                     │ enqueue: queued again
///    └──────────────────┘
///          cancel
/// ```
///
/// On several processors two callbacks of one DPC can overlap. For work that
/// may block use a [`WorkItem`](super::WorkItem).
///
/// ```
/// use dmf::prelude::*;
/// use dmf::wdf::{Dpc, DpcRun};
///
/// dmf::driver!(Sampler);
///
/// struct Sampler { next: Dpc, count: SpinLock<u32> }
///
/// impl Device for Sampler {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Sampler { next: Dpc::new(add, Sampler::sample)?, count: SpinLock::new(0) })
///     }
///
///     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
///         self.next.enqueue().map(|_| ())
///     }
///
///     fn d0_exit(&self, cx: &mut D0Exit<'_>) {
///         let _ = self.next.cancel_and_wait(cx.irql());
///         assert_eq!(self.count.lock(cx.irql(), |count, _| *count), 1);
///     }
/// }
///
/// impl Sampler {
///     fn sample(&self, cx: &mut DpcRun<'_>) {
///         self.count.lock(cx.irql(), |count, _| *count += 1);
///     }
/// }
/// # ntsim::run_driver(Sampler::DRIVER_ENTRY, |machine, _| machine.run_for(core::time::Duration::from_secs(1)).unwrap());
/// ```
///
/// A callback that waits does not compile:
///
/// ```compile_fail,E0308
/// fn refused(cx: &mut dmf::wdf::DpcRun<'_>) {
///     dmf::sync::delay(cx.irql(), core::time::Duration::from_secs(1));
/// }
/// ```
///
/// C counterpart: [`WDFDPC`][ms], not serialized.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpccreate
pub struct Dpc(Bound);

bound_handle!(Dpc, WDFDPC);

/// What a DPC's callback is given.
pub type DpcRun<'a> = Called<'a, Dispatch>;

/// Whether a DPC was put into its queue, or a timer into its.
///
/// C counterpart: the `BOOLEAN` of [`WdfDpcEnqueue`][ms] and its like.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpcenqueue
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// Yes.
    Now,
    /// It was there already: a DPC runs once, a timer fires at its new time.
    Already,
}

/// Whether a DPC or a timer was taken out of its queue.
///
/// C counterpart: the `BOOLEAN` of [`WdfDpcCancel`][ms] and its like.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpccancel
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued, and does not run; a periodic timer, not again.
    BeforeItRan,
    /// It was not in the queue: it runs, has run, or was never queued.
    NotQueued,
}

impl Cancelled {
    pub(crate) const fn from_raw(cancelled: sys::BOOLEAN) -> Self {
        if cancelled == 0 {
            Self::NotQueued
        } else {
            Self::BeforeItRan
        }
    }
}

impl Queued {
    pub(crate) const fn from_raw(queued: sys::BOOLEAN) -> Self {
        if queued == 0 {
            Self::Already
        } else {
            Self::Now
        }
    }
}

impl Dpc {
    /// Adds a DPC whose callback is a function of the owner.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// What [`WdfDpcCreate`][ms] returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpccreate
    pub fn new<O: Send + Sync + 'static>(
        add: &mut Modules<'_, O>,
        function: fn(&O, &mut DpcRun<'_>),
    ) -> Result<Self> {
        let (owner, device) = add.raw();
        let mut config = sys::WDF_DPC_CONFIG {
            Size: sys::size_field::<sys::WDF_DPC_CONFIG>(),
            EvtDpcFunc: Some(evt_dpc),
            ..sys::WDF_DPC_CONFIG::default()
        };
        let make = |attributes: &mut sys::WDF_OBJECT_ATTRIBUTES, handle: &mut sys::WDFOBJECT| {
            // SAFETY: the structures are valid for the length of the call, and so is the device.
            unsafe {
                sys::kmdf::WdfDpcCreate(&raw mut config, attributes, ptr::from_mut(handle).cast())
            }
        };
        // SAFETY: the node is a `Node<O>` of this device, and this is device-add.
        // DPCs run at DISPATCH_LEVEL, and cancelling one waits.
        unsafe { Bound::create(owner, device, function, cancel, make) }.map(Self)
    }

    /// Queues the callback, unless it is queued already.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfDpcEnqueue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpcenqueue
    pub fn enqueue(&self) -> Result<Queued> {
        // SAFETY: the invariant.
        self.0
            .with(|dpc| Queued::from_raw(unsafe { sys::kmdf::WdfDpcEnqueue(dpc.cast()) }))
    }

    /// Takes the DPC out of the queue, if it is there. Its callback may be
    /// running. Tells whether it was there.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfDpcCancel`][ms] without waiting.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpccancel
    pub fn cancel(&self) -> Result<Cancelled> {
        // SAFETY: the object is valid while the owner is alive.
        self.0
            .with(|dpc| Cancelled::from_raw(unsafe { sys::kmdf::WdfDpcCancel(dpc.cast(), 0) }))
    }

    /// Takes the DPC out of the queue, if it is there, and waits until its
    /// callback does not run. Not to be called from the callback itself.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfDpcCancel`][ms], waiting.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdpc/nf-wdfdpc-wdfdpccancel
    pub fn cancel_and_wait(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        self.0.with(|dpc| unsafe {
            sys::kmdf::WdfDpcCancel(dpc.cast(), 1);
        })
    }
}

callback! {
    /// KMDF's callback for each DPC of this crate.
    unsafe fn evt_dpc(dpc: sys::WDFDPC) {
        // SAFETY: KMDF calls this for DPCs of this crate, at DISPATCH_LEVEL.
        unsafe { bound::call(dpc.cast()) };
    }
}

/// # Safety
/// The DPC is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn cancel(dpc: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    let _ = unsafe { sys::kmdf::WdfDpcCancel(dpc.cast(), 1) };
}
