// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guarded regions: a thread in one receives no APC of any kind.
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/disabling-apcs>

use crate::kernel::{APC_LEVEL, Kernel};
use crate::rules;
use crate::trap::kernel;

/// Enters a guarded region; a DPC is out of APCs' reach anyway.
pub(crate) fn enter(k: &mut Kernel) {
    if let Some(thread) = k.running_thread() {
        *k.ke.guarded_regions.entry(thread).or_insert(0) += 1;
    }
}

/// Leaves a guarded region.
pub(crate) fn leave(k: &mut Kernel, function: &str) {
    let Some(thread) = k.running_thread() else {
        return;
    };
    match k.ke.guarded_regions.get_mut(&thread) {
        Some(1) => {
            k.ke.guarded_regions.remove(&thread);
        }
        Some(depth) => *depth -= 1,
        None => k.broken(
            &rules::lock::GUARDED_REGIONS,
            &[],
            format!("{function}: the thread is in no guarded region"),
        ),
    }
}

/// Whether normal kernel APCs are kept from the caller.
pub(crate) fn apcs_disabled(k: &Kernel) -> bool {
    all_apcs_disabled(k)
        || k.running_thread()
            .is_some_and(|thread| k.threads[&thread].critical_regions > 0)
}

/// Whether all APCs are kept from the caller.
pub(crate) fn all_apcs_disabled(k: &Kernel) -> bool {
    k.irql() >= APC_LEVEL
        || k.running_thread()
            .is_some_and(|thread| k.ke.guarded_regions.contains_key(&thread))
}

/// `KeEnterGuardedRegion`.
pub(crate) fn ke_enter_guarded_region() {
    kernel(enter);
}

/// `KeLeaveGuardedRegion`.
pub(crate) fn ke_leave_guarded_region() {
    kernel(|k| leave(k, "KeLeaveGuardedRegion"));
}

/// `KeAreAllApcsDisabled`.
pub(crate) fn ke_are_all_apcs_disabled() -> u8 {
    kernel(|k| u8::from(all_apcs_disabled(k)))
}
