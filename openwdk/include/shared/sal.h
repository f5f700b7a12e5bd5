/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Source annotations, defined to nothing: openwdk's compilers do not read
 * them, drivers are full of them.
 */
#ifndef OPENWDK_SAL_H
#define OPENWDK_SAL_H

#define IN
#define OUT
#define OPTIONAL
#define _In_
#define _In_opt_
#define _In_z_
#define _In_opt_z_
#define _In_reads_(n)
#define _In_reads_opt_(n)
#define _In_reads_bytes_(n)
#define _In_reads_bytes_opt_(n)
#define _In_reads_or_z_(n)
#define _In_range_(a, b)
#define _Inout_
#define _Inout_opt_
#define _Inout_z_
#define _Inout_updates_(n)
#define _Inout_updates_bytes_(n)
#define _Inout_updates_opt_(n)
#define _Inout_updates_bytes_opt_(n)
#define _Out_
#define _Out_opt_
#define _Out_writes_(n)
#define _Out_writes_opt_(n)
#define _Out_writes_to_(n, c)
#define _Out_writes_bytes_(n)
#define _Out_writes_bytes_opt_(n)
#define _Out_writes_bytes_to_(n, c)
#define _Out_writes_bytes_to_opt_(n, c)
#define _Out_writes_bytes_all_(n)
#define _Out_writes_all_(n)
#define _Out_writes_z_(n)
#define _Outptr_
#define _Outptr_opt_
#define _Outptr_result_maybenull_
#define _Outptr_result_bytebuffer_(n)
#define _Outptr_opt_result_bytebuffer_(n)
#define _Out_range_(a, b)
#define _Ret_maybenull_
#define _Ret_notnull_
#define _Field_size_(n)
#define _Field_size_bytes_(n)
#define _Field_size_opt_(n)
#define _Field_range_(a, b)
#define _Check_return_
#define _Must_inspect_result_
#define _Success_(e)
#define _Post_satisfies_(e)
#define _Pre_satisfies_(e)
#define _When_(c, a)
#define _At_(t, a)
#define _Reserved_
#define _Printf_format_string_
#define _Null_terminated_
#define _NullNull_terminated_
#define _Always_(a)
#define _Analysis_assume_(e)
#define _Use_decl_annotations_
#define _Function_class_(c)
#define _IRQL_requires_(i)
#define _IRQL_requires_max_(i)
#define _IRQL_requires_min_(i)
#define _IRQL_requires_same_
#define _IRQL_always_function_max_(i)
#define _IRQL_always_function_min_(i)
#define _IRQL_raises_(i)
#define _IRQL_saves_
#define _IRQL_restores_
#define _IRQL_saves_global_(k, p)
#define _IRQL_restores_global_(k, p)
#define _Acquires_lock_(l)
#define _Releases_lock_(l)
#define _Acquires_exclusive_lock_(l)
#define _Releases_exclusive_lock_(l)
#define _Requires_lock_held_(l)
#define _Requires_lock_not_held_(l)
#define _Requires_no_locks_held_
#define _Guarded_by_(l)
#define _Interlocked_
#define _Interlocked_operand_
#define _Dispatch_type_(t)
#define __drv_aliasesMem
#define __drv_allocatesMem(k)
#define __drv_freesMem(k)
#define __drv_maxIRQL(i)
#define __drv_requiresIRQL(i)
#define __drv_strictTypeMatch(m)
#define __drv_strictType(t, m)
#define __drv_preferredFunction(f, w)
#define __checkReturn

#endif
