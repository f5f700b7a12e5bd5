// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A copy of the input is made before the input is checked. What fails the check
// is refused, and the copy stays.
//
// ntsim: 0xC4/0x62, the driver is unloaded and leaves pool with its tag.

#include "planted.h"

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static NTSTATUS Program(WDFREQUEST Request)
{
    NTSTATUS status;
    PVOID input;
    PULONG copy;
    size_t length;

    status = WdfRequestRetrieveInputBuffer(Request, sizeof(ULONG), &input, &length);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    copy = ExAllocatePool2(POOL_FLAG_NON_PAGED, length, TAG);
    if (copy == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(copy, input, length);
    if (*copy > 16) {
#if FIXED
        ExFreePoolWithTag(copy, TAG);
#endif
        return STATUS_INVALID_PARAMETER;
    }
    ExFreePoolWithTag(copy, TAG);
    return STATUS_SUCCESS;
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    WdfRequestComplete(Request, Program(Request));
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
