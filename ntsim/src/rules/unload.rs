// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is left when a driver is unloaded.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/writing-an-unload-routine>

use super::Report::{BugCheck, BugCheckWith, Leak};

rules! { Unload;
    /// A driver is unloaded while a thread of its runs.
    THREAD = "UnloadThread", BugCheck(0xCE), [],
        apis: ["EvtDriverUnload", "DriverEntry", "PsCreateSystemThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xce--driver-unloaded-without-cancelling-pending-operations";
    /// A driver is unloaded while a timer of its is set.
    TIMER = "UnloadTimer", BugCheckWith(0xC7, 0x0), ["timer"],
        apis: ["EvtDriverUnload", "DriverEntry", "KeSetTimer"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc7--timer-or-dpc-invalid";
    /// A driver is unloaded while a DPC of its is queued.
    DPC = "UnloadDpc", BugCheckWith(0xC7, 0x2), ["DPC routine"],
        apis: ["EvtDriverUnload", "DriverEntry", "KeInsertQueueDpc"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc7--timer-or-dpc-invalid";
    /// A driver is unloaded while a work item of its is queued.
    WORK_ITEM = "UnloadWorkItem", BugCheck(0xCE), [],
        apis: ["EvtDriverUnload", "DriverEntry", "ExQueueWorkItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xce--driver-unloaded-without-cancelling-pending-operations";
    /// A driver is unloaded and leaves objects of the framework.
    OBJECT = "UnloadFrameworkObject", Leak, [],
        apis: ["EvtDriverUnload", "DriverEntry", "WdfObjectReference"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-life-cycle";
    /// A driver is unloaded and leaves handles open.
    HANDLE = "UnloadHandle", Leak, [],
        apis: ["EvtDriverUnload", "DriverEntry", "ZwOpenKey", "ZwCreateKey", "PsCreateSystemThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/kernel/object-handles";
    /// A driver is unloaded and leaves references to a thread.
    REFERENCE = "UnloadReference", Leak, [],
        apis: ["EvtDriverUnload", "DriverEntry", "ObReferenceObjectByHandle", "ObReferenceObject"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/kernel/life-cycle-of-an-object";
    /// A driver is unloaded and leaves a resource in the system's list.
    RESOURCE = "UnloadResource", Leak, [],
        apis: ["EvtDriverUnload", "DriverEntry", "ExInitializeResourceLite"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeleteresourcelite";
    /// A driver is unloaded and leaves pool.
    POOL = "UnloadPool", BugCheckWith(0xC4, 0x62), ["name of the driver", "reserved", "number of blocks"],
        apis: ["EvtDriverUnload", "DriverEntry", "ExAllocatePool2", "ExAllocatePoolWithTag", "IoAllocateWorkItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
}
