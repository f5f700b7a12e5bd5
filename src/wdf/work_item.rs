// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`WorkItem`].

use core::ptr::{self, NonNull};

use super::bound::{self, Bound, Called, bound_handle};
use crate::irql::{Irql, Passive};
use crate::module::Running;
use crate::module::node::Header;
use crate::status::Result;
use crate::sys;

/// A callback of its owner that a system worker thread runs at `PASSIVE_LEVEL`.
///
/// ```text
///           enqueue                 a worker takes it
///   idle ───────────► queued ─────────────────────────► callback ──► idle
///                       │ enqueue: nothing                 │ enqueue: queued again
/// ```
///
/// ```
/// use dmf::prelude::*;
/// use dmf::wdf::{WorkItem, WorkItemRun};
///
/// dmf::driver!(Loader);
///
/// struct Loader { load: WorkItem, loaded: SpinLock<bool> }
///
/// impl Device for Loader {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Loader { load: add.work_item(Loader::load)?, loaded: SpinLock::new(false) })
///     }
///
///     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
///         self.load.enqueue()
///     }
///
///     fn d0_exit(&self, cx: &mut D0Exit<'_>) {
///         let _ = self.load.flush(cx.irql());
///         assert!(self.loaded.lock(cx.irql(), |loaded, _| *loaded));
///     }
/// }
///
/// impl Loader {
///     fn load(&self, cx: &mut WorkItemRun<'_>) {
///         dmf::sync::delay(cx.irql(), Duration::from_secs(1));
///         self.loaded.lock(cx.irql(), |loaded, _| *loaded = true);
///     }
/// }
/// # ntsim::run_driver(Loader::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// For work that takes long use a [`Thread`](crate::thread::Thread): workers
/// are shared by the whole system.
///
/// C counterpart: [`WDFWORKITEM`][ms], not serialized.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-framework-work-items
pub struct WorkItem(Bound);

bound_handle!(WorkItem, WDFWORKITEM);

/// What a work item's callback is given.
pub type WorkItemRun<'a> = Called<'a, Passive>;

impl WorkItem {
    /// # Safety
    /// `owner` is the header of a `Node<O>` of `device`, and the caller is the
    /// device's device-add callback.
    pub(crate) unsafe fn new<O: 'static>(
        owner: NonNull<Header>,
        device: sys::WDFDEVICE,
        function: fn(&O, &mut WorkItemRun<'_>),
    ) -> Result<Self> {
        let mut config = sys::WDF_WORKITEM_CONFIG {
            Size: sys::size_field::<sys::WDF_WORKITEM_CONFIG>(),
            EvtWorkItemFunc: Some(evt_work_item),
            ..sys::WDF_WORKITEM_CONFIG::default()
        };
        let make = |attributes: &mut sys::WDF_OBJECT_ATTRIBUTES, handle: &mut sys::WDFOBJECT| {
            // SAFETY: the structures are valid for the length of the call, and so is the device.
            unsafe {
                sys::kmdf::WdfWorkItemCreate(
                    &raw mut config,
                    attributes,
                    ptr::from_mut(handle).cast(),
                )
            }
        };
        // SAFETY: the caller's promise; work items run at PASSIVE_LEVEL, and
        // flushing one waits.
        unsafe { Bound::create(owner, device, function, flush, make) }.map(Self)
    }

    /// Queues the callback, unless it is queued already. May be called from the
    /// callback itself, which then runs again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfWorkItemEnqueue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemenqueue
    pub fn enqueue(&self) -> Result {
        // SAFETY: the invariant.
        self.0
            .with(|item| unsafe { sys::kmdf::WdfWorkItemEnqueue(item.cast()) })
    }

    /// [`enqueue`](Self::enqueue) for a function of the work item's owner, whose
    /// [proof](Running) saves counting the call.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// If another one's function runs, as [`enqueue`](Self::enqueue).
    ///
    /// C counterpart: [`WdfWorkItemEnqueue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemenqueue
    #[inline]
    pub fn enqueue_within(&self, running: Running<'_>) -> Result {
        // SAFETY: the invariant.
        self.0.with_within(running, |item| unsafe {
            sys::kmdf::WdfWorkItemEnqueue(item.cast());
        })
    }

    /// Waits until the callback is neither queued nor running. Not to be called
    /// from the callback itself.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfWorkItemFlush`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemflush
    pub fn flush(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        self.0
            .with(|item| unsafe { sys::kmdf::WdfWorkItemFlush(item.cast()) })
    }
}

callback! {
    /// KMDF's callback for each work item of this crate.
    unsafe fn evt_work_item(item: sys::WDFWORKITEM) {
        // SAFETY: KMDF calls this for work items of this crate, at PASSIVE_LEVEL.
        unsafe { bound::call(item.cast()) };
    }
}

/// # Safety
/// The work item is valid, and the level is `PASSIVE_LEVEL`.
unsafe fn flush(item: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    unsafe { sys::kmdf::WdfWorkItemFlush(item.cast()) };
}
