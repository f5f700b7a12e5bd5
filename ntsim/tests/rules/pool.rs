// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocating and freeing pool.

use ntsim::machine::Error;
use ntsim::rules::pool;
use ntsim::{Machine, Settings};
use ntsim_sys::ntddk::{ExAllocatePool2, ExFreePoolWithTag, KeLowerIrql, KfRaiseIrql};

use crate::Case;

const TAG: u32 = u32::from_le_bytes(*b"tseT");
const NON_PAGED: u64 = 0x40;
const PAGED: u64 = 0x100;

pub const CASES: &[Case] = &[
    Case {
        rule: &pool::ZERO_BYTES,
        breaks: |settings| allocate(settings, 0, NON_PAGED, 0),
        comes_close: |settings| allocate(settings, 0, NON_PAGED, 1),
    },
    Case {
        rule: &pool::ALLOCATE_PAGED_IRQL,
        breaks: |settings| allocate(settings, 2, PAGED, 8),
        comes_close: |settings| allocate(settings, 1, PAGED, 8),
    },
    Case {
        rule: &pool::ALLOCATE_NON_PAGED_IRQL,
        breaks: |settings| allocate(settings, 3, NON_PAGED, 8),
        comes_close: |settings| allocate(settings, 2, NON_PAGED, 8),
    },
    Case {
        rule: &pool::DOUBLE_FREE,
        breaks: |settings| free(settings, 2),
        comes_close: |settings| free(settings, 1),
    },
    Case {
        rule: &pool::FREE_NULL,
        breaks: |settings| {
            Machine::new(settings).run_thread("driver", || {
                // SAFETY: the machine checks it.
                unsafe { ExFreePoolWithTag(std::ptr::null_mut(), TAG) };
            })?;
            Ok(())
        },
        comes_close: |settings| free(settings, 1),
    },
];

/// Allocates at `irql`, and frees at `PASSIVE_LEVEL`.
fn allocate(settings: Settings, irql: u8, flags: u64, size: usize) -> Result<(), Error> {
    Machine::new(settings).run_thread("driver", move || {
        // SAFETY: the machine checks it.
        let old = unsafe { KfRaiseIrql(irql) };
        // SAFETY: as above.
        let block = unsafe { ExAllocatePool2(flags, size as u64, TAG) };
        // SAFETY: as above.
        unsafe { KeLowerIrql(old) };
        if !block.is_null() {
            // SAFETY: as above.
            unsafe { ExFreePoolWithTag(block, TAG) };
        }
    })?;
    Ok(())
}

fn free(settings: Settings, times: u32) -> Result<(), Error> {
    Machine::new(settings).run_thread("driver", move || {
        // SAFETY: the machine checks it.
        let block = unsafe { ExAllocatePool2(NON_PAGED, 8, TAG) };
        for _ in 0..times {
            // SAFETY: as above.
            unsafe { ExFreePoolWithTag(block, TAG) };
        }
    })?;
    Ok(())
}
