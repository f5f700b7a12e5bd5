// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caller's own pages: [`DirectInput`], [`DirectOutput`], and the [`Mdl`]
//! that describes them.
//!
//! With buffered I/O the system copies a request's bytes, and the driver has
//! them as a slice. With *direct* I/O ([`IoType::Direct`](super::IoType),
//! [`Method::InDirect`](crate::ioctl::Method), [`Method::OutDirect`](crate::ioctl::Method))
//! it works on the pages of the caller, who may read and write them at any
//! time. A slice promises that nobody does, so there is none: bytes are copied
//! to and from memory of the driver, each once. What a driver checks it must
//! check in its copy.
//!
//! ```text
//!                     input()     output()    direct_input()  direct_output()
//!   buffered read                 &mut [u8]
//!   buffered write    &[u8]
//!   direct read                                               DirectOutput
//!   direct write                              DirectInput
//!   METHOD_BUFFERED   &[u8]       &mut [u8]
//!   METHOD_IN_DIRECT  &[u8]                   DirectInput
//!   METHOD_OUT_DIRECT &[u8]                                   DirectOutput
//!   METHOD_NEITHER
//! ```
//!
//! What is not in the table is refused with `STATUS_INVALID_DEVICE_REQUEST`.
//! `METHOD_NEITHER` is refused altogether: its addresses mean something only in
//! the process of the caller, and only as long as that process leaves them.
//!
//! ```
//! use dmf::ioctl::{Access, DeviceType, DirectIoctlCode, FromCaller};
//! use dmf::prelude::*;
//! use dmf::wdf::*;
//!
//! /// Draws a picture, which is as large as the caller's buffer.
//! const DRAW: DirectIoctlCode<u32, FromCaller> =
//!     DirectIoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Write);
//!
//! # dmf::driver!(Screen);
//! struct Screen;
//!
//! impl Device for Screen {
//!     fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
//!         Ok(init.io_type(IoType::Direct))
//!     }
//!
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         add.default_queue(DefaultQueue::parallel())?;
//!         Ok(Screen)
//!     }
//!
//!     fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
//!         let result = request.direct_output().and_then(|pages| {
//!             let dark = [0; 64];
//!             for at in (0..pages.len()).step_by(dark.len()) {
//!                 pages.copy_from(at, &dark[..dark.len().min(pages.len() - at)])?;
//!             }
//!             Ok(pages.len())
//!         });
//!         request.complete(result);
//!         Offer::Handled
//!     }
//!
//!     fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
//!         request.on_direct(DRAW, |_line, request| {
//!             let mut first = [0; 2];
//!             let result = request.buffer().and_then(|pages| pages.copy_to(0, &mut first));
//!             request.complete(result.map(|()| 0));
//!         })
//!     }
//! }
//! # ntsim::run_driver(Screen::DRIVER_ENTRY, |machine, device| {
//! #     let file = machine.open(device).unwrap();
//! #     assert_eq!(machine.read(file, 1000).unwrap().data, [0; 1000]);
//! #     let draw = |machine: &mut ntsim::Machine, bytes: &[u8]| {
//! #         let sent = machine.begin_ioctl_with(file, DRAW.value(), &[0; 4], bytes).unwrap();
//! #         machine.wait(sent, Duration::ZERO).unwrap().unwrap().status
//! #     };
//! #     assert_eq!(draw(machine, &[1, 2, 3]), 0);
//! #     assert_eq!(draw(machine, &[1]), NtStatus::BUFFER_TOO_SMALL.to_raw().cast_unsigned());
//! #     machine.close(file).unwrap();
//! # });
//! ```
//!
//! A view cannot be kept after the request is completed:
//!
//! ```compile_fail,E0505
//! use dmf::prelude::*;
//! use dmf::wdf::{Read, Request};
//!
//! fn refused(request: Request<Read>) -> Result {
//!     let output = request.direct_output()?;
//!     request.complete(Ok(1));
//!     output.copy_from(0, &[1]) // unlocked by now
//! }
//! ```
//!
//! Nor is there a way to write to what the caller only lets the driver read:
//!
//! ```compile_fail,E0599
//! use dmf::prelude::*;
//! use dmf::wdf::{Request, Write};
//!
//! fn refused(request: &Request<Write>) -> Result {
//!     request.direct_input()?.copy_from(0, &[1])
//! }
//! ```
//!
//! See [Accessing data buffers][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/accessing-data-buffers-in-wdf-drivers

use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

use super::object::no_handle;
use crate::status::{NtStatus, Result};
use crate::sys;

/// Which of a request's two buffers.
///
/// C counterpart: the choice of [`WdfRequestRetrieveInputWdmMdl`][ms] or
/// `WdfRequestRetrieveOutputWdmMdl`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveinputwdmmdl
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    Input,
    /// The second.
    Output,
}

/// Where one of a request's buffers is, and how long.
///
/// # Safety
/// The request is valid and the driver's.
///
/// # Errors
/// KMDF's; `STATUS_BUFFER_TOO_SMALL` for an empty one.
pub(super) unsafe fn retrieve(request: sys::WDFREQUEST, side: Side) -> Result<(*mut u8, usize)> {
    let mut buffer = ptr::null_mut();
    let mut length = 0;
    NtStatus::from_raw(match side {
        // SAFETY: the caller's promise, and both are written for the length of the call.
        Side::Input => unsafe {
            sys::kmdf::WdfRequestRetrieveInputBuffer(request, 1, &raw mut buffer, &raw mut length)
        },
        // SAFETY: as above.
        Side::Output => unsafe {
            sys::kmdf::WdfRequestRetrieveOutputBuffer(request, 1, &raw mut buffer, &raw mut length)
        },
    })
    .into_result()?;
    Ok((buffer.cast(), length))
}

/// Pages that others change at will.
///
/// # Invariants
/// The memory of `bytes` is mapped for `'a`, and this program touches it
/// through atomics only. `request` is the driver's for `'a`, or null if there
/// are no bytes.
#[derive(Clone, Copy)]
struct View<'a> {
    // Relaxed atomics, not volatile accesses: two threads of the driver may use
    // views of one request at the same time.
    bytes: &'a [AtomicU8],
    request: sys::WDFREQUEST,
    side: Side,
}

// SAFETY: any thread may use a request's buffers and ask KMDF about it.
unsafe impl Send for View<'_> {}
// SAFETY: as above; accesses to the bytes are atomic.
unsafe impl Sync for View<'_> {}

impl View<'_> {
    /// The pages of a request.
    ///
    /// # Safety
    /// The request is the driver's for the lifetime, and this side of it is
    /// direct.
    unsafe fn of(request: sys::WDFREQUEST, side: Side, length: usize) -> Result<Self> {
        if length == 0 {
            return Ok(Self {
                bytes: &[],
                request: no_handle(),
                side,
            });
        }
        // SAFETY: the caller's promise.
        let (buffer, length) = unsafe { retrieve(request, side) }?;
        // INVARIANT: KMDF has mapped the pages until the request is completed,
        // and only this type gives access to them.
        Ok(Self {
            // SAFETY: mapped memory of this length. An `AtomicU8` has the
            // layout of a byte and may change behind a shared reference.
            bytes: unsafe { core::slice::from_raw_parts(buffer.cast(), length) },
            request,
            side,
        })
    }

    fn part(&self, offset: usize, length: usize) -> Result<&[AtomicU8]> {
        offset
            .checked_add(length)
            .and_then(|end| self.bytes.get(offset..end))
            .ok_or_else(|| {
                crate::debug!(
                    "a direct buffer of {} bytes has none at {offset}..+{length}",
                    self.bytes.len()
                );
                NtStatus::BUFFER_TOO_SMALL
            })
    }

    fn copy_to(&self, offset: usize, to: &mut [u8]) -> Result {
        for (byte, to) in self.part(offset, to.len())?.iter().zip(to) {
            *to = byte.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn copy_from(&self, offset: usize, from: &[u8]) -> Result {
        for (byte, from) in self.part(offset, from.len())?.iter().zip(from) {
            byte.store(*from, Ordering::Relaxed);
        }
        Ok(())
    }
}

macro_rules! views {
    ($($(#[$meta:meta])* $name:ident)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub struct $name<'a>(View<'a>);

        impl<'a> $name<'a> {
            /// # Safety
            /// The request is the driver's for `'a`, and this side of it is
            /// direct, in this direction.
            pub(super) unsafe fn of(
                request: sys::WDFREQUEST,
                side: Side,
                length: usize,
            ) -> Result<Self> {
                // SAFETY: the caller's promise.
                Ok(Self(unsafe { View::of(request, side, length) }?))
            }

            /// How many bytes there are.
            #[must_use]
            pub const fn len(self) -> usize {
                self.0.bytes.len()
            }

            /// Whether there are none.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0.bytes.is_empty()
            }

            /// Copies bytes from `offset` on into memory of the driver.
            ///
            /// Bytes that the caller changes meanwhile arrive old or new, each
            /// by itself.
            ///
            /// # IRQL
            /// `<= DISPATCH_LEVEL`
            ///
            /// # Errors
            /// `STATUS_BUFFER_TOO_SMALL` if there are not so many; nothing is
            /// copied then.
            pub fn copy_to(self, offset: usize, to: &mut [u8]) -> Result {
                self.0.copy_to(offset, to)
            }

            /// The description of the pages, for DMA and for other drivers.
            ///
            /// # IRQL
            /// `<= DISPATCH_LEVEL`
            ///
            /// # Errors
            /// `STATUS_BUFFER_TOO_SMALL` if there are no bytes;
            /// `STATUS_INSUFFICIENT_RESOURCES`.
            ///
            /// C counterpart: [`WdfRequestRetrieveInputWdmMdl`][in] and
            /// [`WdfRequestRetrieveOutputWdmMdl`][out].
            ///
            /// [in]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveinputwdmmdl
            /// [out]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputwdmmdl
            pub fn mdl(self) -> Result<Mdl<'a>> {
                Mdl::of(&self.0)
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("len", &self.len())
                    .finish()
            }
        }
    )*};
}

views! {
    /// Pages of the caller that the driver may read: of a direct write, or the
    /// second buffer of [`Method::InDirect`](crate::ioctl::Method::InDirect).
    DirectInput
    /// Pages of the caller that the driver may read and write: of a direct
    /// read, or the second buffer of [`Method::OutDirect`](crate::ioctl::Method::OutDirect).
    ///
    /// What the driver writes is there at once, whatever the request's status
    /// says later.
    DirectOutput
}

impl DirectOutput<'_> {
    /// Copies bytes of the driver to `offset`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_BUFFER_TOO_SMALL` if there is not so much room; nothing is
    /// copied then.
    pub fn copy_from(self, offset: usize, from: &[u8]) -> Result {
        self.0.copy_from(offset, from)
    }
}

/// A list of locked pages.
///
/// C counterpart: [`MDL`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/using-mdls
///
/// # Invariants
/// `raw` is valid for `'a`.
#[derive(Clone, Copy)]
pub struct Mdl<'a> {
    raw: sys::PMDL,
    life: PhantomData<&'a ()>,
}

impl<'a> Mdl<'a> {
    fn of(view: &View<'a>) -> Result<Self> {
        if view.bytes.is_empty() {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        let mut raw = ptr::null_mut();
        NtStatus::from_raw(match view.side {
            // SAFETY: the view's invariant, and the pointer is for the length of the call.
            Side::Input => unsafe {
                sys::kmdf::WdfRequestRetrieveInputWdmMdl(view.request, &raw mut raw)
            },
            // SAFETY: as above.
            Side::Output => unsafe {
                sys::kmdf::WdfRequestRetrieveOutputWdmMdl(view.request, &raw mut raw)
            },
        })
        .into_result()?;
        // INVARIANT: KMDF keeps the list until the request is completed.
        Ok(Self {
            raw,
            life: PhantomData,
        })
    }

    /// How many bytes it describes.
    ///
    /// C counterpart: `MmGetMdlByteCount`.
    #[must_use]
    pub fn byte_count(self) -> usize {
        // SAFETY: the invariant.
        let count = unsafe { (*self.raw).ByteCount };
        count as usize
    }

    /// Where in its page the first byte is.
    ///
    /// C counterpart: `MmGetMdlByteOffset`.
    #[must_use]
    pub fn byte_offset(self) -> usize {
        // SAFETY: the invariant.
        let offset = unsafe { (*self.raw).ByteOffset };
        offset as usize
    }

    /// The pointer, for code of the driver that calls the kernel itself.
    #[must_use]
    pub const fn as_raw(self) -> sys::PMDL {
        self.raw
    }
}

impl fmt::Debug for Mdl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mdl")
            .field("byte_count", &self.byte_count())
            .finish_non_exhaustive()
    }
}
