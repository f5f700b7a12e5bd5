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
//! handle is closed, unless the driver [purges](QueueControl::purge) them.
//!
//! # Examples
//!
//! ```
//! use dmf::prelude::*;
//! use dmf::wdf::*;
//!
//! # dmf::driver!(Echo);
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
//! # ntsim::run_driver(Echo::DRIVER_ENTRY, |machine, device| {
//! #     let file = machine.open(device).unwrap();
//! #     let read = machine.begin_read(file, 8).unwrap();
//! #     assert_eq!(machine.write(file, b"hello").unwrap().information, 5);
//! #     let read = machine.wait(read, Duration::ZERO).unwrap().unwrap();
//! #     assert_eq!(read.data, b"hello");
//! #     machine.close(file).unwrap();
//! # });
//! ```
//!
//! What KMDF can do and this crate does not: a callback for requests of any type
//! (`EvtIoDefault`), one in the caller's context (`EvtIoInCallerContext`, which
//! only `METHOD_NEITHER` needs), and guaranteed forward progress
//! (`WdfIoQueueAssignForwardProgressPolicy`, for drivers of the paging path).
//!
//! See [Creating I/O queues][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-i-o-queues

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU32;
use core::ops::Deref;
use core::ptr::{self, NonNull};

use super::dispatch::IoEvent;
use super::file::File;
use super::io_target::pass_down;
use super::object::{ContextInfo, attributes, no_handle};
use super::request::{
    InternalIoctl, Io, Ioctl, Kind, Read, Refused, Request, RequestId, Write, parameters_record,
};
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
    Managed,
    NotManaged,
}

/// What becomes of reads and writes of no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroLength {
    /// KMDF completes them with success.
    Completed,
    Delivered,
}

/// The type of the requests that a queue is for.
///
/// C counterpart: [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
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
fn config(dispatch: Dispatch, power: Power, zero_length: ZeroLength) -> sys::WDF_IO_QUEUE_CONFIG {
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
            Power::Managed => sys::_WDF_TRI_STATE::WdfTrue,
            Power::NotManaged => sys::_WDF_TRI_STATE::WdfFalse,
        },
        AllowZeroLengthRequests: (zero_length == ZeroLength::Delivered).into(),
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
    let mut attributes = attributes(context, device.cast());
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
///
/// C counterpart: the `WDFQUEUE` of [`EvtIoRead`][ms] and its like.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_read
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
///
/// C counterpart: [`WDF_REQUEST_STOP_ACTION_FLAGS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_stop_action_flags
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The device is about to lose power.
    Suspend,
    /// The device is being removed.
    Purge,
}

/// KMDF's wish that a request which the driver has be stopped, and the answers
/// to it. Without an answer KMDF waits until the request is completed,
/// forwarded or requeued, which may be much later.
///
/// It may come while the handler that was given the request still runs: a
/// driver that keeps requests must remember that it was told to stop.
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
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
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
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
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
/// C counterpart: `WDF_IO_QUEUE_CONFIG_INIT_DEFAULT_QUEUE` of
/// [`WDF_IO_QUEUE_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config
#[derive(Clone, Copy, Debug)]
#[must_use = "Modules::default_queue creates the queue"]
pub struct DefaultQueue {
    dispatch: Dispatch,
    power: Power,
    zero_length: ZeroLength,
}

/// The configuration of a queue with handlers, functions of its owner `O`.
///
/// C counterpart: [`WDF_IO_QUEUE_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config
#[must_use = "Modules::queue creates the queue"]
pub struct QueueConfig<O> {
    dispatch: Dispatch,
    power: Power,
    zero_length: ZeroLength,
    route: Option<RequestType>,
    handlers: Handlers<O>,
}

/// What all configurations have in common.
macro_rules! settings {
    () => {
        /// Delivers only while the device is in D0, also for a filter driver.
        /// Without this and [`not_power_managed`](Self::not_power_managed) that
        /// holds for all other drivers.
        pub const fn power_managed(mut self) -> Self {
            self.power = Power::Managed;
            self
        }

        /// Delivers whether the device has power or not.
        pub const fn not_power_managed(mut self) -> Self {
            self.power = Power::NotManaged;
            self
        }

        /// Delivers reads and writes of no bytes, too, which KMDF else
        /// completes with success.
        pub const fn zero_length_requests(mut self) -> Self {
            self.zero_length = ZeroLength::Delivered;
            self
        }
    };
}

macro_rules! dispatches {
    ($($name:ident $(<$generic:ident>)? { $($field:ident: $value:expr),* })*) => {$(
        impl $(<$generic>)? $name $(<$generic>)? {
            const fn new(dispatch: Dispatch) -> Self {
                Self {
                    dispatch,
                    power: Power::Default,
                    zero_length: ZeroLength::Completed
                    $(, $field: $value)*
                }
            }

            /// One request at a time.
            pub const fn sequential() -> Self {
                Self::new(Dispatch::Sequential)
            }

            /// Requests at once, without limit.
            pub const fn parallel() -> Self {
                Self::new(Dispatch::Parallel(None))
            }

            /// At most so many requests at a time.
            pub const fn parallel_up_to(limit: NonZeroU32) -> Self {
                Self::new(Dispatch::Parallel(Some(limit)))
            }

            settings!();
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

/// A queue that delivers: the default queue, or one with handlers. Requests can
/// be [forwarded](Request::forward) to it. It may be dropped; the queue stays.
///
/// Its functions are those of [`QueueControl`].
///
/// C counterpart: [`WDFQUEUE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-queue-objects
#[derive(Debug)]
pub struct Queue(QueueControl);

impl Deref for Queue {
    type Target = QueueControl;
    fn deref(&self) -> &QueueControl {
        &self.0
    }
}

/// Where a request of kind `K` can be forwarded to. Sealed.
///
/// C counterpart: the `WDFQUEUE` of [`WdfRequestForwardToIoQueue`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestforwardtoioqueue
pub trait Destination<K: Kind>: sealed::Sealed {
    /// The queue.
    #[doc(hidden)]
    fn control(&self) -> &QueueControl;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Queue {}
// What it has no handler for KMDF completes.
impl<K: Kind> Destination<K> for Queue {
    fn control(&self) -> &QueueControl {
        &self.0
    }
}

impl<K: Kind> sealed::Sealed for ManualQueue<K> {}
impl<K: Kind> Destination<K> for ManualQueue<K> {
    fn control(&self) -> &QueueControl {
        &self.control
    }
}

/// What a queue does now, and how many requests it has.
///
/// C counterpart: [`WDF_IO_QUEUE_STATE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ne-wdfio-_wdf_io_queue_state
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    flags: sys::WDF_IO_QUEUE_STATE,
    waiting: u32,
    owned: u32,
}

impl QueueState {
    const fn has(self, flag: sys::WDF_IO_QUEUE_STATE) -> bool {
        self.flags & flag != 0
    }

    /// Whether it takes new requests.
    #[must_use]
    pub const fn accepts(self) -> bool {
        self.has(sys::_WDF_IO_QUEUE_STATE::WdfIoQueueAcceptRequests)
    }

    /// Whether it would deliver: it is not stopped, whether the device has
    /// power or not.
    #[must_use]
    pub const fn dispatches(self) -> bool {
        self.has(sys::_WDF_IO_QUEUE_STATE::WdfIoQueueDispatchRequests)
    }

    /// Whether it waits for the device to have power.
    #[must_use]
    pub const fn is_held(self) -> bool {
        self.has(sys::_WDF_IO_QUEUE_STATE::WdfIoQueuePnpHeld)
    }

    /// How many requests wait in it.
    #[must_use]
    pub const fn waiting(self) -> u32 {
        self.waiting
    }

    /// How many of its requests the driver has.
    #[must_use]
    pub const fn in_driver(self) -> u32 {
        self.owned
    }
}

/// Starts, stops, drains and purges a queue: what [`Queue`] and [`ManualQueue`]
/// have in common.
///
/// ```text
///            takes requests   delivers   what waits    waits for the driver's
///   start    yes              yes
///   stop     yes              no         stays         stop, not begin_stop
///   drain    no               yes        is delivered  drain, not begin_drain
///   purge    no               no         is cancelled  purge, not begin_purge
/// ```
///
/// What waits for the driver's requests must not be called where one of them is
/// handled: it would wait for itself. There are the `begin_` forms, which
/// return at once.
///
/// C counterpart: [`WDFQUEUE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/managing-i-o-queues
///
/// # Invariants
/// `handle` is valid as long as the node of `owner` is alive.
pub struct QueueControl {
    owner: Reference,
    handle: sys::WDFQUEUE,
}

// SAFETY: KMDF synchronizes all access to a queue.
unsafe impl Send for QueueControl {}
// SAFETY: as above.
unsafe impl Sync for QueueControl {}

macro_rules! halts {
    ($($(#[$meta:meta])* $name:ident($($irql:ident)?) = $function:ident($($none:expr),*);)*) => {$(
        $(#[$meta])*
        pub fn $name(&self $(, _irql: &Irql<'_, $irql>)?) -> Result {
            // SAFETY: the invariant; a token proves the level where one is needed.
            self.with(|queue| unsafe { sys::kmdf::$function(queue $(, $none)*) })
        }
    )*};
}

impl QueueControl {
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

    /// The handle, for calls that this crate does not have. The queue is KMDF's,
    /// and valid until the owner was dropped.
    #[must_use]
    pub const fn as_raw(&self) -> sys::WDFQUEUE {
        self.handle
    }

    /// Runs `action` with the object, to which values can be
    /// [attached](crate::wdf::KmdfObject::attach).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    pub fn with_object<R>(
        &self,
        action: impl FnOnce(super::object::ObjectRef<'_>) -> R,
    ) -> Result<R> {
        // SAFETY: the owner is alive during `action`, beyond which the
        // reference cannot be kept.
        self.with(|queue| action(unsafe { super::object::ObjectRef::from_raw(queue.cast()) }))
    }

    /// Gives a request to the queue.
    pub(super) fn accept(&self, request: sys::WDFREQUEST) -> Result {
        self.with(|queue| {
            // SAFETY: the caller owns the request and gives it up if this succeeds.
            NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestForwardToIoQueue(request, queue) })
        })?
        .into_result()
    }

    /// What the queue does now, and how many requests it has.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// C counterpart: [`WdfIoQueueGetState`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuegetstate
    pub fn state(&self) -> Result<QueueState> {
        let (mut waiting, mut owned) = (0, 0);
        // SAFETY: the invariant, and both are written for the length of the call.
        let flags = self.with(|queue| unsafe {
            sys::kmdf::WdfIoQueueGetState(queue, &raw mut waiting, &raw mut owned)
        })?;
        Ok(QueueState {
            flags,
            waiting,
            owned,
        })
    }

    halts! {
        /// Takes and delivers requests again.
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
        start() = WdfIoQueueStart();

        /// Stops delivering, and waits until the driver has no request of the
        /// queue.
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
        stop(Passive) = WdfIoQueueStopSynchronously();

        /// Stops delivering; what the driver has may take its time.
        ///
        /// # IRQL
        /// `<= DISPATCH_LEVEL`
        ///
        /// # Errors
        /// As [`start`](Self::start).
        ///
        /// C counterpart: [`WdfIoQueueStop`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestop
        begin_stop() = WdfIoQueueStop(None, ptr::null_mut());

        /// Refuses new requests, and waits until those that are there have been
        /// delivered and completed. Not for a manual queue that nobody empties.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// As [`start`](Self::start).
        ///
        /// C counterpart: [`WdfIoQueueDrainSynchronously`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuedrainsynchronously
        drain(Passive) = WdfIoQueueDrainSynchronously();

        /// Refuses new requests; those that are there are delivered.
        ///
        /// # IRQL
        /// `<= DISPATCH_LEVEL`
        ///
        /// # Errors
        /// As [`start`](Self::start).
        ///
        /// C counterpart: [`WdfIoQueueDrain`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuedrain
        begin_drain() = WdfIoQueueDrain(None, ptr::null_mut());

        /// Refuses new requests, cancels those in the queue and those of the
        /// driver that are cancelable, and waits until the driver has none.
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
        purge(Passive) = WdfIoQueuePurgeSynchronously();

        /// As [`purge`](Self::purge), without waiting.
        ///
        /// # IRQL
        /// `<= DISPATCH_LEVEL`
        ///
        /// # Errors
        /// As [`start`](Self::start).
        ///
        /// C counterpart: [`WdfIoQueuePurge`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuepurge
        begin_purge() = WdfIoQueuePurge(None, ptr::null_mut());

        /// Cancels what is in the queue and what the driver has that is
        /// cancelable, stops delivering, and waits until the driver has no
        /// request. New ones are taken, and wait.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// As [`start`](Self::start).
        ///
        /// C counterpart: [`WdfIoQueueStopAndPurgeSynchronously`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestopandpurgesynchronously
        stop_and_purge(Passive) = WdfIoQueueStopAndPurgeSynchronously();
    }
}

impl fmt::Debug for QueueControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueControl").finish_non_exhaustive()
    }
}

/// A queue from which the driver takes requests of kind `K` when it likes.
///
/// The way to keep requests until there is an answer: what waits here can be
/// cancelled by its caller, and KMDF cancels it when the device is removed,
/// without a line of the driver. For requests that hardware works on use
/// [`Request::mark_cancelable`].
///
/// Its functions are also those of [`QueueControl`].
///
/// C counterpart: a `WDFQUEUE` that is manual by its [`WDF_IO_QUEUE_DISPATCH_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ne-wdfio-_wdf_io_queue_dispatch_type
///
/// # Invariants
/// Only requests of kind `K` get in.
pub struct ManualQueue<K: Kind> {
    control: QueueControl,
    kind: PhantomData<K>,
}

impl<K: Kind> Deref for ManualQueue<K> {
    type Target = QueueControl;
    fn deref(&self) -> &QueueControl {
        &self.control
    }
}

impl<K: Kind> ManualQueue<K> {
    /// The configuration of a manual queue, power-managed and for requests that
    /// are forwarded to it.
    pub const fn config<O>() -> ManualQueueConfig<O, K> {
        ManualQueueConfig {
            power: Power::Default,
            zero_length: ZeroLength::Completed,
            routed: false,
            canceled: None,
            ready: None,
            kind: PhantomData,
        }
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

    /// Takes the oldest request out that `wanted` says yes to.
    ///
    /// `wanted` sees what each request says, oldest first, and may see one
    /// again if another is cancelled meanwhile.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// C counterpart: [`WdfIoQueueFindRequest`][find],
    /// [`WdfIoQueueRetrieveFoundRequest`][take].
    ///
    /// [find]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuefindrequest
    /// [take]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrievefoundrequest
    pub fn next_where(
        &self,
        mut wanted: impl FnMut(&K::Parameters) -> bool,
    ) -> Result<Option<Request<K>>> {
        let mut found: Option<Found> = None;
        loop {
            let (next, parameters) = match self.find(found.as_ref())? {
                Search::Found(next, parameters) => (next, parameters),
                Search::End => return Ok(None),
                Search::Lost => {
                    found = None;
                    continue;
                }
            };
            // SAFETY: the type's invariant.
            if wanted(&unsafe { K::parameters(&parameters) }) {
                match self.retrieve(|queue, request| {
                    // SAFETY: both are valid, and the handle is for the length of the call.
                    unsafe { sys::kmdf::WdfIoQueueRetrieveFoundRequest(queue, next.0, request) }
                }) {
                    // Cancelled meanwhile: from the beginning.
                    Err(NtStatus::NOT_FOUND) => {
                        found = None;
                        continue;
                    }
                    taken => return taken,
                }
            }
            found = Some(next);
        }
    }

    /// Looks for the request after `found`, or for the first.
    fn find(&self, found: Option<&Found>) -> Result<Search> {
        let mut parameters = parameters_record();
        let mut next = no_handle();
        let status = self.control.with(|queue| {
            // SAFETY: the queue is valid, what was found is referenced, and the
            // others are for the length of the call.
            NtStatus::from_raw(unsafe {
                sys::kmdf::WdfIoQueueFindRequest(
                    queue,
                    found.map_or(no_handle(), |found| found.0),
                    no_handle(),
                    &raw mut parameters,
                    &raw mut next,
                )
            })
        })?;
        match status {
            NtStatus::NO_MORE_ENTRIES => Ok(Search::End),
            NtStatus::NOT_FOUND => Ok(Search::Lost),
            _ => {
                status.into_result()?;
                // INVARIANT: KMDF has counted a reference for the caller.
                Ok(Search::Found(Found(next), parameters))
            }
        }
    }

    fn retrieve(
        &self,
        take: impl FnOnce(sys::WDFQUEUE, *mut sys::WDFREQUEST) -> sys::NTSTATUS,
    ) -> Result<Option<Request<K>>> {
        let mut request = no_handle();
        let status = self
            .control
            .with(|queue| NtStatus::from_raw(take(queue, &raw mut request)))?;
        if status == NtStatus::NO_MORE_ENTRIES {
            return Ok(None);
        }
        status.into_result()?;
        // SAFETY: the invariant; KMDF gave the request to the driver, and the
        // owner is a node of the device.
        Ok(Some(unsafe {
            Request::from_delivered(request, self.control.owner.node())
        }))
    }
}

/// What [`ManualQueue::find`] came upon.
enum Search {
    Found(Found, sys::WDF_REQUEST_PARAMETERS),
    End,
    /// The request to look after has left the queue.
    Lost,
}

/// A request that is in a queue, perhaps.
///
/// # Invariants
/// This value has one reference on it.
struct Found(sys::WDFREQUEST);

impl Drop for Found {
    fn drop(&mut self) {
        super::object::dereference(self.0.cast());
    }
}

impl<K: Kind> fmt::Debug for ManualQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualQueue").finish_non_exhaustive()
    }
}

/// The configuration of a manual queue of an owner `O`.
///
/// C counterpart: [`WDF_IO_QUEUE_CONFIG`][ms] with `WdfIoQueueDispatchManual`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config
#[must_use = "Modules::manual_queue creates the queue"]
pub struct ManualQueueConfig<O, K: Kind> {
    power: Power,
    zero_length: ZeroLength,
    routed: bool,
    canceled: Option<fn(&O, Request<K>)>,
    ready: Option<fn(&O)>,
    kind: PhantomData<K>,
}

impl<O, K: Kind> ManualQueueConfig<O, K> {
    settings!();

    /// Sends all requests of this kind to the queue directly.
    pub const fn for_requests(mut self) -> Self {
        self.routed = true;
        self
    }

    /// Called when there is a request in the queue that can be taken out and
    /// there was none before: also when the queue is started, or the device has
    /// power again. It should take out all there are.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfIoQueueReadyNotify`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuereadynotify
    pub const fn on_ready(mut self, handler: fn(&O)) -> Self {
        self.ready = Some(handler);
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
        // It would deliver before it is ready for that.
        // SAFETY: the node is valid.
        if unsafe { owner.as_ref() }.is_made_at_run_time() {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        let mut config = config(queue.dispatch, queue.power, queue.zero_length);
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
        let context = unsafe { DEFAULT.of::<DefaultContext>(handle.cast()) };
        // SAFETY: the device is one of this crate.
        let root = unsafe { crate::driver::root_of(device) };
        // SAFETY: the device has a count of its root.
        let root = unsafe { Reference::to(root) }.into_raw();
        // SAFETY: the context is ours, and the queue has delivered nothing: the
        // device has not started.
        unsafe { context.write(DefaultContext { root }) };
        // SAFETY: the queue is the device's, and the node is valid.
        Ok(Queue(unsafe { QueueControl::new(owner, handle) }))
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
        let mut config = config(queue.dispatch, queue.power, queue.zero_length);
        config.EvtIoRead = handlers.read.map(|_| evt_read as _);
        config.EvtIoWrite = handlers.write.map(|_| evt_write as _);
        config.EvtIoDeviceControl = handlers.control.map(|_| evt_control as _);
        config.EvtIoInternalDeviceControl = handlers.internal.map(|_| evt_internal as _);
        config.EvtIoStop = handlers.stop.map(|_| evt_stop as _);
        config.EvtIoResume = handlers.resume.map(|_| evt_resume as _);
        // SAFETY: this is device-add for this device.
        let handle = unsafe { create(device, &mut config, &QUEUE, Some(evt_queue_destroy)) }?;
        // SAFETY: the queue was created with this context.
        let context = unsafe { QUEUE.of::<QueueContext>(handle.cast()) };
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
        Ok(Queue(unsafe { QueueControl::new(owner, handle) }))
    }

    /// Creates a manual queue.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    ///
    /// C counterpart: [`WdfIoQueueCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuecreate
    #[allow(clippy::needless_pass_by_value, reason = "a builder is used up")]
    pub fn manual_queue<K: Kind>(
        &mut self,
        queue: ManualQueueConfig<O, K>,
    ) -> Result<ManualQueue<K>> {
        let (owner, device) = self.raw();
        let mut config = config(Dispatch::Manual, queue.power, queue.zero_length);
        config.EvtIoCanceledOnQueue = queue.canceled.map(|_| evt_canceled as _);
        // SAFETY: this is device-add for this device.
        let handle = unsafe { create(device, &mut config, &MANUAL, Some(evt_manual_destroy)) }?;
        // SAFETY: the queue was created with this context.
        let context = unsafe { MANUAL.of::<ManualContext>(handle.cast()) };
        // SAFETY: the node is valid.
        let counted = unsafe { Reference::to(owner) }.into_raw();
        // SAFETY: the context is ours, and nothing is in the queue.
        unsafe {
            context.write(ManualContext {
                owner: counted,
                canceled: queue.canceled.map(|function| function as *const ()),
                call: canceled::<O, K>,
                ready: queue.ready.map(|function| function as *const ()),
                call_ready: ready::<O>,
            });
        }
        if queue.ready.is_some() {
            // SAFETY: the queue is valid, and the callback for queues with this context.
            NtStatus::from_raw(unsafe {
                sys::kmdf::WdfIoQueueReadyNotify(handle, Some(evt_ready), ptr::null_mut())
            })
            .into_result()?;
        }
        if queue.routed {
            // SAFETY: the queue is valid and the device's.
            unsafe { route(device, handle, K::TYPE) }?;
        }
        // INVARIANT: `Request::forward` gives it requests of kind `K`, and so
        // does the route.
        Ok(ManualQueue {
            // SAFETY: the queue is the device's, and the node is valid.
            control: unsafe { QueueControl::new(owner, handle) },
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
    ready: Option<*const ()>,
    /// Safety: `owner` is a `Node<O>`, and the function is a `fn(&O)`.
    call_ready: unsafe fn(NonNull<Header>, *const ()),
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
    let request = unsafe { Request::<K>::from_delivered(request, owner) };
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, Request<K>) = unsafe { core::mem::transmute(function) };
    function(&owner, request);
}

/// # Safety
/// As [`ManualContext::call_ready`].
unsafe fn ready<O: 'static>(owner: NonNull<Header>, function: *const ()) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O) = unsafe { core::mem::transmute(function) };
    function(&owner);
}

/// Offers an event of the default queue to the device's tree.
///
/// # Safety
/// `queue` is a default queue of this crate; `PASSIVE_LEVEL`.
unsafe fn offer(queue: sys::WDFQUEUE, event: &mut IoEvent<'_>) -> Result {
    // SAFETY: the caller's promise.
    let root = unsafe { root_of(queue) };
    // SAFETY: the context counts the root, and the caller's promise.
    unsafe { node::tell(root, event) }
}

/// The root of the tree behind a default queue.
///
/// # Safety
/// `queue` is a default queue of this crate.
unsafe fn root_of(queue: sys::WDFQUEUE) -> NonNull<Header> {
    // SAFETY: the caller's promise.
    let context = unsafe { DEFAULT.of::<DefaultContext>(queue.cast()) };
    // SAFETY: written before the device could start.
    unsafe { context.as_ref() }.root
}

/// Offers a request of kind `K`.
///
/// # Safety
/// As [`offer`]; the request is of kind `K` and the caller's.
unsafe fn offer_request<K: Kind>(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
    // SAFETY: the caller's promise.
    let root = unsafe { root_of(queue) };
    // SAFETY: the caller's promise; the context counts the root.
    let request = K::offer(unsafe { Request::from_delivered(request, root) });
    // SAFETY: the caller's promise.
    let mut cx = unsafe { QueueCallback::new() };
    let mut event = IoEvent::Request(&mut cx, Some(request));
    // SAFETY: the context counts the root, and the caller's promise.
    let told = unsafe { node::tell(root, &mut event) };
    if let IoEvent::Request(_, Some(request)) = event {
        // SAFETY: the context counts the root.
        let device = unsafe { root.as_ref() };
        match told {
            Ok(()) if device.is_filter.get() => {
                // SAFETY: a device whose queue delivers is valid.
                unsafe { pass_down(device.device.get(), request) };
            }
            Ok(()) => request.refuse(NtStatus::NOT_SUPPORTED),
            Err(status) => request.refuse(status),
        }
    }
}

/// The context of a queue with handlers.
///
/// # Safety
/// `queue` is a queue with handlers of this crate, valid for `'a`.
unsafe fn context_of<'a>(queue: sys::WDFQUEUE) -> &'a QueueContext {
    // SAFETY: the caller's promise.
    let context = unsafe { QUEUE.of::<QueueContext>(queue.cast()) };
    // SAFETY: written before the device could start.
    unsafe { context.as_ref() }
}

/// Delivers to the functions of a queue.
///
/// # Safety
/// `PASSIVE_LEVEL`.
unsafe fn deliver(context: &QueueContext, delivery: Delivery<'_>) {
    // SAFETY: the context's fields belong together.
    unsafe { (context.call)(context.owner, &context.handlers, delivery) };
}

/// # Safety
/// `queue` is a queue with handlers of this crate; `PASSIVE_LEVEL`. The request
/// is of kind `K` and the caller's.
unsafe fn deliver_request<K: Kind>(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
    // SAFETY: the caller's promise.
    let context = unsafe { context_of(queue) };
    // SAFETY: the caller's promise; the context counts the owner.
    let request = K::offer(unsafe { Request::from_delivered(request, context.owner) });
    // SAFETY: the caller's promise.
    let mut cx = unsafe { QueueCallback::new() };
    // SAFETY: the caller's promise.
    unsafe { deliver(context, Delivery::Request(request, &mut cx)) };
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
        let context = unsafe { context_of(queue) };
        // SAFETY: as for the level above.
        unsafe { deliver(context, Delivery::Stop(stop)) };
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
        let context = unsafe { context_of(queue) };
        // SAFETY: PASSIVE_LEVEL by the queue's execution level.
        unsafe { deliver(context, Delivery::Resume(RequestId::of(request))) };
    }
}

callback! {
    unsafe fn evt_canceled(queue: sys::WDFQUEUE, request: sys::WDFREQUEST) {
        // SAFETY: KMDF calls this for manual queues.
        let context = unsafe { MANUAL.of::<ManualContext>(queue.cast()) };
        // SAFETY: written before anything could get into the queue.
        let context = unsafe { context.as_ref() };
        if let Some(function) = context.canceled {
            // SAFETY: the context's fields belong together, and KMDF gives the
            // request to this callback.
            unsafe { (context.call)(context.owner, function, request) };
        }
    }
}

callback! {
    unsafe fn evt_ready(queue: sys::WDFQUEUE, _context: sys::WDFCONTEXT) {
        // SAFETY: KMDF calls this for manual queues.
        let context = unsafe { MANUAL.of::<ManualContext>(queue.cast()) };
        // SAFETY: written before anything could get into the queue.
        let context = unsafe { context.as_ref() };
        if let Some(function) = context.ready {
            // SAFETY: the context's fields belong together.
            unsafe { (context.call_ready)(context.owner, function) };
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
