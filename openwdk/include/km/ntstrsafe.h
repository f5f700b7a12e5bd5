/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Counted string functions of ntstrsafe that drivers on openwdk use most.
 * All are inline: the kernel exports none of them.
 */
#ifndef OPENWDK_NTSTRSAFE_H
#define OPENWDK_NTSTRSAFE_H

#include <ntdef.h>
#include <ntstatus.h>
#include <stdarg.h>

#define NTSTRSAFE_MAX_CCH 2147483647
#define NTSTRSAFE_UNICODE_STRING_MAX_CCH (0xffff / sizeof(wchar_t))

typedef char *NTSTRSAFE_PSTR;
typedef const char *NTSTRSAFE_PCSTR;
typedef wchar_t *NTSTRSAFE_PWSTR;
typedef const wchar_t *NTSTRSAFE_PCWSTR;

int _vsnprintf(char *_Buffer, size_t _BufferCount, const char *_Format, va_list _ArgList);
int _vsnwprintf(wchar_t *_Buffer, size_t _BufferCount, const wchar_t *_Format, va_list _ArgList);

FORCEINLINE NTSTATUS RtlStringCchLengthW(NTSTRSAFE_PCWSTR psz, size_t cchMax, size_t *pcchLength)
{
    size_t n = 0;
    if (psz == NULL || cchMax > NTSTRSAFE_MAX_CCH) {
        return STATUS_INVALID_PARAMETER;
    }
    while (n < cchMax && psz[n] != 0) {
        n++;
    }
    if (pcchLength != NULL) {
        *pcchLength = n < cchMax ? n : 0;
    }
    return n < cchMax ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

FORCEINLINE NTSTATUS RtlStringCchCopyW(NTSTRSAFE_PWSTR pszDest, size_t cchDest, NTSTRSAFE_PCWSTR pszSrc)
{
    size_t n = 0;
    if (cchDest == 0 || cchDest > NTSTRSAFE_MAX_CCH) {
        return STATUS_INVALID_PARAMETER;
    }
    while (n < cchDest - 1 && pszSrc[n] != 0) {
        pszDest[n] = pszSrc[n];
        n++;
    }
    pszDest[n] = 0;
    return pszSrc[n] == 0 ? STATUS_SUCCESS : STATUS_BUFFER_OVERFLOW;
}

FORCEINLINE NTSTATUS RtlStringCchCopyA(NTSTRSAFE_PSTR pszDest, size_t cchDest, NTSTRSAFE_PCSTR pszSrc)
{
    size_t n = 0;
    if (cchDest == 0 || cchDest > NTSTRSAFE_MAX_CCH) {
        return STATUS_INVALID_PARAMETER;
    }
    while (n < cchDest - 1 && pszSrc[n] != 0) {
        pszDest[n] = pszSrc[n];
        n++;
    }
    pszDest[n] = 0;
    return pszSrc[n] == 0 ? STATUS_SUCCESS : STATUS_BUFFER_OVERFLOW;
}

FORCEINLINE NTSTATUS RtlStringCbVPrintfA(NTSTRSAFE_PSTR pszDest, size_t cbDest, NTSTRSAFE_PCSTR pszFormat, va_list argList)
{
    int n;
    if (cbDest == 0 || cbDest > NTSTRSAFE_MAX_CCH) {
        return STATUS_INVALID_PARAMETER;
    }
    n = _vsnprintf(pszDest, cbDest - 1, pszFormat, argList);
    if (n < 0 || (size_t)n > cbDest - 1) {
        pszDest[cbDest - 1] = 0;
        return STATUS_BUFFER_OVERFLOW;
    }
    pszDest[n] = 0;
    return STATUS_SUCCESS;
}

/* Variable arguments cannot be inlined, hence static. */
static __inline__ __attribute__((unused)) NTSTATUS RtlStringCbPrintfA(NTSTRSAFE_PSTR pszDest, size_t cbDest, NTSTRSAFE_PCSTR pszFormat, ...)
{
    NTSTATUS status;
    va_list args;
    va_start(args, pszFormat);
    status = RtlStringCbVPrintfA(pszDest, cbDest, pszFormat, args);
    va_end(args);
    return status;
}

FORCEINLINE NTSTATUS RtlUnicodeStringInit(PUNICODE_STRING DestinationString, NTSTRSAFE_PCWSTR pszSrc)
{
    size_t n = 0;
    DestinationString->Length = 0;
    DestinationString->MaximumLength = 0;
    DestinationString->Buffer = (PWSTR)pszSrc;
    if (pszSrc == NULL) {
        return STATUS_SUCCESS;
    }
    while (pszSrc[n] != 0) {
        if (++n >= NTSTRSAFE_UNICODE_STRING_MAX_CCH) {
            return STATUS_INVALID_PARAMETER;
        }
    }
    DestinationString->Length = (USHORT)(n * sizeof(wchar_t));
    DestinationString->MaximumLength = (USHORT)((n + 1) * sizeof(wchar_t));
    return STATUS_SUCCESS;
}

#endif
