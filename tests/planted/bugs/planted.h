// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the faulty drivers in C have in common. `FIXED` is 0 for the faulty
// driver and 1 for its twin; everything that differs is under `#if FIXED`.

#pragma once

#include <ntddk.h>
#include <wdf.h>

#define TAG 'tnlP'
#define IOCTL(n) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MILLISECONDS(n) ((LONGLONG)(n) * 10 * 1000)

#define UNUSED __attribute__((unused))

// Makes the default queue, whose control codes go to `Handler`.
static UNUSED NTSTATUS PlantedQueue(WDFDEVICE Device, WDF_IO_QUEUE_DISPATCH_TYPE Dispatch,
                                    PFN_WDF_IO_QUEUE_IO_DEVICE_CONTROL Handler, WDF_TRI_STATE PowerManaged)
{
    WDF_IO_QUEUE_CONFIG config;

    WDF_IO_QUEUE_CONFIG_INIT_DEFAULT_QUEUE(&config, Dispatch);
    config.EvtIoDeviceControl = Handler;
    config.PowerManaged = PowerManaged;
    return WdfIoQueueCreate(Device, &config, WDF_NO_OBJECT_ATTRIBUTES, WDF_NO_HANDLE);
}

// Starts a system thread; gives the caller a reference on it.
static UNUSED NTSTATUS PlantedThread(PKSTART_ROUTINE Routine, PVOID Context, PETHREAD *Thread)
{
    HANDLE handle;
    NTSTATUS status;

    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Routine, Context);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)Thread, NULL);
    ZwClose(handle);
    return status;
}

// Waits for the end of a thread and gives the reference back.
static UNUSED void PlantedJoin(PETHREAD Thread)
{
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Thread);
}

DRIVER_INITIALIZE DriverEntry;
static EVT_WDF_DRIVER_DEVICE_ADD DeviceAdd;

// The entry point, with `Unload` or NULL.
#define PLANTED_DRIVER(Unload)                                                                        \
    NTSTATUS DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)                   \
    {                                                                                                 \
        WDF_DRIVER_CONFIG config;                                                                     \
        WDF_DRIVER_CONFIG_INIT(&config, DeviceAdd);                                                   \
        config.EvtDriverUnload = (Unload);                                                            \
        config.DriverPoolTag = TAG;                                                                   \
        return WdfDriverCreate(DriverObject, RegistryPath, WDF_NO_OBJECT_ATTRIBUTES, &config, WDF_NO_HANDLE); \
    }
