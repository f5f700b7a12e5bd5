/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * size_t, ptrdiff_t, wchar_t and offsetof for the Windows data model.
 */
#ifndef OPENWDK_STDDEF_H
#define OPENWDK_STDDEF_H
typedef unsigned long long size_t;
typedef long long ptrdiff_t;
typedef unsigned short wchar_t;
#ifndef NULL
#define NULL ((void *)0)
#endif
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
