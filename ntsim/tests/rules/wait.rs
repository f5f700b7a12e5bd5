// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events, waits and threads.

use std::ffi::c_void;

use ntsim::machine::Error;
use ntsim::rules::wait;
use ntsim::{MILLISECOND, Settings};

use crate::irql::{at, dpc, room, run};
use crate::threads::{delay, join, start};
use crate::{Case, without};

#[allow(non_snake_case, reason = "the kernel's names")]
#[allow(
    clashing_extern_declarations,
    reason = "every object is a pointer to some words here"
)]
mod nt {
    unsafe extern "C-unwind" {
        pub safe fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u64;
        pub safe fn ExFreePool(block: *mut u64);
        pub safe fn ExQueueWorkItem(item: *mut u64, queue: i32);
        pub safe fn KeInitializeEvent(event: *mut u64, kind: i32, state: u8);
        pub safe fn KeInitializeSemaphore(semaphore: *mut u64, count: i32, limit: i32);
        pub safe fn KeLowerIrql(irql: u8);
        pub safe fn KeReleaseSemaphore(
            semaphore: *mut u64,
            increment: i32,
            count: i32,
            wait: u8,
        ) -> i32;
        pub safe fn KeSetEvent(event: *mut u64, increment: i32, wait: u8) -> i32;
        pub safe fn KeStallExecutionProcessor(microseconds: u32);
        pub safe fn KeWaitForMultipleObjects(
            count: u32,
            objects: *const *mut u64,
            kind: i32,
            reason: i32,
            mode: i8,
            alertable: u8,
            timeout: *const i64,
            blocks: *mut u8,
        ) -> i32;
        pub safe fn KeWaitForSingleObject(
            object: *mut u64,
            reason: i32,
            mode: i8,
            alertable: u8,
            timeout: *const i64,
        ) -> i32;
        pub safe fn KfRaiseIrql(irql: u8) -> u8;
        pub safe fn PsTerminateSystemThread(status: i32) -> i32;
    }
}
#[allow(clippy::wildcard_imports, reason = "the functions that are called")]
use nt::*;

const APC: u8 = 1;
const DISPATCH: u8 = 2;
const TAG: u32 = u32::from_le_bytes(*b"tseT");
const NON_PAGED: u64 = 0x40;
const PAGED: u64 = 0x100;
const FOR_EVER: *const i64 = std::ptr::null();

/// An event, set or not.
fn event(state: u8) -> *mut u64 {
    let event = room();
    KeInitializeEvent(event, 0, state);
    event
}

/// A wait at `irql` for what has happened already.
fn wait_at(settings: Settings, irql: u8, timeout: Option<i64>) -> Result<(), Error> {
    run(settings, move || {
        let event = event(1);
        let old = KfRaiseIrql(irql);
        let timeout = timeout.as_ref().map_or(FOR_EVER, std::ptr::from_ref);
        KeWaitForSingleObject(event, 0, 0, 0, timeout);
        KeLowerIrql(old);
    })
}

/// A wait for an event on the stack.
fn wait_on_stack(settings: Settings, mode: i8) -> Result<(), Error> {
    run(settings, move || {
        let mut event = [0_u64; 3];
        let event = event.as_mut_ptr();
        KeInitializeEvent(event, 0, 1);
        KeWaitForSingleObject(event, 0, mode, 0, FOR_EVER);
    })
}

fn wait_for_many(settings: Settings, count: usize, blocks: usize) -> Result<(), Error> {
    run(settings, move || {
        let objects: Vec<_> = (0..count).map(|_| event(1)).collect();
        let blocks: *mut u8 = match blocks {
            0 => std::ptr::null_mut(),
            blocks => vec![0_u8; blocks * 48].leak().as_mut_ptr(),
        };
        let count = u32::try_from(count).unwrap();
        KeWaitForMultipleObjects(count, objects.as_ptr(), 0, 0, 0, 0, FOR_EVER, blocks);
    })
}

extern "C-unwind" fn waits_in_dpc() {
    KeWaitForSingleObject(event(0), 0, 0, 0, FOR_EVER);
}

extern "C-unwind" fn looks_in_dpc() {
    KeWaitForSingleObject(event(0), 0, 0, 0, &0);
    KeWaitForSingleObject(event(1), 0, 0, 0, &0);
}

extern "C-unwind" fn stalls_20_s() {
    KeStallExecutionProcessor(20_000_000);
}

extern "C-unwind" fn stalls_21_s() {
    stalls_20_s();
    KeStallExecutionProcessor(1_000_000);
}

/// A thread waits for an event in pool; then `then` has the event.
fn waited_for(settings: Settings, then: fn(*mut u64)) -> Result<(), Error> {
    run(settings, move || {
        let event = ExAllocatePool2(NON_PAGED, 24, TAG);
        KeInitializeEvent(event, 0, 0);
        let thread = start(move || {
            KeWaitForSingleObject(event, 0, 0, 0, FOR_EVER);
        });
        delay(MILLISECOND);
        then(event);
        let woken = KeSetEvent(event, 0, 0);
        assert_eq!(woken, 0);
        join(thread);
        ExFreePool(event);
    })
}

/// An event in pool of this kind.
fn event_in(settings: Settings, flags: u64) -> Result<(), Error> {
    run(settings, move || {
        let event = ExAllocatePool2(flags, 24, TAG);
        KeInitializeEvent(event, 0, 0);
        ExFreePool(event);
    })
}

fn release_semaphore(settings: Settings, by: i32) -> Result<(), Error> {
    run(settings, move || {
        let semaphore = room();
        KeInitializeSemaphore(semaphore, 1, 2);
        KeReleaseSemaphore(semaphore, 0, by, 0);
    })
}

extern "C-unwind" fn terminates(_: *mut c_void) {
    PsTerminateSystemThread(0);
}

extern "C-unwind" fn returns(_: *mut c_void) {}

/// A work item with this routine.
fn work_item(settings: Settings, routine: extern "C-unwind" fn(*mut c_void)) -> Result<(), Error> {
    run(settings, move || {
        let item = room();
        // SAFETY: `ExInitializeWorkItem` is inline: the third word is the routine.
        let place = unsafe { item.add(2) };
        // SAFETY: as above.
        unsafe { place.write(routine as *const () as u64) };
        ExQueueWorkItem(item, 1);
        delay(MILLISECOND);
    })
}

/// Is at `DISPATCH_LEVEL` for so many times 20 s.
fn stall(settings: Settings, times: u32) -> Result<(), Error> {
    at(settings, DISPATCH, move || {
        for _ in 0..times {
            stalls_20_s();
        }
    })
}

pub const CASES: &[Case] = &[
    crate::irql::SET_EVENT,
    Case {
        rule: &wait::ABOVE_DISPATCH,
        breaks: |settings| wait_at(settings, DISPATCH + 1, Some(0)),
        comes_close: |settings| wait_at(settings, DISPATCH, Some(0)),
    },
    Case {
        rule: &wait::AT_DISPATCH_FOR_EVER,
        breaks: |settings| wait_at(settings, DISPATCH, None),
        comes_close: |settings| wait_at(settings, APC, None),
    },
    Case {
        rule: &wait::AT_DISPATCH,
        breaks: |settings| wait_at(settings, DISPATCH, Some(-1)),
        comes_close: |settings| wait_at(settings, APC, Some(-1)),
    },
    Case {
        rule: &wait::USER_MODE_ON_STACK,
        breaks: |settings| wait_on_stack(settings, 1),
        comes_close: |settings| wait_on_stack(settings, 0),
    },
    Case {
        rule: &wait::TOO_MANY_OBJECTS,
        breaks: |settings| wait_for_many(settings, 65, 65),
        comes_close: |settings| wait_for_many(settings, 64, 64),
    },
    Case {
        rule: &wait::NO_WAIT_BLOCKS,
        breaks: |settings| wait_for_many(settings, 4, 0),
        comes_close: |settings| wait_for_many(settings, 3, 0),
    },
    Case {
        rule: &wait::SWITCH_FROM_DPC,
        breaks: |settings| dpc(without(settings, &wait::AT_DISPATCH_FOR_EVER), waits_in_dpc),
        comes_close: |settings| dpc(settings, looks_in_dpc),
    },
    Case {
        rule: &wait::NOT_INITIALIZED,
        breaks: |settings| {
            run(settings, || {
                KeSetEvent(room(), 0, 0);
            })
        },
        comes_close: |settings| {
            run(settings, || {
                KeSetEvent(event(0), 0, 0);
            })
        },
    },
    Case {
        rule: &wait::WRONG_KIND,
        breaks: |settings| {
            run(settings, || {
                let semaphore = room();
                KeInitializeSemaphore(semaphore, 0, 1);
                KeSetEvent(semaphore, 0, 0);
            })
        },
        comes_close: |settings| release_semaphore(settings, 1),
    },
    Case {
        rule: &wait::PAGEABLE,
        breaks: |settings| event_in(settings, PAGED),
        comes_close: |settings| event_in(settings, NON_PAGED),
    },
    Case {
        rule: &wait::FREED,
        breaks: |settings| {
            waited_for(settings, |event| {
                ExFreePool(event);
                // Without the rule, its waiter waits for ever.
                PsTerminateSystemThread(0);
            })
        },
        comes_close: |settings| waited_for(settings, |_| ()),
    },
    Case {
        rule: &wait::INITIALIZED_AGAIN,
        breaks: |settings| waited_for(settings, |event| KeInitializeEvent(event, 0, 0)),
        comes_close: |settings| waited_for(settings, |_| ()),
    },
    Case {
        rule: &wait::SEMAPHORE_LIMIT,
        breaks: |settings| release_semaphore(settings, 2),
        comes_close: |settings| release_semaphore(settings, 1),
    },
    Case {
        rule: &wait::TERMINATED_WORKER,
        breaks: |settings| work_item(settings, terminates),
        comes_close: |settings| work_item(settings, returns),
    },
    Case {
        rule: &wait::DPC_TIME,
        breaks: |settings| dpc(settings, stalls_21_s),
        comes_close: |settings| dpc(settings, stalls_20_s),
    },
    Case {
        rule: &wait::DISPATCH_TIME,
        breaks: |settings| stall(settings, 7),
        comes_close: |settings| stall(settings, 6),
    },
];

/// The other way for memory to go: the stack of a thread.
pub fn an_event_on_the_stack_of_a_thread_that_ended_is_gone() {
    let ended = run(Settings::default(), || {
        let (place, found) = (room() as usize, room());
        let thread = start(move || {
            let mut event = [0_u64; 3];
            KeInitializeEvent(event.as_mut_ptr(), 0, 0);
            // SAFETY: the memory is ours, and nobody else writes to it.
            unsafe { (place as *mut u64).write(event.as_mut_ptr() as u64) };
        });
        join(thread);
        // SAFETY: as above.
        let word = unsafe { (place as *mut u64).read() };
        // SAFETY: as above.
        unsafe { found.write(word) };
        // SAFETY: as above.
        let event = unsafe { found.read() };
        KeSetEvent(event as *mut u64, 0, 0);
    });
    let Err(Error::Stop(stop)) = ended else {
        panic!("nothing was noticed")
    };
    assert_eq!(stop.rule, Some(wait::NOT_INITIALIZED.name), "{stop}");
}
