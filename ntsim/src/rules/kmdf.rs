// SPDX-License-Identifier: MIT OR Apache-2.0

//! What KMDF and its verifier do not let pass.
//!
//! What the framework stops the machine for is bug check 0x10D. For most of the
//! rest its verifier breaks into the debugger, and without one attached Windows
//! reports the breakpoint: 0x1E with `STATUS_BREAKPOINT`.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kmdf-verifier>

use super::Report;
use super::Report::BugCheckWith;

/// The verifier's breakpoint.
const BREAK: Report = BugCheckWith(0x1E, 0x8000_0003);

const fn violation(code: u64) -> Report {
    BugCheckWith(0x10D, code)
}

rules! { Kmdf;
    /// A lock was to be acquired by who holds it.
    RECURSIVE_LOCK = "KmdfRecursiveLock", violation(0x2), [],
        apis: ["WdfSpinLockAcquire", "WdfWaitLockAcquire", "WdfObjectAcquireLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// A request was completed while references to the memory objects of its buffers are left.
    REQUEST_MEMORY_REFERENCED = "KmdfRequestMemoryReferenced", violation(0x3), ["WDFREQUEST handle", "number of outstanding references on both buffers"],
        apis: ["WdfRequestComplete", "WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// NULL was passed for a parameter that a function needs.
    NULL_PARAMETER = "KmdfRequiredParameterIsNull", violation(0x4), [],
        apis: ["Wdf*"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// What was passed for a handle is no handle, or one of another type.
    INVALID_HANDLE = "KmdfInvalidHandle", violation(0x5), ["handle value"],
        apis: ["Wdf*"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// The handle of an object was used after the object was deleted.
    DELETED_HANDLE = "KmdfDeletedHandle", violation(0x5), ["handle value"],
        apis: ["Wdf*"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-life-cycle";
    /// A framework function was called before `WdfDriverCreate`.
    DRIVER_CREATE = "DriverCreate", violation(0x5), ["0"],
        apis: ["Wdf*"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-drivercreate";
    /// A device-init record was used after `WdfDeviceCreate`.
    DEVICE_INIT_USED = "DeviceInitAPI", violation(0x5), ["address of the record"],
        apis: ["WdfDeviceInit*", "WdfDeviceCreate"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-deviceinitapi";
    /// A request that the driver made itself, and that has no type yet, was to be formatted as it is.
    REQUEST_NULL_IRP = "KmdfRequestNullIrp", violation(0x6), ["0x2", "WDFREQUEST handle"],
        apis: ["WdfRequestFormatRequestUsingCurrentType"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// A request was used that is sent to an I/O target.
    REQUEST_ALREADY_SENT = "KmdfRequestAlreadySent", violation(0x6), ["0x3", "WDFREQUEST handle"],
        apis: ["WdfRequestSend", "WdfRequestComplete", "WdfRequestReuse"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// A request was completed with more bytes than its buffer has.
    REQUEST_INFORMATION_LENGTH = "KmdfRequestInformationLength", violation(0x6), ["0x4"],
        apis: ["WdfRequestComplete", "WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// The last reference to an object was dropped, which was not deleted.
    DEREFERENCED_TO_DELETE = "KmdfDereferencedToDelete", violation(0x7), ["handle of the object"],
        apis: ["WdfObjectDereference"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// An object was to be deleted that only the framework deletes.
    DELETE_NOT_ALLOWED = "KmdfDeleteNotAllowed", violation(0x7), ["handle of the object"],
        apis: ["WdfObjectDelete"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectdelete";
    /// The lock of an object was to be acquired that has none.
    NO_LOCK = "KmdfObjectWithoutLock", violation(0xB), ["handle value", "0"],
        apis: ["WdfObjectAcquireLock", "WdfObjectReleaseLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// A spin lock was released by a thread that did not acquire it.
    SPIN_LOCK_NOT_HELD = "KmdfSpinLockNotHeld", violation(0xB), ["WDFSPINLOCK handle", "1"],
        apis: ["WdfSpinLockRelease"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// A wait lock was released by a thread that did not acquire it.
    WAIT_LOCK_NOT_HELD = "KmdfWaitLockNotHeld", violation(0xB), ["handle value"],
        apis: ["WdfWaitLockRelease"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-wdfwaitlock";
    /// The lock of a device was released by a thread that did not acquire it.
    OBJECT_LOCK_NOT_HELD = "KmdfObjectLockNotHeld", violation(0xB), ["handle value"],
        apis: ["WdfObjectReleaseLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfsync/nf-wdfsync-wdfobjectreleaselock";

    /// A record of another size than the framework's was passed to a function that cannot say so.
    RECORD_SIZE = "KmdfRecordSize", BREAK, [],
        apis: ["WdfDeviceInitSetPnpPowerEventCallbacks", "WdfDeviceSetDeviceState", "WdfDriverIsVersionAvailable", "WdfRequestGetParameters", "WdfRequestGetCompletionParams", "WdfInterruptGetInfo"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kmdf-verifier";
    /// A number was passed that is none of the enumeration's, to a function that cannot say so.
    ENUMERATION = "KmdfEnumerationValue", BREAK, [],
        apis: ["WdfDeviceInitSetIoType", "WdfDeviceSetFailed", "WdfDeviceSetSpecialFileSupport", "WdfDeviceSetDeviceState", "WdfInterruptSetPolicy", "WdfControlDeviceInitSetShutdownNotification"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kmdf-verifier";
    /// Object attributes were passed that the framework refuses, to a function that cannot say so.
    ATTRIBUTES = "KmdfObjectAttributes", BREAK, [],
        apis: ["WdfDeviceInitSetRequestAttributes", "WdfDeviceInitSetFileObjectConfig"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/ns-wdfobject-_wdf_object_attributes";
    /// A function for control devices was called for another device, or the other way round.
    CONTROL_DEVICE = "ControlDeviceInitAPI", BREAK, [],
        apis: ["WdfControlDeviceInitSetShutdownNotification", "WdfControlFinishInitializing", "WdfDeviceInitSetPnpPowerEventCallbacks", "WdfDeviceInitSetPowerNotPageable", "WdfDeviceSetFailed"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-controldeviceinitapi";
    /// The device-init record of `EvtDriverDeviceAdd` was freed, which is the framework's.
    INIT_FREE = "InitFreeDeviceCreate", BREAK, [],
        apis: ["WdfDeviceInitFree"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitfree";
    /// A request was completed, or otherwise used, that is completed.
    DOUBLE_COMPLETION = "DoubleCompletion", BREAK, [],
        apis: ["WdfRequestComplete", "WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-doublecompletion";
    /// A request was completed, or otherwise used, that is in a queue and not the driver's.
    REQUEST_IN_QUEUE = "InvalidReqAccess", BREAK, [],
        apis: ["WdfRequestComplete", "WdfRequestMarkCancelable", "WdfRequestForwardToIoQueue", "WdfRequestRetrieveInputBuffer"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-invalidreqaccess";
    /// A request was completed that the driver made itself.
    REQUEST_OF_DRIVER = "KmdfCompletedOwnRequest", BREAK, [],
        apis: ["WdfRequestComplete", "WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-framework-request-objects";
    /// A request was completed, forwarded or sent while it is cancelable.
    REQUEST_CANCELABLE = "KmdfRequestCancelable", BREAK, [],
        apis: ["WdfRequestComplete", "WdfRequestForwardToIoQueue", "WdfRequestRequeue", "WdfRequestMarkCancelable", "WdfRequestSend"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/synchronizing-cancel-and-completion-code";
    /// A request was to be made cancelable again while its cancellation is under way.
    MARK_AFTER_CANCEL = "MarkCancOnCancReqLocal", BREAK, [],
        apis: ["WdfRequestMarkCancelable", "WdfRequestMarkCancelableEx"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-markcanconcancreqlocal";
    /// A request was to be made uncancelable that is not cancelable.
    NOT_CANCELABLE = "ReqNotCanceled", BREAK, [],
        apis: ["WdfRequestUnmarkCancelable"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestunmarkcancelable";
    /// `WdfRequestStopAcknowledge` was called for a request for which `EvtIoStop` was not.
    STOP_ACKNOWLEDGE = "KmdfStopAcknowledge", BREAK, [],
        apis: ["WdfRequestStopAcknowledge"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequeststopacknowledge";
    /// A request was to be sent with options that contradict each other or that there are not.
    SEND_OPTIONS = "KmdfSendOptions", BREAK, [],
        apis: ["WdfRequestSend"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ns-wdfrequest-_wdf_request_send_options";
    /// A request was sent to be forgotten that was formatted otherwise than as it is.
    SEND_AND_FORGET = "KmdfSendAndForget", BREAK, [],
        apis: ["WdfRequestSend"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/ne-wdfrequest-_wdf_request_send_options_flags";
    /// A request from a queue was sent without a completion routine, so that nobody completes it.
    NO_COMPLETION_ROUTINE = "KmdfSentWithoutCompletionRoutine", BREAK, [],
        apis: ["WdfRequestSend"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/forwarding-i-o-requests";
    /// A queue was to be stopped, drained or purged by a handler of the queue, for whose request that waits.
    QUEUE_WAITS_FOR_ITSELF = "KmdfQueueWaitsForItself", BREAK, [],
        apis: ["WdfIoQueueStopSynchronously", "WdfIoQueueDrainSynchronously", "WdfIoQueuePurgeSynchronously", "WdfIoQueueStopAndPurgeSynchronously"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestopsynchronously";
    /// A timer was started that is being deleted.
    TIMER_DELETED = "KmdfTimerStartedWhileDeleted", BREAK, [],
        apis: ["WdfTimerStart"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/using-timers";
    /// A timer was to be stopped, with waiting, by its own callback.
    TIMER_STOPS_ITSELF = "KmdfTimerStopsItself", BREAK, [],
        apis: ["WdfTimerStop"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstop";
    /// A timer was to be stopped, with waiting, while another thread does.
    TIMER_STOPPED_TWICE = "KmdfTimerStoppedTwice", BREAK, [],
        apis: ["WdfTimerStop"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstop";
    /// A timer whose callback runs at `PASSIVE_LEVEL` was deleted by it.
    TIMER_DELETES_ITSELF = "KmdfTimerDeletesItself", BREAK, [],
        apis: ["WdfObjectDelete"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/using-timers";
    /// A work item was queued that is being deleted.
    WORK_ITEM_DELETED = "KmdfWorkItemQueuedWhileDeleted", BREAK, [],
        apis: ["WdfWorkItemEnqueue"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/using-framework-work-items";
    /// A work item was to be flushed by its own callback.
    WORK_ITEM_FLUSHES_ITSELF = "KmdfWorkItemFlushesItself", BREAK, [],
        apis: ["WdfWorkItemFlush"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemflush";
    /// An item was to be removed from a collection that does not have it.
    COLLECTION_ITEM = "KmdfCollectionItem", BREAK, [],
        apis: ["WdfCollectionRemove", "WdfCollectionRemoveItem"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcollection/nf-wdfcollection-wdfcollectionremove";
    /// `WdfDeviceResumeIdle` was called more often than `WdfDeviceStopIdle`.
    RESUME_IDLE = "KmdfResumeIdle", BREAK, [],
        apis: ["WdfDeviceResumeIdle"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceresumeidle";
    /// The DPC or work item of an interrupt was to be queued that has none.
    INTERRUPT_CALLBACK = "KmdfInterruptWithoutCallback", BREAK, [],
        apis: ["WdfInterruptQueueDpcForIsr", "WdfInterruptQueueWorkItemForIsr"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/servicing-an-interrupt";
    /// The lock of an interrupt that is not handled at `PASSIVE_LEVEL` was to be tried.
    INTERRUPT_TRY_LOCK = "KmdfInterruptTryLock", BREAK, [],
        apis: ["WdfInterruptTryToAcquireLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterrupttrytoacquirelock";
    /// The lock of an interrupt was to be acquired above the interrupt's IRQL.
    INTERRUPT_LOCK_IRQL = "KmdfInterruptLockIrql", BREAK, [],
        apis: ["WdfInterruptAcquireLock", "WdfInterruptReleaseLock", "WdfInterruptSynchronize"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptacquirelock";
    /// A target was to be started above `PASSIVE_LEVEL` while it is being stopped or purged.
    TARGET_START = "KmdfTargetStartedWhileStopping", BREAK, [],
        apis: ["WdfIoTargetStart"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetstart";
    /// A PnP or power callback of a device that is not power-pageable did not return within ten minutes.
    POWER_ROUTINE_TIMED_OUT = "KmdfPowerRoutineTimedOut", violation(0x1), [],
        apis: ["EvtDeviceD0Entry", "EvtDeviceD0Exit", "EvtDeviceSelfManagedIoSuspend", "EvtDeviceSelfManagedIoRestart"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// The framework waited longer for the driver to give its requests back than the registry lets it.
    WAIT_FOR_SIGNAL = "KmdfDbgWaitForSignal", BREAK, [],
        apis: ["EvtIoStop", "WdfRequestStopAcknowledge", "WdfRequestComplete"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kmdf-verifier";
    /// A callback returned at another IRQL than it was called at.
    CALLBACK_IRQL = "KmdfCallbackIrql", violation(0xE), ["IRQL at the call", "IRQL at the return"],
        apis: ["Evt*"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
    /// A callback returned inside a critical region that it entered, or outside of one that it was called in.
    CALLBACK_CRITICAL_REGION = "KmdfCallbackCriticalRegion", violation(0xF), ["address of the callback"],
        apis: ["Evt*"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x10d---wdf-violation";
}
