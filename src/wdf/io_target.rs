// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`IoTarget`]: sending requests to the next lower driver.
//!
//! ```text
//!   synchronous    read, write, ioctl ──► waits, at most its timeout ──► result
//!   asynchronous   send(request, f) ────► returns; f(owner, request, sent) later
//!   pass on        forward(request) ────► the lower driver completes it
//! ```
//!
//! [`OwnRequest`](super::OwnRequest) is for requests of the driver's own,
//! [`RemoteTarget`] for other devices than the next lower one.
//!
//! # State of a target
//! | | takes requests | delivers them |
//! |---|---|---|
//! | [`Started`](TargetState::Started) | yes | yes |
//! | [`Stopped`](TargetState::Stopped) | yes | when it is started |
//! | else | no: `STATUS_INVALID_DEVICE_STATE` | |
//!
//! What is [forwarded](IoTarget::forward) goes on in every state.
//!
//! ```
//! use dmf::ioctl::{Access, DeviceType, IoctlCode};
//! use dmf::prelude::*;
//! use dmf::wdf::{IoTarget, SentIo, TargetState};
//!
//! dmf::driver!(Fan);
//!
//! const GET_SPEED: IoctlCode<(), u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x900, Access::Any);
//!
//! struct Fan { lower: IoTarget }
//!
//! impl Device for Fan {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         Ok(Fan { lower: add.io_target() })
//!     }
//!
//!     fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
//!         let speed = self.lower.ioctl(cx.irql(), GET_SPEED, (), Duration::from_secs(1))?;
//!         assert_eq!(speed, 1200);
//!         self.lower.stop(cx.irql(), SentIo::Cancel)?;
//!         assert_eq!(self.lower.state()?, TargetState::Stopped);
//!         self.lower.start(cx.irql())
//!     }
//! }
//! # let mut machine = ntsim::Machine::default();
//! # let device = machine.add_driver("Fan", Fan::DRIVER_ENTRY).unwrap();
//! # machine.set_lower_driver(&device, |_| ntsim::Answer::Now(0, 1200_u32.to_le_bytes().to_vec()));
//! # machine.start_device(&device).unwrap();
//! # machine.remove_device(&device).unwrap();
//! ```
//!
//! See [Using I/O targets][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-i-o-targets

use core::fmt;
use core::ptr::{self, NonNull};

use super::object::{ContextInfo, attributes, no_handle};
use super::request::{Io, Kind, Refused, Request};
use crate::ioctl::{IoctlCode, IoctlData};
use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::pool::Vec;
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

mod remote;

pub use remote::{RemoteTarget, TargetAccess};

/// The next lower driver of the device.
///
/// C counterpart: [`WDFIOTARGET`][ms], the local one.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/general-i-o-targets-in-umdf
///
/// # Invariants
/// `handle` is NULL, or valid as long as the node of `owner` is alive.
pub struct IoTarget {
    owner: Reference,
    handle: sys::WDFIOTARGET,
}

// SAFETY: KMDF synchronizes all access to a target.
unsafe impl Send for IoTarget {}
// SAFETY: as above.
unsafe impl Sync for IoTarget {}

/// What becomes of requests that a target has when it is [stopped](IoTarget::stop).
///
/// C counterpart: `WDF_IO_TARGET_SENT_IO_ACTION`.
///
/// C counterpart: the choice of [`WdfIoTargetStop`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetstop
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentIo {
    /// They are cancelled and waited for.
    Cancel,
    /// They are waited for.
    Wait,
    /// They are left to the lower driver.
    Leave,
}

/// What an [`IoTarget`] does with requests.
///
/// C counterpart: `WDF_IO_TARGET_STATE`.
///
/// C counterpart: what [`WdfIoTargetGetState`][c] returns.
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetgetstate
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It delivers them.
    Started,
    /// It keeps them until it is started.
    Stopped,
    /// It takes none until it is started.
    Purged,
    /// It takes none until it is opened.
    Closed,
    /// Its device is to be removed.
    ClosedForQueryRemove,
    /// Its device is gone.
    Deleted,
}

impl TargetState {
    fn of(raw: sys::WDF_IO_TARGET_STATE) -> Self {
        use sys::_WDF_IO_TARGET_STATE as Raw;
        match raw {
            Raw::WdfIoTargetStarted => Self::Started,
            Raw::WdfIoTargetStopped => Self::Stopped,
            Raw::WdfIoTargetPurged => Self::Purged,
            Raw::WdfIoTargetClosed => Self::Closed,
            Raw::WdfIoTargetClosedForQueryRemove => Self::ClosedForQueryRemove,
            _ => Self::Deleted,
        }
    }
}

/// How the lower driver completed a request.
///
/// C counterpart: the `WDF_REQUEST_COMPLETION_PARAMS` of a [completion routine][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nc-wdfrequest-evt_wdf_request_completion_routine
#[derive(Clone, Copy, Debug)]
#[must_use = "it may have failed"]
pub struct Sent {
    status: NtStatus,
    information: usize,
}

impl Sent {
    pub(super) fn new(status: NtStatus, information: sys::ULONG_PTR) -> Self {
        Self {
            status,
            information: usize::try_from(information).unwrap_or(0),
        }
    }

    /// What a completion routine was given.
    ///
    /// # Safety
    /// KMDF gave the parameters to a completion routine that has not returned.
    pub(super) unsafe fn of(params: sys::PWDF_REQUEST_COMPLETION_PARAMS) -> Self {
        // SAFETY: the caller's promise.
        let result = unsafe { &(*params).IoStatus };
        // SAFETY: KMDF wrote the status.
        let status = unsafe { result.__bindgen_anon_1.Status };
        Self::new(NtStatus::from_raw(status), result.Information)
    }

    /// How many bytes were transferred, if it succeeded.
    ///
    /// # Errors
    /// The status.
    pub fn bytes(self) -> Result<usize> {
        self.status.into_result().map(|()| self.information)
    }

    /// The lower driver's status.
    pub const fn status(self) -> NtStatus {
        self.status
    }

    /// How many bytes it transferred.
    #[must_use]
    pub const fn information(self) -> usize {
        self.information
    }
}

/// A piece of memory as KMDF's functions for targets want it.
///
/// C counterpart: `WDF_MEMORY_DESCRIPTOR_INIT_BUFFER`.
fn descriptor(buffer: *mut u8, length: usize) -> Result<sys::WDF_MEMORY_DESCRIPTOR> {
    let mut descriptor = sys::WDF_MEMORY_DESCRIPTOR {
        Type: sys::_WDF_MEMORY_DESCRIPTOR_TYPE::WdfMemoryDescriptorTypeBuffer,
        ..sys::WDF_MEMORY_DESCRIPTOR::default()
    };
    descriptor.u.BufferType = sys::_WDF_MEMORY_DESCRIPTOR__bindgen_ty_1__bindgen_ty_1 {
        Buffer: buffer.cast(),
        Length: u32::try_from(length).map_err(|_| NtStatus::INVALID_PARAMETER)?,
    };
    Ok(descriptor)
}

/// How long to wait for the lower driver.
///
/// C counterpart: `WDF_REQUEST_SEND_OPTIONS_INIT`, `WDF_REQUEST_SEND_OPTIONS_SET_TIMEOUT`.
pub(super) fn options(timeout: Timeout) -> sys::WDF_REQUEST_SEND_OPTIONS {
    let due = timeout.to_due_time();
    let flag = sys::_WDF_REQUEST_SEND_OPTIONS_FLAGS::WDF_REQUEST_SEND_OPTION_TIMEOUT;
    sys::WDF_REQUEST_SEND_OPTIONS {
        Size: sys::size_field::<sys::WDF_REQUEST_SEND_OPTIONS>(),
        Flags: due.map_or(0, |_| flag.cast_unsigned()),
        // To KMDF no time at all is no timeout, so the shortest is one unit.
        Timeout: due.map_or(0, |due| if due == 0 { -1 } else { due }),
    }
}

impl IoTarget {
    /// The handle, valid as long as the second value lives.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    pub(super) fn enter(&self) -> Result<(sys::WDFIOTARGET, impl Drop + '_)> {
        if self.handle.is_null() {
            // SAFETY: the reference keeps the memory valid.
            let _alive = unsafe { node::enter_pnp(self.owner.node()) }?;
            // KMDF had no memory for it.
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        // SAFETY: the reference keeps the memory valid.
        let alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        Ok((self.handle, alive))
    }

    /// Runs `action` while the owner is alive, and with it the target.
    fn with<R>(&self, action: impl FnOnce(sys::WDFIOTARGET) -> R) -> Result<R> {
        let (target, _alive) = self.enter()?;
        Ok(action(target))
    }

    /// The target's state.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfIoTargetGetState`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetgetstate
    pub fn state(&self) -> Result<TargetState> {
        // SAFETY: the target is valid.
        self.with(|target| TargetState::of(unsafe { sys::kmdf::WdfIoTargetGetState(target) }))
    }

    /// Starts a target that was stopped or purged, and sends it what waits for that.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: it waits for a stop or a purge that is under way.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the target is closed or deleted, or the
    /// owner is not there.
    ///
    /// C counterpart: [`WdfIoTargetStart`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetstart
    pub fn start(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the target is valid.
        self.with(|target| NtStatus::from_raw(unsafe { sys::kmdf::WdfIoTargetStart(target) }))?
            .into_result()
    }

    /// Stops the target: requests wait in it until it is [started](Self::start).
    /// Not to be called from a function that gets a request back.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfIoTargetStop`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetstop
    pub fn stop(&self, _irql: &Irql<'_, Passive>, sent: SentIo) -> Result {
        use sys::_WDF_IO_TARGET_SENT_IO_ACTION as Raw;
        let action = match sent {
            SentIo::Cancel => Raw::WdfIoTargetCancelSentIo,
            SentIo::Wait => Raw::WdfIoTargetWaitForSentIoToComplete,
            SentIo::Leave => Raw::WdfIoTargetLeaveSentIoPending,
        };
        self.with(|target| {
            // SAFETY: the target is valid, and the token proves the level.
            unsafe { sys::kmdf::WdfIoTargetStop(target, action) };
        })
    }

    /// Purges the target: what it was sent is cancelled and waited for, what
    /// waits in it fails with `STATUS_WDF_DEVICE_REMOVED_NOT_SENT`, and nothing
    /// new is taken until it is [started](Self::start). Not to be called from a
    /// function that gets a request back.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfIoTargetPurge`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetpurge
    pub fn purge(&self, _irql: &Irql<'_, Passive>) -> Result {
        let action = sys::_WDF_IO_TARGET_PURGE_IO_ACTION::WdfIoTargetPurgeIoAndWait;
        self.with(|target| {
            // SAFETY: the target is valid, and the token proves the level.
            unsafe { sys::kmdf::WdfIoTargetPurge(target, action) };
        })
    }

    /// Sends a typed IOCTL and waits for the answer.
    ///
    /// While it waits the owner is not destroyed. The device's own lower driver
    /// is told to give up when the device goes; that of a
    /// [`RemoteTarget`] is not, so with
    /// [`Timeout::Never`] removal may take as long as it does.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What the lower driver says; `STATUS_IO_TIMEOUT`;
    /// `STATUS_INFO_LENGTH_MISMATCH` if it returned less than an `Out`;
    /// `STATUS_INSUFFICIENT_RESOURCES`; `STATUS_INVALID_DEVICE_STATE` if the
    /// owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfIoTargetSendIoctlSynchronously`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetsendioctlsynchronously
    pub fn ioctl<In: IoctlData, Out: IoctlData>(
        &self,
        _irql: &Irql<'_, Passive>,
        code: IoctlCode<In, Out>,
        input: In,
        timeout: impl Into<Timeout>,
    ) -> Result<Out> {
        let mut bytes = zeroed(In::SIZE)?;
        input.put(&mut bytes);
        let mut answer = zeroed(Out::SIZE)?;
        let mut input = descriptor(bytes.as_mut_ptr(), bytes.len())?;
        let mut output = descriptor(answer.as_mut_ptr(), answer.len())?;
        let mut options = options(timeout.into());
        let mut count = 0;
        self.with(|target| {
            // SAFETY: the invariant, the token proves the level, and everything
            // is valid for the length of the call.
            NtStatus::from_raw(unsafe {
                sys::kmdf::WdfIoTargetSendIoctlSynchronously(
                    target,
                    no_handle(),
                    code.value(),
                    if In::SIZE == 0 {
                        ptr::null_mut()
                    } else {
                        &raw mut input
                    },
                    if Out::SIZE == 0 {
                        ptr::null_mut()
                    } else {
                        &raw mut output
                    },
                    &raw mut options,
                    &raw mut count,
                )
            })
        })?
        .into_result()?;
        if usize::try_from(count).unwrap_or(0) < Out::SIZE {
            return Err(NtStatus::INFO_LENGTH_MISMATCH);
        }
        Ok(Out::get(&answer))
    }

    /// Reads into `buffer` from `offset`, waits, and returns how many bytes came.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`ioctl`](Self::ioctl).
    ///
    /// C counterpart: [`WdfIoTargetSendReadSynchronously`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetsendreadsynchronously
    pub fn read(
        &self,
        _irql: &Irql<'_, Passive>,
        buffer: &mut [u8],
        mut offset: i64,
        timeout: impl Into<Timeout>,
    ) -> Result<usize> {
        let mut output = descriptor(buffer.as_mut_ptr(), buffer.len())?;
        let mut options = options(timeout.into());
        let mut count = 0;
        self.with(|target| {
            // SAFETY: as in `ioctl`.
            NtStatus::from_raw(unsafe {
                sys::kmdf::WdfIoTargetSendReadSynchronously(
                    target,
                    no_handle(),
                    &raw mut output,
                    &raw mut offset,
                    &raw mut options,
                    &raw mut count,
                )
            })
        })?
        .into_result()?;
        Ok(usize::try_from(count).unwrap_or(0).min(buffer.len()))
    }

    /// Writes `bytes` to `offset`, waits, and returns how many were taken.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`ioctl`](Self::ioctl).
    ///
    /// C counterpart: [`WdfIoTargetSendWriteSynchronously`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetsendwritesynchronously
    pub fn write(
        &self,
        _irql: &Irql<'_, Passive>,
        bytes: &[u8],
        mut offset: i64,
        timeout: impl Into<Timeout>,
    ) -> Result<usize> {
        // The lower driver may look at the memory as its own, so it gets a copy.
        let mut copy = zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        let mut input = descriptor(copy.as_mut_ptr(), copy.len())?;
        let mut options = options(timeout.into());
        let mut count = 0;
        self.with(|target| {
            // SAFETY: as in `ioctl`.
            NtStatus::from_raw(unsafe {
                sys::kmdf::WdfIoTargetSendWriteSynchronously(
                    target,
                    no_handle(),
                    &raw mut input,
                    &raw mut offset,
                    &raw mut options,
                    &raw mut count,
                )
            })
        })?
        .into_result()?;
        Ok(usize::try_from(count).unwrap_or(0).min(bytes.len()))
    }

    /// Passes a request on as it is; the lower driver completes it, and this
    /// one does not hear of it again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// With the request, why it was not sent: `STATUS_INVALID_DEVICE_STATE` if
    /// the target does not take requests now or the owner is gone.
    ///
    /// C counterpart: [`WdfRequestSend`][ms] with
    /// `WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestsend
    pub fn forward<K: Kind>(&self, request: Request<K>) -> Result<(), Refused<K>> {
        let mut options = forgetting();
        // SAFETY: the request is the caller's, who gives it up if it is sent.
        unsafe { self.submit(request, &mut options) }
    }

    /// # Safety
    /// If the request is sent, nobody owns it here until its completion routine.
    unsafe fn submit<K: Kind>(
        &self,
        request: Request<K>,
        options: &mut sys::WDF_REQUEST_SEND_OPTIONS,
    ) -> Result<(), Refused<K>> {
        let (target, _alive) = match self.enter() {
            Ok(entered) => entered,
            Err(status) => return Err(Refused::new(request, status)),
        };
        // SAFETY: the target is valid while `_alive` is there; the caller's promise.
        unsafe { submit_to(target, request, options) }
    }
}

/// C counterpart: `WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET`.
fn forgetting() -> sys::WDF_REQUEST_SEND_OPTIONS {
    let flag = sys::_WDF_REQUEST_SEND_OPTIONS_FLAGS::WDF_REQUEST_SEND_OPTION_SEND_AND_FORGET;
    sys::WDF_REQUEST_SEND_OPTIONS {
        Flags: flag.cast_unsigned(),
        ..options(Timeout::Never)
    }
}

/// Sends a received request to a target, as it is.
///
/// # Safety
/// The target is valid. If the request is sent, nobody owns it here until its
/// completion routine.
unsafe fn submit_to<K: Kind>(
    target: sys::WDFIOTARGET,
    request: Request<K>,
    options: &mut sys::WDF_REQUEST_SEND_OPTIONS,
) -> Result<(), Refused<K>> {
    let raw = request.as_raw();
    // SAFETY: the request is valid and the driver's.
    unsafe { sys::kmdf::WdfRequestFormatRequestUsingCurrentType(raw) };
    // SAFETY: as above; the target is valid, and the options for the call.
    if unsafe { sys::kmdf::WdfRequestSend(raw, target, &raw mut *options) } != 0 {
        let _ = request.into_raw();
        return Ok(());
    }
    // SAFETY: not sent, so still the driver's.
    let status = NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestGetStatus(raw) });
    Err(Refused::new(request, status))
}

/// Passes on what nobody in a filter's tree takes. What cannot be sent is
/// completed with the reason.
///
/// # Safety
/// The device is valid, and has a lower driver.
pub(super) unsafe fn pass_down(device: sys::WDFDEVICE, request: Io) {
    /// # Safety
    /// The target is valid.
    unsafe fn forget<K: Kind>(target: sys::WDFIOTARGET, request: Request<K>) {
        // SAFETY: the caller's promise; the request is given up. `Refused`
        // completes what is not sent.
        drop(unsafe { submit_to(target, request, &mut forgetting()) });
    }
    // SAFETY: the caller's promise.
    let target = unsafe { sys::kmdf::WdfDeviceGetIoTarget(device) };
    if target.is_null() {
        return request.refuse(NtStatus::INSUFFICIENT_RESOURCES);
    }
    match request {
        // SAFETY: the device's target is as valid as the device.
        Io::Read(request) => unsafe { forget(target, request) },
        // SAFETY: as above.
        Io::Write(request) => unsafe { forget(target, request) },
        // SAFETY: as above.
        Io::Ioctl(request) => unsafe { forget(target, request) },
        // SAFETY: as above.
        Io::InternalIoctl(request) => unsafe { forget(target, request) },
    }
}

impl fmt::Debug for IoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoTarget").finish_non_exhaustive()
    }
}

/// So many zeros.
fn zeroed(length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length)?;
    (0..length).try_for_each(|_| bytes.push(0))?;
    Ok(bytes)
}

/// Sends requests of kind `K` and hands them back to a function of the owner
/// `O` when the lower driver has completed them.
///
/// Made by [`Modules::sender`].
///
/// C counterpart: [`WdfRequestSend`][ms] and a completion routine.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestsend
///
/// # Invariants
/// `owner` is a `Node<O>`'s, and `function` for that `O`.
pub struct Sender<K: Kind> {
    target: IoTarget,
    function: *const (),
    call: unsafe fn(NonNull<Header>, *const (), Request<K>, Sent),
}

// SAFETY: a sender is a target and function pointers.
unsafe impl<K: Kind> Send for Sender<K> {}
// SAFETY: as above.
unsafe impl<K: Kind> Sync for Sender<K> {}

/// What a sent request takes along.
struct InTransit {
    /// Counted while the request is sent.
    owner: *mut Header,
    function: *const (),
    /// An `unsafe fn(NonNull<Header>, *const (), Request<K>, Sent)`.
    call: *const (),
}

static IN_TRANSIT: ContextInfo = ContextInfo::new::<InTransit>(c"dmf::InTransit", &IN_TRANSIT);

impl<K: Kind> Sender<K> {
    /// Sends a request to the next lower driver and returns. The function gets
    /// it back, also if the timeout is over, which cancels it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`IoTarget::forward`], and `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfRequestSend`][ms], `WdfRequestSetCompletionRoutine`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestsend
    pub fn send(&self, request: Request<K>, timeout: impl Into<Timeout>) -> Result<(), Refused<K>> {
        let raw = request.as_raw();
        let mut attributes = attributes(&IN_TRANSIT, no_handle());
        let mut context = ptr::null_mut();
        // SAFETY: the request is valid, and the structures are for the call.
        let status = NtStatus::from_raw(unsafe {
            sys::kmdf::WdfObjectAllocateContext(raw.cast(), &raw mut attributes, &raw mut context)
        });
        // `STATUS_OBJECT_NAME_EXISTS`, a success: sent before.
        if let Err(status) = status.into_result() {
            return Err(Refused::new(request, status));
        }
        // SAFETY: the request has this context now.
        let context = unsafe { IN_TRANSIT.of::<InTransit>(raw.cast()) };
        let owner = self.target.owner.clone().into_raw();
        // SAFETY: the context is ours, and the request is not sent.
        unsafe {
            context.write(InTransit {
                owner: owner.as_ptr(),
                function: self.function,
                call: self.call as *const (),
            });
        }
        // SAFETY: the request is the driver's and not sent.
        unsafe {
            sys::kmdf::WdfRequestSetCompletionRoutine(
                raw,
                Some(evt_completed::<K>),
                ptr::null_mut(),
            );
        }
        // SAFETY: the completion routine takes the ownership back.
        let sent = unsafe { self.target.submit(request, &mut options(timeout.into())) };
        if let Err(refused) = &sent {
            // Who gets it back may forward it, and nobody is to be told then.
            refused.forget_routine();
            // SAFETY: the count from above, which no completion routine drops.
            drop(unsafe { Reference::from_raw(owner) });
        }
        sent
    }
}

impl<K: Kind> fmt::Debug for Sender<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

callback! {
    unsafe fn evt_completed<K: Kind>(
        raw: sys::WDFREQUEST,
        _target: sys::WDFIOTARGET,
        params: sys::PWDF_REQUEST_COMPLETION_PARAMS,
        _context: sys::WDFCONTEXT,
    ) {
        // SAFETY: KMDF gives the parameters to this callback.
        let sent = unsafe { Sent::of(params) };
        // SAFETY: `send` gave the request this context.
        let transit = unsafe { IN_TRANSIT.of::<InTransit>(raw.cast()) };
        // SAFETY: `send` wrote it before it sent the request.
        let transit = unsafe { transit.read() };
        // SAFETY: written from a `NonNull`.
        let owner = unsafe { NonNull::new_unchecked(transit.owner) };
        // SAFETY: KMDF gives the request back to the driver; `send` counted the
        // owner, a node of the request's device.
        let request = unsafe { Request::<K>::from_delivered(raw, owner) };
        if sent.status.severity() == crate::status::Severity::Error {
            // It may say how much it would have written; it wrote nothing.
            request.forget_information();
        }
        // SAFETY: `send` counted the owner for this.
        let owner = unsafe { Reference::from_raw(owner) };
        // SAFETY: written from this type, for the same `K`.
        let call: unsafe fn(NonNull<Header>, *const (), Request<K>, Sent) =
            unsafe { core::mem::transmute(transit.call) };
        // SAFETY: the context's fields belong together.
        unsafe { call(owner.node(), transit.function, request, sent) };
    }
}

/// # Safety
/// `owner` is a `Node<O>` whose memory is valid, and `function` is a
/// `fn(&O, Request<K>, Sent)`.
unsafe fn completed<O: 'static, K: Kind>(
    owner: NonNull<Header>,
    function: *const (),
    request: Request<K>,
    sent: Sent,
) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        return request.complete_with(sent.status, sent.information);
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, Request<K>, Sent) = unsafe { core::mem::transmute(function) };
    function(&owner, request, sent);
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// The next lower driver.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// C counterpart: [`WdfDeviceGetIoTarget`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicegetiotarget
    #[must_use]
    pub fn io_target(&self) -> IoTarget {
        let (owner, device) = self.raw();
        // SAFETY: the node is valid.
        let handle = match unsafe { owner.as_ref() }.expect_pnp() {
            // SAFETY: the device is valid.
            Ok(()) => unsafe { sys::kmdf::WdfDeviceGetIoTarget(device) },
            // Nothing is below a control device.
            Err(_) => no_handle(),
        };
        // INVARIANT: the target is the device's, which outlives the node.
        IoTarget {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            handle,
        }
    }

    /// The next lower driver, for requests that come back to a function of the
    /// owner, at `<= DISPATCH_LEVEL`.
    #[must_use]
    pub fn sender<K: Kind>(&self, function: fn(&O, Request<K>, Sent)) -> Sender<K> {
        // INVARIANT: both are of this `O`.
        Sender {
            target: self.io_target(),
            function: function as *const (),
            call: completed::<O, K>,
        }
    }
}
