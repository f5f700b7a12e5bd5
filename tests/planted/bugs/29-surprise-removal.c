// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Requests wait in a list of the driver's own until the hardware has an answer.
// When the device is pulled out there will be no answer, and the release of the
// hardware waits for one.
//
// ntsim: deadlock; the removal waits for the event, and the program for its request.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
    WDFQUEUE Waiting;
    volatile LONG Outstanding;
    KEVENT Idle;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_IO_QUEUE_IO_CANCELED_ON_QUEUE OnCanceled;
static EVT_WDF_DEVICE_SURPRISE_REMOVAL OnSurpriseRemoval;
static EVT_WDF_DEVICE_RELEASE_HARDWARE OnReleaseHardware;

static void Answer(PDEVICE_CONTEXT Context, WDFREQUEST Request, NTSTATUS Status)
{
    WdfRequestComplete(Request, Status);
    if (InterlockedDecrement(&Context->Outstanding) == 0) {
        KeSetEvent(&Context->Idle, IO_NO_INCREMENT, FALSE);
    }
}

static void AnswerAll(PDEVICE_CONTEXT Context, NTSTATUS Status)
{
    WDFREQUEST request;

    while (NT_SUCCESS(WdfIoQueueRetrieveNextRequest(Context->Waiting, &request))) {
        Answer(Context, request, Status);
    }
}

static void OnCanceled(WDFQUEUE Queue, WDFREQUEST Request)
{
    Answer(DeviceContext(WdfIoQueueGetDevice(Queue)), Request, STATUS_CANCELLED);
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    NTSTATUS status;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    if (Code == IOCTL(0)) {
        InterlockedIncrement(&context->Outstanding);
        status = WdfRequestForwardToIoQueue(Request, context->Waiting);
        if (!NT_SUCCESS(status)) {
            Answer(context, Request, status);
        }
    } else {
        // In place of the hardware's interrupt.
        AnswerAll(context, STATUS_SUCCESS);
        WdfRequestComplete(Request, STATUS_SUCCESS);
    }
}

static void OnSurpriseRemoval(WDFDEVICE Device)
{
#if FIXED
    AnswerAll(DeviceContext(Device), STATUS_NO_SUCH_DEVICE);
#else
    UNREFERENCED_PARAMETER(Device);
#endif
}

static NTSTATUS OnReleaseHardware(WDFDEVICE Device, WDFCMRESLIST Resources)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);

    UNREFERENCED_PARAMETER(Resources);
#if FIXED
    // Also those that came after the surprise.
    AnswerAll(context, STATUS_NO_SUCH_DEVICE);
#endif
    // The one of the device itself.
    if (InterlockedDecrement(&context->Outstanding) != 0) {
        KeWaitForSingleObject(&context->Idle, Executive, KernelMode, FALSE, NULL);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_PNPPOWER_EVENT_CALLBACKS callbacks;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_IO_QUEUE_CONFIG config;
    PDEVICE_CONTEXT context;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&callbacks);
    callbacks.EvtDeviceSurpriseRemoval = OnSurpriseRemoval;
    callbacks.EvtDeviceReleaseHardware = OnReleaseHardware;
    WdfDeviceInitSetPnpPowerEventCallbacks(Init, &callbacks);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    context = DeviceContext(device);
    context->Outstanding = 1;
    KeInitializeEvent(&context->Idle, NotificationEvent, FALSE);
    WDF_IO_QUEUE_CONFIG_INIT(&config, WdfIoQueueDispatchManual);
    config.PowerManaged = WdfFalse;
    config.EvtIoCanceledOnQueue = OnCanceled;
    status = WdfIoQueueCreate(device, &config, WDF_NO_OBJECT_ATTRIBUTES, &context->Waiting);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    // Power-managed: none is delivered once the hardware is to be released.
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfTrue);
}

PLANTED_DRIVER(NULL)
