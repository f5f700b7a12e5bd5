// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A thread is told to stop when the driver is unloaded, and not waited for.
//
// ntsim: 0xCE, the driver is unloaded while its thread runs.

#include "planted.h"

static KEVENT Stop;
static PETHREAD Thread;
static volatile LONG Rounds;

static KSTART_ROUTINE Poll;
static EVT_WDF_DRIVER_UNLOAD OnUnload;

static void Poll(PVOID Context)
{
    LARGE_INTEGER timeout;

    UNREFERENCED_PARAMETER(Context);
    timeout.QuadPart = -MILLISECONDS(100);
    while (KeWaitForSingleObject(&Stop, Executive, KernelMode, FALSE, &timeout) == STATUS_TIMEOUT) {
        InterlockedIncrement(&Rounds);
    }
}

static void OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    if (Thread == NULL) {
        return;
    }
    KeSetEvent(&Stop, IO_NO_INCREMENT, FALSE);
#if FIXED
    PlantedJoin(Thread);
#else
    ObDereferenceObject(Thread);
#endif
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    KeInitializeEvent(&Stop, NotificationEvent, FALSE);
    status = WdfDeviceCreate(&Init, WDF_NO_OBJECT_ATTRIBUTES, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedThread(Poll, NULL, &Thread);
}

PLANTED_DRIVER(OnUnload)
