// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The samples are in paged pool, and a timer callback at DISPATCH_LEVEL writes one.
//
// ntsim: 0xD1, the driver writes paged memory at DISPATCH_LEVEL, in OnTimer.

#include "planted.h"

#define SAMPLES 16

typedef struct _DEVICE_CONTEXT {
    PULONG Samples;
    ULONG Count;
    WDFTIMER Timer;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_TIMER OnTimer;
static EVT_WDF_OBJECT_CONTEXT_CLEANUP OnCleanup;

static void OnTimer(WDFTIMER Timer)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfTimerGetParentObject(Timer));
    ULONG64 counter;

    context->Samples[context->Count++ % SAMPLES] = (ULONG)KeQueryInterruptTimePrecise(&counter);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    WdfTimerStart(DeviceContext(WdfIoQueueGetDevice(Queue))->Timer, -MILLISECONDS(10));
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static void OnCleanup(WDFOBJECT Device)
{
    if (DeviceContext(Device)->Samples != NULL) {
        ExFreePoolWithTag(DeviceContext(Device)->Samples, TAG);
    }
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
    // After the timer, which is the device's child, is gone.
    attributes.EvtDestroyCallback = OnCleanup;
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    context = DeviceContext(device);
#if FIXED
    context->Samples = ExAllocatePool2(POOL_FLAG_NON_PAGED, SAMPLES * sizeof(ULONG), TAG);
#else
    context->Samples = ExAllocatePool2(POOL_FLAG_PAGED, SAMPLES * sizeof(ULONG), TAG);
#endif
    if (context->Samples == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WDF_TIMER_CONFIG_INIT(&config, OnTimer);
    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    attributes.ParentObject = device;
    status = WdfTimerCreate(&config, &attributes, &context->Timer);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
