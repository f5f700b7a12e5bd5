/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The calls that file systems and a few drivers need on top of ntddk.h.
 */
#ifndef OPENWDK_NTIFS_H
#define OPENWDK_NTIFS_H

#include <ntddk.h>

NTSTATUS ObOpenObjectByPointer(PVOID Object, ULONG HandleAttributes, PACCESS_STATE PassedAccessState, ACCESS_MASK DesiredAccess, POBJECT_TYPE ObjectType, KPROCESSOR_MODE AccessMode, PHANDLE Handle);
NTSTATUS ZwSetSecurityObject(HANDLE Handle, SECURITY_INFORMATION SecurityInformation, PSECURITY_DESCRIPTOR SecurityDescriptor);
NTSTATUS ZwQuerySecurityObject(HANDLE Handle, SECURITY_INFORMATION SecurityInformation, PSECURITY_DESCRIPTOR SecurityDescriptor, ULONG Length, PULONG LengthNeeded);
NTSTATUS PsLookupThreadByThreadId(HANDLE ThreadId, PETHREAD *Thread);
NTSTATUS PsLookupProcessByProcessId(HANDLE ProcessId, PEPROCESS *Process);
ULONG RtlRandomEx(PULONG Seed);
PEPROCESS IoThreadToProcess(PETHREAD Thread);

#endif
