/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The Kernel-Mode Driver Framework, version 1.33.
 *
 * wdftypes.h, wdffuncenum.h and wdffunctions.h are generated from
 * openwdk/abi; this file and wdfinit.h are written by hand.
 */
#ifndef OPENWDK_WDF_H
#define OPENWDK_WDF_H

#include <wdm.h>
#include <devpropdef.h>

#ifndef KMDF_VERSION_MAJOR
#define KMDF_VERSION_MAJOR 1
#endif
#ifndef KMDF_VERSION_MINOR
#define KMDF_VERSION_MINOR 33
#endif
#ifndef KMDF_MINIMUM_VERSION_REQUIRED
#define KMDF_MINIMUM_VERSION_REQUIRED KMDF_VERSION_MINOR
#endif
#if KMDF_VERSION_MAJOR != 1 || KMDF_VERSION_MINOR != 33
#error "openwdk has the interface of KMDF 1.33: define KMDF_VERSION_MAJOR=1 and KMDF_VERSION_MINOR=33"
#endif

/* Types of other headers that the interface mentions. */
struct WDFDEVICE_INIT;
struct WDFCXDEVICE_INIT;
struct _IO_SECURITY_CONTEXT;
typedef struct _IO_SECURITY_CONTEXT *PIO_SECURITY_CONTEXT;
typedef LONG USBD_STATUS;
typedef PVOID USBD_PIPE_HANDLE;
typedef PVOID USBD_CONFIGURATION_HANDLE;
typedef PVOID USBD_INTERFACE_HANDLE;
struct _URB;
typedef struct _URB *PURB;
struct _USB_DEVICE_DESCRIPTOR;
typedef struct _USB_DEVICE_DESCRIPTOR *PUSB_DEVICE_DESCRIPTOR;
struct _USB_CONFIGURATION_DESCRIPTOR;
typedef struct _USB_CONFIGURATION_DESCRIPTOR *PUSB_CONFIGURATION_DESCRIPTOR;
struct _USB_INTERFACE_DESCRIPTOR;
typedef struct _USB_INTERFACE_DESCRIPTOR *PUSB_INTERFACE_DESCRIPTOR;
typedef struct _USBD_VERSION_INFORMATION {
    ULONG USBDI_Version;
    ULONG Supported_USB_Version;
} USBD_VERSION_INFORMATION, *PUSBD_VERSION_INFORMATION;

#include <wdffuncenum.h>
#include <wdftypes.h>

/* What the entry stub and the loader fill in. */
extern const WDFFUNC *WdfFunctions_01033;
#define WdfFunctions WdfFunctions_01033
extern PWDF_DRIVER_GLOBALS WdfDriverGlobals;
extern BOOLEAN WdfClientVersionHigherThanFramework;
extern ULONG WdfFunctionCount;
extern ULONG WdfStructureCount;
extern WDF_STRUCT_INFO WdfStructures;

/* The driver says which minor version it needs; the entry stub passes it on. */
DECLSPEC_SELECTANY ULONG WdfMinimumVersionRequired = KMDF_MINIMUM_VERSION_REQUIRED;

#define WDF_NO_OBJECT_ATTRIBUTES (NULL)
#define WDF_NO_EVENT_CALLBACK (NULL)
#define WDF_NO_HANDLE (NULL)
#define WDF_NO_CONTEXT (NULL)
#define WDF_NO_SEND_OPTIONS (NULL)

#define WDF_IS_FUNCTION_AVAILABLE(FunctionName) \
    ((ULONG)FunctionName##TableIndex < WDF_ALWAYS_AVAILABLE_FUNCTION_COUNT || (ULONG)FunctionName##TableIndex < WdfFunctionCount)

#include <wdffunctions.h>
#include <wdfinit.h>

#endif
