// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The operations in flight are counted with a read, a kernel call and a write, so
// that two at once can count as one. The last one to end sets an event that the
// removal waits for: the count never comes back to zero.
//
// ntsim: deadlock; the removal waits for the event.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    volatile LONG InFlight;
    KEVENT Idle;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_DEVICE_RELEASE_HARDWARE OnReleaseHardware;

static void Count(PDEVICE_CONTEXT Context, LONG Change)
{
#if FIXED
    LONG count = InterlockedExchangeAdd(&Context->InFlight, Change) + Change;
#else
    LONG count = Context->InFlight + Change;
#endif

    DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL, "planted: %d in flight\n", count);
#if !FIXED
    Context->InFlight = count;
#endif
    if (count == 0) {
        KeSetEvent(&Context->Idle, IO_NO_INCREMENT, FALSE);
    }
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    Count(context, 1);
    WdfRequestComplete(Request, STATUS_SUCCESS);
    Count(context, -1);
}

static NTSTATUS OnReleaseHardware(WDFDEVICE Device, WDFCMRESLIST Resources)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);

    UNREFERENCED_PARAMETER(Resources);
    // The one of the device itself.
    Count(context, -1);
    KeWaitForSingleObject(&context->Idle, Executive, KernelMode, FALSE, NULL);
    return STATUS_SUCCESS;
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS callbacks;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&callbacks);
    callbacks.EvtDeviceReleaseHardware = OnReleaseHardware;
    WdfDeviceInitSetPnpPowerEventCallbacks(Init, &callbacks);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    DeviceContext(device)->InFlight = 1;
    KeInitializeEvent(&DeviceContext(device)->Idle, NotificationEvent, FALSE);
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
