// SPDX-License-Identifier: MIT OR Apache-2.0

//! I/O queues: [`DefaultQueue`], [`QueueConfig`] and [`ManualQueue`].
//!
//! # Vocabulary
//!
//! - *default queue*: gets what no other queue is for. What it delivers is
//!   offered to the modules and then to the device: `io_read`, `io_write`,
//!   `device_control` ([order](crate::Device)).
//! - *queue with handlers*: delivers to functions of its owner.
//! - *manual queue*: delivers nothing; the driver takes requests out.
//! - *sequential*: the next request comes when the driver has no other of the
//!   queue. *Parallel*: at once, up to a limit.
//! - *power-managed*: delivers only while the device is in D0.
//!
//! ```text
//!   caller ──► by type ──► default queue ──► modules ──► device
//!                │                             │ forward
//!                ├───────► with handlers ──────┤
//!                │                             ▼
//!                └───────────────────────► manual queue ──► next()
//!                                              │
//!                                              └─► cancelled there: STATUS_CANCELLED,
//!                                                  or on_canceled
//! ```
//!
//! When the device loses power KMDF asks for each request that the driver
//! still has: `io_stop`. It waits until each is completed, put back, or
//! acknowledged ([`IoStop`]). On removal it cancels what is in the queues; on
//! surprise removal at once in power-managed ones, in others only when the last
//! handle is closed, unless the driver [purges](Queue::purge) them.
//!
//! # Examples
//!
//! ```no_run
//! use dmf::prelude::*;
//! use dmf::wdf::*;
//!
//! struct Echo { waiting: ManualQueue<Read> }
//!
//! impl Device for Echo {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         add.default_queue(DefaultQueue::parallel())?;
//!         add.queue(QueueConfig::sequential().for_requests(RequestType::Write).on_write(Echo::write))?;
//!         Ok(Echo { waiting: add.manual_queue(ManualQueue::config())? })
//!     }
//!
//!     fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
//!         // Refused: completed with the reason.
//!         let _ = request.forward(&self.waiting);
//!         Offer::Handled
//!     }
//! }
//!
//! impl Echo {
//!     fn write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) {
//!         if let Ok(Some(read)) = self.waiting.next() {
//!             match request.input() {
//!                 Ok(bytes) => read.complete_with_bytes(bytes),
//!                 Err(status) => read.complete(Err(status)),
//!             }
//!         }
//!         let length = request.len();
//!         request.complete(Ok(length));
//!     }
//! }
//! ```
//!
//! See [Creating I/O queues][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-i-o-queues

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU32;
use core::ptr::NonNull;

use super::dispatch::IoEvent;
use super::file::File;
use super::object::{ContextInfo, attributes, no_handle};
use super::request::{InternalIoctl, Io, Ioctl, Kind, Read, Refused, Request, RequestId, Write};
use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;

/// How many requests of a queue the driver may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dispatch {
    Sequential,
    Parallel(Option<NonZeroU32>),
    Manual,
}

/// Whether a queue delivers without power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// KMDF's default: managed, except for a filter driver.
    Default,
    NotManaged,
}

/// The type of the requests that a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestType {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// IOCTLs.
    DeviceControl,
    /// IOCTLs from other drivers.
    InternalDeviceControl,
}

impl RequestType {
    const fn to_raw(self) -> sys::WDF_REQUEST_TYPE {
        match self {
            Self::Read => Read::TYPE,
            Self::Write => Write::TYPE,
            Self::DeviceControl => Ioctl::TYPE,
            Self::InternalDeviceControl => InternalIoctl::TYPE,
        }
    }
}

/// The configuration of a KMDF queue, without its callbacks.
///
/// C counterpart: `WDF_IO_QUEUE_CONFIG_INIT`.
fn config(dispatch: Dispatch, power: Power) -> sys::WDF_IO_QUEUE_CONFIG {
    use sys::_WDF_IO_QUEUE_DISPATCH_TYPE as Type;
    let mut config = sys::WDF_IO_QUEUE_CONFIG {
        Size: sys::size_field::<sys::WDF_IO_QUEUE_CONFIG>(),
        DispatchType: match dispatch {
            Dispatch::Sequential => Type::WdfIoQueueDispatchSequential,
            Dispatch::Parallel(_) => Type::WdfIoQueueDispatchParallel,
            Dispatch::Manual => Type::WdfIoQueueDispatchManual,
        },
        PowerManaged: match power {
            Power::Default => sys::_WDF_TRI_STATE::WdfUseDefault,
            Power::NotManaged => sys::_WDF_TRI_STATE::WdfFalse,
        },
        ..sys::WDF_IO_QUEUE_CONFIG::default()
    };
    if let Dispatch::Parallel(limit) = dispatch {
        config.Settings.Parallel.NumberOfPresentedRequests =
            limit.map_or(u32::MAX, NonZeroU32::get);
    }
    config
}

/// Creates a queue whose callbacks run at `PASSIVE_LEVEL`.
///
/// # Safety
/// The caller is device-add for `device`, and the callbacks in `config` are for
/// queues with a context of this kind, which the caller writes at once.
unsafe fn create(
    device: sys::WDFDEVICE,
    config: &mut sys::WDF_IO_QUEUE_CONFIG,
    context: &'static ContextInfo,
    destroy: sys::PFN_WDF_OBJECT_CONTEXT_DESTROY,
) -> Result<sys::WDFQUEUE> {
    let mut attributes = attributes(context, device);
    attributes.ExecutionLevel = sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive;
    attributes.EvtDestroyCallback = destroy;
    let mut queue = no_handle();
    // SAFETY: the structures are valid for the length of the call, and so is the device.
    NtStatus::from_raw(unsafe {
        sys::kmdf::WdfIoQueueCreate(device, config, &raw mut attributes, &raw mut queue)
    })
    .into_result()?;
    Ok(queue)
}

/// What a queue's callback is given.
#[derive(Debug)]
pub struct QueueCallback<'a> {
    irql: Irql<'a, Passive>,
}

impl<'a> QueueCallback<'a> {
    /// # Safety
    /// The level is `PASSIVE_LEVEL` for `'a`.
    unsafe fn new() -> Self {
        Self {
            // SAFETY: the caller's promise.
            irql: unsafe { Irql::assume() },
        }
    }

    /// The proof that the callback runs at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }
}

/// Why KMDF wants a request stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The device is about to lose power.
    Suspend,
    /// The device is being removed.
    Purge,
}

/// KMDF's wish that a request which the driver has be stopped, and the answers
/// to it. Without an answer KMDF waits until the request is completed.
///
/// An answer needs the [`Request`], because only its owner can know that it is
/// not being completed elsewhere at the same time:
///
/// ```compile_fail,E0308
/// use dmf::wdf::{Cancelable, IoStop, Read};
///
/// fn refused(stop: &mut IoStop<'_>, parked: &Cancelable<Read>) {
///     let _ = stop.acknowledge(parked); // it may be cancelled meanwhile
/// }
/// ```
///
/// C counterpart: [`EvtIoStop`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop
#[derive(Debug)]
pub struct IoStop<'a> {
    request: sys::WDFREQUEST,
    flags: sys::ULONG,
    answered: bool,
    irql: Irql<'a, Passive>,
}

impl<'a> IoStop<'a> {
    /// # Safety
    /// The level is `PASSIVE_LEVEL` for `'a`.
    unsafe fn new(request: sys::WDFREQUEST, flags: sys::ULONG) -> Self {
        Self {
            request,
            flags,
            answered: false,
            // SAFETY: the caller's promise.
            irql: unsafe { Irql::assume() },
        }
    }

    pub(crate) const fn is_answered(&self) -> bool {
        self.answered
    }

    /// Which request is meant: to be compared with [`Request::id`] or
    /// [`Cancelable::id`](super::Cancelable::id).
    #[must_use]
    pub fn request(&self) -> RequestId {
        RequestId::of(self.request)
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> StopReason {
        // The constant is small and positive.
        let purge = sys::_WDF_REQUEST_STOP_ACTION_FLAGS::WdfRequestStopActionPurge.cast_unsigned();
        if self.flags & purge == 0 {
            StopReason::Suspend
        } else {
            StopReason::Purge
        }
    }

    /// Says that the driver keeps the request without touching the hardware for
    /// it until `io_resume`. Power may go.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if it is another request, or answered already.
    ///
    /// C counterpart: [`WdfRequestStopAcknowledge`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequeststopacknowledge
    pub fn acknowledge<K: Kind>(&mut self, request: &Request<K>) -> Result {
        if request.as_raw() != self.request || self.answered {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        self.answered = true;
        // SAFETY: KMDF asks about this request, and its owner has it.
        unsafe { sys::kmdf::WdfRequestStopAcknowledge(self.request, 0) };
        Ok(())
    }

    /// Gives the request back to its queue, which delivers it again later.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge), with the request.
    ///
    /// C counterpart: [`WdfRequestStopAcknowledge`][ms] with `Requeue`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequeststopacknowledge
    pub fn requeue<K: Kind>(&mut self, request: Request<K>) -> Result<(), Refused<K>> {
        if request.as_raw() != self.request || self.answered {
            return Err(Refused::new(request, NtStatus::INVALID_PARAMETER));
        }
        self.answered = true;
        // SAFETY: KMDF asks about this request, and its owner gives it up.
        unsafe { sys::kmdf::WdfRequestStopAcknowledge(request.into_raw(), 1) };
        Ok(())
    }

    /// The proof that the callback runs at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }
}

/// The configuration of the device's default queue.
///
/// C counterpart: `WDF_IO_QUEUE_CONFIG_INIT_DEFAULT_QUEUE`.
#[derive(Clone, Copy, Debug)]
#[must_use = "Modules::default_queue creates the queue"]
pub struct DefaultQueue {
    dispatch: Dispatch,
    power: Power,
}

/// The configuration of a queue with handlers, functions of its owner `O`.
#[must_use = "Modules::queue creates the queue"]
pub struct QueueConfig<O> {
    dispatch: Dispatch,
    power: Power,
    route: Option<RequestType>,
    handlers: Handlers<O>,
}

macro_rules! dispatches {
    ($($name:ident $(<$generic:ident>)? { $($field:ident: $value:expr),* })*) => {$(
        impl $(<$generic>)? $name $(<$generic>)? {
            /// One request at a time.
            pub const fn sequential() -> Self {
                Self { dispatch: Dispatch::Sequential, power: Power::Default $(, $field: $value)* }
            }

            /// Requests at once, without limit.
            pub const fn parallel() -> Self {
                Self { dispatch: Dispatch::Parallel(None), power: Power::Default $(, $field: $value)* }
            }

            /// At most so many requests at a time.
            pub const fn parallel_up_to(limit: NonZeroU32) -> Self {
                Self {
                    dispatch: Dispatch::Parallel(Some(limit)),
                    power: Power::Default
                    $(, $field: $value)*
                }
            }

            /// Delivers whether the device has power or not.
            pub const fn not_power_managed(mut self) -> Self {
                self.power = Power::NotManaged;
                self
            }
        }
    )*};
}

dispatches! {
    DefaultQueue {}
    QueueConfig<O> { route: None, handlers: Handlers::NONE }
}

/// A function that a queue delivers requests of kind `K` to.
type Handler<O, K> = fn(&O, &mut QueueCallback<'_>, Request<K>);

/// The functions of a queue. Their layout does not depend on `O`.
#[repr(C)]
struct Handlers<O> {
    read: Option<Handler<O, Read>>,
    write: Option<Handler<O, Write>>,
    control: Option<Handler<O, Ioctl>>,
    internal: Option<Handler<O, InternalIoctl>>,
    stop: Option<fn(&O, &mut IoStop<'_>)>,
    resume: Option<fn(&O, RequestId)>,
}

impl<O> Handlers<O> {
    const NONE: Self = Self {
        read: None,
        write: None,
        control: None,
        internal: None,
        stop: None,
        resume: None,
    };
}

impl<O> QueueConfig<O> {
    /// Sends all requests of a type to this queue. Otherwise it is empty.
    pub const fn for_requests(mut self, kind: RequestType) -> Self {
        self.route = Some(kind);
        self
    }

    /// Delivers reads to this function. Types without a function are completed
    /// with `STATUS_INVALID_DEVICE_REQUEST` by KMDF.
    pub const fn on_read(mut self, handler: Handler<O, Read>) -> Self {
        self.handlers.read = Some(handler);
        self
    }

    /// Delivers writes to this function.
    pub const fn on_write(mut self, handler: Handler<O, Write>) -> Self {
        self.handlers.write = Some(handler);
        self
    }

    /// Delivers IOCTLs to this function.
    pub const fn on_device_control(mut self, handler: Handler<O, Ioctl>) -> Self {
        self.handlers.control = Some(handler);
        self
    }

    /// Delivers IOCTLs of other drivers to this function.
    pub const fn on_internal_device_control(mut self, handler: Handler<O, InternalIoctl>) -> Self {
        self.handlers.internal = Some(handler);
        self
    }

    /// Called for each request that the driver has when power is about to go.
    pub const fn on_stop(mut self, handler: fn(&O, &mut IoStop<'_>)) -> Self {
        self.handlers.stop = Some(handler);
        self
    }

    /// Called for each acknowledged request when power is back.
    pub const fn on_resume(mut self, handler: fn(&O, RequestId)) -> Self {
        self.handlers.resume = Some(handler);
        self
    }
}

impl<O> fmt::Debug for QueueConfig<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueConfig")
            .field("dispatch", &self.dispatch)
            .field("power", &self.power)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// A queue that was created, to stop and start it. It may be dropped; the
/// queue stays.
///
/// C counterpart: [`WDFQUEUE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-queue-objects
///
/// # Invariants
/// `handle` is valid as long as the node of `owner` is alive.
pub struct Queue {
    owner: Reference,
    handle: sys::WDFQUEUE,
}

// SAFETY: KMDF synchronizes all access to a queue.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// # Safety
    /// `handle` is a queue of the device of `owner`, a valid node.
    unsafe fn new(owner: NonNull<Header>, handle: sys::WDFQUEUE) -> Self {
        // INVARIANT: KMDF deletes queues with their device, which is after the
        // node has ceased to be alive.
        Self {
            // SAFETY: the caller's promise.
            owner: unsafe { Reference::to(owner) },
            handle,
        }
    }

    /// Runs `action` while the owner is alive, and with it the queue.
    fn with<R>(&self, action: impl FnOnce(sys::WDFQUEUE) -> R) -> Result<R> {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        Ok(action(self.handle))
    }

    /// Delivers again after [`stop`](Self::stop) or [`purge`](Self::purge).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfIoQueueStart`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestart
    pub fn start(&self) -> Result {
        // SAFETY: the invariant.
        self.with(|queue| unsafe { sys::kmdf::WdfIoQueueStart(queue) })
    }

    /// Stops delivering, and waits until the driver has no request of the
    /// queue. Not to be called from a callback of the queue.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// C counterpart: [`WdfIoQueueStopSynchronously`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestopsynchronously
    pub fn stop(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        self.with(|queue| unsafe { sys::kmdf::WdfIoQueueStopSynchronously(queue) })
    }

    /// Refuses new requests, cancels those in the queue, and waits until the
    /// driver has none. Not to be called from a callback of the queue.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// C counterpart: [`WdfIoQueuePurgeSynchronously`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuepurgesynchronously
    pub fn purge(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        self.with(|queue| unsafe { sys::kmdf::WdfIoQueuePurgeSynchronously(queue) })
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// A queue from which the driver takes requests of kind `K` when it likes.
///
/// The way to keep requests until there is an answer: what waits here can be
/// cancelled by its caller, and KMDF cancels it when the device is removed,
/// without a line of the driver. For requests that hardware works on use
/// [`Request::mark_cancelable`].
///
/// # Invariants
/// Only requests of kind `K` get in.
pub struct ManualQueue<K: Kind> {
    queue: Queue,
    kind: PhantomData<K>,
}

impl<K: Kind> ManualQueue<K> {
    /// The configuration of a manual queue, power-managed and for requests that
    /// are forwarded to it.
    pub const fn config<O>() -> ManualQueueConfig<O, K> {
        ManualQueueConfig {
            power: Power::Default,
            routed: false,
            canceled: None,
            kind: PhantomData,
        }
    }

    /// The queue itself, to stop and start it.
    #[must_use]
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Takes the oldest request out.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// What [`WdfIoQueueRetrieveNextRequest`][ms] returns: `STATUS_WDF_PAUSED`
    /// if the queue delivers nothing now. `STATUS_INVALID_DEVICE_STATE` if the
    /// owner has not been made yet, or is gone.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrievenextrequest
    #[allow(clippy::should_implement_trait, reason = "an iterator has no errors")]
    pub fn next(&self) -> Result<Option<Request<K>>> {
        self.retrieve(|queue, request| {
            // SAFETY: the queue is valid, and the handle is for the length of the call.
            unsafe { sys::kmdf::WdfIoQueueRetrieveNextRequest(queue, request) }
        })
    }

    /// Takes the oldest request of a file out.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// C counterpart: [`WdfIoQueueRetrieveRequestByFileObject`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrieverequestbyfileobject
    pub fn next_of_file(&self, file: File<'_>) -> Result<Option<Request<K>>> {
        let file = file.as_raw();
        self.retrieve(|queue, request| {
            // SAFETY: both are valid, and the handle is for the length of the call.
            unsafe { sys::kmdf::WdfIoQueueRetrieveRequestByFileObject(queue, file, request) }
        })
    }

    fn retrieve(
        &self,
        take: impl FnOnce(sys::WDFQUEUE, *mut sys::WDFREQUEST) -> sys::NTSTATUS,
    ) -> Result<Option<Request<K>>> {
        let mut request = no_handle();
        let status = self
            .queue
            .with(|queue| NtStatus::from_raw(take(queue, &raw mut request)))?;
        if status == NtStatus::NO_MORE_ENTRIES {
            return Ok(None);
        }
        status.into_result()?;
        // SAFETY: the invariant; KMDF gave the request to the driver.
        Ok(Some(unsafe { Request::from_delivered(request) }))
    }

    /// Gives a request to the queue.
    pub(crate) fn accept(&self, request: sys::WDFREQUEST) -> Result {
        self.queue
            .with(|queue| {
                // SAFETY: the callers own the request and give it up if this succeeds.
                NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestForwardToIoQueue(request, queue) })
            })?
            .into_result()
    }
}

impl<K: Kind> fmt::Debug for ManualQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualQueue").finish_non_exhaustive()
    }
}

/// The configuration of a manual queue of an owner `O`.
#[must_use = "Modules::manual_queue creates the queue"]
pub struct ManualQueueConfig<O, K: Kind> {
    power: Power,
    routed: bool,
    canceled: Option<fn(&O, Request<K>)>,
    kind: PhantomData<K>,
}

impl<O, K: Kind> ManualQueueConfig<O, K> {
    /// Lets requests be taken out whether the device has power or not.
    pub const fn not_power_managed(mut self) -> Self {
        self.power = Power::NotManaged;
        self
    }

    /// Sends all requests of this kind to the queue directly.
    pub const fn for_requests(mut self) -> Self {
        self.routed = true;
        self
    }

    /// Called with each request that is cancelled in the queue after the driver
    /// had it before. It should be completed with `STATUS_CANCELLED`, as KMDF
    /// does it without this function and as dropping it does.
    ///
    /// C counterpart: [`EvtIoCanceledOnQueue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_canceled_on_queue
    pub const fn on_canceled(mut self, handler: fn(&O, Request<K>)) -> Self {
        self.canceled = Some(handler);
        self
    }
}

impl<O, K: Kind> fmt::Debug for ManualQueueConfig<O, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualQueueConfig").finish_non_exhaustive()
    }
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// Creates the device's default queue: `io_read`, `io_write` and
    /// `device_control` of the modules and the device. A device has one at most.
    ///
    /// # Errors
    /// What [`WdfIoQueueCreate`][ms] returns: `STATUS_UNSUCCESSFUL` for a second
    /// default queue.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuecreate
    pub fn default_queue(&mut self, queue: DefaultQueue) -> Result<Queue> {
        let (owner, device) = self.raw();
        let mut config = config(queue.dispatch, queue.power);
        config.DefaultQueue = 1;
        config.EvtIoRead = Some(evt_default_read);
        config.EvtIoWrite = Some(evt_default_write);
        config.EvtIoDeviceControl = Some(evt_default_control);
        config.EvtIoInternalDeviceControl = Some(evt_default_internal);
        config.EvtIoStop = Some(evt_default_stop);
        config.EvtIoResume = Some(evt_default_resume);
        // SAFETY: this is device-add for this device.
        let handle = unsafe { create(device, &mut config, &DEFAULT, Some(evt_default_destroy)) }?;
        // SAFETY: the queue was created with this context.
        let context = unsafe { DEFAULT.of::<DefaultContext>(handle) };
        // SAFETY: the device is one of this crate.
        let root = unsafe { crate::driver::root_of(device) };
        // SAFETY: the device has a count of its root.
        let root = unsafe { Reference::to(root) }.into_raw();
        // SAFETY: the context is ours, and the queue has delivered nothing: the
        // device has not started.
        unsafe { context.write(DefaultContext { root }) };
        // SAFETY: the queue is the device's, and the node is valid.
        Ok(unsafe { Queue::new(owner, handle) })
    }

    /// Creates a queue with handlers.
    ///
    /// # Errors
    /// What [`WdfIoQueueCreate`][ms] and `WdfDeviceConfigureRequestDispatching`
    /// return: `STATUS_WDF_BUSY` if the requests go to another queue already.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuecreate
    pub fn queue(&mut self, queue: QueueConfig<O>) -> Result<Queue> {
        let (owner, device) = self.raw();
        let handlers = &queue.handlers;
        let mut config = config(queue.dispatch, queue.power);
        config.EvtIoRead = handlers.read.map(|_| evt_read as _);
        config.EvtIoWrite = handlers.write.map(|_| evt_write as _);
        config.EvtIoDeviceControl = handlers.control.map(|_| evt_control as _);
        config.EvtIoInternalDeviceControl = handlers.internal.map(|_| evt_internal as _);
        config.EvtIoStop = handlers.stop.map(|_| evt_stop as _);
        config.EvtIoResume = handlers.resume.map(|_| evt_resume as _);
        // SAFETY: this is device-add for this device.
        let handle = unsafe { create(device, &mut config, &QUEUE, Some(evt_queue_destroy)) }?;
        // SAFETY: the queue was created with this context.
        let context = unsafe { QUEUE.of::<QueueContext>(handle) };
        // SAFETY: the node is valid.
        let counted = unsafe { Reference::to(owner) }.into_raw();
        // SAFETY: function pointers with and without `O` have one layout, and
        // `call::<O>` undoes this.
        let handlers = unsafe { core::mem::transmute::<Handlers<O>, Handlers<()>>(queue.handlers) };
        // SAFETY: the context is ours, and the queue has delivered nothing.
        unsafe {
            context.write(QueueContext {
                owner: counted,
                call: call::<O>,
                handlers,
            });
        }
        if let Some(kind) = queue.route {
            // SAFETY: the queue is valid and the device's.
            unsafe { route(device, handle, kind.to_raw()) }?;
        }
        // SAFETY: the queue is the device's, and the node is valid.
        Ok(unsafe { Queue::new(owner, handle) })
    }

    /// Creates a manual queue.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    #[allow(clippy::needless_pass_by_value, reason = "a builder is used up")]
    pub fn manual_queue<K: Kind>(
        &mut self,
        queue: ManualQueueConfig<O, K>,
    ) -> Result<ManualQueue<K>> {
        let (owner, device) = self.raw();
        let mut config = config(Dispatch::Manual, queue.power);
        config.EvtIoCanceledOnQueue = queue.canceled.map(|_| evt_canceled as _);
        // SAFETY: this is device-add for this device.
        let handle = unsafe { create(device, &mut config, &MANUAL, Some(evt_manual_destroy)) }?;
        // SAFETY: the queue was created with this context.
        let context = unsafe { MANUAL.of::<ManualContext>(handle) };
        // SAFETY: the node is valid.
        let counted = unsafe { Reference::to(owner) }.into_raw();
        // SAFETY: the context is ours, and nothing is in the queue.
        unsafe {
            context.write(ManualContext {
                owner: counted,
                canceled: queue.canceled.map(|function| function as *const ()),
                call: canceled::<O, K>,
            });
        }
        if queue.routed {
            // SAFETY: the queue is valid and the device's.
            unsafe { route(device, handle, K::TYPE) }?;
        }
        // INVARIANT: `Request::forward` gives it requests of kind `K`, and so
        // does the route.
        Ok(ManualQueue {
            // SAFETY: the queue is the device's, and the node is valid.
            queue: unsafe { Queue::new(owner, handle) },
            kind: PhantomData,
        })
    }
}

/// # Safety
/// `queue` is one of `device`'s.
unsafe fn route(
    device: sys::WDFDEVICE,
    queue: sys::WDFQUEUE,
    kind: sys::WDF_REQUEST_TYPE,
) -> Result {
    // SAFETY: the caller's promise.
    NtStatus::from_raw(unsafe {
        sys::kmdf::WdfDeviceConfigureRequestDispatching(device, queue, kind)
    })
    .into_result()
}

/// The context of a default queue.
struct DefaultContext {
    /// Counted.
    root: NonNull<Header>,
}

/// The context of a queue with handlers.
struct QueueContext {
    /// Counted.
    owner: NonNull<Header>,
    /// Safety: `owner` is a `Node<O>`, and the handlers are for that `O`.
    call: unsafe fn(NonNull<Header>, &Handlers<()>, Delivery<'_>),
    handlers: Handlers<()>,
}

/// The context of a manual queue.
struct ManualContext {
    /// Counted.
    owner: NonNull<Header>,
    canceled: Option<*const ()>,
    /// Safety: `owner` is a `Node<O>`, the function is a `fn(&O, Request<K>)`,
    /// and the request is of kind `K` and the callee's.
    call: unsafe fn(NonNull<Header>, *const (), sys::WDFREQUEST),
}

static DEFAULT: ContextInfo = ContextInfo::new::<DefaultContext>(c"dmf::DefaultQueue", &DEFAULT);
static QUEUE: ContextInfo = ContextInfo::new::<QueueContext>(c"dmf::Queue", &QUEUE);
static MANUAL: ContextInfo = ContextInfo::new::<ManualContext>(c"dmf::ManualQueue", &MANUAL);

/// What a queue with handlers delivers.
enum Delivery<'a> {
    Request(Io, &'a mut QueueCallback<'a>),
    Stop(IoStop<'a>),
    Resume(RequestId),
}

/// # Safety
/// `owner` is a `Node<O>` whose memory is valid, and the handlers are for that `O`.
unsafe fn call<O: 'static>(
    owner: NonNull<Header>,
    handlers: &Handlers<()>,
    delivery: Delivery<'_>,
) {
    // SAFETY: the caller's promise, and the layout does not depend on `O`.
    let handlers = unsafe { &*(&raw const *handlers).cast::<Handlers<O>>() };
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        if let Delivery::Request(request, _) = delivery {
            request.refuse(NtStatus::INVALID_DEVICE_STATE);
        }
        return;
    };
    // A queue delivers only what it has a function for.
    match delivery {
        Delivery::Request(request, cx) => match request {
            Io::Read(request) => {
                if let Some(handler) = handlers.read {
                    handler(&owner, cx, request);
                }
            }
            Io::Write(request) => {
                if let Some(handler) = handlers.write {
                    handler(&owner, cx, request);
                }
            }
            Io::Ioctl(request) => {
                if let Some(handler) = handlers.control {
                    handler(&owner, cx, request);
                }
            }
            Io::InternalIoctl(request) => {
                if let Some(handler) = handlers.internal {
                    handler(&owner, cx, request);
                }
            }
        },
        Delivery::Stop(mut stop) => {
            if let Some(handler) = handlers.stop {
                handler(&owner, &mut stop);
            }
        }
        Delivery::Resume(request) => {
            if let Some(handler) = handlers.resume {
                handler(&owner, request);
            }
        }
    }
}

/// # Safety
/// As [`ManualContext::call`].
unsafe fn canceled<O: 'static, K: Kind>(
    owner: NonNull<Header>,
    function: *const (),
    request: sys::WDFREQUEST,
) {
    // SAFETY: the caller's promise.
    let request = unsafe { Request::<K>::from_delivered(request) };
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, Request<K>) = unsafe { core::mem::transmute(function) };
    function(&owner, request);
}

/// Offers an event of the default queue to the device's tree.
///
/// # Safety
/// `queue` is a default queue of this crate; `PASSIVE_LEVEL`.
unsafe fn offer(queue: sys::WDFQUEUE, event: &mut IoEvent<'_>) -> Result {
    // SAFETY: the caller's promise.
    let context = unsafe { DEFAULT.of::<DefaultContext>(queue) };
    // SAFETY: written before the device could start.
    let root = unsafe { context.as_ref() }.root;
    // SAFETY: the context counts the root, and the caller's promise.
    unsafe { node::tell(root, event) }
}

/// Offers a request of kind `K`.
///
/// # Safety
/// As [`offer`]; the request is of kind `K` and the caller's.
unsafe fn offer_request<K: Kind>(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
    // SAFETY: the caller's promise.
    let request = K::offer(unsafe { Request::from_delivered(request) });
    // SAFETY: the caller's promise.
    let mut cx = unsafe { QueueCallback::new() };
    let mut event = IoEvent::Request(&mut cx, Some(request));
    // SAFETY: the caller's promise.
    let status = match unsafe { offer(queue, &mut event) } {
        Ok(()) => NtStatus::NOT_SUPPORTED,
        Err(status) => status,
    };
    if let IoEvent::Request(_, Some(request)) = event {
        request.refuse(status);
    }
}

/// Delivers to the functions of a queue.
///
/// # Safety
/// `queue` is a queue with handlers of this crate; `PASSIVE_LEVEL`.
unsafe fn deliver(queue: sys::WDFQUEUE, delivery: Delivery<'_>) {
    // SAFETY: the caller's promise.
    let context = unsafe { QUEUE.of::<QueueContext>(queue) };
    // SAFETY: written before the device could start.
    let context = unsafe { context.as_ref() };
    // SAFETY: the context's fields belong together.
    unsafe { (context.call)(context.owner, &context.handlers, delivery) };
}

/// # Safety
/// As [`deliver`]; the request is of kind `K` and the caller's.
unsafe fn deliver_request<K: Kind>(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
    // SAFETY: the caller's promise.
    let request = K::offer(unsafe { Request::from_delivered(request) });
    // SAFETY: the caller's promise.
    let mut cx = unsafe { QueueCallback::new() };
    // SAFETY: the caller's promise.
    unsafe { deliver(queue, Delivery::Request(request, &mut cx)) };
}

macro_rules! queue_callbacks {
    ($($default:ident $handled:ident $kind:ident($($arg:ident: $ty:ty),*);)*) => {$(
        callback! {
            unsafe fn $default(queue: sys::WDFQUEUE, request: sys::WDFREQUEST, $($arg: $ty),*) {
                // SAFETY: KMDF calls this for default queues, with requests of this
                // kind, and at PASSIVE_LEVEL by their execution level.
                unsafe { offer_request::<$kind>(queue, request) };
            }
        }

        callback! {
            unsafe fn $handled(queue: sys::WDFQUEUE, request: sys::WDFREQUEST, $($arg: $ty),*) {
                // SAFETY: as above, for queues with handlers.
                unsafe { deliver_request::<$kind>(queue, request) };
            }
        }
    )*};
}

queue_callbacks! {
    evt_default_read evt_read Read(_length: usize);
    evt_default_write evt_write Write(_length: usize);
    evt_default_control evt_control Ioctl(_output: usize, _input: usize, _code: sys::ULONG);
    evt_default_internal evt_internal
        InternalIoctl(_output: usize, _input: usize, _code: sys::ULONG);
}

callback! {
    unsafe fn evt_default_stop(queue: sys::WDFQUEUE, request: sys::WDFREQUEST, flags: sys::ULONG) {
        // SAFETY: PASSIVE_LEVEL by the queue's execution level.
        let stop = unsafe { IoStop::new(request, flags) };
        // SAFETY: KMDF calls this for default queues. Nobody there: KMDF waits.
        let _ = unsafe { offer(queue, &mut IoEvent::Stop(stop)) };
    }
}

callback! {
    unsafe fn evt_stop(queue: sys::WDFQUEUE, request: sys::WDFREQUEST, flags: sys::ULONG) {
        // SAFETY: PASSIVE_LEVEL by the queue's execution level.
        let stop = unsafe { IoStop::new(request, flags) };
        // SAFETY: KMDF calls this for queues with handlers.
        unsafe { deliver(queue, Delivery::Stop(stop)) };
    }
}

callback! {
    unsafe fn evt_default_resume(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
        // SAFETY: KMDF calls this for default queues.
        let _ = unsafe { offer(queue, &mut IoEvent::Resume(RequestId::of(request))) };
    }
}

callback! {
    unsafe fn evt_resume(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
        // SAFETY: KMDF calls this for queues with handlers.
        unsafe { deliver(queue, Delivery::Resume(RequestId::of(request))) };
    }
}

callback! {
    unsafe fn evt_canceled(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
        // SAFETY: KMDF calls this for manual queues.
        let context = unsafe { MANUAL.of::<ManualContext>(queue) };
        // SAFETY: written before anything could get into the queue.
        let context = unsafe { context.as_ref() };
        if let Some(function) = context.canceled {
            // SAFETY: the context's fields belong together, and KMDF gives the
            // request to this callback.
            unsafe { (context.call)(context.owner, function, request) };
        }
    }
}

macro_rules! destroys {
    ($($name:ident($info:ident: $context:ident.$field:ident);)*) => {$(
        callback! {
            unsafe fn $name(queue: sys::WDFOBJECT) {
                // SAFETY: KMDF calls this for queues with this context.
                let context = unsafe { $info.of::<$context>(queue) };
                // SAFETY: written when the queue was created.
                let node = unsafe { context.as_ref() }.$field;
                // SAFETY: the context's count.
                drop(unsafe { Reference::from_raw(node) });
            }
        }
    )*};
}

destroys! {
    evt_default_destroy(DEFAULT: DefaultContext.root);
    evt_queue_destroy(QUEUE: QueueContext.owner);
    evt_manual_destroy(MANUAL: ManualContext.owner);
}
