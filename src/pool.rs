// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory from the kernel's pools: [`Box`], [`Arc`] and [`Vec`], [`PagedBox`]
//! and [`PagedVec`], whose allocations can fail, and say so.
//!
//! They resemble those of the standard library, with two differences: each
//! function that allocates returns a [`Result`], and nothing goes through the
//! global allocator.
//!
//! | | pool | used and dropped at |
//! |---|---|---|
//! | [`Box`], [`Arc`], [`Vec`] | non-paged | `<= DISPATCH_LEVEL` |
//! | [`PagedBox`], [`PagedVec`] | paged: the memory manager may write it to disk | `<= APC_LEVEL` |
//!
//! # Tags
//!
//! Each block has a four-character tag, by which `!poolused` and Driver Verifier
//! list it. It is [`DmfTag`] (`DmfR`) unless the type names another:
//!
//! ```
//! use dmf::pool::{Box, Tag, tag};
//!
//! /// What the sensor's readings are listed under.
//! struct Readings;
//! impl Tag for Readings {
//!     const TAG: u32 = tag(b"SnsR");
//! }
//!
//! # ntsim::run(|| {
//! let readings: Box<[u16; 32], Readings> = Box::new_tagged([0; 32])?;
//! # Ok::<_, dmf::NtStatus>(())
//! # }).unwrap();
//! ```
//!
//! # Alignment
//!
//! The pool aligns to 16 bytes. For a type that needs more, a larger block is
//! taken and the value lies aligned within.
//!
//! A [`Box`] never moves what it holds, so [`Box::pin`] is where objects live
//! that the kernel links into lists.
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

use crate::irql::{Apc, AtMostApc, Irql, Level, assert_at_most};
use crate::status::{NtStatus, Result};
use crate::sys;

/// The pool tag of memory that has no other.
pub const TAG: u32 = tag(b"DmfR");

/// A pool tag, as a type.
///
/// C counterpart: the `Tag` of [`ExAllocatePool2`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2
pub trait Tag: 'static {
    /// The four characters, as [`tag`] makes a number of them.
    const TAG: u32;
}

/// The tag of memory that has no other: [`TAG`], `DmfR`.
///
/// No C counterpart.
#[derive(Debug)]
pub enum DmfTag {}

impl Tag for DmfTag {
    const TAG: u32 = TAG;
}

/// The number of a tag's four characters, which have to be visible ASCII.
///
/// In a constant, others fail to compile:
///
/// ```compile_fail,E0080
/// const TAG: u32 = dmf::pool::tag(b"A\x00\x00\x00");
/// ```
///
/// # Panics
/// If a character is not visible ASCII: the kernel refuses a tag of zero, and
/// tools cannot show others.
#[must_use]
pub const fn tag(characters: &[u8; 4]) -> u32 {
    let mut at = 0;
    while at < 4 {
        assert!(
            characters[at] >= b' ' && characters[at] < 0x7F,
            "a pool tag is four visible ASCII characters"
        );
        at += 1;
    }
    u32::from_le_bytes(*characters)
}

/// `POOL_FLAG_NON_PAGED`. A macro with a suffix, which bindgen does not translate.
const NON_PAGED: u64 = 0x40;
/// `POOL_FLAG_PAGED`.
const PAGED: u64 = 0x100;

/// The alignment of each allocation on 64-bit Windows (`MEMORY_ALLOCATION_ALIGNMENT`).
const ALIGNMENT: usize = 16;

/// Allocates zeroed memory for a `T` array of `count` in the pool of `flags`.
///
/// For a `T` of more than the pool's alignment the block's address is kept
/// right before the array.
fn allocate<T, G: Tag>(flags: u64, count: usize) -> Result<NonNull<T>> {
    let size = size_of::<T>()
        .checked_mul(count)
        .ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    if size == 0 {
        return Ok(NonNull::dangling());
    }
    let align = align_of::<T>();
    let extra = if align > ALIGNMENT { align } else { 0 };
    let size = size
        .checked_add(extra)
        .ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    // SAFETY: the size is not zero, and the flags ask for one kind of pool.
    let block = unsafe { sys::ntddk::ExAllocatePool2(flags, size as _, G::TAG) };
    let block = NonNull::new(block).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    if extra == 0 {
        return Ok(block.cast());
    }
    // At least 16, because the block is aligned to that, and at most `extra`.
    let offset = align - block.addr().get() % align;
    // SAFETY: within the block, which is `extra` larger than the array.
    let array: NonNull<T> = unsafe { block.byte_add(offset) }.cast();
    // SAFETY: at least 16 bytes of the block lie before the array.
    let keep = unsafe { array.byte_sub(ALIGNMENT) }.cast();
    // SAFETY: as above, and aligned to 16 as the array is.
    unsafe { keep.write(block) };
    Ok(array)
}

/// Frees what [`allocate`] returned.
///
/// # Safety
/// `memory` came from `allocate::<T, G>(_, count)` and is not used any more.
unsafe fn free<T, G: Tag>(memory: NonNull<T>, count: usize) {
    if size_of::<T>() == 0 || count == 0 {
        return;
    }
    let mut block: NonNull<core::ffi::c_void> = memory.cast();
    if align_of::<T>() > ALIGNMENT {
        // SAFETY: the block's address is right before the array.
        let keep = unsafe { memory.byte_sub(ALIGNMENT) }.cast();
        // SAFETY: `allocate` wrote it.
        block = unsafe { keep.read() };
    }
    // SAFETY: the caller's promise.
    unsafe { sys::ntddk::ExFreePoolWithTag(block.as_ptr().cast(), G::TAG) };
}

/// One owner of a `T` in the non-paged pool.
///
/// Use [`Arc`] where there is more than one owner, [`PagedBox`] for what is
/// large and not used above `APC_LEVEL`.
///
/// ```
/// use dmf::pool::Box;
///
/// # ntsim::run(|| {
/// let mut boxed = Box::new([0_u8; 512])?;
/// boxed[0] = 7;
/// assert_eq!(Box::into_inner(boxed)[0], 7);
/// # Ok::<_, dmf::NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`ExAllocatePool2`][ms] with `POOL_FLAG_NON_PAGED`, and
/// `ExFreePoolWithTag`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2
///
/// # Invariants
/// The pointer came from `allocate::<T, G>(NON_PAGED, 1)`, holds a `T`, and
/// nobody else frees it.
pub struct Box<T, G: Tag = DmfTag>(NonNull<T>, PhantomData<(T, fn() -> G)>);

// SAFETY: a box owns its value as a plain field would.
unsafe impl<T: Send, G: Tag> Send for Box<T, G> {}
// SAFETY: as above.
unsafe impl<T: Sync, G: Tag> Sync for Box<T, G> {}

impl<T> Box<T> {
    /// Moves `value` into the pool.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    pub fn new(value: T) -> Result<Self> {
        Self::new_tagged(value)
    }

    /// Moves `value` into the pool, where it stays.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn pin(value: T) -> Result<Pin<Self>> {
        Self::new(value).map(Self::into_pin)
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

impl<T, G: Tag> Box<T, G> {
    /// Moves `value` into the pool, under the tag `G`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    pub fn new_tagged(value: T) -> Result<Self> {
        let memory = allocate::<T, G>(NON_PAGED, 1)?;
        // SAFETY: the memory is for one `T`.
        unsafe { memory.write(value) };
        // INVARIANT: just allocated and written.
        Ok(Self(memory, PhantomData))
    }

    /// The same box, promising that the value does not move any more.
    #[must_use]
    pub fn into_pin(this: Self) -> Pin<Self> {
        // SAFETY: the value is in the pool, and moving the box does not move it.
        unsafe { Pin::new_unchecked(this) }
    }

    /// Moves the value out and frees the memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        let memory = Self::into_raw(this);
        // SAFETY: the invariant; the memory is freed below without dropping the value.
        let value = unsafe { memory.read() };
        // SAFETY: the invariant.
        unsafe { free::<T, G>(memory, 1) };
        value
    }

    /// Gives up ownership. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(this: Self) -> NonNull<T> {
        core::mem::ManuallyDrop::new(this).0
    }
}

impl<T, G: Tag> Deref for Box<T, G> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T, G: Tag> DerefMut for Box<T, G> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }
}

impl<T, G: Tag> Drop for Box<T, G> {
    fn drop(&mut self) {
        // SAFETY: the invariant; the value is not used any more.
        unsafe { self.0.drop_in_place() };
        // SAFETY: the invariant.
        unsafe { free::<T, G>(self.0, 1) };
    }
}

impl<T: fmt::Debug, G: Tag> fmt::Debug for Box<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Several owners of a `T` in the non-paged pool; the last one frees it.
///
/// ```
/// use dmf::pool::Arc;
///
/// # ntsim::run(|| {
/// let first = Arc::new(7)?;
/// let second = first.clone();
/// assert!(Arc::ptr_eq(&first, &second));
/// let second = Arc::try_unwrap(second).unwrap_err(); // two owners
/// drop(first);
/// assert_eq!(Arc::try_unwrap(second).ok(), Some(7));
/// # Ok::<_, dmf::NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`ExAllocatePool2`][ms] with `POOL_FLAG_NON_PAGED`, and a count.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2
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
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
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

    /// Moves `value` into the pool, where it stays.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn pin(value: T) -> Result<Pin<Self>> {
        let this = Self::new(value)?;
        // SAFETY: the value is in the pool, moving an owner does not move it,
        // and the functions that give the value away take an `Arc`, not a `Pin`.
        Ok(unsafe { Pin::new_unchecked(this) })
    }

    /// Whether both own the same value.
    #[must_use]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.0 == other.0
    }

    /// How many owners there are, which can have changed by now.
    #[must_use]
    pub fn count(this: &Self) -> usize {
        this.shared().count.load(Ordering::Relaxed)
    }

    /// The value, to change, if there is no other owner.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        // Acquire: what former owners did happens before.
        if this.shared().count.load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: the one owner is borrowed mutably, so nobody else gets at it.
        Some(unsafe { &mut this.0.as_mut().value })
    }

    /// The value, if there is no other owner.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// The owner as it was, if there is another.
    pub fn try_unwrap(this: Self) -> Result<T, Self> {
        let last = this.shared().count.compare_exchange(
            1,
            0,
            // Acquire: what former owners did happens before.
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if last.is_err() {
            return Err(this);
        }
        let this = core::mem::ManuallyDrop::new(this);
        // SAFETY: this was the last owner, so the box is taken back once.
        let shared: Box<Shared<T>> = unsafe { Box::from_raw(this.0) };
        Ok(Box::into_inner(shared).value)
    }

    fn shared(&self) -> &Shared<T> {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        // Relaxed: the new owner is made from one that keeps the value alive.
        let before = self.shared().count.fetch_add(1, Ordering::Relaxed);
        // Takes that many leaked owners; the standard library aborts here too.
        assert!(
            before < isize::MAX.unsigned_abs(),
            "an Arc has too many owners"
        );
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
        drop::<Box<Shared<T>>>(unsafe { Box::from_raw(self.0) });
    }
}

impl<T: fmt::Debug> fmt::Debug for Arc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A growable array in the non-paged pool. Dereferences to a slice.
///
/// ```
/// use dmf::pool::Vec;
///
/// # ntsim::run(|| {
/// let mut readings = Vec::with_capacity(2)?;
/// readings.push(3)?;
/// readings.extend_from_slice(&[1, 2])?;
/// readings.sort_unstable();
/// assert_eq!(*readings, [1, 2, 3]);
/// assert_eq!(readings.remove(0), Some(1));
/// # Ok::<_, dmf::NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`ExAllocatePool2`][ms] with `POOL_FLAG_NON_PAGED`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2
///
/// # Invariants
/// `memory` came from `allocate::<T, G>(NON_PAGED, capacity)`, and its first
/// `length` elements hold a `T`.
pub struct Vec<T, G: Tag = DmfTag> {
    memory: NonNull<T>,
    capacity: usize,
    length: usize,
    owns: PhantomData<(T, fn() -> G)>,
}

// SAFETY: a vector owns its values as plain fields would.
unsafe impl<T: Send, G: Tag> Send for Vec<T, G> {}
// SAFETY: as above.
unsafe impl<T: Sync, G: Tag> Sync for Vec<T, G> {}

impl<T> Vec<T> {
    /// An empty array. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self::new_tagged()
    }

    /// An empty array with room for `capacity` elements.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much.
    pub fn with_capacity(capacity: usize) -> Result<Self> {
        let mut array = Self::new();
        array.reserve(capacity)?;
        Ok(array)
    }
}

impl<T, G: Tag> Vec<T, G> {
    /// An empty array, whose memory will have the tag `G`. Does not allocate.
    #[must_use]
    pub const fn new_tagged() -> Self {
        // INVARIANT: nothing was allocated.
        Self {
            memory: NonNull::dangling(),
            capacity: 0,
            length: 0,
            owns: PhantomData,
        }
    }

    /// How many elements there is room for without allocating.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        // What has no size needs no memory.
        if size_of::<T>() == 0 {
            usize::MAX
        } else {
            self.capacity
        }
    }

    /// Makes room for `more` elements beyond those there are.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much; the
    /// array stays as it was.
    pub fn reserve(&mut self, more: usize) -> Result {
        let needed = self
            .length
            .checked_add(more)
            .ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        if needed <= self.capacity() {
            return Ok(());
        }
        let memory = allocate::<T, G>(NON_PAGED, needed)?;
        // SAFETY: both have room for `length` elements and do not overlap.
        unsafe { memory.copy_from_nonoverlapping(self.memory, self.length) };
        // SAFETY: the invariant; the elements have moved out.
        unsafe { free::<T, G>(self.memory, self.capacity) };
        self.memory = memory;
        self.capacity = needed;
        Ok(())
    }

    /// Adds an element at the end.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the array is full and the pool does
    /// not have a larger one; `value` is dropped and the array stays as it was.
    pub fn push(&mut self, value: T) -> Result {
        self.push_or_return(value).map_err(|(status, _)| status)
    }

    /// Adds an element at the end, or gives it back.
    ///
    /// For a value that must not be dropped here, for example under a spin lock.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` and `value` if the array is full and the
    /// pool does not have a larger one; the array stays as it was.
    pub fn push_or_return(&mut self, value: T) -> Result<(), (NtStatus, T)> {
        if self.length == self.capacity() {
            // Twice as much each time, so that pushing is cheap on average.
            if let Err(status) = self.reserve(self.length.max(4)) {
                return Err((status, value));
            }
        }
        // SAFETY: `length < capacity`.
        let end = unsafe { self.memory.add(self.length) };
        // SAFETY: the element has room for a `T` and holds none.
        unsafe { end.write(value) };
        self.length += 1;
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

    /// Removes the element at `index`, and moves those after it down.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        if index >= self.length {
            return None;
        }
        self[index..].rotate_left(1);
        self.pop()
    }

    /// Keeps the first `length` elements and drops the others, last first.
    pub fn truncate(&mut self, length: usize) {
        while self.length > length {
            self.pop();
        }
    }

    /// Drops all elements, last first, and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Adds copies of all elements of `slice` at the end, or none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much.
    pub fn extend_from_slice(&mut self, slice: &[T]) -> Result
    where
        T: Clone,
    {
        self.reserve(slice.len())?;
        slice.iter().try_for_each(|value| self.push(value.clone()))
    }

    /// Makes it `length` elements long, with copies of `value` or by dropping the last.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much; the
    /// array stays as it was.
    pub fn resize(&mut self, length: usize, value: &T) -> Result
    where
        T: Clone,
    {
        self.truncate(length);
        self.reserve(length - self.length)?;
        while self.length < length {
            self.push(value.clone())?;
        }
        Ok(())
    }
}

impl<T, G: Tag> Default for Vec<T, G> {
    fn default() -> Self {
        Self::new_tagged()
    }
}

impl<T, G: Tag> Deref for Vec<T, G> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the invariant.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

impl<T, G: Tag> DerefMut for Vec<T, G> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl<T, G: Tag> Drop for Vec<T, G> {
    fn drop(&mut self) {
        // Last first, as everything here is taken down.
        while self.pop().is_some() {}
        // SAFETY: the invariant; no elements are left.
        unsafe { free::<T, G>(self.memory, self.capacity) };
    }
}

impl<T: fmt::Debug, G: Tag> fmt::Debug for Vec<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// One owner of a `T` in the paged pool.
///
/// Use it for what is large or seldom used, and never above `APC_LEVEL`: the
/// memory manager may have it on disk. So a token is needed to get at the value,
/// and a token that is borrowed for it cannot take a spin lock meanwhile. What is
/// itself used at `DISPATCH_LEVEL`, such as a [`SpinLock`](crate::sync::SpinLock),
/// does not belong there.
///
/// What the types do not show is a bug check, not damaged memory: a reference that
/// is taken into [`SpinLock::with`](crate::sync::SpinLock::with), and a drop above
/// `APC_LEVEL`, which is looked for: it panics before the memory is touched.
///
/// ```
/// use dmf::pool::PagedBox;
/// use dmf::prelude::*;
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let mut report = PagedBox::new(irql, [0_u8; 4096])?;
/// report.get_mut(irql)[0] = 1;
/// assert_eq!(report.get(irql)[0], 1);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// With a spin lock held there is no way in:
///
/// ```compile_fail,E0277
/// use dmf::pool::PagedBox;
/// use dmf::prelude::*;
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>, report: &PagedBox<u32>) {
///     lock.lock(irql, |value, irql| *value = *report.get(irql));
/// }
/// ```
///
/// C counterpart: [`ExAllocatePool2`][ms] with `POOL_FLAG_PAGED`, and
/// `ExFreePoolWithTag`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2
///
/// # Invariants
/// The pointer came from `allocate::<T, G>(PAGED, 1)`, holds a `T`, and nobody
/// else frees it.
pub struct PagedBox<T, G: Tag = DmfTag>(NonNull<T>, PhantomData<(T, fn() -> G)>);

// SAFETY: a box owns its value as a plain field would.
unsafe impl<T: Send, G: Tag> Send for PagedBox<T, G> {}
// SAFETY: as above.
unsafe impl<T: Sync, G: Tag> Sync for PagedBox<T, G> {}

impl<T> PagedBox<T> {
    /// Moves `value` into the paged pool.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    pub fn new(irql: &Irql<'_, impl AtMostApc>, value: T) -> Result<Self> {
        Self::new_tagged(irql, value)
    }
}

impl<T, G: Tag> PagedBox<T, G> {
    /// Moves `value` into the paged pool, under the tag `G`.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty; `value` is dropped.
    pub fn new_tagged(_irql: &Irql<'_, impl AtMostApc>, value: T) -> Result<Self> {
        let memory = allocate::<T, G>(PAGED, 1)?;
        // SAFETY: the memory is for one `T`.
        unsafe { memory.write(value) };
        // INVARIANT: just allocated and written.
        Ok(Self(memory, PhantomData))
    }

    /// The value.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`, as long as the reference is used.
    #[must_use]
    pub fn get<'a>(&'a self, _irql: &'a Irql<'_, impl AtMostApc>) -> &'a T {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }

    /// The value, to change.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`, as long as the reference is used.
    #[must_use]
    pub fn get_mut<'a>(&'a mut self, _irql: &'a Irql<'_, impl AtMostApc>) -> &'a mut T {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }
}

impl<T, G: Tag> Drop for PagedBox<T, G> {
    fn drop(&mut self) {
        assert_paged("a PagedBox was dropped");
        // SAFETY: the invariant; the value is not used any more, and at this
        // level its memory can be read.
        unsafe { self.0.drop_in_place() };
        // SAFETY: the invariant; the level was checked.
        unsafe { free::<T, G>(self.0, 1) };
    }
}

impl<T, G: Tag> fmt::Debug for PagedBox<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagedBox").finish_non_exhaustive()
    }
}

/// Checks the level at which paged memory is given back.
fn assert_paged(mistake: &str) {
    let way_out = "move it out of the spin lock before dropping it";
    assert_at_most(Apc::VALUE, mistake, way_out);
}

/// An array in the paged pool, of a length that is known when it is made.
///
/// What [`PagedBox`] says of levels is true of it.
///
/// ```
/// use dmf::pool::PagedVec;
/// use dmf::prelude::*;
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let mut log = PagedVec::new(irql, 1000, 0_u64)?;
/// log.get_mut(irql)[999] = 7;
/// assert_eq!(log.get(irql).iter().sum::<u64>(), 7);
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`ExAllocatePool2`][ms] with `POOL_FLAG_PAGED`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2
///
/// # Invariants
/// `memory` came from `allocate::<T, G>(PAGED, length)`, and all elements hold a `T`.
pub struct PagedVec<T: Copy, G: Tag = DmfTag> {
    memory: NonNull<T>,
    length: usize,
    owns: PhantomData<(T, fn() -> G)>,
}

// SAFETY: an array owns its values as plain fields would.
unsafe impl<T: Copy + Send, G: Tag> Send for PagedVec<T, G> {}
// SAFETY: as above.
unsafe impl<T: Copy + Sync, G: Tag> Sync for PagedVec<T, G> {}

impl<T: Copy> PagedVec<T> {
    /// An array of `length` copies of `value`.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much.
    pub fn new(irql: &Irql<'_, impl AtMostApc>, length: usize, value: T) -> Result<Self> {
        Self::new_tagged(irql, length, value)
    }
}

impl<T: Copy, G: Tag> PagedVec<T, G> {
    /// An array of `length` copies of `value`, under the tag `G`.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if the pool does not have that much.
    pub fn new_tagged(_irql: &Irql<'_, impl AtMostApc>, length: usize, value: T) -> Result<Self> {
        let memory = allocate::<T, G>(PAGED, length)?;
        for index in 0..length {
            // SAFETY: below `length`.
            let element = unsafe { memory.add(index) };
            // SAFETY: the element has room for a `T`.
            unsafe { element.write(value) };
        }
        // INVARIANT: just allocated and written.
        Ok(Self {
            memory,
            length,
            owns: PhantomData,
        })
    }

    /// The elements.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`, as long as the reference is used.
    #[must_use]
    pub fn get<'a>(&'a self, _irql: &'a Irql<'_, impl AtMostApc>) -> &'a [T] {
        // SAFETY: the invariant.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    /// The elements, to change.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`, as long as the reference is used.
    #[must_use]
    pub fn get_mut<'a>(&'a mut self, _irql: &'a Irql<'_, impl AtMostApc>) -> &'a mut [T] {
        // SAFETY: the invariant, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl<T: Copy, G: Tag> Drop for PagedVec<T, G> {
    fn drop(&mut self) {
        assert_paged("a PagedVec was dropped");
        // SAFETY: the invariant; the level was checked.
        unsafe { free::<T, G>(self.memory, self.length) };
    }
}

impl<T: Copy, G: Tag> fmt::Debug for PagedVec<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagedVec")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
