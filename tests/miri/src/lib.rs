// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory, strings and locks under [Miri](https://github.com/rust-lang/miri),
//! which looks for undefined behaviour, leaks and data races:
//!
//! ```text
//! cd tests/miri && cargo +nightly miri test
//! ```
//!
//! `ntsim` cannot run there, so the few kernel functions that are needed are
//! written here, on the standard library.

#![cfg(test)]

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use dmf::irql::{Irql, Passive};
use dmf::pool::{Arc, Box, PagedBox, PagedVec, Vec};
use dmf::string::{MAXIMUM_UNITS, UnicodeStr, UnicodeString};
use dmf::sync::{QueuedSpinLock, SpinLock};
use dmf::{NtStatus, sys};

// ---- the kernel ------------------------------------------------------------

/// The size of each block is kept before it.
const HEAD: usize = 16;

/// How many allocations succeed before all fail.
const PLENTY: usize = usize::MAX;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(PLENTY) };
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size + HEAD, HEAD).unwrap()
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ExAllocatePool2(
    _flags: u64,
    size: sys::SIZE_T,
    _tag: u32,
) -> sys::PVOID {
    let size = usize::try_from(size).unwrap();
    let left = LEFT.get();
    if left == 0 || size > isize::MAX as usize - 2 * HEAD {
        return null_mut();
    }
    if left != PLENTY {
        LEFT.set(left - 1);
    }
    // SAFETY: the size is not zero.
    let block = unsafe { std::alloc::alloc_zeroed(layout(size)) };
    // SAFETY: the block begins with room for it, and is aligned to 16.
    unsafe { block.cast::<usize>().write(size) };
    // SAFETY: within the block.
    unsafe { block.add(HEAD) }.cast()
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ExFreePoolWithTag(memory: sys::PVOID, _tag: u32) {
    // SAFETY: what `ExAllocatePool2` returned lies that far within its block.
    let block = unsafe { memory.cast::<u8>().sub(HEAD) };
    // SAFETY: it was written there.
    let size = unsafe { block.cast::<usize>().read() };
    // SAFETY: allocated with this layout, and given back once.
    unsafe { std::alloc::dealloc(block, layout(size)) };
}

#[unsafe(no_mangle)]
extern "C-unwind" fn KeGetCurrentIrql() -> sys::KIRQL {
    0
}

fn word<'a>(lock: *mut sys::KSPIN_LOCK) -> &'a AtomicUsize {
    // SAFETY: a lock of the caller's, which is touched only here.
    unsafe { AtomicUsize::from_ptr(lock.cast()) }
}

fn take(lock: *mut sys::KSPIN_LOCK) {
    while word(lock).swap(1, Ordering::Acquire) == 1 {
        std::thread::yield_now();
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn KeAcquireSpinLockRaiseToDpc(lock: *mut sys::KSPIN_LOCK) -> sys::KIRQL {
    take(lock);
    0
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn KeReleaseSpinLock(lock: *mut sys::KSPIN_LOCK, _before: sys::KIRQL) {
    word(lock).store(0, Ordering::Release);
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn KeAcquireInStackQueuedSpinLock(
    lock: *mut sys::KSPIN_LOCK,
    handle: sys::PKLOCK_QUEUE_HANDLE,
) {
    take(lock);
    // SAFETY: the caller's handle is valid.
    unsafe { (*handle).LockQueue.Lock = lock.cast() };
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn KeReleaseInStackQueuedSpinLock(handle: sys::PKLOCK_QUEUE_HANDLE) {
    // SAFETY: as above; the lock was stored there.
    let lock = unsafe { (*handle).LockQueue.Lock };
    word(lock).store(0, Ordering::Release);
}

// ---- tests -----------------------------------------------------------------

fn passive() -> Irql<'static, Passive> {
    // SAFETY: no level matters here.
    unsafe { Irql::assume() }
}

#[repr(align(64))]
struct Line(#[allow(dead_code)] u8);

struct Counted<'a>(&'a Cell<usize>);
impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_box_drops_its_value_once() {
    let drops = Cell::new(0);
    drop(Box::new(Counted(&drops)).unwrap());
    assert_eq!(drops.get(), 1);
    let inner = Box::into_inner(Box::new(Counted(&drops)).unwrap());
    assert_eq!(drops.get(), 1);
    drop(inner);
    let raw = Box::into_raw(Box::new(Counted(&drops)).unwrap());
    // SAFETY: given up the line before.
    drop(unsafe { Box::from_raw(raw) });
    assert_eq!(drops.get(), 3);
}

#[test]
fn memory_is_aligned_as_the_type_says() {
    let boxed = Box::new(Line(1)).unwrap();
    assert_eq!((&raw const *boxed).addr() % 64, 0);
    let mut lines = Vec::new();
    for _ in 0..9 {
        lines.push(Line(2)).unwrap();
    }
    assert_eq!(lines.as_ptr().addr() % 64, 0);
    let shared = Arc::new(Line(3)).unwrap();
    assert_eq!((&raw const *shared).addr() % 64, 0);
}

#[test]
fn types_without_size_take_no_memory() {
    LEFT.set(0);
    let mut units = Vec::new();
    for _ in 0..100 {
        units.push(()).unwrap();
    }
    assert_eq!((units.len(), units.remove(3)), (100, Some(())));
    assert_eq!(Vec::<()>::with_capacity(usize::MAX).unwrap().len(), 0);
    assert_eq!(
        units.reserve(usize::MAX),
        Err(NtStatus::INSUFFICIENT_RESOURCES)
    );
    let _ = Box::new(()).unwrap();
    LEFT.set(PLENTY);
}

#[test]
fn a_vector_that_cannot_grow_stays_as_it_was() {
    let drops = Cell::new(0);
    let mut values = Vec::with_capacity(2).unwrap();
    values.push(Counted(&drops)).unwrap();
    values.push(Counted(&drops)).unwrap();
    LEFT.set(0);
    assert!(values.push(Counted(&drops)).is_err());
    assert!(values.reserve(usize::MAX / 16).is_err());
    LEFT.set(PLENTY);
    assert_eq!((values.len(), drops.get()), (2, 1));
    values.push(Counted(&drops)).unwrap();
    drop(values.remove(0));
    values.truncate(1);
    assert_eq!((values.len(), drops.get()), (1, 3));
    drop(values);
    assert_eq!(drops.get(), 4);
}

#[test]
fn an_element_whose_drop_panics_leaves_no_one_dropped_twice() {
    struct Panics<'a>(&'a Cell<usize>);
    impl Drop for Panics<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            if self.0.get() == 1 {
                std::panic::resume_unwind(std::boxed::Box::new(()));
            }
        }
    }
    let drops = Cell::new(0);
    let mut values = Vec::new();
    for _ in 0..3 {
        values.push(Panics(&drops)).unwrap();
    }
    let cleared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| values.clear()));
    assert!(cleared.is_err());
    drop(values);
    assert_eq!(drops.get(), 3);
}

#[test]
fn the_last_of_many_owners_drops_the_value() {
    let shared = Arc::new(std::sync::Mutex::new(0)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mine = shared.clone();
            scope.spawn(move || {
                *mine.lock().unwrap() += 1;
                let again = mine.clone();
                drop(mine);
                drop(again);
            });
        }
    });
    let mut shared = Arc::try_unwrap(shared).ok().unwrap();
    assert_eq!(*shared.get_mut().unwrap(), 3);
    let mut one = Arc::new(1).unwrap();
    *Arc::get_mut(&mut one).unwrap() = 2;
    let two = one.clone();
    assert!(Arc::get_mut(&mut one).is_none());
    assert!(Arc::try_unwrap(one).is_err());
    assert_eq!(Arc::try_unwrap(two).ok(), Some(2));
}

#[test]
fn paged_memory_is_read_and_written_through_a_token() {
    let irql = &passive();
    let mut boxed = PagedBox::new(irql, std::string::String::from("a")).unwrap();
    boxed.get_mut(irql).push('b');
    assert_eq!(boxed.get(irql), "ab");
    let mut array = PagedVec::new(irql, 9, 1_u32).unwrap();
    array.get_mut(irql)[8] = 2;
    assert_eq!(array.get(irql).iter().sum::<u32>(), 10);
    assert!(PagedVec::new(irql, 0, 0_u8).unwrap().get(irql).is_empty());
}

#[test]
fn a_string_goes_to_the_kernel_and_back() {
    let mut text = UnicodeString::format(format_args!("a{}", 7)).unwrap();
    text.push_str("€😀").unwrap();
    let raw = text.as_str().to_raw();
    // SAFETY: the text lives and does not change.
    let again = unsafe { UnicodeStr::from_raw(&raw) }.unwrap();
    assert_eq!(again, text.as_str());
    assert!(again.eq_str("a7€😀"));
    let none = sys::UNICODE_STRING::default();
    // SAFETY: it has no length.
    assert!(unsafe { UnicodeStr::from_raw(&none) }.unwrap().is_empty());
    let bytes = [0_u16; 2];
    let crooked = sys::UNICODE_STRING {
        Length: 2,
        Buffer: bytes.as_ptr().wrapping_byte_add(1).cast_mut(),
        ..raw
    };
    // SAFETY: refused before it is read.
    assert!(unsafe { UnicodeStr::from_raw(&crooked) }.is_err());
    let odd = sys::UNICODE_STRING { Length: 3, ..raw };
    // SAFETY: refused before it is read.
    assert!(unsafe { UnicodeStr::from_raw(&odd) }.is_err());
    let many = std::vec![0x61; MAXIMUM_UNITS];
    assert_eq!(text.push_units(&many), Err(NtStatus::OBJECT_NAME_INVALID));
    LEFT.set(0);
    assert_eq!(
        text.push_str("more than there is room for"),
        Err(NtStatus::INSUFFICIENT_RESOURCES)
    );
    LEFT.set(PLENTY);
    assert!(text.as_str().eq_str("a7€😀"));
}

#[test]
fn locks_keep_threads_apart_and_nest() {
    let (outer, inner) = (SpinLock::new(0), QueuedSpinLock::new(std::vec![0]));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                outer.lock(&mut passive(), |count, irql| {
                    inner.lock(irql, |values, _| values.push(*count));
                    *count += 1;
                });
                outer.with(|count| inner.with(|values| values[0] = *count));
            });
        }
    });
    assert_eq!(outer.with(|count| *count), 3);
    assert_eq!(inner.with(|values| values.len()), 4);
}

#[test]
fn a_panic_in_a_closure_releases_the_lock() {
    let (spin, queued) = (SpinLock::new(1), QueuedSpinLock::new(2));
    fn panic() {
        std::panic::resume_unwind(std::boxed::Box::new(()))
    }
    let bodies: [&dyn Fn(); 2] = [&|| spin.with(|_| panic()), &|| queued.with(|_| panic())];
    for body in bodies {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err());
    }
    assert_eq!(spin.with(|one| *one) + queued.with(|two| *two), 3);
}
