// SPDX-License-Identifier: MIT OR Apache-2.0

//! Run-down protection: an object that is not given up while somebody uses it.
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/run-down-protection>
//!
//! ```text
//!            acquire / release         wait (returns when the count is 0)
//!   Open(n) ◄────────────────►    ──────────────────► Run down: acquire fails
//!      ▲                                                    │
//!      └──────────────────── re-initialise ◄────────────────┘
//! ```
//!
//! The state is in the driver's `EX_RUNDOWN_REF`: twice the count, plus one
//! when run-down has begun.

use crate::access::{peek, poke};
use crate::ke::sleep;
use crate::kernel::Kernel;
use crate::rules;
use crate::trap::kernel;

const RUN_DOWN: usize = 1;
const ONE: usize = 2;

/// `ExInitializeRundownProtection`.
pub(crate) fn ex_initialize_rundown_protection(reference: *mut usize) {
    poke(reference, 0);
    kernel(|k| k.name(reference as usize, "rundown"));
}

/// `ExReInitializeRundownProtection`: only after a wait has run it down.
pub(crate) fn ex_re_initialize_rundown_protection(reference: *mut usize) {
    let state = peek(reference);
    if state != RUN_DOWN {
        kernel(|k| {
            misused(
                k,
                reference,
                state,
                "ExReInitializeRundownProtection: run-down has not ended",
            );
        });
    }
    poke(reference, 0);
}

fn misused(k: &mut Kernel, reference: *mut usize, state: usize, what: &str) {
    let name = k
        .name_of(reference as usize)
        .unwrap_or("a run-down reference")
        .to_owned();
    k.fatal(
        &rules::lock::RUNDOWN_MISUSED,
        &[],
        format!("{what} ({name}: {} uses)", state / ONE),
    );
}

/// `ExAcquireRundownProtection`.
pub(crate) fn ex_acquire_rundown_protection(reference: *mut usize) -> u8 {
    acquire(reference, 1)
}

/// `ExAcquireRundownProtectionEx`.
pub(crate) fn ex_acquire_rundown_protection_ex(reference: *mut usize, count: u32) -> u8 {
    acquire(reference, count)
}

fn acquire(reference: *mut usize, count: u32) -> u8 {
    let state = peek(reference);
    if state & RUN_DOWN != 0 {
        return 0;
    }
    poke(reference, state + ONE * count as usize);
    1
}

/// `ExReleaseRundownProtection`.
pub(crate) fn ex_release_rundown_protection(reference: *mut usize) {
    release(reference, 1, "ExReleaseRundownProtection");
}

/// `ExReleaseRundownProtectionEx`.
pub(crate) fn ex_release_rundown_protection_ex(reference: *mut usize, count: u32) {
    release(reference, count, "ExReleaseRundownProtectionEx");
}

fn release(reference: *mut usize, count: u32, function: &str) {
    let state = peek(reference);
    let Some(left) = state.checked_sub(ONE * count as usize) else {
        kernel(|k| {
            misused(
                k,
                reference,
                state,
                &format!("{function}: released more often than acquired"),
            );
        });
        return;
    };
    poke(reference, left);
    if left == RUN_DOWN {
        kernel(|k| sleep::wake(k, reference as usize));
    }
}

/// `ExWaitForRundownProtectionRelease`: no protection is given from now on;
/// returns when all that was given is back.
pub(crate) fn ex_wait_for_rundown_protection_release(reference: *mut usize) {
    poke(reference, peek(reference) | RUN_DOWN);
    while peek(reference) != RUN_DOWN {
        sleep::sleep(reference as usize);
    }
}

/// `ExRundownCompleted`: says that run-down is over, after a wait.
pub(crate) fn ex_rundown_completed(reference: *mut usize) {
    let state = peek(reference);
    if state & !RUN_DOWN != 0 {
        kernel(|k| {
            misused(
                k,
                reference,
                state,
                "ExRundownCompleted: the object is still in use",
            );
        });
    }
    poke(reference, RUN_DOWN);
}
