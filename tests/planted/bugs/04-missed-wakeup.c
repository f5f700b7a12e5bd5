// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Two workers wait for one auto-reset event, which is set once for each request.
// Set twice before anybody wakes it is set once: a request stays, and a worker waits.
//
// ntsim: deadlock; both worker threads wait for the event.

#include "planted.h"

#define WORKERS 2

typedef struct _DEVICE_CONTEXT {
    KEVENT Stop;
#if FIXED
    KSEMAPHORE Work;
#else
    KEVENT Work;
#endif
    WDFQUEUE Requests;
    PETHREAD Workers[WORKERS];
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_DEVICE_SELF_MANAGED_IO_INIT StartWorkers;
static EVT_WDF_DEVICE_SELF_MANAGED_IO_CLEANUP StopWorkers;
static KSTART_ROUTINE Worker;

static void Worker(PVOID Parameter)
{
    PDEVICE_CONTEXT context = Parameter;
    PVOID objects[] = { &context->Stop, &context->Work };
    WDFREQUEST request;

    while (KeWaitForMultipleObjects(2, objects, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) == STATUS_WAIT_1) {
        if (NT_SUCCESS(WdfIoQueueRetrieveNextRequest(context->Requests, &request))) {
            WdfRequestComplete(request, STATUS_SUCCESS);
        }
    }
}

static NTSTATUS StartWorkers(WDFDEVICE Device)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG index;

    for (index = 0; index < WORKERS && NT_SUCCESS(status); index++) {
        status = PlantedThread(Worker, context, &context->Workers[index]);
    }
    return status;
}

static void StopWorkers(WDFDEVICE Device)
{
    PDEVICE_CONTEXT context = DeviceContext(Device);
    ULONG index;

    KeSetEvent(&context->Stop, IO_NO_INCREMENT, FALSE);
    for (index = 0; index < WORKERS; index++) {
        if (context->Workers[index] != NULL) {
            PlantedJoin(context->Workers[index]);
        }
    }
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));
    NTSTATUS status;

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    status = WdfRequestForwardToIoQueue(Request, context->Requests);
    if (!NT_SUCCESS(status)) {
        WdfRequestComplete(Request, status);
        return;
    }
#if FIXED
    KeReleaseSemaphore(&context->Work, IO_NO_INCREMENT, 1, FALSE);
#else
    KeSetEvent(&context->Work, IO_NO_INCREMENT, FALSE);
#endif
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
    callbacks.EvtDeviceSelfManagedIoInit = StartWorkers;
    callbacks.EvtDeviceSelfManagedIoCleanup = StopWorkers;
    WdfDeviceInitSetPnpPowerEventCallbacks(Init, &callbacks);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    context = DeviceContext(device);
    KeInitializeEvent(&context->Stop, NotificationEvent, FALSE);
#if FIXED
    KeInitializeSemaphore(&context->Work, 0, MAXLONG);
#else
    KeInitializeEvent(&context->Work, SynchronizationEvent, FALSE);
#endif
    WDF_IO_QUEUE_CONFIG_INIT(&config, WdfIoQueueDispatchManual);
    config.PowerManaged = WdfFalse;
    status = WdfIoQueueCreate(device, &config, WDF_NO_OBJECT_ATTRIBUTES, &context->Requests);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfFalse);
}

PLANTED_DRIVER(NULL)
