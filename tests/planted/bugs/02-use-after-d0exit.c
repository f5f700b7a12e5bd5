// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The registers are there from D0Entry to D0Exit, but the queue whose handler
// reads them is not power-managed: a request comes while the device sleeps.
//
// ntsim: 0x50, the driver reads a freed block, in OnControl.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    // In place of a mapping of the device's registers.
    PULONG Registers;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_DEVICE_D0_ENTRY OnD0Entry;
static EVT_WDF_DEVICE_D0_EXIT OnD0Exit;

static NTSTATUS OnD0Entry(WDFDEVICE Device, WDF_POWER_DEVICE_STATE Previous)
{
    UNREFERENCED_PARAMETER(Previous);
    DeviceContext(Device)->Registers = ExAllocatePool2(POOL_FLAG_NON_PAGED, 64, TAG);
    return DeviceContext(Device)->Registers == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static NTSTATUS OnD0Exit(WDFDEVICE Device, WDF_POWER_DEVICE_STATE Target)
{
    UNREFERENCED_PARAMETER(Target);
    ExFreePoolWithTag(DeviceContext(Device)->Registers, TAG);
    return STATUS_SUCCESS;
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    NTSTATUS status;
    PULONG reading;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    status = WdfRequestRetrieveOutputBuffer(Request, sizeof(ULONG), (PVOID *)&reading, NULL);
    if (NT_SUCCESS(status)) {
        *reading = context->Registers[3];
        WdfRequestSetInformation(Request, sizeof(ULONG));
    }
    WdfRequestComplete(Request, status);
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS callbacks;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&callbacks);
    callbacks.EvtDeviceD0Entry = OnD0Entry;
    callbacks.EvtDeviceD0Exit = OnD0Exit;
    WdfDeviceInitSetPnpPowerEventCallbacks(Init, &callbacks);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
#if FIXED
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfTrue);
#else
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfFalse);
#endif
}

PLANTED_DRIVER(NULL)
