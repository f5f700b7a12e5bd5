// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A request that cannot be handled yet is forwarded to the queue it came from,
// which the framework refuses. The status is not looked at: the request is lost.
//
// ntsim: deadlock; the program waits for its request.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    BOOLEAN Ready;
    WDFQUEUE Postponed;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    WDFREQUEST postponed;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        context->Ready = TRUE;
        while (NT_SUCCESS(WdfIoQueueRetrieveNextRequest(context->Postponed, &postponed))) {
            WdfRequestComplete(postponed, STATUS_SUCCESS);
        }
    } else if (!context->Ready) {
#if FIXED
        NTSTATUS status = WdfRequestForwardToIoQueue(Request, context->Postponed);

        if (!NT_SUCCESS(status)) {
            WdfRequestComplete(Request, status);
        }
#else
        WdfRequestForwardToIoQueue(Request, Queue);
#endif
        return;
    }
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_IO_QUEUE_CONFIG config;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    // One handler at a time, so that Ready is looked at and changed by one.
    attributes.SynchronizationScope = WdfSynchronizationScopeDevice;
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_IO_QUEUE_CONFIG_INIT(&config, WdfIoQueueDispatchManual);
    status = WdfIoQueueCreate(device, &config, WDF_NO_OBJECT_ATTRIBUTES, &DeviceContext(device)->Postponed);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
