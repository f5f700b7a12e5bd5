// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions that drivers call by name, one row each.
//!
//! A row makes two functions on one implementation: a symbol in the host's
//! calling convention, for drivers that are linked into a host program, and
//! one in the Windows x64 convention, for the import table of an image. To add
//! a function, write it in the file of its subsystem and add its row.

use rustc_hash::FxHashMap;

use crate::access::{Addr, Slot, UnicodeString};
use crate::ex::fast_mutex::FastMutex;
use crate::ex::list::{ListEntry, SingleListEntry};
use crate::ex::resource::EResource;
use crate::ex::work_item::WorkQueueItem;
use crate::io::remove_lock::RemoveLock;
use crate::ke::dispatcher::Header;
use crate::ke::dpc::KDpc;
use crate::ke::processor::ProcessorNumber;
use crate::ke::spin_lock::LockQueueHandle;
use crate::rtl::string::AnsiString;
use crate::rtl::time::TimeFields;
use crate::zw::key::{self, ObjectAttributes};
use crate::zw::path;
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
    thread_local! {
        static BY_NAME: FxHashMap<&'static str, Export> =
            all().map(|export| (export.name, export)).collect();
    }
    let export = BY_NAME.with(|by_name| by_name.get(name).copied())?;
    export.dll.eq_ignore_ascii_case(dll).then_some(export)
}

pub(crate) fn all() -> impl Iterator<Item = Export> {
    NTOSKRNL
        .iter()
        .chain(HAL)
        .chain(WDFLDR)
        .chain(crate::crt::EXPORTS)
        .chain(ob::EXPORTS)
        .copied()
}

/// Expands to a call of `trap::call` around the implementation.
macro_rules! traced {
    ($name:ident, ($($arg:ident),*), $imp:path) => {
        $crate::trap::call(
            stringify!($name),
            const { $crate::rules::irql::range(stringify!($name)) },
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
                        let result = traced!($name, ($($arg),*), $imp);
                        crate::count::approach();
                        result
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
    KeSetImportanceDpc(Dpc: *mut KDpc, Importance: i32) = ke::dpc::ke_set_importance_dpc;
    KeSetTargetProcessorDpc(Dpc: *mut KDpc, Number: i8) = ke::dpc::ke_set_target_processor_dpc;
    KeSetTargetProcessorDpcEx(Dpc: *mut KDpc, ProcNumber: *const ProcessorNumber) -> i32 = ke::dpc::ke_set_target_processor_dpc_ex;

    KeGetCurrentProcessorNumberEx(ProcNumber: *mut ProcessorNumber) -> u32 = ke::processor::ke_get_current_processor_number_ex;
    KeQueryActiveProcessorCountEx(GroupNumber: u16) -> u32 = ke::processor::ke_query_processor_count_ex;
    KeQueryMaximumProcessorCountEx(GroupNumber: u16) -> u32 = ke::processor::ke_query_processor_count_ex;
    KeQueryActiveProcessorCount(ActiveProcessors: *mut usize) -> u32 = ke::processor::ke_query_active_processor_count;
    KeQueryMaximumProcessorCount() -> u32 = ke::processor::ke_query_maximum_processor_count;

    KeGetCurrentIrql() -> u8 = ke::irql::ke_get_current_irql;
    KfRaiseIrql(NewIrql: u8) -> u8 = ke::irql::kf_raise_irql;
    KeRaiseIrqlToDpcLevel() -> u8 = ke::irql::ke_raise_irql_to_dpc_level;
    KeLowerIrql(NewIrql: u8) = ke::irql::ke_lower_irql;

    KeInitializeSpinLock(SpinLock: *mut usize) = ke::spin_lock::ke_initialize_spin_lock;
    KeAcquireSpinLockRaiseToDpc(SpinLock: *mut usize) -> u8 = ke::spin_lock::ke_acquire_spin_lock_raise_to_dpc;
    KeReleaseSpinLock(SpinLock: *mut usize, NewIrql: u8) = ke::spin_lock::ke_release_spin_lock;
    KeAcquireSpinLockAtDpcLevel(SpinLock: *mut usize) = ke::spin_lock::ke_acquire_spin_lock_at_dpc_level;
    KeReleaseSpinLockFromDpcLevel(SpinLock: *mut usize) = ke::spin_lock::ke_release_spin_lock_from_dpc_level;
    KeTryToAcquireSpinLockAtDpcLevel(SpinLock: *mut usize) -> u8 = ke::spin_lock::ke_try_to_acquire_spin_lock_at_dpc_level;
    KeTestSpinLock(SpinLock: *mut usize) -> u8 = ke::spin_lock::ke_test_spin_lock;
    KeAcquireInStackQueuedSpinLock(SpinLock: *mut usize, LockHandle: *mut LockQueueHandle) = ke::spin_lock::ke_acquire_in_stack_queued_spin_lock;
    KeReleaseInStackQueuedSpinLock(LockHandle: *mut LockQueueHandle) = ke::spin_lock::ke_release_in_stack_queued_spin_lock;
    KeAcquireInStackQueuedSpinLockAtDpcLevel(SpinLock: *mut usize, LockHandle: *mut LockQueueHandle)
        = ke::spin_lock::ke_acquire_in_stack_queued_spin_lock_at_dpc_level;
    KeReleaseInStackQueuedSpinLockFromDpcLevel(LockHandle: *mut LockQueueHandle) = ke::spin_lock::ke_release_in_stack_queued_spin_lock_from_dpc_level;

    ExAcquireSpinLockShared(SpinLock: *mut i32) -> u8 = ex::shared_lock::ex_acquire_spin_lock_shared;
    ExAcquireSpinLockExclusive(SpinLock: *mut i32) -> u8 = ex::shared_lock::ex_acquire_spin_lock_exclusive;
    ExReleaseSpinLockShared(SpinLock: *mut i32, OldIrql: u8) = ex::shared_lock::ex_release_spin_lock_shared;
    ExReleaseSpinLockExclusive(SpinLock: *mut i32, OldIrql: u8) = ex::shared_lock::ex_release_spin_lock_exclusive;
    ExAcquireSpinLockSharedAtDpcLevel(SpinLock: *mut i32) = ex::shared_lock::ex_acquire_spin_lock_shared_at_dpc_level;
    ExAcquireSpinLockExclusiveAtDpcLevel(SpinLock: *mut i32) = ex::shared_lock::ex_acquire_spin_lock_exclusive_at_dpc_level;
    ExReleaseSpinLockSharedFromDpcLevel(SpinLock: *mut i32) = ex::shared_lock::ex_release_spin_lock_shared_from_dpc_level;
    ExReleaseSpinLockExclusiveFromDpcLevel(SpinLock: *mut i32) = ex::shared_lock::ex_release_spin_lock_exclusive_from_dpc_level;
    ExTryAcquireSpinLockSharedAtDpcLevel(SpinLock: *mut i32) -> i32 = ex::shared_lock::ex_try_acquire_spin_lock_shared_at_dpc_level;
    ExTryAcquireSpinLockExclusiveAtDpcLevel(SpinLock: *mut i32) -> i32 = ex::shared_lock::ex_try_acquire_spin_lock_exclusive_at_dpc_level;
    ExTryConvertSharedSpinLockExclusive(SpinLock: *mut i32) -> i32 = ex::shared_lock::ex_try_convert_shared_spin_lock_exclusive;

    ExAcquireFastMutex(FastMutex: *mut FastMutex) = ex::fast_mutex::ex_acquire_fast_mutex;
    ExTryToAcquireFastMutex(FastMutex: *mut FastMutex) -> u8 = ex::fast_mutex::ex_try_to_acquire_fast_mutex;
    ExReleaseFastMutex(FastMutex: *mut FastMutex) = ex::fast_mutex::ex_release_fast_mutex;
    ExAcquireFastMutexUnsafe(FastMutex: *mut FastMutex) = ex::fast_mutex::ex_acquire_fast_mutex_unsafe;
    ExReleaseFastMutexUnsafe(FastMutex: *mut FastMutex) = ex::fast_mutex::ex_release_fast_mutex_unsafe;
    KeInitializeGuardedMutex(Mutex: *mut FastMutex) = ex::fast_mutex::ke_initialize_guarded_mutex;
    KeAcquireGuardedMutex(Mutex: *mut FastMutex) = ex::fast_mutex::ke_acquire_guarded_mutex;
    KeTryToAcquireGuardedMutex(Mutex: *mut FastMutex) -> u8 = ex::fast_mutex::ke_try_to_acquire_guarded_mutex;
    KeReleaseGuardedMutex(Mutex: *mut FastMutex) = ex::fast_mutex::ke_release_guarded_mutex;
    KeAcquireGuardedMutexUnsafe(Mutex: *mut FastMutex) = ex::fast_mutex::ke_acquire_guarded_mutex_unsafe;
    KeReleaseGuardedMutexUnsafe(Mutex: *mut FastMutex) = ex::fast_mutex::ke_release_guarded_mutex_unsafe;
    ExInitializePushLock(PushLock: *mut usize) = ex::shared_lock::ex_initialize_push_lock;
    ExAcquirePushLockExclusiveEx(PushLock: *mut usize, Flags: u32) = ex::shared_lock::ex_acquire_push_lock_exclusive_ex;
    ExAcquirePushLockSharedEx(PushLock: *mut usize, Flags: u32) = ex::shared_lock::ex_acquire_push_lock_shared_ex;
    ExReleasePushLockExclusiveEx(PushLock: *mut usize, Flags: u32) = ex::shared_lock::ex_release_push_lock_exclusive_ex;
    ExReleasePushLockSharedEx(PushLock: *mut usize, Flags: u32) = ex::shared_lock::ex_release_push_lock_shared_ex;

    ExInitializeResourceLite(Resource: *mut EResource) -> i32 = ex::resource::ex_initialize_resource_lite;
    ExReinitializeResourceLite(Resource: *mut EResource) -> i32 = ex::resource::ex_reinitialize_resource_lite;
    ExDeleteResourceLite(Resource: *mut EResource) -> i32 = ex::resource::ex_delete_resource_lite;
    ExAcquireResourceExclusiveLite(Resource: *mut EResource, Wait: u8) -> u8 = ex::resource::ex_acquire_resource_exclusive_lite;
    ExAcquireResourceSharedLite(Resource: *mut EResource, Wait: u8) -> u8 = ex::resource::ex_acquire_resource_shared_lite;
    ExAcquireSharedStarveExclusive(Resource: *mut EResource, Wait: u8) -> u8 = ex::resource::ex_acquire_shared_starve_exclusive;
    ExAcquireSharedWaitForExclusive(Resource: *mut EResource, Wait: u8) -> u8 = ex::resource::ex_acquire_shared_wait_for_exclusive;
    ExEnterCriticalRegionAndAcquireResourceExclusive(Resource: *mut EResource) -> usize
        = ex::resource::ex_enter_critical_region_and_acquire_resource_exclusive;
    ExEnterCriticalRegionAndAcquireResourceShared(Resource: *mut EResource) -> usize
        = ex::resource::ex_enter_critical_region_and_acquire_resource_shared;
    ExReleaseResourceLite(Resource: *mut EResource) = ex::resource::ex_release_resource_lite;
    ExReleaseResourceForThreadLite(Resource: *mut EResource, ResourceThreadId: Addr) = ex::resource::ex_release_resource_for_thread_lite;
    ExReleaseResourceAndLeaveCriticalRegion(Resource: *mut EResource) = ex::resource::ex_release_resource_and_leave_critical_region;
    ExConvertExclusiveToSharedLite(Resource: *mut EResource) = ex::resource::ex_convert_exclusive_to_shared_lite;
    ExIsResourceAcquiredExclusiveLite(Resource: *mut EResource) -> u8 = ex::resource::ex_is_resource_acquired_exclusive_lite;
    ExIsResourceAcquiredSharedLite(Resource: *mut EResource) -> u32 = ex::resource::ex_is_resource_acquired_shared_lite;
    ExGetExclusiveWaiterCount(Resource: *mut EResource) -> u32 = ex::resource::ex_get_exclusive_waiter_count;
    ExGetSharedWaiterCount(Resource: *mut EResource) -> u32 = ex::resource::ex_get_shared_waiter_count;
    ExDisableResourceBoostLite(Resource: *mut EResource) = ex::resource::ex_disable_resource_boost_lite;

    ExInitializeRundownProtection(RunRef: *mut usize) = ex::rundown::ex_initialize_rundown_protection;
    ExReInitializeRundownProtection(RunRef: *mut usize) = ex::rundown::ex_re_initialize_rundown_protection;
    ExAcquireRundownProtection(RunRef: *mut usize) -> u8 = ex::rundown::ex_acquire_rundown_protection;
    ExAcquireRundownProtectionEx(RunRef: *mut usize, Count: u32) -> u8 = ex::rundown::ex_acquire_rundown_protection_ex;
    ExReleaseRundownProtection(RunRef: *mut usize) = ex::rundown::ex_release_rundown_protection;
    ExReleaseRundownProtectionEx(RunRef: *mut usize, Count: u32) = ex::rundown::ex_release_rundown_protection_ex;
    ExWaitForRundownProtectionRelease(RunRef: *mut usize) = ex::rundown::ex_wait_for_rundown_protection_release;
    ExRundownCompleted(RunRef: *mut usize) = ex::rundown::ex_rundown_completed;
    IoInitializeRemoveLockEx(Lock: *mut RemoveLock, AllocateTag: u32, MaxLockedMinutes: u32, HighWatermark: u32, RemlockSize: u32)
        = crate::io::remove_lock::io_initialize_remove_lock_ex;
    IoAcquireRemoveLockEx(RemoveLock: *mut RemoveLock, Tag: Addr, File: *const u8, Line: u32, RemlockSize: u32) -> i32
        = crate::io::remove_lock::io_acquire_remove_lock_ex;
    IoReleaseRemoveLockEx(RemoveLock: *mut RemoveLock, Tag: Addr, RemlockSize: u32) = crate::io::remove_lock::io_release_remove_lock_ex;
    IoReleaseRemoveLockAndWaitEx(RemoveLock: *mut RemoveLock, Tag: Addr, RemlockSize: u32) = crate::io::remove_lock::io_release_remove_lock_and_wait_ex;

    ExInterlockedInsertHeadList(ListHead: *mut ListEntry, ListEntry: *mut ListEntry, Lock: *mut usize) -> *mut ListEntry = ex::list::ex_interlocked_insert_head_list;
    ExInterlockedInsertTailList(ListHead: *mut ListEntry, ListEntry: *mut ListEntry, Lock: *mut usize) -> *mut ListEntry = ex::list::ex_interlocked_insert_tail_list;
    ExInterlockedRemoveHeadList(ListHead: *mut ListEntry, Lock: *mut usize) -> *mut ListEntry = ex::list::ex_interlocked_remove_head_list;
    ExInterlockedPushEntryList(ListHead: *mut SingleListEntry, ListEntry: *mut SingleListEntry, Lock: *mut usize) -> *mut SingleListEntry
        = ex::list::ex_interlocked_push_entry_list;
    ExInterlockedPopEntryList(ListHead: *mut SingleListEntry, Lock: *mut usize) -> *mut SingleListEntry = ex::list::ex_interlocked_pop_entry_list;

    ExQueueWorkItem(WorkItem: *mut WorkQueueItem, QueueType: i32) = ex::work_item::ex_queue_work_item;
    IoAllocateWorkItem(DeviceObject: Addr) -> Addr = crate::io::work_item::io_allocate_work_item;
    IoFreeWorkItem(IoWorkItem: *mut u8) = crate::io::work_item::io_free_work_item;
    IoSizeofWorkItem() -> u32 = crate::io::work_item::io_sizeof_work_item;
    IoInitializeWorkItem(IoObject: Addr, IoWorkItem: *mut u8) = crate::io::work_item::io_initialize_work_item;
    IoUninitializeWorkItem(IoWorkItem: *mut u8) = crate::io::work_item::io_uninitialize_work_item;
    IoQueueWorkItem(IoWorkItem: *mut u8, WorkerRoutine: Addr, QueueType: i32, Context: Addr) = crate::io::work_item::io_queue_work_item;
    IoQueueWorkItemEx(IoWorkItem: *mut u8, WorkerRoutine: Addr, QueueType: i32, Context: Addr) = crate::io::work_item::io_queue_work_item_ex;

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
    KeEnterGuardedRegion() = ke::guarded_region::ke_enter_guarded_region;
    KeLeaveGuardedRegion() = ke::guarded_region::ke_leave_guarded_region;
    KeAreAllApcsDisabled() -> u8 = ke::guarded_region::ke_are_all_apcs_disabled;

    ZwClose(Handle: Addr) -> i32 = ob::zw_close;
    ZwOpenKey(KeyHandle: *mut usize, DesiredAccess: u32, ObjectAttributes: *const ObjectAttributes) -> i32 = key::zw_open_key;
    ZwOpenKeyEx(KeyHandle: *mut usize, DesiredAccess: u32, ObjectAttributes: *const ObjectAttributes, OpenOptions: u32) -> i32 = key::zw_open_key_ex;
    ZwCreateKey(KeyHandle: *mut usize, DesiredAccess: u32, ObjectAttributes: *const ObjectAttributes, TitleIndex: u32, Class: *const UnicodeString, CreateOptions: u32, Disposition: *mut u32) -> i32
        = key::zw_create_key;
    ZwDeleteKey(KeyHandle: Addr) -> i32 = key::zw_delete_key;
    ZwFlushKey(KeyHandle: Addr) -> i32 = key::zw_flush_key;
    ZwQueryKey(KeyHandle: Addr, KeyInformationClass: i32, KeyInformation: *mut u8, Length: u32, ResultLength: *mut u32) -> i32 = key::zw_query_key;
    ZwEnumerateKey(KeyHandle: Addr, Index: u32, KeyInformationClass: i32, KeyInformation: *mut u8, Length: u32, ResultLength: *mut u32) -> i32
        = key::zw_enumerate_key;
    ZwSetValueKey(KeyHandle: Addr, ValueName: *const UnicodeString, TitleIndex: u32, Type: u32, Data: *const u8, DataSize: u32) -> i32 = key::zw_set_value_key;
    ZwDeleteValueKey(KeyHandle: Addr, ValueName: *const UnicodeString) -> i32 = key::zw_delete_value_key;
    ZwQueryValueKey(KeyHandle: Addr, ValueName: *const UnicodeString, KeyValueInformationClass: i32, KeyValueInformation: *mut u8, Length: u32, ResultLength: *mut u32) -> i32
        = key::zw_query_value_key;
    ZwEnumerateValueKey(KeyHandle: Addr, Index: u32, KeyValueInformationClass: i32, KeyValueInformation: *mut u8, Length: u32, ResultLength: *mut u32) -> i32
        = key::zw_enumerate_value_key;
    RtlCheckRegistryKey(RelativeTo: u32, Path: *const u16) -> i32 = path::rtl_check_registry_key;
    RtlCreateRegistryKey(RelativeTo: u32, Path: *const u16) -> i32 = path::rtl_create_registry_key;
    RtlWriteRegistryValue(RelativeTo: u32, Path: *const u16, ValueName: *const u16, ValueType: u32, ValueData: *const u8, ValueLength: u32) -> i32
        = path::rtl_write_registry_value;
    RtlDeleteRegistryValue(RelativeTo: u32, Path: *const u16, ValueName: *const u16) -> i32 = path::rtl_delete_registry_value;
    ZwWaitForSingleObject(Handle: Addr, Alertable: u8, Timeout: *const i64) -> i32 = ob::zw_wait_for_single_object;
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
    DbgPrint(Format: *const u8, a0: Slot, a1: Slot, a2: Slot, a3: Slot, a4: Slot, a5: Slot, a6: Slot, a7: Slot) -> i32 = rtl::dbg_print;
    DbgPrintEx(ComponentId: u32, Level: u32, Format: *const u8, a0: Slot, a1: Slot, a2: Slot, a3: Slot, a4: Slot, a5: Slot, a6: Slot) -> i32
        = rtl::dbg_print_ex;
    RtlInitUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const u16) = rtl::rtl_init_unicode_string;
    RtlCompareUnicodeString(String1: *const UnicodeString, String2: *const UnicodeString, CaseInSensitive: u8) -> i32 = rtl::rtl_compare_unicode_string;
    RtlEqualUnicodeString(String1: *const UnicodeString, String2: *const UnicodeString, CaseInSensitive: u8) -> u8 = rtl::rtl_equal_unicode_string;
    RtlCopyUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const UnicodeString) = rtl::rtl_copy_unicode_string;
    RtlInitAnsiString(DestinationString: *mut AnsiString, SourceString: *const u8) = rtl::string::rtl_init_ansi_string;
    RtlInitString(DestinationString: *mut AnsiString, SourceString: *const u8) = rtl::string::rtl_init_ansi_string;
    RtlAppendUnicodeToString(Destination: *mut UnicodeString, Source: *const u16) -> i32 = rtl::string::rtl_append_unicode_to_string;
    RtlAppendUnicodeStringToString(Destination: *mut UnicodeString, Source: *const UnicodeString) -> i32 = rtl::string::rtl_append_unicode_string_to_string;
    RtlAnsiStringToUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const AnsiString, AllocateDestinationString: u8) -> i32
        = rtl::string::rtl_ansi_string_to_unicode_string;
    RtlUnicodeStringToAnsiString(DestinationString: *mut AnsiString, SourceString: *const UnicodeString, AllocateDestinationString: u8) -> i32
        = rtl::string::rtl_unicode_string_to_ansi_string;
    RtlUpcaseUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const UnicodeString, AllocateDestinationString: u8) -> i32
        = rtl::string::rtl_upcase_unicode_string;
    RtlDowncaseUnicodeString(DestinationString: *mut UnicodeString, SourceString: *const UnicodeString, AllocateDestinationString: u8) -> i32
        = rtl::string::rtl_downcase_unicode_string;
    RtlPrefixUnicodeString(String1: *const UnicodeString, String2: *const UnicodeString, CaseInSensitive: u8) -> u8 = rtl::string::rtl_prefix_unicode_string;
    RtlFreeUnicodeString(UnicodeString: *mut UnicodeString) = rtl::string::rtl_free_unicode_string;
    RtlFreeAnsiString(AnsiString: *mut AnsiString) = rtl::string::rtl_free_ansi_string;
    RtlIntegerToUnicodeString(Value: u32, Base: u32, String: *mut UnicodeString) -> i32 = rtl::string::rtl_integer_to_unicode_string;
    RtlInt64ToUnicodeString(Value: u64, Base: u32, String: *mut UnicodeString) -> i32 = rtl::string::rtl_int64_to_unicode_string;
    RtlUnicodeStringToInteger(String: *const UnicodeString, Base: u32, Value: *mut u32) -> i32 = rtl::string::rtl_unicode_string_to_integer;
    RtlUpcaseUnicodeChar(SourceCharacter: u16) -> u16 = rtl::string::rtl_upcase_unicode_char;
    RtlDowncaseUnicodeChar(SourceCharacter: u16) -> u16 = rtl::string::rtl_downcase_unicode_char;
    RtlCompareMemory(Source1: *const u8, Source2: *const u8, Length: usize) -> usize = rtl::rtl_compare_memory;
    RtlRandom(Seed: *mut u32) -> u32 = rtl::rtl_random_ex;
    RtlRandomEx(Seed: *mut u32) -> u32 = rtl::rtl_random_ex;
    RtlTimeToTimeFields(Time: *const i64, TimeFields: *mut TimeFields) = rtl::time::rtl_time_to_time_fields;
    RtlTimeFieldsToTime(TimeFields: *const TimeFields, Time: *mut i64) -> u8 = rtl::time::rtl_time_fields_to_time;
    RtlTimeToSecondsSince1970(Time: *const i64, ElapsedSeconds: *mut u32) -> u8 = rtl::time::rtl_time_to_seconds_since_1970;
    RtlSecondsSince1970ToTime(ElapsedSeconds: u32, Time: *mut i64) = rtl::time::rtl_seconds_since_1970_to_time;
    RtlGetVersion(VersionInformation: *mut rtl::VersionInfo) -> i32 = rtl::rtl_get_version;
    ExUuidCreate(Uuid: *mut [u8; 16]) -> i32 = ex::uuid::ex_uuid_create;
    DbgBreakPoint() = rtl::dbg_break_point;
    DbgBreakPointWithStatus(Status: u32) = rtl::dbg_break_point_with_status;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What openwdk's headers have inline and no import library has; a driver
    /// that is linked into a host needs it as a function all the same.
    const INLINE_IN_HEADERS: [&str; 1] = ["KeQueryInterruptTime"];

    /// The names that a module definition file exports, under the module's name.
    fn definition(file: &str) -> (String, Vec<String>) {
        let path = format!("{}/../openwdk/lib/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut words = text.lines().filter_map(|line| {
            line.split(';')
                .next()?
                .split_whitespace()
                .next()
                .map(|first| (line, first))
        });
        let (library, _) = words
            .find(|(_, first)| *first == "LIBRARY")
            .expect("a LIBRARY line");
        let module = library
            .split_whitespace()
            .nth(1)
            .expect("the module's name")
            .to_ascii_lowercase();
        (module, words.map(|(_, name)| name.to_owned()).collect())
    }

    #[test]
    fn every_row_is_in_the_import_library_of_its_module() {
        let libraries: BTreeMap<_, _> = ["ntoskrnl.def", "hal.def", "WdfLdr.def"]
            .map(definition)
            .into();
        let strays: Vec<_> = all()
            .filter(|export| !INLINE_IN_HEADERS.contains(&export.name))
            .filter(|export| {
                !libraries[&export.dll.to_ascii_lowercase()]
                    .iter()
                    .any(|name| name == export.name)
            })
            .map(|export| format!("{}!{}", export.dll, export.name))
            .collect();
        assert!(strays.is_empty(), "no import library has {strays:?}");
    }

    #[test]
    fn no_name_has_two_rows() {
        let mut seen = std::collections::BTreeSet::new();
        for export in all() {
            assert!(seen.insert(export.name), "{} has two rows", export.name);
        }
    }
}
