// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Two spin locks are taken in one order by one control code, and in the other
// order by another.
//
// ntsim: each holds what the other one spins for, or the order is reported before
// that (0xC4/0x1001).

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    KSPIN_LOCK ListLock;
    KSPIN_LOCK StateLock;
    ULONG Entries;
    ULONG State;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static void AddEntry(PDEVICE_CONTEXT Context)
{
    KIRQL irql;

    KeAcquireSpinLock(&Context->ListLock, &irql);
    KeAcquireSpinLockAtDpcLevel(&Context->StateLock);
    Context->Entries += Context->State;
    KeReleaseSpinLockFromDpcLevel(&Context->StateLock);
    KeReleaseSpinLock(&Context->ListLock, irql);
}

static void ChangeState(PDEVICE_CONTEXT Context)
{
#if FIXED
    PKSPIN_LOCK first = &Context->ListLock, second = &Context->StateLock;
#else
    PKSPIN_LOCK first = &Context->StateLock, second = &Context->ListLock;
#endif
    KIRQL irql;

    KeAcquireSpinLock(first, &irql);
    KeAcquireSpinLockAtDpcLevel(second);
    Context->State = Context->Entries + 1;
    KeReleaseSpinLockFromDpcLevel(second);
    KeReleaseSpinLock(first, irql);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        AddEntry(context);
    } else {
        ChangeState(context);
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
    KeInitializeSpinLock(&DeviceContext(device)->ListLock);
    KeInitializeSpinLock(&DeviceContext(device)->StateLock);
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
