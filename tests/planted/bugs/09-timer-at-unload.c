// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A periodic timer is set when somebody asks for it, and cancelled when somebody
// asks for that. Unloading forgets that it may be set.
//
// ntsim: 0xC7, the driver is unloaded while the timer is set.

#include "planted.h"

static KTIMER Heartbeat;
static KDPC HeartbeatDpc;
static volatile LONG Beats;

static KDEFERRED_ROUTINE OnHeartbeat;
static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_DRIVER_UNLOAD OnUnload;

static void OnHeartbeat(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    InterlockedIncrement(&Beats);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    LARGE_INTEGER due;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        due.QuadPart = -MILLISECONDS(100);
        KeSetTimerEx(&Heartbeat, due, 100, &HeartbeatDpc);
    } else {
        KeCancelTimer(&Heartbeat);
    }
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static void OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
#if FIXED
    KeCancelTimer(&Heartbeat);
#endif
    KeFlushQueuedDpcs();
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    KeInitializeTimer(&Heartbeat);
    KeInitializeDpc(&HeartbeatDpc, OnHeartbeat, NULL);
    status = WdfDeviceCreate(&Init, WDF_NO_OBJECT_ATTRIBUTES, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(OnUnload)
