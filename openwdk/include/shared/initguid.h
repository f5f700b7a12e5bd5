/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Makes DEFINE_GUID define what it otherwise only declares.
 */
#ifndef OPENWDK_INITGUID_H
#define OPENWDK_INITGUID_H
#define INITGUID
#include <guiddef.h>
#endif
