/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The C library's memory and string functions that the kernel exports.
 */
#ifndef OPENWDK_STRING_H
#define OPENWDK_STRING_H
#include <stddef.h>
void *memcpy(void *_Dst, const void *_Src, size_t _Size);
void *memmove(void *_Dst, const void *_Src, size_t _Size);
void *memset(void *_Dst, int _Val, size_t _Size);
int memcmp(const void *_Buf1, const void *_Buf2, size_t _Size);
size_t strlen(const char *_Str);
int strcmp(const char *_Str1, const char *_Str2);
int strncmp(const char *_Str1, const char *_Str2, size_t _MaxCount);
char *strchr(const char *_Str, int _Val);
char *strstr(const char *_Str, const char *_SubStr);
size_t wcslen(const wchar_t *_Str);
int wcscmp(const wchar_t *_String1, const wchar_t *_String2);
int wcsncmp(const wchar_t *_String1, const wchar_t *_String2, size_t _MaxCount);
int _wcsicmp(const wchar_t *_String1, const wchar_t *_String2);
int _stricmp(const char *_String1, const char *_String2);
wchar_t *wcschr(const wchar_t *_Str, wchar_t _Ch);
wchar_t *wcsstr(const wchar_t *_Str, const wchar_t *_SubStr);
#endif
