// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Dpc`].

use core::fmt;
use core::ptr::NonNull;

use super::object::{ContextInfo, ObjectLink, attributes, no_handle};
use crate::irql::{Dispatch, Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
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
/// ```no_run
/// use dmf::prelude::*;
/// use dmf::wdf::{Dpc, DpcRun};
///
/// struct Sampler { next: Dpc, count: SpinLock<u32> }
///
/// impl Device for Sampler {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Sampler { next: Dpc::new(add, Sampler::sample)?, count: SpinLock::new(0) })
///     }
/// }
///
/// impl Sampler {
///     fn sample(&self, cx: &mut DpcRun<'_>) {
///         *self.count.lock(cx.irql()) += 1;
///     }
/// }
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
///
/// # Invariants
/// `handle` is valid as long as the node of `owner` is alive.
pub struct Dpc {
    owner: Reference,
    handle: sys::WDFDPC,
}

// SAFETY: KMDF synchronizes all access to a DPC.
unsafe impl Send for Dpc {}
// SAFETY: as above.
unsafe impl Sync for Dpc {}

/// What a DPC's callback is given.
#[derive(Debug)]
pub struct DpcRun<'a> {
    irql: Irql<'a, Dispatch>,
}

impl<'a> DpcRun<'a> {
    /// The proof that the callback runs at `DISPATCH_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Dispatch> {
        &mut self.irql
    }
}

/// Whether a DPC was put into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// Yes.
    Now,
    /// It was there already, and runs once.
    Already,
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

#[repr(C)]
struct Context {
    link: ObjectLink,
    owner: NonNull<Header>,
    function: *const (),
    /// Safety: `function` is that of the owner's type, and the level is `DISPATCH_LEVEL`.
    call: unsafe fn(NonNull<Header>, *const ()),
}

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::Dpc", &CONTEXT);

impl Dpc {
    /// Adds a DPC whose callback is a function of the owner.
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
        let mut attributes = attributes(&CONTEXT, device);
        let mut handle = no_handle();
        // SAFETY: the structures are valid for the length of the call, and so is the device.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDpcCreate(&raw mut config, &raw mut attributes, &raw mut handle)
        })
        .into_result()?;
        // SAFETY: the DPC was created with this context.
        let context = unsafe { CONTEXT.of::<Context>(handle) };
        // SAFETY: the context is ours, and the DPC has not been queued.
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
        // INVARIANT: the node deletes the DPC after it has ceased to be alive.
        Ok(Self {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            handle,
        })
    }

    /// Runs `action` while the owner is alive, and with it the DPC.
    fn with<R>(&self, action: impl FnOnce() -> R) -> Result<R> {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        Ok(action())
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
        self.with(|| Queued::from_raw(unsafe { sys::kmdf::WdfDpcEnqueue(self.handle) }))
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
        self.with(|| unsafe {
            sys::kmdf::WdfDpcCancel(self.handle, 1);
        })
    }

    /// The handle, for calls that this crate does not have. It is valid as long
    /// as the owner is.
    #[must_use]
    pub const fn as_raw(&self) -> sys::WDFDPC {
        self.handle
    }
}

impl fmt::Debug for Dpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dpc").finish_non_exhaustive()
    }
}

callback! {
    /// KMDF's callback for each DPC of this crate.
    unsafe fn evt_dpc(dpc: sys::WDFDPC) {
        // SAFETY: KMDF calls this for DPCs that were created with this context.
        let context = unsafe { CONTEXT.of::<Context>(dpc) };
        // SAFETY: the context was written before the DPC could be queued.
        let context = unsafe { context.as_ref() };
        // SAFETY: the context's fields belong together, and DPCs run at DISPATCH_LEVEL.
        unsafe { (context.call)(context.owner, context.function) };
    }
}

/// # Safety
/// `function` is a `fn(&O, &mut DpcRun<'_>)`, `owner` is the header of a
/// `Node<O>` whose memory is valid, and the level is `DISPATCH_LEVEL`.
unsafe fn call<O: 'static>(owner: NonNull<Header>, function: *const ()) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        // The owner is being dropped: there is nobody to tell.
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, &mut DpcRun<'_>) = unsafe { core::mem::transmute(function) };
    let mut run = DpcRun {
        // SAFETY: the caller's promise.
        irql: unsafe { Irql::assume() },
    };
    function(&owner, &mut run);
}

/// # Safety
/// The DPC is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn stop(dpc: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    let _ = unsafe { sys::kmdf::WdfDpcCancel(dpc, 1) };
}
