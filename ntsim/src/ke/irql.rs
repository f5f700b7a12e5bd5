// SPDX-License-Identifier: MIT OR Apache-2.0

//! IRQL: <https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities>
//!
//! Where each function of the kernel may be called: [`crate::rules::irql`].

use crate::kernel::{DISPATCH_LEVEL, HIGH_LEVEL, Kernel, PASSIVE_LEVEL};
use crate::rules;
use crate::trap::kernel;

/// `KeGetCurrentIrql`.
pub(crate) fn ke_get_current_irql() -> u8 {
    kernel(|k| k.irql())
}

/// `KfRaiseIrql`. Returns the previous IRQL.
pub(crate) fn kf_raise_irql(new: u8) -> u8 {
    kernel(|k| {
        let old = k.irql();
        if new < old || new > HIGH_LEVEL {
            k.broken(
                &rules::irql::RAISE,
                &[u64::from(old), u64::from(new), 0],
                format!("KeRaiseIrql from {old} to {new}: the new IRQL must be neither lower nor above {HIGH_LEVEL}"),
            );
        }
        k.set_irql(new);
        old
    })
}

/// `KeRaiseIrqlToDpcLevel`. Returns the previous IRQL.
pub(crate) fn ke_raise_irql_to_dpc_level() -> u8 {
    kf_raise_irql(DISPATCH_LEVEL)
}

/// `KeLowerIrql`.
pub(crate) fn ke_lower_irql(new: u8) {
    kernel(|k| {
        let old = k.irql();
        if new > old {
            k.broken(
                &rules::irql::LOWER,
                &[u64::from(old), u64::from(new), 0],
                format!("KeLowerIrql from {old} to {new}: the new IRQL must not be higher"),
            );
        }
        if new < DISPATCH_LEVEL && k.running_thread().is_none() {
            k.broken(
                &rules::irql::LOWER,
                &[u64::from(old), u64::from(new), 1],
                format!("KeLowerIrql from {old} to {new}: a DPC must stay at DISPATCH_LEVEL"),
            );
        }
        k.set_irql(new);
    });
}

/// `who` was called at IRQL `before` and returned at `after`.
pub(crate) fn unexpected(k: &mut Kernel, before: u8, after: u8, who: &str) {
    k.broken(
        &rules::irql::UNEXPECTED_VALUE,
        &[u64::from(after) << 16 | u64::from(before) << 8, 0, 0, 0],
        format!("{who} returned at IRQL {after} instead of {before}"),
    );
}

/// Holds a caller of the framework to `PASSIVE_LEVEL`.
pub(crate) fn passive(k: &mut Kernel, function: &str) {
    at_most(k, PASSIVE_LEVEL, "PASSIVE_LEVEL", function);
}

/// Holds a caller of the framework to `DISPATCH_LEVEL` or below.
pub(crate) fn at_most_dispatch(k: &mut Kernel, function: &str) {
    at_most(k, DISPATCH_LEVEL, "DISPATCH_LEVEL or below", function);
}

fn at_most(k: &mut Kernel, limit: u8, needs: &str, function: &str) {
    let irql = k.irql();
    if irql > limit {
        // The framework's verifier breaks into the debugger, which is not there.
        k.broken(
            &rules::irql::KMDF,
            &[k.caller(), 0, 0],
            format!("{function} was called at IRQL {irql}; it needs {needs}"),
        );
    }
}
