// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A timer callback takes a wait lock. It runs at DISPATCH_LEVEL, because nobody
// asked for another execution level.
//
// ntsim: WdfWaitLockAcquire at IRQL 2, in OnTimer.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    WDFWAITLOCK Lock;
    WDFTIMER Timer;
    ULONG Ticks;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_TIMER OnTimer;

static void OnTimer(WDFTIMER Timer)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfTimerGetParentObject(Timer));

    WdfWaitLockAcquire(context->Lock, NULL);
    context->Ticks++;
    WdfWaitLockRelease(context->Lock);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    WdfTimerStart(DeviceContext(WdfIoQueueGetDevice(Queue))->Timer, -MILLISECONDS(10));
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_TIMER_CONFIG config;
    PDEVICE_CONTEXT context;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    context = DeviceContext(device);
    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    attributes.ParentObject = device;
    status = WdfWaitLockCreate(&attributes, &context->Lock);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_TIMER_CONFIG_INIT(&config, OnTimer);
    config.AutomaticSerialization = FALSE;
#if FIXED
    attributes.ExecutionLevel = WdfExecutionLevelPassive;
#endif
    status = WdfTimerCreate(&config, &attributes, &context->Timer);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
