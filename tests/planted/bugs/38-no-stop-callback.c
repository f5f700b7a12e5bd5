// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The driver keeps a request of a power-managed queue and has no EvtIoStop. The
// framework cannot take the device out of D0 before that request is completed.
//
// ntsim: deadlock; the power-down waits for the request that the driver has.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    WDFREQUEST Waiting;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

#if FIXED
static EVT_WDF_IO_QUEUE_IO_STOP OnStop;

static void OnStop(WDFQUEUE Queue, WDFREQUEST Request, ULONG Flags)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    if (context->Waiting != Request) {
        return;
    }
    if (Flags & WdfRequestStopActionSuspend) {
        WdfRequestStopAcknowledge(Request, FALSE);
    } else {
        context->Waiting = NULL;
        WdfRequestComplete(Request, STATUS_CANCELLED);
    }
}
#endif

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    WDFREQUEST waiting;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        context->Waiting = Request;
    } else {
        waiting = context->Waiting;
        context->Waiting = NULL;
        if (waiting != NULL) {
            WdfRequestComplete(waiting, STATUS_SUCCESS);
        }
        WdfRequestComplete(Request, STATUS_SUCCESS);
    }
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_IO_QUEUE_CONFIG config;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_IO_QUEUE_CONFIG_INIT_DEFAULT_QUEUE(&config, WdfIoQueueDispatchParallel);
    config.EvtIoDeviceControl = OnControl;
#if FIXED
    config.EvtIoStop = OnStop;
#endif
    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    // One callback of the queue at a time.
    attributes.SynchronizationScope = WdfSynchronizationScopeQueue;
    return WdfIoQueueCreate(device, &config, &attributes, WDF_NO_HANDLE);
}

PLANTED_DRIVER(NULL)
