/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What drivers include: wdm.h and the calls that only NT drivers have.
 */
#ifndef OPENWDK_NTDDK_H
#define OPENWDK_NTDDK_H

#include <wdm.h>

typedef void CREATE_PROCESS_NOTIFY_ROUTINE(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create);
typedef CREATE_PROCESS_NOTIFY_ROUTINE *PCREATE_PROCESS_NOTIFY_ROUTINE;
NTSTATUS PsSetCreateProcessNotifyRoutine(PCREATE_PROCESS_NOTIFY_ROUTINE NotifyRoutine, BOOLEAN Remove);
PKTHREAD KeGetCurrentThread(void);
HANDLE PsGetThreadId(PETHREAD Thread);
HANDLE PsGetProcessId(PEPROCESS Process);
LONGLONG PsGetProcessCreateTimeQuadPart(PEPROCESS Process);
BOOLEAN ExIsProcessorFeaturePresent(ULONG ProcessorFeature);
ULONG RtlWalkFrameChain(PVOID *Callers, ULONG Count, ULONG Flags);
USHORT RtlCaptureStackBackTrace(ULONG FramesToSkip, ULONG FramesToCapture, PVOID *BackTrace, PULONG BackTraceHash);

#endif
