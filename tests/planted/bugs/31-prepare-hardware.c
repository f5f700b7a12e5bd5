// SPDX-License-Identifier: MIT OR Apache-2.0
//
// PrepareHardware allocates a buffer and then finds that the device has no
// resources. ReleaseHardware undoes what was prepared if all of it was.
//
// ntsim: 0xC4/0x62, the driver is unloaded and leaves pool with its tag.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    PVOID Buffer;
    BOOLEAN Prepared;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_DEVICE_PREPARE_HARDWARE OnPrepareHardware;
static EVT_WDF_DEVICE_RELEASE_HARDWARE OnReleaseHardware;

static NTSTATUS OnPrepareHardware(WDFDEVICE Device, WDFCMRESLIST Raw, WDFCMRESLIST Translated)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);

    UNREFERENCED_PARAMETER(Raw);
    context->Buffer = ExAllocatePool2(POOL_FLAG_NON_PAGED, 256, TAG);
    if (context->Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (WdfCmResourceListGetCount(Translated) == 0) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    context->Prepared = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS OnReleaseHardware(WDFDEVICE Device, WDFCMRESLIST Translated)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);

    UNREFERENCED_PARAMETER(Translated);
#if FIXED
    if (context->Buffer != NULL)
#else
    if (context->Prepared)
#endif
    {
        ExFreePoolWithTag(context->Buffer, TAG);
        context->Buffer = NULL;
        context->Prepared = FALSE;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS callbacks;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;

    UNREFERENCED_PARAMETER(Driver);
    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&callbacks);
    callbacks.EvtDevicePrepareHardware = OnPrepareHardware;
    callbacks.EvtDeviceReleaseHardware = OnReleaseHardware;
    WdfDeviceInitSetPnpPowerEventCallbacks(Init, &callbacks);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    return WdfDeviceCreate(&Init, &attributes, &device);
}

PLANTED_DRIVER(NULL)
