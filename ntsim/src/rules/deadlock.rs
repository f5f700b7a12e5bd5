// SPDX-License-Identifier: MIT OR Apache-2.0

//! Locks that threads could wait for in a circle.
//!
//! Driver Verifier's deadlock detection, for spin locks, fast and guarded mutexes,
//! mutexes, push locks, resources and the framework's locks:
//! <https://learn.microsoft.com/windows-hardware/drivers/devtest/deadlock-detection>

use super::Report::{BugCheckWith, Deadlock, LostWakeUp};

rules! { Deadlock;
    /// A thread waits for a lock that it holds itself.
    SELF = "DeadlockSelf", BugCheckWith(0xC4, 0x1000), ["lock"],
        apis: ["KeAcquireSpinLock", "KeAcquireInStackQueuedSpinLock", "ExAcquireSpinLockExclusive", "ExAcquireFastMutex", "KeAcquireGuardedMutex", "ExAcquirePushLockExclusive"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Locks are taken in two orders, so that two threads could each hold what the other waits for.
    ORDER = "DeadlockOrder", BugCheckWith(0xC4, 0x1001), ["lock"],
        apis: ["KeAcquireSpinLock", "KeAcquireInStackQueuedSpinLock", "ExAcquireSpinLockShared", "ExAcquireSpinLockExclusive", "ExAcquireFastMutex", "KeAcquireGuardedMutex", "KeWaitForSingleObject", "ExAcquirePushLockExclusive", "ExAcquirePushLockShared", "WdfSpinLockAcquire", "WdfWaitLockAcquire", "WdfObjectAcquireLock"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/deadlock-detection";
    /// A lock is used that was not initialised.
    UNINITIALIZED = "DeadlockUninitialized", BugCheckWith(0xC4, 0x1002), ["lock"],
        apis: ["KeAcquireSpinLock", "KeAcquireInStackQueuedSpinLock", "ExAcquireFastMutex", "KeAcquireGuardedMutex", "ExAcquirePushLockExclusive"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A spin lock is released, and the IRQL lowered, before one that was taken after it.
    RELEASE_ORDER = "DeadlockReleaseOrder", BugCheckWith(0xC4, 0x1003), ["lock that is released", "lock to be released first"],
        apis: ["KeReleaseSpinLock", "KeReleaseInStackQueuedSpinLock", "ExReleaseSpinLockExclusive", "ExReleaseSpinLockShared"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A lock is released by another thread than the one that holds it.
    OTHER_THREAD = "DeadlockOtherThread", BugCheckWith(0xC4, 0x1004), ["lock", "thread that holds it", "current thread"],
        apis: ["KeReleaseSpinLock", "ExReleaseFastMutex", "KeReleaseGuardedMutex", "ExReleasePushLockExclusive"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A lock is initialised while it is held.
    INITIALIZED_TWICE = "DeadlockInitializedTwice", BugCheckWith(0xC4, 0x1005), ["lock"],
        apis: ["KeInitializeSpinLock", "KeInitializeGuardedMutex", "KeInitializeMutex", "ExInitializePushLock"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A lock is released that nobody holds.
    NOT_ACQUIRED = "DeadlockNotAcquired", BugCheckWith(0xC4, 0x1007), ["lock"],
        apis: ["KeReleaseSpinLock", "KeReleaseInStackQueuedSpinLock", "ExReleaseSpinLockExclusive", "ExReleaseFastMutex", "KeReleaseGuardedMutex", "ExReleasePushLockExclusive"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A spin lock is taken in a way that does not fit how it was taken before, queued or not.
    ACQUIRE_MISMATCH = "DeadlockAcquireMismatch", BugCheckWith(0xC4, 0x1008), ["lock"],
        apis: ["KeAcquireSpinLock", "KeAcquireInStackQueuedSpinLock"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A lock is released in a way that does not fit how it was taken: queued or not, shared or exclusively.
    RELEASE_MISMATCH = "DeadlockReleaseMismatch", BugCheckWith(0xC4, 0x1009), ["lock"],
        apis: ["KeReleaseSpinLock", "KeReleaseInStackQueuedSpinLock", "ExReleaseSpinLockShared", "ExReleaseSpinLockExclusive", "ExReleasePushLockShared", "ExReleasePushLockExclusive"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A thread or DPC ends while it holds a lock.
    OWNER_ENDED = "DeadlockOwnerEnded", BugCheckWith(0xC4, 0x100A), ["thread"],
        apis: ["PsTerminateSystemThread", "StartRoutine", "DeferredRoutine"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Memory is freed with a lock in it that is held.
    FREED_WHILE_HELD = "DeadlockFreedWhileHeld", BugCheckWith(0xC4, 0x100B), ["lock", "thread that holds it"],
        apis: ["ExFreePool", "ExFreePoolWithTag"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Threads wait for each other in a circle: for locks, or for a thread to end.
    CIRCLE = "DeadlockCircle", Deadlock, [],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects", "KeAcquireSpinLock", "ExAcquireFastMutex", "ExAcquirePushLockExclusive"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/deadlock-detection";
    /// Somebody waits for an object that nobody is left to signal.
    LOST_WAKE_UP = "LostWakeUp", LostWakeUp, [],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-kernel-dispatcher-objects";
    /// Somebody waits, and nothing is left that could end it.
    NEVER_ENDS = "DeadlockNeverEnds", Deadlock, [],
        apis: ["ExWaitForRundownProtectionRelease", "IoReleaseRemoveLockAndWait", "KeWaitForSingleObject"],
        irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/deadlock-detection";
}
