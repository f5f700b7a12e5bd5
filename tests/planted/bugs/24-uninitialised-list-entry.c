// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A client that never subscribed is taken out of the list of subscribers when it
// leaves: its list entry was never linked to anything.
//
// ntsim: 0x7E, a NULL pointer is used in RemoveEntryList, called by Leave.

#include "planted.h"

typedef struct _CLIENT {
    LIST_ENTRY Link;
#if FIXED
    BOOLEAN Subscribed;
#endif
} CLIENT, *PCLIENT;

static LIST_ENTRY Subscribers;
static KSPIN_LOCK Lock;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(CLIENT, ClientOf);

static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL OnControl;
static EVT_WDF_FILE_CLEANUP OnLeave;

static void Leave(PCLIENT Client)
{
    KIRQL irql;

    KeAcquireSpinLock(&Lock, &irql);
#if FIXED
    if (Client->Subscribed)
#endif
        RemoveEntryList(&Client->Link);
    KeReleaseSpinLock(&Lock, irql);
}

static void OnLeave(WDFFILEOBJECT File)
{
    Leave(ClientOf(File));
}

static void OnControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputLength, size_t InputLength, ULONG Code)
{
    PCLIENT client = ClientOf(WdfRequestGetFileObject(Request));
    KIRQL irql;

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(OutputLength);
    UNREFERENCED_PARAMETER(InputLength);
    UNREFERENCED_PARAMETER(Code);
    // Programs subscribe once.
    KeAcquireSpinLock(&Lock, &irql);
    InsertTailList(&Subscribers, &client->Link);
#if FIXED
    client->Subscribed = TRUE;
#endif
    KeReleaseSpinLock(&Lock, irql);
    WdfRequestComplete(Request, STATUS_SUCCESS);
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT Init)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_FILEOBJECT_CONFIG config;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    InitializeListHead(&Subscribers);
    KeInitializeSpinLock(&Lock);
    WDF_FILEOBJECT_CONFIG_INIT(&config, WDF_NO_EVENT_CALLBACK, WDF_NO_EVENT_CALLBACK, OnLeave);
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, CLIENT);
    WdfDeviceInitSetFileObjectConfig(Init, &config, &attributes);
    status = WdfDeviceCreate(&Init, WDF_NO_OBJECT_ATTRIBUTES, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return PlantedQueue(device, WdfIoQueueDispatchParallel, OnControl, WdfUseDefault);
}

PLANTED_DRIVER(NULL)
