// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A reader takes the pointer to the configuration and uses it later; a writer
// frees the old configuration meanwhile.
//
// ntsim: 0x50, the driver reads a freed block, in ReadGain.

#include "planted.h"

typedef struct _CONFIG {
    ULONG Gain;
} CONFIG, *PCONFIG;

typedef struct _DEVICE_CONTEXT {
    KSPIN_LOCK Lock;
    PCONFIG Config;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_OBJECT_CONTEXT_CLEANUP OnCleanup;

static NTSTATUS SetGain(PDEVICE_CONTEXT Context, WDFREQUEST Request)
{
    PCONFIG config, old;
    PULONG gain;
    NTSTATUS status;
    KIRQL irql;

    status = WdfRequestRetrieveInputBuffer(Request, sizeof(ULONG), (PVOID *)&gain, NULL);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    config = ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(CONFIG), TAG);
    if (config == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    config->Gain = *gain;
    KeAcquireSpinLock(&Context->Lock, &irql);
    old = Context->Config;
    Context->Config = config;
    KeReleaseSpinLock(&Context->Lock, irql);
    ExFreePoolWithTag(old, TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS ReadGain(PDEVICE_CONTEXT Context, WDFREQUEST Request)
{
    PCONFIG config;
    PULONG gain;
    NTSTATUS status;
    KIRQL irql;

#if FIXED
    status = WdfRequestRetrieveOutputBuffer(Request, sizeof(ULONG), (PVOID *)&gain, NULL);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    KeAcquireSpinLock(&Context->Lock, &irql);
    config = Context->Config;
    *gain = config->Gain;
    KeReleaseSpinLock(&Context->Lock, irql);
#else
    KeAcquireSpinLock(&Context->Lock, &irql);
    config = Context->Config;
    KeReleaseSpinLock(&Context->Lock, irql);
    status = WdfRequestRetrieveOutputBuffer(Request, sizeof(ULONG), (PVOID *)&gain, NULL);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    *gain = config->Gain;
#endif
    WdfRequestSetInformation(Request, sizeof(ULONG));
    return STATUS_SUCCESS;
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    WdfRequestComplete(Request, Code == IOCTL(0) ? SetGain(context, Request) : ReadGain(context, Request));
}

static void OnCleanup(WDFOBJECT Device)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);

    if (context->Config != NULL) {
        ExFreePoolWithTag(context->Config, TAG);
    }
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    attributes.EvtCleanupCallback = OnCleanup;
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    KeInitializeSpinLock(&DeviceContext(device)->Lock);
    DeviceContext(device)->Config = ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(CONFIG), TAG);
    if (DeviceContext(device)->Config == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
