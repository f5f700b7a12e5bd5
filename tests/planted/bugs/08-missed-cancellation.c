// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A request is kept until something happens, without a cancel routine. When the
// program or the device goes before, nobody completes it, and the removal waits.
//
// ntsim: deadlock; the removal waits for the request that the driver has.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    KSPIN_LOCK Lock;
    WDFREQUEST Waiting;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static void Finish(PDEVICE_CONTEXT Context)
{
    WDFREQUEST request;
    KIRQL irql;

    KeAcquireSpinLock(&Context->Lock, &irql);
    request = Context->Waiting;
    Context->Waiting = NULL;
#if FIXED
    if (request != NULL && WdfRequestUnmarkCancelable(request) == STATUS_CANCELLED) {
        request = NULL;
    }
#endif
    KeReleaseSpinLock(&Context->Lock, irql);
    if (request != NULL) {
        WdfRequestComplete(request, STATUS_SUCCESS);
    }
}

#if FIXED
static EVT_WDF_REQUEST_CANCEL OnCancel;

static void OnCancel(WDFREQUEST Request)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(WdfRequestGetIoQueue(Request)));
    KIRQL irql;

    KeAcquireSpinLock(&context->Lock, &irql);
    // If it is not there, Finish had it, and leaves it to us.
    if (context->Waiting == Request) {
        context->Waiting = NULL;
    }
    KeReleaseSpinLock(&context->Lock, irql);
    WdfRequestComplete(Request, STATUS_CANCELLED);
}
#endif

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        KeAcquireSpinLock(&context->Lock, &irql);
#if FIXED
        status = WdfRequestMarkCancelableEx(Request, OnCancel);
#endif
        if (NT_SUCCESS(status)) {
            context->Waiting = Request;
        }
        KeReleaseSpinLock(&context->Lock, irql);
        if (!NT_SUCCESS(status)) {
            WdfRequestComplete(Request, status);
        }
    } else {
        Finish(context);
        WdfRequestComplete(Request, STATUS_SUCCESS);
    }
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
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfTrue);
}

PLANTED_DRIVER(NULL)
