// SPDX-License-Identifier: MIT OR Apache-2.0

//! IRQL: <https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities>

use crate::bugcheck::BugCheck;
use crate::kernel::{DISPATCH_LEVEL, HIGH_LEVEL, Kernel, PASSIVE_LEVEL};
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
            k.bug_check(BugCheck::verifier(
                0x30,
                [u64::from(old), u64::from(new), 0],
                format!("KeRaiseIrql from {old} to {new}: the new IRQL must not be lower"),
            ));
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
            k.bug_check(BugCheck::verifier(
                0x31,
                [u64::from(old), u64::from(new), 0],
                format!("KeLowerIrql from {old} to {new}: the new IRQL must not be higher"),
            ));
        }
        k.set_irql(new);
    });
}

/// Stops the machine unless the caller is at `PASSIVE_LEVEL`.
pub(crate) fn passive(k: &mut Kernel, function: &str) {
    let irql = k.irql();
    if irql != PASSIVE_LEVEL {
        k.bug_check(BugCheck::verifier(
            0x2_001F,
            [u64::from(irql), 0, 0],
            format!("{function} was called at IRQL {irql}; it needs PASSIVE_LEVEL"),
        ));
    }
}

/// Stops the machine if the caller is above `DISPATCH_LEVEL`.
pub(crate) fn at_most_dispatch(k: &mut Kernel, function: &str) {
    let irql = k.irql();
    if irql > DISPATCH_LEVEL {
        k.bug_check(BugCheck::verifier(
            0x2_0011,
            [u64::from(irql), 0, 0],
            format!("{function} was called at IRQL {irql}; it needs DISPATCH_LEVEL or below"),
        ));
    }
}
