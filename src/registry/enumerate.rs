// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is in a key: the keys below it, and its values.
//!
//! KMDF has no functions for this, so the kernel is asked, by the handle that
//! KMDF keeps for the key.

use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;

use super::{Key, ValueType, zeroed};
use crate::pool::Vec;
use crate::status::{NtStatus, Result};
use crate::string::UnicodeString;
use crate::sys;

/// The names of the keys below a key; see [`Key::subkeys`].
///
/// C counterpart: [`ZwEnumerateKey`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwenumeratekey
#[must_use = "an iterator does nothing until it is asked"]
pub struct Subkeys<'k>(pub(super) Entries<'k>);

/// The names and types of the values of a key; see [`Key::values`].
///
/// C counterpart: [`ZwEnumerateValueKey`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwenumeratevaluekey
#[must_use = "an iterator does nothing until it is asked"]
pub struct Values<'k>(pub(super) Entries<'k>);

/// # Invariants
/// `handle` is that of an open key, which `'k` keeps open, as it keeps the level
/// at `PASSIVE_LEVEL`.
pub(super) struct Entries<'k> {
    handle: sys::HANDLE,
    /// The entry to ask for next; none once there are no more.
    next: Option<u32>,
    /// Room for an entry.
    record: Vec<u8>,
    key: PhantomData<&'k Key<'k>>,
}

impl<'k> Entries<'k> {
    pub(super) fn new(key: &'k Key<'_>) -> Self {
        // SAFETY: the key's invariant.
        let handle = unsafe { sys::kmdf::WdfRegistryWdmGetHandle(key.as_raw()) };
        // INVARIANT: KMDF closes the handle with the key.
        Self {
            handle,
            next: Some(0),
            record: Vec::new(),
            key: PhantomData,
        }
    }

    /// Reads the next entry with `read`, which is given the handle, the index, a
    /// buffer, its length and where to put the length that is needed.
    fn advance(
        &mut self,
        read: impl Fn(sys::HANDLE, u32, sys::PVOID, u32, sys::PULONG) -> sys::NTSTATUS,
    ) -> Option<Result<&[u8]>> {
        // None from here on, unless all goes well.
        let index = self.next.take()?;
        loop {
            let room = u32::try_from(self.record.len()).unwrap_or(u32::MAX);
            let mut needed = 0;
            let buffer = self.record.as_mut_ptr().cast();
            match NtStatus::from_raw(read(self.handle, index, buffer, room, &raw mut needed)) {
                NtStatus::NO_MORE_ENTRIES => return None,
                // Somebody may make it longer between two calls; then again.
                NtStatus::BUFFER_OVERFLOW | NtStatus::BUFFER_TOO_SMALL if needed > room => {
                    match zeroed(needed as usize) {
                        Ok(record) => self.record = record,
                        Err(status) => return Some(Err(status)),
                    }
                }
                status if status.is_success() => {
                    self.next = index.checked_add(1);
                    let record = self.record.get(..needed as usize);
                    return Some(record.ok_or(NtStatus::REGISTRY_CORRUPT));
                }
                status => return Some(Err(status)),
            }
        }
    }
}

impl Iterator for Subkeys<'_> {
    type Item = Result<UnicodeString>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.0.advance(|handle, index, buffer, room, needed| {
            let class = sys::_KEY_INFORMATION_CLASS::KeyBasicInformation;
            // SAFETY: the invariant of `Entries`; the buffer has that room, and
            // both pointers are valid for the length of the call.
            unsafe { sys::ntddk::ZwEnumerateKey(handle, index, class, buffer, room, needed) }
        })?;
        Some(record.and_then(|record| {
            let length = offset_of!(sys::KEY_BASIC_INFORMATION, NameLength);
            name(record, length, offset_of!(sys::KEY_BASIC_INFORMATION, Name))
        }))
    }
}

impl Iterator for Values<'_> {
    type Item = Result<(UnicodeString, ValueType)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.0.advance(|handle, index, buffer, room, needed| {
            let class = sys::_KEY_VALUE_INFORMATION_CLASS::KeyValueBasicInformation;
            // SAFETY: the invariant of `Entries`; the buffer has that room, and
            // both pointers are valid for the length of the call.
            unsafe { sys::ntddk::ZwEnumerateValueKey(handle, index, class, buffer, room, needed) }
        })?;
        Some(record.and_then(|record| {
            let kind = number(record, offset_of!(sys::KEY_VALUE_BASIC_INFORMATION, Type))?;
            let length = offset_of!(sys::KEY_VALUE_BASIC_INFORMATION, NameLength);
            let start = offset_of!(sys::KEY_VALUE_BASIC_INFORMATION, Name);
            Ok((name(record, length, start)?, ValueType(kind)))
        }))
    }
}

/// The number at that place of a record.
fn number(record: &[u8], at: usize) -> Result<u32> {
    let bytes = record.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes
        .copied()
        .map(u32::from_le_bytes)
        .ok_or(NtStatus::REGISTRY_CORRUPT)
}

/// The name in a record, whose length in bytes is at `length`.
fn name(record: &[u8], length: usize, start: usize) -> Result<UnicodeString> {
    let length = number(record, length)? as usize;
    let bytes = start
        .checked_add(length)
        .and_then(|end| record.get(start..end))
        .ok_or(NtStatus::REGISTRY_CORRUPT)?;
    let units = super::to_units(bytes)?;
    UnicodeString::from_units(&units)
}

impl fmt::Debug for Subkeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subkeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}
