/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * For drivers that include <wchar.h>: what the kernel exports of it is in string.h.
 */
#include <string.h>
