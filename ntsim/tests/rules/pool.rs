// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocating and freeing pool.

use ntsim::machine::Error;
use ntsim::rules::pool;
use ntsim::{Machine, Settings};
use ntsim_sys::ntddk::{ExAllocatePool2, ExFreePoolWithTag, KeLowerIrql, KfRaiseIrql};

use crate::irql::run;
use crate::{Case, without};

#[allow(non_snake_case, reason = "the kernel's names")]
#[allow(clashing_extern_declarations, reason = "memory is bytes here")]
mod nt {
    unsafe extern "C-unwind" {
        pub safe fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u8;
        pub safe fn ExAllocatePoolWithTag(kind: i32, size: usize, tag: u32) -> *mut u8;
        pub safe fn ExFreePoolWithTag(block: *mut u8, tag: u32);
        pub safe fn KeLowerIrql(irql: u8);
        pub safe fn KfRaiseIrql(irql: u8) -> u8;
    }
}

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
    Case {
        rule: &pool::FREE_BAD_ADDRESS,
        breaks: |settings| {
            run(settings, || {
                nt::ExFreePoolWithTag(Box::leak(Box::new(0_u8)), TAG);
            })
        },
        comes_close: |settings| free(settings, 1),
    },
    Case {
        rule: &pool::FREE_PAGED_IRQL,
        breaks: |settings| free_at(settings, PAGED, 2),
        comes_close: |settings| free_at(settings, PAGED, 1),
    },
    Case {
        rule: &pool::FREE_NON_PAGED_IRQL,
        breaks: |settings| free_at(settings, NON_PAGED, 3),
        comes_close: |settings| free_at(settings, NON_PAGED, 2),
    },
    Case {
        rule: &pool::FREE_WRONG_TAG,
        breaks: |settings| free_with_tag(settings, TAG + 1),
        // 0 asks for no comparison.
        comes_close: |settings| free_with_tag(settings, 0),
    },
    Case {
        rule: &pool::TAG_ZERO,
        breaks: |settings| tagged(settings, [0; 4]),
        comes_close: |settings| tagged(settings, *b"A\0\0\0"),
    },
    Case {
        rule: &pool::TAG_BIG,
        breaks: |settings| tagged(settings, *b"BIG "),
        comes_close: |settings| tagged(settings, *b"BIGG"),
    },
    Case {
        rule: &pool::TAG_TEXT,
        breaks: |settings| tagged(settings, *b"-+-+"),
        comes_close: |settings| tagged(settings, *b"-+-9"),
    },
    Case {
        rule: &pool::FREE_INSIDE,
        breaks: |settings| {
            run(settings, || {
                let block = nt::ExAllocatePool2(NON_PAGED, 64, TAG);
                nt::ExFreePoolWithTag(block.wrapping_add(16), TAG);
            })
        },
        comes_close: |settings| free(settings, 1),
    },
    Case {
        rule: &pool::UNDERRUN,
        breaks: |settings| write_and_free(settings, -1),
        comes_close: |settings| write_and_free(settings, 0),
    },
    Case {
        rule: &pool::OVERRUN,
        breaks: |settings| write_and_free(settings, 24),
        comes_close: |settings| write_and_free(settings, 23),
    },
    Case {
        rule: &pool::OVERRUN_TRACKED,
        breaks: |settings| write_and_free(without(settings, &pool::OVERRUN), 24),
        comes_close: |settings| write_and_free(without(settings, &pool::OVERRUN), 23),
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

fn free_at(settings: Settings, flags: u64, irql: u8) -> Result<(), Error> {
    run(settings, move || {
        let block = nt::ExAllocatePool2(flags, 8, TAG);
        let old = nt::KfRaiseIrql(irql);
        nt::ExFreePoolWithTag(block, TAG);
        nt::KeLowerIrql(old);
    })
}

fn free_with_tag(settings: Settings, tag: u32) -> Result<(), Error> {
    run(settings, move || {
        nt::ExFreePoolWithTag(nt::ExAllocatePool2(NON_PAGED, 8, TAG), tag);
    })
}

fn tagged(settings: Settings, tag: [u8; 4]) -> Result<(), Error> {
    run(settings, move || {
        let block = nt::ExAllocatePoolWithTag(0, 8, u32::from_le_bytes(tag));
        nt::ExFreePoolWithTag(block, u32::from_le_bytes(tag));
    })
}

/// Writes a byte at an offset from the start of a block of 24, and frees it.
fn write_and_free(settings: Settings, offset: isize) -> Result<(), Error> {
    run(settings, move || {
        let block = nt::ExAllocatePool2(NON_PAGED, 24, TAG);
        // SAFETY: it is in the page that the block is in, which is ours to damage.
        unsafe { block.wrapping_offset(offset).write(0) };
        nt::ExFreePoolWithTag(block, TAG);
    })
}
