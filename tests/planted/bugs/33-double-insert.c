// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A buffer is put on the list of dirty ones if its flag says that it is not there.
// Flag and list change under the lock, but the flag is looked at before.
//
// ntsim: 0x139/3, a corrupt list, in Flush; or a DPC watchdog's or livelock report
// of the flush that goes round in circles.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    KSPIN_LOCK Lock;
    LIST_ENTRY Dirty;
    LIST_ENTRY Link;
    BOOLEAN Linked;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static void MakeDirty(PDEVICE_CONTEXT Context)
{
    KIRQL irql;

#if !FIXED
    if (Context->Linked) {
        return;
    }
#endif
    KeAcquireSpinLock(&Context->Lock, &irql);
#if FIXED
    if (!Context->Linked)
#endif
    {
        InsertTailList(&Context->Dirty, &Context->Link);
        Context->Linked = TRUE;
    }
    KeReleaseSpinLock(&Context->Lock, irql);
}

static void Flush(PDEVICE_CONTEXT Context)
{
    KIRQL irql;

    KeAcquireSpinLock(&Context->Lock, &irql);
    while (!IsListEmpty(&Context->Dirty)) {
        PDEVICE_CONTEXT first = CONTAINING_RECORD(RemoveHeadList(&Context->Dirty), DEVICE_CONTEXT, Link);
        first->Linked = FALSE;
    }
    KeReleaseSpinLock(&Context->Lock, irql);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        MakeDirty(context);
    } else {
        Flush(context);
    }
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    KeInitializeSpinLock(&DeviceContext(device)->Lock);
    InitializeListHead(&DeviceContext(device)->Dirty);
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
