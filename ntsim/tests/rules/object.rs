// SPDX-License-Identifier: MIT OR Apache-2.0

//! Object references and handles.

use ntsim::Machine;
use ntsim::rules::object;

use crate::Case;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    unsafe extern "C-unwind" {
        pub safe fn KeEnterCriticalRegion();
        pub safe fn KeEnterGuardedRegion();
        pub safe fn KeLeaveCriticalRegion();
        pub safe fn KeLeaveGuardedRegion();
        pub safe fn ZwFlushKey(handle: usize) -> i32;
    }
}
use nt::*;

pub const CASES: &[Case] = &[Case {
    rule: &object::ZW_CALL,
    breaks: |settings| {
        Machine::new(settings).run_thread("driver", || {
            KeEnterGuardedRegion();
            ZwFlushKey(4);
            KeLeaveGuardedRegion();
        })?;
        Ok(())
    },
    comes_close: |settings| {
        Machine::new(settings).run_thread("driver", || {
            KeEnterCriticalRegion();
            ZwFlushKey(4);
            KeLeaveCriticalRegion();
        })?;
        Ok(())
    },
}];
