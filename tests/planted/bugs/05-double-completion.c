// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A request that waits is completed by a control code, or by a timer when it has
// waited too long. Both look whether it is there, and forget it after completing it.
//
// ntsim: 0x10D, WdfRequestComplete of a request that is completed or gone, in Finish.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    WDFREQUEST Waiting;
    WDFTIMER Timer;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_TIMER OnTimer;

static void Finish(PDEVICE_CONTEXT Context, NTSTATUS Status)
{
#if FIXED
    WDFREQUEST request = InterlockedExchangePointer((PVOID *)&Context->Waiting, NULL);

    if (request != NULL) {
        WdfRequestComplete(request, Status);
    }
#else
    if (Context->Waiting != NULL) {
        WdfRequestComplete(Context->Waiting, Status);
        Context->Waiting = NULL;
    }
#endif
}

static void OnTimer(WDFTIMER Timer)
{
    Finish(DeviceContext(WdfTimerGetParentObject(Timer)), STATUS_IO_TIMEOUT);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        // One at a time: this driver's users know.
        context->Waiting = Request;
        WdfTimerStart(context->Timer, -MILLISECONDS(20));
    } else {
        Finish(context, STATUS_SUCCESS);
        WdfTimerStop(context->Timer, FALSE);
        WdfRequestComplete(Request, STATUS_SUCCESS);
    }
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_TIMER_CONFIG config;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_TIMER_CONFIG_INIT(&config, OnTimer);
    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    attributes.ParentObject = device;
    status = WdfTimerCreate(&config, &attributes, &DeviceContext(device)->Timer);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfFalse);
}

PLANTED_DRIVER(NULL)
