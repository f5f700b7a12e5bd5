// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events, waits and threads.

use super::Report::{BugCheck, BugCheckWith, Misuse};

rules! { Wait;
    /// An event was set above `DISPATCH_LEVEL`.
    SET_EVENT_IRQL = "KeSetEventIrql", BugCheckWith(0xC4, 0x80), ["current IRQL", "event address", "0"],
        apis: ["KeSetEvent"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A thread was to wait above `DISPATCH_LEVEL`.
    ABOVE_DISPATCH = "KeWaitAboveDispatch", BugCheckWith(0xC4, 0x120), ["address of the IRQL value", "address of the object to wait on", "address of the timeout value"],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A thread was to wait at `DISPATCH_LEVEL` without a time-out.
    AT_DISPATCH_FOR_EVER = "KeWaitAtDispatchForEver", BugCheckWith(0xC4, 0x121), ["address of the IRQL value", "address of the object to wait on", "address of the timeout value"],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A thread was to wait at `DISPATCH_LEVEL` with a time-out other than 0.
    AT_DISPATCH = "KeWaitAtDispatch", BugCheckWith(0xC4, 0x122), ["address of the IRQL value", "address of the object to wait on", "address of the timeout value"],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects", "KeDelayExecutionThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A wait is in user mode, and the object is on the kernel stack, which may be paged out meanwhile.
    USER_MODE_ON_STACK = "KeWaitUserModeOnStack", BugCheckWith(0xC4, 0x123), ["address of the object to wait on"],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A wait is for more objects than `MAXIMUM_WAIT_OBJECTS`, or for none.
    TOO_MANY_OBJECTS = "KeWaitTooManyObjects", BugCheck(0x0C), [],
        apis: ["KeWaitForMultipleObjects"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc--maximum-wait-objects-exceeded";
    /// A wait without wait blocks is for more objects than `THREAD_WAIT_OBJECTS`.
    NO_WAIT_BLOCKS = "KeWaitWithoutWaitBlocks", BugCheck(0x0C), [],
        apis: ["KeWaitForMultipleObjects"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc--maximum-wait-objects-exceeded";
    /// A DPC waited for something that had not happened yet.
    SWITCH_FROM_DPC = "KeWaitInDpc", BugCheck(0xB8), ["the original thread causing the failure", "the new thread", "stack address of the original thread", "reserved"],
        apis: ["KeWaitForSingleObject", "KeWaitForMultipleObjects", "KeDelayExecutionThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xb8--attempted-switch-from-dpc";
    /// A synchronization object was used that is not initialised there: never, elsewhere, or in memory that is gone.
    NOT_INITIALIZED = "SyncObjectNotInitialized", BugCheckWith(0xC4, 0xE1), ["address of the synchronization object", "reserved", "reserved"],
        apis: ["KeSetEvent", "KeResetEvent", "KeClearEvent", "KeReadStateEvent", "KeReleaseMutex", "KeReleaseSemaphore", "KeSetTimer", "KeSetTimerEx", "KeCancelTimer", "KeWaitForSingleObject", "KeWaitForMultipleObjects"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A synchronization object was used as one of another kind.
    WRONG_KIND = "SyncObjectWrongKind", BugCheckWith(0xC4, 0xE1), ["address of the synchronization object", "reserved", "reserved"],
        apis: ["KeSetEvent", "KeResetEvent", "KeClearEvent", "KeReadStateEvent", "KeReleaseMutex", "KeReadStateMutex", "KeReleaseSemaphore", "KeReadStateSemaphore"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A synchronization object was initialised in paged pool.
    PAGEABLE = "SyncObjectPageable", BugCheckWith(0xC4, 0xE1), ["address of the synchronization object", "reserved", "reserved"],
        apis: ["KeInitializeEvent", "KeInitializeMutex", "KeInitializeSemaphore", "KeInitializeTimer", "KeInitializeTimerEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Memory is gone, freed or the stack of a thread that ended, with a synchronization object in it for which a thread waits.
    FREED = "SyncObjectFreed", BugCheckWith(0xC4, 0xE1), ["address of the synchronization object", "reserved", "reserved"],
        apis: ["ExFreePool", "ExFreePoolWithTag", "PsTerminateSystemThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A synchronization object was initialised while a thread waits for it: its list of waiters is lost, which the kernel notices when one is to leave it.
    INITIALIZED_AGAIN = "SyncObjectInitializedAgain", BugCheckWith(0x139, 3), ["0", "0", "0"],
        apis: ["KeInitializeEvent", "KeInitializeMutex", "KeInitializeSemaphore", "KeInitializeTimer", "KeInitializeTimerEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x139--kernel-security-check-failure";
    /// A semaphore was released beyond its limit.
    SEMAPHORE_LIMIT = "SemaphoreLimit", BugCheckWith(0x1E, 0xC000_0047), ["0", "0", "0"],
        apis: ["KeReleaseSemaphore"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasesemaphore";
    /// A thread of the system was terminated, not one of the driver.
    TERMINATED_WORKER = "PsTerminateWorker", Misuse, [],
        apis: ["PsTerminateSystemThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-psterminatesystemthread";
    /// A DPC ran for longer than 20 s.
    DPC_TIME = "DpcTime", BugCheckWith(0x133, 0), ["DPC time count (in ticks)", "DPC time allotment (in ticks)", "reserved"],
        apis: ["KeStallExecutionProcessor"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x133-dpc-watchdog-violation";
    /// The system spent 120 s at `DISPATCH_LEVEL` or above.
    DISPATCH_TIME = "DispatchTime", BugCheckWith(0x133, 1), ["watchdog period", "reserved", "reserved"],
        apis: ["KeStallExecutionProcessor"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x133-dpc-watchdog-violation";
}
