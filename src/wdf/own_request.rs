// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`OwnRequest`]: a request that the driver makes itself.
//!
//! # Vocabulary
//!
//! - *at rest*: the driver has the [`OwnRequest`] value, with its buffers.
//! - *sent*: the target has it; there is no value, and so no way to its buffers.
//! - *lands*: its completion function gets the value back.
//!
//! # Life of a request
//!
//! ```text
//!              set_read, set_write, set_ioctl
//!                       ┌────┐
//!   new ──► OwnRequest ─┴────┴─ OwnSender::send ──► sent ──► function(owner, OwnRequest, Sent)
//!               ▲  │                                 │ ▲               │
//!               │  └─ send_and_wait: back when it    │ │               │
//!               │     has landed                     │ └ Canceller     │
//!               └────────────────────────────────────┴─────────────────┘
//! ```
//!
//! Whoever sends it gives it away, so it cannot be touched, sent or deleted
//! while the target has it:
//!
//! ```compile_fail,E0382
//! use dmf::prelude::*;
//! use dmf::wdf::{IoTarget, OwnRequest, OwnSender};
//!
//! fn refused(sender: &OwnSender, target: &IoTarget, request: OwnRequest) {
//!     let _ = sender.send(target, request, Duration::from_secs(1));
//!     let _ = request.output(); // the lower driver's by now
//! }
//! ```
//!
//! A slice of its buffer cannot live on either:
//!
//! ```compile_fail,E0505
//! use dmf::prelude::*;
//! use dmf::wdf::{IoTarget, OwnRequest, OwnSender};
//!
//! fn refused(sender: &OwnSender, target: &IoTarget, request: OwnRequest) {
//!     let buffer = request.output();
//!     let _ = sender.send(target, request, Duration::from_secs(1));
//!     assert!(buffer.is_empty());
//! }
//! ```
//!
//! It came from nobody, so it is never completed:
//!
//! ```compile_fail,E0599
//! use dmf::wdf::OwnRequest;
//!
//! fn refused(request: OwnRequest) {
//!     request.complete(Ok(0));
//! }
//! ```
//!
//! # Example
//! ```
//! use dmf::ioctl::{Access, DeviceType, IoctlCode};
//! use dmf::prelude::*;
//! use dmf::wdf::{IoTarget, OwnRequest, OwnSender, Sent};
//!
//! dmf::driver!(Meter);
//!
//! const GET_LEVEL: IoctlCode<u32, u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x900, Access::Any);
//!
//! struct Meter { lower: IoTarget, asker: OwnSender, level: SpinLock<u32> }
//!
//! impl Device for Meter {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         Ok(Meter {
//!             lower: add.io_target(),
//!             asker: add.own_sender(Meter::answered),
//!             level: SpinLock::new(0),
//!         })
//!     }
//!
//!     fn self_managed_io_init(&self, _cx: &mut SelfManagedIoInit<'_>) -> Result {
//!         let mut request = OwnRequest::new()?;
//!         request.set_ioctl(GET_LEVEL, 3)?;
//!         self.asker.send(&self.lower, request, Duration::from_secs(1))?;
//!         Ok(())
//!     }
//! }
//!
//! impl Meter {
//!     fn answered(&self, request: OwnRequest, sent: Sent) {
//!         if let Ok(level) = request.answer(GET_LEVEL, sent) {
//!             self.level.with(|latest| *latest = level);
//!             assert_eq!(level, 300);
//!         }
//!     }
//! }
//! # use ntsim::{Answer, LowerRequest};
//! # let mut machine = ntsim::Machine::default();
//! # let device = machine.add_driver("Meter", Meter::DRIVER_ENTRY).unwrap();
//! # machine.set_lower_driver(&device, |asked| match asked {
//! #     LowerRequest::Control { input, .. } => Answer::After(
//! #         core::time::Duration::from_millis(5), 0, (u32::from(input[0]) * 100).to_le_bytes().to_vec()),
//! #     other => panic!("{other:?}"),
//! # });
//! # machine.start_device(&device).unwrap();
//! # machine.run_for(core::time::Duration::from_secs(2)).unwrap();
//! # machine.remove_device(&device).unwrap();
//! ```
//!
//! See [Sending I/O requests asynchronously][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/sending-i-o-requests-asynchronously

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::io_target::{IoTarget, Sent, options};
use super::memory::Memory;
use super::object::{ContextInfo, Owned, attributes, dereference, no_handle, reference};
use crate::ioctl::{IoctlCode, IoctlData};
use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::time::Timeout;

/// A request that the driver makes itself, with the buffers that go with it.
///
/// Use [`IoTarget::read`] and its siblings to send one thing and wait for it;
/// this to send without waiting, and again and again without allocating.
///
/// C counterpart: [`WdfRequestCreate`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestcreate
///
/// # Invariants
/// The object has a `Context`, and no target has it as long as this value is
/// not in that context.
#[must_use = "dropping it deletes the request"]
pub struct OwnRequest {
    raw: Owned,
    operation: Operation,
    input: Option<Memory>,
    output: Option<Memory>,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Nothing,
    Read { offset: i64 },
    Write { offset: i64 },
    Control { code: u32 },
    InternalControl { code: u32 },
}

/// What the request's object carries. All zero at first.
struct Context {
    /// [`Canceller`]s of the last sending.
    cancellers: AtomicUsize,
    /// Written while the request is sent.
    parcel: UnsafeCell<MaybeUninit<Parcel>>,
}

/// What a sent request takes along.
struct Parcel {
    request: OwnRequest,
    /// Counted.
    owner: Reference,
    function: *const (),
    call: unsafe fn(NonNull<Header>, *const (), OwnRequest, Sent),
}

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::OwnRequest", &CONTEXT);

fn create() -> Result<Owned> {
    // Without a parent: the driver is.
    let mut attributes = attributes(&CONTEXT, no_handle());
    let mut raw = no_handle();
    // SAFETY: the structures are valid for the length of the call.
    NtStatus::from_raw(unsafe {
        sys::kmdf::WdfRequestCreate(&raw mut attributes, ptr::null_mut(), &raw mut raw)
    })
    .into_result()?;
    // SAFETY: just created, below the driver.
    Ok(unsafe { Owned::new(raw.cast()) })
}

/// # Safety
/// The object is valid for `'a` and was made by [`create`].
unsafe fn context<'a>(raw: sys::WDFREQUEST) -> &'a Context {
    // SAFETY: the caller's promise.
    let context = unsafe { CONTEXT.of::<Context>(raw.cast()) };
    // SAFETY: KMDF zeroes contexts, and zeros are a `Context`.
    unsafe { context.as_ref() }
}

impl OwnRequest {
    /// A request that asks for nothing yet.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfRequestCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestcreate
    pub fn new() -> Result<Self> {
        // INVARIANT: just made.
        Ok(Self {
            raw: create()?,
            operation: Operation::Nothing,
            input: None,
            output: None,
        })
    }

    fn set(&mut self, operation: Operation, input: Option<Memory>, output: Option<Memory>) {
        self.operation = operation;
        self.input = input;
        self.output = output;
    }

    /// Asks for a read into `buffer`, from `offset` in bytes.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfIoTargetFormatRequestForRead`][ms], which runs when it is sent.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetformatrequestforread
    pub fn set_read(&mut self, buffer: Memory, offset: i64) {
        self.set(Operation::Read { offset }, None, Some(buffer));
    }

    /// Asks for a write of `bytes`, to `offset` in bytes.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfIoTargetFormatRequestForWrite`][ms], which runs when it is sent.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetformatrequestforwrite
    pub fn set_write(&mut self, bytes: Memory, offset: i64) {
        self.set(Operation::Write { offset }, Some(bytes), None);
    }

    /// Asks for a control code with these buffers.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfIoTargetFormatRequestForIoctl`][ms], which runs when it is sent.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetformatrequestforioctl
    pub fn set_control(&mut self, code: u32, input: Option<Memory>, output: Option<Memory>) {
        self.set(Operation::Control { code }, input, output);
    }

    /// The same for a code that only drivers send.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfIoTargetFormatRequestForInternalIoctl`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetformatrequestforinternalioctl
    pub fn set_internal_control(
        &mut self,
        code: u32,
        input: Option<Memory>,
        output: Option<Memory>,
    ) {
        self.set(Operation::InternalControl { code }, input, output);
    }

    /// Asks for a typed IOCTL. Buffers of the right size that the request has
    /// already are used again. [`answer`](Self::answer) reads what came back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`: the request asks for what it did before.
    pub fn set_ioctl<In: IoctlData, Out: IoctlData>(
        &mut self,
        code: IoctlCode<In, Out>,
        input: In,
    ) -> Result {
        if self.input().len() != In::SIZE {
            let fresh = (In::SIZE != 0).then(|| Memory::new(In::SIZE)).transpose()?;
            self.input = fresh;
        }
        if self.output().len() != Out::SIZE {
            let fresh = (Out::SIZE != 0)
                .then(|| Memory::new(Out::SIZE))
                .transpose()?;
            self.output = fresh;
        }
        if let Some(bytes) = &mut self.input {
            input.put(bytes);
        }
        self.operation = Operation::Control { code: code.value() };
        Ok(())
    }

    /// What came back for a typed IOCTL.
    ///
    /// # Errors
    /// The target's status; `STATUS_INFO_LENGTH_MISMATCH` if it gave less than
    /// an `Out`.
    pub fn answer<In: IoctlData, Out: IoctlData>(
        &self,
        _code: IoctlCode<In, Out>,
        sent: Sent,
    ) -> Result<Out> {
        if sent.bytes()? < Out::SIZE || self.output().len() < Out::SIZE {
            return Err(NtStatus::INFO_LENGTH_MISMATCH);
        }
        Ok(Out::get(self.output()))
    }

    /// The bytes that go to the target; none if there is no such buffer.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        self.input.as_deref().unwrap_or(&[])
    }

    /// The same, to be changed before it is sent again.
    pub fn input_mut(&mut self) -> &mut [u8] {
        self.input.as_deref_mut().unwrap_or(&mut [])
    }

    /// The bytes that came from the target, of which [`Sent::information`] says
    /// how many; none if there is no such buffer.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.as_deref().unwrap_or(&[])
    }

    /// Takes the buffer for input; the request then asks for nothing.
    pub fn take_input(&mut self) -> Option<Memory> {
        self.operation = Operation::Nothing;
        self.input.take()
    }

    /// Takes the buffer for output; the request then asks for nothing.
    pub fn take_output(&mut self) -> Option<Memory> {
        self.operation = Operation::Nothing;
        self.output.take()
    }

    /// Makes it fit to be sent. If a [`Canceller`] of an earlier sending is still
    /// somewhere, the request gets a new object, so that what it cancels is not this.
    fn renew(&mut self) -> Result {
        // SAFETY: the invariant.
        let context = unsafe { context(self.raw.raw().cast()) };
        // Acquire: what the cancellers did happens before the object is used again.
        if context.cancellers.load(Ordering::Acquire) != 0 {
            self.raw = create()?;
            return Ok(());
        }
        let mut params = sys::WDF_REQUEST_REUSE_PARAMS {
            Size: sys::size_field::<sys::WDF_REQUEST_REUSE_PARAMS>(),
            Status: NtStatus::SUCCESS.to_raw(),
            ..sys::WDF_REQUEST_REUSE_PARAMS::default()
        };
        // SAFETY: the invariant: at rest; the structure is for the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRequestReuse(self.raw.raw().cast(), &raw mut params)
        })
        .into_result()
    }

    /// Tells KMDF what it asks for.
    ///
    /// # Safety
    /// The target is valid.
    unsafe fn format(&self, target: sys::WDFIOTARGET) -> Result {
        let raw = self.raw.raw();
        let memory = |memory: &Option<Memory>| memory.as_ref().map_or(no_handle(), Memory::as_raw);
        let (input, output) = (memory(&self.input), memory(&self.output));
        let whole = ptr::null_mut();
        let status = match self.operation {
            Operation::Nothing => return Err(NtStatus::INVALID_DEVICE_REQUEST),
            Operation::Read { mut offset } => {
                // SAFETY: all handles are valid, the request is at rest; the memory
                // is this value's, and KMDF keeps a reference to it.
                unsafe {
                    sys::kmdf::WdfIoTargetFormatRequestForRead(
                        target,
                        raw.cast(),
                        output,
                        whole,
                        &raw mut offset,
                    )
                }
            }
            Operation::Write { mut offset } => {
                // SAFETY: as above.
                unsafe {
                    sys::kmdf::WdfIoTargetFormatRequestForWrite(
                        target,
                        raw.cast(),
                        input,
                        whole,
                        &raw mut offset,
                    )
                }
            }
            Operation::Control { code } => {
                // SAFETY: as above.
                unsafe {
                    sys::kmdf::WdfIoTargetFormatRequestForIoctl(
                        target,
                        raw.cast(),
                        code,
                        input,
                        whole,
                        output,
                        whole,
                    )
                }
            }
            Operation::InternalControl { code } => {
                // SAFETY: as above.
                unsafe {
                    sys::kmdf::WdfIoTargetFormatRequestForInternalIoctl(
                        target,
                        raw.cast(),
                        code,
                        input,
                        whole,
                        output,
                        whole,
                    )
                }
            }
        };
        NtStatus::from_raw(status).into_result()
    }

    /// Sends it and waits until it has landed, at most as long as the timeout
    /// says: then it is cancelled, and its status is `STATUS_IO_TIMEOUT`.
    ///
    /// While it waits the owner is not destroyed. The device's own lower driver
    /// is told to give up when the device goes; that of a
    /// [`RemoteTarget`](super::RemoteTarget) is not, so with
    /// [`Timeout::Never`] removal may take as long as it does.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// Why it was not sent: `STATUS_INVALID_DEVICE_REQUEST` if it asks for
    /// nothing, `STATUS_INVALID_DEVICE_STATE` if the target takes no requests
    /// or its owner is gone, `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfRequestSend`][ms] with `WDF_REQUEST_SEND_OPTION_SYNCHRONOUS`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestsend
    pub fn send_and_wait(
        &mut self,
        _irql: &Irql<'_, Passive>,
        target: &IoTarget,
        timeout: impl Into<Timeout>,
    ) -> Result<Sent> {
        self.renew()?;
        let mut options = options(timeout.into());
        options.Flags |= sys::_WDF_REQUEST_SEND_OPTIONS_FLAGS::WDF_REQUEST_SEND_OPTION_SYNCHRONOUS
            .cast_unsigned();
        let (target, _alive) = target.enter()?;
        // SAFETY: it is valid while `_alive` is there.
        unsafe { self.format(target) }?;
        let raw = self.raw.raw();
        // SAFETY: both are valid, the request is at rest and formatted, the
        // token proves the level, and the options are for the call.
        let sent = unsafe { sys::kmdf::WdfRequestSend(raw.cast(), target, &raw mut options) } != 0;
        // SAFETY: at rest again, or still.
        let status = NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestGetStatus(raw.cast()) });
        if !sent {
            return Err(status);
        }
        // SAFETY: as above.
        let information = unsafe { sys::kmdf::WdfRequestGetInformation(raw.cast()) };
        Ok(Sent::new(status, information))
    }
}

impl fmt::Debug for OwnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRequest")
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

/// A request that was not sent, and why. `?` turns it into the status and drops
/// the request.
///
/// No C counterpart: there a request that was not sent is easily forgotten.
#[derive(Debug)]
#[must_use = "it has the request"]
pub struct Unsent {
    request: OwnRequest,
    status: NtStatus,
}

impl Unsent {
    /// Why.
    pub const fn status(&self) -> NtStatus {
        self.status
    }

    /// The request, with its buffers.
    pub fn into_request(self) -> OwnRequest {
        self.request
    }
}

impl From<Unsent> for NtStatus {
    fn from(unsent: Unsent) -> Self {
        unsent.status
    }
}

/// Sends requests of the driver's own and hands them to a function of the owner
/// when they have landed.
///
/// Made by [`Modules::own_sender`]. Requests that were received are sent by a
/// [`Sender`](super::Sender).
///
/// C counterpart: [`WdfRequestSetCompletionRoutine`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestsetcompletionroutine
///
/// # Invariants
/// `owner` is to a `Node<O>`, and `function` and `call` are for that `O`.
pub struct OwnSender {
    owner: Reference,
    function: *const (),
    call: unsafe fn(NonNull<Header>, *const (), OwnRequest, Sent),
}

// SAFETY: a counted pointer and function pointers.
unsafe impl Send for OwnSender {}
// SAFETY: as above.
unsafe impl Sync for OwnSender {}

impl OwnSender {
    /// Sends a request and returns. It comes back to the function, also if the
    /// timeout is over, which cancels it. A target that answers at once calls
    /// the function before this returns.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// With the request, why it was not sent: as [`OwnRequest::send_and_wait`].
    ///
    /// C counterpart: [`WdfRequestSend`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestsend
    pub fn send(
        &self,
        target: &IoTarget,
        request: OwnRequest,
        timeout: impl Into<Timeout>,
    ) -> Result<(), Unsent> {
        self.submit(target, request, timeout.into(), |_| ())
    }

    /// The same, and gives what cancels it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_cancelable(
        &self,
        target: &IoTarget,
        request: OwnRequest,
        timeout: impl Into<Timeout>,
    ) -> Result<Canceller, Unsent> {
        // SAFETY: `submit` gives a request that is at rest.
        self.submit(target, request, timeout.into(), |raw| unsafe {
            Canceller::of(raw)
        })
    }

    fn submit<R>(
        &self,
        target: &IoTarget,
        mut request: OwnRequest,
        timeout: Timeout,
        before: impl FnOnce(sys::WDFREQUEST) -> R,
    ) -> Result<R, Unsent> {
        if let Err(status) = request.renew() {
            return Err(Unsent { request, status });
        }
        let mut options = options(timeout);
        let (target, _alive) = match target.enter() {
            Ok(entered) => entered,
            Err(status) => return Err(Unsent { request, status }),
        };
        // SAFETY: it is valid while `_alive` is there.
        if let Err(status) = unsafe { request.format(target) } {
            return Err(Unsent { request, status });
        }
        let raw = request.raw.raw();
        let result = before(raw.cast());
        // SAFETY: valid, at rest; the routine is for requests with this context.
        unsafe {
            sys::kmdf::WdfRequestSetCompletionRoutine(
                raw.cast(),
                Some(evt_landed),
                ptr::null_mut(),
            );
        }
        // SAFETY: the object lives as long as the value that is moved into its
        // context here, or as the target has it.
        let parcel = unsafe { context(raw.cast()) }.parcel.get();
        let content = MaybeUninit::new(Parcel {
            request,
            owner: self.owner.clone(),
            function: self.function,
            call: self.call,
        });
        // SAFETY: at rest, so nobody else uses it, and it holds nothing.
        unsafe { parcel.write(content) };
        // SAFETY: both are valid, the request is formatted, and the options are
        // for the call.
        if unsafe { sys::kmdf::WdfRequestSend(raw.cast(), target, &raw mut options) } != 0 {
            return Ok(result);
        }
        // SAFETY: not sent, so still valid.
        let status = NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestGetStatus(raw.cast()) });
        // SAFETY: not sent, so the routine does not take it.
        let parcel = unsafe { parcel.read() };
        // SAFETY: written above.
        let request = unsafe { parcel.assume_init() }.request;
        Err(Unsent { request, status })
    }
}

impl fmt::Debug for OwnSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnSender").finish_non_exhaustive()
    }
}

callback! {
    /// The completion routine of every request that an [`OwnSender`] sent.
    unsafe fn evt_landed(
        raw: sys::WDFREQUEST,
        _target: sys::WDFIOTARGET,
        params: sys::PWDF_REQUEST_COMPLETION_PARAMS,
        _context: sys::WDFCONTEXT,
    ) {
        // SAFETY: KMDF gives the parameters to this callback.
        let sent = unsafe { Sent::of(params) };
        // SAFETY: `submit` set this routine for requests with this context; KMDF
        // keeps the object until the routine returns.
        let parcel = unsafe { context(raw) }.parcel.get();
        // SAFETY: the target has given the request back, so nobody else looks.
        let parcel = unsafe { parcel.read() };
        // SAFETY: `submit` wrote it before it sent the request.
        let parcel = unsafe { parcel.assume_init() };
        // INVARIANT (`OwnRequest`): at rest again.
        // SAFETY: the fields belong together, and the owner is counted.
        unsafe { (parcel.call)(parcel.owner.node(), parcel.function, parcel.request, sent) };
    }
}

/// # Safety
/// `owner` is a `Node<O>` whose memory is valid, and `function` is a
/// `fn(&O, OwnRequest, Sent)`.
unsafe fn landed<O: 'static>(
    owner: NonNull<Header>,
    function: *const (),
    request: OwnRequest,
    sent: Sent,
) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(owner) }) else {
        // Nobody is there to be told: the request is dropped.
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, OwnRequest, Sent) = unsafe { core::mem::transmute(function) };
    function(&owner, request, sent);
}

/// Asks for the end of one sending of one request.
///
/// Any thread or DPC may do that at any time, also when the request has landed,
/// was dropped, or is sent again: nothing happens then. How the request ended
/// is for its function to see: the target may have been quicker.
///
/// ```text
///   cancel()                           the target
///   asks it ─────────────────────────► STATUS_CANCELLED
///                                      success, before it was asked
///   not sent any more: false ◄──────── landed before
/// ```
///
/// C counterpart: [`WdfRequestCancelSentRequest`][ms], with the reference that
/// it needs.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestcancelsentrequest
///
/// # Invariants
/// References the object, and is counted in its `cancellers`; so the object
/// carries no other sending than the one this value is of.
#[must_use = "it is there to cancel the request"]
pub struct Canceller(sys::WDFREQUEST);

// SAFETY: KMDF synchronizes cancellation with completion, and the count is atomic.
unsafe impl Send for Canceller {}
// SAFETY: as above.
unsafe impl Sync for Canceller {}

impl Canceller {
    /// # Safety
    /// The request is valid, was made by [`create`], and is at rest or another
    /// canceller's.
    unsafe fn of(raw: sys::WDFREQUEST) -> Self {
        // SAFETY: the caller's promise.
        unsafe { context(raw) }
            .cancellers
            .fetch_add(1, Ordering::Relaxed);
        reference(raw.cast());
        // INVARIANT: just counted.
        Self(raw)
    }

    /// Asks for the request's cancellation. Tells whether somebody could be asked.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. The function that gets the request may be called
    /// before this returns: no lock of its may be held.
    ///
    /// C counterpart: [`WdfRequestCancelSentRequest`][c].
    ///
    /// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestcancelsentrequest
    #[expect(clippy::must_use_candidate, reason = "how the request ends says more")]
    pub fn cancel(&self) -> bool {
        // SAFETY: the invariant: referenced.
        unsafe { sys::kmdf::WdfRequestCancelSentRequest(self.0) != 0 }
    }
}

impl Clone for Canceller {
    fn clone(&self) -> Self {
        // SAFETY: the invariant.
        unsafe { Self::of(self.0) }
    }
}

impl Drop for Canceller {
    fn drop(&mut self) {
        // SAFETY: the invariant.
        let context = unsafe { context(self.0) };
        // Release: what this canceller did happens before the object is used again.
        context.cancellers.fetch_sub(1, Ordering::Release);
        dereference(self.0.cast());
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// A sender of the driver's own requests. They come back to this function of
    /// the owner, at `<= DISPATCH_LEVEL`; if the owner is gone by then, they are
    /// dropped.
    #[must_use]
    pub fn own_sender(&self, function: fn(&O, OwnRequest, Sent)) -> OwnSender {
        let (owner, _) = self.raw();
        // INVARIANT: both are of this `O`.
        OwnSender {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            function: function as *const (),
            call: landed::<O>,
        }
    }
}
