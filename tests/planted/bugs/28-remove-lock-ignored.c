// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Requests take the remove lock, and do not look whether they got it. The removal
// waits for who has the lock and frees the table; a late request uses it.
//
// ntsim: 0x50, the driver reads a freed block, or 0xC4, the remove lock is released
// by somebody who did not get it; in OnControl.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    IO_REMOVE_LOCK RemoveLock;
    PULONG Table;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_DEVICE_RELEASE_HARDWARE OnReleaseHardware;

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    NTSTATUS status;
    PULONG output;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    status = IoAcquireRemoveLock(&context->RemoveLock, Request);
#if FIXED
    if (!NT_SUCCESS(status)) {
        WdfRequestComplete(Request, status);
        return;
    }
#endif
    status = WdfRequestRetrieveOutputBuffer(Request, sizeof(ULONG), (PVOID *)&output, NULL);
    if (NT_SUCCESS(status)) {
        *output = context->Table[0];
    }
    IoReleaseRemoveLock(&context->RemoveLock, Request);
    WdfRequestComplete(Request, status);
}

static NTSTATUS OnReleaseHardware(WDFDEVICE Device, WDFCMRESLIST Translated)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);

    UNREFERENCED_PARAMETER(Translated);
    if (NT_SUCCESS(IoAcquireRemoveLock(&context->RemoveLock, Device))) {
        IoReleaseRemoveLockAndWait(&context->RemoveLock, Device);
        ExFreePoolWithTag(context->Table, TAG);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS callbacks;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&callbacks);
    callbacks.EvtDeviceReleaseHardware = OnReleaseHardware;
    WdfDeviceInitSetPnpPowerEventCallbacks(Init, &callbacks);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    IoInitializeRemoveLock(&DeviceContext(device)->RemoveLock, TAG, 0, 0);
    DeviceContext(device)->Table = ExAllocatePool2(POOL_FLAG_NON_PAGED, 64, TAG);
    if (DeviceContext(device)->Table == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfFalse);
}

PLANTED_DRIVER(NULL)
