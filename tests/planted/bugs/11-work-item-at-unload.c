// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A work item in the device's context is queued, and nothing waits for it when
// the device goes. The framework's own work item, in the twin, is waited for.
//
// ntsim: 0xE4, memory is freed that holds a queued work item; or the routine uses
// the context that is gone (0x50), in OnWork.

#include "planted.h"

typedef struct _DEVICE_CONTEXT {
#if FIXED
    WDFWORKITEM Item;
#else
    WORK_QUEUE_ITEM Item;
#endif
    volatile LONG Runs;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceContext);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

#if FIXED
static EVT_WDF_WORKITEM OnWork;

static void OnWork(WDFWORKITEM Item)
{
    InterlockedIncrement(&DeviceContext(WdfWorkItemGetParentObject(Item))->Runs);
}
#else
static WORKER_THREAD_ROUTINE OnWork;

static void OnWork(PVOID Parameter)
{
    PDEVICE_CONTEXT context = Parameter;

    KeEnterCriticalRegion();
    InterlockedIncrement(&context->Runs);
    KeLeaveCriticalRegion();
}
#endif

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PDEVICE_CONTEXT context = DeviceContext(WdfIoQueueGetDevice(Queue));

    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
#if FIXED
    WdfWorkItemEnqueue(context->Item);
#else
    ExInitializeWorkItem(&context->Item, OnWork, context);
    ExQueueWorkItem(&context->Item, DelayedWorkQueue);
#endif
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
#if FIXED
    {
        WDF_WORKITEM_CONFIG config;

        WDF_WORKITEM_CONFIG_INIT(&config, OnWork);
        WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
        attributes.ParentObject = device;
        status = WdfWorkItemCreate(&config, &attributes, &DeviceContext(device)->Item);
        if (!NT_SUCCESS(status)) {
            return status;
        }
    }
#endif
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
