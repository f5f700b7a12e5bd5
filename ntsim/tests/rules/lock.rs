// SPDX-License-Identifier: MIT OR Apache-2.0

//! Locks of every kind, and the regions in which APCs are disabled.

#![allow(
    clippy::wildcard_imports,
    clippy::cast_ptr_alignment,
    clashing_extern_declarations,
    reason = "the kernel's functions and objects, as a driver in C has them; pool is aligned to 16 bytes"
)]

use ntsim::Settings;
use ntsim::machine::Error;
use ntsim::rules::{irql, lock};

use crate::locks::*;
use crate::{Case, without};

/// Of `IO_REMOVE_LOCK`.
const SIZE: u32 = 32;

pub const CASES: &[Case] = &[
    Case {
        rule: &lock::FAST_MUTEX_IRQL,
        breaks: |settings| try_fast_mutex_at(without(settings, &irql::EX_APC_LTE_1), 2),
        comes_close: |settings| try_fast_mutex_at(settings, 1),
    },
    Case {
        rule: &lock::FAST_MUTEX_RELEASE_IRQL,
        breaks: |settings| release_fast_mutex_at(settings, 0),
        comes_close: |settings| release_fast_mutex_at(settings, 1),
    },
    Case {
        rule: &lock::FAST_MUTEX_UNSAFE_ACQUIRE,
        breaks: |settings| play(settings, || ExAcquireFastMutexUnsafe(fast_mutex())),
        comes_close: unsafe_in_a_region,
    },
    Case {
        rule: &lock::FAST_MUTEX_UNSAFE_RELEASE,
        breaks: |settings| {
            play(settings, || {
                let mutex = fast_mutex();
                KeEnterCriticalRegion();
                ExAcquireFastMutexUnsafe(mutex);
                KeLeaveCriticalRegion();
                ExReleaseFastMutexUnsafe(mutex);
            })
        },
        comes_close: unsafe_in_a_region,
    },
    Case {
        rule: &lock::MUTEX_NOT_OWNED,
        breaks: |settings| {
            play(settings, || {
                let mutex = mutex();
                wait(mutex);
                join(start(move || ignore(KeReleaseMutex(mutex, 0))));
            })
        },
        // It may be owned several times.
        comes_close: |settings| {
            play(settings, || {
                let mutex = mutex();
                wait(mutex);
                wait(mutex);
                KeReleaseMutex(mutex, 0);
                KeReleaseMutex(mutex, 0);
            })
        },
    },
    Case {
        rule: &lock::MUTEX_OWNER_ENDED,
        breaks: |settings| {
            play(settings, || {
                let mutex = mutex();
                join(start(move || wait(mutex)));
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let mutex = mutex();
                join(start(move || {
                    wait(mutex);
                    KeReleaseMutex(mutex, 0);
                }));
            })
        },
    },
    Case {
        rule: &lock::CRITICAL_REGION_LEAVE,
        breaks: |settings| critical_regions(settings, 1, 2),
        comes_close: |settings| critical_regions(settings, 2, 2),
    },
    Case {
        rule: &lock::CRITICAL_REGION_ENTER_IRQL,
        breaks: |settings| {
            play(without(settings, &irql::KE_APC_LTE_2), || {
                at(2, || KeEnterCriticalRegion());
                KeLeaveCriticalRegion();
            })
        },
        comes_close: |settings| {
            play(settings, || {
                at(1, || KeEnterCriticalRegion());
                KeLeaveCriticalRegion();
            })
        },
    },
    Case {
        rule: &lock::CRITICAL_REGION_LEAVE_IRQL,
        breaks: |settings| {
            play(without(settings, &irql::KE_APC_LTE_2), || {
                KeEnterCriticalRegion();
                at(2, || KeLeaveCriticalRegion());
            })
        },
        comes_close: |settings| {
            play(settings, || {
                KeEnterCriticalRegion();
                at(1, || KeLeaveCriticalRegion());
            })
        },
    },
    Case {
        rule: &lock::GUARDED_REGIONS,
        // A critical region is none.
        breaks: |settings| {
            play(settings, || {
                KeEnterCriticalRegion();
                KeLeaveGuardedRegion();
                KeLeaveCriticalRegion();
            })
        },
        comes_close: |settings| {
            play(settings, || {
                KeEnterGuardedRegion();
                KeEnterGuardedRegion();
                KeLeaveGuardedRegion();
                KeLeaveGuardedRegion();
            })
        },
    },
    Case {
        rule: &lock::APC_COUNT_AT_END,
        breaks: |settings| play(settings, || join(start(|| KeEnterCriticalRegion()))),
        comes_close: |settings| {
            play(settings, || {
                join(start(|| {
                    KeEnterCriticalRegion();
                    KeLeaveCriticalRegion();
                }));
            })
        },
    },
    Case {
        rule: &lock::PUSH_LOCK_ACQUIRE_APC,
        breaks: |settings| {
            play(settings, || {
                let lock = leaked(0);
                ExAcquirePushLockExclusiveEx(lock, 0);
                KeEnterCriticalRegion();
                ExReleasePushLockExclusiveEx(lock, 0);
                KeLeaveCriticalRegion();
            })
        },
        comes_close: |settings| push_lock(settings, 0),
    },
    Case {
        rule: &lock::PUSH_LOCK_RELEASE_APC,
        breaks: |settings| {
            play(settings, || {
                let lock = leaked(0);
                KeEnterCriticalRegion();
                ExAcquirePushLockExclusiveEx(lock, 0);
                KeLeaveCriticalRegion();
                ExReleasePushLockExclusiveEx(lock, 0);
            })
        },
        comes_close: |settings| push_lock(settings, 0),
    },
    Case {
        rule: &lock::PUSH_LOCK_FLAGS,
        breaks: |settings| push_lock(settings, 0x10),
        // EX_DISABLE_ABANDON_DETECTION
        comes_close: |settings| push_lock(settings, 1),
    },
    Case {
        rule: &lock::REMOVE_LOCK_TAG,
        breaks: |settings| {
            play(settings, || {
                let lock = remove_lock();
                IoAcquireRemoveLockEx(lock, 1, std::ptr::null(), 0, SIZE);
                IoReleaseRemoveLockEx(lock, 2, SIZE);
            })
        },
        // In any order.
        comes_close: |settings| {
            play(settings, || {
                let lock = remove_lock();
                IoAcquireRemoveLockEx(lock, 1, std::ptr::null(), 0, SIZE);
                IoAcquireRemoveLockEx(lock, 2, std::ptr::null(), 0, SIZE);
                IoReleaseRemoveLockEx(lock, 1, SIZE);
                IoReleaseRemoveLockEx(lock, 2, SIZE);
            })
        },
    },
    Case {
        rule: &lock::REMOVE_LOCK_WAIT_TAG,
        breaks: |settings| remove(settings, 2),
        comes_close: |settings| remove(settings, 1),
    },
    Case {
        rule: &lock::REMOVE_LOCK_INITIALIZED_TWICE,
        breaks: |settings| {
            play(settings, || {
                let lock = remove_lock();
                IoInitializeRemoveLockEx(lock, 0, 0, 0, SIZE);
            })
        },
        // In memory that was freed meanwhile, it is another lock.
        comes_close: |settings| {
            play(settings, || {
                for _ in 0..2 {
                    let block = pool(64);
                    IoInitializeRemoveLockEx(block.cast(), 0, 0, 0, SIZE);
                    ExFreePool(block);
                }
            })
        },
    },
    Case {
        rule: &lock::REMOVE_LOCK_MISUSED,
        breaks: |settings| {
            play(settings, || {
                IoAcquireRemoveLockEx(Object::boxed(), 1, std::ptr::null(), 0, SIZE);
            })
        },
        comes_close: |settings| remove(settings, 1),
    },
    Case {
        rule: &lock::RUNDOWN_MISUSED,
        breaks: |settings| rundown(settings, 2),
        comes_close: |settings| rundown(settings, 1),
    },
    Case {
        rule: &lock::SPIN_LOCK,
        breaks: |settings| {
            play(settings, || {
                let lock = spin_lock();
                join(start_raw(
                    keeps_spin_lock as *const () as usize,
                    lock.cast(),
                ));
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let lock = spin_lock();
                join(start_raw(uses_spin_lock as *const () as usize, lock.cast()));
            })
        },
    },
    Case {
        rule: &lock::QUEUED_SPIN_LOCK,
        breaks: |settings| {
            play(settings, || {
                let lock = spin_lock();
                join(start_raw(
                    keeps_queued_lock as *const () as usize,
                    lock.cast(),
                ));
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let (lock, mut handle) = (spin_lock(), [0; 3]);
                KeAcquireInStackQueuedSpinLock(lock, &raw mut handle);
                KeReleaseInStackQueuedSpinLock(&raw mut handle);
            })
        },
    },
    Case {
        rule: &lock::RELEASE_IRQL,
        breaks: |settings| release_to(settings, 1),
        comes_close: |settings| release_to(settings, 0),
    },
    Case {
        rule: &lock::RESOURCE_ACQUIRE_APC,
        breaks: |settings| {
            play(settings, || {
                let resource = resource();
                ExAcquireResourceExclusiveLite(resource, 1);
                KeEnterCriticalRegion();
                ExReleaseResourceLite(resource);
                KeLeaveCriticalRegion();
            })
        },
        comes_close: |settings| use_resource(settings, 0),
    },
    Case {
        rule: &lock::RESOURCE_RELEASE_APC,
        breaks: |settings| {
            play(settings, || {
                let resource = resource();
                KeEnterCriticalRegion();
                ExAcquireResourceExclusiveLite(resource, 1);
                KeLeaveCriticalRegion();
                ExReleaseResourceLite(resource);
            })
        },
        comes_close: |settings| use_resource(settings, 0),
    },
    Case {
        rule: &lock::RESOURCE_IRQL,
        breaks: |settings| use_resource(settings, 2),
        // At APC_LEVEL there are no APCs to disable.
        comes_close: |settings| use_resource(settings, 1),
    },
    Case {
        rule: &lock::RESOURCE_UNALIGNED,
        breaks: |settings| {
            play(settings, || {
                let resource = no_resource().cast::<u8>().wrapping_add(4).cast();
                ExInitializeResourceLite(resource);
                KeEnterCriticalRegion();
                ExAcquireResourceExclusiveLite(resource, 1);
                ExReleaseResourceLite(resource);
                KeLeaveCriticalRegion();
            })
        },
        comes_close: |settings| use_resource(settings, 0),
    },
    Case {
        rule: &lock::RESOURCE_INITIALIZED_TWICE,
        breaks: |settings| {
            play(settings, || {
                ExInitializeResourceLite(resource());
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let resource = resource();
                ExDeleteResourceLite(resource);
                ExInitializeResourceLite(resource);
                ExDeleteResourceLite(resource);
            })
        },
    },
    Case {
        rule: &lock::RESOURCE_DELETED_UNINITIALIZED,
        breaks: |settings| {
            play(settings, || {
                let resource = resource();
                ExDeleteResourceLite(resource);
                ExDeleteResourceLite(resource);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                ExDeleteResourceLite(resource());
            })
        },
    },
    Case {
        rule: &lock::RESOURCE_FREED,
        breaks: |settings| {
            play(settings, || {
                let block = pool(104);
                ExInitializeResourceLite(block.cast());
                ExFreePool(block);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let block = pool(104);
                ExInitializeResourceLite(block.cast());
                ExDeleteResourceLite(block.cast());
                ExFreePool(block);
            })
        },
    },
    Case {
        rule: &lock::RESOURCE_NOT_OWNED,
        breaks: |settings| release_resource(settings, 3),
        // It may be owned several times.
        comes_close: |settings| release_resource(settings, 2),
    },
    Case {
        rule: &lock::RESOURCE_CONVERT,
        breaks: |settings| convert(settings, ExAcquireResourceSharedLite),
        comes_close: |settings| convert(settings, ExAcquireResourceExclusiveLite),
    },
];

fn at(irql: u8, what: impl FnOnce()) {
    let old = KfRaiseIrql(irql);
    what();
    KeLowerIrql(old);
}

fn try_fast_mutex_at(settings: Settings, irql: u8) -> Result<(), Error> {
    play(settings, move || {
        let mutex = fast_mutex();
        at(irql, || {
            if ExTryToAcquireFastMutex(mutex) != 0 {
                ExReleaseFastMutex(mutex);
            }
        });
    })
}

fn release_fast_mutex_at(settings: Settings, irql: u8) -> Result<(), Error> {
    play(settings, move || {
        let mutex = fast_mutex();
        ExAcquireFastMutex(mutex);
        KeLowerIrql(irql);
        ExReleaseFastMutex(mutex);
    })
}

fn unsafe_in_a_region(settings: Settings) -> Result<(), Error> {
    play(settings, || {
        let mutex = fast_mutex();
        KeEnterCriticalRegion();
        ExAcquireFastMutexUnsafe(mutex);
        ExReleaseFastMutexUnsafe(mutex);
        KeLeaveCriticalRegion();
    })
}

fn critical_regions(settings: Settings, enter: u32, leave: u32) -> Result<(), Error> {
    play(settings, move || {
        for _ in 0..enter {
            KeEnterCriticalRegion();
        }
        for _ in 0..leave {
            KeLeaveCriticalRegion();
        }
    })
}

fn push_lock(settings: Settings, flags: u32) -> Result<(), Error> {
    play(settings, move || {
        let lock = leaked(0);
        KeEnterCriticalRegion();
        ExAcquirePushLockExclusiveEx(lock, flags);
        ExReleasePushLockExclusiveEx(lock, flags);
        KeLeaveCriticalRegion();
    })
}

fn remove_lock() -> *mut Object {
    let lock = Object::boxed();
    IoInitializeRemoveLockEx(lock, 0, 0, 0, SIZE);
    lock
}

/// Releases for good, with a tag, what was acquired with the tag 1.
fn remove(settings: Settings, tag: usize) -> Result<(), Error> {
    play(settings, move || {
        let lock = remove_lock();
        IoAcquireRemoveLockEx(lock, 1, std::ptr::null(), 0, SIZE);
        IoReleaseRemoveLockAndWaitEx(lock, tag, SIZE);
    })
}

fn rundown(settings: Settings, releases: u32) -> Result<(), Error> {
    play(settings, move || {
        let reference = leaked(0);
        ExInitializeRundownProtection(reference);
        assert_eq!(ExAcquireRundownProtection(reference), 1);
        for _ in 0..releases {
            ExReleaseRundownProtection(reference);
        }
    })
}

/// Uses a resource at that IRQL, or in a critical region.
fn use_resource(settings: Settings, irql: u8) -> Result<(), Error> {
    play(settings, move || {
        let resource = resource();
        KeEnterCriticalRegion();
        at(irql, || {
            ExAcquireResourceSharedLite(resource, 1);
            ExReleaseResourceLite(resource);
        });
        KeLeaveCriticalRegion();
    })
}

fn release_resource(settings: Settings, times: u32) -> Result<(), Error> {
    play(settings, move || {
        let resource = resource();
        KeEnterCriticalRegion();
        ExAcquireResourceExclusiveLite(resource, 1);
        ExAcquireResourceSharedLite(resource, 1);
        for _ in 0..times {
            ExReleaseResourceLite(resource);
        }
        KeLeaveCriticalRegion();
    })
}

fn convert(
    settings: Settings,
    acquire: extern "C-unwind" fn(*mut u64, u8) -> u8,
) -> Result<(), Error> {
    play(settings, move || {
        let resource = resource();
        KeEnterCriticalRegion();
        acquire(resource, 1);
        ExConvertExclusiveToSharedLite(resource);
        ExReleaseResourceLite(resource);
        KeLeaveCriticalRegion();
    })
}

fn release_to(settings: Settings, irql: u8) -> Result<(), Error> {
    play(settings, move || {
        let lock = spin_lock();
        KeAcquireSpinLockRaiseToDpc(lock);
        KeReleaseSpinLock(lock, irql);
        KeLowerIrql(0);
    })
}

extern "C-unwind" fn keeps_spin_lock(lock: *mut usize) {
    KeAcquireSpinLockRaiseToDpc(lock);
}

extern "C-unwind" fn uses_spin_lock(lock: *mut usize) {
    let old = KeAcquireSpinLockRaiseToDpc(lock);
    KeReleaseSpinLock(lock, old);
}

extern "C-unwind" fn keeps_queued_lock(lock: *mut usize) {
    KeAcquireInStackQueuedSpinLock(lock, leaked([0; 3]));
}
