// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The input is a nest of boxes, and each box is parsed by a call of its own. How
// deep they are is the caller's choice.
//
// ntsim: 0x7F, the kernel stack overflows, in ParseBox.

#include "planted.h"

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

// A box is '[', what is in it, and ']'. Gives what is behind it, or NULL.
static __attribute__((noinline)) const UCHAR *ParseBox(const UCHAR *At, const UCHAR *End, ULONG Depth)
{
    // What a parser keeps of each level.
    volatile UCHAR name[128];

    name[Depth % sizeof(name)] = (UCHAR)Depth;
#if FIXED
    if (Depth > 16) {
        return NULL;
    }
#endif
    while (At != NULL && At < End) {
        if (*At == ']') {
            return name[Depth % sizeof(name)] == (UCHAR)Depth ? At + 1 : NULL;
        }
        At = *At == '[' ? ParseBox(At + 1, End, Depth + 1) : At + 1;
    }
    return NULL;
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    NTSTATUS status;
    PVOID input;
    size_t length;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    status = WdfRequestRetrieveInputBuffer(Request, 2, &input, &length);
    if (NT_SUCCESS(status) && ParseBox(input, (PUCHAR)input + length, 0) == NULL) {
        status = STATUS_INVALID_PARAMETER;
    }
    WdfRequestComplete(Request, status);
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
