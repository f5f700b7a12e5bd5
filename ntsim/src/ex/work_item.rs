// SPDX-License-Identifier: MIT OR Apache-2.0

//! Executive work items: <https://learn.microsoft.com/windows-hardware/drivers/kernel/system-worker-threads>
//!
//! An item is in the queue from `ExQueueWorkItem` until a worker thread takes
//! it out, which is before its routine is called: the routine may queue the
//! item again or free it.

use std::collections::BTreeMap;

use crate::abi::{callback_returning_at, param};
use crate::access::{Addr, peek, poke};
use crate::kernel::Kernel;
use crate::origin::{Origin, Related};
use crate::rules;
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

/// Queued items by address, with where they were queued.
pub(crate) type Queued = BTreeMap<usize, Option<Origin>>;

/// An item that is queued, if there is one.
pub(crate) fn first_queued(k: &Kernel) -> Option<usize> {
    k.ex.work_items.keys().next().copied()
}

/// Where an item was queued, for a report.
pub(crate) fn where_queued(k: &Kernel, item: usize) -> Vec<Related> {
    let name = k.name_of(item).unwrap_or("the work item");
    k.ex.work_items
        .get(&item)
        .into_iter()
        .flatten()
        .map(|origin| Related::new(k, format!("{name} was queued"), Some(origin)))
        .collect()
}

/// Stops the machine for a queue or a routine that is none.
pub(crate) fn check(k: &mut Kernel, item: usize, routine: usize, queue: i32, function: &str) {
    // The seven fixed queues, and those of a custom priority from 32 on.
    if !(0..7).contains(&queue) && !(32..64).contains(&queue) {
        k.broken(
            &rules::deferred::WORK_ITEM_QUEUE,
            &[item as u64, u64::from(queue.cast_unsigned()), 0],
            format!("{function} was given the work queue {queue}, which there is not"),
        );
    }
    if routine == 0 {
        k.fatal(
            &rules::deferred::WORK_ITEM_ROUTINE,
            &[item as u64, u64::from(queue.cast_unsigned()), 0],
            format!("{function} was given no worker routine"),
        );
    }
    if crate::ex::pool::is_paged(k, item) {
        k.broken(
            &rules::deferred::WORK_ITEM_PAGED,
            &[item as u64],
            format!("{function} was given a work item in paged pool"),
        );
    }
}

/// The bug check for an item that is in the queue already.
pub(crate) fn queued_twice(k: &mut Kernel, item: usize, queue: i32, function: &str) {
    let name = k.name_of(item).unwrap_or("a work item").to_owned();
    let related = where_queued(k, item);
    k.broken_with(
        &rules::deferred::WORK_ITEM_QUEUED_TWICE,
        &[item as u64, u64::from(queue.cast_unsigned()), 0],
        format!("{function} was given {name}, which is in a queue already"),
        related,
    );
    k.unchecked(format!(
        "{function} was given {name}, which is in a queue already"
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
    callback_returning_at::<()>(name, routine, params, |k, before, after| {
        k.broken(
            &rules::deferred::WORKER_IRQL,
            &[
                routine as u64,
                u64::from(after),
                parameter as u64,
                item as u64,
            ],
            format!("{name} was called at IRQL {before} and returned at {after}"),
        );
        k.set_irql(before);
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
        let origin = Origin::of_one_of(k, k.ex.work_items.len());
        if k.ex.work_items.contains_key(&address) {
            queued_twice(k, address, queue, "ExQueueWorkItem");
        }
        k.ex.work_items.insert(address, origin);
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
        let related = where_queued(k, item);
        k.broken_with(
            &rules::deferred::WORK_ITEM_MEMORY_FREED,
            &[item as u64, address as u64, (address + size) as u64],
            format!("memory is freed that holds {name}, which is queued"),
            related,
        );
    }
}
