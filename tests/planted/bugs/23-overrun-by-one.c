// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A name is copied with its terminator into a buffer that has room for the name.
//
// ntsim: 0x50, the driver writes behind a block, in SetName; or the block is found
// damaged when it is freed (0xC1).

#include "planted.h"

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static NTSTATUS SetName(WDFREQUEST Request)
{
    NTSTATUS status;
    PVOID input;
    PCHAR name;
    size_t length;

    status = WdfRequestRetrieveInputBuffer(Request, 1, &input, &length);
    if (!NT_SUCCESS(status)) {
        return status;
    }
#if FIXED
    name = ExAllocatePool2(POOL_FLAG_NON_PAGED, length + 1, TAG);
#else
    name = ExAllocatePool2(POOL_FLAG_NON_PAGED, length, TAG);
#endif
    if (name == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(name, input, length);
    name[length] = '\0';
    DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL, "planted: %s\n", name);
    ExFreePoolWithTag(name, TAG);
    return STATUS_SUCCESS;
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    WdfRequestComplete(Request, SetName(Request));
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    status = WdfDeviceCreate(&Init, WDF_NO_OBJECT_ATTRIBUTES, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
