// SPDX-License-Identifier: MIT OR Apache-2.0

//! Executive work items: <https://learn.microsoft.com/windows-hardware/drivers/kernel/system-worker-threads>
//!
//! An item is in the queue from `ExQueueWorkItem` until a worker thread takes
//! it out, which is before its routine is called: the routine may queue the
//! item again or free it.

use std::collections::BTreeMap;

use crate::abi::{callback_returning_at, param};
use crate::access::{Addr, peek, poke};
use crate::bugcheck::BugCheck;
use crate::ke::irql;
use crate::kernel::Kernel;
use crate::trap::kernel;

/// `WORK_QUEUE_ITEM`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WorkQueueItem {
    next: usize,
    previous: usize,
    routine: usize,
    parameter: usize,
}

/// Queued items by address, with their routines.
pub(crate) type Queued = BTreeMap<usize, usize>;

/// Stops the machine for a queue or a routine that is none.
pub(crate) fn check(k: &mut Kernel, item: usize, routine: usize, queue: i32, function: &str) {
    irql::at_most_dispatch(k, function);
    // The seven fixed queues, and those of a custom priority from 32 on.
    if !(0..7).contains(&queue) && !(32..64).contains(&queue) {
        k.bug_check(BugCheck::new(
            0xE4,
            [6, item as u64, u64::from(queue.cast_unsigned()), 0],
            format!("{function} was given the work queue {queue}, which there is not"),
        ));
    }
    if routine == 0 {
        k.bug_check(BugCheck::new(
            0xE4,
            [7, item as u64, u64::from(queue.cast_unsigned()), 0],
            format!("{function} was given no worker routine"),
        ));
    }
}

/// The bug check for an item that is in the queue already.
pub(crate) fn queued_twice(k: &mut Kernel, item: usize, queue: i32, function: &str) {
    let name = k.name_of(item).unwrap_or("a work item").to_owned();
    k.bug_check(BugCheck::new(
        0xE4,
        [1, item as u64, u64::from(queue.cast_unsigned()), 0],
        format!("{function} was given {name}, which is in a queue already"),
    ));
}

/// Calls a worker routine, which has to return at `PASSIVE_LEVEL`.
pub(crate) fn run(
    name: &'static str,
    routine: usize,
    item: usize,
    params: &[crate::abi::Param<'_>],
    parameter: usize,
) {
    callback_returning_at::<()>(name, routine, params, |before, after| {
        BugCheck::new(
            0xE1,
            [
                routine as u64,
                u64::from(after),
                parameter as u64,
                item as u64,
            ],
            format!("{name} was called at IRQL {before} and returned at {after}"),
        )
    });
}

/// `ExQueueWorkItem`.
pub(crate) fn ex_queue_work_item(item: *mut WorkQueueItem, queue: i32) {
    let address = item as usize;
    let read = peek(item);
    poke(
        item,
        WorkQueueItem {
            next: address,
            previous: address,
            ..read
        },
    );
    kernel(|k| {
        check(k, address, read.routine, queue, "ExQueueWorkItem");
        if k.ex.work_items.insert(address, read.routine).is_some() {
            queued_twice(k, address, queue, "ExQueueWorkItem");
        }
        if k.name_of(address).is_none() {
            k.name(address, "workitem");
        }
        super::queue_work(
            k,
            Box::new(move || {
                kernel(|k| k.ex.work_items.remove(&address));
                poke(
                    item,
                    WorkQueueItem {
                        next: 0,
                        ..peek(item)
                    },
                );
                run(
                    "WorkerRoutine",
                    read.routine,
                    address,
                    &[param("Parameter", &Addr(read.parameter))],
                    read.parameter,
                );
            }),
        );
    });
}

/// Memory with a queued item in it may not be freed.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    if let Some((item, _)) = k.ex.work_items.range(address..address + size).next() {
        let item = *item;
        let name = k.name_of(item).unwrap_or("a work item").to_owned();
        k.bug_check(BugCheck::new(
            0xE4,
            [0, item as u64, address as u64, (address + size) as u64],
            format!("memory is freed that holds {name}, which is queued"),
        ));
    }
}
