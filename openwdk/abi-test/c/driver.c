// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A KMDF driver as one writes it in C, to show that the headers carry it.
// `cargo xtask codegen --check` compiles it with every warning an error.

#include <ntddk.h>
#include <wdf.h>
#include <ntstrsafe.h>

#define POOL_TAG 'tseT'

typedef struct _DEVICE_CONTEXT {
    WDFDEVICE Device;
    WDFTIMER Timer;
    WDFWORKITEM WorkItem;
    WDFQUEUE Queue;
    KEVENT Stop;
    PETHREAD Thread;
    KSPIN_LOCK Lock;
    LIST_ENTRY Pending;
    volatile LONG Runs;
} DEVICE_CONTEXT, *PDEVICE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceGetContext);

typedef struct _FILE_CONTEXT {
    ULONG Opens;
} FILE_CONTEXT;

WDF_DECLARE_CONTEXT_TYPE(FILE_CONTEXT);

DRIVER_INITIALIZE DriverEntry;
static EVT_WDF_DRIVER_DEVICE_ADD DeviceAdd;
static EVT_WDF_DEVICE_PREPARE_HARDWARE PrepareHardware;
static EVT_WDF_DEVICE_D0_ENTRY D0Entry;
static EVT_WDF_DEVICE_D0_EXIT D0Exit;
static EVT_WDF_TIMER TimerFired;
static EVT_WDF_WORKITEM WorkItemRun;
static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL DeviceControl;
static EVT_WDF_DEVICE_FILE_CREATE FileCreate;
static EVT_WDF_OBJECT_CONTEXT_CLEANUP DeviceCleanup;
static KSTART_ROUTINE Poll;

static void TimerFired(WDFTIMER Timer)
{
    PDEVICE_CONTEXT context = DeviceGetContext(WdfTimerGetParentObject(Timer));
    WdfWorkItemEnqueue(context->WorkItem);
}

static void WorkItemRun(WDFWORKITEM WorkItem)
{
    PDEVICE_CONTEXT context = DeviceGetContext(WdfWorkItemGetParentObject(WorkItem));
    LONG runs = InterlockedIncrement(&context->Runs);
    DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_INFO_LEVEL, "run %d\n", runs);
}

static void Poll(PVOID StartContext)
{
    PDEVICE_CONTEXT context = StartContext;
    LARGE_INTEGER timeout;
    timeout.QuadPart = WDF_REL_TIMEOUT_IN_SEC(10);
    while (KeWaitForSingleObject(&context->Stop, Executive, KernelMode, FALSE, &timeout) == STATUS_TIMEOUT) {
        KIRQL irql;
        KeAcquireSpinLock(&context->Lock, &irql);
        if (!IsListEmpty(&context->Pending)) {
            RemoveHeadList(&context->Pending);
        }
        KeReleaseSpinLock(&context->Lock, irql);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static void DeviceControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputBufferLength, size_t InputBufferLength, ULONG IoControlCode)
{
    PVOID buffer;
    size_t length;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(InputBufferLength);
    switch (IoControlCode) {
    case CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS):
        status = WdfRequestRetrieveOutputBuffer(Request, OutputBufferLength, &buffer, &length);
        if (NT_SUCCESS(status)) {
            RtlZeroMemory(buffer, length);
            WdfRequestCompleteWithInformation(Request, status, length);
            return;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    WdfRequestComplete(Request, status);
}

static void FileCreate(WDFDEVICE Device, WDFREQUEST Request, WDFFILEOBJECT FileObject)
{
    UNREFERENCED_PARAMETER(Device);
    WdfObjectGet_FILE_CONTEXT(FileObject)->Opens++;
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static NTSTATUS PrepareHardware(WDFDEVICE Device, WDFCMRESLIST Raw, WDFCMRESLIST Translated)
{
    WDFKEY key;
    ULONG value;
    NTSTATUS status;
    DECLARE_CONST_UNICODE_STRING(name, L"TimesRun");
    UNREFERENCED_PARAMETER(Raw);
    for (ULONG i = 0; i < WdfCmResourceListGetCount(Translated); i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR descriptor = WdfCmResourceListGetDescriptor(Translated, i);
        if (descriptor->Type == CmResourceTypeMemory && descriptor->u.Memory.Length == 0) {
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        }
    }
    status = WdfDriverOpenParametersRegistryKey(WdfDeviceGetDriver(Device), KEY_READ, WDF_NO_OBJECT_ATTRIBUTES, &key);
    if (NT_SUCCESS(status)) {
        status = WdfRegistryQueryULong(key, &name, &value);
        WdfRegistryClose(key);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS D0Entry(WDFDEVICE Device, WDF_POWER_DEVICE_STATE PreviousState)
{
    PDEVICE_CONTEXT context = DeviceGetContext(Device);
    HANDLE thread;
    NTSTATUS status;
    UNREFERENCED_PARAMETER(PreviousState);
    KeResetEvent(&context->Stop);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Poll, context);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, *PsThreadType, KernelMode, (PVOID *)&context->Thread, NULL);
    ZwClose(thread);
    WdfTimerStart(context->Timer, WDF_REL_TIMEOUT_IN_MS(100));
    return status;
}

static NTSTATUS D0Exit(WDFDEVICE Device, WDF_POWER_DEVICE_STATE TargetState)
{
    PDEVICE_CONTEXT context = DeviceGetContext(Device);
    UNREFERENCED_PARAMETER(TargetState);
    WdfTimerStop(context->Timer, TRUE);
    WdfWorkItemFlush(context->WorkItem);
    KeSetEvent(&context->Stop, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(context->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(context->Thread);
    return STATUS_SUCCESS;
}

static void DeviceCleanup(WDFOBJECT Object)
{
    PVOID memory = ExAllocatePool2(POOL_FLAG_NON_PAGED, 16, POOL_TAG);
    UNREFERENCED_PARAMETER(Object);
    if (memory != NULL) {
        ExFreePoolWithTag(memory, POOL_TAG);
    }
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT DeviceInit)
{
    WDF_PNPPOWER_EVENT_CALLBACKS pnp;
    WDF_FILEOBJECT_CONFIG file;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_TIMER_CONFIG timer;
    WDF_WORKITEM_CONFIG item;
    WDF_IO_QUEUE_CONFIG queue;
    WDFDEVICE device;
    PDEVICE_CONTEXT context;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    PAGED_CODE();

    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&pnp);
    pnp.EvtDevicePrepareHardware = PrepareHardware;
    pnp.EvtDeviceD0Entry = D0Entry;
    pnp.EvtDeviceD0Exit = D0Exit;
    WdfDeviceInitSetPnpPowerEventCallbacks(DeviceInit, &pnp);

    WDF_FILEOBJECT_CONFIG_INIT(&file, FileCreate, WDF_NO_EVENT_CALLBACK, WDF_NO_EVENT_CALLBACK);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, FILE_CONTEXT);
    WdfDeviceInitSetFileObjectConfig(DeviceInit, &file, &attributes);

    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    attributes.EvtCleanupCallback = DeviceCleanup;
    status = WdfDeviceCreate(&DeviceInit, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    context = DeviceGetContext(device);
    context->Device = device;
    KeInitializeEvent(&context->Stop, NotificationEvent, FALSE);
    KeInitializeSpinLock(&context->Lock);
    InitializeListHead(&context->Pending);

    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    attributes.ParentObject = device;
    WDF_TIMER_CONFIG_INIT(&timer, TimerFired);
    status = WdfTimerCreate(&timer, &attributes, &context->Timer);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_WORKITEM_CONFIG_INIT(&item, WorkItemRun);
    status = WdfWorkItemCreate(&item, &attributes, &context->WorkItem);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_IO_QUEUE_CONFIG_INIT_DEFAULT_QUEUE(&queue, WdfIoQueueDispatchParallel);
    queue.EvtIoDeviceControl = DeviceControl;
    return WdfIoQueueCreate(device, &queue, WDF_NO_OBJECT_ATTRIBUTES, &context->Queue);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    WDF_DRIVER_CONFIG config;
    WDF_DRIVER_CONFIG_INIT(&config, DeviceAdd);
    config.DriverPoolTag = POOL_TAG;
    return WdfDriverCreate(DriverObject, RegistryPath, WDF_NO_OBJECT_ATTRIBUTES, &config, WDF_NO_HANDLE);
}
