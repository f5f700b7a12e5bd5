// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory from the kernel's non-paged pool: [`Box`], [`Arc`] and [`Vec`] whose
//! allocations can fail, and say so.
//!
//! They resemble those of the standard library, with two differences: each
//! function that allocates returns a [`Result`], and nothing goes through the
//! global allocator. Memory carries the tag [`TAG`] (`DmfR`), by which
//! `!poolused` and Driver Verifier list it.
//!
//! A [`Box`] never moves what it holds, so [`Box::pin`] is where objects live
//! that the kernel links into lists.
//!
//! # IRQL
//! `<= DISPATCH_LEVEL` for all of it.
//!
//! See [`ExAllocatePool2`][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::status::{NtStatus, Result};
use crate::sys;

/// The pool tag of all memory of this crate.
pub const TAG: u32 = u32::from_le_bytes(*b"DmfR");

/// `POOL_FLAG_NON_PAGED`. A macro with a suffix, which bindgen does not translate.
const NON_PAGED: u64 = 0x40;

/// The alignment of each allocation on 64-bit Windows (`MEMORY_ALLOCATION_ALIGNMENT`).
const ALIGNMENT: usize = 16;

/// Allocates zeroed memory for a `T` array of `count`.
fn allocate<T>(count: usize) -> Result<NonNull<T>> {
    const {
        assert!(
            align_of::<T>() <= ALIGNMENT,
            "the pool aligns to 16 bytes; a type that needs more cannot be put there"
        );
    }
    let size = size_of::<T>()
        .checked_mul(count)
        .ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    if size == 0 {
        return Ok(NonNull::dangling());
    }
    // SAFETY: the size is not zero, and the flags ask for one kind of pool.
    let memory = unsafe { sys::ntddk::ExAllocatePool2(NON_PAGED, size as _, TAG) };
    NonNull::new(memory.cast()).ok_or(NtStatus::INSUFFICIENT_RESOURCES)
}

/// Frees what [`allocate`] returned.
///
/// # Safety
/// `memory` came from `allocate::<T>(count)` and is not used any more.
unsafe fn free<T>(memory: NonNull<T>, count: usize) {
    if size_of::<T>() == 0 || count == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { sys::ntddk::ExFreePoolWithTag(memory.as_ptr().cast(), TAG) };
}

/// One owner of a `T` in the non-paged pool.
///
/// Use [`Arc`] where there is more than one owner.
///
/// # Invariants
/// `pointer` came from `allocate(1)`, holds a `T`, and nobody else frees it.
pub struct Box<T>(NonNull<T>, PhantomData<T>);

// SAFETY: a box owns its value as a plain field would.
unsafe impl<T: Send> Send for Box<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Box<T> {}

impl<T> Box<T> {
    /// Moves `value` into the pool.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    pub fn new(value: T) -> Result<Self> {
        let memory = allocate(1)?;
        // SAFETY: the memory is for one `T`.
        unsafe { memory.write(value) };
        // INVARIANT: just allocated and written.
        Ok(Self(memory, PhantomData))
    }

    /// Moves `value` into the pool, where it stays.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn pin(value: T) -> Result<Pin<Self>> {
        Self::new(value).map(Self::into_pin)
    }

    /// The same box, promising that the value does not move any more.
    #[must_use]
    pub fn into_pin(this: Self) -> Pin<Self> {
        // SAFETY: the value is in the pool, and moving the box does not move it.
        unsafe { Pin::new_unchecked(this) }
    }

    /// Moves the value out and frees the memory.
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        let memory = Self::into_raw(this);
        // SAFETY: the invariant; the memory is freed below without dropping the value.
        let value = unsafe { memory.read() };
        // SAFETY: the invariant.
        unsafe { free(memory, 1) };
        value
    }

    /// Gives up ownership. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(this: Self) -> NonNull<T> {
        core::mem::ManuallyDrop::new(this).0
    }

    /// Takes back what [`into_raw`](Self::into_raw) gave up.
    ///
    /// # Safety
    /// `memory` came from `into_raw` of the same type, once.
    #[must_use]
    pub const unsafe fn from_raw(memory: NonNull<T>) -> Self {
        // INVARIANT: the caller's promise.
        Self(memory, PhantomData)
    }
}

impl<T> Deref for Box<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Box<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Box<T> {
    fn drop(&mut self) {
        // SAFETY: the invariant; the value is not used any more.
        unsafe { self.0.drop_in_place() };
        // SAFETY: the invariant.
        unsafe { free(self.0, 1) };
    }
}

impl<T: fmt::Debug> fmt::Debug for Box<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Several owners of a `T` in the non-paged pool; the last one frees it.
///
/// # Invariants
/// The inner box was given up by `Box::into_raw` and lives as long as `count > 0`.
pub struct Arc<T>(NonNull<Shared<T>>, PhantomData<Shared<T>>);

struct Shared<T> {
    count: AtomicUsize,
    value: T,
}

// SAFETY: an owner can get at the value from its thread, and drop it there.
unsafe impl<T: Send + Sync> Send for Arc<T> {}
// SAFETY: as above: a shared owner can be cloned.
unsafe impl<T: Send + Sync> Sync for Arc<T> {}

impl<T> Arc<T> {
    /// Moves `value` into the pool.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    pub fn new(value: T) -> Result<Self> {
        let shared = Box::new(Shared {
            count: AtomicUsize::new(1),
            value,
        })?;
        // INVARIANT: one owner, counted.
        Ok(Self(Box::into_raw(shared), PhantomData))
    }

    fn shared(&self) -> &Shared<T> {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        // Relaxed: the new owner is made from one that keeps the value alive.
        self.shared().count.fetch_add(1, Ordering::Relaxed);
        Self(self.0, PhantomData)
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.shared().value
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        // Release: what this owner did happens before the value is dropped.
        if self.shared().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: this was the last owner, so the box is taken back once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl<T: fmt::Debug> fmt::Debug for Arc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A growable array in the non-paged pool. Dereferences to a slice.
///
/// # Invariants
/// `memory` came from `allocate(capacity)`, and its first `length` elements hold a `T`.
pub struct Vec<T> {
    memory: NonNull<T>,
    capacity: usize,
    length: usize,
    owns: PhantomData<T>,
}

// SAFETY: a vector owns its values as plain fields would.
unsafe impl<T: Send> Send for Vec<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Vec<T> {}

impl<T> Vec<T> {
    /// An empty array. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        // INVARIANT: nothing was allocated.
        Self {
            memory: NonNull::dangling(),
            capacity: 0,
            length: 0,
            owns: PhantomData,
        }
    }

    /// An empty array with room for `capacity` elements.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much.
    pub fn with_capacity(capacity: usize) -> Result<Self> {
        let memory = allocate(capacity)?;
        // INVARIANT: just allocated; no elements.
        Ok(Self {
            memory,
            capacity,
            length: 0,
            owns: PhantomData,
        })
    }

    /// Adds an element at the end.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the array is full and the pool does
    /// not have a larger one; `value` is dropped and the array stays as it was.
    pub fn push(&mut self, value: T) -> Result {
        if self.length == self.capacity {
            self.grow()?;
        }
        // SAFETY: `length < capacity`.
        let end = unsafe { self.memory.add(self.length) };
        // SAFETY: the element has room for a `T` and holds none.
        unsafe { end.write(value) };
        self.length += 1;
        Ok(())
    }

    /// Doubles the room.
    fn grow(&mut self) -> Result {
        let capacity = self
            .capacity
            .max(2)
            .checked_mul(2)
            .ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        let memory = allocate::<T>(capacity)?;
        // SAFETY: both have room for `length` elements and do not overlap.
        unsafe { memory.copy_from_nonoverlapping(self.memory, self.length) };
        // SAFETY: the invariant; the elements have moved out.
        unsafe { free(self.memory, self.capacity) };
        self.memory = memory;
        self.capacity = capacity;
        Ok(())
    }

    /// Removes the last element.
    pub fn pop(&mut self) -> Option<T> {
        self.length = self.length.checked_sub(1)?;
        // SAFETY: the element was within `length`.
        let end = unsafe { self.memory.add(self.length) };
        // SAFETY: it held a `T`, and is now beyond `length`.
        Some(unsafe { end.read() })
    }
}

impl<T> Default for Vec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Vec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the invariant.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Vec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl<T> Drop for Vec<T> {
    fn drop(&mut self) {
        // Last first, as everything here is taken down.
        while self.pop().is_some() {}
        // SAFETY: the invariant; no elements are left.
        unsafe { free(self.memory, self.capacity) };
    }
}

impl<T: fmt::Debug> fmt::Debug for Vec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
