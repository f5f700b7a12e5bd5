// SPDX-License-Identifier: MIT OR Apache-2.0

//! Timers, DPCs and work items.

use super::Report::{BugCheck, BugCheckWith, Misuse};

rules! { Deferred;
    /// Memory is freed with a timer in it that is set.
    TIMER_FREED = "TimerFreed", BugCheckWith(0xC4, 0x15), ["timer", "pool type", "block"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A timer is initialised while it is set.
    TIMER_INITIALIZED_WHILE_SET = "TimerInitializedWhileSet", BugCheckWith(0xC7, 0x0), ["timer"],
        apis: ["KeInitializeTimer", "KeInitializeTimerEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc7--timer-or-dpc-invalid";
    /// What is used as a timer is another object.
    NO_TIMER = "TimerOfAnotherKind", Misuse, [],
        apis: ["KeSetTimer", "KeSetTimerEx", "KeSetCoalescableTimer", "KeCancelTimer", "KeReadStateTimer"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimer";
    /// A timer is set with a period below 0.
    TIMER_PERIOD = "TimerPeriod", Misuse, [],
        apis: ["KeSetTimerEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimerex";
    /// Memory is freed with a DPC in it that is queued, or that a set timer will queue.
    DPC_FREED = "DpcFreed", BugCheckWith(0xC7, 0x1), ["DPC", "start of the block", "end of the block"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc7--timer-or-dpc-invalid";
    /// A DPC is queued for a processor that there is not.
    DPC_PROCESSOR = "DpcProcessor", BugCheckWith(0xC7, 0x3), ["DPC", "processor", "number of processors"],
        apis: ["KeSetTargetProcessorDpc", "KeInsertQueueDpc"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc7--timer-or-dpc-invalid";
    /// Memory is freed with a work item in it that is queued.
    WORK_ITEM_MEMORY_FREED = "WorkItemMemoryFreed", BugCheckWith(0xE4, 0x0), ["work item", "start of the block", "end of the block"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe4--worker-invalid";
    /// A work item is queued that is in a queue.
    WORK_ITEM_QUEUED_TWICE = "WorkItemQueuedTwice", BugCheckWith(0xE4, 0x1), ["work item", "queue", "0"],
        apis: ["ExQueueWorkItem", "IoQueueWorkItem", "IoQueueWorkItemEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe4--worker-invalid";
    /// A work item of the I/O manager's is freed while it is queued.
    WORK_ITEM_FREED = "WorkItemFreed", BugCheckWith(0xE4, 0x2), ["work item", "routine", "0"],
        apis: ["IoFreeWorkItem", "IoUninitializeWorkItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe4--worker-invalid";
    /// A work item of the I/O manager's is made for no object.
    WORK_ITEM_OBJECT = "WorkItemObject", BugCheckWith(0xE4, 0x3), ["work item", "object", "0"],
        apis: ["IoAllocateWorkItem", "IoInitializeWorkItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe4--worker-invalid";
    /// A work item is queued in a queue that there is not.
    WORK_ITEM_QUEUE = "WorkItemQueue", BugCheckWith(0xE4, 0x6), ["work item", "queue", "0"],
        apis: ["ExQueueWorkItem", "IoQueueWorkItem", "IoQueueWorkItemEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe4--worker-invalid";
    /// A work item is queued without a routine.
    WORK_ITEM_ROUTINE = "WorkItemRoutine", BugCheckWith(0xE4, 0x7), ["work item", "queue", "0"],
        apis: ["ExQueueWorkItem", "IoQueueWorkItem", "IoQueueWorkItemEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe4--worker-invalid";
    /// A work item is in pageable memory.
    WORK_ITEM_PAGED = "WorkItemPaged", BugCheckWith(0xC4, 0x131), ["work item"],
        apis: ["ExQueueWorkItem", "IoQueueWorkItem", "IoQueueWorkItemEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A work item of the I/O manager's is used that was not initialised, or was freed.
    WORK_ITEM_UNINITIALIZED = "WorkItemUninitialized", Misuse, [],
        apis: ["IoQueueWorkItem", "IoQueueWorkItemEx", "IoFreeWorkItem", "IoUninitializeWorkItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioqueueworkitem";
    /// A work item is freed that the driver did not allocate but initialise.
    WORK_ITEM_NOT_ALLOCATED = "WorkItemNotAllocated", Misuse, [],
        apis: ["IoFreeWorkItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeworkitem";
    /// A worker routine returns at another IRQL than `PASSIVE_LEVEL`.
    WORKER_IRQL = "WorkerIrql", BugCheck(0xE1), ["routine", "IRQL", "parameter", "work item"],
        apis: ["WorkerRoutine", "WorkItem"], irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xe1--worker-thread-returned-at-bad-irql";
}
