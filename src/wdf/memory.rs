// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Memory`] and [`Lookaside`]: buffers that are framework objects.

use core::ops::{Deref, DerefMut};
use core::ptr;

use super::object::{Owned, no_handle, plain_attributes, raw_handle};
use crate::pool::TAG;
use crate::status::{NtStatus, Result};
use crate::sys;

/// `NonPagedPoolNx`
const NON_PAGED_NX: sys::POOL_TYPE = 512;

/// A buffer in the non-paged pool with one owner, zeroed, as a slice of bytes.
///
/// Use [`pool::Vec`](crate::pool::Vec) unless something asks for a `WDFMEMORY`:
/// a request to an I/O target, above all.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, _: &mut SelfManagedIoInit<'_>) -> Result {
/// use dmf::wdf::Memory;
///
/// let mut memory = Memory::new(5)?;
/// memory.copy_from_slice(b"hello");
/// assert_eq!(&memory[..4], b"hell");
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// C counterpart: [`WDFMEMORY`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-memory-buffers
///
/// # Invariants
/// `buffer` is the object's buffer of `size` bytes, all written.
pub struct Memory {
    object: Owned,
    buffer: *mut u8,
    size: usize,
}

// SAFETY: the buffer belongs to this value as a plain field would.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

raw_handle!(Memory, WDFMEMORY);

impl Memory {
    /// A buffer of `size` bytes, all zero.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if `size` is 0; `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfMemoryCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfmemory/nf-wdfmemory-wdfmemorycreate
    pub fn new(size: usize) -> Result<Self> {
        let mut attributes = plain_attributes();
        let mut memory = no_handle();
        let mut buffer = ptr::null_mut();
        // SAFETY: the arguments are valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfMemoryCreate(
                &raw mut attributes,
                NON_PAGED_NX,
                TAG,
                size as _,
                &raw mut memory,
                &raw mut buffer,
            )
        })
        .into_result()?;
        // SAFETY: just created, below the driver.
        let object = unsafe { Owned::new(memory.cast()) };
        // SAFETY: the buffer has `size` bytes.
        Ok(unsafe { Self::over(object, buffer.cast(), size) })
    }

    /// Gives up ownership. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> sys::WDFMEMORY {
        self.object.into_raw().cast()
    }

    /// Takes over a memory object.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Safety
    /// The object is valid and its parent is the driver; its buffer is
    /// non-paged and has been written; nobody else deletes it or uses its buffer.
    ///
    /// C counterpart: [`WdfMemoryGetBuffer`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfmemory/nf-wdfmemory-wdfmemorygetbuffer
    #[must_use]
    pub unsafe fn from_raw(memory: sys::WDFMEMORY) -> Self {
        let mut size = 0;
        // SAFETY: the caller's promise.
        let buffer = unsafe { sys::kmdf::WdfMemoryGetBuffer(memory, &raw mut size) };
        // INVARIANT: the caller's promise.
        Self {
            // SAFETY: the caller's promise.
            object: unsafe { Owned::new(memory.cast()) },
            buffer: buffer.cast(),
            #[allow(
                clippy::useless_conversion,
                clippy::unnecessary_cast,
                reason = "a `ULONG_PTR` in one of the two worlds"
            )]
            size: size as usize,
        }
    }

    /// # Safety
    /// `buffer` is the object's buffer of `size` bytes.
    unsafe fn over(object: Owned, buffer: *mut u8, size: usize) -> Self {
        // SAFETY: the caller's promise. What is in a new buffer is undefined.
        unsafe { buffer.write_bytes(0, size) };
        // INVARIANT: just written.
        Self {
            object,
            buffer,
            size,
        }
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the invariant.
        unsafe { core::slice::from_raw_parts(self.buffer, self.size) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.buffer, self.size) }
    }
}

/// A store of buffers of one size: taking and giving back is quicker than the pool.
///
/// Its buffers may outlive it.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, _: &mut SelfManagedIoInit<'_>) -> Result {
/// use dmf::wdf::Lookaside;
///
/// let packets = Lookaside::new(1514)?;
/// let packet = packets.take()?;
/// assert_eq!(packet.len(), 1514);
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// C counterpart: [`WDFLOOKASIDE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-memory-buffers
pub struct Lookaside {
    object: Owned,
    size: usize,
}

raw_handle!(Lookaside, WDFLOOKASIDE);

impl Lookaside {
    /// A store of buffers of `size` bytes.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if `size` is 0; `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfLookasideListCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfmemory/nf-wdfmemory-wdflookasidelistcreate
    pub fn new(size: usize) -> Result<Self> {
        if size == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let mut attributes = plain_attributes();
        let mut list = no_handle();
        // SAFETY: KMDF set the globals before it called DriverEntry.
        let globals = unsafe { sys::WdfDriverGlobals };
        let mut of_memory = plain_attributes();
        // A buffer's parent would else be the list, and it would go with it.
        // SAFETY: as above; the driver object is there while the driver is loaded.
        of_memory.ParentObject = unsafe { (*globals).Driver.cast() };
        // SAFETY: the arguments are valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfLookasideListCreate(
                &raw mut attributes,
                size as _,
                NON_PAGED_NX,
                &raw mut of_memory,
                TAG,
                &raw mut list,
            )
        })
        .into_result()?;
        Ok(Self {
            // SAFETY: just created, below the driver.
            object: unsafe { Owned::new(list.cast()) },
            size,
        })
    }

    /// Gives up ownership. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> sys::WDFLOOKASIDE {
        self.object.into_raw().cast()
    }

    /// Takes over a list of buffers of `size` bytes.
    ///
    /// # Safety
    /// The list is valid and its parent is the driver; its buffers have `size`
    /// bytes, are non-paged, and have the driver for a parent; nobody else
    /// deletes the list.
    #[must_use]
    pub const unsafe fn from_raw(list: sys::WDFLOOKASIDE, size: usize) -> Self {
        Self {
            // SAFETY: the caller's promise.
            object: unsafe { Owned::new(list.cast()) },
            size,
        }
    }

    /// Takes a buffer, zeroed. Dropping it gives it back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfMemoryCreateFromLookaside`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfmemory/nf-wdfmemory-wdfmemorycreatefromlookaside
    pub fn take(&self) -> Result<Memory> {
        let mut memory = no_handle();
        // SAFETY: the list is valid.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfMemoryCreateFromLookaside(self.as_raw(), &raw mut memory)
        })
        .into_result()?;
        // SAFETY: just created, below the driver.
        let object = unsafe { Owned::new(memory.cast()) };
        // SAFETY: the memory is valid; its size is known.
        let buffer = unsafe { sys::kmdf::WdfMemoryGetBuffer(memory, ptr::null_mut()) };
        // SAFETY: the list's buffers have this size.
        Ok(unsafe { Memory::over(object, buffer.cast(), self.size) })
    }
}
