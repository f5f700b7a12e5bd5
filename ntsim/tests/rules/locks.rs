// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the cases of locks share: the kernel's functions, and locks to use them on.

#![allow(non_snake_case, reason = "the kernel's names")]

use ntsim::machine::Error;
use ntsim::{Machine, Settings};

pub use crate::threads::*;

unsafe extern "C-unwind" {
    pub safe fn KeInitializeSpinLock(lock: *mut usize);
    pub safe fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8;
    pub safe fn KeReleaseSpinLock(lock: *mut usize, irql: u8);
    pub safe fn KeAcquireSpinLockAtDpcLevel(lock: *mut usize);
    pub safe fn KeReleaseSpinLockFromDpcLevel(lock: *mut usize);
    pub safe fn KeAcquireInStackQueuedSpinLock(lock: *mut usize, handle: *mut [usize; 3]);
    pub safe fn KeReleaseInStackQueuedSpinLock(handle: *mut [usize; 3]);
    pub safe fn ExAcquireSpinLockShared(lock: *mut i32) -> u8;
    pub safe fn ExReleaseSpinLockExclusive(lock: *mut i32, irql: u8);
    pub safe fn ExReleaseSpinLockShared(lock: *mut i32, irql: u8);
    pub safe fn ExAcquireFastMutex(mutex: *mut u8);
    pub safe fn ExTryToAcquireFastMutex(mutex: *mut u8) -> u8;
    pub safe fn ExReleaseFastMutex(mutex: *mut u8);
    pub safe fn ExAcquireFastMutexUnsafe(mutex: *mut u8);
    pub safe fn ExReleaseFastMutexUnsafe(mutex: *mut u8);
    pub safe fn KeInitializeMutex(mutex: *mut Object, level: u32);
    pub safe fn KeReleaseMutex(mutex: *mut Object, wait: u8) -> i32;
    pub safe fn KeEnterCriticalRegion();
    pub safe fn KeLeaveCriticalRegion();
    pub safe fn KeEnterGuardedRegion();
    pub safe fn KeLeaveGuardedRegion();
    pub safe fn ExAcquirePushLockExclusiveEx(lock: *mut usize, flags: u32);
    pub safe fn ExReleasePushLockExclusiveEx(lock: *mut usize, flags: u32);
    pub safe fn ExInitializeResourceLite(resource: *mut u64) -> i32;
    pub safe fn ExDeleteResourceLite(resource: *mut u64) -> i32;
    pub safe fn ExAcquireResourceExclusiveLite(resource: *mut u64, wait: u8) -> u8;
    pub safe fn ExAcquireResourceSharedLite(resource: *mut u64, wait: u8) -> u8;
    pub safe fn ExReleaseResourceLite(resource: *mut u64);
    pub safe fn ExConvertExclusiveToSharedLite(resource: *mut u64);
    pub safe fn ExInitializeRundownProtection(reference: *mut usize);
    pub safe fn ExAcquireRundownProtection(reference: *mut usize) -> u8;
    pub safe fn ExReleaseRundownProtection(reference: *mut usize);
    pub safe fn ExWaitForRundownProtectionRelease(reference: *mut usize);
    pub safe fn IoInitializeRemoveLockEx(
        lock: *mut Object,
        tag: u32,
        minutes: u32,
        high: u32,
        size: u32,
    );
    pub safe fn IoAcquireRemoveLockEx(
        lock: *mut Object,
        tag: usize,
        file: *const u8,
        line: u32,
        size: u32,
    ) -> i32;
    pub safe fn IoReleaseRemoveLockEx(lock: *mut Object, tag: usize, size: u32);
    pub safe fn IoReleaseRemoveLockAndWaitEx(lock: *mut Object, tag: usize, size: u32);
    pub safe fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u8;
    pub safe fn ExFreePool(block: *mut u8);
    pub safe fn KeInitializeDpc(dpc: *mut Object, routine: usize, context: usize);
    pub safe fn KeInsertQueueDpc(dpc: *mut Object, first: usize, second: usize) -> u8;
}

/// Takes what a function returns, which nobody needs.
pub fn ignore<T>(_: T) {}

/// Plays a driver that is one thread.
pub fn play(settings: Settings, body: impl FnOnce() + 'static) -> Result<(), Error> {
    Machine::new(settings).run_thread("driver", body)?;
    Ok(())
}

pub fn spin_lock() -> *mut usize {
    let lock = leaked(0);
    KeInitializeSpinLock(lock);
    lock
}

/// A fast mutex as `ExInitializeFastMutex`, which is inline, makes it.
pub fn fast_mutex() -> *mut u8 {
    let mutex = Object::boxed().cast::<u8>();
    KeInitializeEvent(mutex.wrapping_add(24), 1, 0);
    mutex
}

/// Memory for a resource.
pub fn no_resource() -> *mut u64 {
    leaked([0_u64; 14]).cast()
}

pub fn resource() -> *mut u64 {
    let resource = no_resource();
    assert_eq!(ExInitializeResourceLite(resource), 0);
    resource
}

pub fn mutex() -> *mut Object {
    let mutex = Object::boxed();
    KeInitializeMutex(mutex, 0);
    mutex
}

/// Waits for ever.
pub fn wait(object: *mut Object) {
    assert_eq!(KeWaitForSingleObject(object, 0, 0, 0, std::ptr::null()), 0);
}

/// `size` bytes of non-paged pool, zeroed.
pub fn pool(size: usize) -> *mut u8 {
    ExAllocatePool2(0x40, size, u32::from_le_bytes(*b"tseT"))
}
