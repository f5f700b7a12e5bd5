// SPDX-License-Identifier: MIT OR Apache-2.0

//! Work items, called as a linked-in driver calls them.

#[path = "nt/threads.rs"]
mod threads;

use std::cell::RefCell;

use ntsim::MILLISECOND;
use threads::*;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    /// `WORK_QUEUE_ITEM`.
    #[repr(C)]
    pub struct Item {
        pub list: [usize; 2],
        pub routine: usize,
        pub parameter: usize,
    }

    unsafe extern "C-unwind" {
        pub safe fn ExQueueWorkItem(item: *mut Item, queue: i32);
        pub safe fn IoAllocateWorkItem(object: usize) -> *mut u8;
        pub safe fn IoFreeWorkItem(item: *mut u8);
        pub safe fn IoSizeofWorkItem() -> u32;
        pub safe fn IoInitializeWorkItem(object: usize, item: *mut u8);
        pub safe fn IoUninitializeWorkItem(item: *mut u8);
        pub safe fn IoQueueWorkItem(item: *mut u8, routine: usize, queue: i32, context: usize);
        pub safe fn IoQueueWorkItemEx(item: *mut u8, routine: usize, queue: i32, context: usize);
        pub safe fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u8;
        pub safe fn ExFreePoolWithTag(block: *mut u8, tag: u32);
    }
}
use nt::*;

const DELAYED: i32 = 1;
const DEVICE: usize = 0xFFFF_E000_1234_5678;
const TAG: u32 = u32::from_le_bytes(*b"Test");

thread_local! {
    static SEEN: RefCell<Vec<(u8, usize, usize)>> = const { RefCell::new(Vec::new()) };
}

fn seen() -> Vec<(u8, usize, usize)> {
    SEEN.with(RefCell::take)
}

fn note(a: usize, b: usize) {
    let irql = KeGetCurrentIrql();
    SEEN.with_borrow_mut(|seen| seen.push((irql, a, b)));
}

extern "C-unwind" fn note_one(parameter: usize) {
    note(parameter, 0);
}

extern "C-unwind" fn note_two(object: usize, context: usize) {
    note(object, context);
}

extern "C-unwind" fn free_itself(object: usize, context: usize, item: *mut u8) {
    note(object, context);
    IoFreeWorkItem(item);
}

extern "C-unwind" fn stay_raised(_: usize) {
    KfRaiseIrql(2);
}

extern "C-unwind" fn queue_again(item: *mut Item) {
    let first = SEEN.with_borrow(Vec::is_empty);
    note(item as usize, 0);
    if first {
        ExQueueWorkItem(item, DELAYED);
    }
}

fn item(routine: usize, parameter: usize) -> *mut Item {
    leaked(Item {
        list: [0; 2],
        routine,
        parameter,
    })
}

fn address(routine: *const ()) -> usize {
    routine as usize
}

#[test]
fn a_queued_item_runs_once_at_passive_level() {
    ntsim::run(|| {
        let item = item(address(note_one as *const ()), 7);
        let old = KfRaiseIrql(2);
        ExQueueWorkItem(item, DELAYED);
        KeLowerIrql(old);
        delay(MILLISECOND);
        assert_eq!(seen(), [(0, 7, 0)]);
        ExQueueWorkItem(item, DELAYED);
        delay(MILLISECOND);
        assert_eq!(seen(), [(0, 7, 0)]);
    });
}

#[test]
fn a_routine_may_queue_its_item_again() {
    every_schedule(|| {
        let item = item(address(queue_again as *const ()), 0);
        // SAFETY: just allocated.
        unsafe { (*item).parameter = item as usize };
        ExQueueWorkItem(item, DELAYED);
        delay(MILLISECOND);
        assert_eq!(seen().len(), 2);
    });
}

#[test]
fn io_work_items_hand_over_the_device_and_may_free_themselves() {
    every_schedule(|| {
        let item = IoAllocateWorkItem(DEVICE);
        IoQueueWorkItem(item, address(note_two as *const ()), DELAYED, 5);
        delay(MILLISECOND);
        IoQueueWorkItemEx(item, address(free_itself as *const ()), DELAYED, 6);
        delay(MILLISECOND);
        assert_eq!(seen(), [(0, DEVICE, 5), (0, DEVICE, 6)]);
    });
}

#[test]
fn an_io_work_item_can_live_in_the_drivers_own_memory() {
    ntsim::run(|| {
        let item = ExAllocatePool2(0x40, IoSizeofWorkItem() as usize, TAG);
        IoInitializeWorkItem(DEVICE, item);
        IoQueueWorkItem(item, address(note_two as *const ()), DELAYED, 5);
        delay(MILLISECOND);
        assert_eq!(seen(), [(0, DEVICE, 5)]);
        IoUninitializeWorkItem(item);
        ExFreePoolWithTag(item, TAG);
    });
}

#[test]
fn queueing_a_queued_item_is_a_bug_check() {
    expect_bug_check(
        &stop(|| {
            let item = item(address(note_one as *const ()), 0);
            // No worker thread runs while this processor is the only one held.
            for _ in 0..50 {
                ExQueueWorkItem(item, DELAYED);
            }
        }),
        0xE4,
        1,
    );
    expect_bug_check(
        &stop(|| {
            let item = IoAllocateWorkItem(DEVICE);
            for _ in 0..50 {
                IoQueueWorkItem(item, address(note_two as *const ()), DELAYED, 0);
            }
        }),
        0xE4,
        1,
    );
}

#[test]
fn freeing_a_queued_item_is_a_bug_check() {
    // Whether a worker has taken the item out already is the schedule's choice.
    let found = (0..20).any(|seed| {
        let result = ntsim::Machine::with_seed(seed).run_thread("main", || {
            let item = IoAllocateWorkItem(DEVICE);
            IoQueueWorkItem(item, address(note_two as *const ()), DELAYED, 0);
            IoFreeWorkItem(item);
            delay(MILLISECOND);
        });
        result.is_err_and(|stop| {
            expect_bug_check(&stop, 0xE4, 2);
            true
        })
    });
    assert!(found, "no schedule freed the item before it ran");
    let found = (0..20).any(|seed| {
        let result = ntsim::Machine::with_seed(seed).run_thread("main", || {
            let block = ExAllocatePool2(0x40, 64, TAG);
            #[expect(clippy::cast_ptr_alignment, reason = "pool is aligned to 16 bytes")]
            let item = block.cast::<Item>();
            // SAFETY: the block is as large as two items.
            unsafe { (*item).routine = address(note_one as *const ()) };
            ExQueueWorkItem(item, DELAYED);
            ExFreePoolWithTag(block, TAG);
            delay(MILLISECOND);
        });
        result.is_err_and(|stop| stop.bug_check_code() == Some(0xE4))
    });
    assert!(found, "no schedule freed the block before the item ran");
}

#[test]
fn a_routine_that_returns_at_another_irql_is_a_bug_check() {
    let routine = address(stay_raised as *const ());
    let stop = stop(move || {
        ExQueueWorkItem(item(routine, 0), DELAYED);
        delay(MILLISECOND);
    });
    expect_bug_check(&stop, 0xE1, routine as u64);
}

#[test]
fn bad_arguments_are_bug_checks() {
    expect_bug_check(
        &stop(|| ExQueueWorkItem(item(address(note_one as *const ()), 0), 9)),
        0xE4,
        6,
    );
    expect_bug_check(&stop(|| ExQueueWorkItem(item(0, 0), DELAYED)), 0xE4, 7);
    expect_bug_check(
        &stop(|| {
            IoAllocateWorkItem(0);
        }),
        0xE4,
        3,
    );
    let stop = stop(|| {
        IoQueueWorkItem(
            Object::boxed().cast(),
            address(note_two as *const ()),
            DELAYED,
            0,
        );
    });
    assert_eq!(stop.rule, Some("WorkItemUninitialized"), "{stop}");
}
