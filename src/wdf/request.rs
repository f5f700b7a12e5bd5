// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Request`]: what a queue delivers, completed exactly once.
//!
//! # Vocabulary
//!
//! - *kind*: [`Read`], [`Write`], [`Ioctl`] or [`InternalIoctl`]; a request has
//!   the buffers that its kind has.
//! - *owner*: whoever has the [`Request`] value. It cannot be copied, and
//!   everything that ends the ownership takes it by value.
//! - *information*: how many bytes were transferred, which the caller gets.
//!
//! # Life of a request
//!
//! ```text
//!   delivered ──► Request ──┬── complete ────────────────► gone
//!                    ▲      ├── drop ────────────────────► completed, STATUS_CANCELLED
//!                    │      ├── forward, requeue ────────► in a queue
//!                    │      ├── IoTarget::forward, send ─► in the next lower driver
//!                    │      └── mark_cancelable ─► Cancelable ──► cancelled by the caller:
//!                    └─────────── take ◄───────────────┘          completed, STATUS_CANCELLED
//! ```
//!
//! # Examples
//!
//! A driver for a slow device: a write is kept until the device has taken it,
//! and can be cancelled meanwhile.
//!
//! ```
//! use dmf::prelude::*;
//! use dmf::wdf::*;
//!
//! # dmf::driver!(Printer);
//! struct Printer { printing: dmf::sync::SpinLock<Option<Cancelable<Write>>>, done: Timer }
//!
//! impl Device for Printer {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         add.default_queue(DefaultQueue::sequential())?;
//!         Ok(Printer {
//!             printing: dmf::sync::SpinLock::new(None),
//!             done: Timer::with_config(add, TimerConfig::dispatch(), Printer::done)?,
//!         })
//!     }
//!
//!     fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
//!         if request.input().is_ok_and(|page| page.len() > 100) {
//!             request.complete(Err(NtStatus::INVALID_PARAMETER));
//!             return Offer::Handled;
//!         }
//!         // One that is cancelled already is completed by dropping what is refused.
//!         if let Ok(request) = request.mark_cancelable() {
//!             self.printing.with(|printing| *printing = Some(request));
//!             let _ = self.done.start(Duration::from_secs(3));
//!         }
//!         Offer::Handled
//!     }
//! }
//!
//! impl Printer {
//!     fn done(&self, _cx: &mut TimerFired<'_, Dispatch>) {
//!         let printed = self.printing.with(Option::take);
//!         if let Some(Taken::Request(request)) = printed.map(Cancelable::take) {
//!             let length = request.len();
//!             request.complete(Ok(length));
//!         }
//!     }
//! }
//! # ntsim::run_driver(Printer::DRIVER_ENTRY, |machine, device| {
//! #     let file = machine.open(device).unwrap();
//! #     assert_eq!(machine.write(file, b"a page").unwrap().information, 6);
//! #     let cancelled = machine.begin_write(file, b"another").unwrap();
//! #     machine.cancel(cancelled).unwrap();
//! #     let end = machine.wait(cancelled, Duration::from_secs(9)).unwrap().unwrap();
//! #     assert_eq!(end.status, NtStatus::CANCELLED.to_raw().cast_unsigned());
//! #     machine.close(file).unwrap();
//! # });
//! ```
//!
//! A request cannot be completed twice:
//!
//! ```compile_fail,E0382
//! use dmf::prelude::*;
//! use dmf::wdf::{Read, Request};
//!
//! fn refused(request: Request<Read>) {
//!     request.complete(Ok(0));
//!     request.complete(Ok(0)); // moved
//! }
//! ```
//!
//! A buffer cannot be used once the request is completed:
//!
//! ```compile_fail,E0505
//! use dmf::prelude::*;
//! use dmf::wdf::{Read, Request};
//!
//! fn refused(mut request: Request<Read>) -> Result {
//!     let buffer = request.output()?;
//!     request.complete(Ok(1));
//!     buffer[0] = 1; // the caller's memory by now
//!     Ok(())
//! }
//! ```
//!
//! Input and output of an IOCTL are one piece of memory, so they cannot be
//! used at the same time:
//!
//! ```compile_fail,E0502
//! use dmf::prelude::*;
//! use dmf::wdf::{Ioctl, Request};
//!
//! fn refused(request: &mut Request<Ioctl>) -> Result {
//!     let input = request.input()?;
//!     let output = request.output()?;
//!     output.copy_from_slice(input);
//!     Ok(())
//! }
//! ```
//!
//! A read has no input:
//!
//! ```compile_fail,E0599
//! use dmf::wdf::{Read, Request};
//!
//! fn refused(request: &Request<Read>) {
//!     let _ = request.input();
//! }
//! ```
//!
//! See [Framework request objects][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-request-objects

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, Ordering};

use super::IoType;
use super::direct::{self, DirectInput, DirectOutput, Side};
use super::file::File;
use super::object::{ContextInfo, attributes, no_handle};
use super::queue::Destination;
use crate::ioctl::{DirectIoctlCode, Direction, IoctlCode, IoctlData, Method};
use crate::module::Owner;
use crate::module::node::Header;
use crate::status::{NtStatus, Result};
use crate::sys;

/// A request that the driver owns, of kind `K`.
///
/// Dropping it completes it with `STATUS_CANCELLED`: the caller learns that
/// the driver gave it up.
///
/// C counterpart: [`WDFREQUEST`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-request-objects
///
/// # Invariants
/// `raw` was delivered to the driver, is of kind `K`, and nobody else completes
/// it, forwards it or sends it as long as this value exists.
#[must_use = "dropping a request completes it with STATUS_CANCELLED"]
pub struct Request<K: Kind> {
    raw: sys::WDFREQUEST,
    parameters: K::Parameters,
    /// How reads and writes of the device get at their callers' bytes.
    io_type: IoType,
    /// `clear` was here.
    cleared: bool,
    kind: PhantomData<K>,
}

// SAFETY: KMDF lets any thread use a request, and its buffers are in system memory.
unsafe impl<K: Kind> Send for Request<K> {}
// SAFETY: what `&self` can do only reads, or asks KMDF, which synchronizes.
unsafe impl<K: Kind> Sync for Request<K> {}

/// What a request asks for. Sealed.
///
/// C counterpart: [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
pub trait Kind: sealed::Sealed + Sized + 'static {
    /// What the kind's requests say.
    type Parameters: Copy + fmt::Debug + Send + Sync;
    /// KMDF's number of the kind.
    #[doc(hidden)]
    const TYPE: sys::WDF_REQUEST_TYPE;
    /// The parameters that KMDF reported.
    ///
    /// # Safety
    /// They are those of a request of this kind.
    #[doc(hidden)]
    unsafe fn parameters(raw: &sys::WDF_REQUEST_PARAMETERS) -> Self::Parameters;
    /// How long the output buffer is.
    #[doc(hidden)]
    fn output_length(parameters: &Self::Parameters) -> usize;
    /// How much of its beginning the caller has written itself; none if the
    /// kind has no output.
    #[doc(hidden)]
    fn input_in_output(parameters: &Self::Parameters) -> Option<usize>;
    /// How the bytes get from the caller to the driver and back.
    #[doc(hidden)]
    fn method(parameters: &Self::Parameters, io_type: IoType) -> Method;
    /// The kind's own form of a request of any kind, for dispatch.
    #[doc(hidden)]
    fn offer(request: Request<Self>) -> Io;
}

/// A kind with an input buffer.
///
/// C counterpart: what [`WdfRequestRetrieveInputBuffer`][ms] succeeds for.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveinputbuffer
pub trait HasInput: Kind {
    /// How long the input buffer is.
    #[doc(hidden)]
    fn input_length(parameters: &Self::Parameters) -> usize;
    /// Whether the input buffer is the kernel's, which nobody else changes.
    #[doc(hidden)]
    fn input_is_copied(method: Method) -> bool;
    /// Which buffer is direct input, and how long it is.
    #[doc(hidden)]
    fn direct_input(parameters: &Self::Parameters) -> (Side, usize);
}

/// A kind with an output buffer.
///
/// C counterpart: what [`WdfRequestRetrieveOutputBuffer`][ms] succeeds for.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputbuffer
pub trait HasOutput: Kind {}

/// A kind with an I/O control code: [`Ioctl`] and [`InternalIoctl`].
///
/// C counterpart: the two types of device control of [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
pub trait ControlKind: HasInput + HasOutput<Parameters = Control> {}

mod sealed {
    pub trait Sealed {}
}

/// Bytes from the device to the caller.
///
/// C counterpart: `WdfRequestTypeRead` of [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
#[derive(Debug)]
pub enum Read {}
/// Bytes from the caller to the device.
///
/// C counterpart: `WdfRequestTypeWrite` of [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
#[derive(Debug)]
pub enum Write {}
/// An I/O control code with input and output.
///
/// C counterpart: `WdfRequestTypeDeviceControl` of [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
#[derive(Debug)]
pub enum Ioctl {}
/// An I/O control code from another driver.
///
/// C counterpart: `WdfRequestTypeDeviceControlInternal` of [`WDF_REQUEST_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_type
#[derive(Debug)]
pub enum InternalIoctl {}

/// What a read or a write says.
///
/// C counterpart: `Parameters.Read` and `.Write` of [`WDF_REQUEST_PARAMETERS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ns-wdfrequest-_wdf_request_parameters
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    length: usize,
    offset: i64,
}

impl Transfer {
    /// How many bytes the caller asks for.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the caller asks for no bytes. Queues complete such requests
    /// themselves, unless they say `zero_length_requests`.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The offset that the caller gave, in bytes.
    #[must_use]
    pub const fn offset(&self) -> i64 {
        self.offset
    }
}

/// What an IOCTL says.
///
/// C counterpart: `Parameters.DeviceIoControl` of [`WDF_REQUEST_PARAMETERS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ns-wdfrequest-_wdf_request_parameters
#[derive(Clone, Copy, Debug)]
pub struct Control {
    code: u32,
    input: usize,
    output: usize,
}

impl Control {
    /// The I/O control code.
    #[must_use]
    pub const fn code(&self) -> u32 {
        self.code
    }

    /// How its buffers get to the driver.
    #[must_use]
    pub const fn method(&self) -> Method {
        Method::of(self.code)
    }

    /// How many bytes came with the request.
    #[must_use]
    pub const fn input_len(&self) -> usize {
        self.input
    }

    /// How many bytes the caller takes; with [`Method::InDirect`] how many
    /// more it gives.
    #[must_use]
    pub const fn output_len(&self) -> usize {
        self.output
    }
}

/// A request of any kind, on its way to those who might handle it.
#[doc(hidden)]
#[derive(Debug)]
pub enum Io {
    /// A read.
    Read(Request<Read>),
    /// A write.
    Write(Request<Write>),
    /// An IOCTL.
    Ioctl(Request<Ioctl>),
    /// An internal IOCTL.
    InternalIoctl(Request<InternalIoctl>),
}

impl Io {
    /// Completes a request that nobody handled.
    pub(crate) fn refuse(self, status: NtStatus) {
        match self {
            Self::Read(request) => request.complete(Err(status)),
            Self::Write(request) => request.complete(Err(status)),
            Self::Ioctl(request) => request.complete(Err(status)),
            Self::InternalIoctl(request) => request.complete(Err(status)),
        }
    }
}

macro_rules! kinds {
    ($($kind:ident = $number:ident, $params:ty, |$raw:ident| $parameters:expr, |$p:ident| $length:expr, $kept:expr, |$q:ident, $io:pat_param| $method:expr;)*) => {$(
        impl sealed::Sealed for $kind {}
        impl Kind for $kind {
            type Parameters = $params;
            const TYPE: sys::WDF_REQUEST_TYPE = sys::_WDF_REQUEST_TYPE::$number;
            unsafe fn parameters($raw: &sys::WDF_REQUEST_PARAMETERS) -> Self::Parameters {
                $parameters
            }
            fn output_length($p: &Self::Parameters) -> usize {
                $length
            }
            fn input_in_output(parameters: &Self::Parameters) -> Option<usize> {
                let kept: fn(&Self::Parameters) -> Option<usize> = $kept;
                kept(parameters)
            }
            fn method($q: &Self::Parameters, $io: IoType) -> Method {
                $method
            }
            fn offer(request: Request<Self>) -> Io {
                Io::$kind(request)
            }
        }
    )*};
}

kinds! {
    Read = WdfRequestTypeRead, Transfer, |raw| {
        // SAFETY: the trait's contract.
        let read = unsafe { raw.Parameters.Read };
        Transfer { length: read.Length, offset: read.DeviceOffset }
    }, |p| p.length, |_| Some(0), |_p, io_type| match io_type {
        IoType::Buffered => Method::Buffered,
        IoType::Direct => Method::OutDirect,
    };
    Write = WdfRequestTypeWrite, Transfer, |raw| {
        // SAFETY: the trait's contract.
        let write = unsafe { raw.Parameters.Write };
        Transfer { length: write.Length, offset: write.DeviceOffset }
    }, |p| p.length, |_| None, |_p, io_type| match io_type {
        IoType::Buffered => Method::Buffered,
        IoType::Direct => Method::InDirect,
    };
    // The information of a write is how much of its input was taken.
    Ioctl = WdfRequestTypeDeviceControl, Control, |raw| {
        // SAFETY: the trait's contract.
        control(unsafe { raw.Parameters.DeviceIoControl })
    }, |p| p.output, |p| Some(p.input), |p, _| p.method();
    InternalIoctl = WdfRequestTypeDeviceControlInternal, Control, |raw| {
        // SAFETY: the trait's contract.
        control(unsafe { raw.Parameters.DeviceIoControl })
    }, |p| p.output, |p| Some(p.input), |p, _| p.method();
}

/// A record for KMDF to fill.
///
/// C counterpart: `WDF_REQUEST_PARAMETERS_INIT`.
pub(super) fn parameters_record() -> sys::WDF_REQUEST_PARAMETERS {
    sys::WDF_REQUEST_PARAMETERS {
        // A few dozen bytes.
        Size: u16::try_from(size_of::<sys::WDF_REQUEST_PARAMETERS>()).unwrap_or(0),
        ..sys::WDF_REQUEST_PARAMETERS::default()
    }
}

fn control(raw: sys::_WDF_REQUEST_PARAMETERS__bindgen_ty_1__bindgen_ty_4) -> Control {
    Control {
        code: raw.IoControlCode,
        input: raw.InputBufferLength,
        output: raw.OutputBufferLength,
    }
}

impl HasInput for Write {
    fn input_length(parameters: &Transfer) -> usize {
        parameters.length
    }

    fn input_is_copied(method: Method) -> bool {
        method == Method::Buffered
    }

    fn direct_input(parameters: &Transfer) -> (Side, usize) {
        (Side::Input, parameters.length)
    }
}

impl HasOutput for Read {}

macro_rules! control_kinds {
    ($($kind:ident)*) => {$(
        impl HasInput for $kind {
            fn input_length(parameters: &Control) -> usize {
                parameters.input
            }

            fn input_is_copied(method: Method) -> bool {
                method != Method::Neither
            }

            // The second buffer, whatever the direction.
            fn direct_input(parameters: &Control) -> (Side, usize) {
                (Side::Output, parameters.output)
            }
        }

        impl HasOutput for $kind {}
        impl ControlKind for $kind {}
    )*};
}

control_kinds! { Ioctl InternalIoctl }

impl<K: Kind> Request<K> {
    /// Takes ownership of a request.
    ///
    /// # Safety
    /// As the type's invariants. `owner` is a node of the device that the
    /// request is for, and its memory is valid.
    pub(crate) unsafe fn from_delivered(raw: sys::WDFREQUEST, owner: NonNull<Header>) -> Self {
        let mut parameters = parameters_record();
        // SAFETY: the request is valid, and the structure is for the length of the call.
        unsafe { sys::kmdf::WdfRequestGetParameters(raw, &raw mut parameters) };
        // INVARIANT: the caller's promise.
        Self {
            raw,
            // SAFETY: the caller's promise.
            parameters: unsafe { K::parameters(&parameters) },
            // SAFETY: the caller's promise; set before the device was created.
            io_type: unsafe { owner.as_ref() }.io_type.get(),
            cleared: false,
            kind: PhantomData,
        }
    }

    /// Gives up ownership: whoever has the handle now completes the request, or
    /// takes it back with [`from_raw`](Self::from_raw).
    #[must_use = "nobody else completes the request"]
    pub fn into_raw(self) -> sys::WDFREQUEST {
        ManuallyDrop::new(self).raw
    }

    /// Takes ownership of a request by its handle. Dropping what is returned
    /// completes it.
    ///
    /// # Safety
    /// `raw` was delivered to the driver by a queue of the device of `owner`, is
    /// of kind `K`, is not marked cancelable, and from now on nobody else
    /// completes it, forwards it or sends it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is
    /// gone; the request is then left alone.
    pub unsafe fn from_raw<O: Send + Sync + 'static>(
        raw: sys::WDFREQUEST,
        owner: &Owner<O>,
    ) -> Result<Self> {
        let _alive = owner.enter()?;
        // SAFETY: the caller's promise; the owner is alive, and its node below
        // the device.
        Ok(unsafe { Self::from_delivered(raw, owner.node()) })
    }

    /// KMDF's handle, for code of the driver that calls KMDF itself.
    #[must_use]
    pub const fn as_raw(&self) -> sys::WDFREQUEST {
        self.raw
    }

    /// Which request this is, to tell it from others that the driver has.
    #[must_use]
    pub fn id(&self) -> RequestId {
        RequestId(self.raw.addr())
    }

    /// What the request says.
    #[must_use]
    pub const fn parameters(&self) -> &K::Parameters {
        &self.parameters
    }

    /// How the request's bytes get from the caller to the driver and back; for
    /// reads and writes what the device's [`IoType`] amounts to.
    pub fn method(&self) -> Method {
        K::method(&self.parameters, self.io_type)
    }

    /// Whether a program or another driver made the request.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfRequestGetRequestorMode`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestgetrequestormode
    #[must_use]
    pub fn requestor(&self) -> Requestor {
        // SAFETY: the invariant.
        let mode = unsafe { sys::kmdf::WdfRequestGetRequestorMode(self.raw) };
        // `KernelMode`.
        if mode == 0 {
            Requestor::Kernel
        } else {
            Requestor::User
        }
    }

    /// Refuses a buffer that the request's method does not give the driver so.
    fn wrong_method(&self, wanted: &str) -> NtStatus {
        let _ = wanted;
        crate::debug!(
            "{:?}: a request of {:?} has no {wanted}",
            self.parameters,
            self.method()
        );
        NtStatus::INVALID_DEVICE_REQUEST
    }

    /// Completes the request: `Ok` with the number of bytes that were
    /// transferred, or with a status and none.
    ///
    /// A number above the length of the buffer becomes that length. Bytes of a
    /// buffered output that nobody has written are zero.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfRequestCompleteWithInformation`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestcompletewithinformation
    pub fn complete(self, result: Result<usize>) {
        match result {
            Ok(information) => self.complete_with(NtStatus::SUCCESS, information),
            Err(status) => self.complete_with(status, 0),
        }
    }

    /// Completes the request with a status and a number of bytes, for warnings
    /// such as `STATUS_BUFFER_OVERFLOW`, whose bytes the caller gets too.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: as [`complete`](Self::complete).
    pub fn complete_with(mut self, status: NtStatus, information: usize) {
        let information = information.min(K::output_length(&self.parameters));
        let cleared = if information == 0 {
            Ok(())
        } else {
            self.clear()
        };
        match cleared {
            Ok(()) => finish(self.into_raw(), status, information),
            Err(status) => finish(self.into_raw(), status, 0),
        }
    }

    /// Zeroes what nobody has written of a buffered output, so that the caller
    /// gets no old memory of the kernel.
    fn clear(&mut self) -> Result {
        if let Some(start) = self.unwritten() {
            // SAFETY: the invariant.
            let (buffer, length) = unsafe { direct::retrieve(self.raw, Side::Output) }?;
            // SAFETY: KMDF's buffer of this length, which the caller does not
            // see, and `self` is borrowed mutably.
            let output = unsafe { core::slice::from_raw_parts_mut(buffer, length) };
            output[start.min(length)..].fill(0);
            self.mark_cleared(length);
        }
        Ok(())
    }

    /// From where on nobody has written a buffered output. Asked once; the
    /// asker fills it.
    ///
    /// The request itself remembers, as its `Information`: it may have been in
    /// queues since, or come back from the driver below, which sets it to how
    /// much it has written.
    fn unwritten(&mut self) -> Option<usize> {
        let length = K::output_length(&self.parameters);
        let input = K::input_in_output(&self.parameters)?;
        if self.cleared || length == 0 || self.method() != Method::Buffered {
            return None;
        }
        // SAFETY: the invariant.
        let written = unsafe { sys::kmdf::WdfRequestGetInformation(self.raw) };
        let start = input.max(usize::try_from(written).unwrap_or(0));
        if start >= length {
            self.cleared = true;
            return None;
        }
        Some(start)
    }

    /// Remembers that nothing of the output is unwritten any more, also in the
    /// request, for whoever gets it from a queue.
    fn mark_cleared(&mut self, length: usize) {
        self.cleared = true;
        // `as`: `ULONG_PTR` and `usize` are both as wide as a pointer.
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfRequestSetInformation(self.raw, length as _) };
    }

    /// Whether the caller wants the request back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfRequestIsCanceled`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestiscanceled
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfRequestIsCanceled(self.raw) != 0 }
    }

    /// The file that the request came through, if it came through one.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfRequestGetFileObject`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestgetfileobject
    #[must_use]
    pub fn file(&self) -> Option<File<'_>> {
        // SAFETY: the invariant.
        let file = unsafe { sys::kmdf::WdfRequestGetFileObject(self.raw) };
        // SAFETY: a request keeps its file open, and devices of this crate
        // give each file this crate's context.
        unsafe { File::from_raw(file) }
    }

    /// Gives the request to another queue of the device: to one with handlers,
    /// which delivers it, or to a [`ManualQueue`](super::ManualQueue) of its
    /// kind, which keeps it. There the caller can cancel it.
    ///
    /// A manual queue takes no other kind:
    ///
    /// ```compile_fail,E0277
    /// use dmf::wdf::{ManualQueue, Read, Request, Write};
    ///
    /// fn refused(request: Request<Write>, reads: &ManualQueue<Read>) {
    ///     let _ = request.forward(reads);
    /// }
    /// ```
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// What [`WdfRequestForwardToIoQueue`][ms] returns, with the request:
    /// `STATUS_WDF_BUSY` if the queue takes no requests,
    /// `STATUS_INVALID_DEVICE_REQUEST` if it is the queue that it came from.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestforwardtoioqueue
    pub fn forward<Q: Destination<K>>(self, queue: &Q) -> Result<(), Refused<K>> {
        let status = match queue.control().accept(self.raw) {
            Ok(()) => {
                let _ = self.into_raw();
                return Ok(());
            }
            Err(status) => status,
        };
        Err(Refused::new(self, status))
    }

    /// Puts the request back to the head of the manual queue that it was
    /// taken from.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// What [`WdfRequestRequeue`][ms] returns, with the request:
    /// `STATUS_INVALID_DEVICE_REQUEST` if it did not come from a manual queue.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestrequeue
    pub fn requeue(self) -> Result<(), Refused<K>> {
        // SAFETY: the invariant.
        let status = NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestRequeue(self.raw) });
        if let Err(status) = status.into_result() {
            return Err(Refused::new(self, status));
        }
        let _ = self.into_raw();
        Ok(())
    }

    /// Lets the caller cancel the request while the driver keeps it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// With the request: `STATUS_CANCELLED` if it is cancelled already,
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfRequestMarkCancelableEx`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestmarkcancelableex
    pub fn mark_cancelable(self) -> Result<Cancelable<K>, Refused<K>> {
        // SAFETY: the invariant.
        let state = match unsafe { CancelState::of_request(self.raw) } {
            Ok(state) => state,
            Err(status) => return Err(Refused::new(self, status)),
        };
        // Before the cancel routine can come.
        state.0.store(CancelState::MARKED, Ordering::Relaxed);
        // SAFETY: the invariant; given back when the `Cancelable` is dropped.
        unsafe { reference(self.raw.cast()) };
        // SAFETY: the invariant, and the routine is for requests with this context.
        let status = NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRequestMarkCancelableEx(self.raw, Some(evt_cancel))
        });
        if let Err(status) = status.into_result() {
            // SAFETY: the count from above.
            unsafe { dereference(self.raw.cast()) };
            return Err(Refused::new(self, status));
        }
        let parameters = self.parameters;
        let io_type = self.io_type;
        let cleared = self.cleared;
        // INVARIANT: marked, with a count of its own.
        Ok(Cancelable {
            raw: self.into_raw(),
            parameters,
            io_type,
            cleared,
            kind: PhantomData,
        })
    }
}

impl<K: Kind> Request<K> {
    /// What a lower driver that failed said about the output is not true.
    pub(super) fn forget_information(&self) {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfRequestSetInformation(self.raw, 0) };
    }
}

impl<K: Kind> Refused<K> {
    /// Takes the completion routine away from a request that was not sent.
    pub(super) fn forget_routine(&self) {
        if let Some(request) = &self.request {
            // SAFETY: the request is the driver's and not sent.
            unsafe {
                sys::kmdf::WdfRequestSetCompletionRoutine(request.raw, None, ptr::null_mut());
            }
        }
    }
}

impl<K: HasInput> Request<K> {
    /// The bytes that came with the request.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` for a direct write and for an IOCTL of
    /// [`Method::Neither`], and what [`WdfRequestRetrieveInputBuffer`][ms] returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveinputbuffer
    pub fn input(&self) -> Result<&[u8]> {
        if !K::input_is_copied(self.method()) {
            return Err(self.wrong_method("copied input"));
        }
        // KMDF calls no buffer at all too small.
        if K::input_length(&self.parameters) == 0 {
            return Ok(&[]);
        }
        // SAFETY: the invariant.
        let (buffer, length) = unsafe { direct::retrieve(self.raw, Side::Input) }?;
        // SAFETY: KMDF's buffer of this length, which the caller does not see;
        // it is valid until the request is completed, which needs it by value,
        // and only `&mut self` gives a mutable view.
        Ok(unsafe { core::slice::from_raw_parts(buffer, length) })
    }

    /// The pages of a direct write, or the second buffer of an IOCTL of
    /// [`Method::InDirect`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` for other requests, and what
    /// `WdfRequestRetrieveInputBuffer` and `WdfRequestRetrieveOutputBuffer`
    /// return: `STATUS_INSUFFICIENT_RESOURCES` if the pages cannot be mapped.
    pub fn direct_input(&self) -> Result<DirectInput<'_>> {
        if self.method() != Method::InDirect {
            return Err(self.wrong_method("direct input"));
        }
        let (side, length) = K::direct_input(&self.parameters);
        // SAFETY: the invariant; this side is direct by the method.
        unsafe { DirectInput::of(self.raw, side, length) }
    }
}

impl<K: HasOutput> Request<K> {
    /// The bytes that go back to the caller. What the driver does not write is
    /// zero, or what the caller sent itself; no old memory of the kernel.
    ///
    /// Overwrites the input of an IOCTL.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` for a direct read and for an IOCTL that
    /// is not [`Method::Buffered`], and what [`WdfRequestRetrieveOutputBuffer`][ms]
    /// returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputbuffer
    pub fn output(&mut self) -> Result<&mut [u8]> {
        if self.method() != Method::Buffered {
            return Err(self.wrong_method("copied output"));
        }
        if K::output_length(&self.parameters) == 0 {
            return Ok(&mut []);
        }
        let unwritten = self.unwritten();
        // SAFETY: the invariant.
        let (buffer, length) = unsafe { direct::retrieve(self.raw, Side::Output) }?;
        // SAFETY: KMDF's buffer of this length, which the caller does not see;
        // it is valid until the request is completed, which needs it by value,
        // and `self` is borrowed mutably.
        let output = unsafe { core::slice::from_raw_parts_mut(buffer, length) };
        if let Some(start) = unwritten {
            output[start.min(length)..].fill(0);
            self.mark_cleared(length);
        }
        Ok(output)
    }

    /// The pages of a direct read, or the second buffer of an IOCTL of
    /// [`Method::OutDirect`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` for other requests, and what
    /// [`WdfRequestRetrieveOutputBuffer`][ms] returns:
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pages cannot be mapped.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputbuffer
    pub fn direct_output(&self) -> Result<DirectOutput<'_>> {
        if self.method() != Method::OutDirect {
            return Err(self.wrong_method("direct output"));
        }
        let length = K::output_length(&self.parameters);
        // SAFETY: the invariant; the output is direct by the method.
        unsafe { DirectOutput::of(self.raw, Side::Output, length) }
    }

    /// Copies what fits of `bytes` into the output, buffered or direct, and
    /// says how much that is.
    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.method() == Method::OutDirect {
            let output = self.direct_output()?;
            let count = bytes.len().min(output.len());
            output.copy_from(0, &bytes[..count])?;
            return Ok(count);
        }
        let output = self.output()?;
        let count = bytes.len().min(output.len());
        output[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Copies `bytes` into the output, buffered or direct, and completes the
    /// request: with success if they fit, else with what fits and
    /// `STATUS_BUFFER_OVERFLOW`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    pub fn complete_with_bytes(mut self, bytes: &[u8]) {
        let (status, count) = match self.put(bytes) {
            Ok(count) if count < bytes.len() => (NtStatus::BUFFER_OVERFLOW, count),
            Ok(count) => (NtStatus::SUCCESS, count),
            Err(status) => (status, 0),
        };
        self.complete_with(status, count);
    }
}

macro_rules! transfers {
    ($($kind:ident)*) => {$(
        impl Request<$kind> {
            /// How many bytes the caller asks for.
            #[must_use]
            pub const fn len(&self) -> usize {
                self.parameters.length
            }

            /// Whether the caller asks for no bytes. Queues complete such
            /// requests themselves, unless they say `zero_length_requests`.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The offset that the caller gave, in bytes.
            #[must_use]
            pub const fn offset(&self) -> i64 {
                self.parameters.offset
            }
        }
    )*};
}

transfers! { Read Write }

macro_rules! controls {
    ($($kind:ident)*) => {$(
        impl Request<$kind> {
            /// The I/O control code.
            #[must_use]
            pub const fn code(&self) -> u32 {
                self.parameters.code
            }

            /// How many bytes came with the request.
            #[must_use]
            pub const fn input_len(&self) -> usize {
                self.parameters.input
            }

            /// How many bytes the caller takes.
            #[must_use]
            pub const fn output_len(&self) -> usize {
                self.parameters.output
            }
        }
    )*};
}

controls! { Ioctl InternalIoctl }

impl<K: ControlKind> Request<K> {
    /// Handles the request if it has this code: see [`Offer::on`].
    pub fn on<In: IoctlData, Out: IoctlData>(
        self,
        code: IoctlCode<In, Out>,
        action: impl FnOnce(In) -> Result<Out>,
    ) -> Offer<K> {
        Offer::Declined(self).on(code, action)
    }

    /// As [`on`](Self::on), for an answer that comes later.
    pub fn on_request<In: IoctlData, Out: IoctlData>(
        self,
        code: IoctlCode<In, Out>,
        action: impl FnOnce(In, TypedRequest<Out, K>),
    ) -> Offer<K> {
        Offer::Declined(self).on_request(code, action)
    }

    /// As [`on_request`](Self::on_request), for a code with a direct buffer.
    pub fn on_direct<In: IoctlData, D: Direction>(
        self,
        code: DirectIoctlCode<In, D>,
        action: impl FnOnce(In, DirectRequest<D, K>),
    ) -> Offer<K> {
        Offer::Declined(self).on_direct(code, action)
    }
}

impl<K: Kind> Drop for Request<K> {
    fn drop(&mut self) {
        finish(self.raw, NtStatus::CANCELLED, 0);
    }
}

impl<K: Kind> fmt::Debug for Request<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

/// Completes a request whose owner gave it up.
fn finish(request: sys::WDFREQUEST, status: NtStatus, information: usize) {
    // `as`: `ULONG_PTR` and `usize` are both as wide as a pointer.
    // SAFETY: the request was a `Request`'s, which gave it up for this.
    unsafe {
        sys::kmdf::WdfRequestCompleteWithInformation(request, status.to_raw(), information as _);
    };
}

/// Which request: equal only for one and the same, as long as it is not completed.
///
/// C counterpart: the value of a [`WDFREQUEST`][ms], to compare.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-request-objects
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(usize);

impl RequestId {
    pub(crate) fn of(request: sys::WDFREQUEST) -> Self {
        Self(request.addr())
    }
}

/// A request that a call did not take, and why. Dropping it completes the
/// request with that status; so does turning it into an [`NtStatus`] by `?`.
///
/// No C counterpart: there a request whose forwarding failed is easily forgotten.
#[must_use = "dropping it completes the request with the status"]
pub struct Refused<K: Kind> {
    request: Option<Request<K>>,
    status: NtStatus,
}

impl<K: Kind> Refused<K> {
    pub(crate) const fn new(request: Request<K>, status: NtStatus) -> Self {
        Self {
            request: Some(request),
            status,
        }
    }

    /// Why.
    pub const fn status(&self) -> NtStatus {
        self.status
    }

    /// The request, to do something else with.
    pub fn into_request(mut self) -> Option<Request<K>> {
        self.request.take()
    }
}

impl<K: Kind> Drop for Refused<K> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            request.complete(Err(self.status));
        }
    }
}

impl<K: Kind> From<Refused<K>> for NtStatus {
    fn from(refused: Refused<K>) -> Self {
        refused.status
    }
}

impl<K: Kind> fmt::Debug for Refused<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// What a hook does with a request: takes it, or gives it back so that the
/// next one is asked.
///
/// There is no way to say "handled" and leave the request with the framework,
/// nor to decline it and keep it.
///
/// C counterpart: the `BOOLEAN` of [`ModuleQueueIoRead`][dmf] and its like.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[must_use = "a request that is declined goes to the next module or the device"]
#[derive(Debug)]
pub enum Offer<K: Kind> {
    /// The request is no longer the framework's business.
    Handled,
    /// Not mine.
    Declined(Request<K>),
}

impl<K: ControlKind> Offer<K> {
    /// Handles the request if it has this code and nobody has handled it yet:
    /// `action` gets the input, and what it returns completes the request.
    ///
    /// Buffers that are too short complete it with `STATUS_BUFFER_TOO_SMALL`;
    /// `action` is not called then. A driver that is built with
    /// `DMF_TRACE=debug` prints which, and by how much.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    pub fn on<In: IoctlData, Out: IoctlData>(
        self,
        code: IoctlCode<In, Out>,
        action: impl FnOnce(In) -> Result<Out>,
    ) -> Self {
        self.on_request(code, |input, request| request.complete(action(input)))
    }

    /// As [`on`](Self::on), for an answer that comes later: `action` gets the
    /// request.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    pub fn on_request<In: IoctlData, Out: IoctlData>(
        self,
        code: IoctlCode<In, Out>,
        action: impl FnOnce(In, TypedRequest<Out, K>),
    ) -> Self {
        self.on_code(code.value(), In::SIZE, Out::SIZE, |request| {
            match request.input().map(In::get) {
                Ok(input) => action(input, TypedRequest(request, PhantomData)),
                Err(status) => request.complete(Err(status)),
            }
        })
    }

    /// As [`on_request`](Self::on_request), for a code with a direct buffer.
    /// Its length is the caller's choice.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    pub fn on_direct<In: IoctlData, D: Direction>(
        self,
        code: DirectIoctlCode<In, D>,
        action: impl FnOnce(In, DirectRequest<D, K>),
    ) -> Self {
        self.on_code(code.value(), In::SIZE, 0, |request| {
            match request.input().map(In::get) {
                Ok(input) => action(input, DirectRequest(request, PhantomData)),
                Err(status) => request.complete(Err(status)),
            }
        })
    }

    /// Handles the request if it has this code, and completes it if a buffer is
    /// too short.
    fn on_code(
        self,
        code: u32,
        input: usize,
        output: usize,
        action: impl FnOnce(Request<K>),
    ) -> Self {
        match self {
            Self::Declined(request) if request.parameters.code == code => {
                let Control {
                    input: given,
                    output: taken,
                    ..
                } = request.parameters;
                if given < input || taken < output {
                    crate::debug!(
                        "IOCTL {code:#010x}: input {given} bytes of {input}, output {taken} bytes of {output}"
                    );
                    request.complete(Err(NtStatus::BUFFER_TOO_SMALL));
                } else {
                    action(request);
                }
                Self::Handled
            }
            other => other,
        }
    }
}

/// An IOCTL whose answer is an `Out`.
///
/// No C counterpart: there the output buffer's pointer is cast.
///
/// # Invariants
/// The output buffer is at least `Out::SIZE` long.
#[derive(Debug)]
#[must_use = "dropping a request completes it with STATUS_CANCELLED"]
pub struct TypedRequest<Out, K: ControlKind = Ioctl>(Request<K>, PhantomData<fn(Out)>);

impl<Out: IoctlData, K: ControlKind> TypedRequest<Out, K> {
    /// Completes the request with the answer, or with a status and none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    pub fn complete(mut self, result: Result<Out>) {
        let result = result.and_then(|out| {
            let output = self.0.output()?;
            if output.len() < Out::SIZE {
                return Err(NtStatus::BUFFER_TOO_SMALL);
            }
            out.put(output);
            Ok(Out::SIZE)
        });
        self.0.complete(result);
    }

    /// The request without its type, to forward it or to keep it.
    pub fn into_untyped(self) -> Request<K> {
        self.0
    }
}

/// An IOCTL with a direct buffer in the direction `D`.
///
/// C counterpart: a request for which [`WdfRequestRetrieveOutputWdmMdl`][ms] succeeds.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputwdmmdl
#[derive(Debug)]
#[must_use = "dropping a request completes it with STATUS_CANCELLED"]
pub struct DirectRequest<D: Direction, K: ControlKind = Ioctl>(Request<K>, PhantomData<fn(D)>);

impl<D: Direction, K: ControlKind> DirectRequest<D, K> {
    /// The caller's pages: a [`DirectInput`] or a [`DirectOutput`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if they cannot be mapped.
    pub fn buffer(&self) -> Result<D::Buffer<'_>> {
        D::buffer(&self.0)
    }

    /// Completes the request: `Ok` with the number of bytes that were
    /// transferred, or with a status and none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    pub fn complete(self, result: Result<usize>) {
        self.0.complete(result);
    }

    /// The request without its type, to forward it or to keep it.
    pub fn into_untyped(self) -> Request<K> {
        self.0
    }
}

/// Who made a request.
///
/// C counterpart: the `KPROCESSOR_MODE` of [`WdfRequestGetRequestorMode`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestgetrequestormode
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requestor {
    /// A program.
    User,
    /// Another driver.
    Kernel,
}

/// A request that the driver keeps and its caller may cancel.
///
/// Who cancels needs the driver for nothing: the framework completes the
/// request with `STATUS_CANCELLED` at once, and [`take`](Self::take) says so
/// afterwards. Whoever gets the [`Request`] from `take` is its only owner.
///
/// Dropping it takes the request and drops that.
///
/// # The race
///
/// In C, `EvtRequestCancel` and the code that wants to complete the request
/// must agree on who completes it, and the loser must not touch it. Here each
/// of the two announces itself in one atomic byte:
///
/// ```text
///   take()                                   EvtRequestCancel
///   swap(TAKING) → MARKED
///   WdfRequestUnmarkCancelable: success                          → the taker owns it
///
///   swap(TAKING) → MARKED
///                                            swap(CANCELED) → TAKING, leaves it to the taker
///   Unmark: STATUS_CANCELLED
///   swap(LOST) → CANCELED: completes it                          → cancelled, by the taker
///
///   swap(TAKING) → MARKED
///   Unmark: STATUS_CANCELLED
///   swap(LOST) → TAKING: leaves it to the routine
///                                            swap(CANCELED) → LOST: completes it
///
///                                            swap(CANCELED) → MARKED: completes it
///   swap(TAKING) → CANCELED: does not touch it                   → cancelled
/// ```
///
/// So the later of the two completes the request, and nobody unmarks one that
/// is completed. A reference keeps the byte until both are done.
///
/// Completing the request without taking it does not compile:
///
/// ```compile_fail,E0599
/// use dmf::wdf::{Cancelable, Read};
///
/// fn refused(parked: Cancelable<Read>) {
///     parked.complete(Ok(0));
/// }
/// ```
///
/// See [Synchronizing cancel and completion code][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/synchronizing-cancel-and-completion-code
///
/// # Invariants
/// `raw` is referenced by this value, was marked cancelable, and only
/// `take` unmarks it.
#[must_use = "dropping it takes the request back and completes it with STATUS_CANCELLED"]
pub struct Cancelable<K: Kind> {
    raw: sys::WDFREQUEST,
    parameters: K::Parameters,
    io_type: IoType,
    cleared: bool,
    kind: PhantomData<K>,
}

// SAFETY: as for `Request`.
unsafe impl<K: Kind> Send for Cancelable<K> {}
// SAFETY: as for `Request`.
unsafe impl<K: Kind> Sync for Cancelable<K> {}

/// What [`Cancelable::take`] finds.
///
/// C counterpart: the statuses of [`WdfRequestUnmarkCancelable`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestunmarkcancelable
#[derive(Debug)]
#[must_use]
pub enum Taken<K: Kind> {
    /// The request is the driver's alone again.
    Request(Request<K>),
    /// The caller has cancelled it; it is completed.
    Canceled,
}

impl<K: Kind> Cancelable<K> {
    /// Takes the request back, unless it was cancelled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfRequestUnmarkCancelable`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestunmarkcancelable
    pub fn take(self) -> Taken<K> {
        let this = ManuallyDrop::new(self);
        // SAFETY: the invariant, and `this` is not used any more.
        if unsafe { unmark(this.raw) } {
            // INVARIANT: unmarked, so nobody else completes it.
            Taken::Request(Request {
                raw: this.raw,
                parameters: this.parameters,
                io_type: this.io_type,
                cleared: this.cleared,
                kind: PhantomData,
            })
        } else {
            Taken::Canceled
        }
    }

    /// Which request this is.
    #[must_use]
    pub fn id(&self) -> RequestId {
        RequestId(self.raw.addr())
    }

    /// Whether the caller has cancelled the request.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        // SAFETY: the invariant; a referenced request has its contexts.
        let state = unsafe { CancelState::of_marked(self.raw) };
        state.0.load(Ordering::Relaxed) == CancelState::CANCELED
    }
}

impl<K: Kind> Drop for Cancelable<K> {
    fn drop(&mut self) {
        // SAFETY: the invariant, and `self` is not used any more.
        if unsafe { unmark(self.raw) } {
            finish(self.raw, NtStatus::CANCELLED, 0);
        }
    }
}

impl<K: Kind> fmt::Debug for Cancelable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelable")
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

/// How far the race between taking and cancelling is: a context of each request
/// that was ever marked.
#[repr(transparent)]
struct CancelState(AtomicU8);

static CANCEL: ContextInfo = ContextInfo::new::<CancelState>(c"dmf::Cancel", &CANCEL);

impl CancelState {
    /// Neither has announced itself.
    const MARKED: u8 = 0;
    /// The taker is about to unmark.
    const TAKING: u8 = 1;
    /// The taker came too late.
    const LOST: u8 = 2;
    /// The cancel routine was here.
    const CANCELED: u8 = 3;

    /// The state of a request, made if it has none yet.
    ///
    /// # Safety
    /// The request is valid for `'a`.
    unsafe fn of_request<'a>(request: sys::WDFREQUEST) -> Result<&'a Self> {
        let mut attributes = attributes(&CANCEL, no_handle());
        let mut context = ptr::null_mut();
        // SAFETY: the caller's promise, and the structures are valid for the call.
        let status = NtStatus::from_raw(unsafe {
            sys::kmdf::WdfObjectAllocateContext(
                request.cast(),
                &raw mut attributes,
                &raw mut context,
            )
        });
        // `STATUS_OBJECT_NAME_EXISTS`, a success: marked before.
        status.into_result()?;
        // SAFETY: the request has this context now. All zeros is `MARKED`.
        Ok(unsafe { Self::of_marked(request) })
    }

    /// # Safety
    /// The request is valid for `'a` and has this context.
    unsafe fn of_marked<'a>(request: sys::WDFREQUEST) -> &'a Self {
        // SAFETY: the caller's promise.
        let state = unsafe { CANCEL.of::<Self>(request.cast()) };
        // SAFETY: the caller's promise; KMDF zeroes contexts, and zero is a state.
        unsafe { state.as_ref() }
    }
}

/// Takes a marked request back and gives up the reference. False if it was
/// cancelled; then it is, or will be, completed.
///
/// # Safety
/// The request is a `Cancelable`'s that is not used any more.
unsafe fn unmark(request: sys::WDFREQUEST) -> bool {
    // SAFETY: the caller's promise: referenced and marked.
    let state = unsafe { CancelState::of_marked(request) };
    // AcqRel in both: what each side did before happens before the other completes.
    let owned = if state.0.swap(CancelState::TAKING, Ordering::AcqRel) == CancelState::MARKED {
        // SAFETY: the cancel routine, if it comes, now leaves the completion to
        // this function, so the request is not completed yet.
        let status = NtStatus::from_raw(unsafe { sys::kmdf::WdfRequestUnmarkCancelable(request) });
        if status.is_success() {
            true
        } else {
            if state.0.swap(CancelState::LOST, Ordering::AcqRel) == CancelState::CANCELED {
                finish(request, NtStatus::CANCELLED, 0);
            }
            false
        }
    } else {
        false
    };
    // SAFETY: the `Cancelable`'s count.
    unsafe { dereference(request.cast()) };
    owned
}

callback! {
    /// The cancel routine of every [`Cancelable`].
    unsafe fn evt_cancel(request: sys::WDFREQUEST) {
        // SAFETY: KMDF calls this for requests that were marked.
        let state = unsafe { CancelState::of_marked(request) };
        match state.0.swap(CancelState::CANCELED, Ordering::AcqRel) {
            CancelState::MARKED | CancelState::LOST => finish(request, NtStatus::CANCELLED, 0),
            // The taker finds `CANCELED` and completes it.
            _ => {}
        }
    }
}

/// # Safety
/// The object is valid.
unsafe fn reference(object: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    unsafe { sys::kmdf::WdfObjectReferenceActual(object, ptr::null_mut(), 0, ptr::null()) };
}

/// # Safety
/// The object is valid and the count is the caller's.
unsafe fn dereference(object: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    unsafe { sys::kmdf::WdfObjectDereferenceActual(object, ptr::null_mut(), 0, ptr::null()) };
}
