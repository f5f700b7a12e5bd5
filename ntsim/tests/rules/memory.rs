// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that the driver touches, its stack, and other exceptions of the processor.

#![allow(
    clippy::wildcard_imports,
    clippy::cast_ptr_alignment,
    clashing_extern_declarations,
    reason = "the kernel's functions and objects, as a driver in C has them; pool is aligned to 16 bytes"
)]

use std::arch::asm;
use std::hint::black_box;

use ntsim::machine::Error;
use ntsim::rules::memory;
use ntsim::{MILLISECOND, Settings};

use crate::Case;
use crate::locks::*;

unsafe extern "C-unwind" {
    safe fn KeSetEvent(event: *mut Object, increment: i32, wait: u8) -> i32;
    safe fn ExInterlockedRemoveHeadList(head: *mut [usize; 2], lock: *mut usize)
    -> *mut [usize; 2];
}

pub const CASES: &[Case] = &[
    Case {
        rule: &memory::PAGED_IRQL,
        breaks: |settings| write_paged_at(settings, 2),
        comes_close: |settings| write_paged_at(settings, 1),
    },
    Case {
        rule: &memory::IRQL,
        breaks: |settings| write_at(settings, 2, std::ptr::null_mut),
        comes_close: |settings| write_at(settings, 2, || pool(16)),
    },
    Case {
        rule: &memory::KERNEL_IRQL,
        breaks: |settings| set_event_at_dispatch(settings, std::ptr::dangling_mut),
        comes_close: |settings| set_event_at_dispatch(settings, event),
    },
    Case {
        rule: &memory::FREED,
        breaks: |settings| {
            play(settings, || {
                let block = pool(16);
                ExFreePool(block);
                read(block);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let block = pool(16);
                read(block);
                ExFreePool(block);
            })
        },
    },
    Case {
        rule: &memory::BEYOND_BLOCK,
        breaks: |settings| play(settings, || write(pool(32).wrapping_add(32))),
        comes_close: |settings| play(settings, || write(pool(32).wrapping_add(31))),
    },
    Case {
        rule: &memory::SYSTEM,
        breaks: |settings| play(settings, || read(0xFFFF_F800_0000_0000_usize as *const u8)),
        comes_close: |settings| play(settings, || read(&raw const CONSTANT)),
    },
    Case {
        rule: &memory::WRITE_READ_ONLY,
        breaks: |settings| play(settings, || write((&raw const CONSTANT).cast_mut())),
        comes_close: |settings| play(settings, || read(&raw const CONSTANT)),
    },
    Case {
        rule: &memory::EXECUTE_DATA,
        breaks: |settings| play(settings, || call(pool(16) as usize)),
        comes_close: |settings| play(settings, || call(code as *const () as usize)),
    },
    Case {
        rule: &memory::ACCESS_VIOLATION,
        breaks: |settings| write_at(settings, 0, std::ptr::null_mut),
        comes_close: |settings| write_at(settings, 0, || pool(16)),
    },
    Case {
        rule: &memory::DIVIDE,
        breaks: |settings| play(settings, || divide(0)),
        comes_close: |settings| play(settings, || divide(1)),
    },
    Case {
        rule: &memory::PRIVILEGED_INSTRUCTION,
        // SAFETY: not sound, which is the point: the simulator must catch it. So below.
        breaks: |settings| play(settings, || unsafe { asm!("cli") }),
        comes_close: nothing,
    },
    Case {
        rule: &memory::ILLEGAL_INSTRUCTION,
        // SAFETY: as above.
        breaks: |settings| play(settings, || unsafe { asm!("ud2") }),
        comes_close: nothing,
    },
    Case {
        rule: &memory::BREAKPOINT,
        // SAFETY: as above.
        breaks: |settings| play(settings, || unsafe { asm!("int3") }),
        comes_close: nothing,
    },
    Case {
        rule: &memory::ASSERTION,
        // SAFETY: as above.
        breaks: |settings| play(settings, || unsafe { asm!("int 0x2c") }),
        comes_close: nothing,
    },
    Case {
        rule: &memory::EXCEPTION_IN_DPC,
        breaks: |settings| run_dpc(settings, divides_by_zero),
        comes_close: |settings| run_dpc(settings, divides_by_one),
    },
    Case {
        rule: &memory::STACK_OVERFLOW,
        breaks: |settings| recurse(settings, u64::MAX),
        comes_close: |settings| recurse(settings, 100),
    },
    Case {
        rule: &memory::STACK_COOKIE,
        breaks: |settings| play(settings, || fast_fail(2)),
        comes_close: nothing,
    },
    Case {
        rule: &memory::LIST_ENTRY,
        breaks: |settings| remove_head(settings, true),
        comes_close: |settings| remove_head(settings, false),
    },
    Case {
        rule: &memory::FAST_FAIL,
        breaks: |settings| play(settings, || fast_fail(7)),
        comes_close: nothing,
    },
    Case {
        rule: &memory::STACK_USE,
        breaks: |settings| recurse(quarter_of_the_stack(settings), 120),
        comes_close: |settings| recurse(quarter_of_the_stack(settings), 30),
    },
];

static CONSTANT: u8 = 7;

fn nothing(settings: Settings) -> Result<(), Error> {
    // The instruction is there, and is not reached.
    play(settings, || {
        if black_box(false) {
            fast_fail(2);
        }
    })
}

fn read(from: *const u8) {
    // SAFETY: not sound, which is the point: the simulator must catch it.
    black_box(unsafe { from.read_volatile() });
}

fn write(to: *mut u8) {
    // SAFETY: as above.
    unsafe { to.write_volatile(1) };
}

fn write_at(settings: Settings, irql: u8, to: fn() -> *mut u8) -> Result<(), Error> {
    play(settings, move || {
        let to = to();
        let old = KfRaiseIrql(irql);
        write(to);
        KeLowerIrql(old);
    })
}

fn write_paged_at(settings: Settings, irql: u8) -> Result<(), Error> {
    write_at(settings, irql, || {
        // POOL_FLAG_PAGED
        ExAllocatePool2(0x100, 16, u32::from_le_bytes(*b"tseT"))
    })
}

fn event() -> *mut Object {
    let event = Object::boxed();
    KeInitializeEvent(event.cast(), 0, 0);
    event
}

fn set_event_at_dispatch(settings: Settings, event: fn() -> *mut Object) -> Result<(), Error> {
    play(settings, move || {
        let event = event();
        let old = KfRaiseIrql(2);
        KeSetEvent(event, 0, 0);
        KeLowerIrql(old);
    })
}

extern "C-unwind" fn code() {}

fn call(address: usize) {
    // SAFETY: not sound for what is no code, which is the point.
    let code = unsafe { std::mem::transmute::<usize, extern "C-unwind" fn()>(address) };
    code();
}

fn divide(by: u32) {
    // SAFETY: the registers are named; by 0 it faults, which is the point.
    unsafe {
        asm!("div {by:e}", by = in(reg) by, inout("eax") 7_u32 => _, inout("edx") 0_u32 => _);
    };
}

fn fast_fail(code: u64) {
    // SAFETY: it does not return, which is the point.
    unsafe { asm!("int 0x29", in("rcx") code) };
}

extern "C-unwind" fn divides_by_zero(_: *mut Object, _: usize, _: usize, _: usize) {
    divide(0);
}

extern "C-unwind" fn divides_by_one(_: *mut Object, _: usize, _: usize, _: usize) {
    divide(1);
}

fn run_dpc(
    settings: Settings,
    routine: extern "C-unwind" fn(*mut Object, usize, usize, usize),
) -> Result<(), Error> {
    play(settings, move || {
        let dpc = Object::boxed();
        KeInitializeDpc(dpc, routine as *const () as usize, 0);
        KeInsertQueueDpc(dpc, 0, 0);
        delay(MILLISECOND);
    })
}

/// A kilobyte of stack for each of `depth` calls; the stack has 256.
fn recurse(settings: Settings, depth: u64) -> Result<(), Error> {
    fn deeper(depth: u64) -> u64 {
        let buffer = black_box([depth; 96]);
        if depth == 0 {
            0
        } else {
            deeper(depth - 1) + buffer[0]
        }
    }
    play(settings, move || ignore(black_box(deeper(depth))))
}

fn quarter_of_the_stack(settings: Settings) -> Settings {
    Settings {
        stack_limit: Some(25),
        ..settings
    }
}

fn remove_head(settings: Settings, corrupt: bool) -> Result<(), Error> {
    play(settings, move || {
        let (head, entry) = (leaked([0_usize; 2]), leaked([0_usize; 2]));
        // SAFETY: both are leaked and nobody else's.
        unsafe { *head = [entry as usize; 2] };
        // SAFETY: as above.
        unsafe { *entry = [head as usize, if corrupt { entry } else { head } as usize] };
        ExInterlockedRemoveHeadList(head, spin_lock());
    })
}
