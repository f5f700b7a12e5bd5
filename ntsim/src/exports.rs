// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions that drivers call by name, one row each.
//!
//! A row makes two functions on one implementation: a symbol in the host's
//! calling convention, for drivers that are linked into a host program, and
//! one in the Windows x64 convention, for the import table of an image. To add
//! a function, write it in the file of its subsystem and add its row.

use crate::access::{Addr, UnicodeString};
use crate::ke::dispatcher::Header;
use crate::ke::dpc::KDpc;
use crate::{ex, ke, ob, rtl};

/// A function that images can import.
#[derive(Clone, Copy)]
pub(crate) struct Export {
    pub(crate) dll: &'static str,
    pub(crate) name: &'static str,
    /// For drivers linked into the host. Naming the symbol here is also what
    /// keeps the linker from dropping it.
    pub(crate) host: *const (),
    /// For images.
    pub(crate) image: *const (),
}

/// Finds the function that `name` imports from `dll`.
pub(crate) fn find(dll: &str, name: &str) -> Option<Export> {
    all().find(|export| export.name == name && export.dll.eq_ignore_ascii_case(dll))
}

/// The DLL that has `name`, whichever it is.
pub(crate) fn home_of(name: &str) -> Option<&'static str> {
    all().find(|export| export.name == name).map(|export| export.dll)
}

pub(crate) fn all() -> impl Iterator<Item = Export> {
    NTOSKRNL.iter().chain(HAL).chain(WDFLDR).chain(crate::crt::EXPORTS).copied()
}

/// Expands to a call of `trap::call` around the implementation.
macro_rules! traced {
    ($name:ident, ($($arg:ident),*), $imp:path) => {
        $crate::trap::call(
            stringify!($name),
            &[$((stringify!($arg), &$arg as &dyn $crate::trace::Arg)),*],
            || $imp($($arg),*),
        )
    };
}

macro_rules! exports {
    ($table:ident, $dll:literal, $module:ident; $($name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $imp:path;)*) => {
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the names and signatures are the kernel's")]
        mod $module {
            use super::*;

            /// In the host's calling convention.
            pub(super) mod host {
                use super::*;
                $(
                    // SAFETY: the name is the NT kernel's; no other crate of a host program defines it.
                    #[unsafe(no_mangle)]
                    pub extern "C-unwind" fn $name($($arg: $ty),*) $(-> $ret)? {
                        traced!($name, ($($arg),*), $imp)
                    }
                )*
            }

            /// In the Windows x64 calling convention.
            pub(super) mod image {
                use super::*;
                $(
                    pub extern "win64" fn $name($($arg: $ty),*) $(-> $ret)? {
                        traced!($name, ($($arg),*), $imp)
                    }
                )*
            }
        }

        const $table: &[Export] = &[$(
            Export {
                dll: $dll,
                name: stringify!($name),
                host: $module::host::$name as *const (),
                image: $module::image::$name as *const (),
            },
        )*];
    };
}

exports! { NTOSKRNL, "ntoskrnl.exe", ntoskrnl;
    KeInitializeEvent(Event: *mut Header, Type: i32, State: u8) = ke::event::ke_initialize_event;
    KeSetEvent(Event: *mut Header, Increment: i32, Wait: u8) -> i32 = ke::event::ke_set_event;
    KeResetEvent(Event: *mut Header) -> i32 = ke::event::ke_reset_event;
    KeClearEvent(Event: *mut Header) = ke::event::ke_clear_event;
    KeReadStateEvent(Event: *mut Header) -> i32 = ke::event::ke_read_state_event;

    KeInitializeSemaphore(Semaphore: *mut Header, Count: i32, Limit: i32) = ke::semaphore::ke_initialize_semaphore;
    KeReleaseSemaphore(Semaphore: *mut Header, Increment: i32, Adjustment: i32, Wait: u8) -> i32 = ke::semaphore::ke_release_semaphore;
    KeReadStateSemaphore(Semaphore: *mut Header) -> i32 = ke::semaphore::ke_read_state_semaphore;

    KeInitializeMutex(Mutex: *mut Header, Level: u32) = ke::mutex::ke_initialize_mutex;
    KeReleaseMutex(Mutex: *mut Header, Wait: u8) -> i32 = ke::mutex::ke_release_mutex;
    KeReadStateMutex(Mutex: *mut Header) -> i32 = ke::mutex::ke_read_state_mutex;

    KeWaitForSingleObject(Object: *mut Header, WaitReason: i32, WaitMode: i8, Alertable: u8, Timeout: *const i64) -> i32
        = ke::wait::ke_wait_for_single_object;
    KeWaitForMultipleObjects(Count: u32, Object: *const *mut Header, WaitType: i32, WaitReason: i32, WaitMode: i8, Alertable: u8, Timeout: *const i64, WaitBlockArray: *mut u8) -> i32
        = ke::wait::ke_wait_for_multiple_objects;
    KeDelayExecutionThread(WaitMode: i8, Alertable: u8, Interval: *const i64) -> i32 = ke::wait::ke_delay_execution_thread;

    KeInitializeTimer(Timer: *mut Header) = ke::timer::ke_initialize_timer;
    KeInitializeTimerEx(Timer: *mut Header, Type: i32) = ke::timer::ke_initialize_timer_ex;
    KeSetTimer(Timer: *mut Header, DueTime: i64, Dpc: *mut KDpc) -> u8 = ke::timer::ke_set_timer;
    KeSetTimerEx(Timer: *mut Header, DueTime: i64, Period: i32, Dpc: *mut KDpc) -> u8 = ke::timer::ke_set_timer_ex;
    KeSetCoalescableTimer(Timer: *mut Header, DueTime: i64, Period: u32, TolerableDelay: u32, Dpc: *mut KDpc) -> u8 = ke::timer::ke_set_coalescable_timer;
    KeCancelTimer(Timer: *mut Header) -> u8 = ke::timer::ke_cancel_timer;
    KeReadStateTimer(Timer: *mut Header) -> u8 = ke::timer::ke_read_state_timer;

    KeInitializeDpc(Dpc: *mut KDpc, DeferredRoutine: Addr, DeferredContext: Addr) = ke::dpc::ke_initialize_dpc;
    KeInsertQueueDpc(Dpc: *mut KDpc, SystemArgument1: Addr, SystemArgument2: Addr) -> u8 = ke::dpc::ke_insert_queue_dpc;
    KeRemoveQueueDpc(Dpc: *mut KDpc) -> u8 = ke::dpc::ke_remove_queue_dpc;
    KeFlushQueuedDpcs() = ke::dpc::ke_flush_queued_dpcs;

    KeGetCurrentIrql() -> u8 = ke::irql::ke_get_current_irql;
    KfRaiseIrql(NewIrql: u8) -> u8 = ke::irql::kf_raise_irql;
    KeRaiseIrqlToDpcLevel() -> u8 = ke::irql::ke_raise_irql_to_dpc_level;
    KeLowerIrql(NewIrql: u8) = ke::irql::ke_lower_irql;

    KeInitializeSpinLock(SpinLock: *mut usize) = ke::spin_lock::ke_initialize_spin_lock;
    KeAcquireSpinLockRaiseToDpc(SpinLock: *mut usize) -> u8 = ke::spin_lock::ke_acquire_spin_lock_raise_to_dpc;
    KeReleaseSpinLock(SpinLock: *mut usize, NewIrql: u8) = ke::spin_lock::ke_release_spin_lock;
    KeAcquireSpinLockAtDpcLevel(SpinLock: *mut usize) = ke::spin_lock::ke_acquire_spin_lock_at_dpc_level;
    KeReleaseSpinLockFromDpcLevel(SpinLock: *mut usize) = ke::spin_lock::ke_release_spin_lock_from_dpc_level;

    KeQuerySystemTimePrecise(CurrentTime: *mut i64) = ke::time::ke_query_system_time_precise;
    KeQueryInterruptTime() -> u64 = ke::time::ke_query_interrupt_time;
    KeQueryInterruptTimePrecise(QpcTimeStamp: *mut u64) -> u64 = ke::time::ke_query_interrupt_time_precise;
    KeQueryUnbiasedInterruptTime() -> u64 = ke::time::ke_query_unbiased_interrupt_time;
    KeQueryTimeIncrement() -> u32 = ke::time::ke_query_time_increment;

    PsCreateSystemThread(ThreadHandle: *mut usize, DesiredAccess: u32, ObjectAttributes: *mut u8, ProcessHandle: Addr, ClientId: *mut u8, StartRoutine: Addr, StartContext: Addr) -> i32
        = ke::thread::ps_create_system_thread;
    PsTerminateSystemThread(ExitStatus: i32) -> i32 = ke::thread::ps_terminate_system_thread;
    KeGetCurrentThread() -> Addr = ke::thread::ke_get_current_thread;
    PsGetCurrentThreadId() -> usize = ke::thread::ps_get_current_thread_id;
    KeSetPriorityThread(Thread: Addr, Priority: i32) -> i32 = ke::thread::ke_set_priority_thread;
    KeEnterCriticalRegion() = ke::thread::ke_enter_critical_region;
    KeLeaveCriticalRegion() = ke::thread::ke_leave_critical_region;
    KeAreApcsDisabled() -> u8 = ke::thread::ke_are_apcs_disabled;

    ZwClose(Handle: Addr) -> i32 = ob::zw_close;
    ObReferenceObjectByHandle(Handle: Addr, DesiredAccess: u32, ObjectType: Addr, AccessMode: i8, Object: *mut usize, HandleInformation: *mut u8) -> i32
        = ob::ob_reference_object_by_handle;
    ObfReferenceObject(Object: Addr) -> isize = ob::obf_reference_object;
    ObfDereferenceObject(Object: Addr) -> isize = ob::obf_dereference_object;

    ExAllocatePool2(Flags: u64, NumberOfBytes: usize, Tag: u32) -> Addr = ex::pool::ex_allocate_pool2;
    ExAllocatePoolWithTag(PoolType: i32, NumberOfBytes: usize, Tag: u32) -> Addr = ex::pool::ex_allocate_pool_with_tag;
    ExFreePool(P: Addr) = ex::pool::ex_free_pool;
    ExFreePoolWithTag(P: Addr, Tag: u32) = ex::pool::ex_free_pool_with_tag;

    KeBugCheckEx(BugCheckCode: u32, P1: Addr, P2: Addr, P3: Addr, P4: Addr) = rtl::ke_bug_check_ex;
    KeBugCheck(BugCheckCode: u32) = rtl::ke_bug_check;
    DbgPrint(Format: *const u8, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize, h: usize) -> i32 = rtl::dbg_print;
    DbgPrintEx(ComponentId: u32, Level: u32, Format: *const u8, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize) -> i32
        = rtl::dbg_print_ex;
    RtlInitUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const u16) = rtl::rtl_init_unicode_string;
    RtlCompareUnicodeString(String1: *const UnicodeString, String2: *const UnicodeString, CaseInSensitive: u8) -> i32 = rtl::rtl_compare_unicode_string;
    RtlEqualUnicodeString(String1: *const UnicodeString, String2: *const UnicodeString, CaseInSensitive: u8) -> u8 = rtl::rtl_equal_unicode_string;
    RtlCopyUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const UnicodeString) = rtl::rtl_copy_unicode_string;
    MmGetSystemRoutineAddress(SystemRoutineName: *const UnicodeString) -> *const () = rtl::mm_get_system_routine_address;
}

exports! { HAL, "HAL.dll", hal;
    KeStallExecutionProcessor(MicroSeconds: u32) = ke::time::ke_stall_execution_processor;
    KeQueryPerformanceCounter(PerformanceFrequency: *mut i64) -> i64 = ke::time::ke_query_performance_counter;
}

exports! { WDFLDR, "WDFLDR.SYS", wdfldr;
    WdfVersionBind(DriverObject: *mut crate::io::DriverObject, RegistryPath: *mut UnicodeString, BindInfo: *mut crate::wdf::bind::BindInfo, ComponentGlobals: *mut usize) -> i32
        = crate::wdf::bind::wdf_version_bind;
    WdfVersionUnbind(RegistryPath: *mut UnicodeString, BindInfo: *mut crate::wdf::bind::BindInfo, ComponentGlobals: Addr) -> i32
        = crate::wdf::bind::wdf_version_unbind;
}
