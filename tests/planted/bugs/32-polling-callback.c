// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A handler polls until the driver has no other request, instead of being called
// when that is so. Its own request is one that the driver has.
//
// ntsim: livelock; WdfIoQueueGetState is called without end, in OnControl.

#include "planted.h"

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    ULONG owned;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    do {
        (void)WdfIoQueueGetState(Queue, NULL, &owned);
#if FIXED
    } while (owned > 1);
#else
    } while (owned > 0);
#endif
    WdfRequestComplete(Request, STATUS_SUCCESS);
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
    return PlantedQueue(device, WdfIoQueueDispatchSequential, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
