// SPDX-License-Identifier: MIT OR Apache-2.0

//! The IRQL that functions are called at.
//!
//! Which function may be called where stands in the rules themselves: their
//! `apis` and their `irql`. The [DDI compliance rules][ddi], and those that
//! say of a kernel function no more than "at the wrong IRQL", are checked in one
//! place, before each call. `range` looks a function up while ntsim is compiled, so
//! that a call costs two comparisons. Then come the checks that need the
//! arguments, each in its function.
//!
//! As on Windows, where DDI compliance checking wraps all else: what breaks one of its
//! rules and another one is reported as the former, unless that is off.
//!
//! [ddi]: https://learn.microsoft.com/windows-hardware/drivers/devtest/ddi-compliance-checking

use super::Report::{BugCheck, BugCheckWith};
use super::Rule;
use crate::kernel::{HIGH_LEVEL, Kernel};

rules! { Irql;
    /// A function was called below `DISPATCH_LEVEL`.
    DISPATCH = "IrqlDispatch", BugCheckWith(0xC4, 0x2_0003), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["KeAcquireSpinLockAtDpcLevel", "KeReleaseSpinLockFromDpcLevel"], irql: Some((2, 15)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqldispatch";
    /// Pool was allocated above `DISPATCH_LEVEL`, or paged pool at it.
    EX_ALLOCATE_POOL = "IrqlExAllocatePool", BugCheckWith(0xC4, 0x2_0004), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["ExAllocatePoolWithTag"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlexallocatepool";
    /// A fast mutex was to be acquired above `APC_LEVEL`.
    EX_APC_LTE_1 = "IrqlExApcLte1", BugCheckWith(0xC4, 0x2_0005), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["ExAcquireFastMutex", "ExTryToAcquireFastMutex"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlexapclte1";
    /// A function of the executive was called above `PASSIVE_LEVEL`.
    EX_PASSIVE = "IrqlExPassive", BugCheckWith(0xC4, 0x2_0008), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["ExUuidCreate"], irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlexpassive";
    /// A thread was to be delayed, or a guarded mutex was used, above `APC_LEVEL`.
    KE_APC_LTE_1 = "IrqlKeApcLte1", BugCheckWith(0xC4, 0x2_000F), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["KeAcquireGuardedMutex", "KeAcquireGuardedMutexUnsafe", "KeDelayExecutionThread", "KeReleaseGuardedMutex", "KeReleaseGuardedMutexUnsafe", "KeTryToAcquireGuardedMutex"],
        irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlkeapclte1";
    /// APCs were disabled, enabled or asked about above `APC_LEVEL`.
    KE_APC_LTE_2 = "IrqlKeApcLte2", BugCheckWith(0xC4, 0x2_0010), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["KeAreAllApcsDisabled", "KeAreApcsDisabled", "KeEnterCriticalRegion", "KeEnterGuardedRegion", "KeLeaveCriticalRegion", "KeLeaveGuardedRegion"],
        irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlkeapclte2";
    /// A function of the kernel's core was called above `DISPATCH_LEVEL`.
    KE_DISPATCH_LTE = "IrqlKeDispatchLte", BugCheckWith(0xC4, 0x2_0011), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["KeAcquireSpinLockRaiseToDpc", "KeCancelTimer", "KeClearEvent", "KeInitializeTimer", "KeInitializeTimerEx", "KeRaiseIrqlToDpcLevel", "KeReadStateEvent", "KeReadStateTimer", "KeReleaseMutex", "KeResetEvent", "KeSetTimer", "KeSetTimerEx"],
        irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlkedispatchlte";
    /// An event was set above `DISPATCH_LEVEL`, or with `Wait` above `APC_LEVEL`.
    KE_SET_EVENT = "IrqlKeSetEvent", BugCheckWith(0xC4, 0x2_0016), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["KeSetEvent"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlkesetevent";
    /// An object was referenced by its handle above `PASSIVE_LEVEL`.
    OB_PASSIVE = "IrqlObPassive", BugCheckWith(0xC4, 0x2_001B), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["ObReferenceObjectByHandle"], irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlobpassive";
    /// A thread was created or terminated above `PASSIVE_LEVEL`.
    PS_PASSIVE = "IrqlPsPassive", BugCheckWith(0xC4, 0x2_001C), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["PsCreateSystemThread", "PsTerminateSystemThread"], irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlpspassive";
    /// A registry value was deleted above `PASSIVE_LEVEL`.
    RTL_PASSIVE = "IrqlRtlPassive", BugCheckWith(0xC4, 0x2_001E), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["RtlDeleteRegistryValue"], irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlrtlpassive";
    /// A handle was closed, or a registry key used, above `PASSIVE_LEVEL`.
    ZW_PASSIVE = "IrqlZwPassive", BugCheckWith(0xC4, 0x2_001F), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["ZwClose", "ZwCreateKey", "ZwDeleteKey", "ZwEnumerateKey", "ZwEnumerateValueKey", "ZwFlushKey", "ZwOpenKey", "ZwQueryKey", "ZwQueryValueKey", "ZwSetValueKey"],
        irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqlzwpassive";
    /// The registry was changed above `PASSIVE_LEVEL`.
    IO_RTL_ZW_PASSIVE = "IrqlIoRtlZwPassive", BugCheckWith(0xC4, 0x2_0023), ["string that describes the violated condition", "rule state", "reserved"],
        apis: ["RtlCreateRegistryKey", "RtlWriteRegistryValue", "ZwDeleteValueKey"], irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/wdm-irqliortlzwpassive";

    /// A function that needs `PASSIVE_LEVEL` was called above it.
    KERNEL_API_PASSIVE = "IrqlKernelApiPassive", BugCheckWith(0xC4, 0xE5), ["current IRQL", "reserved", "reserved"],
        apis: [
            "IoInitializeRemoveLockEx", "IoReleaseRemoveLockAndWaitEx", "KeFlushQueuedDpcs", "KeSetPriorityThread",
            "MmGetSystemRoutineAddress", "RtlAnsiStringToUnicodeString", "RtlCheckRegistryKey", "RtlCompareUnicodeString",
            "RtlDowncaseUnicodeString", "RtlEqualUnicodeString", "RtlFreeAnsiString", "RtlFreeUnicodeString", "RtlGetVersion",
            "RtlInt64ToUnicodeString", "RtlIntegerToUnicodeString", "RtlPrefixUnicodeString", "RtlUnicodeStringToAnsiString",
            "RtlUnicodeStringToInteger", "RtlUpcaseUnicodeString",
        ],
        irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A function that needs `APC_LEVEL` or below was called above it.
    KERNEL_API_APC = "IrqlKernelApiApc", BugCheckWith(0xC4, 0xE5), ["current IRQL", "reserved", "reserved"],
        apis: ["ExWaitForRundownProtectionRelease"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A function that needs `DISPATCH_LEVEL` or below was called above it.
    KERNEL_API_DISPATCH = "IrqlKernelApiDispatch", BugCheckWith(0xC4, 0xE5), ["current IRQL", "reserved", "reserved"],
        apis: [
            "ExAcquireRundownProtection", "ExAcquireRundownProtectionEx", "ExAcquireSpinLockExclusive", "ExAcquireSpinLockShared",
            "ExDeleteResourceLite", "ExDisableResourceBoostLite", "ExGetExclusiveWaiterCount", "ExGetSharedWaiterCount",
            "ExInitializeResourceLite", "ExIsResourceAcquiredExclusiveLite", "ExIsResourceAcquiredSharedLite", "ExReinitializeResourceLite",
            "ExQueueWorkItem", "ExReleaseRundownProtection", "ExReleaseRundownProtectionEx", "IoAcquireRemoveLockEx",
            "IoAllocateWorkItem", "IoFreeWorkItem", "IoInitializeWorkItem", "IoQueueWorkItem", "IoQueueWorkItemEx",
            "IoReleaseRemoveLockEx", "IoUninitializeWorkItem", "KeAcquireInStackQueuedSpinLock", "KeInitializeGuardedMutex",
            "KeReadStateMutex", "KeReleaseSemaphore", "KeSetCoalescableTimer", "ObfDereferenceObject", "ObfReferenceObject",
        ],
        irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";

    /// The IRQL was raised to a lower one, or to one that there is not.
    RAISE = "KeRaiseIrql", BugCheckWith(0xC4, 0x30), ["current IRQL", "requested IRQL", "0"],
        apis: ["KfRaiseIrql"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// The IRQL was lowered to a higher one, or below `DISPATCH_LEVEL` in a DPC.
    LOWER = "KeLowerIrql", BugCheckWith(0xC4, 0x31), ["current IRQL", "requested IRQL", "0: the new IRQL is bad; 1: it is invalid inside a DPC routine"],
        apis: ["KeLowerIrql", "KeReleaseSpinLock"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A spin lock was released at another IRQL than `DISPATCH_LEVEL`.
    RELEASE_SPIN_LOCK = "KeReleaseSpinLockIrql", BugCheckWith(0xC4, 0x32), ["current IRQL", "spin lock address", "0"],
        apis: ["KeReleaseSpinLock"], irql: Some((2, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A spin lock was to be acquired below `DISPATCH_LEVEL`, without raising the IRQL.
    ACQUIRE_AT_DPC_LEVEL = "KeAcquireSpinLockAtDpcLevelIrql", BugCheckWith(0xC4, 0x40), ["current IRQL", "spin lock address", "0"],
        apis: ["KeAcquireSpinLockAtDpcLevel", "KeTryToAcquireSpinLockAtDpcLevel", "KeAcquireInStackQueuedSpinLockAtDpcLevel"], irql: Some((2, 15)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A spin lock was released below `DISPATCH_LEVEL`, where nobody can hold one.
    RELEASE_FROM_DPC_LEVEL = "KeReleaseSpinLockFromDpcLevelIrql", BugCheckWith(0xC4, 0x41), ["current IRQL", "spin lock address", "0"],
        apis: ["KeReleaseSpinLockFromDpcLevel", "KeReleaseInStackQueuedSpinLock", "KeReleaseInStackQueuedSpinLockFromDpcLevel"], irql: Some((2, 15)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A spin lock was to be acquired above `DISPATCH_LEVEL`.
    ACQUIRE_SPIN_LOCK = "KeAcquireSpinLockIrql", BugCheckWith(0xC4, 0x42), ["current IRQL", "spin lock address", "0"],
        apis: ["KeAcquireSpinLockRaiseToDpc"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A DPC routine or a thread's routine returned at another IRQL than it was called at.
    UNEXPECTED_VALUE = "IrqlUnexpectedValue", BugCheck(0xC8), ["(current IRQL << 16) | (expected IRQL << 8) | unique value", "0", "0", "0"],
        apis: ["DeferredRoutine", "StartRoutine"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc8--irql-unexpected-value";

    /// A function of the framework was called above the IRQL that it needs.
    KMDF = "KmdfIrql", BugCheckWith(0x1E, 0x8000_0003), ["address of the instruction", "0", "0"],
        apis: ["Wdf…, each at its own"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/devtest/kmdf-kmdfirql";
}

/// The rules that are checked before each call, in this order.
const AT_ENTRY: &[&Rule] = &[
    &DISPATCH,
    &EX_ALLOCATE_POOL,
    &EX_APC_LTE_1,
    &EX_PASSIVE,
    &KE_APC_LTE_1,
    &KE_APC_LTE_2,
    &KE_DISPATCH_LTE,
    &KE_SET_EVENT,
    &OB_PASSIVE,
    &PS_PASSIVE,
    &RTL_PASSIVE,
    &ZW_PASSIVE,
    &IO_RTL_ZW_PASSIVE,
    &KERNEL_API_PASSIVE,
    &KERNEL_API_APC,
    &KERNEL_API_DISPATCH,
    &super::object::ZW_CALL,
];

/// The IRQLs that a function may be called at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    lowest: u8,
    highest: u8,
}

impl Range {
    /// Nothing is checked before the call.
    pub(crate) const ANY: Self = Self {
        lowest: 0,
        highest: HIGH_LEVEL,
    };

    /// Whether a call at `irql` is allowed.
    pub(crate) const fn contains(self, irql: u8) -> bool {
        self.lowest <= irql && irql <= self.highest
    }
}

/// Where the rules that are checked before each call allow `function`.
pub(crate) const fn range(function: &str) -> Range {
    let mut index = 0;
    while index < AT_ENTRY.len() {
        let rule = AT_ENTRY[index];
        if lists(rule, function)
            && let Some((lowest, highest)) = rule.irql
        {
            // Others that list it say the same: a test sees to it.
            return Range { lowest, highest };
        }
        index += 1;
    }
    Range::ANY
}

/// Whether the rule is about `function`.
const fn lists(rule: &Rule, function: &str) -> bool {
    let mut index = 0;
    while index < rule.apis.len() {
        if equal(rule.apis[index].as_bytes(), function.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// `function` is called at an IRQL that is not in its [`range`].
#[cold]
pub(crate) fn outside(k: &mut Kernel, function: &str) {
    let irql = k.irql();
    for rule in AT_ENTRY.iter().filter(|rule| lists(rule, function)) {
        let needs = super::page::range(rule);
        let parameters = match rule.report {
            BugCheckWith(_, 0xE5) => [u64::from(irql), 0, 0],
            BugCheckWith(_, 0xE6) => [k.caller(), u64::from(irql), 0],
            // Addresses of Windows's own.
            _ => [0; 3],
        };
        k.broken(
            rule,
            &parameters,
            format!("{function} was called at IRQL {irql}; it needs {needs}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions that may be called at any IRQL, or whose page asks for no more than
    /// that their buffers are resident.
    const AT_ANY_LEVEL: &[&str] = &[
        "DbgBreakPoint",
        "DbgBreakPointWithStatus",
        "DbgPrint",
        "DbgPrintEx",
        "ExInitializePushLock",
        "ExInitializeRundownProtection",
        "ExInterlockedInsertHeadList",
        "ExInterlockedInsertTailList",
        "ExInterlockedPopEntryList",
        "ExInterlockedPushEntryList",
        "ExInterlockedRemoveHeadList",
        "ExReInitializeRundownProtection",
        "ExRundownCompleted",
        "IoSizeofWorkItem",
        "KeBugCheck",
        "KeBugCheckEx",
        "KeGetCurrentIrql",
        "KeGetCurrentProcessorNumberEx",
        "KeGetCurrentThread",
        "KeInitializeDpc",
        "KeInitializeEvent",
        "KeInitializeMutex",
        "KeInitializeSemaphore",
        "KeInitializeSpinLock",
        "KeInsertQueueDpc",
        "KeQueryActiveProcessorCount",
        "KeQueryActiveProcessorCountEx",
        "KeQueryInterruptTime",
        "KeQueryInterruptTimePrecise",
        "KeQueryMaximumProcessorCount",
        "KeQueryMaximumProcessorCountEx",
        "KeQueryPerformanceCounter",
        "KeQuerySystemTimePrecise",
        "KeQueryTimeIncrement",
        "KeQueryUnbiasedInterruptTime",
        "KeReadStateSemaphore",
        "KeRemoveQueueDpc",
        "KeSetImportanceDpc",
        "KeSetTargetProcessorDpc",
        "KeSetTargetProcessorDpcEx",
        "KeStallExecutionProcessor",
        "KeTestSpinLock",
        "PsGetCurrentThreadId",
        "RtlAppendUnicodeStringToString",
        "RtlAppendUnicodeToString",
        "RtlCompareMemory",
        "RtlCopyUnicodeString",
        "RtlDowncaseUnicodeChar",
        "RtlInitAnsiString",
        "RtlInitString",
        "RtlInitUnicodeString",
        "RtlRandom",
        "RtlRandomEx",
        "RtlSecondsSince1970ToTime",
        "RtlTimeFieldsToTime",
        "RtlTimeToSecondsSince1970",
        "RtlTimeToTimeFields",
        "RtlUpcaseUnicodeChar",
    ];

    /// Of the locks: what their own functions check, some by the state of the lock.
    const BY_THE_LOCKS: &[&str] = &[
        "ExAcquireFastMutexUnsafe",
        "ExAcquirePushLockExclusiveEx",
        "ExAcquirePushLockSharedEx",
        "ExAcquireSpinLockExclusiveAtDpcLevel",
        "ExAcquireSpinLockSharedAtDpcLevel",
        "ExEnterCriticalRegionAndAcquireResourceExclusive",
        "ExEnterCriticalRegionAndAcquireResourceShared",
        "ExReleaseFastMutex",
        "ExReleaseFastMutexUnsafe",
        "ExReleasePushLockExclusiveEx",
        "ExReleasePushLockSharedEx",
        "ExReleaseSpinLockExclusive",
        "ExReleaseSpinLockExclusiveFromDpcLevel",
        "ExReleaseSpinLockShared",
        "ExReleaseSpinLockSharedFromDpcLevel",
        "ExTryAcquireSpinLockExclusiveAtDpcLevel",
        "ExTryAcquireSpinLockSharedAtDpcLevel",
        "ExTryConvertSharedSpinLockExclusive",
    ];

    #[test]
    fn every_function_has_an_irql_rule_or_is_said_to_need_none() {
        let mut without = Vec::new();
        for export in crate::exports::all().filter(|export| !export.host.is_null()) {
            let name = export.name;
            let ruled = super::super::all().any(|rule| rule.irql.is_some() && lists(rule, name))
                || RAISE.apis.contains(&name)
                || LOWER.apis.contains(&name);
            let listed = AT_ANY_LEVEL.contains(&name) || BY_THE_LOCKS.contains(&name);
            // KMDF's own, which the loader calls.
            if !ruled && !listed && !name.starts_with("WdfVersion") {
                without.push(name);
            }
            assert!(
                !(ruled && AT_ANY_LEVEL.contains(&name)),
                "{name} is listed as needing no rule, and has one"
            );
        }
        assert!(
            without.is_empty(),
            "name them in a rule of rules/irql.rs, or in AT_ANY_LEVEL: {without:?}"
        );
    }

    #[test]
    fn rules_that_list_the_same_function_allow_the_same_before_the_call() {
        for rule in AT_ENTRY {
            for function in rule.apis {
                let (lowest, highest) = rule.irql.expect("its rows say at which IRQL");
                assert_eq!(range(function), Range { lowest, highest }, "{function}");
            }
        }
    }

    /// Calls `function` at `irql` with nothing but zeroes, and gives the rule
    /// that ends that.
    fn rule_of(function: &'static str, irql: u8) -> Option<&'static str> {
        type Function = unsafe extern "C-unwind" fn(
            usize,
            usize,
            usize,
            usize,
            usize,
            usize,
            usize,
            usize,
        ) -> usize;
        let export = crate::exports::all().find(|export| export.name == function);
        let address = export.expect("rules name functions that there are").host;
        let ended = crate::Machine::with_seed(0).run_thread("test", move || {
            crate::ke::irql::kf_raise_irql(irql);
            // SAFETY: it is a function of the host's convention, which lets a caller pass more
            // integers than the callee takes.
            let call = unsafe { std::mem::transmute::<*const (), Function>(address) };
            // SAFETY: the check before the call ends the simulation, and so this thread.
            unsafe { call(0, 0, 0, 0, 0, 0, 0, 0) };
        });
        ended.err()?.rule
    }

    #[test]
    fn each_function_of_a_rule_is_stopped_just_above_and_just_below_its_range() {
        for rule in AT_ENTRY {
            for function in rule.apis {
                let (lowest, highest) = rule.irql.expect("its rows say at which IRQL");
                let first = AT_ENTRY.iter().find(|rule| lists(rule, function));
                let expected = first.map(|rule| rule.name);
                if highest < HIGH_LEVEL {
                    assert_eq!(rule_of(function, highest + 1), expected, "{function}");
                }
                if lowest > 0 {
                    assert_eq!(rule_of(function, lowest - 1), expected, "{function}");
                }
            }
        }
    }

    #[test]
    fn a_function_of_no_row_is_not_held_to_a_range() {
        assert_eq!(range("KeGetCurrentIrql"), Range::ANY);
        assert_eq!(
            range("ZwClose"),
            Range {
                lowest: 0,
                highest: 0
            }
        );
    }
}
