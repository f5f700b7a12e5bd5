// SPDX-License-Identifier: MIT OR Apache-2.0

//! Locks of every kind, and the regions in which APCs are disabled.

use super::Report::{BugCheck, BugCheckWith, Misuse};

rules! { Lock;
    /// A fast or guarded mutex is used above `APC_LEVEL`.
    FAST_MUTEX_IRQL = "FastMutexIrql", BugCheckWith(0xC4, 0x33), ["current IRQL", "mutex"],
        apis: ["ExAcquireFastMutex", "ExTryToAcquireFastMutex", "ExAcquireFastMutexUnsafe", "ExReleaseFastMutexUnsafe", "KeAcquireGuardedMutex", "KeTryToAcquireGuardedMutex", "KeReleaseGuardedMutex"],
        irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A fast mutex is released at another IRQL than `APC_LEVEL`.
    FAST_MUTEX_RELEASE_IRQL = "FastMutexReleaseIrql", BugCheckWith(0xC4, 0x34), ["current IRQL", "mutex"],
        apis: ["ExReleaseFastMutex"], irql: Some((1, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A fast mutex is acquired "unsafe" while APCs are enabled.
    FAST_MUTEX_UNSAFE_ACQUIRE = "FastMutexUnsafeAcquire", BugCheckWith(0xC4, 0x39), ["current IRQL", "APC disable count", "mutex"],
        apis: ["ExAcquireFastMutexUnsafe", "KeAcquireGuardedMutexUnsafe"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A fast mutex is released "unsafe" while APCs are enabled.
    FAST_MUTEX_UNSAFE_RELEASE = "FastMutexUnsafeRelease", BugCheckWith(0xC4, 0x3A), ["current IRQL", "APC disable count", "mutex"],
        apis: ["ExReleaseFastMutexUnsafe", "KeReleaseGuardedMutexUnsafe"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A mutex is released by a thread that does not own it.
    MUTEX_NOT_OWNED = "MutexNotOwned", BugCheckWith(0x1E, 0xC000_0046), [],
        apis: ["KeReleaseMutex"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasemutex";
    /// A thread ends while it owns a mutex.
    MUTEX_OWNER_ENDED = "MutexOwnerEnded", BugCheck(0x4000_008A), [],
        apis: ["PsTerminateSystemThread", "StartRoutine"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x4000008a--thread-terminate-held-mutex";
    /// A critical region is left that was not entered.
    CRITICAL_REGION_LEAVE = "CriticalRegionLeave", BugCheckWith(0xC4, 0x3E), ["0", "0", "0"],
        apis: ["KeLeaveCriticalRegion", "ExReleaseResourceAndLeaveCriticalRegion"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A critical region is entered above `APC_LEVEL`.
    CRITICAL_REGION_ENTER_IRQL = "CriticalRegionEnterIrql", BugCheckWith(0xC4, 0x11A), ["current IRQL"],
        apis: ["KeEnterCriticalRegion"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A critical region is left above `APC_LEVEL`.
    CRITICAL_REGION_LEAVE_IRQL = "CriticalRegionLeaveIrql", BugCheckWith(0xC4, 0x11B), ["current IRQL"],
        apis: ["KeLeaveCriticalRegion"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A guarded region is left that was not entered.
    GUARDED_REGIONS = "GuardedRegions", BugCheckWith(0xC4, 0x4_000E), [],
        apis: ["KeLeaveGuardedRegion"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-guardedregions";
    /// A thread ends in a critical or guarded region.
    APC_COUNT_AT_END = "ApcCountAtEnd", BugCheck(0x01), [],
        apis: ["PsTerminateSystemThread", "StartRoutine", "KeEnterCriticalRegion", "KeEnterGuardedRegion"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x1--apc-index-mismatch";
    /// A push lock is acquired while APCs are enabled.
    PUSH_LOCK_ACQUIRE_APC = "PushLockAcquireApc", BugCheckWith(0xC4, 0xEA), ["current IRQL", "APC disable count", "push lock"],
        apis: ["ExAcquirePushLockExclusive", "ExAcquirePushLockShared"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A push lock is released while APCs are enabled.
    PUSH_LOCK_RELEASE_APC = "PushLockReleaseApc", BugCheckWith(0xC4, 0xEB), ["current IRQL", "APC disable count", "push lock"],
        apis: ["ExReleasePushLockExclusive", "ExReleasePushLockShared"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A remove lock is released with a tag with which it was not acquired.
    REMOVE_LOCK_TAG = "RemoveLockTag", BugCheckWith(0xC4, 0xD5), ["remove lock", "tag"],
        apis: ["IoReleaseRemoveLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A remove lock is released for good with a tag with which it was not acquired.
    REMOVE_LOCK_WAIT_TAG = "RemoveLockWaitTag", BugCheckWith(0xC4, 0xD6), ["remove lock", "tag", "tag of an acquisition before"],
        apis: ["IoReleaseRemoveLockAndWait"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A remove lock is initialised again.
    REMOVE_LOCK_INITIALIZED_TWICE = "RemoveLockInitializedTwice", BugCheckWith(0xC4, 0xD7), ["the verifier's lock", "remove lock"],
        apis: ["IoInitializeRemoveLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A function of the driver's returns with a spin lock that it took.
    SPIN_LOCK = "SpinLock", BugCheckWith(0xC4, 0x4_0009), [],
        apis: ["KeAcquireSpinLock", "KeAcquireSpinLockAtDpcLevel", "ExAcquireSpinLockExclusive", "ExAcquireSpinLockShared"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-spinlock";
    /// A function of the driver's returns with a queued spin lock that it took.
    QUEUED_SPIN_LOCK = "QueuedSpinLock", BugCheckWith(0xC4, 0x4_0006), [],
        apis: ["KeAcquireInStackQueuedSpinLock", "KeReleaseInStackQueuedSpinLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-queuedspinlock";
    /// A spin lock is released to another IRQL than the one that it was acquired at.
    RELEASE_IRQL = "IrqlKeReleaseSpinLock", BugCheckWith(0xC4, 0x2_0015), [],
        apis: ["KeReleaseSpinLock", "ExReleaseSpinLockExclusive", "ExReleaseSpinLockShared"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlkereleasespinlock";
    /// A push lock is used with flags that there are not.
    PUSH_LOCK_FLAGS = "PushLockFlags", Misuse, [],
        apis: ["ExAcquirePushLockExclusiveEx", "ExAcquirePushLockSharedEx", "ExReleasePushLockExclusiveEx", "ExReleasePushLockSharedEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusiveex";
    /// A remove lock is used that was not initialised, or of another size.
    REMOVE_LOCK_MISUSED = "RemoveLockMisused", Misuse, [],
        apis: ["IoInitializeRemoveLock", "IoAcquireRemoveLock", "IoReleaseRemoveLock", "IoReleaseRemoveLockAndWait"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/kernel/using-remove-locks";
    /// Run-down protection is released more often than acquired, or begun anew before it has ended.
    RUNDOWN_MISUSED = "RundownMisused", Misuse, [],
        apis: ["ExReleaseRundownProtection", "ExReInitializeRundownProtection", "ExRundownCompleted"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/kernel/run-down-protection";
    /// A resource is acquired while APCs are enabled.
    RESOURCE_ACQUIRE_APC = "ResourceAcquireApc", BugCheckWith(0xC4, 0x37), ["current IRQL", "APC disable count", "resource"],
        apis: ["ExAcquireResourceExclusiveLite", "ExAcquireResourceSharedLite", "ExAcquireSharedStarveExclusive", "ExAcquireSharedWaitForExclusive"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A resource is released while APCs are enabled.
    RESOURCE_RELEASE_APC = "ResourceReleaseApc", BugCheckWith(0xC4, 0x38), ["current IRQL", "APC disable count", "resource"],
        apis: ["ExReleaseResourceLite", "ExReleaseResourceForThreadLite", "ExReleaseResourceAndLeaveCriticalRegion"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A resource is used above `APC_LEVEL`.
    RESOURCE_IRQL = "IrqlExApcLte3", BugCheckWith(0xC4, 0x2_0007), [],
        apis: ["ExAcquireResourceExclusiveLite", "ExAcquireResourceSharedLite", "ExAcquireSharedStarveExclusive", "ExAcquireSharedWaitForExclusive", "ExReleaseResourceLite", "ExReleaseResourceForThreadLite", "ExReleaseResourceAndLeaveCriticalRegion", "ExConvertExclusiveToSharedLite"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlexapclte3";
    /// A resource is used at an address that is not aligned.
    RESOURCE_UNALIGNED = "ResourceUnaligned", BugCheckWith(0xC4, 0x3D), ["0", "0", "resource"],
        apis: ["ExAcquireResourceExclusiveLite", "ExAcquireResourceSharedLite", "ExAcquireSharedStarveExclusive", "ExAcquireSharedWaitForExclusive"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A resource is initialised again.
    RESOURCE_INITIALIZED_TWICE = "ResourceInitializedTwice", BugCheckWith(0xC4, 0xD0), ["resource"],
        apis: ["ExInitializeResourceLite"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A resource is deleted that was not initialised.
    RESOURCE_DELETED_UNINITIALIZED = "ResourceDeletedUninitialized", BugCheckWith(0xC4, 0xD1), ["resource"],
        apis: ["ExDeleteResourceLite"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Memory is freed with a resource in it that was not deleted.
    RESOURCE_FREED = "ResourceFreed", BugCheckWith(0xC4, 0xD2), ["resource", "start of the block", "size of the block"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A resource is released by a thread that does not own it.
    RESOURCE_NOT_OWNED = "ResourceNotOwned", BugCheck(0xE3), ["resource", "thread"],
        apis: ["ExReleaseResourceLite", "ExReleaseResourceForThreadLite", "ExReleaseResourceAndLeaveCriticalRegion"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe3--resource-not-owned";
    /// A resource is made shared that the caller does not own exclusively.
    RESOURCE_CONVERT = "ResourceConvert", Misuse, [],
        apis: ["ExConvertExclusiveToSharedLite"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exconvertexclusivetosharedlite";
}
