/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Structured exception handling: filter results and dispositions.
 */
#ifndef OPENWDK_EXCPT_H
#define OPENWDK_EXCPT_H
typedef enum _EXCEPTION_DISPOSITION {
    ExceptionContinueExecution,
    ExceptionContinueSearch,
    ExceptionNestedException,
    ExceptionCollidedUnwind
} EXCEPTION_DISPOSITION;
#define EXCEPTION_EXECUTE_HANDLER 1
#define EXCEPTION_CONTINUE_SEARCH 0
#define EXCEPTION_CONTINUE_EXECUTION (-1)
#endif
