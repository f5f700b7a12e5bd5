// SPDX-License-Identifier: MIT OR Apache-2.0

// The entry point of a KMDF driver. The kernel calls FxDriverEntry, which
// binds the driver to the framework before it calls the driver's DriverEntry,
// and unbinds it when the driver is unloaded.
//
//   FxDriverEntry ── WdfVersionBind ── DriverEntry ──┬─ fails ── WdfVersionUnbind
//                                                    └─ succeeds: at unload
//                       the framework's DriverUnload ── WdfVersionUnbind
//
// Only the layout of the bind record is here; all else is in the headers.

#include <ntddk.h>
#include <wdf.h>

typedef struct {
    ULONG Size;
    const WCHAR *Component;
    struct {
        ULONG Major;
        ULONG Minor;
        ULONG Build;
    } Version;
    ULONG FuncCount;
    const WDFFUNC **FuncTable;
    void *Module;
    // From KMDF 1.25 on; the loader knows by Size that it is there.
    ULONG *MinimumVersionRequired;
    UCHAR *ClientVersionHigherThanFramework;
    ULONG *FuncCountPtr;
    ULONG *StructCountPtr;
    WDF_STRUCT_INFO *StructTable;
} BIND_INFO;

_Static_assert(sizeof(BIND_INFO) == 0x58, "the record that WdfVersionBind of KMDF 1.25 and later takes");

NTSTATUS WdfVersionBind(PDRIVER_OBJECT driver, PUNICODE_STRING path, BIND_INFO *info, PWDF_DRIVER_GLOBALS *globals);
NTSTATUS WdfVersionUnbind(PUNICODE_STRING path, BIND_INFO *info, PWDF_DRIVER_GLOBALS globals);
void __security_init_cookie(void);
NTSTATUS DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path);

// What the framework fills in when it binds, and what bindings refer to.
// WdfMinimumVersionRequired, which it reads, is in every object file that
// includes wdf.h.
const WDFFUNC *WdfFunctions_01033;
PWDF_DRIVER_GLOBALS WdfDriverGlobals;
BOOLEAN WdfClientVersionHigherThanFramework;
ULONG WdfFunctionCount = WdfFunctionTableNumEntries;
ULONG WdfStructureCount = WDF_STRUCTURE_TABLE_NUM_ENTRIES;
WDF_STRUCT_INFO WdfStructures;

static BIND_INFO bind_info = {
    .Size = sizeof(BIND_INFO),
    .Component = L"KmdfLibrary",
    .Version = {KMDF_VERSION_MAJOR, KMDF_VERSION_MINOR, 0},
    .FuncCount = WdfFunctionTableNumEntries,
    .FuncTable = &WdfFunctions_01033,
    .MinimumVersionRequired = &WdfMinimumVersionRequired,
    .ClientVersionHigherThanFramework = &WdfClientVersionHigherThanFramework,
    .FuncCountPtr = &WdfFunctionCount,
    .StructCountPtr = &WdfStructureCount,
    .StructTable = &WdfStructures,
};

// The path that the kernel passes to DriverEntry is gone when the driver is
// unloaded. 260 characters are what Windows itself allows for it.
static WCHAR registry_path_buffer[260];
static UNICODE_STRING registry_path = {0, sizeof(registry_path_buffer), registry_path_buffer};

static PDRIVER_UNLOAD displaced_unload;
static PFN_WDFDRIVERMINIPORTUNLOAD original_miniport_unload;
static WDFFUNC miniport_functions[WdfFunctionTableNumEntries];

static void unbind(void)
{
    WdfVersionUnbind(&registry_path, &bind_info, WdfDriverGlobals);
}

// The unload routine of a driver that WdfDriverCreate has given one: the
// framework's own comes first, since it calls the driver's EvtDriverUnload.
static void stub_unload(PDRIVER_OBJECT driver)
{
    if (displaced_unload != NULL && displaced_unload != stub_unload) {
        displaced_unload(driver);
    }
    unbind();
}

// What a driver calls that keeps its own dispatch table and unload routine
// (WdfDriverInitNoDispatchOverride): it ends with WdfDriverMiniportUnload.
static void stub_miniport_unload(PWDF_DRIVER_GLOBALS globals, WDFDRIVER driver)
{
    original_miniport_unload(globals, driver);
    unbind();
}

static void take_over_miniport_unload(void)
{
    // The table belongs to the framework and serves other drivers too, so the
    // changed one is a copy.
    RtlCopyMemory(miniport_functions, WdfFunctions_01033, WdfFunctionCount * sizeof(WDFFUNC));
    original_miniport_unload = (PFN_WDFDRIVERMINIPORTUNLOAD)miniport_functions[WdfDriverMiniportUnloadTableIndex];
    miniport_functions[WdfDriverMiniportUnloadTableIndex] = (WDFFUNC)stub_miniport_unload;
    WdfFunctions_01033 = miniport_functions;
}

NTSTATUS FxDriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status;

    __security_init_cookie();
    if (driver == NULL) {
        // Not loaded as a driver but as a library of one: no framework.
        return DriverEntry(driver, path);
    }
    RtlCopyUnicodeString(&registry_path, path);
    status = WdfVersionBind(driver, &registry_path, &bind_info, &WdfDriverGlobals);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = DriverEntry(driver, path);
    if (!NT_SUCCESS(status)) {
        unbind();
        return status;
    }
    if (WdfDriverGlobals->DisplaceDriverUnload) {
        displaced_unload = driver->DriverUnload;
        driver->DriverUnload = stub_unload;
    } else if (WdfDriverGlobals->DriverFlags & WdfDriverInitNoDispatchOverride) {
        take_over_miniport_unload();
    }
    // The loader takes any other success for a mistake.
    return STATUS_SUCCESS;
}
