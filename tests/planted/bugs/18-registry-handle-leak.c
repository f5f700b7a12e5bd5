// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A key is opened to read a value. If the value is not there, the function
// returns, and the key stays open.
//
// ntsim: leak; the driver is unloaded and leaves the handle open.

#include "planted.h"

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;

static NTSTATUS ReadLimit(PULONG Limit)
{
    DECLARE_CONST_UNICODE_STRING(path, L"\\Registry\\Machine\\SYSTEM\\CurrentControlSet\\Services\\Planted");
    DECLARE_CONST_UNICODE_STRING(name, L"Limit");
    struct {
        KEY_VALUE_PARTIAL_INFORMATION Head;
        UCHAR Rest[16];
    } value;
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    ULONG length;
    HANDLE key;

    InitializeObjectAttributes(&attributes, (PUNICODE_STRING)&path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&key, KEY_READ, &attributes);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = ZwQueryValueKey(key, (PUNICODE_STRING)&name, KeyValuePartialInformation, &value, sizeof(value), &length);
#if !FIXED
    if (!NT_SUCCESS(status)) {
        return status;
    }
#endif
    if (NT_SUCCESS(status)) {
        *Limit = *(PULONG)value.Head.Data;
    }
    ZwClose(key);
    return status;
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    ULONG limit = 100;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    WdfRequestComplete(Request, ReadLimit(&limit));
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    // The key is opened at PASSIVE_LEVEL only.
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    attributes.ExecutionLevel = WdfExecutionLevelPassive;
    status = WdfDeviceCreate(&Init, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
